# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy explain`: why something is allowed or refused, and what would change that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...enums import ObjectClass
from . import _policy as ui


@click.command()
@click.argument("source")
@click.argument("target")
@click.argument("tclass", metavar="CLASS")
@click.argument("permissions", metavar="PERMISSION...", nargs=-1, required=True)
@ui.policy_options(modules=True)
def explain(
    source: str, target: str, tclass: str, permissions: tuple[str, ...],
    policies: tuple[Path, ...], modules: tuple[str, ...], as_json: bool,
) -> int:  # fmt: skip
    """Say which module and which rule or constraint decides, and what would allow it.

    SOURCE and TARGET as for `pympi policy access`.
    """
    with ui.asking():
        asked = ui.load(policies, modules)
        pair = asked.label(source), asked.label(target)
        kind = asked.tclass(tclass)
        names = kind.names(kind.mask(permissions))
    answers = [_answer(asked, pair, kind, name) for name in names]
    granted = all(each["allowed"] for each in answers)
    if as_json:
        ui.print_json({
            "source": pair[0], "target": pair[1], "class": kind.name,
            "granted": granted, "permissions": answers,
        })  # fmt: skip
    else:
        ui.say(f"{pair[0]} to {pair[1]}, {kind.name}")
        for each in answers:
            _print(each)
    return ui.YES if granted else ui.NO


def _answer(asked: ui.Asked, pair: tuple[str, str], kind: ObjectClass, name: str) -> dict[str, Any]:
    composition = asked.composition
    values = [composition.values(each) for each in pair]
    lines = composition.explain(values[0], values[1], kind, name)
    reasons = [line.strip().partition(": ") for line in lines]
    refusing = composition.refused_by(*pair, kind, kind.mask(name))
    return {
        "permission": name,
        "allowed": not refusing,
        "refused_by": list(refusing),
        "reasons": [{"module": module, "text": text} for module, _, text in reasons],
    }


def _print(answer: dict[str, Any]) -> None:
    verdict = "allowed" if answer["allowed"] else f"refused by {', '.join(answer['refused_by'])}"
    ui.say(f"{answer['permission']}: {verdict}", "  ", fg="green" if answer["allowed"] else "red")
    for reason in answer["reasons"]:
        ui.say(f"{reason['module']} {reason['text']}", "    ", "      ")
