# SPDX-License-Identifier: BSD-2-Clause
"""Services and the rights behind them: made, handed over to servers, back again, and dead.

All of it is done within a turn. Whatever happens to a server, the name of its service is not lost.
"""

from __future__ import annotations

import logging

from ..errors import MachError
from ..port import ReceiveRight, SendRight
from .labels import Labels
from .places import Context, Server
from .protocol import Code, failure
from .registry import Registry
from .rights import Rights, undoing
from .services import Found, Owner, State, Terms, port_of, state_of

__all__ = ["Custody"]

_log = logging.getLogger("pympi.bootstrap")


class Custody:
    """What keeps the services of a name server, and the rights to their ports, in step."""

    def __init__(self, registry: Registry, rights: Rights, labels: Labels) -> None:
        self._registry = registry
        self._rights = rights
        self._labels = labels

    # ---- making ----

    def declare(
        self, context: Context, found: Found, *, server: Server | None = None,
        payer: Owner | None = None, label: str | None = None,
    ) -> ReceiveRight:  # fmt: skip
        """Make a service with a port of the name server's, which waits for its server.

        Args:
            context: where it is.
            found: where it is to be found there.
            server: the only one that may check in.
            payer: in whose name it counts.
            label: of its port.

        Raises:
            BootstrapError: there is no room.
        """
        self._check_room(payer)
        terms = Terms(context, self._labels.of(context, found.name), server, None, payer)
        port = self._rights.new_port(label)
        self._registry.add(found, port.name, State.DECLARED, terms)
        if server is not None:
            server.services[found] = None
            with undoing(self.remove, found):
                self._await_message(found)
        return port

    def register(self, context: Context, found: Found, port: SendRight, owner: Owner) -> None:
        """Name a port of somebody's, in place of a service that may be there.

        Raises:
            BootstrapError: there is no room.
        """
        old = found.services.get(found.name, 0)
        self._check_room(owner, old)
        self._rights.tell_death(port)
        terms = Terms(context, self._labels.of(context, found.name), None, owner, owner)
        self._registry.add(found, port.name, State.REGISTERED, terms)
        if old:  # struck after the other is there: who looks finds one or the other
            self._gone(found, old)
        self._registry.watch(found, port.name)

    def _check_room(self, payer: Owner | None, instead_of: int = 0) -> None:
        if not self._registry.room_for_service(payer, instead_of):
            raise failure(Code.NO_MEMORY)

    def _await_message(self, found: Found, waiting: bool = True) -> None:
        """Have the name server told of the next message to a service, or of one that waits."""
        service = found.service
        server = self._registry.terms_of(service).server
        if server is not None and server.on_demand:
            self._registry.watch(found, port_of(service))
            port = ReceiveRight(self._rights.task, port_of(service))
            self._rights.tell_message(port, waiting)

    # ---- handing over, and taking back ----

    def hand_over(self, found: Found, port: ReceiveRight, owner: Owner) -> None:
        """Prepare for a receive right to leave: it comes back when its server dies."""
        self._rights.tell_death(SendRight(port.task, port.name), sync=0)
        self._rights.tell_return(port)
        self._registry.watch(found, port.name)
        self._registry.change(found, state=State.CHECKED_IN, owner=owner)

    def take_back(self, port: ReceiveRight) -> None:
        """Have the receive right of a service again, which its server let go."""
        here = self._registry.watched.get(port.name, ())
        served = [found for found in here if state_of(found.service) == State.CHECKED_IN]
        for found in served:
            self._registry.unwatch(found, port.name)
            self._registry.change(found, state=State.DECLARED)
            self.await_again(found)
        if not served:  # the service is gone, or this never was one's
            self._rights.close_later(port)

    def await_again(self, found: Found, waiting: bool = True) -> None:
        """Await a message to a service that waits for its server again; that has to do as it is."""
        try:
            if state_of(found.service) == State.DECLARED:
                self._await_message(found, waiting)
        except MachError as error:
            _log.warning("nobody will tell of messages to %r: %s", found.name, error)

    # ---- changing, losing, giving up ----

    def relabel(self) -> None:
        """Give all services the labels that their names have now."""
        for context in self._registry.contexts.values():
            for _, services in context.instances():
                for name in services:
                    sid = self._labels.of(context, name)
                    self._registry.change(Found(services, name), sid=sid)

    def lost(self, found: Found) -> None:
        """The port of a service is dead: the name is kept for its owner, or gets another port."""
        port = 0
        if state_of(found.service) != State.REGISTERED:
            try:
                port = self._rights.new_port().name
            except MachError as error:
                _log.warning("no port for %r any more: %s", found.name, error)
        self._registry.change(found, port=port, state=State.DECLARED if port else State.RESERVED)
        self.await_again(found)

    def remove(self, found: Found) -> None:
        """Take a service away, and whatever right the name server has to its port."""
        self._gone(found, found.services.pop(found.name))

    def _gone(self, found: Found, service: int) -> None:
        """Let go of what the name server has of a service that is no more, or another now."""
        self._registry.strike(found, service)
        task, port = self._rights.task, port_of(service)
        if port:
            self._rights.close_later(SendRight(task, port))
        if state_of(service) == State.DECLARED:
            self._rights.close_later(ReceiveRight(task, port))
