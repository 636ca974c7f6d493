# SPDX-License-Identifier: BSD-2-Clause
"""The binary audit file: what is written is read again, and goes on whatever happens to it."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import audit_files as make
import msgspec
import numpy as np
import pytest
from background import LONG

from pympi import Kernel, audit
from pympi.audit import RECORD, AuditError, Batch, File, JSONLines, Reader, batches, verify
from pympi.audit import file as module
from pympi.audit.chain import BLOCK, LARGEST_BLOCK, Block, fold, leaf_ends, path_of, root_of
from pympi.audit.feed import Feed
from pympi.audit.stats import stats
from pympi.audit.writer import FileChanged, Writer

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.audit"


def numbers(path: Path) -> list[int]:
    return make.numbers(Reader(io.BytesIO(path.read_bytes())))


# ---- trees ----


@pytest.mark.parametrize("count", range(18))
def test_every_leaf_leads_to_the_root(count: int) -> None:
    leaves = [bytes([n]) * 32 for n in range(count)]
    root = root_of(leaves)
    for index, leaf in enumerate(leaves):
        path = path_of(leaves, index)
        assert fold(leaf, index, count, path) == root
        assert fold(leaf, index, count, [*path, leaf]) is None
        assert fold(b"other", index, count, path) != root
        assert not path or fold(leaf, index, count, path[:-1]) is None


def test_the_tree_is_that_of_rfc_6962() -> None:
    """Its recursive definition, MTH(D[n]), with leaves that are hashed already."""
    from hashlib import sha256

    def mth(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        half = 1 << (len(leaves) - 1).bit_length() - 1
        return sha256(b"\1" + mth(leaves[:half]) + mth(leaves[half:])).digest()

    for count in range(1, 40):
        leaves = [bytes([n]) * 32 for n in range(count)]
        assert root_of(leaves) == mth(leaves)


def test_where_leaves_end() -> None:
    assert leaf_ends(10, 50) == [50]
    size = 104
    for count in (1, 16, 17, 32, 33):
        ends = leaf_ends(0, 8 + count * size, size)
        assert ends[-1] == 8 + count * size
        assert ends[:-1] == [8 + n * size for n in range(16, count, 16)]


# ---- what is written is read ----


@pytest.mark.parametrize("check", [True, False])
def test_batches_come_back(path: Path, check: bool) -> None:
    sent = [make.batch(40), make.batch(1, 41), make.batch(20_000, 50, {1: "a", 2: "b"})]
    with File(path) as file:
        for batch in sent:
            file(batch)
    reader = Reader(io.BytesIO(path.read_bytes()), check=check)
    found = list(reader)
    assert make.numbers(found) == make.numbers(sent)
    assert reader.closed
    assert [record for batch in found for record in batch] == [
        record for batch in sent for record in batch
    ]


def test_words_that_few_records_use_are_left_out(path: Path) -> None:
    labels = {n: f"label {n}" for n in range(1000)}
    with File(path) as file:
        file(make.batch(5, labels=labels))
    (batch,) = Reader(io.BytesIO(path.read_bytes()))
    assert dict(batch.labels) == {n: f"label {n}" for n in (0, 1, 2)}


def test_a_number_stands_for_one_thing_in_a_block(path: Path) -> None:
    with File(path) as file:
        file(make.batch(5))
        file(make.batch(5, 6, {1: "te/u:r:other", 2: "te/u:r:port_t"}))
    first, second = Reader(io.BytesIO(path.read_bytes()))
    assert first.labels[1] == "te/system_u:system_r:client_t"
    assert second.labels[1] == "te/u:r:other"


def test_services_belong_to_their_records(path: Path) -> None:
    asked = make.batch(1, operation=int(make.Operation.SERVICE), name=3)
    with File(path) as file:
        file(Batch(asked.records, asked.labels, asked.tasks, asked.classes, {3: "printer"}))
        again = make.batch(1, 2, operation=int(make.Operation.SERVICE), name=3)
        file(Batch(again.records, asked.labels, asked.tasks, asked.classes, {3: "scanner"}))
    assert [record.service for record in audit.read(path)] == ["printer", "scanner"]


def test_texts_of_any_bytes(path: Path) -> None:
    labels = {1: "\udcff\n\x1b[31m", 2: "\u202e"}
    with File(path) as file:
        file(make.batch(1, labels=labels))
    (record,) = audit.read(path)
    assert (record.subject, record.object) == (labels[1], labels[2])


def test_sequence_numbers_must_rise(path: Path) -> None:
    wrong = make.records(5)
    wrong["sequence"][3] = 3
    with File(path) as file:
        with pytest.raises(ValueError, match="expected a record after 3, found 3"):
            file(Batch(wrong, {}, {}, {}))
        file(make.batch(1))
    assert numbers(path) == [1]


def test_two_kernels_one_after_the_other(path: Path) -> None:
    with File(path) as file:
        file(make.batch(5))
        file(make.batch(5))
    assert numbers(path) == [1, 2, 3, 4, 5] * 2
    assert verify(path).state == "closed"


class Chatter:
    """A kernel whose sends are recorded, and that has sent so many already."""

    def __init__(self, kernel: Kernel, before: int = 0) -> None:
        self.audit = kernel.audit
        self.audit.select("granted", "mach_port", "send")
        task = kernel.create_task("task")
        self._inbox = task.allocate_port(qlimit=1024)
        self._right = self._inbox.make_send(task)
        self.send(before)
        self.audit.drain()

    def send(self, count: int) -> None:
        for _ in range(count):
            self._right.send(b"")


def runs(path: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    with path.open("rb") as file:
        for each in Reader(file):
            found.setdefault(each.run, []).extend(each.records["sequence"].tolist())
    return found


def test_kernels_one_after_the_other_are_runs_though_numbers_rise(path: Path) -> None:
    file = File(path)
    with Kernel() as kernel:
        first = Chatter(kernel)
        first.audit.attach(file)
        first.send(3)
        first.audit.detach(file)
        first.send(2)
        first.audit.drain()
        first.audit.attach(file)  # the same kernel: what is missing was done without the file
        first.send(1)
        first.audit.detach(file)
    with Kernel() as kernel:
        second = Chatter(kernel, before=100)
        second.audit.attach(file)
        second.send(2)
    assert runs(path) == {1: [0, 1, 2, 5], 2: [100, 101]}
    assert (verify(path).state, verify(path).missing) == ("closed", 2)
    found = stats(batches(path))
    assert (found.runs, found.missing, found.backwards) == (2, 2, 0)


def test_strata_of_kernels_one_after_the_other(path: Path) -> None:
    """The second has records of none; its counts are no later word on those of the first."""
    file = File(path)
    for count in (3, 0):
        with Kernel() as kernel:
            chatter = Chatter(kernel)
            chatter.audit.sample(one_in=2, seed=1)
            chatter.audit.attach(file)
            chatter.send(count)
            chatter.audit.detach(file)
    file.close()
    with Kernel() as kernel, pytest.raises(ValueError, match="is closed"):
        kernel.audit.attach(file)
    with path.open("rb") as opened:
        reader = Reader(opened)
        assert [len(each) for each in reader]
    assert [told["seen"] for told in reader.samplings] == [3, 0]


@pytest.mark.parametrize("kind", [File, JSONLines])
def test_a_sink_that_is_closed_with_its_kernel_is_of_one(path: Path, kind: type[Any]) -> None:
    sink, seen = kind(path), list[Batch]()
    with Kernel() as kernel, Kernel() as other:
        kernel.audit.attach(sink)
        kernel.audit.attach(seen.append)
        other.audit.attach(seen.append)  # nobody closes it
        with pytest.raises(ValueError, match="attached to another kernel: detach it there first"):
            other.audit.attach(sink)
        kernel.audit.detach(sink)
        other.audit.attach(sink)


def test_a_header_says_what_is_in_the_file(path: Path) -> None:
    with File(path, about={"host": "a\nb"}, identity=bytes(16), now=lambda: 0.0):
        pass
    lines = path.read_bytes().split(b"\n")
    header = msgspec.json.decode(lines[1])
    assert lines[0] == b"pympi audit 2"
    assert header["created"] == "1970-01-01T00:00:00+00:00"
    assert header["about"] == {"host": "a\nb"}
    assert header["operations"]["1"] == "send"
    fields = [(name, np.dtype(kind), offset) for name, kind, offset in header["record"]["fields"]]
    names, formats, offsets = zip(*fields, strict=True)
    described = {"names": names, "formats": formats, "offsets": offsets, "itemsize": 104}
    assert np.dtype(described) == RECORD  # type: ignore[call-overload]


def test_the_same_run_makes_the_same_file(tmp_path: Path) -> None:
    options: dict[str, Any] = {"identity": bytes(16), "now": lambda: 0.0, "key": KEY}
    first, second = (make.write(tmp_path / name, **options) for name in "ab")
    assert first == second


def test_records_that_a_later_version_made_longer() -> None:
    layout = msgspec.json.decode(make.HEADER.split(b"\n")[1])
    layout["record"]["size"] = 112
    layout["record"]["fields"].append(["more", "<u8", 104])
    line = b"pympi audit 2\n" + msgspec.json.encode(layout) + b"\n"
    wide = np.zeros((20, 112), np.uint8)
    wide[:, :104] = make.records(20).view(np.uint8).reshape(20, 104)
    (frame,) = make.padded([(b"RECS", wide.tobytes())])
    leaves = [make.digest(frame[:1800]), make.digest(frame[1800:])]
    content = b"".join([frame, *leaves])
    hashed = make.digest(line)
    block = Block(
        make.MAGIC, hashed[:16], 1, len(content), 2, 0, 20, 1, 20, hashed, root_of(leaves),
        bytes(32), bytes(32),
    ).sealed(None)  # fmt: skip
    (batch,) = Reader(io.BytesIO(line + block.packed() + content))
    assert batch.records.dtype == RECORD
    assert (batch.records == make.records(20)).all()


def test_a_header_that_could_not_be_read(path: Path) -> None:
    for about in ({"a": 1}, {"a": "\udcff"}, {"a": "x" * 65536}):
        with pytest.raises(ValueError, match=r"header|str|surrogate"):
            File(path, about=about)  # type: ignore[arg-type]


def test_strata_are_kept(path: Path) -> None:
    with File(path) as file:
        file.strata({"seen": 10, "kept": 1})
        file(make.batch(1))
    reader = Reader(io.BytesIO(path.read_bytes()))
    assert len(list(reader)) == 1
    assert reader.strata == {"seen": 10, "kept": 1}


def test_what_would_not_fit_in_a_block_goes_into_several(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST", 4000)
    with File(path) as file:
        file(make.batch(200))
    assert numbers(path) == list(range(1, 201))
    assert max(map(len, make.pieces(path.read_bytes())[1:])) < 2 * 4000
    assert verify(path).state == "closed"


# ---- both forms ----


def test_form_1_is_read() -> None:
    sent = [make.batch(70_000), make.batch(5, 70_001, {1: "te/u:r:other"})]
    reader = Reader(io.BytesIO(make.form_1(sent)))
    found = list(reader)
    assert reader.form == 1
    assert make.numbers(found) == make.numbers(sent)
    assert found[0].labels[1] == found[1].labels[1] == "te/system_u:system_r:client_t"
    assert found[-1].labels[1] == "te/u:r:other"
    assert len(found[0].labels) == 2
    assert 3 not in found[0].labels


# ---- going on ----


@pytest.mark.parametrize("key", [None, KEY])
def test_a_file_is_continued(path: Path, key: bytes | None) -> None:
    make.write(path, key=key)
    before = path.read_bytes()
    with File(path, append=True, key=key) as file:
        file(make.batch(7))
    assert path.read_bytes().startswith(before)
    assert numbers(path) == [*range(1, 66), *range(1, 8)]
    verdict = verify(path, key=key)
    assert (verdict.state, verdict.records) == ("closed", 72)
    assert not path.with_name("run.audit.torn").exists()


def test_continuing_what_is_not_there_begins_it(path: Path) -> None:
    for _ in range(2):
        with File(path, append=True) as file:
            file(make.batch(1))
    assert numbers(path) == [1, 1]
    path.write_bytes(b"")
    with File(path, append=True) as file:
        file(make.batch(2))
    assert numbers(path) == [1, 2]


def test_a_torn_end_is_kept_beside(path: Path) -> None:
    """Wherever it can be torn: what is whole is in the file, the rest beside it."""
    parts = make.write(path, (3, 2))
    raw = b"".join(parts)
    ends = [len(b"".join(parts[: n + 1])) for n in range(len(parts))]
    near = {end + by for end in ends for by in (-1, 0, 1, 8, BLOCK.size - 1, BLOCK.size)}
    for cut in sorted({*range(1, len(raw), 41), *near} & {*range(1, len(raw))}):
        for old in path.parent.iterdir():
            old.unlink()
        path.write_bytes(raw[:cut])
        whole = max((end for end in ends if end <= cut), default=0)
        with File(path, append=True) as file:
            file(make.batch(1))
        assert path.read_bytes().startswith(raw[:whole])
        torn = path.with_name("run.audit.torn")
        assert (torn.read_bytes() if torn.exists() else b"") == raw[whole:cut]
        assert verify(path).state == "closed"
        if torn.exists() and whole:
            reader = Reader(io.BytesIO(path.read_bytes()))
            list(reader)
            assert reader.run["torn"]["bytes"] == cut - whole


def test_torn_ends_do_not_replace_each_other(path: Path) -> None:
    for _ in range(3):
        make.write(path, (3,), append=True)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 10)
    make.write(path, append=True)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "run.audit", "run.audit.torn", "run.audit.torn.1", "run.audit.torn.2",
    ]  # fmt: skip


def test_zeros_that_a_loss_of_power_leaves_are_put_aside(path: Path) -> None:
    parts = make.write(path, (3, 40))
    raw = bytearray(b"".join(parts[:4]))
    raw[-3000:] = bytes(3000)
    path.write_bytes(raw)
    with File(path, append=True) as file:
        file(make.batch(1))
    assert numbers(path) == [1, 2, 3, 1]
    assert verify(path).state == "closed"


def test_what_is_damaged_is_not_continued(path: Path) -> None:
    parts = make.write(path)
    for wrong in ([0, 1, 3, 4, 5], [0, 2, 1, 3, 4, 5], [0, 1, 2, 2]):
        path.write_bytes(b"".join(parts[n] for n in wrong))
        before = path.read_bytes()
        with pytest.raises(AuditError, match=r"run.audit, byte \d+: damaged before its end"):
            File(path, append=True)
        assert path.read_bytes() == before
    path.write_bytes(b"something else")
    with pytest.raises(AuditError, match="byte 0: expected the line"):
        File(path, append=True)
    path.write_bytes(make.form_1([make.batch(1)]))
    with pytest.raises(AuditError, match="form 1"):
        File(path, append=True)


def test_only_with_its_key(path: Path) -> None:
    make.write(path, key=KEY)
    with pytest.raises(AuditError, match="begun with a key"):
        File(path, append=True)
    with pytest.raises(AuditError, match="block 1 has another key"):
        File(path, append=True, key=KEY[::-1])
    make.write(path)
    with pytest.raises(AuditError, match="begun without a key"):
        File(path, append=True, key=KEY)
    with pytest.raises(ValueError, match="at least 32 bytes"):
        File(path, key=b"short")


def test_a_key_is_wiped_and_moves_forward(path: Path) -> None:
    secret = bytearray(KEY)
    with File(path, key=secret) as file:
        assert not any(secret)
        assert file._chain.key
        keys = {bytes(file._chain.key._key)}
        for n in range(5):
            file(make.batch(1, n + 1))
            file.flush()
            keys.add(bytes(file._chain.key._key))
        assert len(keys) == 6
        forward = file._chain.key
    assert not any(forward._key)


# ---- durability ----


class Disk:
    """A disk that has room, or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.syncs = False, 0
        write, sync = Writer.write, Writer.sync
        disk = self

        def writing(self: Writer, data: Any) -> None:
            self._check()
            if disk.full:
                raise OSError(errno.ENOSPC, "no room", self.path)
            write(self, data)

        def syncing(self: Writer) -> None:
            disk.syncs += 1
            sync(self)

        monkeypatch.setattr(Writer, "write", writing)
        monkeypatch.setattr(Writer, "sync", syncing)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_record_is_on_the_disk_when_the_call_returns(path: Path, disk: Disk) -> None:
    file = File(path, durability="record")
    assert file.synchronous
    for n in range(1, 4):
        before = disk.syncs
        file(make.batch(1, n))
        assert numbers(path) == [*range(1, n + 1)]
        assert disk.syncs > before
    file.close()


