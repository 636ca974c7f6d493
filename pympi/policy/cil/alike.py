# SPDX-License-Identifier: BSD-2-Clause
"""Which known names an unknown one is like, for errors; at a bounded price."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable

__all__ = ["alike"]

_LONGEST = 64  # what is longer is no slip of a hand, and takes too long to compare
_COMPARED = 256


def alike(name: str, known: Iterable[str], most: int, cutoff: float) -> list[str]:
    """Return the known names that are most like `name`, the best first.

    Of very many those alone are compared that begin most alike, and are about as long.

    Args:
        most: how many names, at most.
        cutoff: how like they have to be, from 0 to 1.

    Example:
        >>> alike("editro_t", ["editor_t", "printer_t"], 1, 0.6)
        ['editor_t']
    """
    if len(name) > _LONGEST:
        return []

    def distance(other: str) -> tuple[int, int, str]:
        return -_shared(name, other), abs(len(name) - len(other)), other

    near = heapq.nsmallest(_COMPARED, (n for n in known if len(n) <= _LONGEST), key=distance)
    return difflib.get_close_matches(name, near, most, cutoff)


def _shared(one: str, other: str) -> int:
    """Return how many characters two names have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
