# SPDX-License-Identifier: BSD-2-Clause
"""How a simulation learns of messages and of room in queues: notifications, and a task for them.

Nothing polls, and what is simulated is not touched: the notifications are requested by a task of
the environment's own, which has a label of its own, and come to its handlers, in the sender's call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..enums import Notification
from ..port import DeadName, PortSet, Right
from .waits import Line, Wait

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..message import Message
    from ..task import Task

__all__ = ["Observer"]

_NAME = slice(8, 12)  # of a notification's body


class _Ear:
    """Hears what is told of a task's rights: a notification gives a name, and not whose.

    Attributes:
        port: that notifications come to.
        asked: the lines to serve when something is told of a name, by what and by name.
    """

    def __init__(self, task: Task, observer: Task) -> None:
        self._task = task
        self.asked: dict[tuple[Notification, int], list[Line]] = {}
        self.port = observer.create_handler(self._told)

    def request(self, right: Right, kind: Notification, line: Line) -> None:
        """Ask to be told, unless that was asked already and has not come yet."""
        lines = self.asked.setdefault((kind, right.name), [])
        if not lines:
            caller = self.port.task
            replaced = right.request_notification(kind, self.port, sync=1, caller=caller)
            if replaced is not None:
                replaced.close()
        if line not in lines:
            lines.append(line)

    def _told(self, message: Message) -> None:
        """A notification came: those who wait for it have a try."""
        kind, name = message.notification, int.from_bytes(message.body[_NAME], "little")
        if kind is Notification.DEAD_NAME:  # which brought a reference to it
            DeadName(self._task, name).close()
        keys = [(Notification.SEND_POSSIBLE, name)]
        if kind is Notification.MESSAGE:
            keys = [(kind, name)]
        elif kind is Notification.SEND_ONCE:  # a port is gone, or its right moved: not said which
            keys = [*self.asked]
        for line in [line for key in keys for line in self.asked.pop(key, ())]:
            line.serve()


class Observer:
    """The lines of a kernel, by what is waited for, and the notifications that serve them."""

    def __init__(self, kernel: Kernel, label: str | None) -> None:
        self._kernel, self._label = kernel, label
        self._task: Task | None = None
        self._ears: dict[Task, _Ear] = {}
        self._lines: dict[Notification, WeakValueDictionary[Any, Line]] = {
            kind: WeakValueDictionary()
            for kind in (Notification.MESSAGE, Notification.SEND_POSSIBLE)
        }

    def known(self, wait: Wait) -> Line | None:
        """Return where to wait, if anybody does: with the same right, or to send to the port."""
        lines = self._lines[wait.kind]
        return lines.get(_key(wait)) if lines else None

    def line(self, wait: Wait) -> Line:
        """Return where to wait."""
        found = self.known(wait)
        if found is None:
            found = self._lines[wait.kind][_key(wait)] = Line(self._watch)
        return found

    def _watch(self, line: Line, wait: Wait) -> None:
        """Ask for what tells that the first in line may succeed."""
        rights = wait.right.members() if isinstance(wait.right, PortSet) else [wait.right]
        for right in rights:
            self._ear(right.task).request(right, wait.kind, line)

    def _ear(self, task: Task) -> _Ear:
        ear = self._ears.get(task)
        if ear is None:
            if self._task is None:
                self._task = self._kernel.create_task("simpy", self._label)
            ear = self._ears[task] = _Ear(task, self._task)
        return ear

    def forget(self, task: Task) -> None:
        """The task is no more."""
        ear = self._ears.pop(task, None)
        if ear is not None:
            ear.port.close()


def _key(wait: Wait) -> Any:
    right = wait.right
    return (right.task, right.name) if wait.kind is Notification.MESSAGE else right.port_id
