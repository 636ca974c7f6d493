# SPDX-License-Identifier: BSD-2-Clause
"""`partition`: who is in different partitions shall not meet (FreeBSD mac_partition).

    partition/<name>

Equal partitions may do everything to each other, and so may whatever is in none.
"""

from __future__ import annotations

from typing import Any

from ..enums import ALL, ObjectClass
from .base import Decision, PolicyModule
from .relation import Relation

__all__ = ["SAME", "Partition"]

_YES = Decision()
_NO = Decision(allowed=0, auditdeny=ALL)


def _same(source: Any, target: Any) -> bool:
    return None in (source, target) or source == target


def _meeting(source: Any, target: Any) -> str:
    return f"a subject in {target} or an object in {source}"


SAME = Relation(
    "same", "both are in the same partition, or one of them is in none", _same, _meeting
)
"""What every permission of every class needs."""


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
