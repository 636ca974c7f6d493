# SPDX-License-Identifier: BSD-2-Clause
"""Traces as text: SEDarwin's dumptrace form and our full form, read strictly and written exactly.

A trace is a set of distinct paths with their counts, in order of first occurrence (SEDarwin
ipctrace). SEDarwin's form knows three events and separates names by blanks and bars; the full form
carries every event, is separated by tabs, and escapes names, so that no path can break it.
`docs/trace.md` describes both byte by byte.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..enums import KOBJECTS, Event
from ..errors import PympiError
from ..escape import escape as escape
from ..escape import unescape as unescape

#: Every event kind, as the core numbers them.
EVENTS = tuple(event.name.lower() for event in Event)
#: The three that SEDarwin's ipctrace records, and so all its text form can say.
SEDARWIN_EVENTS = ("send", "copy_send", "move_recv")

KOBJECT_NUMBERS = {name: number for number, name in enumerate(KOBJECTS)}

#: Owner of the kernel-object ports, which alone have a kind in SEDarwin's form.
MACH_KERNEL = "mach_kernel"

MAX_RECORDS = 1 << 20
MAX_NAME = 1023  # bytes of UTF-8, as for a task; SEDarwin itself keeps 123
MAX_LINE = 1 << 14  # a name of escapes only is 9 times its length
MAX_NUMBER = (1 << 31) - 1
MAX_COUNT = (1 << 63) - 1


class TraceError(PympiError, ValueError):
    """A trace that cannot be read or written.

    Attributes:
        file (str): its name.
        line (int): 1-based; 0 when no line is to blame.
        column (int): 1-based, in bytes.
        expected (str): what would be right there.
    """

    def __init__(self, file: str, line: int, column: int, expected: str, found: str) -> None:
        super().__init__(f"{file}:{line}:{column}: expected {expected}, found {found}")
        self.file = file
        self.line = line
        self.column = column
        self.expected = expected


class TraceRecord(NamedTuple):
    """One path and how often it was used: `task` did `event` on a port of `owner`."""

    event: str
    task: str
    owner: str
    kind: int
    number: int
    count: int  # type: ignore[assignment]  # instead of tuple.count()

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What makes the path distinct: everything but the count."""
        return self[:5]


class _BadLine(Exception):
    """A line is broken at `column` (0-based); the reader adds file and line."""

    def __init__(self, column: int, expected: str, found: str | None = None) -> None:
        super().__init__(expected)
        self.column = column
        self.expected = expected
        self.found = found


# --- what both forms share ------------------------------------------------------------------------

_HOSTILE_IN_SEDARWIN = re.compile("[\x00-\x1f\x7f]")


def _decode(field: bytes, column: int) -> str:
    if len(field) > MAX_NAME:
        raise _BadLine(column + MAX_NAME, f"a name of at most {MAX_NAME} bytes")
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise _BadLine(column + error.start, "UTF-8") from None


def _event(field: bytes, known: tuple[str, ...]) -> str:
    event = field.decode("ascii", "replace")
    if event not in known:
        raise _BadLine(0, "one of " + ", ".join(known))
    return event


def _integer(field: bytes, column: int, what: str, low: int, high: int) -> int:
    if not re.fullmatch(rb"-?[0-9]{1,19}", field) or not low <= int(field) <= high:
        raise _BadLine(column, f"{what} from {low} to {high}")
    return int(field)


def kobject_name(kind: int) -> str:
    """The name of a kernel object kind; its number in decimal where SEDarwin has no name for it."""
    return KOBJECTS[kind] if 0 <= kind < len(KOBJECTS) else str(kind)


# --- SEDarwin's form ------------------------------------------------------------------------------

_BAR = b" | "
_TASK_AT, _BAR_AT, _WIDTH = 10, 76, 66


def _owner_column(owner: str, kind: int) -> str:
    return f"{MACH_KERNEL}:{kobject_name(kind)}" if owner == MACH_KERNEL else owner


