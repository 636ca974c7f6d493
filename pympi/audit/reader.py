# SPDX-License-Identifier: BSD-2-Clause
"""Reads audit files of both forms, in linear time, a block at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .chain import BLOCK, Block, BlockFlag, digest
from .content import (
    FRAME,
    OPEN,
    RECORDS,
    STRATA,
    TEXTS,
    Frame,
    FrameError,
    Order,
    check_length,
    examine,
    frames_in,
    wrong_with,
)  # fmt: skip
from .layout import FORM_2, LARGEST_HEADER, AuditError, Header, form_of
from .record import RECORD, AuditRecord, Batch
from .words import Tables

__all__ = ["AuditError", "Position", "Reader", "read"]

_AT_ONCE = 1 << 20
_PIECE = 65536 * RECORD.itemsize
_LARGEST_FRAME_1 = 1 << 30


class Position(NamedTuple):
    """A block, the byte at which its header begins, and what follows that."""

    at: int
    block: Block
    content: memoryview


class Reader:
    """Iterates over the batches of an audit file.

    Memory holds one block (at most 16 MiB; what `File` writes has about 7) and what numbers stand
    for. What a file says of its lengths is believed only as far as there are bytes.

    Args:
        file: opened for reading bytes; it need not be able to seek.
        name: for errors.
        check: look whether the content of each block has the hash that its header says, before
            anything of it is returned. Without, reading is several times as fast; headers, their
            chain and the form of all that is read are checked anyhow. Files of form 1 have no
            hashes.

    Attributes:
        form (int): 1 or 2.
        header (Header | None): of a file of form 2.
        run (dict[str, Any]): what was said when the writing of what is read now began.
        strata (dict[str, Any]): what was counted and what kept, if records are a sample; of the
            last sampling that was read. See "Sampling" in docs/audit.md.
        samplings (list[dict[str, Any]]): the same of each sampling, the last word on it.
        closed (bool): the file was closed after the last block that was read.

    Raises:
        AuditError: it is no audit file, or is cut off or damaged. Batches before that are good.
    """

    def __init__(self, file: BinaryIO, name: str = "audit file", *, check: bool = True) -> None:
        self._file, self._name, self._check = file, name, check
        self._at = 0
        self._order = Order()
        self.run: dict[str, Any] = {}
        self.strata: dict[str, Any] = {}
        self._runs, self._samplings = 0, dict[tuple[int, str], dict[str, Any]]()
        self.closed = False
        line = self._readline(len(FORM_2) + 9)
        with self._saying(0):
            self.form = form_of(line)
        self.header = self._read_header(line) if self.form == 2 else None

    def _read_header(self, first: bytes) -> Header:
        at = self._at
        line = self._readline(LARGEST_HEADER)
        self._previous = digest(first, line)
        self._identity = self._previous[:16]
        with self._saying(at):
            return Header.read(line)

    def __iter__(self) -> Iterator[Batch]:
        if self.header is None:
            yield from self._form_1()
        else:
            for position in self.blocks():
                yield from self._batches(position, self.header)

    @property
    def samplings(self) -> list[dict[str, Any]]:
        return list(self._samplings.values())

    # ---- form 2 ----

    def blocks(self) -> Iterator[Position]:
        """Yield the blocks of a file of form 2: for who wants these instead of batches.

        Their headers are checked, their contents are not.

        Raises:
            AuditError: as iterating does.
        """
        assert self.header, "a file of form 1 has no blocks"
        number = 0
        while raw := self._take(BLOCK.size):
            number, at = number + 1, self._at - len(raw)
            if len(raw) < BLOCK.size:
                raise self._error(f"the file is cut off in the header of block {number}", at)
            block = Block.read(raw)
            expected = (number, self._identity, self._previous, self.header.keyed)
            if wrong := wrong_with(block, *expected):
                raise self._error(wrong, at)
            content = memoryview(self._all(block.length))
            self._previous, self.closed = block.hash, bool(block.flags & BlockFlag.END)
            yield Position(at, block, content)

    def _batches(self, position: Position, header: Header) -> Iterator[Batch]:
        at, block, content = position
        frames = self._frames(position, header.record.size)
        if wrong := self._order.follow(block, content, frames, header.record):
            raise self._error(f"block {block.number}: {wrong}", at)
        tables = Tables(rebind=False)
        for frame in frames:
            with self._saying(at + BLOCK.size + frame.start):
                self._note(frame.tag, frame.payload(content), tables)
            if frame.tag == RECORDS:
                batch = tables.batch(header.record.records(frame.payload(content)))
                yield replace(batch, run=self._runs)
                tables.end_of_records()

    def _frames(self, position: Position, record: int) -> list[Frame]:
        _, block, content = position
        if not self._check:
            try:
                return list(frames_in(content[: block.frames], record))
            except FrameError as error:
                raise self._changed(position, error.at, str(error)) from None
        frames, changes = examine(block, content, record)
        for change in changes[:1]:
            raise self._changed(position, change.at, change.message)
        return frames

    def _changed(self, position: Position, at: int, message: str) -> AuditError:
        place = position.at + BLOCK.size + at
        return self._error(f"block {position.block.number}: {message}", place)

    def _note(self, tag: bytes, payload: memoryview, tables: Tables) -> None:
        """Take what a frame says of those that follow.

        Raises:
            ValueError: it is none.
        """
        if tag in TEXTS:
            tables.define(tag, bytes(payload))
        elif tag == OPEN:
            self.run = _object(payload)
            self._runs += 1
        elif tag == STRATA:
            self.strata = _object(payload)
            self._samplings[self._runs, str(self.strata.get("sampling"))] = self.strata

    # ---- form 1 ----

    def _form_1(self) -> Iterator[Batch]:
        tables = Tables()
        while raw := self._take(FRAME.size):
            at = self._at - len(raw)
            if len(raw) < FRAME.size:
                raise self._error("the file is cut off in a frame's header", at)
            tag, length = FRAME.unpack(raw)
            with self._saying(at):
                _check_frame_1(tag, length)
            if tag == RECORDS:
                yield from self._records_1(length, tables)
            else:
                payload = self._all(length)
                with self._saying(at):
                    tables.define(tag, payload)

    def _records_1(self, length: int, tables: Tables) -> Iterator[Batch]:
        for done in range(0, length, _PIECE):
            piece = self._all(min(_PIECE, length - done))
            yield tables.batch(np.frombuffer(piece, RECORD))
        tables.end_of_records()

    # ---- bytes ----

    def _readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        self._at += len(line)
        return line

    def _all(self, length: int) -> bytes:
        payload = self._take(length)
        if len(payload) < length:
            raise self._error(f"the file is cut off: {length - len(payload)} bytes are missing")
        return payload

    def _take(self, length: int) -> bytes:
        """Return so many bytes; at the file's end, fewer. Memory is taken as they come."""
        pieces = []
        while length and (piece := self._file.read(min(length, _AT_ONCE))):
            pieces.append(piece)
            length -= len(piece)
            self._at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @contextmanager
    def _saying(self, at: int) -> Iterator[None]:
        """Have a ValueError in here name the file and the byte."""
        try:
            yield
        except ValueError as error:
            raise self._error(str(error), at) from None

    def _error(self, message: str, at: int | None = None) -> AuditError:
        return AuditError(f"{self._name}, byte {self._at if at is None else at}: {message}")


def _check_frame_1(tag: bytes, length: int) -> None:
    if tag not in (*TEXTS, RECORDS):
        raise ValueError(f"expected a frame LABL, TASK, CLAS, SERV or RECS, found {tag!r}")
    if length > _LARGEST_FRAME_1:
        raise ValueError(f"a frame has at most {_LARGEST_FRAME_1} bytes, this says {length}")
    if wrong := check_length(tag, length, RECORD.itemsize):
        raise ValueError(wrong)


def _object(payload: memoryview) -> dict[str, Any]:
    try:
        found = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected an object in JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected an object in JSON, found a {type(found).__name__}")
    return found


def read(path: str | os.PathLike[str]) -> Iterator[AuditRecord]:
    """Iterate over the records of an audit file, in words.

    Raises:
        AuditError: see `Reader`.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        for batch in Reader(file, str(path)):
            yield from batch
