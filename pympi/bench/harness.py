# SPDX-License-Identifier: BSD-2-Clause
"""Paired, interleaved measurement, and what may be concluded from it.

Machines drift: the same loop can take twice as long a minute later. So nothing here compares times
of different runs. Each case runs both of its sides in one process, in turn, in rounds of about two
milliseconds; a round gives one ratio, and the median over the rounds is the result, with its
quartiles. Times are CPU times of the measuring thread, so other programs disturb them little.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from .._ffi import BUILD
from .._version import __version__

ROUND_NS = 2_000_000
WARM_UP_ROUNDS = 3
PROCESSES = 3
"""A run is spread over so many: where memory comes to lie differs, and is worth some percent."""
NOISE = 0.05
"""How far the quartiles of a control, which is 1 by nature, may be off on a quiet machine."""
SHARED = 1.05
"""How much longer threads may take at once that share nothing, in a quarter of the rounds."""
TIMEOUT = 1200
"""Seconds after which a process is taken to hang; the rounds of most take one."""

Timed = Callable[[int], float]
"""Does a thing so many times; returns the CPU time it took, in ns."""


class Skip(Exception):
    """A case cannot run here; the text says why."""


@dataclass(frozen=True)
class Pair:
    """The two sides of a case.

    A pair whose numbers are exact (instructions, bytes) is asked once, with one repetition.
    """

    subject: Timed
    baseline: Timed
    unit: str = "ns"
    exact: bool = False
    notes: Callable[[], dict[str, float]] = dict
    """What else is worth keeping, asked for when the rounds are over."""
    cores: int = 1
    """How many it runs on; where there are fewer it is skipped."""
    large: bool = False
    """Whether making it takes so long that a run is in one process, with the rounds of one."""


@dataclass(frozen=True)
class Row:
    """A line of the table: a case and its budget, as ratios; None where there is none."""

    number: str
    case: str
    what: str
    against: str
    must: float | None = None
    aim: float | None = None


@dataclass
class Run:
    """A measurement of a case: for each round, the cost of one repetition of each side."""

    unit: str = "ns"
    exact: bool = False
    large: bool = False
    subject: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)
    skipped: str = ""
    crashed: str = ""

    @property
    def ratios(self) -> list[float]:
        """Return the ratio of each round."""
        return [ours / theirs for ours, theirs in zip(self.subject, self.baseline, strict=True)]


@dataclass
class Result:
    """A row and its runs."""

    row: Row
    runs: list[Run]

    @property
    def ratios(self) -> list[float]:
        """Return the ratios of all rounds of all runs."""
        return [ratio for run in self.runs for ratio in run.ratios]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Return first quartile, median and third quartile of the ratios."""
        return quartiles(self.ratios)

    @property
    def verdict(self) -> str:
        """Return what the row's budget has to say: see `judge`."""
        for run in self.runs:
            if run.crashed or run.skipped:
                return "crashed" if run.crashed else "skipped"
        return judge(self.row, [statistics.median(run.ratios) for run in self.runs])


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile; of a single value, that value thrice."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, middle, third


def noise(control: Result) -> str:
    """Return what there is to say of a control, a thing beside itself; empty if it was quiet."""
    if not control.ratios:
        return ""
    first, _, third = control.quartiles
    if max(abs(first - 1), abs(third - 1)) <= NOISE:
        return ""
    return (
        "the machine was too noisy to conclude: the control, which is 1 by nature, had quartiles of"
        f" {first:.3f} and {third:.3f}"
    )


def shared(control: Result) -> str:
    """Return what there is to say of threads that only compute; empty if each had a core."""
    if not control.ratios or control.quartiles[2] <= SHARED:
        return ""
    _, middle, third = control.quartiles
    return (
        "others were at work on the cores, so kernels in threads cannot be judged: threads that"
        f" only compute took {middle:.2f} times as long at once as one at a time, and {third:.2f}"
        " times or more in a quarter of the rounds"
    )


def judge(row: Row, medians: list[float]) -> str:
    """Return `aim`, `must`, `miss` or `noisy` for the medians of a row's runs.

    A row misses only if all its runs do; if some do, the machine was too noisy to conclude.
    """
    if row.must is None:
        return ""
    misses = sum(median > row.must for median in medians)
    if misses:
        return "miss" if misses == len(medians) > 1 else "noisy"
    return "aim" if row.aim is not None and max(medians) <= row.aim else "must"


def times(ratio: float) -> str:
    """Return a ratio in as many digits as tell something."""
    if ratio >= 10:
        return f"{ratio:,.1f}"
    return f"{ratio:.3f}" if ratio >= 0.1 else f"{ratio:.2g}"


# ---- in the process of a case ----


