# SPDX-License-Identifier: BSD-2-Clause
"""Records as columns in words, and through Parquet back to records."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pympi.audit import RECORD, AuditError, Batch, Parquet, batches
from pympi.audit.parquet import write_parquet
from pympi.audit.table import COLUMNS, SEVERAL, encoded, gathered, rows, time_text
from pympi.enums import CLASSES, AuditFlag, ObjectClass, Operation
from pympi.errors import code_name, code_number

PRINTING = ObjectClass(17, "mi_printing", ("print_page", "", "set_default"))
HOSTILE = "te/a\nb\x1b[31m\u202e=1+1"


def random_batch(seed: int, count: int = 500) -> Batch:
    """Return records of all operations, with numbers of every size, known and not."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, RECORD)
    for name in RECORD.names or ():
        few = rng.integers(0, 5, count)
        bits = 31 if RECORD[name].itemsize == 4 else 62
        many = rng.integers(0, 1 << bits, count)
        records[name] = np.where(rng.random(count) < 0.9, few, many)
    records["sequence"] = np.arange(count) * 3
    records["operation"] = rng.integers(0, len(Operation) + 3, count)
    records["tclass"] = rng.choice([0, 1, 2, 17, 99], count)
    records["result"] = rng.choice([0, 0, 8, 0x10000004 | 0x2000, -7, 123456], count)
    records["flags"] = rng.choice([0, 0, 1, 4, 128, 1 << 9, 40 << 16 | 128], count)
    labels = {1: "te/a", 2: HOSTILE, 3: "-", 4: "sid:9"}
    classes = {tclass.number: tclass for tclass in CLASSES.values()} | {17: PRINTING}
    return Batch(records, labels, {0: "", 1: "editor", 2: HOSTILE}, classes, {1: "com.example"})


def row(**fields: Any) -> dict[str, Any]:
    """Return the columns of one record."""
    records = np.zeros(1, RECORD)
    for name, value in fields.items():
        records[name] = value
    classes = {tclass.number: tclass for tclass in CLASSES.values()} | {17: PRINTING}
    batch = Batch(records, {1: "te/a"}, {7: "editor"}, classes, {3: "com.example"})
    [found] = rows(batch)
    return dict(zip(COLUMNS, found, strict=True))


def test_words_are_those_of_a_record() -> None:
    batch = random_batch(1)
    known = Batch(
        batch.records[batch.records["operation"] < len(Operation)],
        batch.labels, batch.tasks, batch.classes, batch.services,
    )  # fmt: skip
    same = {"operation", "subject", "real_subject", "object", "peer", "task_name", "service",
            "sequence", "port", "name", "transfer", "msgh_id"}  # fmt: skip
    names = sorted(same)
    for record, found in zip(known, rows(known, names), strict=True):
        assert tuple(getattr(record, name) for name in names) == found


def test_outcomes() -> None:
    assert row(operation=1)["outcome"] == "granted"
    assert row(operation=1, result=8)["outcome"] == "failed"
    assert row(operation=1, denied=1, result=8)["outcome"] == "denied"
    passed = row(operation=1, denied=1, flags=AuditFlag.PERMISSIVE)
    assert (passed["outcome"], passed["flags"]) == ("granted", "PERMISSIVE")
    lost = row(operation=14, flags=AuditFlag.LOSS, result=12)
    assert (lost["outcome"], lost["lost"], lost["result"]) == ("loss", 12, "")


def test_what_has_no_name_is_not_left_out() -> None:
    found = row(operation=99, tclass=17, asked=0b101 | 1 << 31, flags=1 << 9, effective_sid=5)
    assert found["operation"] == "operation:99"
    assert found["asked"] == "print_page set_default bit31"
    assert (found["routine"], found["flags"], found["subject"]) == ("print_page", "bit9", "sid:5")
    assert row(tclass=77, asked=6)["class"] == "class:77"


@pytest.mark.parametrize(
    "numbers",
    [
        [], [5], [5, 5], [3, 1, 2, 1], [1 << 40, 0, 1 << 40], [*range(0, 1 << 24, 1 << 8)],
        [-7, 3, -7], [(1 << 63) - 1, 0],
    ],
)  # fmt: skip
def test_encoding(numbers: list[int]) -> None:
    kind = np.int32 if numbers and min(numbers) < 0 else np.uint64
    different, codes = encoded(np.array(numbers, kind))
    assert [different[code] for code in codes] == numbers
    assert len(set(different)) == len(different) == len(set(numbers))


def test_gathered_batches_have_the_same_records() -> None:
    parts = [random_batch(seed, 100) for seed in range(9)]
    whole = [*gathered(parts, 250)]
    assert [len(batch) for batch in whole] == [300, 300, 300]
    assert [r for b in whole for r in rows(b)] == [r for b in parts for r in rows(b)]


def test_numbers_that_change_their_meaning_are_kept_apart() -> None:
    one, two = random_batch(1, 10), random_batch(2, 10)
    two = Batch(two.records, {1: "te/other"}, two.tasks, two.classes, two.services)
    found = [*gathered([one, two])]
    assert [batch.labels[1] for batch in found] == ["te/a", "te/other"]


def test_codes_have_numbers() -> None:
    for code in (0, 4, 8, 1101, 0x10004008 | 0x2000, -9, 99999):
        assert code_number(code_name(code)) == code
    with pytest.raises(ValueError, match="KERN_NOTHING"):
        code_number("KERN_NOTHING")


