# SPDX-License-Identifier: BSD-2-Clause
"""The binary audit file.

The file form, version 1, is a line `pympi audit 1` and then frames: four letters, the length of the
rest as a little-endian 32-bit number, and the rest.

    LABL   a SID (u32) and its label, UTF-8: what it stands for from here on
    TASK   a task's number (u32) and its name, UTF-8
    SERV   a number (u32) and what a server was asked about, UTF-8: the `name` of the records of
           the operation `service` in the next frame of records
    CLAS   a class's number (u32), its name and its permissions in bit order, separated by blanks
    RECS   records, 104 bytes each: struct pm_audit_record, little-endian
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from .record import RECORD, Batch

__all__ = ["FRAME", "MAGIC", "File"]

MAGIC = b"pympi audit 1\n"
FRAME = struct.Struct("<4sI")
_NUMBER = struct.Struct("<I")


class File:
    """Writes records to a file.

    Args:
        path: of the file, which is replaced.
        when_full: what becomes of an operation whose record finds no room: "drop" counts the loss,
            "block" writes first and then goes on, "fail" fails the operation, "abort" aborts.

    Example:
        >>> import tempfile, os.path
        >>> from pympi import Kernel, audit
        >>> path = os.path.join(tempfile.mkdtemp(), "run.audit")
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.File(path))
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     inbox.make_send(kernel.create_task("client")).send(b"hello", msgh_id=7)
        >>> [record.msgh_id for record in audit.read(path) if record.operation == "send"]
        [7]
    """

    def __init__(self, path: str | os.PathLike[str], when_full: str = "drop") -> None:
        self.when_full = when_full
        self._file = Path(path).open("wb")  # noqa: SIM115
        self._written: dict[bytes, dict[int, str]] = {
            b"LABL": {}, b"TASK": {}, b"CLAS": {}, b"SERV": {},
        }  # fmt: skip
        self._file.write(MAGIC)
        self._file.flush()

    def __call__(self, batch: Batch) -> None:
        """Write a batch, and before it what its numbers stand for, where that is new."""
        classes = {
            number: " ".join([tclass.name, *tclass.permissions])
            for number, tclass in batch.classes.items()
        }
        self._define(b"LABL", batch.labels)
        self._define(b"TASK", batch.tasks)
        self._define(b"CLAS", classes)
        self._define(b"SERV", batch.services)
        self._written[b"SERV"].clear()
        self._frame(b"RECS", batch.records.astype(RECORD, copy=False).tobytes())
        self._file.flush()

    def _define(self, tag: bytes, texts: Mapping[int, str]) -> None:
        written = self._written[tag]
        for number, text in texts.items():
            if written.get(number) != text:
                written[number] = text
                self._frame(tag, _NUMBER.pack(number) + text.encode(errors="surrogateescape"))

    def _frame(self, tag: bytes, payload: bytes) -> None:
        self._file.write(FRAME.pack(tag, len(payload)) + payload)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
