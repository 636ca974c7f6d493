# SPDX-License-Identifier: BSD-2-Clause
"""The Mach calls under their Mach names, and all Mach constants.

The first argument of each call is the task whose space it acts on. Mach's own arguments follow in
Mach's order, without the out-parameters: these are returned, several as a tuple in Mach's order.
`caller` is the task that asks, where it is another one; names of rights that are put in or taken
out are then names in the caller's space. A code other than KERN_SUCCESS raises `MachError`, which
has `code` and `name`. Times are milliseconds, as in Mach.

    >>> from pympi import Kernel, mach
    >>> with Kernel() as kernel:
    ...     task = kernel.create_task("task")
    ...     port = mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE)
    ...     mach.mach_port_insert_right(task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    ...     mach.mach_port_get_refs(task, port, mach.MACH_PORT_RIGHT_SEND)
    1
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

from . import labelh
from ._ffi import ffi, lib
from ._values import bytes_of
from .labelh import LabelHandles
from .port import ReceiveRight, SendRight

if TYPE_CHECKING:
    from .task import Task

_PREFIXES = ("KERN_", "MACH_", "MPO_", "MPG_", "TASK_", "kGUARD_")

globals().update({name: getattr(lib, name) for name in dir(lib) if name.startswith(_PREFIXES)})

if TYPE_CHECKING:

    def __getattr__(name: str) -> int: ...


class PortOptions(NamedTuple):
    """mach_port_options_t, the part that means something here.

    Attributes:
        flags: MPO_ bits.
        qlimit: with MPO_QLIMIT, how many messages the port queues.
    """

    flags: int = 0
    qlimit: int = 0


_NO_OPTIONS = PortOptions()

# ---- names and rights ----


def mach_port_allocate(task: Task, right: int, *, caller: Task | None = None) -> int:
    """Make a port, a port set or a dead name; return its name."""
    return task._get(lib.pm_port_allocate, right, 0, caller=caller)


def mach_port_allocate_name(
    task: Task, right: int, name: int, *, caller: Task | None = None
) -> None:
    """Make a port, a port set or a dead name under a name of your choice."""
    if name == lib.MACH_PORT_NULL:
        raise task.failure(lib.KERN_INVALID_VALUE, name)
    task._get(lib.pm_port_allocate, right, name, caller=caller)


def mach_port_construct(
    task: Task, options: PortOptions = _NO_OPTIONS, context: int = 0, *,
    caller: Task | None = None,
) -> int:  # fmt: skip
    """Make a port with options in one call; return its name."""
    record = ffi.new("struct pm_port_options *")
    record.flags, record.qlimit = options
    record.context, record.trace_number = context, -1
    return task._get(lib.pm_port_construct, record, caller=caller)


def mach_port_destruct(
    task: Task, name: int, srdelta: int, guard: int, *, caller: Task | None = None
) -> None:
    """Destroy a receive right whose guard is `guard`, and add `srdelta` to the send references."""
    task._do(lib.pm_port_destruct, name, srdelta, guard, caller=caller)


def mach_port_names(task: Task, *, caller: Task | None = None) -> tuple[list[int], list[int]]:
    """Return the names in the space, and their types."""
    names = task.names(caller=caller)
    return list(names), [int(held) for held in names.values()]


def mach_port_type(task: Task, name: int, *, caller: Task | None = None) -> int:
    """Return what a name holds: MACH_PORT_TYPE_ bits."""
    return task._get(lib.pm_port_type, name, caller=caller)


def mach_port_get_refs(task: Task, name: int, right: int, *, caller: Task | None = None) -> int:
    """Return how many references of a kind a name holds; 0 if it holds none."""
    return task._get(lib.pm_port_get_refs, name, right, caller=caller)


def mach_port_mod_refs(
    task: Task, name: int, right: int, delta: int, *, caller: Task | None = None
) -> None:
    """Add to the references of a kind that a name holds."""
    task._do(lib.pm_port_mod_refs, name, right, delta, caller=caller)


def mach_port_deallocate(task: Task, name: int, *, caller: Task | None = None) -> None:
    """Drop one reference of a send, send-once or dead right, or a port set."""
    task._do(lib.pm_port_deallocate, name, caller=caller)


def mach_port_destroy(task: Task, name: int, *, caller: Task | None = None) -> None:
    """Drop everything a name holds."""
    task._do(lib.pm_port_destroy, name, caller=caller)


def mach_port_insert_right(
    task: Task, name: int, poly: int, disposition: int, *, caller: Task | None = None
) -> None:
    """Put a right into the space under `name`; `poly` is a name in the caller's space."""
    task._do(lib.pm_port_insert_right, name, poly, disposition, caller=caller)


