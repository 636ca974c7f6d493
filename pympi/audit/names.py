# SPDX-License-Identifier: BSD-2-Clause
"""Words behind numbers in records: what servers were asked about, and by which process."""

from __future__ import annotations

import itertools

__all__ = ["NameTrail"]

_REMEMBERED = 1 << 15


class NameTrail:
    """What was noted lately, for the audit trail, whose records have a number."""

    def __init__(self) -> None:
        self._noted: list[tuple[int, str]] = [(-1, "")] * _REMEMBERED
        self._numbers = itertools.count(1)

    def note(self, name: str) -> int:
        """Return a number by which the audit trail knows a name for a while."""
        number = next(self._numbers) & 0xFFFFFFFF
        self._noted[number % _REMEMBERED] = number, name
        return number

    def name(self, number: int) -> str:
        """Return the name of a number; "" if that was too long ago."""
        noted, name = self._noted[number % _REMEMBERED]
        return name if noted == number else ""
