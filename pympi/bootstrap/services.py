# SPDX-License-Identifier: BSD-2-Clause
"""What a name server knows: contexts, the services in them, and servers that it starts.

There may be a million services, so one is a single number, found by its name: where its port is,
its state, and the number of the terms that it shares with others. Beside the name and its place in
the dictionary that takes 32 bytes. `Service` shows one by names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from .protocol import Status

if TYPE_CHECKING:
    from ..message import Message
    from ..port import ReceiveRight
    from ..task import Task
    from .server import NameServer

__all__ = ["Context", "Owner", "Server", "Service", "ServiceInfo", "State", "Terms", "TermsTable"]


class State(IntEnum):
    """Where the port of a service is, and who made it.

    DECLARED: the name server made the port and has its receive right. CHECKED_IN: the same, and a
    server has it. REGISTERED: a server made the port. RESERVED: that server is gone, and the name
    kept for it.
    """

    DECLARED = 1
    CHECKED_IN = 2
    REGISTERED = 3
    RESERVED = 4


ACTIVE = (State.CHECKED_IN, State.REGISTERED)
_MOST_USELESS = 10  # how often a server is started that never checks in to anything

# A service as a number: terms, state, and the name of the port in the name server's task.
_STATE_AT, _TERMS_AT = 32, 35

Services = dict[str, int]
"""Services of one context, and one label where each has its own, by name."""


def packed(port: int, state: int, terms: int) -> int:
    """Return a service as a number; it is not 0."""
    return port | state << _STATE_AT | terms << _TERMS_AT


def port_of(service: int) -> int:
    """Return the name of a service's port in the name server's task; 0 if it has none."""
    return service & 0xFFFFFFFF


def state_of(service: int) -> int:
    """Return a service's `State`."""
    return service >> _STATE_AT & 7


def terms_of(service: int) -> int:
    """Return the number of a service's terms."""
    return service >> _TERMS_AT


class Owner(NamedTuple):
    """For whom a name is kept: whoever sends under this label, with this effective uid."""

    label: str
    uid: int


class ServiceInfo(NamedTuple):
    """A service as others see it.

    Attributes:
        name, server: the latter is "" for a service without a server that is started.
        status: what state it is in.
    """

    name: str
    server: str
    status: Status


class Found:
    """Where a service is to be found: among which, and its name."""

    __slots__ = ("name", "services")

    def __init__(self, services: Services, name: str) -> None:
        self.services = services
        self.name = name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Found):
            return NotImplemented
        return self.services is other.services and self.name == other.name

    def __hash__(self) -> int:
        return hash((id(self.services), self.name))

    @property
    def service(self) -> int:
        """The service as it is now."""
        return self.services[self.name]


class Terms(NamedTuple):
    """What many services have in common.

    Attributes:
        context (Context): where they are.
        sid: their label.
        server (Server | None): which is started for them.
        owner (Owner | None): for whom their names are kept.
        payer (Owner | None): in whose name they count.
    """

    context: Context
    sid: int
    server: Server | None = None
    owner: Owner | None = None
    payer: Owner | None = None


class TermsTable:
    """Terms by number. A number lives as long as services have it, and is never given twice: who
    read a service while it changed finds its terms, or that they are gone, and never others.
    """

    def __init__(self) -> None:
        self._terms: dict[int, Terms] = {}
        self._numbers: dict[Terms, int] = {}
        self._counts: Counter[int] = Counter()
        self._next = 0

    def get(self, number: int) -> Terms | None:
        """Return the terms of a number, None if they are gone."""
        return self._terms.get(number)

    def take(self, terms: Terms) -> int:
        """Return the number of terms, for one more service."""
        number = self._numbers.get(terms)
        if number is None:
            number = self._numbers[terms] = self._next
            self._terms[number] = terms
            self._next += 1
        self._counts[number] += 1
        return number

    def drop(self, number: int) -> None:
        """Take back a number that was taken for a service."""
        self._counts[number] -= 1
        if not self._counts[number]:
            del self._numbers[self._terms.pop(number)], self._counts[number]


