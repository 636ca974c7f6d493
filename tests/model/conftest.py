# SPDX-License-Identifier: BSD-2-Clause
"""The two kernels of tests/model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from core_world import CoreWorld
from party import Party
from worlds import ModelWorld, World


@pytest.fixture(params=[ModelWorld, CoreWorld], ids=["model", "core"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The model, then the core; what is left of either must add up after the test."""
    made: World = request.param()
    yield made
    try:
        made.verify()
    finally:
        made.close()


@pytest.fixture
def a(world: World) -> Party:
    return Party(world)


@pytest.fixture
def b(world: World) -> Party:
    return Party(world)
