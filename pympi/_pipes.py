# SPDX-License-Identifier: BSD-2-Clause
"""Files that come by a pipe, and are read more than once."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

__all__ = ["STDIN", "is_pipe", "kept_file"]

STDIN = "-"


def is_pipe(path: str) -> bool:
    """Whether what is there is stdin ("-"), or no file that can be read twice."""
    there = Path(path)
    return path == STDIN or (there.exists() and not there.is_file() and not there.is_dir())


@contextmanager
def kept_file(path: str) -> Iterator[Path]:
    """Yield a file that can be read twice: of stdin ("-"), and of a pipe, a copy."""
    if not is_pipe(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="pympi-") as directory:
        copy = Path(directory, "stdin" if path == STDIN else Path(path).name)
        with copy.open("wb") as kept, _opened(path) as source:
            shutil.copyfileobj(source, kept)
        yield copy


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb")
