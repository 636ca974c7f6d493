# SPDX-License-Identifier: BSD-2-Clause
"""`pympi replay`: run a recording again, under a policy or under none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ..audit import File
from ..policy import PolicyModule, Rules
from ..policy.te import TypeEnforcement
from ..trace import Labels, Plan, make_plan, read_labels
from ..trace.recordings import read_recording
from ..trace.replay import record
from ..trace.replay import replay as run
from ..trace.report import Report
from ._artefacts import Contents, publish
from ._output import FILE, asking, print_report, print_report_json, progress
from .trace._trace import RECORDING

#: Pairs of rounds that tell what checks cost: a busy machine spoils a few.
PAIRS = 21
AUDIT = "run.audit"


def read_policy(path: Path) -> PolicyModule:
    """The policy in a file: CIL where its name ends in .cil, else a table of rules."""
    return (TypeEnforcement if path.suffix == ".cil" else Rules).from_file(path)


@click.command()
@click.argument("trace", type=RECORDING)
@click.option("--policy", type=FILE, help="What the run is checked against: .cil or rules.")
@click.option("--labels", type=FILE, help="Labels for some names, instead of the mangled ones.")
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Rounds; the last one is reported and written.",
)
@click.option("--cost", is_flag=True, help="With --policy: measure what its checks cost.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the run's files go, for `pympi report`.",
)
@click.option("--audit", is_flag=True, help="With --out: record a further run whole, in run.audit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def replay(
    trace: str,
    policy: Path | None,
    labels: Path | None,
    repeat: int,
    cost: bool,
    out: Path | None,
    audit: bool,
    as_json: bool,
) -> int:
    """Rebuild the system recorded in TRACE and drive every counted event through the core.

    TRACE is what SEDarwin's dumptrace prints, or any other recording of which it is known whose
    ports there are, as for "pympi trace".
    """
    if cost and not policy:
        raise click.UsageError("--cost needs --policy: without one nothing is checked")
    if audit and not out:
        raise click.UsageError("--audit needs --out, the directory that run.audit goes to")
    with asking():
        plan = make_plan(read_recording(trace).records)
        policies = [read_policy(policy)] if policy else []
        module = policies[0].name if policies else "rules"
        table = read_labels(labels, module) if labels else Labels(module)
    pairs = PAIRS if cost else 0
    rounds = repeat + (2 * (pairs + 1) if pairs else 0)
    with progress("replaying", (rounds + audit) * plan.work, hidden=as_json) as advance:
        report = run(
            plan, policies=policies, labels=table, rounds=repeat, pairs=pairs, advance=advance
        )
        recorded = recorder(plan, policies, table, advance) if audit else None
        artefacts = publish(out, run_files(report, policy, recorded)) if out else []
    (print_report_json if as_json else print_report)(report, artefacts)
    return 0 if report.faithful else 1


def run_files(
    report: Report, policy: Path | None, recorded: Contents | None
) -> dict[str, Contents]:
    """Return what a run leaves, by name; what it was checked against is among it."""
    files: dict[str, Contents] = {**report.files()}
    if policy:
        files["policy.cil" if policy.suffix == ".cil" else "policy.rules"] = policy.read_bytes()
    if recorded:
        files[AUDIT] = recorded
    return files


def recorder(
    plan: Plan, policies: Sequence[PolicyModule], labels: Labels, advance: Callable[[int], None]
) -> Contents:
    """Return what writes the audit file of a further run of a plan."""
    return lambda path: record(
        plan, File(path, "block"), policies=policies, labels=labels, advance=advance
    )
