# SPDX-License-Identifier: BSD-2-Clause
"""Paths: what one task did to one port, from a trace or from audit records.

What was done is counted in ipctrace's events. An audit record says them by its permissions: a
message by COPY_SEND asks send and copy_send in one record, and is these two events. Refused
operations are no events, and neither is what notifications ask, as in ipctrace.

A record that was kept by chance counts for as many as it stands: such counts are estimates.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ...audit.words import Words
from ...enums import CLASSES, AuditFlag, MachPort, Operation
from ...errors import PympiError, code_name
from ..labels import Labels
from ..text import EVENTS, TraceRecord

if TYPE_CHECKING:
    from ...audit import Batch

__all__ = [
    "GIVES", "MAX_ROWS", "Path", "PathError", "PortKey", "of_audit", "of_trace", "permission_name",
]  # fmt: skip

#: Events in which a task gives a right away; each message has one of them for its destination.
GIVES = ("make_send", "make_send_once", "copy_send", "move_send", "move_send_once", "move_recv")
#: Events of a right for one message, which is what replies go by.
_ONCE = ("move_send_once", "hold_send_once")

MAX_ROWS = 1_000_000
_AT_ONCE = 1 << 18
#: Different methods of one path that are told apart.
MAX_METHODS = 1024
OTHER_METHODS = "others"


class PathError(PympiError, ValueError):
    """A recording too varied to make a graph of."""


class PortKey(NamedTuple):
    """Which port: its owner ("" if nobody knows), its kind, and its number or a service's name.

    Of what has neither, as a file in a log of AVC messages, the label.
    """

    owner: str
    kind: int
    number: int
    service: str = ""
    label: str = ""


@dataclass(slots=True)
class Path:
    """What one task did to one port.

    Attributes:
        events: by event of ipctrace.
        methods: messages by routine.
        bytes: of the messages, and of those by a send-once right.
        denied: by permissions that were refused at once, reason, and whether it was enforced.
        asks: by subject's and object's label, class, permission.
        first, last: seconds, where known.
        service: by which name the name server has the port, as far as it was asked for.
        sampled: records of it that were kept by chance and stand for others: if there are any, its
            counts are estimates.
        classes: permissions of the recording's classes, in bit order; one mapping for all paths.
    """

    task: str
    port: PortKey
    task_label: str = ""
    port_label: str = ""
    owner_label: str = ""
    events: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    once_bytes: int = 0
    denied: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    asks: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    first: float | None = None
    last: float | None = None
    service: str = ""
    sampled: int = 0
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """How many were sent."""
        return self.events.get("send", 0)

    @property
    def housekeeping(self) -> bool:
        """Whether the task only received from a port of its own, or made rights to it."""
        own = self.task == self.port.owner and not self.port.service
        return own and not self.messages and not self.denied

    def parted(self) -> tuple[Path | None, Path | None]:
        """Return what are requests and what are replies.

        SEDarwin's form does not say by which right a message went. There a task that sends to a
        port and never copied a right to it answers by send-once rights.
        """
        replies = self._replies()
        events = {event: self.events[event] for event in _ONCE if event in self.events}
        if not replies and not events:
            return self, None
        rest = {k: n for k, n in self.events.items() if k not in events}
        if replies:
            events["send"] = replies
            rest["send"] -= replies
        rest = {event: count for event, count in rest.items() if count}
        if not rest and not self.denied:
            return None, self
        request = replace(self, events=rest, bytes=self.bytes - self.once_bytes)
        nothing: Any = {"denied": Counter(), "asks": Counter(), "methods": {}}
        return request, replace(self, events=events, bytes=self.once_bytes, **nothing)

    def _replies(self) -> int:
        if self.port.kind or self.task == self.port.owner:
            return 0
        by_right = any(event in self.events for event in GIVES if event != "move_recv")
        once = self.events.get("move_send_once", 0) if by_right else self.messages
        return min(once, self.messages)


# --- of traces ------------------------------------------------------------------------------------


def of_trace(records: Iterable[TraceRecord], labels: Labels | None = None) -> list[Path]:
    """Return the paths of a trace, in order of first occurrence."""
    paths: dict[tuple[str, PortKey], Path] = {}
    for event, task, owner, kind, number, count in records:
        port = PortKey(owner, kind, number)
        path = paths.get((task, port))
        if path is None:
            path = paths[task, port] = Path(task, port)
            if labels:
                path.task_label = labels.task(task)
                path.port_label = labels.port(owner, kind)
                path.owner_label = labels.task(owner)
        path.events[event] = path.events.get(event, 0) + count
        if labels:
            permission = "use_recv" if event == "recv" else event
            path.asks[path.task_label, path.port_label, "mach_port", permission] += count
    return list(paths.values())


# --- of audit records -----------------------------------------------------------------------------

_PORT = CLASSES["mach_port"].number
#: Operations whose permissions are events of ipctrace.
_COUNTED = {
    Operation.SEND, Operation.RECEIVE, Operation.GIVE, Operation.TAKE, Operation.INSERT_RIGHT,
    Operation.EXTRACT_RIGHT,
}  # fmt: skip
#: What only the holder of the receive right can be asked.
_HOLDER = MachPort.make_send | MachPort.make_send_once | MachPort.move_recv | MachPort.use_recv
_SHOWN_FLAGS = AuditFlag.PERMISSIVE | AuditFlag.ERROR | AuditFlag.RECEIVE
_COLUMNS = (
    "real_sid", "effective_sid", "object_sid", "peer_sid", "task", "port", "tclass", "operation",
    "asked", "denied", "report", "result", "flags", "msgh_id", "name",
)  # fmt: skip


class _Row(NamedTuple):
    """A kind of record, in words where numbers may come to stand for something else."""

    real: str
    subject: str
    object: str
    peer: str
    task: str
    port: int
    tclass: str
    operation: int
    asked: tuple[str, ...]
    denied: tuple[str, ...]
    reported: tuple[str, ...]
    result: int
    flags: int
    msgh_id: int
    service: str

    @property
    def enforced(self) -> bool:
        """Whether it was refused."""
        return bool(self.denied) and not self.flags & AuditFlag.PERMISSIVE

    @property
    def done(self) -> bool:
        return not self.enforced and not self.flags & AuditFlag.ERROR


_K = TypeVar("_K")


@dataclass(slots=True)
class _Sums:
    count: int = 0
    bytes: int = 0
    first: float = 0.0
    last: float = 0.0
    sampled: int = 0


def of_audit(batches: Iterable[Batch]) -> tuple[list[Path], int]:
    """Return the paths of audit records, in order of first occurrence, and how many were lost."""
    tally = _Tally()
    for batch in batches:
        tally.add(batch)
    return tally.paths(), tally.lost


class _Tally:
    """Counts kinds of records by their numbers as long as these stand for the same, then in words.

    What a server was asked about is known for one batch only, so that is put into words at once.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: list[npt.NDArray[Any]] = []
        self._waits = 0  # records
        self._numbers: dict[tuple[int, ...], _Sums] = {}
        self._batch: Batch | None = None  # whose tables the numbers are of
        self._rows: dict[_Row, _Sums] = {}
        self._classes: dict[str, tuple[str, ...]] = {}
        self._owner: dict[int, str] = {}  # by port
        self._labels: dict[int, str] = {}  # of ports, as first seen

    def add(self, batch: Batch) -> None:
        """Count a batch.

        Raises:
            PathError: there are too many kinds of records.
        """
        records = batch.records
        loss = records["flags"] & AuditFlag.LOSS != 0
        self.lost += int(records["result"][loss].astype(np.int64).sum())
        records = records[~loss]
        if not len(records):
            return
        if self._batch is not None and _rebound(self._batch, batch):
            self._settle()
        self._batch = batch
        self._classes |= {n: each.permissions for n, each in batch.used_classes().items()}
        self._find_owners(batch, records)
        served = records["operation"] == Operation.SERVICE
        for row, sums in _distinct(records[served]):
            _add(self._rows, _words(batch, row), sums)
        self._waiting.append(records[~served])
        self._waits += len(self._waiting[-1])
        if self._waits >= _AT_ONCE:
            self._merge()

    def _merge(self) -> None:
        """Count the records that wait; many at once, since the same come again and again."""
        if self._waiting:
            for row, sums in _distinct(np.concatenate(self._waiting)):
                _add(self._numbers, row, sums)
        self._waiting.clear()
        self._waits = 0
        if len(self._rows) + len(self._numbers) > MAX_ROWS:
            raise PathError(f"more than {MAX_ROWS:,} different kinds of records: select fewer")

    def _settle(self) -> None:
        """Put into words what was counted by numbers."""
        self._merge()
        if self._batch is not None:
            for row, sums in self._numbers.items():
                _add(self._rows, _words(self._batch, row), sums)
        self._numbers.clear()

    def _find_owners(self, batch: Batch, records: npt.NDArray[Any]) -> None:
        refused = (records["denied"] != 0) & (records["flags"] & AuditFlag.PERMISSIVE == 0)
        holds = (records["tclass"] == _PORT) & (records["asked"] & int(_HOLDER) != 0) & ~refused
        held = records[holds & (records["port"] != 0)]
        ports, first = np.unique(held["port"], return_index=True)
        for port, at in zip(ports.tolist(), first.tolist(), strict=True):
            if port not in self._owner:
                self._owner[port] = _task_name(batch, int(held["task"][at]))
                self._labels[port] = batch.labels.get(int(held["object_sid"][at]), "")

    def paths(self) -> list[Path]:
        """Return what was counted."""
        self._settle()
        attribution = _Attribution(self._rows, self._owner, self._labels)
        services = _services(self._rows)
        with_methods = {(row.task, row.port) for row in self._rows if _is_method(row)}
        paths: dict[tuple[str, PortKey], Path] = {}
        for row, sums in self._rows.items():
            if not row.tclass:
                continue
            path = attribution.path(row, paths)
            path.classes, path.service = self._classes, services.get(path.port.number, "")
            _count_row(path, row, sums, numbered=(row.task, row.port) not in with_methods)
        return [path for path in paths.values() if path.events or path.denied or path.methods]


