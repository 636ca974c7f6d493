# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy diff`: what two policies decide differently (setools' sediff)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import _policy as ui

if TYPE_CHECKING:
    from ...policy.author.diff import Access, Difference

#: Names shown of a set of types; the rest is counted.
SHOWN = 6


@click.command()
@click.argument("old", type=ui.FILE)
@click.argument("new", type=ui.FILE)
@ui.json_option
def diff(old: Path, new: Path, as_json: bool) -> int:
    """Compare what policies OLD and NEW, files of CIL, mean.

    + is what NEW allows and OLD does not, - the reverse. Attributes are expanded: how a policy is
    written makes no difference. Exit code 1: they differ.
    """
    with ui.asking():
        from ...policy.author.diff import diff as run

        found = run(ui.database([old]), ui.database([new]))
    if as_json:
        ui.print_json({
            "equal": not found,
            "items": [each._asdict() for each in found.items],
            "accesses": [each._asdict() for each in found.accesses],
        })  # fmt: skip
    else:
        _print(found)
    return ui.NO if found else ui.YES


def _print(found: Difference) -> None:
    for item in found.items:
        ui.say(str(item), fg=_colour(item.added))
    if found.items and found.accesses:
        ui.say()
    for access in found.accesses:
        ui.say(_text(access), fg=_colour(access.added))
    if not found:
        ui.say("the policies mean the same")
        return
    count = sum(access.pairs for access in found.accesses)
    click.echo(
        f"{ui.plural(len(found.items), 'declaration')}, {ui.plural(count, 'pair')} of types differ",
        err=True,
    )


def _colour(added: bool) -> str:
    return "green" if added else "red"


def _text(access: Access) -> str:
    short = access._replace(sources=_some(access.sources), targets=_some(access.targets))
    return str(short)


def _some(names: tuple[str, ...]) -> tuple[str, ...]:
    more = len(names) - SHOWN
    return names if more <= 0 else (*names[:SHOWN], f"and {more} more")
