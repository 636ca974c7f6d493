# SPDX-License-Identifier: BSD-2-Clause
"""G: audit sinks that fail, block, are cut or slow: each harms only itself, and what is lost shows.

Tests of the parts: tests/unit/test_audit_feed.py, test_audit_drain.py and test_audit_writer.py.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from background import LONG, Run, program

from pympi import AuditFull, Kernel, SendRight, audit
from pympi.audit import Batch, FileChanged, Writer
from pympi.audit import writer as writer_module
from pympi.enums import Operation
from pympi.port import ReceiveRight

ROOM = 64
FOLLOW = ("drop", "block")  # what a sink may be that fails, and all goes on


class Scene:
    """A kernel with a small ring in which sends are recorded, and a good sink beside a bad one."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        task = kernel.create_task("task")
        self.inbox: ReceiveRight = task.allocate_port(qlimit=1024)
        self.right: SendRight = self.inbox.make_send(task)
        self.batches: list[Batch] = []
        kernel.audit.select("granted", "mach_port", "send")
        kernel.audit.attach(self.batches.append, when_full="block")

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.right.send(b"")
            self.inbox.receive()

    def flush(self) -> None:
        self.kernel.audit.flush()

    @property
    def good(self) -> list[int]:
        return [n for batch in self.batches for n in batch.records["sequence"].tolist()]

    def failed(self) -> str:
        """Return why the one sink that failed did."""
        [failure] = self.kernel.audit.failures
        return failure.error

    def goes_on(self) -> None:
        """Assert that the good sink gets everything, and has got it."""
        self.flush()
        before = len(self.good)
        self.send(3)
        self.flush()
        assert len(self.good) == before + 3
        assert np.all(np.diff(self.good) == 1)
        self.kernel.verify()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Kernel(audit_records=ROOM) as kernel:
        yield Scene(kernel)
        kernel.verify()


def accounted(batches: list[Batch], upto: int) -> int:
    """Assert that every number is a record or is in a loss record; return how many are lost."""
    expected = lost = 0
    for record in (record for batch in batches for record in batch.records):
        told = int(record["result"]) if record["operation"] == Operation.LOSS else 0
        own = bool(told) and not record["name"]  # the kernel's own loss records have a number too
        assert record["sequence"] == expected + max(told - 1, 0) + own
        expected = int(record["sequence"]) + 1
        lost += told
    assert expected == upto
    return lost


def lines(path: Path) -> list[Any]:
    """Return what a file of JSON lines says; every line has to be whole."""
    raw = path.read_text()
    assert not raw or raw.endswith("\n")
    return [json.loads(line) for line in raw.splitlines()]


