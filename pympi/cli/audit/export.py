# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit export`: records in another form."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ...audit.export import EXPORTS
from ...audit.forms import Damaged, parts
from ...audit.query import select
from .._artefacts import replacing
from .._output import busy
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
    apostrophe before it. AVC messages are of decisions alone. Parquet needs pyarrow.
    """
    form = form or (out.suffix[1:] if out else "")
    if form not in EXPORTS:
        raise click.UsageError(f"--format one of {', '.join(EXPORTS)}")
    write = EXPORTS[form]
    with ui.bad_input(), busy("pympi audit export ..."):
        if out is None or str(out) == "-":
            if form == "parquet" and sys.stdout.isatty():
                raise click.UsageError("Parquet is nothing for a terminal: --out FILE")
            write(sys.stdout.buffer, select(asked.files, asked.filters, damaged))
            return ui.YES
        inputs = [part for path in asked.files for part in parts(path)]
        with replacing(out, inputs) as file:
            write(file, select(asked.files, asked.filters, damaged))
    return ui.YES
