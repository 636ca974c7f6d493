# SPDX-License-Identifier: BSD-2-Clause
"""The `pympi` command: one module per verb; each builds an object and prints its result.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or unreadable input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .._version import __version__
from ..errors import PympiError
from .demo import demo
from .policy import policy
from .replay import replay

FAILED, BAD_INPUT = 1, 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pympi")
def cli() -> None:
    """Secured Mach IPC: replay recordings, under policies, and see what happens."""


for verb in (replay, demo, policy):
    cli.add_command(verb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit code."""
    try:
        return cli.main(argv, standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _complain("interrupted", FAILED)
    except PympiError as error:  # those that are ValueErrors are about what was given
        return _complain(str(error), BAD_INPUT if isinstance(error, ValueError) else FAILED)
    except OSError as error:
        return _complain(str(error), FAILED)


def _complain(what: str, code: int) -> int:
    print(f"pympi: {what}", file=sys.stderr)
    return code
