# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots in which anything stands, as a hostile process could write them: shown, or refused.

Fault groups J (numbers of nothing, twice the same, contexts in circles) and L (escape sequences,
forged lines, names like options and paths).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pympi.inspect import (
    Context,
    Mark,
    Module,
    Policy,
    Port,
    Right,
    Service,
    Snapshot,
    Table,
    Task,
)
from pympi.inspect.table import columns_of, texts_of

Run = Callable[..., Any]
TEXTS = [
    "", "-", "te/a:b:c", "mls/low,te/x", "no label/", "received", "dead", "in transit", "active",
    "\x1b[31m", "\x9b1m", "a\nforged (task 1)", "\u202e\u2066", "\x7f", "x" * 5000, "日本語",
    "-rf", "../x", "=1+1", "NaN", "[bold]x[/bold]", "\\u{1b}",
]  # fmt: skip
SCREENS = [
    ["tasks"], ["ports"], ["ports", "--label", "*"], ["labels"], ["leaks"], ["avcstat"],
    ["policy", "status"], ["bootstrap", "dump"], ["bootstrap", "dump", "--tree"],
    ["bootstrap", "look-up", "a\nforged (task 1)"],
]  # fmt: skip


def column(chance: np.random.Generator, kind: str, rows: int) -> Any:
    """Numbers of which many are the same, so that rows meet; in some columns, any."""
    if kind == "?":
        return chance.integers(0, 2, rows).astype(bool)
    if chance.random() < 0.8:
        return chance.integers(0, 6, rows).astype(kind)
    limits = np.iinfo(kind)
    return chance.integers(limits.min, limits.max, rows, dtype=np.dtype(kind).type).astype(kind)


def table(chance: np.random.Generator, row: Any, rows: int) -> Any:
    columns = {name: column(chance, kind, rows) for name, kind in columns_of(row).items()}
    for name in texts_of(row):
        columns[name] = chance.integers(0, len(TEXTS), rows).astype("<u4")
    return Table(row, columns, TEXTS)


def contexts(chance: random.Random) -> tuple[Context, ...]:
    def number() -> int:
        return chance.randrange(5)

    def text() -> str:
        return chance.choice(TEXTS)

    return tuple(
        Context(number(), number(), text(), number(), tuple(
            Service(text(), text(), text(), text(), number(), number()) for _ in range(number())
        ))
        for _ in range(number())
    )  # fmt: skip


def write(path: Path, seed: int) -> None:
    chance, numbers = random.Random(seed), np.random.default_rng(seed)
    modules = tuple(Module(chance.choice(TEXTS), shadow=chance.choice([None, 3])) for _ in "ab")
    Snapshot(
        kernel_time=chance.choice([0.0, -1.0, 1e300, float("nan"), float("inf")]), wall_time=0.0,
        begin=Mark(), end=Mark(), stopped_seconds=None,
        tasks=table(numbers, Task, chance.randrange(8)),
        ports=table(numbers, Port, chance.randrange(12)),
        rights=table(numbers, Right, chance.randrange(20)), policy=Policy(modules=modules),
        stats={chance.choice(TEXTS): 3}, audit={}, bootstrap=contexts(chance),
    ).save(path)  # fmt: skip


def harmless(text: str) -> bool:
    return all(char == "\n" or char.isprintable() for char in text)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_stands_in_a_snapshot(pympi: Run, tmp_path: Path, seed: int) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, 2 * seed)
    write(new, 2 * seed + 1)
    for words in [*SCREENS, ["leaks", old], ["diff", old], ["diff", "--all", old]]:
        for option in ([], ["--json"]):
            done = pympi(*words, *option, new)
            assert done.code in (0, 1, 2)
            assert harmless(done.out + done.err), (words, option)
            assert "\nforged" not in done.out
            if option and done.out:
                json.loads(done.out, parse_constant=pytest.fail)


def test_names_like_options_and_paths(pympi: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.snap"
    write(path, 0)
    services = (Service("-rf", label="-"), Service("../x", label="-"))
    odd = (Context(1, 0, "-", 1, services),)
    msgspec.structs.replace(Snapshot.load(path), bootstrap=odd).save(path)
    for name in ("-rf", "../x"):
        done = pympi("bootstrap", "look-up", "--json", "--", name, path)
        assert [service["name"] for service in done.json["services"]] == [name]
