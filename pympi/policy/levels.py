# SPDX-License-Identifier: BSD-2-Clause
"""Levels: what `mls` and `biba` have in common (SEDarwin mac_mls, FreeBSD mac_mls and mac_biba).

    label    = element [ "(" element "-" element ")" ]  |  "(" element "-" element ")"
    element  = "low" | "lo" | "high" | "hi" | "equal" | "eq" | level [ ":" compartments ]
    compartments = number { ( "+" | "++" ) number }

A level is 0 to 65535, a compartment 1 to 256. The element in front is the *effective* one, that
decisions are about; the range says what a subject may make of itself and of what it relabels.
`a++b` is the run from a to b. As in SEDarwin a run that goes downwards is its first compartment
(`5++1` is `5`), and the next `++` goes on from the last number written (`1++5++9` is `1++9`).
Unlike SEDarwin a `:` or `+` with nothing behind it, signs and blanks are errors.

The two modules ask the same questions and differ in one thing: which way information may go.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from .._ffi import lib
from ..enums import ALL, CLASSES, ObjectClass
from .base import Decision, PolicyModule
from .relation import NO_OPINION, Relation
from .tables import (
    TARGET,
    ClassTable,
    Sight,
    Steps,
    Table,
    Test,
    all_of,
    any_of,
    equal,
    is_in,
    not_,
    same,
)
from .tables import Level as Seen
from .tables import dominates as above

__all__ = [
    "EQUAL", "HIGH", "LONGEST", "LOW", "RULES", "Element", "Label", "Levels", "Range", "Rule",
    "dominates",
]  # fmt: skip

LONGEST = 4096
"""Characters of the longest text that is read; a label in full takes less than half of them."""

TOP_LEVEL = 65535
COMPARTMENTS = 256

_WORDS = {
    "low": "low", "lo": "low", "high": "high", "hi": "high", "equal": "equal", "eq": "equal"
}  # fmt: skip
_LEVEL = re.compile(r"([0-9]{1,5})(?::(.*))?", re.DOTALL)
_LIST = re.compile(r"[0-9]{1,3}(?:\+\+?[0-9]{1,3})*")
_ITEM = re.compile(r"(\+*)([0-9]+)")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Element:
    """A point in the order: low, high, equal, or a level with compartments.

    Attributes:
        kind (str): "low", "high", "equal" or "level".
        level (int): 0 to 65535; 0 unless the kind is "level".
        compartments (int): a bit for each, bit 1 to bit 256; 0 unless the kind is "level".

    Raises:
        ValueError: no such element; it says why.
    """

    kind: str
    level: int = 0
    compartments: int = 0

    def __post_init__(self) -> None:
        if self.kind not in {"level", *_WORDS.values()}:
            raise ValueError(f"an element is low, high, equal or a level, not {self.kind!r}")
        if self.kind != "level" and (self.level or self.compartments):
            raise ValueError(f"{self.kind} has neither a level nor compartments")
        if not 0 <= self.level <= TOP_LEVEL:
            raise ValueError(f"a level is 0 to {TOP_LEVEL}, not {self.level}")
        if self.compartments & 1 or self.compartments >> (COMPARTMENTS + 1):
            raise ValueError(f"compartments are 1 to {COMPARTMENTS}: bits 1 to {COMPARTMENTS}")

    @classmethod
    def from_text(cls, text: str) -> Element:
        """Return the element that is written so; ValueError says what would be right."""
        if text in _WORDS:
            return cls(_WORDS[text])
        match = _LEVEL.fullmatch(text)
        if not match or int(match[1]) > TOP_LEVEL:
            raise ValueError(_no_element(text))
        return cls("level", int(match[1]), 0 if match[2] is None else _compartments(match[2]))

    def __str__(self) -> str:
        if self.kind != "level":
            return self.kind
        return str(self.level) + (
            ":" + "+".join(_runs(self.compartments)) if self.compartments else ""
        )

    def dominates(self, other: Element) -> bool:
        """Whether this element is at least as high as another, and has all its compartments.

        low is below and high above every level. equal dominates everything, and everything
        dominates equal: so what is equal is exempt, and equal is not part of the order.
        """
        if "equal" in (self.kind, other.kind) or self.kind == "high" or other.kind == "low":
            return True
        if self.kind == "low" or other.kind == "high":
            return False
        return self.level >= other.level and not other.compartments & ~self.compartments


LOW, HIGH, EQUAL = Element("low"), Element("high"), Element("equal")


def _no_element(text: str) -> str:
    name = text.partition(":")[0]
    if name in _WORDS:
        return f"{_WORDS[name]} takes no compartments, found {_cut(text)}"
    if name.isdecimal() and name.isascii():
        return f"a level is 0 to {TOP_LEVEL}, not {_cut(name)}"
    return f"an element is low, high, equal or LEVEL[:COMPARTMENTS] as in 5:1+3, not {_cut(text)}"


def _compartments(text: str) -> int:
    if not _LIST.fullmatch(text):
        raise ValueError(f"compartments are numbers joined by '+' or '++', not {_cut(text)}")
    bits = last = 0
    for plus, digits in _ITEM.findall(text):
        number = int(digits)
        if not 1 <= number <= COMPARTMENTS:
            raise ValueError(f"a compartment is 1 to {COMPARTMENTS}, not {number}")
        bits |= _run(last, number) if plus == "++" else 1 << number
        last = number
    return bits


def _run(first: int, last: int) -> int:
    """Return the bits first to last; none if that goes downwards: the first is set already."""
    return (1 << last + 1) - (1 << first) if last >= first else 0


def _runs(compartments: int) -> Iterator[str]:
    """Yield the canonical pieces: a, a+b for a pair, a++b for a longer run."""
    numbers = [n for n in range(1, COMPARTMENTS + 1) if compartments >> n & 1]
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield str(run[0]) if len(run) == 1 else f"{run[0]}{'+' * min(len(run) - 1, 2)}{run[-1]}"


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


class Range(NamedTuple):
    """The elements from `low` to `high`."""

    low: Element
    high: Element

    def __str__(self) -> str:
        return f"({self.low}-{self.high})"

    def has(self, element: Element) -> bool:
        """Whether an element lies within."""
        return self.high.dominates(element) and element.dominates(self.low)

    def covers(self, other: Range) -> bool:
        """Whether another range lies within."""
        return self.high.dominates(other.high) and other.low.dominates(self.low)


@dataclass(frozen=True, slots=True)
class Label:
    """A value of `mls` or `biba`: an effective element, a range, or both.

    Attributes:
        effective (Element | None): what decisions are about.
        range (Range | None): what a subject may make of itself.

    Raises:
        ValueError: neither is there, or the range's high end does not dominate its low end.

    Example:
        >>> str(Label.from_text("5:3+2+1+9(lo-hi)"))
        '5:1++3+9(low-high)'
    """

    effective: Element | None
    range: Range | None = None

    def __post_init__(self) -> None:
        if not self.effective and not self.range:
            raise ValueError(
                "a label is an element as in 5:1+3, a range as in (low-high), or both, not ''"
            )
        if self.range and not self.range.high.dominates(self.range.low):
            raise ValueError(
                f"a range is (LOW-HIGH) with HIGH dominating LOW: {_cut(str(self.range.high))} "
                f"does not dominate {_cut(str(self.range.low))}"
            )

    @classmethod
    def from_text(cls, text: str) -> Label:
        """Return the label that is written so.

        Raises:
            ValueError: the text is not a label; it says what is wrong, and what would be right.
        """
        if len(text) > LONGEST:
            raise ValueError(f"a label has at most {LONGEST} characters, this {len(text)}")
        effective, opened, rest = text.partition("(")
        spread = _range(rest) if opened else None
        return cls(Element.from_text(effective) if effective else None, spread)

    def __str__(self) -> str:
        return f"{self.effective or ''}{self.range or ''}"

    @property
    def reach(self) -> Range:
        """The range; without one, from the effective element to itself."""
        if self.range:
            return self.range
        assert self.effective
        return Range(self.effective, self.effective)

    @property
    def has_equal(self) -> bool:
        """Whether any element of it is equal."""
        return EQUAL in (self.effective, *(self.range or ()))

    @property
    def privileged(self) -> bool:
        """Whether a subject so labelled may make things equal: it is, or it may be anything."""
        return self.has_equal or self.range == Range(LOW, HIGH)


def _range(text: str) -> Range:
    low, dash, high = text.removesuffix(")").partition("-")
    if not dash or not text.endswith(")"):
        raise ValueError(f"a range is (LOW-HIGH), not {_cut('(' + text)}")
    return Range(Element.from_text(low), Element.from_text(high))


def dominates(a: Label, b: Label) -> bool:
    """Whether the effective element of `a` dominates that of `b`.

    Raises:
        ValueError: one of them has no effective element.
    """
    if not a.effective or not b.effective:
        raise ValueError(f"to compare labels takes two effective elements: {a} and {b}")
    return a.effective.dominates(b.effective)


# ---- what is decided ----


class Rule(NamedTuple):
    """What a permission is: the word of a relation (`Levels.relations`), and why this one."""

    relation: str
    why: str


_SEDARWIN = "SEDarwin's answer"
_GIVE = "SEDarwin's: giving is controlled where the right is taken, and by the message's own send"
_SERVICE = "SEDarwin's: what the answer brings is decided where it is sent and taken"
_KERNEL = "the kernel as a whole has no level"

RULES: Mapping[str, Mapping[str, Rule]] = {
    "mach_port": {
        "relabelfrom": Rule("range", "SEDarwin's relabel rule, its half about the old label"),
        "relabelto": Rule("assume", "SEDarwin's relabel rule, its half about the new label"),
        "send": Rule("write", _SEDARWIN),
        "recv": Rule("read", "SEDarwin did not ask: then a port labelled equal leaks"),
        "make_send": Rule("none", _GIVE),
        "make_send_once": Rule("none", _GIVE),
        "copy_send": Rule("none", _GIVE),
        "move_send": Rule("none", _GIVE),
        "move_send_once": Rule("none", _GIVE),
        "move_recv": Rule("none", _GIVE),
        "hold_send": Rule("write", "SEDarwin's answer: a send right is the ability to write"),
        "hold_send_once": Rule("write", "as hold_send; even dropping the right tells its port"),
        "hold_recv": Rule("read", _SEDARWIN),
        "use_recv": Rule("read", "as hold_recv: the level may have changed since"),
        "carry_rights": Rule("write", "part of a send"),
        "carry_memory": Rule("write", "part of a send"),
        "set_reply": Rule("write", "who names the port has a message sent to it"),
        "specify": Rule("assume", "acting under a label is taking it"),
        "interpose": Rule("assume", "acting under a label is taking it"),
        "get_attributes": Rule("read", "it tells of the port and its queue"),
        "set_attributes": Rule("write", "it changes the port"),
        "request_notification": Rule("read", "it tells what becomes of the port"),
    },
    "mach_task": {
        "terminate": Rule("write", "it changes the task"),
        "set_special_port": Rule("write", "it changes the task"),
        "get_special_port": Rule("read", "it tells of the task"),
        "create": Rule("assume", "a parent makes what it might be itself"),
        "insert_right": Rule("write", "it changes the task's space"),
        "extract_right": Rule("both", "it tells of the task's space, and changes it"),
        "observe": Rule("read", "it tells of the task's space"),
        "relabelfrom": Rule("assume", "SEDarwin's rule for oneself, applied to another task"),
        "relabelto": Rule("assume", "SEDarwin's relabel rule"),
    },
    "service": {
        name: Rule("none", _SERVICE)
        for name in ("look_up", "register", "check_in", "create", "status", "list")
    },
    "kernel": {
        name: Rule("none", _KERNEL)
        for name in ("reload_policy", "set_mode", "inspect", "audit_control")
    },
}
"""What each permission is, by class. Methods are not in it: no opinion, as in SEDarwin."""

_SUBJECT = "the subject's effective element dominates the object's"
_OBJECT = "the object's effective element dominates the subject's"
_RANGE = "the object's effective element lies within the subject's range"
_ASSUME = (
    "the label is the subject's own; or its effective element and its range lie within the "
    "subject's range, and if it has equal in it the subject is privileged"
)


@functools.cache
def _vectors(tclass: str) -> Mapping[str, int]:
    """Return the access vector of each relation of a class."""
    vectors: dict[str, int] = {}
    for permission, rule in RULES.get(tclass, {}).items():
        bit = CLASSES[tclass].mask(permission)
        vectors[rule.relation] = vectors.get(rule.relation, 0) | bit
    return vectors


def _in_range(subject: Label, target: Label) -> bool:
    return target.effective is not None and subject.reach.has(target.effective)


def _may_assume(subject: Label, label: Label) -> bool:
    if label == subject:
        return True
    within = _in_range(subject, label) and subject.reach.covers(label.reach)
    return within and (subject.privileged or not label.has_equal)


def _unfit(label: Label, tclass: ObjectClass) -> str:
    """Return why nothing of a class can have a label; "" if it can."""
    if label.range and tclass.name == "mach_port":
        return f"a port has an effective element alone, {label.effective}, not {label}"
    if label.range and not _in_range(label, label):
        return f"the effective element lies outside the range: {label}"
    return ""


# ---- what would be allowed instead ----


def _ordered(subjects: str, objects: str) -> Callable[[Label, Label], str]:
    """Return the remedy of an order: which elements of subjects, and of objects, hold in it."""

    def remedy(subject: Label, target: Label) -> str:
        return (
            f"a subject of {subjects}{target.effective} "
            f"or an object of {objects}{subject.effective}"
        )

    return remedy


_UNDER = _ordered("at most ", "at least ")
_OVER = _ordered("at least ", "at most ")
_ALIKE = _ordered("", "")


def _ranging(subject: Label, target: Label) -> str:
    return f"a subject whose range has {target.effective} in it or an object within {subject.reach}"


def _assumed(subject: Label, label: Label) -> str:
    if label.has_equal:
        return f"a subject of equal or with the range {Range(LOW, HIGH)}"
    if not label.range:
        return _ranging(subject, label)
    return (
        f"a subject whose range has {label.effective} and {label.range} in it "
        f"or an object and its range within {subject.reach}"
    )


# ---- the same as tables ----

_EFFECTIVE, _LOW, _HIGH = 0, 1, 2  # levels of a sight
_RANGED, _FLAGS = 0, 1  # numbers of a sight
_PRIVILEGED, _HAS_EQUAL = 1, 2  # flags
_FLAGGED = [sum(1 << n for n in range(4) if n & flag) for flag in (_PRIVILEGED, _HAS_EQUAL)]
_POINTS = {
    "low": Seen(0),
    "high": Seen(TOP_LEVEL + 2, (1 << COMPARTMENTS + 1) - 2),
    "equal": Seen(0, 0, True),
}  # fmt: skip


def _seen(element: Element) -> Seen:
    """Return an element as a level of numbers: low lies below level 0, high above the highest."""
    return _POINTS.get(element.kind) or Seen(element.level + 1, element.compartments)


class _Numbering:
    """Numbers labels; one without a value is the module's default."""

    def __init__(self, default: Label) -> None:
        self.default = default

    def sight(self, value: Any) -> Sight:
        """Return what is seen of a label: whether it has a range, its flags; element and range."""
        label = self.default if value is None else value
        if type(label) is not Label or not label.effective:
            raise ValueError(f"a label with an effective element, not {label!r}")
        flags = _PRIVILEGED * label.privileged | _HAS_EQUAL * label.has_equal
        low, high = map(_seen, label.reach)
        return Sight((int(label.range is not None), flags, 0), (_seen(label.effective), low, high))


