# SPDX-License-Identifier: BSD-2-Clause
"""Modules composed: one answer of many.

Every module is asked (TrustedBSD's MAC framework), and `pympi.policy.answers` makes one answer of
theirs, so that the order in which modules were loaded changes nothing.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .. import _upcall
from .._ffi import lib
from ..enums import ALL, ObjectClass
from ..errors import LabelError
from ..label import format_label, parse_label
from .answers import (
    NOTHING,
    Change,
    Trial,
    Verdict,
    checked_code,
    compose,
    first_code,
    permissive,
    validated,
)
from .base import Decision, PolicyModule
from .shadow import Shadow

__all__ = ["Composition", "ModuleFailed"]

_log = logging.getLogger("pympi.policy")

_NO_OPINION = Decision()
_UNREADABLE = Decision(allowed=0, auditallow=0, auditdeny=ALL)
"""The answer of a shadow for a value that it cannot read: the same the next time."""

# How the core is told that there is a module to ask: a method, or the label of a new object.
_FLAGS = {
    "decide": lib.PM_POLICY_LOADED,
    "mach_port": lib.PM_POLICY_LABELS_PORTS,
    "mach_task": lib.PM_POLICY_LABELS_TASKS,
    "check_relabel": lib.PM_POLICY_CHECKS_RELABEL,
}
# By class: the method that is asked for a label instead of `label_new` where a module writes it,
# and how many of (source, target, class) it takes.
_LABELLERS = {"mach_port": ("label_new_port", 2), "mach_task": ("label_new_task", 1)}
_KNOWN_LABELS = 1 << 12


class _Unread:
    """Stands for the value of a label's part that there is no reading: refused everything."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return f"<a value {self.why}>"


_BROKEN = _Unread("its module cannot read")
_FAILED = _Unread("at which its module failed")


def _is_in(unread: _Unread, values: Iterable[Any]) -> bool:
    """Tell whether a value is that one; the values of modules are not asked, being anything."""
    return any(value is unread for value in values)


def _unread(values: Iterable[Any]) -> bool:
    return any(isinstance(value, _Unread) for value in values)


def _labeller(module: PolicyModule, tclass: str) -> tuple[str, int] | None:
    """Return the method to ask a module for the label of something new, and what it takes."""
    asked = (_LABELLERS.get(tclass), ("label_new", 3))
    return next((each for each in asked if each and module.answers(each[0])), None)


