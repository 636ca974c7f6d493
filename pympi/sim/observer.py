# SPDX-License-Identifier: BSD-2-Clause
"""How a simulation learns of messages and of room in queues: notifications, and a task for them.

Nothing polls, and what is simulated is not touched: the notifications are requested by a task of
the environment's own, which has a label of its own, and come to its handlers, in the sender's call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from ..enums import Notification
from ..port import DeadName, PortSet, ReceiveRight, Right
from .waits import Line, Wait

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..message import Message
    from ..task import Task

__all__ = ["Observer"]

Lines: TypeAlias = dict[Notification, dict[Any, Line]]
"""Those in which somebody waits, by what tells of it and by key."""

_MESSAGE, _SEND_POSSIBLE = Notification.MESSAGE, Notification.SEND_POSSIBLE
_DEAD_NAME, _SEND_ONCE = Notification.DEAD_NAME, Notification.SEND_ONCE
_NAME = slice(8, 12)  # of a notification's body


class _Ear:
    """Hears what is told of a task's rights: a notification gives a name, and not whose.

    Attributes:
        task: whose.
        port: that notifications come to.
        asked: for each kind of notification, by name, the keys of the lines to be served then.
    """

    def __init__(self, task: Task, port: ReceiveRight, lines: Lines) -> None:
        self.task = task
        self.port = port
        self._lines = lines
        self.asked: dict[Notification, dict[int, list[Any]]] = {kind: {} for kind in lines}
        self._deaf = False

    def request(self, right: Right, kind: Notification, line: Line) -> None:
        """Ask to be told, unless that was asked already and has not come yet."""
        asked = self.asked[kind]
        if right.name not in asked:
            asked[right.name] = [line.key]  # before it is told at once
            try:
                self._request(right, kind)
            except BaseException:
                asked.pop(right.name, None)
                raise
        elif line.key not in asked[right.name]:
            asked[right.name].append(line.key)

    def _request(self, right: Right, kind: Notification) -> None:
        caller = self.port.task
        replaced = right.request_notification(kind, self.port, sync=1, caller=caller)
        if replaced is not None:
            self._deaf = replaced.port_id == self.port.port_id  # our own request, asked anew
            try:
                replaced.close()
            finally:
                self._deaf = False

    def told(self, message: Message) -> None:
        """A notification came: those who wait for it have a try."""
        if self._deaf:
            return
        told, name = message.msgh_id, int.from_bytes(message.body[_NAME], "little")
        if message.sender_task:  # somebody took a request back, and used its right up
            told = _SEND_ONCE
        if told == _DEAD_NAME:  # which brought a reference to it
            DeadName(self.task, name).close()
        if told == _MESSAGE:
            due = self._due(_MESSAGE, name)
        elif told == _SEND_ONCE:  # a port is gone, or its right moved: not said which
            asked = [(kind, name) for kind, names in self.asked.items() for name in names]
            due = [line for each in asked for line in self._due(*each)]
        else:
            due = self._due(_SEND_POSSIBLE, name)
        for line in due:
            line.serve()

    def _due(self, kind: Notification, name: int) -> list[Line]:
        """Return the lines that asked about a name; they have to ask again."""
        lines = self._lines[kind]
        return [lines[key] for key in self.asked[kind].pop(name, ()) if key in lines]


class Observer:
    """The lines of a kernel, by what is waited for, and the notifications that serve them."""

    def __init__(self, kernel: Kernel, label: str | None) -> None:
        self._kernel, self._label = kernel, label
        self._task: Task | None = None
        self._ears: dict[Task, _Ear] = {}
        self._by_port: dict[int, _Ear] = {}  # by the name of its port
        self._handler = self._told  # one for all ports: the kernel keeps it for each function
        self._many = 16
        self._lines: Lines = {_MESSAGE: {}, _SEND_POSSIBLE: {}}

    def known(self, wait: Wait) -> Line | None:
        """Return where to wait, if anybody does: with the same right, or to send to the port."""
        lines = self._lines[wait.kind]
        return lines.get(_key(wait)) if lines else None

    def line(self, wait: Wait) -> Line:
        """Return where to wait."""
        lines, key = self._lines[wait.kind], _key(wait)
        if key not in lines:
            lines[key] = Line(key, lines, self._watch)
        return lines[key]

    def _watch(self, line: Line, wait: Wait) -> None:
        """Ask for what tells that the first in line may succeed."""
        right = wait.right
        for each in right.members() if type(right) is PortSet else (right,):
            self._ear(right.task).request(each, wait.kind, line)

    def _ear(self, task: Task) -> _Ear:
        ear = self._ears.get(task)
        if ear is None:
            if self._task is None:
                self._task = self._kernel.create_task("simpy", self._label)
            if len(self._ears) >= self._many:
                self._tidy()
            ear = _Ear(task, self._task.create_handler(self._handler), self._lines)
            self._ears[task] = self._by_port[ear.port.name] = ear
        return ear

    def _tidy(self) -> None:
        """There are many tasks, of whom some may have ended without a word."""
        for task in [task for task in self._ears if not task.alive]:
            self.forget(task)
        self._many = 16 + 2 * len(self._ears)

    def _told(self, message: Message) -> None:
        if (ear := self._by_port.get(message.local_name)) is not None:
            ear.told(message)

    def forget(self, task: Task) -> None:
        """The task is no more."""
        ear = self._ears.pop(task, None)
        if ear is not None:
            del self._by_port[ear.port.name]
            ear.port.close()


def _key(wait: Wait) -> Any:
    right = wait.right
    return (right.task, right.name) if wait.kind is _MESSAGE else right.port_id
