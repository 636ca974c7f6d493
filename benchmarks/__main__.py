# SPDX-License-Identifier: BSD-2-Clause
"""`python -m benchmarks`: measures, prints a table, keeps JSON under benchmarks/results/.

Speed is never asserted: the exit code is 0 unless a case crashed. The table says which budgets are
met (must, aim), missed in two runs (miss), or cannot be judged on this machine now (noisy).
"""

import argparse
import datetime as dt
import fnmatch
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import build
from benchmarks.rows import ROWS
from pympi.bench.harness import Result, Row, Runner, as_json, machine, noise, shared, times

RESULTS = Path(__file__).resolve().parent / "results"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
ROUNDS, QUICK_ROUNDS, MOST_ROUNDS = 102, 9, 100_000
CONTROLS = {"0": noise, "26c": shared}
"""What is said of rows by which the machine is judged."""
HEADINGS = ("row", "what", "against", "ns", "ratio", "quartiles", "must", "aim", "verdict")


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="rounds of a run")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that all runs")
    parser.add_argument("--repeat", action="store_true", help="run every row twice")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="rows by number or case: 1, check*, ..."
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="show ratios of then")
    parser.add_argument(
        "--document", type=Path, metavar="FILE.md", help="put the table between the marks there"
    )
    options = parser.parse_args(argv)
    if not 2 <= options.rounds <= MOST_ROUNDS:
        parser.error(f"--rounds: from 2, which make a median, to {MOST_ROUNDS}")
    if not chosen(options.only):
        parser.error(f"--only: no row has the number or case {options.only!r}")
    if options.quick:
        options.rounds = QUICK_ROUNDS
    if options.document:
        marked(options.document)  # said now, not when all is measured
    return options


def chosen(pattern: str) -> list[Row]:
    """Return the rows whose number or case matches a shell pattern."""
    return [r for r in ROWS if any(fnmatch.fnmatch(n, pattern) for n in (r.number, r.case))]


def before(path: Path | None) -> dict[str, float]:
    """Return the ratio of each case in an earlier run's file."""
    if path is None:
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["case"]: row["ratio"][1] for row in rows if row["ratio"]}


def budget(value: float | None) -> str:
    """Return a budget as the table shows it."""
    return "" if value is None else f"{value:g}"


def duration(ns: float) -> str:
    """Return a time as the table shows it: in ns, or in seconds if it is long."""
    return f"{ns:.1f}" if ns < 1e8 else f"{ns / 1e9:.2f} s"


def cells(result: Result) -> list[str]:
    """Return a result as a line of the table."""
    row = result.row
    if not result.ratios:
        reason = result.runs[0].skipped or result.runs[0].crashed.splitlines()[-1]
        measured = ["", "", reason]
    else:
        first, middle, third = result.quartiles
        cost = statistics.median(cost for run in result.runs for cost in run.subject)
        unit = result.runs[0].unit
        shown = duration(cost) if unit == "ns" else f"{cost:.0f} {unit}"
        measured = [shown, times(middle), f"{times(first)}..{times(third)}"]
    budgets = [budget(row.must), budget(row.aim)]
    return [row.number, row.what, row.against, *measured, *budgets, result.verdict]


def markdown(headings: list[str], lines: list[list[str]]) -> str:
    """Return a table in Markdown."""
    rows = (headings, ["---"] * len(headings), *lines)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def show(headings: list[str], lines: list[list[str]]) -> None:
    """Print the table: drawn on a terminal, in Markdown elsewhere."""
    if not sys.stdout.isatty():
        print(markdown(headings, lines))
        return
    drawn = Table()
    for heading in headings:
        drawn.add_column(heading, no_wrap=heading not in ("what", "against"))
    for line in lines:
        drawn.add_row(*line)
    Console().print(drawn)


def marked(path: Path) -> tuple[str, str]:
    """Return what a document holds before the figures, and after them."""
    old = path.read_text(encoding="utf-8")
    begin, end = old.find(BEGIN), old.find(END)
    if begin < 0 or end < begin:
        raise SystemExit(f"{path}: must hold the lines '{BEGIN}' and '{END}', in order")
    return old[:begin], old[end:]


def document(path: Path, text: str) -> None:
    """Put the figures between the marks of a document."""
    head, tail = marked(path)
    path.write_text(f"{head}{BEGIN}\n{text}\n{tail}", encoding="utf-8")


def remarks(results: list[Result], where: dict[str, object]) -> list[str]:
    """Return what the reader has to know beside the table."""
    lines = [f"{key}: {value}" for key, value in where.items()]
    for result in results:
        notes = [f"{name} {value:.2g}" for name, value in result.runs[0].notes.items() if value]
        if notes:
            lines.append(f"row {result.row.number}, for each pair: {', '.join(notes)}")
        if complaint := CONTROLS.get(result.row.number, lambda result: "")(result):
            lines.append(complaint)
    return lines


def keep(path: Path | None, text: str) -> Path:
    """Write the figures to a file, of our naming unless one is given; return which."""
    if path is None:
        now = dt.datetime.now(dt.UTC)
        path = RESULTS / f"{now:%Y%m%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def table(results: list[Result], old: dict[str, float]) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines; with `old`, a column more has the ratios of then."""
    lines = [cells(result) for result in results]
    if not old:
        return list(HEADINGS), lines
    then = (old.get(result.row.case) for result in results)
    more = ["" if ratio is None else f"{ratio:.3f}" for ratio in then]
    return [*HEADINGS, "before"], [[*a, b] for a, b in zip(lines, more, strict=True)]


def measured(options: argparse.Namespace) -> Iterator[Result]:
    """Yield the result of each row, and say which is at work."""
    runner = Runner(["-m", "benchmarks.cases"], build.ROOT, options.rounds)
    for row in chosen(options.only):
        print(f"row {row.number}: {row.what} / {row.against}", file=sys.stderr)
        yield runner.run_row(row, lambda _: options.repeat)


def main(argv: list[str]) -> int:
    """Run the benchmarks; return the exit code."""
    options = arguments(argv)
    old = before(options.compare)
    results = list(measured(options))
    where = machine(build.ROOT, build.compiler())
    headings, lines = table(results, old)
    show(headings, lines)
    notes = remarks(results, where)
    print("\n".join(notes))
    if options.document:
        items = "\n".join(f"- {note}" for note in notes)
        document(options.document, f"{markdown(headings, lines)}\n\n{items}")
    print("figures:", keep(options.json, json.dumps(as_json(results, where), indent=1)))
    crashes = [result for result in results if result.verdict == "crashed"]
    for result in crashes:
        print(f"row {result.row.number} crashed:\n{result.runs[-1].crashed}", file=sys.stderr)
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
