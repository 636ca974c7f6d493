# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy access`: what a subject may do (SEDarwin's ca, SELinux's compute_av)."""

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
@click.argument("permissions", metavar="[PERMISSION]...", nargs=-1)
@ui.policy_options(modules=True)
def access(
    source: str, target: str, tclass: str, permissions: tuple[str, ...],
    policies: tuple[Path, ...], modules: tuple[str, ...], as_json: bool,
) -> int:  # fmt: skip
    """Tell what SOURCE may do to TARGET, an object of CLASS.

    SOURCE and TARGET are types, contexts u:r:t, or labels te/u:r:t; ",mls/low" may follow. Without
    a PERMISSION everything is listed; with some, exit code 1 says that one of them is refused.
    """
    with ui.asking():
        asked = ui.load(policies, modules)
        pair = asked.label(source), asked.label(target)
        kind = asked.tclass(tclass)
        wanted = kind.mask(permissions)
    result = _result(asked, pair, kind, wanted)
    if as_json:
        ui.print_json(result)
    else:
        _print(result)
    return ui.YES if result["granted"] else ui.NO


def _result(
    asked: ui.Asked, pair: tuple[str, str], kind: ObjectClass, wanted: int
) -> dict[str, Any]:
    vectors = asked.composition.decide(*pair, kind).decision
    refused = wanted & ~vectors.allowed
    unrecorded = (vectors.report | ~vectors.allowed) & ~vectors.auditdeny
    return {
        "source": pair[0],
        "target": pair[1],
        "class": kind.name,
        "asked": list(kind.names(wanted)),
        "granted": not refused,
        "refused": {
            name: list(asked.composition.refused_by(*pair, kind, kind.mask(name)))
            for name in kind.names(refused)
        },
        "allowed": list(kind.names(vectors.allowed)),
        "auditallow": list(kind.names(vectors.auditallow)),
        "dontaudit": list(kind.names(unrecorded)),
        "reported": list(kind.names(vectors.report & ~unrecorded)),
        "permissive": bool(vectors.report),
    }


def _print(result: dict[str, Any]) -> None:
    ui.say(f"{result['source']} to {result['target']}, {result['class']}")
    if result["asked"]:
        for name in result["asked"]:
            _print_one(name, result)
        return
    otherwise = {*result["reported"], *result["dontaudit"]}
    by_rules = [name for name in result["allowed"] if name not in otherwise]
    lines = (
        ("allowed", by_rules),
        ("only reported", result["reported"]),
        ("recorded if done", result["auditallow"]),
        ("unrecorded if refused", result["dontaudit"]),
    )
    ui.rows((text, " ".join(names)) for text, names in lines if names or text == "allowed")
    if result["permissive"]:
        ui.say(
            "The subject is permissive: what is refused to it is done, and reported"
            f"{', unless unrecorded' if result['dontaudit'] else ''}.",
            "  ", "  ",
        )  # fmt: skip


def _print_one(name: str, result: dict[str, Any]) -> None:
    width = max(map(len, result["asked"]))
    if name in result["refused"]:
        modules = ", ".join(result["refused"][name])
        ui.say(f"no   refused by {modules}", f"  {name:{width}}  ", fg="red")
    else:
        how = "reported" if name in result["reported"] else "permitted, unrecorded"
        by_rules = name not in result["reported"] and name not in result["dontaudit"]
        remark = "" if by_rules else f"   but only {how}: it would be refused"
        ui.say(f"yes{remark}", f"  {name:{width}}  ", fg="green")
