# SPDX-License-Identifier: BSD-2-Clause
"""pympi leaks and diff, and what they stand on: what grows, what is kept, what changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pympi import Kernel, SnapshotError
from pympi.enums import PortType
from pympi.inspect import Snapshot
from pympi.inspect.compare import check_order, compare
from pympi.inspect.leaks import find_leaks
from pympi.policy import Partition

Run = Callable[..., Any]


@pytest.fixture
def snaps(tmp_path: Path) -> list[Path]:
    """Three snapshots of a system in which one client leaks, and another does not."""
    paths = [tmp_path / f"{number}.snap" for number in range(3)]
    with Kernel() as kernel:
        printd, leaky = kernel.create_task("printd"), kernel.create_task("leaky")
        steady = kernel.create_task("steady")
        inbox, full = printd.allocate_port(), printd.allocate_port()
        printd.bootstrap.register("com.example.print", inbox)
        for _ in range(5):
            full.make_send(printd).send(b"", timeout=0)
        kept: list[object] = [leaky.bootstrap.look_up("com.example.print")]
        for path in paths:
            for _ in range(10):
                kept += [leaky.allocate_port(), leaky.bootstrap.look_up("com.example.print")]
                kept.append(printd.allocate_port().make_send(leaky))
                gone = printd.allocate_port()
                kept.append(gone.make_send(leaky))
                gone.destruct()
                steady.allocate_port().destruct()
            kernel.snapshot(path)
    return paths


def grown(snaps: list[Path]) -> dict[tuple[str, str, int], tuple[int, ...]]:
    taken = [Snapshot.load(path) for path in snaps]
    names = {task.id: task.name for task in taken[0].tasks}
    found = find_leaks(taken).growing
    return {(each.what, names[each.task], each.types): each.counts for each in found}


def test_what_grows(snaps: list[Path]) -> None:
    assert grown(snaps) == {
        ("ports", "leaky", 0): (11, 21, 31),  # one is for replies
        ("ports", "printd", 0): (13, 23, 33),
        ("names", "leaky", PortType.SEND): (12, 22, 32),
        ("names", "leaky", PortType.DEAD_NAME): (10, 20, 30),
        ("references", "leaky", PortType.SEND): (11, 21, 31),
    }


def test_what_shrank_once_is_no_leak(snaps: list[Path]) -> None:
    middle = Snapshot.load(snaps[1])
    few = middle.ports.select(middle.ports.columns["maker"] != 2)
    msgspec.structs.replace(middle, ports=few).save(snaps[1])
    assert ("ports", "leaky", 0) not in grown(snaps)
    assert ("ports", "printd", 0) in grown(snaps)


def test_what_is_new_and_where_it_came_from(snaps: list[Path]) -> None:
    taken = [Snapshot.load(path) for path in snaps]
    found = find_leaks(taken).growing
    [sends] = [g for g in found if g.what == "names" and g.types == PortType.SEND]
    assert sends.received
    assert len(sends.new) == sends.grown == 20
    provenances = [r.provenance for r in taken[-1].rights_of(2) if r.name in sends.new]
    assert sends.transfers == (min(provenances), max(provenances))
    [ports] = [g for g in found if g.what == "ports" and g.task == 2]
    assert not ports.received
    assert set(ports.new) <= {port.id for port in taken[-1].ports if port.maker == 2}


def test_what_is_kept_for_nothing(snaps: list[Path]) -> None:
    taken = [Snapshot.load(path) for path in snaps]
    found = find_leaks(taken, large=31)
    assert {task: len(names) for task, names in found.dead_names.items()} == {2: 10}
    assert [right.user_references for right in found.references] == [31]
    assert [(port.receiver, port.queue_length) for port in found.stuck] == [(1, 5)]
    assert find_leaks(taken, large=32).references == []


def test_a_queue_that_moves_is_not_stuck() -> None:
    with Kernel() as kernel:
        task = kernel.create_task("task")
        inbox = task.allocate_port()
        right = inbox.make_send(task)
        for _ in range(5):
            right.send(b"", timeout=0)
        before = kernel.snapshot()
        inbox.receive()
        right.send(b"")
        assert find_leaks([before, kernel.snapshot()]).stuck == []
        assert len(find_leaks([kernel.snapshot()]).stuck) == 1


def test_leaks_shows_it(pympi: Run, snaps: list[Path]) -> None:
    done = pympi("leaks", *snaps, "--references", 31)
    assert done.code == 1
    rows = [" ".join(line) for line in done.lines]
    assert any(row.startswith("leaky (2) ports made 11 31") for row in rows)
    assert any(row.startswith("leaky (2) send references 11 31") for row in rows)
    assert any("received, transfers" in row for row in rows)
    assert any(row.startswith("leaky (2) 10 dead names") for row in rows)
    assert any(row.startswith("printd (1) 5 messages in port") for row in rows)
    assert any(row.startswith("leaky (2) 31 references of name 0x") for row in rows)
    assert not any("steady" in row for row in rows)


def test_leaks_as_json(pympi: Run, snaps: list[Path]) -> None:
    done = pympi("leaks", *snaps, "--json")
    assert (done.code, done.json["snapshots"]) == (1, 3)
    assert {each["task_name"] for each in done.json["growing"]} == {"leaky", "printd"}
    assert done.json["dead_names"][0]["task_name"] == "leaky"


def test_no_leaks(pympi: Run, tmp_path: Path) -> None:
    with Kernel() as kernel:
        kernel.create_task("steady").allocate_port()
        for number in range(2):
            kernel.snapshot(tmp_path / f"{number}")
    done = pympi("leaks", tmp_path / "0", tmp_path / "1")
    assert done.code == 0
    assert done.out == "Nothing only grows, and nothing is kept for nothing, in 2 snapshots.\n"
    done = pympi("leaks", tmp_path / "0")
    assert (done.code, done.out) == (0, "Nothing is kept for nothing, in 1 snapshot.\n")


# ---- diff ----


def test_compare_sees_every_kind() -> None:
    with Kernel() as kernel:
        names = kernel.bootstrap
        task, other = kernel.create_task("task"), kernel.create_task("other")
        kept, lost = task.allocate_port(), task.allocate_port()
        gone = names.declare("com.example.gone")
        names.declare("com.example.taken")
        before = kernel.snapshot()
        lost.destruct()
        names.forget(gone)
        task.bootstrap.check_in("com.example.taken")
        kept.make_send(other)
        kernel.create_task("new")
        names.create_context()
        kernel.policies.load(Partition())
        changes = compare(before, kernel.snapshot())
    seen = {(change.kind, change.what) for change in changes}
    assert seen >= {
        ("task", "came"), ("port", "went"), ("port", "came"), ("port", "changed"), ("name", "came"),
        ("name", "went"), ("context", "came"), ("service", "went"), ("service", "changed"),
        ("module", "came"), ("policy", "changed"),
    }  # fmt: skip
    [taken] = [c for c in changes if c.kind == "service" and c.what == "changed"]
    assert taken.fields["state"] == ("inactive", "active")


def test_the_same_is_no_difference(pympi: Run, snaps: list[Path]) -> None:
    done = pympi("diff", snaps[0], snaps[0])
    assert (done.code, done.out) == (0, "No differences.\n")
    assert pympi("diff", snaps[0], snaps[0], "--json").json == {"equal": True, "changes": []}


def test_diff_says_alike_things_once(pympi: Run, snaps: list[Path]) -> None:
    done = pympi("diff", snaps[0], snaps[2])
    assert done.code == 1
    assert done.out.splitlines()[0].startswith("ports: ")
    [line] = [line for line in done.out.splitlines() if "made by leaky" in line]
    assert line.startswith("  + made by leaky (2), -: ")
    [line] = [line for line in done.out.splitlines() if "user references" in line]
    assert line.endswith("user references 11 -> 31")
    changes = pympi("diff", snaps[0], snaps[2], "--json").json["changes"]
    assert sum(change["kind"] == "name" for change in changes) == 81


def test_many_lines_are_counted(pympi: Run, tmp_path: Path) -> None:
    with Kernel() as kernel:
        kernel.snapshot(tmp_path / "old")
        for number in range(30):
            kernel.create_task(f"task\x1b{number}")
        kernel.snapshot(tmp_path / "new")
    done = pympi("diff", tmp_path / "old", tmp_path / "new")
    assert done.out.splitlines()[0] == "tasks: 30 came"
    assert done.out.splitlines()[-1].strip() == "and 10 lines more: --all"
    assert "\x1b" not in done.out
    every = pympi("diff", "--all", tmp_path / "old", tmp_path / "new").out.splitlines()
    assert len([line for line in every if line.startswith("  + task")]) == 30


@pytest.mark.parametrize("verb", ["diff", "leaks"])
def test_snapshots_in_the_wrong_order(pympi: Run, snaps: list[Path], verb: str) -> None:
    done = pympi(verb, snaps[1], snaps[0])
    assert (done.code, done.out) == (2, "")
    assert "not the older one first" in done.err


def test_snapshots_of_different_kernels() -> None:
    taken = []
    for name in ("one", "other"):
        with Kernel() as kernel:
            kernel.create_task(name)
            taken.append(kernel.snapshot())
    with pytest.raises(SnapshotError, match="different kernels"):
        check_order(*taken)
