# SPDX-License-Identifier: BSD-2-Clause
"""What is in a block: frames, the hashes of their leaves, and what is wrong with either.

A frame has a tag of four letters, the length of its payload (u32), the payload, and zeros up to a
multiple of 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .chain import DIGEST, LARGEST_BLOCK, LEAF, NOTHING, Block, BlockFlag, leaf_ends, root_of
from .layout import Layout

__all__ = [
    "FRAME",
    "NUMBER",
    "OPEN",
    "RECORDS",
    "STRATA",
    "TEXTS",
    "WHOLE",
    "Change",
    "Frame",
    "FrameError",
    "Order",
    "check_length",
    "examine",
    "frame",
    "frames_in",
    "leaves_of",
    "wrong_with",
]  # fmt: skip

FRAME = struct.Struct("<4sI")
NUMBER = struct.Struct("<I")
RECORDS, OPEN, STRATA = b"RECS", b"OPEN", b"SAMP"
TEXTS = (b"LABL", b"TASK", b"CLAS", b"SERV")
_TAGS = (*TEXTS, RECORDS, OPEN, STRATA)


class FrameError(ValueError):
    """What is wrong in a frame, and at which byte from where frames begin."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


class Frame(NamedTuple):
    """Where a frame lies: its tag, where it starts, where its payload ends, and where it ends."""

    tag: bytes
    start: int
    stop: int
    end: int

    def payload(self, content: memoryview) -> memoryview:
        """Return what is in it."""
        return content[self.start + FRAME.size : self.stop]


def frame(
    tag: bytes, payload: bytes | memoryview, number: int | None = None
) -> tuple[bytes, bytes | memoryview, bytes]:
    """Return a frame's header, payload, and zeros; `number` stands before the payload."""
    head = b"" if number is None else NUMBER.pack(number)
    length = len(head) + len(payload)
    return FRAME.pack(tag, length) + head, payload, bytes(-length % 8)


def frames_in(content: memoryview, record: int) -> Iterator[Frame]:
    """Yield the frames of a block.

    Args:
        content: the block's frames, nothing else.
        record: bytes of a record.

    Raises:
        FrameError: they are none.
    """
    at = 0
    while at < len(content):
        if len(content) - at < FRAME.size:
            raise FrameError(at, f"expected a frame's header, found {len(content) - at} bytes")
        tag, length = FRAME.unpack_from(content, at)
        stop = at + FRAME.size + length
        end = stop + -length % 8
        if tag not in _TAGS:
            known = ", ".join(each.decode() for each in _TAGS)
            raise FrameError(at, f"expected a frame {known}, found {tag!r}")
        if end > len(content):
            room = len(content) - at - FRAME.size
            raise FrameError(at, f"a frame of {length} bytes where {room} are left in the block")
        if any(content[stop:end]):  # these were changed, or the length
            raise FrameError(at, "expected zeros behind a frame")
        if wrong := check_length(tag, length, record):
            raise FrameError(at, wrong)
        yield Frame(tag, at, stop, end)
        at = end


def check_length(tag: bytes, length: int, record: int) -> str:
    """Return what is wrong with the length of a frame's payload; "" if nothing is."""
    if tag == RECORDS and length % record:
        return f"records have {record} bytes each, found {length}"
    if tag in TEXTS and length < NUMBER.size:
        return f"a frame {tag.decode()} has at least {NUMBER.size} bytes, this {length}"
    return ""


# ---- headers ----


def wrong_with(block: Block, number: int, file: bytes, previous: bytes, keyed: bool) -> str:
    """Return what is wrong with a block's header at its place; "" if nothing is.

    Args:
        block: the header.
        number: that it should have.
        file: the identity that it should have.
        previous: the hash of the block before.
        keyed: whether it should have a MAC.
    """
    if not block.sound():
        if block.length > LARGEST_BLOCK:
            return f"a block has at most {LARGEST_BLOCK} bytes, this header says {block.length}"
        return f"expected the header of block {number}; this is none, or was changed"
    if block.file != file:
        return f"expected block {number}, found block {block.number} of another file"
    if block.number != number:
        return f"expected block {number}, found block {block.number}"
    if block.previous != previous:
        return f"block {number} does not follow what is before it: that has another hash"
    if unknown := block.flags & ~sum(BlockFlag):
        return f"block {number} has flags {unknown:#x}, which this pympi does not know"
    if keyed != bool(block.flags & BlockFlag.KEYED) or (not keyed and block.mac != NOTHING):
        return f"expected block {number} to have {'a' if keyed else 'no'} MAC"
    return ""


# ---- leaves ----


WHOLE = "the content was changed"
"""What is said where it cannot be told which leaves were."""


class Change(NamedTuple):
    """Something in a block that is not what its header has the hash of.

    Attributes:
        at: the first byte, from where its frames begin.
        first, last: which of the block's records, counted from 0; -1 if none.
        message: what it is.
    """

    at: int
    first: int
    last: int
    message: str


class _Leaf(NamedTuple):
    start: int
    end: int
    first: int  # record of the block
    last: int


def _leaves(frames: Sequence[Frame], record: int) -> Iterator[_Leaf]:
    """Yield where leaves lie, and which records of the block are in them."""
    done = 0
    for tag, start, stop, end in frames:
        total = (stop - start - FRAME.size) // record if tag == RECORDS else 0
        for number, leaf_end in enumerate(leaf_ends(start, end, record if total else 0)):
            count = min(LEAF, total - number * LEAF)
            yield _Leaf(start, leaf_end, done if total else -1, done + count - 1 if total else -1)
            start, done = leaf_end, done + max(count, 0)


