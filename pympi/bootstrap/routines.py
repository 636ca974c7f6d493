# SPDX-License-Identifier: BSD-2-Clause
"""The routines of the protocol, each in the same order: where, may they, do it, answer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from .. import mach
from ..enums import Disposition
from ..errors import MachError
from ..message import Carried
from ..port import ReceiveRight, Right, SendRight
from .access import Access, check_free
from .custody import Custody
from .launcher import Launcher
from .namespace import Namespace
from .places import Place
from .protocol import MAX_LISTED, MAX_LOOKUP_COUNT, Code, acceptable, failure
from .registry import Registry
from .rights import Rights
from .services import Found, owner_of, port_of, status_of

if TYPE_CHECKING:
    from ..message import Message

__all__ = ["Routines"]


class Routines:
    """The eleven routines, called by their names in bootstrap.defs, as MIG's servers are."""

    def __init__(
        self, registry: Registry, rights: Rights, access: Access, custody: Custody,
        namespace: Namespace, launcher: Launcher,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._turn = registry.turn
        self._rights = rights
        self._task = rights.task
        self._access = access
        self._custody = custody
        self._namespace = namespace
        self._launcher = launcher

    # ---- where ----

    def _place(self, message: Message) -> Place:
        """Return where the sender asks.

        Raises:
            NotPrivileged: that ended while the message was under way.
        """
        place = self._registry.places.get(message.local_name)
        if place is None:
            raise failure(Code.NOT_PRIVILEGED)
        return place

    def _changing(self, message: Message) -> Place:
        """Return where the sender asks, if changes are taken there.

        Raises:
            NotPrivileged: they are not.
        """
        place = self._place(message)
        if not place.context.active:
            raise failure(Code.NOT_PRIVILEGED)
        return place

    # ---- routines that change nothing ----

    def bootstrap_look_up(self, message: Message, name: str) -> Carried:
        found = self._access.find(message, self._place(message).context, name, "look_up")
        if found is None:
            raise failure(Code.UNKNOWN_SERVICE, name)
        _, service, _ = found
        right = SendRight(self._task, port_of(service))
        if not self._access.may_hold(message, right, "hold_send", name):
            raise failure(Code.UNKNOWN_SERVICE, name)
        return Carried(right, Disposition.COPY_SEND)

    def bootstrap_look_up_array(
        self, message: Message, names: Iterable[str]
    ) -> tuple[list[Carried | None], bool]:
        wanted = list(names)
        if len(wanted) > MAX_LOOKUP_COUNT:
            raise failure(Code.BAD_COUNT)
        found = [self._look_up_or_none(message, name) for name in wanted]
        return found, None not in found

    def _look_up_or_none(self, message: Message, name: str) -> Carried | None:
        try:
            return self.bootstrap_look_up(message, name)
        except MachError:
            return None

    def bootstrap_status(self, message: Message, name: str) -> int:
        found = self._access.find(message, self._place(message).context, name, "status")
        if found is None:
            raise failure(Code.UNKNOWN_SERVICE, name)
        _, service, terms = found
        return status_of(service, terms)

    def bootstrap_info(self, message: Message) -> tuple[list[str], list[str], list[int]]:
        context = self._place(message).context
        with self._turn:
            there = [
                (name, service, self._registry.terms_of(service))
                for place in context.chain()
                for name, service in place.seen(message)
                if port_of(service)
            ]
        found = dict(islice(self._access.listed(message, there), MAX_LISTED + 1))
        if len(found) > MAX_LISTED:
            raise failure(Code.NO_MEMORY)
        servers = [terms.server for _, terms in found.values()]
        commands = [server.command if server else "" for server in servers]
        return list(found), commands, [int(status_of(*one)) for one in found.values()]

    def bootstrap_unprivileged(self, message: Message) -> ReceiveRight:
        return self._place(message).context.port

    def bootstrap_parent(self, message: Message, token: tuple[int, ...]) -> ReceiveRight:
        if token[0]:
            raise failure(Code.NOT_PRIVILEGED)
        return self._place(message).context.parent.port

    # ---- routines that change something ----

    def bootstrap_register(self, message: Message, name: str, port: Right | None) -> None:
        place = self._changing(message)
        _check_name(name)
        self._access.decide(message, place.context, name, "register")
        with self._turn:
            found, owner = Found(place.context.own(message), name), owner_of(message)
            old = found.services.get(name, 0)
            if old:
                check_free(old, self._registry.terms_of(old), place.server, owner)
            if isinstance(port, SendRight):
                self._custody.register(place.context, found, port, owner)
            else:  # MACH_PORT_NULL, or a port that is dead
                self._rights.let_go(port)
                if old:
                    self._custody.remove(found)

    def bootstrap_check_in(self, message: Message, name: str) -> Carried:
        place = self._place(message)
        while True:
            found = self._access.find(message, place.context, name, "check_in")
            if found is None:
                raise self._access.missing(message, place.context, name, "check_in")
            services, service, terms = found
            port, owner = ReceiveRight(self._task, port_of(service)), owner_of(message)
            check_free(service, terms, place.server, owner)
            if not self._access.may_hold(message, port, "hold_recv", name):
                raise failure(Code.NOT_PRIVILEGED, name)
            with self._turn:
                if services.get(name) == service:  # as it was when all this was decided
                    self._custody.hand_over(Found(services, name), port, owner)
                    if place.server is not None:
                        place.server.useless = 0
                    return port.move_receive()

    def bootstrap_create_service(self, message: Message, name: str) -> ReceiveRight:
        place = self._changing(message)
        context = place.context
        _check_name(name)
        self._access.decide(message, context, name, "create")
        with self._turn:
            found = Found(context.own(message), name)
            if name in found.services or self._access.sees(message, context, name):
                raise failure(Code.NAME_IN_USE, name)
            owner = owner_of(message)
            return self._custody.declare(context, found, server=place.server, payer=owner)

    def bootstrap_subset(self, message: Message, requestor: Right | None) -> Carried:
        context = self._changing(message).context
        with self._turn:
            if isinstance(requestor, SendRight):
                self._rights.tell_death(requestor)
            subset, right = self._namespace.make_subset(context)
            if isinstance(requestor, SendRight):
                self._registry.bind(subset, requestor.name)
            else:  # MACH_PORT_NULL, or a port that is dead: the subset ends at once
                self._namespace.end(subset)
                self._rights.let_go(requestor)
            return right.move_send()

    def bootstrap_create_server(
        self, message: Message, command: str, uid: int, on_demand: bool, token: tuple[int, ...]
    ) -> Carried:
        context = self._changing(message).context
        if token[1] not in (0, uid):
            raise failure(Code.NOT_PRIVILEGED)
        self._launcher.check()
        with self._turn:
            server, right = self._namespace.make_server(context, command, uid, bool(on_demand))
            if not on_demand:
                self._launcher.start_later(server)
            return right.move_send()


def _check_name(name: str) -> None:
    """Check that a client may give a service this name.

    Raises:
        MachError: KERN_INVALID_ARGUMENT.
    """
    if not acceptable(name):
        raise failure(mach.KERN_INVALID_ARGUMENT, "the name cannot be used")