def test_none_waits_for_a_full_buffer(path: Path, disk: Disk) -> None:
    file = File(path)
    file(make.batch(5))
    assert numbers(path) == []
    file(make.batch(70_000, 6))
    assert numbers(path) == [*range(1, 6 + (1 << 16))]
    file.flush()
    assert len(numbers(path)) == 70_005
    file.close()
    assert disk.syncs == 0


def test_interval_writes_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    sync = Writer.sync

    def syncing(self: Writer) -> None:
        sync(self)
        if self.position > written:
            synced.set()

    written = 1 << 62
    monkeypatch.setattr(Writer, "sync", syncing)
    with File(path, durability="interval", interval=0.001) as file:
        file.flush()
        written = path.stat().st_size
        file(make.batch(5))
        assert synced.wait(60)
        assert numbers(path) == [1, 2, 3, 4, 5]


def test_an_interval_does_not_keep_a_file(path: Path) -> None:
    import gc
    import weakref

    file = File(path, durability="interval", interval=0.001)
    thread, gone = file._timer._thread, weakref.ref(file)  # type: ignore[union-attr]
    writer = file._writer
    del file
    gc.collect()
    thread.join(60)  # it may have been at it
    assert not thread.is_alive()
    assert gone() is None
    assert writer
    writer.abandon()


