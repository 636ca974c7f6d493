# SPDX-License-Identifier: BSD-2-Clause
"""What the verbs about traces share: reading recordings, and writing what they make."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..._pipes import STDIN
from .._artefacts import publish_files
from .._output import BadInput, ExistingFile, asking, bad_input, complain, shown, warn_of_loss

if TYPE_CHECKING:
    from ...trace.recordings import Recording


class RecordingFile(ExistingFile):
    """What is there, or "-" for stdin; its name as it was given. A directory has parts."""

    def __init__(self) -> None:
        super().__init__(directories=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        return str(value) if value == STDIN else str(super().convert(value, param, ctx))


RECORDING = RecordingFile()

recordings_argument = click.argument(
    "recordings", metavar="TRACE...", type=RECORDING, nargs=-1, required=True
)
out_option = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Where it goes, instead of stdout.",
)  # fmt: skip


def read(paths: Sequence[str]) -> list[Recording]:
    """Read recordings, and say which of them lack something.

    Raises:
        BadInput: one cannot be read, or stdin was asked for twice.
    """
    from ...trace.recordings import read_recording

    if list(paths).count(STDIN) > 1:
        raise click.UsageError("- is stdin, which can be read once")
    with asking():
        found = [read_recording(path) for path in paths]
    for each in found:
        warn_of_loss(each.name, each.lost, "record" if each.paths else "event")
        if each.sampled:
            complain(f"{each.name} was sampled by chance: counts are estimates")
    return found


def inputs(paths: Sequence[str]) -> list[Path]:
    """Return the files that are read, and must not be written to."""
    return [Path(path) for path in paths if path != STDIN]


def write(
    contents: bytes, out: Path | None, recordings: Sequence[str], *, text: bool = True
) -> None:
    """Write a result to a file, or to stdout.

    On a terminal, text does nothing to it, and what is no text is not written.

    Raises:
        BadInput: the file cannot be written, or is one that was read.
    """
    if out is not None:
        with bad_input():
            publish_files([(out, contents)], inputs(recordings))
        return
    buffer: Callable[[bytes], object] | None = getattr(sys.stdout, "buffer", None) and (
        sys.stdout.buffer.write
    )
    if not text and sys.stdout.isatty():
        raise BadInput("this is nothing for a terminal: --out FILE")
    if buffer is None or sys.stdout.isatty():
        sys.stdout.write(shown(contents.decode(errors="backslashreplace")))
        return
    sys.stdout.flush()
    buffer(contents)
