# SPDX-License-Identifier: BSD-2-Clause
"""Many at once: batches beside loops in C over the same core, and a kernel of a million ports."""

import ctypes
import itertools
import mmap
import random
from collections.abc import Callable
from time import thread_time_ns
from typing import Any

import numpy as np

from pympi import Kernel, batch
from pympi.bench import compiled, loops
from pympi.bench.compiled import U32, U64, right
from pympi.bench.harness import Pair, Timed
from pympi.bench.peers import BODY
from pympi.bench.systems import Setting, System
from pympi.enums import CLASSES
from pympi.policy import Stub

BATCH = loops.BATCH
QUESTIONS, LABELS = 4096, 32
PORTS, TASKS = 1_000_000, 100_000
AT_ONCE = 1024
"""Sends between two drains, which are not timed: as many buffers are in use."""


def rows() -> Pair:
    """Pair `send_many` and `receive_many` of 256 with the same messages one at a time, in C."""
    system = System(Setting())
    size = system.setting.size
    out, room = np.zeros((BATCH, size), np.uint8), np.zeros((BATCH, size), np.uint8)
    call, way = compiled.loops().loop_rows, compiled.way(system)

    def baseline(pairs: int) -> float:
        times = -(-pairs // BATCH)
        start = thread_time_ns()
        wrong = call(ctypes.byref(way), pointer(out), pointer(room), U64(BATCH), U64(times))
        elapsed = thread_time_ns() - start
        right(wrong)
        return elapsed * pairs / (times * BATCH)

    return Pair(loops.rows(system), baseline)


def pointer(array: Any) -> ctypes.c_void_p:
    """Return where an array is."""
    return ctypes.c_void_p(array.ctypes.data)


CALL = np.dtype(
    [("task", "u8"), ("offset", "u8"), ("name", "u4"), ("size", "u4"), ("op", "u4"), ("_", "u4")]
)
"""struct operation of loop.c."""


def calls(kernel: Kernel, turns: list[Any]) -> list[Any]:
    """Return for loop.c what `submit` is told."""
    addresses = {task.id: compiled.pointer(task._pointer) for task in kernel.tasks.values()}
    return [_calls(addresses, operations) for operations in turns]


def _calls(addresses: dict[int, int], operations: Any) -> Any:
    made = np.zeros(len(operations), CALL)
    made["task"] = [addresses[number] for number in operations["task"].tolist()]
    made["op"] = operations["op"] == batch.RECEIVE
    for field, source in (("offset", "offset"), ("name", "name"), ("size", "length")):
        made[field] = operations[source]
    return made


def one_at_a_time(system: System, turns: list[Any], data: Any) -> Timed:
    """Return operations done one at a time, in C; a repetition is a send and its receive."""
    call, way = compiled.loops().loop_operations, compiled.way(system)
    endless = itertools.cycle(turns)

    def run(pairs: int) -> float:
        times, wrong = -(-2 * pairs // BATCH), 0
        start = thread_time_ns()
        for each in itertools.islice(endless, times):
            wrong += call(ctypes.byref(way), pointer(each), U64(BATCH), pointer(data))
        elapsed = thread_time_ns() - start
        right(wrong)
        return elapsed * 2 * pairs / (times * BATCH)

    return run


def submitted() -> Pair:
    """Pair `submit` of 256 operations of many tasks with the same, one at a time, in C."""
    system = System(Setting(ports=256, senders=64, through="submit"))
    data = np.zeros(BATCH * system.setting.size, np.uint8)
    turns = calls(system.kernel, loops.submissions(system))
    return Pair(loops.submit(system), one_at_a_time(system, turns, data))


def checked() -> Pair:
    """Pair `check_many` with a loop in C over the same questions, all of which are cached."""
    kernel = Kernel(policies=[Stub()])
    rng = random.Random(1)
    sids = [kernel.policies.intern(f"stub/l{number}") for number in range(LABELS)]
    sources, targets = (
        np.array([rng.choice(sids) for _ in range(QUESTIONS)], np.uint32) for _ in range(2)
    )
    kind = CLASSES["mach_port"]
    classes = np.full(QUESTIONS, kind.number, np.uint32)
    permissions = np.full(QUESTIONS, kind.mask("send"), np.uint32)
    call, check = compiled.loops().loop_checks, ctypes.c_void_p(compiled.address("pm_check"))
    arguments = (
        ctypes.c_void_p(compiled.pointer(kernel.pointer)), pointer(sources), pointer(targets),
        U32(kind.number), U32(kind.mask("send")), U64(QUESTIONS),
    )  # fmt: skip

    def subject(count: int) -> float:
        times = -(-count // QUESTIONS)
        start = thread_time_ns()
        for _ in range(times):
            kernel.check_many(sources, targets, classes, permissions)
        return (thread_time_ns() - start) * count / (times * QUESTIONS)

    def baseline(count: int) -> float:
        times, wrong = -(-count // QUESTIONS), 0
        start = thread_time_ns()
        for _ in range(times):
            wrong += call(check, *arguments)
        elapsed = thread_time_ns() - start
        right(wrong)
        return elapsed * count / (times * QUESTIONS)

    return Pair(subject, baseline)


# ---- a million ports ----


class City:
    """A kernel with a million ports of one task, each with a send right of one of 100,000 others.

    Attributes:
        kernel, tasks: these.
        senders: for each port, which of the tasks sends there.
        names, inboxes: for each port, of the send right and of the receive right.
        bytes_of_port: of memory, for a port and its receiver's name.
    """

    def __init__(self, ports: int = PORTS, tasks: int = TASKS) -> None:
        self.kernel = kernel = Kernel()
        self.receiver = kernel.create_task("receiver")
        before = kernel.stats()["memory"]
        inboxes = [self.receiver.allocate_port() for _ in range(ports)]
        self.bytes_of_port = (kernel.stats()["memory"] - before) / ports
        self.tasks = [kernel.create_task("sender") for _ in range(tasks)]
        rng = random.Random(1)
        self.senders = [rng.randrange(tasks) for _ in range(ports)]
        self.names = [
            inbox.make_send(self.tasks[sender]).name
            for inbox, sender in zip(inboxes, self.senders, strict=True)
        ]
        self.inboxes = [inbox.name for inbox in inboxes]

    def sends(self) -> list[tuple[Any, Any]]:
        """Return operations: sends to ports at random, and what receives them again."""
        order = list(range(len(self.names)))
        random.Random(2).shuffle(order)
        chunks = (order[at : at + AT_ONCE] for at in range(0, len(order) - AT_ONCE + 1, AT_ONCE))
        return [(self._sends(chunk), self._receives(chunk)) for chunk in chunks]

    def _sends(self, ports: list[int]) -> Any:
        made = self._operations(batch.SEND)
        made["task"] = [self.tasks[self.senders[port]].id for port in ports]
        made["name"] = [self.names[port] for port in ports]
        return made

    def _receives(self, ports: list[int]) -> Any:
        made = self._operations(batch.RECEIVE)
        made["task"], made["name"] = self.receiver.id, [self.inboxes[port] for port in ports]
        return made

    def _operations(self, op: int) -> Any:
        made = batch.operations(AT_ONCE)
        made["op"], made["length"] = op, len(BODY)
        made["offset"] = np.arange(AT_ONCE) * len(BODY)
        return made


def timed(turns: list[Any], send: Callable[[Any], int], drain: Callable[[Any], object]) -> Timed:
    """Return sends whose messages are received again, which is not timed.

    Nor is that what is to be sent is written to an array, always the same, as simulations do.
    """
    endless, array = itertools.cycle(turns), turns[0][0].copy()

    def run(count: int) -> float:
        elapsed, times = 0, -(-count // AT_ONCE)
        for sent, received in itertools.islice(endless, times):
            array[:] = sent
            start = thread_time_ns()
            wrong = send(array)
            elapsed += thread_time_ns() - start
            right(wrong)
            drain(received)
        return elapsed * count / (times * AT_ONCE)

    return run


def city_sends() -> tuple[City, Timed, Timed]:
    """Return the sends of a city, each two ways: one at a time in C, and by `submit`."""
    city = City()
    data = np.frombuffer(bytearray(BODY * AT_ONCE), np.uint8)
    call, way = compiled.loops().loop_operations, compiled.Way(
        compiled.address("pm_send"), compiled.address("pm_receive")
    )  # fmt: skip
    turns = city.sends()
    sent, received = zip(*turns, strict=True)
    in_c = list(zip(calls(city.kernel, list(sent)), received, strict=True))

    def one(sent: Any) -> int:
        return int(call(ctypes.byref(way), pointer(sent), U64(AT_ONCE), pointer(data)))

    def many(sent: Any) -> int:
        return AT_ONCE - city.kernel.submit(sent, data)

    def drain(received: Any) -> None:
        right(AT_ONCE - city.kernel.submit(received, data))

    return city, timed(in_c, one, drain), timed(turns, many, drain)


def lines_of(count: int, *, huge: bool) -> Any:
    """Return so many cache lines, on pages of 4 KB as those of the core are, or on huge ones."""
    memory = mmap.mmap(-1, count * 64, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    made = np.frombuffer(memory, np.uint64).reshape(count, 8)
    made[:] = 0  # so that each page is there
    return made


def bare(city: City, *, locked: bool = False, huge: bool = False) -> Timed:
    """Return a loop that touches a line each of an entry, a port and a buffer, and copies.

    Args:
        huge: on huge pages, for which the processor has room to remember where they all are.
        locked: an atomic operation stands before each send, as the lock of the core does, so that
            none begins before the lines of the last have come.
    """
    ports = len(city.names)
    lines = [lines_of(ports, huge=huge) for _ in range(2)]
    buffers = np.zeros((AT_ONCE, 64), np.uint8)
    random_order = np.random.default_rng(3).permutation
    order = random_order(ports).astype(np.uint32)
    lines[0][:, 1] = random_order(ports)
    body = np.frombuffer(BODY, np.uint8)
    call = compiled.loops().loop_lines
    starts = range(0, ports - AT_ONCE + 1, AT_ONCE)
    chunks = [(order[at : at + AT_ONCE], None) for at in starts]

    def touch(chunk: Any) -> int:
        return int(call(*map(pointer, (*lines, buffers, chunk, body)), U64(AT_ONCE), locked))

    return timed(chunks, touch, lambda _: None)


LOOKS = 3
"""At a task, a name and a port: lines of memory of which each tells where the next one is."""


def chased(city: City) -> Timed:
    """Return `LOOKS` looks at memory for each send, in a line for each name and each port."""
    lines = lines_of(2 * len(city.names), huge=False)
    order = np.random.default_rng(4).permutation(len(lines))
    lines[order, 0] = np.roll(order, -1)
    at, call = U64(0), compiled.loops().loop_chase

    def run(count: int) -> float:
        start = thread_time_ns()
        right(int(call(pointer(lines), ctypes.byref(at), U64(LOOKS * count))))
        return thread_time_ns() - start

    return run


def city_chase() -> Pair:
    """Pair random sends in C with as many looks at memory as a send needs, one after the other."""
    city, one, _ = city_sends()
    return Pair(one, chased(city))


def city_bare(**options: bool) -> Pair:
    """Pair random sends in C with a loop that touches the same lines and does nothing."""
    city, one, _ = city_sends()
    return Pair(one, bare(city, **options))


def city_submit() -> Pair:
    """Pair random sends by `submit` with the same, one at a time in C."""
    _, one, many = city_sends()
    return Pair(many, one)


def memory() -> Pair:
    """Return the bytes that a port takes with its receiver's name, beside one byte."""
    size = City(tasks=1).bytes_of_port
    return Pair(lambda _: size, lambda _: 1.0, unit="bytes", exact=True)


CASES: dict[str, Callable[[], Pair]] = {
    "batch_rows": rows,
    "batch_submit": submitted,
    "batch_checks": checked,
    "city_memory": memory,
    "city_bare": city_bare,
    "city_locked": lambda: city_bare(locked=True),
    "city_chase": city_chase,
    "city_huge": lambda: city_bare(huge=True),
    "city_submit": city_submit,
}
