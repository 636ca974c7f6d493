# SPDX-License-Identifier: BSD-2-Clause
"""What the verbs print: progress and complaints on stderr, results on stdout."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..errors import PolicyError
from ..trace.text import escape

if TYPE_CHECKING:
    from rich.table import Table

    from ..trace.report import Report


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class BadInput(click.ClickException):
    """A file that cannot be used: exit code 2, as for wrong usage."""

    exit_code = 2


class ExistingFile(click.Path):
    """A file that is there; the error about one that is not names it in `file`."""

    def __init__(self, *, directories: bool = False) -> None:
        super().__init__(exists=True, dir_okay=directories, path_type=Path)
        self.name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            vars(error)["file"] = str(value)
            raise


FILE = ExistingFile()


class NumberRange(click.FloatRange):
    """A number in a range, in which click finds nan, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


@contextmanager
def bad_input() -> Iterator[None]:
    """Errors in here are the input's fault."""
    try:
        yield
    except BrokenPipeError:  # nobody reads what is printed
        raise
    except OSError as error:
        raise BadInput(in_words(error)) from error
    except ValueError as error:
        raise BadInput(str(error)) from error


@contextmanager
def asking() -> Iterator[None]:
    """As `bad_input` and `busy`, with the verb's own name."""
    with bad_input(), busy(f"{click.get_current_context().command_path} ..."):
        yield


def afterwards(action: Callable[[], None]) -> None:
    """Have something done when the verb has ended, and what it printed is out."""
    context = click.get_current_context()
    context.call_on_close(action)
    context.call_on_close(sys.stdout.flush)  # the last is called first


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Where it takes long in here, and stderr is a terminal, say what is done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    status = Console(stderr=True).status(Text(what))
    late = threading.Timer(0.5, status.start)
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()
        status.stop()


def in_words(error: OSError) -> str:
    """Return what the system said, and of which file."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


def shown(text: str) -> str:
    """Return a text that does nothing to a terminal; line ends are kept, and backslashes."""
    return "\n".join(escape(line).replace("\\\\", "\\") for line in text.split("\n"))


@contextmanager
def progress(what: str, total: int, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; yields what to call with the steps done.

    It is drawn in that call alone: a thread of its own would disturb what is measured.
    """
    if hidden or not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task(what, total=total)
        drawn = time.monotonic()

        def advance(steps: int) -> None:
            nonlocal drawn
            due = time.monotonic() - drawn > 0.1
            bar.update(task, advance=steps, refresh=due)
            drawn = time.monotonic() if due else drawn

        yield advance


ENDLESS = 1 << 20
"""The width of a line that nobody looks at."""


def width(stream: TextIO | None = None) -> int:
    """Return how wide a line of stdout may be, or of a stream; unlimited where nobody looks."""
    looked_at = (stream or sys.stdout).isatty()
    return shutil.get_terminal_size().columns if looked_at else ENDLESS


