# SPDX-License-Identifier: BSD-2-Clause
"""Where the verbs look: at a live kernel by its control socket, or into a saved snapshot."""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._output import NumberRange, bad_input, busy, json_option, shown

if TYPE_CHECKING:
    from ..inspect import Connection, Context, Snapshot, Task
    from ..inspect.joined import Joined

T = TypeVar("T")
PATH = click.Path(path_type=Path)


class Source:
    """A control socket, or a file with a snapshot: one of the two is None."""

    def __init__(self, socket: Path | None, file: Path | None) -> None:
        self.socket = socket
        self.file = file

    def snapshot(self) -> Snapshot:
        """Return the snapshot in the file, or take one.

        Raises:
            BadInput: there is none to be had.
        """
        if self.file is not None:
            return load(self.file)
        return self.ask(lambda connection: connection.snapshot())

    def joined(self) -> Joined:
        """Return the snapshot, indexed."""
        from ..inspect.joined import Joined

        return Joined(self.snapshot())

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Put a question to the live kernel.

        Raises:
            BadInput: it cannot be asked, or does not answer.
        """
        from ..inspect import Connection

        what = f"asking {shown(str(self.socket))}"
        with bad_input(), busy(what), Connection(self.socket or "") as connection:
            return question(connection)


def load(path: Path) -> Snapshot:
    """Return the snapshot in a file.

    Raises:
        BadInput: it is none.
    """
    from ..inspect import Snapshot

    with bad_input():
        if stat.S_ISSOCK(path.stat().st_mode):
            raise ValueError(f"{path} is a socket, no file: --attach {path}")
        with busy(f"reading {shown(str(path))}"):
            return Snapshot.load(path)


class Seconds(NumberRange):
    """A time to wait: more than nothing, a day at most."""

    name = "number of seconds"

    def __init__(self) -> None:
        super().__init__(0.0, 86400.0, min_open=True)


def _attach(required: bool) -> Callable[[Any], Any]:
    return click.option(
        "--attach", "socket", type=PATH, metavar="SOCKET", required=required,
        help="Ask the live system whose control socket this is.",
    )  # fmt: skip


attach_option = _attach(required=False)
live_option = _attach(required=True)


def source_arguments(*more: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a verb `--attach`, `--json`, and arguments: a file unless it is attached, then `more`.

    Each of `more` may be left out, and is None then. The verb is called with `source`, a Source.
    """

    def decorate(verb: Callable[..., int]) -> Callable[..., int]:
        metavar = " ".join(["{--attach SOCKET | SNAPSHOT}", *(f"[{m.upper()}]" for m in more)])

        @functools.wraps(verb)
        def with_source(socket: Path | None, words: tuple[str, ...], **rest: Any) -> int:
            source, others = _divided(socket, words, more)
            return verb(source=source, **others, **rest)

        decorated: Any = with_source
        for option in (json_option, attach_option):
            decorated = option(decorated)
        return click.argument("words", nargs=-1, type=click.Path(), metavar=metavar)(decorated)

    return decorate


def _divided(
    socket: Path | None, words: tuple[str, ...], more: tuple[str, ...]
) -> tuple[Source, dict[str, str | None]]:
    if socket is None and not words:
        raise click.UsageError("Where? --attach SOCKET for a live system, or a snapshot's file.")
    file, others = (None, words) if socket is not None else (Path(words[0]), words[1:])
    if len(others) > len(more):
        raise click.UsageError(f"Got unexpected extra argument ({shown(others[len(more)])})")
    padded = [*others, *[None] * (len(more) - len(others))]
    return Source(socket, file), dict(zip(more, padded, strict=True))


def tasks_named(joined: Joined, pattern: str | None) -> list[Task]:
    """Return tasks by number or name; all for None.

    Raises:
        ClickException: there is none.
    """
    found = joined.chosen(pattern or "*")
    if pattern is not None and not found:
        raise click.ClickException(f"no task has the number or name {shown(pattern)!r}")
    return found


def contexts_of(joined: Joined) -> list[Context]:
    """Return the contexts of the name server.

    Raises:
        ClickException: there is no name server.
    """
    if joined.snapshot.bootstrap is None:
        raise click.ClickException("there is no name server")
    return [*joined.contexts.values()]
