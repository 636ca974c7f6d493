# SPDX-License-Identifier: BSD-2-Clause
"""What a recording says was used: traces of both forms, and records of any.

A record counts if the operation was done: if nothing of it was refused, or what was refused was not
enforced (permissive). One that was kept by chance counts for as many as it stands. Rows are counted
by numpy a quarter of a million at a time, so memory holds these and the distinct rows.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ...audit import Batch, Reader, forms
from ...audit.sampling import stands_for
from ...enums import CLASSES, AuditFlag, MachPort, ObjectClass
from ...errors import PympiError
from ...label import EMPTY, parse_label
from ...trace.mangle import port_label, task_label
from ...trace.text import TraceReader, TraceRecord, check_begin
from .closure import Grant, closure, recorded

__all__ = ["Context", "Recording", "RecordingError", "Tally", "read_recording"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_UNLABELED = "system_u:object_r:unlabeled_t"


class RecordingError(PympiError, ValueError):
    """A recording that is of no use; the message says which and why."""


class Context(NamedTuple):
    """A security context without levels."""

    user: str
    role: str
    type: str


@dataclass
class Recording:
    """What one recording says.

    Attributes:
        name: of the file.
        kind: "sedarwin" or "full" (the forms of a trace), or `pympi.audit.forms.Form.word`.
        sha256: of the file, hexadecimal.
        lost: events or records that it lacks, as far as it tells.
        sampled: records that were kept by chance and stand for others: if there are any, the counts
            in `used` are estimates.
        used: each permission that was used, and how often.
        closure: what a trace does not show, and the run or a replay of it needs.
        contexts: of all subjects and objects.
        new_ports: of a trace: the types of its tasks, each with that of the ports they make.
        levels: a context that had levels, which are left out of `contexts`; "" if none had.
        classes: permissions of each class that was met, in bit order.
    """

    name: str
    kind: str = ""
    sha256: str = ""
    lost: int = 0
    sampled: int = 0
    used: Counter[Grant] = field(default_factory=Counter)
    closure: set[Grant] = field(default_factory=set)
    contexts: set[Context] = field(default_factory=set)
    new_ports: set[tuple[str, str]] = field(default_factory=set)
    levels: str = ""
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _Hashed:
    """A file that is read once, and its digest."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], object]) -> None:
        self._file, self._advance = file, advance
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        return self._noted(self._file.read(size))

    def readline(self, limit: int = -1) -> bytes:
        return self._noted(self._file.readline(limit))

    def _noted(self, data: bytes) -> bytes:
        self._digest.update(data)
        self._advance(len(data))
        return data

    def finish(self) -> str:
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def read_recording(
    path: str | os.PathLike[str], advance: Callable[[int], object] = lambda size: None
) -> Recording:
    """Read a trace, an audit file, or what else has records.

    Args:
        path: of the file.
        advance: told how many bytes were read, again and again.

    Raises:
        TraceError, AuditError: it is neither, or damaged.
        RecordingError: it is sound and of no use: nothing labelled, or a trace that cannot be
            replayed.
        OSError: it cannot be read.
    """
    recording = Recording(str(path))
    with Path(path).open("rb") as raw:
        begin = raw.read(16)
        form = forms.form_by(begin)
        raw.seek(0)
        file: Any = _Hashed(raw, advance)
        if form:
            _read_records(recording, batches_of(form, file, Path(path)), form.word)
        else:
            check_begin(begin, recording.name, forms.known())
            _read_trace(recording, file)
        recording.sha256 = file.finish()
    return recording


# --- traces ---------------------------------------------------------------------------------------


def _read_trace(recording: Recording, file: BinaryIO) -> None:
    reader = TraceReader(file, recording.name)
    records = list(reader)
    recording.kind, recording.lost = reader.form, reader.lost
    recording.used = recorded(records)
    try:
        needed = closure(records, reader.form)
    except ValueError as error:
        raise RecordingError(f"{recording.name} cannot be replayed: {error}") from None
    recording.closure = set(needed) - set(recording.used)
    recording.contexts = {*_contexts(records)}
    tasks = {name for record in records for name in (record.task, record.owner)}
    recording.new_ports = {(task_label(name), port_label(name)) for name in tasks}
    recording.classes = {name: CLASSES[name].permissions for name in ("mach_port", "mach_task")}


