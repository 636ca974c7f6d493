# SPDX-License-Identifier: BSD-2-Clause
"""Audit files for tests: sound ones, ones of form 1, and forged ones whose hashes are right."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pympi.audit import RECORD, Batch, File
from pympi.audit.chain import BLOCK, MAGIC, NOTHING, Block, digest, leaf_ends, root_of
from pympi.audit.layout import new_header
from pympi.enums import CLASSES, Operation

PORT = CLASSES["mach_port"]
LABELS = {1: "te/system_u:system_r:client_t", 2: "te/system_u:object_r:port_t"}
TASKS = {7: "client"}
HEADER = new_header("00" * 16, "", False, {}).packed()
Frames = Sequence[tuple[bytes, bytes]]


def records(count: int, first: int = 1, **fields: int) -> npt.NDArray[Any]:
    """Return sends of one task, numbered from `first`."""
    made = np.zeros(count, RECORD)
    made["sequence"] = np.arange(first, first + count)
    made["time"] = made["sequence"] * 1000
    made["real_sid"] = made["effective_sid"] = 1
    made["object_sid"], made["task"], made["tclass"] = 2, 7, PORT.number
    made["operation"], made["asked"] = Operation.SEND, PORT.mask("send")
    for name, value in fields.items():
        made[name] = value
    return made


def batch(count: int, first: int = 1, labels: Mapping[int, str] = LABELS, **fields: int) -> Batch:
    """Return such records with what their numbers stand for."""
    return Batch(records(count, first, **fields), labels, TASKS, {PORT.number: PORT})


def write(path: Path, blocks: Iterable[int] = (40, 5, 20), **options: Any) -> list[bytes]:
    """Write a file of blocks with so many records each; return its header, and each block.

    The first block has no records, and nor has the last, which closes the file.
    """
    first = 1
    with File(path, **options) as file:
        for count in blocks:
            file(batch(count, first))
            file.flush()
            first += count
    return pieces(path.read_bytes())


def small_header() -> bytes:
    """Return a header without the names of numbers."""
    header = new_header("", "", False, {})
    return msgspec.structs.replace(header, operations={}, flags={}, results={}).packed()


def pieces(raw: bytes) -> list[bytes]:
    """Return the header and the blocks of a file."""
    at = raw.index(b"\n", len(b"pympi audit 2\n")) + 1
    found = [raw[:at]]
    while at < len(raw):
        end = at + BLOCK.size + Block.read(raw[at : at + BLOCK.size]).length
        found.append(raw[at:end])
        at = end
    return found


def numbers(batches: Iterable[Batch]) -> list[int]:
    """Return the sequence numbers of all records."""
    return [number for each in batches for number in each.records["sequence"].tolist()]


# ---- form 1 ----


def frame_1(tag: bytes, payload: bytes) -> bytes:
    return struct.pack("<4sI", tag, len(payload)) + payload


def form_1(batches: Iterable[Batch]) -> bytes:
    """Return a file of form 1."""
    raw = [b"pympi audit 1\n"]
    for each in batches:
        classes = {n: " ".join([c.name, *c.permissions]) for n, c in each.classes.items()}
        for tag, texts in (
            (b"LABL", each.labels), (b"TASK", each.tasks), (b"CLAS", classes),
            (b"SERV", each.services),
        ):  # fmt: skip
            for number, text in texts.items():
                payload = struct.pack("<I", number) + text.encode(errors="surrogateescape")
                raw.append(frame_1(tag, payload))
        raw.append(frame_1(b"RECS", each.records.tobytes()))
    return b"".join(raw)


# ---- forged ----


def padded(frames: Frames) -> list[bytes]:
    return [frame_1(tag, text) + bytes(-len(text) % 8) for tag, text in frames]


def forged(*blocks: Frames, header: bytes = HEADER, **fields: Any) -> bytes:
    """Return a file with any frames in its blocks, whose hashes are right.

    Args:
        blocks: tags and payloads.
        header: the first lines.
        fields: of all block headers, that are to be others.
    """
    previous = digest(header)
    raw = [header]
    for number, frames in enumerate(blocks, 1):
        block, content = forged_block(frames, number, previous, digest(header)[:16], **fields)
        previous = block.hash
        raw.append(block.packed() + content)
    return b"".join(raw)


def forged_block(
    frames: Frames, number: int, previous: bytes, file: bytes, **fields: Any
) -> tuple[Block, bytes]:
    """Return a block of any frames."""
    leaves, numbered = [], [np.zeros(0, RECORD)]
    for (tag, payload), raw in zip(frames, padded(frames), strict=True):
        sized = RECORD.itemsize if tag == b"RECS" else 0
        start = 0
        for end in leaf_ends(0, len(raw), sized):
            leaves.append(digest(raw[start:end]))
            start = end
        if sized and len(payload) % sized == 0:
            numbered.append(np.frombuffer(payload, RECORD))
    content = b"".join([*padded(frames), *leaves])
    sequences = np.concatenate(numbered)["sequence"].tolist() or [0]
    count = sum(map(len, numbered))
    block = Block(
        MAGIC, file, number, len(content), len(leaves), 0, count, sequences[0], sequences[-1],
        previous, root_of(leaves), NOTHING, NOTHING,
    )._replace(**fields)  # fmt: skip
    return block.sealed(None), content


def text(tag: str, number: int, what: str) -> tuple[bytes, bytes]:
    """Return a frame that says what a number stands for."""
    return tag.encode(), struct.pack("<I", number) + what.encode()