class _NotLasting(Exception):
    """Carries a label's values past the memory of values: a module failed, and is asked again."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        super().__init__()
        self.values = values


class ModuleFailed(Exception):
    """A module failed where nothing is done without its answer. It is counted and logged."""


class Composition:
    """The modules in force at one time; never changed, only replaced whole.

    Attributes:
        modules (dict[str, PolicyModule]): by the name under which their values are filed.
        failures (Counter[str]): by module, how often it failed; shared with `Policies`.
        deciders (dict[str, PolicyModule]): those of the modules that are asked for decisions.
        shadows (dict[str, Shadow]): by the name under which the values they read are filed.
        soft (frozenset[str]): the names of modules that were set permissive in this kernel.
        permissive (bool): whether the whole kernel is.
    """

    def __init__(
        self, modules: Mapping[str, PolicyModule], failures: Counter[str],
        shadows: Mapping[str, Shadow] | None = None, soft: Collection[str] = (),
        permissive: bool = False,
    ) -> None:  # fmt: skip
        self.modules = dict(sorted(modules.items()))
        self.failures = failures
        self.shadows = dict(sorted((shadows or {}).items()))
        self.soft = frozenset(soft)
        self.permissive = permissive
        self._lenient = self.soft | {name for name, m in self.modules.items() if m.permissive}
        self._asked = {
            method: [pair for pair in enumerate(self.modules.values()) if pair[1].answers(method)]
            for method in ("decide", "check_relabel")
        }
        self.deciders = {name: m for name, m in self.modules.items() if m.answers("decide")}
        trials = [shadow.module for shadow in self.shadows.values()]
        self._trial = any(module.answers("decide") for module in trials)
        self.uncached = any(module.uncached for module in (*self.modules.values(), *trials))
        self._known = functools.lru_cache(maxsize=_KNOWN_LABELS)(self._read)
        self.filed = functools.lru_cache(maxsize=_KNOWN_LABELS)(self._filed)

    def but(self, **changes: Any) -> Composition:
        """Return this composition with some of what it is made of exchanged."""
        made_of: dict[str, Any] = {
            "modules": self.modules, "failures": self.failures, "shadows": self.shadows,
            "soft": self.soft, "permissive": self.permissive,
        }  # fmt: skip
        return Composition(**(made_of | changes))

    def _failed(self, module: PolicyModule, error: BaseException) -> None:
        self.failures[module.name] += 1
        _log.warning("policy module %s failed, denied: %r", module.name, error, exc_info=error)
        if isinstance(error, KeyboardInterrupt):
            _upcall.interrupt()

    def values(self, text: str) -> tuple[Any, ...]:
        """Return the values in a label of the core, None for none.

        One for each module, then one for each shadow, which reads the values of its module.
        """
        try:
            return self._known(text)
        except _NotLasting as unknown:
            return unknown.values

    def readable(self, text: str) -> tuple[Any, ...] | None:
        """Return the values in a label of the core; None if a module cannot read its own."""
        values = self.values(text)
        return None if _unread(values) else values

    def _read(self, text: str) -> tuple[Any, ...]:
        parts = parse_label(text)
        modules = [self._value(module, parts.get(name)) for name, module in self.modules.items()]
        shadows = [
            self._trial_value(shadow, parts.get(name)) for name, shadow in self.shadows.items()
        ]
        values = (*modules, *shadows)
        if _is_in(_FAILED, values):
            raise _NotLasting(values)
        return values

    def _value(self, module: PolicyModule, text: str | None) -> Any:
        try:
            return None if text is None else module.parse(text)
        except ValueError as error:  # an answer: there is nothing to trace
            self.failures[module.name] += 1
            _log.warning("policy module %s cannot read %r, denied: %r", module.name, text, error)
            return _BROKEN
        except BaseException as error:
            self._failed(module, error)
            return _FAILED

    def _trial_value(self, shadow: Shadow, text: str | None) -> Any:
        try:
            return None if text is None else shadow.module.parse(text)
        except ValueError:
            return _BROKEN
        except BaseException as error:
            self._trial_failed(shadow, error)
            return _FAILED

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
            filed[names[name]] = self._canonical(names[name], value, text)
        return format_label(filed)

    def _canonical(self, filed: str, value: str, label: str) -> str:
        module = self.modules[filed]
        try:
            return self._written(filed, module.parse(value))
        except Exception as error:
            raise LabelError(f"label {label!r}: {module.name}: {error}") from error

    def _written(self, filed: str, value: Any) -> str:
        """Return the one text of a value, as its module writes it.

        Raises:
            ValueError: it is no text for a label, or the module does not read what it writes.
            Exception: what the module raised.
        """
        module = self.modules[filed]
        text = module.format(value)
        format_label({filed: text})
        if module.parse(text) != value:
            raise ValueError(f"{module.name} writes {text!r} and reads it differently")
        return text

    def answers(
        self, source: tuple[Any, ...], target: tuple[Any, ...], tclass: ObjectClass
    ) -> dict[int, Decision]:
        """Return every module's answer, by its place; one that has no opinion is left out."""
        return {
            index: self._answer(module, source[index], target[index], tclass)
            for index, module in self._asked["decide"]
        }

    def _enforced(self, answers: Mapping[int, Decision]) -> dict[int, Decision]:
        """Return what of the answers is enforced. A permissive module that failed refuses too."""
        names = list(self.modules)
        return {
            index: permissive(answer)
            if answer is not NOTHING and self.is_permissive(names[index])
            else answer
            for index, answer in answers.items()
        }

    def _answer(
        self, module: PolicyModule, source: Any, target: Any, tclass: ObjectClass
    ) -> Decision:
        if _unread((source, target)):
            return NOTHING
        try:
            return validated(module.decide(source, target, tclass))
        except BaseException as error:
            self._failed(module, error)
            return NOTHING

    def _trials(
        self, source: tuple[Any, ...], target: tuple[Any, ...], tclass: ObjectClass,
        answers: Mapping[int, Decision],
    ) -> list[Trial]:  # fmt: skip
        """Return what the shadows answer, before anything permissive, as their modules do."""
        if not self.shadows:
            return []
        places = {name: index for index, name in enumerate(self.modules)}
        first = len(places)
        return [
            Trial(
                shadow,
                answers.get(places[name], _NO_OPINION),
                self._trial_answer(shadow, source[index], target[index], tclass),
            )
            for index, (name, shadow) in enumerate(self.shadows.items(), first)
        ]

    def _trial_answer(
        self, shadow: Shadow, source: Any, target: Any, tclass: ObjectClass
    ) -> Decision:
        if _is_in(_FAILED, (source, target)):
            return NOTHING
        if _is_in(_BROKEN, (source, target)):
            return _UNREADABLE
        try:
            return validated(shadow.module.decide(source, target, tclass))
        except BaseException as error:
            self._trial_failed(shadow, error)
            return NOTHING

    def _trial_failed(self, shadow: Shadow, error: BaseException) -> None:
        shadow.failed()
        _log.warning("shadow policy %s failed: %r", shadow.name, error, exc_info=error)
        if isinstance(error, KeyboardInterrupt):
            _upcall.interrupt()

    def explain(
        self, source: tuple[Any, ...], target: tuple[Any, ...], tclass: ObjectClass, permission: str
    ) -> list[str]:
        """Return what each module says about a permission, a line each."""
        return self._reasons("decide", "explain", (source, target), tclass, permission)

    def explain_relabel(self, subject: str, old: str, new: str, tclass: ObjectClass) -> list[str]:
        """Return what each module says about a change of label, a line each."""
        labels = tuple(map(self.values, (subject, old, new)))
        return self._reasons("check_relabel", "explain_relabel", labels, tclass)

    def _reasons(
        self, asked: str, method: str, labels: tuple[tuple[Any, ...], ...], *about: Any
    ) -> list[str]:
        """Return what `method` of the modules says about labels, of those that write `asked`."""
        names = list(self.modules)
        return [
            f"  {module.name}{' (permissive)' if self.is_permissive(names[index]) else ''}: "
            + self._reason(module, method, *(label[index] for label in labels), *about)
            for index, module in self._asked[asked]
        ]

    def _reason(self, module: PolicyModule, method: str, *arguments: Any) -> str:
        unread = next((value for value in arguments if isinstance(value, _Unread)), None)
        if unread:
            return f"refuses everything: there is a value {unread.why}"
        try:
            return str(getattr(module, method)(*arguments))
        except Exception as error:
            self._failed(module, error)
            return f"cannot explain: {type(error).__name__}"

    def decide(self, source: str, target: str, tclass: ObjectClass) -> Verdict:
        """Return the composed decision about two labels of the core.

        What was refused because a module failed is asked again the next time.
        """
        labels = self.values(source), self.values(target)
        answers = self.answers(*labels, tclass)
        trials = self._trials(*labels, tclass, answers)
        failed = any(answer is NOTHING for answer in answers.values()) or any(
            trial.answer is NOTHING for trial in trials
        )
        decision = compose(self._enforced(answers).values())
        return Verdict(decision, not (failed or self.uncached), trials)

    def refused_by(
        self, source: str, target: str, tclass: ObjectClass, permissions: int
    ) -> tuple[str, ...]:
        """Return the names of the modules that refuse one of these permissions."""
        answers = self._enforced(self.answers(self.values(source), self.values(target), tclass))
        modules = list(self.modules.values())
        return tuple(
            modules[index].name
            for index, answer in answers.items()
            if permissions & ~answer.allowed
        )

    def let_pass(self, source: str, target: str, tclass: ObjectClass) -> int:
        """Return the permissions that are allowed only because something is permissive."""
        answers = self.answers(self.values(source), self.values(target), tclass)
        decision = compose(self._enforced(answers).values())
        return decision.report | (ALL & ~decision.allowed if self.permissive else 0)

    def new_label(self, source: str, target: str, tclass: ObjectClass) -> str:
        """Return the label of something new: what the modules choose, the rest is the target's.

        Args:
            source, target: labels of the core: of who makes it, and of what it is made for.
            tclass: what is made.

        Raises:
            ModuleFailed: a module failed, or chose a value that it does not read back.
        """
        inherited = parse_label(target)
        label = {name: inherited[name] for name in self.modules if name in inherited}
        subject, related = self.values(source), self.values(target)
        for index, filed in enumerate(self.modules):
            chosen = self._chosen(filed, subject[index], related[index], tclass)
            if chosen is not None:
                label[filed] = chosen
        return format_label(label)

    def _chosen(self, filed: str, source: Any, target: Any, tclass: ObjectClass) -> str | None:
        """Return the text of the value that a module chooses for something new, None for none."""
        module = self.modules[filed]
        labeller = _labeller(module, tclass.name)
        if labeller is None:
            return None
        method, count = labeller
        arguments = (source, target, tclass)[:count]
        if _is_in(_FAILED, arguments):
            raise ModuleFailed(module.name)
        if _is_in(_BROKEN, arguments):
            return None
        try:
            value = getattr(module, method)(*arguments)
            return None if value is None else self._written(filed, value)
        except BaseException as error:
            self._failed(module, error)
            raise ModuleFailed(module.name) from error

    def check_relabel(self, subject: str, old: str, new: str, tclass: ObjectClass) -> Change:
        """Return what wins of the codes with which modules refuse.

        Those of permissive modules are reported only. One that fails refuses all the same.
        """
        labels = [self.values(text) for text in (subject, old, new)]
        names = list(self.modules)
        enforced: dict[str, int] = {}
        reported: dict[str, int] = {}
        for index, module in self._asked["check_relabel"]:
            who, before, after = (label[index] for label in labels)
            code = self._relabel_code(module, who, before, after, tclass)
            if code is None:
                enforced[module.name] = lib.KERN_NO_ACCESS
            elif code:
                soft = self.is_permissive(names[index])
                (reported if soft else enforced)[module.name] = code
        return Change(first_code(enforced.values()), bool(reported), tuple(enforced))

    def _relabel_code(
        self, module: PolicyModule, subject: Any, old: Any, new: Any, tclass: ObjectClass
    ) -> int | None:
        """Return a module's code; None if it failed."""
        if _unread((subject, old, new)):
            return None
        try:
            return checked_code(module.check_relabel(subject, old, new, tclass))
        except BaseException as error:
            self._failed(module, error)
            return None

    def is_permissive(self, filed: str) -> bool:
        """Tell whether a module is permissive, by itself or in this kernel."""
        return filed in self._lenient

    @property
    def flags(self) -> int:
        """What the core has to ask about and to enforce: enum pm_policy_flag."""
        modules = self.modules.values()
        labels = {kind: any(_labeller(module, kind) for module in modules) for kind in _LABELLERS}
        asked = sum(_FLAGS[what] for what, by in (self._asked | labels).items() if by)
        mode = lib.PM_POLICY_PERMISSIVE if self.permissive else 0
        return asked | mode | (self._trial and lib.PM_POLICY_LOADED)
