# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace diff`: what changed between two recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .._output import complain, json_option, plural, print_json, say
from .._table import Column, print_table
from . import _trace as ui
from .summary import Beside, beside_of

if TYPE_CHECKING:
    from ...trace.recordings import Recording

SHOWN = 40
_COLUMNS = (
    Column(""),
    Column("EVENT"),
    Column("TASK", least=16, tail=True),
    Column("PORT OF", least=16, tail=True),
    Column("NUMBER", right=True),
    Column("BEFORE", right=True),
    Column("AFTER", right=True),
    Column("CHANGE", right=True, spare=1),
    Column("OUTCOME", least=15),
)
_SIGNS = {"came": "+", "went": "-", "changed": "~"}


class Edge(NamedTuple):
    """What is compared.

    Attributes:
        label: of a port of which nobody knows whose it is.
        outcome: of what is no event, but was refused.
    """

    event: str
    task: str
    owner: str
    label: str = ""
    kind: int = 0
    number: int | None = None
    outcome: str = ""


class Change(NamedTuple):
    """An edge whose count is not the same: "came", "went" or "changed"."""

    what: str
    edge: Edge
    old: int
    new: int


@click.command()
@click.argument("old", type=ui.RECORDING)
@click.argument("new", type=ui.RECORDING)
@click.option("--ports", is_flag=True, help="Tell the ports of a task apart by their numbers.")
@click.option("--all", "everything", is_flag=True, help="Show all lines, however many.")
@json_option
def diff(old: str, new: str, ports: bool, everything: bool, as_json: bool) -> int:
    """Compare recordings OLD and NEW: which edges came, went, or changed their counts.

    An edge is an event, the task, and whose port it was. What a form cannot say is not compared:
    SEDarwin's has three events, records as of an audit file have no kinds of ports. Of two files of
    records also what was refused is compared, and what was done to other things than ports. Exit
    code 1: there are differences.
    """
    both = ui.read([old, new])
    kindless = [each.name for each in both if each.paths]
    if len(kindless) == 1:
        number = " and has numbers of its own for ports" if ports else ""
        complain(f"{kindless[0]} does not tell kinds of ports{number}: they are not compared")
        ports = False
    chosen = _common_events(both)
    before, after = (_edges(each, chosen, ports, not kindless) for each in both)
    beside = [[*beside_of(each.paths)] for each in both]
    if len(kindless) == 2:
        before, after = before + _beside(beside[0]), after + _beside(beside[1])
    elif any(beside):
        complain("what was refused, or done to other things than ports, is not compared")
    changes = [*_compare(before, after)]
    if as_json:
        print_json({"equal": not changes, "changes": map(_as_dict, changes)})
    elif changes:
        _print(changes, None if everything else SHOWN)
    else:
        say("No differences.")
    return 1 if changes else 0


def _common_events(both: Sequence[Recording]) -> Collection[str]:
    """Return the events that both forms can say; SEDarwin's has three."""
    from ...trace import EVENTS
    from ...trace.text import SEDARWIN_EVENTS

    few = [each.name for each in both if each.form == "sedarwin"]
    chosen = SEDARWIN_EVENTS if few else EVENTS
    if any(record.event not in chosen for each in both for record in each.records):
        complain(f"{few[0]} can have {', '.join(chosen)} only: other events are not compared")
    return chosen


def _edges(
    recording: Recording, events: Collection[str], ports: bool, kinds: bool
) -> Counter[Edge]:
    counts, labels = Counter[Edge](), recording.strangers()
    for event, task, owner, kind, number, count in recording.records:
        if event in events:
            label = "" if owner else labels.get(number, "")
            key = Edge(event, task, owner, label, kind * kinds, number if ports else None)
            counts[key] += count
    return counts


def _beside(rows: Iterable[Beside]) -> Counter[Edge]:
    counts = Counter[Edge]()
    for times, what, task, of, outcome in rows:
        counts[Edge(what, task, of, outcome=outcome)] += times
    return counts


def _compare(before: Counter[Edge], after: Counter[Edge]) -> Iterator[Change]:
    for edge in sorted({*before, *after}, key=lambda edge: (edge[1:], edge[0])):
        old, new = before[edge], after[edge]
        if old != new:
            yield Change("changed" if old and new else "came" if new else "went", edge, old, new)


def _as_dict(change: Change) -> dict[str, Any]:
    from ...trace.text import kobject_name

    edge = change.edge._asdict() | {"kind": kobject_name(change.edge.kind)}
    told = {
        key: value for key, value in edge.items()
        if value or key not in ("label", "number", "outcome") or (key, value) == ("number", 0)
    }  # fmt: skip
    return {"what": change.what, **told, "old": change.old, "new": change.new}


def _print(changes: list[Change], limit: int | None) -> None:
    counts = Counter(change.what for change in changes)
    said = ", ".join(f"{counts[what]:,} {what}" for what in _SIGNS if counts[what])
    say(f"{plural(len(changes), 'edge')}: {said}", bold=True)
    print_table(_COLUMNS, [_cells(change) for change in changes[:limit]])
    if limit is not None and len(changes) > limit:
        say(f"and {plural(len(changes) - limit, 'line')} more: --all", "    ", dim=True)


def _cells(change: Change) -> list[str]:
    from ...trace.text import kobject_name

    event, task, owner, label, kind, number, outcome = change.edge
    whose = f"{owner}:{kobject_name(kind)}" if kind else owner or label or "?"
    return [
        _SIGNS[change.what], event, task, whose,
        "" if number is None else str(number), f"{change.old:,}" if change.old else "",
        f"{change.new:,}" if change.new else "", f"{change.new - change.old:+,}",
        outcome,
    ]  # fmt: skip
