# SPDX-License-Identifier: BSD-2-Clause
"""Group J, hostile traces: refused with their place, in bounded time and memory, and nothing kept.

A trace has no sequence numbers, no chain and no times, and any name may be a task's: J7, J10 and
J12 are about audit files, and of J6 and J9 there are the kinds of kernel objects.
"""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pympi.trace import TraceError, TraceReader, TraceRecord, write_full, write_sedarwin
from pympi.trace.recordings import read_recording, sedarwin_lines
from pympi.trace.stores import read_json, to_json, to_parquet
from pympi.trace.text import MAX_RECORDS

# What never ends would keep this file from ending.
pytestmark = pytest.mark.timeout(60, method="thread")

RECORDS = [
    TraceRecord("send", "/sbin/é", "mach_kernel", 2, 0, 3),
    TraceRecord("copy_send", "a", "b", 0, 9, 1),
]


def full(records: list[TraceRecord]) -> bytes:
    file = io.BytesIO()
    write_full(file, records, lost=1)
    return file.getvalue()


def sedarwin(records: list[TraceRecord]) -> bytes:
    file = io.BytesIO()
    write_sedarwin(file, records)
    return file.getvalue()


needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="no pyarrow")
Maker = Callable[[list[TraceRecord]], bytes]
TEXTS = [full, sedarwin, to_json]
FORMS = [*TEXTS, pytest.param(to_parquet, marks=needs_pyarrow)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], list[TraceRecord]]:
    def call(data: bytes) -> list[TraceRecord]:
        path = tmp_path / "t"
        path.write_bytes(data)
        try:
            return read_recording(str(path)).records
        except TraceError as error:
            if not str(error).startswith(f"{path}:{error.line}:{error.column}: expected "):
                raise AssertionError(f"it does not say where: {error}") from error
            raise

    return call


Read = Callable[[bytes], list[TraceRecord]]


@pytest.mark.parametrize("make", FORMS)
def test_what_was_written_is_read(read: Read, make: Maker) -> None:
    assert read(make(RECORDS)) == RECORDS


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"p", b"{", b"PAR1", b"PK\x03\x04", b"pympi trac", b"\xff" * 100, b"{}"]
)
def test_j1_what_is_no_trace(read: Read, data: bytes) -> None:
    if data == b"PAR1" and not find_spec("pyarrow"):
        pytest.skip("no pyarrow")
    with pytest.raises(TraceError):
        read(data)


def test_j2_future_versions(read: Read) -> None:
    with pytest.raises(TraceError, match=":1:13: expected version 1"):
        read(full(RECORDS).replace(b"trace 1:", b"trace 2:"))
    with pytest.raises(TraceError, match="expected format 'pympi trace', version 1"):
        read(to_json(RECORDS).replace(b'"version": 1', b'"version": 2'))


@needs_pyarrow
def test_j2_future_version_of_parquet(read: Read) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.parquet.read_table(io.BytesIO(to_parquet(RECORDS)))
    for metadata in ({}, {"format": "pympi trace", "version": "2", "lost": "0"}):
        written = io.BytesIO()
        pa.parquet.write_table(table.replace_schema_metadata(metadata), written)
        with pytest.raises(TraceError, match="expected a file of 'pympi trace', version 1"):
            read(written.getvalue())


@pytest.mark.parametrize("make", FORMS)
def test_j3_cut_off_anywhere(read: Read, make: Maker) -> None:
    data = make(RECORDS)
    ends = range(len(data)) if len(data) < 2000 else range(0, len(data), 7)
    for end in ends:
        if make is to_json and data[:end].rstrip() == data.rstrip():
            continue
        with pytest.raises(TraceError):
            read(data[:end])


@pytest.mark.parametrize("make", FORMS)
def test_j4_any_flipped_bit_is_refused_or_another_trace(read: Read, make: Maker) -> None:
    """A text has no checksum: what is read is written the same way again, or it is refused."""
    data = make(RECORDS)
    step = {to_json: 3, to_parquet: 97}.get(make, 1)
    for bit in range(0, 8 * len(data), step):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            records = read(bytes(flipped))
        except TraceError:
            continue
        assert all(isinstance(record, TraceRecord) for record in records)
        if make in (full, sedarwin):
            again = read_lost(bytes(flipped), records)
            assert again == flipped


def read_lost(data: bytes, records: list[TraceRecord]) -> bytes:
    """Write records as they were read from `data`."""
    reader = TraceReader(io.BytesIO(data))
    file = io.BytesIO()
    if reader.form == "sedarwin":
        write_sedarwin(file, records)
    else:
        write_full(file, records, lost=reader.lost)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"9999999999 trace records:\n", b"99999999999999999999 trace records:\n",
        b"pympi trace 1: 1000000000 records, 0 lost\nevent\ttask\towner\tkind\tnumber\tcount\n",
        b"2 trace records:\n" + sedarwin(RECORDS[:1]).split(b"\n", 1)[1],
        b"1 trace records:\n" + b"x" * (1 << 20),
        b"1 trace records:\nsend      " + b"a" * 20000 + b"\n",
    ],
)  # fmt: skip
def test_j5_lengths_that_are_not_so(read: Read, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TraceError):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["-1", "35x", "7", "02147483648", "2147483648", "Task", ""])
@pytest.mark.parametrize("make", [full, to_json])
def test_j6_j9_kinds_that_there_are_not(read: Read, make: Maker, kind: str) -> None:
    data = make([RECORDS[0]])
    before, after = (b"\ttask\t0", f"\t{kind}\t0") if make is full else (b'"task",', f'"{kind}",')
    assert data.count(before) == 1 or make is to_json
    at = data.rindex(before)
    with pytest.raises(TraceError):
        read(data[:at] + after.encode() + data[at + len(before) :])


