# SPDX-License-Identifier: BSD-2-Clause
"""What sinks that write lines of text have in common."""

from __future__ import annotations

import logging
import os
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate

from ..record import AuditRecord, Batch
from ..resume import Bytes
from ..writer import FileChanged, Writer

__all__ = ["LineFile", "printable", "sentence"]

_log = logging.getLogger("pympi.audit")
_PLAIN = re.compile(r"[\x20-\x5b\x5d-\x7e]*")


def printable(text: str, most: int = 1024, *, quoted: str = "") -> str:
    r"""Return text as printable ASCII in one line: the rest as `\u{hex}`, a backslash doubled.

    Args:
        text: may be anything.
        most: characters of the result; what is too long is cut, and ends in "...".
        quoted: characters that get a backslash before them.

    Example:
        >>> printable("a\nb\\c")
        'a\\u{a}b\\\\c'
        >>> printable("a\n" * 9, 12)
        'a\\u{a}a...'
    """
    if not quoted and len(text) <= most and _PLAIN.fullmatch(text):
        return text
    pieces = [_piece(character, quoted) for character in text[: most + 1]]
    lengths = list(accumulate(map(len, pieces)))
    if not lengths or lengths[-1] <= most:
        return "".join(pieces)
    return "".join(pieces[: bisect_right(lengths, most - 3)]) + "..."


def _piece(character: str, quoted: str) -> str:
    if not " " <= character <= "~":
        return f"\\u{{{ord(character):x}}}"
    return "\\" + character if character in quoted or character == "\\" else character


def sentence(record: AuditRecord) -> str:
    """Return what a record says in one line of printable ASCII, for people."""
    if record.operation == "loss":
        return f"{record.lost} records lost"
    who = (
        f"{printable(record.task_name, 128) or f'task {record.task}'} ({printable(record.subject)})"
    )
    asked = " ".join(printable(name, 64) for name in record.denied or record.asked)
    place = (
        f" on {printable(record.tclass, 64)} of {printable(record.object)}" if record.tclass else ""
    )
    service = f' "{printable(record.service, 256)}"' if record.service else ""
    end = record.result if record.outcome == "failed" else record.outcome
    return f"{who} {record.operation} {asked}{service}{place}: {end}"


class LineFile(ABC):
    """A sink that writes lines to a file, a pipe or a device; `Writer` says what may go wrong.

    If the file is moved, removed or cut by somebody else (rotated), a warning is logged, and it
    goes on in what is found at its path.

    Args:
        path: of the file.
        when_full: as for `Audit.attach`.
        mode: "w" replaces the file, "a" goes on at its end, in a new line, "x" wants it not to be
            there.
        durability: "none", "interval" or "record", as of a `Writer`. With "record", operations
            return only when their records are on the disk.
        interval: seconds.
    """

    def __init__(
        self, path: str | os.PathLike[str], when_full: str = "drop", *, mode: str = "w",
        durability: str = "none", interval: float = 1.0,
    ) -> None:  # fmt: skip
        self.when_full = when_full
        self._writer = Writer(path, mode, durability, interval=interval)
        self._before = self._line_end()
        self.name = f"{type(self).__name__}({os.fspath(path)})"
        self.synchronous = durability == "record"
        self.interval = interval if durability == "interval" else None

    @abstractmethod
    def lines(self, batch: Batch) -> Iterable[str]:
        """Return the lines of a batch, with their ends."""

    def __call__(self, batch: Batch) -> None:
        """Write a batch."""
        data = "".join(self.lines(batch)).encode()
        try:
            self._writer.write(self._before + data)
        except FileChanged as change:
            _log.warning("audit: %s; going on in what is there now", change)
            self._writer.reopen()
            self._before = self._line_end()
            self._writer.write(self._before + data)
        self._before = b""

    def _line_end(self) -> bytes:
        """Return what ends the last line of the file, if it is torn: the next one is none of it."""
        if self._writer.regular and self._writer.position:
            with suppress(OSError), Bytes(self._writer.path) as source:
                return b"" if source.at(source.size - 1, 1) == b"\n" else b"\n"
        return b""

    def flush(self) -> None:
        """Have the disk write out what it was given, if the durability asks for that at all."""
        if self._writer.durability != "none":
            self._writer.sync()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file in a child of fork(): it is the parent's."""
        self._writer.abandon()
