# SPDX-License-Identifier: BSD-2-Clause
"""A cached verdict is the verdict that would be given now.

Policies change, tasks and ports change their labels, rights move, caches are too small: after
whatever came before, every send and receive ends as the policy in force decides about the labels
that are. Kernels with and without the short path, with large and tiny caches, and one that asks
about every operation go through the same steps; all must see the same.
"""

import random
from typing import Any

import pytest
from faults.world import COPY_SEND, SEND, message, outcome

from pympi import Kernel, Task, mach
from pympi.enums import ALL, MachPort, ObjectClass
from pympi.policy import Decision, PolicyModule

LABELS = tuple(f"table/{number}" for number in range(4))
TASKS, PORTS = 4, 3
KERNELS: dict[str, dict[str, Any]] = {
    "fast": {},
    "defining": {"fast_path": False},
    "tiny cache": {"avc_entries": 1},
    "tiny cache, defining": {"avc_entries": 1, "fast_path": False},
    "uncached": {},
}
WATCHED = MachPort.send | MachPort.copy_send | MachPort.use_recv | MachPort.recv


class Table(PolicyModule):
    """A table of vectors by pair of labels."""

    name = "table"

    def __init__(self, seed: int, *, uncached: bool = False) -> None:
        rng = random.Random(seed)
        pairs = [(a, b) for a in range(4) for b in range(4)]
        self.table = {pair: self._vector(rng) for pair in pairs}
        self.uncached = uncached

    def _vector(self, rng: random.Random) -> int:
        refused = sum(int(bit) for bit in WATCHED if rng.random() < 0.15)
        return ALL & ~refused

    def allowed(self, source: str, target: str) -> int:
        return self.table[int(source), int(target)]

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        if tclass.name != "mach_port" or None in (source, target):
            return Decision()
        return Decision(allowed=self.allowed(source, target))


class Party:
    """One kernel, and what its caches may hold."""

    def __init__(self, name: str, options: dict[str, Any], seed: int) -> None:
        self.uncached = name == "uncached"
        self.kernel = kernel = Kernel(**options)
        self.table = Table(seed, uncached=self.uncached)
        kernel.policies.load(self.table)
        kernel.policies.permissive = True
        self.tasks: list[Task] = [
            kernel.create_task(f"task {n}", LABELS[n % len(LABELS)]) for n in range(TASKS)
        ]
        self.ports = [self.tasks[0].allocate_port(LABELS[n]) for n in range(PORTS)]
        self.sends = [
            [port.make_send(task) if task is not self.tasks[0] else None for port in self.ports]
            for task in self.tasks
        ]
        kernel.policies.permissive = False

    # ---- steps: each returns what was seen ----

    def send(self, who: int, which: int, how: int) -> str:
        right = self.sends[who][which]
        if right is None:
            return "-"
        if how == 0:
            return outcome(lambda: right.send(b"x", timeout=0))
        if how == 1:
            return outcome(lambda: right.sender(timeout=0)(b"x"))
        raw = message(right.name, COPY_SEND, body=b"xxxx")
        return outcome(lambda: mach.mach_msg(self.tasks[who], raw, SEND))

    def receive(self, which: int, how: int) -> str:
        port = self.ports[which]
        return outcome(lambda: port.receive(timeout=0) if how else port.receiver(timeout=0)())

    def relabel_task(self, who: int, label: int) -> str:
        return outcome(lambda: self.tasks[who].relabel(LABELS[label]))

    def relabel_port(self, which: int, label: int) -> str:
        return outcome(lambda: self.ports[which].relabel(LABELS[label]))

    def reload(self, seed: int) -> str:
        self.table = Table(seed, uncached=self.uncached)
        self.kernel.policies.replace("table", self.table)
        return "reloaded"

    def permissive(self, on: bool) -> str:
        self.kernel.policies.permissive = on
        return "mode"

    # ---- what must be ----

    def verdict_of_send(self, who: int, which: int) -> bool:
        """Return what the table says about the labels as they are."""
        source = self.tasks[who].label.removeprefix("table/")
        target = self.ports[which].label.removeprefix("table/")
        wanted = int(MachPort.send | MachPort.copy_send)
        return self.table.allowed(source, target) & wanted == wanted


