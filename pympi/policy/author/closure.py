# SPDX-License-Identifier: BSD-2-Clause
"""What else a recording needs: the permissions that its trace does not show.

SEDarwin's ipctrace sees a message leave and a right go out. Somebody made that right, somebody took
it, and somebody received the message: a system that may do no more than what was recorded does
nothing. The closure is what a replay of the recording asks, operation by operation, as
`pympi.trace.operations` has it; docs/learn.md has it as a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ...trace.mangle import port_label, task_label
from ...trace.operations import Operation, introduction, introductions, operations
from ...trace.plan import Plan, Port, make_plan
from ...trace.text import TraceRecord

__all__ = ["Grant", "asked", "closure", "recorded"]


class Grant(NamedTuple):
    """One permission: what an access vector rule allows, one by one. Types, class, by name."""

    source: str
    target: str
    tclass: str
    permission: str

    def __str__(self) -> str:
        return f"(allow {self.source} {self.target} ({self.tclass} ({self.permission})))"


def _type(what: Port | str) -> str:
    return task_label(what) if isinstance(what, str) else port_label(what.owner, what.kind)


def grants(operation: Operation) -> list[Grant]:
    """The permissions that an operation needs, in the order in which they are asked."""
    return [
        Grant(task_label(ask.subject), _type(ask.object), ask.tclass, ask.permission)
        for ask in operation.asks
    ]


def asked(plan: Plan) -> Counter[Grant]:
    """Every permission that a replay of `plan` asks, and by how many of its operations."""
    counts: Counter[Grant] = Counter()
    for task, port in introductions(plan):
        counts.update(set(grants(introduction(plan, task, port))))
    steps = {id(step): step for step in plan.steps}  # equal steps without riders are one object
    for key, times in Counter(map(id, plan.steps)).items():
        for operation in operations(plan, steps[key]):
            for grant in set(grants(operation)):
                counts[grant] += times
    return counts


def closure(records: Iterable[TraceRecord]) -> frozenset[Grant]:
    """Every permission that a replay of these records asks, those that are recorded included.

    Raises:
        ValueError: they cannot be replayed (`pympi.trace.make_plan`).
    """
    return frozenset(asked(make_plan(records)))


#: An event of the full form that is called otherwise than the permission it needs. The other
#: question of a receive, about the sender, is not in a trace: it does not say who sent.
_PERMISSION = {"recv": "use_recv"}


def recorded(records: Iterable[TraceRecord]) -> Counter[Grant]:
    """The permissions that were used according to the records themselves, and how often."""
    counts: Counter[Grant] = Counter()
    for event, task, owner, kind, _, count in records:
        permission = _PERMISSION.get(event, event)
        grant = Grant(task_label(task), port_label(owner, kind), "mach_port", permission)
        counts[grant] += count
    return counts
