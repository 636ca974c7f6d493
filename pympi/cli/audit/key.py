# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit key`: a secret for an audit file."""

from __future__ import annotations

from pathlib import Path

import click

from .._output import bad_input, say


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def key(file: Path) -> int:
    """Make a secret, 32 random bytes in hexadecimal, in a new FILE that only you can read.

    Give it to pympi.audit.File as key, and keep it where the process that writes the audit file
    cannot read it afterwards; "pympi audit verify --key FILE" needs it.
    """
    from ...audit.chain import make_key

    with bad_input():
        make_key(file)
    say(f"wrote {file}: keep it away from the system whose audit file it is for")
    return 0
