# SPDX-License-Identifier: BSD-2-Clause
"""`pympi policy label`: the label of something new (SEDarwin's and SELinux's compute_create)."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ...enums import ObjectClass
from . import _policy as ui

_QUIET = logging.NullHandler()


@click.command()
@click.argument("source")
@click.argument("target")
@click.argument("tclass", metavar="CLASS")
@ui.policy_options(modules=True)
def label(
    source: str, target: str, tclass: str,
    policies: tuple[Path, ...], modules: tuple[str, ...], as_json: bool,
) -> int:  # fmt: skip
    """Print the label of something new of CLASS, that SOURCE makes for TARGET.

    It is what a kernel gives, and mac_request_label. For mach_port TARGET is the task that gets the
    port; for mach_task both are the parent.
    """
    with ui.asking():
        asked = ui.load(policies, modules)
        pair = asked.label(source), asked.label(target)
        kind = asked.tclass(tclass)
        made = _label(asked, pair, kind)
    if as_json:
        ui.print_json({"source": pair[0], "target": pair[1], "class": kind.name, "label": made})
    else:
        print(ui.shown(made))
    return ui.YES


def _label(asked: ui.Asked, pair: tuple[str, str], kind: ObjectClass) -> str:
    """Return the new label; that a module cannot give one is complained of, instead of logged."""
    from ...policy.composition import ModuleFailed

    logging.getLogger("pympi.policy").addHandler(_QUIET)
    try:
        return asked.composition.new_label(*pair, kind)
    except ModuleFailed as failed:
        raise ValueError(f"{failed}: {failed.__cause__}") from None
