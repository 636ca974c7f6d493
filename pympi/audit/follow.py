# SPDX-License-Identifier: BSD-2-Clause
"""Audit files that are written meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .._closing import Closing
from .reader import AuditError, Reader
from .record import Batch

__all__ = ["Growing", "follow"]


class Growing(Closing):
    """A file that grows: who reads beyond its end waits.

    Args:
        path: of the file.
        idle: called while there is nothing to read, again and again; it waits, and may raise what
            ends the reading.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, idle: Callable[[], object]) -> None:
        self._path, self._idle = path, idle
        self._file = path.open("rb")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer if there is another file under that name now.

        Raises:
            AuditError: the file was cut off.
        """
        return self._gather(lambda have: self._file.read(size - have), lambda got: len(got) >= size)

    def readline(self, limit: int) -> bytes:
        """Return a line, of at most so many bytes."""
        return self._gather(
            lambda have: self._file.readline(limit - have),
            lambda got: got.endswith(b"\n") or len(got) >= limit,
        )

    def _gather(self, more: Callable[[int], bytes], done: Callable[[bytearray], bool]) -> bytes:
        got = bytearray()
        while not done(got):
            piece = more(len(got))
            got += piece
            if piece:
                continue
            if self._replaced():
                break
            self._idle()
        return bytes(got)

    def _replaced(self) -> bool:
        mine = os.fstat(self._file.fileno())
        if mine.st_size < self._file.tell():
            raise AuditError(f"{self._path} was cut off while it was followed")
        try:
            there = self._path.stat()
        except FileNotFoundError:  # moved; the next one is not there yet
            return False
        return not os.path.samestat(mine, there)


def follow(path: Path, idle: Callable[[], object]) -> Iterator[Batch]:
    """Iterate over the records of an audit file, and over those that are written to it later.

    If another file comes in its place, that is followed from then on. It ends when `idle` raises.

    Args:
        path: of a file of the binary form.
        idle: see `Growing`.

    Raises:
        AuditError: it is no audit file, or is damaged or cut off.
        OSError: it cannot be read.
    """
    while True:
        with Growing(path, idle) as growing:
            file: Any = growing
            yield from Reader(file, str(path))
