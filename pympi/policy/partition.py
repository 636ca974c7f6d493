# SPDX-License-Identifier: BSD-2-Clause
"""`partition`: who is in different partitions shall not meet (FreeBSD mac_partition).

    partition/<name>

Equal partitions may do everything to each other, and so may whatever is in none.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ..enums import ALL, ObjectClass
from .base import Decision, PolicyModule
from .relation import Relation
from .tables import TARGET, ClassTable, Sight, Table, Test, any_of, is_in, same

__all__ = ["SAME", "Partition"]

_YES = Decision()
_NO = Decision(allowed=0, auditdeny=ALL)
_PARTITIONS = 1 << 20
"""How many are numbered: as many as a kernel may have labels."""


def _same(source: Any, target: Any) -> bool:
    return None in (source, target) or source == target


def _meeting(source: Any, target: Any) -> str:
    return f"a subject in {target} or an object in {source}"


SAME = Relation(
    "same", "both are in the same partition, or one of them is in none", _same, _meeting
)
"""What every permission of every class needs."""


class _Numbering:
    """Numbers partitions as they come; 0 is none."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {None: 0}
        self._next = itertools.count(1)

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be, some perhaps of labels that are gone."""
        return len(self._numbers) >= _PARTITIONS

    def sight(self, value: Any) -> Sight:
        """Return what is seen of a partition."""
        if value is not None and type(value) is not str:
            raise ValueError(f"a partition is a name, not {value!r}")
        if self.full and value not in self._numbers:
            raise ValueError(f"more than {_PARTITIONS} partitions")
        number = self._numbers.get(value)
        if number is None:  # another thread may number it as well: the first one holds
            number = self._numbers.setdefault(value, next(self._next))
        return Sight((number, 0, 0))


class Partition(PolicyModule):
    """Separates partitions.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel(policies=[Partition()]) as kernel:
        ...     red = kernel.create_task("red", label="partition/red")
        ...     blue = kernel.create_task("blue", label="partition/blue")
        ...     bool(kernel.access(red, blue.allocate_port(), "mach_port", "send"))
        False
    """

    name = "partition"

    def parse(self, text: str) -> str:
        """Return the partition's name.

        Raises:
            ValueError: it has blanks at its ends, so that two names might look the same.
        """
        if text != text.strip():
            raise ValueError(f"a partition's name has no blanks at its ends: {text!r}")
        return text

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Allow everything within a partition, and to and from what is in none."""
        return _YES if SAME.holds(source, target) else _NO

    @property
    def table_obstacle(self) -> str:
        """Nothing."""
        return ""

    def compile_tables(self, classes: Sequence[ObjectClass], before: Any) -> Table:
        """Return a table of one test: the same, or one of them in none."""
        test = any_of(same(0, TARGET), is_in(0, 0), is_in(TARGET, 0))
        each = ClassTable(ALL, tests=(Test(ALL, test),))
        numbering = before if isinstance(before, _Numbering) and not before.full else _Numbering()
        return Table(numbering, {tclass.number: each for tclass in classes}, sets=[1])

    def relation(self, tclass: str, permission: str) -> Relation:
        """Return what a permission needs: the same for all."""
        return SAME

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Name the two partitions, and who would be allowed."""
        if None in (source, target):
            return "allows: not both are in a partition"
        if source == target:
            return f"allows: both are in {source}"
        remedy = SAME.remedy(source, target)
        return f"refuses: subject in {source}, object in {target}; {remedy} would be allowed"
