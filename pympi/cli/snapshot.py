# SPDX-License-Identifier: BSD-2-Clause
"""`pympi snapshot`: the state of a live system, kept in a file."""

from __future__ import annotations

from pathlib import Path

import click

from ._output import BadInput, json_option, plural, print_json, shown
from ._source import PATH, Source, attach_option


@click.command()
@attach_option
@click.argument("file", type=PATH)
@click.option("--consistent", is_flag=True, help="Have the system stand still meanwhile.")
@json_option
def snapshot(socket: Path | None, file: Path, consistent: bool, as_json: bool) -> int:
    """Keep the state of a live system in FILE.

    The other verbs read it. The system goes on running unless --consistent is given, which its
    socket has to allow. What FILE held before stays until all is written.
    """
    if socket is None:
        raise click.UsageError("Of what? --attach SOCKET.")
    taken = Source(socket, None).ask(lambda connection: connection.snapshot(consistent=consistent))
    try:
        taken.save(file)
    except OSError as error:  # it may name the file beside, which nobody asked for
        raise BadInput(shown(f"{file}: {error.strerror}")) from error
    counts = {name: len(getattr(taken, name)) for name in ("tasks", "ports", "rights")}
    stopped = taken.stopped_seconds
    if as_json:
        print_json({
            "file": str(file), **counts, "stopped_seconds": stopped,
            "operations_meanwhile": taken.changes.operations,
        })  # fmt: skip
        return 0
    what = ", ".join(plural(count, name[:-1]) for name, count in counts.items())
    click.echo(f"{shown(str(file))}: {what}")
    click.echo(
        f"The system went on: {plural(taken.changes.operations, 'operation')} meanwhile."
        if stopped is None else f"The system stood still for {1e6 * stopped:,.0f} µs."
    )  # fmt: skip
    return 0
