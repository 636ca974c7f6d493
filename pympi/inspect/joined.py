# SPDX-License-Identifier: BSD-2-Clause
"""A snapshot with its rows joined: who made a port, who may send to it, who is at the other end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property

from ..enums import PortType
from .snapshot import Context, Port, Right, Service, Snapshot, Task

__all__ = ["Joined"]

_SENDS = PortType.SEND | PortType.SEND_ONCE


class Joined:
    """A snapshot, indexed.

    Attributes:
        snapshot (Snapshot): as given.
        tasks (dict[int, Task]), ports (dict[int, Port]): by number.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     server, client = kernel.create_task("server"), kernel.create_task("client")
        ...     printer = server.allocate_port().make_send(client)
        ...     joined = Joined(kernel.snapshot())
        >>> [right] = joined.rights(client.id)
        >>> joined.other_end(right)
        [1]
        >>> joined.tasks[1].name
        'server'
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.tasks: dict[int, Task] = {task.id: task for task in snapshot.tasks}
        self.ports: dict[int, Port] = {port.id: port for port in snapshot.ports}

    # ---- tasks ----

    def chosen(self, pattern: str = "*") -> list[Task]:
        """Return tasks by number, or by name: a pattern with `*`, `?` and `[...]`."""
        if pattern.isascii() and pattern.isdigit() and int(pattern) in self.tasks:
            return [self.tasks[int(pattern)]]
        return [task for task in self.tasks.values() if fnmatchcase(task.name, pattern)]

    def task_name(self, number: int) -> str:
        """Return the name of a task, "" for one that is not there."""
        task = self.tasks.get(number)
        return task.name if task else ""

    # ---- rights ----

    @cached_property
    def spaces(self) -> dict[int, dict[int, Right]]:
        """The names in the space of each task, by number and name."""
        found: defaultdict[int, dict[int, Right]] = defaultdict(dict)
        for right in self.snapshot.rights:
            found[right.task][right.name] = right
        return found

    def rights(self, task: int) -> list[Right]:
        """Return the names in the space of a task, in order."""
        return [right for _, right in sorted(self.spaces.get(task, {}).items())]

    @cached_property
    def _senders(self) -> dict[int, dict[int, None]]:
        found: defaultdict[int, dict[int, None]] = defaultdict(dict)
        for right in self.snapshot.rights:
            if right.types & _SENDS:
                found[right.object][right.task] = None
        return found

    @cached_property
    def _members(self) -> dict[int, dict[int, None]]:
        found: defaultdict[int, dict[int, None]] = defaultdict(dict)
        for port in self.snapshot.ports:
            if port.set:
                found[port.set][port.id] = None
        return found

    def senders(self, port: int) -> list[int]:
        """Return the numbers of the tasks that have a right to send to a port."""
        return [*self._senders.get(port, ())]

    def members(self, port_set: int) -> list[int]:
        """Return the numbers of ports in a set; of a port in several, one of them is known."""
        return [*self._members.get(port_set, ())]

    def port_of(self, right: Right) -> Port | None:
        """Return the port that a name denotes; None for a set, a dead name, one not in sight."""
        return None if right.types & PortType.PORT_SET else self.ports.get(right.object)

    def other_end(self, right: Right) -> list[int]:
        """Return the numbers of the tasks at the other end.

        Of a receive right these are the others that may send; of a right to send, the receiver.
        """
        if right.types & PortType.RECEIVE:
            return [task for task in self.senders(right.object) if task != right.task]
        port = self.port_of(right)
        return [port.receiver] if port and port.receiver else []

    # ---- the name server ----

    @cached_property
    def contexts(self) -> dict[int, Context]:
        """The contexts of the name server by number; none without one."""
        return {context.id: context for context in self.snapshot.bootstrap or ()}

    @property
    def services(self) -> Iterator[tuple[Context, Service]]:
        """The services, each with its context."""
        return ((c, service) for c in self.contexts.values() for service in c.services)

    @cached_property
    def service_names(self) -> dict[int, list[str]]:
        """The names of services by the number of their port."""
        found: defaultdict[int, list[str]] = defaultdict(list)
        for _, service in self.services:
            if service.port:
                found[service.port].append(service.name)
        return found

    def server_of(self, service: Service) -> str:
        """Return who serves a name: what the name server says, else who receives from its port."""
        port = self.ports.get(service.port) if service.state == "active" else None
        return service.server or self.task_name(port.receiver if port else 0)

    def path(self, context: Context) -> list[Context]:
        """Return a context and those around it, up to the root."""
        found = {context.id: context}
        while (parent := self.contexts.get(context.parent)) and parent.id not in found:
            found[parent.id] = context = parent
        return [*found.values()]

    def look_up(self, name: str, context: Context) -> tuple[Context, list[Service]] | None:
        """Return the nearest context that has a name, and its services of that name.

        There are several where each label has services of its own.
        """
        for place in self.path(context):
            if found := [service for service in place.services if service.name == name]:
                return place, found
        return None
