# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace convert`: a recording in another form."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._output import bad_input
from . import _trace as ui

if TYPE_CHECKING:
    from ...trace.recordings import Recording

#: How files of a form are called.
SUFFIXES = {
    ".json": "json", ".parquet": "parquet", ".graphml": "graphml", ".trace": "full",
}  # fmt: skip


def _sedarwin(each: Recording) -> bytes:
    from ...trace import sedarwin_records, write_sedarwin

    text = io.BytesIO()
    write_sedarwin(text, sedarwin_records(each.records), each.name)
    return text.getvalue()


def _full(each: Recording) -> bytes:
    from ...trace import write_full

    text = io.BytesIO()
    write_full(text, each.records, lost=each.lost, name=each.name)
    return text.getvalue()


def _json(each: Recording) -> bytes:
    from ...trace.stores import to_json

    return to_json(each.records, each.lost)


def _parquet(each: Recording) -> bytes:
    from ...trace.stores import to_parquet

    return to_parquet(each.records, each.lost)


def _graphml(each: Recording) -> bytes:
    from ...trace.recordings import graph_of
    from ...trace.stores import graphml

    return graphml(graph_of([each]))


FORMS: dict[str, Callable[[Recording], bytes]] = {
    "full": _full, "sedarwin": _sedarwin, "json": _json, "parquet": _parquet, "graphml": _graphml,
}  # fmt: skip


@click.command()
@click.argument("recording", metavar="TRACE", type=ui.RECORDING)
@click.option("--to", "form", type=click.Choice([*FORMS]), help="By default what FILE is called.")
@ui.out_option
def convert(recording: str, form: str | None, out: Path | None) -> None:
    """Write TRACE in another form.

    full and sedarwin are the text forms, json and parquet have the same fields as full, graphml is
    the graph, by task. All but graphml are read by the other verbs.
    """
    form = form or (SUFFIXES.get(out.suffix) if out else None)
    if form is None:
        raise click.UsageError(f"--to one of {', '.join(FORMS)}")
    (each,) = ui.read([recording])
    with bad_input():
        contents = FORMS[form](each)
    ui.write(contents, out, [recording], text=form != "parquet")
