# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy`: questions about policies, and policies from recordings.

Exit codes: 0 yes or done, 1 no, 2 wrong usage or unreadable input.
"""

from __future__ import annotations

import click

from .._verbs import Verbs

VERBS = (
    "check", "access", "label", "explain", "query", "diff", "flow", "learn", "certify", "unused",
    "coverage", "status", "reload",
)  # fmt: skip


@click.group(
    cls=Verbs, package=__name__, verbs=VERBS, short_help="Write, ask and learn policies."
)  # fmt: skip
def policy() -> None:
    """Write, ask and learn policies; see those in force."""
