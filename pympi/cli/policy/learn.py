# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy learn`: the least policy that allows what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...policy.author.learn import GENERALISATIONS, UNSEEN, Learned
from ...policy.author.learn import learn as run
from .._artefacts import publish_files
from . import _policy as ui
from . import _recorded as recorded

_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("recordings", metavar=recorded.RECORDINGS, type=ui.FILE, nargs=-1, required=True)
@click.option("--out", type=_NEW_FILE, metavar="FILE", help="Where the policy goes, not to stdout.")
@click.option("--certificate", type=_NEW_FILE, metavar="FILE", help="Where the certificate goes.")
@click.option(
    "--generalise",
    type=click.Choice(GENERALISATIONS),
    multiple=True,
    help="Widen families of permissions; share attributes among equal sources or targets.",
)
@click.option("--neverallow", type=ui.FILE, help="Rules the policy promises to keep.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the policy.")
def learn(
    recordings: tuple[Path, ...],
    out: Path | None,
    certificate: Path | None,
    generalise: tuple[str, ...],
    neverallow: Path | None,
    as_json: bool,
) -> int:
    """Learn the least policy that allows what was recorded, as CIL.

    Recordings are traces in SEDarwin's or the full form, audit files and what `pympi audit` reads
    besides; of an AVC log, what was granted or permissive. A policy that a
    neverallow rule forbids is not written: exit code 1.
    """
    with recorded.reading(recordings, hidden=as_json) as advance:
        learned = run(recordings, generalise=generalise, neverallow=neverallow, advance=advance)
    files = [(out, learned.text), (certificate, learned.certificate)]
    with ui.bad_input():
        publish_files([(path, text.encode()) for path, text in files if path], recordings)
    recorded.warn_of_losses(learned.recordings)
    if learned.from_traces and not as_json:
        ui.complain(f"traces do not show {UNSEEN}: the policy may lack what was done of these")
    if learned.births and not as_json:
        which = f"{learned.births[0]}{' and more' * (len(learned.births) > 1)}"
        ui.complain(
            f"audit files do not show births: the policy may need {which}, which it has as comments"
        )
    result = _summary(learned) | {name: str(path) for name, path in _paths(out, certificate)}
    if as_json:
        ui.print_json(result | ({} if out else {"text": learned.text}))
    elif out:
        ui.say(_SENTENCE.format(**result))
    else:
        print(learned.text, end="")
    return 0


_SENTENCE = (
    "{rules} rules: {recorded} permissions recorded, {closure} of the closure, "
    "{generalised} generalised; {neverallows} neverallow rules hold"
)


def _paths(out: Path | None, certificate: Path | None) -> list[tuple[str, Path]]:
    pairs = (("policy", out), ("certificate", certificate))
    return [(name, path) for name, path in pairs if path]


def _summary(learned: Learned) -> dict[str, Any]:
    return {
        "recordings": [
            {"file": each.name, "kind": each.kind, "sha256": each.sha256, "lost": each.lost}
            | ({"sampled": each.sampled} if each.sampled else {})
            for each in learned.recordings
        ],
        "rules": sum(line.startswith("(allow ") for line in learned.text.split("\n")),
        "recorded": len(learned.recorded),
        "closure": len(learned.closure),
        "generalised": len(learned.generalised),
        "neverallows": len(learned.neverallows),
        "unseen": UNSEEN if learned.from_traces else None,
        "births": learned.births,
    }
