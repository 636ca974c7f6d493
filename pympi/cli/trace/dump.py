# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace dump`: what SEDarwin's dumptrace would print."""

from __future__ import annotations

import io
from pathlib import Path

import click

from .._output import bad_input
from . import _trace as ui


@click.command()
@ui.recordings_argument
@ui.out_option
def dump(recordings: tuple[str, ...], out: Path | None) -> None:
    """Print each TRACE as SEDarwin's dumptrace does.

    That form has three kinds of events; "pympi trace convert --to full" keeps all.
    """
    from ...trace import sedarwin_records, write_sedarwin

    text = io.BytesIO()
    for each in ui.read(recordings):
        with bad_input():
            write_sedarwin(text, sedarwin_records(each.records), each.name)
    ui.write(text.getvalue(), out, recordings)
