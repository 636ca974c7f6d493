# SPDX-License-Identifier: BSD-2-Clause
"""Traces as JSON and as Parquet, and graphs as GraphML.

JSON: one object with `format` ("pympi trace"), `version` (1), `lost` and `records`, each with the
fields of the full text form. Parquet: the same fields as columns; `lost` is in the metadata of the
file. Names are escaped as in the full form, so that every name can be said, and read back.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO
from xml.sax.saxutils import escape as xml
from xml.sax.saxutils import quoteattr

import msgspec

from ..errors import PympiError
from .text import (
    MAX_COUNT,
    MAX_RECORDS,
    TraceError,
    TraceRecord,
    escape,
    kobject_name,
    parse_full,
)

if TYPE_CHECKING:
    from .graph import Graph

__all__ = [
    "MissingPackage", "graphml", "is_trace", "read_json", "read_parquet", "to_json", "to_parquet",
]  # fmt: skip

FORMAT, VERSION = "pympi trace", 1
MAX_FILE = 1 << 30
"""Bytes of a file, and of what it unpacks to."""
PIECE = 1 << 20
"""Bytes read at a time."""


class MissingPackage(PympiError, ValueError):
    """A package that is needed is not installed; the message says how to get it."""


class _Record(msgspec.Struct, frozen=True):
    event: str
    task: str
    owner: str
    kind: str
    number: int
    count: int


class _Trace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    version: int
    lost: Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
    records: list[_Record]


def _row(record: TraceRecord) -> dict[str, Any]:
    event, task, owner, kind, number, count = record
    return {
        "event": event, "task": escape(task), "owner": escape(owner), "kind": kobject_name(kind),
        "number": number, "count": count,
    }  # fmt: skip


def to_json(records: Iterable[TraceRecord], lost: int = 0) -> bytes:
    """Return a trace as JSON, in ASCII, a line for each record."""
    rows = ",\n  ".join(json.dumps(_row(record)) for record in records)
    head = f'{{"format": "{FORMAT}", "version": {VERSION}, "lost": {lost}, "records": [\n  '
    return f"{head}{rows}\n]}}\n".encode()


def read_json(file: BinaryIO, name: str = "trace") -> tuple[list[TraceRecord], int]:
    """Return the records of a trace in JSON, and how many events it says were lost.

    Raises:
        TraceError: it is none, or a record is no path.
    """
    text = bytearray()
    while len(text) <= MAX_FILE and (piece := file.read(PIECE)):  # read(n) would take n bytes
        text += piece
    if len(text) > MAX_FILE:
        raise TraceError(name, 0, 1, f"at most {MAX_FILE} bytes", "more")
    try:
        trace = msgspec.json.decode(text, type=_Trace)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TraceError(name, 0, 1, "a trace in JSON", str(error)) from None
    if (trace.format, trace.version) != (FORMAT, VERSION):
        found = f"{trace.format[:40]!r}, version {trace.version}"
        raise TraceError(name, 0, 1, f"format {FORMAT!r}, version {VERSION}", found)
    rows = (msgspec.structs.astuple(record) for record in trace.records)
    return _checked(rows, len(trace.records), name), trace.lost


def _checked(rows: Iterable[Sequence[Any]], count: int, name: str) -> list[TraceRecord]:
    """Return rows as records, each of which the full form can say, and no path twice."""
    if count > MAX_RECORDS:
        raise TraceError(name, 0, 1, f"at most {MAX_RECORDS} records", str(count))
    seen: set[Any] = set()
    records = []
    for number, row in enumerate(rows, 1):
        line = "\t".join(map(str, row)).encode(errors="surrogatepass")
        record = parse_full(line, name, number)
        if record.key in seen:
            raise TraceError(name, number, 1, "each path once", repr(row))
        seen.add(record.key)
        records.append(record)
    return records


# --- Parquet --------------------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise MissingPackage("Parquet needs pyarrow: pip install 'pympi-mach[analysis]'") from None
    return pa


def to_parquet(records: Iterable[TraceRecord], lost: int = 0) -> bytes:
    """Return a trace as a Parquet file.

    Raises:
        MissingPackage: pyarrow is not installed.
    """
    arrow = _pyarrow()
    word = arrow.dictionary(arrow.int32(), arrow.string())
    types = [word, word, word, word, arrow.int64(), arrow.int64()]
    schema = arrow.schema(
        list(zip(TraceRecord._fields, types, strict=True)),
        metadata={"format": FORMAT, "version": str(VERSION), "lost": str(lost)},
    )
    rows = [_row(record) for record in records]
    table = arrow.Table.from_pylist(rows, schema=schema)
    written = io.BytesIO()
    arrow.parquet.write_table(table, written, compression="zstd")
    return written.getvalue()


def read_parquet(file: BinaryIO, name: str = "trace") -> tuple[list[TraceRecord], int]:
    """Return the records of a trace in Parquet, and how many events it says were lost.

    Raises:
        TraceError: it is none, or damaged, or unpacks to too much, or a record is no path.
        MissingPackage: pyarrow is not installed.
    """
    arrow = _pyarrow()
    try:
        opened = arrow.parquet.ParquetFile(file, read_dictionary=_WORDS)
        lost = _check_parquet(opened, name)
        table = opened.read(columns=list(TraceRecord._fields))
        columns = [[*_values(table.column(field))] for field in TraceRecord._fields]
    except (arrow.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise TraceError(name, 0, 1, "a trace in Parquet", str(error)[:200]) from None
    return _checked(zip(*columns, strict=True), opened.metadata.num_rows, name), lost


def is_trace(path: str | os.PathLike[str]) -> bool:
    """Whether a file of Parquet is a trace, or at least has no audit records.

    Raises:
        MissingPackage: pyarrow is not installed.
    """
    arrow = _pyarrow()
    try:
        return "sequence" not in arrow.parquet.read_schema(path).names
    except (arrow.ArrowException, OSError, ValueError):
        return True


_WORDS = ("event", "task", "owner", "kind")


def _values(column: Any) -> Iterator[Any]:
    """Yield the values of a column; equal words are one object, however many rows have it."""
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            words = chunk.dictionary.to_pylist()
            yield from (words[at] if at is not None else None for at in chunk.indices.to_pylist())
        else:
            yield from chunk.to_pylist()


def _check_parquet(opened: Any, name: str) -> int:
    """Look at what the file says of itself, before anything is unpacked; return what was lost."""
    about = opened.metadata
    metadata = {k.decode(): v.decode() for k, v in (opened.schema_arrow.metadata or {}).items()}
    if (metadata.get("format"), metadata.get("version")) != (FORMAT, str(VERSION)):
        raise TraceError(name, 0, 1, f"a file of {FORMAT!r}, version {VERSION}", str(metadata)[:80])
    if missing := set(TraceRecord._fields) - set(opened.schema_arrow.names):
        raise TraceError(name, 0, 1, f"a column {min(missing)!r}", str(opened.schema_arrow.names))
    if about.num_rows > MAX_RECORDS:
        raise TraceError(name, 0, 1, f"at most {MAX_RECORDS} records", str(about.num_rows))
    groups = [about.row_group(at) for at in range(about.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > MAX_FILE:
        raise TraceError(name, 0, 1, f"at most {MAX_FILE} bytes, unpacked", "more")
    lost = metadata.get("lost", "")
    if not lost.isdecimal() or len(lost) > 19:
        raise TraceError(name, 0, 1, "how many events were lost", repr(lost[:40]))
    return int(lost)


# --- GraphML --------------------------------------------------------------------------------------

_NODE_KEYS = ("kind", "name", "label", "sent", "received", "denied")
_EDGE_KEYS = (
    "outcome", "messages", "replies", "bytes", "transfers", "refusals", "ports", "events",
    "methods",
)  # fmt: skip


def graphml(graph: Graph) -> bytes:
    """Return a graph as GraphML, for networkx, Gephi, yEd and others."""
    return ("\n".join(_graphml(graph)) + "\n").encode()


def _graphml(graph: Graph) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    for what, keys in (("node", _NODE_KEYS), ("edge", _EDGE_KEYS)):
        for key in keys:
            kind = "string" if key in _TEXTS else "long"
            yield f'  <key id="{what}_{key}" for="{what}" attr.name="{key}" attr.type="{kind}"/>'
    yield '  <graph id="pympi" edgedefault="directed">'
    for node in graph.nodes:
        yield f"    <node id={quoteattr(escape(node.id))}>"
        yield from _data("node", {key: getattr(node, key) for key in _NODE_KEYS})
        yield "    </node>"
    for edge in graph.edges:
        ends = quoteattr(escape(edge.source)), quoteattr(escape(edge.target))
        yield f"    <edge source={ends[0]} target={ends[1]}>"
        yield from _data("edge", {key: getattr(edge, key) for key in _EDGE_KEYS})
        yield "    </edge>"
    yield "  </graph>"
    yield "</graphml>"


_TEXTS = {"kind", "name", "label", "outcome", "events", "methods"}


def _data(what: str, values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {count}" for name, count in value.items())
        yield f'      <data key="{what}_{key}">{xml(escape(str(value)))}</data>'