def _services(rows: Iterable[_Row]) -> dict[int, str]:
    """Return ports by the first name that the name server found them by.

    Not by those that were asked to be registered: such a request may fail after it was allowed.
    """
    found: dict[int, str] = {}
    for row in rows:
        if row.port and row.service and row.tclass == "service":
            found.setdefault(row.port, row.service)
    return found


def _add(rows: dict[_K, _Sums], row: _K, sums: _Sums) -> None:
    known = rows.setdefault(row, sums)
    if known is not sums:
        known.count += sums.count
        known.bytes += sums.bytes
        known.sampled += sums.sampled
        known.first, known.last = min(known.first, sums.first), max(known.last, sums.last)


def _rebound(before: Batch, now: Batch) -> bool:
    """Whether a number stands for something else now, or for nothing any more."""
    tables = ((before.labels, now.labels), (before.tasks, now.tasks), (before.classes, now.classes))
    return any(
        new.rebinds(old) if isinstance(new, Words)
        else old != new and any(new.get(number) != known for number, known in old.items())
        for old, new in tables
    )  # fmt: skip


class _Attribution:
    """Whose port a record is about, and whose deed it is."""

    def __init__(
        self, rows: Iterable[_Row], owners: Mapping[int, str], labels: Mapping[int, str]
    ) -> None:
        self._owners = owners
        self._task_labels: dict[str, str] = {}
        by_label: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            self._task_labels.setdefault(row.task, row.real)
            by_label[row.real].add(row.task)
        self._senders: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
        for row in rows:
            if row.operation == Operation.SEND:
                self._senders[row.port, row.subject].add(row.task)
        self._by_label = {k: min(v) for k, v in by_label.items() if k != "-" and len(v) == 1}
        of_ports: defaultdict[str, set[str]] = defaultdict(set)
        for port, label in labels.items():
            of_ports[label].add(owners[port])
        self._by_port_label = {k: min(v) for k, v in of_ports.items() if k and len(v) == 1}

    def path(self, row: _Row, paths: dict[tuple[str, PortKey], Path]) -> Path:
        task, label, port = *self._doer(row), self._port(row)
        if (task, port) not in paths:
            owner = _known(self._task_labels.get(port.owner, ""))
            paths[task, port] = Path(task, port, label, _known(row.object), owner)
        return paths[task, port]

    def _doer(self, row: _Row) -> tuple[str, str]:
        """Whose deed it is, and under which label. Where a message was refused at the receiving
        end for who sent it, the sender's, as far as its label tells who that was."""
        if row.operation == Operation.RECEIVE and row.denied == ("recv",) and row.enforced:
            senders = self._senders.get((row.port, row.peer), set())
            if len(senders) == 1:
                return min(senders), _known(row.peer)
        return self._task(row), _known(row.subject)

    def _task(self, row: _Row) -> str:
        """Who did it. In old trails who puts a right into the space of another takes it, too: there
        it is that one, as far as its label tells; so it is of the port that a task is given."""
        given = row.operation in (Operation.TAKE, Operation.TASK)
        if given and not row.flags & AuditFlag.RECEIVE and row.subject != row.real:
            return self._by_label.get(row.subject, row.task)
        return row.task

    def _port(self, row: _Row) -> PortKey:
        if row.service or row.tclass in ("service", "kernel"):
            return PortKey("", 0, 0, row.service or row.object)
        if row.tclass == "mach_task" or not row.port:  # a task, or what a label allows at all
            owner = self._by_label.get(row.object, "")
            return PortKey(owner, 0, 0, label="" if owner else _known(row.object))
        owner = self._owners.get(row.port) or self._by_port_label.get(row.object, "")
        return PortKey(owner, 0, row.port)


