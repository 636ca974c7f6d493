# SPDX-License-Identifier: BSD-2-Clause
"""From a recording to the list of messages that reproduces it, before anything runs.

Each record of SEDarwin's three events (SEDarwin ipctrace) becomes messages and rights, so that the
run records it again with exactly its count and nothing beside it. For a task with `c` copy_send and
`s` send on one port:

* `min(c, s)` messages go by COPY_SEND, which is both events at once;
* `s - c` more go by a right given to the task for this one message: MOVE_SEND where the task knows
  the port (`c > 0`), a send-once right where it does not, as in a reply;
* `c - s` more copies ride as body rights in messages the task sends anyway; so do receive rights
  (move_recv). What finds no message to ride on is extracted by the task from its own space, which
  moves or copies a right without a message.

Each path starts at its place in the recording, and its other uses are spread evenly over the rest
of the run: the order of first occurrence stays, and ports are visited as mixed as in a real system.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple, TypeVar

import numpy as np

from .text import TraceRecord, sedarwin_records

_Item = TypeVar("_Item", bound=Hashable)

#: Most events a plan may hold; making it takes about 50 bytes each.
MAX_EVENTS = 20_000_000
#: Most body rights one message carries here.
MAX_RIDERS = 16


class Port(NamedTuple):
    """A recorded port by its trace identity."""

    owner: str
    kind: int
    number: int


class How(Enum):
    """By which right a step sends; EXTRACT sends nothing."""

    COPY_SEND = "copy_send"
    MOVE_SEND = "move_send"
    MOVE_SEND_ONCE = "move_send_once"
    EXTRACT = "extract"


class Rider(NamedTuple):
    """A right that travels: `event` is copy_send or move_recv, `port` an index into Plan.ports."""

    event: str
    port: int


class Step(NamedTuple):
    """One message of `task` to `port` (indices into the plan), with the rights it carries."""

    task: int
    how: How
    port: int
    riders: tuple[Rider, ...] = ()


class Plan(NamedTuple):
    """What to build and what to do, in order. Equal steps without riders are one object."""

    records: list[TraceRecord]
    tasks: list[str]
    ports: list[Port]
    steps: list[Step]

    @property
    def events(self) -> int:
        """How many events the recording counts."""
        return sum(record.count for record in self.records)

    @property
    def work(self) -> int:
        """How many things a round does: the steps, and a last look at each port."""
        return len(self.steps) + len(self.ports)


class _Use(NamedTuple):
    """`item`, a message or a right that `task` sends, is due `times`, first at `start`."""

    task: int
    item: Step | Rider
    start: int
    times: int


class _Recorded(NamedTuple):
    start: int = 0
    times: int = 0


def make_plan(records: Iterable[TraceRecord]) -> Plan:
    """The plan that reproduces `records`; events that SEDarwin does not record are left out.

    Raises:
        ValueError: more than MAX_EVENTS events, a port that is a task's own (number -1) or of
            which nobody knows whose it is, or a name that no task can have.
    """
    records = sedarwin_records(records)
    for record in records:
        _refuse_unbuildable(record)
    if (events := sum(record.count for record in records)) > MAX_EVENTS:
        raise ValueError(f"expected at most {MAX_EVENTS} events to replay, found {events}")
    tasks = _index(name for record in records for name in (record.task, record.owner))
    ports = _index(Port(*record[2:5]) for record in records)
    pairs: dict[tuple[int, int], dict[str, _Recorded]] = defaultdict(dict)
    for start, record in enumerate(records):
        pair = pairs[tasks[record.task], ports[Port(*record[2:5])]]
        pair[record.event] = _Recorded(start, record.count)
    uses = [use for (task, port), pair in pairs.items() for use in _uses(task, port, pair)]
    return Plan(records, list(tasks), list(ports), _board(_spread(uses, len(records))))


def _refuse_unbuildable(record: TraceRecord) -> None:
    if record.number < 0:
        raise ValueError(f"expected port numbers from 0, found {record}")
    if not record.owner:
        where = f"port {record.number}, to which {record.task!r} did {record.event}"
        raise ValueError(f"expected to know whose every port is; nothing tells it of {where}")
    for name in (record.task, record.owner):
        try:
            raw = name.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raw = b"\0"
        if not raw or b"\0" in raw:
            raise ValueError(f"expected a name that a task can have, found {name!r}")


def _index(items: Iterable[_Item]) -> dict[_Item, int]:
    """Each distinct item with its rank of first occurrence."""
    ranks: dict[_Item, int] = {}
    for item in items:
        ranks.setdefault(item, len(ranks))
    return ranks


def _uses(task: int, port: int, pair: dict[str, _Recorded]) -> Iterator[_Use]:
    """What `task` has to do with `port`, by the rules at the top of this module."""
    sends, copies, moves = (
        pair.get(event, _Recorded()) for event in ("send", "copy_send", "move_recv")
    )
    both = min(sends.times, copies.times)
    reply = How.MOVE_SEND if copies.times else How.MOVE_SEND_ONCE
    for item, start, times in (
        (Step(task, How.COPY_SEND, port), min(sends.start, copies.start), both),
        (Step(task, reply, port), sends.start, sends.times - both),
        (Rider("copy_send", port), copies.start, copies.times - both),
        (Rider("move_recv", port), moves.start, moves.times),
    ):
        if times:
            yield _Use(task, item, start, times)


def _spread(uses: list[_Use], end: int) -> Iterator[_Use]:
    """Each use as often as it is due, in the order of start + (end - start) * k / times.

    Ties keep the order of `uses`.
    """
    times = np.array([use.times for use in uses], dtype=np.int64)
    starts = np.array([use.start for use in uses], dtype=np.int64)
    which = np.repeat(np.arange(len(uses)), times)
    k = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times)
    due = starts[which] + (end - starts[which]) * k / times[which]
    return (uses[at] for at in which[np.argsort(due, kind="stable")].tolist())


def _board(uses: Iterator[_Use]) -> list[Step]:
    """The steps, each rider on the next message of its task, else on an earlier one, or alone."""
    steps: list[Step] = []
    waiting: dict[int, deque[Rider]] = defaultdict(deque)
    for task, item, _, _ in uses:
        if isinstance(item, Rider):
            waiting[task].append(item)
        else:
            steps.append(_load(item, waiting[task]) if task in waiting else item)
    for at, step in enumerate(steps):
        if waiting.get(step.task):
            steps[at] = _load(step, waiting[step.task])
    for task, riders in waiting.items():
        steps += [Step(task, How.EXTRACT, rider.port, (rider,)) for rider in riders]
    return steps


def _load(step: Step, waiting: deque[Rider]) -> Step:
    """`step` with as many of its waiting riders as fit; the others stay in `waiting`, in order."""
    riders = list(step.riders)
    left: list[Rider] = []
    while waiting and len(riders) < MAX_RIDERS and len(left) < MAX_RIDERS:
        rider = waiting.popleft()
        (riders if _fits(rider, step.port, riders) else left).append(rider)
    waiting.extendleft(reversed(left))
    return step._replace(riders=tuple(riders)) if riders else step


def _fits(rider: Rider, destination: int, riders: list[Rider]) -> bool:
    """A message carries one receive right at most, and never its destination's, which would die."""
    if rider.event == "copy_send":
        return True
    return rider.port != destination and all(other.event == "copy_send" for other in riders)
