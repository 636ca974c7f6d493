# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel records: for whole classes, and by rules beside; what any of them wants.

The core decides at the source (csrc/sec/selection.h); here are the words for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Protocol

from .._ffi import ffi, lib
from ..enums import ALL, CLASSES, MachPort, MachTask, ObjectClass, Operation
from ..errors import check, exception

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["ALL_CLASSES", "Rule", "Selection", "Selector", "listed"]

# Which masks an outcome means: of operations that were granted, of those that were denied.
_OUTCOMES = {"denied": (0, ALL), "granted": (ALL, 0), "all": (ALL, ALL), "none": (0, 0)}
_METHODS = "mi_"
_LONGEST = lib.PM_LABEL_MAX
_SERVICE = CLASSES["service"].number

# A right changes hands when it is given and taken; beside messages, by what is done to tasks.
_TRANSFERS = (
    Operation.GIVE,
    Operation.TAKE,
    Operation.INSERT_RIGHT,
    Operation.EXTRACT_RIGHT,
    Operation.TASK,
)
_MOVES = {
    "mach_port": MachPort.make_send | MachPort.make_send_once | MachPort.copy_send
    | MachPort.move_send | MachPort.move_send_once | MachPort.move_recv | MachPort.hold_send
    | MachPort.hold_send_once | MachPort.hold_recv,
    "mach_task": MachTask.insert_right | MachTask.extract_right | MachTask.set_special_port
    | MachTask.get_special_port,
}  # fmt: skip

Masks = dict[int, tuple[int, int]]
Chosen = tuple[tuple[int, int], Masks]
"""(granted, denied) permissions of all classes, and of those that have others."""
ALL_CLASSES: Chosen = (_OUTCOMES["all"], {})


class Numbered(Protocol):
    """A task: what has a number."""

    @property
    def id(self) -> int: ...


Tasks = str | int | Numbered | Iterable[str | int | Numbered]


@dataclass(frozen=True)
class Rule:
    """What is recorded beside, of some alone.

    Attributes:
        number: by which `deselect` knows it.
        outcome: of the operation: "denied", "granted" or "all".
        permissions: by name of the class; () for all of it, no class at all for all of all.
        labels: patterns; one of them matches the label of who does it, or of what it is done to, as
            a whole or in one of its values.
        tasks: names, as patterns, and numbers of who does it.
        routines: patterns of what a message calls.
        operations: names.
    """

    number: int
    outcome: str
    permissions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    tasks: tuple[str | int, ...] = ()
    routines: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = [f"{name} {' '.join(some)}".strip() for name, some in self.permissions.items()]
        about = [
            f"{kind} {' '.join(map(str, some))}"
            for kind in ("routines", "labels", "tasks", "operations")
            if (some := getattr(self, kind))
        ]
        words = [f"rule {self.number}: {_granted(self.outcome)}", *what, *about]
        return _printable("; ".join(words))


@dataclass(frozen=True)
class Selection:
    """What is recorded, at one moment; in words as text.

    Attributes:
        outcomes: (granted, denied) permissions by class, for all labels and tasks; classes of
            interfaces that are to come are under "*".
        rules: what is recorded beside.
        everything: whether denials are recorded that a policy keeps quiet (dontaudit).
        errors: whether calls that fail for other reasons than access are.
        sampling: what is kept of all that; "" for everything.
    """

    outcomes: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    rules: tuple[Rule, ...]
    everything: bool
    errors: bool
    sampling: str = ""

    def __str__(self) -> str:
        alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
        for name, outcome in self.outcomes.items():
            alike.setdefault(outcome, []).append(name)
        lines = [
            f"{'any other class' if '*' in names else ', '.join(names)}: {_both(*outcome)}"
            for outcome, names in sorted(alike.items(), key=lambda item: "*" in item[1])
        ]
        lines += map(str, self.rules)
        lines.append(f"denials that a policy keeps quiet: {_recorded(yes=self.everything)}")
        lines.append(f"failures for other reasons than access: {_recorded(yes=self.errors)}")
        return "\n".join([*lines, *([self.sampling] if self.sampling else [])])


def _both(granted: tuple[str, ...], denied: tuple[str, ...]) -> str:
    if not granted and not denied:
        return "nothing"
    if granted == denied:
        return f"granted and denied {' '.join(granted)}"
    said = (("granted", granted), ("denied", denied))
    return ", ".join(f"{outcome} {' '.join(some)}" for outcome, some in said if some)


def _recorded(*, yes: bool) -> str:
    return "recorded" if yes else "left out"


