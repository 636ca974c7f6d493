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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import inspect, mach
from ..enums import Disposition, Notification, SpecialPort
from ..errors import InvalidName, MachError
from ..message import Carried, Message
from ..port import ReceiveRight, Right, SendRight
from .launcher import Launcher
from .protocol import BOOTSTRAP, MAX_LOOKUP_COUNT, NAME_MAX, Code, Status, failure
from .service_contexts import ServiceContexts
from .services import (
    ACTIVE,
    Context,
    Found,
    Owner,
    Server,
    Service,
    Services,
    State,
    Terms,
    TermsTable,
    packed,
    port_of,
    sender_label,
    state_of,
    terms_of,
)
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
        root_label: of the root's port; by default what the policy says for the name server.
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
        self, kernel: Kernel, *, label: str | None = None, root_label: str | None = None,
        service_contexts: ServiceContexts | None = None,
        launch: Callable[[Launch], Task] | None = None, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.kernel = kernel
        self.task = kernel.create_task("bootstrap", label)
        self.limits = limits or Limits()
        self.contexts: dict[int, Context] = {}
        self.servers: dict[int, Server] = {}
        self.terms = TermsTable()
        self.lock = Turn()
        self._count = 0
        self._made = 0
        self._kept = ExitStack()
        self._sids: dict[str, int] = {}
        self._paid: Counter[Owner] = Counter()
        self._places: dict[int, Context | Server] = {}
        self._at: dict[int, list[Found]] = {}
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
        self.root = self._make_context(None, label=root_label)
        kernel.audit.name_services(self.asked)
        kernel.bootstrap_contexts = self.snapshot

    def __repr__(self) -> str:
        return f"<NameServer, {self._count} services in {len(self.contexts)} contexts>"

    # ---- for the embedder ----

    def give(self, task: Task, context: Context | None = None) -> None:
        """Make a context the one where a task, and its children, ask; the root unless said.

        Raises:
            AccessDenied: the task may not hold a right to the context's port, or the name server
                not set the port.
        """
        self.set_port(task, (context or self.root).port)

    def set_port(self, task: Task, port: ReceiveRight) -> None:
        """Make one of the name server's ports the bootstrap port of a task."""
        with port.make_send(self.task) as right:
            task.set_special_port(SpecialPort.BOOTSTRAP, right, caller=self.task)

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
            self._declare(place, place.shared, name, label=label)
        return Service(self, place.shared, name, "")

    def forget(self, service: Service) -> None:
        """Take a service away, and whatever right the name server has to its port."""
        with self.lock:
            self._remove(service._services, service.name)

    def services(self, context: Context | None = None) -> list[Service]:
        """Return the services of a context, or of all, sorted by context and name."""
        with self.lock:
            places = [context] if context else list(self.contexts.values())
            return [
                Service(self, services, name, label)
                for place in places
                for label, services in sorted(place.instances())
                for name in sorted(services)
            ]

    def snapshot(self) -> list[inspect.Context]:
        """Return contexts and services as data, for `Kernel.snapshot`."""
        with self.lock:
            return [self._context_row(context) for context in self.contexts.values()]

    def _context_row(self, context: Context) -> inspect.Context:
        rows = tuple(self._service_row(service) for service in self.services(context))
        parent = context.parent.number if context.parent is not context else 0
        port = context.port.port_id
        return inspect.Context(context.number, parent, context.label, port, rows)

    def _service_row(self, service: Service) -> inspect.Service:
        state = service.status.name.lower().replace("_", " ")
        if service.state == State.RESERVED:
            state = "reserved"
        server = service.server
        return inspect.Service(
            service.name, server.command if server else "", state, service.label, service.port_id,
            server.task.id if server and server.running and server.task else 0,
        )  # fmt: skip

    def use_service_contexts(self, service_contexts: ServiceContexts) -> None:
        """Label services by other contexts from now on, those there are as well.

        Raises:
            LabelError: a label is none of the policies in force; nothing has changed.
        """
        with self.lock:
            for label in sorted(service_contexts.labels()):
                self._sid(label)
            self.service_contexts = service_contexts
            for context in self.contexts.values():
                for _, services in context.instances():
                    for name in services:
                        self._change(Found(services, name), sid=self._service_sid(context, name))

    def status_of(self, service: int) -> Status:
        """Return the status of a service."""
        if state_of(service) in ACTIVE:
            return Status.ACTIVE
        server = self.terms_of(service).server
        return Status.ON_DEMAND if server is not None and server.on_demand else Status.INACTIVE

    def terms_of(self, service: int) -> Terms:
        """Return the terms of a service.

        Raises:
            KeyError: it is gone, or has changed.
        """
        terms = self.terms.get(terms_of(service))
        if terms is None:
            raise KeyError(service)
        return terms

    def port_id(self, service: int) -> int:
        """Return the number of a service's port; 0 if it has none."""
        return Right(self.task, port_of(service)).port_id

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

    def _owner(self, message: Message) -> Owner:
        """Return who sent a message, as an owner of names."""
        return Owner(sender_label(message), message.identity[1][0])

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
        for _, services in context.instances():
            for name in list(services):
                self._remove(services, name)
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

    def _find(
        self, message: Message, context: Context, name: str, permission: str
    ) -> tuple[Services, int]:
        """Return the nearest service of a name that the sender may do this to; 0 for none.

        One that it may not is passed over like one that is not there.
        """
        may, number, refused = self._may[permission], self._note(name), False
        for place in context.chain():
            services = place.find(name, message)
            service = services.get(name, 0)
            terms = self.terms.get(terms_of(service))
            if not service or terms is None or state_of(service) == State.RESERVED:
                continue
            if may(message, terms.sid, number, self.port_id(service), 0):
                return services, service
            refused = True
        if not refused:
            may(message, self._service_sid(context, name), number, 0, Code.UNKNOWN_SERVICE)
        return {}, 0

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

    def _port(self, service: int) -> Carried:
        """Return a send right to a service, for a message."""
        if state_of(service) == State.DECLARED:
            return Carried(ReceiveRight(self.task, port_of(service)), Disposition.MAKE_SEND)
        return Carried(SendRight(self.task, port_of(service)), Disposition.COPY_SEND)

    # ---- routines that change nothing ----

    def _look_up(self, message: Message, name: str) -> Carried:
        context, _ = self._place(message)
        _, service = self._find(message, context, name, "look_up")
        if not service:
            raise failure(Code.UNKNOWN_SERVICE, name)
        carried = self._port(service)
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
        with self.lock:
            _, service = self._find(message, context, name, "status")
            if not service:
                raise failure(Code.UNKNOWN_SERVICE, name)
            return self.status_of(service)

    def _info(self, message: Message) -> tuple[list[str], list[str], list[int]]:
        context, _ = self._place(message)
        with self.lock:
            found = dict(self._listed(message, context))
            servers = [self.terms_of(service).server for service in found.values()]
            commands = [server.command if server else "" for server in servers]
            return list(found), commands, [int(self.status_of(one)) for one in found.values()]

    def _listed(self, message: Message, context: Context) -> Iterator[tuple[str, int]]:
        """Yield what the sender may see listed, without what something nearer hides."""
        may, seen = self._may["list"], set[str]()
        for place in context.chain():
            for name, service in place.seen(message):
                if name in seen or state_of(service) == State.RESERVED:
                    continue
                sid = self.terms_of(service).sid
                if may(message, sid, self._note(name), self.port_id(service), 0):
                    seen.add(name)
                    yield name, service

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
            services, owner = context.own(message), self._owner(message)
            if name in services:
                self._check_free(services[name], server, owner)
            if not isinstance(port, SendRight):  # MACH_PORT_NULL, or a port that is dead
                self._let_go(port)
                if name in services:
                    self._remove(services, name)
                return
            if name in services:
                self._remove(services, name)
            self._check_room(owner)
            terms = self._terms(context, name, owner=owner, payer=owner)
            self._add(Found(services, name), port.name, State.REGISTERED, terms)
            self._watch(Found(services, name), port.name)
            _drop(port.request_notification(Notification.DEAD_NAME, self._notify, 1))

    def _check_free(self, service: int, server: Server | None, owner: Owner) -> None:
        """Check that a name may be taken by somebody.

        Raises:
            BootstrapError: it is another's, or served.
        """
        terms = self.terms_of(service)
        if terms.server is not None and terms.server is not server:
            raise failure(Code.NOT_PRIVILEGED)
        if state_of(service) in ACTIVE:
            raise failure(Code.SERVICE_ACTIVE)
        if terms.owner not in (None, owner):
            raise failure(Code.NOT_PRIVILEGED)

    def _check_room(self, payer: Owner | None) -> None:
        limit = self.limits.services_per_owner
        if self._count >= self.limits.services or (payer and limit and self._paid[payer] >= limit):
            raise failure(Code.NO_MEMORY)

    def _check_in(self, message: Message, name: str) -> Carried:
        context, server = self._place(message)
        with self.lock:
            services, service = self._find(message, context, name, "check_in")
            if not service:
                self._decide_quietly(message, context, name, "check_in")
                raise failure(Code.UNKNOWN_SERVICE, name)
            owner = self._owner(message)
            self._check_free(service, server, owner)
            port = ReceiveRight(self.task, port_of(service))
            if not self._takes(message, port, "hold_recv", name):
                raise failure(Code.NOT_PRIVILEGED, name)
            self._hand_over(Found(services, name), port)
            self._change(Found(services, name), state=State.CHECKED_IN, owner=owner)
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

    def _hand_over(self, found: Found, port: ReceiveRight) -> None:
        """Prepare for a receive right to leave: it comes back when its server dies."""
        right = port.make_send(self.task)
        _drop(port.request_notification(Notification.PORT_DESTROYED, self._notify))
        _drop(right.request_notification(Notification.DEAD_NAME, self._notify))
        self._watch(found, port.name)

    def _create_service(self, message: Message, name: str) -> ReceiveRight:
        context, server = self._changing(message)
        _check_name(name)
        self._decide(message, context, name, "create")
        with self.lock:
            services = context.own(message)
            if name in services or self._sees_above(message, context, name):
                raise failure(Code.NAME_IN_USE, name)
            return self._declare(context, services, name, server, self._owner(message))

    def _sees_above(self, message: Message, context: Context, name: str) -> bool:
        can = self.kernel.checker("service", "look_up")
        found = (place.find(name, message).get(name, 0) for place in context.chain())
        return any(
            service
            and state_of(service) != State.RESERVED
            and can(message.sender_sid, self.terms_of(service).sid)
            for service in found
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

    # ---- services ----

    def _terms(
        self, context: Context, name: str, server: Server | None = None,
        owner: Owner | None = None, payer: Owner | None = None,
    ) -> Terms:  # fmt: skip
        return Terms(context, self._service_sid(context, name), server, owner, payer)

    def _add(self, found: Found, port: int, state: State, terms: Terms) -> None:
        found.services[found.name] = packed(port, state, self.terms.take(terms))
        self._count += 1
        if terms.payer is not None:
            self._paid[terms.payer] += 1

    def _change(
        self, found: Found, *, port: int | None = None, state: int | None = None, **terms: Any
    ) -> None:
        service = found.service
        number = self.terms.take(self.terms_of(service)._replace(**terms))
        found.services[found.name] = packed(
            port_of(service) if port is None else port,
            state_of(service) if state is None else state,
            number,
        )
        self.terms.drop(terms_of(service))

    def _declare(
        self, context: Context, services: Services, name: str, server: Server | None = None,
        payer: Owner | None = None, label: str | None = None,
    ) -> ReceiveRight:  # fmt: skip
        self._check_room(payer)
        terms = self._terms(context, name, server, payer=payer)
        port = self.task.allocate_port(label)
        found = Found(services, name)
        self._add(found, port.name, State.DECLARED, terms)
        if server is not None:
            server.services.add(found)
            self._await_message(found)
        return port

    def _await_message(self, found: Found, waiting: bool = True) -> None:
        """Have the name server told of the next message to a service, or of one that waits."""
        service = found.service
        server = self.terms_of(service).server
        if server is not None and server.on_demand:
            self._watch(found, port_of(service))
            port = ReceiveRight(self.task, port_of(service))
            _drop(port.request_notification(Notification.MESSAGE, self._notify, waiting))

    def _watch(self, found: Found, port: int) -> None:
        """Keep in mind what a notification about a port is about."""
        here = self._at.setdefault(port, [])
        if found not in here:
            here.append(found)

    def _unwatch(self, found: Found, port: int) -> None:
        here = [other for other in self._at.pop(port, []) if other != found]
        if here:
            self._at[port] = here

    def _remove(self, services: Services, name: str) -> None:
        """Take a service away, and the name server's right to its port."""
        service = services.pop(name)
        terms, port, found = self.terms_of(service), port_of(service), Found(services, name)
        self.terms.drop(terms_of(service))
        self._count -= 1
        if terms.payer is not None:
            self._paid[terms.payer] -= 1
        if terms.server is not None:
            terms.server.services.discard(found)
        self._unwatch(found, port)
        if port:
            kind = ReceiveRight if state_of(service) == State.DECLARED else SendRight
            self.lock.later(kind(self.task, port).close)

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
            for found in self._at.pop(name, []):
                self._lost(found)
            for context in self._requestors.pop(name, []):
                self._end(context)
            if (server := self._servers_at.pop(name, None)) is not None:
                self._server_died(server)

    def _lost(self, found: Found) -> None:
        """The port of a service is dead: the name is kept for its owner, or gets another port."""
        if state_of(found.service) == State.REGISTERED:
            self._change(found, port=0, state=State.RESERVED)
        else:
            self._change(found, port=self.task.allocate_port().name, state=State.DECLARED)
            self._await_message(found)

    def _came_back(self, message: Message) -> None:
        """The receive right of a service is the name server's again: its server let it go."""
        (port,) = message.rights
        assert port is not None
        with self.lock:
            for found in self._at.get(port.name, []):
                if state_of(found.service) == State.CHECKED_IN:
                    self._unwatch(found, port.name)
                    SendRight(self.task, port.name).close()
                    self._change(found, state=State.DECLARED)
                    self._await_message(found)

    def _server_died(self, server: Server) -> None:
        """The task of a server is gone: it is started again, or when it is wanted again."""
        if server.on_demand:
            self.await_messages(server)
        else:
            self.lock.later(partial(self._launcher.start, server))

    def await_messages(self, server: Server, waiting: bool = True) -> None:
        """Start a server on demand when the next message comes for it, or for one that waits."""
        with self.lock:
            for found in server.services:
                if state_of(found.service) == State.DECLARED:
                    self._await_message(found, waiting)

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
            for found in self._at.get(name, []):
                service = found.service
                server = self.terms_of(service).server
                if server is not None and state_of(service) == State.DECLARED:
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
