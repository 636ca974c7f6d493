# SPDX-License-Identifier: BSD-2-Clause
"""Prints docs/hooks.md: the list of controlled operations, as the core knows it."""

from __future__ import annotations

from itertools import groupby

from pympi.enums import hooks

HEAD = """\
# Hooks

Every operation that is controlled, by class and permission. Made from `csrc/sec/hooks.def` by
`python tools/hooks.py`; bits are part of policies and of audit records and never change.
"""
TABLE = ["| bit | permission | object, operation | may the subject |", "|---|---|---|---|"]


def page() -> str:
    """Return the page as Markdown."""
    lines = [HEAD]
    for tclass, group in groupby(hooks(), key=lambda hook: hook.class_name):
        lines += [f"## {tclass}\n", *TABLE]
        for hook in group:
            where = f"{hook.object}, {hook.operation}"
            lines.append(f"| {hook.bit} | `{hook.permission}` | {where} | {hook.sentence} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
