# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit`: questions about audit files, and whether they are what was written.

Exit codes: 0 yes or done, 1 no, 2 wrong usage or unreadable input.
"""

from __future__ import annotations

import click

from .._verbs import Verbs

VERBS = {
    "print": "Print records, a line each.",
    "tail": "Print the last records, and those to come.",
    "query": "Ask for records, by filters or in SQL.",
    "stats": "Count what is in files.",
    "lineage": "How did a task come to hold a right?",
    "export": "Write records in another form.",
    "verify": "Is a file, or a proof, what was written?",
    "prove": "Prove that a record is in a file.",
    "key": "Make a key for files that prove who wrote them.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def audit() -> None:
    """Read and ask audit files; prove that they are what was written."""
