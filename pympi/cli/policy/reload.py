# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy reload`: have a live system read its policy anew, or give it another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from ...errors import InspectError
from ...trace.text import escape
from .._output import BadInput, bad_input
from .._source import Source, attach_option
from . import _policy as ui
from .status import print_policy

#: The system could be asked, and did not do it: exit code 1.
REFUSED = ("denied", "read only", "failed", "busy")
LARGEST = 1 << 30  # bytes of a file; the system at the other end has a limit of its own


@click.command(short_help="Have a live system read its policy anew, or give it another.")
@attach_option
@click.argument("files", type=ui.FILE, nargs=-1, metavar="[FILE]...")
@click.option("--module", metavar="NAME", help="Of this policy module, such as te.")
@click.option("--shadow", is_flag=True, help="Only try FILE, beside the policy in force.")
@click.option("--drop", is_flag=True, help="End such a trial.")
@ui.json_option
def reload(
    socket: Path | None, files: tuple[Path, ...], module: str | None, shadow: bool, drop: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Put FILE in force in a live system, or have it read its own files anew.

    FILEs are read here, make one policy, and are sent as text: the system opens no file that we
    name. Without FILE, its modules read the files that they were made from. The socket must not be
    read-only, and the label that we are given needs reload_policy of class kernel. If anything is
    wrong, all stays as it was: exit code 1.
    """
    if socket is None:
        raise click.UsageError("Of which system? --attach SOCKET.")
    if (files and drop) or (shadow and not files):
        raise click.UsageError("--shadow goes with a FILE, --drop without.")
    texts = _texts(files)
    try:
        policy = Source(socket, None).ask(
            lambda connection: connection.reload(module, texts, shadow=shadow, drop=drop)
        )
    except BadInput as error:
        said = error.__cause__
        if isinstance(said, InspectError) and said.code in REFUSED:
            _refuse(error, said, as_json)
        raise
    print_policy(policy, as_json)
    return ui.YES


def _texts(files: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Return what is to be sent: names, as errors will have them, and contents."""
    from ...policy.files import read_bytes

    with bad_input():
        return [(escape(str(path)), read_bytes(path, LARGEST)[0]) for path in files]


def _refuse(error: BadInput, said: InspectError, as_json: bool) -> NoReturn:
    """Say that nothing was done; where a policy is wrong, as `pympi policy check` says it."""
    place = f"{said.file}:{said.line}:{said.column}: "
    _, found, wrong = error.message.partition(place)
    if found and not as_json:
        click.secho(ui.wrapped(f"{place}error: {wrong}"), fg="red", err=True)
        raise click.ClickException("the policy is as it was") from said
    raise click.ClickException(error.message) from said
