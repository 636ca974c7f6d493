# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy reload`: have a live system read its policy anew."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import InspectError
from .._output import BadInput, json_option
from .._source import Source, attach_option
from .status import print_policy

#: The system could be asked, and did not do it: exit code 1.
REFUSED = ("denied", "read only", "failed")


@click.command()
@attach_option
@click.argument("module", required=False)
@json_option
def reload(socket: Path | None, module: str | None, as_json: bool) -> int:
    """Have a live system read its policies anew.

    That is MODULE, or all modules, from the files that they were made from. Which files these are
    was said when the system began, so nobody at the socket can put another policy in force. The
    socket must not be read-only, and the label that we are given needs reload_policy of class
    kernel. If a file is wrong, all stays as it was: exit code 1.
    """
    if socket is None:
        raise click.UsageError("Of which system? --attach SOCKET.")
    try:
        policy = Source(socket, None).ask(lambda connection: connection.reload(module))
    except BadInput as error:
        said = error.__cause__
        if isinstance(said, InspectError) and said.code in REFUSED:
            raise click.ClickException(error.message) from said
        raise
    print_policy(policy, as_json)
    return 0
