# SPDX-License-Identifier: BSD-2-Clause
"""The C rows: the core through c/bench_core.c, without any Python between send and receive."""

import ctypes
import functools
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks import build
from pympi.bench.harness import TIMEOUT, Pair, Skip, Timed

WATCH_NONE, WATCH_LEFT_OUT, WATCH_READ, WATCH_LOST = range(4)
SELECT_NOTHING, SELECT_LABEL, SELECT_TASK = range(3)
BUDGET = 1000  # records in a second
AUDIT_OFF, AUDIT_DRAINED, AUDIT_DRAIN_NOT_TIMED, AUDIT_DROPPED = range(4)
COUNTED_PAIRS = 10_000
COUNTS = ("records", "avc", "misses")


class Options(ctypes.Structure):
    """struct bench_options of c/bench.h."""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in (
            "policy",
            "ports",
            "port_labels",
            "tasks",
            "task_labels",
            "audit",
            "trace",
            "no_fast_path",
            "whole",
            "watch",
            "select",
            "sample",
        )
    ]


ONE_PAIR = {"ports": 1, "port_labels": 1, "tasks": 1, "task_labels": 1}
MANY = {"ports": 1024, "port_labels": 256, "tasks": 16, "task_labels": 16}


@functools.cache
def load(path: Path) -> ctypes.CDLL:
    """Return a built core; two variants of it can be loaded side by side."""
    library = ctypes.CDLL(str(path))
    library.bench_create.restype = ctypes.c_void_p
    library.bench_create.argtypes = [ctypes.POINTER(Options)]
    library.bench_failure.restype = ctypes.c_char_p
    library.bench_failure.argtypes = [ctypes.c_void_p]
    library.bench_run.restype = ctypes.c_int64
    library.bench_run.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.bench_counts.restype = None
    library.bench_counts.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)]
    library.floor_run.restype = ctypes.c_int64
    library.floor_run.argtypes = [ctypes.c_uint32, ctypes.c_int]
    library.bench_options_size.restype = ctypes.c_uint32
    if library.bench_options_size() != ctypes.sizeof(Options):
        raise RuntimeError("Options is not what c/bench.h says")
    return library


class Bench:
    """A kernel, its tasks and ports, as the options say; calling it sends and receives so often."""

    def __init__(self, options: dict[str, int], variant: str = "core") -> None:
        self.library = load(build.library(variant))
        self.handle = self.library.bench_create(ctypes.byref(Options(**options)))
        self.pairs = 0
        self.complain()
        self.before = self.counts()

    def complain(self) -> None:
        """Raise if anything in the core went wrong."""
        failure = self.library.bench_failure(self.handle)
        if failure:
            raise RuntimeError(failure.decode())

    def __call__(self, pairs: int) -> float:
        """Send and receive `pairs` times; return the CPU time in ns."""
        elapsed = self.library.bench_run(self.handle, pairs)
        self.complain()
        self.pairs += pairs
        return float(elapsed)

    def counts(self) -> list[int]:
        """Return what the core did so far: audit records, checks settled by the AVC, misses."""
        counts = (ctypes.c_int64 * len(COUNTS))()
        self.library.bench_counts(self.handle, counts)
        return list(counts)

    def notes(self) -> dict[str, float]:
        """Return what each of the pairs made the core do."""
        every = zip(COUNTS, self.counts(), self.before, strict=True)
        return {name: (count - before) / self.pairs for name, count, before in every}


def floor(*, sized: bool) -> Timed:
    """Return two calls, two copies and two lock pairs; `sized` if the copies learn their size."""
    library = load(build.library())

    def run(pairs: int) -> float:
        elapsed = library.floor_run(pairs, sized)
        if elapsed < 0:
            raise RuntimeError("the floor lost a body")
        return float(elapsed)

    return run


def compare(subject: dict[str, int], baseline: dict[str, int], variant: str = "core") -> Pair:
    """Pair two kernels by their options; `variant` is the baseline's core."""
    ours = Bench(subject)
    return Pair(ours, Bench(baseline, variant), notes=ours.notes)


