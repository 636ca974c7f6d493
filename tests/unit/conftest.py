# SPDX-License-Identifier: BSD-2-Clause
"""A kernel for each test, watched: labels by `selftest`, counts by `verify()`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pympi import Kernel, Task
from pympi.cli import main
from pympi.policy import SelfTest


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    watch = SelfTest()
    with Kernel(policies=[watch]) as kernel:
        yield kernel
        if not kernel.closed:
            kernel.verify()
    assert watch.violations == []


@pytest.fixture
def server(kernel: Kernel) -> Task:
    return kernel.create_task("server")


@pytest.fixture
def client(kernel: Kernel) -> Task:
    return kernel.create_task("client")


class Result:
    """What a command line gave: its exit code, and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[list[str]]:
        """The words of each line."""
        return [line.split() for line in self.out.splitlines()]


@pytest.fixture
def pympi(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The command, in this process; words may be paths and numbers."""

    def call(*words: object) -> Result:
        code = main([*map(str, words)])
        return Result(code, *capsys.readouterr())

    return call
