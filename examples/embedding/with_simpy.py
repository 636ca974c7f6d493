# SPDX-License-Identifier: BSD-2-Clause
"""The system in Python, with SimPy: each task is a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from world import ANSWER, HEAD, REQUEST, Counts, World, delay, label, splitmix64

from pympi import AccessDenied, QueueFull
from pympi.port import ReceiveRight, SendRight
from pympi.sim import Environment


class Simulation:
    """All clients and services of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.env = Environment(world.clock, label=label("simpy"))
        self.thoughts = self.answered = self.denied = self.full = 0
        for number in range(world.size.services):
            self.env.process(self.service(number))
        for number in range(world.size.clients):
            self.env.process(self.client(number))

    def client(self, number: int) -> Iterator[Any]:
        """Think, ask, and wait for the answer."""
        env, world = self.env, self.world
        task, state = world.client_tasks[number], int(world.chances[number])
        rights = [SendRight(task, int(name)) for name in world.rights[number]]
        answers = ReceiveRight(task, int(world.answers[number]))
        for count in range(world.size.requests):
            state, bits = splitmix64(state)
            yield env.timeout(delay(world.think, bits))
            self.thoughts += 1
            state, bits = splitmix64(state)
            head = count.to_bytes(8, "little") + number.to_bytes(8, "little")
            right = rights[(bits >> 32) % len(rights)]
            try:
                yield env.send(
                    right, head + bytes(bits & 255), REQUEST, reply=answers, timeout=0
                )  # fmt: skip
            except AccessDenied:
                self.denied += 1
            except QueueFull:
                self.full += 1
            else:
                answer = yield env.receive(answers)
                assert answer.body == head
                self.answered += 1

    def service(self, number: int) -> Iterator[Any]:
        """Answer one request after the other."""
        env, world = self.env, self.world
        state = int(world.chances[world.size.clients + number])
        inbox = ReceiveRight(world.service_tasks[number], int(world.inboxes[number]))
        while True:
            request = yield env.receive(inbox)
            state, bits = splitmix64(state)
            yield env.timeout(delay(world.serve, bits))
            yield env.reply(request, request.body[:HEAD], msgh_id=ANSWER)


def run(world: World) -> Counts:
    """Simulate until all clients have stopped."""
    system = Simulation(world)
    system.env.run()
    events = system.thoughts + system.answered
    return Counts(events, system.answered, system.denied, system.full, system.env.now)