def instructions(library: Path, policy: int, select: int) -> Timed:
    """Return the instructions a pair takes: two runs, of which the difference leaves out the rest.

    Raises:
        Skip: there is no valgrind.
    """
    if not shutil.which("valgrind"):
        raise Skip("counting instructions needs valgrind")

    def collected(pairs: int) -> int:
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                *map(str, (build.counter(), library, policy, select, pairs)),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT,
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        if not found:
            raise RuntimeError(f"callgrind said nothing of what it collected: {done.stderr}")
        return int(found[1])

    return lambda _: (collected(2 * COUNTED_PAIRS) - collected(COUNTED_PAIRS)) / COUNTED_PAIRS


def count(subject: tuple[str, int], baseline: tuple[str, int], select: int = 0) -> Pair:
    """Pair the instruction counts of two (variant, policy); `select` is the subject's."""
    ours, theirs = (
        instructions(build.library(variant), policy, selected)
        for (variant, policy), selected in ((subject, select), (baseline, SELECT_NOTHING))
    )
    return Pair(ours, theirs, unit="instr.", exact=True)


CHECKED = {**ONE_PAIR, "policy": 1}
AUDITED = {
    name: {**CHECKED, "audit": audit}
    for name, audit in (
        ("drained", AUDIT_DRAINED),
        ("recording", AUDIT_DRAIN_NOT_TIMED),
        ("dropped", AUDIT_DROPPED),
    )
}

CASES: dict[str, Callable[[], Pair]] = {
    "control": lambda: compare(ONE_PAIR, ONE_PAIR),
    "checks": lambda: compare(CHECKED, ONE_PAIR),
    "checks_instructions": lambda: count(("core", 1), ("core", 0)),
    "checks_many": lambda: compare({**MANY, "policy": 1}, MANY),
    "audit_off": lambda: compare(CHECKED, CHECKED, "audit_none"),
    "audit_off_instructions": lambda: count(("core", 1), ("audit_none", 1)),
    "select_label": lambda: compare({**CHECKED, "select": SELECT_LABEL}, CHECKED),
    "select_label_instructions": lambda: count(("core", 1), ("core", 1), SELECT_LABEL),
    "select_task": lambda: compare({**CHECKED, "select": SELECT_TASK}, CHECKED),
    "audit_sampled": lambda: compare({**AUDITED["drained"], "sample": BUDGET}, CHECKED),
    "audit_sampled_all": lambda: compare(
        {**AUDITED["drained"], "sample": BUDGET}, AUDITED["drained"]
    ),
    "audit_drained": lambda: compare(AUDITED["drained"], CHECKED),
    "audit_recording": lambda: compare(AUDITED["recording"], CHECKED),
    "audit_dropped": lambda: compare(AUDITED["dropped"], CHECKED),
    "watch": lambda: compare({**CHECKED, "watch": WATCH_LEFT_OUT}, CHECKED),
    "watch_unchecked": lambda: compare({**ONE_PAIR, "watch": WATCH_LEFT_OUT}, ONE_PAIR),
    "watch_everything": lambda: compare({**CHECKED, "watch": WATCH_READ}, CHECKED),
    "watch_lost": lambda: compare({**CHECKED, "watch": WATCH_LOST}, CHECKED),
    "trace": lambda: compare({**CHECKED, "trace": 1}, CHECKED),
    "trace_unchecked": lambda: compare({**ONE_PAIR, "trace": 1}, ONE_PAIR),
    "floor": lambda: Pair(Bench(ONE_PAIR), floor(sized=False)),
    "floor_sized": lambda: Pair(Bench(ONE_PAIR), floor(sized=True)),
    "whole": lambda: compare({**ONE_PAIR, "whole": 1}, ONE_PAIR),
    "slow_path": lambda: compare({**ONE_PAIR, "no_fast_path": 1}, ONE_PAIR),
}
