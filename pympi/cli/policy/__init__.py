# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy`: questions about policies, and policies from recordings.

Exit codes: 0 yes or done, 1 no, 2 wrong usage or unreadable input.
"""

from __future__ import annotations

import click

from .._verbs import Verbs

VERBS = {
    "check": "Is it a policy; what in it is hardly meant?",
    "access": "What may one thing do to another?",
    "label": "Which label does something new get?",
    "explain": "Why is it allowed or refused?",
    "query": "Which rules are about something?",
    "diff": "What do two policies decide differently?",
    "flow": "How can information get from type to type?",
    "learn": "The least policy for what was recorded.",
    "certify": "Does the certificate of a policy hold?",
    "unused": "Which rules did no recording use?",
    "coverage": "How much of a policy was exercised?",
    "status": "Show the policy modules in force.",
    "reload": "Have a live system read its policies anew.",
}


@click.group(
    cls=Verbs, package=__name__, verbs=VERBS
)  # fmt: skip
def policy() -> None:
    """Write, ask and learn policies; see those in force."""
