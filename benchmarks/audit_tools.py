# SPDX-License-Identifier: BSD-2-Clause
"""How long the tools take over large audit files: `python -m benchmarks.audit_tools [RECORDS]`.

Writes an audit file as a busy system does, and worse than most: 64 tasks send to 1,024 ports at
random, both halves of each message are recorded, with 256 labels and exact times. Writes it as
Parquet, asks both how often each pair of labels occurs, and counts; each measurement in a process
of its own. Prints a JSON line for each.
"""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pympi.audit import RECORD, Parquet, batches
from pympi.audit.query import sql
from pympi.audit.stats import stats
from pympi.enums import CLASSES, AuditFlag, MachPort, Operation

RECORDS, TASKS, PORTS, LABELS, BATCH = 10_000_000, 64, 1024, 256, 65_536
PORT = CLASSES["mach_port"]
PAIRS = "SELECT subject, object, count(*) FROM records GROUP BY subject, object"
FRAME, MAGIC = struct.Struct("<4sI"), b"pympi audit 1\n"


def write(path: Path, records: int) -> None:
    """Write the file, in the first binary form: that needs no kernel, and no time."""
    rng = np.random.default_rng(1)
    owners = rng.integers(1, TASKS + 1, PORTS)
    with path.open("wb") as file:
        file.write(MAGIC)
        for sid in range(1, LABELS + 1):
            role = "system" if sid <= TASKS else "object"
            _define(file, b"LABL", sid, f"te/system_u:{role}_r:t{sid}_t")
        for task in range(1, TASKS + 1):
            _define(file, b"TASK", task, f"task {task}")
        _define(file, b"CLAS", PORT.number, " ".join([PORT.name, *PORT.permissions]))
        now = 1_700_000_000_000_000_000
        for first in range(0, records, BATCH):
            batch = _batch(rng, owners, first, min(BATCH, records - first))
            batch["time"] = now + np.cumsum(rng.integers(150, 1500, len(batch)))
            now = int(batch["time"][-1])
            file.write(FRAME.pack(b"RECS", batch.nbytes) + batch.tobytes())


def _define(file: object, tag: bytes, number: int, text: str) -> None:
    payload = struct.pack("<I", number) + text.encode()
    file.write(FRAME.pack(tag, len(payload)) + payload)  # type: ignore[attr-defined]


def _batch(rng: np.random.Generator, owners: np.ndarray, first: int, count: int) -> np.ndarray:
    batch = np.zeros(count, RECORD)
    batch["sequence"] = np.arange(first, first + count)
    batch["epoch"], batch["tclass"], batch["size"] = 1, PORT.number, 64
    half = (count + 1) // 2
    ports, senders = rng.integers(1, PORTS + 1, half), rng.integers(1, TASKS + 1, half)
    for start, who in ((0, senders), (1, owners[ports - 1])):
        side = batch[start::2]
        port, task = ports[: len(side)], who[: len(side)]
        side["task"] = side["real_sid"] = side["effective_sid"] = task
        side["port"], side["object_sid"] = port, TASKS + 1 + port % (LABELS - TASKS)
        side["transfer"], side["msgh_id"] = first // 2 + np.arange(len(side)), 1200 + port % 16
        side["name"] = (port * 7 + task) % 4096 << 8 | 3
    sent, received = batch[0::2], batch[1::2]
    sent["operation"], received["operation"] = Operation.SEND, Operation.RECEIVE
    sent["asked"], received["asked"] = (
        MachPort.send | MachPort.copy_send,
        MachPort.recv | MachPort.use_recv,
    )
    sent["provenance"] = (ports * TASKS + senders) % 60_000
    received["peer_sid"], received["flags"] = senders[: len(received)], AuditFlag.RECEIVE
    return batch


# ---- what is measured ----


def parquet(run: Path, stored: Path) -> dict[str, float]:
    """Write through the sink; reading the file is not counted."""
    sink = Parquet(stored)
    spent = count = 0
    for batch in batches(run):
        started = time.perf_counter_ns()
        sink(batch)
        spent += time.perf_counter_ns() - started
        count += len(batch)
    started = time.perf_counter_ns()
    sink.close()
    spent += time.perf_counter_ns() - started
    size = sum(part.stat().st_size for part in stored.iterdir())
    return {"seconds": spent / 1e9, "records_per_second": count * 1e9 / spent,
            "bytes_per_record": size / count}  # fmt: skip


def pairs(path: Path) -> dict[str, float]:
    """Group by the pair of labels."""
    started = time.perf_counter()
    with sql([path], PAIRS) as answer:
        groups = sum(1 for _ in answer)
    return {"seconds": time.perf_counter() - started, "groups": groups}


def count(path: Path) -> dict[str, float]:
    """What `pympi audit stats` does."""
    started = time.perf_counter()
    found = stats(batches(path))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "records_per_second": found.total.records / seconds}


CASES: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "Parquet, written": parquet,
    "pairs of labels, binary": lambda run, _: pairs(run),
    "pairs of labels, Parquet": lambda _, stored: pairs(stored),
    "stats, binary": lambda run, _: count(run),
    "stats, Parquet": lambda _, stored: count(stored),
}


def measure(case: str, run: str, stored: str) -> None:
    """Measure a case in this process, and print it."""
    cpu = time.process_time()
    result = {"case": case, **CASES[case](Path(run), Path(stored))}
    result["cpu_seconds"] = time.process_time() - cpu
    result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}))


def main() -> None:
    """Write the file, and measure each case in a process of its own."""
    if sys.argv[1:2] == ["--case"]:
        measure(*sys.argv[2:])
        return
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    with tempfile.TemporaryDirectory() as directory:
        run, stored = Path(directory) / "run.audit", Path(directory) / "run.parquet"
        write(run, records)
        for case in CASES:
            own = [sys.executable, "-m", "benchmarks.audit_tools", "--case", case, run, stored]
            subprocess.run(own, check=True)


if __name__ == "__main__":
    main()
