# SPDX-License-Identifier: BSD-2-Clause
"""Writes into docs/levels.md what `mls`, `biba` and `partition` decide for each hook."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from pympi.enums import hooks
from pympi.policy import MLS, Biba, Partition
from pympi.policy.levels import RULES
from pympi.policy.partition import SAME

PAGE = Path(__file__).resolve().parents[1] / "docs" / "levels.md"
BEGIN, END = "<!-- made by tools/levels.py: begin -->\n", "<!-- made by tools/levels.py: end -->\n"

MODULES = (MLS(), Biba(), Partition())
WORDS = "| relation | of module | holds if |\n|---|---|---|"
TABLE = (
    "| permission | `mls` | `biba` | `partition` | why `mls` and `biba` say so |\n"
    "|---|---|---|---|---|"
)


def relations() -> list[str]:
    """Return the table of the relations' words, with what each means."""
    lines = ["## Relations\n", WORDS]
    for module in MODULES[:2]:
        for word, relation in module.relations.items():
            lines.append(f"| {word} | `{module.name}` | {relation.meaning} |")
    return [*lines, f"| {SAME.word} | `partition` | {SAME.meaning} |", ""]


def row(tclass: str, permission: str, shown: str, why: str) -> str:
    """Return what one permission needs."""
    words = [module.relation(tclass, permission).word for module in MODULES]
    return f"| {shown} | {' | '.join(words)} | {why} |"


def decisions() -> list[str]:
    """Return the tables of what each hook needs."""
    lines = ["## Decisions\n"]
    for tclass, group in groupby(hooks(), key=lambda hook: hook.class_name):
        lines += [f"### {tclass}\n", TABLE]
        for name in (hook.permission for hook in group):
            lines.append(row(tclass, name, f"`{name}`", RULES[tclass][name].why))
        lines.append("")
    why = "SEDarwin's: the message is decided, not what it asks for"
    return [*lines, "### mi_*: methods\n", TABLE, row("mi_x", "x", "every routine", why), ""]


def made(page: str) -> str:
    """Return the page with the tables in it as the modules' data have them now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n".join([*relations(), *decisions()]) + END + after


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
