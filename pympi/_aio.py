# SPDX-License-Identifier: BSD-2-Clause
"""Waiting in asyncio: one descriptor for each port or set that is waited on, no threads.

Waiters of a port are served in the order they came. Only the first is ever woken, and it takes its
message itself, in the same step in which it returns it: a waiter that is cancelled has taken none.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import TimedOut

if TYPE_CHECKING:
    import asyncio

__all__ = ["Source", "Waiters", "duplicate", "serve", "wait"]

T = TypeVar("T")
M = TypeVar("M")


class Source(Protocol):
    """What somebody waits for."""

    def open(self) -> int:
        """Return a descriptor, the caller's to close, readable while a try may succeed."""

    def arm(self) -> bool:
        """See to it that it becomes readable; False if a try will tell why it cannot."""

    def close(self) -> None:
        """Nobody waits any more."""


class _Waiting:
    """Those who wait for the same in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, source: Source) -> None:
        self.loop = loop
        self.source = source
        try:
            self.fd = source.open()
        except BaseException:
            source.close()
            raise
        self.futures: deque[asyncio.Future[None]] = deque()

    def watch(self) -> None:
        if self.source.arm():
            self.loop.add_reader(self.fd, self._wake)
        else:
            self.loop.call_soon(self._wake)

    def _wake(self) -> None:
        self.loop.remove_reader(self.fd)
        if self.futures and not self.futures[0].done():
            self.futures[0].set_result(None)

    def close(self) -> None:
        self.loop.remove_reader(self.fd)
        os.close(self.fd)
        self.source.close()


def duplicate(fd: int) -> int:
    """Return a descriptor of our own: the port's is closed with the port, ours has yet to tell."""
    return os.dup(fd)


Waiters = dict[tuple[str, int, "asyncio.AbstractEventLoop"], _Waiting]


async def wait(
    waiters: Waiters, what: str, name: int, source: Callable[[], Source], poll: Callable[[], T]
) -> T:
    """Return what `poll` returns, once it does not raise `TimedOut`.

    Args:
        waiters: of the task.
        what: is waited for, of the name.
        name: the port, set or right.
        source: what tells that `poll` may succeed.
        poll: tries without waiting.
    """
    import asyncio  # whoever waits has it; who does not is spared it

    key = (what, name, asyncio.get_running_loop())
    if key not in waiters:
        try:
            return poll()
        except TimedOut:
            waiters[key] = _Waiting(key[2], source())
    waiting = waiters[key]
    future = key[2].create_future()
    waiting.futures.append(future)
    try:
        while True:
            if waiting.futures[0] is future:
                waiting.watch()
            await future
            try:
                return poll()
            except TimedOut:
                future = waiting.futures[0] = key[2].create_future()
    finally:
        waiting.futures.remove(future)
        if waiting.futures:
            waiting.watch()
        else:
            waiting.close()
            del waiters[key]


async def serve(
    receive: Callable[[], Awaitable[M]], handle: Callable[[M], Coroutine[Any, Any, object]],
    limit: int, over: Callable[[Exception], bool],
) -> None:  # fmt: skip
    """Give messages to coroutines, at most `limit` at a time, until `over` says of an error so."""
    import asyncio

    running: set[asyncio.Task[object]] = set()
    try:
        while True:
            while len(running) >= limit:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            try:
                message = await receive()
            except Exception as error:
                if over(error):
                    break
                continue
            task = asyncio.create_task(handle(message))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
