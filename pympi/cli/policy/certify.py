# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy certify`: does a certificate hold?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from ...policy.author.certificate import CertificateError, check
from .._output import bad_input

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("policy", type=_FILE)
@click.argument("certificate", type=_FILE)
@click.argument("recordings", metavar="TRACE-OR-AUDIT...", type=_FILE, nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def certify(
    policy: Path, certificate: Path, recordings: tuple[Path, ...], as_json: bool
) -> int:  # fmt: skip
    """Verify what CERTIFICATE claims about POLICY and the recordings it was learned from.

    Exit code 0: every claim holds. 1: one does not, and which.
    """
    with bad_input():
        texts = policy.read_bytes(), certificate.read_bytes()
        try:
            count, reason = check(*texts, list(recordings)), ""
        except CertificateError as error:
            count, reason = 0, str(error)
    if as_json:
        print(json.dumps({"holds": not reason, "permissions": count, "reason": reason}, indent=2))
    else:
        print(reason or f"every claim holds: {count} permissions, each justified")
    return 1 if reason else 0
