# SPDX-License-Identifier: BSD-2-Clause
"""Tables for people: aligned columns that fit the terminal, a hundred thousand rows in a second.

Columns without anything in them are left out. Where the rest does not fit, texts are cut, with "…"
where something is missing; where that is not enough, columns are left out, which is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import click
from rich.cells import cell_len, set_cell_size

from ..trace.text import escape
from ._output import busy, say, width

GAP = 2
LARGEST = 160  # cells of a column, where nobody looks
_BLOCK = 1000  # lines written at a time


class Column(NamedTuple):
    """A column.

    Attributes:
        title: in capitals; with the unit, where there is one.
        right: its numbers are aligned at the right.
        least: cells to which its texts may be cut; 0: they are not.
        tail: the end of a text says more than its beginning.
        spare: left out where there is no room, those with higher numbers first; 0: never.
    """

    title: str
    right: bool = False
    least: int = 0
    tail: bool = False
    spare: int = 0


class Section(NamedTuple):
    """Some rows, and a line above them; without a line if it is ""."""

    title: str
    rows: Sequence[Sequence[str]]


@lru_cache(maxsize=1 << 16)
def cell(text: str) -> str:
    """Return a text that keeps to its place in a line, whatever is in it."""
    return escape(text)


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return len(text) if text.isascii() else cell_len(text)


def cut(text: str, size: int, tail: bool = False) -> str:
    """Return a text of at most `size` cells; tail: its end."""
    if cells(text) <= size:
        return text
    if not tail:
        return set_cell_size(text, size - 1).rstrip() + "…"
    kept = text[-(size - 1) :]
    while cells(kept) > size - 1:
        kept = kept[1:]
    return "…" + kept


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells under the titles of their columns."""
    print_sections(columns, [Section("", rows)])


def print_sections(columns: Sequence[Column], sections: Sequence[Section]) -> None:
    """Print sections of rows, aligned with each other. Whatever is in a cell stays in it."""
    with busy(f"laying out {sum(len(section.rows) for section in sections):,} lines"):
        escaped = [
            Section(cell(title), [[*map(cell, row)] for row in rows]) for title, rows in sections
        ]
        widths = _widths(columns, (row for section in escaped for row in section.rows))
    chosen, left_out = _fit(columns, widths, width())
    lines = _lines(columns, chosen, escaped)
    while block := list(islice(lines, _BLOCK)):
        click.echo("\n".join(block))
    say_left_out(left_out)


def say_left_out(titles: Sequence[str]) -> None:
    """Say which columns there was no room for, if any."""
    if titles:
        say(f"No room for {', '.join(titles)}: a wider terminal, or --json.", dim=True, err=True)


def _widths(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[int]:
    widths = [0] * len(columns)
    for row in rows:
        for at, text in enumerate(row):
            if text and (size := cells(text)) > widths[at]:
                widths[at] = size
    return [max(w, len(c.title)) if w else 0 for c, w in zip(columns, widths, strict=True)]


def _fit(
    columns: Sequence[Column], widths: Sequence[int], room: int
) -> tuple[dict[int, int], list[str]]:
    """Return the widths of the columns that are shown, by their places, and titles of others."""
    fitted = {
        at: min(size, LARGEST) if columns[at].least else size
        for at, size in enumerate(widths) if size
    }  # fmt: skip
    spare = sorted((at for at in fitted if columns[at].spare), key=lambda at: columns[at].spare)
    left_out = []
    while spare and _total(min(w, columns[at].least or w) for at, w in fitted.items()) > room:
        left_out.append(columns[spare[-1]].title)
        del fitted[spare.pop()]
    while _total(fitted.values()) > room and (
        cuttable := [at for at, w in fitted.items() if w > (columns[at].least or w)]
    ):
        fitted[max(cuttable, key=fitted.__getitem__)] -= 1
    return fitted, left_out


def _total(widths: Iterable[int]) -> int:
    sizes = list(widths)
    return sum(sizes) + GAP * (len(sizes) - 1)


def _lines(
    columns: Sequence[Column], chosen: dict[int, int], sections: Sequence[Section]
) -> Iterator[str]:
    plan = [(at, size, columns[at]) for at, size in chosen.items()]
    titles = _line(plan, [column.title for column in columns])
    if plan:
        yield click.style(titles, bold=True)
    for section in sections:
        if section.title:
            yield ""
            yield click.style(cut(section.title, min(width(), 4 * LARGEST)), fg="cyan")
        for row in section.rows:
            yield _line(plan, row)


def _line(plan: Sequence[tuple[int, int, Column]], row: Sequence[str]) -> str:
    parts = []
    for at, size, column in plan:
        text = row[at]
        if len(text) > size or not text.isascii():
            text = cut(text, size, column.tail)
            blank = " " * (size - cells(text))
            parts.append(blank + text if column.right else text + blank)
        else:
            parts.append(text.rjust(size) if column.right else text.ljust(size))
    return (" " * GAP).join(parts).rstrip()
