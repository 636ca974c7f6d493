# SPDX-License-Identifier: BSD-2-Clause
"""What makes an audit file tell if it was changed: leaves, trees, blocks, keys. Only arithmetic.

Records are hashed by sixteen, other frames one by one: the *leaves*. A block's leaves are the
leaves of a Merkle tree, whose root is in the block's header beside the hash of the block before, so
that the last hash stands for all that was ever written, and a record is proven by its leaf, a few
hashes of its tree and the headers of the blocks that follow. Trees are those of Certificate
Transparency (RFC 6962, 2.1), but for the octet before a leaf: a leaf has a multiple of 8 bytes and
what is hashed for a node has 65, so neither can be taken for the other, and leaves are hashed where
they lie. A leaf is short enough (2047 bytes) that hashlib keeps the GIL: giving it up and waiting
for it again for each would cost more than the hash.

The keys that move forward are those of Schneier and Kelsey ("Secure audit logs to support computer
forensics", 1999): block i has a MAC under K(i), K(i+1) is a hash of K(i), and K(i) is wiped. Who
gets hold of the process learns no key of what was already written.
"""

from __future__ import annotations

import hmac
import os
import secrets
import struct
from collections.abc import Iterable, Sequence
from enum import IntFlag
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from .._ffi import ffi

__all__ = [
    "BLOCK", "LARGEST_BLOCK", "LEAF", "MAGIC", "NOTHING", "Block", "BlockFlag", "ForwardKey",
    "digest", "fold", "leaf_ends", "make_key", "path_of", "read_key", "root_of",
]  # fmt: skip

MAGIC = b"\xf5block2\n"
"""Begins a block; it is in no UTF-8 text."""
LEAF = 16
"""Records of a leaf."""
LARGEST_BLOCK = 1 << 24
"""Bytes that follow a block's header at most."""
DIGEST = 32
NOTHING = bytes(DIGEST)
_LARGEST_KEY = 4096  # bytes of its file

_FIELDS = struct.Struct("<8s16sQQIIQQQ32s32s")
_MAC = struct.Struct("<32s")
BLOCK = struct.Struct("<8s16sQQIIQQQ32s32s32s32s")
"""The header of a block: see `Block`."""


def digest(*parts: bytes | memoryview) -> bytes:
    """Return the SHA-256 of parts that follow each other."""
    state = sha256()
    for part in parts:
        state.update(part)
    return state.digest()


# ---- trees ----


def leaf_ends(start: int, end: int, record: int = 0) -> list[int]:
    """Return where the leaves of a frame end.

    Args:
        start: where it begins.
        end: where it ends.
        record: the size of a record, in a frame of records. Its first leaf has the frame's header.
    """
    step = LEAF * record
    return [*range(start + 8 + step, end, step), end] if record else [end]


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree over hashes of leaves."""
    nodes = list(leaves)
    while len(nodes) > 1:
        nodes = _above(nodes)
    return nodes[0] if nodes else sha256().digest()


def _above(nodes: list[bytes]) -> list[bytes]:
    """Return a tree's next level; one that is left over goes up as it is."""
    pairs = zip(nodes[::2], nodes[1::2], strict=False)
    above = [sha256(b"\1" + left + right).digest() for left, right in pairs]
    return above + nodes[-1:] if len(nodes) % 2 else above


