# SPDX-License-Identifier: BSD-2-Clause
"""Time that a program tells a kernel, instead of the clock."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["LAST", "NS", "SimulatedClock", "simulated"]

NS = 1_000_000_000
"""Nanoseconds, which the core counts in, of a second."""
_END = 1 << 63
LAST = _END / NS
"""Seconds, which no time reaches."""


class SimulatedClock:
    """Time that passes only when it is told to. Under it no call ever waits.

    One clock may serve several kernels.

    Example:
        >>> from pympi import Kernel
        >>> clock = SimulatedClock()
        >>> with Kernel(clock=clock) as kernel:
        ...     clock.advance(2.5)
        ...     kernel.time
        2.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = _nanoseconds(start)
        self._kernels: list[weakref.ref[Kernel]] = []  # a WeakSet takes 4 us to walk through

    def now(self) -> float:
        """Return the time in seconds."""
        return self._now / NS

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: `seconds` is negative, or there is no such time; nothing has changed.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"time passes by 0 seconds or more, not {seconds!r}")
        self._set(_nanoseconds(seconds, self._now))

    def advance_to(self, when: float) -> None:
        """Let time pass until it is `when`: no rounding adds up, however many steps there are.

        Raises:
            ValueError: it is later already, or there is no such time; nothing has changed.
        """
        then = _nanoseconds(when)
        if then < self._now:
            raise ValueError(f"time does not go from {self.now()!r} to {when!r}")
        self._set(then)

    def drives(self, kernel: Kernel) -> bool:
        """Whether this is a kernel's clock."""
        return any(known() is kernel for known in self._kernels)

    def _set(self, now: int) -> None:
        self._now = now
        for known in tuple(self._kernels):
            if (kernel := known()) is not None:
                kernel._set_time(now)

    def _drive(self, kernel: Kernel) -> None:
        self._kernels.append(weakref.ref(kernel, self._kernels.remove))
        kernel._set_time(self._now)


def simulated(clock: object) -> SimulatedClock:
    """Return what was given for a simulated clock.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(clock, SimulatedClock):
        raise TypeError(f"clock is a pympi.SimulatedClock, not {clock!r}")
    return clock


def _nanoseconds(seconds: float, after: int = 0) -> int:
    """Return a time in nanoseconds, so many seconds after another.

    Raises:
        ValueError: it is more than 63 bits have, as much as columns of time in other tools.
    """
    if not (0 <= seconds < LAST and (time := after + round(seconds * NS)) < _END):
        raise ValueError(f"time is from 0 to {int(LAST)} seconds, not {after / NS + seconds!r}")
    return time
