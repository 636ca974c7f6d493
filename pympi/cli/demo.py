# SPDX-License-Identifier: BSD-2-Clause
"""`pympi demo`: the boot that the package ships, under a policy that refuses some of it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from ..policy import Rules
from ..trace import make_plan, read_trace
from ..trace.replay import replay as run
from ._artefacts import publish
from ._output import print_report, print_report_json, progress
from .replay import PAIRS

#: The first round decides, the later ones remember.
ROUNDS = 3


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("pympi-demo"),
    show_default=True,
    metavar="DIR",
    help="Where replayed.trace and full.trace go.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def demo(out: Path, as_json: bool) -> int:
    """Replay a small boot of our own making, and measure what the checks cost."""
    data = resources.files("pympi") / "data"
    with resources.as_file(data) as directory:
        plan = make_plan(read_trace(directory / "demo.trace"))
        policy = Rules.from_file(directory / "demo.rules")
    rounds = ROUNDS + 2 * (PAIRS + 1)
    with progress("replaying", rounds * plan.work, hidden=as_json) as advance:
        report = run(plan, policies=[policy], rounds=ROUNDS, pairs=PAIRS, advance=advance)
    artefacts = publish(out, report.files())
    (print_report_json if as_json else print_report)(report, artefacts)
    return 0
