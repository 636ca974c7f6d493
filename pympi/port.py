# SPDX-License-Identifier: BSD-2-Clause
"""Rights: what a task may do with a port, as a name in the task's space.

A right object is a *view*: a task and a name. Collecting it changes nothing; `close()`, or leaving
a `with` block, drops exactly one reference. No rule of Mach is written here: the core has them.

Methods such as `copy_send()` come in two forms. Without an argument they return what a message may
carry, `rights=[printer.copy_send()]`. With a task they hand the right over at once, and return it
as that task's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, overload

from . import _aio, _upcall, batch
from ._closing import Closing
from ._ffi import ffi, lib
from ._values import bytes_of, nanoseconds
from .enums import Disposition, Notification, PortRight, PortType
from .errors import InvalidName, InvalidRight, MachError, PortDied
from .message import Carried, Message, Spec

if TYPE_CHECKING:
    from .task import Task

__all__ = [
    "DeadName",
    "Peek",
    "PortSet",
    "PortStatus",
    "ReceiveRight",
    "Right",
    "SendOnceRight",
    "SendRight",
]

R = TypeVar("R", bound="Right")

_RECEIVING = lib.MACH_RCV_IN_PROGRESS & ~1  # what the codes of a receive have in common


class PortStatus(NamedTuple):
    """mach_port_status_t: the state of a port, as its receiver sees it.

    Attributes:
        sets: in how many port sets it is (Mach tells only whether).
        seqno: of the next message.
        mscount: how many send rights were made.
        qlimit: how many messages it queues.
        msgcount: how many it has.
        send_once_rights: how many there are.
        send_rights: whether there are any.
        destroyed_request, no_senders_request: whether those notifications are asked for.
        flags: the status flags of Mach.
    """

    sets: int
    seqno: int
    mscount: int
    qlimit: int
    msgcount: int
    send_once_rights: int
    send_rights: bool
    destroyed_request: bool
    no_senders_request: bool
    flags: int


class Peek(NamedTuple):
    """What can be seen of a queued message without receiving it."""

    seqno: int
    size: int
    msgh_id: int


class Right(Closing):
    """A name in a task's space. Two are equal if they are the same kind of view of the same name.

    Attributes:
        task (Task): whose right it is.
        name (int): its mach_port_name_t.
    """

    __slots__ = ("__weakref__", "_closed", "name", "task")

    _KIND: ClassVar[PortRight]

    def __init__(self, task: Task, name: int) -> None:
        self.task = task
        self.name = name
        self._closed = False

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.task is other.task and self.name == other.name

    def __hash__(self) -> int:
        return hash((self.task.id, self.name))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name:#x} of task {self.task.name!r}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: a right lives in one kernel's task")

    def close(self) -> None:
        """Drop one reference; a second call, and one on a name that is gone, does nothing."""
        if self._closed or not self.task.alive:
            return
        self._closed = True
        try:
            self._drop()
        except (InvalidName, InvalidRight):
            return

    def _drop(self) -> None:
        self.task._do(lib.pm_port_deallocate, self.name)

    # ---- what can be asked of any name ----

    @property
    def type(self) -> PortType:
        """What the name holds now (mach_port_type)."""
        return PortType(self.task._get(lib.pm_port_type, self.name))

    @property
    def refs(self) -> int:
        """How many user references the name holds of this kind of right (mach_port_get_refs)."""
        return self.task._get(lib.pm_port_get_refs, self.name, self._KIND)

    @property
    def sid(self) -> int:
        """The number of the port's label.

        Raises:
            InvalidName: the name denotes no living port.
        """
        return self.task._value(lib.pm_port_sid(self.task._pointer, self.name), self.name)

    @property
    def label(self) -> str:
        """The port's label."""
        return self.task.kernel.label(self.sid)

    @property
    def port_id(self) -> int:
        """A number of the port that no other in its kernel ever has; 0 for no port."""
        return self.task.port_id(self.name)

    @property
    def provenance(self) -> int:
        """The transfer by which the task got this name; 0 if it was made here."""
        return int(lib.pm_port_provenance(self.task._pointer, self.name))

    def request_notification(
        self, kind: Notification, notify: ReceiveRight, sync: int = 0, *,
        caller: Task | None = None,
    ) -> SendOnceRight | None:  # fmt: skip
        """Ask to be told what becomes of the port (mach_port_request_notification).

        Args:
            kind: NO_SENDERS and PORT_DESTROYED on a receive right, DEAD_NAME and SEND_POSSIBLE on
                a send right. MESSAGE, on a receive right, is not Mach's: a message waits here.
            notify: receives the notification; a right of the caller's.
            sync: make-send count for NO_SENDERS; not 0 tells at once of what has happened already,
                or of a message that waits already.

        Returns:
            The right of a registration this one replaced, which is the caller's to use or close.
        """
        return self._register(kind, sync, notify.name, Disposition.MAKE_SEND_ONCE, caller)

    def cancel_notification(
        self, kind: Notification, *, caller: Task | None = None
    ) -> SendOnceRight | None:
        """Take a request back; return its right, which is the caller's to use or close."""
        return self._register(kind, 0, 0, Disposition.MAKE_SEND_ONCE, caller)

    def _register(
        self, kind: int, sync: int, notify: int, disposition: int, caller: Task | None
    ) -> SendOnceRight | None:
        arguments = (self.name, kind, sync, notify, disposition)
        previous = self.task._get(lib.pm_port_request_notification, *arguments, caller=caller)
        return SendOnceRight(caller or self.task, previous) if previous else None

    def _give(self, disposition: Disposition, to: Task | None) -> Any:
        if to is None:
            return Carried(self, disposition)
        name = lib.pm_port_transfer(self.task._pointer, self.name, disposition, to._pointer)
        return to.carried(self.task._value(name, self.name), disposition)