def _contexts(records: list[TraceRecord]) -> set[Context]:
    """Of every task, also of owners that do nothing, and of every port and mailbox."""
    tasks = {name for record in records for name in (record.task, record.owner)}
    ports = {(record.owner, record.kind) for record in records} | {(name, 0) for name in tasks}
    return {Context("system_u", "system_r", task_label(name)) for name in tasks} | {
        Context("system_u", "object_r", port_label(*port)) for port in ports
    }


# --- audit files ----------------------------------------------------------------------------------

_BOTH = np.uint32(MachPort.recv | MachPort.use_recv)
_Row = tuple[int, int, int]
_AT_ONCE = 1 << 18


def batches_of(form: forms.Form, file: BinaryIO, path: Path) -> Iterable[Batch]:
    """Return the records of an open file; of other forms than our own it is read by its path."""
    if form.word == "audit":
        return Reader(file, str(path))
    return form.batches(path, True)


def _read_records(recording: Recording, batches: Iterable[Batch], kind: str) -> None:
    recording.kind = kind
    tally = Tally(recording)
    for batch in batches:
        tally.add(batch)
    tally.settle()
    if recording.used and not tally.labelled:
        raise RecordingError(f"{recording.name}: no label in it has a value of the module te")


class Tally:
    """Counts what was used in batches of records, into a recording.

    Rows are counted as long as their numbers stand for the same, and then put into words.
    """

    def __init__(self, recording: Recording) -> None:
        self.labelled = False
        self._recording = recording
        self._rows: dict[_Row, int] = {}
        self._waiting: list[list[npt.NDArray[Any]]] = []
        self._waiting_rows = 0
        self._labels: Mapping[int, str] = {}
        self._classes: Mapping[int, ObjectClass] = {}
        self._known: dict[str, Context] = {}

    def add(self, batch: Batch) -> None:
        """Count a batch; `settle` has to follow the last one.

        Raises:
            RecordingError: labels, or classes, that are none.
        """
        if _rebound(self._labels, batch.labels) or _rebound(self._classes, batch.classes):
            self.settle()
        self._labels, self._classes = batch.labels, batch.classes
        records = batch.records
        loss = records["flags"] & AuditFlag.LOSS != 0
        self._recording.lost += int(records["result"][loss].sum())
        self._waiting.append(self._columns(records))
        self._waiting_rows += len(records)
        if self._waiting_rows >= _AT_ONCE:
            self._merge()

    def _merge(self) -> None:
        """Count the rows that wait; many at once, since the same come again and again."""
        columns = [np.concatenate(parts) for parts in zip(*self._waiting, strict=True)]
        for row, times in _distinct(*columns[:-1], stand=columns[-1]) if columns else ():
            self._rows[row] = self._rows.get(row, 0) + times
        self._waiting.clear()
        self._waiting_rows = 0

    def _columns(self, records: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return the columns of the records that count, and for how many each stands."""
        done = records[_counts(records)]
        stand = stands_for(done)
        if stand is None:
            return [*_columns(done), np.ones(len(done), np.int64)]
        self._recording.sampled += int((stand > 1).sum())
        return [*_columns(done), stand]

    def settle(self) -> None:
        """Put what was counted into words."""
        self._merge()
        for (pair, rest, bits), times in self._rows.items():
            self._count(pair >> 32, pair & 0xFFFFFFFF, rest >> 32, rest & 0xFFFFFFFF, bits, times)
        self._rows.clear()

    def _count(self, sid: int, target: int, peer: int, number: int, bits: int, times: int) -> None:
        tclass = self._classes.get(number)
        if tclass is None:
            raise RecordingError(f"{self._recording.name}: there is no class {number} in it")
        source = self._context(sid).type
        self._declare(tclass)
        for permission in tclass.names(bits):
            other = peer if peer and permission == "recv" else target
            grant = Grant(source, self._context(other).type, tclass.name, permission)
            self._recording.used[grant] += times

    def _declare(self, tclass: ObjectClass) -> None:
        permissions = tuple(filter(None, tclass.permissions))
        known = self._recording.classes.setdefault(tclass.name, permissions)
        wrong = [name for name in (tclass.name, *permissions) if not _NAME.fullmatch(name)]
        if wrong or known != permissions:
            raise RecordingError(
                f"{self._recording.name}: class {tclass.name!r} "
                + (f"has {wrong[0]!r}, which is no name" if wrong else "is there in two forms")
            )

    def _context(self, sid: int) -> Context:
        label = self._labels.get(sid, None if sid else EMPTY)
        if label is None:
            raise RecordingError(f"{self._recording.name}: there is no label {sid} in it")
        if label not in self._known:
            value = self._te_of(label)
            self.labelled |= value is not None
            context, levels = _context(self._recording.name, value or _UNLABELED)
            self._known[label] = context
            self._recording.levels = self._recording.levels or levels
            self._recording.contexts.add(self._known[label])
        return self._known[label]

    def _te_of(self, label: str) -> str | None:
        try:
            return parse_label(label).get("te")
        except ValueError as error:
            raise RecordingError(f"{self._recording.name}: {error}") from None


def _context(file: str, text: str) -> tuple[Context, str]:
    """Return a context without its levels, and the whole of it if it has some."""
    fields = text.split(":", 3)
    names = [*fields[:2], *(fields[2].split(".") if len(fields) > 2 else [""])]
    if not all(map(_NAME.fullmatch, names)):
        raise RecordingError(f"{file}: expected contexts user:role:type, found {text!r}")
    return Context(*fields[:3]), text if len(fields) > 3 else ""


def _rebound(before: Mapping[int, Any], now: Mapping[int, Any]) -> bool:
    """Whether a number stands for something else now."""
    return before != now and any(now.get(number) != known for number, known in before.items())


def _counts(records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which records tell of something that was done and asked for."""
    enforced = (records["denied"] != 0) & (records["flags"] & AuditFlag.PERMISSIVE == 0)
    return np.asarray(~enforced & (records["tclass"] != 0) & (records["asked"] != 0))


def _columns(done: npt.NDArray[Any]) -> list[npt.NDArray[np.uint64]]:
    """Return of records: subject and object, peer and class, permissions.

    A receive that asked about the port and about the sender may be one record: the object is the
    port then, and the sender is the peer, which is 0 in all other rows.
    """
    joined = (done["tclass"] == CLASSES["mach_port"].number) & (done["asked"] & _BOTH == _BOTH)
    wide = {name: done[name].astype(np.uint64) for name in ("effective_sid", "tclass", "asked")}
    shift = np.uint64(32)
    return [
        wide["effective_sid"] << shift | done["object_sid"],
        np.where(joined, done["peer_sid"], 0).astype(np.uint64) << shift | wide["tclass"],
        wide["asked"],
    ]


#: Odd, so that multiplying by them loses nothing.
_MIX = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)))


def _distinct(
    *columns: npt.NDArray[np.uint64], stand: npt.NDArray[np.int64] | None = None
) -> list[tuple[_Row, int]]:
    """Each distinct row with the number of times it is there, or for how many such rows stand.

    One number for a row is sorted much faster than three. Where two rows share one, which is looked
    at, the rows themselves are sorted.
    """
    mixed = sum((c * m for c, m in zip(columns, _MIX, strict=True)), np.zeros(1, np.uint64))
    _, first, which = np.unique(mixed, return_index=True, return_inverse=True)
    if not all((column[first][which] == column).all() for column in columns):
        table = np.stack(columns)
        _, first, which = np.unique(table, axis=1, return_index=True, return_inverse=True)
    times = np.bincount(which.reshape(-1), stand, len(first)).astype(np.int64)
    rows = zip(*(column[first].tolist() for column in columns), strict=True)
    return list(zip(rows, times.tolist(), strict=True))