def path_of(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from a leaf to the root, from the bottom up."""
    nodes, path = list(leaves), []
    while len(nodes) > 1:
        beside = index ^ 1
        if beside < len(nodes):
            path.append(nodes[beside])
        nodes, index = _above(nodes), index // 2
    return path


def fold(leaf: bytes, index: int, count: int, path: Iterable[bytes]) -> bytes | None:
    """Return the root that a leaf's hash leads to, or None if the path has not its length.

    Args:
        leaf: the hash.
        index: of the leaf.
        count: of leaves in the tree.
        path: as of `path_of`.
    """
    node, rest = leaf, iter(path)
    while count > 1:
        if index ^ 1 < count:
            beside = next(rest, None)
            if beside is None:
                return None
            left, right = (beside, node) if index % 2 else (node, beside)
            node = sha256(b"\1" + left + right).digest()
        index, count = index // 2, (count + 1) // 2
    return node if next(rest, None) is None else None


# ---- blocks ----


class BlockFlag(IntFlag):
    """What is special about a block; never renumbered."""

    END = 1
    """The file was closed after it."""
    KEYED = 2
    """It has a MAC."""


class Block(NamedTuple):
    """The header of a block.

    Attributes:
        magic: `MAGIC`.
        file: the first 16 bytes of the hash of the file's header.
        number: of the block, from 1.
        length: bytes that follow: frames, and the hashes of their leaves.
        leaves: how many there are.
        flags: see `BlockFlag`.
        records: how many records.
        first, last: the sequence numbers of its first and last record; 0 if it has none.
        previous: the hash of the block before; of the first one: of the file's header.
        root: of the tree over the leaves.
        mac: HMAC-SHA-256 of all before it; zeros in a file without key.
        hash: SHA-256 of all before it.
    """

    magic: bytes
    file: bytes
    number: int
    length: int
    leaves: int
    flags: int
    records: int
    first: int
    last: int
    previous: bytes
    root: bytes
    mac: bytes
    hash: bytes

    @classmethod
    def read(cls, raw: bytes | memoryview) -> Block:
        """Return what is in `BLOCK.size` bytes."""
        return cls._make(BLOCK.unpack(raw))

    @property
    def fields(self) -> bytes:
        """What the MAC is about."""
        return _FIELDS.pack(*self[:-2])

    @property
    def frames(self) -> int:
        """Bytes of its frames; negative if it makes no sense."""
        return self.length - DIGEST * self.leaves

    def sound(self) -> bool:
        """Whether the header is one, and was not changed without its hash."""
        if self.magic != MAGIC or self.frames < 0 or self.length > LARGEST_BLOCK:
            return False
        return digest(self.fields, self.mac) == self.hash

    def sealed(self, key: ForwardKey | None) -> Block:
        """Return it with MAC, under the present key, and hash."""
        mac = key.mac(self.fields) if key else NOTHING
        return self._replace(mac=mac, hash=digest(self.fields, mac))

    def packed(self) -> bytes:
        """Return its bytes."""
        return BLOCK.pack(*self)


# ---- keys ----


def make_key(path: str | os.PathLike[str]) -> None:
    """Write a new secret to a file that only its owner can read: 64 hexadecimal digits.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"{secrets.token_hex(DIGEST)}\n")
        file.flush()
        os.fsync(fd)


def read_key(path: str | os.PathLike[str]) -> bytearray:
    """Return the secret in a file; who uses it wipes it.

    Raises:
        ValueError: there is none in it.
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        text = file.read(_LARGEST_KEY + 1)
    try:
        secret = bytearray.fromhex(text.decode("ascii"))
    except ValueError:
        secret = bytearray()
    if len(secret) < DIGEST or len(text) > _LARGEST_KEY:  # half of a key would be another one
        raise ValueError(f"{os.fspath(path)}: expected a key, {2 * DIGEST} hexadecimal digits")
    return secret


class ForwardKey:
    """The key of the next block of one file; what was there before is wiped.

    Wiped means overwritten in memory, Python's immutable bytes too. Copies that the C library or
    OpenSSL made for a moment are theirs to wipe, and memory that was swapped out is not reached.

    Args:
        secret: at least 32 bytes. A bytearray is wiped.
        file: the first 16 bytes of the hash of the file's header: so a secret serves many files.

    Raises:
        ValueError: it is shorter.
    """

    def __init__(self, secret: bytes | bytearray, file: bytes) -> None:
        if len(secret) < DIGEST:
            raise ValueError(f"a key has at least {DIGEST} bytes, not {len(secret)}")
        self.block = 1
        self._key = bytearray(DIGEST)
        self._set(hmac.digest(secret, b"pympi audit, first key" + file, "sha256"))
        if isinstance(secret, bytearray):
            secret[:] = bytes(len(secret))

    def _set(self, key: bytes) -> None:
        self._key[:] = key
        # The object is ours alone and goes away now; nothing else in Python would overwrite it.
        ffi.memmove(ffi.from_buffer(key), NOTHING, DIGEST)

    def mac(self, fields: bytes) -> bytes:
        """Return the MAC of a block under the present key."""
        return hmac.digest(self._key, fields, "sha256")

    def advance(self) -> None:
        """Move on to the next block."""
        state = sha256(b"pympi audit, next key")
        state.update(self._key)
        self._set(state.digest())
        self.block += 1

    def wipe(self) -> None:
        """Forget the key."""
        self._key[:] = NOTHING
