# SPDX-License-Identifier: BSD-2-Clause
"""`pympi bootstrap`: what a kernel's name server knows."""

from __future__ import annotations

import click

from .._verbs import Verbs

VERBS = {
    "dump": "List names: server, state, label, by context.",
    "look-up": "Find NAME, and who receives there.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def bootstrap() -> None:
    """See the name server's names, and find one."""
