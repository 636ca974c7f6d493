# SPDX-License-Identifier: BSD-2-Clause
"""`pympi labels`: the labels of tasks and of their ports, by policy module (mgetpmac)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ..errors import LabelError
from ..label import EMPTY, parse_label
from ._output import plural, print_json
from ._source import Source, source_arguments, tasks_named
from ._table import Column, print_table

if TYPE_CHECKING:
    from ..inspect import Task
    from ..inspect.joined import Joined


@click.command()
@source_arguments("task")
@click.option("--module", "modules", multiple=True, metavar="NAME", help="Only this module's part.")
def labels(source: Source, task: str | None, modules: tuple[str, ...], as_json: bool) -> int:
    """Show the labels of tasks and of their ports.

    A task's ports are those that it receives from. There is a column for each policy module that
    has a value in one of the labels.
    """
    joined = source.joined()
    ports = _ports(joined)
    found = [(each, ports.get(each.id, Counter())) for each in tasks_named(joined, task)]
    if as_json:
        print_json({"tasks": (_as_dict(each, counts, modules) for each, counts in found)})
        return 0
    texts = {each.label for each, _ in found}.union(*(counts for _, counts in found))
    values = {text: values_of(text) for text in texts}
    names = modules or sorted({name for parts in values.values() for name in parts})
    columns = (
        Column("TASK", right=True), Column("NAME", least=12), Column("OF"),
        *(Column(name.upper(), least=12, tail=True) for name in names),
    )  # fmt: skip
    rows = (row for each, counts in found for row in _rows(each, counts))
    print_table(columns, [(*row, *_cells(values[text], names)) for row, text in rows])
    return 0


def values_of(label: str) -> dict[str, str]:
    """Return the values in a label by module; what is no label stands under "label"."""
    try:
        return parse_label(label or EMPTY)
    except LabelError:
        return {"label": label}


def _ports(joined: Joined) -> dict[int, Counter[str]]:
    found: dict[int, Counter[str]] = {}
    for port in joined.ports.values():
        found.setdefault(port.receiver, Counter())[port.label] += 1
    return found


def _rows(task: Task, counts: Counter[str]) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Yield the first cells of each line, and the label that the line is about."""
    yield (str(task.id), task.name, "task"), task.label
    for label, count in counts.most_common():
        yield ("", "", plural(count, "port")), label


def _cells(values: dict[str, str], names: Sequence[str]) -> list[str]:
    return [values.get(name, "-") for name in names]


def _as_dict(task: Task, counts: Counter[str], modules: Sequence[str]) -> dict[str, object]:
    def part(label: str) -> dict[str, str]:
        values = values_of(label)
        return {name: values[name] for name in modules or values if name in values}

    ports = [
        {"ports": count, "label": text, "values": part(text)}
        for text, count in counts.most_common()
    ]
    own = {"label": task.label, "values": part(task.label)}
    return {"task": task.id, "name": task.name, **own, "received_from": ports}