@pytest.mark.parametrize("make", [full, to_json])
def test_j8_a_path_twice(read: Read, make: Maker) -> None:
    twice = [RECORDS[0], RECORDS[1], RECORDS[0]._replace(count=7)]
    with pytest.raises(TraceError, match="expected each path once"):
        read(make(twice))


@needs_pyarrow
def test_j8_a_path_twice_in_parquet(read: Read) -> None:
    with pytest.raises(TraceError, match="expected each path once"):
        read(to_parquet([RECORDS[0], RECORDS[0]]))


@needs_pyarrow
def test_j11_a_bomb_is_seen_before_it_goes_off(read: Read) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    rows = MAX_RECORDS + 1
    zeros = pa.array(np.zeros(rows, np.int64))
    words = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["a" * 1000])
    columns = [words] * 4 + [zeros] * 2
    metadata = {"format": "pympi trace", "version": "1", "lost": "0"}
    schema = pa.schema(
        [(name, c.type) for name, c in zip(TraceRecord._fields, columns, strict=True)], metadata
    )
    written = io.BytesIO()
    pa.parquet.write_table(pa.table(columns, schema=schema), written, compression="zstd")
    assert len(written.getvalue()) < 1 << 20
    with pytest.raises(TraceError, match=f"expected at most {MAX_RECORDS} records"):
        read(written.getvalue())


@needs_pyarrow
def test_j11_one_long_name_in_every_row_is_no_copy_in_every_row(read: Read) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    rows = 100_000
    numbers = pa.array(np.arange(1, rows + 1, dtype=np.int64))
    words = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["a" * 1_000_000])
    metadata = {"format": "pympi trace", "version": "1", "lost": "0"}
    columns = dict(zip(TraceRecord._fields, [words] * 4 + [numbers] * 2, strict=True))
    schema = pa.schema([(name, c.type) for name, c in columns.items()], metadata)
    written = io.BytesIO()
    pa.parquet.write_table(pa.table(columns, schema=schema), written, compression="zstd")
    tracemalloc.start()
    try:
        with pytest.raises(TraceError, match="expected one of send"):
            read(written.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_j13_a_billion_events_are_a_number(read: Read) -> None:
    many = [record._replace(count=10**9 + n) for n, record in enumerate(RECORDS)]
    assert read(sedarwin(many)) == many


def test_j13_reading_holds_one_line_and_the_paths() -> None:
    def lines() -> Any:
        yield b"%d trace records:\n" % MAX_RECORDS
        yield from iter(lambda: sedarwin(RECORDS).splitlines(keepends=True)[1], b"")

    class Endless(io.RawIOBase):
        """A file without an end, of which no more is asked than is looked at."""

        def __init__(self) -> None:
            self.lines = lines()
            self.read_lines = 0

        def readline(self, limit: int = -1) -> bytes:  # type: ignore[override]
            self.read_lines += 1
            return next(self.lines)

    endless = Endless()
    reader = iter(TraceReader(endless))  # type: ignore[arg-type]
    assert next(reader) == RECORDS[0]
    assert endless.read_lines == 2
    with pytest.raises(TraceError, match="each path once"):
        next(reader)


@pytest.mark.parametrize(
    "data",
    [
        b'{"format": "pympi trace", "version": 1, "lost": -1, "records": []}',
        b'{"format": "pympi trace", "version": 1, "lost": 0, "records": [], "more": 1}',
        b'{"format": "pympi trace", "version": 1, "lost": 0, "records": [{"event": "send"}]}',
        b'{"format": "pympi trace", "version": 1, "lost": 1e999, "records": []}',
        b'{"format": "pympi trace", "version": 1, "lost": NaN, "records": []}',
        b"{" * 100000, b'{"a":' * 100000,
        to_json(RECORDS).replace(b'"count": 3', b'"count": 0'),
        to_json(RECORDS).replace(b'"count": 3', b'"count": 99999999999999999999'),
        to_json(RECORDS).replace(b'"/sbin/', b'"\\ud800/sbin/'),
        to_json(RECORDS).replace(b'"/sbin/', b'"\\t'), to_json(RECORDS).replace(b'"send"', b'"x"'),
    ],
)  # fmt: skip
def test_json_that_is_no_trace(read: Read, data: bytes) -> None:
    with pytest.raises(TraceError):
        read(data)


def test_json_is_read_as_it_says(read: Read) -> None:
    assert json.loads(to_json(RECORDS, 4))["lost"] == 4
    assert read_json(io.BytesIO(to_json(RECORDS, 4))) == (RECORDS, 4)
    assert read(to_json([])) == []


def test_lines_for_tr2dot_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"x" * 20000 + b"\n")
    with pytest.raises(TraceError, match=r":1:16384: expected a line of at most 16384 bytes"):
        sedarwin_lines(str(path))
