# SPDX-License-Identifier: BSD-2-Clause
"""How tasks came to hold rights: transfers of rights, followed back from what was recorded.

Every name has a provenance, the transfer that made it; a transfer has the same number in the
giver's records and in the taker's. So who has a right got it by a transfer, whose giver had it
under a name, which has a provenance, and so on to the task that made the port, whose name has none.

What was not selected or was lost is not in a file, and where the way ends there, it is said.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..enums import CLASSES, AuditFlag, Operation
from ..errors import PympiError
from .record import AuditRecord, Batch
from .stats import Gaps

__all__ = ["History", "Holding", "LineageError", "Message", "Right", "find", "history", "joined"]

Array = npt.NDArray[Any]

#: What a giver is asked: the right that it gives, and the one it has.
_GIVES = {
    "make_send": ("send", "receive"),
    "copy_send": ("send", "send"),
    "move_send": ("send", "send"),
    "make_send_once": ("send-once", "receive"),
    "move_send_once": ("send-once", "send-once"),
    "move_recv": ("receive", "receive"),
}
_TAKES = {"hold_send": "send", "hold_send_once": "send-once", "hold_recv": "receive"}
_PORT = CLASSES["mach_port"]
_GIVEN, _TAKEN = np.uint32(_PORT.mask(_GIVES)), np.uint32(_PORT.mask(_TAKES))
#: Operations of a task on a name of its own.
_USES = [int(op) for op in (Operation.SEND, Operation.RECEIVE, Operation.METHOD, Operation.GIVE)]


class LineageError(PympiError, ValueError):
    """A right, or a port, that cannot be asked for so."""


class NoRight(LineageError):
    """The files know nothing of the right, or of the port."""


# ---- both halves of a message ----


class Message(NamedTuple):
    """What was recorded of one transfer: of a message, or of a right given directly.

    Attributes:
        transfer: its number.
        sent: records of who sent it: send, method, give.
        received: records of who received it: receive, take. Of a right that was given directly, the
            record of its taker.
    """

    transfer: int
    sent: tuple[AuditRecord, ...]
    received: tuple[AuditRecord, ...]


_RECEIVER = {"receive", "take"}


def joined(batches: Iterable[Batch], *, pending: int = 65_536) -> Iterator[Message]:
    """Join the halves of messages by their transfer numbers.

    A message is yielded when its receiver's half is complete; at the end, those that were not
    received. A half without the other has nothing of it: it was not recorded, or was lost, or the
    messages that wait are more than `pending`: then the oldest is not waited for any more.

    Args:
        batches: of records, in order.
        pending: how many messages are kept until they are received.

    Example:
        >>> import tempfile, os.path
        >>> from pympi import Kernel, audit
        >>> path = os.path.join(tempfile.mkdtemp(), "run.audit")
        >>> with Kernel() as kernel:
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     right = inbox.make_send(kernel.create_task("client"))
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.File(path))
        ...     right.send(b"hello")
        ...     _ = inbox.receive()
        >>> [message] = joined(audit.batches(path))
        >>> [record.task_name for half in message[1:] for record in half]
        ['client', 'server']
    """
    waiting: OrderedDict[int, tuple[list[AuditRecord], list[AuditRecord]]] = OrderedDict()
    last = 0
    for batch in batches:
        for record in batch:
            number = record.transfer
            if last and number != last:
                yield _message(last, *waiting.pop(last))
                last = 0
            if not number:
                continue
            received = record.operation in _RECEIVER
            waiting.setdefault(number, ([], []))[received].append(record)
            last = number if received else last
            if len(waiting) > pending:
                oldest, halves = waiting.popitem(last=False)
                yield _message(oldest, *halves)
                last = 0 if oldest == last else last
    for number, halves in waiting.items():
        yield _message(number, *halves)


def _message(number: int, sent: list[AuditRecord], received: list[AuditRecord]) -> Message:
    return Message(number, tuple(sent), tuple(received))


# ---- rights ----


class Right(NamedTuple):
    """A name in a task's space, and what was seen of it.

    Attributes:
        task: number of the task.
        task_name: its name, "" if that is not known.
        name: number in the task's space.
        port: number of the port.
        provenance: the transfer that brought the name; 0 the task made it.
        kind: "send", "send-once" or "receive", as far as the last use tells; else "".
    """

    task: int
    task_name: str
    name: int
    port: int
    provenance: int
    kind: str


@dataclass(eq=False)
class Holding:
    """That somebody came to hold a right, or was refused it.

    Attributes:
        task, task_name: who; 0 and "" if that is not known.
        subject: the label under which; "" if that is not known.
        name: in the task's space; 0 not known.
        kind: "send", "send-once" or "receive"; "" not known.
        transfer: by which; 0: the task made the port, or has been seen with the right all along.
        given, taken: the records of it; None: there is none.
        giver: what the giver held; None: not known, or there is no giver.
        unknown: what the files do not tell; "" where nothing is missing.
        passed_on: who got a right from this one.
    """

    task: int
    task_name: str
    subject: str
    name: int
    kind: str
    transfer: int
    given: AuditRecord | None = None
    taken: AuditRecord | None = None
    giver: Holding | None = field(default=None, repr=False)
    unknown: str = ""
    passed_on: list[Holding] = field(default_factory=list, repr=False)

    @property
    def refused(self) -> bool:
        """Whether it was not to be held."""
        record = self.taken or self.given
        return record is not None and record.result != "KERN_SUCCESS"

    def way(self) -> list[Holding]:
        """Return this, what it came from, and so on back."""
        way = [self]
        while (giver := way[-1].giver) is not None:
            way.append(giver)
        return way


@dataclass(eq=False)
class History:
    """All that files tell of who held rights to one port.

    Attributes:
        port: its number.
        holdings: in the order in which they came about.
        missing: records that the files lack, by their numbers.
    """

    port: int
    holdings: list[Holding]
    missing: int

    @property
    def roots(self) -> list[Holding]:
        """Return those that came from no other, as far as is known."""
        return [holding for holding in self.holdings if holding.giver is None]

    def of(self, right: Right) -> Holding:
        """Return how a right came to be held.

        Raises:
            LineageError: it is none of this port.
        """
        mine = [h for h in self.holdings if (h.task, h.name) == (right.task, right.name)]
        if not mine:
            raise LineageError(f"task {right.task} had no right {right.name:#x} to this port")
        return next((h for h in mine if h.transfer == right.provenance), mine[-1])


def find(batches: Iterable[Batch], right: str) -> Right:
    """Find a right: the last that a task did by that name.

    Args:
        batches: of records, in order.
        right: TASK:NAME, where the task is a number or a name, and the name is a number.

    Raises:
        LineageError: it is not of that form, or several tasks are meant.
        NoRight: it is not there.
    """
    task, _, text = right.rpartition(":")
    try:
        name = int(text, 0)
    except ValueError:
        name = 0
    if not task or not 0 < name < 1 << 32:
        raise LineageError(f"expected TASK:NAME, as in printd:0x203, not {right!r}")
    found: dict[int, Right] = {}
    names: set[int] = set()
    for batch in batches:
        records = batch.records[np.isin(batch.records["task"], _numbers(batch, task))]
        records = records[(records["port"] != 0) & _of_a_right(records)]
        names.update(records["name"][:_HINTED].tolist())
        records = records[records["name"] == name]
        for number in np.unique(records["task"]).tolist():
            last = records[records["task"] == number][-1]
            known = found.get(number)
            before = known if known and known.port == int(last["port"]) else None
            found[number] = _seen(batch, last, before)
    if len(found) > 1:
        raise LineageError(f"several tasks are called {task!r}: {_listed(found)}; say its number")
    if not found:
        there = f"; there are {', '.join(map(hex, sorted(names)[:_HINTED]))}" if names else ""
        raise NoRight(f"no record has a name {name:#x} of a task {task!r}{there}")
    return next(iter(found.values()))


_HINTED = 8  # names that an error lists


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _numbers(batch: Batch, task: str) -> list[int]:
    """Return the numbers of tasks of a name; of a number, that."""
    if task.isascii() and task.isdecimal():
        return [int(task)] if len(task) < 10 else []
    numbers = np.unique(batch.records["task"]).tolist()
    return [number for number in numbers if batch.tasks.get(number) == task]


def _of_a_right(records: Array) -> Array:
    """Which records name a right in the space of the task that they are about."""
    received = records["flags"] & np.uint32(AuditFlag.RECEIVE) != 0
    taken = (records["operation"] == Operation.TAKE) & received
    return np.isin(records["operation"], _USES) | taken


def _seen(batch: Batch, record: Any, before: Right | None) -> Right:
    """Return what a record says of a right: the provenance is that of the name, if it was used."""
    task, asked = int(record["task"]), int(record["asked"])
    taken = record["operation"] == Operation.TAKE
    provenance = before.provenance if before and taken else int(record["provenance"])
    return Right(
        task, batch.tasks.get(task, ""), int(record["name"]), int(record["port"]), provenance,
        _held(asked) or (before.kind if before else ""),
    )  # fmt: skip


def _held(asked: int) -> str:
    """Return what right who was asked this has; "" if that does not tell."""
    names = _PORT.names(asked)
    has = {"use_recv": "receive", **_TAKES, **{name: held for name, (_, held) in _GIVES.items()}}
    return next((has[name] for name in names if name in has), "")


# ---- the history of a port ----


def history(batches: Iterable[Batch], port: int) -> History:
    """Find out who held rights to a port, and from whom.

    Args:
        batches: of all records, in order.
        port: its number.

    Raises:
        NoRight: no record is about it.
    """
    collected = _Collected()
    gaps = Gaps()
    for batch in batches:
        gaps.add(batch.records)
        about = batch.records[batch.records["port"] == port]
        if len(about):
            collected.add(Batch(about, batch.labels, batch.tasks, batch.classes))
    if not collected.uses and not collected.gives and not collected.takes:
        raise NoRight(f"no record is about a right to port {port}")
    return History(port, _Tied(collected).holdings, gaps.missing)


class _Collected:
    """What is worth keeping of the records about a port."""

    def __init__(self) -> None:
        self.gives: dict[int, list[AuditRecord]] = {}
        self.takes: dict[int, list[AuditRecord]] = {}
        self.uses: dict[tuple[int, int, int], Right] = {}

    def add(self, batch: Batch) -> None:
        """Keep transfers of rights, and of the uses of each name, one."""
        records = batch.records
        asked = records["asked"]
        given, taken = asked & _GIVEN != 0, asked & _TAKEN != 0
        moved = (records["operation"] != Operation.SEND) & (given | taken)
        for record, is_take in zip(_only(batch, moved), taken[moved].tolist(), strict=True):
            kept = self.takes if is_take else self.gives
            kept.setdefault(record.transfer, []).append(record)
        self._add_uses(batch, np.isin(records["operation"], _USES))

    def _add_uses(self, batch: Batch, wanted: Array) -> None:
        records = batch.records[wanted]
        key = records["task"].astype(np.uint64) << np.uint64(32) | records["name"]
        _, last = np.unique(key[::-1], return_index=True)
        for record in records[::-1][np.sort(last)]:
            seen = _seen(batch, record, None)
            before = self.uses.get((seen.task, seen.name, seen.provenance))
            kind = seen.kind or (before.kind if before else "")
            self.uses[seen.task, seen.name, seen.provenance] = seen._replace(kind=kind)


def _only(batch: Batch, wanted: Array) -> Iterator[AuditRecord]:
    return iter(Batch(batch.records[wanted], batch.labels, batch.tasks, batch.classes))


class _Tied:
    """Makes holdings of what was collected, and ties each to what its giver held."""

    def __init__(self, collected: _Collected) -> None:
        self.holdings: list[Holding] = []
        self._collected = collected
        self._by_transfer: dict[int, list[Holding]] = {}
        self._roots: dict[tuple[int, int], Holding] = {}
        for number in sorted({*collected.gives, *collected.takes} - {0}):
            self._add_transfer(number)
        for use in collected.uses.values():
            self._add_use(use)
        for holding in self.holdings[:]:
            self._tie(holding)
        self.holdings.sort(key=lambda holding: holding.transfer)

    def _add_transfer(self, number: int) -> None:
        gives = self._by_kind(number, self._collected.gives, lambda name: _GIVES[name][0], _GIVES)
        takes = self._by_kind(number, self._collected.takes, _TAKES.__getitem__, _TAKES)
        for kind in {**gives, **takes}:
            self._add(_holding(number, kind, gives.get(kind), takes.get(kind)))

    def _by_kind(
        self, number: int, records: Mapping[int, list[AuditRecord]], kind: Callable[[str], str],
        names: Iterable[str],
    ) -> dict[str, AuditRecord]:  # fmt: skip
        return {
            kind(name): record
            for record in records.get(number, ()) for name in record.asked if name in names
        }  # fmt: skip

    def _add(self, holding: Holding) -> Holding:
        self.holdings.append(holding)
        self._by_transfer.setdefault(holding.transfer, []).append(holding)
        return holding

    def _add_use(self, use: Right) -> None:
        """Learn who it is that has been seen with a right, and under which name."""
        if not use.provenance:
            self._root(use.task, use.task_name, use.name)
            return
        holding = self._held_by(use.task, use.name, use.provenance, use.kind)
        holding.task, holding.task_name, holding.name = use.task, use.task_name, use.name

    def _held_by(self, task: int, name: int, transfer: int, kind: str) -> Holding:
        """Return what a task got by a transfer; if there is no record of it, one that says so."""
        fitting = [
            holding
            for holding in self._by_transfer.get(transfer, ())
            if holding.task in (0, task) and holding.name in (0, name) and not holding.refused
        ]
        same = [holding for holding in fitting if holding.kind == kind]
        if same or fitting:
            return (same or fitting)[0]
        unknown = f"no record of transfer {transfer}"
        return self._add(Holding(task, "", "", name, kind, transfer, unknown=unknown))

    def _root(self, task: int, task_name: str, name: int) -> Holding:
        if (task, name) not in self._roots:
            made = Holding(task, task_name, "", name, "receive", 0)
            self._roots[task, name] = self._add(made)
        return self._roots[task, name]

    def _tie(self, holding: Holding) -> None:
        give = holding.given or self._kept(holding)
        if give is None:
            return
        holding.given = give
        if give.provenance:
            had = next((_GIVES[name][1] for name in give.asked if name in _GIVES), "")
            giver = self._held_by(give.task, give.name, give.provenance, had)
            giver.task, giver.task_name, giver.name = give.task, give.task_name, give.name
        else:
            giver = self._root(give.task, give.task_name, give.name)
        if giver.transfer < holding.transfer:  # else it is forged: nobody gives what he gets later
            holding.giver = giver
            giver.passed_on.append(holding)

    def _kept(self, holding: Holding) -> AuditRecord | None:
        """Return who last set the special port that this is a copy of."""
        taken = holding.taken
        if taken is None or taken.operation != "task":
            return None
        set_ = [r for r in self._collected.gives.get(0, ()) if r.sequence < taken.sequence]
        return set_[-1] if set_ else None


def _holding(number: int, kind: str, give: AuditRecord | None, take: AuditRecord | None) -> Holding:
    """Return what a transfer of one right says."""
    unknown = ""
    if take is None and give is not None and give.result == "KERN_SUCCESS":
        unknown = "no record that it was received"
    elif give is None and take is not None and take.operation != "task":
        unknown = "no record of who gave it"
    holding = Holding(0, "", "", 0, kind, number, give, take, unknown=unknown)
    if take is not None:
        holding.subject = take.subject
        if AuditFlag.RECEIVE in take.flags or take.operation == "task":
            holding.task, holding.task_name, holding.name = take.task, take.task_name, take.name
    return holding
