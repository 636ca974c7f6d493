# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy check`: whether files are a policy, and what in it is hardly meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import _policy as ui

if TYPE_CHECKING:
    from ...errors import PolicyError
    from ...policy.author.lint import Finding

BAD = 2


@click.command()
@click.argument("files", type=ui.FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Exit code 1 if there is anything to look at.")
@ui.json_option
def check(files: tuple[Path, ...], strict: bool, as_json: bool) -> int:
    """Check that FILEs are a policy, and point at what is questionable in it.

    .cil files make one policy together; others are rules. An error says where it is and what was
    expected there: exit code 2.
    """
    with ui.asking():
        errors, findings, counts = _checked(files)
    if as_json:
        first = {"error": str(errors[0]), **_place(errors[0])} if errors else {}
        ui.print_json(first | {
            "files": [str(path) for path in files], "counts": counts,
            "errors": [_as_dict(error) for error in errors],
            "findings": [finding._asdict() for finding in findings],
        })  # fmt: skip
    else:
        _print(errors, findings, counts)
    if errors:
        return BAD
    return ui.NO if findings and strict else ui.YES


def _checked(files: Sequence[Path]) -> tuple[list[PolicyError], list[Finding], dict[str, int]]:
    """Return errors, findings, and how many there are of what."""
    from ...errors import PolicyError
    from ...policy import Rules
    from ...policy.author.lint import lint, lint_rules

    errors: list[PolicyError] = []
    findings: list[Finding] = []
    counts = {"types": 0, "rules": 0}
    texts = [path for path in files if path.suffix == ".cil"]
    if texts:
        try:
            db = ui.database(texts)
            findings += lint(db)
            counts = {"types": db.type_count, "rules": len(db.rules) + len(db.type_rules)}
        except PolicyError as error:
            errors.append(error)
    for path in files:
        if path not in texts:
            try:
                rules = Rules.from_file(path)
                findings += lint_rules(rules, str(path))
                counts["rules"] += len(rules.rules)
            except PolicyError as error:
                errors.append(error)
    return errors, findings, counts


def _place(error: PolicyError) -> dict[str, Any]:
    return {"file": error.file, "line": error.line or None, "column": error.column or None}


def _as_dict(error: PolicyError) -> dict[str, Any]:
    place = {"file": error.file, "line": error.line, "column": error.column}
    return place | {"message": str(error.args[0])}


def _print(errors: list[PolicyError], findings: list[Finding], counts: dict[str, int]) -> None:
    for error in errors:
        place = f"{error.file}:{error.line}:{error.column}: " if error.line else f"{error.file}: "
        ui.say(f"{place}error: {error.args[0]}", fg="red")
    for each in findings:
        ui.say(f"{each.file}:{each.line}:{each.column}: {each.id}", fg="yellow")
        ui.say(each.message, "    ", "    ")
        ui.say(each.advice, "    ", "    ", dim=True)
    if not errors:
        amounts = f"{ui.plural(counts['types'], 'type')}, {ui.plural(counts['rules'], 'rule')}"
        ui.say(
            f"{amounts}: {ui.plural(len(findings), 'thing') if findings else 'nothing'} to look at"
        )
