# SPDX-License-Identifier: BSD-2-Clause
"""How tasks came to hold rights: followed back, and joined, from what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import HOSTILE, record

from pympi import AccessDenied, Kernel
from pympi.audit import Batch, batches
from pympi.audit.lineage import History, LineageError, find, history, joined
from pympi.audit.stats import stats
from pympi.enums import Operation
from pympi.policy import Rules

Kept = Callable[[Any], Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lineage") / "run.audit"
    record(path)
    return path


def only(run: Path, kept: Kept) -> Iterator[Batch]:
    for batch in batches(run):
        yield replace(batch, records=batch.records[kept(batch.records)])


def way(run: Path, right: str, kept: Kept = lambda records: records["port"] >= 0) -> list[str]:
    found = find(only(run, kept), right)
    told = history(only(run, kept), found.port)
    return [f"{h.task_name}:{h.name:#x} {h.kind} {h.unknown}".strip() for h in told.of(found).way()]


def all_of(run: Path, port: int) -> History:
    return history(batches(run), port)


def test_back_to_the_birth_of_the_port(run: Path) -> None:
    assert way(run, "helper:0x203") == [
        "helper:0x203 send", "editor:0x303 send", "bootstrap:0x503 send", "printd:0x103 receive",
    ]  # fmt: skip
    assert way(run, "3:771") == way(run, "helper:0x203")[1:]
    assert way(run, "printd:0x103") == ["printd:0x103 receive"]


def test_a_special_port(run: Path) -> None:
    assert way(run, "editor:0x103") == ["editor:0x103 send", "bootstrap:0x303 receive"]
    [holding] = [h for h in all_of(run, 3).holdings if h.task_name == "editor"]
    assert holding.given
    assert holding.taken
    assert (holding.given.operation, holding.taken.operation) == ("task", "task")


def test_given_directly(run: Path) -> None:
    assert way(run, "spy:0x103") == ["spy:0x103 send", *way(run, "editor:0x303")]


def test_given_directly_and_never_used() -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("giver").allocate_port()
        right = inbox.make_send(kernel.create_task("taker"))
        other = right.copy_send(kernel.create_task("other"))
        records = [kernel.audit.batch(kernel.audit.drain())]
        told = history(records, inbox.port_id)
    ways = [[f"{h.task_name}:{h.name:#x}" for h in each.way()] for each in told.holdings]
    root, there = f"giver:{inbox.name:#x}", f"taker:{right.name:#x}"
    assert ways == [[root], [there, root], [f"other:{other.name:#x}", there, root]]
    assert told.of(find(records, f"taker:{right.name:#x}")).transfer
    assert not any(holding.unknown for holding in told.holdings)


def test_who_would_have_taken_is_named_with_the_giver() -> None:
    policy = Rules.from_text("allow giver giver mach_port { make_send };")
    with Kernel(policies=[policy]) as kernel:
        giver = kernel.create_task("giver", label="rules/giver")
        inbox = giver.allocate_port(label="rules/giver")
        with pytest.raises(AccessDenied, match="hold_send"):
            inbox.make_send(kernel.create_task("taker", label="rules/taker"))
        (record,) = kernel.audit.batch(kernel.audit.drain())
    assert (record.task_name, record.subject, record.real_subject) == (
        "taker", "rules/taker", "rules/taker",
    )  # fmt: skip
    assert (record.peer, record.operation, record.denied) == ("rules/giver", "take", ("hold_send",))
    assert (record.name, record.provenance, record.transfer) == (0, 0, 0)


def test_all_who_got_a_right(run: Path) -> None:
    told = all_of(run, 4)
    [root] = told.roots
    assert root.task_name == "printd"
    [names] = root.passed_on
    [editor] = names.passed_on
    assert [h.task_name for h in editor.passed_on] == ["helper", "spy", HOSTILE]
    assert told.missing == 0


def test_what_was_not_recorded_is_said(run: Path) -> None:
    def no_gives(records: Any) -> Any:
        return records["operation"] != Operation.GIVE

    assert way(run, "helper:0x203", no_gives) == ["helper:0x203 send no record of who gave it"]

    def no_takes(records: Any) -> Any:
        return records["operation"] != Operation.TAKE

    assert (
        way(run, "helper:0x203", no_takes)[0] == "helper:0x203 send no record that it was received"
    )

    def sends(records: Any) -> Any:
        return records["operation"] == Operation.SEND

    [first] = way(run, "helper:0x203", sends)
    assert first == "helper:0x203 send no record of transfer 16"
    assert history(only(run, sends), 4).missing > 0


def test_a_right_that_was_never_used_is_found() -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        giver, taker = kernel.create_task("giver"), kernel.create_task("taker")
        mine, theirs = giver.allocate_port(), taker.allocate_port()
        theirs.make_send(giver).send(b"", rights=[mine.make_send()])
        [right] = theirs.receive().rights
        batch = kernel.audit.batch(kernel.audit.drain())
    found = find([batch], f"taker:{right.name:#x}")
    assert (found.port, found.kind) == (1, "send")
    names = [holding.task_name for holding in history([batch], found.port).of(found).way()]
    assert names == ["taker", "giver"]


def test_a_refused_right() -> None:
    from pympi.enums import ALL
    from pympi.policy import Decision, PolicyModule

    class NoHolding(PolicyModule):
        name = "no"

        def decide(self, source: object, target: object, tclass: Any) -> Decision:
            holds = tclass.mask("hold_send") if source == "b" and tclass.number == 1 else 0
            return Decision(allowed=ALL & ~holds)

    with Kernel(policies=[NoHolding()]) as kernel:
        kernel.audit.everything()
        a, b = kernel.create_task("a", label="no/a"), kernel.create_task("b", label="no/b")
        inbox, port = b.allocate_port(), a.allocate_port()
        inbox.make_send_once(a).send(b"", rights=[port.make_send()])
        assert inbox.receive().rights == [None]
        batch, number = kernel.audit.batch(kernel.audit.drain()), port.port_id
    [holding] = [h for h in history([batch], number).holdings if h.transfer]
    assert (holding.task_name, holding.refused) == ("b", True)


@pytest.mark.parametrize(
    ("right", "complaint"),
    [
        ("helper", "expected TASK:NAME"),
        ("helper:zero", "expected TASK:NAME"),
        ("helper:0", "expected TASK:NAME"),
        ("helper:0x999", r"no record has a name 0x999 of a task 'helper'; there are 0x103, 0x203"),
        ("ghost:0x103", "no record has a name 0x103 of a task 'ghost'$"),
        ("9" * 50 + ":1", "no record has"),
    ],
)
def test_what_is_no_right(run: Path, right: str, complaint: str) -> None:
    with pytest.raises(LineageError, match=complaint):
        find(batches(run), right)
    with pytest.raises(LineageError, match="port 999"):
        history(batches(run), 999)


def test_tasks_of_one_name() -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        twins = [kernel.create_task("twin") for _ in range(2)]
        for twin in twins:
            twin.allocate_port().make_send(twin).send(b"")
        batch = kernel.audit.batch(kernel.audit.drain())
    with pytest.raises(LineageError, match="several tasks are called 'twin': 1, 2"):
        find([batch], "twin:0x103")
    assert find([batch], "2:0x103").port == 2


def test_forged_circles_end() -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        task = kernel.create_task("a")
        right = task.allocate_port().make_send(task)
        right.send(b"", rights=[right.copy_send()])
        batch = kernel.audit.batch(kernel.audit.drain())
    batch.records["provenance"] = 7
    batch.records["transfer"] = 7
    told = history([batch], 1)
    assert all(len(holding.way()) <= len(told.holdings) for holding in told.holdings)


# ---- both halves ----


def test_halves_are_joined(run: Path) -> None:
    messages = {message.transfer: message for message in joined(batches(run))}
    [page] = [m for m in messages.values() if any(r.msgh_id == 1200 for r in m.sent)]
    assert [r.operation for r in page.sent] == ["send"]
    assert [r.task_name for r in page.received] == ["printd"]
    unread = [m for m in messages.values() if m.sent and not m.received]
    assert {r.msgh_id for m in unread for r in m.sent} >= {1201, 1202}


def test_joining_keeps_few() -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("a").allocate_port(qlimit=100)
        right = inbox.make_send(kernel.create_task("b"))
        for _ in range(10):
            right.send(b"")
        for _ in range(10):
            inbox.receive()
        records = kernel.audit.batch(kernel.audit.drain())
    assert len([m for m in joined([records]) if m.sent and m.received]) == 11
    few = [*joined([records], pending=3)]
    assert sum(len(m.sent) + len(m.received) for m in few) == len(records)
    assert 1 <= len([m for m in few if m.sent and m.received]) <= 4


# ---- counts ----


def test_stats(run: Path) -> None:
    found = stats(batches(run))
    records = [record for batch in batches(run) for record in batch]
    assert found.total == (len(records), len(records), 0)
    sends = [r for r in records if r.operation == "send" and r.result == "KERN_SUCCESS"]
    size = sum(r.size for r in sends)
    assert (found.messages, found.size) == ((len(sends), len(sends), 0), (size, size, 0))
    for name, total in found.tallies["operations"].most():
        assert total.records == sum(r.operation == name[0] for r in records)
    pair = ("who/spy", "who/printd", "denied")
    assert found.tallies["pairs"].totals[pair].records == 1
    assert (found.missing, found.lost, found.seconds) == (0, 0, 3.0)


def test_losses_are_counted() -> None:
    with Kernel(audit_records=64) as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("a").allocate_port(qlimit=1000)
        right = inbox.make_send(kernel.create_task("b"))
        for _ in range(500):
            right.send(b"")
        first = kernel.audit.drain()
        right.send(b"")
        batch = kernel.audit.batch(np.concatenate([first, kernel.audit.drain()]))
        lost = kernel.audit.stats["lost"]
    found = stats([batch])
    assert lost > 0
    assert (found.lost, found.missing) == (lost, lost)


def test_what_was_sampled_stands_for_more() -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("a").allocate_port()
        right = inbox.make_send(kernel.create_task("b"))
        for _ in range(4):
            right.send(b"")
        batch = kernel.audit.batch(kernel.audit.drain())
    exact = stats([batch])
    assert (exact.total, exact.total.exact) == ((6, 6, 0), True)
    sends = batch.records["operation"] == Operation.SEND
    batch.records["flags"][sends] |= 10 << 16
    found = stats([batch])
    assert found.total == (6, 42, 4 * 10 * 9)
    assert round(found.total.half) == round(1.96 * 360**0.5)
    totals = {name: total for (name,), total in found.tallies["operations"].most()}
    assert totals["send"] == (4, 40, 360)
    assert totals["give"] == (1, 1, 0)
