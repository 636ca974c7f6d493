# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots as files: a header, then msgpack with each table's columns as one block of bytes.

The header, little-endian: `pympisnp`, version (u32), CRC-32 of the rest (u32), size of the rest
(u64). A file is read whole or not at all: what is damaged, cut short, too long, too large or of a
later version is refused before anything of it is used.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from ..errors import SnapshotError
from .snapshot import VERSION, Head, Port, Right, Snapshot, Task
from .table import Row, Table, columns_of, texts_of

__all__ = ["LARGEST", "MAGIC", "load", "save"]

MAGIC = b"pympisnp"
HEADER = struct.Struct("<8sIIQ")
LARGEST = 1 << 32
"""The size above which a file is refused, bytes: ten million ports, and names for each."""

_TABLES: dict[str, type[Row]] = {"tasks": Task, "ports": Port, "rights": Right}


class _Column(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """A column as bytes; its type is there to be compared, and for other readers."""

    kind: str
    data: memoryview


_Columns = dict[str, _Column]


class _Form(Head, frozen=True, forbid_unknown_fields=True, kw_only=True):
    texts: list[str]
    tasks: _Columns
    ports: _Columns
    rights: _Columns


_PLAIN = Head.__struct_fields__


# ---- writing ----


def save(snapshot: Snapshot, path: str | os.PathLike[str]) -> None:
    """Write a snapshot beside `path`, under a name that nobody can foresee, and move it there.

    What is there and no regular file, such as /dev/stdout, is written to: nothing takes its place.
    """
    body = msgspec.msgpack.encode(_form(snapshot))
    if HEADER.size + len(body) > LARGEST:
        raise SnapshotError(f"a snapshot of {len(body)} bytes; a file holds {LARGEST}")
    header = HEADER.pack(MAGIC, VERSION, zlib.crc32(body), len(body))
    target = Path(path)
    if target.exists() and not target.is_file():
        target.write_bytes(header + body)
    else:
        _replace(target, header, body)


def _replace(path: Path, *parts: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".", suffix=".snapshot", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _form(snapshot: Snapshot) -> _Form:
    texts: list[str] = []
    tables: dict[str, Any] = {name: _packed(getattr(snapshot, name), texts) for name in _TABLES}
    plain: dict[str, Any] = {name: getattr(snapshot, name) for name in _PLAIN}
    return _Form(**plain, **tables, texts=texts)


def _packed(table: Table[Any], texts: list[str]) -> _Columns:
    """Return a table as bytes; its texts are appended to `texts`, those that it uses."""
    packed = {}
    row: type[Row] = table.row
    for name, kind in columns_of(row).items():
        column = table.columns[name]
        if name in texts_of(row):
            used, places = np.unique(column, return_inverse=True)
            column = places + len(texts)
            texts.extend(table.texts[at] for at in used.tolist())
        packed[name] = _Column(kind, np.ascontiguousarray(column, kind).data.cast("B"))
    return packed


# ---- reading ----


def load(path: str | os.PathLike[str]) -> Snapshot:
    """Read a snapshot; see `Snapshot.load`."""
    reader = _Reader(os.fspath(path))
    return reader.snapshot(reader.body())


class _Reader:
    def __init__(self, path: str) -> None:
        self.path = path

    def refuse(self, why: str) -> NoReturn:
        raise SnapshotError(f"{self.path}: {why}")

    def body(self) -> bytes:
        """Return what follows the header, once that fits it."""
        # A FIFO would make open() wait; O_NONBLOCK means nothing for a file.
        handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                self.refuse("not a file")
            if status.st_size > LARGEST:
                self.refuse(f"{status.st_size} bytes are more than a snapshot has ({LARGEST})")
            head = file.read(HEADER.size)
            crc, size = self.header(head)
            follows = status.st_size - HEADER.size
            body = file.read(size + 1) if follows == size else b""
        if len(body) != size:
            self.refuse(
                f"cut short or too long: {size} bytes after the header, it says, not {follows}"
            )
        if zlib.crc32(body) != crc:
            self.refuse("damaged: its checksum does not fit")
        return body

    def header(self, head: bytes) -> tuple[int, int]:
        if not head.startswith(MAGIC) or len(head) < HEADER.size:
            self.refuse("not a snapshot of pympi, or cut short")
        _, version, crc, size = HEADER.unpack(head)
        if version != VERSION:
            self.refuse(f"a snapshot of version {version}; this pympi reads version {VERSION}")
        if size > LARGEST:
            self.refuse(f"damaged: it says that it has {size} bytes")
        return crc, size

    def snapshot(self, body: bytes) -> Snapshot:
        try:
            form = msgspec.msgpack.decode(body, type=_Form)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            self.refuse(f"damaged: {error}")
        tables: dict[str, Any] = {
            name: self.table(name, row, getattr(form, name), form.texts)
            for name, row in _TABLES.items()
        }
        fields: dict[str, Any] = {name: getattr(form, name) for name in _PLAIN}
        return Snapshot(**fields, **tables)

    def table(self, name: str, row: type[Row], packed: _Columns, texts: list[str]) -> Table[Any]:
        if {field: column.kind for field, column in packed.items()} != columns_of(row):
            self.refuse(f"damaged: the table of {name} has other columns than version {VERSION}")
        columns = {}
        for field, column in packed.items():
            kind = np.dtype(column.kind)
            if len(column.data) % kind.itemsize:
                self.refuse(f"damaged: a part of a number in column {field} of {name}")
            columns[field] = np.frombuffer(column.data, kind)
        if len({len(column) for column in columns.values()}) != 1:
            self.refuse(f"damaged: the columns of {name} have different lengths")
        self.check_texts(name, row, columns, texts)
        return Table(row, columns, texts)

    def check_texts(
        self, name: str, row: type[Row], columns: dict[str, Any], texts: list[str]
    ) -> None:
        for field in texts_of(row):
            if len(columns[field]) and columns[field].max() >= len(texts):
                self.refuse(f"damaged: a text of {name} is missing")
