# SPDX-License-Identifier: BSD-2-Clause
"""What the name server knows: contexts, servers, services, who pays, and which port is whose.

These are its books and nothing more. They hold no rights and decide nothing; what is changed here
is changed within a turn, and may be read at any time (see turn.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from .places import Context, Place, Server
from .services import Found, Owner, Terms, TermsTable, packed, port_of, state_of, terms_of
from .turn import Turn

__all__ = ["Limits", "Registry"]


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


class Registry:
    """The books of a name server. Ports are known by their names in its task.

    Attributes:
        turn (Turn): whoever changes anything has it.
        contexts (dict[int, Context]), servers (dict[int, Server]): by number.
        places (dict[int, Place]): where clients ask, by port.
        services (int): how many there are.
        terms (TermsTable): those of the services.
        payers (Counter[Owner]): in whose name how many services count.
        watched (dict[int, dict[Found, None]]): services by the port that the kernel tells of.
        requestors (dict[int, dict[Context, None]]): contexts by the port they end with.
        tasks (dict[int, Server]): servers by the port that dies with their task.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.turn = Turn()
        self.contexts: dict[int, Context] = {}
        self.servers: dict[int, Server] = {}
        self.places: dict[int, Place] = {}
        self.services = 0
        self.terms = TermsTable()
        self.payers: Counter[Owner] = Counter()
        self.watched: dict[int, dict[Found, None]] = {}
        self.requestors: dict[int, dict[Context, None]] = {}
        self.tasks: dict[int, Server] = {}
        self._made = 0

    # ---- contexts and servers ----

    def room_for_context(self, parent: Context | None) -> bool:
        """Tell whether there may be one more context, below another or as the root."""
        depth = parent.depth + 1 if parent is not None else 0
        return len(self.contexts) < self.limits.contexts and depth <= self.limits.depth

    def room_for_server(self) -> bool:
        """Tell whether there may be one more server."""
        return len(self.servers) < self.limits.servers

    def add_context(self, context: Context) -> None:
        """Enter a context, and give it its number."""
        self._add_place(context)
        self.contexts[context.number] = context
        if context.parent is not context:
            context.parent.children.add(context)

    def add_server(self, server: Server) -> None:
        """Enter a server, and give it its number."""
        self._add_place(server)
        self.servers[server.number] = server

    def _add_place(self, place: Place) -> None:
        self._made += 1
        place.number = self._made
        self.places[place.port.name] = place

    def drop_context(self, context: Context) -> bool:
        """Strike a context; return whether it was there."""
        if self.contexts.pop(context.number, None) is None:
            return False
        context.parent.children.discard(context)
        del self.places[context.port.name]
        return True

    def drop_server(self, server: Server) -> None:
        """Strike a server."""
        del self.servers[server.number], self.places[server.port.name]

    def bind(self, context: Context, requestor: int) -> None:
        """Note that a context ends with a port."""
        context.requestor = requestor
        self.requestors.setdefault(requestor, {})[context] = None

    def unbind(self, context: Context) -> bool:
        """Note that it does not any more; return whether it did until now."""
        return _take_out(self.requestors, context.requestor, context)

    # ---- services ----

    def terms_of(self, service: int) -> Terms:
        """Return the terms of a service.

        Raises:
            KeyError: it is gone, or has changed.
        """
        terms = self.terms.get(terms_of(service))
        if terms is None:
            raise KeyError(service)
        return terms

    def room_for_service(self, payer: Owner | None, instead_of: int = 0) -> bool:
        """Tell whether there may be one more service, which may take the place of another."""
        if self.services - bool(instead_of) >= self.limits.services:
            return False
        limit = self.limits.services_per_owner
        if payer is None or not limit:
            return True
        freed = bool(instead_of) and self.terms_of(instead_of).payer == payer
        return self.payers.get(payer, 0) - freed < limit

    def add(self, found: Found, port: int, state: int, terms: Terms) -> None:
        """Enter a service; one that was there is seen no more, and still to be struck."""
        found.services[found.name] = packed(port, state, self.terms.take(terms))
        self.services += 1
        if terms.payer is not None:
            self.payers[terms.payer] += 1

    def change(
        self, found: Found, *, port: int | None = None, state: int | None = None, **terms: Any
    ) -> None:
        """Change the port, the state, or some terms of a service, all at once to who reads it."""
        service = found.service
        number = self.terms.take(self.terms_of(service)._replace(**terms))
        found.services[found.name] = packed(
            port_of(service) if port is None else port,
            state_of(service) if state is None else state,
            number,
        )
        self.terms.drop(terms_of(service))

    def strike(self, found: Found, service: int) -> None:
        """Strike a service that is no more, or another now."""
        terms = self.terms_of(service)
        self.terms.drop(terms_of(service))
        self.services -= 1
        if terms.payer is not None:
            self.payers[terms.payer] -= 1
            if not self.payers[terms.payer]:
                del self.payers[terms.payer]
        if terms.server is not None:
            terms.server.services.pop(found, None)
        self.unwatch(found, port_of(service))

    def watch(self, found: Found, port: int) -> None:
        """Note that what the kernel tells of a port is about a service."""
        self.watched.setdefault(port, {})[found] = None

    def unwatch(self, found: Found, port: int) -> None:
        """Note that it is not any more."""
        _take_out(self.watched, port, found)

    # ---- ports ----

    def strike_port(self, port: int) -> tuple[list[Found], list[Context], Server | None]:
        """Strike a port that is dead; return the services, contexts and server it stood for."""
        services = self.watched.pop(port, {})
        contexts = self.requestors.pop(port, {})
        return list(services), list(contexts), self.tasks.pop(port, None)


def _take_out(table: dict[int, dict[Any, None]], port: int, what: object) -> bool:
    """Take something away from what a port stands for; return whether it was there."""
    here = table.get(port, {})
    if what not in here:
        return False
    del here[what]
    if not here:
        del table[port]
    return True