class Stuck:
    """A sink that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered, self.let = threading.Event(), threading.Event()
        self.batches: list[Batch] = []

    def __call__(self, batch: Batch) -> None:
        self.entered.set()
        self.let.wait()
        self.batches.append(batch)


# ---- G1: write() raises ----


@pytest.mark.parametrize("when_full", FOLLOW)
def test_g1_write_raises(scene: Scene, when_full: str) -> None:
    scene.kernel.audit.attach(lambda _: 1 / 0, when_full=when_full)
    scene.send(5)
    scene.flush()
    assert scene.failed() == "ZeroDivisionError: division by zero"
    assert scene.kernel.audit.failures[0].lost == 5
    scene.goes_on()


def test_g1_write_raises_and_nothing_is_done_without_it(scene: Scene) -> None:
    def broken(_batch: Batch) -> None:
        raise OSError("broken")

    scene.kernel.audit.attach(broken, when_full="fail")
    scene.send()
    scene.flush()
    queued = scene.inbox.status.msgcount
    with pytest.raises(AuditFull):
        scene.right.send(b"")
    assert scene.inbox.status.msgcount == queued
    scene.kernel.audit.detach(broken)
    scene.goes_on()


def test_g1_write_raises_and_the_process_is_aborted() -> None:
    done = program(
        """
        from pympi import Kernel
        kernel = Kernel()
        kernel.audit.everything()
        kernel.audit.attach(lambda batch: 1 / 0, when_full="abort")
        task = kernel.create_task("task")
        task.allocate_port().make_send(task).send(b"")
        kernel.audit.flush()
        print("unreachable")
        """
    )
    assert done.returncode == -signal.SIGABRT
    assert "failed, gets no more records: ZeroDivisionError" in done.stderr
    assert "unreachable" not in done.stdout


# ---- G2 to G9: files ----


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def reader(pipe: Path) -> int:
    """Open a pipe for reading, before anybody writes."""
    fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(fd, True)
    return fd


def read_all(fd: int, size: int) -> bytes:
    found = bytearray()
    while piece := os.read(fd, size):
        found += piece
    os.close(fd)
    return bytes(found)


def test_g2_short_writes(scene: Scene, pipe: Path) -> None:
    """A pipe takes what it has room for: lines are put together by who reads, none is torn."""
    fd = reader(pipe)
    scene.kernel.audit.attach(audit.JSONLines(pipe), when_full="block")
    run = Run(lambda: read_all(fd, 999))
    scene.send(1000)
    scene.kernel.audit.close()
    found = [json.loads(line)["sequence"] for line in run.result().decode().splitlines()]
    assert found == list(range(1000))


def test_g3_write_blocks_for_ever_and_drops() -> None:
    stuck = Stuck()
    with Kernel(audit_records=ROOM) as kernel:
        scene = Scene(kernel)
        kernel.audit.attach(stuck, when_full="drop", high=10, low=5, patience=0.1)
        for _ in range(10):
            scene.send(ROOM)
        assert len(scene.good) > 0
    assert len(scene.good) == 10 * ROOM
    [failure] = kernel.audit.failures
    assert (failure.sink, failure.error) == (stuck, "finished nothing in 0.1 s")
    stuck.let.set()


def test_g3_write_blocks_for_ever_and_so_do_operations_until_it_is_given_up(scene: Scene) -> None:
    stuck = Stuck()
    scene.kernel.audit.attach(stuck, when_full="block", high=10, low=5, patience=0.1)
    scene.send(10 * ROOM)
    assert scene.failed() == "finished nothing in 0.1 s"
    scene.goes_on()
    stuck.let.set()


def test_g3_write_blocks_for_ever_and_operations_fail(scene: Scene) -> None:
    stuck = Stuck()
    scene.kernel.audit.attach(stuck, when_full="fail", high=10, low=5, patience=0.1)
    with pytest.raises(AuditFull):
        scene.send(10 * ROOM)
    scene.kernel.audit.detach(stuck)
    scene.goes_on()
    stuck.let.set()


def test_g4_eintr_and_eagain(pipe: Path) -> None:
    """Signals come all the time while a pipe is full most of the time."""
    fd, came = reader(pipe), []
    before = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    writer = Writer(pipe)
    sent = os.urandom(2_000_000)
    run = Run(lambda: read_all(fd, 5000))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for at in range(0, len(sent), 100_000):
            writer.write(sent[at : at + 100_000])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        writer.close()
    assert run.result() == sent
    assert came


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("when_full", FOLLOW)
def test_g5_a_file_that_may_not_grow(scene: Scene, tmp_path: Path, when_full: str) -> None:
    path = tmp_path / "run.jsonl"
    scene.kernel.audit.attach(audit.JSONLines(path), when_full=when_full)
    with limited(20_000):
        scene.send(200)
        scene.flush()
    assert scene.failed().startswith("OSError: [Errno 27] File too large: ")
    written = [line["sequence"] for line in lines(path)]
    assert written == list(range(len(written)))
    assert 0 < len(written) + scene.kernel.audit.failures[0].lost <= 200
    scene.goes_on()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    with suppress(FileNotFoundError):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            yield place
            subprocess.run(["umount", "-l", str(place)], check=True)
            return
    pytest.skip("mounting a tmpfs is not allowed here")


def test_g5_a_full_disk(scene: Scene, small_disk: Path) -> None:
    path = small_disk / "run.jsonl"
    scene.kernel.audit.attach(audit.JSONLines(path), when_full="fail")

    def fill() -> None:
        for _ in range(100):
            scene.send(ROOM)
            scene.flush()

    with pytest.raises(AuditFull):
        fill()
    assert scene.failed().startswith(f"OSError: [Errno {errno.ENOSPC}] No space left on device")
    assert len(lines(path)) > 0


def test_g5_a_full_device(scene: Scene) -> None:
    scene.kernel.audit.attach(audit.AuditText("/dev/full"))
    scene.send()
    scene.flush()
    assert scene.failed() == "OSError: [Errno 28] No space left on device: '/dev/full'"
    scene.goes_on()


def test_g6_a_disk_that_fails_to_sync(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says it once, and then forgets it: so the file is not trusted again."""
    answers = iter([None, OSError(errno.EIO, os.strerror(errno.EIO))])

    def sync(_fd: int) -> None:
        if answer := next(answers, None):
            raise answer

    monkeypatch.setattr(writer_module, "_sync_call", lambda: sync)
    path = tmp_path / "run.jsonl"
    scene.kernel.audit.attach(audit.JSONLines(path, durability="record"))
    scene.send()
    assert len(lines(path)) == 1
    scene.send()
    assert scene.failed() == f"OSError: [Errno 5] Input/output error: '{path}'"
    scene.goes_on()