def test_times() -> None:
    assert time_text(1_500_000_000) == "1.500000000"
    assert time_text(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
    assert time_text((1 << 64) - 1).endswith("Z")


# ---- Parquet ----


@pytest.fixture(autouse=True)
def _pyarrow(request: pytest.FixtureRequest) -> None:
    if "parquet" in request.node.name:
        pytest.importorskip("pyarrow", reason="the extra `analysis` is not installed")


def test_parquet_gives_back_what_it_got(tmp_path: Path) -> None:
    parts = [random_batch(seed) for seed in range(3)]
    path = tmp_path / "run.parquet"
    with path.open("wb") as file:
        write_parquet(file, parts)
    assert [r for b in batches(path) for r in rows(b)] == [r for b in parts for r in rows(b)]
    [tclass] = {b.classes[n] for b in batches(path) for n in b.classes if n > 15 and n != 99}
    assert tclass.permissions == PRINTING.permissions


def test_parquet_sink_writes_whole_parts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.parquet"
    sink = Parquet(path, records=150)
    for seed in range(4):
        sink(random_batch(seed, 100))
    assert sorted(p.name for p in path.iterdir()) == ["part-00001.parquet", "part-00002.parquet"]
    sink(random_batch(4, 100))
    assert sum(map(len, batches(path))) == 400
    sink.close()
    sink.close()
    assert sum(map(len, batches(path))) == 500
    with pytest.raises(FileExistsError, match="part-00001"):
        Parquet(path)


def test_parquet_sink_keeps_what_could_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    sink = Parquet(path)
    sink(random_batch(1, 100))
    path.rmdir()
    with pytest.raises(FileNotFoundError):
        sink.flush()
    path.mkdir()
    sink.flush()
    assert sum(map(len, batches(path))) == 100
    assert [p.name for p in path.iterdir()] == ["part-00001.parquet"]


KILLED = """
import os, sys
from pympi import Kernel
from pympi.audit import Parquet
with Kernel() as kernel:
    kernel.audit.everything()
    kernel.audit.attach(Parquet(sys.argv[1], when_full="block", records=1000))
    inbox = kernel.create_task("server").allocate_port()
    right = inbox.make_send(kernel.create_task("client"))
    while True:
        right.send(b"hello")
        inbox.receive()
"""


def test_parquet_of_who_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    for wanted in (1, 4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)]) as program:
            while len([*path.glob("part-*.parquet")]) < wanted and program.poll() is None:
                os.sched_yield()
            assert program.poll() is None
            program.kill()
        found = [batch.records["sequence"] for batch in batches(path)]
        numbers = np.concatenate(found)
        assert len(numbers) >= 1000 * wanted
        assert np.array_equal(numbers, np.arange(len(numbers)))
        shutil.rmtree(path)


def test_parquet_of_others(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pympi.audit.arrow import SCHEMA, record_batch

    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(AuditError, match=r"other\.parquet: no audit records: .* sequence"):
        list(batches(other))
    plain = pa.Table.from_batches([record_batch(random_batch(1))])
    for name in SCHEMA.names:  # as DuckDB writes it: no dictionaries, no metadata
        if pa.types.is_dictionary(plain.schema.field(name).type):
            place = plain.schema.get_field_index(name)
            plain = plain.set_column(place, name, plain[name].cast(pa.string()))
    pq.write_table(plain, other, store_schema=False)
    names = [name for name in COLUMNS if name != "routine"]  # goes by the order, which is lost

    def unordered(found: Iterable[Batch]) -> list[list[Any]]:
        found_rows = (zip(names, row, strict=True) for batch in found for row in rows(batch, names))
        return [
            [{*each.split()} if n in SEVERAL else each for n, each in row] for row in found_rows
        ]

    assert unordered(batches(other)) == unordered([random_batch(1)])


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("operation", "dance", "no operation is named 'dance'"),
        ("flags", "RED", "no flag is named 'RED'"),
        ("result", "KERN_NOTHING", "KERN_NOTHING"),
        ("operation", "operation:99999999999999999999", "large|convert|bounds"),
        ("asked", " ".join(f"p{n}" for n in range(33)), "more than 32 permissions"),
    ],
)
def test_parquet_that_lies(tmp_path: Path, column: str, value: str, complaint: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pympi.audit.arrow import record_batch

    table = pa.Table.from_batches([record_batch(random_batch(1, 5))])
    wrong = pa.array([value] * 5)
    table = table.set_column(table.schema.get_field_index(column), column, wrong)
    if column == "asked":
        named = pa.array(["mi_other"] * 5)
        table = table.set_column(table.schema.get_field_index("class"), "class", named)
    path = tmp_path / "lies.parquet"
    pq.write_table(table, path)
    with pytest.raises(AuditError, match=complaint):
        list(batches(path))


def test_parquet_cut_off_or_changed(tmp_path: Path) -> None:
    file = io.BytesIO()
    write_parquet(file, [random_batch(1)])
    whole = file.getvalue()
    path = tmp_path / "cut.parquet"
    for end in range(4, len(whole), 997):
        path.write_bytes(whole[:end])
        with pytest.raises(AuditError, match=r"cut\.parquet"):
            list(batches(path))
    rng = np.random.default_rng(1)
    for _ in range(40):
        changed = bytearray(whole)
        changed[int(rng.integers(4, len(whole)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(changed)
        with suppress(AuditError):
            for batch in batches(path):
                list(rows(batch))


def test_a_directory_without_parts(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no part was complete"):
        list(batches(tmp_path))
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(AuditError, match=r"expected an audit file, a file .*begins with b'hello'"):
        list(batches(tmp_path / "x"))