class _Sending(Right):
    """What can be sent to."""

    __slots__ = ("_ask", "_post")

    _ask: Callable[[bytes, int, int, int], Message]
    _post: Callable[..., None]

    _USE: ClassVar[Disposition]
    _USE_UP: ClassVar[Disposition]

    def send(
        self, body: Any = b"", msgh_id: int = 0, *, rights: Sequence[Carried | None] = (),
        reply: Carried | ReceiveRight | None = None, timeout: float | None = None,
        effective: str | None = None, memory: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        """Send a message (mach_msg). Waits while the queue is full.

        Args:
            body: bytes-like; copied.
            msgh_id: the message's number, 32 bits, signed; a port's interface goes by it.
            rights: what it carries: `right.copy_send()` and the like, None for a null right.
            reply: where the answer shall go; a receive right gives a send-once right to itself.
            timeout: seconds to wait; 0 polls, None waits for ever.
            effective: the label to send under; asks `specify` of the task's own.
            memory: bytes-like objects or `Memory`, passed by reference.

        Raises:
            AccessDenied: refused; nothing has changed.
            QueueFull: the queue stayed full; nothing has changed.
            PortDied: the port is dead.
            InvalidName, InvalidRight: this right, or one in the message, is not there.

        Example:
            >>> from pympi import Kernel
            >>> with Kernel() as kernel:
            ...     inbox = kernel.create_task("server").allocate_port()
            ...     inbox.make_send(kernel.create_task("client")).send(b"hello", msgh_id=7)
            ...     inbox.receive().body
            b'hello'
        """
        if rights or reply is not None or effective is not None or memory:
            self._send_whole(self._USE, body, msgh_id, rights, reply, timeout, effective, memory)
            return
        try:
            post = self._post
        except AttributeError:
            post = self._post = self.task._poster(self.name)
        post(
            body if type(body) is bytes else bytes_of(body),
            msgh_id,
            -1 if timeout is None else nanoseconds(timeout),
        )

    def use_up(
        self, body: Any = b"", msgh_id: int = 0, *, rights: Sequence[Carried | None] = (),
        reply: Carried | ReceiveRight | None = None, timeout: float | None = None,
        effective: str | None = None, memory: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        """Send a message by moving this right into it: one reference less. Arguments as `send`."""
        self._send_whole(self._USE_UP, body, msgh_id, rights, reply, timeout, effective, memory)

    def _send_whole(
        self, use: Disposition, body: Any, msgh_id: int, rights: Sequence[Carried | None],
        reply: Carried | ReceiveRight | None, timeout: float | None, effective: str | None,
        memory: Sequence[Any], option: int = 0,
    ) -> None:  # fmt: skip
        wait = nanoseconds(timeout)
        answer = reply.make_send_once() if isinstance(reply, ReceiveRight) else reply
        with self.task.kernel.borrowed(effective) as sid:
            spec = Spec(
                self.task, (self.name, use), body, msgh_id,
                reply=answer, rights=rights, effective_sid=sid, memory=memory, option=option,
            )  # fmt: skip
            code = lib.pm_block_send_message(self.task._pointer, spec.pointer, wait)
        if code:
            spec.failed()
            self.task._send_failed(code, self.name)

    def call(
        self, body: Any = b"", msgh_id: int = 0, *, rights: Sequence[Carried | None] = (),
        timeout: float | None = None, effective: str | None = None, memory: Sequence[Any] = (),
    ) -> Message:  # fmt: skip
        """Send a request and wait for its answer, on a send-once right bound to this call.

        Arguments as for `send`; `timeout` is for the whole call.

        Returns:
            The answer.

        Raises:
            PortDied: the server, or the request, was destroyed without an answer.
            TimedOut: no answer came in time; one that comes later is destroyed.
        """
        wait = nanoseconds(timeout)
        answers = self.task._reply_port()
        try:
            if rights or effective is not None or memory:
                message = self._call_whole(body, msgh_id, answers, rights, wait, effective, memory)
            else:
                message = self._asker()(
                    body if type(body) is bytes else bytes_of(body), msgh_id, wait, answers.name
                )
        except BaseException:
            answers.close()
            raise
        self.task._reply_ports.append(answers)
        return self._answer(message)

    def _asker(self) -> Callable[[bytes, int, int, int], Message]:
        try:
            return self._ask
        except AttributeError:
            self._ask = self.task._caller(self.name)
            return self._ask

    def _call_whole(
        self, body: Any, msgh_id: int, answers: ReceiveRight, rights: Sequence[Carried | None],
        wait: int, effective: str | None, memory: Sequence[Any],
    ) -> Message:  # fmt: skip
        with self.task.kernel.borrowed(effective) as sid:
            spec = Spec(
                self.task, (self.name, self._USE), body, msgh_id,
                reply=answers.make_send_once(), rights=rights, effective_sid=sid, memory=memory,
            )  # fmt: skip
            received = ffi.new("struct pm_received *")
            code = lib.pm_block_call(self.task._pointer, spec.pointer, answers.name, received, wait)
            if code and code & _RECEIVING != _RECEIVING:
                spec.failed()
            return self.task._received(code, self.name, received)

    def _answer(self, message: Message) -> Message:
        if message.notification is Notification.SEND_ONCE:
            raise PortDied(lib.MACH_RCV_PORT_DIED, f"{self!r}: the request was destroyed")
        return message

    def sender(self, msgh_id: int = 0, timeout: float | None = None) -> Callable[..., None]:
        """Return a callable for inner loops: `send(body)`, with nothing in between.

        Args:
            msgh_id: of every message.
            timeout: seconds to wait where the queue is full; 0 polls, None waits for ever.

        Returns:
            `send(body: bytes) -> None`, which raises what `send` raises. It stays usable when this
            object is collected.
        """
        return self.task._poster(self.name, msgh_id, nanoseconds(timeout))

    def send_many(self, bodies: Any, msgh_id: Any = 0, *, sizes: Any = None) -> batch.Codes:
        """Send many messages in one call. Never waits.

        Args:
            bodies: an array, a message each along its first axis: (n, size) bytes or the like, or n
                structures. Or bytes-like, the messages one behind the other, with `sizes`. Or a
                list of bytes-like objects, which is slower.
            msgh_id: one number for all, or an array of n.
            sizes: bytes of each message, n integers: at most a row, where there are rows.

        Returns:
            A Mach code for each, int32: 0 where it was sent; else nothing has changed. Where the
            queue is full none of those behind is sent either, so that none overtakes another:
            MACH_SEND_TIMED_OUT.

        Raises:
            TypeError, ValueError, OverflowError: the arrays cannot be what is said here.

        Example:
            >>> import numpy as np
            >>> from pympi import Kernel
            >>> with Kernel() as kernel:
            ...     inbox = kernel.create_task("server").allocate_port(qlimit=100)
            ...     pages = np.arange(12, dtype=np.uint8).reshape(3, 4)
            ...     codes = inbox.make_send(kernel.create_task("client")).send_many(pages)
            ...     got = inbox.receive_many(room := np.zeros((10, 4), np.uint8))
            ...     codes.tolist(), len(got.results), room[2].tolist()
            ([0, 0, 0], 3, [8, 9, 10, 11])
        """
        return batch.send_many(self.task, self.name, bodies, msgh_id, sizes)

    def rpc_many(
        self, bodies: Any, out: Any, msgh_id: Any = 0, *, sizes: Any = None,
        timeout: float | None = None,
    ) -> batch.Batch:  # fmt: skip
        """Make many calls in one, one after the other, as `call` does.

        Args:
            bodies, msgh_id, sizes: as for `send_many`.
            out: room for an answer each, as for `receive_many`.
            timeout: seconds for all; 0 polls, None waits for ever.

        Returns:
            The answers, in order. Codes: 0; MACH_SEND_* where the request was not sent;
            MACH_RCV_TIMED_OUT where no answer came; MACH_RCV_PORT_DIED where the request was
            destroyed unanswered; MACH_RCV_TOO_LARGE where the answer was too large, or brought
            rights or memory: it is destroyed.

        Raises:
            TypeError, ValueError, OverflowError: the arrays cannot be what is said here.
        """
        return batch.rpc_many(self.task, self.name, bodies, out, msgh_id, sizes, timeout)

    async def send_async(self, body: Any = b"", msgh_id: int = 0, **arguments: Any) -> None:
        """Send as `send` does; where the queue is full, let other coroutines run until it is not.

        A task's coroutines that wait with the same right are served in turn. Cancelling one leaves
        its message unsent, and its rights where they were.

        Args:
            arguments: as of `send`, but for timeout: use asyncio's.
        """
        await _aio.wait(
            self.task._waiters, "send", self.name, lambda: _Room.to(self),
            lambda: self.send(body, msgh_id, timeout=0, **arguments),
        )  # fmt: skip

    async def call_async(self, body: Any = b"", msgh_id: int = 0, **arguments: Any) -> Message:
        """Call as `call` does, and let other coroutines run meanwhile.

        If it is cancelled, an answer that comes later is destroyed.
        """
        with self.task.allocate_port() as answers:
            await self.send_async(body, msgh_id, reply=answers, **arguments)
            return self._answer(await answers.receive_async())


class SendRight(_Sending):
    """The right to send to a port."""

    __slots__ = ()

    _KIND = PortRight.SEND
    _USE = Disposition.COPY_SEND
    _USE_UP = Disposition.MOVE_SEND

    @overload
    def copy_send(self, to: None = None) -> Carried: ...
    @overload
    def copy_send(self, to: Task) -> SendRight: ...
    def copy_send(self, to: Task | None = None) -> Carried | SendRight:
        """A copy of this right: for a message, or handed `to` a task at once."""
        return self._give(Disposition.COPY_SEND, to)

    @overload
    def move_send(self, to: None = None) -> Carried: ...
    @overload
    def move_send(self, to: Task) -> SendRight: ...
    def move_send(self, to: Task | None = None) -> Carried | SendRight:
        """One reference of this right: for a message, or handed `to` a task at once."""
        return self._give(Disposition.MOVE_SEND, to)


class SendOnceRight(_Sending):
    """The right to send one message. One that is closed instead of used notifies its port."""

    __slots__ = ()

    _KIND = PortRight.SEND_ONCE
    _USE = _USE_UP = Disposition.MOVE_SEND_ONCE

    def __init__(self, task: Task, name: int) -> None:
        super().__init__(task, name)
        self._post = partial(task._post_once, name)

    use_up = _Sending.send

    @overload
    def move_send_once(self, to: None = None) -> Carried: ...
    @overload
    def move_send_once(self, to: Task) -> SendOnceRight: ...
    def move_send_once(self, to: Task | None = None) -> Carried | SendOnceRight:
        """This right: for a message, or handed `to` a task at once."""
        return self._give(Disposition.MOVE_SEND_ONCE, to)


class DeadName(Right):
    """The name of a port that died."""

    __slots__ = ()

    _KIND = PortRight.DEAD_NAME


class _Receiving(Right):
    """What can be received from."""

    __slots__ = ("_take",)

    _take: Callable[[int, int], Message]

    def _drop(self) -> None:
        self.task._do(lib.pm_port_mod_refs, self.name, self._KIND, -1)

    def receive(self, timeout: float | None = None, effective: str | None = None) -> Message:
        """Take the next message (mach_msg). Waits until there is one.

        Args:
            timeout: seconds to wait; 0 polls, None waits for ever.
            effective: the label to receive under; asks `interpose` of the task's own.

        Raises:
            AccessDenied: refused. Where the receiver may not receive from this sender
                (MACH_RCV_INVALID_DATA), the message is destroyed.
            TimedOut: no message came.
            PortDied: the port died while this waited.
            InvalidName: the right is not there.
        """
        try:
            take = self._take
        except AttributeError:
            take = self._take = self.task._taker(self.name)
        if effective is None:
            return take(-1 if timeout is None else nanoseconds(timeout), 0)
        with self.task.kernel.borrowed(effective) as sid:
            return take(nanoseconds(timeout), sid)

    def receiver(self, timeout: float | None = None) -> Callable[[], bytes]:
        """Return a callable for inner loops: `receive() -> bytes`, with nothing in between.

        Rights and memory in the messages are dropped.

        Args:
            timeout: seconds each call waits; 0 polls, None waits for ever.
        """
        return self.task._receiver(self.name, nanoseconds(timeout))

    def receive_many(self, out: Any) -> batch.Batch:
        """Take the messages that wait, as many as there is room for, in one call. Never waits.

        Args:
            out: an array, room for a message each along its first axis: (n, size) bytes or the
                like, or n structures; contiguous and writable.

        Returns:
            What was received. Only plain bytes are: what brings rights or memory stays queued.

        Raises:
            TypeError, ValueError: the array cannot be what is said here.
        """
        return batch.receive_many(self.task, self.name, out)

    async def receive_async(self) -> Message:
        """Take the next message; let other coroutines run until there is one.

        Several waiters are served in turn. Cancelling one loses no message. Raises what `receive`
        raises.
        """
        return await _aio.wait(
            self.task._waiters, "receive", self.name, lambda: _Messages(self),
            lambda: self.receive(timeout=0),
        )  # fmt: skip

    async def serve_async(
        self, handler: Callable[[Message], Awaitable[object]], *, limit: int = 100
    ) -> None:
        """Give each message to a coroutine, until the port dies or this is cancelled.

        If the handler raises, the message and what it brought are destroyed, and that is logged, as
        it is for `Task.create_handler`. A message that may not be received is destroyed, and the
        next one served. At the end those that run are finished; when cancelled, so are they.

        Args:
            handler: an async function of the `Message`.
            limit: how many run at a time; more messages stay queued.

        Raises:
            AccessDenied: the task may not receive from the port.
            ValueError: no message could be served.
        """
        if limit < 1:
            raise ValueError(
                f"limit is how many messages are served at a time, 1 or more: {limit!r}"
            )
        await _aio.serve(self.receive_async, partial(_handle, handler), limit, _is_over)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the messages until the port dies."""
        try:
            while True:
                yield await self.receive_async()
        except (InvalidName, PortDied):
            return

    def fileno(self) -> int:
        """Return a descriptor that is readable while messages wait, for select and its like.

        It belongs to the port and is closed with it.
        """
        return self.task._value(lib.pm_port_event_fd(self.task._pointer, self.name), self.name)


class _Messages:
    """Tells asyncio of messages that wait."""

    def __init__(self, right: _Receiving) -> None:
        self._right = right

    def open(self) -> int:
        return _aio.duplicate(self._right.fileno())

    def arm(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing was asked for."""


class _Room:
    """Tells asyncio of room in the queue that a right leads to: by a notification, and its port.

    A task has one request for each name, so those who wait in several loops share it.
    """

    _lock = RLock()

    def __init__(self, right: _Sending) -> None:
        self._right = right
        self._port = right.task.allocate_port()
        self._users = 0
        self._asked = False  # and not told yet

    @classmethod
    def to(cls, right: _Sending) -> _Room:
        """Return what tells of room for a right; to be closed once for each time."""
        rooms = right.task._rooms
        with cls._lock:
            room = rooms[right.name] = rooms.get(right.name) or cls(right)
            room._users += 1
            return room

    def open(self) -> int:
        return _aio.duplicate(self._port.fileno())

    def arm(self) -> bool:
        with self._lock:
            self._take_what_was_told()
            try:
                self._ask()
            except MachError:
                return False
        return True

    def _ask(self) -> None:
        if not self._asked:
            kind = Notification.SEND_POSSIBLE
            replaced = self._right.request_notification(kind, self._port, sync=1)
            self._asked = True
            if replaced is not None:  # a program's own, or an older one of ours
                replaced.close()

    def _take_what_was_told(self) -> None:
        with suppress(MachError):  # TimedOut: that was all
            while True:
                told = self._port.receive(timeout=0).notification
                self._asked = False
                if told is Notification.DEAD_NAME:  # which brought a reference to it
                    DeadName(self._right.task, self._right.name).close()

    def close(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:  # what was told was for them as well
                self.arm()
                return
            self._take_what_was_told()
            self._port.close()
            del self._right.task._rooms[self._right.name]


async def _handle(handler: Callable[[Message], Awaitable[object]], message: Message) -> None:
    try:
        await handler(message)
    except BaseException as error:
        message._drop_rights()
        if not isinstance(error, Exception):
            raise
        _upcall.raised("handler", error)


def _is_over(error: Exception) -> bool:
    """Whether there is nothing more to serve; raises what has to be known."""
    if isinstance(error, MachError) and error.code == lib.MACH_RCV_INVALID_DATA:
        return False
    if isinstance(error, (InvalidName, PortDied)):
        return True
    raise error


class ReceiveRight(_Receiving):
    """The right to receive from a port: the port itself, for whoever holds it."""

    __slots__ = ()

    _KIND = PortRight.RECEIVE

    @overload
    def make_send(self, to: None = None) -> Carried: ...
    @overload
    def make_send(self, to: Task) -> SendRight: ...
    def make_send(self, to: Task | None = None) -> Carried | SendRight:
        """A new send right: for a message, or handed `to` a task at once.

        The maker is asked make_send, the taker hold_send.
        """
        return self._give(Disposition.MAKE_SEND, to)

    @overload
    def make_send_once(self, to: None = None) -> Carried: ...
    @overload
    def make_send_once(self, to: Task) -> SendOnceRight: ...
    def make_send_once(self, to: Task | None = None) -> Carried | SendOnceRight:
        """A new send-once right: for a message, or handed `to` a task at once."""
        return self._give(Disposition.MAKE_SEND_ONCE, to)

    @overload
    def move_receive(self, to: None = None) -> Carried: ...
    @overload
    def move_receive(self, to: Task) -> ReceiveRight: ...
    def move_receive(self, to: Task | None = None) -> Carried | ReceiveRight:
        """The receive right itself: for a message, or handed `to` a task at once."""
        return self._give(Disposition.MOVE_RECEIVE, to)

    def serve(self, interface: Any, *, caller: Task | None = None) -> None:
        """Let the core refuse whatever is no method of `interface`, or not allowed to its sender.

        What is queued already is asked about when it is received.

        Args:
            interface: a `pympi.mig.Interface`, or None to take every message again.

        Raises:
            AccessDenied: set_attributes is refused.
            ValueError: the kernel knows another interface of this name.
        """
        number = interface.number(self.task.kernel) if interface is not None else 0
        self.task._do(lib.pm_port_set_interface, self.name, number, caller=caller)

    def relabel(self, label: str, *, caller: Task | None = None) -> None:
        """Give the port another label; asks relabelfrom of the old and relabelto of the new one."""
        with self.task.kernel.borrowed(label, caller or self.task) as sid:
            self.task._do(lib.pm_port_relabel, self.name, sid, caller=caller)

    def peek(self, seqno: int = 0, *, caller: Task | None = None) -> Peek | None:
        """Look at a queued message without receiving it (mach_port_peek).

        Args:
            seqno: which one; 0 for the first.

        Returns:
            What can be seen, or None if there is no such message.
        """
        found = ffi.new("struct pm_peek *")
        found.seqno = seqno
        try:
            self.task._do(lib.pm_port_peek, self.name, 0, found, caller=caller)
        except MachError as error:
            if error.code == lib.KERN_FAILURE:
                return None
            raise
        return Peek(found.seqno, found.size, found.msgh_id)

    # ---- attributes ----

    def _attributes(self, flavor: int, count: int) -> list[int]:
        info, room = ffi.new("uint32_t[]", count), ffi.new("uint32_t *", count)
        self.task._do(lib.pm_port_get_attributes, self.name, flavor, info, room)
        return list(ffi.unpack(info, room[0]))

    @property
    def qlimit(self) -> int:
        """How many messages the port queues: 5 unless said, at most 1024."""
        return self._attributes(lib.MACH_PORT_LIMITS_INFO, 1)[0]

    @qlimit.setter
    def qlimit(self, limit: int) -> None:
        info = ffi.new("uint32_t[]", [limit])
        flavor = lib.MACH_PORT_LIMITS_INFO
        self.task._do(lib.pm_port_set_attributes, self.name, flavor, info, 1)

    @property
    def status(self) -> PortStatus:
        """The state of the port (mach_port_get_attributes, MACH_PORT_RECEIVE_STATUS)."""
        words = self._attributes(lib.MACH_PORT_RECEIVE_STATUS, lib.MACH_PORT_RECEIVE_STATUS_COUNT)
        senders, destroyed, no_senders = (bool(word) for word in words[6:9])
        counts = words[0], words[1], words[2], words[3], words[4], words[5]
        return PortStatus(*counts, senders, destroyed, no_senders, words[9])

    @property
    def seqno(self) -> int:
        """The place the next message will have."""
        return self.status.seqno

    @seqno.setter
    def seqno(self, seqno: int) -> None:
        self.task._do(lib.pm_port_set_seqno, self.name, seqno)

    @property
    def mscount(self) -> int:
        """How many send rights were made from this right."""
        return self.status.mscount

    @mscount.setter
    def mscount(self, mscount: int) -> None:
        self.task._do(lib.pm_port_set_mscount, self.name, mscount)

    @property
    def context(self) -> int:
        """A number of the receiver's own, 64 bits; 0 is shown for a strict guard."""
        value = ffi.new("uint64_t *")
        self.task._do(lib.pm_port_get_context, self.name, value)
        return int(value[0])

    @context.setter
    def context(self, context: int) -> None:
        self.task._do(lib.pm_port_set_context, self.name, context)

    def guard(self, guard: int, *, strict: bool = False, immovable: bool = False) -> None:
        """Let the port be destroyed only by who knows `guard` (mach_port_guard_with_flags)."""
        flags = (strict and lib.MPG_STRICT) | (immovable and lib.MPG_IMMOVABLE_RECEIVE)
        self.task._do(lib.pm_port_guard, self.name, guard, flags)

    def unguard(self, guard: int) -> None:
        """Take the guard away (mach_port_unguard)."""
        self.task._do(lib.pm_port_unguard, self.name, guard)

    def swap_guard(self, old: int, new: int) -> None:
        """Change the guard (mach_port_swap_guard)."""
        self.task._do(lib.pm_port_swap_guard, self.name, old, new)

    def destruct(self, guard: int = 0, srdelta: int = 0) -> None:
        """Destroy a guarded port, and `-srdelta` send references with it (mach_port_destruct)."""
        self.task._do(lib.pm_port_destruct, self.name, srdelta, guard)
        self._closed = True


class PortSet(_Receiving):
    """Several receive rights to receive from at once, in turn."""

    __slots__ = ()

    _KIND = PortRight.PORT_SET

    def add(self, *ports: ReceiveRight) -> None:
        """Put ports into the set; a port may be in several."""
        for port in ports:
            self.task._do(lib.pm_port_insert_member, port.name, self.name)

    def remove(self, *ports: ReceiveRight) -> None:
        """Take ports out of the set."""
        for port in ports:
            self.task._do(lib.pm_port_extract_member, port.name, self.name)

    def members(self) -> list[ReceiveRight]:
        """Return the ports in the set."""
        room = 16
        while True:
            names = ffi.new("uint32_t[]", room)
            count = self.task._get(lib.pm_port_get_set_status, self.name, names, room)
            if count <= room:
                return [ReceiveRight(self.task, name) for name in names[0:count]]
            room = count
