# SPDX-License-Identifier: BSD-2-Clause
"""That a record stands in an audit file, shown without the file: `prove` and `check`.

A proof has the record's leaf, the hashes that lead from it to the root in its block's header, the
same for what the record's numbers stand for, and the headers from there on, each with the hash of
the one before. So it holds if the last of them, or any, has the hash that was noted elsewhere
(inclusion proofs of Certificate Transparency, RFC 6962, 2.1.1, and a chain from tree to tree).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..enums import Operation
from ..errors import PympiError
from .chain import BLOCK, DIGEST, LEAF, Block, ForwardKey, digest, fold, leaf_ends, path_of
from .content import (
    FRAME,
    OPEN,
    RECORDS,
    STRATA,
    TEXTS,
    Frame,
    FrameError,
    examine,
    frames_in,
    wrong_with,
)  # fmt: skip
from .layout import FORM_2, AuditError, Header, Layout
from .reader import Position, Reader
from .record import AuditRecord
from .words import Tables

__all__ = ["FORM", "Leaf", "NotProven", "Proof", "ProofError", "Proven", "check", "load", "prove"]

FORM = "pympi audit proof 1"
_LARGEST = 1 << 30
_FARTHEST = 1 << 24  # blocks over which a key is moved on
_NUMBERS = {
    b"LABL": ("real_sid", "effective_sid", "object_sid", "peer_sid"),
    b"TASK": ("task",),
    b"CLAS": ("tclass",),
    b"SERV": ("name",),
}


class ProofError(PympiError, ValueError):
    """What is no proof, or a record that there is not."""


class NotProven(PympiError):
    """A proof that does not hold; the message says where it breaks."""


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A leaf of the record's block.

    Attributes:
        index: which one.
        content: its bytes.
        path: the hashes that lead to the root.
    """

    index: int
    content: bytes
    path: list[bytes]