def step(rng: random.Random) -> tuple[str, tuple[int, ...]]:
    """Return a step: mostly sends and receives, so that caches are warm when labels change."""
    kind = rng.choices(
        ["send", "receive", "relabel_task", "relabel_port", "reload", "permissive"],
        [60, 40, 3, 3, 2, 1],
    )[0]
    ranges = {
        "send": (TASKS, PORTS, 3), "receive": (PORTS, 2), "relabel_task": (TASKS, len(LABELS)),
        "relabel_port": (PORTS, len(LABELS)), "reload": (1000,), "permissive": (2,),
    }  # fmt: skip
    return kind, tuple(rng.randrange(limit) for limit in ranges[kind])


def run(seed: int, steps: int) -> dict[str, int]:
    """Lead all kernels through the same steps, and compare; return what outcomes there were."""
    rng = random.Random(seed)
    parties = {name: Party(name, options, seed) for name, options in KERNELS.items()}
    seen: dict[str, int] = {}
    soft = False
    try:
        for _ in range(steps):
            kind, arguments = step(rng)
            soft = bool(arguments[0]) if kind == "permissive" else soft
            found = {name: getattr(p, kind)(*arguments) for name, p in parties.items()}
            assert len(set(found.values())) == 1, (kind, arguments, found)
            result = found["fast"]
            seen[result] = seen.get(result, 0) + 1
            if kind == "send" and result not in ("-", "MACH_SEND_TIMED_OUT"):
                allowed = soft or parties["fast"].verdict_of_send(*arguments[:2])
                assert (result == "KERN_SUCCESS") == allowed, (arguments, result)
        for party in parties.values():
            party.kernel.verify()
    finally:
        for party in parties.values():
            party.kernel.close()
    return seen


def test_random_interleavings(rng: random.Random) -> None:
    seen: dict[str, int] = {}
    for _ in range(8):
        for result, count in run(rng.getrandbits(32), 600).items():
            seen[result] = seen.get(result, 0) + count
    for result in ("MACH_SEND_INVALID_DEST", "MACH_RCV_INVALID_NAME", "MACH_RCV_INVALID_DATA"):
        assert seen.get(result, 0) > 10, seen


@pytest.mark.long
def test_many_random_interleavings(rng: random.Random) -> None:
    for _ in range(200):
        run(rng.getrandbits(32), 2000)


@pytest.mark.parametrize("options", [{}, {"fast_path": False}], ids=["fast", "defining"])
def test_a_reload_is_complete_when_it_returns(options: dict[str, Any]) -> None:
    """Nothing decided before is used after: with the cache as warm as it gets."""
    everything, nothing = Table(0), Table(0)
    everything.table = dict.fromkeys(everything.table, ALL)
    nothing.table = dict.fromkeys(nothing.table, ALL & ~int(MachPort.send))
    with Kernel(policies=[everything], **options) as kernel:
        server, client = kernel.create_task("s", LABELS[0]), kernel.create_task("c", LABELS[1])
        inbox = server.allocate_port()
        send = inbox.make_send(client).sender(timeout=0)
        receive = inbox.receiver(timeout=0)
        for _ in range(20):
            for _ in range(3):
                send(b"warm")
                receive()
            kernel.policies.replace("table", nothing)
            assert outcome(lambda: send(b"")) == "MACH_SEND_INVALID_DEST"
            kernel.policies.replace("table", everything)
        assert kernel.stats()["denials"] == 20


@pytest.mark.parametrize("options", [{}, {"fast_path": False}], ids=["fast", "defining"])
@pytest.mark.parametrize("who", ["client", "inbox"])
def test_a_relabel_counts_at_once(options: dict[str, Any], who: str) -> None:
    table = Table(0)
    table.table = dict.fromkeys(table.table, ALL)
    table.table[1, 2] = table.table[3, 0] = ALL & ~int(MachPort.send)
    with Kernel(policies=[table], **options) as kernel:
        server, client = kernel.create_task("s", LABELS[0]), kernel.create_task("c", LABELS[1])
        inbox = server.allocate_port(LABELS[0])
        send, receive = inbox.make_send(client).sender(timeout=0), inbox.receiver(timeout=0)
        for _ in range(5):
            send(b"warm")
            receive()
            epoch = kernel.policies.epoch
            target, refused, back = (
                (client, LABELS[3], LABELS[1]) if who == "client" else (inbox, LABELS[2], LABELS[0])
            )
            target.relabel(refused)  # type: ignore[attr-defined]
            assert outcome(lambda: send(b"")) == "MACH_SEND_INVALID_DEST"
            target.relabel(back)  # type: ignore[attr-defined]
            assert kernel.policies.epoch == epoch
