# SPDX-License-Identifier: BSD-2-Clause
"""One system, simulated four times: the same bytes, at different speeds.

    python examples/embedding/simulate.py --clients 64 --services 8 --requests 100 --seed 1

Each program starts from the same kernel (world.py). One run of each is recorded, and what the trace
and the audit trail come to is compared; then they are timed, in turns, recorded and not, by the
processor time they take: others may be busy. A program that cannot run here is skipped, saying why.
Exit code 1: they do not agree.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from typing import Any

from world import Counts, Size, recording, world

PROGRAMS = {
    "with_simpy": "Python, SimPy: processes",
    "with_submit": "Python, a heap: kernel.submit",
    "with_numba": "Numba: pm_submit through cffi",
    "with_cpp": "C++, pybind11: pympi.hpp",
}


def load(name: str) -> tuple[Any, str]:
    """Return a program, ready to run, or None and why it cannot."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return None, str(error)
    if missing := getattr(module, "MISSING", ""):
        return None, missing
    with world(Size(clients=2, services=1, requests=1)) as small:
        module.run(small)  # compiles what is compiled
    return module, ""


def recorded(module: Any, size: Size) -> tuple[Counts, str, float]:
    """Run a program, and record it; return what came of it, the hash, and its seconds."""
    with world(size) as system, recording(system.kernel) as records:
        began = time.process_time()
        counts = module.run(system)
        took = time.process_time() - began
        return counts, records.digest(), took


def timed(module: Any, size: Size) -> float:
    """Run a program without recording; return its seconds."""
    with world(size) as system:
        began = time.process_time()
        module.run(system)
        return time.process_time() - began


def compare(programs: dict[str, Any], size: Size, rounds: int) -> bool:
    """Run programs and print what they come to; return whether that is the same."""
    outcomes = {}
    for name, module in programs.items():
        *outcomes[name], _ = recorded(module, size)
        print(f"{name:<12} {outcomes[name][1]}")
    counts: Counts = outcomes[name][0]
    print(
        f"\n{size.clients} clients, {size.services} services, seed {size.seed}:"
        f" {counts.events:,} events, {counts.answered:,} answers, {counts.denied:,} denied,"
        f" {counts.full:,} found a full queue, {counts.end:.3f} s simulated\n"
    )
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, module in programs.items():
            took[name].append((timed(module, size), recorded(module, size)[2]))
    print(f"{'events a second (processor)':<32}{'checked':>12}{'and recorded':>15}")
    for name, rows in took.items():
        plain, kept = (counts.events / statistics.median(column) for column in zip(*rows))  # noqa: B905
        print(f"{PROGRAMS[name]:<32}{plain:>12,.0f}{kept:>15,.0f}")
    return len({tuple(outcome) for outcome in outcomes.values()}) == 1


def main(arguments: list[str] | None = None) -> int:
    """Run all programs that can run here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for field, default in vars(Size()).items():
        parser.add_argument(f"--{field}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed; 3")
    options = vars(parser.parse_args(arguments))
    rounds = options.pop("rounds")
    try:
        size = Size(**options)
    except ValueError as error:
        parser.error(str(error))
    loaded = {name: load(name) for name in PROGRAMS}
    for name, (module, why) in loaded.items():
        if module is None:
            print(f"{name:<12} skipped: {why}")
    programs = {name: module for name, (module, _) in loaded.items() if module is not None}
    if not compare(programs, size, max(1, rounds)):
        print("\nThe programs do not agree.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
