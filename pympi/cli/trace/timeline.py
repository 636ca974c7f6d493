# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace timeline`: an audit file for Perfetto's viewer."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import click

from .._artefacts import replacing
from .._output import json_option, plural, print_json, say, warn_of_loss
from . import _trace as ui
from ._recorded import audit_file


@click.command()
@click.argument("file", type=ui.RECORDING)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Where to, such as run.perfetto.json.  [default: stdout]",
)  # fmt: skip
@json_option
def timeline(file: str, out: Path | None, as_json: bool) -> int:
    """Write an audit FILE as a timeline: a track per task, a slice per operation.

    Arrows lead from who sent a message, or gave a right, to who took it. What was refused is
    marked. Open the file in ui.perfetto.dev, speedscope or chrome://tracing.
    """
    from ...trace.recordings import name_of
    from ...trace.timeline import write_timeline

    name = Path(name_of(file)).name
    if out is None and as_json:
        raise click.UsageError("--json tells what was written to a file: name it with --out")
    with audit_file(file, hidden=as_json) as (batches, advance):
        output = replacing(out, ui.inputs([file])) if out else nullcontext(sys.stdout.buffer)
        with output as target:
            written = write_timeline(batches, target, name=name, advance=advance)
    if as_json:
        print_json({"file": str(out), **written._asdict()})
    elif out:
        say(
            f"wrote {out}: {plural(written.tasks, 'task')}, {plural(written.slices, 'slice')}, "
            f"{plural(written.arrows, 'arrow')}, {plural(written.denials, 'mark')} of refusals"
        )
    warn_of_loss(name_of(file), written.lost)
    return 0
