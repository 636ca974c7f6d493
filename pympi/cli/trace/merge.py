# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace merge`: several recordings as one."""

from __future__ import annotations

from pathlib import Path

import click

from .._output import bad_input
from . import _trace as ui
from .convert import FORMS, SUFFIXES

MERGED = ("full", "sedarwin", "json", "parquet")


@click.command()
@ui.recordings_argument
@click.option(
    "--to", "form", type=click.Choice(MERGED),
    help="By default what FILE is called, or full.",
)  # fmt: skip
@ui.out_option
def merge(recordings: tuple[str, ...], form: str | None, out: Path | None) -> None:
    """Add up the counts of equal paths in all TRACEs.

    Paths are in the order in which they first occur. What the recordings lack is added up, too.
    """
    from ...trace.recordings import Recording, merged

    named = SUFFIXES.get(out.suffix, "") if out else ""
    form = form or named or MERGED[0]
    if form not in MERGED:
        raise click.UsageError(f"--to one of {', '.join(MERGED)}")
    read = ui.read(recordings)
    with bad_input():
        total = Recording("merged", form, merged(read), sum(each.lost for each in read))
        contents = FORMS[form](total)
    ui.write(contents, out, recordings, text=form != "parquet")
