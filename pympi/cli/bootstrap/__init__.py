# SPDX-License-Identifier: BSD-2-Clause
"""`pympi bootstrap`: what a kernel's name server knows."""

from __future__ import annotations

import click

from .._verbs import Verbs


@click.group(cls=Verbs, package=__name__, verbs=("dump", "look-up"))
def bootstrap() -> None:
    """See the name server's names, and find one."""
