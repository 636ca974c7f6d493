# SPDX-License-Identifier: BSD-2-Clause
"""`pympi watch`: what a live system does, as it happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import click
import msgspec

from ..audit.watch import FILTERS, Filter, WatchRecord
from ..inspect import Connection
from ..inspect.messages import Happening, Joiner
from ..inspect.protocol import ROWS_A_LINE
from ..trace.text import escape
from ._output import bad_input, complain, json_option
from ._source import live_option

_REAL = 1e8  # seconds: a clock that says less is none of the calendar
_COLORS = {"denied": "red", "failed": "yellow"}


def _check(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return Filter(words).words
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    short_help="Show what a live system does.",
    epilog="Filters: " + "; ".join(f"{key}=, {what}" for key, what in FILTERS.items()) + ".",
)
@live_option
@click.argument("filters", nargs=-1, metavar="[FILTER]...", callback=_check)
@json_option
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N lines.")
def watch(socket: Path, filters: tuple[str, ...], as_json: bool, count: int | None) -> int:
    """Show each message that is sent, and each other decision, in a line of its own.

    Of several filters all have to hold; * and ? stand for any characters. What happens faster than
    it can be shown is lost, and a line says how much. Ctrl-C ends it.
    """
    with bad_input(), Connection(socket) as connection:
        print_line = _print_json if as_json else _print
        try:
            for happening in islice(_happenings(connection, filters), count):
                print_line(happening)
        except KeyboardInterrupt:
            return 0
    return 0


def _happenings(connection: Connection, filters: tuple[str, ...]) -> Iterator[Happening]:
    joiner = Joiner()
    for records in connection.watch_batches(*filters):
        yield from joiner.add(records)
        if len(records) < ROWS_A_LINE:  # else more is on its way
            yield from joiner.flush()
            sys.stdout.flush()


def _print_json(happening: Happening) -> None:
    print(json.dumps(msgspec.to_builtins(happening)))


def _print(happening: Happening) -> None:
    if happening.lost:
        complain(f"{happening.lost:,} records were lost here")
    click.secho(line_of(happening), fg=_COLORS.get(happening.record.outcome))


def line_of(happening: Happening) -> str:
    """Return a happening in one line, in which nothing does anything to a terminal."""
    record = happening.record
    who = f"{_from(record)} -> {_whom(record)}"
    size = f"{record.size:,} B" if happening.kind != "decision" else ""
    parts = (_time(record.time), f"{who:<32}", f"{_what(happening):<30}", f"{size:>9}")
    return "  ".join([*parts, _outcome(happening)]).rstrip()


def _time(seconds: float) -> str:
    if seconds < _REAL:
        return f"{seconds:15.6f}"
    return datetime.fromtimestamp(seconds, timezone.utc).astimezone().strftime("%H:%M:%S.%f")


def _who(number: int, name: str) -> str:
    return f"{escape(name)} ({number})" if name else f"task {number}"


def _from(record: WatchRecord) -> str:
    """Return who did it; somebody from outside, at a control socket, is no task."""
    outside = record.operation == "service" and not record.task
    return escape(record.service) if outside else _who(record.task, record.task_name)


def _whom(record: WatchRecord) -> str:
    if record.receiver:
        return _who(record.receiver, record.receiver_name)
    return f"port {record.port}" if record.port else record.tclass or "itself"


def _what(happening: Happening) -> str:
    record = happening.record
    about = f' "{escape(record.service)}"' if record.operation == "service" and record.task else ""
    said = f"reply to {happening.what}" if happening.kind == "reply" else happening.what
    return f"{escape(said)}{about}"


def _outcome(happening: Happening) -> str:
    record = happening.record
    if record.denied:
        would = "would be " if "PERMISSIVE" in record.flags else ""
        return f"{would}denied {' '.join(map(escape, record.denied))}"
    if record.outcome == "failed":
        return f"failed {record.result}"
    told = f", though {' '.join(map(escape, record.reported))} would be denied"
    took = "" if happening.latency is None else f", after {happening.latency * 1e3:,.3f} ms"
    return f"{record.outcome}{told if record.reported else ''}{took}"
