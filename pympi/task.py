# SPDX-License-Identifier: BSD-2-Clause
"""Tasks: the principals. A task has a space of names for its rights, a label, and a quota."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from . import _aio, _upcall
from ._binding import adopt, borrow
from ._ffi import ffi, lib
from .enums import (
    KOBJECTS,
    Disposition,
    GuardFlavor,
    Operation,
    PortRight,
    PortType,
    SpecialPort,
)
from .errors import (
    AccessDenied,
    GuardViolation,
    InvalidName,
    KernelClosed,
    MachError,
    PortDied,
    exception,
)
from .message import Message
from .port import DeadName, PortSet, ReceiveRight, Right, SendOnceRight, SendRight

if TYPE_CHECKING:
    from types import TracebackType

    from .bootstrap import Bootstrap
    from .kernel import Kernel

__all__ = ["Quota", "Task", "Usage", "Violation"]

_log = logging.getLogger("pympi.task")

Handler = Callable[[Message], object]

# A right that arrives, by the disposition it arrives with or was given by.
_ARRIVALS: dict[int, type[Right]] = {
    Disposition.MOVE_RECEIVE: ReceiveRight,
    Disposition.MOVE_SEND: SendRight,
    Disposition.COPY_SEND: SendRight,
    Disposition.MAKE_SEND: SendRight,
    Disposition.MOVE_SEND_ONCE: SendOnceRight,
    Disposition.MAKE_SEND_ONCE: SendOnceRight,
}
# What a name holds, the most telling first: a name with both kinds is shown as its receive right.
_HELD: dict[int, type[Right]] = {
    PortType.RECEIVE: ReceiveRight,
    PortType.SEND: SendRight,
    PortType.SEND_ONCE: SendOnceRight,
    PortType.PORT_SET: PortSet,
    PortType.DEAD_NAME: DeadName,
}
_NOBODY_REFUSED = frozenset({lib.MACH_RCV_TIMED_OUT, lib.MACH_SEND_TIMED_OUT})
_DELIVERED = (0, lib.MACH_RCV_BODY_ERROR | lib.MACH_MSG_IPC_SPACE)


@dataclass(frozen=True, slots=True)
class Quota:
    """What a task may use at most; 0 is no limit. Who fills, pays.

    Attributes:
        ports, names, sids, notifications: counts; sids are labels that the task was first to use.
        queued_bytes: of messages it sent and nobody has received yet, with what they carry.
        memory: bytes for out-of-line data (`pympi.mach.vm_allocate`, and what it received).
    """

    ports: int = 0
    names: int = 0
    sids: int = 0
    notifications: int = 0
    queued_bytes: int = 0
    memory: int = 0


class Usage(NamedTuple):
    """What a task uses now, in the terms of `Quota`."""

    ports: int
    names: int
    sids: int
    notifications: int
    queued_bytes: int
    memory: int


class Violation(NamedTuple):
    """A misuse of a guarded port or of an invalid name (XNU's guard exceptions)."""

    name: int
    flavor: GuardFlavor
    payload: int


class Task:
    """A task, made by `Kernel.create_task`. It lives until it is terminated, whoever looks at it.

    Attributes:
        kernel (Kernel): in which it lives.
        name (str): need not be unique.
        id (int): never used twice in a kernel.
        parent_id (int): of the task that made it; 0 for none.
    """

    def __init__(self, kernel: Kernel, pointer: Any, parent_id: int = 0) -> None:
        self.kernel = kernel
        self.parent_id = parent_id
        self._bootstrap: Bootstrap | None = None
        self._held = adopt(lib.pm_binding_held_task(pointer))
        self._pointer = pointer
        self.name: str = ffi.string(lib.pm_task_name(pointer)).decode(errors="surrogateescape")
        self.id: int = lib.pm_task_id(pointer)
        self._reply_ports: list[ReceiveRight] = []
        self._waiters: _aio.Waiters = {}
        self._rooms: dict[int, Any] = {}  # by name, where somebody waits to send
        self._handlers: dict[int, int] = {}
        self._made_here = True

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.name!r}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be copied or pickled: it lives in one kernel")

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.alive:
            self.terminate()

    # ---- calls into the core ----

    def _do(self, function: Any, *arguments: Any, caller: Task | None = None) -> None:
        """Call a function of (caller, task, name, ...) that returns a code."""
        actor = caller or self
        code = function(actor._pointer, self._pointer, *arguments)
        if code:
            raise actor.failure(code, arguments[0] if arguments else None)

    def _get(self, function: Any, *arguments: Any, caller: Task | None = None) -> int:
        """Call a function of (caller, task, name, ...) that returns a value or a negated code."""
        actor = caller or self
        result = function(actor._pointer, self._pointer, *arguments)
        return actor._value(result, arguments[0] if arguments else None)

    def _value(self, result: int, name: object = None) -> int:
        if result < 0:
            raise self.failure(-result, name)
        return result

    def failure(self, code: int, name: object = None) -> MachError:
        """Return the exception of a call of this task that failed just now.

        Why a call was refused is known only to the core; it is asked here, once.

        Args:
            code: a Mach code.
            name: the name the call was about, if any.
        """
        if code in _NOBODY_REFUSED:
            return exception(code)
        detail = f"task {self.name!r}" + (f", name {name:#x}" if type(name) is int else "")
        if self.kernel.closed and code in (lib.KERN_TERMINATED, lib.KERN_INVALID_TASK):
            return KernelClosed(code, detail)
        refusal = self._refusal(code, detail)
        return refusal or self._violation(code, detail) or exception(code, detail)

    def _refusal(self, code: int, detail: str) -> AccessDenied | None:
        denial = ffi.new("struct pm_denial *")
        if not lib.pm_task_take_denial(self._pointer, denial) or self.kernel.conceals_denials:
            return None
        tclass = self.kernel.object_class(denial.tclass)
        operation = Operation(denial.operation).name.lower()
        permission = " ".join(tclass.names(denial.denied))
        return AccessDenied(code, detail, operation, permission, tclass.name)

    def _violation(self, code: int, detail: str) -> GuardViolation | None:
        if self.kernel.guard_violations == "audit":
            return None
        violation = self.take_violation()
        if violation is None:
            return None
        if self.kernel.guard_violations == "log":
            _log.warning("%s: guard violation %s", detail, violation)
            return None
        error = GuardViolation(code, f"{detail}: {violation.flavor!r}")
        error.port_name, error.flavor, error.payload = violation
        return error

    def take_violation(self) -> Violation | None:
        """Return the last guard violation of this task since the last call, or None."""
        found = ffi.new("struct pm_violation *")
        if not lib.pm_task_take_violation(self._pointer, found):
            return None
        return Violation(found.name, GuardFlavor(found.flavor), found.payload)

    def _send_failed(self, code: int, name: int) -> NoReturn:
        error = self.failure(code, name)
        if type(error) is InvalidName and lib.pm_port_is_dead(self._pointer, name):
            raise PortDied(code, error.detail)
        raise error

    def _receive_failed(self, code: int, name: int) -> NoReturn:
        raise self.failure(code, name)

    def _received(self, code: int, name: int, received: Any) -> Message:
        """Return the message that the core filled in, or raise."""
        if code not in _DELIVERED:
            self._send_failed(code, name)
        return adopt(lib.pm_received_wrap(borrow(Message), borrow(self), received))

    def _post_once(self, name: int, body: bytes, msgh_id: int, timeout: int) -> None:
        """Send plain bytes, to a right for which no callable is worth its making."""
        code = lib.pm_block_send(self._pointer, name, body, len(body), msgh_id, timeout)
        if code:
            self._send_failed(code, name)

    # ---- callables (csrc/callables.h) ----

    def _poster(self, name: int, msgh_id: int = 0, timeout: int = -1) -> Callable[..., None]:
        slow = self._send_failed
        return adopt(
            lib.pm_callable_sender(
                borrow(self), borrow(slow), self._pointer, name, msgh_id, timeout
            )
        )

    def _receiver(self, name: int, timeout: int) -> Callable[[], bytes]:
        slow = self._receive_failed
        return adopt(
            lib.pm_callable_receiver(borrow(self), borrow(slow), self._pointer, name, timeout)
        )

    def _taker(self, name: int) -> Callable[[int, int], Message]:
        slow = self._receive_failed
        return adopt(
            lib.pm_callable_taker(borrow(self), borrow(slow), borrow(Message), self._pointer, name)
        )

    def _caller(self, name: int) -> Callable[[bytes, int, int, int], Message]:
        slow = self._send_failed
        return adopt(
            lib.pm_callable_caller(borrow(self), borrow(slow), borrow(Message), self._pointer, name)
        )

    @functools.cached_property
    def _answer(self) -> Callable[..., None]:
        slow = self._send_failed
        return adopt(
            lib.pm_callable_answerer(borrow(self), borrow(slow), borrow(Message), self._pointer)
        )

    @functools.cached_property
    def _send_rows(self) -> Callable[..., Any]:
        slow = self._receive_failed
        return adopt(lib.pm_callable_rows_sender(borrow(self), borrow(slow), self._pointer))

    @functools.cached_property
    def _receive_rows(self) -> Callable[..., Any]:
        slow = self._receive_failed
        return adopt(lib.pm_callable_rows_receiver(borrow(self), borrow(slow), self._pointer))

    def sender_checker(
        self, tclass: str, permissions: str | int | Iterable[str]
    ) -> Callable[..., bool]:
        """Return a callable for servers, which decides what a sender may do, and records it.

        It is to an object of the server's own what the kernel's checks are to ports (SELinux's
        avc_has_perm): the sender's effective label of send time is asked about, cached as ever, and
        the record is the sender's, with the operation `service`.

        Args:
            tclass: the class of the object.
            permissions: one or several, by name or as a vector.

        Returns:
            `may(message, target_sid, name=0, port=0, result=0) -> bool`; the last three, all or
            none of them, are for the record: what the server knows the object by (32 bits), the
            number of the port it is about, and the Mach code if it is allowed. It raises AuditFull
            where it cannot be recorded and must be.

        Example:
            >>> from pympi import Kernel
            >>> with Kernel() as kernel:
            ...     server, client = kernel.create_task("server"), kernel.create_task("client")
            ...     may_look_up = server.sender_checker("service", "look_up")
            ...     inbox = server.allocate_port()
            ...     inbox.make_send(client).send(b"a name")
            ...     may_look_up(inbox.receive(), server.sid)
            True
        """
        kind = self.kernel.object_class(tclass)
        mask, slow = kind.mask(permissions), self._receive_failed
        return adopt(
            lib.pm_callable_judge(
                borrow(self), borrow(slow), borrow(Message), self._pointer, kind.number, mask
            )
        )

    # ---- itself ----

    @property
    def pointer(self) -> Any:
        """The core's `struct pm_task *`; good while this object lives."""
        return self._pointer

    @property
    def address(self) -> int:
        """The address of the core's `struct pm_task`, for other languages."""
        return int(ffi.cast("uintptr_t", self._pointer))

    @property
    def alive(self) -> bool:
        """False once the task is terminated, or its kernel closed."""
        return bool(lib.pm_task_alive(self._pointer))

    @property
    def sid(self) -> int:
        """The number of the task's label."""
        return int(lib.pm_task_sid(self._pointer))

    @property
    def label(self) -> str:
        """The task's label."""
        return self.kernel.label(self.sid)

    def relabel(self, label: str, *, caller: Task | None = None) -> None:
        """Give the task another label; asks relabelfrom of the old and relabelto of the new one."""
        with self.kernel.borrowed(label, caller or self) as sid:
            self._do(lib.pm_task_relabel, ffi.cast("uint32_t", sid), caller=caller)

    def terminate(self, *, caller: Task | None = None) -> None:
        """End the task: all its rights are destroyed, and whatever waits in it wakes."""
        self._do(lib.pm_task_terminate, caller=caller)
        self.kernel._task_ended(self)
        self._forget()

    def _forget(self) -> None:
        """Let the handlers go: the task is terminated."""
        for number in self._handlers.values():
            _upcall.forget(number)

    @property
    def usage(self) -> Usage:
        """What the task uses now."""
        usage = ffi.new("struct pm_usage *")
        code = lib.pm_task_usage(self._pointer, usage)
        if code:
            raise self.failure(code)
        return Usage(*(getattr(usage, field) for field in Usage._fields))

    def set_quota(self, quota: Quota) -> None:
        """Limit what the task may use from now on; what it has it keeps."""
        code = lib.pm_task_set_quota(self._pointer, ffi.new("struct pm_quota *", asdict(quota)))
        if code:
            raise self.failure(code)

    # ---- rights ----

    def carried(self, name: int, disposition: int) -> Right | None:
        """Return the view of a right that arrived with `disposition`; None for the null name."""
        if name == lib.MACH_PORT_NULL:
            return None
        kind = DeadName if name == lib.MACH_PORT_DEAD else _ARRIVALS[disposition]
        return kind(self, name)

    def receive_right(self, name: int) -> ReceiveRight:
        """Return a view of a name as a receive right, without looking."""
        return ReceiveRight(self, name)

    def port_id(self, name: int) -> int:
        """Return the number of the port that a name denotes, as `Right.port_id`; 0 for none."""
        return int(lib.pm_port_id(self._pointer, name))

    def right(self, name: int) -> Right:
        """Return a view of what a name holds.

        Raises:
            InvalidName: it holds nothing.
        """
        held = self._get(lib.pm_port_type, name)
        return next(kind for bit, kind in _HELD.items() if held & bit)(self, name)

    def names(self, *, caller: Task | None = None) -> dict[int, PortType]:
        """Return the names in the task's space, and what they hold (mach_port_names)."""
        room = 64
        while True:
            names, types = ffi.new("uint32_t[]", room), ffi.new("uint32_t[]", room)
            count = self._get(lib.pm_port_names, names, types, room, caller=caller)
            if count <= room:
                pairs = zip(names[0:count], types[0:count], strict=True)
                return {name: PortType(held) for name, held in pairs}
            room = count

    def allocate_port(
        self, label: str | None = None, *, qlimit: int | None = None, context: int = 0,
        guarded: bool = False, name: int = 0, trace: tuple[str, int | str, int] | None = None,
        caller: Task | None = None,
    ) -> ReceiveRight:  # fmt: skip
        """Make a port.

        Args:
            label: of the port; by default what the policy says, else the task's own.
            qlimit: how many messages it queues, 0 to 1024; 5 unless said.
            context: a number of the receiver's own.
            guarded: the context guards the port: only who knows it may destroy it.
            name: to take, if it may be taken; by default the kernel chooses.
            trace: what ipctrace counts the port under: (owner, kind, number). By default the
                task's name, no kind, and the next number.
            caller: the task that makes it, if another.
        """
        flags = (qlimit is not None and lib.MPO_QLIMIT) | (guarded and lib.MPO_CONTEXT_AS_GUARD)
        options = ffi.new("struct pm_port_options *")
        options.flags, options.qlimit, options.context = flags, qlimit or 0, context
        options.name, options.trace_number = name, -1
        if trace is not None:
            owner, kind, options.trace_number = trace
            options.trace_owner = self.kernel.trace_identity(owner)
            options.trace_kind = kind_number(kind)
        with self.kernel.borrowed(label, caller or self) as sid:
            options.sid = sid
            made = self._get(lib.pm_port_construct, options, caller=caller)
        return ReceiveRight(self, made)

    def create_port_set(self, *members: ReceiveRight) -> PortSet:
        """Make a port set of some of the task's receive rights."""
        name = self._get(lib.pm_port_allocate, PortRight.PORT_SET, 0)
        made = PortSet(self, name)
        made.add(*members)
        return made

    def create_handler(
        self, function: Handler, *, kind: int | str = 0, label: str | None = None
    ) -> ReceiveRight:
        """Make a port whose messages are handled at once, in the sender's call.

        The handler runs outside the kernel's lock, and acts as this task. If it raises, the message
        and what it brought are destroyed; that is counted and logged. The port's right cannot move
        and joins no set (Mach's kernel-object ports).

        Args:
            function: is called with the `Message`; kept until the task ends. Several ports can have
                the same one.
            kind: what kind of kernel object this is, for ipctrace: a number, or a name in
                `pympi.enums.KOBJECTS`.
            label: of the port.

        Example:
            >>> from pympi import Kernel
            >>> with Kernel() as kernel:
            ...     echo = kernel.create_task("server").create_handler(
            ...         lambda request: request.reply(request.body))
            ...     echo.make_send(kernel.create_task("client")).call(b"hi").body
            b'hi'
        """
        number = kind_number(kind)
        port = self.allocate_port(label, trace=(self.name, number, -1))
        context = _upcall.context(self._upcall_of(function))
        try:
            self._do(lib.pm_port_set_handler, port.name, _upcall.HANDLER, context, number)
        except MachError:
            port.close()
            raise
        return port

    def _upcall_of(self, function: Handler) -> int:
        """Return the number by which the core knows a handler; each has one, whatever its ports."""

        def handle(message: Message) -> bool:
            try:
                function(message)
            except BaseException as error:
                message._drop_rights()
                _upcall.raised("handler", error)
                return False
            return True

        if id(function) not in self._handlers:  # which lives as long as `handle` is registered
            self._handlers[id(function)] = _upcall.register((Message, self, handle))
        return self._handlers[id(function)]

    def _reply_port(self) -> ReceiveRight:
        """Return a port for one answer, to be put back into `_reply_ports` only if that came."""
        try:
            return self._reply_ports.pop()
        except IndexError:
            return self.allocate_port()

    # ---- short forms on names ----

    def send(self, name: int, body: Any = b"", msgh_id: int = 0, **arguments: Any) -> None:
        """Send to the right under a name, as `SendRight.send` does."""
        SendRight(self, name).send(body, msgh_id, **arguments)

    def receive(self, name: int, timeout: float | None = None) -> Message:
        """Receive from the port or set under a name, as `ReceiveRight.receive` does."""
        return ReceiveRight(self, name).receive(timeout)

    # ---- special and registered ports ----

    @property
    def bootstrap(self) -> Bootstrap:
        """The name server, as this task sees it: by its bootstrap port.

        Raises:
            InvalidName: it has none.
        """
        if self._bootstrap is None:
            self._bootstrap = self.kernel.bootstrap_of(self)
        return self._bootstrap

    def get_special_port(
        self, which: SpecialPort, *, caller: Task | None = None
    ) -> SendRight | None:
        """Return a send right to a special port, in the caller's space; None where none is set."""
        name = self._get(lib.pm_task_get_special_port, which, caller=caller)
        return SendRight(caller or self, name) if name else None

    def set_special_port(
        self, which: SpecialPort, port: SendRight | None, *, caller: Task | None = None
    ) -> None:
        """Set a special port to a copy of a send right of the caller's; None takes it away."""
        self._do(lib.pm_task_set_special_port, which, port.name if port else 0, caller=caller)
        if which == SpecialPort.BOOTSTRAP:
            self._bootstrap = None

    def register_ports(
        self, ports: Sequence[SendRight | None], *, caller: Task | None = None
    ) -> None:
        """Set the registered ports, at most three, which children inherit (mach_ports_register)."""
        names = ffi.new("uint32_t[]", [port.name if port else 0 for port in ports])
        self._do(lib.pm_ports_register, names, len(names), caller=caller)

    def registered_ports(self, *, caller: Task | None = None) -> list[SendRight | None]:
        """Return send rights to the registered ports, in the caller's space (mach_ports_lookup)."""
        names = ffi.new("uint32_t[]", lib.TASK_PORT_REGISTER_MAX)
        count = ffi.new("uint32_t *", lib.TASK_PORT_REGISTER_MAX)
        self._do(lib.pm_ports_lookup, names, count, caller=caller)
        owner = caller or self
        return [SendRight(owner, name) if name else None for name in names[0 : count[0]]]


def kind_number(kind: int | str) -> int:
    """Return the number of a kind of kernel object.

    Raises:
        ValueError: a name that SEDarwin's ipctrace does not have.
    """
    if isinstance(kind, str):
        if kind not in KOBJECTS:
            raise ValueError(f"no kernel object is called {kind!r}: {' '.join(KOBJECTS)}")
        return KOBJECTS.index(kind)
    return kind
