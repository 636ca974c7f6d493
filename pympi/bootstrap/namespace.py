# SPDX-License-Identifier: BSD-2-Clause
"""The tree of contexts, and the servers in it: how they are made, and end. Within a turn."""

from __future__ import annotations

from ..errors import MachError
from ..port import SendRight
from .custody import Custody
from .labels import Labels
from .places import Context, Server
from .protocol import Code, failure
from .registry import Registry
from .rights import Rights, undoing
from .services import Found

__all__ = ["Namespace"]


class Namespace:
    """What makes and ends the contexts and the servers of a name server."""

    def __init__(
        self, registry: Registry, rights: Rights, labels: Labels, custody: Custody
    ) -> None:
        self._registry = registry
        self._rights = rights
        self._labels = labels
        self._custody = custody

    # ---- contexts ----

    def make_context(
        self, parent: Context | None, *, label: str | None = None, per_label: bool = False
    ) -> Context:
        """Make a context below another, or the root.

        Raises:
            BootstrapError: there is no room.
        """
        if not self._registry.room_for_context(parent):
            raise failure(Code.NO_MEMORY, "too many contexts")
        port = self._rights.open(label)
        with undoing(port.close):
            label = port.label
            context = Context(parent, port, label, self._labels.sid(label), per_label)
        self._registry.add_context(context)
        return context

    def make_subset(self, parent: Context) -> tuple[Context, SendRight]:
        """Make a context, and a right to ask there."""
        subset = self.make_context(parent)
        with undoing(self.end, subset):
            return subset, subset.port.make_send(self._rights.task)

    def end(self, context: Context) -> None:
        """End a context whose requestor died, and what is below it, the furthest first.

        Who has a right to it may ask there still, and sees what is above.
        """
        if not context.active:
            return
        for child in list(context.children):
            self.end(child)
        context.active = False
        if self._registry.unbind(context):  # the requestor lives on
            self._rights.close_later(SendRight(self._rights.task, context.requestor))
        self._empty(context)
        try:
            self._rights.tell_no_senders(context.port)
        except MachError:  # nobody would tell when it can be freed
            self.free(context)

    def _empty(self, context: Context) -> None:
        for _, services in context.instances():
            for name in list(services):
                self._custody.remove(Found(services, name))
        for server in [s for s in self._registry.servers.values() if s.context is context]:
            self.retire(server)

    def free(self, context: Context) -> None:
        """Let an ended context go: nobody can ask there any more."""
        if self._registry.drop_context(context):
            self._rights.close_later(context.port)

    # ---- servers ----

    def make_server(
        self, context: Context, command: str, uid: int, on_demand: bool
    ) -> tuple[Server, SendRight]:
        """Make a server, and a right to ask as it.

        Raises:
            BootstrapError: there is no room.
        """
        if not self._registry.room_for_server():
            raise failure(Code.NO_MEMORY)
        server = Server(context, self._rights.open(), command, uid, on_demand)
        self._registry.add_server(server)
        with undoing(self.retire, server):
            self._rights.tell_no_senders(server.port, 1)
            return server, server.port.make_send(self._rights.task)

    def retire(self, server: Server) -> None:
        """Let a server go: it is never started again."""
        server.retired = True
        self._registry.drop_server(server)
        self._rights.close_later(server.port)
