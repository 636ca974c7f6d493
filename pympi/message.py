# SPDX-License-Identifier: BSD-2-Clause
"""Messages as they were received, and what a message may carry.

`Message` is built by the core's binding (csrc/callables.h): its plain fields are read straight from
the structure the core filled. What it carries is turned into objects when it is first asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _upcall
from ._binding import RECEIVED, adopt, borrow
from ._closing import Closing
from ._ffi import ffi, lib
from ._values import bytes_of, nanoseconds
from .enums import Disposition, Notification
from .errors import InvalidRight, PortDied

if TYPE_CHECKING:
    from .port import ReceiveRight, Right, SendOnceRight, SendRight
    from .task import Task

__all__ = ["Carried", "Memory", "Message", "Sender", "Spec"]

_NULL_RIGHT = (lib.MACH_PORT_NULL, Disposition.COPY_SEND)
_NOTIFICATIONS = frozenset(Notification)
_NOBODY = (lib.MACH_PORT_NULL, lib.MACH_PORT_DEAD)
_NONE_BUT_THE_CORES: tuple[str, ...] = ()


class Carried(NamedTuple):
    """A right for a message to carry, and what becomes of it: `right.copy_send()` and so on."""

    right: Right
    disposition: Disposition


class Memory(NamedTuple):
    """Memory that a message passes by reference.

    Attributes:
        buffer: bytes-like and contiguous; it must not change until it is released.
        release: called once, from any thread, when nothing refers to the memory any more. A send
            that fails leaves the memory with its caller and does not call it.
    """

    buffer: Any
    release: Callable[[], object] | None = None


class Sender(NamedTuple):
    """Who sent a message, as it was when the message was sent.

    Attributes:
        task: the task, or None if it is the kernel, or terminated.
        task_id: its number, never used twice in a kernel; 0 for the kernel.
        label: under which it sent (the effective label); "-" for the kernel.
        real_label: the task's own label then.
        audit_token: auid euid egid ruid rgid pid asid pidversion, as in Mach's audit trailer.
        security_token: uid and gid.
    """

    task: Task | None
    task_id: int
    label: str
    real_label: str
    audit_token: tuple[int, ...]
    security_token: tuple[int, ...]


class Message(RECEIVED, Closing):  # type: ignore[misc]
    """A message that was received.

    Closing a message drops what it brought: the reply right, all rights in it, and memory (Mach's
    mach_msg_destroy). One that is not closed leaves its rights in the task, as in Mach.

    Attributes:
        task (Task): which received it.
        body (bytes): the inline bytes.
        msgh_id (int): the message's number.
        seqno (int): its place among all messages received from the port.
        size (int): of the body, bytes.
        tclass, permission (int): the method that was asked about, as its class's number and the bit
            in it; where the port serves no interface that has the method, mach_port and 0. See
            `asked`.
        access (int): what the sender may do to the port: the vector of `tclass`.
        method (int): 1 if the sender may call the method, or there is no policy to ask; 0 if a
            permissive policy let it pass, or nothing was asked about. Like `access`, it is about
            policy, label and interface of the port as they were when the message was received
            (Mach's AV trailer, as SEDarwin used it).
        transfer (int): the number this message has in the audit trail, at both ends.
        denied (int): how many rights access control kept from the receiver.
        context (int): of the port.
        voucher (int): as the sender gave it.
        local_name, reply_name (int): names in the task: the port it came in on, the reply right.
        reply_disposition (int): Disposition.MOVE_SEND, MOVE_SEND_ONCE or NONE.
    """

    __slots__ = _NONE_BUT_THE_CORES

    if TYPE_CHECKING:
        task: Task
        body: bytes
        msgh_id: int
        seqno: int
        size: int
        access: int
        method: int
        tclass: int
        permission: int
        transfer: int
        denied: int
        context: int
        voucher: int
        local_name: int
        reply_name: int
        reply_disposition: int
        sender_sid: int
        real_sid: int
        sender_task: int
        identity: tuple[tuple[int, ...], tuple[int, ...]]
        carried_rights: tuple[tuple[int, int], ...]
        carried_memory: tuple[tuple[int, int], ...]
        _rights: list[Right | None] | None
        _memory: list[weakref.ref[_Loan]] | None
        _replied: bool

        def _free(self) -> None: ...

    @property
    def port(self) -> ReceiveRight:
        """The port it came in on, which for a port set is the member."""
        return self.task.receive_right(self.local_name)

    @property
    def sender(self) -> Sender:
        """Who sent it."""
        kernel = self.task.kernel
        return Sender(
            kernel.tasks.get(self.sender_task),
            self.sender_task,
            kernel.label(self.sender_sid),
            kernel.label(self.real_sid),
            *self.identity,
        )

    @property
    def asked(self) -> tuple[str, str] | None:
        """The method that access control was asked about: class and permission, by name."""
        if not self.permission:
            return None
        tclass = self.task.kernel.object_class(self.tclass)
        return tclass.name, *tclass.names(self.permission)  # type: ignore[return-value]

    @property
    def rights(self) -> list[Right | None]:
        """The rights it brought, in order; None for null rights and those that were refused."""
        if self._rights is None:
            self._rights = [self.task.carried(*pair) for pair in self.carried_rights]
        return self._rights

    @property
    def memory(self) -> list[memoryview]:
        """The memory it brought, uncopied, read-only. Closing the message ends these views."""
        loans = [_Loan(self, *pair) for pair in self.carried_memory]
        self._memory = [*(self._memory or ()), *map(weakref.ref, loans)]
        return [loan.view() for loan in loans]

    @property
    def reply_right(self) -> SendRight | SendOnceRight | None:
        """The right to reply with; None if there is none, it was refused, or it is used."""
        if self._replied or not self.reply_name:
            return None
        return self.task.carried(self.reply_name, self.reply_disposition)  # type: ignore[return-value]

    @property
    def notification(self) -> Notification | None:
        """What the kernel notifies of; None for a message of a task."""
        if self.sender_task or self.msgh_id not in _NOTIFICATIONS:
            return None
        return Notification(self.msgh_id)

    def reply(
        self, body: Any = b"", msgh_id: int | None = None, *, rights: Sequence[Any] = (),
        timeout: float | None = None, effective: str | None = None, memory: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        """Send the answer, which uses the reply right up.

        Args:
            body: bytes-like.
            msgh_id: by default the request's plus 100, as MIG has it.
            rights, timeout, effective, memory: as for `SendRight.send`.

        Raises:
            InvalidRight: there is no reply right, or the message was replied to.
            PortDied: nobody waits for the answer any more.
        """
        if self._replied or self.reply_name in _NOBODY:
            raise self._unanswerable()
        if msgh_id is None:
            msgh_id = (self.msgh_id + 100 + (1 << 31)) % (1 << 32) - (1 << 31)
        if memory or effective is not None or len(rights) > 1:
            self.reply_right.use_up(  # type: ignore[union-attr]
                body, msgh_id, rights=rights, timeout=timeout, effective=effective, memory=memory
            )
            self._replied = True
            return
        carried = [name for right in rights for name in carried_pair(self.task, right)]
        body = body if type(body) is bytes else bytes_of(body)
        self.task._answer(self, body, msgh_id, nanoseconds(timeout), *carried)

    def _unanswerable(self) -> InvalidRight | PortDied:
        if self.reply_name == lib.MACH_PORT_DEAD and not self._replied:
            return PortDied(lib.MACH_SEND_INVALID_DEST, "who asked is gone")
        what = "replied to already" if self._replied else "the message has no reply right"
        return InvalidRight(lib.MACH_SEND_INVALID_REPLY, what)

    def close(self) -> None:
        """Drop what the message brought; its plain fields and body stay.

        Raises:
            BufferError: somebody still uses its memory.
        """
        for lent in self._memory or ():
            if (loan := lent()) is not None:
                loan.end()
        loan = None
        if any(lent() is not None for lent in self._memory or ()):
            raise BufferError(f"{self!r}: its memory is in use; let go of what was made of it")
        self._drop_rights()
        self._free()

    def _drop_rights(self) -> None:
        brought: list[tuple[Right | None, int]]
        brought = [(self.reply_right, self.reply_disposition)]
        brought += zip(self.rights, (how for _, how in self.carried_rights), strict=False)
        left = [(right, how) for right, how in brought if right is not None and not right._closed]
        self._rights, self._replied = [], True
        pairs = ffi.new("struct pm_received_right[]", [(right.name, how) for right, how in left])
        refused = ffi.new("struct pm_received *", {"rights": pairs, "rights_count": len(pairs)})
        lib.pm_message_refuse(self.task._pointer, refused)
        for right, _ in left:
            right._closed = True

    def __repr__(self) -> str:
        return f"<Message {self.msgh_id}, {self.size} bytes, from task {self.sender_task}>"

    def __reduce__(self) -> Any:
        raise TypeError("a message cannot be copied or pickled: it owns rights; pickle its body")


class _Loan:
    """A view of a message's memory: it keeps the message, and is kept by whoever looks at it."""

    __slots__ = ("__weakref__", "_address", "_message", "_size", "_view")

    def __init__(self, message: Message, address: int, size: int) -> None:
        self._message = message
        self._address = address
        self._size = size
        self._view: weakref.ref[memoryview] | None = None

    def view(self) -> memoryview:
        view = memoryview(adopt(lib.pm_binding_lent(borrow(self), self._address, self._size)))
        self._view = weakref.ref(view)
        return view

    def end(self) -> None:
        view = self._view() if self._view else None
        if view is not None:
            view.release()


def carried_pair(task: Task, carried: Carried | None) -> tuple[int, int]:
    """Return name and disposition of a right that a task's message is to carry.

    Raises:
        TypeError, ValueError: it is no such thing, or another task's.
    """
    if carried is None:
        return _NULL_RIGHT
    if not isinstance(carried, Carried):
        raise TypeError(f"a right is given as right.copy_send() or the like, not {carried!r}")
    if carried.right.task is not task:
        owner = carried.right.task.name
        raise ValueError(f"{carried.right!r} is of task {owner!r}, not of {task.name!r}")
    return (carried.right.name, carried.disposition)


class Spec:
    """A `struct pm_send_spec`, and all it points to, for one send.

    Args:
        task: the sender.
        dest: the destination's name, and how it is used.
        reply: what the message names as its reply port.
        rights: `Carried` each, None for a null right.
        memory: bytes-like or `Memory` each.
    """

    def __init__(
        self, task: Task, dest: tuple[int, int], body: Any, msgh_id: int, *,
        reply: Carried | None = None, rights: Sequence[Carried | None] = (),
        effective_sid: int = 0, memory: Sequence[Any] = (), option: int = 0, voucher: int = 0,
    ) -> None:  # fmt: skip
        self.pointer = spec = ffi.new("struct pm_send_spec *")
        spec.dest, spec.dest_disposition = dest
        if reply is not None:
            spec.reply, spec.reply_disposition = carried_pair(task, reply)
        spec.msgh_id, spec.effective_sid = msgh_id, effective_sid
        spec.option, spec.voucher = option, voucher
        self._keep: list[Any] = [ffi.from_buffer(bytes_of(body))]
        spec.body, spec.size = self._keep[0], len(self._keep[0])
        if rights:
            pairs = [carried_pair(task, right) for right in rights]
            self._keep.append(ffi.new("struct pm_right[]", pairs))
            spec.rights, spec.rights_count = self._keep[-1], len(pairs)
        self._numbers: list[int] = []
        if memory:
            self._add_memory([m if isinstance(m, Memory) else Memory(m) for m in memory])

    def _add_memory(self, memory: list[Memory]) -> None:
        buffers = [ffi.from_buffer(item.buffer) for item in memory]
        entries = ffi.new("struct pm_memory[]", len(memory))
        for entry, buffer, item in zip(entries, buffers, memory, strict=True):
            number = _upcall.register(_Release(buffer, item.release))
            self._numbers.append(number)
            entry.address, entry.size = buffer, len(buffer)
            entry.release, entry.context = _upcall.RELEASE, _upcall.context(number)
        self._keep.append(entries)
        self.pointer.memory, self.pointer.memory_count = entries, len(memory)

    def failed(self) -> None:
        """Take the memory back: nothing was sent, and nothing will be released."""
        for number in self._numbers:
            _upcall.forget(number)


class _Release:
    """Keeps a buffer until the core lets it go."""

    __slots__ = ("_buffer", "_release")

    def __init__(self, buffer: Any, release: Callable[[], object] | None) -> None:
        self._buffer = buffer
        self._release = release

    def __call__(self) -> None:
        self._buffer = None
        if self._release is not None:
            self._release()
