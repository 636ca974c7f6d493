# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace`: what recordings say, as text, tables and pictures.

Exit codes: 0 done, or no difference; 1 there are differences, or it could not be drawn; 2 wrong
usage, or what cannot be read or written.
"""

from __future__ import annotations

import click

from .._verbs import Verbs

VERBS = {
    "summary": "Say what is in a recording.",
    "graph": "Draw who talks to whom.",
    "timeline": "What happened when, for ui.perfetto.dev.",
    "sequence": "A conversation as a Mermaid diagram.",
    "dump": "Print SEDarwin's text of a recording.",
    "convert": "Write a recording in another form.",
    "merge": "Add recordings up.",
    "diff": "Compare two recordings.",
}


@click.group(cls=Verbs, package=__name__, verbs=VERBS)
def trace() -> None:
    """Show, draw and compare recordings: traces, audit files, and what others recorded."""
