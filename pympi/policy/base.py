# SPDX-License-Identifier: BSD-2-Clause
"""What a policy module is: a small class that answers with access vectors.

Every module is asked about everything; a method it does not write has no opinion (TrustedBSD's
framework: an absent hook). `pympi.policy.composition` composes the answers.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..enums import ALL, CLASSES, ObjectClass
from ..errors import PolicyError, code_name

__all__ = ["Decision", "PolicyModule"]


class Enforcer(Protocol):
    """What has modules in force: `pympi.policy.engine.Policies`."""

    def has(self, module: PolicyModule) -> bool: ...
    def renew(self) -> None: ...
    def forked(self) -> None: ...


_enforcers: weakref.WeakSet[Enforcer] = weakref.WeakSet()
_enforcers_lock = threading.Lock()


def _in_child() -> None:
    """Renew the locks: other threads of the parent may have held them, and are not here."""
    global _enforcers_lock
    _enforcers_lock = threading.Lock()
    for enforcer in list(_enforcers):
        enforcer.forked()


os.register_at_fork(after_in_child=_in_child)


def enroll(enforcer: Enforcer) -> None:
    """Have an enforcer told, as long as it lives, of modules of its that change."""
    with _enforcers_lock:
        _enforcers.add(enforcer)


def announce(modules: Iterable[PolicyModule]) -> None:
    """Tell whoever has one of these modules in force, each once, that its answers changed.

    All are told, whatever one of them raises; the first such error is raised at the end.
    """
    changed = list(modules)
    with _enforcers_lock:
        enforcers = list(_enforcers)
    errors = []
    for enforcer in enforcers:
        try:
            if any(enforcer.has(module) for module in changed):
                enforcer.renew()
        except BaseException as error:
            errors.append(error)
    if errors:
        raise errors[0]


_SETTINGS = ("permissive", "uncached")
"""What a kernel takes from a module when it puts it in force, and anew when it is set."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A module's answer about (source, target, class): access vectors, a bit for each permission.

    The default of each field is "no opinion".

    Attributes:
        allowed (int): what is allowed.
        auditallow (int): what is recorded when it is done.
        auditdeny (int): what is recorded when it is refused; SELinux's dontaudit clears bits.
        report (int): what is allowed, but would not be without a permissive type; auditdeny says
            whether it is recorded.
    """

    allowed: int = ALL
    auditallow: int = 0
    auditdeny: int = ALL
    report: int = 0


class PolicyModule:
    """The base of policy modules. Methods run outside the kernel's lock, in the caller's thread.

    A value of this module in a label is anything hashable; `None` stands for a label that has none.
    A method that raises, or answers something else than it should, denies: never the reverse.

    Attributes:
        name (str): the module's name space in labels: lower-case letters, digits, "_".
        uncached (bool): True to be asked about every single operation, at its price.
        permissive (bool): True to have refusals recorded instead of enforced, in every kernel. Both
            may be set at any time, on the module; it is as with `changed()` then.

    Example:
        >>> class OneWay(PolicyModule):
        ...     name = "oneway"
        ...     def decide(self, source, target, tclass):
        ...         if source == "low" or tclass.name != "mach_port":
        ...             return Decision()
        ...         return Decision(allowed=~tclass.mask("send") & 0xFFFFFFFF)
        >>> OneWay().parse("low")
        'low'
    """

    name: str = ""
    uncached: bool = False
    permissive: bool = False

    def parse(self, text: str) -> Hashable:
        """Return the value that `text`, this module's part of a label, stands for.

        Raises:
            ValueError: `text` is no value of this module; say what is wrong.
        """
        return text

    def format(self, value: Any) -> str:
        """Return the one text of a value: `parse(format(value)) == value`."""
        return str(value)

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Return what a subject may do to an object; cached until the policy changes.

        Args:
            source: the subject's value.
            target: the object's value; for `recv` the sender's.
            tclass: the object's class; `tclass.mask("send recv")` gives its bits.
        """
        return Decision()

    def label_new(self, source: Any, target: Any, tclass: ObjectClass) -> Any:
        """Return the value of something new that `source` makes for `target`; None: the target's.

        Asked about every class; about ports and tasks only if the module does not write the method
        for them, `label_new_port` or `label_new_task`.

        Args:
            source: of who makes it.
            target: of what it is made for, or from: of a port its owner, of a task its parent.
            tclass: what is made.
        """
        return None

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        """Return the value of a port that `issuer` makes for `owner`; None: the owner's."""
        return self.label_new(issuer, owner, CLASSES["mach_port"])

    def label_new_task(self, parent: Any) -> Any:
        """Return the value of a task that `parent` makes; None: the parent's."""
        return self.label_new(parent, parent, CLASSES["mach_task"])

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> int:
        """Return 0 if `subject` may change an object's value so, else a Mach code.

        Asked beside the permissions relabelfrom and relabelto. Where several modules refuse, the
        precedence in `pympi.policy.composition` chooses one code.
        """
        return 0

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Return why `permission` is allowed or refused, in one line."""
        allowed = self.decide(source, target, tclass).allowed & tclass.mask(permission)
        return f"{'allows' if allowed else 'refuses'} {permission} for {source!r} to {target!r}"

    def explain_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> str:
        """Return why `check_relabel` answers as it does, in one line."""
        code = self.check_relabel(subject, old, new, tclass)
        return f"{f'refuses ({code_name(code)})' if code else 'allows'} {new!r} for {old!r}"

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in _SETTINGS:
            announce([self])

    def changed(self) -> None:
        """Tell every kernel that has this module in force that its answers are others from now on.

        To be called after the change, from any thread, also from within `decide`. When it returns,
        no operation completes any more on what the module answered before: one in flight is asked
        again. A module that is in no kernel may call it too.
        """
        announce([self])

    def reload(self) -> None:
        """Read anew where the answers come from, such as a file; by default there is nothing.

        `kernel.policies.reload()` calls this, and `changed()` after it. Do it whole or not at all:
        build what is new aside, assign it in one step at the end, and raise before that step if it
        cannot be used. Other threads ask for decisions meanwhile.
        """

    @property
    def table_obstacle(self) -> str:
        """What keeps this module's decisions from being tables, after its name; "" if nothing."""
        return "is written in Python"

    def compile_tables(self, classes: Sequence[ObjectClass], before: Any) -> Any:
        """Return this module's decisions as a `pympi.policy.tables.Table`.

        Only a class that writes this itself is compiled. What the table says has to be what
        `decide` answers, as long as nothing is `changed()`.

        Args:
            classes: those the kernel has.
            before: the numbering of this module's last table in the kernel, or None. If it still
                holds, the table should have it, so that labels keep their values.

        Raises:
            TypeError: the class has no tables; Python goes on deciding.
        """
        raise TypeError(f"module {self.name} {self.table_obstacle}, and has no tables")

    @property
    def text_limit(self) -> int:
        """How many bytes of text `rewritten` takes; 0: the module is not made of text."""
        return 0

    def rewritten(self, texts: Sequence[tuple[str, str]]) -> PolicyModule:
        """Return what this module would be if it were made of other texts; it stays as it is.

        `kernel.policies.rewrite()` calls this. All else is as it was: limits, settings, and the
        files that `reload` reads.

        Args:
            texts: name and text of each.

        Raises:
            PolicyError: no such module can be made of them, with the place; or of no texts at all.
        """
        raise PolicyError(f"the policy module {self.name!r} is not made of text")

    @classmethod
    def answers(cls, method: str) -> bool:
        """Tell whether the module has an opinion in `method`: whether it writes it itself."""
        return getattr(cls, method) is not getattr(PolicyModule, method)
