# SPDX-License-Identifier: BSD-2-Clause
"""Records a second to each sink: `python -m benchmarks.sinks [--rounds N] [--records N] [SINK...]`.

Batches of a replayed array go through a feed to a sink, as the drain hands them over; before that
each is put into words, as the drain does. In each round all sinks have their turn, and between
them the floor: the same bytes given to the system by one write for each batch. Prints a JSON line
for each: records for a second of CPU time, of all threads together (median and quartiles), for a
second of the clock, which other programs slow down, and the median ratio of CPU times to the floor
of the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pympi import Kernel, audit
from pympi.audit import RECORD
from pympi.audit.feed import Feed, Terms
from pympi.enums import CLASSES, MachPort, Operation
from pympi.policy import Rules

BATCH = 16384
TASKS = 200
TEXT = {"jsonlines", "memory", "callable", "audittext", "logging"}
SLOW = 20  # how many times fewer records these sinks get, which make words of each


def records(kernel: Kernel, count: int) -> Any:
    """Return records of sends and receives between tasks with labels, half of a percent denied."""
    tasks = [kernel.create_task(f"task {number}", f"rules/t{number}") for number in range(TASKS)]
    random = np.random.default_rng(1)
    made = np.zeros(count, RECORD)
    made["sequence"] = np.arange(count)
    made["time"] = 1_700_000_000_000_000_000 + np.arange(count) * 1000
    number = random.integers(0, TASKS, count)
    made["task"] = np.array([task.id for task in tasks])[number]
    sids = np.array([task.sid for task in tasks])
    made["effective_sid"] = made["real_sid"] = sids[number]
    made["object_sid"] = sids[random.integers(0, TASKS, count)]
    made["transfer"], made["port"] = np.arange(count) // 2, random.integers(1, 1000, count)
    made["tclass"], made["asked"] = CLASSES["mach_port"].number, int(MachPort.send)
    made["operation"], made["size"] = Operation.SEND, 128
    made["denied"][random.random(count) < 0.005] = int(MachPort.send)
    return made


class Raw:
    """The floor: bytes to the system, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def __call__(self, batch: audit.Batch) -> None:
        self._file.write(batch.records.data)

    def close(self) -> None:
        self._file.close()


def sinks(directory: Path) -> dict[str, Callable[[], Any]]:
    """Return what makes each sink."""
    return {
        "floor": lambda: Raw(directory / "raw"),
        "nothing": lambda: lambda batch: None,
        "file": lambda: audit.File(directory / "run.audit"),
        "opentelemetry": audit.OpenTelemetry,
        "jsonlines": lambda: audit.JSONLines(directory / "run.jsonl"),
        "memory": audit.Memory,
        "callable": lambda: audit.Callable(lambda record: None),
        "audittext": lambda: audit.AuditText(directory / "audit.log"),
        "logging": audit.Logging,
    }


def run(kernel: Kernel, sink: Any, array: Any) -> tuple[float, float]:
    """Return the seconds until a sink has all records and is closed: of CPUs, and of a clock."""
    feed = Feed(sink, Terms("block", 4 * BATCH, 2 * BATCH), lambda _: None)
    start = time.process_time(), time.perf_counter()
    for first in range(0, len(array), BATCH):
        feed.room()
        feed.put(kernel.audit.batch(array[first : first + BATCH]))
    feed.close()
    seconds = time.process_time() - start[0], time.perf_counter() - start[1]
    assert feed.failure is None, feed.failure
    return seconds


class Turn(NamedTuple):
    """What one turn of a sink took, for each record."""

    cpu: float
    wall: float
    to_floor: float


def rounds(count: int, size: int, wanted: list[str]) -> dict[str, list[Turn]]:
    """Return the turns of each sink, one of each round."""
    found: dict[str, list[Turn]] = {}
    with tempfile.TemporaryDirectory() as place, Kernel(policies=[Rules()]) as kernel:
        array = records(kernel, size)
        made = sinks(Path(place))
        for _ in range(count):
            floor, _ = run(kernel, made["floor"](), array)
            for name in wanted:
                part = array[: size // SLOW] if name in TEXT else array
                cpu, wall = (seconds / len(part) for seconds in run(kernel, made[name](), part))
                found.setdefault(name, []).append(Turn(cpu, wall, cpu * size / floor))
    return found


def rates(turns: list[Turn]) -> dict[str, Any]:
    """Return medians, and quartiles of the rate."""
    of_cpu = sorted(1 / turn.cpu for turn in turns)
    low, middle, high = statistics.quantiles(of_cpu, n=4) if len(turns) > 1 else of_cpu * 3
    return {
        "records_per_cpu_second": round(middle),
        "quartiles": [round(low), round(high)],
        "records_per_second": round(statistics.median(1 / turn.wall for turn in turns)),
        "to_floor": round(statistics.median(turn.to_floor for turn in turns), 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("sinks", nargs="*")
    options = parser.parse_args()
    wanted = options.sinks or list(sinks(Path()))
    for name, turns in rounds(options.rounds, options.records, wanted).items():
        print(json.dumps({"sink": name, **rates(turns)}), flush=True)


if __name__ == "__main__":
    main()
