# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy label`: the label of something new (SEDarwin's and SELinux's compute_create)."""

from __future__ import annotations

from pathlib import Path

import click

from ...label import choose, format_label, parse_label
from . import _policy as ui


@click.command(short_help="Which label does something new get?")
@click.argument("source")
@click.argument("target")
@click.argument("tclass", metavar="CLASS")
@ui.policy_options(modules=True)
def label(
    source: str, target: str, tclass: str,
    policies: tuple[Path, ...], modules: tuple[str, ...], as_json: bool,
) -> int:  # fmt: skip
    """Print the label of a new object of CLASS.

    For mach_port SOURCE makes the port and TARGET is the task it is made for; for mach_task both
    are the parent. For other classes it is what SELinux computes.
    """
    with ui.asking():
        asked = ui.load(policies, modules)
        pair = asked.label(source), asked.label(target)
        kind = asked.tclass(tclass).name
        made = _label(asked, pair, kind)
    if as_json:
        ui.print_json({"source": pair[0], "target": pair[1], "class": kind, "label": made})
    else:
        print(ui.shown(made))
    return ui.YES


def _label(asked: ui.Asked, pair: tuple[str, str], kind: str) -> str:
    if kind == "mach_port":
        return asked.composition.new_label("label_new_port", pair)
    if kind == "mach_task":
        if pair[0] != pair[1]:
            raise ValueError(
                "a new task is labelled by its parent alone: give the same label twice"
            )
        return asked.composition.new_label("label_new_task", pair[:1])
    return _computed(asked, pair, kind)


def _computed(asked: ui.Asked, pair: tuple[str, str], kind: str) -> str:
    """Return what SELinux's security_transition_sid does."""
    from ...policy.cil.contexts import format_context, parse_context
    from ...policy.cil.evaluate import Evaluator
    from ...policy.cil.policydb import RuleKind

    if asked.te is None:
        raise ValueError(f"only a policy in CIL labels new objects of class {kind!r}")
    db = asked.te.database
    source, target = (parse_context(db, parse_label(choose(each, "te"))["te"]) for each in pair)
    number = db.tclass(kind).number
    made = Evaluator(db).compute_sid(RuleKind.TYPETRANSITION, source, target, number)
    return format_label({"te": format_context(db, made)})
