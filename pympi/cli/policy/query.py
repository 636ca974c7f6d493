# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy query`: the rules that are about something (setools' sesearch)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _policy as ui

if TYPE_CHECKING:
    from ...policy.author.query import AnyRule
    from ...policy.cil.policydb import PolicyDatabase

#: RuleKind's values: naming them here spares `--help` the compiler.
KINDS = (
    "allow", "auditallow", "dontaudit", "neverallow", "typetransition", "typechange", "allowx",
)  # fmt: skip


@click.command()
@click.option("--source", metavar="NAME", help="A type or an attribute.")
@click.option("--target", metavar="NAME", help="A type, an attribute, or self.")
@click.option("--class", "tclass", metavar="CLASS", help="The class.")
@click.option("--permission", "permissions", multiple=True, metavar="NAME", help="One of these.")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS), metavar="KIND",
    help=f"Rules of this kind: {', '.join(KINDS)}.",
)  # fmt: skip
@click.option("--boolean", metavar="NAME", help="Rules that depend on it.")
@click.option("--indirect", is_flag=True, help="Also rules about attributes of the types.")
@ui.policy_options()
def query(
    source: str | None, target: str | None, tclass: str | None, permissions: tuple[str, ...],
    kinds: tuple[str, ...], boolean: str | None, indirect: bool,
    policies: tuple[Path, ...], as_json: bool,
) -> int:  # fmt: skip
    """Print the rules that meet all that is asked for, a line each.

    Rules are found as they were written; with --indirect also those that name an attribute which
    has the type. Exit code 1: there are none.
    """
    with ui.asking():
        from ...policy.author.query import query as run
        from ...policy.cil.policydb import RuleKind

        db = ui.database(policies)
        found = run(
            db, source=source, target=target, tclass=tclass, permissions=permissions,
            kinds=[RuleKind(kind) for kind in kinds], boolean=boolean, indirect=indirect,
        )  # fmt: skip
    if as_json:
        ui.print_json({"rules": [_as_dict(db, rule) for rule in found]})
    else:
        _print(db, found)
    return ui.YES if found else ui.NO


def _as_dict(db: PolicyDatabase, rule: AnyRule) -> dict[str, Any]:
    from ...policy.author.query import condition_of, rule_text

    origin = db.origin(rule)
    result: dict[str, Any] = {
        "kind": rule.kind.value,
        "source": db.types[rule.source].name,
        "target": db.types[rule.target].name if rule.target >= 0 else "self",
        "class": db.classes[rule.tclass].name,
        "text": rule_text(db, rule),
        "file": origin.file,
        "line": origin.line,
        "condition": condition_of(db, rule) or None,
    }
    vector = getattr(rule, "permissions", None)
    if vector is not None:
        result["permissions"] = list(db.classes[rule.tclass].names(vector))
    return result


def _print(db: PolicyDatabase, found: list[AnyRule]) -> None:
    from ...policy.author.query import condition_of, rule_text

    for rule in found:
        condition = condition_of(db, rule)
        text = f"{db.origin(rule)}: {rule_text(db, rule)}" + (
            f"  ; if {condition}" if condition else ""
        )
        print(ui.wrapped(text, "", "    "))
    click.echo(ui.plural(len(found), "rule"), err=True)
