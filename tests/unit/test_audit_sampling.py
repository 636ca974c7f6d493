# SPDX-License-Identifier: BSD-2-Clause
"""Sampling by meaning: what is kept, what the strata say, and whether estimates are true."""

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest

from pympi import AccessDenied, Kernel, SendRight, SimulatedClock, Task
from pympi._ffi import ffi, lib
from pympi.audit import RECORD, STRATUM, AuditRecord, Strata, estimate, weights
from pympi.errors import LimitExceeded
from pympi.policy import Partition
from pympi.testing import allow_all

MANY = 2000


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def kernel(clock: SimulatedClock) -> Iterator[Kernel]:
    with Kernel(policies=[allow_all()], clock=clock) as kernel:
        kernel.audit.select("granted")
        yield kernel
        kernel.verify()


class Way:
    """From a client of a label to a server of another."""

    def __init__(self, kernel: Kernel, client: str, server: str) -> None:
        self.client = kernel.create_task(f"client {client}", label=f"rules/{client}")
        self.server = kernel.create_task(f"server {server}", label=f"rules/{server}")
        self.port = self.server.allocate_port()
        self.right = self.port.make_send(self.client)

    def send(self, size: int = 1, msgh_id: int = 0) -> None:
        self.right.send(b"x" * size, msgh_id=msgh_id)
        self.port.receive()


def taken(kernel: Kernel) -> list[AuditRecord]:
    return list(kernel.audit.batch(kernel.audit.drain()))


# ---- what is kept ----


def test_the_first_of_each_meaning_is_kept_and_few_others(kernel: Kernel) -> None:
    kernel.audit.sample(one_in=500)
    ways = [Way(kernel, f"c{i}", f"s{i % 2}") for i in range(5)]
    for _ in range(200):
        for way in ways:
            way.send()
    records = taken(kernel)
    for operation in ("send", "receive"):
        first = [r for r in records if r.operation == operation and r.weight == 1]
        assert [r.subject if operation == "send" else r.peer for r in first] == [
            f"rules/c{i}" for i in range(5)
        ]
    chance = [r for r in records if r.weight > 1]
    assert {r.weight for r in chance} == {500}
    assert len(chance) < 20


def test_transfers_and_denials_are_all_kept() -> None:
    with Kernel(policies=[Partition(), allow_all()]) as kernel:
        kernel.audit.everything()
        kernel.audit.sample(one_in=60_000)
        server = kernel.create_task("server", label="partition/a")
        client = kernel.create_task("client", label="partition/a")
        other = kernel.create_task("other", label="partition/b")
        for _ in range(50):
            server.allocate_port().make_send(client)
            with pytest.raises(AccessDenied):
                server.allocate_port().make_send(other)
            with pytest.raises(LookupError):
                SendRight(client, 0x7703).send(b"")
        records = taken(kernel)
        assert sum(r.operation == "take" and not r.denied for r in records) == 50
        assert sum(bool(r.denied) for r in records) == 50
        assert sum(r.result == "MACH_SEND_INVALID_DEST" for r in records) == 50
        assert {r.weight for r in records} == {1}
        assert all(s.seen == s.kept for s in kernel.audit.strata() if s.certain)


def test_a_budget_by_the_kernels_clock(kernel: Kernel, clock: SimulatedClock) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    kernel.audit.sample(20, per=10.0)
    way = Way(kernel, "c", "s")
    counts = []
    for _ in range(5):
        for _ in range(1000):
            way.send()
            clock.advance(0.01)
        counts.append(len(kernel.audit.drain()))
    assert counts[0] > 20
    assert all(8 <= count <= 40 for count in counts[1:])


def test_without_sampling_all_is_kept_and_nothing_counted(kernel: Kernel) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    way = Way(kernel, "c", "s")
    kernel.audit.sample(one_in=1000)
    kernel.audit.keep_all()
    for _ in range(100):
        way.send()
    assert len(kernel.audit.drain()) == 100
    assert len(kernel.audit.strata()) == 0
    assert kernel.audit.selection.sampling == ""


