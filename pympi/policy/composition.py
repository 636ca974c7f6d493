# SPDX-License-Identifier: BSD-2-Clause
"""Modules composed: one answer of many.

Every module is asked (TrustedBSD's MAC framework). Allowed is the AND of the answers, auditallow
the OR, auditdeny the OR over those that refused, in earnest or in word only. Where modules answer
with codes, `PRECEDENCE` chooses. So the order in which modules were loaded changes nothing.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from .. import _upcall
from .._ffi import lib
from ..enums import ALL, ObjectClass
from ..errors import LabelError
from ..label import format_label, parse_label
from .base import Decision, PolicyModule
from .shadow import Shadow

__all__ = ["PRECEDENCE", "Composition", "compose"]

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

_NO_OPINION = Decision()
_UNREADABLE = Decision(allowed=0, auditallow=0, auditdeny=ALL)
"""The answer of a shadow for a value that it cannot read: the same the next time."""

# What a module may answer, and how the core is told that there is one to ask.
_FLAGS = {
    "decide": lib.PM_POLICY_LOADED,
    "label_new_port": lib.PM_POLICY_LABELS_PORTS,
    "label_new_task": lib.PM_POLICY_LABELS_TASKS,
    "check_relabel": lib.PM_POLICY_CHECKS_RELABEL,
}
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
        auditdeny |= answer.auditdeny & (~answer.allowed | answer.report)
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


class Trial(NamedTuple):
    """What a shadow policy answered, and what the module that it is a shadow of did."""

    shadow: Shadow
    present: Decision
    answer: Decision


class Verdict(NamedTuple):
    """What the modules say of a question, and whether they will say so again the next time."""

    decision: Decision
    lasting: bool
    trials: list[Trial]


class Composition:
    """The modules in force at one time; never changed, only replaced whole.

    Attributes:
        modules (dict[str, PolicyModule]): by the name under which their values are filed.
        failures (Counter[str]): by module, how often it failed; shared with `Policies`.
        shadows (dict[str, Shadow]): by the name under which the values they read are filed.
        permissive (frozenset[str]): the names of modules that are permissive in this kernel.
    """

    def __init__(
        self, modules: Mapping[str, PolicyModule], failures: Counter[str],
        shadows: Mapping[str, Shadow] | None = None, permissive: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.modules = dict(sorted(modules.items()))
        self.failures = failures
        self.shadows = dict(sorted((shadows or {}).items()))
        self.permissive = frozenset(permissive)
        self._asked = {
            method: [pair for pair in enumerate(self.modules.values()) if pair[1].answers(method)]
            for method in _FLAGS
        }
        trials = [shadow.module for shadow in self.shadows.values()]
        self._trial = any(module.answers("decide") for module in trials)
        self.uncached = any(module.uncached for module in (*self.modules.values(), *trials))
        self.values = functools.lru_cache(maxsize=_KNOWN_LABELS)(self._values)
        self.filed = functools.lru_cache(maxsize=_KNOWN_LABELS)(self._filed)

    def _failed(self, module: PolicyModule, error: BaseException) -> None:
        self.failures[module.name] += 1
        _log.warning("policy module %s failed, denied: %r", module.name, error, exc_info=error)
        if isinstance(error, KeyboardInterrupt):
            _upcall.interrupt()

    def _values(self, text: str) -> tuple[Any, ...]:
        """Return the values in a label of the core, None for none.

        One for each module, then one for each shadow, which reads the values of its module.
        """
        parts = parse_label(text)
        modules = [self._value(module, parts.get(name)) for name, module in self.modules.items()]
        shadows = [
            self._trial_value(shadow, parts.get(name)) for name, shadow in self.shadows.items()
        ]
        return (*modules, *shadows)

    def _value(self, module: PolicyModule, text: str | None) -> Any:
        try:
            return None if text is None else module.parse(text)
        except BaseException as error:
            self._failed(module, error)
            return _BROKEN

    def _trial_value(self, shadow: Shadow, text: str | None) -> Any:
        try:
            return None if text is None else shadow.module.parse(text)
        except ValueError:
            return _BROKEN
        except BaseException as error:
            self._trial_failed(shadow, error)
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
            index: _permissive(answer)
            if answer is not NOTHING and self.is_permissive(names[index])
            else answer
            for index, answer in answers.items()
        }

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
        return answer

    def _trials(
        self, source: tuple[Any, ...], target: tuple[Any, ...], tclass: ObjectClass,
        answers: Mapping[int, Decision],
    ) -> list[Trial]:  # fmt: skip
        """Return what the shadows answer, before anything permissive, as their modules do."""
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
        if source is _BROKEN or target is _BROKEN:
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
        names = list(self.modules)
        return [
            f"  {module.name}{' (permissive)' if self.is_permissive(names[index]) else ''}: "
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

    def new_label(self, method: str, subjects: tuple[str, ...], inherit: str | None = None) -> str:
        """Return the label of something new, which `method` of the modules may choose.

        Args:
            method: "label_new_port" or "label_new_task".
            subjects: labels of the core, as the method wants them.
            inherit: the label to have where no module chooses; by default the last subject's.
        """
        inherited = parse_label(subjects[-1] if inherit is None else inherit)
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

    def is_permissive(self, filed: str) -> bool:
        """Tell whether a module is permissive, by itself or in this kernel."""
        return self.modules[filed].permissive or filed in self.permissive

    @property
    def flags(self) -> int:
        """What the core has to ask about: enum pm_policy_flag."""
        asked = sum(flag for method, flag in _FLAGS.items() if self._asked[method])
        return asked | (self._trial and lib.PM_POLICY_LOADED)


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
