# SPDX-License-Identifier: BSD-2-Clause
"""Many messages in one call: arrays in, arrays out (io_uring's idea).

`SendRight.send_many`, `ReceiveRight.receive_many` and `SendRight.rpc_many` are about one right;
`Kernel.submit` takes operations of many tasks. Each message is an operation of its own, decided and
recorded like any other, and done in order. What became of it stands at its place among the codes:
0, or a Mach code. What was not done has changed nothing: a message that was not sent is still its
sender's, one that was not received is still queued.

Nobody can resize or free the arrays while the core works on them: they are lent by Python's buffer
protocol. Their contents may change; each number in them is read once, and then looked at.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ._ffi import ffi, lib
from ._rows import dtype_of
from ._values import bytes_of, nanoseconds
from .errors import exception

if TYPE_CHECKING:
    from .kernel import Kernel
    from .task import Task

__all__ = ["NOTHING", "OPERATION", "RECEIVE", "RESULT", "SEND", "Batch", "operations"]

NOTHING: int = lib.PM_SUBMIT_NOTHING
SEND: int = lib.PM_SUBMIT_SEND
RECEIVE: int = lib.PM_SUBMIT_RECEIVE

OPERATION = dtype_of("pm_submission", align=True)
"""An operation for `Kernel.submit`, 64 bytes. What is "set" is written when it was done.

- op: NOTHING, SEND or RECEIVE. task: `Task.id`. name: of a right to send to, or of a port or set.
- msgh_id: of the message; of a received one, set. result: set to 0 or a Mach code.
- offset, length: where its body is, or goes to; of a received one length is the room, and then set.
- reply: of a message to be sent, the name of a receive right, to which it brings a send-once right;
  of a received one, set to the name of the right to reply with.
