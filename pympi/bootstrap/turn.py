# SPDX-License-Identifier: BSD-2-Clause
"""The name server's lock, and what is to be done once it is dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Turn"]


class Turn:
    """A lock for a `with` block, which the same thread may take again.

    Whatever may run code of others (a right that is closed notifies handlers, a server that is
    started is the embedder's) is left for the end of the outermost block, when nothing is locked.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._left: list[Callable[[], object]] = []

    def __enter__(self) -> Turn:
        self._lock.acquire()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        left: list[Callable[[], object]] = []
        if not self._depth:
            left, self._left = self._left, left
        self._lock.release()
        for act in left:
            act()

    def later(self, act: Callable[[], object]) -> None:
        """Have something done when the turn ends."""
        self._left.append(act)
