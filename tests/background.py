# SPDX-License-Identifier: BSD-2-Clause
"""Threads, and programs of their own, that a test starts and that always end in time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

LONG = 30.0  # seconds: only what hangs takes so long


class Run(threading.Thread, Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._value: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:
            self._error = error

    def error(self) -> BaseException | None:
        """Wait for the end; return what the call raised."""
        self.join(LONG)
        assert not self.is_alive(), "the thread hangs"
        return self._error

    def result(self) -> T:
        """Wait for the end; return what the call returned, or raise what it raised."""
        if error := self.error():
            raise error
        return self._value[0]


def _sleeps(run: Run[object]) -> bool:
    """Tell what Linux says; where nobody says anything, time is all that there is."""
    status = Path(f"/proc/self/task/{run.native_id}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "S"


def settle(*runs: Run[object]) -> None:
    """Wait until threads have fallen asleep in the call they are to be found in.

    Several looks in a row, with the GIL free between them: who only waited for that is up by then.
    """
    asleep = 0
    while asleep < 5:
        time.sleep(0.01)
        assert all(run.is_alive() for run in runs), [run.error() for run in runs]
        asleep = asleep + 1 if all(map(_sleeps, runs)) else 0


def program(
    source: str, *arguments: str, timeout: float = LONG
) -> subprocess.CompletedProcess[str]:
    """Run Python source in a process of its own, with this interpreter and build."""
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def output(source: str, *arguments: str) -> list[str]:
    """Return the lines that a program prints; it has to end well and complain of nothing."""
    done = program(source, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()
