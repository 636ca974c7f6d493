# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit tail`: the last records of a file, and those to come."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import click

from ...audit import Batch
from ...audit.follow import follow
from ...audit.query import Question
from . import _audit as ui
from .print import lines_of

_PAUSE = 0.1  # seconds between looks


@click.command(epilog=ui.EPILOG)
@ui.growing_argument
@click.option(
    "--lines", "-n", type=click.IntRange(0), default=10, metavar="N",
    help="Begin with the last N.  [default: 10]",
)  # fmt: skip
@ui.json_option
@click.option("--raw", is_flag=True, help="Print numbers as they are in the file.")
def tail(asked: ui.Asked, lines: int, as_json: bool, raw: bool) -> int:
    """Print the last records of an audit file that is being written, and those to come.

    As `print` does. What a program records is in the file when its sink has written it; `pympi
    watch --attach SOCKET` shows what a live system does at once. If the file is replaced, the new
    one is followed. Ctrl-C ends it.
    """
    if as_json and raw:
        raise click.UsageError("--json or --raw, not both")
    shown = _Shown(lines, as_json=as_json, raw=raw)
    with ui.bad_input():
        path = _path(asked)
        question = Question(asked.filters)
        try:
            for batch in follow(path, shown.idle):
                shown.add(replace(batch, records=batch.records[question.wanted(batch)]))
        except KeyboardInterrupt:
            shown.finish()
    return ui.YES


def _path(asked: ui.Asked) -> Path:
    if len(asked.files) != 1:
        raise click.UsageError("One file is followed at a time.")
    (path,) = asked.files
    if any(word.startswith("to=") for word in asked.filters):
        raise click.UsageError("to= needs the whole file: use print.")
    if path.is_dir():
        raise click.UsageError("Only audit files, which File writes, can be followed.")
    return ui.OWN_FILE.convert(path, None, None)


class _Shown:
    """Keeps the last records until all there are have been read; prints them, and those after."""

    def __init__(self, lines: int, *, as_json: bool, raw: bool) -> None:
        self._lines, self._as_json, self._raw = lines, as_json, raw
        self._kept: list[Batch] | None = []

    def add(self, batch: Batch) -> None:
        """Print records, or keep them."""
        if self._kept is None:
            self._print(batch)
            return
        self._kept.append(batch)
        while sum(map(len, self._kept[1:])) >= self._lines and len(self._kept) > 1:
            del self._kept[0]

    def idle(self) -> None:
        """Print what was kept, and wait."""
        self.finish()
        time.sleep(_PAUSE)

    def finish(self) -> None:
        """Print what was kept."""
        kept, self._kept = self._kept, None
        spare = sum(map(len, kept or ())) - self._lines
        for batch in kept or ():
            left_out = min(max(spare, 0), len(batch))
            self._print(replace(batch, records=batch.records[left_out:]))
            spare -= left_out
        sys.stdout.flush()

    def _print(self, batch: Batch) -> None:
        for text in lines_of([batch], as_json=self._as_json, raw=self._raw):
            click.echo(text)
