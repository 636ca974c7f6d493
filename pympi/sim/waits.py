# SPDX-License-Identifier: BSD-2-Clause
"""Waits on ports as SimPy events: who waits stands in line, who stops waiting leaves it.

SimPy's own stores hand an item to whoever asked first, even if nobody waits for that event any more
(a timeout came first, the process was interrupted): the item is lost. Here a message is taken only
when somebody is there for it, directly or through conditions (`|`, `&`), and nothing else happens
between the taking and the resuming. An event that nobody waits for takes nothing; it gets its turn
again when somebody waits for it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

import simpy
from simpy.events import PENDING, Condition, Event, EventPriority

from ..enums import Notification
from ..errors import MachError, PortDied, TimedOut, code_number
from ..port import PortSet, ReceiveRight, SendOnceRight, SendRight

if TYPE_CHECKING:
    from ..message import Message
    from .environment import Environment

__all__ = ["AT_ONCE", "Call", "Line", "Receive", "Send", "Wait"]

AT_ONCE = EventPriority(-1)
"""Before interrupts, and whatever else happens at the same time."""

_schedule = simpy.Environment.schedule
_PORT_DIED = code_number("MACH_RCV_PORT_DIED")


def check_timeout(timeout: float | None) -> None:
    """Refuse what is no time to wait.

    Raises:
        ValueError: it is not finite, or negative.
        TypeError: it is no number.
    """
    if timeout is not None and not (isfinite(timeout) and timeout >= 0):
        raise ValueError(f"timeout must be at least 0 seconds, or None for ever, not {timeout!r}")


class _Listeners(list):  # type: ignore[type-arg]
    """The callbacks of an event; whoever wants to know is told of each that comes.

    Attributes:
        tell: to be called then, in order, each once.
    """

    __slots__ = ("tell",)

    tell: tuple[Callable[[], None], ...]

    def append(self, callback: Any) -> None:
        list.append(self, callback)
        for tell in self.tell:
            tell()


class Line:
    """Those who wait for the same: messages of a port, or room in its queue.

    Args:
        key: of what they wait for.
        lines: where this is found by its key while somebody waits.
        watch: sees to it that this is served when the first in line may succeed.
    """

    def __init__(
        self, key: Any, lines: dict[Any, Line], watch: Callable[[Line, Wait], None]
    ) -> None:
        self.key = key
        self._lines = lines
        self._waits: deque[Wait] = deque()
        self._watch = watch
        self._serving = self._again = False
        self._many = 16

    def join(self, wait: Wait, tried: bool = False) -> None:
        """Stand in line, unless there already; the first has its try, if it was not in vain."""
        if wait.line is not self:
            wait.line = self
            self._waits.append(wait)
        if len(self._waits) > self._many:
            self._tidy()
        self.serve(tried and wait.line is self and self._waits[0] is wait)

    def _tidy(self) -> None:
        """Many wait, of whom some may have gone."""
        for wait in [wait for wait in tuple(self._waits) if not wait.wanted()]:
            self.leave(wait)
        self._many = 16 + 2 * len(self._waits)

    def leave(self, wait: Wait) -> None:
        """Do not wait any more."""
        if wait.line is self:
            wait.line = None
            self._waits.remove(wait)
            if not self._waits:
                del self._lines[self.key]

    def serve(self, tried: bool = False) -> None:
        """Let those in front try, as long as they succeed. A try may lead here again."""
        self._again = True
        if self._serving:
            return
        self._serving = True
        try:
            while self._again and self._waits:
                self._serve_first(self._waits[0], tried)
                tried = False
        finally:
            self._serving = False

    def _serve_first(self, wait: Wait, tried: bool) -> None:
        self._again = False
        if not (tried or (wait.wanted() and wait.blocked())):
            self.leave(wait)
            self._again = True
        elif not self._again:
            self._watch_for(wait)

    def _watch_for(self, wait: Wait) -> None:
        try:
            self._watch(self, wait)
        except MachError as error:
            self.leave(wait)
            wait.settle(False, error)
            self._again = True


class Wait(Event):
    """An event that happens when something can be done with a right.

    Attributes:
        right: with which.
        kind: MESSAGE or SEND_POSSIBLE: what tells that it is worth a try.
        line: where this waits, or None.
    """

    env: Environment
    kind: Notification = Notification.MESSAGE
    right: Any
    line: Line | None = None
    _was_heard = False
    _value: Any
    _ok: bool

    def __init__(
        self, env: Environment, right: Any, act: Callable[[], Any], timeout: float | None
    ) -> None:
        check_timeout(timeout)
        self.env = env  # all that Event.__init__ does, but for a list that is not used
        self.right = right
        self._act = act
        self._observer = env.observer(right.task.kernel)
        self._expired = timeout == 0
        self.callbacks = listeners = _Listeners()
        listeners.tell = (self._heard_of,)
        if timeout:
            env.timeout(timeout).callbacks.append(self._expire)

    def _heard_of(self) -> None:
        """Somebody waits for this, or for a condition with this in it."""
        if self._value is PENDING and _heard(self, self._heard_of):
            self._was_heard = True
            self._stand()

    def _stand(self) -> None:
        """Stand in line. Where nobody else does, or the time is over, try first."""
        line = None if self._expired else self.line or self._observer.known(self)
        if line is not None:
            line.join(self)
        elif self.blocked():
            self._observer.line(self).join(self, tried=True)

    def wanted(self) -> bool:
        """Whether to try: it has not happened yet, and somebody waits for it."""
        return self._value is PENDING and _heard(self, self._heard_of)

    def blocked(self) -> bool:
        """Try; return whether to wait. Whatever else is raised is what came of it, too."""
        try:
            self._done(self._act())
        except TimedOut as error:
            if not self._expired:
                return True
            self.settle(False, error)
        except Exception as error:
            self.settle(False, error)
        return False

    def _done(self, value: Any) -> None:
        self.settle(True, value)

    def _expire(self, _timeout: Event) -> None:
        """The time is over: so it is for those who wait now, and for who does later."""
        self._expired = True
        if self.wanted():
            if (line := self.line) is not None:
                line.leave(self)
            self.blocked()
            if line is not None:
                line.serve()

    def settle(self, ok: bool, value: Any) -> None:
        """It happened; whoever waits is told before anything else happens."""
        self._ok, self._value = ok, value
        _schedule(self.env, self, AT_ONCE)


class Receive(Wait):
    """Happens when a message is there for this event; its value is the message."""

    def __init__(
        self, env: Environment, right: ReceiveRight | PortSet, timeout: float | None
    ) -> None:
        super().__init__(env, right, partial(right.receive, 0), timeout)


class Send(Wait):
    """Happens when the message is sent. It is, as well, if nobody ever waits for that."""

    kind: Notification = Notification.SEND_POSSIBLE

    def __init__(
        self, env: Environment, right: SendRight | SendOnceRight, act: Callable[[], Any],
        timeout: float | None,
    ) -> None:  # fmt: skip
        super().__init__(env, right, act, timeout)
        self._stand()

    def wanted(self) -> bool:
        return super().wanted() or (self._value is PENDING and not self._was_heard)


class Call(Send):
    """Happens when the answer is there; its value is the answer.

    Attributes:
        answers: the port that it comes to; closed when the call is over.
    """

    def __init__(
        self, env: Environment, right: SendRight | SendOnceRight, arguments: dict[str, Any],
        timeout: float | None,
    ) -> None:  # fmt: skip
        self.answers = right.task.allocate_port()
        self._sent = False
        act = partial(right.send, timeout=0, reply=self.answers, **arguments)
        try:
            super().__init__(env, right, act, timeout)
        except BaseException:
            self.answers.close()
            raise

    def _done(self, value: Any) -> None:
        if self._sent:
            self.settle(*_answered(value))
            return
        self._sent, self.kind, self.right = True, Notification.MESSAGE, self.answers
        self._act = partial(self.answers.receive, 0)
        if self.line is not None:
            self.line.leave(self)
        self._stand()

    def wanted(self) -> bool:
        wanted = super().wanted()
        if not wanted:
            self.answers.close()
        return wanted

    def settle(self, ok: bool, value: Any) -> None:
        self.answers.close()
        super().settle(ok, value)


def _answered(message: Message) -> tuple[bool, Any]:
    if message.notification is Notification.SEND_ONCE:
        return False, PortDied(_PORT_DIED, "the request was destroyed")
    return True, message


def _heard(event: Event, tell: Callable[[], None]) -> bool:
    """Whether anybody waits for an event; see to it that those who do later are told of."""
    for callback in event.callbacks or ():
        condition = getattr(callback, "__self__", None)
        if not isinstance(condition, Condition):
            return True
        if condition is event or condition.triggered:
            continue
        if _heard(condition, tell):
            return True
        listeners = condition.callbacks
        if not isinstance(listeners, _Listeners):
            condition.callbacks = listeners = _Listeners(listeners)
            listeners.tell = ()
        if tell not in listeners.tell:
            listeners.tell += (tell,)
    return False
