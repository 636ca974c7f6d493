# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace timeline`: an audit file for Perfetto's viewer."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .._artefacts import replacing
from .._output import json_option, plural, print_json, say, warn_of_loss
from ._recorded import RECORDED, audit_file


@click.command()
@click.argument("file", type=RECORDED)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Where to, such as run.perfetto.json.  [default: stdout]",
)  # fmt: skip
@json_option
def timeline(file: Path, out: Path | None, as_json: bool) -> int:
    """Write an audit FILE as a timeline: a track per task, a slice per operation.

    Arrows lead from who sent a message, or gave a right, to who took it. What was refused is
    marked. Open the file in ui.perfetto.dev, speedscope or chrome://tracing.
    """
    from ...trace.timeline import write_timeline

    if out is None and as_json:
        raise click.UsageError("--json tells what was written to a file: name it with --out")
    with audit_file(file, hidden=as_json) as (batches, advance):
        if out is None:
            write_timeline(batches, sys.stdout.buffer, name=file.name, advance=advance)
            return 0
        with replacing(out, inputs=[file]) as target:
            written = write_timeline(batches, target, name=file.name, advance=advance)
    if as_json:
        print_json({"file": str(out), **written._asdict()})
        return 0
    say(
        f"wrote {out}: {plural(written.tasks, 'task')}, {plural(written.slices, 'slice')}, "
        f"{plural(written.arrows, 'arrow')}, {plural(written.denials, 'mark')} of refusals"
    )
    warn_of_loss(file, written.lost)
    return 0
