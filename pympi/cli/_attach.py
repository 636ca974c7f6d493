# SPDX-License-Identifier: BSD-2-Clause
"""The option of verbs that look at a live system alone."""

from __future__ import annotations

from pathlib import Path

import click

attached = click.option(
    "--attach", "socket", type=click.Path(path_type=Path), metavar="SOCKET", required=True,
    help="The control socket of the live system.",
)  # fmt: skip
