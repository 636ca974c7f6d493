# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy coverage`: how much of a policy the recordings exercised."""

from __future__ import annotations

from pathlib import Path

import click

from .._output import NumberRange
from . import _policy as ui
from . import _recorded as recorded


@click.command()
@click.argument("policy", type=ui.FILE)
@click.argument("recordings", metavar=recorded.RECORDINGS, type=ui.FILE, nargs=-1, required=True)
@click.option(
    "--fail-under", type=NumberRange(0, 100), metavar="PERCENT", help="Exit code 1 below that."
)
@ui.json_option
def coverage(
    policy: Path, recordings: tuple[Path, ...], fail_under: float | None, as_json: bool
) -> int:  # fmt: skip
    """Tell which allow rules of POLICY the recordings exercised, and how much of them.

    The percentage is that of the permissions written in the rules. What a replay of a trace needs
    beside what the trace shows counts as used.
    """
    found = recorded.covered(policy, recordings, hidden=as_json)
    enough = fail_under is None or found.percent >= fail_under
    if as_json:
        used, written = found.permissions
        ui.print_json({
            "percent": found.percent, "fail_under": fail_under, "enough": enough,
            "exercised": found.exercised, "used": used, "permissions": written,
            "rules": [
                recorded.place(each) | {"used": list(each.used), "unused": list(each.idle)}
                for each in found.rules
            ],
        })  # fmt: skip
        return ui.YES if enough else ui.NO
    for each in found.rules:
        ui.say(str(each), fg="yellow" if each.idle else None)
    ui.say(str(found), fg="green" if enough else "red")
    if not enough:
        ui.complain(f"the coverage is under {fail_under:.10g} %")
    return ui.YES if enough else ui.NO
