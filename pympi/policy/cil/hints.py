# SPDX-License-Identifier: BSD-2-Clause
"""What somebody meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["like"]

_LONGEST, _MOST = 64, 20_000


def like(word: str, known: Iterable[str], count: int, ratio: float) -> list[str]:
    """Return the known names that are most like a word.

    Args:
        word: what was written.
        known: the names that there are.
        count: how many to return at most.
        ratio: how like they are at least; 1 is the same.
    """
    choice = [each for each in known if len(each) <= _LONGEST]
    # What is long, or one of very many, is not a slip of a hand, and costs too much to compare.
    if len(word) > _LONGEST or len(choice) > _MOST:
        return []
    return get_close_matches(word, choice, count, ratio)