def grants(*, sampled: bool) -> tuple[set[tuple[str, str, str, str]], int]:
    """Return what a policy has to allow, by the records of random traffic; how many these are."""
    dice = random.Random(2)
    with Kernel(policies=[allow_all()], clock=SimulatedClock()) as kernel:
        kernel.audit.everything()
        if sampled:
            kernel.audit.sample(1, per=1000.0)
        tasks = [kernel.create_task(f"t{i}", label=f"rules/l{i % 6}") for i in range(10)]
        ports = [task.allocate_port(qlimit=8) for task in tasks]
        rights = [[port.make_send(task) for port in ports] for task in tasks]
        for _ in range(3000):
            sender, receiver = dice.randrange(10), dice.randrange(10)
            carried = [] if dice.randrange(9) else [rights[sender][receiver].copy_send()]
            rights[sender][receiver].send(b"x", rights=carried)
            for right in ports[receiver].receive().rights:
                right.close()
        records = taken(kernel)
        assert kernel.audit.stats["lost"] == 0
    found = set()
    for record in records:
        for permission in record.asked:
            target = record.peer if permission == "recv" else record.object
            found.add((record.subject, target, record.tclass, permission))
    return found, len(records)


def test_whatever_a_policy_has_to_allow_is_there_once() -> None:
    (all_grants, count), (found, kept) = grants(sampled=False), grants(sampled=True)
    assert found == all_grants
    assert kept < count / 4


def run(seed: int) -> bytes:
    with Kernel(policies=[allow_all()], clock=SimulatedClock()) as kernel:
        kernel.audit.select("granted")
        kernel.audit.sample(5, seed=seed)
        way = Way(kernel, "c", "s")
        for _ in range(300):
            way.send()
        return kernel.audit.drain().tobytes() + kernel.audit.strata().rows.tobytes()


def test_the_same_seed_gives_the_same_trace() -> None:
    assert run(3) == run(3)
    assert run(3) != run(4)


def test_who_sees_all_sees_no_weights(kernel: Kernel) -> None:
    kernel.audit.sample(one_in=2)
    way = Way(kernel, "c", "s")
    with kernel.watch("permission=send") as watch:
        for _ in range(50):
            way.send()
        seen = watch.take()
    assert len(seen) == 50
    assert all(r.flags == () for r in seen)


# ---- strata ----


def test_strata_in_numbers_and_in_words(kernel: Kernel, clock: SimulatedClock) -> None:
    clock.advance(2.0)
    kernel.audit.select("granted", "mach_port", ["send", "make_send"])
    kernel.audit.sample(one_in=100, seed=1)
    way = Way(kernel, "c", "s")
    for size in range(200):
        way.send(size)
    strata = kernel.audit.strata()
    assert strata.rows.dtype == STRATUM
    assert STRATUM.itemsize == ffi.sizeof("struct pm_audit_stratum") == 64
    given, sent = strata
    assert (given.operation, given.certain, given.seen, given.kept) == ("give", True, 1, 1)
    asked = ("send", "copy_send")
    assert sent[:7] == ("rules/c", "rules/s", "-", "mach_port", asked, "send", 0)
    assert (sent.certain, sent.seen, sent.bytes, sent.first) == (False, 200, 19900, 2.0)
    assert strata.seen == 201
    assert strata.kept == len(kernel.audit.drain())


def test_messages_told_apart_by_their_number(kernel: Kernel) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    way = Way(kernel, "c", "s")
    kernel.audit.sample(one_in=1000, by_message=True)
    for i in range(30):
        way.send(msgh_id=i % 3)
    strata = kernel.audit.strata()
    assert {s.msgh_id: s.seen for s in strata} == {0: 10, 1: 10, 2: 10}
    (total,) = estimate(kernel.audit.drain(), by=["msgh_id"][:0], strata=strata)
    assert (total.total, total.exact) == (30, True)


