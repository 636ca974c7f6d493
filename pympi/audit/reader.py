# SPDX-License-Identifier: BSD-2-Clause
"""Reads audit files, as `pympi.audit.File` writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..enums import ObjectClass
from ..errors import PympiError
from .record import RECORD, AuditRecord, Batch
from .sinks import FRAME, MAGIC

__all__ = ["AuditError", "Reader", "read"]

_LARGEST = 1 << 30


class AuditError(PympiError, ValueError):
    """An audit file that cannot be read; the message names file and byte."""


class Reader:
    """Iterates over the batches of an audit file.

    Args:
        file: opened for reading bytes.
        name: for errors.

    Raises:
        AuditError: it is no audit file, or is cut off or damaged. Batches before that are good.
    """

    def __init__(self, file: BinaryIO, name: str = "audit file") -> None:
        self._file = file
        self._name = name
        self._at = 0
        self._labels: dict[int, str] = {}
        self._tasks: dict[int, str] = {}
        self._classes: dict[int, ObjectClass] = {}
        self._services: dict[int, str] = {}
        if self._read(len(MAGIC)) != MAGIC:
            raise self._error(f"expected the line {MAGIC.decode().strip()!r}")

    def __iter__(self) -> Iterator[Batch]:
        while header := self._file.read(FRAME.size):
            self._at += len(header)
            if len(header) < FRAME.size:
                raise self._error("the file is cut off in a frame's header")
            batch = self._frame(*FRAME.unpack(header))
            if batch is not None:
                yield batch

    def _frame(self, tag: bytes, length: int) -> Batch | None:
        if tag not in (b"LABL", b"TASK", b"CLAS", b"SERV", b"RECS"):
            raise self._error(f"expected a frame LABL, TASK, CLAS, SERV or RECS, found {tag!r}")
        payload = self._read(length)
        if tag == b"RECS":
            return self._records(payload)
        if length < 4:
            raise self._error(f"a frame {tag.decode()} has at least 4 bytes, this {length}")
        self._define(tag, int.from_bytes(payload[:4], "little"), payload[4:])
        return None

    def _define(self, tag: bytes, number: int, raw: bytes) -> None:
        text = raw.decode(errors="surrogateescape")
        if tag == b"CLAS":
            name, *permissions = text.split(" ")
            self._classes[number] = ObjectClass(number, name, tuple(permissions))
        else:
            {b"LABL": self._labels, b"TASK": self._tasks, b"SERV": self._services}[tag][number] = (
                text
            )

    def _records(self, payload: bytes) -> Batch:
        if len(payload) % RECORD.itemsize:
            raise self._error(f"records have {RECORD.itemsize} bytes each, found {len(payload)}")
        records = np.frombuffer(payload, RECORD)
        services, self._services = self._services, {}
        tables = dict(self._labels), dict(self._tasks), dict(self._classes)
        return Batch(records, *tables, services)

    def _read(self, length: int) -> bytes:
        if length > _LARGEST:
            raise self._error(f"a frame has at most {_LARGEST} bytes, this says {length}")
        payload = self._file.read(length)
        self._at += len(payload)
        if len(payload) < length:
            raise self._error(f"the file is cut off: {length - len(payload)} bytes are missing")
        return payload

    def _error(self, message: str) -> AuditError:
        return AuditError(f"{self._name}, byte {self._at}: {message}")


def read(path: str | os.PathLike[str]) -> Iterator[AuditRecord]:
    """Iterate over the records of an audit file, in words.

    Raises:
        AuditError: see `Reader`.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        for batch in Reader(file, str(path)):
            yield from batch
