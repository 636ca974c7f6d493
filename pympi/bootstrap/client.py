# SPDX-License-Identifier: BSD-2-Clause
"""The client's side of the name server: `task.bootstrap`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..mig import MigError
from ..port import ReceiveRight, SendRight
from .protocol import (
    BOOTSTRAP,
    LOOK_UP,
    LOOK_UP_ANSWER,
    NAME_MAX,
    NAME_ROOM,
    NDR,
    Code,
    ServiceInfo,
    Status,
    failure,
)

__all__ = ["Bootstrap"]


class Bootstrap:
    """A context of the name server, or the private port of a server, as a task sees it.

    Attributes:
        port (SendRight): where it asks.

    Every method raises `AccessDenied` where the kernel keeps the task from the routine, and
    `BootstrapError` where the name server does not do it.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     task = kernel.create_task("printd")
        ...     right = task.bootstrap.create_service("com.example.print")
        ...     inbox = task.bootstrap.check_in("com.example.print")
        ...     right.send(b"page 1")
        ...     inbox.receive().body, task.bootstrap.status("com.example.print").name
        (b'page 1', 'ACTIVE')
    """

    def __init__(self, port: SendRight) -> None:
        self.port = port
        self._client = BOOTSTRAP.client(port)

    def __repr__(self) -> str:
        return f"<Bootstrap at {self.port!r}>"

    def _call(self, routine: str, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._client, f"bootstrap_{routine}")(*arguments)
        except MigError as error:
            raise failure(error.code, name) from None

    def look_up(self, name: str) -> SendRight:
        """Return a send right to a service, the nearest of that name; also to one that waits.

        Raises:
            UnknownService: there is none, or it may not be seen, or its right not held.
        """
        raw = name.encode("utf-8", "surrogateescape")
        if len(raw) > NAME_MAX or b"\0" in raw:
            raise failure(Code.UNKNOWN_SERVICE, name)
        body = NDR + raw.ljust(NAME_ROOM, b"\0")
        answer = self.port.call(body, LOOK_UP)
        rights = answer.rights
        if answer.msgh_id == LOOK_UP_ANSWER and not answer.size and len(rights) == 1:
            if isinstance(rights[0], SendRight):
                return rights[0]
            raise failure(Code.UNKNOWN_SERVICE, name)
        return self._read(answer, name)

    def _read(self, answer: Any, name: str) -> SendRight:
        method = self._client.bootstrap_look_up
        try:
            return method.results(answer)
        except MigError as error:
            raise failure(error.code, name) from None

    def look_up_array(self, names: Iterable[str]) -> list[SendRight | None]:
        """Return send rights to at most 20 services, None for those that cannot be looked up."""
        ports, _ = self._call("look_up_array", "", list(names))
        return list(ports)

    def check_in(self, name: str) -> ReceiveRight:
        """Return the receive right of a declared service, to serve it.

        When the task dies, or destroys the right, the name server has it back, with the messages.

        Raises:
            UnknownService: there is none.
            ServiceActive: somebody serves it.
            NotPrivileged: it is another's.
        """
        return self._call("check_in", name, name)

    def register(self, name: str, port: SendRight | ReceiveRight | Any | None) -> None:
        """Name a port of one's own.

        Args:
            name: 1 to 127 bytes that can be shown.
            port: a receive right, of which a send right is made, a send right, or
                `right.copy_send()` and the like; None takes the name away.

        Raises:
            ServiceActive: somebody serves that name.
            NotPrivileged: it is kept for somebody else, or may not be registered.
        """
        given = port.make_send() if isinstance(port, ReceiveRight) else port
        self._call("register", name, name, given)

    def create_service(self, name: str) -> SendRight:
        """Make a service that waits for a server to check in; messages to it wait meanwhile.

        Raises:
            NameInUse: there is one of that name, here or above.
        """
        return self._call("create_service", name, name)

    def create_server(self, command: str, uid: int = 0, *, on_demand: bool = True) -> Bootstrap:
        """Make a server that the name server starts; services that are made there are its own.

        Args:
            command: for the function that starts servers; at most 511 bytes.
            uid: which it is to have.
            on_demand: start it when a message comes for one of its services, not at once.
        """
        return Bootstrap(self._call("create_server", command, command, uid, on_demand))

    def status(self, name: str) -> Status:
        """Return the state of a service.

        Raises:
            UnknownService: there is none.
        """
        return Status(self._call("status", name, name))

    def info(self) -> list[ServiceInfo]:
        """Return all services that can be seen from here, without those that a nearer one hides.

        Raises:
            BootstrapError: there are more than 16384 (NO_MEMORY).
        """
        names, servers, states = self._call("info", "")
        rows = zip(names, servers, map(Status, states), strict=True)
        return [ServiceInfo(*row) for row in rows]

    def subset(self, requestor: SendRight | ReceiveRight) -> Bootstrap:
        """Make a context below this one, which lives as long as the requestor's port."""
        given = requestor.make_send() if isinstance(requestor, ReceiveRight) else requestor
        return Bootstrap(self._call("subset", "", given))

    def unprivileged(self) -> Bootstrap:
        """Return the context itself, for a child that is not to act as this server."""
        return Bootstrap(self._call("unprivileged", ""))

    def parent(self) -> Bootstrap:
        """Return the context above; the root is its own.

        Raises:
            NotPrivileged: the task's uid is not 0.
        """
        return Bootstrap(self._call("parent", ""))
