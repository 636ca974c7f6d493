# SPDX-License-Identifier: BSD-2-Clause
"""The security server: the modules in force, what they are asked, and what the core is told.

A label's text in the core is that of `pympi.label`. When a module is unloaded, its values are gone:
a later module of the same name is filed under `name@2`, and so never sees them.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, overload

from .. import _upcall
from .._ffi import ffi, lib
from ..enums import ALL, CLASSES, ObjectClass
from ..errors import (
    ForkedError,
    KernelClosed,
    LabelError,
    MachError,
    PolicyError,
    check,
    exception,
)
from ..label import EMPTY, format_label
from .answers import Change
from .base import PolicyModule, announce, enroll
from .composition import Composition, ModuleFailed
from .native import Given, Native, NativeState
from .shadow import Counts, Shadow

__all__ = ["Policies"]

_log = logging.getLogger("pympi.policy")

_KEPT_LABELS = 1024


class Policies:
    """The policy modules of a kernel: `kernel.policies`.

    Whatever changes them moves the kernel's epoch, so that nothing decided before is used after.

    Example:
        >>> from pympi import Kernel
        >>> from pympi.policy import Partition
        >>> with Kernel() as kernel:
        ...     kernel.policies.load(Partition())
        ...     list(kernel.policies)
        ['partition']
    """

    def __init__(self, pointer: Any, borrowed: bool = False) -> None:
        self._pointer = pointer
        self._deciding = False
        self._lock = threading.RLock()
        self._generations: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._counts = Counts()
        self._composition = Composition({}, self._failures)
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._classes = {tclass.number: tclass for tclass in CLASSES.values()}
        self._native = Native(pointer)
        self._number = _upcall.register(self._decide)
        if not borrowed:  # somebody else may decide there, until modules are loaded here
            self._begin_deciding()
        enroll(self)

    def _begin_deciding(self) -> None:
        context = _upcall.context(self._number)
        check(lib.pm_kernel_set_decider(self._pointer, _upcall.DECIDER, context), "policy")
        self._deciding = True

    # ---- modules ----

    def __iter__(self) -> Iterator[str]:
        return iter([module.name for module in self._composition.modules.values()])

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __len__(self) -> int:
        return len(self._composition.modules)

    def __getitem__(self, name: str) -> PolicyModule:
        return self._composition.modules[self._filed_name(name)]

    def _filed_name(self, name: str) -> str:
        for filed, module in self._composition.modules.items():
            if module.name == name:
                return filed
        loaded = ", ".join(self) or "none"
        raise KeyError(f"no policy module {name!r}; loaded: {loaded}")

    def load(self, *modules: PolicyModule) -> None:
        """Put modules in force, at once.

        Raises:
            PolicyError: a module has no proper name, or one that is loaded.
        """
        with self._lock:
            changed = dict(self._composition.modules)
            for module in modules:
                self._refuse_name(module, {m.name for m in changed.values()})
                generation = self._generations[module.name] + 1
                changed[module.name + (f"@{generation}" if generation > 1 else "")] = module
            self._enforce(modules=changed)
            self._generations.update(module.name for module in modules)

    def _refuse_name(self, module: PolicyModule, taken: set[str]) -> None:
        if not isinstance(module, PolicyModule):
            raise TypeError(f"a policy module is an instance of PolicyModule, not {module!r}")
        if module.name in taken:
            raise PolicyError(f"a policy module {module.name!r} is loaded already; use replace()")
        try:
            if "@" in module.name:
                raise LabelError("'@' is not for names")
            format_label({module.name: "x"})
        except LabelError as error:
            raise PolicyError(f"policy module {module!r}: {error}") from None

    def unload(self, name: str) -> None:
        """Take a module out of force; its values vanish from all labels.

        Raises:
            KeyError: no such module is loaded.
        """
        with self._lock:
            filed = self._filed_name(name)
            modules = self._composition.modules
            self._enforce(
                modules={key: module for key, module in modules.items() if key != filed},
                shadows=self._shadows_but(filed),
                soft=self._composition.soft - {filed},
            )

    @overload
    def replace(self, name: str, module: PolicyModule) -> None: ...
    @overload
    def replace(self, name: str, module: PolicyModule, *, shadow: Literal[True]) -> Shadow: ...
    @overload
    def replace(self, name: str, module: PolicyModule, *, shadow: bool) -> Shadow | None: ...
    def replace(self, name: str, module: PolicyModule, *, shadow: bool = False) -> Shadow | None:
        """Put `module` in the place of the one called `name`; labels keep their values.

        Whatever has a value that the new module cannot read is refused everything.

        Args:
            name: of a module in force.
            module: goes by the same name.
            shadow: only try it: the present module stays in force, and the `Shadow` returned tells
                where the new one differs. It ends when the present module goes, or another shadow
                takes its place.

        Raises:
            KeyError: no such module is loaded.
            PolicyError: the new one goes by another name.
            LimitExceeded: no memory to count differences.
        """
        if module.name != name:
            raise PolicyError(f"{module.name!r} cannot replace {name!r}: the labels would not fit")
        with self._lock:
            filed = self._filed_name(name)
            if not shadow:
                self._put_in_place(filed, module)
                return None
            made = Shadow(name, module, self._collect, self._end_shadow, self._lock)
            self._enforce(shadows={**self._composition.shadows, filed: made})
            return made

    def _put_in_place(self, filed: str, module: PolicyModule) -> None:
        modules = {**self._composition.modules, filed: module}
        self._enforce(modules=modules, shadows=self._shadows_but(filed))

    def shadow(self, name: str) -> Shadow:
        """Return the shadow of a module.

        Raises:
            KeyError: no such module is loaded, or it has no shadow.
        """
        filed = self._filed_name(name)
        try:
            return self._composition.shadows[filed]
        except KeyError:
            raise KeyError(f"policy module {name!r} has no shadow") from None

    def _shadows_but(self, filed: str) -> dict[str, Shadow]:
        shadows = self._composition.shadows
        return {name: shadow for name, shadow in shadows.items() if name != filed}

    def _end_shadow(self, shadow: Shadow, commit: bool) -> None:
        filed = next(f for f, known in self._composition.shadows.items() if known is shadow)
        if commit:
            self._put_in_place(filed, shadow.module)
        else:
            self._enforce(shadows=self._shadows_but(filed))

    def _collect(self, shadows: Mapping[str, Shadow] | None = None) -> None:
        """Give the shadows, by default those there are, what the core counted for them."""
        if self._pointer is None:
            return
        rows, lost = self._counts.take(self._pointer)
        for shadow in (self._composition.shadows if shadows is None else shadows).values():
            for row in rows:
                shadow.counted(row)
            shadow.lost(lost)

    def reload(self, name: str | None = None) -> None:
        """Have a module, or all of them, read anew where its answers come from, and ask it again.

        When this returns, no operation completes on what was decided before: what is in flight is
        asked again, and what waits is asked when it goes on.

        Raises:
            KeyError: no such module is loaded.
            Exception: a module raised it. That one answers as before; the new answers of those
                that were reloaded before it are in force.
        """
        modules = list(self._composition.modules.values()) if name is None else [self[name]]
        reloaded = []
        try:
            for module in modules:
                module.reload()
                reloaded.append(module)
        finally:
            try:
                self.renew()
            finally:
                announce(reloaded)

    @overload
    def rewrite(self, texts: Sequence[tuple[str, str]], name: str | None = None) -> None: ...
    @overload
    def rewrite(
        self, texts: Sequence[tuple[str, str]], name: str | None = None, *, shadow: bool
    ) -> Shadow | None: ...
    def rewrite(
        self, texts: Sequence[tuple[str, str]], name: str | None = None, *, shadow: bool = False
    ) -> Shadow | None:
        """Put another text in force in a module, as far as it is made of text, like `te`.

        All is made aside before anything changes. The module is another object then, in this
        kernel alone: labels keep their values, the module its limits, settings and booleans.

        Args:
            texts: name and text of each; they make one policy.
            name: of a module in force; None: the only one that is made of text.
            shadow: only try it, as with `replace`.

        Raises:
            KeyError: no such module is loaded.
            PolicyError: with the place: it is no policy; or the module is not made of text, or was
                replaced meanwhile. What was in force stays so.
        """
        module = self.written(name)
        made = module.rewritten(texts)
        with self._lock:
            if not any(module is known for known in self._composition.modules.values()):
                raise PolicyError(f"the policy module {module.name!r} was replaced meanwhile")
            return self.replace(module.name, made, shadow=shadow)

    def written(self, name: str | None = None) -> PolicyModule:
        """Return a module that is made of text: that of this name, or the only one.

        Raises:
            KeyError: no such module is loaded.
            PolicyError: it is not made of text; or without a name, none is, or several are.
        """
        if name is not None:
            if not self[name].text_limit:
                raise PolicyError(f"the policy module {name!r} is not made of text")
            return self[name]
        found = [m for m in self._composition.modules.values() if m.text_limit]
        if len(found) != 1:
            names = ", ".join(module.name for module in found) or "none of those loaded"
            raise PolicyError(f"which policy module? Made of text: {names}")
        return found[0]

    def has(self, module: PolicyModule) -> bool:
        """Tell whether a module is in force here, or on trial as a shadow."""
        with self._lock:  # it may be on its way in, and have been looked at before it changed
            composition = self._composition
        trials = [shadow.module for shadow in composition.shadows.values()]
        return any(module is known for known in (*composition.modules.values(), *trials))

    def forked(self) -> None:
        """In a child of fork(), where a thread that held the lock is no more: make another."""
        self._lock = threading.RLock()
        for shadow in self._composition.shadows.values():
            shadow.lock = self._lock

    def renew(self) -> None:
        """Move the epoch: whatever was decided is asked again. Does nothing once closed."""
        with self._lock:
            if self._pointer is not None:
                with suppress(ForkedError):
                    self._enforce()

    @property
    def permissive(self) -> bool:
        """True: refusals are recorded, and nothing is refused, also where a module fails."""
        return self._composition.permissive

    @permissive.setter
    def permissive(self, permissive: bool) -> None:
        with self._lock:
            self._enforce(permissive=bool(permissive))

    def set_permissive(self, name: str, permissive: bool = True) -> None:
        """Have a module's refusals recorded instead of enforced, or enforced again.

        This is a setting of the name in this kernel: it stays when the module is replaced, and goes
        when it is unloaded. A module that has `permissive` itself is so in every kernel.

        Raises:
            KeyError: no such module is loaded.
        """
        with self._lock:
            filed = {self._filed_name(name)}
            soft = self._composition.soft
            self._enforce(soft=soft | filed if permissive else soft - filed)

    def is_permissive(self, name: str) -> bool:
        """Tell whether refusals of a module are recorded instead of enforced.

        Raises:
            KeyError: no such module is loaded.
        """
        filed = self._filed_name(name)
        composition = self._composition
        return composition.permissive or composition.is_permissive(filed)

    @property
    def failures(self) -> dict[str, int]:
        """How often each module raised or answered nonsense; each time it denied."""
        return dict(self._failures)

    @property
    def epoch(self) -> int:
        """Counts changes of policy."""
        return int(lib.pm_kernel_epoch(self._kernel))

    @property
    def native(self) -> NativeState:
        """Whether the core decides misses by itself, without Python, and why not.

        Example:
            >>> from pympi import Kernel
            >>> from pympi.policy import Count
            >>> with Kernel(policies=[Count()]) as kernel:
            ...     kernel.policies.native.why
            'module count is asked about every operation'
        """
        with self._lock:
            self._kernel  # noqa: B018  raises once it is closed
            return self._native.state(self._composition)

    @property
    def _kernel(self) -> Any:
        if self._pointer is None:
            raise KernelClosed(lib.KERN_TERMINATED)
        return self._pointer

    def _enforce(self, **changes: Any) -> None:
        """Put the composition in force with these changes, or change nothing. The lock is held.

        Deciders wait for the lock, so each is of the policy before or of the one after, and what
        the core counted until then is of the shadows before.
        """
        pointer, before = self._kernel, self._composition
        after = before.but(**changes)
        flags = after.flags
        if after.shadows:
            self._counts.switch(pointer, on=True)
        if not self._deciding:
            self._begin_deciding()
        self._native.restart()
        self._composition = after  # before the call, since Ctrl-C may arrive right after it
        code = lib.pm_kernel_set_policy(pointer, flags)
        if code:
            self._composition = before
        check(code, "policy")
        self._collect(before.shadows)
        for shadow in before.shadows.values():
            if shadow not in after.shadows.values():
                shadow.ended(pointer)
        if not after.shadows:
            self._counts.switch(pointer, on=False)

    def close(self) -> None:
        """Let the kernel go; further questions of it are refused."""
        with self._lock:
            if self._deciding:
                lib.pm_kernel_set_decider(self._pointer, ffi.NULL, ffi.NULL)
            self._end_shadows()
            for sid in self._kept.values():
                lib.pm_sid_release(self._pointer, sid)
            self._kept.clear()
            _upcall.forget(self._number)
            self._pointer = None

    def _end_shadows(self) -> None:
        with suppress(ForkedError):
            self._collect()
        for shadow in self._composition.shadows.values():
            shadow.ended(self._pointer)

    # ---- classes ----

    def add_class(self, tclass: ObjectClass) -> None:
        """Make a class of an interface known."""
        with self._lock:
            self._classes[tclass.number] = tclass
            self._native.restart()

    def object_class(self, name: str | int) -> ObjectClass:
        """Return a class by name or number.

        Raises:
            ValueError: there is none; the message lists those there are.
        """
        if isinstance(name, int) and name in self._classes:
            return self._classes[name]
        for tclass in self._classes.values():
            if name == tclass.name:
                return tclass
        known = ", ".join(tclass.name for tclass in self._classes.values())
        raise ValueError(f"no class {name!r}; there are: {known}")

    # ---- labels ----

    def intern(self, text: str, payer: Any = ffi.NULL) -> int:
        """Return the SID of a user's label, and a reference to it that is the caller's.

        Raises:
            LabelError: not a label, or one that the modules do not take.
            LimitExceeded: the payer's quota, memory or numbers are exhausted.
        """
        return self._intern(self._composition.filed(text), payer)

    def _intern(self, filed: str, payer: Any = ffi.NULL) -> int:
        try:
            raw = filed.encode()
        except UnicodeEncodeError as error:
            raise LabelError(f"label {filed!r}: {error.reason}") from None
        sid = lib.pm_sid_intern(self._kernel, payer, raw, len(raw))
        if sid == -lib.KERN_INVALID_ARGUMENT:
            raise LabelError(f"a label has at most {lib.PM_LABEL_MAX} bytes, this {len(raw)}")
        if sid < 0:
            raise exception(sid, f"label {filed!r}")
        if given := self._native.given():
            given.give(sid, filed)
        return int(sid)

    def text(self, sid: int) -> str:
        """Return the label of a SID as users see it; "-" for SID 0, which is the kernel's.

        Raises:
            MachError: KERN_INVALID_ARGUMENT for a SID that stands for nothing.
        """
        return self._composition.shown(self._filed_text(sid)) if sid else EMPTY

    def _filed_text(self, sid: int) -> str:
        room = 256
        while True:
            buffer = ffi.new("char[]", room)
            length = lib.pm_sid_text(self._kernel, sid, buffer, room)
            if length < 0:
                raise exception(length, f"SID {sid}")
            if length <= room:
                return str(ffi.unpack(buffer, length), "utf-8")
            room = length

    def explanations(self, ssid: int, tsid: int, tclass: ObjectClass, permission: str) -> list[str]:
        """Return what each module says about a permission, a line each."""
        composition = self._composition
        source, target = (composition.values(self._filed_text(sid)) for sid in (ssid, tsid))
        return composition.explain(source, target, tclass, permission)

    def relabel_explanations(
        self, ssid: int, old: int, new: int, tclass: ObjectClass
    ) -> tuple[Change, list[str]]:
        """Return the modules' answer about a change of label, and what each says, a line each.

        In a permissive kernel nothing refuses: it is reported.
        """
        composition = self._composition
        subject, before, after = (self._filed_text(sid) for sid in (ssid, old, new))
        change = composition.check_relabel(subject, before, after, tclass)
        if composition.permissive:
            change = Change(0, change.reported or bool(change.code), ())
        return change, composition.explain_relabel(subject, before, after, tclass)

    def filed_text(self, label: str | int) -> str:
        """Return a label as the core files it.

        Args:
            label: as users write it, or a SID.

        Raises:
            LabelError: not a label, or one that the modules do not take.
            MachError: KERN_INVALID_ARGUMENT for a SID that stands for nothing.
        """
        if isinstance(label, str):
            return self._composition.filed(label)
        return self._filed_text(label)

    def refused_by(
        self, source: str | int, target: str | int, tclass: str | int,
        permissions: str | int | Iterable[str],
    ) -> tuple[str, ...]:  # fmt: skip
        """Return the names of the modules that refuse one of these permissions.

        They are asked anew. A permissive module refuses nothing; one that fails refuses everything.

        Args:
            source, target: labels, or their SIDs, as in an audit record.
            tclass: the class of the object, by name or number.
            permissions: one or several, by name or as a vector.

        Example:
            >>> from pympi import Kernel
            >>> from pympi.policy import Partition, Stub
            >>> with Kernel(policies=[Partition(), Stub()]) as kernel:
            ...     kernel.policies.refused_by("partition/a", "partition/b", "mach_port", "send")
            ('partition',)
        """
        kind = self.object_class(tclass)
        return self.refusers(source, target, kind, kind.mask(permissions))()

    def refusers(
        self, source: str | int, target: str | int, tclass: ObjectClass, permissions: int
    ) -> Callable[[], tuple[str, ...]]:
        """Return what `refused_by` does, to be asked later and of the modules of now."""
        texts = self.filed_text(source), self.filed_text(target)
        return functools.partial(self._composition.refused_by, *texts, tclass, permissions)

    def let_pass(self, source: int, target: int, tclass: ObjectClass, reported: int) -> int:
        """Return those of the reported permissions that only something permissive lets pass.

        The others are those that a shadow would refuse; the modules are asked if there is one.
        """
        composition = self._composition
        if not composition.shadows:
            return reported
        texts = self._filed_text(source), self._filed_text(target)
        return reported & composition.let_pass(*texts, tclass)

    def new_label(self, source: str | int, target: str | int, tclass: str | int) -> str:
        """Return the label that something new would have, as users see it.

        Args:
            source: of who makes it.
            target: of what it is made for; what no module chooses comes from here.
            tclass: what is made, by name or number.

        Raises:
            ValueError: there is no such class.
            MachError: KERN_NO_ACCESS: a module failed.
        """
        composition = self._composition
        texts = self.filed_text(source), self.filed_text(target)
        kind = self.object_class(tclass)
        try:
            return composition.shown(composition.new_label(*texts, kind))
        except ModuleFailed as failed:
            raise exception(lib.KERN_NO_ACCESS, f"new_label(): {failed} failed") from failed
        except Exception as error:
            self._failures["engine"] += 1
            _log.warning("a label could not be computed: %r", error, exc_info=error)
            raise exception(lib.KERN_NO_ACCESS, "new_label()") from error

    # ---- questions of the core ----

    def _decide(self, queries: Any, count: int, _epoch: int) -> int:
        with self._lock:
            composition = self._composition
            given = self._native.ask(composition, self._classes.values(), count)
        for index in range(count):
            self._answer(composition, given, queries[index])
        return 0

    def _answer(self, composition: Composition, given: Given | None, query: Any) -> None:
        """Answer one question; one that cannot be answered keeps its preset: refused."""
        query.uncached = True
        try:
            self._KINDS[query.kind](self, composition, query)
            if given and query.kind == lib.PM_QUERY_ACCESS:
                for sid in (query.ssid, query.tsid):
                    given.give(sid, self._filed_text(sid))
        except ModuleFailed:
            return
        except BaseException as error:
            self._failures["engine"] += 1
            _log.warning("a question of the kernel failed, denied: %r", error, exc_info=error)
            if isinstance(error, KeyboardInterrupt):
                _upcall.interrupt()

    def _access(self, composition: Composition, query: Any) -> None:
        tclass = self._classes.get(query.tclass)
        try:
            source, target = self._filed_text(query.ssid), self._filed_text(query.tsid)
        except MachError:
            return
        if tclass is None:
            return
        decision, lasting, trials = composition.decide(source, target, tclass)
        differing = 0
        for shadow, present, answer in trials:
            labels = composition.shown(source), composition.shown(target)
            differing |= shadow.saw(self._kernel, query, labels, tclass, present, answer)
        query.auditallow, query.auditdeny = decision.auditallow, decision.auditdeny | differing
        query.report, query.allowed = decision.report | differing, decision.allowed
        query.uncached = not lasting

    def _label(self, tclass: ObjectClass, composition: Composition, query: Any) -> None:
        source, target = self._filed_text(query.ssid), self._filed_text(query.tsid)
        query.label = self._keep(composition.new_label(source, target, tclass))
        query.code = 0

    def _label_port(self, composition: Composition, query: Any) -> None:
        self._label(CLASSES["mach_port"], composition, query)

    def _label_task(self, composition: Composition, query: Any) -> None:
        self._label(CLASSES["mach_task"], composition, query)

    def _relabel(self, composition: Composition, query: Any) -> None:
        query.code = lib.KERN_NO_ACCESS
        subject, old, new = map(self._filed_text, (query.ssid, query.tsid, query.label))
        change = composition.check_relabel(subject, old, new, self._classes[query.tclass])
        query.code, query.report = change.code, ALL if change.reported else 0

    _KINDS = {
        lib.PM_QUERY_ACCESS: _access,
        lib.PM_QUERY_LABEL_PORT: _label_port,
        lib.PM_QUERY_LABEL_TASK: _label_task,
        lib.PM_QUERY_RELABEL: _relabel,
    }

    def _keep(self, filed: str) -> int:
        """Return the SID of a label that the core borrows: the reference stays here for a while."""
        with self._lock:
            if filed not in self._kept:
                self._kept[filed] = self._intern(filed)
            self._kept.move_to_end(filed)
            if len(self._kept) > _KEPT_LABELS:
                lib.pm_sid_release(self._kernel, self._kept.popitem(last=False)[1])
            return self._kept[filed]
