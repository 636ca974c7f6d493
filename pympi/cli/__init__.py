# SPDX-License-Identifier: BSD-2-Clause
"""The `pympi` command: one module per verb; each builds an object and prints its result.

Exit codes: 0 done or yes, 1 the run failed or no, 2 wrong usage, or what cannot be read or written;
as of a shell's commands, 130 interrupted and 141 nobody reads what is printed, both without a word.
What went wrong is said on stderr; where --json was asked for, on stdout, as one object.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError

from .._version import __version__
from ..errors import PympiError
from ._output import tell_json, tell_people
from ._verbs import Verbs

FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
VERBS = {
    "demo": "Replay a small boot, refused in part.",
    "replay": "Run a recording again, under a policy.",
    "report": "One page about a run, for a browser.",
    "policy": "Write, ask and learn policies.",
    "audit": "Read, ask and prove audit files.",
    "tasks": "List tasks, and what each has.",
    "ports": "List names, and who is at the other end.",
    "labels": "Show the labels of tasks and ports.",
    "leaks": "Find what only grows, by who made it.",
    "bootstrap": "See the name server's names, and find one.",
    "avcstat": "Show how the access vector cache does.",
    "snapshot": "Keep the state of a live system in FILE.",
    "diff": "Compare snapshots OLD and NEW of a system.",
    "watch": "Show what a live system does.",
    "top": "Show a live system's busiest ports, full screen.",
    "bench": "Measure what a check costs on this machine.",
    "trace": "Show, draw and compare recordings.",
    "config": "Print what embedding the core in C or C++ takes.",
    "completion": "Print what has a shell complete pympi.",
}


@click.group(
    cls=Verbs, package=__name__, verbs=VERBS,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
@click.version_option(__version__, prog_name="pympi")
def cli() -> None:
    """Secured Mach IPC: look into live systems, write policies, replay recordings.

    "pympi VERB --help" says more of each.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    tell = tell_json if "--json" in words else tell_people
    color = False if os.environ.get("NO_COLOR") else None
    try:
        code = cli.main(words, prog_name="pympi", standalone_mode=False, color=color) or 0
        sys.stdout.flush()
        return code
    except NoArgsIsHelpError as error:  # its message is the help screen
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _failed(tell, error, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except SystemExit:  # what click makes of the same, and the end of what a shell asks to complete
        if "_PYMPI_COMPLETE" in os.environ:
            raise
        return _unread()
    except PympiError as error:  # those that are ValueErrors are about what was given
        return _failed(tell, error, BAD_INPUT if isinstance(error, ValueError) else FAILED)
    except OSError as error:
        return _failed(tell, error, BAD_INPUT)


def _failed(tell: Callable[[Exception], None], error: Exception, code: int) -> int:
    try:
        tell(error)
        sys.stdout.flush()
    except BrokenPipeError:
        return _unread()
    return code


def _unread() -> int:
    """Have Python not complain either, when it flushes what is left."""
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    return BROKEN_PIPE
