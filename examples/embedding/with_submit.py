# SPDX-License-Identifier: BSD-2-Clause
"""The system in Python, with a heap of events, and a call of `kernel.submit` for each event."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Any

from world import ANSWER, HEAD, REQUEST, ROOM, Counts, World, delay, splitmix64

from pympi import batch, mach


class Simulation:
    """The state of all clients and services, and what happens to them.

    An event is the end of a thought, or of a service. Both lead to a message, and whoever waits for
    that takes it in the same instant: a few operations, done in one call.
    """

    def __init__(self, world: World) -> None:
        self.world, self.size = world, world.size
        self.chances = world.chances.tolist()
        self.rights, self.answers = world.rights.tolist(), world.answers.tolist()
        self.clients, self.services = world.clients.tolist(), world.services.tolist()
        self.inboxes = world.inboxes.tolist()
        self.asked = [0] * world.size.clients
        self.client = [-1] * world.size.services  # whom each service serves; -1: nobody
        self.reply = [0] * world.size.services
        self.ops, self.data = batch.operations(3), bytearray(2 * ROOM)
        self.heap: list[tuple[float, int, Any, int]] = []
        self.order = count()
        self.events = self.answered = self.denied = self.full = 0
        self.now = 0.0
        for number in range(world.size.clients):
            self.think(number)

    def chance(self, who: int) -> int:
        self.chances[who], bits = splitmix64(self.chances[who])
        return bits

    def later(self, seconds: float, act: Any, who: int) -> None:
        heappush(self.heap, (self.now + seconds, next(self.order), act, who))

    def think(self, client: int) -> None:
        if self.asked[client] < self.size.requests:
            self.later(delay(self.world.think, self.chance(client)), self.ask, client)

    def ask(self, client: int) -> None:
        """A client has thought: it sends a request, which the service takes if it is idle."""
        bits = self.chance(client)
        service, size = (bits >> 32) % self.size.services, HEAD + (bits & 255)
        self.data[:8] = self.asked[client].to_bytes(8, "little")
        self.data[8:HEAD] = client.to_bytes(8, "little")
        self.asked[client] += 1
        self.ops[0] = operation(
            batch.SEND, self.clients[client], self.rights[client][service], REQUEST, 0, size,
            self.answers[client],
        )  # fmt: skip
        idle = self.client[service] < 0
        if idle:
            self.ops[1] = self.taking(service)
        self.world.kernel.submit(self.ops[: 1 + idle], self.data)
        result = int(self.ops["result"][0])
        if result:
            self.full += result == mach.MACH_SEND_TIMED_OUT
            self.denied += result != mach.MACH_SEND_TIMED_OUT
            self.think(client)
        elif idle:
            self.begin(service, 1)

    def answer(self, service: int) -> None:
        """A service is done: it answers, the client takes that, and the service what is next."""
        client = self.client[service]
        self.data[:8] = (self.asked[client] - 1).to_bytes(8, "little")
        self.data[8:HEAD] = client.to_bytes(8, "little")
        task, name = self.services[service], self.reply[service]
        self.ops[0] = operation(batch.SEND, task, name, ANSWER, 0, HEAD)
        task, name = self.clients[client], self.answers[client]
        self.ops[1] = operation(batch.RECEIVE, task, name, 0, ROOM, ROOM)
        self.ops[2] = self.taking(service)
        self.world.kernel.submit(self.ops, self.data)
        assert self.ops["result"][1] == 0
        self.answered += 1
        self.client[service] = -1
        self.think(client)
        if self.ops["result"][2] == 0:
            self.begin(service, 2)

    def taking(self, service: int) -> tuple[int, ...]:
        task, name = self.services[service], self.inboxes[service]
        return operation(batch.RECEIVE, task, name, 0, ROOM, ROOM)

    def begin(self, service: int, taken: int) -> None:
        self.client[service] = int.from_bytes(self.data[ROOM + 8 : ROOM + HEAD], "little")
        self.reply[service] = int(self.ops["reply"][taken])
        bits = self.chance(self.size.clients + service)
        self.later(delay(self.world.serve, bits), self.answer, service)

    def run(self) -> Counts:
        while self.heap:
            self.now, _, act, who = heappop(self.heap)
            self.world.clock.advance_to(self.now)
            self.events += 1
            act(who)
        return Counts(self.events, self.answered, self.denied, self.full, self.now)


def operation(
    op: int, task: int, name: int, msgh_id: int, offset: int, length: int, reply: int = 0
) -> tuple[int, ...]:
    """Return a row of `batch.OPERATION`."""
    return op, task, name, msgh_id, offset, length, 0, reply, 0, 0, 0, 0, 0, 0


def run(world: World) -> Counts:
    """Simulate until all clients have stopped."""
    return Simulation(world).run()
