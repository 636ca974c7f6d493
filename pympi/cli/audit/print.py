# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit print`: a readable line for each record (BSM's praudit)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from ...audit.export import json_lines
from ...audit.forms import Damaged
from ...audit.query import select
from ...audit.sentence import line
from ...audit.table import columns_of, time_text
from . import _audit as ui

if TYPE_CHECKING:
    from ...audit import Batch

_COLORS = {"denied": "red", "failed": "yellow"}


@click.command("print", epilog=ui.EPILOG)
@ui.asked_argument
@ui.json_option
@ui.sound_option
@click.option("--raw", is_flag=True, help="Print numbers as they are in the file.")
def print_(asked: ui.Asked, as_json: bool, damaged: Damaged | None, raw: bool) -> int:
    """Print the records of files for which all filters hold, a line each.

    Time is UTC, or seconds where the clock is a simulation's. With --json a line is an object.
    """
    if as_json and raw:
        raise click.UsageError("--json or --raw, not both")
    with ui.bad_input():
        lines = lines_of(select(asked.files, asked.filters, damaged), as_json=as_json, raw=raw)
        for text in lines:
            click.echo(text)
    return ui.YES


print = print_  # noqa: A001  (the verb's name)


def lines_of(batches: Iterable[Batch], *, as_json: bool, raw: bool) -> Iterator[str]:
    """Yield the line of each record."""
    if as_json:
        return json_lines(batches)
    return (text for batch in batches for text in (_raw(batch) if raw else _worded(batch)))


def _worded(batch: Batch) -> Iterator[str]:
    outcomes = columns_of(batch, ["outcome"])["outcome"]
    times = map(time_text, batch.records["time"].tolist())
    for record, time, code in zip(batch, times, outcomes.codes.tolist(), strict=True):
        text = line(record, time)
        color = _COLORS.get(outcomes.words[code])
        yield click.style(text, fg=color) if color else text


def _raw(batch: Batch) -> Iterator[str]:
    names = batch.records.dtype.names or ()
    for row in batch.records.tolist():
        yield " ".join(f"{name}={value}" for name, value in zip(names, row, strict=True))
