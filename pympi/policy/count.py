# SPDX-License-Identifier: BSD-2-Clause
"""`count`: counts what it is asked, and answers what it is told to (SEDarwin mac_count).

SEDarwin's module has a counter and a settable return value for each hook; this one has them for
each class, and a code for relabelling.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..enums import ALL, ObjectClass
from .base import Decision, PolicyModule

__all__ = ["Count"]


class Count(PolicyModule):
    """Counts questions, and refuses on demand.

    Args:
        uncached: True (the default) to count every operation, False to count cache misses.

    Attributes:
        counts (Counter[str]): by class, and "relabel", "new_port", "new_task", "new" for the rest.

    Example:
        >>> from pympi import Kernel
        >>> count = Count()
        >>> with Kernel(policies=[count]) as kernel:
        ...     task = kernel.create_task("t")
        ...     bool(kernel.access(task, task, "mach_task", "observe"))
        ...     count.refuse("mach_task", "observe")
        ...     bool(kernel.access(task, task, "mach_task", "observe"))
        True
        False
    """

    name = "count"

    def __init__(self, *, uncached: bool = True) -> None:
        self.uncached = uncached
        self.counts: Counter[str] = Counter()
        self.relabel_code = 0
        self._refused: dict[str, str | int] = {}

    def refuse(self, tclass: str, permissions: str | int) -> None:
        """Refuse these permissions of a class from now on; "" refuses none.

        Takes effect at once if the module is uncached, else when the policy next changes.
        """
        self._refused[tclass] = permissions

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Count the class, and refuse what is to be refused."""
        self.counts[tclass.name] += 1
        refused = tclass.mask(self._refused.get(tclass.name, 0))
        return Decision(allowed=~refused & ALL)

    def label_new(self, source: Any, target: Any, tclass: ObjectClass) -> Any:
        """Count it."""
        self.counts["new"] += 1

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        """Count it."""
        self.counts["new_port"] += 1

    def label_new_task(self, parent: Any) -> Any:
        """Count it."""
        self.counts["new_task"] += 1

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> int:
        """Count it, and answer `relabel_code`."""
        self.counts["relabel"] += 1
        return self.relabel_code

    def explain_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> str:
        """Say whether it was told to refuse, without counting it."""
        return "refuses, as it was told to" if self.relabel_code else "allows"

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Say whether the permission is one that was to be refused."""
        refused = tclass.mask(self._refused.get(tclass.name, 0)) & tclass.mask(permission)
        return "refuses, as it was told to" if refused else "allows"
