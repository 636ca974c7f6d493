# SPDX-License-Identifier: BSD-2-Clause
"""Files that come by a pipe, and are read more than once."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

__all__ = ["STDIN", "is_pipe", "kept_file"]

STDIN = "-"
_PIECE = 1 << 20  # bytes


def is_pipe(path: str) -> bool:
    """Whether what is there is stdin ("-"), or no file that can be read twice."""
    there = Path(path)
    return path == STDIN or (there.exists() and not there.is_file() and not there.is_dir())


@contextmanager
def kept_file(path: str) -> Iterator[Path]:
    """Yield a file that can be read twice: of stdin ("-"), and of a pipe, a copy.

    Raises:
        OSError: it is a device, of which some have no end; or it has more than half of what is free
            where copies go.
    """
    if not is_pipe(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="pympi-") as directory:
        copy = Path(directory, "stdin" if path == STDIN else Path(path).name)
        with _opened(path) as source, copy.open("wb") as kept:
            _check_kind(source, path)
            _copy(source, kept, path, shutil.disk_usage(directory).free // 2)
        yield copy


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb")


def _check_kind(source: BinaryIO, path: str) -> None:
    try:
        number = source.fileno()
    except OSError:  # a stream that is in memory
        return
    kind = os.fstat(number).st_mode
    if (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)) and not os.isatty(number):
        raise OSError(f"{_name(path)} is a device; a file, a directory or a pipe can be read")


def _copy(source: BinaryIO, kept: BinaryIO, path: str, most: int) -> None:
    while piece := source.read(_PIECE):
        most -= len(piece)
        if most < 0:
            remedy = "write it to a file, and name that"
            raise OSError(f"{_name(path)}: too much to keep a copy of; {remedy}")
        kept.write(piece)


def _name(path: str) -> str:
    return "stdin" if path == STDIN else path