def test_what_finds_no_row(kernel: Kernel) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    ways = [Way(kernel, f"c{i}", "s") for i in range(20)]
    kernel.audit.sample(one_in=1, strata=6)
    for way in ways:
        way.send()
    overflow, *others = kernel.audit.strata()
    assert (overflow.subject, overflow.seen, len(others)) == ("(overflow)", 14, 6)
    (sent,) = estimate(kernel.audit.drain(), strata=kernel.audit.strata())
    assert sent.total == 20


def test_what_found_no_row_and_was_left_out_may_be_of_any_group(kernel: Kernel) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    ways = [Way(kernel, f"c{i}", "s") for i in range(20)]
    kernel.audit.sample(one_in=60_000, strata=6, seed=1)
    for way in ways:
        way.send()
    records, strata = kernel.audit.drain(), kernel.audit.strata()
    (sent,) = estimate(records, strata=strata)
    assert (sent.total, sent.exact, sent.high) == (7, False, 20)
    (size,) = estimate(records, "size", strata=strata)
    assert (size.total, size.high) == (7, math.inf)
    certain = records[:3].copy()  # no part of what chance decides on
    certain["denied"] = 1
    (denied,) = estimate(certain, strata=strata)
    assert (denied.total, denied.exact) == (3, True)


def test_a_sid_that_was_given_out_anew_is_in_two_strata(kernel: Kernel) -> None:
    """Records have its number alone: how many there were of both is known, and no less."""
    kernel.audit.select("granted", "mach_port", "send")
    way = Way(kernel, "c", "s")
    parts = []
    for one_in, count in ((5, 400), (5, 300), (60_000, 50)):
        kernel.audit.sample(one_in=one_in, seed=1)
        for _ in range(count):
            way.send()
        parts.append((kernel.audit.drain(), kernel.audit.strata()))
    for chosen, total in ((parts[:2], 700), (parts, 750), ([parts[2]] * 2, 100)):
        records = np.concatenate([records for records, _ in chosen])
        every = [strata for _, strata in chosen]
        rows = np.concatenate([strata.rows for strata in every])
        labels = [label for strata in every for label in strata.labels]
        (sent,) = estimate(records, strata=Strata(rows, labels, every[0].classes))
        assert (sent.total, sent.exact) == (total, True)


def test_labels_of_strata_outlive_those_who_had_them(kernel: Kernel) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    kernel.audit.sample(one_in=10)
    task = kernel.create_task("brief", label="rules/brief")
    task.allocate_port().make_send(task).send(b"")
    task.terminate()
    for _ in range(3):
        kernel.audit.drain()
    kernel.create_task("next", label="rules/next")
    assert [s.subject for s in kernel.audit.strata()] == ["rules/brief"]


# ---- estimates ----


def test_weights() -> None:
    records = np.zeros(3, RECORD)
    records["flags"] = [0, 128, 128 | 7 << 16]
    assert weights(records).tolist() == [1.0, 1.0, 7.0]


def busy(kernel: Kernel, clock: SimulatedClock, dice: random.Random) -> tuple[dict[str, int], int]:
    """Let two pairs talk, with loads that change; return what each sent, and bytes of all."""
    ways = {name: Way(kernel, name, "s") for name in ("often", "seldom")}
    sent, total = dict.fromkeys(ways, 0), 0
    for second in range(40):
        for _ in range(20 if second % 4 else 300):
            name = "often" if dice.random() < 0.9 else "seldom"
            size = dice.randrange(100)
            ways[name].send(size)
            sent[name], total = sent[name] + 1, total + size
            clock.advance(0.003)
        clock.advance(1.0)
    return sent, total


def test_how_many_there_were_is_exact(kernel: Kernel, clock: SimulatedClock) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    kernel.audit.sample(10)
    sent, _ = busy(kernel, clock, random.Random(1))
    records, strata = kernel.audit.drain(), kernel.audit.strata()
    assert len(records) < sum(sent.values()) / 4
    by_label = {
        kernel.label(e.group[0]): e for e in estimate(records, by="effective_sid", strata=strata)
    }
    assert {name: by_label[f"rules/{name}"].total for name in sent} == pytest.approx(sent)
    assert all(e.exact for e in by_label.values())
    without = estimate(records, by="effective_sid")
    assert not any(e.exact for e in without)


