# SPDX-License-Identifier: BSD-2-Clause
"""`pympi top`: a full-screen view of a live system."""

from __future__ import annotations

from pathlib import Path

import click

from ..inspect.meter import Meter
from ._output import BadInput, bad_input
from ._source import Seconds, live_option


@click.command()
@live_option
@click.option(
    "--interval", type=Seconds(), default=1.0, show_default=True,
    metavar="SECONDS", help="Between looks.",
)  # fmt: skip
def top(socket: Path, interval: float) -> int:
    """Show ports and who sends to whom by messages per second, queues, checks, denials and losses.

    Keys: m, u, n sort by messages, queue and name; p pauses, q quits.
    """
    try:
        from ._top import Top
    except ImportError as error:
        raise BadInput(f"top needs textual ({error}): pip install 'pympi-mach[top]'") from error
    with bad_input():
        meter = Meter(socket)
        try:
            failure = Top(meter.look, str(socket), interval).run()
        finally:
            meter.close()
        if failure is not None:
            raise failure
    return 0