- right, disposition: one right that it carries, if disposition is not 0; of a received one, set.
- sender, sender_sid, seqno: of a received one, set. transfer: set to its number in the audit trail.
"""

RESULT = dtype_of("pm_result")
"""What is told of a message that was received: code (0 or a Mach code), msgh_id, size (bytes),
sender (`Task.id`, 0 for the kernel), sender_sid, seqno, transfer."""

Codes: TypeAlias = "npt.NDArray[np.int32]"
Numbers: TypeAlias = "npt.NDArray[np.uint32]"

_LONG = 1024  # operations; so many give the GIL up meanwhile

_BODIES, _ROOM = map(ffi.typeof, ("struct pm_bodies *", "struct pm_room *"))
_OPERATIONS, _RESULTS = map(ffi.typeof, ("struct pm_submission[]", "struct pm_result[]"))
_from_buffer, _new = ffi.from_buffer, ffi.new
_BYTES, _INTS, _UINTS = map(ffi.typeof, ("char[]", "int32_t[]", "uint32_t[]"))


class Batch(NamedTuple):
    """What was received, or answered.

    Attributes:
        results: of `RESULT`, one for each place of the room that is used. A code that is not 0 is,
            of what was received, MACH_RCV_INVALID_DATA: the message was refused and destroyed.
        stopped: why there are no more: 0 where the room is full, MACH_RCV_TIMED_OUT where no
            message waits, MACH_RCV_TOO_LARGE where the next one is larger than a place, or brings
            rights or memory: it stays queued, for `receive`.
    """

    results: npt.NDArray[np.void]
    stopped: int


def operations(count: int) -> npt.NDArray[np.void]:
    """Return `count` operations that do nothing, to be filled in."""
    return np.zeros(count, OPERATION)


# ---- what is sent, and where to ----


class _Bodies:
    """A `struct pm_bodies`, and the buffers that it points to."""

    __slots__ = ("_data", "_ids", "_sizes", "count", "pointer")

    def __init__(self, bodies: Any, msgh_id: Any, sizes: Any) -> None:
        array = isinstance(bodies, np.ndarray)
        if not array and isinstance(bodies, (list, tuple)):
            if sizes is not None:
                raise TypeError("bodies in a list have their own sizes")
            parts = [bytes_of(body) for body in bodies]
            bodies, sizes = b"".join(parts), np.array([*map(len, parts)], np.uint32)
        if sizes is None or (array and bodies.ndim > 1):
            stride, self.count = _rows(bodies, "what is sent")
            sizes = np.zeros(self.count, np.uint32) if not stride and sizes is None else sizes
        else:
            stride, self.count = 0, len(sizes)
        self.pointer = struct = _new(_BODIES)
        self._data = struct.data = buffer = _from_buffer(_BYTES, _plain(bodies, "what is sent"))
        struct.size, struct.stride, struct.count = len(buffer), stride, self.count
        if sizes is not None:
            struct.sizes = self._sizes = _from_buffer(_UINTS, _sizes(sizes, self.count))
        if isinstance(msgh_id, (int, np.integer)):
            struct.msgh_id = msgh_id
        else:
            struct.msgh_ids = self._ids = _from_buffer(_INTS, _msgh_ids(msgh_id, self.count))


class _Room:
    """A `struct pm_room`, and the buffers that it points to."""

    __slots__ = ("_data", "_results", "count", "pointer", "results")

    def __init__(self, out: Any) -> None:
        stride, self.count = _rows(out, "room for messages")
        if not stride:
            raise ValueError(f"room for messages has no bytes in it: {_kind(out)}")
        results = bytearray(self.count * RESULT.itemsize)  # in half the time of np.empty
        self.results = np.frombuffer(results, RESULT)
        self.pointer = struct = _new(_ROOM)
        self._data = struct.data = buffer = _from_buffer(_BYTES, out, True)
        struct.size, struct.stride, struct.count = len(buffer), stride, self.count
        self._results = struct.results = _from_buffer(_RESULTS, results)


def _rows(array: Any, what: str) -> tuple[int, int]:
    """Return the bytes of each message in an array, and how many there are."""
    if not isinstance(array, np.ndarray) or array.ndim <= (array.dtype.names is None):
        raise TypeError(f"{what}: (n, size) bytes, or n structures, not {_kind(array)}")
    _plain(array, what)
    if not array.flags.c_contiguous:
        raise ValueError(f"{what} is not contiguous; np.ascontiguousarray() makes it so")
    count = len(array)
    return array.nbytes // count if count else max(1, array.itemsize), count


def _plain(data: Any, what: str) -> Any:
    """Return what has bytes. Those of Python objects are neither to be read nor to be written."""
    owner = data.obj if isinstance(data, memoryview) else data
    if isinstance(owner, np.ndarray) and owner.dtype.hasobject:
        raise TypeError(f"{what}: bytes, not Python objects: {_kind(owner)}")
    return data


def _kind(array: Any) -> str:
    if isinstance(array, np.ndarray):
        return f"an array {array.shape} of {array.dtype}"
    return type(array).__name__


def _sizes(values: Any, count: int) -> Numbers:
    array = np.asarray(values)
    if array.shape != (count,) or (array.dtype.kind not in "ui" and count):
        raise TypeError(f"sizes are integers, one for each of {count} messages, not {_kind(array)}")
    if count and not (array.min() >= 0 and array.max() <= lib.PM_MESSAGE_MAX):
        raise OverflowError(f"a size is 0 to {lib.PM_MESSAGE_MAX} bytes")
    return _aligned(np.ascontiguousarray(array, np.uint32))


def _msgh_ids(values: Any, count: int) -> Codes:
    array = np.asarray(values)
    if array.shape != (count,) or (array.dtype.kind not in "ui" and count):
        raise TypeError(f"msgh_id is an integer, or {count} of them, not {_kind(array)}")
    if count and not (array.min() >= -(1 << 31) and array.max() < 1 << 31):
        raise OverflowError("a msgh_id is a number of 32 bits, signed")
    return _aligned(np.ascontiguousarray(array, np.int32))


def _aligned(array: Any) -> Any:
    return array if array.flags.aligned else array.copy()


# ---- calls ----


def send_many(task: Task, name: int, bodies: Any, msgh_id: Any, sizes: Any) -> Codes:
    """Send to one right; see `SendRight.send_many`."""
    sent = _Bodies(bodies, msgh_id, sizes)
    codes = np.empty(sent.count, np.int32)
    call = lib.pm_send_many if sent.count < _LONG else lib.pm_long_send_many
    done = call(task._pointer, name, sent.pointer, _from_buffer(_INTS, codes))
    if done < 0:
        raise task.failure(-done, name)
    return codes


def receive_many(task: Task, name: int, out: Any) -> Batch:
    """Receive from one port or set; see `ReceiveRight.receive_many`."""
    room = _Room(out)
    call = lib.pm_receive_many if room.count < _LONG else lib.pm_long_receive_many
    count = call(task._pointer, name, room.pointer)
    if count < 0:
        raise task.failure(-count, name)
    if count == room.count:
        return Batch(room.results, 0)
    return Batch(room.results[:count], int(room.results["code"][count]))


def rpc_many(
    task: Task, name: int, bodies: Any, out: Any, msgh_id: Any, sizes: Any, timeout: float | None
) -> Batch:
    """Call one right many times; see `SendRight.rpc_many`."""
    sent, room = _Bodies(bodies, msgh_id, sizes), _Room(out)
    if sent.count != room.count:
        raise ValueError(f"there is room for {room.count} answers to {sent.count} requests")
    wait, first = nanoseconds(timeout), 0
    deadline = monotonic_ns() + wait
    while first < sent.count:
        first = 1 + _call_on(task, name, sent, room, first, wait)
        wait = max(0, deadline - monotonic_ns()) if wait >= 0 else wait
    return Batch(room.results, 0)


def _call_on(task: Task, name: int, sent: _Bodies, room: _Room, first: int, wait: int) -> int:
    """Call until all are answered, or the answer of one may still come, to a port that goes."""
    port, reached = task._reply_port(), -1
    arguments = (name, port.name, sent.pointer, room.pointer, first, wait)
    try:
        reached = lib.pm_block_call_many(task._pointer, *arguments)
        return task._value(reached, name)
    finally:
        if reached == sent.count:
            task._reply_ports.append(port)
        else:
            port.close()


def submit(kernel: Kernel, operations: Any, data: Any) -> int:
    """Do operations of many tasks; see `Kernel.submit`."""
    if not isinstance(operations, np.ndarray) or operations.dtype != OPERATION:
        raise TypeError(f"operations are of the dtype pympi.batch.OPERATION: {_kind(operations)}")
    if operations.ndim != 1 or not operations.flags.carray:
        raise ValueError("operations are an array of one dimension, contiguous, aligned, writable")
    # Another thread may close the kernel as soon as the GIL is given up; a task keeps its memory.
    held = _any_task(kernel) if len(operations) >= _LONG else None
    call = lib.pm_submit if held is None else lib.pm_long_submit
    ops = _from_buffer(_OPERATIONS, operations)
    with _from_buffer(_BYTES, _plain(data, "data"), require_writable=True) as buffer:
        done = call(kernel.pointer, ops, len(operations), buffer, len(buffer))
    if done < 0:
        raise exception(-done, "submit()")
    return int(done)


def _any_task(kernel: Kernel) -> Task | None:
    while True:
        try:
            return next(iter(kernel.tasks.values()), None)
        except RuntimeError:  # another thread made one, or ended one, between the two steps
            continue
