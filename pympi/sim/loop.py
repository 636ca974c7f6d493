# SPDX-License-Identifier: BSD-2-Clause
"""asyncio under a simulated clock: `asyncio.sleep` and timeouts take no time, and time passes.

An event loop asks its selector to wait until a descriptor is ready or the next timer is due. Here
the selector looks at the descriptors, and where none is ready the clock is set to that moment. So
the loop, with all its futures, tasks and timers, is asyncio's own (the way of the libraries
aiotools, async-solipsism and looptime).
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from functools import partial
from itertools import count
from typing import Any, TypeVar

from ..clock import SimulatedClock, simulated

__all__ = ["EventLoop", "NothingLeft", "run"]

T = TypeVar("T")


class NothingLeft(RuntimeError):
    """All coroutines wait, no timer is set, and nothing is left that could wake any of them."""


class _Selector(selectors.DefaultSelector):
    """Waits by letting simulated time pass. Who is ready is told in the order of registration.

    Attributes:
        threads: how many of the loop's own are at work; they are waited for in real time.
    """

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock
        self._order: dict[int, int] = {}
        self._numbers = count()
        self.threads = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key: selectors.SelectorKey = super().register(fileobj, events, data)
        self._order[key.fd] = next(self._numbers)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if self.threads and timeout != 0 else 0)
        if not ready and timeout is None:
            raise NothingLeft("all coroutines wait, and nothing is left to happen")
        if not ready and timeout:
            self._clock.advance(timeout)
        return sorted(ready, key=lambda pair: self._order[pair[0].fd])


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, with the time of a clock, which it advances when it has nothing to do.

    Where nothing is left to happen it raises `NothingLeft`: it would wait for ever. Threads that it
    started (`asyncio.to_thread`, `run_in_executor`) are waited for, and no simulated time passes
    meanwhile. Other threads, sockets and the like are not simulated, and not waited for.

    Args:
        clock: of the kernels in the simulation.

    Example:
        >>> from pympi import Kernel
        >>> clock = SimulatedClock()
        >>> async def main(inbox):
        ...     try:
        ...         await asyncio.wait_for(inbox.receive_async(), timeout=3600)
        ...     except asyncio.TimeoutError:
        ...         return inbox.task.kernel.time
        >>> with Kernel(clock=clock) as kernel:
        ...     run(main(kernel.create_task("server").allocate_port()), clock)
        3600.0
    """

    _selector: _Selector

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        super().__init__(_Selector(clock))
        self._clock_resolution = 1e-9  # of the clock: a timer is due at its time
        try:
            simulated(clock)
        except TypeError:
            self.close()
            raise

    def time(self) -> float:
        """Return the clock's time in seconds."""
        return self.clock.now()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """As of any loop; the simulation stands still until the thread is done."""
        future = super().run_in_executor(executor, func, *args)
        self._selector.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _future: Any = None) -> None:
        self._selector.threads -= 1

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As of any loop."""
        self._selector.threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._thread_done()


def run(main: Coroutine[Any, Any, T], clock: SimulatedClock) -> T:
    """Run a coroutine as `asyncio.run` does, in simulated time; Ctrl-C cancels it.

    Args:
        main: the coroutine.
        clock: of the kernels in the simulation.

    Returns:
        What it returns.

    Raises:
        NothingLeft: it waits for what can never happen.
        RuntimeError: an event loop runs in this thread already.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("sim.run() cannot be called while an event loop runs in this thread")
    with asyncio.Runner(loop_factory=partial(EventLoop, clock)) as runner:
        return runner.run(main)
