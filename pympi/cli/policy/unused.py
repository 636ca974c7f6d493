# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy unused`: rules that nothing in the recordings used."""

from __future__ import annotations

from pathlib import Path

import click

from . import _policy as ui
from . import _recorded as recorded


@click.command()
@click.argument("policy", type=ui.FILE)
@click.argument("recordings", metavar=recorded.RECORDINGS, type=ui.FILE, nargs=-1, required=True)
@ui.json_option
def unused(policy: Path, recordings: tuple[Path, ...], as_json: bool) -> int:
    """List the allow rules of POLICY of which something was not used, and what.

    What a replay of a trace needs beside what the trace shows counts as used.
    """
    found = recorded.covered(policy, recordings, hidden=as_json).unused
    if as_json:
        rows = [
            recorded.place(each) | {"permissions": list(each.idle), "wholly": not each.used}
            for each in found
        ]
        ui.print_json({"unused": rows})
    else:
        for each in found:
            ui.say(str(each))
    return ui.YES
