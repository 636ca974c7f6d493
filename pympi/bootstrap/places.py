# SPDX-License-Identifier: BSD-2-Clause
"""Where clients ask: at a context, or as a server, whose private port stands for its context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .services import Found, Services, sender_label

if TYPE_CHECKING:
    from ..message import Message
    from ..port import ReceiveRight
    from ..task import Task

__all__ = ["Context", "Place", "Server"]

_MOST_USELESS = 10  # how often a server is started that never checks in to anything


class Context:
    """A part of the name space: names look as far as its ancestors, the nearest counts.

    Attributes:
        number (int): unlike that of any other context or server.
        parent (Context): the root's is itself.
        port (ReceiveRight): the name server's; whoever has a send right to it may ask here.
        label (str), sid (int): of the port, and of services that have none of their own.
        active (bool): whether it takes changes: until its requestor dies.
        requestor (int): the name of that in the name server's task; 0 if it has none.
        per_label (bool): whether each label has services of its own under the same names.
        children (set[Context]): below it.
    """

    server = None  # who asks here does not ask as a server

    def __init__(
        self, parent: Context | None, port: ReceiveRight, label: str, sid: int, per_label: bool
    ) -> None:
        self.parent = parent or self
        self._above: tuple[Context, ...] = parent.chain() if parent else ()
        self.port = port
        self.label = label
        self.sid = sid
        self.per_label = per_label
        self.number = self.requestor = 0
        self.active = True
        self.children: set[Context] = set()
        self._services: dict[str, Services] = {"": {}}
        self.shared = self._services[""]

    def __repr__(self) -> str:
        return f"<Context {self.number}, {sum(map(len, self._services.values()))} services>"

    @property
    def depth(self) -> int:
        """How far it is below the root."""
        return len(self._above)

    @property
    def context(self) -> Context:
        """Itself, as that of a server is the one where it serves."""
        return self

    def find(self, name: str, message: Message) -> Services:
        """Return the services among which the sender of a message meets a name here."""
        if self.per_label:
            own = self._services.get(sender_label(message), {})
            if name in own:
                return own
        return self.shared

    def seen(self, message: Message) -> Iterator[tuple[str, int]]:
        """Yield names and services that the sender of a message meets here, its own first."""
        own = self._services.get(sender_label(message), {}) if self.per_label else {}
        yield from own.items()
        yield from ((name, service) for name, service in self.shared.items() if name not in own)

    def own(self, message: Message) -> Services:
        """Return the services where what the sender of a message makes belongs."""
        if not self.per_label:
            return self.shared
        return self._services.setdefault(sender_label(message), {})

    def instances(self) -> Iterator[tuple[str, Services]]:
        """Yield the services by label, "" for those that all share."""
        yield from self._services.items()

    def chain(self) -> tuple[Context, ...]:
        """Return this context and its ancestors, the nearest first."""
        return self, *self._above


class Server:
    """A server that the name server starts: when it is made, and again when it is gone, or, on
    demand, when a message comes for one of its services.

    Attributes:
        number (int): unlike that of any other context or server.
        command, uid, on_demand: as it was asked for.
        context (Context): in which its services are.
        port (ReceiveRight): its private bootstrap port.
        task (Task | None): what runs now, or ran last.
        starts (int): how often it was started; useless: since it last checked in to anything.
        services (dict[Found, None]): what it serves, in the order of its making.
        retired (bool): whether it is never to be started again.
    """

    def __init__(
        self, context: Context, port: ReceiveRight, command: str, uid: int, on_demand: bool
    ) -> None:
        self.context = context
        self.port = port
        self.command = command
        self.uid = uid
        self.on_demand = on_demand
        self.number = 0
        self.task: Task | None = None
        self.starts = self.useless = 0
        self.starting = self.retired = False
        self.services: dict[Found, None] = {}

    def __repr__(self) -> str:
        return f"<Server {self.command!r}, {'running' if self.running else 'not running'}>"

    @property
    def server(self) -> Server:
        """Itself: who asks at this port asks as this server."""
        return self

    @property
    def given_up(self) -> bool:
        """Whether it was started in vain too often to be started again."""
        return self.useless >= _MOST_USELESS

    @property
    def running(self) -> bool:
        """Whether its task lives."""
        return self.starting or (self.task is not None and self.task.alive)


Place = Context | Server
