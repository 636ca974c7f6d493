# SPDX-License-Identifier: BSD-2-Clause
"""Starting servers: at once and again, or when a message comes for one of their services."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import MachError
from .custody import Custody
from .namespace import Namespace
from .places import Server
from .protocol import Code, failure
from .registry import Registry
from .rights import Rights

if TYPE_CHECKING:
    from ..task import Task
    from .server import NameServer

__all__ = ["Launch", "Launcher"]

_log = logging.getLogger("pympi.bootstrap")


@dataclass(frozen=True, slots=True)
class Launch:
    """A server to be started: what the embedder's function gets.

    Attributes:
        names (NameServer): who asks for it.
        command (str), uid (int): as the server was created with.
        on_demand (bool): whether a message waits for it.
    """

    names: NameServer
    command: str
    uid: int
    on_demand: bool
    _server: Server

    def create_task(
        self, name: str | None = None, label: str | None = None, **options: Any
    ) -> Task:
        """Make the server's task, with its private bootstrap port.

        Args:
            name: the last part of the command's first word unless said.
            label: as for `Kernel.create_task`.
            options: as for `Kernel.create_task`.
        """
        words = self.command.split() or ["server"]
        kernel = self.names.kernel
        task = kernel.create_task(
            name or words[0].rpartition("/")[2], label, uid=self.uid, **options
        )
        self.names.set_port(task, self._server.port)
        return task


class Launcher:
    """Starts the servers of a name server, by a function of the embedder's, and retires them."""

    def __init__(
        self, names: NameServer, launch: Callable[[Launch], Task] | None, registry: Registry,
        rights: Rights, custody: Custody, namespace: Namespace,
    ) -> None:  # fmt: skip
        self._names = names
        self._launch = launch
        self._registry = registry
        self._turn = registry.turn
        self._rights = rights
        self._custody = custody
        self._namespace = namespace

    def check(self) -> None:
        """Check that servers can be started.

        Raises:
            NotPrivileged: the embedder gave no function for that.
        """
        if self._launch is None:
            raise failure(Code.NOT_PRIVILEGED, "no servers are started here")

    # ---- out of any turn: the embedder's function runs ----

    def _start(self, server: Server) -> None:
        """Start a server that does not run."""
        if self._launch is None or not self._begin(server):
            return
        task = None
        try:
            task = self._launch(
                Launch(self._names, server.command, server.uid, server.on_demand, server)
            )
        except Exception:
            _log.exception("%r was not started", server)
        finally:
            server.task, server.starting = task, False
            self._started(server, task)

    def _begin(self, server: Server) -> bool:
        with self._turn:
            if server.running or server.retired:
                return False
            if server.given_up:
                _log.warning("%r never checked in, and is not started again", server)
                self.retire_idle(server)
                return False
            server.starting = True
            server.starts += 1
            server.useless += 1
            return True

    def _started(self, server: Server, task: Task | None) -> None:
        with self._turn:
            if task is None:  # what waits does so until the next message comes
                self._await_messages(server, waiting=False)
            elif not self._watch(server, task):
                self.died(server)

    # ---- within a turn ----

    def start_later(self, server: Server) -> None:
        """Have a server started when the turn ends."""
        self._turn.later(partial(self._start, server))

    def died(self, server: Server) -> None:
        """The task of a server is gone: it is started again, or when it is wanted again."""
        if server.on_demand:
            self._await_messages(server)
            self.retire_idle(server)
        else:
            self.start_later(server)

    def retire_idle(self, server: Server) -> None:
        """Retire a server that serves nothing and that nobody can have serve anything."""
        waits = server.on_demand or server.given_up
        if server.retired or server.running or server.services or not waits:
            return
        if server.port.status.send_rights:
            self._rights.tell_no_senders(server.port)
        else:
            self._namespace.retire(server)

    def _await_messages(self, server: Server, waiting: bool = True) -> None:
        """Start a server on demand when the next message comes for it, or for one that waits."""
        for found in server.services:
            self._custody.await_again(found, waiting)

    def _watch(self, server: Server, task: Task) -> bool:
        """Learn of the death of a server's task, by a port of its own that dies with it.

        Returns:
            False if it is dead.
        """
        try:
            right = task.allocate_port().make_send(self._rights.task)
            self._rights.tell_death(right)
            self._registry.tasks[right.name] = server
        except MachError as error:
            if task.alive:
                _log.warning("%r: nobody will tell when it dies: %s", server, error)
            return task.alive
        return True
