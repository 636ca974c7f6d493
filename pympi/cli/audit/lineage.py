# SPDX-License-Identifier: BSD-2-Clause
"""`pympi audit lineage`: how a task came to hold a right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ...audit import AuditRecord, batches
from ...audit.forms import Damaged
from ...audit.lineage import History, Holding, NoRight, find, history
from ...audit.sentence import when
from ...escape import escape
from . import _audit as ui


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="FILE... [TASK:NAME]")
@click.option(
    "--of-port", "port", type=click.IntRange(1), metavar="N", help="All who got one to this port."
)
@ui.sound_option
@ui.json_option
@click.pass_context
def lineage(
    ctx: click.Context, words: tuple[str, ...], port: int | None, damaged: Damaged | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Print how a task came to hold a right, back to the task that made the port.

    TASK is a number or a name, NAME the number of the right in the task's space, as in
    printd:0x203. With --of-port, print who ever got a right to the port, and from whom. Several
    FILEs are one trail, the oldest first. What they do not tell is said. Exit code 1: they know
    nothing of such a right.
    """
    names, right = (words, "") if port else (words[:-1], words[-1])
    if not names or (port and ":" in words[-1] and not Path(words[-1]).exists()):
        raise click.UsageError("Say one of TASK:NAME and --of-port N, and FILEs before.")
    files = [ui.FILE.convert(name, None, ctx) for name in names]
    with ui.asking():
        try:
            told, way = _found(files, right, port, damaged)
        except NoRight as none:
            raise _No(str(none)) from none
    if as_json:
        ui.print_json(_as_dict(told, way))
    else:
        _print(told, way)
    return ui.YES


class _No(click.ClickException):
    """There is no such right."""

    exit_code = ui.NO


def _found(
    files: Sequence[Path], right: str, port: int | None, damaged: Damaged | None
) -> tuple[History, list[Holding]]:
    """Return the history of a port, and the way of the right if one was asked for."""
    if port:
        return history(batches(files, damaged), port), []
    found = find(batches(files, damaged), right)
    told = history(batches(files, damaged), found.port)
    return told, told.of(found).way()


# ---- for people ----


def _print(told: History, way: list[Holding]) -> None:
    if way:
        click.echo(f"{_who(way[0])} holds a {way[0].kind or 'right'} right to port {told.port}:")
        for depth, holding in enumerate(way):
            _say(holding, depth)
    else:
        click.echo(f"rights to port {told.port}:")
        for root in told.roots:
            for depth, holding in _walk(root):
                _say(holding, depth)
    if told.missing:
        ui.complain(f"{ui.plural(told.missing, 'record')} missing, of this or of other ports")


def _walk(root: Holding) -> Iterator[tuple[int, Holding]]:
    """Yield a holding and all that came of it, without recursion: chains may be long."""
    waiting = [(0, root)]
    while waiting:
        depth, holding = waiting.pop()
        yield depth, holding
        waiting.extend((depth + 1, each) for each in reversed(holding.passed_on))


def _say(holding: Holding, depth: int) -> None:
    indent = "  " * min(depth + 1, 30)
    color = "red" if holding.refused else "yellow" if holding.unknown else None
    ui.say(_sentence(holding), indent, indent + "    ", fg=color)


def _sentence(holding: Holding) -> str:
    if not holding.transfer and not holding.name:  # as of a bus, where rights have no names
        return f"{_who(holding)} has a right to it, and no record says from where"
    if not holding.transfer:
        return f"{_who(holding)} made the port"
    origin = f" {_origin(holding.given)}" if holding.given else ""
    taken = f", taken {_at(holding.taken)}" if holding.taken else ""
    unknown = f"; {holding.unknown}" if holding.unknown else ""
    return f"{_who(holding)} {_got(holding)}{origin}{taken}, transfer {holding.transfer}{unknown}"


def _origin(record: AuditRecord) -> str:
    giver = f"{escape(record.task_name) or 'task'} ({record.task}):{record.name:#x}"
    asked = " ".join(map(escape, record.asked))
    how = "as a special port set by" if record.operation == "task" else "from"
    return f"{how} {giver}, {asked} {_at(record)}"


def _got(holding: Holding) -> str:
    what = f"a {holding.kind} right" if holding.kind else "it"
    record = holding.taken or holding.given
    if holding.refused and record:
        return f"was refused {what} ({record.result})"
    return f"got {what}"


def _who(holding: Holding) -> str:
    if not holding.task:
        label = f" of {escape(holding.subject)}" if holding.subject not in ("", "-") else ""
        return f"somebody{label}"
    name = f":{holding.name:#x}" if holding.name else ""
    return f"{escape(holding.task_name) or 'task'} ({holding.task}){name}"


def _at(record: AuditRecord) -> str:
    return f"at {when(record.time, 6)} (#{record.sequence})"


# ---- for programs ----


def _as_dict(told: History, way: list[Holding]) -> dict[str, Any]:
    chosen = way or told.holdings
    numbers = {id(holding): number for number, holding in enumerate(chosen)}
    return {
        "port": told.port,
        "missing": told.missing,
        "holdings": (_holding(each, numbers) for each in chosen),
    }


def _holding(holding: Holding, numbers: dict[int, int]) -> dict[str, Any]:
    return {
        "task": holding.task or None,
        "task_name": holding.task_name,
        "subject": holding.subject,
        "name": holding.name or None,
        "kind": holding.kind,
        "transfer": holding.transfer,
        "refused": holding.refused,
        "unknown": holding.unknown,
        "giver": numbers.get(id(holding.giver)),
        "given": _record(holding.given),
        "taken": _record(holding.taken),
    }


def _record(record: AuditRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "sequence": record.sequence,
        "time": record.time,
        "task": record.task,
        "name": record.name,
        "asked": list(record.asked),
        "result": record.result,
    }
