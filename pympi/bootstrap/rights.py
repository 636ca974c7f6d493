# SPDX-License-Identifier: BSD-2-Clause
"""The name server's rights: how it gets ports, has the kernel tell of them, and lets them go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from .. import mach
from ..enums import Notification
from ..errors import InvalidName
from .protocol import BOOTSTRAP

if TYPE_CHECKING:
    from ..message import Message
    from ..port import ReceiveRight, Right, SendRight
    from ..task import Task
    from .turn import Turn

__all__ = ["Rights", "undoing"]

Handler = Callable[["Message"], object]


class Rights:
    """The rights in a name server's task.

    Attributes:
        task (Task): the name server's.
        notify (ReceiveRight): where the kernel tells of deaths and messages.
        returns (ReceiveRight): where receive rights come back to, and nothing else is expected.
    """

    def __init__(self, task: Task, turn: Turn) -> None:
        self.task = task
        self._turn = turn

    def connect(self, asked: Handler, told: Handler, given_back: Handler) -> None:
        """Say who acts on requests, on what the kernel tells, and on what comes back.

        They are known last, as they act by way of these rights.
        """
        self._asked = asked  # one object: all ports where clients ask share one handler
        self.notify = self.task.create_handler(told)
        self.returns = self.task.create_handler(given_back)

    # ---- getting ----

    def open(self, label: str | None = None) -> ReceiveRight:
        """Return a port where clients ask."""
        port = self.task.create_handler(self._asked, label=label)
        with undoing(port.close):
            port.serve(BOOTSTRAP)
        return port

    def new_port(self, label: str | None = None) -> ReceiveRight:
        """Return a port for a service; the name server keeps a send right, whoever serves it."""
        port = self.task.allocate_port(label)
        with undoing(port.close):
            port.make_send(self.task)
        return port

    # ---- being told ----

    def tell_death(self, right: SendRight, sync: int = 1) -> None:
        """Have the name server told when a port dies; `sync`: also if it is dead already."""
        _request(right, Notification.DEAD_NAME, self.notify, sync)

    def tell_message(self, port: ReceiveRight, waiting: bool) -> None:
        """Have the name server told of the next message, or of one that waits."""
        _request(port, Notification.MESSAGE, self.notify, waiting)

    def tell_return(self, port: ReceiveRight) -> None:
        """Have a receive right come back when whoever gets it lets it go."""
        _request(port, Notification.PORT_DESTROYED, self.returns)

    def tell_no_senders(self, port: ReceiveRight, sync: int = 0) -> None:
        """Have the name server told when nobody can ask at a port any more.

        Args:
            port: where clients ask, and which is told itself.
            sync: how many send rights must have been made of it by then.
        """
        _request(port, Notification.NO_SENDERS, port, sync)

    # ---- letting go ----

    def drop_dead(self, port: int) -> None:
        """Free the name of a port that is dead."""
        with suppress(InvalidName):  # it was let go meanwhile
            mach.mach_port_destroy(self.task, port)

    def close_later(self, right: Right) -> None:
        """Close a right when the turn ends; it may be gone by then, with its port."""
        self._turn.later(partial(_close, right))

    def let_go(self, right: Right | None) -> None:
        """Close what a client gave when the turn ends, if it is any right."""
        if right is not None and right.name != mach.MACH_PORT_DEAD:
            self.close_later(right)


def _request(right: Right, kind: Notification, notify: ReceiveRight, sync: int = 0) -> None:
    before = right.request_notification(kind, notify, sync)
    if before is not None:
        before.close()


def _close(right: Right) -> None:
    with suppress(InvalidName):
        right.close()


@contextmanager
def undoing(undo: Callable[..., object], *arguments: object) -> Iterator[None]:
    """Undo what was done before if what is done in the `with` block fails."""
    try:
        yield
    except BaseException:
        undo(*arguments)
        raise
