# SPDX-License-Identifier: BSD-2-Clause
"""`pympi watch`: what a live system does, as it happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from ..audit.watch import FILTERS, Filter, WatchRecord
from ..inspect import Connection
from ..inspect.messages import Happening, Joiner
from ..inspect.protocol import ROWS_A_LINE
from ..trace.text import escape
from ._output import ENDLESS, bad_input, complain, json_option, width
from ._source import live_option
from ._table import GAP, cut

_REAL = 1e8  # seconds: a clock that says less is none of the calendar
_COLORS = {"denied": "red", "failed": "yellow"}


def _check(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return Filter(words).words
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
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
    click.secho(line_of(happening, width()), fg=_COLORS.get(happening.record.outcome))


class _Layout(NamedTuple):
    """Cells of the columns before the outcome; 0: left out."""

    time: int
    who: int
    what: int
    size: int


_WIDE, _NARROW = _Layout(15, 32, 30, 9), _Layout(12, 24, 26, 0)
_LEAST_WIDE = 110  # cells of a line


def line_of(happening: Happening, room: int = ENDLESS) -> str:
    """Return a happening in one line, in which nothing does anything to a terminal.

    Args:
        happening: a message, or a decision.
        room: how many cells there are. Where they are few, time and outcome are shorter and sizes
            left out; what still has no room is cut.
    """
    record, layout = happening.record, _WIDE if room >= _LEAST_WIDE else _NARROW
    who = f"{_from(record)} -> {_whom(record)}"
    size = f"{record.size:,} B".rjust(layout.size) if happening.kind != "decision" else ""
    texts = (_time(record.time, layout), who, _what(happening), size)
    parts = []
    for text, most in zip(texts, layout, strict=True):
        if most:
            parts.append((text if room == ENDLESS else cut(text, most)).ljust(most))
    line = (" " * GAP).join([*parts, _outcome(happening, layout)]).rstrip()
    return line if room == ENDLESS else cut(line, room)


def _time(seconds: float, layout: _Layout) -> str:
    if seconds < _REAL:
        return f"{seconds:{layout.time}.{6 if layout is _WIDE else 3}f}"
    clock = datetime.fromtimestamp(seconds, UTC).astimezone()
    return clock.strftime("%H:%M:%S.%f")[: layout.time]


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


def _outcome(happening: Happening, layout: _Layout) -> str:
    record, brief = happening.record, layout is _NARROW
    if record.denied:
        would = "would be " if "PERMISSIVE" in record.flags else ""
        names = " ".join(record.denied)
        same = brief and names == happening.what
        return f"{would}denied" if same else f"{would}denied {escape(names)}"
    if record.outcome == "failed":
        return f"failed {record.result}"
    took = "" if happening.latency is None else f"{happening.latency * 1e3:,.3f} ms"
    if took and brief:
        return took
    told = f", though {' '.join(map(escape, record.reported))} would be denied"
    return f"{record.outcome}{told if record.reported else ''}{f', after {took}' if took else ''}"