def mach_port_extract_right(
    task: Task, name: int, disposition: int, *, caller: Task | None = None
) -> tuple[int, int]:
    """Take a right out of the space; return its name in the caller's space, and its type."""
    kind = ffi.new("uint32_t *")
    poly = task._get(lib.pm_port_extract_right, name, disposition, kind, caller=caller)
    return poly, kind[0]


# ---- port sets ----


def mach_port_insert_member(
    task: Task, name: int, pset: int, *, caller: Task | None = None
) -> None:
    """Put a port into a set."""
    task._do(lib.pm_port_insert_member, name, pset, caller=caller)


def mach_port_extract_member(
    task: Task, name: int, pset: int, *, caller: Task | None = None
) -> None:
    """Take a port out of a set."""
    task._do(lib.pm_port_extract_member, name, pset, caller=caller)


def mach_port_move_member(task: Task, name: int, after: int, *, caller: Task | None = None) -> None:
    """Let a port be in exactly the set `after`; in none for MACH_PORT_NULL."""
    task._do(lib.pm_port_move_member, name, after, caller=caller)


def mach_port_get_set_status(task: Task, name: int, *, caller: Task | None = None) -> list[int]:
    """Return the names of a set's members."""
    room = 16
    while True:
        members = ffi.new("uint32_t[]", room)
        count = task._get(lib.pm_port_get_set_status, name, members, room, caller=caller)
        if count <= room:
            return list(members[0:count])
        room = count


# ---- attributes ----

_MOST_WORDS = 32


def mach_port_get_attributes(
    task: Task, name: int, flavor: int, count: int = _MOST_WORDS, *, caller: Task | None = None
) -> list[int]:
    """Return a port's attributes of a flavor, as 32-bit words; `count` is the room for them."""
    info = ffi.new("uint32_t[]", _MOST_WORDS)
    room = ffi.new("uint32_t *", min(index(count), _MOST_WORDS))
    task._do(lib.pm_port_get_attributes, name, flavor, info, room, caller=caller)
    return list(info[0 : room[0]])


def mach_port_set_attributes(
    task: Task, name: int, flavor: int, info: Sequence[int], *, caller: Task | None = None
) -> None:
    """Set a port's attributes of a flavor."""
    words = ffi.new("uint32_t[]", list(info))
    task._do(lib.pm_port_set_attributes, name, flavor, words, len(words), caller=caller)


def mach_port_assert_attributes(
    task: Task, name: int, flavor: int, info: Sequence[int], *, caller: Task | None = None
) -> None:
    """Check a strict guard (MACH_PORT_GUARD_INFO) without telling it."""
    words = ffi.new("uint32_t[]", list(info))
    task._do(lib.pm_port_assert_attributes, name, flavor, words, len(words), caller=caller)


def mach_port_set_mscount(
    task: Task, name: int, mscount: int, *, caller: Task | None = None
) -> None:
    """Set a port's make-send count."""
    task._do(lib.pm_port_set_mscount, name, mscount, caller=caller)


def mach_port_set_seqno(task: Task, name: int, seqno: int, *, caller: Task | None = None) -> None:
    """Set the sequence number of a port's next message."""
    task._do(lib.pm_port_set_seqno, name, seqno, caller=caller)


