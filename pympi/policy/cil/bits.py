# SPDX-License-Identifier: BSD-2-Clause
"""Sets as integers, bit n for member n: what they hold. It takes no longer than they are large."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["members", "runs"]

_STRETCH = 256
"""Bytes looked at together: to take one bit out of an integer copies all of it."""


def members(bits: int) -> Iterator[int]:
    """Iterate over the numbers in a set, lowest first."""
    data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    for start in range(0, len(data), _STRETCH):
        stretch = int.from_bytes(data[start : start + _STRETCH], "little")
        while stretch:
            lowest = stretch & -stretch
            yield 8 * start + lowest.bit_length() - 1
            stretch ^= lowest


def runs(bits: int) -> Iterator[tuple[int, int]]:
    """Iterate over first and last of each run of numbers in a set, lowest first."""
    edges = members(bits ^ bits << 1)
    return ((first, after - 1) for first, after in zip(edges, edges, strict=True))
