# SPDX-License-Identifier: BSD-2-Clause
"""The security server: what modules answer, composed, and told to the core.

Every module is asked (TrustedBSD's MAC framework). Allowed is the AND of the answers, auditallow
the OR, auditdeny the OR over those that refused. Where modules answer with codes, `PRECEDENCE`
chooses. So the order in which modules were loaded changes nothing.

A label's text in the core is that of `pympi.label`. When a module is unloaded, its values are gone:
a later module of the same name is filed under `name@2`, and so never sees them.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import _upcall
from .._ffi import ffi, lib
from ..enums import ALL, CLASSES, ObjectClass
from ..errors import KernelClosed, LabelError, MachError, PolicyError, check, exception
from ..label import EMPTY, format_label, parse_label
from .base import Decision, PolicyModule

__all__ = ["PRECEDENCE", "Composition", "Policies", "compose"]

_log = logging.getLogger("pympi.policy")

PRECEDENCE: tuple[int, ...] = (
    lib.KERN_INVALID_ARGUMENT,
    lib.KERN_INVALID_VALUE,
    lib.KERN_INVALID_TASK,
    lib.KERN_INVALID_NAME,
    lib.KERN_NO_ACCESS,
    lib.KERN_DENIED,
)
"""Which code wins where several modules refuse: what is wrong with the call, then what must not be
seen, then access, then privilege (as TrustedBSD's mac_error_select orders errno). Any other code
comes after these, the smallest first."""

NOTHING = Decision(allowed=0, auditallow=0, auditdeny=ALL)
"""The answer of a module that failed."""

# What a module may answer, and how the core is told that there is one to ask.
_FLAGS = {
    "decide": lib.PM_POLICY_LOADED,
    "label_new_port": lib.PM_POLICY_LABELS_PORTS,
    "label_new_task": lib.PM_POLICY_LABELS_TASKS,
    "check_relabel": lib.PM_POLICY_CHECKS_RELABEL,
}
_KEPT_LABELS = 1024
_KNOWN_LABELS = 1 << 12


class _Broken:
    """The value of a label's part that its module cannot read: refused everything."""

    def __repr__(self) -> str:
        return "<a value its module cannot read>"


_BROKEN = _Broken()


def compose(answers: Iterable[Decision]) -> Decision:
    """Return the one decision of several modules' answers, whatever their order.

    Example:
        >>> compose([Decision(allowed=6), Decision(allowed=5, auditallow=1)])
        Decision(allowed=4, auditallow=1, auditdeny=4294967291, report=0)
    """
    allowed, auditallow, auditdeny, report = ALL, 0, 0, 0
    for answer in answers:
        allowed &= answer.allowed
        auditallow |= answer.auditallow
        auditdeny |= answer.auditdeny & ~answer.allowed
        report |= answer.report
    return Decision(allowed, auditallow, auditdeny & ALL, report)


def first_code(codes: Iterable[int]) -> int:
    """Return the code that wins among the modules' answers; 0 if none refuses."""
    refusals = sorted({code for code in codes if code})
    known = [code for code in PRECEDENCE if code in refusals]
    return (known or refusals or [0])[0]


def validated(answer: object) -> Decision:
    """Return a module's answer if it is one, in numbers that do nothing of their own.

    Raises:
        TypeError: it is no `Decision` of access vectors.
    """
    if not isinstance(answer, Decision):
        raise TypeError(f"decide() must return a Decision, not {answer!r}")
    fields = (answer.allowed, answer.auditallow, answer.auditdeny, answer.report)
    return Decision(*map(_vector, fields))


def _vector(number: object) -> int:
    if isinstance(number, int) and not isinstance(number, bool):
        plain = int.__index__(number)
        if 0 <= plain <= ALL:
            return plain
    raise TypeError(f"an access vector is an int from 0 to 2**32 - 1, not {number!r}")


def _permissive(answer: Decision) -> Decision:
    refused = ~answer.allowed & ALL
    return Decision(ALL, answer.auditallow, answer.auditdeny, answer.report | refused)


class Composition:
    """The modules in force at one time; never changed, only replaced whole.

    Attributes:
        modules (dict[str, PolicyModule]): by the name under which their values are filed.
        failures (Counter[str]): by module, how often it failed; shared with `Policies`.
    """

    def __init__(self, modules: Mapping[str, PolicyModule], failures: Counter[str]) -> None:
        self.modules = dict(sorted(modules.items()))
        self.failures = failures
        self._asked = {
            method: [pair for pair in enumerate(self.modules.values()) if pair[1].answers(method)]
            for method in _FLAGS
        }
        self.uncached = any(module.uncached for module in modules.values())
        self.values = functools.lru_cache(maxsize=_KNOWN_LABELS)(self._values)
        self.filed = functools.lru_cache(maxsize=_KNOWN_LABELS)(self._filed)

    def _failed(self, module: PolicyModule, error: BaseException) -> None:
        self.failures[module.name] += 1
        _log.warning("policy module %s failed, denied: %r", module.name, error, exc_info=error)
        if isinstance(error, KeyboardInterrupt):
            _upcall.interrupt()

    def _values(self, text: str) -> tuple[Any, ...]:
        """Return the values in a label of the core, one for each module, None for none."""
        parts = parse_label(text)
        return tuple(
            self._value(module, parts[name]) if name in parts else None
            for name, module in self.modules.items()
        )

    def _value(self, module: PolicyModule, text: str) -> Any:
        try:
            return module.parse(text)
        except BaseException as error:
            self._failed(module, error)
            return _BROKEN

    def shown(self, text: str) -> str:
        """Return a label of the core as users see it: without what has been unloaded."""
        parts = parse_label(text)
        named = ((m.name, parts[name]) for name, m in self.modules.items() if name in parts)
        return format_label(dict(named))

    def _filed(self, text: str) -> str:
        """Return a user's label as the core files it: checked by its modules, in canonical form.

        Raises:
            LabelError: a part is of no loaded module, or its module does not take it.
        """
        names = {module.name: name for name, module in self.modules.items()}
        filed = {}
        for name, value in parse_label(text).items():
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise LabelError(f"label {text!r}: no policy module {name!r}; loaded: {known}")
            filed[names[name]] = canonical(self.modules[names[name]], value, text)
        return format_label(filed)

    def answers(
        self, source: tuple[Any, ...], target: tuple[Any, ...], tclass: ObjectClass
    ) -> list[Decision]:
        """Return every module's answer."""
        return [
            self._answer(module, source[index], target[index], tclass)
            for index, module in self._asked["decide"]
        ]

    def _answer(
        self, module: PolicyModule, source: Any, target: Any, tclass: ObjectClass
    ) -> Decision:
        if source is _BROKEN or target is _BROKEN:
            return NOTHING
        try:
            answer = validated(module.decide(source, target, tclass))
        except BaseException as error:
            self._failed(module, error)
            return NOTHING
        return _permissive(answer) if module.permissive else answer

    def explain(
        self, source: tuple[Any, ...], target: tuple[Any, ...], tclass: ObjectClass, permission: str
    ) -> list[str]:
        """Return what each module says about a permission, a line each."""
        return [
            f"  {module.name}: "
            + self._reason(module, source[index], target[index], tclass, permission)
            for index, module in self._asked["decide"]
        ]

    def _reason(
        self, module: PolicyModule, source: Any, target: Any, tclass: ObjectClass, permission: str
    ) -> str:
        try:
            return str(module.explain(source, target, tclass, permission))
        except Exception as error:
            self._failed(module, error)
            return f"cannot explain: {type(error).__name__}"

    def decide(self, source: str, target: str, tclass: ObjectClass) -> tuple[Decision, bool]:
        """Return the composed decision about two labels of the core, and whether it will stay so.

        What was refused because a module failed is asked again the next time.
        """
        answers = self.answers(self.values(source), self.values(target), tclass)
        failed = any(answer is NOTHING for answer in answers)
        return compose(answers), not (failed or self.uncached)

    def new_label(self, method: str, subjects: tuple[str, ...]) -> str:
        """Return the label of something new, which `method` of the modules may choose.

        Args:
            method: "label_new_port" or "label_new_task".
            subjects: labels of the core, as the method wants them; the last one is inherited.
        """
        inherited = parse_label(subjects[-1])
        label = {name: inherited[name] for name in self.modules if name in inherited}
        values = [self.values(text) for text in subjects]
        for index, module in self._asked[method]:
            asked = [value[index] for value in values]
            chosen = None if _BROKEN in asked else getattr(module, method)(*asked)
            if chosen is not None:
                label[list(self.modules)[index]] = module.format(chosen)
        return format_label(label)

    def check_relabel(self, subject: str, old: str, new: str, tclass: ObjectClass) -> int:
        """Return 0, or the code that wins among those of the modules that refuse."""
        labels = [self.values(text) for text in (subject, old, new)]
        codes = []
        for index, module in self._asked["check_relabel"]:
            who, before, after = (label[index] for label in labels)
            broken = _BROKEN in (who, before, after)
            code = (
                lib.KERN_NO_ACCESS if broken else module.check_relabel(who, before, after, tclass)
            )
            if not isinstance(code, int) or isinstance(code, bool):
                raise TypeError(f"check_relabel() must return a Mach code, not {code!r}")
            codes.append(code)
        return first_code(codes)

    @property
    def flags(self) -> int:
        """What the core has to ask about: enum pm_policy_flag."""
        return sum(flag for method, flag in _FLAGS.items() if self._asked[method])


def canonical(module: PolicyModule, value: str, label: str) -> str:
    """Return the one text of a value, as its module writes it.

    Raises:
        LabelError: the module does not take it, or does not read what it writes.
    """
    try:
        parsed = module.parse(value)
        text = module.format(parsed)
        if module.parse(text) != parsed:
            raise ValueError(f"{module.name} writes {text!r} and reads it differently")
    except Exception as error:
        raise LabelError(f"label {label!r}: {module.name}: {error}") from error
    return text


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

    def __init__(self, pointer: Any) -> None:
        self._pointer = pointer
        self._lock = threading.RLock()
        self._permissive = False
        self._generations: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._composition = Composition({}, self._failures)
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._classes = {tclass.number: tclass for tclass in CLASSES.values()}
        self._number = _upcall.register(self._decide)
        context = _upcall.context(self._number)
        check(lib.pm_kernel_set_decider(pointer, _upcall.DECIDER, context))

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
                self._generations[module.name] += 1
                generation = self._generations[module.name]
                changed[module.name + (f"@{generation}" if generation > 1 else "")] = module
            self._enforce(changed)

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
            self._enforce({key: module for key, module in modules.items() if key != filed})

    def replace(self, name: str, module: PolicyModule) -> None:
        """Put `module` in the place of the one called `name`; labels keep their values.

        Whatever has a value that the new module cannot read is refused everything.

        Raises:
            KeyError: no such module is loaded.
            PolicyError: the new one goes by another name.
        """
        if module.name != name:
            raise PolicyError(f"{module.name!r} cannot replace {name!r}: the labels would not fit")
        with self._lock:
            self._enforce({**self._composition.modules, self._filed_name(name): module})

    @property
    def permissive(self) -> bool:
        """True: refusals are recorded, and nothing is refused."""
        return self._permissive

    @permissive.setter
    def permissive(self, permissive: bool) -> None:
        with self._lock:
            self._permissive = bool(permissive)
            self._enforce(self._composition.modules)

    @property
    def failures(self) -> dict[str, int]:
        """How often each module raised or answered nonsense; each time it denied."""
        return dict(self._failures)

    @property
    def epoch(self) -> int:
        """Counts changes of policy."""
        return int(lib.pm_kernel_epoch(self._kernel))

    @property
    def _kernel(self) -> Any:
        if self._pointer is None:
            raise KernelClosed(lib.KERN_TERMINATED)
        return self._pointer

    def _enforce(self, modules: Mapping[str, PolicyModule]) -> None:
        pointer = self._kernel
        self._composition = Composition(modules, self._failures)
        flags = self._composition.flags | (self._permissive and lib.PM_POLICY_PERMISSIVE)
        check(lib.pm_kernel_set_policy(pointer, flags))

    def close(self) -> None:
        """Let the kernel go; further questions of it are refused."""
        lib.pm_kernel_set_decider(self._pointer, ffi.NULL, ffi.NULL)
        for sid in self._kept.values():
            lib.pm_sid_release(self._pointer, sid)
        self._kept.clear()
        _upcall.forget(self._number)
        self._pointer = None

    # ---- classes ----

    def add_class(self, tclass: ObjectClass) -> None:
        """Make a class of an interface known."""
        self._classes[tclass.number] = tclass

    def object_class(self, name: str | int) -> ObjectClass:
        """Return a class by name or number.

        Raises:
            ValueError: there is none; the message lists those there are.
        """
        for tclass in self._classes.values():
            if name in (tclass.name, tclass.number):
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

    # ---- questions of the core ----

    def _decide(self, queries: Any, count: int, _epoch: int) -> int:
        composition = self._composition
        for index in range(count):
            self._answer(composition, queries[index])
        return 0

    def _answer(self, composition: Composition, query: Any) -> None:
        """Answer one question; one that cannot be answered keeps its preset: refused."""
        query.uncached = True
        try:
            self._KINDS[query.kind](self, composition, query)
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
        decision, lasting = composition.decide(source, target, tclass)
        query.auditallow, query.auditdeny = decision.auditallow, decision.auditdeny
        query.report, query.allowed = decision.report, decision.allowed
        query.uncached = not lasting

    def _label_port(self, composition: Composition, query: Any) -> None:
        subjects = (self._filed_text(query.ssid), self._filed_text(query.tsid))
        query.label = self._keep(composition.new_label("label_new_port", subjects))
        query.code = 0

    def _label_task(self, composition: Composition, query: Any) -> None:
        subjects = (self._filed_text(query.ssid),)
        query.label = self._keep(composition.new_label("label_new_task", subjects))
        query.code = 0

    def _relabel(self, composition: Composition, query: Any) -> None:
        query.code = lib.KERN_NO_ACCESS
        subject, old, new = map(self._filed_text, (query.ssid, query.tsid, query.label))
        query.code = composition.check_relabel(subject, old, new, self._classes[query.tclass])

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
