# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit export`: records in another form."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import click

from ...audit.calibrate import samplings_of
from ...audit.export import EXPORTS
from ...audit.forms import Damaged, parts
from ...audit.parquet import write_parquet
from ...audit.query import select
from ...audit.record import Batch
from .._artefacts import replacing
from .._output import busy, complain
from . import _audit as ui


@click.command(epilog=ui.EPILOG)
@ui.asked_argument
@click.option(
    "--format", "form", type=click.Choice([*EXPORTS]),
    help="JSON lines, CSV, AVC messages as in Linux audit, or Parquet; by default what FILE is "
    "called.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where to; it is there when all is written.  [default: stdout]",
)  # fmt: skip
@ui.sound_option
def export(asked: ui.Asked, form: str | None, out: Path | None, damaged: Damaged | None) -> int:
    """Write the records of files for which all filters hold, in another form.

    CSV begins with the names of the columns; what a spreadsheet would take for a formula gets an
    apostrophe before it. AVC messages are of decisions alone. Parquet needs pyarrow; it also has
    what the files tell of how they were sampled, unless there are filters.
    """
    form = form or (out.suffix[1:] if out else "")
    if form not in EXPORTS:
        raise click.UsageError(f"--format one of {', '.join(EXPORTS)}")
    with ui.bad_input(), busy("pympi audit export ..."):
        write = _with_strata(asked) if form == "parquet" else EXPORTS[form]
        if out is None or str(out) == "-":
            if form == "parquet" and sys.stdout.isatty():
                raise click.UsageError("Parquet is nothing for a terminal: --out FILE")
            write(sys.stdout.buffer, select(asked.files, asked.filters, damaged))
            return ui.YES
        inputs = [part for path in asked.files for part in parts(path)]
        with replacing(out, inputs) as file:
            write(file, select(asked.files, asked.filters, damaged))
    return ui.YES


def _with_strata(asked: ui.Asked) -> Callable[[BinaryIO, Iterable[Batch]], None]:
    """Return what writes Parquet, with what was sampled of the records where it is about all."""
    known = [dict(each) for each in samplings_of(asked.files)]
    if known and asked.filters:
        complain("the files are a sample; with filters, what was counted of it is left out")
        known = []
    numbered = [{**each, "run": number} for number, each in enumerate(known, 1)]
    return lambda file, batches: write_parquet(file, batches, numbered)
