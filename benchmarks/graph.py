# SPDX-License-Identifier: BSD-2-Clause
"""How long it takes to draw graphs: `python -m benchmarks.graph [TRACE]`.

Draws the demo's trace, TRACE if there is one (the recorded boot), and a generated one of 1,000
tasks and 20,000 edges, merged as it is by default and whole, each several times in turn, as SVG;
and makes the graph of a million audit records. Prints a JSON line for each, with the best time.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np

from pympi.audit import RECORD, Batch
from pympi.cli import main as pympi
from pympi.enums import CLASSES, MachPort, Operation
from pympi.trace import TraceRecord, write_full
from pympi.trace.graph import from_audit

ROUNDS = 3
TASKS, EDGES = 1000, 20_000
DIRECTORIES = (
    "/usr/sbin", "/usr/bin", "/sbin", "/System/Library/CoreServices", "/Applications/A.app/bin",
)  # fmt: skip
RECORDS, BATCH = 1_000_000, 65_536


def generate(path: Path) -> None:
    """Write a trace in which a few tasks are asked by many, and counts vary by six decades."""
    chance = random.Random(1)
    names = [f"{chance.choice(DIRECTORIES)}/task{number}" for number in range(TASKS)]
    pairs: set[tuple[str, str]] = set()
    while len(pairs) < EDGES:
        task = chance.choice(names)
        owner = names[min(TASKS - 1, int(chance.expovariate(8 / TASKS)))]
        if task != owner:
            pairs.add((task, owner))
    records = []
    for task, owner in sorted(pairs):
        count = min(10**6, int(chance.paretovariate(0.8)))
        records += [TraceRecord(event, task, owner, 0, 1, count) for event in ("copy_send", "send")]
    with path.open("wb") as file:
        write_full(file, records)


def batches() -> list[Batch]:
    """Messages of 100 tasks to 400 ports."""
    rng = np.random.default_rng(1)
    records = np.zeros(RECORDS, RECORD)
    records["task"] = rng.integers(1, 101, RECORDS)
    records["port"] = rng.integers(1, 401, RECORDS)
    records["tclass"] = CLASSES["mach_port"].number
    records["operation"] = int(Operation.SEND)
    records["asked"] = int(MachPort.send | MachPort.copy_send)
    records["size"] = 64
    tables = {}, {n: f"task{n}" for n in range(101)}, {1: CLASSES["mach_port"]}
    return [Batch(records[at : at + BATCH], *tables) for at in range(0, RECORDS, BATCH)]


def draw(trace: Path, *options: str) -> Callable[[], object]:
    """Return what draws a trace by the command line."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            out = Path(directory) / "graph.svg"
            code = pympi(["trace", "graph", str(trace), *options, "--out", str(out)])
            if code or not out.stat().st_size:
                raise SystemExit(f"{trace} could not be drawn")

    return run


def main(argv: list[str]) -> None:
    """Time everything, in turn."""
    with tempfile.TemporaryDirectory() as directory:
        large = Path(directory) / "large.trace"
        generate(large)
        demo = Path(str(resources.files("pympi"))) / "data" / "demo.trace"
        cases = {"demo": draw(demo)}
        cases |= {Path(name).name: draw(Path(name)) for name in argv[1:]}
        cases |= {"20,000 edges": draw(large), "20,000 edges, whole": draw(large, "--all")}
        recorded = batches()
        cases["1,000,000 audit records to a graph"] = lambda: from_audit(recorded)
        best: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, run in cases.items():
                started = time.perf_counter()
                run()
                best[name] = min(best.get(name, 1e9), time.perf_counter() - started)
    for name, seconds in best.items():
        print(json.dumps({"case": name, "seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main(sys.argv)
