# SPDX-License-Identifier: BSD-2-Clause
"""The name server: Mach's bootstrap server, under access control that is enforced.

It is a task with handler ports, so whoever asks is answered in the same call. Three things decide:
the kernel, per routine (class `mi_bootstrap` on the port of the context); this, per name (class
`service` on the label of the name); and what the client may hold, which is asked before a right is
given away that it could not take. A name that a client may not see is to it as one that there is
not: in look-up, status and listing.
"""

from __future__ import annotations

import itertools
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import mach
from ..enums import Disposition, Notification, SpecialPort
from ..errors import InvalidName, MachError
from ..message import Carried, Message
from ..port import ReceiveRight, Right, SendRight
from .launcher import Launcher
from .protocol import BOOTSTRAP, MAX_LOOKUP_COUNT, NAME_MAX, Code, Status, failure
from .service_contexts import ServiceContexts
from .services import ACTIVE, Context, Owner, Server, Service, State, Table, sender_label
from .turn import Turn

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..task import Task
    from .launcher import Launch

__all__ = ["Limits", "NameServer"]

_log = logging.getLogger("pympi.bootstrap")

_LOOK_UP = BOOTSTRAP.base + 4
_ANSWER = _LOOK_UP + 100
_NDR = bytes([0, 0, 0, 0, 1, 0, 0, 0])
_NAME_ROOM = 128
_ASKED = 1 << 15  # names that were asked for lately, for the audit trail
_PERMISSIONS = ("look_up", "register", "check_in", "create", "status", "list")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # categories of characters


@dataclass(frozen=True, slots=True)
class Limits:
    """What the name server takes at most.

    Attributes:
        services: names, in all contexts.
        services_per_owner: names that are kept for one label and uid; 0 is no limit.
        contexts, servers: in all.
        depth: of contexts below the root.
    """

    services: int = 1 << 20
    services_per_owner: int = 0
    contexts: int = 1 << 16
    servers: int = 1 << 12
    depth: int = 64