def _granted(outcome: str) -> str:
    return "granted and denied" if outcome == "all" else outcome


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Selector:
    """Chooses what a kernel records, and knows what was chosen.

    Args:
        kernel: whose records they are.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._default: tuple[int, int] = _OUTCOMES["denied"]
        self._masks: Masks = {_SERVICE: (ALL, ALL)}
        self._rules: dict[int, Rule] = {}

    # ---- for whole classes ----

    def everywhere(self, outcome: str) -> None:
        """Choose for all classes, and drop all rules."""
        masks = _OUTCOMES[_known(outcome)]
        self.clear()
        check(lib.pm_audit_select(self._kernel.pointer, 0, *masks))
        self._default, self._masks = masks, {}

    def default(self) -> None:
        """Choose denials, and the acts of name servers; drop all rules."""
        self.everywhere("denied")
        self._set(_SERVICE, _OUTCOMES["all"])

    def classes(
        self, outcome: str, classes: str | Iterable[str], permissions: str | Iterable[str] | None
    ) -> None:
        """Choose for some classes; the rest keeps what it has."""
        granted, denied = _OUTCOMES[_known(outcome)]
        for tclass, mask in self._chosen(classes, permissions).items():
            self._set(tclass.number, (granted & mask, denied & mask))

    def replace(self, chosen: Chosen) -> Chosen:
        """Choose for all classes, and keep the rules; return what was chosen before."""
        before = self._default, self._masks
        check(lib.pm_audit_select(self._kernel.pointer, 0, *chosen[0]))
        self._default, self._masks = chosen[0], {}
        for number, masks in chosen[1].items():
            self._set(number, masks)
        return before

    def _set(self, number: int, masks: tuple[int, int]) -> None:
        check(lib.pm_audit_select(self._kernel.pointer, number, *masks))
        self._masks[number] = masks

    def _chosen(
        self, classes: str | Iterable[str], permissions: str | Iterable[str] | None
    ) -> dict[ObjectClass, int]:
        found = [self._kernel.object_class(name) for name in _words(classes)]
        return {c: ALL if permissions is None else c.mask(permissions) for c in found}

    # ---- rules ----

    def rule(
        self, outcome: str, classes: str | Iterable[str] | None = None,
        permissions: str | Iterable[str] | None = None, *, labels: str | Iterable[str] = (),
        tasks: Tasks = (), routines: str | Iterable[str] = (),
        operations: str | Iterable[str] = (),
    ) -> int:  # fmt: skip
        """Record something beside; return the number of the rule.

        Raises:
            ValueError: what there is not, or what nothing could come of.
        """
        if _known(outcome) == "none":
            raise ValueError("a rule that records nothing: name an outcome, or `deselect` others")
        names = tuple(_words(routines))
        if names and (classes is not None or permissions is not None):
            raise ValueError("routines are of classes of their own: leave classes away with them")
        chosen = {} if classes is None else self._chosen(classes, permissions)
        said = {c.name: c.names(mask) if mask != ALL else () for c, mask in chosen.items()}
        about = _patterns(labels, "label"), _task_words(tasks), _patterns(names, "routine")
        made = Rule(0, outcome, said, *about, tuple(_words(operations)))
        return self._install(made, {c.number: mask for c, mask in chosen.items()})

    def transfers(self) -> int:
        """Record beside whatever gives, takes or installs a right; return the rule's number."""
        chosen = {self._kernel.object_class(name): int(mask) for name, mask in _MOVES.items()}
        operations = tuple(operation.name.lower() for operation in _TRANSFERS)
        made = Rule(
            0, "granted", {c.name: c.names(m) for c, m in chosen.items()}, operations=operations
        )
        return self._install(made, {c.number: mask for c, mask in chosen.items()})

    def _install(self, rule: Rule, masks: Mapping[int, int]) -> int:
        number = self._add(rule)
        made = Rule(**{**vars(rule), "number": number})
        granted, denied = _OUTCOMES[rule.outcome]
        wanted = masks or ({} if rule.routines else {0: ALL})
        for tclass, mask in (wanted or self._methods(made, self._kernel.object_classes)).items():
            self._rule_selects(number, tclass, (granted & mask, denied & mask))
        self._rules[number] = made
        return number

    def _add(self, rule: Rule) -> int:
        wanted = ffi.new("struct pm_audit_rule *")
        labels = _zero_ended(rule.labels)
        tasks = _zero_ended(name for name in rule.tasks if isinstance(name, str))
        numbers = [task for task in rule.tasks if isinstance(task, int)]
        kept = [ffi.from_buffer(labels), ffi.from_buffer(tasks), ffi.new("uint32_t[]", numbers)]
        wanted.labels, wanted.tasks, wanted.numbers = kept
        wanted.labels_size, wanted.tasks_size = len(labels), len(tasks)
        wanted.numbers_count = len(numbers)
        wanted.operations = _operation_bits(rule.operations)
        number = lib.pm_audit_rule_add(self._kernel.pointer, wanted)
        if number == -lib.KERN_NO_SPACE:
            most = lib.PM_AUDIT_RULES_MAX - 1
            raise ValueError(f"a kernel has at most {most} rules of what is recorded: deselect one")
        if number < 0:
            raise exception(number, "select()")
        return int(number)

    def _rule_selects(self, number: int, tclass: int, masks: tuple[int, int]) -> None:
        check(lib.pm_audit_rule_select(self._kernel.pointer, number, tclass, *masks), "select()")

    @staticmethod
    def _methods(rule: Rule, classes: Iterable[ObjectClass]) -> dict[int, int]:
        """Return the routines a rule is about, as masks by class of an interface."""
        found: dict[int, int] = {}
        for tclass in classes:
            if not tclass.name.startswith(_METHODS):
                continue
            interface = re.sub(r"_\d+\Z", "", tclass.name.removeprefix(_METHODS))
            for name, bit in tclass.bits.items():
                called = (name, f"{interface}.{name}", f"{tclass.name}.{name}")
                if any(_matches(pattern, text) for pattern in rule.routines for text in called):
                    found[tclass.number] = found.get(tclass.number, 0) | bit
        return found

    def classes_came(self, classes: Iterable[ObjectClass]) -> None:
        """Let rules about routines know of the classes of an interface."""
        found = list(classes)
        for rule in self._rules.values():
            granted, denied = _OUTCOMES[rule.outcome]
            for tclass, mask in self._methods(rule, found if rule.routines else ()).items():
                self._rule_selects(rule.number, tclass, (granted & mask, denied & mask))

    def remove(self, number: int) -> None:
        """Drop a rule.

        Raises:
            ValueError: there is none of that number.
        """
        if number not in self._rules:
            known = ", ".join(map(str, self._rules)) or "none"
            raise ValueError(f"no rule {number!r} of what is recorded; there are: {known}")
        check(lib.pm_audit_rule_remove(self._kernel.pointer, number))
        del self._rules[number]

    def clear(self) -> None:
        """Drop all rules."""
        for number in list(self._rules):
            self.remove(number)

    # ---- in words ----

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules there are, oldest first."""
        return tuple(self._rules.values())

    def outcomes(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return what is recorded for all labels and tasks, by class."""
        said = {}
        for tclass in self._kernel.object_classes:
            granted, denied = self._masks.get(tclass.number, self._default)
            said[tclass.name] = _names(tclass, granted), _names(tclass, denied)
        granted, denied = self._default
        return {**said, "*": (("all",) if granted else (), ("all",) if denied else ())}


