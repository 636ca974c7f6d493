# SPDX-License-Identifier: BSD-2-Clause
"""Threads that do everything at once to one name server, in any order."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
from background import Run
from faults.names import check_books

from pympi import Kernel, MachError, Task
from pympi.bootstrap import Bootstrap, Launch, ServiceContexts
from pympi.policy import Rules

CLASSES = ("mach_port", "mach_task", "mi_bootstrap", "service")
POLICY = " ".join(f"allow * * {tclass} {{ * }};" for tclass in CLASSES)
NAMES = [f"name.{number}" for number in range(5)]


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Hammer:
    """A thread's tasks, contexts and what it does to them."""

    def __init__(self, kernel: Kernel, rng: random.Random) -> None:
        self.kernel = kernel
        self.rng = rng
        self.task = self.born()
        self.places: list[Bootstrap] = []

    def born(self) -> Task:
        return self.kernel.create_task("hammer", uid=self.rng.randrange(3))

    def reborn(self) -> None:
        self.task.terminate()
        self.places = []
        self.task = self.born()

    def step(self) -> None:
        try:
            place = self.rng.choice([self.task.bootstrap, *self.places])
        except MachError:  # policies that are reloaded without end refuse what they do not settle
            self.reborn()
            return
        name = self.rng.choice(NAMES)
        acts: list[Callable[[], object]] = [
            lambda: place.register(name, self.task.allocate_port()),
            lambda: place.register(name, None),
            lambda: place.check_in(name),
            lambda: place.check_in(name).close(),
            lambda: place.create_service(name),
            lambda: place.look_up(name).send(b"", timeout=0),
            lambda: place.look_up_array(NAMES),
            lambda: self.places.append(place.subset(self.task.allocate_port())),
            lambda: self.places.append(place.create_server("server", self.task_uid())),
            lambda: place.create_server("server", self.task_uid(), on_demand=False),
            lambda: place.status(name),
            place.info,
            self.reborn,
        ]
        with suppress(MachError):
            self.rng.choice(acts)()

    def task_uid(self) -> int:
        return self.rng.randrange(3)


def launch(what: Launch) -> Task:
    task = what.create_task()
    for name in NAMES[:2]:
        try:
            task.bootstrap.check_in(name)
        except MachError:
            continue
    return task


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("checked", [False, True], ids=["no_policy", "checked"])
@pytest.mark.parametrize("steps", [150, pytest.param(5000, marks=pytest.mark.long)])
def test_names_are_hammered(rng: random.Random, checked: bool, steps: int) -> None:
    policies = [Rules.from_text(POLICY)] if checked else []
    with Kernel(policies=policies) as kernel:
        names = kernel.start_bootstrap(launch=launch)

        def hammer(seed: int) -> None:
            hammer = Hammer(kernel, random.Random(seed))
            for _ in range(steps):
                hammer.step()

        runs = [Run(partial(hammer, rng.getrandbits(32))) for _ in range(3)]
        for number in itertools.count():
            kernel.verify()
            if checked:
                kernel.policies.reload()
            names.use_service_contexts(ServiceContexts({f"name.{number % 5}": "-"}))
            if not any(run.is_alive() for run in runs):
                break
        for run in runs:
            run.result()
        check_books(names)
        for task in list(kernel.tasks.values()):
            if task is not names.task:
                task.terminate()
        check_books(names)
        assert list(names.contexts.values()) == [names.root]
        assert kernel.stats()["handler_failures"] == 0


def test_a_kernel_is_closed_while_asked() -> None:
    kernel = Kernel()
    kernel.bootstrap.declare(NAMES[0])
    clients = [kernel.create_task("client") for _ in range(2)]
    places = [client.bootstrap for client in clients]

    def ask(place: Bootstrap) -> None:
        while True:
            try:
                place.look_up(NAMES[0])
                place.info()
            except MachError:
                return

    runs = [Run(partial(ask, place)) for place in places]
    kernel.close()
    for run in runs:
        run.result()
