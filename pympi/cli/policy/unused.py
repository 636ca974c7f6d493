# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy unused`: rules that nothing in the recordings used."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ...policy.author.recording import read_recording
from ...policy.author.unused import Unused
from ...policy.author.unused import unused as find
from ...policy.cil import compile_policy, read_files
from .._output import bad_input

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("policy", type=_FILE)
@click.argument("recordings", metavar="TRACE-OR-AUDIT...", type=_FILE, nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def unused(policy: Path, recordings: tuple[Path, ...], as_json: bool) -> int:
    """List the allow rules of POLICY of which something was not used, and what.

    What a replay of a trace needs beside what the trace shows counts as used.
    """
    with bad_input():
        database = compile_policy(read_files([policy]))
        read = [read_recording(path) for path in recordings]
    found = find(database, {grant for each in read for grant in (*each.used, *each.closure)})
    if as_json:
        print(json.dumps({"unused": [_plain(each) for each in found]}, indent=2))
        return 0
    for each in found:
        what = "unused" if each.wholly else "partly used, not: " + " ".join(each.permissions)
        print(f"{each.origin}: {each.rule}: {what}")
    return 0


def _plain(each: Unused) -> dict[str, object]:
    where = {"file": each.origin.file, "line": each.origin.line}
    return {
        **where, "rule": each.rule, "permissions": list(each.permissions), "wholly": each.wholly,
    }  # fmt: skip
