# SPDX-License-Identifier: BSD-2-Clause
"""`stub`: a module that has every method, and no opinion (SEDarwin and FreeBSD mac_stub).

What a kernel with it costs more than one without is the price of the hooks themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..enums import ALL, ObjectClass
from .base import Decision, PolicyModule
from .tables import UNSEEN, ClassTable, Table

__all__ = ["Stub"]

_NO_OPINION = Decision()


class Stub(PolicyModule):
    """Is asked everything, and refuses nothing."""

    name = "stub"

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Allow everything, and have nothing recorded."""
        return _NO_OPINION

    @property
    def table_obstacle(self) -> str:
        """Nothing."""
        return ""

    def compile_tables(self, classes: Sequence[ObjectClass], before: Any) -> Table:
        """Return a table that allows everything."""
        return Table(UNSEEN, {tclass.number: ClassTable(ALL) for tclass in classes})

    def label_new(self, source: Any, target: Any, tclass: ObjectClass) -> Any:
        """Leave the target's value."""
        return None

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        """Leave the owner's value."""
        return None

    def label_new_task(self, parent: Any) -> Any:
        """Leave the parent's value."""
        return None

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> int:
        """Allow it."""
        return 0

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Say that there is no opinion."""
        return "has no opinion"

    def explain_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> str:
        """Say that there is no opinion."""
        return "has no opinion"
