# SPDX-License-Identifier: BSD-2-Clause
"""What the embedder sees of services: each by names, and all of them as data for a snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import inspect
from .services import Found, State, port_of, state_of, status_of

if TYPE_CHECKING:
    from ..task import Task
    from .places import Context, Server
    from .protocol import Status
    from .registry import Registry
    from .services import Owner, Terms

__all__ = ["Service", "context_row", "services_in"]


class Service:
    """A service, for the embedder.

    Attributes:
        name (str), context (Context), label (str): of the service, not of its port.
        state (State), status (Status), server (Server | None).
        owner (Owner | None): for whom the name is kept.
        instance (str): the label whose own service this is; "" where all share it.
        port_id (int): the number of its port; 0 if it has none.

    Raises:
        KeyError: everywhere, once the service is gone.
    """

    __slots__ = ("_found", "_registry", "_task", "instance")

    def __init__(self, task: Task, registry: Registry, found: Found, instance: str) -> None:
        self._task = task
        self._registry = registry
        self._found = found
        self.instance = instance

    def __repr__(self) -> str:
        return f"<Service {self.name!r}>"

    @property
    def name(self) -> str:
        return self._found.name

    @property
    def _terms(self) -> Terms:
        return self._registry.terms_of(self._found.service)

    @property
    def context(self) -> Context:
        return self._terms.context

    @property
    def label(self) -> str:
        return self._task.kernel.label(self._terms.sid)

    @property
    def state(self) -> State:
        return State(state_of(self._found.service))

    @property
    def status(self) -> Status:
        service = self._found.service
        return status_of(service, self._registry.terms_of(service))

    @property
    def server(self) -> Server | None:
        return self._terms.server

    @property
    def owner(self) -> Owner | None:
        return self._terms.owner

    @property
    def port_id(self) -> int:
        return self._task.port_id(port_of(self._found.service))


def services_in(task: Task, registry: Registry, context: Context) -> list[Service]:
    """Return the services of a context by label and name; the registry does not change meanwhile.

    Args:
        task: the name server's.
        registry: what it knows.
        context: where.
    """
    return [
        Service(task, registry, Found(services, name), label)
        for label, services in sorted(context.instances())
        for name in sorted(services)
    ]


def context_row(context: Context, services: Iterable[Service]) -> inspect.Context:
    """Return a context and its services as data."""
    parent = context.parent.number if context.parent is not context else 0
    rows = tuple(map(_service_row, services))
    return inspect.Context(context.number, parent, context.label, context.port.port_id, rows)


def _service_row(service: Service) -> inspect.Service:
    reserved = service.state == State.RESERVED
    state = "reserved" if reserved else service.status.name.lower().replace("_", " ")
    server = service.server
    return inspect.Service(
        service.name,
        server.command if server else "",
        state,
        service.label,
        service.port_id,
        server.task.id if server and server.running and server.task else 0,
    )