def leaves_of(content: memoryview, frames: Sequence[Frame], record: int) -> list[bytes]:
    """Return the hashes of the leaves of frames."""
    leaves = []
    for tag, start, _, end in frames:
        for stop in leaf_ends(start, end, record if tag == RECORDS else 0):
            leaves.append(sha256(content[start:stop]).digest())
            start = stop
    return leaves


def examine(block: Block, content: memoryview, record: int) -> tuple[list[Frame], list[Change]]:
    """Return the frames of a block, and what of its content was changed.

    Args:
        block: its header, which is sound.
        content: the bytes that follow it, all of them.
        record: bytes of a record.
    """
    frames: list[Frame] = []
    trouble = None
    try:
        for each in frames_in(content[: block.frames], record):
            if len(frames) == block.leaves:
                raise FrameError(each.start, f"more frames than the {block.leaves} leaves")
            frames.append(each)
    except FrameError as error:
        trouble = error
        frames += _rest_of_records(content[: block.frames], error.at, record)
    leaves, table = leaves_of(content, frames, record), bytes(content[block.frames :])
    whole = root_of(leaves) == block.root
    if not trouble and whole and b"".join(leaves) == table:
        return frames, []
    if not trouble and whole:
        return frames, [Change(block.frames, -1, -1, "the hashes of leaves were changed")]
    told = [table[at : at + DIGEST] for at in range(0, len(table), DIGEST)]
    if root_of(told) != block.root:
        return frames, [Change(0, 0, block.records - 1, WHOLE)]
    return frames, _changes(block, list(_leaves(frames, record)), leaves, told, trouble)


def _rest_of_records(content: memoryview, at: int, record: int) -> list[Frame]:
    """Return a frame of records that has not the length it should: where it changes can be told."""
    if content[at : at + len(RECORDS)] != RECORDS or len(content) - at < FRAME.size:
        return []
    stop = at + FRAME.size + (len(content) - at - FRAME.size) // record * record
    return [Frame(RECORDS, at, stop, stop)]


def _changes(
    block: Block, places: list[_Leaf], leaves: list[bytes], told: list[bytes],
    trouble: FrameError | None,
) -> list[Change]:  # fmt: skip
    """Return which leaves have not the hashes that are told."""
    pairs = enumerate(zip(leaves, told, strict=False))
    wrong = [number for number, (found, hashed) in pairs if found != hashed]
    if trouble or len(leaves) != len(told):
        records = [place.last for place in places[: wrong[0] if wrong else None]]
        first, last = max(records, default=-1) + 1, block.records - 1
        if wrong:
            why = f": {trouble}" if trouble else ""
            return [Change(places[wrong[0]].start, first, last, f"changed from here on{why}")]
        at, message = (trouble.at, str(trouble)) if trouble else (block.frames, "too few leaves")
        return [Change(at, first, last, message)]
    changes: list[Change] = []
    for before, number in zip([-1, *wrong], wrong, strict=False):
        start, _, first, last = places[number]
        if changes and before == number - 1 and changes[-1].last == first - 1 >= 0:
            changes[-1] = changes[-1]._replace(last=last)
        else:
            what = "records were changed" if last >= 0 else "a frame was changed"
            changes.append(Change(start, first, last, what))
    return changes


# ---- records ----


def rising(sequences: npt.NDArray[np.uint64], after: int) -> int:
    """Return the index of the first number that is not greater than the one before; -1 if none.

    Args:
        sequences: numbers.
        after: what comes before the first; -1 for nothing.
    """
    if len(sequences) and int(sequences[0]) <= after:
        return 0
    wrong = np.flatnonzero(sequences[1:] <= sequences[:-1])
    return int(wrong[0]) + 1 if len(wrong) else -1


class Order:
    """Whether records follow each other, block after block.

    Attributes:
        last (int): sequence number of the last record; -1 before the first of a run.
        missing (int): numbers that are left out between records of a run: records that were lost,
            or that somebody did not want in the file.
    """

    def __init__(self) -> None:
        self.last, self.missing = -1, 0

    def follow(
        self, block: Block, content: memoryview, frames: Sequence[Frame], layout: Layout
    ) -> str:
        """Return what is wrong with the sequence numbers of the next block; "" if nothing is."""
        count = first = 0
        for each in frames:
            if each.tag == OPEN:
                self.last = -1
            elif each.tag == RECORDS and each.stop - each.start > FRAME.size:
                sequences = layout.records(each.payload(content))["sequence"]
                if (wrong := rising(sequences, self.last)) >= 0:
                    before = sequences[wrong - 1] if wrong else self.last
                    return f"expected a record after {before}, found {sequences[wrong]}"
                first = first if count else int(sequences[0])
                self._count(sequences)
                count += len(sequences)
        found = (count, first, self.last if count else 0)
        if found == (block.records, block.first, block.last):
            return ""
        return "expected {} records, from {} to {}; found {}, from {} to {}".format(
            block.records, block.first, block.last, *found
        )

    def _count(self, sequences: npt.NDArray[np.uint64]) -> None:
        if self.last < 0:
            self.last = int(sequences[0]) - 1
        self.missing += int(sequences[-1]) - self.last - len(sequences)
        self.last = int(sequences[-1])
