# SPDX-License-Identifier: BSD-2-Clause
"""The system in Numba: compiled code, which calls the core through pointers that cffi has found.

The loop is that of with_submit.py. Its operations are written into an array, and `pm_submit` is
called as a function of numbers: addresses and sizes.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import numpy as np
from world import ANSWER, HEAD, REQUEST, ROOM, Counts, World

import pympi
from pympi import batch, mach

try:
    import cffi
    import numba
except ImportError as error:
    MISSING = f"no {error.name} here"
else:
    MISSING = ""

THOUGHT, SERVED = 0, 1
SEND, RECEIVE, FULL = batch.SEND, batch.RECEIVE, mach.MACH_SEND_TIMED_OUT
FACE = """
    int64_t pm_submit(uint64_t kernel, uint64_t ops, uint64_t count, uint64_t data, uint64_t size);
    int pm_kernel_set_time(uint64_t kernel, uint64_t now);
"""


def chance(states: Any, who: int) -> Any:
    """Return 64 random bits of somebody's own generator: `world.splitmix64`."""
    states[who] += np.uint64(0x9E3779B97F4A7C15)
    bits = states[who]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def delay(times: Any, bits: Any) -> float:
    """Return a random time: `world.delay`."""
    below = np.int64(bits & np.uint64((1 << 40) - 1))
    return times[np.int64(bits >> np.uint64(52))] + float(below) * 2.0**-60


def fill(op: Any, what: int, task: int, name: int, msgh_id: int, place: int, length: int) -> None:
    """Write an operation that brings no reply right."""
    op.op, op.task, op.name, op.msgh_id = what, task, name, msgh_id
    op.offset, op.length, op.reply = place, length, 0


def loop(
    submit: Any, set_time: Any, kernel: int, ops: Any, data: Any, rights: Any, answers: Any,
    inboxes: Any, clients: Any, services: Any, chances: Any, think: Any, serve: Any, requests: int,
) -> tuple[int, int, int, int, float]:  # fmt: skip
    """Simulate until all clients have stopped."""
    words = data.view(np.uint64)
    asked = np.zeros(len(clients), np.int64)
    client_of = np.full(len(services), -1)
    reply_of = np.zeros(len(services), np.uint32)
    events = answered = denied = full = 0
    order, now = 0, 0.0
    heap = [(0.0, 0, 0, 0) for _ in range(0)]
    for client in range(len(clients)):
        heappush(heap, (delay(think, chance(chances, client)), order, THOUGHT, client))
        order += 1
    while heap:
        now, _, kind, who = heappop(heap)
        set_time(kernel, np.int64(np.rint(now * 1e9)))
        events += 1
        thinks, begins, taken = -1, -1, 0
        if kind == THOUGHT:
            bits = chance(chances, who)
            service = np.int64(bits >> np.uint64(32)) % len(services)
            words[0], words[1] = asked[who], who
            asked[who] += 1
            size = HEAD + np.int64(bits & np.uint64(255))
            fill(ops[0], SEND, clients[who], rights[who, service], REQUEST, 0, size)
            ops[0].reply = answers[who]
            fill(ops[1], RECEIVE, services[service], inboxes[service], 0, ROOM, ROOM)
            idle = client_of[service] < 0
            submit(kernel, ops.ctypes.data, 2 if idle else 1, data.ctypes.data, data.nbytes)
            if ops[0].result:
                full += ops[0].result == FULL
                denied += ops[0].result != FULL
                thinks = who
            elif idle:
                begins, taken = service, 1
        else:
            client = client_of[who]
            words[0], words[1] = asked[client] - 1, client
            fill(ops[0], SEND, services[who], reply_of[who], ANSWER, 0, HEAD)
            fill(ops[1], RECEIVE, clients[client], answers[client], 0, ROOM, ROOM)
            fill(ops[2], RECEIVE, services[who], inboxes[who], 0, ROOM, ROOM)
            submit(kernel, ops.ctypes.data, 3, data.ctypes.data, data.nbytes)
            answered += ops[1].result == 0
            client_of[who] = -1
            thinks = client
            if ops[2].result == 0:
                begins, taken = who, 2
        if thinks >= 0 and asked[thinks] < requests:
            later = delay(think, chance(chances, thinks))
            heappush(heap, (now + later, order, THOUGHT, thinks))
            order += 1
        if begins >= 0:
            client_of[begins] = np.int64(words[ROOM // 8 + 1])
            reply_of[begins] = ops[taken].reply
            later = delay(serve, chance(chances, len(clients) + begins))
            heappush(heap, (now + later, order, SERVED, begins))
            order += 1
    return events, answered, denied, full, now


_compiled: list[Any] = []


def compiled() -> tuple[Any, Any, Any]:
    """Return the loop, compiled, and the functions of the core that it calls."""
    if not _compiled:
        ffi = cffi.FFI()
        ffi.cdef(FACE)
        core = ffi.dlopen(pympi.get_library())
        for function in (chance, delay, fill):
            globals()[function.__name__] = numba.njit(function)
        _compiled.extend([numba.njit(loop), core.pm_submit, core.pm_kernel_set_time, core])
    return tuple(_compiled[:3])


def run(world: World) -> Counts:
    """Simulate until all clients have stopped."""
    simulate, submit, set_time = compiled()
    ops, data = batch.operations(3), np.zeros(2 * ROOM, np.uint8)
    counts = Counts(*simulate(
        submit, set_time, world.kernel.address, ops, data, world.rights, world.answers,
        world.inboxes, world.clients, world.services, world.chances.copy(), world.think,
        world.serve, world.size.requests,
    ))  # fmt: skip
    world.clock.advance_to(counts.end)
    return counts