def _format_sedarwin(record: TraceRecord) -> bytes:
    event, task, owner, kind, number, count = record
    return b"%-9s %-66s | %-66s:%5d %6d" % (
        event.encode(),
        task.encode(errors="surrogatepass"),
        _owner_column(owner, kind).encode(errors="surrogatepass"),
        number,
        count,
    )


def _name(field: bytes, column: int, what: str) -> str:
    """A name without the blanks that fill its column."""
    padded = len(field) == _WIDTH
    name = _decode(field.rstrip(b" ") if padded else field, column)
    if len(field) < _WIDTH or not name:
        raise _BadLine(column, f"{what}, filled up to {_WIDTH} bytes with blanks")
    hostile = _HOSTILE_IN_SEDARWIN.search(name)
    if hostile:
        raise _BadLine(column + len(name[: hostile.start()].encode()), "no control character")
    return name


def _owner_and_kind(field: bytes, column: int) -> tuple[str, int]:
    owner = _name(field, column, "a port owner")
    prefix, _, kobject = owner.partition(":")
    if prefix != MACH_KERNEL:
        return owner, 0
    if kobject not in KOBJECT_NUMBERS:
        raise _BadLine(column, f"{MACH_KERNEL}:<kernel object kind>")
    return MACH_KERNEL, KOBJECT_NUMBERS[kobject]


def _first_difference(a: bytes, b: bytes) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((at for at, (x, y) in pairs if x != y), min(len(a), len(b)))


def _parse_sedarwin(line: bytes) -> TraceRecord:
    event = _event(line[:9].rstrip(b" "), SEDARWIN_EVENTS)
    # A short task ends at its column; a longer one pushes the bar out and is never filled up.
    bar = _BAR_AT if line[_BAR_AT:].startswith(_BAR) else line.find(_BAR, _BAR_AT + 1)
    if bar < 0:
        raise _BadLine(_BAR_AT, "' | ' between task and port owner")
    task = _name(line[_TASK_AT:bar], _TASK_AT, "a task")
    owner_at = bar + len(_BAR)
    colon = line.rfind(b":")
    if colon < owner_at + _WIDTH:
        raise _BadLine(owner_at + _WIDTH, "':' after the port owner")
    owner, kind = _owner_and_kind(line[owner_at:colon], owner_at)
    number, blank, count = line[colon + 1 :].lstrip(b" ").partition(b" ")
    count_at = len(line) - len(count.lstrip(b" "))
    if not blank:
        raise _BadLine(len(line), "a port number and a count")
    record = TraceRecord(
        event,
        task,
        owner,
        kind,
        _integer(number, line.index(number, colon + 1), "a port number", -1, MAX_NUMBER),
        _integer(line[count_at:], count_at, "a count", 1, MAX_COUNT),
    )
    right = _format_sedarwin(record)
    if right != line:
        column = _first_difference(right, line)
        raise _BadLine(column, f"dumptrace's layout, here {right[column : column + 16]!r}")
    return record


def sedarwin_records(records: Iterable[TraceRecord]) -> list[TraceRecord]:
    """What SEDarwin's form can say of `records`: its three events, kinds for mach_kernel's ports.

    Records that become equal are added up, in the place of the first.
    """
    counts: dict[tuple[str, str, str, int, int], int] = {}
    for event, task, owner, kind, number, count in records:
        if event in SEDARWIN_EVENTS:
            key = (event, task, owner, kind if owner == MACH_KERNEL else 0, number)
            counts[key] = counts.get(key, 0) + count
    return [TraceRecord(*key, count) for key, count in counts.items()]