def _steps(up: bool) -> dict[str, Steps]:
    """Return the relations as tests, by word; operands of the object have TARGET added."""
    rises, falls = above(TARGET + _EFFECTIVE, _EFFECTIVE), above(_EFFECTIVE, TARGET + _EFFECTIVE)
    write, read = (rises, falls) if up else (falls, rises)
    within = all_of(above(_HIGH, TARGET + _EFFECTIVE), above(TARGET + _EFFECTIVE, _LOW))
    covered = all_of(above(_HIGH, TARGET + _HIGH), above(TARGET + _LOW, _LOW))
    fit = any_of(is_in(_FLAGS, 0), not_(is_in(TARGET + _FLAGS, 1)))
    own = all_of(
        same(_RANGED, TARGET + _RANGED),
        *(equal(which, TARGET + which) for which in (_EFFECTIVE, _LOW, _HIGH)),
    )
    return {
        "write": write, "read": read, "both": all_of(read, write), "range": within,
        "assume": any_of(own, all_of(within, covered, fit)),
    }  # fmt: skip


class Levels(PolicyModule):
    """The base of `MLS` and `Biba`.

    Attributes:
        default (Label): of what has no value.
        up (bool): whether information may go up (secrecy) or down (integrity).
        relations (dict[str, Relation]): by word.
    """

    default: Label
    up: bool

    def __init__(self) -> None:
        self.relations = self._relations()

    def _relations(self) -> dict[str, Relation]:
        under, over = (_OBJECT, _UNDER), (_SUBJECT, _OVER)
        (writes, writers), (reads, readers) = (under, over) if self.up else (over, under)
        made = (
            Relation("write", writes, self._may_write, writers),
            Relation("read", reads, self._may_read, readers),
            Relation("both", "read and write hold", self._may_both, _ALIKE),
            Relation("range", _RANGE, _in_range, _ranging),
            Relation("assume", _ASSUME, _may_assume, _assumed),
            NO_OPINION,
        )
        return {relation.word: relation for relation in made}

    def _may_write(self, subject: Label, target: Label) -> bool:
        return dominates(target, subject) if self.up else dominates(subject, target)

    def _may_read(self, subject: Label, target: Label) -> bool:
        return self._may_write(target, subject)

    def _may_both(self, subject: Label, target: Label) -> bool:
        return self._may_read(subject, target) and self._may_write(subject, target)

    def relation(self, tclass: str, permission: str) -> Relation:
        """Return what a permission needs; of classes that are not in the list, no opinion."""
        rule = RULES.get(tclass, {}).get(permission)
        return self.relations[rule.relation] if rule else NO_OPINION

    def parse(self, text: str) -> Label:
        """Return the label that is written so.

        Raises:
            ValueError: it is no label, or has no effective element. (SEDarwin took a range alone
                as a change of the range; a label here takes the place of the old one whole.)
        """
        label = Label.from_text(text)
        if not label.effective:
            raise ValueError(f"no effective element: write as in low{label}, not {label}")
        return label

    def format(self, value: Label) -> str:
        """Return the canonical text: sorted, runs of three and more as a++b, names in full."""
        return str(value)

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Refuse the permissions whose relation does not hold."""
        subject, thing = source or self.default, target or self.default
        refused = 0
        for word, vector in _vectors(tclass.name).items():
            if not self.relations[word].holds(subject, thing):
                refused |= vector
        return Decision(allowed=~refused & ALL)

    @property
    def table_obstacle(self) -> str:
        """Relations that are not those made with it."""
        return "" if self.relations == self._relations() else "has relations of its own"

    def _compile_tables(self, classes: Sequence[ObjectClass], before: Any) -> Table:
        """Return a table of a test for each relation; `MLS` and `Biba` have it as their own."""
        steps = _steps(self.up)
        tests = {
            tclass.number: [
                Test(vector, steps[word])
                for word, vector in _vectors(tclass.name).items()
                if word in steps
            ]
            for tclass in classes
        }
        known = isinstance(before, _Numbering) and before.default == self.default
        return Table(
            before if known else _Numbering(self.default),
            {number: ClassTable(ALL, tests=tuple(each)) for number, each in tests.items()},
            sets=_FLAGGED,
        )

    def label_new(self, source: Any, target: Any, tclass: ObjectClass) -> Label:
        """Return the source's effective element: ports, and other objects, have no range."""
        return Label((source or self.default).effective)

    def label_new_task(self, parent: Any) -> Label:
        """Return the parent's label, whole.

        SEDarwin copied the effective element, and at fork the credential's whole label over it.
        """
        return parent or self.default

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> int:
        """Return SEDarwin's code.

        KERN_INVALID_ARGUMENT (EINVAL): a port gets a range, or a task an effective element outside
        its range. KERN_DENIED (EPERM): what relabelfrom and relabelto refuse too. A kernel asks
        for these first, and answers KERN_NO_ACCESS then.
        """
        subject, old, new = (label or self.default for label in (subject, old, new))
        if _unfit(new, tclass):
            return lib.KERN_INVALID_ARGUMENT
        from_old = self.relation(tclass.name, "relabelfrom").holds(subject, old)
        to_new = self.relation(tclass.name, "relabelto").holds(subject, new)
        return 0 if from_old and to_new else lib.KERN_DENIED

    def explain_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> str:
        """Say what is wrong with the new label; else what relabelfrom and relabelto need."""
        unfit = _unfit(new or self.default, tclass)
        if unfit:
            default = "" if new else ", which is what no value stands for"
            return f"refuses (KERN_INVALID_ARGUMENT): {unfit}{default}"
        code = self.check_relabel(subject, old, new, tclass)
        verdict = "refuses (KERN_DENIED)" if code else "allows"
        return f"{verdict}, as relabelfrom and relabelto do"

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Say which relation the permission needs, between what, and what would be allowed."""
        relation = self.relation(tclass.name, permission)
        if relation is NO_OPINION:
            return f"has no opinion on {permission}"
        subject, thing = source or self.default, target or self.default
        what = (
            f"{permission} ({relation.word}), which needs that {relation.meaning}: "
            f"subject {subject}, object {thing}"
        )
        if relation.holds(subject, thing):
            return f"allows {what}"
        return f"refuses {what}; {relation.remedy(subject, thing)} would be allowed"
