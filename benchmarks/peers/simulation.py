# SPDX-License-Identifier: BSD-2-Clause
"""SimPy: a Store, which is what simulations in Python pass messages through."""

from collections.abc import Generator
from time import thread_time_ns
from typing import Any

from benchmarks.harness import Skip, Timed
from benchmarks.peers import BODY


def store() -> Timed:
    """Return put and get of a simpy.Store, by one process.

    Raises:
        Skip: SimPy is not installed.
    """
    try:
        import simpy
    except ImportError:
        raise Skip("SimPy is not installed: pip install 'pympi-mach[bench]'") from None
    environment = simpy.Environment()
    container = simpy.Store(environment)

    def process(pairs: int) -> Generator[Any, Any, None]:
        for _ in range(pairs):
            yield container.put(BODY)
            yield container.get()

    def run(pairs: int) -> float:
        start = thread_time_ns()
        environment.run(environment.process(process(pairs)))
        return thread_time_ns() - start

    return run
