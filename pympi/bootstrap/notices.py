# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel tells the name server: deaths, returns, messages, and that nobody is left to ask.

A notice may come in the middle of a turn, of which it is a consequence, and then waits for its end.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..enums import Notification
from ..port import ReceiveRight
from .custody import Custody
from .launcher import Launcher
from .namespace import Namespace
from .places import Context, Place
from .registry import Registry
from .rights import Rights
from .services import State, state_of

if TYPE_CHECKING:
    from ..message import Message

__all__ = ["Notices"]


class Notices:
    """What acts on notifications: to the ports of `Rights`, and those where clients ask."""

    def __init__(
        self, registry: Registry, rights: Rights, custody: Custody, namespace: Namespace,
        launcher: Launcher,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._turn = registry.turn
        self._rights = rights
        self._custody = custody
        self._namespace = namespace
        self._launcher = launcher
        self._acts = {Notification.DEAD_NAME: self._died, Notification.MESSAGE: self._wanted}

    # ---- as they come ----

    def told(self, message: Message) -> None:
        """Act on what the kernel tells; a message of anybody else means nothing here."""
        act = self._acts.get(message.notification)  # type: ignore[arg-type]
        if act is None:
            message.close()
        else:
            self._turn.after(partial(act, int.from_bytes(message.body[8:12], "little")))

    def given_back(self, message: Message) -> None:
        """Take back the receive right of a service.

        Who serves it can have the send-once right that leads here, and any right come by it. So
        this port is for nothing else, and what comes is judged by the right alone.
        """
        rights = message.rights if message.notification is Notification.PORT_DESTROYED else []
        if len(rights) == 1 and isinstance(rights[0], ReceiveRight):
            self._turn.after(partial(self._came_back, rights[0]))
        else:
            message.close()

    def no_senders(self, message: Message) -> None:
        """Let go of an ended context, or a server, where nobody can ask any more."""
        place = self._registry.places.get(message.local_name)
        if place is not None and message.notification is Notification.NO_SENDERS:
            self._turn.after(partial(self._deserted, place))

    # ---- in a turn ----

    def _died(self, port: int) -> None:
        """A port that somebody registered, a requestor, a service's own, or a task is dead."""
        with self._turn:
            self._rights.drop_dead(port)
            services, contexts, server = self._registry.strike_port(port)
            for found in services:
                self._custody.lost(found)
            for context in contexts:
                self._namespace.end(context)
            if server is not None:
                self._launcher.died(server)

    def _wanted(self, port: int) -> None:
        """A message waits for a service whose server is to be started for it."""
        with self._turn:
            for found in self._registry.watched.get(port, ()):
                service = found.service
                server = self._registry.terms_of(service).server
                if server is not None and state_of(service) == State.DECLARED:
                    self._launcher.start_later(server)

    def _came_back(self, port: ReceiveRight) -> None:
        with self._turn:
            self._custody.take_back(port)

    def _deserted(self, place: Place) -> None:
        with self._turn:
            if isinstance(place, Context):
                self._namespace.free(place)
            else:
                self._launcher.retire_idle(place)
