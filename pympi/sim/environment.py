# SPDX-License-Identifier: BSD-2-Clause
"""SimPy: an environment whose time is that of the kernels in it, and events for messages."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

try:
    import simpy
except ImportError as error:
    raise ImportError(
        "pympi.sim.Environment needs SimPy: pip install 'pympi-mach[sim]'", name="simpy"
    ) from error
from simpy.events import NORMAL, Condition, Event, EventPriority

from ..clock import LAST, SimulatedClock, simulated
from ..message import Message
from ..port import PortSet, ReceiveRight, SendOnceRight, SendRight
from ..task import Task
from .observer import Observer
from .waits import AT_ONCE, Call, Receive, Send

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..message import Carried

__all__ = ["Environment"]

# They are called for each event; super() would take as long as they do.
_step, _schedule = simpy.Environment.step, simpy.Environment.schedule


def _expect(what: str, given: object, *kinds: type) -> None:
    if not isinstance(given, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{what} a {names}, not {given!r}")


class Environment(simpy.Environment):
    """A SimPy environment that drives the clock of kernels, `Kernel(clock=env.clock)`.

    `now` is in seconds, and is the kernels' time, to the nanosecond. Waits are events, which can be
    yielded, combined with others by `|` and `&`, and interrupted: a message is taken only when
    somebody waits for it. A wait that nobody stands by any more takes none; whoever yields it again
    stands in line again. Those who wait for the same are served in the order they came.

    Args:
        clock: to drive; a new one unless given. The simulation begins at its time.
        label: of the task, one in each kernel, that asks to be notified for those who wait. Under
            policies it needs `insert_right` to the tasks, and `request_notification` to the ports,
            that are waited on; `make_send_once` and `set_attributes` to its own.

    Attributes:
        clock (SimulatedClock): the one source of time; only the environment may advance it.

    Example:
        >>> from pympi import Kernel
        >>> env = Environment()
        >>> with Kernel(clock=env.clock) as kernel:
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     printer = inbox.make_send(kernel.create_task("client"))
        ...     def server():
        ...         while True:
        ...             request = yield env.receive(inbox)
        ...             yield env.timeout(1.5)
        ...             yield env.reply(request, request.body.upper())
        ...     def client():
        ...         answer = yield env.call(printer, b"page")
        ...         return answer.body, env.now, kernel.time
        ...     _ = env.process(server())
        ...     env.run(until=env.process(client()))
        (b'PAGE', 1.5, 1.5)
    """

    def __init__(self, clock: SimulatedClock | None = None, *, label: str | None = None) -> None:
        self.clock = SimulatedClock() if clock is None else simulated(clock)
        super().__init__(self.clock.now())
        self._label = label
        self._observers: dict[Kernel, Observer] = {}
        self._delivering = False

    # ---- events ----

    def receive(self, right: ReceiveRight | PortSet, timeout: float | None = None) -> Receive:
        """Return the event of a message for whoever waits for it; its value is the `Message`.

        Args:
            right: to receive from. A port that joins a set that is waited on is looked at from the
                next wait on.
            timeout: simulated seconds; 0 polls, None waits for ever.

        Raises, into the process that waits:
            TimedOut: no message came. Else what `ReceiveRight.receive` raises.
        """
        _expect("env.receive() from", right, ReceiveRight, PortSet)
        return Receive(self, right, timeout)

    def send(
        self, right: SendRight | SendOnceRight, body: Any = b"", msgh_id: int = 0, *,
        timeout: float | None = None, **arguments: Any,
    ) -> Send:  # fmt: skip
        """Send as `SendRight.send` does; return the event that it is sent.

        It is sent now if there is room and nobody waits for room already, else when there is; or
        not at all, if whoever waited for that stopped waiting before.

        Args:
            timeout: simulated seconds; 0 polls, None waits for ever.
            arguments: as of `SendRight.send`.

        Raises, into the process that waits:
            QueueFull: there was no room. Else what `SendRight.send` raises.
        """
        _expect("env.send() to", right, SendRight, SendOnceRight)
        return Send(self, right, lambda: right.send(body, msgh_id, timeout=0, **arguments), timeout)

    def reply(
        self, request: Message, body: Any = b"", *, timeout: float | None = None, **arguments: Any
    ) -> Send:
        """Answer as `Message.reply` does; return the event that it is sent.

        Args:
            timeout: simulated seconds; 0 polls, None waits for ever.
            arguments: as of `Message.reply`.
        """
        _expect("env.reply() to", request, Message)
        right = request.reply_right or SendRight(request.task, 0)  # which it complains of
        return Send(self, right, partial(request.reply, body, timeout=0, **arguments), timeout)

    def call(
        self, right: SendRight | SendOnceRight, body: Any = b"", msgh_id: int = 0, *,
        rights: Sequence[Carried | None] = (), timeout: float | None = None,
        effective: str | None = None, memory: Sequence[Any] = (),
    ) -> Call:  # fmt: skip
        """Call as `SendRight.call` does; return the event of the answer, whose value it is.

        An answer that comes when nobody waits for it any more is destroyed, as a late one is.

        Raises, into the process that waits:
            TimedOut, QueueFull: it took longer. Else what `SendRight.call` raises.
        """
        _expect("env.call() to", right, SendRight, SendOnceRight)
        arguments = {
            "body": body, "msgh_id": msgh_id, "rights": rights, "effective": effective,
            "memory": memory,
        }  # fmt: skip
        return Call(self, right, arguments, timeout)

    def task_process(
        self, task: Task, generator: Generator[Event, Any, Any]
    ) -> simpy.events.Process:
        """Return a process that is the life of a task: when it ends, the task is terminated."""
        _expect("env.task_process() of", task, Task)

        def end(_: Event) -> None:
            if task.alive:
                task.terminate()
            if task.kernel in self._observers:
                self._observers[task.kernel].forget(task)

        process = self.process(generator)
        process.callbacks.append(end)
        return process

    # ---- time ----

    def step(self) -> None:
        """Process the next event; the kernels' time is then that of the event.

        Raises:
            ValueError: somebody else advanced the clock, past that time; or it is no time.
        """
        if self._queue:
            when, priority, _, _ = self._queue[0]
            if when != self._now:
                self.clock.advance_to(when)
            self._delivering = priority == AT_ONCE
        _step(self)

    def schedule(self, event: Event, priority: EventPriority = NORMAL, delay: float = 0) -> None:
        """Schedule an event. A condition that a message made true comes at once, as that does.

        Raises:
            ValueError: the clock has no such time.
        """
        if delay:
            # With one of numpy's short floats `now` would become one, and as coarse.
            delay = float(delay)
            if not 0 <= delay < LAST - self._now:
                raise ValueError(
                    f"time is from 0 to {int(LAST)} seconds, not {self._now + delay!r}"
                )
        if self._delivering and isinstance(event, Condition):
            priority = AT_ONCE
        _schedule(self, event, priority, delay)

    def observer(self, kernel: Kernel) -> Observer:
        """Return what the events of a kernel ask to be told.

        Raises:
            ValueError: the kernel has another clock.
        """
        found = self._observers.get(kernel)
        if found is None:
            if not self.clock.drives(kernel):
                raise ValueError(f"{kernel!r} has another clock: make it with clock=env.clock")
            self._observers = {k: each for k, each in self._observers.items() if not k.closed}
            found = self._observers[kernel] = Observer(kernel, self._label)
        return found