def test_a_wrong_durability(path: Path) -> None:
    with pytest.raises(ValueError, match="durability must be one of none, interval, record"):
        File(path, durability="perhaps")


# ---- trouble ----


@pytest.mark.parametrize("key", [None, KEY])
def test_a_full_disk(path: Path, disk: Disk, key: bytes | None) -> None:
    """What could not be written is written when there is room; meanwhile nothing is taken."""
    file = File(path, durability="record", key=key)
    file(make.batch(5))
    disk.full = True
    with pytest.raises(OSError, match="no room"):
        file(make.batch(5, 6))  # taken, and kept
    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            file(make.batch(5, 11))  # not taken
    with pytest.raises(OSError, match="no room"):
        file.flush()
    assert numbers(path) == [*range(1, 6)]
    assert verify(path, key=key).state == "open"
    disk.full = False
    file(make.batch(5, 16))
    file.close()
    assert numbers(path) == [*range(1, 11), *range(16, 21)]
    assert verify(path, key=key).state == "closed"
    assert verify(path, key=key).missing == 5


def test_a_disk_that_stays_full(path: Path, disk: Disk) -> None:
    file = File(path)
    file(make.batch(5))
    disk.full = True
    with pytest.raises(OSError, match="no room"):
        file.close()
    with pytest.raises(ValueError, match="closed"):
        file(make.batch(1, 6))
    file.close()
    assert verify(path).state == "open"
    disk.full = False
    with File(path, append=True) as again:
        again(make.batch(1, 6))
    assert numbers(path) == [6]


