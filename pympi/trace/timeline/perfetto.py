# SPDX-License-Identifier: BSD-2-Clause
"""A timeline for Perfetto's viewer (ui.perfetto.dev): one track per task, a slice per operation.

Written are Chrome's JSON trace events, and not Perfetto's own protobuf: three viewers read them, so
do people and jq, and it takes no schema of somebody else's to check them. The price is size, about
a kilobyte per message.

Records have one time each, and with a coarse clock thousands have the same. So that one sees what
was before what, each record takes at least `SLOT` of the picture, and nothing is drawn before what
was recorded earlier. The record's own time is among what a slice tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from ..text import escape
from .acts import Act, acts

if TYPE_CHECKING:
    from ...audit import AuditRecord, Batch

__all__ = ["SLOT", "Timeline", "write_timeline"]

SLOT = 250
"""Nanoseconds that a record takes in the picture, at least."""
_PART = SLOT - 50  # of a part: it ends before the whole, also where a viewer rounds
MAX_OPEN = 1 << 18
"""Messages that wait for their receiver at most; older ones get no arrow, and are counted."""

_PROCESS = 1
_encode = msgspec.json.encode
_shown = lru_cache(maxsize=1 << 14)(escape)


class Timeline(NamedTuple):
    """What was written.

    Attributes:
        tasks: tracks.
        slices: operations, and their parts.
        arrows: messages and rights, from who gave to who took.
        open: those that nobody took, as far as the records go.
        denials: marks of what was refused, or would have been.
        lost: records that the audit trail says it lacks.
    """

    tasks: int
    slices: int
    arrows: int
    open: int
    denials: int
    lost: int


def write_timeline(
    batches: Iterable[Batch], out: BinaryIO, *, name: str = "",
    advance: Callable[[int], object] = lambda records: None,
) -> Timeline:  # fmt: skip
    """Write records as a timeline, as they come.

    Memory holds a name for each task, and what waits for its receiver.

    Args:
        batches: of an audit trail, in its order.
        out: opened for writing bytes.
        name: what the process is called in the viewer.
        advance: told how many records were written, again and again.

    Raises:
        OSError: it cannot be written.
        AuditError: what the batches raise; of what is no recording at all, nothing is written.
    """
    found = acts(batches)
    first = [*islice(found, 1)]
    writer = _Writer(out, name)
    for act in chain(first, found):
        writer.add(act)
        advance(len(act.records))
    return writer.finish()


class _Place(NamedTuple):
    """A moment in a track; the moment in nanoseconds from the beginning."""

    track: int
    at: int


class _Writer:
    def __init__(self, out: BinaryIO, name: str) -> None:
        self._out = out
        self._tracks: dict[tuple[int, str], int] = {}
        self._open: dict[int, _Place] = {}  # by transfer: where it was sent
        self._began: int | None = None
        self._now = 0  # of the picture: nanoseconds since it began
        self._slices = self._arrows = self._denials = self._lost = self._dropped = 0
        out.write(b'{"displayTimeUnit":"ns","traceEvents":[\n')
        self._out.write(_encode(_metadata("process_name", 0, {"name": _shown(name) or "pympi"})))

    def finish(self) -> Timeline:
        waiting = self._dropped + len(self._open)
        counts = (len(self._tracks), self._slices, self._arrows, waiting, self._denials, self._lost)
        written = Timeline(*counts)
        began = {"began": (self._began or 0) / 1e9}
        self._out.write(b'\n],"otherData":' + _encode(written._asdict() | began) + b"}\n")
        return written

    def _event(self, phase: str, name: str, at: int, track: int, **rest: Any) -> None:
        event = {"ph": phase, "name": name, "pid": _PROCESS, "tid": track, "ts": at / 1000, **rest}
        self._out.write(b",\n" + _encode(event))

    # --- acts ---

    def add(self, act: Act) -> None:
        """Write the slices of an act, its marks, and the arrow that ends in it."""
        if act.head.lost:
            self._lose(act.head)
            return
        began = self._moment(act.head)
        track = self._track(act)
        self._now = began + SLOT * len(act.records)
        self._slice(_title(act), began, self._now, track, act.head)
        for place, part in enumerate(act.records[1:], 1):
            title = f"{part.operation} {' '.join(part.asked)}".strip()
            start = began + SLOT * place
            self._slice(title, start, start + _PART, track, part)
        self._join(act, _Place(track, began))
        for words, what in (("denied", act.refused), ("would be denied", act.tolerated)):
            if what:
                self._mark(f"{words}: {' '.join(what)}", began, track, act)

    def _moment(self, record: AuditRecord) -> int:
        """When it is drawn: at its time, but not before what came before it has its room."""
        time = round(record.time * 1e9)
        if self._began is None:
            self._began = time
        return max(time - self._began, self._now)

    def _track(self, act: Act) -> int:
        key = act.head.task, act.task
        if key not in self._tracks:
            track = self._tracks[key] = len(self._tracks) + 1
            for what, told in (("name", _shown(act.task)), ("sort_index", track)):
                about = _metadata(f"thread_{what}", track, {what: told})
                self._out.write(b",\n" + _encode(about))
        return self._tracks[key]

    def _slice(self, title: str, began: int, end: int, track: int, record: AuditRecord) -> None:
        self._slices += 1
        self._event(
            "X", _shown(title), began, track, dur=(end - began) / 1000,
            cat=_shown(record.tclass or record.operation), args=_told(record),
        )  # fmt: skip

    def _mark(self, words: str, at: int, track: int, act: Act) -> None:
        self._denials += 1
        told = {"subject": _shown(act.head.subject), "object": _shown(act.head.object)}
        told["result"] = act.head.result
        self._event("i", _shown(words), at, track, s="t", cat="denial", args=told)

    def _lose(self, record: AuditRecord) -> None:
        self._lost += record.lost
        at = self._moment(record)
        self._event("i", f"{record.lost} records lost", at, 0, s="g", cat="loss")

    # --- arrows ---

    def _join(self, act: Act, place: _Place) -> None:
        """Remember where something was given, or draw the arrow from there to here."""
        transfer = act.head.transfer
        if not transfer or act.refused:
            return
        if not act.arrives:
            if any(part.operation == "take" for part in act.records):
                return  # the task gave it to itself
            self._open[transfer] = place
            if len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
                self._dropped += 1
            return
        sent = self._open.pop(transfer, None)
        if sent is not None:
            self._arrows += 1
            same = {"id": transfer, "cat": "transfer"}
            self._event("s", "transfer", sent.at, sent.track, **same)
            self._event("f", "transfer", place.at, place.track, bp="e", **same)


def _metadata(what: str, track: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": track, "args": args}


def _title(act: Act) -> str:
    asked = act.routine or " ".join(act.head.asked)
    return f"{act.kind} {asked}".strip()


def _told(record: AuditRecord) -> dict[str, Any]:
    """What the viewer shows of a record: what there is of it, names and labels in words."""
    words = {
        "subject": record.subject,
        "real subject": record.real_subject if record.real_subject != record.subject else "",
        "object": record.object,
        "sender": record.peer if record.peer != "-" else "",
        "class": record.tclass,
        "asked": " ".join(record.asked),
        "denied": " ".join(record.denied),
        "reported": " ".join(record.reported),
        "service": record.service,
        "result": record.result,
    }
    numbers = {
        "sequence": record.sequence, "time": record.time, "port": record.port,
        "name": record.name, "msgh_id": record.msgh_id, "size": record.size,
        "transfer": record.transfer, "provenance": record.provenance, "epoch": record.epoch,
    }  # fmt: skip
    told: dict[str, Any] = {key: _shown(word) for key, word in words.items() if word}
    return told | {k: v for k, v in numbers.items() if v or k in ("sequence", "time")}