def mach_port_get_context(task: Task, name: int, *, caller: Task | None = None) -> int:
    """Return a port's context; 0 for a strict guard."""
    context = ffi.new("uint64_t *")
    task._do(lib.pm_port_get_context, name, context, caller=caller)
    return int(context[0])


def mach_port_set_context(
    task: Task, name: int, context: int, *, caller: Task | None = None
) -> None:
    """Set a port's context."""
    task._do(lib.pm_port_set_context, name, context, caller=caller)


def mach_port_guard(
    task: Task, name: int, guard: int, strict: bool = False, *, caller: Task | None = None
) -> None:
    """Guard a port."""
    task._do(lib.pm_port_guard, name, guard, strict and lib.MPG_STRICT, caller=caller)


def mach_port_guard_with_flags(
    task: Task, name: int, guard: int, flags: int, *, caller: Task | None = None
) -> None:
    """Guard a port; flags are MPG_ bits."""
    task._do(lib.pm_port_guard, name, guard, flags, caller=caller)


def mach_port_unguard(task: Task, name: int, guard: int, *, caller: Task | None = None) -> None:
    """Take a port's guard away."""
    task._do(lib.pm_port_unguard, name, guard, caller=caller)


def mach_port_swap_guard(
    task: Task, name: int, old_guard: int, new_guard: int, *, caller: Task | None = None
) -> None:
    """Change a port's guard."""
    task._do(lib.pm_port_swap_guard, name, old_guard, new_guard, caller=caller)


def mach_port_peek(
    task: Task, name: int, trailer_type: int = 0, seqno: int = 0, *, caller: Task | None = None
) -> tuple[int, int, int, bytes]:
    """Look at a queued message.

    Args:
        trailer_type: MACH_RCV_TRAILER_ELEMENTS(x): an element shifted left by 24, at most AUDIT.
        seqno: which message; 0 for the first.

    Returns:
        seqno, size, msgh_id, trailer.
    """
    found = ffi.new("struct pm_peek *")
    found.seqno = seqno
    task._do(lib.pm_port_peek, name, trailer_type, found, caller=caller)
    trailer = bytes(ffi.buffer(found.trailer, found.trailer_size))
    return found.seqno, found.size, found.msgh_id, trailer


def mach_port_request_notification(
    task: Task, name: int, msgid: int, sync: int, notify: int,
    notify_type: int = lib.MACH_MSG_TYPE_MAKE_SEND_ONCE, *, caller: Task | None = None,
) -> int:  # fmt: skip
    """Ask for a notification; `notify` is a name in the caller's space, 0 cancels.

    Returns:
        The previous registration as a send-once name in the caller's space, or 0.
    """
    arguments = (name, msgid, sync, notify, notify_type)
    return task._get(lib.pm_port_request_notification, *arguments, caller=caller)


# ---- tasks ----


def mach_ports_register(
    task: Task, init_port_set: Sequence[int], *, caller: Task | None = None
) -> None:
    """Set the registered ports to copies of send rights of the caller's."""
    names = ffi.new("uint32_t[]", list(init_port_set))
    task._do(lib.pm_ports_register, names, len(names), caller=caller)


def mach_ports_lookup(task: Task, *, caller: Task | None = None) -> list[int]:
    """Return send rights to the registered ports, in the caller's space."""
    names = ffi.new("uint32_t[]", lib.TASK_PORT_REGISTER_MAX)
    count = ffi.new("uint32_t *", lib.TASK_PORT_REGISTER_MAX)
    task._do(lib.pm_ports_lookup, names, count, caller=caller)
    return list(names[0 : count[0]])


def _number(which: int) -> Any:
    """Return a number in a form that errors do not take for a name."""
    return ffi.cast("uint32_t", which)


def task_get_special_port(task: Task, which_port: int, *, caller: Task | None = None) -> int:
    """Return a send right to a special port, in the caller's space; 0 where none is set."""
    return task._get(lib.pm_task_get_special_port, _number(which_port), caller=caller)


