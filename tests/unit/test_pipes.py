# SPDX-License-Identifier: BSD-2-Clause
"""What comes by a pipe is copied, within bounds; what has no end is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pympi._pipes import kept_file


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def fill(pipe: Path, content: bytes) -> threading.Thread:
    def write() -> None:
        try:
            pipe.write_bytes(content)
        except BrokenPipeError:  # nobody reads so much
            return

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_pipe_is_read_whole(pipe: Path) -> None:
    content = bytes(range(256)) * 20_000
    thread = fill(pipe, content)
    with kept_file(str(pipe)) as copy:
        assert copy.name == pipe.name
        assert copy.read_bytes() == content
    thread.join()
    assert not copy.exists()


def test_too_much_for_a_copy(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 << 20))
    thread = fill(pipe, bytes(10 << 20))
    with pytest.raises(OSError, match="too much"), kept_file(str(pipe)):
        pass
    thread.join()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/full"])
def test_devices_are_refused(path: str) -> None:
    with pytest.raises(OSError, match=f"{path} is a device"), kept_file(path):
        pass


@pytest.mark.parametrize("verb", ["audit print", "audit stats", "trace summary", "trace graph"])
def test_a_device_as_stdin_is_refused(verb: str) -> None:
    command = [sys.executable, "-m", "pympi", *verb.split(), "-"]
    with Path("/dev/zero").open("rb") as endless:
        ran = subprocess.run(command, stdin=endless, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert b"stdin is a device" in ran.stderr