def _known(label: str) -> str:
    return "" if label == "-" else label


def _is_method(row: _Row) -> bool:
    return row.operation == Operation.METHOD


def _count_row(path: Path, row: _Row, sums: _Sums, *, numbered: bool) -> None:
    path.sampled += sums.sampled
    _count_refusals(path, row, sums.count)
    for permission in row.asked:
        other = row.peer if permission == "recv" and row.tclass == "mach_port" else row.object
        if row.subject != "-" and other != "-":
            path.asks[row.subject, other, row.tclass, permission] += sums.count
    if row.done:
        _count_done(path, row, sums, numbered)


def _count_refusals(path: Path, row: _Row, count: int) -> None:
    if row.denied:
        reason = code_name(row.result) if row.enforced else "permissive"
        what = permission_name(row.tclass, " ".join(row.denied))
        path.denied[what, reason, row.enforced] += count
    reported = [permission for permission in row.reported if permission not in row.denied]
    if reported:
        path.denied[permission_name(row.tclass, " ".join(reported)), "reported", False] += count


def permission_name(tclass: str, permission: str) -> str:
    """Return what a permission is called: with its class, but for those that are met most."""
    return permission if tclass in ("mach_port", "service") else f"{tclass}:{permission}"


def _count_done(path: Path, row: _Row, sums: _Sums, numbered: bool) -> None:
    path.first = sums.first if path.first is None else min(path.first, sums.first)
    path.last = sums.last if path.last is None else max(path.last, sums.last)
    for event in _events(row):
        path.events[event] = path.events.get(event, 0) + sums.count
    if row.operation == Operation.SEND and row.tclass == "mach_port":
        path.bytes += sums.bytes
        path.once_bytes += sums.bytes if "move_send_once" in row.asked else 0
    for method in _methods(row, numbered):
        known = method in path.methods or len(path.methods) < MAX_METHODS
        key = method if known else OTHER_METHODS
        path.methods[key] = path.methods.get(key, 0) + sums.count