def task_set_special_port(
    task: Task, which_port: int, special_port: int, *, caller: Task | None = None
) -> None:
    """Set a special port to a copy of a send right of the caller's; 0 takes it away."""
    task._do(lib.pm_task_set_special_port, _number(which_port), special_port, caller=caller)


def task_get_bootstrap_port(task: Task, *, caller: Task | None = None) -> int:
    """Return a send right to the bootstrap port, in the caller's space."""
    return task_get_special_port(task, lib.TASK_BOOTSTRAP_PORT, caller=caller)


def task_set_bootstrap_port(task: Task, bootstrap_port: int, *, caller: Task | None = None) -> None:
    """Set the bootstrap port."""
    task_set_special_port(task, lib.TASK_BOOTSTRAP_PORT, bootstrap_port, caller=caller)


def task_terminate(task: Task, *, caller: Task | None = None) -> None:
    """End a task."""
    task.terminate(caller=caller)


# ---- messages ----

_HEADER = struct.Struct("=IIIIIi")
_LARGEST_TRAILER = 68
_LONGEST = (1 << 32) - 1  # mach_msg_timeout_t
_SEND_TIMEOUT_OR_RCV = lib.MACH_SEND_TIMEOUT | lib.MACH_RCV_TIMEOUT


def mach_msg(
    task: Task, message: Any, option: int, rcv_size: int = 0, rcv_name: int = 0, timeout: int = 0,
    notify: int = 0,
) -> tuple[int, bytes]:  # fmt: skip
    """Send, receive, or both, in the real wire layout.

    Args:
        task: who does it.
        message: header, descriptors and body to send, as in mach/message.h. Addresses in it must
            lie in memory of the task: see `vm_allocate`.
        option: MACH_SEND_MSG, MACH_RCV_MSG and so on.
        rcv_size: room for the message received, its trailer included.
        rcv_name: to receive from.
        timeout: milliseconds, for those halves whose MACH_SEND_TIMEOUT or MACH_RCV_TIMEOUT is set;
            32 bits, unsigned.
        notify: as in Mach.

    Returns:
        The code, never raised, and the message received with its trailer. Where the send failed in
        a way that gives the message back (TIMED_OUT, INTERRUPTED, NO_BUFFER), that one, with its
        rights as they are now; where there is nothing to say, the bytes that were sent.

    Raises:
        TypeError, OverflowError: the arguments are no bytes and numbers of 32 bits.
    """
    sent = bytes_of(message)
    # What is measured and what is used must be the same number, whatever object brought it.
    option, rcv_size, timeout = index(option), index(rcv_size), index(timeout)
    if not 0 <= timeout <= _LONGEST:
        raise OverflowError(f"timeout is a number of 32 bits, unsigned, not {timeout}")
    send_size = len(sent) if option & lib.MACH_SEND_MSG else 0
    room = max(len(sent), min(rcv_size, _MOST_ROOM)) + _LARGEST_TRAILER
    buffer = bytearray(sent.ljust(room, b"\0"))
    wait = timeout * 1_000_000 if option & _SEND_TIMEOUT_OR_RCV else -1
    code = lib.pm_block_mach_msg(
        task._pointer, ffi.from_buffer(buffer), option | lib.PM_MSG_CONFINED, send_size,
        min(rcv_size, _MOST_ROOM), rcv_name, notify, wait,
    )  # fmt: skip
    return code, bytes(buffer[: _length(buffer, code, option, len(sent))])


_MOST_ROOM = lib.PM_MESSAGE_MAX + _LARGEST_TRAILER


