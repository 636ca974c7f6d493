# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots as data and as files."""

import os
import stat
from pathlib import Path

import msgspec
import pytest
from background import Run

from pympi import SnapshotError
from pympi.inspect import (
    Context,
    Mark,
    Module,
    Policy,
    Port,
    Right,
    Service,
    Snapshot,
    Table,
    Task,
)
from pympi.inspect import file as files
from pympi.inspect.table import Row

HOSTILE = "na\nme\x1b[2J\u202e"


def row(kind: type[Row], **given: object) -> Row:
    """A row in which what is not given is 0, or empty."""
    empty = {"text": "", "?": False}
    kinds = msgspec.structs.fields(kind)
    fields = {f.name: empty.get(f.type.__metadata__[0].extra["column"], 0) for f in kinds}
    return kind(**{**fields, **given})


def table(kind: type[Row], *rows: Row) -> Table[Row]:
    return Table.of(kind, rows)


@pytest.fixture
def snapshot() -> Snapshot:
    tasks = [row(Task, id=1, name="server", label="te/s"), row(Task, id=2, name=HOSTILE)]
    ports = [
        row(Port, id=7, label="te/p", state="received", receiver=1, queue_length=3, number=-1),
        row(Port, id=2**63, state="dead", queued_bytes=2**40, handler=True),
    ]
    rights = [row(Right, task=2, name=0x103, types=0x10000, object=7, request="dead name")]
    return Snapshot(
        kernel_time=1.5,
        wall_time=1e9,
        begin=Mark(sequence=10, sent=3),
        end=Mark(sequence=12, sent=5, ports_made=1),
        stopped_seconds=None,
        tasks=table(Task, *tasks),
        ports=table(Port, *ports),
        rights=table(Right, *rights),
        policy=Policy(3, False, (Module("te", shadow=2),)),
        stats={"ports": 2},
        audit={"lost": 0},
        bootstrap=(Context(1, services=(Service("com.example", port=7),)),),
    )