def _events(row: _Row) -> Iterator[str]:
    if row.tclass == "mach_port" and row.operation in _COUNTED:
        yield from (name for name in row.asked if name in EVENTS)
    elif row.tclass in ("service", "kernel"):
        yield from row.asked
    elif row.tclass != "mach_port" and not _is_method(row):  # also a class of another system
        yield from (f"{row.tclass}:{name}" for name in row.asked)


def _methods(row: _Row, numbered: bool) -> Iterator[str]:
    if _is_method(row):
        yield from row.asked
    elif row.operation == Operation.SEND and numbered and row.msgh_id:
        yield f"msgh_id {row.msgh_id}"


def _task_name(batch: Batch, number: int) -> str:
    return batch.tasks.get(number) or f"task {number}"


def _label(batch: Batch, sid: int) -> str:
    return batch.labels.get(sid, f"sid:{sid}") if sid else "-"


def _words(batch: Batch, raw: tuple[int, ...]) -> _Row:
    real, subject, target, peer, task, port, number, operation, asked, denied, report = raw[:11]
    result, flags, msgh_id, name = raw[11:]
    tclass = batch.classes.get(number)
    labels = [_label(batch, sid) for sid in (real, subject, target, peer)]
    service = batch.services.get(name, "") if operation == Operation.SERVICE else ""
    words = [tclass.names(bits) if tclass else () for bits in (asked, denied, report)]
    about: list[Any] = [*labels, _task_name(batch, task), port, tclass.name if tclass else ""]
    return _Row._make([*about, operation, *words, result, flags, msgh_id, service])


