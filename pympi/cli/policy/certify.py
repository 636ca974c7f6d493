# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy certify`: does a certificate hold?"""

from __future__ import annotations

from pathlib import Path

import click

from ...policy.author.certificate import CertificateError, check
from ...policy.files import check_regular, read_bytes
from . import _policy as ui
from . import _recorded as recorded

LARGEST = 1 << 28
"""Bytes of a policy or a certificate."""


@click.command()
@click.argument("policy", type=ui.FILE)
@click.argument("certificate", type=ui.FILE)
@click.argument("recordings", metavar=recorded.RECORDINGS, type=ui.FILE, nargs=-1, required=True)
@ui.json_option
def certify(
    policy: Path, certificate: Path, recordings: tuple[Path, ...], as_json: bool
) -> int:  # fmt: skip
    """Verify what CERTIFICATE claims about POLICY and the recordings it was learned from.

    Exit code 0: every claim holds. 1: one does not, and which.
    """
    with ui.asking():
        check_regular(*recordings)
        texts = read_bytes(policy, LARGEST)[0], read_bytes(certificate, LARGEST)[0]
        try:
            count, reason = check(*texts, list(recordings)), ""
        except CertificateError as error:
            count, reason = 0, _placed(str(error), {"policy": policy, "certificate": certificate})
    if as_json:
        ui.print_json({"holds": not reason, "permissions": count, "reason": reason})
    else:
        ui.say(reason or f"every claim holds: {count} permissions, each justified")
    return ui.NO if reason else ui.YES


def _placed(reason: str, files: dict[str, Path]) -> str:
    """Put the name of the file where the checker, which reads none, says which of the two it is."""
    what = reason.partition(":")[0]
    return f"{files[what]}{reason[len(what) :]}" if what in files else reason
