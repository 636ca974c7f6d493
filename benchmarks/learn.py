# SPDX-License-Identifier: BSD-2-Clause
"""How long it takes to learn from audit files: `python -m benchmarks.learn [RECORDS]`.

Writes an audit file of 4,000 distinct paths, each record a random one of them, learns from it,
and prints a JSON line.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pympi.audit import RECORD, Batch, File
from pympi.enums import CLASSES, MachPort
from pympi.policy.author.learn import learn

RECORDS, PATHS, BATCH = 10_000_000, 4000, 4096
PORT = CLASSES["mach_port"]
ASKED = [
    MachPort.send | MachPort.copy_send,
    MachPort.send | MachPort.move_send_once,
    MachPort.use_recv | MachPort.recv,
    MachPort.hold_send,
]


def write(path: Path, records: int) -> None:
    """Write an audit file: subjects are types t1 to t200, objects t201 to t400."""
    rng = np.random.default_rng(1)
    sides = [rng.integers(1, 201, PATHS), rng.integers(201, 401, PATHS)]
    paths = np.stack([*sides, rng.choice([int(a) for a in ASKED], PATHS)])
    roles = {n: "system_r" if n <= 200 else "object_r" for n in range(1, 401)}
    labels = {n: f"te/system_u:{role}:t{n}" for n, role in roles.items()}
    with File(path) as file:
        for first in range(0, records, BATCH):
            batch = np.zeros(min(BATCH, records - first), RECORD)
            subjects, objects, asked = paths[:, rng.integers(0, PATHS, len(batch))]
            batch["sequence"] = np.arange(first, first + len(batch))
            batch["effective_sid"] = batch["real_sid"] = subjects
            batch["object_sid"], batch["peer_sid"] = objects, subjects % 200 + 1
            batch["tclass"], batch["asked"] = PORT.number, asked
            file(Batch(batch, labels, {}, {PORT.number: PORT}))


def main() -> None:
    """Write, learn, print."""
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.audit"
        write(path, records)
        started = time.perf_counter()
        learned = learn([path])
        seconds = time.perf_counter() - started
    result = {
        "records": records,
        "seconds": round(seconds, 3),
        "permissions": len(learned.recorded),
        "used": sum(learned.recorded.values()),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
