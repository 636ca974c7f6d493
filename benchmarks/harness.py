# SPDX-License-Identifier: BSD-2-Clause
"""Paired, interleaved measurement, and what may be concluded from it.

Machines drift: the same loop can take twice as long a minute later. So nothing here compares times
of different runs. Each case runs both of its sides in one process, in turn, in rounds of about two
milliseconds; a round gives one ratio, and the median over the rounds is the result, with its
quartiles. Times are CPU times of the measuring thread, so other programs disturb them little.
"""

import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROUND_NS = 2_000_000
WARM_UP_ROUNDS = 3
PROCESSES = 3
"""A run is spread over so many: where memory comes to lie differs, and is worth some percent."""
NOISE = 0.05
"""How far the quartiles of a control, which is 1 by nature, may be off on a quiet machine."""
TIMEOUT = 1200
"""Seconds after which a process is taken to hang; the rounds of most take one."""

Timed = Callable[[int], float]
"""Does a thing so many times; returns the CPU time it took, in ns."""


class Skip(Exception):
    """A case cannot run here; the text says why."""


@dataclass(frozen=True)
class Pair:
    """The two sides of a case.

    A pair whose numbers are exact (instructions) is asked once, with one repetition.
    """

    subject: Timed
    baseline: Timed
    unit: str = "ns"
    exact: bool = False
    notes: Callable[[], dict[str, float]] = dict
    """What else is worth keeping, asked for when the rounds are over."""


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


# ---- in the process of a case ----


def settle() -> None:
    """Make this process a quiet one: on one core, without the cyclic garbage collector."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.collect()
    gc.freeze()
    gc.disable()


def repetitions(timed: Timed) -> int:
    """Return how often a side is to be repeated in a round: about ROUND_NS worth."""
    count = 64
    while (elapsed := timed(count)) < ROUND_NS / 4:
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
    except Skip as skip:
        print(json.dumps({"skipped": str(skip)}))
        return
    settle()
    for subject, baseline in measure(pair, rounds):
        print(json.dumps({"subject": subject, "baseline": baseline}))
    print(json.dumps({"unit": pair.unit, "exact": pair.exact, "notes": pair.notes()}))


# ---- in the process that asks ----


def add_process(run: Run, case: str, rounds: int, root: Path) -> None:
    """Add to a run what one process measures."""
    command = [sys.executable, "-m", "benchmarks.cases", case, str(rounds)]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
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


def run_case(case: str, rounds: int, root: Path) -> Run:
    """Run a case in processes of its own, one after the other."""
    run = Run()
    for _ in range(PROCESSES):
        add_process(run, case, math.ceil(rounds / PROCESSES), root)
        if run.crashed or run.skipped or run.exact:
            break
    return run


def run_row(row: Row, rounds: int, root: Path, *, repeat: bool) -> Result:
    """Run a row once, and a second time where it is asked for or where the first misses."""
    result = Result(row, [run_case(row.case, rounds, root)])
    first = result.runs[0]
    if result.verdict == "noisy" or (repeat and first.subject and not first.exact):
        result.runs.append(run_case(row.case, rounds, root))
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


def machine(root: Path, compiler: list[str]) -> dict[str, object]:
    """Return what the figures were measured on."""
    git = ["git", "-C", str(root)]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": sys.version.partition("\n")[0],
        "compiler": first_line(*compiler, "--version"),
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
