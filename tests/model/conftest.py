# SPDX-License-Identifier: BSD-2-Clause
"""The two kernels of tests/model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from party import Party
from worlds import ModelWorld, World


@pytest.fixture(params=["model", "core"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The model, then the core; what is left of either must add up after the test."""
    if request.param == "model":
        made: World = ModelWorld()
    else:
        pytest.importorskip("pympi.mach", reason="the core is not built", exc_type=ImportError)
        from core_world import CoreWorld

        made = CoreWorld()
    yield made
    made.verify()
    made.close()


@pytest.fixture
def a(world: World) -> Party:
    return Party(world)


@pytest.fixture
def b(world: World) -> Party:
    return Party(world)
