# SPDX-License-Identifier: BSD-2-Clause
"""Sets as integers."""

from __future__ import annotations

import random

import pytest

from pympi.policy.cil.bits import members, runs


@pytest.mark.parametrize("size", [0, 1, 8, 63, 2047, 2048, 2049, 70_000])
def test_members_are_the_bits(size: int) -> None:
    rng = random.Random(size)
    chosen = sorted(rng.sample(range(size), size // 3)) if size else []
    bits = sum(1 << number for number in chosen)
    assert list(members(bits)) == chosen
    assert [n for low, high in runs(bits) for n in range(low, high + 1)] == chosen


def test_runs_are_whole() -> None:
    assert list(runs(0)) == []
    assert list(runs(0b1)) == [(0, 0)]
    assert list(runs(0b1101110)) == [(1, 3), (5, 6)]
    assert list(runs((1 << 65_536) - 1)) == [(0, 65_535)]
