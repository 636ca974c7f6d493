# SPDX-License-Identifier: BSD-2-Clause
"""How messages are sent and received: each makes, of a system, something that can be timed.

A repetition is a pair: a message is sent, and received.
"""

from __future__ import annotations

import random
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
"""Arrays for `submit`, which take turns: so many ports are reached at random."""


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


def submissions(system: System) -> list[np.ndarray]:
    """Return arrays of operations: half of each sends to ports at random, half receives there."""
    rng, half, ports = random.Random(1), BATCH // 2, len(system.inboxes)
    made = []
    for _ in range(SUBMISSIONS):
        chosen = [rng.randrange(ports) for _ in range(half)]
        operations = batch.operations(BATCH)
        operations["op"] = [batch.SEND] * half + [batch.RECEIVE] * half
        operations["task"][:half] = [system.outlets[port].task.id for port in chosen]
        operations["task"][half:] = system.receiver.id
        operations["name"][:half] = [system.outlets[port].name for port in chosen]
        operations["name"][half:] = [system.inboxes[port].name for port in chosen]
        operations["offset"] = np.arange(BATCH) * system.setting.size
        operations["length"] = system.setting.size
        made.append(operations)
    return made


def submit(system: System) -> Timed:
    """Return `kernel.submit`, 256 operations in a call."""
    turns, data = cycle(submissions(system)), bytearray(BATCH * max(1, system.setting.size))
    kernel, half = system.kernel, BATCH // 2

    def run(pairs: int) -> float:
        times, done = -(-pairs // half), 0
        start = thread_time_ns()
        for operations in islice(turns, times):
            done += kernel.submit(operations, data)
        elapsed = thread_time_ns() - start
        if done != times * BATCH:
            raise RuntimeError(f"{times * BATCH - done} operations of {times * BATCH} failed")
        return elapsed * pairs / (times * half)

    for _ in range(SUBMISSIONS):
        run(half)
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
        raise Skip("this build keeps the GIL; one with PYMPI_STOCK=1 does not")
    return raw(system)


LOOPS: dict[str, Callable[[System], Timed]] = {
    "callables": callables,
    "methods": methods,
    "carrying": carrying,
    "cffi": cffi_kept,
    "cffi-stock": cffi_stock,
    "batch": rows,
    "submit": submit,
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
