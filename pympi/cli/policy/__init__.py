# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy`: questions about policies, and policies from recordings.

A verb is a module here with a click command of the module's name. Exit codes: 0 yes or done, 1 no,
2 wrong usage or unreadable input.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

VERBS = (
    "check",
    "access",
    "label",
    "explain",
    "query",
    "diff",
    "flow",
    "learn",
    "certify",
    "unused",
    "coverage",
)


class _Verbs(click.Group):
    """The verbs, each imported when it is asked for: a help screen of `pympi` needs none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verb in VERBS if find_spec(f"{__name__}.{verb}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Verbs, short_help="Ask policies, and learn them from runs.")
def policy() -> None:
    """Write policies, ask them, and learn them from recordings."""
