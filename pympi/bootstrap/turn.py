# SPDX-License-Identifier: BSD-2-Clause
"""The name server's lock, and what is to be done once it is dropped.

These take it: `NameServer`, the routines, the notices, and the launcher around the embedder's
function. What they call to change anything (registry, rights, custody, namespace) is within their
turn and takes none. Look-ups take none either: they read each fact once, and a fact that is changed
is replaced whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from .protocol import Code, failure

__all__ = ["Turn"]


class Turn:
    """A lock for a `with` block: one change at a time.

    Whatever may run code of others (a right that is closed notifies handlers, a server that is
    started is the embedder's) is left for the end, by `later`, when nothing is locked. Where the
    kernel runs such code in the middle of a turn (a policy decides, a sink takes records), that
    code can have no turn of its own, lest it finds what is half changed; and it must not wait for
    another thread that wants one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = 0
        self._left: list[Callable[[], object]] = []

    def __enter__(self) -> Turn:
        if self.mine:
            raise failure(Code.NOT_PRIVILEGED, "asked in the middle of a change of its own making")
        self._lock.acquire()
        self._holder = threading.get_ident()
        return self

    def __exit__(self, *_: object) -> None:
        left, self._left = self._left, []
        self._holder = 0
        self._lock.release()
        with ExitStack() as acts:  # each is done, even if one before it fails
            for act in reversed(left):
                acts.callback(act)

    @property
    def mine(self) -> bool:
        """Whether this thread has the turn."""
        return self._holder == threading.get_ident()

    def later(self, act: Callable[[], object]) -> None:
        """Have something done when the turn ends."""
        self._left.append(act)

    def after(self, act: Callable[[], object]) -> None:
        """Do something now, or, if this thread has the turn, when that ends."""
        self.later(act) if self.mine else act()
