# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace sequence`: a conversation as a diagram."""

from __future__ import annotations

from typing import Any

import click

from .._output import NumberRange, complain, json_option, print_json
from . import _trace as ui
from ._recorded import audit_file

_TIME = NumberRange(0.0)


@click.command()
@click.argument("file", type=ui.RECORDING)
@click.option(
    "--between", multiple=True, metavar="TASK,...",
    help="Only between these; one name: with anybody. * and ? stand for others.",
)  # fmt: skip
@click.option(
    "--transfer", type=click.IntRange(1), metavar="N",
    help="Only this message, and those by rights that came with one of them.",
)  # fmt: skip
@click.option("--from", "begin", type=_TIME, metavar="TIME", help="Seconds of the kernel's clock.")
@click.option("--to", "end", type=_TIME, metavar="TIME", help="Likewise.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=40, show_default=True, metavar="N",
    help="The first N.",
)  # fmt: skip
@json_option
def sequence(
    file: str, between: tuple[str, ...], transfer: int | None, begin: float | None,
    end: float | None, limit: int, as_json: bool,
) -> int:  # fmt: skip
    """Print messages of an audit FILE as a Mermaid sequence diagram.

    Replies are tied to their requests; messages that were refused end in a cross. Exit code 1:
    there are none such.
    """
    from ...trace import timeline

    names = tuple(name for words in between for name in words.split(","))
    if not all(names):
        raise click.BadParameter("names of tasks, separated by commas", param_hint="--between")
    if begin is not None and end is not None and begin > end:
        raise click.UsageError(f"--from {begin:g} is after --to {end:g}")
    chosen = timeline.Chosen(names, transfer or 0, begin, end, limit)
    with audit_file(file, hidden=as_json) as (batches, advance):
        diagram = timeline.sequence(batches, chosen, advance)
    if as_json:
        told: dict[str, Any] = {"messages": diagram.messages, "left_out": diagram.left_out}
        print_json(told | {"mermaid": diagram.text})
    elif diagram.messages:
        click.echo(diagram.text, nl=False)
    else:
        hint = "; --between takes whole names, or * for others" if names else ""
        complain(f"no such message is in it{hint}")
    return 0 if diagram.messages else 1
