# SPDX-License-Identifier: BSD-2-Clause
"""A kernel for each test, watched: labels by `selftest`, counts by `verify()`."""

from collections.abc import Iterator

import pytest

from pympi import Kernel, Task
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