def write_sedarwin(file: BinaryIO, records: Iterable[TraceRecord], name: str = "trace") -> None:
    """Write SEDarwin's form, byte for byte as dumptrace prints it; `name` is for errors.

    Raises:
        TraceError: a record that would not read back as itself (an event or a name this form
            cannot say, a count out of range); nothing is written then.
    """
    lines = [b"%d trace records:" % len(records := list(records))]
    for number, record in enumerate(records, 2):
        line = _format_sedarwin(record)
        unsaid = f"{record!r}, which the full form can say"
        try:
            back = _parse_sedarwin(line)
        except _BadLine as bad:
            raise TraceError(name, number, bad.column + 1, bad.expected, unsaid) from None
        if back != record:
            expected = "a record SEDarwin's form can say"
            raise TraceError(name, number, 1, expected, unsaid)
        lines.append(line)
    file.write(b"\n".join(lines) + b"\n")


# --- the full form --------------------------------------------------------------------------------

FULL_VERSION = 1
_TITLES = b"event\ttask\towner\tkind\tnumber\tcount"


def _full_name(field: bytes, column: int) -> str:
    text = _decode_text(field, column)
    try:
        name = unescape(text)
    except (ValueError, OverflowError):
        raise _BadLine(column, r"a name with \\ and \u{hex} for what needs escaping") from None
    if len(name.encode(errors="surrogatepass")) > MAX_NAME:
        raise _BadLine(column, f"a name of at most {MAX_NAME} bytes")
    return name


def _decode_text(field: bytes, column: int) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise _BadLine(column + error.start, "UTF-8") from None


def _kind(field: bytes, column: int) -> int:
    name = field.decode("ascii", "replace")
    if name in KOBJECT_NUMBERS:
        return KOBJECT_NUMBERS[name]
    return _integer(field, column, "a kernel object kind, or a number", len(KOBJECTS), MAX_NUMBER)


def _format_full(record: TraceRecord) -> bytes:
    event, task, owner, kind, number, count = record
    fields = (event, escape(task), escape(owner), kobject_name(kind), str(number), str(count))
    return "\t".join(fields).encode()


def _parse_full(line: bytes) -> TraceRecord:
    fields = line.split(b"\t")
    if len(fields) != len(TraceRecord._fields):
        raise _BadLine(0, f"{len(TraceRecord._fields)} fields separated by tabs")
    at = [0]
    for field in fields:
        at.append(at[-1] + len(field) + 1)
    event, task, owner, kind, number, count = fields
    record = TraceRecord(
        _event(event, EVENTS),
        _full_name(task, at[1]),
        _full_name(owner, at[2]),
        _kind(kind, at[3]),
        _integer(number, at[4], "a port number", -1, MAX_NUMBER),
        _integer(count, at[5], "a count", 1, MAX_COUNT),
    )
    if _format_full(record) != line:
        raise _BadLine(at[3], "numbers without leading zeros")
    return record


def parse_full(line: bytes, name: str = "trace", number: int = 0) -> TraceRecord:
    """Return the record that a line of the full form says; `name` and `number` are for errors.

    Raises:
        TraceError: naming the column and what was expected there.
    """
    try:
        return _parse_full(line)
    except _BadLine as bad:
        found = repr(line[bad.column : bad.column + 32])[1:]
        raise TraceError(name, number, bad.column + 1, bad.expected, found) from None


def write_full(
    file: BinaryIO, records: Iterable[TraceRecord], *, lost: int = 0, name: str = "trace"
) -> None:
    """Write the full form. `lost` counts the events that found no room in the recorder's table.

    Raises:
        TraceError: a record that would not read back as itself; nothing is written then.
    """
    records = list(records)
    lines = [b"pympi trace %d: %d records, %d lost" % (FULL_VERSION, len(records), lost), _TITLES]
    for number, record in enumerate(records, 3):
        line = _format_full(record)
        try:
            _parse_full(line)
        except _BadLine as bad:
            raise TraceError(name, number, bad.column + 1, bad.expected, repr(record)) from None
        lines.append(line)
    file.write(b"\n".join(lines) + b"\n")


# --- reading --------------------------------------------------------------------------------------

_SEDARWIN_HEADER = re.compile(rb"(0|[1-9][0-9]{0,9}) trace records:")
_FULL_HEADER = re.compile(
    rb"pympi trace ([1-9][0-9]{0,9}): (0|[1-9][0-9]{0,9}) records, (0|[1-9][0-9]{0,18}) lost"
)


