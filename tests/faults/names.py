# SPDX-License-Identifier: BSD-2-Clause
"""The name server's own books: whether what it knows, what it counts and what it holds agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from pympi import Kernel, Task
from pympi.bootstrap import NameServer, State
from pympi.bootstrap.services import port_of, state_of, terms_of
from pympi.enums import PortType

NAME = "com.example.print"


def books_kept() -> Iterator[Kernel]:
    """A kernel without policies, for a fixture: what the name server sees to by itself."""
    with Kernel() as kernel:
        yield kernel
        check_books(kernel.bootstrap)


def user(name: str, uid: int) -> Callable[[Kernel], Task]:
    """Return a fixture: a task of a user, in the fixture `kernel`."""

    def task(kernel: Kernel) -> Task:
        return kernel.create_task(name, uid=uid)

    return pytest.fixture(task)


def check_books(names: NameServer) -> None:
    """Assert that every service has what its state says, and the name server nothing else."""
    names.kernel.verify()
    registry, rights = names._registry, names._rights
    held = names.task.names()
    services = [
        service
        for context in names.contexts.values()
        for _, instance in context.instances()
        for service in instance.values()
    ]
    assert len(services) == registry.services
    assert Counter(map(terms_of, services)) == registry.terms._counts
    payers = Counter(registry.terms_of(service).payer for service in services)
    payers.pop(None, None)
    assert payers == registry.payers
    for service in services:
        _check_service(service, held.get(port_of(service), PortType(0)))
    known = {port_of(service) for service in services if port_of(service)}
    known |= {rights.notify.name, rights.returns.name, *registry.requestors, *registry.tasks}
    known |= {place.port.name for place in (*names.contexts.values(), *names.servers.values())}
    assert held.keys() == known


def _check_service(service: int, held: PortType) -> None:
    state = state_of(service)
    if state == State.RESERVED:
        assert port_of(service) == 0
    else:
        assert held & (PortType.SEND | PortType.DEAD_NAME)
    assert bool(held & PortType.RECEIVE) >= (state == State.DECLARED)
