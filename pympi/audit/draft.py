# SPDX-License-Identifier: BSD-2-Clause
"""Blocks of an audit file before they are written: `Draft`, and the `Chain` that they join."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..enums import ObjectClass, Operation
from .chain import BLOCK, MAGIC, NOTHING, Block, BlockFlag, ForwardKey, root_of
from .content import RECORDS, Frame, frame, leaves_of
from .record import RECORD, Batch

__all__ = ["Chain", "Definition", "Draft", "definitions_for"]

_MANY = 256  # words from which on only those that records use are written
_SIDS = ("real_sid", "effective_sid", "object_sid", "peer_sid")

Definition = tuple[bytes, int, bytes]
"""A tag, a number, and the text that it stands for."""


def definitions_for(batch: Batch, records: npt.NDArray[Any]) -> Iterator[Definition]:
    """Yield what stands for the numbers in some of a batch's records."""
    for tag, texts, fields in (
        (b"LABL", batch.labels, _SIDS),
        (b"TASK", batch.tasks, ("task",)),
        (b"CLAS", batch.classes, ("tclass",)),
    ):
        for number, text in _used(texts, records, fields):
            yield tag, number, _encoded(text)
    by_server = records[records["operation"] == Operation.SERVICE] if batch.services else records
    for number, text in _used(batch.services, by_server, ("name",)):
        yield b"SERV", number, _encoded(text)


def _used(
    texts: Mapping[int, Any], records: npt.NDArray[Any], fields: tuple[str, ...]
) -> Iterator[tuple[int, Any]]:
    if len(texts) <= _MANY:
        yield from texts.items()
        return
    for number in sorted(set().union(*(np.unique(records[field]).tolist() for field in fields))):
        if number in texts:
            yield number, texts[number]


def _encoded(text: str | ObjectClass) -> bytes:
    if isinstance(text, ObjectClass):
        text = " ".join([text.name, *text.permissions])
    return text.encode(errors="surrogateescape")


class Draft:
    """What a block will have in it.

    Attributes:
        size (int): bytes of its frames.
        records (int): how many.
        first, last (int): the sequence numbers of the first and the last one; 0 without.
    """

    def __init__(self) -> None:
        self.size = self.records = self.first = self.last = 0
        self._parts: list[bytes | memoryview] = []
        self._frames: list[Frame] = []
        self._defined: dict[tuple[bytes, int], bytes] = {}

    def put(self, tag: bytes, payload: bytes | memoryview, number: int | None = None) -> None:
        """Append a frame."""
        parts = frame(tag, payload, number)
        end = self.size + sum(map(len, parts))
        self._frames.append(Frame(tag, self.size, end - len(parts[-1]), end))
        self._parts += parts
        self.size = end

    def contradicts(self, definitions: list[Definition]) -> bool:
        """Whether a number stands for something else here: a block has one meaning for each."""
        return any(
            self._defined.get((tag, number), text) != text
            for tag, number, text in definitions
            if tag != b"SERV"
        )

    def add(self, records: npt.NDArray[Any], definitions: list[Definition]) -> None:
        """Append records, and before them what their numbers stand for, where that is new.

        The records are copied only when it is `sealed`.
        """
        for tag, number, text in definitions:
            if tag == b"SERV" or (tag, number) not in self._defined:
                self._defined[tag, number] = text
                self.put(tag, text, number)
        self.put(RECORDS, np.ascontiguousarray(records, RECORD).view(np.uint8).data)
        if not self.records:
            self.first = int(records["sequence"][0])
        self.last = int(records["sequence"][-1])
        self.records += len(records)

    @cached_property
    def sealed(self) -> tuple[int, bytes, bytearray]:
        """How many leaves there are, the root of their tree, and the block's bytes but for those of
        the header. To be asked for when nothing is added any more; then it holds nothing else."""
        raw = bytearray().join((bytes(BLOCK.size), *self._parts))
        with memoryview(raw) as view, view[BLOCK.size :] as content:
            leaves = leaves_of(content, self._frames, RECORD.itemsize)
        raw += b"".join(leaves)
        self._parts.clear()
        return len(leaves), root_of(leaves), raw


class Chain:
    """Where blocks are put in order: what the next one needs of those before.

    It moves on when a block was written, not before, so that one that could not be is tried again.

    Args:
        file: the file's identity: 16 bytes of the hash of its header.
        previous: the hash of the block before; before the first, of the header.
        number: of the block before; 0 before the first.
        key: of the next block.
    """

    def __init__(
        self, file: bytes, previous: bytes, number: int = 0, key: ForwardKey | None = None
    ) -> None:
        self.file, self.previous, self.number, self.key = file, previous, number, key

    def seal(self, draft: Draft, *, end: bool = False) -> tuple[Block, bytearray]:
        """Return the next block: its header, and all its bytes."""
        leaves, root, raw = draft.sealed
        flags = BlockFlag.END * end | BlockFlag.KEYED * (self.key is not None)
        block = Block(
            MAGIC, self.file, self.number + 1, len(raw) - BLOCK.size, leaves, flags, draft.records,
            draft.first, draft.last, self.previous, root, NOTHING, NOTHING,
        ).sealed(self.key)  # fmt: skip
        raw[: BLOCK.size] = block.packed()
        return block, raw

    def advance(self, block: Block) -> None:
        """Move on: the block was written."""
        self.number, self.previous = block.number, block.hash
        if self.key:
            self.key.advance()

    def wipe(self) -> None:
        """Forget the key; no more blocks can be sealed."""
        if self.key:
            self.key.wipe()
