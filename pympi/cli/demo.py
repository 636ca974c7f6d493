# SPDX-License-Identifier: BSD-2-Clause
"""`pympi demo`: the boot that the package ships, under a policy that refuses some of it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from ..policy import Rules
from ..report import gather, page
from ..trace import Labels, make_plan, read_trace
from ..trace.replay import replay as run
from ._artefacts import publish
from ._output import print_report, print_report_json, progress
from .replay import PAIRS, recorder, run_files
from .report import REPORT

#: The first round decides, the later ones remember.
ROUNDS = 3


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("pympi-demo"),
    show_default=True,
    metavar="DIR",
    help="Where the run's files go, and the report of it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def demo(out: Path, as_json: bool) -> int:
    """Replay a small boot of our own making, measure what the checks cost, and report."""
    shipped = resources.files("pympi") / "data"
    rounds = ROUNDS + 2 * (PAIRS + 1) + 1
    with resources.as_file(shipped) as data:
        plan, policy = make_plan(read_trace(data / "demo.trace")), data / "demo.rules"
        policies = [Rules.from_file(policy)]
        with progress("replaying", rounds * plan.work, hidden=as_json) as advance:
            report = run(plan, policies=policies, rounds=ROUNDS, pairs=PAIRS, advance=advance)
            recorded = recorder(plan, policies, Labels(), advance)
            artefacts = publish(out, run_files(report, policy, recorded))
    artefacts += publish(out, {REPORT: page(gather(out))})
    (print_report_json if as_json else print_report)(report, artefacts)
    return 0