def _names(tclass: ObjectClass, mask: int) -> tuple[str, ...]:
    return ("all",) if mask == ALL else tclass.names(mask)


def _known(outcome: str) -> str:
    if outcome not in _OUTCOMES:
        raise ValueError(f"outcome must be one of {', '.join(_OUTCOMES)}, not {outcome!r}")
    return outcome


def listed(name: str, given: Any) -> Any:
    """Return what an argument of `select` lists, so that it can be read more than once.

    Args:
        name: of the argument.
        given: one, or an iterable of some; None, which is returned: all.

    Raises:
        ValueError: it lists nothing; who computed that does not mean all.
    """
    if given is None:
        return None
    if isinstance(given, (str, int)) or hasattr(given, "id"):
        return given
    if not (found := list(given)):
        raise ValueError(f"{name}={found!r} is about nothing: name some, or leave it away for all")
    return found


def _words(words: str | Iterable[str]) -> list[str]:
    return [words] if isinstance(words, str) else list(words)


def _patterns(patterns: str | Iterable[str], kind: str) -> tuple[str, ...]:
    found = tuple(_words(patterns))
    for pattern in found:
        if not isinstance(pattern, str) or not 0 < len(pattern.encode()) <= _LONGEST:
            raise ValueError(f"a {kind} is a text of 1 to {_LONGEST} bytes, not {pattern!r:.80}")
        if "\0" in pattern:
            raise ValueError(f"no {kind} has a NUL in it: {pattern!r:.80}")
    if sum(len(pattern.encode()) + 1 for pattern in found) > lib.PM_AUDIT_RULE_TEXT_MAX:
        raise ValueError(f"patterns of a rule have {lib.PM_AUDIT_RULE_TEXT_MAX} bytes at most")
    return found


def _task_words(tasks: Tasks) -> tuple[str | int, ...]:
    given = [tasks] if isinstance(tasks, (str, int)) or hasattr(tasks, "id") else list(tasks)
    found = [task if isinstance(task, (str, int)) else task.id for task in given]
    for number in found:
        if isinstance(number, int) and not 0 < number <= ALL:
            raise ValueError(f"no task has the number {number}")
    _patterns([name for name in found if isinstance(name, str)], "name of a task")
    if len(found) > lib.PM_AUDIT_RULE_NUMBERS_MAX:
        raise ValueError(f"a rule is about {lib.PM_AUDIT_RULE_NUMBERS_MAX} tasks at most")
    return tuple(found)


def _operation_bits(names: Iterable[str]) -> int:
    known = {operation.name.lower(): operation for operation in Operation if operation}
    bits = 0
    for name in names:
        if name not in known:
            raise ValueError(f"no operation {name!r}; there are: {', '.join(known)}")
        bits |= 1 << known[name]
    return bits


def _zero_ended(patterns: Iterable[str]) -> bytes:
    return b"".join(pattern.encode() + b"\0" for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    """Return whether a text matches, by the core's patterns: * and ? alone are special."""
    return re.fullmatch(translate(pattern.replace("[", "[[]")), text) is not None
