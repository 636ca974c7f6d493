# SPDX-License-Identifier: BSD-2-Clause
"""Going on where an audit file ends: behind its last block, with what is torn put aside."""

from __future__ import annotations

import errno
import hmac
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from .._closing import Closing
from .chain import BLOCK, MAGIC, Block, ForwardKey, digest
from .content import examine, wrong_with
from .draft import Chain
from .layout import FORM_2, LARGEST_HEADER, AuditError, Header, Layout, form_of

__all__ = ["Bytes", "Resumed", "header_of", "resume"]

_PIECE = 1 << 20
_FIRST = 1 << 12
_LAST = 64  # complete blocks at the end whose content may turn out to be torn


class Resumed(NamedTuple):
    """What is needed to go on, and what there is to say where it does."""

    chain: Chain
    said: dict[str, Any]


class Bytes(Closing):
    """A file's bytes by place: what is read is there, or the answer is shorter.

    It is not mapped into memory: a file that gets shorter meanwhile would end the process.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: str | os.PathLike[str], *, write: bool = False) -> None:
        # A FIFO would make open() wait; O_NONBLOCK means nothing for a file.
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = os.open(path, flags)
        status = os.fstat(self.fd)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "not a file", os.fspath(path))

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def at(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes."""
        length = max(0, min(length, self.size - start))
        parts = []
        while length and (part := os.pread(self.fd, length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def block(self, at: int) -> Block | None:
        """Return the header of a block, if one begins there; its number or place may be wrong."""
        raw = self.at(at, BLOCK.size)
        block = Block.read(raw) if len(raw) == BLOCK.size else None
        return block if block and block.sound() else None

    def next_block(self, start: int) -> int | None:
        """Return where the next block begins, from `start` on."""
        length = _FIRST  # most are near; so many that are nearer do not make it slow
        while start < self.size:
            piece = self.at(start, length + len(MAGIC) - 1)
            found = piece.find(MAGIC)
            while found >= 0:
                if self.block(start + found):
                    return start + found
                found = piece.find(MAGIC, found + 1)
            start, length = start + length, min(2 * length, _PIECE)
        return None


def header_of(source: Bytes, name: str) -> tuple[Header, bytes, int]:
    """Return the header of a file of form 2, its hash, and where the first block begins.

    Raises:
        AuditError: it has none.
    """
    start = source.at(0, len(FORM_2) + LARGEST_HEADER)
    first, newline, rest = start.partition(b"\n")
    try:
        if form_of(first + newline) != 2:
            raise ValueError("a file of form 1: its records are not hashed")
        line, newline, _ = rest.partition(b"\n")
        header = Header.read(line + newline)
    except ValueError as error:
        place = 0 if not newline or first + b"\n" != FORM_2 else len(FORM_2)
        raise AuditError(f"{name}, byte {place}: {error}") from None
    end = len(first) + len(line) + 2
    return header, digest(start[:end]), end


def resume(path: str, secret: bytes | bytearray | None) -> Resumed | None:
    """Find where a file ends, and put aside what is torn there; None if there is nothing in it.

    The headers of all blocks are read, and the content of the last ones.

    Args:
        path: of the file.
        secret: the key it was begun with, if it was begun with one. A bytearray is wiped.

    Raises:
        AuditError: it is damaged before its end, of form 1, or was begun with another key.
        OSError: it cannot be read, or what is torn cannot be put aside.
    """
    if not Path(path).is_file():
        return None
    with Bytes(path, write=True) as source:
        if not source.size:
            return None
        if _is_torn_header(source):
            _put_aside(source, path, 0)
            return None
        return _Resuming(source, path).run(secret)


def _is_torn_header(source: Bytes) -> bool:
    """Whether the file ends in its header: then there is no record in it."""
    start = source.at(0, len(FORM_2) + LARGEST_HEADER)
    whole = len(start) < source.size or b"\n" in start[len(FORM_2) :]
    return not whole and FORM_2.startswith(start[: len(FORM_2)])


class _Resuming:
    def __init__(self, source: Bytes, path: str) -> None:
        self._source, self._path = source, path
        self._header, self._hash, self._start = header_of(source, path)
        if self._header.record != Layout.ours():
            raise AuditError(f"{path}: its records are those of another version; begin a new file")

    def run(self, secret: bytes | bytearray | None) -> Resumed:
        if self._header.keyed != (secret is not None):
            what = "begun with a key: give it" if self._header.keyed else "begun without a key"
            raise AuditError(f"{self._path}: {what}, or begin a new file")
        end, last = self._sound_end()
        key = ForwardKey(secret, self._hash[:16]) if secret is not None else None
        if key:
            self._follow(key, end)
        number, previous = (last.number, last.hash) if last else (0, self._hash)
        chain = Chain(self._hash[:16], previous, number, key)
        torn = end < self._source.size
        return Resumed(chain, {"torn": _put_aside(self._source, self._path, end)} if torn else {})

    def _sound_end(self) -> tuple[int, Block | None]:
        """Return where the last whole block ends, and its header.

        Raises:
            AuditError: blocks follow that do not belong there.
        """
        end = self._start
        recent: deque[tuple[int, Block]] = deque(maxlen=_LAST)
        for at, block in self._blocks():
            recent.append((at, block))
            end = at + BLOCK.size + block.length
        self._check_torn(end)
        while recent and self._is_torn(*recent[-1]):
            end, _ = recent.pop()
        if not recent and end != self._start:
            raise self._damaged(end)
        return end, recent[-1][1] if recent else None

    def _blocks(self) -> Iterator[tuple[int, Block]]:
        """Yield the blocks that follow each other as they should, and are whole in length."""
        at, number, previous = self._start, 1, self._hash
        while block := self._source.block(at):
            end = at + BLOCK.size + block.length
            expected = (number, self._hash[:16], previous, self._header.keyed)
            if wrong_with(block, *expected) or end > self._source.size:
                return
            yield at, block
            at, number, previous = end, number + 1, block.hash

    def _check_torn(self, end: int) -> None:
        """Check that what is behind the last block is the beginning of one at most."""
        later = self._source.next_block(end)
        if later == end:
            block = self._source.block(end)
            assert block
            if end + BLOCK.size + block.length > self._source.size:
                later = self._source.next_block(end + BLOCK.size)
        if later is not None:
            raise self._damaged(end)

    def _is_torn(self, at: int, block: Block) -> bool:
        content = self._source.at(at + BLOCK.size, block.length)
        return bool(examine(block, memoryview(content), self._header.record.size)[1])

    def _follow(self, key: ForwardKey, end: int) -> None:
        """Move the key on behind the last block.

        Raises:
            AuditError: it is not the file's.
        """
        for at, block in self._blocks():
            if at >= end:
                return
            if not hmac.compare_digest(key.mac(block.fields), block.mac):
                raise AuditError(f"{self._path}, byte {at}: block {block.number} has another key")
            key.advance()

    def _damaged(self, at: int) -> AuditError:
        return AuditError(
            f"{self._path}, byte {at}: damaged before its end, so it is not continued; "
            "pympi audit verify says what is wrong. Begin a new file"
        )


def _put_aside(source: Bytes, path: str, at: int) -> dict[str, Any]:
    """Move what a file has from `at` on to a file beside it; return what there is to say of it."""
    name, fd = _beside(path)
    hashed = sha256()
    with os.fdopen(fd, "wb") as torn:
        for start in range(at, source.size, _PIECE):
            piece = source.at(start, _PIECE)
            hashed.update(piece)
            torn.write(piece)
        torn.flush()
        os.fsync(fd)
    os.ftruncate(source.fd, at)
    os.fsync(source.fd)
    return {"file": Path(name).name, "bytes": source.size - at, "sha256": hashed.hexdigest()}


def _beside(path: str) -> tuple[str, int]:
    """Open a new file FILE.torn, or FILE.torn.1 and so on."""
    for number in count():
        name = f"{path}.torn{f'.{number}' if number else ''}"
        with suppress(FileExistsError):
            return name, os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    raise AssertionError
