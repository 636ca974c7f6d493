# SPDX-License-Identifier: BSD-2-Clause
"""Waiting in asyncio: one descriptor for each port or set that is waited on, no threads.

Waiters of a port are served in the order they came. Only the first is ever woken, and it takes its
message itself, in the same step in which it returns it: a waiter that is cancelled has taken none.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .errors import TimedOut

if TYPE_CHECKING:
    import asyncio

__all__ = ["Waiters", "duplicate", "wait"]

T = TypeVar("T")


class _Waiting:
    """Those who wait on one port in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self.loop = loop
        self.fd = fd
        self.futures: deque[asyncio.Future[None]] = deque()

    def watch(self) -> None:
        self.loop.add_reader(self.fd, self._wake)

    def _wake(self) -> None:
        self.loop.remove_reader(self.fd)
        if self.futures and not self.futures[0].done():
            self.futures[0].set_result(None)

    def close(self) -> None:
        self.loop.remove_reader(self.fd)
        os.close(self.fd)


def duplicate(fd: int) -> int:
    """Return a descriptor of our own: the port's is closed with the port, ours has yet to tell."""
    return os.dup(fd)


Waiters = dict[tuple[int, "asyncio.AbstractEventLoop"], _Waiting]


async def wait(waiters: Waiters, name: int, open_fd: Callable[[], int], poll: Callable[[], T]) -> T:
    """Return what `poll` returns, once it does not raise `TimedOut`.

    Args:
        waiters: of the task.
        name: the port or set.
        open_fd: returns a descriptor, ours to close, readable while `poll` may succeed.
        poll: tries without waiting.
    """
    import asyncio  # whoever waits has it; who does not is spared it

    key = (name, asyncio.get_running_loop())
    if key not in waiters:
        try:
            return poll()
        except TimedOut:
            waiters[key] = _Waiting(key[1], open_fd())
    waiting = waiters[key]
    future = key[1].create_future()
    waiting.futures.append(future)
    try:
        while True:
            if waiting.futures[0] is future:
                waiting.watch()
            await future
            try:
                return poll()
            except TimedOut:
                future = waiting.futures[0] = key[1].create_future()
    finally:
        waiting.futures.remove(future)
        if waiting.futures:
            waiting.watch()
        else:
            waiting.close()
            del waiters[key]
