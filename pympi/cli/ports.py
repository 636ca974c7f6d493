# SPDX-License-Identifier: BSD-2-Clause
"""`pympi ports`: every right of a task, and who is at the other end (lsmp)."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ..enums import PortType
from ..trace.text import kobject_name
from ._output import busy, plural, print_json
from ._source import Source, source_arguments, tasks_named
from ._table import Column, Section, print_sections

if TYPE_CHECKING:
    from ..inspect import Port, Right, Task
    from ..inspect.joined import Joined

COLUMNS = (
    Column("NAME", right=True),
    Column("RIGHT"),
    Column("REFS", right=True, spare=4),
    Column("PORT", right=True),
    Column("QUEUE", right=True),
    Column("SEND", right=True, spare=6),
    Column("ONCE", right=True, spare=7),
    Column("KIND", least=12, spare=5),
    Column("NOTIFIES", least=10, spare=3),
    Column("LABEL", least=12, tail=True, spare=1),
    Column("OTHER END", least=16),
    Column("SERVICE", least=12, tail=True, spare=2),
)
NAMED = 2  # senders that are named; others are counted

#: What a name holds, in the order in which it is said.
_RIGHTS = (
    (PortType.RECEIVE, "receive"),
    (PortType.SEND, "send"),
    (PortType.SEND_ONCE, "send-once"),
    (PortType.PORT_SET, "set"),
    (PortType.DEAD_NAME, "dead"),
)
#: What a port may be, by the fields that say so.
_KINDS = ("handler", "reply_port", "guarded", "strict", "immovable")


@click.command()
@source_arguments("task")
@click.option("--label", metavar="PATTERN", default="*", help="Only ports with such a label.")
def ports(source: Source, task: str | None, label: str, as_json: bool) -> int:
    """List names, and who is at the other end.

    TASK is a number or a name; in names and labels * and ? stand for any characters. QUEUE is the
    messages in the port's queue and its limit, SEND and ONCE its rights in all tasks. "->" leads to
    who receives, "<-" to those who may send.
    """
    joined = source.joined()
    found = tasks_named(joined, task)
    if as_json:
        rights = (pair for each in found for pair in _rights(joined, each, label))
        print_json({"rights": (as_dict(joined, right, port) for right, port in rights)})
        return 0
    with busy("looking at names"):
        sections = [Section(_title(each), _rows(joined, each, label)) for each in found]
    shown = [section for section in sections if section.rows or label == "*"]
    print_sections(COLUMNS, shown)
    count = sum(len(section.rows) for section in shown)
    click.echo(f"{plural(count, 'name')} of {plural(len(shown), 'task')}", err=True)
    return 0


def _rights(joined: Joined, task: Task, label: str) -> Iterator[tuple[Right, Port | None]]:
    pairs = ((right, joined.port_of(right)) for right in joined.rights(task.id))
    return ((r, port) for r, port in pairs if fnmatchcase(port.label if port else "", label))


def _title(task: Task) -> str:
    state = "" if task.alive else ", terminated"
    return f"{task.name} (task {task.id}{state})  {task.label}"


def _rows(joined: Joined, task: Task, label: str) -> list[tuple[str, ...]]:
    return [_row(joined, right, port) for right, port in _rights(joined, task, label)]


def rights_text(types: int) -> str:
    """Return what a name holds: "receive+send"."""
    return "+".join(_words(types))


@lru_cache(maxsize=1024)  # enumerations are slow
def _words(types: int) -> tuple[str, ...]:
    return tuple(word for bit, word in _RIGHTS if types & bit)


def kind_text(port: Port) -> str:
    """Return what is special about a port: its kernel object, its methods, its flags."""
    words = [kobject_name(port.kind)] if port.kind else []
    words += [port.interface] if port.interface else []
    return ", ".join([*words, *(kind.replace("_", " ") for kind in _KINDS if getattr(port, kind))])


def notifications(right: Right, port: Port | None) -> list[str]:
    """Return the notifications that are armed for a name, and for the port it receives from."""
    found = [right.request] if right.request else []
    if port and right.types & PortType.RECEIVE:
        found += ["no senders"] if port.no_senders else []
        found += ["port destroyed"] if port.port_destroyed else []
    return found


def other_end(joined: Joined, right: Right, port: Port | None) -> str:
    """Return who is at the other end, in words."""
    names = [f"{joined.task_name(task) or '?'} ({task})" for task in joined.other_end(right)]
    if right.types & PortType.PORT_SET:
        return plural(len(joined.members(right.object)), "port")
    if right.types & PortType.RECEIVE:
        return _senders(names)
    if right.types & PortType.DEAD_NAME:
        return "dead"
    if port is None:
        return "not in sight"
    if port.state == "received":
        return f"-> {names[0] if names else 'not in sight'}"
    return f"in transit to port {port.destination}" if port.destination else port.state


def _senders(names: list[str]) -> str:
    more = [f"and {len(names) - NAMED:,} more"] if len(names) > NAMED else []
    return f"<- {', '.join([*names[:NAMED], *more])}" if names else ""


def _row(joined: Joined, right: Right, port: Port | None) -> tuple[str, ...]:
    first = (
        f"{right.name:#x}", rights_text(right.types),
        f"{right.user_references:,}" if right.user_references else "",
    )  # fmt: skip
    last = (
        other_end(joined, right, port),
        " ".join(joined.service_names.get(right.object, ())),
    )
    notifies = ", ".join(notifications(right, port))
    if port is None:
        return (*first, str(right.object or ""), "", "", "", "", notifies, "", *last)
    return (
        *first, str(port.id),
        f"{port.queue_length:,}/{port.queue_limit:,}" if port.state != "dead" else "",
        f"{port.send_rights:,}", f"{port.send_once_rights:,}" if port.send_once_rights else "",
        kind_text(port), notifies, port.label, *last,
    )  # fmt: skip


def as_dict(joined: Joined, right: Right, port: Port | None) -> dict[str, Any]:
    """Return a row with all there is to say, for programs."""
    return {
        **msgspec.to_builtins(right),
        "task_name": joined.task_name(right.task),
        "right": _words(right.types),
        "notifications": notifications(right, port),
        "port": None if port is None else msgspec.to_builtins(port),
        "services": joined.service_names.get(right.object, []),
        "other_end": [{"task": t, "name": joined.task_name(t)} for t in joined.other_end(right)],
    }
