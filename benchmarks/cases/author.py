# SPDX-License-Identifier: BSD-2-Clause
"""What has to be done within a given time: beside ours stands no other program, but that time."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from time import thread_time_ns

from benchmarks import learn, policies, sinks
from benchmarks.cases.policy import enforcement, missing
from pympi import Kernel
from pympi.bench.harness import Pair, Skip, Timed

PYMPI = "import sys; from pympi.cli import main; sys.exit(main())"
PREFIX = "com.example.service."
MICROSECOND, SECOND = 1_000, 1_000_000_000


def limit(ns: int) -> Timed:
    """Return something that takes so long each time."""
    return lambda count: float(ns * count)


def misses() -> Pair:
    """Return misses decided by `te`, beside 20 microseconds."""
    subject, notes = missing(enforcement(), "te")
    return Pair(subject, limit(20 * MICROSECOND), notes=notes)


def look_ups(names: int) -> Pair:
    """Return look-ups through a name server of so many names, beside 12 microseconds."""
    kernel = Kernel()
    kernel.start_bootstrap()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(names):
        kernel.bootstrap.declare(f"{PREFIX}{number:07}")
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    look_up = kernel.create_task("client").bootstrap.look_up

    def subject(count: int) -> float:
        name = f"{PREFIX}{names // 2:07}"
        start = thread_time_ns()
        for _ in repeat(None, count):
            look_up(name)
        return thread_time_ns() - start

    return Pair(subject, limit(12 * MICROSECOND), notes=lambda: {"names, MB": kept / 1000})


def learning() -> Pair:
    """Return learning from ten million audit records, once, beside ten seconds."""
    try:
        from pympi.policy.author.learn import learn as run
    except ImportError as error:
        raise Skip(str(error)) from error

    def subject(_: int) -> float:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "run.audit"
            learn.write(path, learn.RECORDS)
            start = thread_time_ns()
            run([path])
            return thread_time_ns() - start

    return Pair(subject, limit(10 * SECOND), exact=True)


def query(*, before: bool) -> Pair:
    """Return a query of a policy of 150,000 rules, the whole command, beside a second.

    Args:
        before: whether it was compiled by an earlier command.
    """

    def subject(_: int) -> float:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "large.cil"
            path.write_text(policies.policy(), encoding="utf-8")
            if before:
                command(path)
            return command(path)

    return Pair(subject, limit(SECOND), exact=True)


def command(policy: Path) -> float:
    """Run the query with a cache beside the policy; return the CPU time of its process, in ns."""
    words = [sys.executable, "-c", PYMPI, "policy", "query", "--source", "domain_0_t"]
    variables = {**os.environ, "PYMPI_CACHE": str(policy.parent / "cache")}
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*words, "--policy", str(policy)], env=variables, capture_output=True, check=True
    )
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime) * SECOND


def recording() -> Pair:
    """Return a million audit records through a feed to a file, once, beside half a second."""

    def subject(_: int) -> float:
        (turn,) = sinks.rounds(1, 1_000_000, ["file"])["file"]
        return turn.cpu * 1_000_000 * SECOND

    return Pair(subject, limit(SECOND // 2), exact=True)


CASES: dict[str, Callable[[], Pair]] = {
    "te_miss_bound": misses,
    "learn_bound": learning,
    "sink_bound": recording,
    "look_up_bound": lambda: look_ups(1),
    "look_up_many_bound": lambda: look_ups(1_000_000),
    "query_bound": lambda: query(before=True),
    "query_first_bound": lambda: query(before=False),
}