class Server:
    """A server that the name server starts: when it is made, and again when it is gone, or, on
    demand, when a message comes for one of its services.

    Attributes:
        command, uid, on_demand: as it was asked for.
        context (Context): in which its services are.
        port (ReceiveRight): its private bootstrap port.
        task (Task | None): what runs now, or ran last.
        starts (int): how often it was started; useless: since it last checked in to anything.
        services (dict[Found, None]): what it serves, in the order of its making.
        retired (bool): whether it is never to be started again.
    """

    def __init__(self, context: Context, command: str, uid: int, on_demand: bool) -> None:
        self.context = context
        self.command = command
        self.uid = uid
        self.on_demand = on_demand
        self.port: ReceiveRight
        self.number = 0
        self.task: Task | None = None
        self.starts = self.useless = 0
        self.starting = self.retired = False
        self.services: dict[Found, None] = {}

    def __repr__(self) -> str:
        return f"<Server {self.command!r}, {'running' if self.running else 'not running'}>"

    @property
    def given_up(self) -> bool:
        """Whether it was started in vain too often to be started again."""
        return self.useless >= _MOST_USELESS

    @property
    def running(self) -> bool:
        """Whether its task lives."""
        return self.starting or (self.task is not None and self.task.alive)


class Context:
    """A part of the name space: names look as far as its ancestors, the nearest counts.

    Attributes:
        parent (Context): the root's is itself.
        port (ReceiveRight): the name server's; whoever has a send right to it may ask here.
        sid (int): the label of the port, and of services that have none of their own.
        active (bool): whether it takes changes: until its requestor dies.
        requestor (int): the name of that in the name server's task; 0 if it has none.
        per_label (bool): whether each label has services of its own under the same names.
        children (set[Context]): below it.
    """

    def __init__(self, names: NameServer, parent: Context | None, per_label: bool) -> None:
        self._names = names
        self.parent = parent or self
        self.per_label = per_label
        self.port: ReceiveRight
        self.number = self.sid = self.requestor = 0
        self.active = True
        self.children: set[Context] = set()
        self.depth: int = parent.depth + 1 if parent else 0
        self._services: dict[str, Services] = {"": {}}
        self.shared = self._services[""]

    def __repr__(self) -> str:
        return f"<Context {self.number}, {sum(map(len, self._services.values()))} services>"

    @property
    def label(self) -> str:
        """The label of its port."""
        return self._names.kernel.label(self.sid)

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

    def chain(self) -> Iterator[Context]:
        """Yield this context and its ancestors, the nearest first."""
        context = self
        while True:
            yield context
            if context.parent is context:
                return
            context = context.parent


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

    __slots__ = ("_names", "_services", "instance", "name")

    def __init__(self, names: NameServer, services: Services, name: str, instance: str) -> None:
        self._names = names
        self._services = services
        self.name = name
        self.instance = instance

    def __repr__(self) -> str:
        return f"<Service {self.name!r}>"

    @property
    def _terms(self) -> Terms:
        return self._names.terms_of(self._services[self.name])

    @property
    def context(self) -> Context:
        return self._terms.context

    @property
    def label(self) -> str:
        return self._names.kernel.label(self._terms.sid)

    @property
    def state(self) -> State:
        return State(state_of(self._services[self.name]))

    @property
    def status(self) -> Status:
        return self._names.status_of(self._services[self.name])

    @property
    def server(self) -> Server | None:
        return self._terms.server

    @property
    def owner(self) -> Owner | None:
        return self._terms.owner

    @property
    def port_id(self) -> int:
        return self._names.port_id(self._services[self.name])


def sender_label(message: Message) -> str:
    """Return the label under which a message was sent."""
    return message.task.kernel.label(message.sender_sid)