def test_g7_rotated_and_truncated(scene: Scene, tmp_path: Path, caplog: Any) -> None:
    path, old = tmp_path / "run.jsonl", tmp_path / "run.jsonl.1"
    scene.kernel.audit.attach(audit.JSONLines(path))
    scene.send(2)
    scene.flush()
    path.rename(old)
    scene.send(3)
    scene.flush()
    assert [line["sequence"] for line in lines(old) + lines(path)] == list(range(5))
    os.truncate(path, 10)
    scene.send()
    scene.flush()
    assert json.loads(path.read_text()[10:])["sequence"] == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"audit: [Errno {errno.ESTALE}] the file was {what} by somebody else: '{path}'; "
        "going on in what is there now" for what in ("moved", "truncated")
    ]  # fmt: skip
    assert not scene.kernel.audit.failures


def test_g8_deleted(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    scene.kernel.audit.attach(audit.JSONLines(path))
    scene.send()
    scene.flush()
    path.unlink()
    scene.send()
    scene.flush()
    assert [line["sequence"] for line in lines(path)] == [1]
    path.unlink()
    path.mkdir()
    scene.send()
    scene.flush()
    assert scene.failed().startswith("IsADirectoryError: ")
    scene.goes_on()


def test_g8_a_writer_says_what_was_done_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writer = Writer(path)
    writer.write(b"1")
    path.unlink()
    with pytest.raises(FileChanged, match="deleted"):
        writer.write(b"2")
    writer.close()


def test_g9_the_reader_of_a_pipe_is_gone(pipe: Path) -> None:
    done = program(
        """
        import os, signal, sys
        from pympi import Kernel, audit
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as many programs have it
        fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
        for threaded in (True, False):
            with Kernel() as kernel:
                kernel.audit.threaded = threaded
                kernel.audit.everything()
                kernel.audit.attach(audit.JSONLines(sys.argv[1]))
                task = kernel.create_task("task")
                right = task.allocate_port().make_send(task)
                kernel.audit.flush()
                os.close(fd)
                right.send(b"")
                kernel.audit.flush()
                fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
                print(kernel.audit.failures[0].error)
        """,
        str(pipe),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"BrokenPipeError: [Errno 32] Broken pipe: '{pipe}'\n" * 2


# ---- G10, G11: what a sink does ----


def test_g10_removed_inside_its_own_callback(scene: Scene) -> None:
    seen: list[int] = []

    def sink(batch: Batch) -> None:
        seen.append(len(batch))
        scene.kernel.audit.detach(sink)

    scene.kernel.audit.attach(sink, when_full="block", patience=LONG)
    scene.send()
    scene.flush()
    scene.goes_on()
    assert seen == [1]
    assert not scene.kernel.audit.failures


def test_g11_a_sink_that_sends(scene: Scene) -> None:
    """What it does is audited as what anybody does, and told to itself."""
    seen: list[int] = []

    def sink(batch: Batch) -> None:
        seen.extend(batch.records["sequence"].tolist())
        if len(seen) < 100:
            scene.right.send(b"")
            scene.inbox.receive()

    scene.kernel.audit.attach(sink, patience=LONG)
    scene.send()
    while len(seen) < 100:
        scene.flush()
    scene.flush()
    assert seen[:100] == list(range(100))
    scene.goes_on()
    assert not scene.kernel.audit.failures


# ---- G12 to G15: time, views, slowness, neighbours ----


def test_g12_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records may have any time, and no wait of ours is by a clock that can be set."""
    paths = [tmp_path / "run.jsonl", tmp_path / "audit.log"]
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(tmp_path / "log"))
    sinks = [audit.JSONLines(paths[0], durability="interval"), audit.AuditText(paths[1])]
    sinks.append(audit.Syslog(tmp_path / "log"))  # type: ignore[arg-type]
    sinks.append(audit.Memory())  # type: ignore[arg-type]
    now = iter([0.0, 4e9, -5.0, 1e18])
    monkeypatch.setattr(time, "time", lambda: next(now, 0.0))
    times = [2**63, 0, 10**18, 1, 2**64 - 1]
    with Kernel(audit_records=ROOM) as kernel:
        scene = Scene(kernel)
        scene.send(len(times))
        scene.flush()
        records = np.concatenate([batch.records for batch in scene.batches])
        records["time"] = times
        for sink in sinks:
            sink(kernel.audit.batch(records))
            getattr(sink, "flush", lambda: None)()
    assert [line["sequence"] for line in lines(paths[0])] == list(range(len(times)))
    assert [line["time"] for line in lines(paths[0])] == [t / 1e9 for t in times]
    assert len(paths[1].read_text().splitlines()) == len(times)
    stamps = [log.recv(4096).decode().split(" ")[1] for _ in times]
    assert stamps[1] == "1970-01-01T00:00:00.000000Z"
    assert stamps[4].startswith("2554-07-21T23:34:33.")
    log.close()
    for sink in sinks:
        getattr(sink, "close", lambda: None)()


def test_g13_a_reader_holds_a_view_while_the_ring_wraps(scene: Scene) -> None:
    held: list[tuple[Batch, bytes]] = []
    scene.kernel.audit.attach(lambda batch: held.append((batch, batch.records.tobytes())))
    scene.send(10 * ROOM)
    scene.flush()
    assert len(held) > 5
    for batch, before in held:
        assert batch.records.tobytes() == before
    numbers = [n for batch, _ in held for n in batch.records["sequence"].tolist()]
    assert numbers == sorted(set(numbers))


def test_g14_a_reader_slower_than_the_writer_for_long() -> None:
    """What waits for it is bounded, and in the end every number is a record or told to be lost."""
    slow, turns = Stuck(), threading.Semaphore(0)
    slow.let.wait = lambda *_: turns.acquire()  # type: ignore[method-assign]
    most = 0
    with Kernel(audit_records=ROOM) as kernel:
        scene = Scene(kernel)
        kernel.audit.attach(slow, when_full="drop", high=4 * ROOM, low=2 * ROOM)
        for _ in range(300):
            scene.send(ROOM)
            turns.release()
            most = max(most, kernel.audit.sinks[1].queued)
        turns.release(10_000)
        kernel.audit.flush()
        stats = kernel.audit.sinks[1]
    assert most <= 5 * ROOM + 1
    assert stats.lost > 0
    total = 300 * ROOM
    assert accounted(scene.batches, total) == 0
    assert accounted(slow.batches, total) == stats.lost
    assert stats.written + stats.lost == total + len(
        [1 for batch in slow.batches if batch.records["operation"][0] == Operation.LOSS]
    )


@pytest.mark.parametrize("order", [0, 1])
def test_g15_two_sinks_one_failing(scene: Scene, order: int) -> None:
    """Whichever was there first, the other one gets every record, those of that moment too."""
    seen: list[int] = []
    calls = 0

    def fails_later(_batch: Batch) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("the third time")

    sinks = [fails_later, lambda batch: seen.extend(batch.records["sequence"].tolist())]
    for sink in sinks if order == 0 else reversed(sinks):
        scene.kernel.audit.attach(sink, when_full="block")
    for _ in range(10):
        scene.send(5)
        scene.flush()
    assert scene.failed() == "RuntimeError: the third time"
    assert seen == list(range(50))
    scene.goes_on()


class SpeechlessError(Exception):
    """Says nothing, not even what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("threaded", [True, False])
def test_a_sink_that_raises_what_cannot_be_said(threaded: bool) -> None:
    """It has failed all the same: nothing is done without it, and others get what there is."""

    def bad(_: Batch) -> None:
        raise SpeechlessError

    with Kernel() as kernel:
        kernel.audit.threaded = threaded
        kernel.audit.attach(bad, when_full="fail")
        scene = Scene(kernel)
        with suppress(AuditFull):
            scene.send()
        scene.flush()
        assert scene.failed() == "SpeechlessError: "
        assert len(scene.good) <= 1
        with pytest.raises(AuditFull):
            scene.send()


def test_a_sink_that_writes_into_its_batch(scene: Scene) -> None:
    """All sinks are given the same records."""

    def bad(batch: Batch) -> None:
        batch.records["sequence"] = 0

    scene.kernel.audit.detach(scene.batches.append)
    for sink in (bad, scene.batches.append):
        scene.kernel.audit.attach(sink)
    scene.send(3)
    scene.flush()
    assert scene.failed().startswith("ValueError: ")
    assert len(set(scene.good)) == 3


@pytest.mark.parametrize("end", ["detach", "close"])
def test_the_file_of_a_sink_that_failed_is_free(tmp_path: Path, end: str) -> None:
    """Once it is detached, or the kernel closed, another sink may go on with it."""
    path = tmp_path / "run.audit"

    class Slow(audit.File):
        def close(self) -> None:
            time.sleep(0.2)
            super().close()

    file = Slow(path)
    with Kernel() as kernel:
        scene = Scene(kernel)
        kernel.audit.attach(file)
        scene.flush()
        path.write_bytes(b"")
        scene.send()
        scene.flush()
        assert "truncated" in scene.failed()
        if end == "detach":
            kernel.audit.detach(file)
            audit.File(path, append=True).close()
    audit.File(path, append=True).close()


@pytest.mark.parametrize("interval", ["1", -1.0, 0, float("nan"), float("inf")])
def test_intervals_that_are_none(tmp_path: Path, interval: Any) -> None:
    """A thread that waited for these would end, or never wait."""
    for sink in (audit.File, audit.JSONLines):
        with pytest.raises(ValueError, match="interval must be a number of seconds above 0, not"):
            sink(tmp_path / "file", durability="interval", interval=interval)
    with Kernel() as kernel:
        memory = audit.Memory()
        memory.interval = interval  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="interval must be a number of seconds above 0, not"):
            kernel.audit.attach(memory)


@pytest.mark.parametrize("how", ["killed", "truncated"])
def test_a_torn_line_takes_no_other_with_it(scene: Scene, tmp_path: Path, how: str) -> None:
    path = tmp_path / "run.jsonl"
    if how == "killed":
        path.write_bytes(b'{"v":1,"sequ')
    sink = audit.JSONLines(path, mode="a")
    scene.kernel.audit.attach(sink)
    if how == "truncated":
        scene.send()
        scene.flush()
        os.truncate(path, 12)
    scene.send(2)
    scene.flush()
    torn, *lines = path.read_bytes().splitlines()
    assert torn == b'{"v":1,"sequ'
    assert [json.loads(line)["operation"] for line in lines] == ["send", "send"]


@pytest.mark.parametrize("inside", [False, True])
def test_two_threads_close_a_kernel(inside: bool) -> None:
    """The second waits for the first, unless that is in a sink that the first waits for."""
    kernel = Kernel()
    scene = Scene(kernel)
    closes, closing = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def close() -> None:
        try:
            kernel.close()
        except BaseException as error:
            errors.append(error)

    class Slow:
        def __call__(self, batch: Batch) -> None:
            if len(batch):
                closes.wait(LONG)

        def close(self) -> None:
            closing.set()
            time.sleep(0.2)
            if inside:
                close()

    kernel.audit.attach(Slow())
    scene.send()
    threads = [threading.Thread(target=close) for _ in range(3)]
    threads[0].start()
    time.sleep(0.05)
    closes.set()
    assert closing.wait(LONG)
    start = time.monotonic()
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert kernel.closed
    assert not errors
    assert time.monotonic() - start < 10
