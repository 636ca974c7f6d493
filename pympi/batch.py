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

from collections.abc import Callable
from functools import partial
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


_batch: Callable[[Any], Batch] = partial(tuple.__new__, Batch)  # in half the time of Batch()
_frombuffer, _INT32 = np.frombuffer, np.dtype(np.int32)


def operations(count: int) -> npt.NDArray[np.void]:
    """Return `count` operations that do nothing, to be filled in."""
    return np.zeros(count, OPERATION)


# ---- what is sent, and where to ----


_Bodies: TypeAlias = "tuple[Any, int, int, int, Numbers | None, Codes | None]"
"""What is sent: the bytes, a msgh_id, the stride, how many, their sizes, their msgh_ids."""


def _bodies(bodies: Any, msgh_id: Any, sizes: Any) -> _Bodies:
    """Look at what is to be sent, in any of its forms."""
    array = isinstance(bodies, np.ndarray)
    if not array and isinstance(bodies, (list, tuple)):
        if sizes is not None:
            raise TypeError("bodies in a list have their own sizes")
        parts = [bytes_of(body) for body in bodies]
        bodies, sizes = b"".join(parts), np.array([*map(len, parts)], np.uint32)
    if sizes is None and not array:
        what = "an array of (n, size) bytes or n structures, a list of bodies, or bytes with sizes"
        raise TypeError(f"what is sent is {what}, not {_kind(bodies)}")
    if sizes is None or (array and bodies.ndim > 1):
        stride, count = _rows(bodies, "what is sent")
        sizes = np.zeros(count, np.uint32) if not stride and sizes is None else sizes
    else:
        stride, count = 0, len(sizes)
    if sizes is not None:
        sizes = _sizes(sizes, count)
    bodies = _plain(bodies, "what is sent")
    if isinstance(msgh_id, (int, np.integer)):
        return bodies, int(msgh_id), stride, count, sizes, None
    return bodies, 0, stride, count, sizes, _msgh_ids(msgh_id, count)


def _room(out: Any) -> tuple[int, int]:
    """Return the bytes of each place for a message, and how many there are."""
    stride, count = _rows(out, "room for messages")
    if not stride:
        raise ValueError(f"room for messages has no bytes in it: {_kind(out)}")
    return stride, count


class _Calls:
    """Structures of the core's for `pm_call_many`, and the buffers that they point to."""

    __slots__ = ("_lent", "bodies", "count", "results", "room")

    def __init__(self, sent: _Bodies, out: Any) -> None:
        bodies, msgh_id, stride, count, *arrays = sent
        room, self.count = _room(out)
        if count != self.count:
            raise ValueError(f"there is room for {self.count} answers to {count} requests")
        data, places = _from_buffer(_BYTES, bodies), _from_buffer(_BYTES, out, True)
        sizes, ids = _lent(_UINTS, arrays[0]), _lent(_INTS, arrays[1])
        self.results = np.zeros(count, RESULT)
        results = _from_buffer(_RESULTS, self.results)
        self._lent = data, places, sizes, ids, results
        self.bodies = _new(_BODIES, (data, len(data), stride, count, sizes, ids, msgh_id))
        self.room = _new(_ROOM, (places, len(places), room, count, results))


def _lent(kind: Any, array: Any) -> Any:
    return ffi.NULL if array is None else _from_buffer(kind, array)


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
    codes = None
    if sizes is None and type(bodies) is np.ndarray and type(msgh_id) is int:
        codes = task._send_rows(name, bodies, msgh_id)
    if codes is None:
        codes = task._send_rows(name, *_bodies(bodies, msgh_id, sizes))
    return _frombuffer(codes, _INT32)


def receive_many(task: Task, name: int, out: Any) -> Batch:
    """Receive from one port or set; see `ReceiveRight.receive_many`."""
    taken = task._receive_rows(name, out) if type(out) is np.ndarray else None
    results, stopped = taken or task._receive_rows(name, out, *_room(out))
    return _batch((_frombuffer(results, RESULT), stopped))


def rpc_many(
    task: Task, name: int, bodies: Any, out: Any, msgh_id: Any, sizes: Any, timeout: float | None
) -> Batch:
    """Call one right many times; see `SendRight.rpc_many`."""
    calls = _Calls(_bodies(bodies, msgh_id, sizes), out)
    wait, first = nanoseconds(timeout), 0
    deadline = monotonic_ns() + wait
    while first < calls.count:
        first = 1 + _call_on(task, name, calls, first, wait)
        wait = max(0, deadline - monotonic_ns()) if wait >= 0 else wait
    return Batch(calls.results, 0)


def _call_on(task: Task, name: int, calls: _Calls, first: int, wait: int) -> int:
    """Call until all are answered, or the answer of one may still come, to a port that goes."""
    port, reached = task._reply_port(), -1
    arguments = (name, port.name, calls.bodies, calls.room, first, wait)
    try:
        reached = lib.pm_block_call_many(task._pointer, *arguments)
        return task._value(reached, name)
    finally:
        if reached == calls.count:
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
