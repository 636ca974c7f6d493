# SPDX-License-Identifier: BSD-2-Clause
"""A run of `pympi bench`: which cases, how they are run, and what changed since an earlier run."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from .cases import CASES, Case
from .harness import PROCESSES, Result, Run, Runner, as_json, machine, noise, quartiles, shared

__all__ = ["CONTROL", "Earlier", "Finding", "Selection", "load", "measure", "summary", "to_csv"]

ROOT = Path(__file__).resolve().parents[2]
"""Where the package is, so that a process of its own imports this one and no other."""
CONTROL, COMPUTING = "control/same", "kernels/compute-"
ROUNDS, QUICK_ROUNDS = 102, 12
QUICK_PROCESSES = 2
LARGEST = 64 << 20  # bytes of an earlier run's file

Quartiles: TypeAlias = tuple[float, float, float]


class Selection(NamedTuple):
    """What is measured, and how thoroughly.

    Attributes:
        patterns: shell patterns of names or axes; none: all but peers.
        quick: few rounds, in two processes for each case, and without those that take long.
        peers: with peers.
        rounds: of each case; 0: as many as is usual.
    """

    patterns: Sequence[str] = ()
    quick: bool = False
    peers: bool = False
    rounds: int = 0

    def cases(self) -> list[Case]:
        """Return the cases, in the order of the tables, the control first.

        Raises:
            ValueError: a pattern that no case matches.
        """
        for pattern in self.patterns:
            if not any(_matches(case, pattern) for case in CASES.values()):
                raise ValueError(f"no case is named {pattern!r}; --list shows all")
        return [case for case in CASES.values() if case.name == CONTROL or self._wanted(case)]

    def _wanted(self, case: Case) -> bool:
        if self.patterns:
            return any(_matches(case, pattern) for pattern in self.patterns)
        return (self.peers or not case.peer) and not (self.quick and case.long)

    def runner(self) -> Runner:
        """Return what runs a case."""
        rounds = self.rounds or (QUICK_ROUNDS if self.quick else ROUNDS)
        return Runner(
            ["-m", "pympi.bench"], ROOT, rounds, QUICK_PROCESSES if self.quick else PROCESSES
        )


def _matches(case: Case, pattern: str) -> bool:
    return fnmatchcase(case.name, pattern) or fnmatchcase(case.axis, pattern)


class Finding(NamedTuple):
    """A case and what came of it.

    Attributes:
        then: the quartiles of an earlier run, or None.
        change: since then: "slower", "faster", "noisy" where runs disagree, "" for none.
    """

    case: Case
    result: Result
    then: Quartiles | None = None
    change: str = ""

    @property
    def cost(self) -> float:
        """The median cost of what is measured, in the unit of the case."""
        return statistics.median(cost for run in self.result.runs for cost in run.subject)

    @property
    def remark(self) -> str:
        """Why a run has no figures; "" where all have."""
        said = (run.skipped or run.crashed.strip() for run in self.result.runs)
        return next(filter(None, said), "").rpartition("\n")[2]


# ---- an earlier run ----


class _Row(msgspec.Struct):
    case: str
    ratio: Quartiles | None


class _File(msgspec.Struct):
    rows: list[_Row]
    machine: dict[str, Any] = {}


class Earlier(NamedTuple):
    """An earlier run.

    Attributes:
        rows: the quartiles of each case.
        machine: what it was measured on, as `harness.machine` says it.
    """

    rows: Mapping[str, Quartiles] = {}
    machine: Mapping[str, Any] = {}

    def check(self, cases: Iterable[Case]) -> None:
        """Check that there is something to compare.

        Raises:
            ValueError: it has none of these cases, but for the control.
        """
        if not any(case.name in self.rows for case in cases if case.name != CONTROL):
            raise ValueError("none of these cases is in the earlier run")

    def elsewhere(self, here: Mapping[str, Any]) -> str:
        """Return in what the machine differs from the one here; "" if it does not."""
        told = [
            f"{what} {self.machine[what]} then, {here[what]} now"
            for what in ("processor", "cores", "system", "python")
            if what in self.machine and self.machine[what] != here[what]
        ]
        return f"the earlier run was made elsewhere: {'; '.join(told)}" if told else ""


def load(path: Path) -> Earlier:
    """Return what is in a file that --json wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file.
    """
    with path.open("rb") as source:
        data = source.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path}: larger than {LARGEST >> 20} MB, which no run is")
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: no figures as --json prints them: {error}") from error
    rows = {row.case: row.ratio for row in file.rows if row.ratio}
    for case, (first, middle, third) in rows.items():
        if not 0 < first <= middle <= third:
            raise ValueError(f"{path}: {case} has quartiles of {first}, {middle} and {third}")
    return Earlier(rows, file.machine)


def differs(run: Run, then: Quartiles) -> int:
    """Return 1 if a run is slower than then beyond both spreads, -1 if it is faster, else 0."""
    first, _, third = quartiles(run.ratios)
    return (first > then[2]) - (third < then[0])


def change(runs: Iterable[Run], then: Quartiles) -> str:
    """Return what became slower or faster: only if all runs say so."""
    found = {differs(run, then) for run in runs}
    if found == {0}:
        return ""
    return {1: "slower", -1: "faster"}[found.pop()] if len(found) == 1 else "noisy"


# ---- running ----


def measure(
    cases: Sequence[Case], runner: Runner, old: Mapping[str, Quartiles],
    advance: Callable[[int], object] = lambda steps: None,
) -> Iterator[Finding]:  # fmt: skip
    """Yield what comes of each case. What seems to have changed is measured again, as misses are.

    The control is measured at the beginning and at the end, and comes last.

    Args:
        cases: the control and others.
        old: the quartiles of an earlier run.
        advance: is told of each case that is done.
    """
    control = runner.run_row(cases[0].row)
    advance(1)
    for case in cases[1:]:
        yield find(case, runner, old.get(case.name))
        advance(1)
    control.runs.append(runner.run_case(CONTROL))
    yield Finding(cases[0], control, old.get(CONTROL))


def find(case: Case, runner: Runner, then: Quartiles | None) -> Finding:
    """Measure a case, again if it seems to have changed."""
    result = runner.run_row(
        case.row, lambda result: then is not None and differs(result.runs[0], then) != 0
    )
    known = change(result.runs, then) if then and result.ratios else ""
    return Finding(case, result, then, known)


# ---- what is kept ----


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what is kept of a run: the machine, what the control says, the rows."""
    kept = as_json([finding.result for finding in findings], machine(ROOT, ()))
    rows = kept["rows"]
    assert isinstance(rows, list)
    for row, finding in zip(rows, findings, strict=True):
        row |= {"axis": finding.case.axis, "then": finding.then, "change": finding.change}
    return {"machine": kept["machine"], "noise": _noise(findings), "rows": rows}


def _noise(findings: Sequence[Finding]) -> str:
    """Return what the controls say: a thing beside itself, and threads that only compute."""
    controls = (finding.result for finding in findings if finding.case.name.startswith(COMPUTING))
    said = [noise(findings[-1].result), *map(shared, controls)]
    return "\n".join(dict.fromkeys(filter(None, said)))


CSV = (
    "case", "axis", "value", "what", "against", "unit", "cost", "ratio", "first_quartile",
    "third_quartile", "must", "aim", "verdict", "remark", "then", "change",
)  # fmt: skip


def to_csv(findings: Iterable[Finding]) -> bytes:
    """Return the findings as a table for other programs."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(CSV)
    for finding in findings:
        case, result = finding.case, finding.result
        figures: list[object] = [""] * 5
        if result.ratios:
            first, middle, third = result.quartiles
            figures = [result.runs[0].unit, finding.cost, middle, first, third]
        then = finding.then[1] if finding.then else ""
        row = result.row
        table.writerow([
            case.name, case.axis, case.value, row.what, row.against, *figures, row.must, row.aim,
            result.verdict, finding.remark, then, finding.change,
        ])  # fmt: skip
    return text.getvalue().encode()
