# SPDX-License-Identifier: BSD-2-Clause
"""Whether an audit file is what was written, and if not, where: `verify`.

Blocks are looked at one by one at the place where they are. A header that is none, or was changed,
is passed over to the next one that is sound; what stands between, and where that one belongs, tells
what happened. No byte is hashed more than a few times, whatever is in the file.
"""

from __future__ import annotations

import hmac
import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from .chain import BLOCK, LARGEST_BLOCK, MAGIC, NOTHING, Block, BlockFlag, ForwardKey
from .content import RECORDS, WHOLE, Change, Frame, Order, examine, wrong_with
from .layout import Layout
from .resume import Bytes, header_of

__all__ = ["Finding", "Verdict", "verify"]

_MOST = 1000  # findings that are told one by one
_FARTHEST = 1 << 20  # blocks over which a key is moved on
_PIECE = 1 << 20
_HASHED = 4  # times that the bytes of a file are hashed at most
_PIECES = 16 * _MOST  # of what is missing that are told apart


class Finding(NamedTuple):
    """Something in an audit file that is not what was written.

    Attributes:
        kind: "changed" (a block's content), "header" (of a block), "removed", "moved", "again",
            "cut" (blocks, and the end of one), "inserted" (bytes), "foreign" (a block of another
            file), "rewritten" (a block that does not follow the one before), "order" (of records),
            "key" (a MAC), "head" (the hash that was noted).
        block: the block's number; 0 if it is about none.
        at: the byte of the file where it is, or would be.
        first, last: sequence numbers of the records it is about; -1 if that is not known, or none.
        message: in words.
    """

    kind: str
    block: int
    at: int
    first: int
    last: int
    message: str


@dataclass
class Verdict:
    """What `verify` found.

    Attributes:
        file: its name.
        identity: the file's, hexadecimal.
        keyed: its blocks have MACs.
        key_checked: these were checked.
        blocks, records: how many were found sound.
        first, last: sequence numbers of the first and the last of these records; 0 without.
        missing: sequence numbers that are left out between records: what was lost before it could
            be written, or was not wanted in the file.
        head: number and hash of the last sound block, hexadecimal.
        head_found: a block has the hash that was noted.
        closed: the file was closed behind the last block.
        end: bytes up to which the file is sound, if nothing was found.
        size: of the file, bytes.
        findings: what is wrong; at most 1,000 are listed.
        unlisted: how many more there are.
    """

    file: str
    identity: str = ""
    keyed: bool = False
    key_checked: bool = False
    blocks: int = 0
    records: int = 0
    first: int = 0
    last: int = 0
    missing: int = 0
    head: tuple[int, str] = (0, "")
    head_found: bool = False
    closed: bool = False
    end: int = 0
    size: int = 0
    findings: list[Finding] = field(default_factory=list)
    unlisted: int = 0

    @property
    def state(self) -> str:
        """Whether it is "closed": sound, and was closed; "open": sound up to `end`, where it just
        ends, or in the beginning of a block: it is still being written, its writer was killed, or
        its end was cut off; or "damaged": see `findings`."""
        return "damaged" if self.findings else "closed" if self.closed else "open"

    @property
    def torn(self) -> int:
        """Bytes behind the last block that are the beginning of one."""
        return self.size - self.end


def verify(
    path: str | os.PathLike[str], *, key: bytes | bytearray | None = None, head: str = "",
    advance: Callable[[int], object] = lambda size: None,
) -> Verdict:  # fmt: skip
    """Look whether an audit file is what was written.

    Args:
        path: of the file.
        key: the secret that it was begun with. A bytearray is wiped.
        head: the hash of a block that was noted elsewhere, hexadecimal: everything up to that block
            is what was written then. `File.head` tells it.
        advance: told how many bytes are done, again and again.

    Raises:
        AuditError: it is no audit file of form 2: there is nothing to check it by.
        ValueError: a key that is too short.
        OSError: it cannot be read.
    """
    with Bytes(path) as source:
        return _Verifier(source, os.fspath(path), key, head, advance).run()


