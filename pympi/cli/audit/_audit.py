# SPDX-License-Identifier: BSD-2-Clause
"""What the verbs about recorded files share: files and filters as arguments."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ..._pipes import is_pipe, kept_file
from ...audit import AuditError
from ...audit.forms import Damaged, form_by
from ...audit.query import QUERY_FILTERS, Question
from .._output import (
    ExistingFile,
    asking,
    bad_input,
    complain,
    json_option,
    plural,
    print_json,
    say,
)

__all__ = [
    "NO", "OWN_FILE", "YES", "Asked", "asked_argument", "asking", "bad_input", "complain",
    "definitions", "growing_argument", "json_option", "plural", "print_json", "say", "sound_option",
]  # fmt: skip

YES, NO = 0, 1


def definitions(title: str, words: Mapping[str, str]) -> str:
    """Return words and what they mean as a part of a help screen, a line each."""
    room = max(map(len, words)) + 4
    lines = [
        textwrap.fill(
            what, 76, initial_indent=f"  {word}".ljust(room), subsequent_indent=room * " "
        )
        for word, what in words.items()
    ]
    return "\n".join(["\b", title, *lines])


EPILOG = definitions(
    "Filters, of which all have to hold; * and ? stand for any characters:",
    {f"{key}=": what for key, what in QUERY_FILTERS.items()},
)


class Asked(NamedTuple):
    """What a command line asks about.

    Attributes:
        files: that were recorded; a directory has parts, as the sink Parquet writes them.
        filters: which all have to hold.
    """

    files: tuple[Path, ...]
    filters: tuple[str, ...]


def _kept(path: str, ctx: click.Context | None) -> str:
    """Return a file that can be read twice; of stdin and of a pipe, a copy that the verb has."""
    if not ctx or not is_pipe(path):
        return path
    with bad_input():
        return str(ctx.with_resource(kept_file(path)))


class _Recorded(click.Path):
    """A recorded file, or a pipe; or, with `filters`, a word that is one."""

    def __init__(self, *, filters: bool = False, pipes: bool = True) -> None:
        super().__init__(exists=True, readable=True, path_type=Path)
        self._filters, self._pipes = filters, pipes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or a filter as it is."""
        key, equals, _ = str(value).partition("=")
        if self._filters and equals and key in QUERY_FILTERS:
            return str(value)
        if self._filters and equals and key.isidentifier() and not Path(str(value)).exists():
            self.fail(f"no filter {key!r}; there are: {', '.join(QUERY_FILTERS)}", param, ctx)
        if not self._pipes and is_pipe(str(value)):
            self.fail(f"{value} is a pipe, which print reads", param, ctx)
        return super().convert(_kept(str(value), ctx), param, ctx)


FILE = _Recorded()


class _OwnFile(ExistingFile):
    """A file that `File` wrote, or may have: not of another form."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        path: Path = super().convert(_kept(str(value), ctx), param, ctx)
        with bad_input(), path.open("rb") as file:
            form = form_by(file.read(16))
        if form and form.word != "audit":
            self.fail(f"{path} is {form.name}; this is about audit files, which File writes")
        return path


OWN_FILE = _OwnFile()


def _split(_: click.Context, __: click.Parameter, words: Sequence[Any]) -> Asked:
    files = tuple(word for word in words if isinstance(word, Path))
    filters = tuple(word for word in words if not isinstance(word, Path))
    if not files:
        raise click.UsageError("Missing argument 'FILE...'.")
    try:
        Question(filters)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return Asked(files, filters)


def _told(_: click.Context, __: click.Parameter, sound: bool) -> Damaged | None:
    said: set[str] = set()

    def tell(error: AuditError) -> None:
        if str(error) not in said:
            said.add(str(error))
            complain(f"{error}; the rest is left out")

    return tell if sound else None


def sound_option(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `--sound`, which becomes what is told of damage, or None."""
    return click.option(
        "--sound", "damaged", is_flag=True, callback=_told,
        help="Of a damaged file, take what comes before the damage.",
    )(verb)  # fmt: skip


def _asked(*, pipes: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.argument(
        "asked", nargs=-1, type=_Recorded(filters=True, pipes=pipes), callback=_split,
        metavar="FILE... [FILTER]...",
    )  # fmt: skip


asked_argument = _asked(pipes=True)
"""Gives a verb the argument `asked`: files, and filters among them."""
growing_argument = _asked(pipes=False)
"""The same, of files that are still written."""
