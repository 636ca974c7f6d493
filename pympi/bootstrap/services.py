# SPDX-License-Identifier: BSD-2-Clause
"""What a service is.

There may be a million of them, so one is a single number, found by its name: where its port is, its
state, and the number of the terms that it shares with others. Beside the name and its place in the
dictionary that takes 32 bytes. What it is to the embedder is in view.py.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from .protocol import Status

if TYPE_CHECKING:
    from ..message import Message
    from .places import Context, Server

__all__ = [
    "ACTIVE",
    "Found",
    "Owner",
    "Services",
    "State",
    "Terms",
    "TermsTable",
    "owner_of",
    "packed",
    "port_of",
    "sender_label",
    "state_of",
    "status_of",
    "terms_of",
]


class State(IntEnum):
    """Where the port of a service is, and who made it.

    DECLARED: the name server made the port and has its receive right. CHECKED_IN: the same, and a
    server has it. REGISTERED: a server made the port. RESERVED: that server is gone, and the name
    kept for it; this is the one state without a port.
    """

    DECLARED = 1
    CHECKED_IN = 2
    REGISTERED = 3
    RESERVED = 4


ACTIVE = (State.CHECKED_IN, State.REGISTERED)

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


def status_of(service: int, terms: Terms) -> Status:
    """Return what a service's state looks like to those who ask."""
    if state_of(service) in ACTIVE:
        return Status.ACTIVE
    on_demand = terms.server is not None and terms.server.on_demand
    return Status.ON_DEMAND if on_demand else Status.INACTIVE


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


def sender_label(message: Message) -> str:
    """Return the label under which a message was sent."""
    return message.task.kernel.label(message.sender_sid)


def owner_of(message: Message) -> Owner:
    """Return who sent a message, as an owner of names."""
    return Owner(sender_label(message), message.identity[1][0])