def settle(cores: int = 1) -> None:
    """Make this process a quiet one: on so many cores, without the cyclic garbage collector.

    Raises:
        Skip: there are fewer cores.
    """
    there = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores > (len(there) or os.cpu_count() or 1):
        raise Skip(f"needs {cores} cores")
    if there:
        os.sched_setaffinity(0, there[-cores:])
    gc.collect()
    gc.freeze()
    gc.disable()


def repetitions(timed: Timed) -> int:
    """Return how often a side is to be repeated in a round: about ROUND_NS worth.

    Each count is tried twice: a short one that was interrupted by chance seems to last a round.
    """
    timed(1)  # the first time is another matter
    count = 64
    while (elapsed := min(timed(count), timed(count))) < ROUND_NS / 4:
        count *= 4
    return max(1, round(count * ROUND_NS / elapsed))


def measure(pair: Pair, rounds: int) -> Iterator[tuple[float, float]]:
    """Yield the cost of one repetition of each side, per round; they take turns to be first."""
    if pair.exact:
        yield pair.subject(1), pair.baseline(1)
        return
    ours, theirs = repetitions(pair.subject), repetitions(pair.baseline)
    for number in range(-WARM_UP_ROUNDS, rounds):
        if number % 2:
            subject, baseline = pair.subject(ours), pair.baseline(theirs)
        else:
            baseline, subject = pair.baseline(theirs), pair.subject(ours)
        if number >= 0:
            yield subject / ours, baseline / theirs


def child(make: Callable[[], Pair], rounds: int) -> None:
    """Measure a case and print it as JSON lines: a round each, then what else is known."""
    try:
        pair = make()
        settle(pair.cores)
    except Skip as skip:
        print(json.dumps({"skipped": str(skip)}))
        return
    for subject, baseline in measure(pair, rounds):
        print(json.dumps({"subject": subject, "baseline": baseline}))
    known = {name: getattr(pair, name) for name in ("unit", "exact", "large")}
    print(json.dumps({**known, "notes": pair.notes()}))


# ---- in the process that asks ----


class Runner(NamedTuple):
    """How cases are run.

    Attributes:
        command: starts a process that measures a case; its name and the rounds are added.
        directory: where it starts.
        rounds: of a run, in all its processes.
        processes: over which a run is spread.
    """

    command: Sequence[str]
    directory: Path
    rounds: int
    processes: int = PROCESSES

    def add_process(self, run: Run, case: str, rounds: int) -> None:
        """Add to a run what one process measures."""
        try:
            done = subprocess.run(
                [sys.executable, *self.command, case, str(rounds)], cwd=self.directory,
                capture_output=True, text=True, check=False, timeout=TIMEOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as expired:
            run.crashed = str(expired)
            return
        if done.returncode:
            run.crashed = done.stderr.strip() or f"exit code {done.returncode}"
            return
        for line in map(json.loads, done.stdout.splitlines()):
            if "subject" in line:
                run.subject.append(line["subject"])
                run.baseline.append(line["baseline"])
            else:
                vars(run).update(line)

    def run_case(self, case: str) -> Run:
        """Run a case in processes of its own, one after the other."""
        run = Run()
        for _ in range(self.processes):
            self.add_process(run, case, math.ceil(self.rounds / self.processes))
            if run.crashed or run.skipped or run.exact or run.large:
                break
        return run

    def run_row(self, row: Row, again: Callable[[Result], bool] = lambda result: False) -> Result:
        """Run a row once, and a second time where the first misses or `again` wants it."""
        result = Result(row, [self.run_case(row.case)])
        first = result.runs[0]
        if first.subject and (result.verdict == "noisy" or (not first.exact and again(result))):
            result.runs.append(self.run_case(row.case))
        return result


def first_line(*command: str) -> str:
    """Return the first line a command prints, or an empty string."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip()


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((li.partition(":")[2].strip() for li in lines if li.startswith("model name")), "")


def machine(root: Path, compiler: Sequence[str]) -> dict[str, object]:
    """Return what the figures were measured on; `root` is a checkout of git, or none."""
    git = ["git", "-C", str(root)] if (root / ".git").exists() else ["true"]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": sys.version.partition("\n")[0],
        "compiler": first_line(*compiler, "--version") if compiler else "",
        "pympi": f"{__version__}, {BUILD} build",
        "commit": first_line(*git, "rev-parse", "--short=12", "HEAD"),
        "modified": bool(first_line(*git, "status", "--porcelain", "--", "csrc", "pympi")),
    }


def as_json(results: list[Result], where: dict[str, object]) -> dict[str, object]:
    """Return what is kept of a whole run."""
    return {
        "machine": where,
        "rows": [
            {
                **asdict(result.row),
                "verdict": result.verdict,
                "ratio": result.quartiles if result.ratios else None,
                "runs": [asdict(run) for run in result.runs],
            }
            for result in results
        ],
    }