def test_intervals_cover_what_was(clock: SimulatedClock) -> None:
    """Of 40 runs, a 95 % interval misses the truth in two on average; in eight, one in 10,000."""
    missed = {"with": 0, "without": 0}
    widths: dict[str, list[float]] = {"with": [], "without": []}
    for seed in range(40):
        with Kernel(policies=[allow_all()], clock=clock) as kernel:
            kernel.audit.select("granted", "mach_port", "send")
            kernel.audit.sample(25, seed=seed)
            _, truth = busy(kernel, clock, random.Random(seed))
            records, strata = kernel.audit.drain(), kernel.audit.strata()
        for name, given in (("with", strata), ("without", None)):
            (found,) = estimate(records, "size", strata=given)
            missed[name] += not found.low <= truth <= found.high
            widths[name].append(found.high - found.low)
    assert max(missed.values()) <= 8, missed
    assert sum(widths["with"]) < sum(widths["without"])


def test_what_stands_alone_says_nothing_of_the_rest(kernel: Kernel) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    kernel.audit.sample(one_in=60_000, seed=1)
    way = Way(kernel, "c", "s")
    for _ in range(50):
        way.send(10)
    records, strata = kernel.audit.drain(), kernel.audit.strata()
    (count,) = estimate(records, strata=strata)
    assert (count.total, count.exact, count.records) == (50, True, 1)
    (size,) = estimate(records, "size", strata=strata)
    assert (size.total, size.low, size.high) == (500, 10, math.inf)


def test_records_that_are_missing_are_not_made_up(kernel: Kernel) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    kernel.audit.sample(one_in=5, seed=1)
    way = Way(kernel, "c", "s")
    for _ in range(500):
        way.send()
    records, strata = kernel.audit.drain(), kernel.audit.strata()
    (half,) = estimate(records[: len(records) // 2], strata=strata)
    assert half.total < 400
    assert not half.exact
    assert estimate(records[:0], strata=strata)[0].total == 0
    empty = Strata(np.zeros(0, STRATUM), [], {})
    (plain,) = estimate(records, strata=empty)
    assert plain == estimate(records)[0]


def test_wrong_questions(kernel: Kernel) -> None:
    records = np.zeros(1, RECORD)
    with pytest.raises(ValueError, match="no field 'bytes'; they have sequence"):
        estimate(records, "bytes")
    with pytest.raises(ValueError, match="no field 'label'"):
        estimate(records, by="label")
    with pytest.raises(ValueError, match="confidence"):
        estimate(records, confidence=95)
    for arguments, complaint in (
        ({}, "name one"),
        ({"budget": 1, "one_in": 1}, "name one"),
        ({"budget": 0}, "budget must be from 1"),
        ({"one_in": 65536}, "one_in must be from 1 to 65535"),
        ({"one_in": 2, "strata": 0}, "strata"),
        ({"one_in": 2, "strata": 2**20 + 1}, "strata"),
        ({"budget": 2, "per": 0.0}, "per must be"),
        ({"budget": 2, "per": math.nan}, "per must be"),
    ):
        with pytest.raises(ValueError, match=complaint):
            kernel.audit.sample(**arguments)  # type: ignore[arg-type]
    wanted = ffi.new("struct pm_audit_sampling *", {"one_in": 1})
    assert lib.pm_audit_sample(kernel.pointer, wanted) == lib.KERN_INVALID_ARGUMENT


def test_memory_that_runs_out_leaves_sampling_as_it_was(kernel: Kernel, server: Task) -> None:
    kernel.audit.sample(one_in=7)
    said = kernel.audit.selection.sampling
    for at in (1, 2):
        lib.pm_kernel_fault(kernel.pointer, at, 0)
        with pytest.raises(LimitExceeded):
            kernel.audit.sample(5)
        assert kernel.audit.selection.sampling == said
    assert said == "sampled: one in 7 of what repeats itself"
    assert server.name == "server"
