# SPDX-License-Identifier: BSD-2-Clause
"""The queues of the standard library."""

import collections
import itertools
import queue
from time import thread_time_ns

from benchmarks.harness import Timed
from benchmarks.peers import BODY


def deque() -> Timed:
    """Return append and popleft of a collections.deque: the floor of what Python can do."""
    container: collections.deque[bytes] = collections.deque()
    append, popleft = container.append, container.popleft

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in itertools.repeat(None, pairs):
            append(BODY)
            popleft()
        return thread_time_ns() - start

    return run


def queue_queue() -> Timed:
    """Return put and get of a queue.Queue."""
    container: queue.Queue[bytes] = queue.Queue()
    put, get = container.put, container.get

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in itertools.repeat(None, pairs):
            put(BODY)
            get()
        return thread_time_ns() - start

    return run
