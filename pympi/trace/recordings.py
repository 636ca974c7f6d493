# SPDX-License-Identifier: BSD-2-Clause
"""Recordings of every form, read as traces: the trace tools take whatever there is.

| form | |
|---|---|
| sedarwin, full | the text forms (`pympi.trace.text`) |
| json, parquet | what `pympi trace convert` writes |
| audit | audit files, whose records are counted as ipctrace would have counted them |

The form is seen from the beginning of the file.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import BinaryIO

from ..audit import Reader
from .graph import Graph, from_paths
from .graph.paths import Path, of_audit, of_trace
from .labels import Labels
from .stores import read_json, read_parquet
from .text import (
    EVENTS,
    MAX_COUNT,
    MAX_LINE,
    MAX_RECORDS,
    TraceError,
    TraceReader,
    TraceRecord,
    sedarwin_records,
    write_sedarwin,
)

__all__ = ["Recording", "graph_of", "merged", "open_recording", "read_recording", "sedarwin_lines"]

STDIN = "-"


@dataclass
class Recording:
    """A recording.

    Attributes:
        name: of the file.
        form: "sedarwin", "full", "json", "parquet" or "audit".
        records: as a trace. Of an audit file, ports have the kernel's numbers, no kinds, and the
            owner "" where it is not known.
        lost: events or records that it says it lacks.
        paths: of an audit file, with labels, denials and methods; of a trace, none.
    """

    name: str
    form: str
    records: list[TraceRecord]
    lost: int = 0
    paths: list[Path] = field(default_factory=list)

    @property
    def sampled(self) -> int:
        """Records of an audit file that were kept by chance and stand for others: if there are
        any, counts are estimates."""
        return sum(path.sampled for path in self.paths)


@contextmanager
def open_recording(path: str) -> Iterator[BinaryIO]:
    """Open a file that can be read twice; "-" is stdin, which is kept for it."""
    if path != STDIN:
        with FilePath(path).open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.seek(0)
        yield kept


def sedarwin_lines(path: str) -> list[bytes]:
    """Return the lines of a recording in SEDarwin's text form, for tools that filter text.

    What is in no form of ours is taken as text, line by line, whatever is in it.

    Raises:
        TraceError: it has a form of ours, and is damaged or cannot be said in SEDarwin's; or it has
            too many or too long lines.
    """
    name = "stdin" if path == STDIN else path
    with open_recording(path) as file:
        head = file.read(16)
        file.seek(0)
        if not head.startswith(_OURS) and not head.lstrip().startswith(b"{"):
            return _lines(file, name)
        text = io.BytesIO()
        write_sedarwin(text, sedarwin_records(_read(file, name).records), name)
        return text.getvalue().splitlines()


_OURS = (b"pympi ", b"PAR1")


def _lines(file: BinaryIO, name: str) -> list[bytes]:
    lines = []
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
        if len(line) > MAX_LINE:
            raise TraceError(name, number, MAX_LINE, f"a line of at most {MAX_LINE} bytes", "more")
        if number > 2 * MAX_RECORDS:
            raise TraceError(name, number, 1, f"at most {2 * MAX_RECORDS} lines", "more")
        lines.append(line.removesuffix(b"\n"))
    return lines


def read_recording(path: str) -> Recording:
    """Read a recording.

    Raises:
        TraceError, AuditError, GraphError: it is none, or damaged; or it is too large.
        OSError: it cannot be read.
    """
    with open_recording(path) as file:
        return _read(file, "stdin" if path == STDIN else path)


def _read(file: BinaryIO, name: str) -> Recording:
    head = file.read(16)
    file.seek(0)
    if head.startswith(b"pympi audit "):
        return _audited(file, name)
    if head.startswith(b"PAR1"):
        return Recording(name, "parquet", *read_parquet(file, name))
    if head.lstrip().startswith(b"{"):
        return Recording(name, "json", *read_json(file, name))
    reader = TraceReader(file, name)
    return Recording(name, reader.form, list(reader), reader.lost)


def _audited(file: BinaryIO, name: str) -> Recording:
    paths, lost = of_audit(Reader(file, name))
    return Recording(name, "audit", [*_records(paths)], lost, paths)


def _records(paths: Iterable[Path]) -> Iterator[TraceRecord]:
    for path in paths:
        for event in EVENTS:
            if event in path.events and not path.port.service:
                port = path.port
                count = path.events[event]
                yield TraceRecord(event, path.task, port.owner, port.kind, port.number, count)


def graph_of(
    recordings: Iterable[Recording], by: str = "task", *, labels: Labels | None = None,
    fold: bool = True,
) -> Graph:  # fmt: skip
    """Make one graph of recordings; audit files bring labels of their own.

    Raises:
        GraphError: it is too large.
    """
    recordings = list(recordings)
    labels = labels or (Labels() if by == "label" else None)
    traced = merged(each for each in recordings if each.form != "audit")
    paths = [path for each in recordings for path in each.paths]
    graph = from_paths([*of_trace(traced, labels), *paths], by, fold=fold)
    graph.name = ", ".join(FilePath(each.name).name for each in recordings)
    graph.lost = sum(each.lost for each in recordings)
    return graph


def merged(recordings: Iterable[Recording]) -> list[TraceRecord]:
    """Return all records, with the counts of equal paths added up, in order of first occurrence.

    Raises:
        TraceError: a count, or the number of paths, becomes larger than a trace can say.
    """
    counts: dict[tuple[str, str, str, int, int], int] = {}
    for recording in recordings:
        for record in recording.records:
            total = counts.get(record.key, 0) + record.count
            if total > MAX_COUNT:
                raise TraceError(recording.name, 0, 1, f"counts up to {MAX_COUNT}", str(total))
            counts[record.key] = total
        if len(counts) > MAX_RECORDS:
            raise TraceError(recording.name, 0, 1, f"at most {MAX_RECORDS} paths in all", "more")
    return [TraceRecord(*key, count) for key, count in counts.items()]
