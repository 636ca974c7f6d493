# SPDX-License-Identifier: BSD-2-Clause
"""Kernels side by side: as many threads, each on a core of its own, with a kernel of its own.

Both sides do the same work in the same threads: the subject in all at once, the baseline in one
after the other, so that each is alone. A ratio of 1 is K threads that do K times as much as one.
Times are of the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from time import perf_counter_ns, sleep, thread_time_ns
from typing import NamedTuple

from . import compiled, loops
from .harness import Pair, Timed
from .systems import Setting, System
from .threads import CORES, keep_to

LONGER = 10
"""In times of what is asked for: threads begin some ten microseconds apart, and who has the GIL
keeps it for 5 milliseconds."""
OPERATIONS, MORE, PORTS = 1024, 4096, 16
"""So many that `submit` gives the GIL up, at ports that have room for the messages."""


class Turn(NamedTuple):
    """When a thread did what it was told to: by the clock, and its CPU time. All in ns."""

    start: int
    end: int
    busy: int


class Order(NamedTuple):
    """What threads are told: to do a thing so often, when so many of them are there."""

    often: int
    threads: int
    there: list[int]

    def meet(self) -> None:
        """Wait, without sleep, until all are there: whom another program keeps from its core."""
        self.there.append(1)
        while len(self.there) < self.threads:
            sleep(0)


class Crew:
    """Threads that stay, each of which does one thing when it is told to.

    Attributes:
        busy: their CPU time, and for how many repetitions: at once, and one at a time.
    """

    def __init__(self, works: Sequence[Timed]) -> None:
        self.busy = {"at once": [0, 0], "in turn": [0, 0]}
        self._told: list[SimpleQueue[Order]] = [SimpleQueue() for _ in works]
        self._done: SimpleQueue[Turn | Exception] = SimpleQueue()
        for place, work in enumerate(works):
            Thread(target=self._serve, args=(place, work), daemon=True).start()

    def _serve(self, place: int, work: Timed) -> None:
        keep_to(place)
        while True:
            try:
                self._done.put(self._do(work, self._told[place].get()))
            except Exception as error:
                self._done.put(error)

    def _do(self, work: Timed, order: Order) -> Turn:
        order.meet()
        start, before = perf_counter_ns(), thread_time_ns()
        work(LONGER * order.often)
        return Turn(start, perf_counter_ns(), thread_time_ns() - before)

    def _wait(self) -> Turn:
        done = self._done.get()
        if isinstance(done, Exception):
            raise done
        return done

    def _account(self, how: str, turns: Sequence[Turn], count: int) -> None:
        self.busy[how][0] += sum(turn.busy for turn in turns)
        self.busy[how][1] += count

    def together(self, count: int) -> float:
        """Have each do so much, all at once; return the time from first start to last end."""
        order = Order(count, len(self._told), [])
        for told in self._told:
            told.put(order)
        turns = [self._wait() for _ in self._told]
        self._account("at once", turns, count)
        return (max(turn.end for turn in turns) - min(turn.start for turn in turns)) / LONGER

    def in_turn(self, count: int) -> float:
        """Have each do as much, one after the other; return what one of them takes."""
        turns = []
        for told in self._told:
            told.put(Order(count, 1, []))
            turns.append(self._wait())
        self._account("in turn", turns, count)
        return sum(turn.end - turn.start for turn in turns) / LONGER / len(turns)

    def notes(self) -> dict[str, float]:
        """Return the CPU time at once, in times of that one at a time; of this program alone."""
        at_once, in_turn = (busy / count for busy, count in self.busy.values())
        return {"CPU time": at_once / in_turn}


def _in_kernel(make: Callable[[System], Timed]) -> Callable[[], Timed]:
    """Return what makes a loop in a kernel of its own, which goes with it."""

    def made() -> Timed:
        system = System(Setting(stack="te", ports=PORTS))
        run = make(system)
        vars(run)["system"] = system
        return run

    return made


WORKS: dict[str, tuple[str, Callable[[], Timed]]] = {
    "compute": ("threads that compute, in C", compiled.computing),
    "c": ("te, a loop in C", _in_kernel(lambda system: compiled.in_c(system, gil=False))),
    "submit": (
        f"te, submit of {OPERATIONS:,}",
        _in_kernel(lambda system: loops.submit(system, OPERATIONS)),
    ),
    "submit-more": (
        f"te, submit of {MORE:,}",
        _in_kernel(lambda system: loops.submit(system, MORE)),
    ),
    "callables": ("te, sender() + receiver()", _in_kernel(loops.callables)),
}
"""What each of the threads does: in words, and what makes it."""


def counts() -> Iterator[int]:
    """Yield how many threads are measured: powers of two, and as many as there are cores."""
    count = 2
    while count < CORES:
        yield count
        count *= 2
    yield max(2, CORES)


def side_by_side(make: Callable[[], Timed], count: int) -> Pair:
    """Pair threads that work at once with the same that work one after the other."""
    crew = Crew([make() for _ in range(count)])
    return Pair(crew.together, crew.in_turn, notes=crew.notes, cores=count)