class TraceReader:
    """Reads a trace of either form, one record at a time: iterate over it, once.

    Time is linear, memory is one line and the set of keys seen (at most MAX_RECORDS).

    Attributes:
        form (str): "sedarwin" or "full".
        expected (int): how many records the header announces.
        lost (int): events the recorder had no room for; SEDarwin's form does not tell, 0.

    Raises:
        TraceError: from the constructor for a broken header, from the iteration for the rest.
    """

    def __init__(self, file: BinaryIO, name: str = "trace") -> None:
        self._file = file
        self._name = name
        self._line = 0
        self.lost = 0
        header = self._next_line("a header: '<N> trace records:' or 'pympi trace 1: ...'")
        full = _FULL_HEADER.fullmatch(header)
        sedarwin = _SEDARWIN_HEADER.fullmatch(header)
        if full:
            self._open_full(full)
        elif sedarwin:
            self.form, self._parse, self.expected = "sedarwin", _parse_sedarwin, int(sedarwin[1])
        else:
            raise self._error(0, "'<N> trace records:' or 'pympi trace 1: ...'", header)
        if self.expected > MAX_RECORDS:
            raise self._error(0, f"at most {MAX_RECORDS} records", header)

    def _open_full(self, header: re.Match[bytes]) -> None:
        if int(header[1]) != FULL_VERSION:
            raise self._error(12, f"version {FULL_VERSION}", header[0])
        self.form, self._parse, self.expected = "full", _parse_full, int(header[2])
        self.lost = int(header[3])
        titles = self._next_line("the column titles")
        if titles != _TITLES:
            raise self._error(0, f"the column titles {_TITLES!r}", titles)

    def __iter__(self) -> Iterator[TraceRecord]:
        seen: set[tuple[str, str, str, int, int]] = set()
        for number in range(self.expected):
            line = self._next_line(f"record {number + 1} of {self.expected}")
            try:
                record = self._parse(line)
            except _BadLine as bad:
                raise self._error(bad.column, bad.expected, line) from None
            if record.key in seen:
                raise self._error(0, "each path once", line)
            seen.add(record.key)
            yield record
        if rest := self._file.read(1):
            self._line += 1
            raise self._error(0, f"the end of the file after {self.expected} records", rest)

    def _next_line(self, expected: str) -> bytes:
        line = self._file.readline(MAX_LINE + 1)
        self._line += 1
        if not line:
            raise TraceError(self._name, self._line, 1, expected, "the end of the file")
        if not line.endswith(b"\n"):
            whole = f"a line of at most {MAX_LINE} bytes with a newline at its end"
            raise self._error(len(line), whole, line)
        return line[:-1]

    def _error(self, column: int, expected: str, line: bytes) -> TraceError:
        rest = line[column : column + 32]
        found = repr(rest)[1:] if rest else "the end of the line"
        return TraceError(self._name, self._line, column + 1, expected, found)


_BEGINS = (b"pympi trace ", *(b"%d" % digit for digit in range(10)))


def check_begin(begin: bytes, name: str, others: str) -> None:
    """Check that a file that begins so may be a trace; `name` and `others` are for the error.

    Args:
        begin: 16 bytes are enough.
        name: of the file.
        others: what else would be read in its place, in words.

    Raises:
        TraceError: it is none.
    """
    if not begin.startswith(_BEGINS):
        expected = f"'<N> trace records:' or 'pympi trace 1: ...', or {others}"
        found = repr(begin)[1:] if begin else "the end of the file"
        raise TraceError(name, 1, 1, expected, found)


def read_trace(path: str | os.PathLike[str]) -> list[TraceRecord]:
    """All records of the trace at `path`, of either form.

    Raises:
        TraceError: naming file, line, column and what was expected there.
        OSError: the file cannot be opened or read.
    """
    path = Path(path)
    with path.open("rb") as file:
        return list(TraceReader(file, str(path)))
