# SPDX-License-Identifier: BSD-2-Clause
"""`pympi leaks`: what only grows, by who made it, and what is kept for nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ._output import asking, busy, json_option, plural, print_json
from ._source import PATH, Seconds, Source, attach_option, load
from ._table import Column, Section, print_sections
from .diff import NAME, numbers_text, task_text
from .ports import other_end, rights_text

if TYPE_CHECKING:
    from ..inspect import Snapshot
    from ..inspect.joined import Joined
    from ..inspect.leaks import Growth, Leaks

SAMPLES = 5
FEW = 4  # numbers in a cell
SHORT = 0.1  # seconds of which no rate is told
GROWING = (
    Column("TASK", least=10),
    Column("WHAT"),
    Column("FROM", right=True),
    Column("TO", right=True),
    Column("PER SECOND", right=True, spare=3),
    Column("LABEL", least=14, tail=True, spare=1),
    Column("HOW", least=10, spare=2),
    Column("WHICH", least=8, spare=4),
)
KEPT = (
    Column("TASK", least=10),
    Column("COUNT", right=True),
    Column("WHAT", least=10),
    Column("WHICH", least=10),
)


@click.command()
@attach_option
@click.argument("files", nargs=-1, type=PATH, metavar="{--attach SOCKET | SNAPSHOT...}")
@click.option(
    "--interval", type=Seconds(), default=1.0, show_default=True, metavar="SECONDS",
    help="Of a live system: between samples.",
)  # fmt: skip
@click.option(
    "--samples", type=click.IntRange(1, 1000), default=SAMPLES, show_default=True, metavar="N",
    help="Of a live system.",
)  # fmt: skip
@click.option(
    "--references", type=click.IntRange(1), default=1000, show_default=True, metavar="N",
    help="How many user references of one name are many.",
)  # fmt: skip
@json_option
def leaks(
    socket: Path | None, files: tuple[Path, ...], interval: float, samples: int, references: int,
    as_json: bool,
) -> int:  # fmt: skip
    """Find what only grows, by who made it.

    That takes two or more snapshots, the oldest first, or a live system, which is looked at again
    and again. Ports are told of by the task that made them; names, and the user references of a
    name, by the task that has them. HOW is where names came from: made in the task, or received,
    with the numbers of the transfers as in audit records. The more samples, the fewer are there by
    chance.

    Also found, in one snapshot too: dead names, names with many references, and ports with full
    queues that nobody receives from. Exit code 1: something was found.
    """
    from ..inspect.joined import Joined
    from ..inspect.leaks import find_leaks

    taken = _samples(socket, interval, samples) if socket else _loaded(files)
    with asking():
        found = find_leaks(taken, large=references)
        joined = Joined(taken[-1])
    if as_json:
        print_json(_as_dict(found, joined, len(taken)))
    else:
        _print(found, joined, len(taken))
    return 1 if found else 0


def _loaded(files: tuple[Path, ...]) -> list[Snapshot]:
    if not files:
        raise click.UsageError("Where? --attach SOCKET for a live system, or files of snapshots.")
    return [load(path) for path in files]


def _samples(socket: Path, interval: float, count: int) -> list[Snapshot]:
    source = Source(socket, None)
    taken = [source.snapshot()]
    for number in range(1, count):
        with busy(f"{plural(number, 'snapshot')} of {count:,}"):
            time.sleep(interval)
        taken.append(source.snapshot())
    return taken


def _print(found: Leaks, joined: Joined, count: int) -> None:
    if found.growing:
        title = f"growing, in {plural(count, 'snapshot')} over {found.seconds:,.1f} s"
        rows = [_row(growth, joined, found.seconds) for growth in found.growing]
        print_sections(GROWING, [Section(title, rows)])
    kept = [section for section in _kept(found, joined) if section.rows]
    if kept:
        click.echo("\n" if found.growing else "", nl=False)
        print_sections(KEPT, kept)
    if not found:
        what = "Nothing only grows, and nothing" if count > 1 else "Nothing"
        click.echo(f"{what} is kept for nothing, in {plural(count, 'snapshot')}.")
    if count == 1:
        click.echo("What grows is seen in two snapshots or more.", err=True)


def _what(growth: Growth) -> str:
    if growth.what == "ports":
        return "ports made"
    return f"{rights_text(growth.types)} {growth.what}"


def _how(growth: Growth) -> str:
    if growth.what == "ports":
        return ""
    if not growth.received:
        return "made here"
    first, last = growth.transfers
    return f"received, transfers {first} to {last}" if first else "received"


def _row(growth: Growth, joined: Joined, seconds: float) -> tuple[str, ...]:
    rate = f"{growth.grown / seconds:,.1f}" if seconds >= SHORT else ""
    which = numbers_text(growth.new, "d" if growth.what == "ports" else NAME, FEW)
    return (
        task_text(joined, growth.task), _what(growth), f"{growth.counts[0]:,}",
        f"{growth.counts[-1]:,}", rate, growth.label, _how(growth),
        f"name {which}" if growth.what == "references" else which,
    )  # fmt: skip


def _kept(found: Leaks, joined: Joined) -> Iterator[Section]:
    yield Section("dead names kept", [
        (task_text(joined, task), f"{len(names):,}", "dead names", numbers_text(names, NAME, FEW))
        for task, names in found.dead_names.items()
    ])  # fmt: skip
    yield Section("many user references", [
        (
            task_text(joined, right.task), f"{right.user_references:,}",
            f"references of name {right.name:{NAME}}",
            other_end(joined, right, joined.port_of(right)),
        )
        for right in found.references
    ])  # fmt: skip
    yield Section("full queues that nobody receives from", [
        (
            task_text(joined, port.receiver), f"{port.queue_length:,}",
            f"messages in port {port.id}", " ".join(joined.service_names.get(port.id, ())),
        )
        for port in found.stuck
    ])  # fmt: skip


def _as_dict(found: Leaks, joined: Joined, count: int) -> dict[str, Any]:
    return {
        "snapshots": count,
        "seconds": found.seconds if math.isfinite(found.seconds) else None,
        "growing": (
            growth._asdict() | {"task_name": joined.task_name(growth.task), "grown": growth.grown}
            for growth in found.growing
        ),
        "dead_names": (
            {"task": task, "task_name": joined.task_name(task), "names": names}
            for task, names in found.dead_names.items()
        ),
        "references": (msgspec.to_builtins(right) for right in found.references),
        "stuck": (msgspec.to_builtins(port) for port in found.stuck),
    }
