# SPDX-License-Identifier: BSD-2-Clause
"""How a simulation learns of messages and of room in queues: notifications, and a task for them.

Nothing polls, and what is simulated is not touched: the notifications are requested by a task of
the environment's own, which has a label of its own, and come to its handlers, in the sender's call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..enums import Notification
from ..errors import AccessDenied, code_number
from ..port import DeadName, PortSet, ReceiveRight, Right
from .waits import Line, Wait

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..message import Message
    from ..task import Task

__all__ = ["Observer"]

_NO_ACCESS = code_number("KERN_NO_ACCESS")
_NAME = slice(8, 12)  # of a notification's body


class Observer:
    """The lines of a kernel, by what is waited for, and the notifications that serve them."""

    def __init__(self, kernel: Kernel, label: str | None) -> None:
        self._kernel, self._label = kernel, label
        self._task: Task | None = None
        self._ears: dict[Task, ReceiveRight] = {}
        self._lines: WeakValueDictionary[Any, Line] = WeakValueDictionary()
        self._asked: dict[tuple[Task, Notification, int], list[Line]] = {}

    def line(self, wait: Wait) -> Line:
        """Return where to wait: by the port that is received from, or sent to, by whomever."""
        right = wait.right
        key = (right.task, right.name) if wait.kind is Notification.MESSAGE else right.port_id
        found = self._lines.get(key)
        if found is None:
            found = self._lines[key] = Line(partial(self._watch, key))
        return found

    def _watch(self, key: Any, wait: Wait) -> None:
        """Ask for what tells that the first in line may succeed, unless it is asked for already."""
        line = self._lines[key]
        rights = wait.right.members() if isinstance(wait.right, PortSet) else [wait.right]
        for right in rights:
            asked = right.task, wait.kind, right.name
            lines = self._asked.setdefault(asked, [])
            if not lines:
                self._request(right, wait.kind)
            if line not in lines:
                lines.append(line)

    def _request(self, right: Right, kind: Notification) -> None:
        ear = self._ear(right.task)
        replaced = right.request_notification(kind, ear, sync=1, caller=ear.task)
        if replaced is not None:
            replaced.close()

    def _ear(self, task: Task) -> ReceiveRight:
        """Return the port for what is told about a task's rights: a notification gives a name."""
        if task not in self._ears:
            if self._task is None:
                self._task = self._kernel.create_task("simpy", self._label)
            ear = self._task.create_handler(partial(self._told, task))
            self._ears[task] = self._hearing(ear)
        return self._ears[task]

    def _hearing(self, ear: ReceiveRight) -> ReceiveRight:
        """See to it that what is told is received: nobody would ever wake, and nothing say why."""
        if not self._kernel.access(ear.task, ear, "mach_port", "use_recv").allowed:
            what = f"task {ear.task.name!r}, label {ear.task.label!r}, of the simulation"
            raise AccessDenied(_NO_ACCESS, what, "receive", "use_recv", "mach_port")
        return ear

    def _told(self, task: Task, message: Message) -> None:
        """A notification came: those who wait for it have a try."""
        kind, name = message.notification, int.from_bytes(message.body[_NAME], "little")
        if kind is Notification.DEAD_NAME:  # which brought a reference to it
            DeadName(task, name).close()
        keys: list[tuple[Task, Notification, int]]
        keys = [(task, Notification.SEND_POSSIBLE, name)]
        if kind is Notification.MESSAGE:
            keys = [(task, Notification.MESSAGE, name)]
        elif (
            kind is Notification.SEND_ONCE
        ):  # a port is gone, or its right moved: it says not which
            keys = [key for key in self._asked if key[0] is task]
        for line in [line for key in keys for line in self._asked.pop(key, ())]:
            line.serve()