def test_a_disk_that_is_full_from_the_start(path: Path, disk: Disk) -> None:
    disk.full = True
    with pytest.raises(OSError, match="no room"):
        File(path)
    disk.full = False
    make.write(path)
    assert verify(path).state == "closed"


@pytest.mark.parametrize("move", [lambda p: p.rename(f"{p}.1"), lambda p: p.unlink()])
def test_after_a_rotation_a_new_file_goes_on(path: Path, move: Callable[[Path], object]) -> None:
    with File(path, about={"host": "a"}) as file:
        file(make.batch(5))
        file.flush()
        number, hashed = file.head
        move(path)
        file(make.batch(5, 6))
    assert numbers(path) == [6, 7, 8, 9, 10]
    assert verify(path).state == "closed"
    about = msgspec.json.decode(path.read_bytes().split(b"\n")[1])["about"]
    assert about["host"] == "a"
    assert (about["follows block"], about["follows hash"]) == (str(number), hashed)
    rotated = path.with_name("run.audit.1")
    if rotated.exists():
        assert verify(rotated, head=hashed).state == "open"
        assert numbers(rotated) == [1, 2, 3, 4, 5]


def test_a_rotation_with_somebody_elses_file(path: Path) -> None:
    file = File(path)
    path.rename(f"{path}.1")
    path.write_bytes(b"mine")
    file(make.batch(1))
    with pytest.raises(FileChanged, match="moved"):
        file.flush()
    with pytest.raises(ValueError, match="closed"):
        file(make.batch(1, 2))
    assert path.read_bytes() == b"mine"