#: Odd, so that multiplying by them loses nothing; one for each column.
_MIX = tuple(
    np.uint64(((0x9E3779B97F4A7C15 * (2 * n + 1)) & (1 << 64) - 1) | 1)
    for n in range(len(_COLUMNS))
)


def _distinct(records: npt.NDArray[Any]) -> Iterator[tuple[tuple[int, ...], _Sums]]:
    """Yield each kind of record with the sums of those that are of it, in order of the first."""
    columns = _columns(records)
    mixed = np.zeros(len(records), np.uint64)
    for column, factor in zip(columns, _MIX, strict=True):
        mixed ^= column * factor
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    _, first, which = np.unique(mixed, return_index=True, return_inverse=True)
    if not all((column[first][which] == column).all() for column in columns):
        table = np.stack(columns)
        _, first, which = np.unique(table, axis=1, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    counts, sizes, sampled = _weighed(records, which)
    times = records["time"] / 1e9
    earliest, latest = np.full(len(first), np.inf), np.zeros(len(first))
    np.minimum.at(earliest, which, times)
    np.maximum.at(latest, which, times)
    rows = list(zip(*(column[first].tolist() for column in columns), strict=True))
    for at in np.argsort(first, kind="stable").tolist():
        times_of = float(earliest[at]), float(latest[at])
        yield rows[at], _Sums(int(counts[at]), int(sizes[at]), *times_of, int(sampled[at]))


def _weighed(
    records: npt.NDArray[Any], which: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return of each kind how many there were, of what size, and how many stand for others."""
    from ...audit.sampling import stands_for  # who has batches has it already

    stand = stands_for(records)
    if stand is None:
        counts = np.bincount(which)
        return counts, np.bincount(which, records["size"]), np.zeros_like(counts)
    sizes = np.bincount(which, records["size"] * stand)
    return np.bincount(which, stand), sizes, np.bincount(which, stand > 1)


def _columns(records: npt.NDArray[Any]) -> list[npt.NDArray[np.uint64]]:
    """Return what makes a kind of record, without what does not matter to it."""
    columns = {name: records[name].astype(np.uint64) for name in _COLUMNS}
    columns["flags"] &= np.uint64(int(_SHOWN_FLAGS))
    columns["result"] *= columns["denied"] != 0
    columns["name"] *= columns["operation"] == np.uint64(Operation.SERVICE)
    asked_of_sender = columns["asked"] & np.uint64(int(MachPort.recv)) != 0
    columns["peer_sid"] *= asked_of_sender & (columns["tclass"] == np.uint64(_PORT))
    return list(columns.values())
