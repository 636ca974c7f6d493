# SPDX-License-Identifier: BSD-2-Clause
"""A system with every kind of right, with and without a policy in force."""

from collections.abc import Iterator

import pytest
from faults.world import World, make_world

from pympi import Kernel
from pympi.policy import SelfTest, Stub


@pytest.fixture(params=["no policy", "checked"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A kernel whose books are checked at the end of the test."""
    watch = SelfTest()
    modules = [watch, Stub()] if request.param == "checked" else []
    with Kernel(policies=modules) as kernel:
        yield kernel
        kernel.verify()
    assert watch.violations == []


@pytest.fixture
def world(kernel: Kernel) -> World:
    return make_world(kernel)
