# SPDX-License-Identifier: BSD-2-Clause
"""`pympi bench`: what a check costs on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._artefacts import look_ahead, publish, publish_files
from ._output import FILE, bad_input, complain, json_option, plural, print_json, progress, say
from ._table import Column, Section, print_sections

if TYPE_CHECKING:
    from ..bench.cases import Case
    from ..bench.runs import Finding

MOST_ROUNDS = 100_000
LISTED = (
    Column("CASE"),
    Column("WHAT", least=20),
    Column("AGAINST", least=12),
    Column("", spare=1),
)
MEASURED = (
    Column("CASE"),
    Column("WHAT", least=14, spare=4),
    Column("AGAINST", least=10, spare=5),
    Column("COST", right=True),
    Column("TIMES", right=True),
    Column("QUARTILES", spare=3),
    Column("MUST", right=True, spare=1),
    Column("AIM", right=True, spare=2),
    Column("VERDICT"),
    Column("THEN", right=True),
    Column("CHANGE"),
    Column("REMARK", least=12),
)


@click.command()
@click.option("--quick", is_flag=True, help="In three minutes: few rounds, no long cases.")
@click.option("--peers", is_flag=True, help="Also what else passes messages, or decides.")
@click.option(
    "--only", "patterns", multiple=True, metavar="PATTERN",
    help="Cases or axes: stack/te, 'size*', peer. May be repeated.",
)  # fmt: skip
@click.option("--list", "listed", is_flag=True, help="List the cases, and measure nothing.")
@click.option(
    "--rounds", type=click.IntRange(2, MOST_ROUNDS), metavar="N",
    help="Of each case, instead of 102, or 12 with --quick.",
)  # fmt: skip
@click.option("--compare", type=FILE, metavar="OLD.json", help="Tell what changed since then.")
@click.option(
    "--csv", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the table there, too.",
)  # fmt: skip
@click.option(
    "--plot", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Draw pictures into DIR; needs matplotlib.",
)  # fmt: skip
@click.option(
    "--plot-format", type=click.Choice(["png", "svg"]), default="png", show_default=True,
    help="Of the pictures.",
)  # fmt: skip
@json_option
def bench(
    quick: bool, peers: bool, patterns: tuple[str, ...], listed: bool, rounds: int | None,
    compare: Path | None, csv: Path | None, plot: Path | None, plot_format: str, as_json: bool,
) -> int:  # fmt: skip
    """Measure what a check costs on this machine.

    A row is a ratio: what something costs, in TIMES of what stands beside it. Both take turns in
    rounds of two milliseconds, in a process of their own; the median of the rounds is told, with
    its quartiles. COST is a median too, which tells less: machines change their speed.

    Rows with a budget, MUST or better AIM, miss it only if a second run does. Exit code 1: a case
    crashed. Speed never fails. Close what else is at work: if a thing beside itself is not 1, the
    machine is too noisy, which is said.
    """
    from ..bench import runs

    with bad_input():
        selection = runs.Selection(patterns, quick, peers, rounds or 0)
        cases = selection.cases()
        old = runs.load(compare) if compare else runs.Earlier()
        if compare:
            old.check(cases)
    if listed:
        _list(cases, as_json)
        return 0
    inputs = [compare] if compare else []
    _look_ahead(csv, plot, inputs)
    with progress("measuring", len(cases), hidden=as_json) as advance:
        found = list(runs.measure(cases, selection.runner(), old.rows, advance))
    kept = runs.summary(found)
    if as_json:
        print_json(kept)
    else:
        _print(found, kept)
    if elsewhere := old.elsewhere(kept["machine"]):
        complain(elsewhere)
    _keep(found, csv, plot, plot_format, inputs)
    return 1 if [crash for crash in map(_crash, found) if crash] else 0


def _look_ahead(csv: Path | None, plot: Path | None, inputs: list[Path]) -> None:
    """Say what will be missing, or cannot be written, before all is measured."""
    from ..bench import plots

    with bad_input():
        if csv:
            look_ahead(csv, inputs)
        if plot:
            plots.check_available()
            publish(plot, {})


def _keep(
    found: Sequence[Finding], csv: Path | None, plot: Path | None, form: str, inputs: list[Path]
) -> None:
    from ..bench import plots, runs

    with bad_input():
        if csv:
            publish_files([(csv, runs.to_csv(found))], inputs)
        drawn = publish(plot, plots.draw(found, form)) if plot else []
    for path in drawn:
        say(f"wrote {path}", err=True)
    if plot and not drawn:
        complain(f"{plot}: nothing was measured that there is a picture of")


def _list(cases: Sequence[Case], as_json: bool) -> None:
    if as_json:
        print_json({"cases": (_as_dict(case) for case in cases)})
        return
    rows = [(case.name, case.row.what, case.row.against, " ".join(_kinds(case))) for case in cases]
    print_sections(LISTED, [Section("", rows)])


def _kinds(case: Case) -> Iterator[str]:
    if case.long:
        yield "long"
    if case.peer:
        yield "peer"


def _as_dict(case: Case) -> dict[str, Any]:
    row = case.row
    return {
        "case": case.name, "axis": case.axis, "value": case.value, "what": row.what,
        "against": row.against, "must": row.must, "aim": row.aim, "long": case.long,
        "peer": case.peer,
    }  # fmt: skip


def _crash(finding: Finding) -> str:
    return finding.result.runs[-1].crashed


def _print(found: Sequence[Finding], summary: dict[str, Any]) -> None:
    print_sections(MEASURED, [
        Section(axis, [_row(finding) for finding in findings])
        for axis, findings in groupby(found, lambda finding: finding.case.axis)
    ])  # fmt: skip
    where = summary["machine"]
    say()
    say(
        f"{where['processor']}, {plural(where['cores'], 'core')}, load {where['load']:.1f}",
        "",
        "  ",
    )
    say(f"Python {where['python'].split()[0]}, pympi {where['pympi']} {where['commit']}", "", "  ")
    for noise in summary["noise"].splitlines():
        complain(noise)
    for finding in found:
        if crash := _crash(finding):
            complain(f"{finding.case.name} crashed:\n{crash}")


def _row(finding: Finding) -> tuple[str, ...]:
    from ..bench.harness import times

    result, row = finding.result, finding.result.row
    figures = ("", "", "")
    if result.ratios:
        first, middle, third = result.quartiles
        cost = _cost(finding.cost, result.runs[0].unit)
        figures = (cost, times(middle), f"{times(first)} to {times(third)}")
    then = times(finding.then[1]) if finding.then else ""
    return (
        finding.case.name, row.what, row.against, *figures, _budget(row.must), _budget(row.aim),
        result.verdict, then, finding.change, finding.remark,
    )  # fmt: skip


def _cost(value: float, unit: str) -> str:
    """Return a cost with its unit, in microseconds where it is long."""
    if unit != "ns":
        return f"{value:,.0f} {unit}"
    return f"{value:,.1f} ns" if value < 10_000 else f"{value / 1000:,.1f} us"


def _budget(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
