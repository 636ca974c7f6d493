# SPDX-License-Identifier: BSD-2-Clause
"""The `pympi` command: one module per verb; each builds an object and prints its result.

Exit codes: 0 done or yes, 1 the run failed or no, 2 wrong usage or unreadable input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from .._version import __version__
from ..errors import PympiError
from ._output import error_text, shown
from ._verbs import Verbs

FAILED, BAD_INPUT = 1, 2
VERBS = (
    "demo", "replay", "policy",
    "tasks", "ports", "labels", "leaks", "bootstrap", "avcstat", "snapshot", "diff",
    "completion",
)  # fmt: skip


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
    color = False if os.environ.get("NO_COLOR") else None
    try:
        code = cli.main(argv, standalone_mode=False, color=color) or 0
        sys.stdout.flush()
        return code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _complain("interrupted", FAILED)
    except BrokenPipeError:
        _forget_stdout()
        return FAILED
    except PympiError as error:  # those that are ValueErrors are about what was given
        return _complain(str(error), BAD_INPUT if isinstance(error, ValueError) else FAILED)
    except OSError as error:
        return _complain(error_text(error), FAILED)


def _complain(what: str, code: int) -> int:
    print(f"pympi: {shown(what)}", file=sys.stderr)
    return code


def _forget_stdout() -> None:
    """Whoever read has enough: what is left goes nowhere, and nobody complains at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
