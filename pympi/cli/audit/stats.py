# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit stats`: what is in recorded files, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ...audit.calibrate import calibrate, samplings_of
from ...audit.forms import Damaged
from ...audit.query import select
from ...audit.stats import COUNTED, Stats, Tally, Total
from ...audit.stats import stats as count
from ...audit.table import time_text
from .._table import Column, Section, print_sections
from . import _audit as ui

_TITLES = {
    "operations": "by operation",
    "outcomes": "by outcome",
    "classes": "by class",
    "results": "by result",
    "pairs": "label pairs",
    "tasks": "tasks",
    "ports": "ports",
}


@click.command(epilog=ui.EPILOG)
@ui.asked_argument
@click.option(
    "--top", type=click.IntRange(0), default=10, metavar="N",
    help="So many lines of each table; 0: all.  [default: 10]",
)  # fmt: skip
@ui.sound_option
@ui.json_option
def stats(asked: ui.Asked, top: int, damaged: Damaged | None, as_json: bool) -> int:
    """Count the records of files for which all filters hold, and what is missing among them.

    What is missing are numbers that no record has: with filters, also those of other records.

    Where records were sampled by chance, IN ALL is how many there were: exact where it follows from
    the strata that the files tell of (not with filters), else an estimate with its interval.
    """
    with ui.asking():
        found = count(select(asked.files, asked.filters, damaged))
        if found.sampled and not asked.filters:
            again = select(asked.files, (), damaged and (lambda _: None), check=False)
            calibrate(found, samplings_of(asked.files), again)
    if as_json:
        ui.print_json(_as_dict(found, top))
    else:
        _print(found, top)
    return ui.YES


def _as_dict(found: Stats, top: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        **_total(found.total),
        "first": None if found.first is None else found.first / 1e9,
        "last": None if found.last is None else found.last / 1e9,
        "seconds": found.seconds,
        "records_per_second": found.rate,
        **_estimated("messages", found.messages),
        **_estimated("bytes", found.size),
        "lost": found.lost,
        "missing": found.missing,
        "out_of_order": found.backwards,
        "runs": found.runs,
    }
    for name, tally in found.tallies.items():
        result[name] = [
            {**dict(zip(COUNTED[name], thing, strict=True)), **_total(total)}
            for thing, total in tally.most(top or None)
        ]
        result[f"{name}_different"] = len(tally.totals)
    return result


def _total(total: Total) -> dict[str, Any]:
    """Return how many records there are, and if some were sampled, how many there were."""
    if total.weight == total.records:
        return {"records": total.records}
    low, high = total.weight - total.half, total.weight + total.half
    return {"records": total.records, "estimate": total.weight, "low": low, "high": high}


def _estimated(name: str, total: Total) -> dict[str, Any]:
    """Return how many there were, and if that is not exact, between which numbers it lies."""
    if total.exact:
        return {name: total.weight}
    low, high = total.weight - total.half, total.weight + total.half
    return {name: total.weight, f"{name}_low": low, f"{name}_high": high}


def _print(found: Stats, top: int) -> None:
    for line in _summary(found):
        ui.say(line)
    columns = [
        Column("RECORDS", right=True), Column("IN ALL", right=True), Column("WHAT", least=20),
    ]  # fmt: skip
    sections = [
        Section(_title(name, tally, top), [*_lines(tally, name, top, sampled=found.sampled > 0)])
        for name, tally in found.tallies.items() if tally.totals
    ]  # fmt: skip
    if sections:
        print_sections(columns, sections)


def _lines(tally: Tally, name: str, top: int, *, sampled: bool) -> Iterator[list[str]]:
    for thing, total in tally.most(top or None):
        yield [f"{total.records:,}", _in_all(total) if sampled else "", _named(name, thing)]


def _in_all(total: Total) -> str:
    return f"{total.weight:,}" if total.exact else f"{total.weight:,} ± {total.half:,.0f}"


def _summary(found: Stats) -> list[str]:
    rate = "" if found.rate is None else f", {ui.plural(round(found.rate), 'record')} per second"
    sampled = "" if not found.sampled else f" that stand for {_in_all(found.total)}"
    lines = [f"{ui.plural(found.total.records, 'record')}{sampled}{rate}"]
    if found.first is not None and found.last is not None:
        lines.append(f"from {time_text(found.first)} to {time_text(found.last)}")
    messages = ui.plural(found.messages.weight, "message")
    if not found.messages.exact:
        messages = f"{_in_all(found.messages)} messages"
    lines.append(f"{messages} sent, {_in_all(found.size)} bytes")
    lines.append(f"{found.lost:,} lost, as the records tell; {found.missing:,} numbers are missing")
    if found.runs > 1:
        lines.append(f"{found.runs:,} runs, each with numbers of its own")
    if found.backwards:
        lines.append(f"{ui.plural(found.backwards, 'record')} out of order: several recordings?")
    if found.sampled:
        lines.append(
            f"{found.sampled:,} were sampled by chance. What has \u00b1 is estimated, with its 95 %"
            " interval; the rest is exact."
        )
    return lines


def _title(name: str, tally: Tally, top: int) -> str:
    more = f", {top} of {len(tally.totals):,}" if top and len(tally.totals) > top else ""
    untold = tally.others.records
    others = f"; {untold:,} records of others, not told apart" if untold else ""
    return f"{_TITLES[name]}{more}{others}"


def _named(name: str, thing: tuple[Any, ...]) -> str:
    if name == "pairs":
        return f"{thing[2]}: {thing[0]} -> {thing[1]}"
    if name == "tasks":
        return f"{thing[1]} ({thing[0]})" if thing[1] else f"task {thing[0]}"
    return str(thing[0]) or "none"