class NameServer:
    """A kernel's name server: `kernel.bootstrap`, or `kernel.start_bootstrap(...)`.

    Args:
        kernel: which gets a task for it.
        label: of that task; "-" unless said.
        service_contexts: labels of services by name; what has none there has the label of the port
            of its context.
        launch: starts servers, `launch(Launch) -> Task`; without it none can be created.
        limits: what it takes at most.

    Attributes:
        task (Task): the name server's own.
        root (Context): the context of tasks that have no parent.
        contexts (dict[int, Context]), servers (dict[int, Server]): by number.

    Raises:
        LabelError: a label is none of the policies in force.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     printd, editor = kernel.create_task("printd"), kernel.create_task("editor")
        ...     inbox = printd.allocate_port()
        ...     printd.bootstrap.register("com.example.print", inbox)
        ...     editor.bootstrap.look_up("com.example.print").send(b"page 1")
        ...     inbox.receive().body
        b'page 1'
    """

    def __init__(
        self, kernel: Kernel, *, label: str | None = None,
        service_contexts: ServiceContexts | None = None,
        launch: Callable[[Launch], Task] | None = None, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.kernel = kernel
        self.task = kernel.create_task("bootstrap", label)
        self.limits = limits or Limits()
        self.contexts: dict[int, Context] = {}
        self.servers: dict[int, Server] = {}
        self.table = Table()
        self.lock = Turn()
        self._made = 0
        self._kept = ExitStack()
        self._sids: dict[str, int] = {}
        self._owners: list[Owner] = [Owner("", 0)]
        self._owner_numbers: dict[Owner, int] = {}
        self._paid: dict[int, int] = {}
        self._places: dict[int, Context | Server] = {}
        self._rows_at: dict[int, list[int]] = {}
        self._requestors: dict[int, list[Context]] = {}
        self._servers_at: dict[int, Server] = {}
        self._asked: list[tuple[int, str]] = [(-1, "")] * _ASKED
        self._numbers = itertools.count(1)
        self._may = {name: self.task.sender_checker("service", name) for name in _PERMISSIONS}
        self._may_take = {
            name: self.task.sender_checker("mach_port", name) for name in ("hold_send", "hold_recv")
        }
        self._can_take = {name: kernel.checker("mach_port", name) for name in self._may_take}
        self._launcher = Launcher(self, launch)
        self._protocol = BOOTSTRAP.server(self._routines())
        self._notify = self.task.create_handler(self._told)
        self.service_contexts = ServiceContexts()
        self.use_service_contexts(service_contexts or ServiceContexts())
        self.root = self._make_context(None)
        kernel.audit.name_services(self.asked)

    def __repr__(self) -> str:
        return f"<NameServer, {len(self.table)} services in {len(self.contexts)} contexts>"

    # ---- for the embedder ----

    def give(self, task: Task, context: Context | None = None) -> None:
        """Make a context the one where a task, and its children, ask; the root unless said.

        Raises:
            AccessDenied: the task may not hold a right to the context's port.
        """
        with (context or self.root).port.make_send(task) as right:
            task.set_special_port(SpecialPort.BOOTSTRAP, right)

    def create_context(
        self, parent: Context | None = None, *, label: str | None = None, per_label: bool = False
    ) -> Context:
        """Make a context, which lives as long as the name server.

        Args:
            parent: above it; the root unless said.
            label: of its port, on which `mi_bootstrap` is asked, and of services that have none.
            per_label: give each label services of its own under the same names (polyinstantiation).

        Raises:
            LabelError: the label is none.
            BootstrapError: there are too many contexts.
        """
        with self.lock:
            return self._make_context(parent or self.root, label=label, per_label=per_label)

    def declare(
        self, name: str, context: Context | None = None, *, label: str | None = None
    ) -> Service:
        """Make a service that waits for its server to check in, as `create_service` does.

        Args:
            name: of the service.
            context: where; the root unless said.
            label: of the service's port; by default what the policy says for the name server.

        Raises:
            BootstrapError: it is there, or there is no room.
            ValueError: no name that can be used.
        """
        place = context or self.root
        if not acceptable(name):
            raise ValueError(f"a name has 1 to {NAME_MAX} bytes that can be shown, not {name!r}")
        with self.lock:
            if name in place.shared:
                raise failure(Code.NAME_IN_USE, name)
            return Service(self, self._declare(place, place.shared, name, None, label))

    def forget(self, service: Service) -> None:
        """Take a service away, and whatever right the name server has to its port."""
        with self.lock:
            rows = dict(service.context.instances())[service.instance]
            self._remove(rows, service.name)

    def services(self, context: Context | None = None) -> list[Service]:
        """Return the services of a context, or of all, sorted by context and name."""
        with self.lock:
            places = [context] if context else list(self.contexts.values())
            return [
                Service(self, row, label)
                for place in places
                for label, rows in sorted(place.instances())
                for _, row in sorted(rows.items())
            ]

    def use_service_contexts(self, service_contexts: ServiceContexts) -> None:
        """Label services by other contexts from now on, those there are as well.

        Raises:
            LabelError: a label is none of the policies in force; nothing has changed.
        """
        with self.lock:
            for label in sorted(service_contexts.labels()):
                self._sid(label)
            self.service_contexts = service_contexts
            for row, state in enumerate(self.table.states):
                if state != State.FREE:
                    place = self.contexts[self.table.contexts[row]]
                    self.table.sids[row] = self._service_sid(place, self.table.names[row])

    def status_of(self, row: int) -> Status:
        """Return the status of a row of the table."""
        if self.table.states[row] in ACTIVE:
            return Status.ACTIVE
        server = self.servers.get(self.table.servers[row])
        return Status.ON_DEMAND if server is not None and server.on_demand else Status.INACTIVE

    def owner_of(self, row: int) -> Owner | None:
        """Return for whom a row of the table is kept."""
        number = self.table.owners[row]
        return self._owners[number] if number else None

    def asked(self, number: int) -> str:
        """Return the name that a record of the audit trail is about, if that was lately."""
        asked, name = self._asked[number % _ASKED]
        return name if asked == number else ""

    def close(self) -> None:
        """Let go of labels; the kernel does this when it is closed."""
        self._kept.close()

    # ---- labels, owners, names ----

    def _sid(self, label: str) -> int:
        """Return the SID of a label, which is kept as long as the name server."""
        if label not in self._sids:
            self._sids[label] = self._kept.enter_context(self.kernel.borrowed(label))
        return self._sids[label]

    def _service_sid(self, context: Context, name: str) -> int:
        label = self.service_contexts.label(name)
        return context.sid if label is None else self._sids[label]

    def _owner(self, message: Message) -> int:
        """Return the number of who sent a message, as an owner."""
        owner = Owner(sender_label(message), message.identity[1][0])
        number = self._owner_numbers.get(owner)
        if number is None:
            number = self._owner_numbers[owner] = len(self._owners)
            self._owners.append(owner)
        return number

    def _note(self, name: str) -> int:
        """Return a number by which the audit trail knows a name for a while."""
        number = next(self._numbers) & 0xFFFFFFFF
        self._asked[number % _ASKED] = number, name
        return number

    # ---- contexts ----

    def _make_context(
        self, parent: Context | None, *, label: str | None = None, per_label: bool = False
    ) -> Context:
        if len(self.contexts) >= self.limits.contexts or (
            parent is not None and parent.depth >= self.limits.depth
        ):
            raise failure(Code.NO_MEMORY, "too many contexts")
        context = Context(self, parent, per_label)
        context.port = self._open(context, label)
        context.sid = self._sid(context.port.label)
        self._made += 1
        context.number = self._made
        self.contexts[context.number] = context
        if parent is not None:
            parent.children.add(context)
        return context

    def _open(self, place: Context | Server, label: str | None = None) -> ReceiveRight:
        """Return a port where clients ask, for a context or a server."""
        port = self.task.create_handler(self._handle, label=label)
        port.serve(BOOTSTRAP)
        self._places[port.name] = place
        return port

    def _place(self, message: Message) -> tuple[Context, Server | None]:
        """Return the context a message is about, and whose private port it came by."""
        place = self._places.get(message.local_name)
        if place is None:  # it ended while this message was under way
            raise failure(Code.NOT_PRIVILEGED)
        return (place.context, place) if isinstance(place, Server) else (place, None)

    def _changing(self, message: Message) -> tuple[Context, Server | None]:
        """Return as `_place` where the context takes changes.

        Raises:
            NotPrivileged: it does not.
        """
        context, server = self._place(message)
        if not context.active:
            raise failure(Code.NOT_PRIVILEGED)
        return context, server

    def _end(self, context: Context) -> None:
        """End a context whose requestor died, and what is below it, the furthest first."""
        for child in list(context.children):
            self._end(child)
        context.active = False
        for _, rows in context.instances():
            for name in list(rows):
                self._remove(rows, name)
        for server in [s for s in self.servers.values() if s.context is context]:
            self._retire(server)
        _drop(context.port.request_notification(Notification.NO_SENDERS, context.port, 1))

    def _retire(self, server: Server) -> None:
        server.retired = True
        del self.servers[server.number], self._places[server.port.name]
        self.lock.later(server.port.close)

    def _free(self, context: Context) -> None:
        """Let an ended context go: nobody can ask there any more."""
        context.parent.children.discard(context)
        if self.contexts.pop(context.number, None) is not None:
            self._places.pop(context.port.name, None)
            self.lock.later(context.port.close)

    # ---- requests ----

    def _routines(self) -> dict[str, Callable[..., Any]]:
        return {
            "bootstrap_create_server": self._create_server,
            "bootstrap_unprivileged": self._unprivileged,
            "bootstrap_check_in": self._check_in,
            "bootstrap_register": self._register,
            "bootstrap_look_up": self._look_up,
            "bootstrap_look_up_array": self._look_up_array,
            "bootstrap_parent": self._parent,
            "bootstrap_status": self._status,
            "bootstrap_info": self._info,
            "bootstrap_subset": self._subset,
            "bootstrap_create_service": self._create_service,
        }

    def _handle(self, message: Message) -> None:
        """Serve a request. Look-ups are most of them, and get by without MIG's general form."""
        if message.sender_task == 0:
            self._told(message)
        elif message.msgh_id != _LOOK_UP or not self._look_up_at_once(message):
            self._protocol(message)

    def _look_up_at_once(self, message: Message) -> bool:
        """Serve a look-up that is laid out as it should be and succeeds; what else is not ours."""
        body = message.body
        text, nul, _ = body[len(_NDR) :].partition(b"\0")
        plain = nul and len(body) == len(_NDR) + _NAME_ROOM and body.startswith(_NDR)
        if not plain or message.carried_rights or message.carried_memory or not message.reply_name:
            return False
        try:
            carried = self._look_up(message, text.decode())
        except MachError as error:
            self._protocol.fail(message, error.code)
            return True
        except UnicodeDecodeError:
            return False
        try:
            message.reply(b"", _ANSWER, rights=[carried], timeout=0)
        except MachError:
            message.close()  # nobody wants the answer any more, or the service died meanwhile
        return True

    # ---- finding ----

    def _find(self, message: Message, context: Context, name: str, permission: str) -> int:
        """Return the row of a name that the sender may do this to, the nearest; -1 for none.

        One that it may not is passed over like one that is not there.
        """
        may, number, table, refused = self._may[permission], self._note(name), self.table, False
        for place in context.chain():
            row = place.find(name, message)
            if row < 0 or table.states[row] == State.RESERVED:
                continue
            if may(message, table.sids[row], number, table.ids[row], 0):
                return row
            refused = True
        if not refused:
            may(message, self._service_sid(context, name), number, 0, Code.UNKNOWN_SERVICE)
        return -1

    def _decide(self, message: Message, context: Context, name: str, permission: str) -> None:
        """Decide about a change to a name, whether there is such a service or not.

        Raises:
            NotPrivileged: refused.
        """
        sid = self._service_sid(context, name)
        if not self._may[permission](message, sid, self._note(name), 0, 0):
            raise failure(Code.NOT_PRIVILEGED, name)

    def _takes(self, message: Message, right: Right, permission: str, name: str) -> bool:
        """Tell whether the sender could hold a right; if not, that is recorded."""
        if not len(self.kernel.policies):
            return True
        sid = right.sid
        if self._can_take[permission](message.sender_sid, sid):
            return True
        number, code = self._note(name), mach.KERN_NO_ACCESS
        return self._may_take[permission](message, sid, number, right.port_id, code)

    def _port(self, row: int) -> Carried:
        """Return a send right to a service, for a message."""
        name = self.table.ports[row]
        if self.table.states[row] == State.DECLARED:
            return Carried(ReceiveRight(self.task, name), Disposition.MAKE_SEND)
        return Carried(SendRight(self.task, name), Disposition.COPY_SEND)

    # ---- routines that change nothing ----

    def _look_up(self, message: Message, name: str) -> Carried:
        context, _ = self._place(message)
        row = self._find(message, context, name, "look_up")
        if row < 0:
            raise failure(Code.UNKNOWN_SERVICE, name)
        carried = self._port(row)
        if not self._takes(message, carried.right, "hold_send", name):
            raise failure(Code.UNKNOWN_SERVICE, name)
        return carried

    def _look_up_array(
        self, message: Message, names: Iterable[str]
    ) -> tuple[list[Carried | None], bool]:
        wanted = list(names)
        if len(wanted) > MAX_LOOKUP_COUNT:
            raise failure(Code.BAD_COUNT)
        found = [self._look_up_or_none(message, name) for name in wanted]
        return found, None not in found

    def _look_up_or_none(self, message: Message, name: str) -> Carried | None:
        try:
            return self._look_up(message, name)
        except MachError:
            return None

    def _status(self, message: Message, name: str) -> int:
        context, _ = self._place(message)
        row = self._find(message, context, name, "status")
        if row < 0:
            raise failure(Code.UNKNOWN_SERVICE, name)
        return self.status_of(row)

    def _info(self, message: Message) -> tuple[list[str], list[str], list[int]]:
        context, _ = self._place(message)
        with self.lock:
            rows = list(self._listed(message, context))
            names = [self.table.names[row] for row in rows]
            servers = [self.servers.get(self.table.servers[row]) for row in rows]
            commands = [server.command if server else "" for server in servers]
            return names, commands, [int(self.status_of(row)) for row in rows]

    def _listed(self, message: Message, context: Context) -> Iterator[int]:
        """Yield what the sender may see listed, without what something nearer hides."""
        may, seen = self._may["list"], set[str]()
        for place in context.chain():
            for name, row in place.seen(message):
                if name in seen or self.table.states[row] == State.RESERVED:
                    continue
                if may(message, self.table.sids[row], self._note(name), self.table.ids[row], 0):
                    seen.add(name)
                    yield row

    def _unprivileged(self, message: Message) -> ReceiveRight:
        return self._place(message)[0].port

    def _parent(self, message: Message, token: tuple[int, ...]) -> ReceiveRight:
        if token[0]:
            raise failure(Code.NOT_PRIVILEGED)
        return self._place(message)[0].parent.port

    # ---- routines that change something ----

    def _register(self, message: Message, name: str, port: Right | None) -> None:
        context, server = self._changing(message)
        _check_name(name)
        self._decide(message, context, name, "register")
        with self.lock:
            rows, owner = context.own_rows(message), self._owner(message)
            row = rows.get(name, -1)
            if row >= 0:
                self._check_free(row, server, owner)
            if not isinstance(port, SendRight):  # MACH_PORT_NULL, or a port that is dead
                self._let_go(port)
                if row >= 0:
                    self._remove(rows, name)
                return
            if row >= 0:
                self._remove(rows, name)
            self._check_room(owner)
            row = self._add(context, rows, name, State.REGISTERED, owner)
            self.table.owners[row] = owner
            self._watch(row, port)

    def _check_free(self, row: int, server: Server | None, owner: int) -> None:
        """Check that a name may be taken by somebody.

        Raises:
            BootstrapError: it is another's, or served.
        """
        table = self.table
        if table.servers[row] and self.servers.get(table.servers[row]) is not server:
            raise failure(Code.NOT_PRIVILEGED)
        if table.states[row] in ACTIVE:
            raise failure(Code.SERVICE_ACTIVE)
        if table.owners[row] not in (0, owner):
            raise failure(Code.NOT_PRIVILEGED)

    def _check_room(self, owner: int) -> None:
        limit = self.limits.services_per_owner
        if len(self.table) >= self.limits.services or (
            owner and limit and self._paid.get(owner, 0) >= limit
        ):
            raise failure(Code.NO_MEMORY)

    def _check_in(self, message: Message, name: str) -> Carried:
        context, server = self._place(message)
        row = self._find(message, context, name, "check_in")
        if row < 0:
            self._decide_quietly(message, context, name, "check_in")
            raise failure(Code.UNKNOWN_SERVICE, name)
        with self.lock:
            owner = self._owner(message)
            self._check_free(row, server, owner)
            if self.table.states[row] != State.DECLARED:
                raise failure(Code.UNKNOWN_SERVICE, name)
            port = ReceiveRight(self.task, self.table.ports[row])
            if not self._takes(message, port, "hold_recv", name):
                raise failure(Code.NOT_PRIVILEGED, name)
            self._hand_over(row, port)
            self.table.owners[row] = owner
            if server is not None:
                server.useless = 0
            return port.move_receive()

    def _decide_quietly(
        self, message: Message, context: Context, name: str, permission: str
    ) -> None:
        """Answer as for a change that is refused, where the name would be.

        Raises:
            NotPrivileged: refused.
        """
        sid = self._service_sid(context, name)
        if not self.kernel.access(message.sender_sid, sid, "service", permission):
            raise failure(Code.NOT_PRIVILEGED, name)

    def _hand_over(self, row: int, port: ReceiveRight) -> None:
        """Prepare for a receive right to leave: it comes back when its server dies."""
        right = port.make_send(self.task)
        _drop(port.request_notification(Notification.PORT_DESTROYED, self._notify))
        self._note_port(row, right.name)
        _drop(right.request_notification(Notification.DEAD_NAME, self._notify))
        self.table.states[row] = State.CHECKED_IN

    def _create_service(self, message: Message, name: str) -> ReceiveRight:
        context, server = self._changing(message)
        _check_name(name)
        self._decide(message, context, name, "create")
        with self.lock:
            rows = context.own_rows(message)
            if name in rows or self._sees_above(message, context, name):
                raise failure(Code.NAME_IN_USE, name)
            row = self._declare(context, rows, name, server, payer=self._owner(message))
            return ReceiveRight(self.task, self.table.ports[row])

    def _sees_above(self, message: Message, context: Context, name: str) -> bool:
        can, table = self.kernel.checker("service", "look_up"), self.table
        rows = (place.find(name, message) for place in context.chain())
        return any(
            row >= 0
            and table.states[row] != State.RESERVED
            and can(message.sender_sid, table.sids[row])
            for row in rows
        )

    def _subset(self, message: Message, requestor: Right | None) -> ReceiveRight:
        context, _ = self._changing(message)
        with self.lock:
            subset = self._make_context(context)
            if isinstance(requestor, SendRight):
                self._requestors.setdefault(requestor.name, []).append(subset)
                _drop(requestor.request_notification(Notification.DEAD_NAME, self._notify, 1))
            else:
                self._let_go(requestor)
                self._end(subset)
            return subset.port

    def _create_server(
        self, message: Message, command: str, uid: int, on_demand: bool, token: tuple[int, ...]
    ) -> ReceiveRight:
        context, _ = self._changing(message)
        if token[1] not in (0, uid):
            raise failure(Code.NOT_PRIVILEGED)
        self._launcher.check()
        with self.lock:
            if len(self.servers) >= self.limits.servers:
                raise failure(Code.NO_MEMORY)
            server = Server(context, command, uid, bool(on_demand))
            server.port = self._open(server)
            self._made += 1
            server.number = self._made
            self.servers[server.number] = server
            if not on_demand:
                self.lock.later(partial(self._launcher.start, server))
            return server.port

    # ---- rows ----

    def _add(
        self, context: Context, rows: dict[str, int], name: str, state: State, payer: int
    ) -> int:
        row = self.table.add(name, context.number, self._service_sid(context, name))
        self.table.states[row], self.table.payers[row] = state, payer
        if payer:
            self._paid[payer] = self._paid.get(payer, 0) + 1
        rows[name] = row
        return row

    def _declare(
        self, context: Context, rows: dict[str, int], name: str, server: Server | None,
        label: str | None = None, payer: int = 0,
    ) -> int:  # fmt: skip
        self._check_room(payer)
        port = self.task.allocate_port(label)
        row = self._add(context, rows, name, State.DECLARED, payer)
        self.table.ports[row], self.table.ids[row] = port.name, port.port_id
        if server is not None:
            self.table.servers[row] = server.number
            server.rows.add(row)
            self._await_message(row)
        return row

    def _await_message(self, row: int, waiting: bool = True) -> None:
        """Have the name server told of the next message to a service, or of one that waits."""
        server = self.servers.get(self.table.servers[row])
        if server is not None and server.on_demand:
            port = ReceiveRight(self.task, self.table.ports[row])
            self._note_port(row, port.name)
            _drop(port.request_notification(Notification.MESSAGE, self._notify, waiting))

    def _note_port(self, row: int, port: int) -> None:
        rows = self._rows_at.setdefault(port, [])
        if row not in rows:
            rows.append(row)

    def _watch(self, row: int, port: SendRight) -> None:
        """Make a port that somebody else receives from the service's."""
        self.table.ports[row], self.table.ids[row] = port.name, port.port_id
        self._note_port(row, port.name)
        _drop(port.request_notification(Notification.DEAD_NAME, self._notify, 1))

    def _remove(self, rows: dict[str, int], name: str) -> None:
        """Take a service away, and the name server's rights to its port."""
        row = rows.pop(name)
        port, state, payer = (
            column[row] for column in (self.table.ports, self.table.states, self.table.payers)
        )
        if payer:
            self._paid[payer] -= 1
        self._forget_port(row, port)
        if (server := self.servers.get(self.table.servers[row])) is not None:
            server.rows.discard(row)
        self.table.remove(row)
        if port:
            kind = ReceiveRight if state == State.DECLARED else SendRight
            self.lock.later(kind(self.task, port).close)

    def _forget_port(self, row: int, port: int) -> None:
        rows = self._rows_at.get(port, [])
        if row in rows:
            rows.remove(row)
        if not rows:
            self._rows_at.pop(port, None)

    def _let_go(self, right: Right | None) -> None:
        if right is not None and right.name != mach.MACH_PORT_DEAD:
            self.lock.later(right.close)

    # ---- notifications ----

    def _told(self, message: Message) -> None:
        """Act on what the kernel tells; a message of anybody else means nothing here."""
        acts = {
            Notification.DEAD_NAME: self._port_died,
            Notification.PORT_DESTROYED: self._came_back,
            Notification.NO_SENDERS: self._no_senders,
            Notification.MESSAGE: self._wanted,
        }
        kind = message.notification
        if kind in acts:
            acts[kind](message)

    def _port_died(self, message: Message) -> None:
        """A port that somebody registered, a requestor, a service's own, or a task is dead."""
        name = int.from_bytes(message.body[8:12], "little")
        with self.lock:
            with suppress(InvalidName):  # it was let go meanwhile
                mach.mach_port_destroy(self.task, name)
            for row in self._rows_at.pop(name, []):
                self._lost(row)
            for context in self._requestors.pop(name, []):
                self._end(context)
            if (server := self._servers_at.pop(name, None)) is not None:
                self._server_died(server)

    def _server_died(self, server: Server) -> None:
        """The task of a server is gone: it is started again, or when it is wanted again."""
        if server.on_demand:
            self.await_messages(server)
        else:
            self.lock.later(partial(self._launcher.start, server))

    def await_messages(self, server: Server, waiting: bool = True) -> None:
        """Start a server on demand when the next message comes for it, or for one that waits."""
        with self.lock:
            for row in server.rows:
                if self.table.states[row] == State.DECLARED:
                    self._await_message(row, waiting)

    def _lost(self, row: int) -> None:
        """The port of a service is dead: the name is kept for its owner, or gets another port."""
        table = self.table
        table.ports[row] = table.ids[row] = 0
        if table.states[row] == State.REGISTERED:
            table.states[row] = State.RESERVED
            return
        port = self.task.allocate_port()
        table.ports[row], table.ids[row] = port.name, port.port_id
        self._inactive(row)

    def _came_back(self, message: Message) -> None:
        """The receive right of a service is the name server's again: its server let it go."""
        (port,) = message.rights
        assert port is not None
        with self.lock:
            here = self._rows_at.get(port.name, [])
            for row in [r for r in here if self.table.states[r] == State.CHECKED_IN]:
                self._forget_port(row, port.name)
                SendRight(self.task, port.name).close()
                self._inactive(row)

    def _inactive(self, row: int) -> None:
        """Nobody serves a service any more; a server on demand is started by the next message."""
        self.table.states[row] = State.DECLARED
        self._await_message(row)

    def watch_task(self, server: Server, task: Task) -> None:
        """Learn of the death of a server's task, by a port of its own that dies with it."""
        try:
            right = task.allocate_port().make_send(self.task)
        except MachError as error:
            _log.warning("%r: nobody will tell when it dies: %s", server, error)
            return
        with self.lock:
            self._servers_at[right.name] = server
            _drop(right.request_notification(Notification.DEAD_NAME, self._notify, 1))

    def _no_senders(self, message: Message) -> None:
        """Nobody can ask at a context or as a server any more."""
        place = self._places.get(message.local_name)
        with self.lock:
            if isinstance(place, Context) and not place.active:
                self._free(place)

    def _wanted(self, message: Message) -> None:
        """A message waits for a service whose server is to be started for it."""
        name = int.from_bytes(message.body[8:12], "little")
        with self.lock:
            for row in self._rows_at.get(name, []):
                server = self.servers.get(self.table.servers[row])
                if server is not None and self.table.states[row] == State.DECLARED:
                    self.lock.later(partial(self._launcher.start, server))


def acceptable(name: str) -> bool:
    """Tell whether a name can be given to a service: whoever reads it sees what it is.

    It has 1 to 127 bytes in UTF-8, no control, format or unassigned characters, and is in Unicode's
    normal form C, so that no two names look the same for want of it.
    """
    if not name or len(name) > NAME_MAX:
        return False
    if name.isascii():
        return name.isprintable()
    shown = not any(unicodedata.category(character) in _UNSEEN for character in name)
    return shown and len(name.encode()) <= NAME_MAX and unicodedata.is_normalized("NFC", name)


def _check_name(name: str) -> None:
    """Check that a client may give a service this name.

    Raises:
        MachError: KERN_INVALID_ARGUMENT.
    """
    if not acceptable(name):
        raise failure(mach.KERN_INVALID_ARGUMENT, "the name cannot be used")


def _drop(right: Right | None) -> None:
    """Close a right that a request for notification gave back."""
    if right is not None:
        right.close()
