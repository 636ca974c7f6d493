# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace merge`: several recordings as one."""

from __future__ import annotations

from pathlib import Path

import click

from .._output import bad_input
from . import _trace as ui
from .convert import FORMS


@click.command()
@ui.recordings_argument
@click.option(
    "--to", "form", type=click.Choice(["full", "sedarwin", "json", "parquet"]), default="full",
    show_default=True, help="The form of the result.",
)  # fmt: skip
@ui.out_option
def merge(recordings: tuple[str, ...], form: str, out: Path | None) -> None:
    """Add up the counts of equal paths in all TRACEs.

    Paths are in the order in which they first occur. What the recordings lack is added up, too.
    """
    from ...trace.recordings import Recording, merged

    read = ui.read(recordings)
    with bad_input():
        total = Recording("merged", form, merged(read), sum(each.lost for each in read))
        contents = FORMS[form](total)
    ui.write(contents, out, recordings, text=form != "parquet")
