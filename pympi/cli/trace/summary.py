# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace summary`: what is in a recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .._output import json_option, plural, print_json, say
from .._table import Column, print_table
from . import _trace as ui

if TYPE_CHECKING:
    from ...trace import TraceRecord
    from ...trace.graph.paths import Path
    from ...trace.recordings import Recording

_PATHS = (
    Column("COUNT", right=True),
    Column("EVENT"),
    Column("TASK", least=16, tail=True),
    Column("PORT OF", least=16, tail=True),
    Column("KIND", spare=1),
    Column("NUMBER", right=True, spare=2),
)
_TASKS = (
    Column("TASK", least=16, tail=True),
    Column("PATHS", right=True),
    Column("EVENTS", right=True),
    Column("ON ITS PORTS", right=True),
    Column("PORTS", right=True),
)
_BESIDE = (
    Column("COUNT", right=True),
    Column("WHAT", least=12),
    Column("TASK", least=12, tail=True),
    Column("OF", least=12, tail=True),
    Column("OUTCOME", least=15),
)


@click.command()
@ui.recordings_argument
@click.option(
    "--top", type=click.IntRange(0), default=10, show_default=True, metavar="N",
    help="How many of the busiest paths and tasks.",
)  # fmt: skip
@json_option
def summary(recordings: tuple[str, ...], top: int, as_json: bool) -> None:
    """Count what is in the TRACEs, and show the busiest paths and tasks.

    Of records, also what ipctrace does not count: what was refused, and what was done to other
    things than ports.
    """
    from ...trace.recordings import merged

    read = ui.read(recordings)
    records = merged(read)
    found = _counts(read, records)
    paths = sorted(records, key=lambda record: (-record.count, record.key))[:top]
    tasks = _tasks(records)[:top]
    beside = beside_of(path for each in read for path in each.paths)
    if as_json:
        print_json({
            **found, "busiest_paths": map(_path, paths),
            "busiest_tasks": (dict(zip(_FIELDS, row, strict=True)) for row in tasks),
            "beside": (row._asdict() for row in beside[:top]),
        })  # fmt: skip
        return
    kinds = ", ".join(f"{event} {count:,}" for event, count in found["events_by_kind"].items())
    say(
        f"{plural(found['tasks'], 'task')}, {plural(found['ports'], 'port')}, "
        f"{plural(found['paths'], 'path')}, {plural(found['events'], 'event')}", bold=True,
    )  # fmt: skip
    kinds += f"{', ' * bool(kinds)}refused {found['refused']:,}" if found["refused"] else ""
    say(kinds or "no events", "    ")
    if paths:
        labels = {number: label for each in read for number, label in each.strangers().items()}
        say()
        print_table(_PATHS, [_cells(record, labels) for record in paths])
        say()
        print_table(_TASKS, [[row[0], *(f"{n:,}" for n in row[1:])] for row in tasks])
    if beside[:top]:
        say()
        print_table(_BESIDE, [[f"{row.times:,}", *row[1:]] for row in beside[:top]])


_FIELDS = ("task", "paths", "events", "events_on_its_ports", "ports")


def _counts(read: list[Recording], records: list[TraceRecord]) -> dict[str, Any]:
    from ...trace import EVENTS

    kinds = Counter[str]()
    for record in records:
        kinds[record.event] += record.count
    return {
        "files": [{"name": each.name, "form": each.form, "lost": each.lost} for each in read],
        "tasks": len({name for record in records for name in (record.task, record.owner) if name}),
        "ports": len({record[2:5] for record in records}),
        "paths": len(records),
        "events": kinds.total(),
        "refused": sum(
            count
            for each in read
            for path in each.paths
            for (_, _, enforced), count in path.denied.items()
            if enforced
        ),
        "events_by_kind": {event: kinds[event] for event in EVENTS if kinds[event]},
    }


def _path(record: TraceRecord) -> dict[str, Any]:
    from ...trace.text import kobject_name

    return record._asdict() | {"kind": kobject_name(record.kind)}


def _cells(record: TraceRecord, labels: Mapping[int, str]) -> list[str]:
    kind, whose = _path(record)["kind"], record.owner or labels.get(record.number, "?")
    return [
        f"{record.count:,}", record.event, record.task, whose,
        "" if kind == "none" else kind, str(record.number),
    ]  # fmt: skip


class Beside(NamedTuple):
    """What was done or refused, and is in no trace."""

    times: int
    what: str
    task: str
    of: str
    outcome: str


def beside_of(paths: Iterable[Path]) -> list[Beside]:
    """Return what of paths is in no trace, what was refused first, most frequent first."""
    from ...trace import EVENTS

    rows: list[Beside] = []
    for path in paths:
        about = path.task, path.port.owner or path.port.service or path.port_label or "?"
        outcomes = Counter[tuple[str, str]]()
        for (what, reason, enforced), count in path.denied.items():
            outcomes[what, f"refused: {reason}" if enforced else "would be refused"] += count
        rows += [Beside(n, what, *about, outcome) for (what, outcome), n in outcomes.items()]
        rows += [
            Beside(count, event, *about, "")
            for event, count in path.events.items()
            if event not in EVENTS
        ]
    return sorted(rows, key=lambda row: (not row.outcome, -row.times, row[1:]))


def _tasks(records: list[TraceRecord]) -> list[tuple[str, int, int, int, int]]:
    """Return tasks, the busiest first, with their paths and events, and what others did to them."""
    paths, events, received = Counter[str](), Counter[str](), Counter[str]()
    ports: dict[str, set[tuple[int, int]]] = {}
    for record in records:
        paths[record.task] += 1
        events[record.task] += record.count
        received[record.owner] += record.count
        ports.setdefault(record.owner, set()).add((record.kind, record.number))
    names = {*events, *(name for name in received if name)}
    rows = [
        (name, paths[name], events[name], received[name], len(ports.get(name, ())))
        for name in names
    ]
    return sorted(rows, key=lambda row: (-row[2] - row[3], row[0]))
