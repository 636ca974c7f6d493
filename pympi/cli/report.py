# SPDX-License-Identifier: BSD-2-Clause
"""`pympi report`: one page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from ..report import Findings, gather, page
from ._artefacts import publish_files
from ._output import (
    FILE,
    BadInput,
    asking,
    bad_input,
    complain,
    json_option,
    print_json,
    progress,
    say,
    shown,
)

REPORT = "report.html"


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help=f"Where to.  [default: DIR/{REPORT}]",
)  # fmt: skip
@click.option(
    "--policy", "other", type=FILE, help="Another policy: what of the run it would refuse."
)
@json_option
def report(directory: Path, out: Path | None, other: Path | None, as_json: bool) -> int:
    """Make one HTML file of what a run left in DIR.

    DIR holds an audit file (run.audit, or any *.audit; or *.parquet, a D-Bus capture *.pcap, an AVC
    log *.log) or a trace; and as far as there are any, the policy (policy.cil, policy.rules),
    figures (run.json) and a snapshot (*.snap). `pympi demo` and `pympi replay --out DIR --audit`
    write them. The page needs no network, and can be read without its script.
    """
    target = out or directory / REPORT
    if not directory.is_dir():
        raise BadInput(shown(f"{directory}: expected a directory that a run left"))
    found = read_run(directory, other, hidden=as_json)
    with asking():
        contents = page(found)
        publish_files([(target, contents)], [directory / each.name for each in found.sources])
    told = {
        "file": str(target), "bytes": len(contents), "nodes": len(found.graph.nodes),
        "edges": len(found.graph.edges), "denied": found.refused,
        "sources": [each.name for each in found.sources],
    }  # fmt: skip
    if as_json:
        print_json(told)
        return 0
    say(f"wrote {target}")
    for note in found.notes:
        complain(note)
    return 0


def read_run(directory: Path, other: Path | None = None, *, hidden: bool = False) -> Findings:
    """Return what a run left, with a bar while its audit file is read.

    Raises:
        BadInput: a file cannot be used.
    """
    from ..audit import RECORD

    with bad_input():
        records = sum(path.stat().st_size for path in directory.glob("*.audit")) // RECORD.itemsize
        with progress("reading", records, hidden=hidden) as advance:
            return gather(directory, other=other, advance=advance)
