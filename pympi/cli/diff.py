# SPDX-License-Identifier: BSD-2-Clause
"""`pympi diff`: what came, went and changed between two snapshots."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ._output import asking, json_option, plural, print_json, say
from ._source import PATH, load
from ._table import cell, cut
from .ports import rights_text

if TYPE_CHECKING:
    from ..inspect.compare import Change
    from ..inspect.joined import Joined

SHOWN = 20  # lines of a kind, and numbers in a line
WIDEST = 1000  # cells of what is said of one
NAME = "#x"  # how names are written, here and in what errors say
_SIGNS = {"came": "+", "went": "-", "changed": "~"}
_COLORS = {"came": "green", "went": "red", "changed": "yellow"}


class _Line(NamedTuple):
    """What is said once for all changes of which the same can be said."""

    what: str
    text: str


@click.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@click.option("--all", "everything", is_flag=True, help="Show all lines, however many.")
@json_option
def diff(old: Path, new: Path, everything: bool, as_json: bool) -> int:
    """Compare snapshots OLD and NEW of a system.

    + came, - went, ~ changed: tasks, ports, names, the name server's contexts and services, policy
    modules. Exit code 1: there are differences.
    """
    from ..inspect.compare import compare
    from ..inspect.joined import Joined

    before, after = load(old), load(new)
    with asking():
        changes = compare(before, after)
    if as_json:
        print_json({"equal": not changes, "changes": (change.as_dict() for change in changes)})
    elif changes:
        _print(changes, Joined(before), Joined(after), None if everything else SHOWN)
    else:
        click.echo("No differences.")
    return 1 if changes else 0


def _print(changes: list[Change], before: Joined, after: Joined, limit: int | None) -> None:
    kinds: defaultdict[str, list[Change]] = defaultdict(list)
    for change in changes:
        kinds[change.kind].append(change)
    for kind, some in kinds.items():
        counts = Counter(change.what for change in some)
        said = ", ".join(f"{counts[what]:,} {what}" for what in _SIGNS if counts[what])
        say(f"{kind}s: {said}" if kind != "policy" else "policy: changed", bold=True)
        lines = _lines(kind, some, before, after)
        for line in islice(lines, limit):
            say(line.text, f"  {_SIGNS[line.what]} ", "      ", fg=_COLORS[line.what])
        if rest := sum(1 for _ in lines):
            say(f"and {plural(rest, 'line')} more: --all", "    ", dim=True)


def _lines(kind: str, changes: list[Change], before: Joined, after: Joined) -> Iterator[_Line]:
    """Yield lines; numbers of whatever else is alike are collected in one."""
    groups: defaultdict[_Line, list[int]] = defaultdict(list)
    for change in changes:
        joined = before if change.new is None else after
        text, number = _TEXTS[kind](change, joined)
        if change.what == "changed":
            text, number = f"{text}: {_fields(change)}", None
        groups[_Line(change.what, text)] += [] if number is None else [number]
    form = NAME if kind == "name" else "d"
    for line, numbers in groups.items():
        which = f": {numbers_text(numbers, form)}" if numbers else ""
        yield _Line(line.what, cut(cell(f"{line.text}{which}"), WIDEST))


def numbers_text(numbers: Iterable[int], form: str = "d", limit: int = SHOWN) -> str:
    """Return numbers in order; of more than `limit` the first and the last."""
    found = sorted(numbers)
    if len(found) <= limit:
        return " ".join(f"{number:{form}}" for number in found)
    return f"{len(found):,} from {found[0]:{form}} to {found[-1]:{form}}"


def _fields(change: Change) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {_value(name, old)} -> {_value(name, new)}"
        for name, (old, new) in change.fields.items()
    )


def _value(field: str, value: Any) -> str:
    if field == "types":
        return rights_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value not in ("", None) else "-"


def task_text(joined: Joined, number: int) -> str:
    """Return a task's name and number."""
    return f"{joined.task_name(number) or '?'} ({number})"


# ---- for each kind: what is said of a row, and the number that tells it from those alike ----


def _task(change: Change, _: Joined) -> tuple[str, int | None]:
    row = change.new or change.old
    label = "" if change.what == "changed" else f"  {row.label}"
    return f"{row.name} ({row.id}){label}", None


def _port(change: Change, joined: Joined) -> tuple[str, int | None]:
    row = change.new or change.old
    if change.what == "changed":
        return f"port {row.id} of {task_text(joined, row.receiver)}", None
    return f"made by {task_text(joined, row.maker)}, {row.label}", row.id


def _name(change: Change, joined: Joined) -> tuple[str, int | None]:
    row = change.new or change.old
    if change.what == "changed":
        return f"{task_text(joined, row.task)}, name {row.name:{NAME}}", None
    port = joined.port_of(row)
    other = port.receiver if port and port.receiver != row.task else 0
    to = f" to {task_text(joined, other)}" if other else ""
    return f"{task_text(joined, row.task)}, {rights_text(row.types)}{to}", row.name


def _context(change: Change, _: Joined) -> tuple[str, int | None]:
    row = change.new or change.old
    place = f"below {row.parent}" if row.parent else "the root"
    return f"context {row.id}, {place}, {row.label}", None


def _service(change: Change, _: Joined) -> tuple[str, int | None]:
    row = change.new or change.old
    text = f"{row.name} in context {change.key[0]}"
    if change.what != "changed":
        text = f"{text}, {row.state}, {row.label}"
    return text, None


def _module(change: Change, _: Joined) -> tuple[str, int | None]:
    return str(change.key), None


_TEXTS: dict[str, Callable[[Change, Joined], tuple[str, int | None]]] = {
    "task": _task, "port": _port, "name": _name, "context": _context, "service": _service,
    "module": _module, "policy": _module,
}  # fmt: skip
