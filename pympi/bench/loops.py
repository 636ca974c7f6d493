# SPDX-License-Identifier: BSD-2-Clause
"""How messages are sent and received: each makes, of a system, something that can be timed.

A repetition is a pair: a message is sent, and received.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice, repeat
from time import thread_time_ns

import numpy as np

from .. import batch
from .._ffi import GIL_KEPT, ffi, lib
from . import compiled
from .harness import Skip, Timed
from .systems import BASE, System

BATCH = 256
SUBMISSIONS = 64
"""Arrays for `submit`, which take turns."""
AT_ONCE = 8
"""Arrays that are timed together, where they are written in between."""


def body(system: System) -> bytes:
    """Return what is sent."""
    return bytes(range(256)) * (system.setting.size // 256) + bytes(system.setting.size % 256)


def msgh_id(system: System) -> int:
    """Return the number of the message; that of a routine where the port has an interface."""
    return BASE if system.setting.interface else 0


def callables(system: System) -> Timed:
    """Return the callables for inner loops, `sender()` and `receiver()`."""
    sent, receive = body(system), system.inbox.receiver()
    sends = [right.sender(msgh_id(system)) for right in system.to_first()]
    if len(sends) > 1:
        return _in_turn(sends, receive, sent)
    (send,) = sends

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in repeat(None, pairs):
            send(sent)
            receive()
        return thread_time_ns() - start

    return run


def _in_turn(
    sends: list[Callable[[bytes], None]], receive: Callable[[], bytes], sent: bytes
) -> Timed:
    turns = cycle(sends)
    for send in sends:  # what is asked for the first time is another matter
        send(sent)
        receive()

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for send in islice(turns, pairs):
            send(sent)
            receive()
        return thread_time_ns() - start

    return run


def methods(system: System) -> Timed:
    """Return the methods everybody uses: send, and receive which gives a Message."""
    sent, number = body(system), msgh_id(system)
    send, receive = system.outlet.send, system.inbox.receive

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in repeat(None, pairs):
            send(sent, number)
            receive()
        return thread_time_ns() - start

    return run


def carrying(system: System) -> Timed:
    """Return methods again, with rights in the body, which the receiver gives up at once."""
    sent, send, receive = body(system), system.outlet.send, system.inbox.receive
    sender = system.sender
    rights = [
        sender.allocate_port().make_send(sender).copy_send() for _ in range(system.setting.rights)
    ]

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in repeat(None, pairs):
            send(sent, rights=rights)
            receive().close()
        return thread_time_ns() - start

    return run


def rows(system: System) -> Timed:
    """Return `send_many` and `receive_many` of 256 messages, in arrays."""
    sent = np.zeros((BATCH, max(1, system.setting.size)), np.uint8)
    room = np.empty_like(sent)
    send, receive = system.outlet.send_many, system.inbox.receive_many

    def run(pairs: int) -> float:
        times = -(-pairs // BATCH)
        start = thread_time_ns()
        for _ in repeat(None, times):
            send(sent)
            receive(room)
        return (thread_time_ns() - start) * pairs / (times * BATCH)

    return run


class Submissions:
    """Writes arrays of operations: half of each sends, half receives the same.

    Args:
        size: operations in an array.
    """

    def __init__(self, system: System, size: int = BATCH) -> None:
        self.size, self._length = size, system.setting.size
        self._receiver = system.receiver.id
        outlets, inboxes = system.outlets, system.inboxes
        self.outlets = len(outlets)
        self._tasks = np.array([outlet.task.id for outlet in outlets], np.uint32)
        self._to = np.array([outlet.name for outlet in outlets], np.uint32)
        names = np.array([inbox.name for inbox in inboxes], np.uint32)
        self._names = names[np.arange(len(outlets)) % len(inboxes)]

    def array(self) -> np.ndarray:
        """Return an array that lacks only who sends, and to whom."""
        half, made = self.size // 2, batch.operations(self.size)
        made["op"][:half], made["op"][half:] = batch.SEND, batch.RECEIVE
        made["task"][half:] = self._receiver
        made["offset"] = np.arange(self.size) * self._length
        return made

    def choose(self, made: np.ndarray, outlets: np.ndarray) -> None:
        """Have an array send by these of the system's outlets."""
        half = self.size // 2
        made["task"][:half], made["name"][:half] = self._tasks[outlets], self._to[outlets]
        made["name"][half:], made["length"] = self._names[outlets], self._length


