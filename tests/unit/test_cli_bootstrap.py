# SPDX-License-Identifier: BSD-2-Clause
"""pympi bootstrap dump, look-up: screens, the tree, JSON, exit codes, hostile names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pympi import Kernel
from pympi.inspect import Context, Service, Snapshot

Run = Callable[..., Any]
HOSTILE = "x\x1b[2J\n\u202e|forged  active"


@pytest.fixture
def snap(tmp_path: Path) -> Path:
    """A root and a context in it, which both have a service of one name."""
    path = tmp_path / "run.snap"
    with Kernel() as kernel:
        names = kernel.bootstrap
        printd, guest = kernel.create_task("printd"), kernel.create_task("guest")
        inner = names.create_context()
        printd.bootstrap.register("com.example.print", printd.allocate_port())
        names.declare("com.example.scan")
        names.declare("com.example.print", inner)
        names.give(guest, inner)
        kernel.snapshot(path)
    return path


@pytest.fixture
def hostile(snap: Path) -> Path:
    """The same, with a name that no name server would take."""
    snapshot = Snapshot.load(snap)
    [root, inner] = snapshot.bootstrap or ()
    bad = Service(HOSTILE, server="\x9b31m", state="active\r", label="\u2066te/x")
    contexts = (msgspec.structs.replace(root, services=(*root.services, bad)), inner)
    msgspec.structs.replace(snapshot, bootstrap=contexts).save(snap)
    return snap


def test_dump(pympi: Run, snap: Path) -> None:
    done = pympi("bootstrap", "dump", snap)
    assert done.code == 0
    assert [line for line in done.lines if line] == [
        ["NAME", "SERVER", "STATE", "PORT", "LABEL"],
        ["context", "1,", "the", "root", "-"],
        ["com.example.print", "printd", "active", done.lines[3][3], "-"],
        ["com.example.scan", "inactive", done.lines[4][2], "-"],
        ["context", "2,", "below", "1", "-"],
        ["com.example.print", "inactive", done.lines[7][2], "-"],
    ]
    assert done.err == "3 names in 2 contexts\n"


def test_dump_as_a_tree(pympi: Run, snap: Path) -> None:
    assert pympi("bootstrap", "dump", "--tree", snap).out.splitlines() == [
        "context 1, the root  -",
        "├── com.example.print  printd  active    -",
        "├── com.example.scan           inactive  -",
        "└── context 2, below 1  -",
        "    └── com.example.print          inactive  -",
    ]


def test_dump_as_json(pympi: Run, snap: Path) -> None:
    contexts = pympi("bootstrap", "dump", snap, "--json").json["contexts"]
    assert [context["parent"] for context in contexts] == [0, 1]
    assert contexts[0]["services"][0]["server"] == "printd"


@pytest.mark.parametrize("option", [[], ["--tree"], ["--json"]])
def test_hostile_names_do_nothing_to_a_terminal(
    pympi: Run, hostile: Path, option: list[str]
) -> None:
    out = pympi("bootstrap", "dump", hostile, *option).out
    assert all(char == "\n" or char.isprintable() for char in out)
    assert "\nforged" not in out
    out = pympi("bootstrap", "look-up", HOSTILE, hostile).out
    assert all(char == "\n" or char.isprintable() for char in out)


def test_contexts_that_lead_in_a_circle_are_shown(pympi: Run, snap: Path) -> None:
    snapshot = Snapshot.load(snap)
    circle = (Context(1, parent=2, label="a"), Context(2, parent=1, label="b"))
    msgspec.structs.replace(snapshot, bootstrap=circle).save(snap)
    out = pympi("bootstrap", "dump", "--tree", snap).out
    assert "context 1" in out
    assert "context 2" in out
    assert pympi("bootstrap", "look-up", "x", snap, "--context", 2).code == 1


def test_contexts_deeper_than_any_stack_are_shown(pympi: Run, snap: Path) -> None:
    deep = tuple(Context(number, parent=number - 1) for number in range(1, 2001))
    msgspec.structs.replace(Snapshot.load(snap), bootstrap=deep).save(snap)
    out = pympi("bootstrap", "dump", "--tree", snap).out
    assert all(f"context {number}, " in out for number in (1, 99, 101, 2000))


def test_without_a_name_server(pympi: Run, tmp_path: Path) -> None:
    with Kernel() as kernel:
        kernel.snapshot(tmp_path / "run.snap")
    for words in (["dump"], ["look-up", "x"]):
        done = pympi("bootstrap", *words, tmp_path / "run.snap")
        assert (done.code, done.out) == (1, "")
        assert done.err == "pympi: there is no name server\n"


# ---- look-up ----


@pytest.mark.parametrize(
    ("words", "context", "state"),
    [
        ([], 1, "active"),
        (["--context", 1], 1, "active"),
        (["--context", 2], 2, "inactive"),
        (["--task", "guest"], 2, "inactive"),
        (["--task", "printd"], 1, "active"),
    ],
)
def test_the_nearest_counts(
    pympi: Run, snap: Path, words: list[object], context: int, state: str
) -> None:
    done = pympi("bootstrap", "look-up", "com.example.print", snap, *words, "--json")
    assert (done.code, done.json["context"]) == (0, context)
    assert [service["state"] for service in done.json["services"]] == [state]


def test_what_is_not_there_is_looked_for_above(pympi: Run, snap: Path) -> None:
    done = pympi("bootstrap", "look-up", "com.example.scan", snap, "--context", 2, "--json")
    assert done.json["context"] == 1


def test_who_receives(pympi: Run, snap: Path) -> None:
    done = pympi("bootstrap", "look-up", "com.example.print", snap)
    assert done.out.splitlines()[0] == "context 1, the root  -"
    assert ["receiver", "printd", "(task", "2)"] in done.lines
    assert ["state", "active"] in done.lines


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nothing"], "no 'nothing' in context 1 or above, nor in any other"),
        (["x", "--context", 9], "no context 9; there are 1, 2"),
        (["x", "--task", "nobody"], "no task has the number or name 'nobody'"),
        (["x", "--task", "bootstrap"], "bootstrap leads to 0 contexts, not to one"),
    ],
)
def test_what_is_not_found(pympi: Run, snap: Path, words: list[object], complaint: str) -> None:
    name, *options = words
    done = pympi("bootstrap", "look-up", name, snap, *options)
    assert (done.code, done.out, done.err) == (1, "", f"pympi: {complaint}\n")


def test_where_else_it_is(pympi: Run, snap: Path) -> None:
    snapshot = Snapshot.load(snap)
    [root, inner] = snapshot.bootstrap or ()
    empty = msgspec.structs.replace(root, services=())
    msgspec.structs.replace(snapshot, bootstrap=(empty, inner)).save(snap)
    done = pympi("bootstrap", "look-up", "com.example.print", snap)
    assert done.code == 1
    assert "it is in context 2: --context 2" in done.err
