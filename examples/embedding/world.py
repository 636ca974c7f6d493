# SPDX-License-Identifier: BSD-2-Clause
"""The system that is simulated four times: its tasks, ports, policy and chances.

Clients think, then send a request to a service of their choice; services queue requests and answer
one after the other. A client whose request is refused by the policy, or finds the queue full, goes
back to thinking. Each client makes a number of requests, then stops.

What the four programs share is what is here: the kernel as it is before the first event. From there
each has its own way through time, and has to come out at the same bytes (`World.digest`).
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pympi import Kernel, SimulatedClock, Task, audit
from pympi.policy import TypeEnforcement

POLICY = Path(__file__).with_name("system.cil")
REQUEST, ANSWER = 100, 200
"""msgh_id."""
HEAD = 16
"""Bytes of the number of a request, and of who makes it; the answer is these alone."""
ROOM = 512
"""Bytes, more than any message has."""
MASK = (1 << 64) - 1
QUEUE = 4
"""Requests that find room in a service's queue."""


class Counts(NamedTuple):
    """What came of a simulation. `end` is when the last thing happened, in seconds."""

    events: int
    answered: int
    denied: int
    full: int
    end: float


@dataclass(frozen=True)
class Size:
    """How large a simulation is. Every fourth client is a guest; the last service is the vault.

    Attributes:
        clients, services: how many.
        requests: how many each client makes.
        seed: of all chances.
    """

    clients: int = 64
    services: int = 8
    requests: int = 100
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.clients, self.services, self.requests) < 1 or not 0 <= self.seed < 1 << 31:
            raise ValueError(f"there is 1 of each at least, and a seed of 31 bits: {self}")


def splitmix64(state: int) -> tuple[int, int]:
    """Return the next state and 64 random bits (Steele, Lea, Flood 2014; Vigna's constants)."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    bits = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & MASK
    return state, bits ^ (bits >> 31)


def table(mean: float) -> npt.NDArray[np.float64]:
    """Return the inverse of an exponential distribution at 4,096 places, in seconds.

    A logarithm may differ by a bit from library to library; made once, it is the same for all.
    """
    return np.array([-mean * math.log((i + 0.5) / 4096) for i in range(4096)])


def delay(times: npt.NDArray[np.float64], bits: int) -> float:
    """Return a random time: an entry of a table, and up to a microsecond so that no two agree.

    The product is exact, so that it is the same sum where compilers fuse the two.
    """
    return float(times[bits >> 52]) + float(bits & ((1 << 40) - 1)) * 2.0**-60


def label(kind: str) -> str:
    """Return the label of a kind of task."""
    return f"te/system_u:system_r:{kind}_t"


class World:
    """A kernel, ready for the first event, and what programs without Python objects know of it.

    Attributes:
        client_tasks, service_tasks: by number.
        size, kernel, clock: as given.
        clients, services (uint32 arrays): the tasks' ids.
        answers (uint32 array): names of the ports that the clients' answers come to.
        inboxes (uint32 array): names of the services' ports.
        rights (uint32 array, client by service): names of the rights to send requests by.
        chances (uint64 array): a generator's state for each client, then for each service.
        think, serve (float64 arrays): tables of times.
    """

    def __init__(self, size: Size, kernel: Kernel, clock: SimulatedClock) -> None:
        self.size, self.kernel, self.clock = size, kernel, clock
        kernel.start_bootstrap(label=label("names"), root_label=label("names"))
        last = size.services - 1
        self.service_tasks = [
            self._task("service", i, "vault" if i == last else "service")
            for i in range(size.services)
        ]
        self.client_tasks = [
            self._task("client", i, "client" if i % 4 else "guest") for i in range(size.clients)
        ]
        inboxes = [task.allocate_port(qlimit=QUEUE) for task in self.service_tasks]
        for number, inbox in enumerate(inboxes):
            inbox.task.bootstrap.register(f"service.{number}", inbox)
        self.answers = _names([task.allocate_port().name for task in self.client_tasks])
        self.inboxes = _names([inbox.name for inbox in inboxes])
        self.rights = _names([self._look_up(task) for task in self.client_tasks])
        self.clients = _names([task.id for task in self.client_tasks])
        self.services = _names([task.id for task in self.service_tasks])
        people = range(size.clients + size.services)
        self.chances = np.array([splitmix64(size.seed << 32 | i)[1] for i in people], np.uint64)
        self.think, self.serve = table(1.0), table(0.8 * size.services / size.clients)

    def _task(self, kind: str, number: int, type_: str) -> Task:
        return self.kernel.create_task(f"{kind}{number}", label(type_))

    def _look_up(self, task: Task) -> list[int]:
        names = task.bootstrap
        return [names.look_up(f"service.{number}").name for number in range(self.size.services)]


def _names(values: list[int] | list[list[int]]) -> npt.NDArray[np.uint32]:
    return np.array(values, np.uint32)


@contextmanager
def world(size: Size) -> Iterator[World]:
    """Make the system; afterwards see that nothing is lost in it."""
    clock = SimulatedClock()
    policy = TypeEnforcement.from_file(POLICY)
    with Kernel([policy], clock=clock, seed=size.seed) as kernel:
        yield World(size, kernel, clock)
        kernel.verify()


class Recording:
    """Records all that becomes of messages, in files: the trace, and the audit trail."""

    def __init__(self, kernel: Kernel, directory: Path) -> None:
        self._kernel, self._trace = kernel, directory / "run.trace"
        self._audit = directory / "run.audit"
        kernel.audit.drain()
        kernel.audit.select("none")
        kernel.audit.select(
            "all", operations=["send", "receive", "give", "take"], tasks=["client*", "service*"]
        )
        self._sink = audit.File(self._audit, when_full="block")
        kernel.audit.attach(self._sink)
        kernel.trace.start()

    def digest(self) -> str:
        """End it; return the hash of the trace's bytes, and of the records' in the audit file.

        What is left out of the latter is what each file has of its own: the time it was made, and
        the chain of hashes that begins with that.
        """
        self._kernel.trace.save(self._trace)
        self._kernel.audit.select("none")
        self.close()
        found = hashlib.sha256(self._trace.read_bytes())
        with self._audit.open("rb") as file:
            for batch in audit.Reader(file):
                found.update(batch.records.tobytes())
        return found.hexdigest()

    def close(self) -> None:
        """Stop recording, also where the run failed."""
        with suppress(ValueError):
            self._kernel.audit.detach(self._sink)
        self._sink.close()


@contextmanager
def recording(kernel: Kernel) -> Iterator[Recording]:
    """Record in a directory that is gone afterwards."""
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(Recording(kernel, Path(directory))) as records,
    ):
        yield records
