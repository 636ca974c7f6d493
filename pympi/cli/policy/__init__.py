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
)


@click.group()
def policy() -> None:
    """Write policies, ask them, and learn them from recordings."""


for _verb in VERBS:
    if find_spec(f"{__name__}.{_verb}"):
        policy.add_command(getattr(import_module(f"{__name__}.{_verb}"), _verb))
