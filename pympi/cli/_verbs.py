# SPDX-License-Identifier: BSD-2-Clause
"""Groups of verbs, each of which is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click


class Verbs(click.Group):
    """The verbs in a package: `look-up` is the command `look_up` in the module of that name.

    Args:
        package: where the modules are.
        verbs: in the order of the help screen.
    """

    def __init__(
        self, *args: Any, package: str = "", verbs: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.package = package
        self.verbs = tuple(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, or None."""
        if cmd_name not in self.verbs:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"{self.package}.{name}"), name)
        return command
