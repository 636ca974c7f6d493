# SPDX-License-Identifier: BSD-2-Clause
"""Records in other forms: JSON lines, CSV, AVC messages, Parquet."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from ..escape import csv_cell
from .avc import avc_lines
from .parquet import write_parquet
from .record import Batch
from .table import COLUMNS, SEVERAL, rows

__all__ = ["EXPORTS", "csv_lines", "json_lines", "json_value"]


def json_value(value: Any) -> Any:
    """Return a value that JSON has: numbers and texts as they are, times and all else as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [*map(json_value, value)]
    if isinstance(value, dict):
        return {str(key): json_value(each) for key, each in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def json_lines(batches: Iterable[Batch]) -> Iterator[str]:
    """Yield records as JSON, an object a line: the members of `AuditRecord`, and those of a column.

    `v` is the version, 1. Time is in seconds, with all nine digits; permissions and flags are
    lists. All is ASCII, and does nothing to a terminal; bytes that were no UTF-8 are escaped twice.
    """
    names = [_MEMBERS.get(name, name) for name in COLUMNS][2:]
    for batch in batches:
        for sequence, time, *values in rows(batch):
            found = dict(zip(names, values, strict=True))
            for name in SEVERAL:
                found[name] = found[name].split()
            found = {name: _unicode(value) for name, value in found.items()}
            rest = json.dumps(found, separators=(",", ":")).replace("\x7f", "\\u007f")
            seconds = f"{time // 10**9}.{time % 10**9:09}"
            yield f'{{"v":1,"sequence":{sequence},"time":{seconds},{rest[1:]}'


def _unicode(value: Any) -> Any:
    """Return text without lone surrogates, which are in no other JSON; all else as it is."""
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="backslashreplace").decode()
    return value


def csv_lines(names: Sequence[str], values: Iterable[Sequence[Any]]) -> Iterator[str]:
    r"""Yield lines of CSV, the first of which has names of columns; without their ends.

    Control and direction characters are escaped, as in "\\u{9}", and what a spreadsheet would take
    for a formula gets an apostrophe before it.
    """
    buffer, found = io.StringIO(), iter(values)
    first = [*itertools.islice(found, 1)]  # what cannot be read has no names of columns either
    writer = csv.writer(buffer, lineterminator="\n")
    for row in itertools.chain([names], first, found):
        writer.writerow([csv_cell(each) if isinstance(each, str) else each for each in row])
        yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()[:-1]
    buffer.seek(0)
    buffer.truncate()
    return text


def _all_rows(batches: Iterable[Batch]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        yield from rows(batch)


def _avc(batches: Iterable[Batch]) -> Iterator[str]:
    for batch in batches:
        yield from avc_lines(batch)


def _text(
    lines: Callable[[Iterable[Batch]], Iterator[str]],
) -> Callable[[BinaryIO, Iterable[Batch]], None]:
    def write(file: BinaryIO, batches: Iterable[Batch]) -> None:
        for line in lines(batches):
            file.write(line.encode(errors="backslashreplace") + b"\n")

    return write


_MEMBERS = {"class": "tclass"}

EXPORTS: dict[str, Callable[[BinaryIO, Iterable[Batch]], None]] = {
    "jsonl": _text(json_lines),
    "csv": _text(lambda batches: csv_lines([*COLUMNS], _all_rows(batches))),
    "avc": _text(_avc),
    "parquet": write_parquet,
}
"""What writes batches to a file, by the name of the form."""
