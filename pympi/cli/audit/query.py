# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit query`: records that are asked for by filters, or an answer to SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import click

from ...audit import Batch
from ...audit.export import csv_lines, json_value
from ...audit.forms import Damaged
from ...audit.query import MEMORY, select, sql
from ...audit.table import COLUMNS, rows, time_text
from .._table import Column, cell, print_table
from . import _audit as ui

_BLOCK = 5000  # rows whose columns are aligned with each other
_SHOWN = (
    "sequence", "time", "operation", "outcome", "task", "task_name", "port", "class", "asked",
    "subject", "object", "result",
)  # fmt: skip
# Of these, what is left out where there is no room, those with higher numbers first.
_SPARE = {"subject": 1, "port": 2, "operation": 3, "task": 4, "class": 5, "result": 6}
# Whose ends tell more than their beginnings.
_TAIL = {"task_name", "subject", "real_subject", "object", "peer", "service"}
_NUMBERS = (int, float)


def _names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in COLUMNS]:
        known = ", ".join(COLUMNS)
        raise click.BadParameter(f"no column {unknown[0]!r}; there are: {known}")
    return names


@click.command(
    epilog=ui.EPILOG + "\n\n" + ui.definitions(
        "Columns, all of which the table `records` of --sql has:",
        {column.name: column.what for column in COLUMNS.values()},
    ),
)  # fmt: skip
@ui.asked_argument
@click.option("--sql", "text", metavar="SELECT", help="A query of the table `records`.")
@click.option("--columns", metavar="NAMES", callback=_names, help="These, separated by commas.")
@click.option("--memory", metavar="SIZE", default=MEMORY, help=f"For --sql.  [default: {MEMORY}]")
@ui.sound_option
@ui.json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def query(
    asked: ui.Asked, text: str | None, columns: tuple[str, ...] | None, memory: str,
    damaged: Damaged | None, as_json: bool, as_csv: bool,
) -> int:  # fmt: skip
    """Print the records of files for which all filters hold, or what SQL makes of them.

    SQL reads the table `records` and can do nothing else; files of all forms are one table, which
    may be larger than memory. It needs DuckDB and pyarrow. Exit code 1: there are no rows.
    """
    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    if text is not None and columns is not None:
        raise click.UsageError("--columns is for filters; SELECT says them itself")
    chosen = columns or (tuple(COLUMNS) if as_json or as_csv else _SHOWN)
    answer = _answer(asked, text, chosen, memory, damaged)
    with ui.bad_input(), answer as (names, found):
        first = list(islice(found, 1))
        _print(names, (row for part in (first, found) for row in part), as_json, as_csv)
    return ui.YES if first else ui.NO


@contextmanager
def _answer(
    asked: ui.Asked, text: str | None, columns: Sequence[str], memory: str, damaged: Damaged | None
) -> Iterator[tuple[Sequence[str], Iterator[Sequence[Any]]]]:
    """Yield the names of columns, and an iterator over rows."""
    if text is None:
        yield columns, _rows(select(asked.files, asked.filters, damaged), columns)
        return
    with sql(asked.files, text, asked.filters, damaged, memory=memory) as answer:
        yield answer.columns, iter(answer)


def _rows(batches: Iterable[Batch], names: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Yield rows of columns, with times in words."""
    at = names.index("time") if "time" in names else None
    for batch in batches:
        for row in rows(batch, names):
            yield row if at is None else (*row[:at], time_text(row[at]), *row[at + 1 :])


def _print(
    names: Sequence[str], found: Iterable[Sequence[Any]], as_json: bool, as_csv: bool
) -> None:
    if as_json:
        ui.print_json({"rows": (_named(names, row) for row in found)})
    elif as_csv:
        for line in csv_lines(names, (tuple(map(json_value, row)) for row in found)):
            click.echo(line)
    else:
        _print_tables(names, iter(found))


def _named(names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, map(json_value, row), strict=True))


def _print_tables(names: Sequence[str], found: Iterator[Sequence[Any]]) -> None:
    count, spare = 0, _SPARE if names == _SHOWN else {}
    while block := list(islice(found, _BLOCK)):
        columns = [
            _column(name, each, spare.get(name, 0))
            for name, each in zip(names, block[0], strict=True)
        ]
        print_table(columns, [[*map(_cell, row)] for row in block])
        count += len(block)
    click.echo(ui.plural(count, "row"), err=True)


def _column(name: str, first: Any, spare: int) -> Column:
    whole = isinstance(first, _NUMBERS)
    least = 0 if whole or name == "time" else 8
    return Column(cell(name.upper()), whole, least, tail=name in _TAIL, spare=spare)


def _cell(value: Any) -> str:
    return "" if value is None else str(json_value(value))