def wrapped(
    text: str, indent: str = "", later: str | None = None, stream: TextIO | None = None
) -> str:
    """Return a paragraph for the terminal: lines begin with `indent`, those after one `later`."""
    line, columns = shown(text).rstrip(), width(stream)
    if line and "\n" not in line and len(indent + line) <= columns:  # textwrap takes long to say so
        return indent + line
    return textwrap.fill(
        line, columns, initial_indent=indent,
        subsequent_indent=indent + "    " if later is None else later,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def complain(what: str) -> None:
    """Say something on stderr that is no result."""
    print(wrapped(f"pympi: {what}", stream=sys.stderr), file=sys.stderr)


def warn_of_loss(name: object, lost: int, what: str = "record") -> None:
    """Say on stderr that a recording lacks something."""
    if lost:
        complain(f"{name} lacks {plural(lost, what)}: lost, or not readable")


def _message(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    return in_words(error) if isinstance(error, OSError) else str(error)


def tell_people(error: Exception) -> None:
    """Say what went wrong on stderr, and how a command is used where that was wrong."""
    if isinstance(error, click.UsageError) and error.ctx:
        hint = f"Try '{error.ctx.command_path} --help' for help.\n"
        print(f"{error.ctx.get_usage()}\n{hint}", file=sys.stderr)
    complain(_message(error))


def tell_json(error: Exception) -> None:
    """Print what went wrong as one object, with its place as far as the error knows it."""
    file = _known(error, "file") or _known(error, "filename")
    place = {"file": None if file == PolicyError("").file else file}
    place |= {name: _known(error, name) for name in ("line", "column")}
    print_json({"error": _message(error), **place})


def _known(error: Exception, name: str) -> str | int | None:
    """What an error, or the one it was made of, says of itself; None for nothing, 0 and ""."""
    values = (getattr(each, name, None) for each in (error, error.__cause__))
    return next((value for value in values if isinstance(value, str | int) and value), None)


def say(text: str = "", indent: str = "", later: str | None = None, **style: Any) -> None:
    """Print a paragraph, wrapped; `style` as of click.style."""
    click.secho(wrapped(text, indent, later) if text else "", **style)


def plural(count: int, what: str) -> str:
    """Return "1 rule" or "2 rules"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def print_json(result: Mapping[str, Any]) -> None:
    """Print one object, for programs. What comes as an iterator has a line for each item.

    All is ASCII: what could do something to a terminal is escaped.
    """
    for piece in _pieces(result):
        sys.stdout.write(piece.replace("\x7f", "\\u007f"))  # the one control that JSON leaves


def _pieces(result: Mapping[str, Any]) -> Iterator[str]:
    yield "{"
    for number, (key, value) in enumerate(result.items()):
        yield f"{',' if number else ''}\n  {json.dumps(key)}: "
        if isinstance(value, Iterator):
            yield from _lines(value)
        else:
            yield json.dumps(value, indent=2).replace("\n", "\n  ")
    yield "\n}\n"


def _lines(items: Iterator[Any]) -> Iterator[str]:
    before = "[\n    "
    for item in items:
        yield before + json.dumps(item)
        before = ",\n    "
    yield "[]" if before.startswith("[") else "\n  ]"


def print_report_json(report: Report, artefacts: Sequence[Path]) -> None:
    """Print what came of a replay, for programs."""
    print_json(report.as_dict() | {"artefacts": [str(path) for path in artefacts]})


def print_report(report: Report, artefacts: Sequence[Path]) -> None:
    """Tables, for people."""
    from rich.console import Console

    console = Console()
    console.print(_summary(report.as_dict()))
    if report.denied:
        _print_denied(report)
    for path in artefacts:
        say(f"wrote {path}")


#: Key of the summary, what it is called, how its value looks.
_LINES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("tasks", "tasks", "{:,}".format),
    ("ports", "ports", "{:,}".format),
    ("records", "records", "{:,}".format),
    ("events", "events of SEDarwin's three kinds", "{:,}".format),
    ("lost", "events the recorder had no room for", "{:,}".format),
    ("exact", "all that was recorded happened again", lambda exact: "yes" if exact else "not all"),
    ("messages", "messages", "{:,}".format),
    ("messages_per_second", "messages per second", "{:,.0f}".format),
    ("check_cost", "cost of the checks, to the unchecked run", "{:.2f} times".format),
    ("denials", "refused, as the policy says", "{:,}".format),
    ("not_performed", "not possible in consequence", "{:,}".format),
)


def _summary(result: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for key, name, shown in _LINES:
        if result[key] is not None:
            table.add_row(name, shown(result[key]))
    table.add_row("events by kind")
    for kind, count in result["events_by_kind"].items():
        table.add_row(f"  {kind}", f"{count:,}")
    return table


def _print_denied(report: Report) -> None:
    say("denied")
    for denial in report.denied:
        refused = f"{denial.subject} may not {denial.permission} to {denial.object}"
        say(f"{denial.times:>7,} times: {refused}", "", " " * 15, bold=True)
        say(denial.reason, " " * 15, " " * 15)
    say()
