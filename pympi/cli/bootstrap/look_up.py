# SPDX-License-Identifier: BSD-2-Clause
"""`pympi bootstrap look-up`: where a name is found, and who would be talked to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .._output import print_json, say, shown
from .._source import Source, contexts_of, source_arguments, tasks_named
from .._table import cell
from .dump import title

if TYPE_CHECKING:
    from ...inspect import Context, Service
    from ...inspect.joined import Joined


@click.command()
@click.argument("name")
@source_arguments()
@click.option("--context", "number", type=int, metavar="N", help="Begin there, not at the root.")
@click.option("--task", metavar="TASK", help="Begin where this task's bootstrap port leads.")
def look_up(name: str, source: Source, number: int | None, task: str | None, as_json: bool) -> int:
    """Find NAME, and who receives there.

    As for a task in a context: in there, else in the one above, up to the root. What the policy
    lets a task see is not asked. Exit code 1: there is no such name.
    """
    if number is not None and task is not None:
        raise click.UsageError("--context or --task, not both.")
    joined = source.joined()
    start = _start(joined, number, task)
    found = joined.look_up(name, start)
    if found is None:
        raise click.ClickException(_absent(joined, name, start))
    context, services = found
    if as_json:
        print_json({
            "context": context.id, "context_label": context.label,
            "services": [_as_dict(joined, service) for service in services],
        })  # fmt: skip
        return 0
    click.secho(cell(title(context)), fg="cyan")
    for service in services:
        for what, text in _lines(joined, service):
            say(cell(text), f"  {what:9} ", " " * 12)
    return 0


def _start(joined: Joined, number: int | None, task: str | None) -> Context:
    contexts = contexts_of(joined)
    if task is not None:
        ports = {each.bootstrap for each in tasks_named(joined, task)}
        places = [each for each in contexts if each.port in ports]
        if len(places) != 1:
            raise click.ClickException(f"{shown(task)} leads to {len(places)} contexts, not to one")
        return places[0]
    wanted = [c for c in contexts if (c.id == number if number is not None else not c.parent)]
    if not wanted:
        known = ", ".join(str(each.id) for each in contexts[:20])
        raise click.ClickException(f"no context {number or 'without a parent'}; there are {known}")
    return wanted[0]


def _absent(joined: Joined, name: str, start: Context) -> str:
    text = f"no {shown(name)!r} in context {start.id} or above"
    places = sorted({c.id for c, service in joined.services if service.name == name})
    if not places:
        return f"{text}, nor in any other"
    known = ", ".join(map(str, places[:20]))
    return f"{text}; it is in context {known}: --context {places[0]}"


def _lines(joined: Joined, service: Service) -> Iterator[tuple[str, str]]:
    port = joined.ports.get(service.port)
    yield "name", service.name
    yield "state", service.state
    yield "server", joined.server_of(service) or "-"
    yield "label", service.label
    yield "port", _port_text(joined, service)
    if port and port.receiver:
        yield "receiver", f"{joined.task_name(port.receiver) or '?'} (task {port.receiver})"


def _port_text(joined: Joined, service: Service) -> str:
    if not service.port:
        return "none"
    port = joined.ports.get(service.port)
    if port is None:
        return f"{service.port}, not in sight"
    return f"{port.id}, {port.queue_length:,} of {port.queue_limit:,} messages, {port.label}"


def _as_dict(joined: Joined, service: Service) -> dict[str, Any]:
    port = joined.ports.get(service.port)
    receiver = port.receiver if port else 0
    return {
        **msgspec.to_builtins(service),
        "server": joined.server_of(service),
        "receiver": {"task": receiver, "name": joined.task_name(receiver)} if receiver else None,
    }
