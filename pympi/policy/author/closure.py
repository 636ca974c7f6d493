# SPDX-License-Identifier: BSD-2-Clause
"""What else a recording needs: the permissions that its trace does not show.

SEDarwin's ipctrace sees a message leave and a right go out. Somebody made that right, somebody took
it, and somebody received the message: a system that may do no more than what was recorded does
nothing. The closure is what a replay of the recording asks, operation by operation, as
`pympi.trace.operations` has it. Of a full trace it is also what the recorded run itself may have
asked about its messages, as far as the trace shows them; docs/learn.md has both as tables.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...trace.mangle import port_label, task_label
from ...trace.operations import Operation, introduction, introductions, operations
from ...trace.plan import Plan, Port, make_plan
from ...trace.text import TraceRecord

__all__ = ["MAX_PAIRS", "Grant", "asked", "closure", "completion", "recorded"]

MAX_PAIRS = 1 << 22
"""Most pairs of a sender and a receiver of one port in a full trace: each is a permission."""


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


def closure(records: Sequence[TraceRecord], form: str) -> frozenset[Grant]:
    """Every permission that these records need, of those that are recorded not all.

    Args:
        records: of a trace, in its order.
        form: of the trace, "sedarwin" or "full".

    Raises:
        ValueError: they cannot be replayed (`pympi.trace.make_plan`), or there are more than
            MAX_PAIRS pairs.
    """
    needed = frozenset(asked(make_plan(records)))
    return needed.union(completion(records)) if form == "full" else needed


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


# --- full traces ----------------------------------------------------------------------------------

_GIVES = frozenset(
    ["make_send", "make_send_once", "copy_send", "move_send", "move_send_once", "move_recv"]
)
_TAKES = frozenset(["hold_send", "hold_send_once", "hold_recv"])


class _Messages:
    """What a full trace shows of messages, by the places of its records, which are in the order of
    first occurrence: what happened once happened there, all else perhaps also at the end.

    Attributes:
        senders, receivers: of a port, with the place of the first message.
        waiting: messages to a port that nobody received.
        gifts: rights given otherwise than as a message's destination, by task and port, each with
            the last place where that may have been; what is said in a reply right is among them.
        given, taken: the last place where a task may have given such a right, or taken one.
    """

    def __init__(self, records: Sequence[TraceRecord]) -> None:
        self.senders: defaultdict[Port, dict[str, int]] = defaultdict(dict)
        self.receivers: defaultdict[Port, dict[str, int]] = defaultdict(dict)
        self.waiting: Counter[Port] = Counter()
        self.gifts: list[tuple[str, str, Port, int]] = []
        self.given: defaultdict[str, int] = defaultdict(lambda: -1)
        self.taken: defaultdict[str, int] = defaultdict(lambda: -1)
        spare = _spare(records)
        for at, (event, task, owner, kind, number, count) in enumerate(records):
            port, last = Port(owner, kind, number), at if count == 1 else len(records)
            if event == "send":
                self.senders[port][task] = at
                self.waiting[port] += count
            elif event == "recv":
                self.receivers[port][task] = at
                self.waiting[port] -= count
            elif event in _TAKES:
                self.taken[task] = max(self.taken[task], last)
            elif event == "move_recv" or spare[task, port] > 0:
                self.gifts.append((event, task, port, last))
                self.given[task] = max(self.given[task], last)

    def rights_arrived(self, port: Port) -> bool:
        """Whether there may have been rights in messages to a port."""
        takers = self.receivers[port].items()
        return self.waiting[port] > 0 or any(self.taken[task] > at for task, at in takers)


def _spare(records: Iterable[TraceRecord]) -> Counter[tuple[str, Port]]:
    """How many rights to a port a task gave beside those that its messages there went by."""
    spare: Counter[tuple[str, Port]] = Counter()
    for event, task, owner, kind, number, count in records:
        if event == "send":
            spare[task, Port(owner, kind, number)] -= count
        elif event in _GIVES and event != "move_recv":
            spare[task, Port(owner, kind, number)] += count
    return spare


def completion(records: Sequence[TraceRecord]) -> Iterator[Grant]:
    """Yield what the run behind a full trace may have asked about its messages, unseen.

    A trace does not say which right was in which message, so this is what it does not rule out.

    Raises:
        ValueError: there are more than MAX_PAIRS pairs.
    """
    seen = _Messages(records)
    pairs = sum(len(tasks) * len(seen.receivers[port]) for port, tasks in seen.senders.items())
    if pairs > MAX_PAIRS:
        what = "pairs of a sender and a receiver"
        raise ValueError(f"expected at most {MAX_PAIRS} {what}, found {pairs}")
    asks = (*_sent(seen), *_replied(seen), *_polled(records))
    return (Grant(task_label(who), _type(what), "mach_port", p) for who, what, p in asks)


_Ask = tuple[str, Port | str, str]


def _sent(seen: _Messages) -> Iterator[_Ask]:
    """What is asked of who sends, about what may be in the message, and of who receives it."""
    for port, tasks in seen.senders.items():
        arrived = seen.rights_arrived(port)
        for task, at in tasks.items():
            yield task, port, "carry_memory"
            if arrived and seen.given[task] > at:
                yield task, port, "carry_rights"
            yield from ((receiver, task, "recv") for receiver in seen.receivers[port])


def _replied(seen: _Messages) -> Iterator[_Ask]:
    """A right that travelled with a message may have been the one to answer it by."""
    first: dict[str, int] = {}
    for tasks in seen.senders.values():
        for task, at in tasks.items():
            first[task] = min(at, first.get(task, at))
    for event, task, port, last in seen.gifts:
        if event != "move_recv" and task in first and last > first[task]:
            yield task, port, "set_reply"


def _polled(records: Sequence[TraceRecord]) -> Iterator[_Ask]:
    """Who makes rights has the receive right; to look for messages and find none is no event."""
    for event, task, owner, kind, number, _ in records:
        if event in ("make_send", "make_send_once"):
            yield task, Port(owner, kind, number), "use_recv"
