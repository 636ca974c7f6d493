# SPDX-License-Identifier: BSD-2-Clause
"""The cases of two threads. Times are of the clock: a thread that waits uses none of its CPU."""

from __future__ import annotations

import os
import queue
import statistics
from collections.abc import Callable
from itertools import repeat
from threading import Event, Thread
from time import perf_counter_ns

from .harness import Pair, Timed
from .peers import BODY
from .systems import Setting, System

_CORES = (
    sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
    else list(range(os.cpu_count() or 1))
)  # fmt: skip
CORES = len(_CORES)
"""How many this process may use."""
CHUNK = 64
"""Calls that are timed together beside a busy thread; the median of many such tells what a call
costs while it has the GIL to itself, and while it does not get it."""


def keep_to(place: int) -> None:
    """Keep this thread to one of the cores: on one for both, no core has to be woken."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {_CORES[place % len(_CORES)]})


def _serve(step: Callable[[], object], core: int | None = None) -> None:
    """Have a thread do something for ever; it goes with the process."""

    def work() -> None:
        if core is not None:
            keep_to(core)
        while True:
            step()

    Thread(target=work, daemon=True).start()


def _asking(ask: Callable[[], object]) -> Timed:
    def run(count: int) -> float:
        keep_to(0)
        start = perf_counter_ns()
        for _ in repeat(None, count):
            ask()
        return perf_counter_ns() - start

    return run


def calls() -> Timed:
    """Return `call`, and `receive` and `reply` in another thread; each waits for the other."""
    system = System(Setting())
    receive, call = system.inbox.receive, system.outlet.call
    _serve(lambda: receive().reply(BODY), core=1)
    return _asking(lambda: call(BODY))


def bound() -> Timed:
    """Return the same with `sender()` and `receiver()` over two ports."""
    there, back = System(Setting()), System(Setting())
    send, receive = there.outlet.sender(), there.inbox.receiver()
    answer, answered = back.outlet.sender(), back.inbox.receiver()

    def ask() -> None:
        send(BODY)
        answered()

    _serve(lambda: answer(receive()), core=1)
    return _asking(ask)


def simple_queues() -> Timed:
    """Return put and get of two queue.SimpleQueue, over two threads."""
    there: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    back: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def ask() -> None:
        there.put(BODY)
        back.get()

    _serve(lambda: back.put(there.get()), core=1)
    return _asking(ask)


def _poll(system: System) -> Timed:
    send, receive = system.outlet.sender(timeout=0), system.inbox.receiver(timeout=0)

    def run(count: int) -> float:
        chunks = []
        for _ in repeat(None, max(1, count // CHUNK)):
            start = perf_counter_ns()
            for _ in repeat(None, CHUNK):
                send(BODY)
                receive()
            chunks.append(perf_counter_ns() - start)
        return statistics.median(chunks) / CHUNK * count

    return run


def beside_busy() -> Pair:
    """Pair calls that do not wait, beside a thread that computes, with the same alone."""
    go, alone = Event(), _poll(System(Setting()))

    def compute() -> None:
        go.wait()
        while go.is_set():
            sum(range(100))

    _serve(compute)

    def subject(count: int) -> float:
        go.set()
        try:
            return alone(count)
        finally:
            go.clear()

    return Pair(subject, alone, cores=2)


THREADS: dict[str, tuple[str, str, Callable[[], Pair], float | None, float | None]] = {
    "call": (
        "call and reply of two threads, blocking", "queue.SimpleQueue",
        lambda: Pair(calls(), simple_queues(), cores=2), 0.4, 0.2,
    ),
    "bound": (
        "the same by sender() and receiver()", "queue.SimpleQueue",
        lambda: Pair(bound(), simple_queues(), cores=2), None, None,
    ),
    "busy": ("sender() + receiver() beside a busy thread", "alone", beside_busy, 1.5, 1.2),
}  # fmt: skip
"""What, against what, the pair, must and aim."""