def submissions(system: System, size: int = BATCH) -> list[np.ndarray]:
    """Return arrays of so many operations, which send to ports at random."""
    writer, rng = Submissions(system, size), np.random.default_rng(1)
    made = [writer.array() for _ in range(SUBMISSIONS)]
    for operations in made:
        writer.choose(operations, rng.integers(writer.outlets, size=size // 2))
    return made


def _submitting(system: System, size: int) -> Callable[[np.ndarray], None]:
    kernel, data = system.kernel, bytearray(size * max(1, system.setting.size))

    def call(operations: np.ndarray) -> None:
        done = kernel.submit(operations, data)
        if done != size:
            raise RuntimeError(f"{size - done} operations of {size} failed")

    return call


def submit(system: System, size: int = BATCH) -> Timed:
    """Return `kernel.submit`, so many operations in a call."""
    turns, call, half = cycle(submissions(system, size)), _submitting(system, size), size // 2

    def run(pairs: int) -> float:
        times = -(-pairs // half)
        start = thread_time_ns()
        for operations in islice(turns, times):
            call(operations)
        return (thread_time_ns() - start) * pairs / (times * half)

    for _ in range(SUBMISSIONS):
        run(half)
    return run


def scattered(system: System) -> Timed:
    """Return the same to ports that are chosen anew for each call, which is not timed.

    All are sent to once before: what is asked for the first time is another matter.
    """
    writer, call, half = Submissions(system), _submitting(system, BATCH), BATCH // 2
    arrays, rng = [writer.array() for _ in range(AT_ONCE)], np.random.default_rng(1)

    def timed(chosen: np.ndarray) -> int:
        for operations, outlets in zip(arrays, chosen, strict=False):
            writer.choose(operations, outlets)
        start = thread_time_ns()
        for operations in arrays[: len(chosen)]:
            call(operations)
        return thread_time_ns() - start

    def run(pairs: int) -> float:
        times = -(-pairs // half)
        chosen = rng.integers(writer.outlets, size=(times, half))
        elapsed = sum(timed(chosen[at : at + AT_ONCE]) for at in range(0, times, AT_ONCE))
        return elapsed * pairs / (times * half)

    for first in range(0, writer.outlets, half):
        timed(np.arange(first, first + half)[None] % writer.outlets)
    return run


def raw(system: System) -> Timed:
    """Return the functions of the core as cffi wraps them, with no object in between."""
    send, receive = lib.pm_send, lib.pm_receive
    sent, size, null = body(system), system.setting.size, ffi.NULL
    room = ffi.new("char[]", max(1, size))
    sender, receiver = system.sender._pointer, system.receiver._pointer
    to, name, number = system.outlet.name, system.inbox.name, msgh_id(system)

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in repeat(None, pairs):
            send(sender, to, sent, size, number, null)
            receive(receiver, name, room, size, null)
        return thread_time_ns() - start

    return run


def cffi_kept(system: System) -> Timed:
    """Return `raw` in the form of the binding that keeps the GIL.

    Raises:
        Skip: this build has the other form.
    """
    if not GIL_KEPT:
        raise Skip("this build has the stock form of the binding")
    return raw(system)


def cffi_stock(system: System) -> Timed:
    """Return `raw` in the form that gives the GIL up in each call.

    Raises:
        Skip: this build has the other form.
    """
    if GIL_KEPT:
        raise Skip("this build keeps the GIL; PYMPI_STOCK=1 pip install . makes one that does not")
    return raw(system)


LOOPS: dict[str, Callable[[System], Timed]] = {
    "callables": callables,
    "methods": methods,
    "carrying": carrying,
    "cffi": cffi_kept,
    "cffi-stock": cffi_stock,
    "batch": rows,
    "submit": submit,
    "scattered": scattered,
    "c": compiled.in_c,
    "pybind11": compiled.in_pybind11,
    "numba": compiled.in_numba,
}

DRAIN_EVERY = 4096
"""Pairs: half of the room for records."""


def loop(system: System) -> Timed:
    """Return what the system's setting wants; records are drained between timings."""
    run = LOOPS[system.setting.through](system)
    vars(run)["system"] = system  # goes with the function: who has an address has no kernel
    if system.setting.audit != "everything":
        return run

    def drained(pairs: int) -> float:
        elapsed = 0.0
        for done in range(0, pairs, DRAIN_EVERY):
            elapsed += run(min(DRAIN_EVERY, pairs - done))
            system.kernel.audit.drain()
        return elapsed

    return drained