def _length(buffer: bytearray, code: int, option: int, sent: int) -> int:
    """Return how much of the buffer there is to return: what was sent, or what came."""
    failed_to_send = lib.MACH_SEND_IN_PROGRESS <= code < lib.MACH_RCV_IN_PROGRESS
    if failed_to_send or not option & lib.MACH_RCV_MSG:
        return sent
    if code not in (0, lib.MACH_RCV_TOO_LARGE) and not code & lib.MACH_MSG_IPC_SPACE:
        return sent
    size = _HEADER.unpack_from(buffer)[1]
    if code == lib.MACH_RCV_TOO_LARGE:
        return _HEADER.size
    end = (size + 3) & ~3
    return min(end + struct.unpack_from("=II", buffer, end)[1], len(buffer))


# ---- memory ----


def vm_allocate(task: Task, size: int) -> int:
    """Give the task memory for out-of-line data, zeroed; return its address."""
    return task._value(lib.pm_vm_allocate(task._pointer, size))


def vm_deallocate(task: Task, address: int, size: int) -> None:
    """Take memory of the task away."""
    _vm(task, lib.pm_vm_deallocate(task._pointer, address, size))


def vm_write(task: Task, address: int, data: Any) -> None:
    """Copy bytes into memory of the task."""
    raw = bytes_of(data)
    _vm(task, lib.pm_vm_write(task._pointer, address, raw, len(raw)))


def vm_read(task: Task, address: int, size: int) -> bytes:
    """Copy bytes out of memory of the task."""
    size = index(size)
    if size > lib.PM_MESSAGE_MAX:
        address, size = 0, 1  # no memory is that large, and none is there: the core refuses
    data = bytearray(size)
    _vm(task, lib.pm_vm_read(task._pointer, address, ffi.from_buffer(data), size))
    return bytes(data)


def _vm(task: Task, code: int) -> None:
    if code:
        raise task.failure(code)


# ---- the `security` subsystem of SEDarwin ----
#
# Strings have at most 512 bytes; a label that does not fit is asked for in parts. `namespaces` is a
# list of policy modules, "te,?mls": one that begins with "?" is left out where it has no value, any
# other must have one; "*" is all. In place of a port's name all take that of a label handle, which
# then stands for its stored label. `caller`, where it is not the task itself, is asked `observe` of
# the task for what is read, and insert_right for what is put into its space.


def _look_at(task: Task, caller: Task | None) -> None:
    """Have the core ask the caller whether it may look at another task."""
    if caller is not None and caller is not task:
        task.names(caller=caller)


def mach_get_task_label(task: Task, *, caller: Task | None = None) -> int:
    """Return a label handle for the task's own label, in the task's space (4800).

    As long as the label and the handle live, the handle is the same, with one send reference more.

    Otherwise than in SEDarwin the handle is the task's own port, since there is no kernel task to
    hold it. A relabelled task gets another handle; the old one keeps the old label (there: copy on
    write). A refusal raises; there it gave the null name and success.
    """
    _look_at(task, caller)
    return LabelHandles.of(task.kernel).of_task(task, caller)


def mach_get_task_label_text(
    task: Task, namespaces: str = "*", *, caller: Task | None = None
) -> str:
    """Return the task's label, or some modules' part of it, as text (4801).

    Otherwise than in SEDarwin, a value that is missing and not optional is KERN_INVALID_ARGUMENT;
    there part of the text was returned with success.
    """
    _look_at(task, caller)
    return labelh.text(task.kernel, task.sid, namespaces)


def mach_get_label(task: Task, port: int, *, caller: Task | None = None) -> int:
    """Return a new label handle that stores the label of the port under a name (4802).

    KERN_INVALID_NAME for no name, KERN_INVALID_RIGHT for a dead one or a port set,
    KERN_INVALID_ARGUMENT for what is a label handle already. Otherwise than in SEDarwin, a handle
    that cannot be made is an error.
    """
    _look_at(task, caller)
    sid = SendRight(task, port).sid
    handles = LabelHandles.of(task.kernel)
    if handles.stored(task, port) is not None:
        raise labelh.invalid(f"task {task.name!r}, name {port:#x}: a label handle")
    return handles.create(task, sid, caller)


