# SPDX-License-Identifier: BSD-2-Clause
"""How fast audit files are written and verified: `python -m benchmarks.audit_file [RECORDS]`.

Prints JSON lines. First what hashing costs, over leaves as they are hashed and over whole blocks,
by each hash that could be used; then writing, verifying and reading a file, in rounds one after the
other, and in each how fast this machine hashed the same leaves and did nothing else. "clock" is the
middle round by the clock, "processor" by the time that the processor took, which does not depend as
much on what else it has to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pympi.audit import RECORD, Batch, File, Reader, verify
from pympi.audit.chain import LEAF
from pympi.enums import CLASSES, MachPort, Operation

RECORDS, AT_ONCE, LABELS, ROUNDS = 10_000_000, 1 << 16, 400, 3
PORT = CLASSES["mach_port"]
Took = npt.NDArray[np.float64]  # by the clock, and of the processor
HASHES: dict[str, Callable[[Any], Any]] = {
    "sha256": hashlib.sha256,
    "blake2b": lambda data: hashlib.blake2b(data, digest_size=32),
    "blake2s": hashlib.blake2s,
}


def batches(count: int) -> Iterator[Batch]:
    """Yield batches as a drain makes them: the same random records, numbered on."""
    rng = np.random.default_rng(1)
    records = np.zeros(AT_ONCE, RECORD)
    for field in ("real_sid", "effective_sid", "object_sid", "peer_sid"):
        records[field] = rng.integers(1, LABELS, AT_ONCE)
    records["operation"], records["tclass"] = Operation.SEND, PORT.number
    records["asked"], records["size"] = int(MachPort.send), rng.integers(0, 4096, AT_ONCE)
    records["sequence"] = np.arange(AT_ONCE)
    labels = {n: f"te/system_u:system_r:task_{n}_t" for n in range(1, LABELS)}
    for first in range(0, count, AT_ONCE):
        numbered = records[: count - first].copy()
        numbered["sequence"] += np.uint64(first)
        yield Batch(numbered, labels, {1: "task"}, {PORT.number: PORT})


def seconds(function: Callable[[], object]) -> Took:
    """Return how long a call takes, by the clock and of the processor."""
    began, used = time.perf_counter(), time.process_time()
    function()
    return np.array([time.perf_counter() - began, time.process_time() - used])


def hashing(name: str, size: int) -> Took:
    """Return megabytes a second of hashing pieces of so many bytes."""
    data = memoryview(os.urandom(64 * LEAF * RECORD.itemsize * 64))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    one = HASHES[name]
    rounds = [seconds(lambda: [one(piece).digest() for piece in pieces]) for _ in range(5)]
    return len(data) / np.min(rounds, axis=0) / 1e6


def write(path: Path, made: list[Batch], **options: Any) -> Took:
    """Return how long writing takes, closing included."""

    def all_of_them() -> None:
        with File(path, **options) as file:
            for batch in made:
                file(batch)

    return seconds(all_of_them)


def read(path: Path, *, check: bool) -> int:
    with path.open("rb") as file:
        return sum(map(len, Reader(file, check=check)))


def rounds(path: Path, made: list[Batch]) -> dict[str, list[Took]]:
    """Return what was measured in each round: millions of records, or megabytes, a second."""
    count = sum(map(len, made)) / 1e6
    found: dict[str, list[Took]] = {}
    for _ in range(ROUNDS):
        took = {
            "write": count / write(path, made),
            "write_keyed": count / write(path, made, key=bytes(32)),
        }
        size = path.stat().st_size / 1e6
        took["verify"] = size / seconds(lambda: verify(path))
        took["read_checked"] = size / seconds(lambda: read(path, check=True))
        took["read_unchecked"] = size / seconds(lambda: read(path, check=False))
        took["hash_of_leaves"] = hashing("sha256", LEAF * RECORD.itemsize)
        for name, value in took.items():
            found.setdefault(name, []).append(value)
    return found


def show(what: str, unit: str, values: list[Took]) -> None:
    clock, processor = np.median(values, axis=0).round(2).tolist()
    rates = {"clock": clock, "processor": processor}
    print(json.dumps({"what": what, f"{unit}_per_second": rates}), flush=True)


def main() -> None:
    """Measure, print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    leaf = LEAF * RECORD.itemsize
    for name in HASHES:
        for what, size in (("leaves", leaf), ("whole", 64 * leaf)):
            show(f"{name} of {what}", "megabytes", [hashing(name, size)])
    made = list(batches(count))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.audit"
        for name, values in rounds(path, made).items():
            show(name, "million_records" if name.startswith("write") else "megabytes", values)
        print(json.dumps({"bytes_per_record": round(path.stat().st_size / count, 1)}))


if __name__ == "__main__":
    main()