class _Missing:
    """Blocks that are not where they belong; some are found later, elsewhere."""

    def __init__(self) -> None:
        self.ranges: list[_Range] = []

    def add(self, missing: _Range) -> bool:
        """Note that blocks later than all others are missing; return whether there is room to."""
        if len(self.ranges) < _MOST:
            self.ranges.append(missing)
            return True
        return False

    def take(self, number: int) -> bool:
        """Return whether a block is missing; it is not any more then."""
        index = bisect_right(self.ranges, number, key=lambda each: each.first) - 1
        if index < 0 or number > self.ranges[index].last:
            return False
        if len(self.ranges) >= _PIECES:  # so many that a list of them would make it slow
            return True
        each = self.ranges[index]
        parts = each._replace(last=number - 1), each._replace(first=number + 1)
        self.ranges[index : index + 1] = [part for part in parts if part.first <= part.last]
        return True


class _Range(NamedTuple):
    first: int  # blocks
    last: int
    at: int
    records: tuple[int, int]


class _Verifier:
    def __init__(
        self, source: Bytes, name: str, secret: bytes | bytearray | None, head: str,
        advance: Callable[[int], object],
    ) -> None:  # fmt: skip
        self.source, self.head, self.advance = source, head.lower(), advance
        self.header, hashed, self.at = header_of(source, name)
        self.file = hashed[:16]
        self.previous: bytes | None = hashed  # None: it is not known
        self.number = 1  # of the block that is expected
        self.order, self.missing = Order(), _Missing()
        self.key = None if secret is None else ForwardKey(secret, self.file)
        self.budget = _HASHED * source.size
        self.verdict = Verdict(
            name, self.file.hex(), self.header.keyed, self.key is not None,
            head=(0, hashed.hex()), head_found=self.head == hashed.hex(), end=self.at,
            size=source.size,
        )  # fmt: skip
        if self.key and not self.header.keyed:
            self.find("key", 0, 0, "its header says that it was written without a key")
            self.key, self.verdict.key_checked = None, False

    def run(self) -> Verdict:
        done = 0
        while self.at < self.source.size and self.step():
            self.advance(self.at - done)
            done = self.at
            if self.budget < 0:
                self.find("changed", 0, self.at, "blocks overlap: what follows was not looked at")
                break
        for each in self.missing.ranges:
            self.find_missing(each)
        if self.head and not self.verdict.head_found:
            what = "no block has the hash that was noted: its end was cut off, or it was made anew"
            self.find("head", 0, self.source.size, what)
        self.verdict.missing = self.order.missing
        return self.verdict

    def find(
        self, kind: str, block: int, at: int, message: str, first: int = -1, last: int = -1
    ) -> None:
        if len(self.verdict.findings) == _MOST:
            self.verdict.unlisted += 1
            return
        known = 0 <= first <= last
        finding = Finding(kind, block, at, first if known else -1, last if known else -1, message)
        self.verdict.findings.append(finding)

    def find_missing(self, each: _Range) -> None:
        one = each.first == each.last
        what = f"block {each.first} is" if one else f"blocks {each.first} to {each.last} are"
        self.find("removed", each.first, each.at, f"{what} missing here", *each.records)

    def step(self) -> bool:
        """Look at what is at the present place; return whether to go on."""
        block = self.source.block(self.at)
        if block is None:
            return self.pass_over()
        if self.at + BLOCK.size + block.length > self.source.size:
            return self.cut_off(block)
        at, follows = self.at, self.place(block)
        sound = self.look_into(block, follows)
        if follows:
            self.count(block, sound)
            self.verdict.end = self.at if sound else at
        return True

    # ---- where it is ----

    def place(self, block: Block) -> bool:
        """Say what is wrong with where a block is; return whether it goes on from there."""
        if self.is_first_of_another(block):
            self.find("header", 0, 0, "the header is not the one that the blocks follow")
            self.file, self.previous, self.key = block.file, block.previous, None
            self.verdict.key_checked = False
            self.header = msgspec.structs.replace(self.header, record=Layout.ours())
        if block.file != self.file:
            what = f"block {block.number} of another file, {block.file.hex()}"
            self.find("foreign", block.number, self.at, what, *_extent(block))
            return False
        if block.number < self.number:
            moved = self.missing.take(block.number)
            what = f"block {block.number} {'is' if moved else 'again'} behind block "
            kind = "moved" if moved else "again"
            self.find(kind, block.number, self.at, f"{what}{self.number - 1}", *_extent(block))
            return False
        if block.number > self.number:
            self.skip_to(block, missing=True)
        if wrong := wrong_with(
            block, self.number, self.file, self.previous or block.previous, self.header.keyed
        ):
            self.find("rewritten", block.number, self.at, wrong, *_extent(block))
        self.check_key(block)
        self.verdict.head_found |= self.head == block.hash.hex()
        return True

    def is_first_of_another(self, block: Block) -> bool:
        """Whether it is the file's header that is wrong, not this block."""
        first = self.number == block.number == 1 and block.file == block.previous[:16] != self.file
        after = self.source.block(self.at + BLOCK.size + block.length) if first else None
        return first and (after is None or after.file != self.file)

    def skip_to(self, block: Block, *, missing: bool) -> None:
        """Go on with a later block than the one expected."""
        if missing:
            records = (self.order.last + 1, block.first - 1)
            gap = _Range(self.number, block.number - 1, self.at, records)
            if not self.missing.add(gap):
                self.find_missing(gap)
        self.number, self.previous, self.order.last = block.number, None, -1

    def check_key(self, block: Block) -> None:
        """Check a block's MAC; the key moves on to behind it."""
        if self.key is None:
            return
        if block.number - self.key.block > _FARTHEST:
            what = f"block {block.number} is too far from the one before: its MAC was not checked"
            self.find("key", block.number, self.at, what, *_extent(block))
            return
        while self.key.block < block.number:
            self.key.advance()
        if not hmac.compare_digest(self.key.mac(block.fields), block.mac):
            what = f"block {block.number} was written without the key, or with another"
            self.find("key", block.number, self.at, what, *_extent(block))

    # ---- what is in it ----

    def look_into(self, block: Block, follows: bool) -> bool:
        """Look at a block's content, and go on behind it; return whether it is sound."""
        start, end = self.at + BLOCK.size, self.at + BLOCK.size + block.length
        content, frames, changes = self.examine(block, start)
        added = 0
        if changes:
            # Bytes may be missing, or too many. Or the next block was changed, too.
            found = self.source.next_block(start)
            end = self.source.size if found is None else found
            added = end - start - block.length
        if added and changes[0].message == WHOLE and end - start <= LARGEST_BLOCK:
            content, frames, changes = self.examine(block._replace(length=end - start), start)
        else:
            added = 0
        known = self.sequences(content, frames) if changes else None
        for change in changes:
            records = _extent_of(block, known, change)
            how = f"; {abs(added)} bytes {'too many' if added > 0 else 'missing'}" if added else ""
            what = f"block {block.number}: {change.message}{how}"
            self.find("changed", block.number, start + change.at, what, *records)
        wrong = ""
        if follows and not changes:
            wrong = self.order.follow(block, content, frames, self.header.record)
        if wrong:
            what = f"block {block.number}: {wrong}"
            self.find("order", block.number, self.at, what, *_extent(block))
        self.at = end
        return not changes and not wrong

    def examine(self, block: Block, start: int) -> tuple[memoryview, list[Frame], list[Change]]:
        self.budget -= block.length
        content = memoryview(self.source.at(start, block.length))
        if block.frames < 0:
            return content, [], [Change(0, 0, block.records - 1, WHOLE)]
        return content, *examine(block, content, self.header.record.size)

    def sequences(self, content: memoryview, frames: list[Frame]) -> npt.NDArray[np.uint64]:
        """Return the sequence numbers that a block's records say they have."""
        read = [
            self.header.record.records(each.payload(content))["sequence"]
            for each in frames
            if each.tag == RECORDS
        ]
        return np.concatenate([*read, np.zeros(0, np.uint64)])

    def count(self, block: Block, sound: bool) -> None:
        """Go on behind a block that is in its place."""
        self.number, self.previous = block.number + 1, block.hash
        verdict = self.verdict
        verdict.closed = bool(block.flags & BlockFlag.END)
        if not sound:
            self.order.last = block.last if block.records else self.order.last
            return
        verdict.blocks, verdict.head = verdict.blocks + 1, (block.number, block.hash.hex())
        if block.records:
            verdict.first = verdict.first if verdict.records else block.first
            verdict.records, verdict.last = verdict.records + block.records, block.last

    # ---- what is no block ----

    def pass_over(self) -> bool:
        """Pass over what is no block, up to the next one."""
        at, found = self.at, self.source.next_block(self.at + 1)
        if found is None:
            if not self.is_beginning():
                what = f"expected block {self.number}: this is none, or its header was changed"
                self.find("header", self.number, at, what, self.order.last + 1)
            return False
        block = self.source.block(found)
        assert block
        if block.file != self.file or block.number <= self.number:
            self.find("inserted", 0, at, f"{found - at} bytes that are no block")
        else:
            last = block.number - 1
            what = f"block {last}" if last == self.number else f"blocks {self.number} to {last}"
            self.find(
                "header", self.number, at, f"{what}: no header that is sound",
                self.order.last + 1, block.first - 1,
            )  # fmt: skip
            self.skip_to(block, missing=False)
        self.at = found
        return True

    def is_beginning(self) -> bool:
        """Whether the rest of the file is what a kill, or a loss of power, leaves of a block."""
        rest = self.source.at(self.at, BLOCK.size)
        links = [self.previous or NOTHING, NOTHING, NOTHING, NOTHING]
        start = Block(MAGIC, self.file, self.number, 0, 0, 0, 0, 0, 0, *links).packed()
        known = [slice(0, 32), slice(72, 104)] if self.previous else [slice(0, 32)]
        if len(rest) < BLOCK.size and all(start[: len(rest)][s] == rest[s] for s in known):
            return True
        places = range(self.at, self.source.size, _PIECE)
        return not any(any(self.source.at(place, _PIECE)) for place in places)

    def cut_off(self, block: Block) -> bool:
        """The file ends before a block does: it is the last one, or bytes were removed."""
        found = self.source.next_block(self.at + BLOCK.size)
        expected = (self.number, self.file, self.previous or block.previous, self.header.keyed)
        if found is None and not wrong_with(block, *expected):
            return False
        if self.place(block):
            self.count(block, sound=False)
        what = f"block {block.number}: bytes of its content are missing"
        self.find("cut", block.number, self.at, what, *_extent(block))
        self.at = self.source.size if found is None else found
        return True


def _extent_of(
    block: Block, known: npt.NDArray[np.uint64] | None, change: Change
) -> tuple[int, int]:
    """Return which records a change is about; what is changed itself is not asked."""
    if known is None or change.first < 0:
        return -1, -1
    first, last = change.first - 1, change.last + 1
    return (
        int(known[first]) + 1 if 0 <= first < len(known) else block.first,
        int(known[last]) - 1 if last < len(known) else block.last,
    )


def _extent(block: Block) -> tuple[int, int]:
    """Return the sequence numbers of a block's records."""
    return (block.first, block.last) if block.records else (-1, -1)
