# SPDX-License-Identifier: BSD-2-Clause
"""Recordings of every form, read as traces: the trace tools take whatever there is.

| form | |
|---|---|
| sedarwin, full | the text forms (`pympi.trace.text`) |
| json, parquet | what `pympi trace convert` writes |
| audit, parquet, avc, dbus | records (`pympi.audit.forms`), counted as ipctrace would have |

The form is seen from the beginning of the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import BinaryIO

from .._pipes import STDIN, kept_file
from ..audit import AuditError, Batch, forms
from .graph import Graph, from_paths
from .graph.paths import Path, of_audit, of_trace
from .labels import Labels
from .stores import is_trace, read_json, read_parquet
from .text import (
    EVENTS,
    MAX_COUNT,
    MAX_LINE,
    MAX_RECORDS,
    TraceError,
    TraceReader,
    TraceRecord,
    check_begin,
    sedarwin_records,
    write_sedarwin,
)

__all__ = [
    "Recording", "graph_of", "merged", "name_of", "named", "read_recording", "sedarwin_lines",
]  # fmt: skip


@dataclass
class Recording:
    """A recording.

    Attributes:
        name: of the file.
        form: "sedarwin", "full", "json", "parquet"; of records "audit", "parquet", "avc", "dbus".
        records: as a trace. Of records, ports have the kernel's numbers, no kinds, and the owner ""
            where it is not known.
        lost: events or records that it says it lacks.
        paths: of records, with labels, denials and methods; of a trace, none.
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

    def strangers(self) -> dict[int, str]:
        """Return the labels of ports whose owner is not known, by number."""
        paths = (path for path in self.paths if not path.port.owner and path.port_label)
        return {path.port.number: path.port_label for path in paths}


def sedarwin_lines(path: str) -> list[bytes]:
    """Return the lines of a recording in SEDarwin's text form, for tools that filter text.

    What is in no form of ours is taken as text, line by line, whatever is in it.

    Raises:
        TraceError: it has a form of ours, and is damaged or cannot be said in SEDarwin's; or it has
            too many or too long lines.
    """
    name = name_of(path)
    with kept_file(path) as file:
        head = _begin(file)
        if not head.startswith(b"pympi ") and not _json(head) and not forms.form_by(head):
            with file.open("rb") as text:
                return _lines(text, name)
        written = io.BytesIO()
        write_sedarwin(written, sedarwin_records(_read(file, name).records), name)
        return written.getvalue().splitlines()


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
    with kept_file(path) as file:
        return _read(file, name_of(path))


def name_of(path: str) -> str:
    """Return what a recording is called."""
    return "stdin" if path == STDIN else path


def _begin(path: FilePath) -> bytes:
    """Return the first bytes of a file; a directory has parts of Parquet."""
    if path.is_dir():
        return b"PAR1"
    with path.open("rb") as file:
        return file.read(16)


def _json(head: bytes) -> bool:
    return head.lstrip().startswith(b"{")


def _read(path: FilePath, name: str) -> Recording:
    head = _begin(path)
    form = forms.form_by(head)
    if form and not (form.columns and path.is_file() and is_trace(path)):
        paths, lost = of_audit(named(forms.batches(path), path, name))
        return Recording(name, form.word, _added([(name, _records(paths))]), lost, paths)
    with path.open("rb") as file:
        if form:
            return Recording(name, "parquet", *read_parquet(file, name))
        if _json(head):
            return Recording(name, "json", *read_json(file, name))
        check_begin(head, name, f"JSON, or {forms.known()}")
        reader = TraceReader(file, name)
        return Recording(name, reader.form, list(reader), reader.lost)


def named(batches: Iterable[Batch], path: FilePath, name: str) -> Iterator[Batch]:
    """Yield batches; what is wrong in a copy is said of what it is of."""
    try:
        yield from batches
    except AuditError as error:
        raise AuditError(str(error).replace(str(path), name)) from error


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
    traced = merged(each for each in recordings if not each.paths)
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
    return _added((each.name, each.records) for each in recordings)


def _added(several: Iterable[tuple[str, Iterable[TraceRecord]]]) -> list[TraceRecord]:
    counts: dict[tuple[str, str, str, int, int], int] = {}
    for name, records in several:
        for record in records:
            total = counts.get(record.key, 0) + record.count
            if total > MAX_COUNT:
                raise TraceError(name, 0, 1, f"counts up to {MAX_COUNT}", str(total))
            counts[record.key] = total
        if len(counts) > MAX_RECORDS:
            raise TraceError(name, 0, 1, f"at most {MAX_RECORDS} paths in all", "more")
    return [TraceRecord(*key, count) for key, count in counts.items()]
