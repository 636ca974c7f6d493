# SPDX-License-Identifier: BSD-2-Clause
"""Switches sampling on and off in a core, and reads what it counted."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from .._ffi import ffi, lib
from ..errors import MachError, check, exception
from .sampling import STRATUM, Strata, described, told

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Sampler"]

_MOST = {"budget": 0xFFFF_FFFF, "one_in": 0xFFFF, "strata": 1 << 20}
_LONGEST = 1e9  # seconds


class Sampler:
    """The sampling of a kernel.

    Args:
        kernel: whose records are sampled.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._labels: dict[int, str] = {}  # of the last rows
        self._meanings: list[dict[int, str]] = []  # labels of each row that was looked up
        self._by_message = False
        self._number = 0  # of the sampling: what was counted before is forgotten
        self.words = ""

    def start(
        self, budget: int | None, per: float, one_in: int | None, strata: int, *,
        by_message: bool, seed: int | None,
    ) -> None:  # fmt: skip
        """Begin anew. See `Audit.sample`."""
        if (budget is None) == (one_in is None):
            raise ValueError("sample to a budget, or one in so many: name one of them")
        for name, value in (("budget", budget), ("one_in", one_in), ("strata", strata)):
            if value is not None and not 0 < value <= _MOST[name]:
                raise ValueError(f"{name} must be from 1 to {_MOST[name]}, not {value!r}")
        if not 1e-9 <= per <= _LONGEST:
            raise ValueError(f"per must be from a nanosecond to {_LONGEST:g} seconds, not {per!r}")
        wanted = ffi.new("struct pm_audit_sampling *")
        wanted.budget, wanted.one_in, wanted.strata = budget or 0, one_in or 0, strata
        wanted.period_ns, wanted.by_message = max(1, round(per * 1e9)), by_message
        wanted.seed = self._seed(seed)
        check(lib.pm_audit_sample(self._kernel.pointer, wanted), "sample()")
        self._labels, self._meanings, self._by_message = {}, [], by_message
        self._number += 1
        self.words = described(budget or 0, per, one_in or 0)

    def _seed(self, seed: int | None) -> int:
        if seed is None:
            return 0 if self._kernel.simulated else secrets.randbits(64)
        return seed & 0xFFFF_FFFF_FFFF_FFFF

    def stop(self) -> None:
        """Keep everything again."""
        check(lib.pm_audit_sample(self._kernel.pointer, ffi.NULL))
        self._labels, self._meanings, self.words = {}, [], ""

    def learn_labels(self) -> None:
        """Before records are drained: look up the labels of rows that are new, while they last."""
        known = len(self._meanings)
        if self.words and lib.pm_audit_strata(self._kernel.pointer, ffi.NULL, 0) > known:
            self._read()

    def _read(self) -> np.ndarray:
        room = 64
        while True:
            rows = np.zeros(room, STRATUM)
            buffer = ffi.from_buffer("struct pm_audit_stratum[]", rows, require_writable=True)
            count = lib.pm_audit_strata(self._kernel.pointer, buffer, room)
            if count < 0:
                raise exception(count, "strata()")
            if count <= room:
                break
            room = 2 * count
        new = rows[len(self._meanings) : count]
        for sid in np.unique([new[field] for field in ("ssid", "tsid", "peer_sid")]).tolist():
            self._look_up(sid)
        self._meanings += [self._labels] * len(new)
        return rows[:count]

    def _look_up(self, sid: int) -> None:
        """Note what a label of new rows is: for rows before, the SID may be that of another."""
        try:
            label = self._kernel.label(sid) if sid else ""
        except MachError:
            return
        if sid and self._labels.setdefault(sid, label) != label:
            self._labels = {**self._labels, sid: label}

    def strata(self) -> Strata:
        """Return the rows that were met, and words for them."""
        rows = self._read() if self.words else np.zeros(0, STRATUM)
        seen = np.flatnonzero(rows["seen"])
        rows, labels = rows[seen], [self._meanings[row] for row in seen.tolist()]
        numbers = np.unique(rows["tclass"]).tolist()
        classes = {n: self._kernel.object_class(n) for n in numbers if n}
        return Strata(rows, labels, classes, self._by_message)

    def told(self) -> dict[str, Any] | None:
        """Return what sinks are told of the strata; None where nothing is sampled."""
        return told(self.strata(), self._number, self.words) if self.words else None
