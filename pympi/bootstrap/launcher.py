# SPDX-License-Identifier: BSD-2-Clause
"""Starting servers: at once and again, or when a message comes for one of their services."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .protocol import Code, failure

if TYPE_CHECKING:
    from ..task import Task
    from .server import NameServer
    from .services import Server

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
    """Starts the servers of a name server, by a function of the embedder's."""

    def __init__(self, names: NameServer, launch: Callable[[Launch], Task] | None) -> None:
        self._names = names
        self._launch = launch

    def check(self) -> None:
        """Check that servers can be started.

        Raises:
            NotPrivileged: the embedder gave no function for that.
        """
        if self._launch is None:
            raise failure(Code.NOT_PRIVILEGED, "no servers are started here")

    def start(self, server: Server) -> None:
        """Start a server that does not run. The name server's lock is not held."""
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
            self._names.launched(server, task)

    def _begin(self, server: Server) -> bool:
        with self._names.lock:
            if server.running or server.retired:
                return False
            if server.given_up:
                _log.warning("%r never checked in, and is not started again", server)
                self._names.retire_idle(server)
                return False
            server.starting = True
            server.starts += 1
            server.useless += 1
            return True
