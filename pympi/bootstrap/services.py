# SPDX-License-Identifier: BSD-2-Clause
"""What a name server knows: contexts, the services in them, and servers that it starts.

Services are rows of a table with a column for each fact, since there may be a million of them:
a row takes some 60 bytes beside its name. `Service` shows one row by names.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from .protocol import Status

if TYPE_CHECKING:
    from ..message import Message
    from ..port import ReceiveRight
    from ..task import Task
    from .server import NameServer

__all__ = ["Context", "Owner", "Server", "Service", "ServiceInfo", "State", "Table"]


class State(IntEnum):
    """Where the port of a service is, and who made it.

    FREE: the row is nobody's. DECLARED: the name server made the port and has its receive right.
    CHECKED_IN: the same, and a server has it. REGISTERED: a server made the port. RESERVED: that
    server is gone, and the name kept for it.
    """

    FREE = 0
    DECLARED = 1
    CHECKED_IN = 2
    REGISTERED = 3
    RESERVED = 4


ACTIVE = (State.CHECKED_IN, State.REGISTERED)


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


class Table:
    """Services by row.

    Attributes:
        names (list[str]), states (bytearray of `State`).
        ports, ids: the port's name in the name server's task, and its number; 0 for no port.
        sids: the label of the service.
        owners, payers: numbers of those for whom the name is kept, and in whose name it counts.
        servers, contexts: numbers; 0 for a service without a server that is started.
    """

    __slots__ = (
        "_columns", "_free", "contexts", "ids", "names", "owners", "payers", "ports", "servers",
        "sids", "states",
    )  # fmt: skip

    def __init__(self) -> None:
        self.names: list[str] = []
        self.states = bytearray()
        self.ids = array("Q")
        self.ports, self.sids, self.owners, self.payers, self.servers, self.contexts = (
            array("I") for _ in range(6)
        )
        self._columns = (
            self.ids, self.ports, self.sids, self.owners, self.payers, self.servers, self.contexts
        )  # fmt: skip
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.names) - len(self._free)

    def add(self, name: str, context: int, sid: int) -> int:
        """Return a new row, without a port."""
        if self._free:
            row = self._free.pop()
        else:
            row = len(self.names)
            self.names.append(name)
            self.states.append(State.FREE)
            for column in self._columns:
                column.append(0)
        self.names[row], self.contexts[row], self.sids[row] = name, context, sid
        return row

    def remove(self, row: int) -> None:
        """Free a row."""
        self.names[row] = ""
        self.states[row] = State.FREE
        for column in self._columns:
            column[row] = 0
        self._free.append(row)


class Server:
    """A server that the name server starts: when it is made, and again when it is gone, or, on
    demand, when a message comes for one of its services.

    Attributes:
        command, uid, on_demand: as it was asked for.
        context (Context): in which its services are.
        port (ReceiveRight): its private bootstrap port.
        task (Task | None): what runs now, or ran last.
        starts (int): how often it was started; useless: since it last checked in to anything.
        rows (set[int]): of its services.
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
        self.rows: set[int] = set()

    def __repr__(self) -> str:
        return f"<Server {self.command!r}, {'running' if self.running else 'not running'}>"

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
        per_label (bool): whether each label has services of its own under the same names.
        children (set[Context]): below it.
    """

    def __init__(self, names: NameServer, parent: Context | None, per_label: bool) -> None:
        self._names = names
        self.parent = parent or self
        self.per_label = per_label
        self.port: ReceiveRight
        self.number = self.sid = 0
        self.active = True
        self.children: set[Context] = set()
        self.depth: int = parent.depth + 1 if parent else 0
        self._rows: dict[str, dict[str, int]] = {"": {}}
        self.shared = self._rows[""]

    def __repr__(self) -> str:
        return f"<Context {self.number}, {sum(map(len, self._rows.values()))} services>"

    @property
    def label(self) -> str:
        """The label of its port."""
        return self._names.kernel.label(self.sid)

    def find(self, name: str, message: Message) -> int:
        """Return the row of a name that the sender of a message meets here; -1 for none."""
        if self.per_label:
            own = self._rows.get(sender_label(message), {}).get(name, -1)
            if own >= 0:
                return own
        return self.shared.get(name, -1)

    def seen(self, message: Message) -> Iterator[tuple[str, int]]:
        """Yield names and rows that the sender of a message meets here, its own first."""
        own = self._rows.get(sender_label(message), {}) if self.per_label else {}
        yield from own.items()
        yield from ((name, row) for name, row in self.shared.items() if name not in own)

    def own_rows(self, message: Message) -> dict[str, int]:
        """Return the rows where what the sender of a message registers or creates belongs."""
        return self._rows.setdefault(sender_label(message), {}) if self.per_label else self.shared

    def instances(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Yield the rows by label, "" for those that all share."""
        yield from self._rows.items()

    def chain(self) -> Iterator[Context]:
        """Yield this context and its ancestors, the nearest first."""
        context = self
        while True:
            yield context
            if context.parent is context:
                return
            context = context.parent


class Service:
    """A service, for the embedder: a row of the table by names.

    Attributes:
        name (str), context (Context), label (str): of the service, not of its port.
        state (State), status (Status), server (Server | None).
        owner (Owner | None): for whom the name is kept.
        instance (str): the label whose own service this is; "" where all share it.
        port_id (int): the number of its port; 0 if it has none.
    """

    __slots__ = ("_names", "_row", "instance")

    def __init__(self, names: NameServer, row: int, instance: str = "") -> None:
        self._names = names
        self._row = row
        self.instance = instance

    def __repr__(self) -> str:
        return f"<Service {self.name!r} {self.state.name.lower()}>"

    @property
    def name(self) -> str:
        return self._table.names[self._row]

    @property
    def context(self) -> Context:
        return self._names.contexts[self._table.contexts[self._row]]

    @property
    def label(self) -> str:
        return self._names.kernel.label(self._table.sids[self._row])

    @property
    def state(self) -> State:
        return State(self._table.states[self._row])

    @property
    def status(self) -> Status:
        return self._names.status_of(self._row)

    @property
    def server(self) -> Server | None:
        return self._names.servers.get(self._table.servers[self._row])

    @property
    def owner(self) -> Owner | None:
        return self._names.owner_of(self._row)

    @property
    def port_id(self) -> int:
        return self._table.ids[self._row]

    @property
    def _table(self) -> Any:
        return self._names.table


def sender_label(message: Message) -> str:
    """Return the label under which a message was sent."""
    return message.task.kernel.label(message.sender_sid)
