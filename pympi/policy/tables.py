# SPDX-License-Identifier: BSD-2-Clause
"""Decisions as tables: what a module answers, in the form in which the core can answer it.

Of a label the core sees three numbers, the first of which is its kind, and three levels. A table
says for each class what is allowed at all, by rules about two kinds, and by tests over all that is
seen. `csrc/sec/native.c` decides by them; docs/policy.md says when.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .._ffi import lib

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint32]

__all__ = [
    "SELF", "TARGET", "UNSEEN", "ClassTable", "Level", "Numbering", "Sight", "Steps", "Table",
    "Test", "all_of", "any_of", "dominates", "equal", "groups_of", "is_in", "not_", "rules_of",
    "same", "words_of",
]  # fmt: skip

SELF: int = lib.PM_NATIVE_SELF
"""A rule's target that is the source's own kind."""

TARGET: int = lib.PM_NATIVE_TARGET
"""Added to the number of an operand: the target's, not the source's."""

_WORD, _WORD_MASK = 32, 0xFFFFFFFF
_EXEMPT = 1 << 31

# ---- what is seen of a label ----


class Level(NamedTuple):
    """A level as the core compares it.

    Attributes:
        rank: how high it is, below 2**31.
        categories: bit n for category n.
        exempt: whether it dominates everything and everything dominates it.
    """

    rank: int = 0
    categories: int = 0
    exempt: bool = False


class Sight(NamedTuple):
    """What the core sees of a module's value."""

    numbers: tuple[int, int, int] = (0, 0, 0)
    levels: tuple[Level, Level, Level] = (Level(), Level(), Level())


class Numbering(Protocol):
    """How a module's values are numbered. Tables with the same object number them the same."""

    def sight(self, value: Any) -> Sight:
        """Return what is seen of a value; None is a label's that has none.

        Raises:
            ValueError: the tables are not for such a value.
        """


class _Unseen:
    """Numbers nothing: for a module that does not look at values."""

    def sight(self, value: Any) -> Sight:
        """Return that nothing is seen."""
        return Sight()


UNSEEN = _Unseen()


def words_of(sights: Sequence[Sight]) -> array[int]:
    """Return what is seen of a label by all modules, as `pm_sid_set_values` takes it."""
    places: dict[Level, int] = {}
    head, tail = [len(sights)], array("I")
    for numbers, levels in sights:
        head += numbers
        for level in levels:
            if level not in places:
                places[level] = len(tail)
                tail.extend(_level_words(level))
            head.append(places[level])
    first = len(head)
    for place in range(1, first, 6):
        for at in range(place + 3, place + 6):
            head[at] += first
    return array("I", head) + tail


def _level_words(level: Level) -> array[int]:
    categories = level.categories
    lowest = (categories & -categories).bit_length() - 1
    first = max(lowest, 0) // _WORD
    raw = categories >> _WORD * first
    words = [raw >> at & _WORD_MASK for at in range(0, raw.bit_length(), _WORD)]
    rank = level.rank | (_EXEMPT if level.exempt else 0)
    return array("I", [rank, first, len(words), *words])


# ---- tests ----

Steps = tuple[tuple[int, int, int, int], ...]
"""A test, operands first: operator, left, right, set of each step."""


def same(left: int, right: int) -> Steps:
    """Test whether two numbers are equal."""
    return ((lib.PM_NATIVE_SAME, left, right, 0),)


def is_in(number: int, which: int) -> Steps:
    """Test whether a number is in one of the table's sets."""
    return ((lib.PM_NATIVE_IN, number, 0, which),)


def dominates(left: int, right: int) -> Steps:
    """Test whether a level is at least as high as another and has its categories."""
    return ((lib.PM_NATIVE_DOMINATES, left, right, 0),)


def equal(left: int, right: int) -> Steps:
    """Test whether two levels are equal."""
    return ((lib.PM_NATIVE_EQUAL, left, right, 0),)


def not_(steps: Steps) -> Steps:
    """Test the opposite."""
    return (*steps, (lib.PM_NATIVE_NOT, 0, 0, 0))


def all_of(first: Steps, *others: Steps) -> Steps:
    """Test whether all of some tests hold."""
    return _joined(lib.PM_NATIVE_AND, first, others)


def any_of(first: Steps, *others: Steps) -> Steps:
    """Test whether one of some tests holds."""
    return _joined(lib.PM_NATIVE_OR, first, others)


def _joined(operator: int, first: Steps, others: Iterable[Steps]) -> Steps:
    steps = [*first]
    for other in others:
        steps += [*other, (operator, 0, 0, 0)]
    return tuple(steps)


# ---- tables ----


class Test(NamedTuple):
    """Permissions that are allowed only where a test holds."""

    permissions: int
    steps: Steps


class ClassTable(NamedTuple):
    """What a module says of a class.

    Attributes:
        allowed: whatever the rules say, where the tests hold.
        granted: whatever rules and tests say.
        tests: what takes permissions away.
    """

    allowed: int = 0
    granted: int = 0
    tests: tuple[Test, ...] = ()


def rules_of(rows: Sequence[tuple[int, ...]] = ()) -> Words:
    """Return rules as a `Table` has them."""
    import numpy as np  # when a kernel needs tables: modules are of use without it

    return np.array(rows, np.uint32).reshape(-1, 7)


def groups_of(memberships: Sequence[Sequence[int]]) -> tuple[Words, Words]:
    """Return the groups of each kind, as a `Table` has them."""
    import numpy as np

    first = np.zeros(len(memberships) + 1, np.uint32)
    first[1:] = np.cumsum([len(each) for each in memberships])
    flat = [number for each in memberships for number in each]
    return first, np.array(flat, np.uint32)


@dataclass(frozen=True)
class Table:
    """One module's decisions.

    Attributes:
        numbering: of its values.
        classes: by number of the class.
        rules: a row for each: source, target, class, allowed, auditallow, dontaudit, narrowed.
            Sources and targets are kinds, or groups of kinds, numbered behind them.
        groups: where in the second array the groups of kind n begin; and all groups.
        numbers: how many kinds and groups there are.
        sets: of kinds or other numbers, bit n for number n.
        permissive: the set of kinds that are refused nothing, which is reported.
    """

    numbering: Numbering
    classes: Mapping[int, ClassTable]
    rules: Words = field(default_factory=rules_of)
    groups: tuple[Words, Words] = field(default_factory=lambda: groups_of([]))
    numbers: int = 0
    sets: Sequence[int] = ()
    permissive: int | None = None
