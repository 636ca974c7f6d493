# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy flow`: ways for information from one type to another (setools' seinfoflow)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _policy as ui

if TYPE_CHECKING:
    from ...policy.author.flow import Flow
    from ...policy.cil.policydb import PolicyDatabase

#: Rules shown for a step; the rest is counted.
SHOWN = 4


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--max-length", type=click.IntRange(1), metavar="N", help="Steps a path may have.")
@click.option("--class", "classes", multiple=True, metavar="CLASS", help="Only by this class.")
@click.option(
    "--min-weight",
    type=click.IntRange(1, 10),
    metavar="W",
    default=3,
    show_default=True,
    help="Only by permissions that move so much: 10 is a message, 1 a hint.",
)
@click.option(
    "--paths",
    "limit",
    type=click.IntRange(1),
    metavar="N",
    default=5,
    show_default=True,
    help="How many of the shortest paths are shown.",
)
@click.option("--boolean", "booleans", multiple=True, metavar="NAME=VALUE", help="true or false.")
@ui.policy_options()
def flow(
    source: str, target: str, max_length: int | None, classes: tuple[str, ...], min_weight: int,
    limit: int, booleans: tuple[str, ...], policies: tuple[Path, ...], as_json: bool,
) -> int:  # fmt: skip
    """Find how information can flow from type FROM to type TO.

    The shortest paths, with the rules that make each step. Constraints, roles and levels are not
    looked at: they may stop what is found. Exit code 1: there is no path.
    """
    with ui.asking():
        from ...policy.author.flow import FlowGraph

        db = ui.database(policies)
        ends = [db.types[ui.type_number(db, each)].name for each in (source, target)]
        if ends[0] == ends[1]:
            raise ValueError(f"FROM and TO are the same type, {ends[0]}")
        values = ui.with_booleans(db, booleans)
        graph = FlowGraph(db, booleans=values, classes=classes, weight=min_weight)
        found = graph.paths(*ends, most=max_length, limit=limit)
    if as_json:
        ui.print_json({
            "from": ends[0], "to": ends[1],
            "paths": [_as_list(db, path) for path in found],
        })  # fmt: skip
    else:
        _print(db, ends, found)
        _warn(db)
    return ui.YES if found else ui.NO


def _as_list(db: PolicyDatabase, path: Flow) -> list[dict[str, Any]]:
    return [
        {
            "from": step.source,
            "to": step.target,
            "rules": [
                {
                    "text": db.rule_text(rule), "file": db.origin(rule).file, "line": rule.line,
                    "permissions": list(names), "sense": "read" if reads else "write",
                }
                for rule, names, reads in step.rules
            ],
        }
        for step in path
    ]  # fmt: skip


def _print(db: PolicyDatabase, ends: list[str], found: list[Flow]) -> None:
    if not found:
        ui.say(f"no path from {ends[0]} to {ends[1]}")
    for number, path in enumerate(found):
        if number:
            ui.say()
        ui.say(" > ".join([path[0].source, *(step.target for step in path)]), bold=True)
        for step in path:
            for rule, names, reads in step.rules[:SHOWN]:
                who, whom = (step.target, step.source) if reads else (step.source, step.target)
                does = "reads from" if reads else "writes to"
                ui.say(f"{who} {does} {whom}: {' '.join(names)}", "  ")
                ui.say(f"{db.origin(rule)}: {db.rule_text(rule)}", "      ", "        ", dim=True)
            more = len(step.rules) - SHOWN
            if more > 0:
                ui.say(f"and {ui.plural(more, 'rule')} more", "  ")


def _warn(db: PolicyDatabase) -> None:
    names = [each.name for each in db.types[: db.type_count] if db.permissive >> each.number & 1]
    if names:
        words = "is taken at its rules; while permissive it may do more"
        ui.complain(f"{', '.join(names)} {words}")