def test_a_rotation_when_the_disk_is_full(path: Path, disk: Disk) -> None:
    file = File(path)
    path.unlink()
    file(make.batch(1))
    disk.full = True
    with pytest.raises(OSError, match="no room"):
        file.flush()
    file.close()
    disk.full = False
    with File(path, append=True) as again:
        again(make.batch(1))
    assert verify(path).state == "closed"


def test_a_file_with_a_key_is_not_begun_anew(path: Path) -> None:
    file = File(path, key=KEY)
    path.unlink()
    file(make.batch(1))
    with pytest.raises(FileChanged, match="deleted"):
        file.flush()
    with pytest.raises(FileChanged):
        file.close()


def test_a_file_that_somebody_cut_is_not_gone_on_with(path: Path) -> None:
    file = File(path)
    file(make.batch(1))
    os.truncate(path, 20)
    with pytest.raises(FileChanged, match="truncated"):
        file.flush()
    with pytest.raises(FileChanged):
        file.close()
    assert path.stat().st_size == 20


def test_a_working_directory_that_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with File(path.name) as file:
        monkeypatch.chdir("/")
        file(make.batch(3))
    assert numbers(path) == [1, 2, 3]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupt_while_a_block_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It is there once, whenever it was."""
    file = File(path)
    file(make.batch(5))
    write = Writer.write

    def interrupted(self: Writer, data: Any) -> None:
        if moment == "after":
            write(self, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.flush()
    file(make.batch(5, 6))
    file.close()
    assert numbers(path) == [*range(1, 11)]
    assert verify(path).state == "closed"


@pytest.mark.parametrize("where", ["_written", "advance", "Draft"])
def test_an_interrupt_after_a_block_was_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It is not written again: two blocks of one number would be damage."""
    file = File(path, durability="record", key=KEY)
    owner = {"_written": file, "advance": file._chain, "Draft": module}[where]
    whole = getattr(owner, where)

    def interrupted(*arguments: object) -> object:
        monkeypatch.setattr(owner, where, whole)
        if where == "advance":
            whole(*arguments)
        raise KeyboardInterrupt

    batch, more = make.batch(2), make.batch(2, 3)
    monkeypatch.setattr(owner, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        file(batch)
    file(more)
    file.close()
    assert verify(path, key=KEY).state == "closed"
    assert numbers(path) == [1, 2, 3, 4]


def test_a_file_that_is_dropped_is_written(path: Path) -> None:
    file = File(path)
    file(make.batch(3))
    del file
    assert numbers(path) == [1, 2, 3]
    assert verify(path).state == "open"


def test_pipes(path: Path) -> None:
    """Nothing of them is locked, synced or continued."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with File(path, append=True, durability="record") as file:
        file(make.batch(3))
    raw = os.read(reader, 1 << 16)
    os.close(reader)
    assert make.numbers(Reader(io.BytesIO(raw))) == [1, 2, 3]
    with pytest.raises(OSError, match="not a file"):
        verify(path)


def test_nobody_else_writes_it_at_the_same_time(path: Path) -> None:
    with File(path) as file:
        file(make.batch(1))
        for append in (True, False):
            with pytest.raises(BlockingIOError, match="somebody else is writing it"):
                File(path, append=append)
    assert numbers(path) == [1]
    with File(path, append=True):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_a_child_writes_nothing(path: Path) -> None:
    file = File(path)
    file(make.batch(1))
    size = path.stat().st_size
    child = os.fork()
    if not child:
        code = 1
        try:
            file(make.batch(1, 2))
        except RuntimeError:
            file.close()
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert path.stat().st_size == size
    file.close()
    assert numbers(path) == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_a_child_does_not_wait_for_who_is_not_there(path: Path) -> None:
    """A thread that was in the file when the process was copied is not in the copy."""
    file = File(path)
    inside, out = threading.Event(), threading.Event()

    def hold() -> None:
        with file._mutex:
            inside.set()
            out.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)
        with suppress(RuntimeError):
            file.flush()
        file.__del__()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    out.set()
    thread.join()
    file.close()


@pytest.mark.parametrize("when", ["batch", "flush", "close"])
def test_what_a_file_had_taken_and_not_written_is_lost_with_it(
    path: Path, disk: Disk, when: str
) -> None:
    """Of 5 records that are in memory, nothing is on the disk when the sink fails."""
    with Kernel() as kernel:
        task = kernel.create_task("task")
        right = task.allocate_port(qlimit=9).make_send(task)
        kernel.audit.select("granted", "mach_port", "send")
        file = File(path)
        kernel.audit.attach(file)
        for _ in range(5):
            right.send(b"")
        kernel.audit.drain()
        [feed] = kernel.audit._drain.feeds
        assert isinstance(feed, Feed)
        with feed._news:
            assert feed._news.wait_for(lambda: feed._written == 5, LONG)
        disk.full = True
        if when == "batch":
            file.synchronous = True
            right.send(b"")
        if when != "close":
            kernel.audit.flush()
    assert kernel.audit.failures[0].lost == 5 + (when == "batch")
    assert numbers(path) == []


def test_many_threads_at_once(path: Path) -> None:
    """Each with a kernel of its own: whole batches, one after the other."""
    with File(path) as file:
        threads = [
            threading.Thread(target=lambda: [file(make.batch(50, n * 50)) for n in range(20)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = numbers(path)
    assert len(found) == 4 * 1000
    assert all(found[n : n + 50] == [*range(found[n], found[n] + 50)] for n in range(0, 4000, 50))
    assert verify(path).state == "closed"


def test_a_kernel_and_its_file(path: Path) -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        kernel.audit.attach(File(path, durability="record", key=KEY))
        task = kernel.create_task("task")
        task.allocate_port(qlimit=9).make_send(task).send(b"", msgh_id=3)
    assert [r.msgh_id for r in audit.read(path) if r.operation == "send"] == [3]
    assert verify(path, key=KEY).state == "closed"


def test_a_block_is_not_larger_than_it_may_be() -> None:
    assert module._LARGEST * 2 + BLOCK.size <= LARGEST_BLOCK + BLOCK.size


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": b"short"},
        {"about": {"a": "x" * (1 << 17)}},
        {"identity": b"x"},
        {"identity": 1.5},
        {"durability": "best"},
        {"now": lambda: float("nan")},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_arguments_that_are_wrong_cost_no_file(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "run.audit"
    path.write_bytes(b"what was there")
    with pytest.raises(ValueError, match=r"key|header|identity|durability|NaN"):
        File(path, **wrong)
    assert path.read_bytes() == b"what was there"


def test_strata_that_are_none_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "run.audit"
    with File(path) as file, pytest.raises(ValueError, match="strata are an object, not"):
        file.strata([1])  # type: ignore[arg-type]
    assert list(audit.read(path)) == []


def test_a_sink_can_be_called() -> None:
    with Kernel() as kernel:
        with pytest.raises(TypeError, match="a sink is called with batches, which None cannot be"):
            kernel.audit.attach(None)  # type: ignore[arg-type]
        assert not kernel.audit.sinks