class Proof(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """A proof, which is a file of JSON; bytes are in base 64.

    Attributes:
        form: `FORM`.
        header: the first two lines of the file.
        sequence: number of the record.
        record: the leaf that it is in.
        words: leaves that say what its numbers stand for.
        begin: the first leaf of the frame that the record is in, where the record's own leaf begins
            with a sequence number that spells the tag of another frame: so it is shown what it is.
        blocks: the header of its block, and those of all that follow, up to the one it is to be
            compared with.
    """

    form: str
    header: str
    sequence: int
    record: Leaf
    words: list[Leaf]
    blocks: list[bytes]
    begin: Leaf | None = None

    def packed(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


class Proven(NamedTuple):
    """What a proof shows.

    Attributes:
        record: the record, in words.
        file: the file's identity, hexadecimal.
        block: number of the block that it is in.
        head: number and hash, hexadecimal, of the block that it holds by.
        noted: that hash was noted elsewhere.
        keyed: the MACs of all blocks in it were checked.
    """

    record: AuditRecord
    file: str
    block: int
    head: tuple[int, str]
    noted: bool
    keyed: bool


# ---- proving ----


def prove(
    path: str | os.PathLike[str], sequence: int, *, block: int | None = None, head: str = ""
) -> Proof:
    """Return the proof that a record stands in a file.

    Args:
        path: of the file.
        sequence: of the record.
        block: that it is in: for a file of several kernels, in which there may be more than one.
        head: the hash that the proof is to end at, hexadecimal; without, the last one.

    Raises:
        ProofError: there is no such record, or more than one, or no such head behind it.
        AuditError: the file is damaged, or of form 1.
        OSError: it cannot be read.
    """
    name = os.fspath(path)
    with Path(path).open("rb") as file:
        reader = Reader(file, name, check=False)
        if reader.header is None:
            raise AuditError(f"{name}: a file of form 1: its records are not hashed")
        start = None
        headers: list[bytes] = []
        for position in reader.blocks():
            found = position.block.first <= sequence <= position.block.last
            if found and block in (None, position.block.number):
                leaves = _leaves(name, position, reader.header.record, sequence)
                if start and leaves:
                    raise ProofError(
                        f"{name}: there is more than one record {sequence}: say which block, "
                        f"{Block.read(headers[0]).number} or {position.block.number}"
                    )
                start = start or leaves
            if start:
                headers.append(position.block.packed())
            if start and head and position.block.hash.hex() == head.lower():
                break
        else:
            if start and head:
                raise ProofError(f"{name}: no block from record {sequence} on has the hash {head}")
        if not start:
            raise ProofError(f"{name}: there is no record {sequence}")
        record, begin, *words = start
        return Proof(
            form=FORM, header=_lines(file), sequence=sequence, record=record, words=words,
            blocks=headers, begin=begin if _spells_another(record.content) else None,
        )  # fmt: skip


def _lines(file: Any) -> str:
    file.seek(0)
    return (file.readline() + file.readline()).decode()


def _leaves(name: str, position: Position, layout: Layout, sequence: int) -> list[Leaf]:
    """Return a record's leaf, the first one of its frame, and those that say what its numbers
    stand for; nothing without it."""
    at, block, content = position
    frames, changes = examine(block, content, layout.size)
    if changes:
        place = at + BLOCK.size + changes[0].at
        raise AuditError(f"{name}, byte {place}: block {block.number}: {changes[0].message}")
    places = [*_places(frames, layout.size)]
    found = _find(places, content, layout, sequence)
    if found is None:
        return []
    index, record = found
    table = content[block.frames :]
    hashes = [bytes(table[start : start + DIGEST]) for start in range(0, len(table), DIGEST)]
    begin = next(n for n, (frame, _, _) in enumerate(places) if frame == places[index][0])
    words = _words(places[:index], content, record)
    return [
        Leaf(n, bytes(content[places[n][1] : places[n][2]]), path_of(hashes, n))
        for n in [index, begin, *words]
    ]


_Place = tuple[Frame, int, int]


def _places(frames: Sequence[Frame], record: int) -> Iterator[_Place]:
    """Yield each leaf: its frame, where it starts and ends."""
    for each in frames:
        start = each.start
        for end in leaf_ends(each.start, each.end, record if each.tag == RECORDS else 0):
            yield each, start, end
            start = end


def _find(
    places: Sequence[_Place], content: memoryview, layout: Layout, sequence: int
) -> tuple[int, Any] | None:
    """Return the index of the leaf that a record is in, and the record."""
    for index, (frame, start, end) in enumerate(places):
        if frame.tag == RECORDS:
            skipped = FRAME.size if start == frame.start else 0
            records = layout.records(content[start + skipped : end])
            for record in records[records["sequence"] == sequence]:
                return index, record
    return None


def _words(places: Sequence[_Place], content: memoryview, record: Any) -> Iterator[int]:
    """Yield the indexes of leaves that say what the numbers of a record stand for."""
    for index, (frame, _, _) in enumerate(places):
        asked = frame.tag != b"SERV" or record["operation"] == Operation.SERVICE
        if frame.tag in TEXTS and asked:
            number = int.from_bytes(frame.payload(content)[:4], "little")
            if number in {int(record[field]) for field in _NUMBERS[frame.tag]}:
                yield index


# ---- checking ----


def load(path: str | os.PathLike[str]) -> Proof:
    """Read a proof.

    Raises:
        ProofError: there is none in the file.
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size > _LARGEST:
            raise ProofError(f"{os.fspath(path)}: a proof has at most {_LARGEST} bytes")
        raw = file.read()
    try:
        proof = msgspec.json.decode(raw, type=Proof)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProofError(
            f"{os.fspath(path)}: expected a proof, an object in JSON: {error}"
        ) from None
    if proof.form != FORM:
        raise ProofError(f"{os.fspath(path)}: expected the form {FORM!r}, found {proof.form!r}")
    return proof


def check(proof: Proof, *, head: str = "", key: bytes | bytearray | None = None) -> Proven:
    """Check a proof, without the file it is about.

    Args:
        proof: what is to be checked.
        head: the hash of a block that was noted elsewhere, hexadecimal. Without, it is for the
            caller to compare the one that is returned.
        key: the secret that the file was begun with. A bytearray is wiped.

    Raises:
        NotProven: it does not hold.
        ProofError: it is none.
        ValueError: the key is too short.
    """
    header, file = _header(proof)
    blocks = _chain(proof, file, header.keyed)
    if key is not None:
        _check_key(ForwardKey(key, file), header, blocks)
    record = _record(proof, blocks[0], header.record)
    by = blocks[-1]
    if head:
        noted = [block for block in blocks if block.hash.hex() == head.lower()]
        if not noted:
            raise NotProven(f"no block in it has the hash that was noted, {head}")
        by = noted[0]
    last = (by.number, by.hash.hex())
    return Proven(record, file.hex(), blocks[0].number, last, bool(head), key is not None)


def _header(proof: Proof) -> tuple[Header, bytes]:
    raw = proof.header.encode(errors="surrogatepass")
    try:
        if not raw.startswith(FORM_2):
            raise ValueError("expected a header that begins with 'pympi audit 2'")
        return Header.read(raw[len(FORM_2) :]), digest(raw)[:16]
    except ValueError as error:
        raise ProofError(str(error)) from None


def _chain(proof: Proof, file: bytes, keyed: bool) -> list[Block]:
    """Return the headers of blocks, each of which follows the one before."""
    if not proof.blocks or any(len(raw) != BLOCK.size for raw in proof.blocks):
        raise ProofError(f"expected headers of blocks, {BLOCK.size} bytes each")
    blocks = [Block.read(raw) for raw in proof.blocks]
    number, previous = blocks[0].number, blocks[0].previous
    for block in blocks:
        if wrong := wrong_with(block, number, file, previous, keyed):
            raise NotProven(wrong)
        number, previous = number + 1, block.hash
    return blocks


def _check_key(key: ForwardKey, header: Header, blocks: Iterable[Block]) -> None:
    if not header.keyed:
        raise NotProven("the file was written without a key")
    for block in blocks:
        if block.number - key.block > _FARTHEST:
            raise NotProven(f"block {block.number} is too far from the first to check its MAC")
        while key.block < block.number:
            key.advance()
        if not hmac.compare_digest(key.mac(block.fields), block.mac):
            raise NotProven(f"block {block.number} was written without the key, or with another")


def _record(proof: Proof, block: Block, layout: Layout) -> AuditRecord:
    """Return the record that is proven, with the words that are."""
    begins = [proof.begin] if proof.begin else []
    for leaf in [proof.record, *begins, *proof.words]:
        root = fold(sha256(leaf.content).digest(), leaf.index, block.leaves, leaf.path)
        if leaf.index not in range(block.leaves) or root != block.root:
            raise NotProven(f"leaf {leaf.index} is not in block {block.number}")
    tables = Tables(rebind=False)
    for leaf in proof.words:
        if leaf.index >= proof.record.index:
            raise NotProven(f"leaf {leaf.index} is behind the record")
        _define(tables, leaf.content)
    records = _records(proof, layout)
    found = records[records["sequence"] == proof.sequence]
    if len(found) != 1 or not block.first <= proof.sequence <= block.last:
        raise NotProven(f"record {proof.sequence} is not in its leaf")
    return next(iter(tables.batch(found)))


def _records(proof: Proof, layout: Layout) -> Any:
    """Return the records of the record's leaf.

    Frames of other kinds are leaves too, and what is in them may have been chosen by anybody: they
    begin with their tag, records with their sequence number. Where that could be either, the first
    leaf of the frame tells: its tag is no other's, and its length that the leaf belongs to it.
    """
    leaf = proof.record.content
    if _begins(leaf, layout):
        return layout.records(leaf[FRAME.size :])
    if len(leaf) % layout.size or (_spells_another(leaf) and not _is_inside(proof, layout)):
        raise NotProven("expected a leaf of records")
    return layout.records(leaf)


def _begins(leaf: bytes, layout: Layout) -> bool:
    """Whether it is the first leaf of a frame of records."""
    return len(leaf) % layout.size == FRAME.size and leaf.startswith(RECORDS)


def _spells_another(leaf: bytes) -> bool:
    """Whether a leaf begins as a frame does that has no records."""
    return leaf.startswith((*TEXTS, OPEN, STRATA))


def _is_inside(proof: Proof, layout: Layout) -> bool:
    """Whether the record's leaf is shown to be one of a frame of records, behind the first."""
    begin = proof.begin
    if begin is None or not _begins(begin.content, layout):
        return False
    _, length = FRAME.unpack_from(begin.content)
    leaves = -(-length // (LEAF * layout.size))
    return not length % layout.size and 0 < proof.record.index - begin.index < leaves


def _define(tables: Tables, leaf: bytes) -> None:
    try:
        for frame in frames_in(memoryview(leaf), 1):
            if frame.tag in TEXTS:
                tables.define(frame.tag, bytes(frame.payload(memoryview(leaf))))
    except FrameError as error:
        raise NotProven(f"expected a leaf of words: {error}") from None
    except ValueError as error:
        raise NotProven(str(error)) from None
