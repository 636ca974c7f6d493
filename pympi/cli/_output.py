# SPDX-License-Identifier: BSD-2-Clause
"""What the verbs print: progress and complaints on stderr, results on stdout."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ..trace.text import escape

if TYPE_CHECKING:
    from ..trace.report import Report


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


class BadInput(click.ClickException):
    """A file that cannot be used: exit code 2, as for wrong usage."""

    exit_code = 2


@contextmanager
def bad_input() -> Iterator[None]:
    """What is wrong in here is what was given: exit code 2, and nothing odd shown."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(shown(error_text(error))) from error


def error_text(error: Exception) -> str:
    """Return what an error says; of a file that cannot be used, which and why."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def shown(text: str) -> str:
    """Return a text that does nothing to a terminal; line ends are kept, and backslashes."""
    return "\n".join(escape(line).replace("\\\\", "\\") for line in text.split("\n"))


def width() -> int:
    """Return how wide a line may be; unlimited where nobody looks."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 20


def wrapped(text: str, indent: str = "", later: str | None = None) -> str:
    """Return a paragraph for the terminal: lines begin with `indent`, those after one `later`."""
    return textwrap.fill(
        shown(text), width(), initial_indent=indent,
        subsequent_indent=indent + "    " if later is None else later,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def say(text: str = "", indent: str = "", later: str | None = None, **style: Any) -> None:
    """Print a paragraph, wrapped; `style` as of click.style."""
    click.secho(wrapped(text, indent, later) if text else "", **style)


def plural(count: int, what: str) -> str:
    """Return "1 rule" or "2 rules"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@contextmanager
def progress(what: str, total: int, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; yields what to call with the steps done.

    It is drawn in that call alone: a thread of its own would disturb what is measured.
    """
    console = Console(stderr=True)
    disable = hidden or not console.is_terminal
    with Progress(console=console, transient=True, auto_refresh=False, disable=disable) as bar:
        task = bar.add_task(what, total=total)
        drawn = time.monotonic()

        def advance(steps: int) -> None:
            nonlocal drawn
            due = time.monotonic() - drawn > 0.1
            bar.update(task, advance=steps, refresh=due)
            drawn = time.monotonic() if due else drawn

        yield advance


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say on stderr, where that is a terminal, what takes its time in here."""
    with Console(stderr=True).status(Text(what)):
        yield


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
    console = Console()
    console.print(_summary(report.as_dict()))
    if report.denied:
        console.print(_denied(report), soft_wrap=True)
    for path in artefacts:
        console.print(Text(f"wrote {path}"), soft_wrap=True)


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
    ("check_cost", "cost of the checks", "{:.2f} times the unchecked run".format),
    ("denials", "refused, as the policy says", "{:,}".format),
    ("not_performed", "not possible in consequence", "{:,}".format),
)


def _summary(result: dict[str, Any]) -> Table:
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


def _denied(report: Report) -> Text:
    lines = Text("denied\n")
    for denial in report.denied:
        subject, permission, target, reason = (escape(text) for text in denial[1:5])
        refused = f"{subject} may not {permission} to {target}"
        lines.append(f"{denial.times:>7,} times: {refused}\n", "bold")
        lines.append(f"{'':15}{reason}\n")
    return lines
