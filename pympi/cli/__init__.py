# SPDX-License-Identifier: BSD-2-Clause
"""The `pympi` command: one module per verb; each builds an object and prints its result.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or unreadable input; as of a shell's commands,
130 interrupted and 141 nobody reads what is printed, both without a word.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError

from .._version import __version__
from ..errors import PympiError
from ._output import complain, in_words
from .demo import demo
from .policy import policy
from .replay import replay
from .top import top
from .watch import watch

FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pympi")
def cli() -> None:
    """Secured Mach IPC: replay recordings, under policies, and see what happens."""


for verb in (replay, demo, policy, watch, top):
    cli.add_command(verb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit code."""
    try:
        code = cli.main(argv, prog_name="pympi", standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except NoArgsIsHelpError as error:  # its message is the help screen
        error.show()
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx:
            hint = f"Try '{error.ctx.command_path} --help' for help.\n"
            print(f"{error.ctx.get_usage()}\n{hint}", file=sys.stderr)
        return _complain(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except SystemExit:  # what click makes of the same, and the end of what a shell asks to complete
        if "_PYMPI_COMPLETE" in os.environ:
            raise
        return _unread()
    except PympiError as error:  # those that are ValueErrors are about what was given
        return _complain(str(error), BAD_INPUT if isinstance(error, ValueError) else FAILED)
    except OSError as error:
        return _complain(in_words(error), FAILED)


def _complain(what: str, code: int) -> int:
    complain(what)
    return code


def _unread() -> int:
    """Have Python not complain either, when it flushes what is left."""
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    return BROKEN_PIPE