def test_rows_come_back_as_they_were(snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot.save(tmp_path / "a.snap")
    loaded = Snapshot.load(tmp_path / "a.snap")
    assert loaded == snapshot
    assert loaded.tasks[1].name == HOSTILE
    assert loaded.ports[-1].id == 2**63


def test_an_empty_kernel(snapshot: Snapshot, tmp_path: Path) -> None:
    empty = msgspec.structs.replace(
        snapshot, tasks=table(Task), ports=table(Port), rights=table(Right), bootstrap=None
    )
    empty.save(tmp_path / "a.snap")
    assert Snapshot.load(tmp_path / "a.snap") == empty


def test_joins(snapshot: Snapshot) -> None:
    (right,) = snapshot.rights_of(2)
    port = snapshot.port(right.object)
    assert port is not None
    server = snapshot.task(port.receiver)
    assert server is not None
    assert server.name == "server"
    assert list(snapshot.holders(7)) == [right]
    assert snapshot.port(99) is None
    assert snapshot.port(-1) is snapshot.port(2**64) is None
    assert not snapshot.rights_of(1)


def test_changes(snapshot: Snapshot) -> None:
    changes = snapshot.changes
    assert (changes.operations, changes.sent, changes.ports_made, changes.ports_gone) == (
        2,
        2,
        1,
        0,
    )


def test_table_is_a_sequence(snapshot: Snapshot) -> None:
    tasks = snapshot.tasks
    assert [task.id for task in tasks] == [1, 2]
    assert tasks[-1] == tasks[1]
    assert list(tasks[:1]) == [tasks[0]]
    assert list(tasks.select(tasks.columns["id"] == 2)) == [tasks[1]]
    assert tasks.text("name") == ["server", HOSTILE]
    with pytest.raises(IndexError):
        tasks[2]
    with pytest.raises(IndexError):
        tasks[-3]
    with pytest.raises(TypeError, match="columns of Port are"):
        Table(Port, tasks.columns, [])


def test_every_field_is_said_what_it_is() -> None:
    for kind in (Task, Port, Right, Mark, Module, Policy, Service, Context, Snapshot):
        for field in kind.__struct_fields__:
            assert field in (kind.__doc__ or ""), f"{kind.__name__}.{field}"


# ---- bad files ----


def saved(snapshot: Snapshot, path: Path) -> bytes:
    snapshot.save(path)
    return path.read_bytes()


def refused(path: Path, contents: bytes, why: str = ".") -> None:
    path.write_bytes(contents)
    with pytest.raises(SnapshotError, match=why) as caught:
        Snapshot.load(path)
    assert str(path) in str(caught.value)


def places(whole: bytes) -> list[int]:
    """Every place in the header, and some of those behind it."""
    return [*range(40), *range(40, len(whole), 37)]


def test_cut_short_anywhere(snapshot: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    whole = saved(snapshot, path)
    for length in places(whole):
        refused(path, whole[:length], "cut short")


def test_a_bit_flipped_anywhere(snapshot: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    whole = saved(snapshot, path)
    for at in places(whole):
        refused(path, whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])


def test_something_after_the_end(snapshot: Snapshot, tmp_path: Path) -> None:
    refused(tmp_path / "a.snap", saved(snapshot, tmp_path / "a.snap") + b"x", "too long")


def test_a_later_version(snapshot: Snapshot, tmp_path: Path) -> None:
    whole = bytearray(saved(snapshot, tmp_path / "a.snap"))
    whole[8] += 1
    refused(tmp_path / "a.snap", bytes(whole), "version 2; this pympi reads version 1")


def test_no_snapshot(tmp_path: Path) -> None:
    refused(tmp_path / "a.snap", b"", "not a snapshot")
    refused(tmp_path / "a.snap", b"\x7fELF" + bytes(100), "not a snapshot")


def test_a_huge_size(tmp_path: Path) -> None:
    refused(tmp_path / "a.snap", files.HEADER.pack(files.MAGIC, 1, 0, 2**63), "says that it has")
    with (tmp_path / "b.snap").open("wb") as sparse:
        sparse.truncate(files.LARGEST + 1)
    with pytest.raises(SnapshotError, match="more than a snapshot has"):
        Snapshot.load(tmp_path / "b.snap")


def test_what_is_no_file_stays_what_it_is(snapshot: Snapshot, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = Run(pipe.read_bytes)
    snapshot.save(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    (tmp_path / "copy").write_bytes(reading.result())
    assert Snapshot.load(tmp_path / "copy").tasks == snapshot.tasks
    with pytest.raises(IsADirectoryError):
        snapshot.save(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SnapshotError, match="not a file"):
        Snapshot.load(tmp_path / "fifo")
    with pytest.raises(FileNotFoundError):
        Snapshot.load(tmp_path / "none")


def forged(snapshot: Snapshot, path: Path, change: str) -> None:
    """Write a file whose checksum fits, and whose contents do not."""
    form = files._form(snapshot)
    if change == "text":
        form.texts.pop()
    elif change == "rows":
        form.ports["id"].data = form.ports["id"].data[:-8]
    elif change == "part":
        form.ports["id"].data = form.ports["id"].data[:-1]
    elif change == "kind":
        form.ports["id"].kind = "<u4"
    elif change == "columns":
        form.ports["more"] = form.ports["id"]
    body = msgspec.msgpack.encode(form)
    if change == "garbage":
        body = b"\xc1" * 100
    elif change == "deep":
        body = b"\x91" * 100_000
    path.write_bytes(files.HEADER.pack(files.MAGIC, 1, files.zlib.crc32(body), len(body)) + body)


@pytest.mark.parametrize("change", ["text", "rows", "part", "kind", "columns", "garbage", "deep"])
def test_a_lying_file(snapshot: Snapshot, tmp_path: Path, change: str) -> None:
    forged(snapshot, tmp_path / "a.snap", change)
    with pytest.raises(SnapshotError, match="damaged"):
        Snapshot.load(tmp_path / "a.snap")


# ---- writing ----


def test_only_the_owner_reads_it(snapshot: Snapshot, tmp_path: Path) -> None:
    snapshot.save(tmp_path / "a.snap")
    assert stat.S_IMODE((tmp_path / "a.snap").stat().st_mode) == 0o600


def test_what_was_there_stays_if_writing_fails(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.snap"
    path.write_text("before")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        snapshot.save(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_not_followed(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.snap").symlink_to(tmp_path / "precious")
    snapshot.save(tmp_path / "a.snap")
    assert (tmp_path / "precious").read_text() == "precious"
    assert Snapshot.load(tmp_path / "a.snap") == snapshot
