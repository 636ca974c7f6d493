# SPDX-License-Identifier: BSD-2-Clause
"""The writer of files: every piece in full or not at all, whatever others do to the file."""

import errno
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pympi.audit import writer as module
from pympi.audit.writer import FileChanged, Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    writer = Writer(path, "w", "interval", interval=3600, patience=0.01)
    yield writer
    writer.abandon()


class Calls:
    """The system calls of a writer, some of which a test answers instead of the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: dict[str, int] = {}
        self._monkeypatch = monkeypatch

    def answer(self, name: str, answer: Callable[[int, Any], Any]) -> None:
        """Let `answer(times, arguments)` answer; if it returns None, the system does."""
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            times = self.count[name] = self.count.get(name, 0) + 1
            found = answer(times, arguments)
            return real(*arguments) if found is None else found

        fake = type(
            "os", (), {"__getattr__": lambda _, what: getattr(os, what), name: staticmethod(call)}
        )
        self._monkeypatch.setattr(module, "os", fake())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_modes(path: Path) -> None:
    for mode, expected in (("x", b"1"), ("a", b"11"), ("w", b"1")):
        writer = Writer(path, mode)
        writer.write(b"1")
        assert writer.position == len(expected)
        writer.close()
        writer.close()
        assert path.read_bytes() == expected
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Writer(path, "x")
    with pytest.raises(ValueError, match="mode must be one of w, a, x, not 'r'"):
        Writer(path, "r")
    with pytest.raises(ValueError, match="durability must be one of none, interval, record"):
        Writer(path, "w", "perhaps")
    with pytest.raises(ValueError, match="is closed"):
        writer.write(b"1")


def test_a_short_write_is_completed(writer: Writer, path: Path, calls: Calls) -> None:
    real = os.write
    calls.answer("write", lambda _, arguments: real(arguments[0], arguments[1][:3]))
    writer.write(b"0123456789")
    writer.write(memoryview(b"abcd").cast("H"))
    assert path.read_bytes() == b"0123456789abcd"
    assert calls.count["write"] == 6


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_what_was_not_written_in_full_is_taken_back(
    writer: Writer, path: Path, calls: Calls, number: int
) -> None:
    writer.write(b"whole")
    real = os.write

    def answer(times: int, arguments: Any) -> Any:
        if times == 1:
            return real(arguments[0], arguments[1][:3])
        if times == 2:
            raise failure(number)
        return None

    calls.answer("write", answer)
    with pytest.raises(OSError, match="file") as raised:
        writer.write(b"torn off")
    assert raised.value.errno == number
    assert path.read_bytes() == b"whole"
    writer.write(b"; there is room again")
    assert path.read_bytes() == b"whole; there is room again"


def test_a_limit_of_the_system_on_the_size_of_files(tmp_path: Path) -> None:
    """Without an answer of ours: the system itself writes a part and then refuses."""
    path = tmp_path / "limited"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = Writer(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        writer.write(bytes(600))
        with pytest.raises(OSError, match="limited") as raised:
            writer.write(bytes(600))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert path.stat().st_size == writer.position == 600
    writer.close()


def test_a_full_device() -> None:
    writer = Writer("/dev/full")
    with pytest.raises(OSError, match="/dev/full") as raised:
        writer.write(b"1")
    assert raised.value.errno == errno.ENOSPC
    writer.close()


def test_a_disk_that_failed_once_is_never_trusted_again(
    writer: Writer, path: Path, calls: Calls
) -> None:
    def fails_once(times: int, _arguments: Any) -> None:
        if times == 1:
            raise failure(errno.EIO)

    calls.answer("fdatasync" if hasattr(os, "fdatasync") else "fsync", fails_once)
    writer.write(b"1")
    for call in (writer.sync, writer.sync, lambda: writer.write(b"2"), writer.close):
        with pytest.raises(OSError, match="file") as raised:
            call()
        assert raised.value.errno == errno.EIO
    assert path.read_bytes() == b"1"
    writer.close()


@pytest.mark.parametrize(("durability", "syncs"), [("none", 0), ("interval", 1), ("record", 3)])
def test_when_the_disk_is_waited_for(path: Path, calls: Calls, durability: str, syncs: int) -> None:
    calls.answer("fdatasync" if hasattr(os, "fdatasync") else "fsync", lambda *_: None)
    writer = Writer(path, "w", durability, interval=3600)
    for _ in range(3):
        writer.write(b"1")
    assert not writer.due
    writer.close()
    assert calls.count.get("fdatasync", 0) == syncs


def test_an_interval_that_is_over(path: Path, calls: Calls) -> None:
    calls.answer("fdatasync" if hasattr(os, "fdatasync") else "fsync", lambda *_: None)
    writer = Writer(path, "w", "interval", interval=1e-9)
    writer.write(b"1")
    writer.write(b"1")
    assert sum(calls.count.values()) == 2
    writer.close()


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def replace(path: Path) -> None:
    rotate(path)
    path.write_bytes(b"new ")


@pytest.mark.parametrize(
    ("act", "what", "left"),
    [
        (rotate, "moved", b"2"), (replace, "moved", b"new 2"), (Path.unlink, "deleted", b"2"),
        (lambda path: os.truncate(path, 3), "truncated", b"one2"),
    ],
)  # fmt: skip
def test_a_file_that_was_changed(
    writer: Writer, path: Path, act: Callable[[Path], None], what: str, left: bytes
) -> None:
    writer.write(b"one piece ")
    act(path)
    for _ in range(2):
        with pytest.raises(FileChanged, match=f"was {what} by somebody else: .*file") as raised:
            writer.write(b"2")
        assert raised.value.what == what
    writer.reopen()
    writer.write(b"2")
    assert path.read_bytes() == left
    if path.with_suffix(".1").exists():
        assert path.with_suffix(".1").read_bytes() == b"one piece "


def test_a_path_that_cannot_be_opened_again(writer: Writer, path: Path) -> None:
    rotate(path)
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        writer.reopen()
    path.rmdir()
    path.with_suffix(".1").rename(path)
    writer.write(b"goes on")
    assert path.read_bytes() == b"goes on"


def test_two_who_append(path: Path) -> None:
    first, second = Writer(path, "a"), Writer(path, "a")
    for _ in range(2):
        first.write(b"first ")
        second.write(b"second ")
    assert path.read_bytes() == b"first second first second "
    assert first.position == len("first second first ")
    first.close()
    second.close()


# ---- pipes ----


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_nobody_reads(pipe: Path) -> None:
    with pytest.raises(OSError, match="pipe") as raised:
        Writer(pipe)
    assert raised.value.errno == errno.ENXIO


def test_a_pipe_whose_reader_goes(pipe: Path) -> None:
    """SIGPIPE is left to end the process, as programs do that write to pipes themselves."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        writer = Writer(pipe, "w", "record")
        writer.write(b"heard")
        assert os.read(reader, 100) == b"heard"
        os.close(reader)
        with pytest.raises(BrokenPipeError, match="pipe"):
            writer.write(b"unheard")
        assert signal.SIGPIPE not in signal.sigpending()
        assert signal.SIGPIPE not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        writer.close()
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_a_pipe_that_is_not_read(pipe: Path) -> None:
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = Writer(pipe, patience=0.01)
    with pytest.raises(TimeoutError, match=r"nothing was read for 0\.01 s"):
        writer.write(bytes(1 << 20))
    os.close(reader)
    writer.close()


def test_a_pipe_that_is_read_slowly(pipe: Path) -> None:
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    writer = Writer(pipe)
    found = bytearray()

    def read() -> None:
        while piece := os.read(reader, 1000):
            found.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    sent = os.urandom(1 << 20)
    writer.write(sent)
    writer.close()
    thread.join()
    os.close(reader)
    assert bytes(found) == sent
