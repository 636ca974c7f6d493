# SPDX-License-Identifier: BSD-2-Clause
"""`pympi tasks`: who there is, and what each has."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click
import msgspec

from ._output import plural, print_json
from ._source import Source, source_arguments, tasks_named
from ._table import Column, print_table

if TYPE_CHECKING:
    from ..inspect import Task
    from ..inspect.joined import Joined

COLUMNS = (
    Column("TASK", right=True),
    Column("NAME", least=12),
    Column("MADE BY", least=8, spare=3),
    Column("UID", right=True, spare=2),
    Column("NAMES", right=True),
    Column("PORTS", right=True),
    Column("QUEUED BYTES", right=True, spare=1),
    Column("IN FLIGHT", right=True, spare=4),
    Column("", spare=5),
    Column("LABEL", least=16, tail=True),
)


@click.command()
@source_arguments("task")
@click.option("--label", metavar="PATTERN", default="*", help="Only tasks with such a label.")
def tasks(source: Source, task: str | None, label: str, as_json: bool) -> int:
    """List tasks, and what each has.

    TASK is a number or a name; in names and labels * and ? stand for any characters.
    """
    joined = source.joined()
    found = [each for each in tasks_named(joined, task) if fnmatchcase(each.label, label)]
    if as_json:
        print_json({"tasks": map(msgspec.to_builtins, found)})
    else:
        print_table(COLUMNS, [_row(joined, each) for each in found])
        click.echo(plural(len(found), "task"), err=True)
    return 0


def _row(joined: Joined, task: Task) -> tuple[str, ...]:
    return (
        str(task.id), task.name, joined.task_name(task.parent), str(task.uid),
        f"{task.names:,}", f"{task.ports:,}", f"{task.queued_bytes:,}", f"{task.in_flight:,}",
        "" if task.alive else "terminated", task.label,
    )  # fmt: skip
