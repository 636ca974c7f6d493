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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import inspect, mach
from ..enums import Disposition, Notification, SpecialPort
from ..errors import InvalidName, MachError
from ..message import Carried, Message
from ..port import ReceiveRight, Right, SendRight
from .launcher import Launcher
from .protocol import (
    BOOTSTRAP,
    MAX_LISTED,
    MAX_LOOKUP_COUNT,
    NAME_MAX,
    Code,
    Status,
    failure,
)
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
        self._at: dict[int, dict[Found, None]] = {}
        self._requestors: dict[int, dict[Context, None]] = {}
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
        self._handler = self._handle  # one object: all its ports share one handler
        self._notify = self.task.create_handler(self._told)
        self._returns = self.task.create_handler(self._given_back)
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
            return [service for place in places for service in self._services_in(place)]

    def _services_in(self, context: Context) -> list[Service]:
        return [
            Service(self, services, name, label)
            for label, services in sorted(context.instances())
            for name in sorted(services)
        ]

    def snapshot(self) -> list[inspect.Context]:
        """Return contexts and services as data, for `Kernel.snapshot`."""
        with self.lock:
            return [self._context_row(context) for context in self.contexts.values()]

    def _context_row(self, context: Context) -> inspect.Context:
        rows = tuple(self._service_row(service) for service in self._services_in(context))
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
        return _status(service, self.terms_of(service))

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
        context.port, context.sid = self._open(context, label)
        self._made += 1
        context.number = self._made
        self.contexts[context.number] = context
        if parent is not None:
            parent.children.add(context)
        return context

    def _open(self, place: Context | Server, label: str | None = None) -> tuple[ReceiveRight, int]:
        """Return a port where clients ask, for a context or a server, and its SID."""
        port = self.task.create_handler(self._handler, label=label)
        with _closing(port):
            port.serve(BOOTSTRAP)
            sid = self._sid(port.label)
        self._places[port.name] = place
        return port, sid

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
        if not context.active:
            return
        for child in list(context.children):
            self._end(child)
        context.active = False
        self._forget_requestor(context)
        for _, services in context.instances():
            for name in list(services):
                self._remove(services, name)
        for server in [s for s in self.servers.values() if s.context is context]:
            self._retire(server)
        try:
            _drop(context.port.request_notification(Notification.NO_SENDERS, context.port))
        except MachError:  # nobody would tell when it can be freed
            self.lock.later(partial(self._free, context))

    def _forget_requestor(self, context: Context) -> None:
        """Let go of the right to a requestor that outlives its context."""
        here = self._requestors.get(context.requestor, {})
        if context in here:
            del here[context]
            self._close_later(SendRight(self.task, context.requestor))
            if not here:
                del self._requestors[context.requestor]

    def _retire(self, server: Server) -> None:
        server.retired = True
        del self.servers[server.number], self._places[server.port.name]
        self._close_later(server.port)

    def _free(self, context: Context) -> None:
        """Let an ended context go: nobody can ask there any more."""
        with self.lock:
            context.parent.children.discard(context)
            if self.contexts.pop(context.number, None) is not None:
                self._places.pop(context.port.name, None)
                self._close_later(context.port)

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
            self._no_senders(message)
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
            self._answer_look_up(message, text.decode())
        except MachError as error:
            self._protocol.fail(message, error.code)
        except UnicodeDecodeError:
            return False
        return True

    def _answer_look_up(self, message: Message, name: str) -> None:
        tried, carried = None, self._look_up(message, name)
        while carried != tried:
            try:
                message.reply(b"", _ANSWER, rights=[carried], timeout=0)
                return
            except MachError:  # perhaps the service is another by now
                tried, carried = carried, self._look_up(message, name)
        message.close()  # it is there as before, and nobody wants the answer any more

    # ---- finding ----

    def _find(
        self, message: Message, context: Context, name: str, permission: str
    ) -> tuple[Services, int, Terms] | None:
        """Return the nearest service of a name that the sender may do this to, and its terms.

        One that it may not is passed over like one that is not there. Nothing is locked: this is
        what was true at one moment of the call.
        """
        may, number, refused = self._may[permission], self._note(name), False
        for place in context.chain():
            services = place.find(name, message)
            service = services.get(name, 0)
            terms = self.terms.get(terms_of(service))
            while service and terms is None:  # it changed in between
                service = services.get(name, 0)
                terms = self.terms.get(terms_of(service))
            if not service or terms is None or state_of(service) == State.RESERVED:
                continue
            if may(message, terms.sid, number, self.port_id(service), 0):
                return services, service, terms
            refused = True
        if not refused:
            may(message, self._service_sid(context, name), number, 0, Code.UNKNOWN_SERVICE)
        return None

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
        try:
            sid = right.sid
        except InvalidName:  # it is gone meanwhile: whoever goes on finds that out
            return True
        if self._can_take[permission](message.sender_sid, sid):
            return True
        number, code = self._note(name), mach.KERN_NO_ACCESS
        return self._may_take[permission](message, sid, number, right.port_id, code)

    # ---- routines that change nothing ----

    def _look_up(self, message: Message, name: str) -> Carried:
        context, _ = self._place(message)
        found = self._find(message, context, name, "look_up")
        if found is None:
            raise failure(Code.UNKNOWN_SERVICE, name)
        right = SendRight(self.task, port_of(found[1]))
        if not self._takes(message, right, "hold_send", name):
            raise failure(Code.UNKNOWN_SERVICE, name)
        return Carried(right, Disposition.COPY_SEND)

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
        found = self._find(message, context, name, "status")
        if found is None:
            raise failure(Code.UNKNOWN_SERVICE, name)
        return _status(*found[1:])

    def _info(self, message: Message) -> tuple[list[str], list[str], list[int]]:
        context, _ = self._place(message)
        with self.lock:
            there = [
                (name, service, self.terms_of(service))
                for place in context.chain()
                for name, service in place.seen(message)
                if state_of(service) != State.RESERVED
            ]
        found = dict(itertools.islice(self._listed(message, there), MAX_LISTED + 1))
        if len(found) > MAX_LISTED:
            raise failure(Code.NO_MEMORY)
        servers = [terms.server for _, terms in found.values()]
        commands = [server.command if server else "" for server in servers]
        return list(found), commands, [int(_status(*one)) for one in found.values()]

    def _listed(
        self, message: Message, there: list[tuple[str, int, Terms]]
    ) -> Iterator[tuple[str, tuple[int, Terms]]]:
        """Yield what the sender may see listed, without what something nearer hides."""
        may, seen = self._may["list"], set[str]()
        for name, service, terms in there:
            if name in seen:
                continue
            if may(message, terms.sid, self._note(name), self.port_id(service), 0):
                seen.add(name)
                yield name, (service, terms)

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
            old = services.get(name, 0)
            if old:
                _check_free(old, self.terms_of(old), server, owner)
            if isinstance(port, SendRight):
                self._check_room(owner, old)
                _drop(port.request_notification(Notification.DEAD_NAME, self._notify, 1))
                terms = self._terms(context, name, owner=owner, payer=owner)
                self._add(Found(services, name), port.name, State.REGISTERED, terms)
            else:  # MACH_PORT_NULL, or a port that is dead
                self._let_go(port)
                services.pop(name, None)
            if old:
                self._gone(Found(services, name), old)
            if name in services:
                self._watch(Found(services, name), port_of(services[name]))

    def _check_room(self, payer: Owner | None, instead_of: int = 0) -> None:
        """Check that there is room for a service, which may take the place of another.

        Raises:
            BootstrapError: there is none.
        """
        limit, freed = self.limits.services_per_owner, bool(instead_of)
        full = self._count - freed >= self.limits.services
        if payer is not None and limit:
            freed = freed and self.terms_of(instead_of).payer == payer
            full = full or self._paid.get(payer, 0) - freed >= limit
        if full:
            raise failure(Code.NO_MEMORY)

    def _check_in(self, message: Message, name: str) -> Carried:
        context, server = self._place(message)
        while True:
            found = self._find(message, context, name, "check_in")
            if found is None:
                self._decide_quietly(message, context, name, "check_in")
                raise failure(Code.UNKNOWN_SERVICE, name)
            services, service, terms = found
            port, owner = ReceiveRight(self.task, port_of(service)), self._owner(message)
            _check_free(service, terms, server, owner)
            if not self._takes(message, port, "hold_recv", name):
                raise failure(Code.NOT_PRIVILEGED, name)
            with self.lock:
                if services.get(name) == service:  # as it was when all this was decided
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
        right = SendRight(self.task, port.name)
        _drop(right.request_notification(Notification.DEAD_NAME, self._notify))
        _drop(port.request_notification(Notification.PORT_DESTROYED, self._returns))
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

    def _subset(self, message: Message, requestor: Right | None) -> Carried:
        context, _ = self._changing(message)
        with self.lock, ExitStack() as undo:
            if isinstance(requestor, SendRight):
                _drop(requestor.request_notification(Notification.DEAD_NAME, self._notify, 1))
            subset = self._make_context(context)
            undo.callback(self._end, subset)
            right = subset.port.make_send(self.task)
            if isinstance(requestor, SendRight):
                undo.pop_all()
                subset.requestor = requestor.name
                self._requestors.setdefault(requestor.name, {})[subset] = None
            else:  # MACH_PORT_NULL, or a port that is dead: the subset ends at once
                self._let_go(requestor)
            return right.move_send()

    def _create_server(
        self, message: Message, command: str, uid: int, on_demand: bool, token: tuple[int, ...]
    ) -> Carried:
        context, _ = self._changing(message)
        if token[1] not in (0, uid):
            raise failure(Code.NOT_PRIVILEGED)
        self._launcher.check()
        with self.lock, ExitStack() as undo:
            if len(self.servers) >= self.limits.servers:
                raise failure(Code.NO_MEMORY)
            server = Server(context, command, uid, bool(on_demand))
            server.port, _ = self._open(server)
            self._made += 1
            server.number = self._made
            self.servers[server.number] = server
            undo.callback(self._retire, server)
            _drop(server.port.request_notification(Notification.NO_SENDERS, server.port, 1))
            right = server.port.make_send(self.task)
            undo.pop_all()
            if not on_demand:
                self.lock.later(partial(self._launcher.start, server))
            return right.move_send()

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
        port = self._new_port(label)
        found = Found(services, name)
        self._add(found, port.name, State.DECLARED, terms)
        with ExitStack() as undo:
            undo.callback(self._remove, services, name)
            if server is not None:
                server.services[found] = None
                self._await_message(found)
            undo.pop_all()
        return port

    def _new_port(self, label: str | None = None) -> ReceiveRight:
        """Return a port for a service; the name server keeps a send right, whoever serves it."""
        port = self.task.allocate_port(label)
        with _closing(port):
            port.make_send(self.task)
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
        self._at.setdefault(port, {})[found] = None

    def _unwatch(self, found: Found, port: int) -> None:
        here = self._at.get(port, {})
        here.pop(found, None)
        if not here:
            self._at.pop(port, None)

    def _remove(self, services: Services, name: str) -> None:
        """Take a service away."""
        self._gone(Found(services, name), services.pop(name))

    def _gone(self, found: Found, service: int) -> None:
        """Let go of what the name server has of a service that is no more, or another now."""
        terms, port = self.terms_of(service), port_of(service)
        self.terms.drop(terms_of(service))
        self._count -= 1
        if terms.payer is not None:
            self._paid[terms.payer] -= 1
            if not self._paid[terms.payer]:
                del self._paid[terms.payer]
        if terms.server is not None:
            terms.server.services.pop(found, None)
        self._unwatch(found, port)
        if port:
            self._close_later(SendRight(self.task, port))
        if state_of(service) == State.DECLARED:
            self._close_later(ReceiveRight(self.task, port))

    def _let_go(self, right: Right | None) -> None:
        if right is not None and right.name != mach.MACH_PORT_DEAD:
            self._close_later(right)

    def _close_later(self, right: Right) -> None:
        """Close a right when nothing is locked; it may be gone by then, with its port."""
        self.lock.later(partial(_close, right))

    # ---- notifications ----

    def _told(self, message: Message) -> None:
        """Act on what the kernel tells; a message of anybody else means nothing here."""
        acts = {
            Notification.DEAD_NAME: self._port_died,
            Notification.MESSAGE: self._wanted,
        }
        act = acts.get(message.notification)  # type: ignore[arg-type]
        if act is None:
            message.close()
        else:
            self.lock.after(partial(act, int.from_bytes(message.body[8:12], "little")))

    def _given_back(self, message: Message) -> None:
        """Take back the receive right of a service.

        Who serves it can have the send-once right that leads here, and any right come by it. So
        this port is for nothing else, and what comes is judged by the right alone.
        """
        rights = message.rights if message.notification is Notification.PORT_DESTROYED else []
        if len(rights) == 1 and isinstance(rights[0], ReceiveRight):
            self.lock.after(partial(self._came_back, rights[0]))
        else:
            message.close()

    def _port_died(self, name: int) -> None:
        """A port that somebody registered, a requestor, a service's own, or a task is dead."""
        with self.lock:
            with suppress(InvalidName):  # it was let go meanwhile
                mach.mach_port_destroy(self.task, name)
            for found in self._at.pop(name, ()):
                self._lost(found)
            for context in self._requestors.pop(name, ()):
                self._end(context)
            if (server := self._servers_at.pop(name, None)) is not None:
                self._server_died(server)

    def _lost(self, found: Found) -> None:
        """The port of a service is dead: the name is kept for its owner, or gets another port."""
        port = 0
        if state_of(found.service) != State.REGISTERED:
            try:
                port = self._new_port().name
            except MachError as error:
                _log.warning("no port for %r any more: %s", found.name, error)
        self._change(found, port=port, state=State.DECLARED if port else State.RESERVED)
        self._await_again(found)

    def _await_again(self, found: Found, waiting: bool = True) -> None:
        """Await a message to a service that waits for its server again; that has to do as it is."""
        try:
            if state_of(found.service) == State.DECLARED:
                self._await_message(found, waiting)
        except MachError as error:
            _log.warning("nobody will tell of messages to %r: %s", found.name, error)

    def _came_back(self, port: ReceiveRight) -> None:
        """The receive right of a service is the name server's again: its server let it go."""
        with self.lock:
            here = self._at.get(port.name, ())
            served = [found for found in here if state_of(found.service) == State.CHECKED_IN]
            for found in served:
                self._unwatch(found, port.name)
                self._change(found, state=State.DECLARED)
                self._await_again(found)
            if not served:  # the service is gone, or this never was one's
                self._close_later(port)

    def _server_died(self, server: Server) -> None:
        """The task of a server is gone: it is started again, or when it is wanted again."""
        if server.on_demand:
            self._await_messages(server)
            self.retire_idle(server)
        else:
            self.lock.later(partial(self._launcher.start, server))

    def _await_messages(self, server: Server, waiting: bool = True) -> None:
        """Start a server on demand when the next message comes for it, or for one that waits."""
        for found in server.services:
            self._await_again(found, waiting)

    def launched(self, server: Server, task: Task | None) -> None:
        """Go on once a server was started, or was not."""
        with self.lock:
            if task is None:  # what waits does so until the next message comes
                self._await_messages(server, waiting=False)
            elif not self._watch_task(server, task):
                self._server_died(server)

    def _watch_task(self, server: Server, task: Task) -> bool:
        """Learn of the death of a server's task, by a port of its own that dies with it.

        Returns:
            False if it is dead.
        """
        try:
            right = task.allocate_port().make_send(self.task)
            _drop(right.request_notification(Notification.DEAD_NAME, self._notify, 1))
            self._servers_at[right.name] = server
        except MachError as error:
            if task.alive:
                _log.warning("%r: nobody will tell when it dies: %s", server, error)
            return task.alive
        return True

    def _no_senders(self, message: Message) -> None:
        """Nobody can ask at an ended context, or as a server, any more."""
        place = self._places.get(message.local_name)
        if place is not None and message.notification is Notification.NO_SENDERS:
            leave = self._unused if isinstance(place, Server) else self._free
            self.lock.after(partial(leave, place))  # type: ignore[arg-type]

    def _unused(self, server: Server) -> None:
        with self.lock:
            self.retire_idle(server)

    def retire_idle(self, server: Server) -> None:
        """Retire a server that serves nothing and that nobody can have serve anything."""
        waits = server.on_demand or server.given_up
        if server.retired or server.running or server.services or not waits:
            return
        if server.port.status.send_rights:
            _drop(server.port.request_notification(Notification.NO_SENDERS, server.port))
        else:
            self._retire(server)

    def _wanted(self, name: int) -> None:
        """A message waits for a service whose server is to be started for it."""
        with self.lock:
            for found in self._at.get(name, ()):
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


def _status(service: int, terms: Terms) -> Status:
    if state_of(service) in ACTIVE:
        return Status.ACTIVE
    on_demand = terms.server is not None and terms.server.on_demand
    return Status.ON_DEMAND if on_demand else Status.INACTIVE


def _check_free(service: int, terms: Terms, server: Server | None, owner: Owner) -> None:
    """Check that a name may be taken by somebody.

    Raises:
        BootstrapError: it is another's, or served.
    """
    if terms.server is not None and terms.server is not server:
        raise failure(Code.NOT_PRIVILEGED)
    if state_of(service) in ACTIVE:
        raise failure(Code.SERVICE_ACTIVE)
    if terms.owner not in (None, owner):
        raise failure(Code.NOT_PRIVILEGED)


def _drop(right: Right | None) -> None:
    """Close a right that a request for notification gave back."""
    if right is not None:
        right.close()


def _close(right: Right) -> None:
    with suppress(InvalidName):
        right.close()


@contextmanager
def _closing(port: ReceiveRight) -> Iterator[None]:
    """Close a port if what is done with it first fails."""
    try:
        yield
    except BaseException:
        port.close()
        raise