def mach_get_label_text(
    task: Task, port: int, namespaces: str = "*", *, caller: Task | None = None
) -> str:
    """Return a port's label as text; of a label handle the stored one (4803).

    Codes as for `mach_get_label`, but a handle is fine. Otherwise than in SEDarwin, where the
    handle's own label was without use, who reads a handle is asked get_attributes of it.
    """
    _look_at(task, caller)
    sid = SendRight(task, port).sid
    handles = LabelHandles.of(task.kernel)
    stored = handles.stored(task, port)
    if stored is not None:
        handles.may_read(caller or task, task, port)
    return labelh.text(task.kernel, sid if stored is None else stored, namespaces)


def mach_set_port_label(task: Task, port: int, label: str, *, caller: Task | None = None) -> None:
    """Give the port under a name another label: the access label, also of a label handle (4804).

    Asks relabelfrom of the old label, relabelto of the new one, and the modules' `check_relabel`.
    KERN_INVALID_ARGUMENT for what is no label, KERN_NO_ACCESS, KERN_INVALID_RIGHT for no port. The
    text is the whole new label. Otherwise than in SEDarwin, all is decided and done in one step.
    """
    right = ReceiveRight(task, port)

    def relabel(sid: int) -> int:
        task._do(lib.pm_port_relabel, right.name, sid, caller=caller)
        return sid

    labelh.with_label(caller or task, label, relabel)


def mac_check_named_access(
    task: Task, subject: str, object_: str, tclass: str, permission: str
) -> None:
    """Return if the policy lets a label do something to another, else raise KERN_NO_ACCESS (4805).

    KERN_INVALID_ARGUMENT for what is no label, class or permission. Several permissions may be
    asked at once, separated by blanks. In a permissive kernel all is allowed. Asking is not
    recorded.
    """
    labelh.judge(
        task.kernel, labelh.argument(subject), labelh.argument(object_), tclass, permission
    )


def mac_check_name_port_access(
    task: Task, subject: str, port: int, tclass: str, permission: str, *,
    caller: Task | None = None,
) -> None:  # fmt: skip
    """As `mac_check_named_access`; the object is a port or a label handle (4806).

    A handle has to be one that the caller may read (get_attributes of its access label).
    """
    target = LabelHandles.of(task.kernel).label_of(task, port, caller)
    labelh.judge(task.kernel, labelh.argument(subject), target, tclass, permission)


def mac_check_port_access(
    task: Task, subject: int, port: int, tclass: str, permission: str, *,
    caller: Task | None = None,
) -> None:  # fmt: skip
    """As `mac_check_name_port_access`; subject and object are ports or label handles (4807)."""
    handles = LabelHandles.of(task.kernel)
    source, target = (handles.label_of(task, name, caller) for name in (subject, port))
    labelh.judge(task.kernel, source, target, tclass, permission)


def mac_label_new(task: Task, label: str, *, caller: Task | None = None) -> int:
    """Return a new label handle that stores a label (4808); KERN_INVALID_ARGUMENT for no label.

    Any task may make a handle for any label: having one means nothing.
    """
    handles = LabelHandles.of(task.kernel)
    return labelh.with_label(caller or task, label, lambda sid: handles.create(task, sid, caller))


def mac_request_label(
    task: Task, subject: int, port: int, tclass: str, *, caller: Task | None = None
) -> int:
    """Return a new label handle for what the policy would label something new (4809).

    What `subject` makes for `port`, of any class; both are ports or label handles. What no module
    says is taken from the label of `port`. KERN_INVALID_ARGUMENT for a class there is not;
    KERN_NO_ACCESS for a handle that the caller may not read.
    """
    handles = LabelHandles.of(task.kernel)
    source, target = (handles.label_of(task, name, caller) for name in (subject, port))
    try:
        label = task.kernel.policies.new_label(source, target, labelh.argument(tclass))
    except ValueError as error:
        raise labelh.invalid(error) from None
    with task.kernel.borrowed(label, caller or task) as sid:
        return handles.create(task, sid, caller)
