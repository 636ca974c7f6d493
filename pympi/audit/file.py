# SPDX-License-Identifier: BSD-2-Clause
"""The binary audit file, form 2: it describes itself, and it tells if it was changed.

docs/audit.md has every byte; `chain` says what is hashed, `reader` and `verify` read it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .._closing import Closing
from .chain import BLOCK, LARGEST_BLOCK, Block, ForwardKey, digest
from .content import OPEN, STRATA, rising
from .draft import Chain, Draft, definitions_for
from .layout import new_header
from .record import RECORD, Batch
from .resume import Resumed, resume
from .writer import FileChanged, Writer

__all__ = ["File"]

_BUFFER = 1 << 20  # bytes from which on a block is full
_AT_ONCE = 1 << 16  # records that are added to a block at once
_IDENTITY = 16  # bytes
_LARGEST = LARGEST_BLOCK // 2  # bytes of frames; what goes with them has no more than these


class File(Closing):
    """Writes records to a file, in blocks that are chained by hashes.

    A call takes a batch, which is on its way to the disk as the durability says. What cannot be
    written is kept: OSError says so, and the next call, `flush` or `close` tries again before it
    does anything else. So no block is written in part, and none is left out.

    Where the file was moved or deleted (rotated), writing goes on in a new one, whose header names
    the last block of the old one. With a key it cannot, since the secret is gone: FileChanged.

    Args:
        path: of the file, which is replaced, unless it is continued.
        when_full: what becomes of an operation whose record finds no room: "drop" counts the loss,
            "block" writes first and then goes on, "fail" fails the operation, "abort" aborts.
        durability: "none" writes when a buffer of 1 MiB is full, and at `flush`; "interval" writes
            all there is each `interval` seconds, and waits for the disk; "record" does so in each
            call, before an operation that was recorded returns.
        interval: seconds.
        key: a secret of 32 bytes or more, which is kept elsewhere: whoever has it can tell whether
            blocks were written before the process was in anybody else's hands. A bytearray is wiped
            as soon as it was used.
        append: go on behind the last block of a file that is there. A torn block behind that is
            kept beside the file, as FILE.torn.
        about: what else is to stand in the header of a new file.
        identity: 16 bytes that no other file has; left out, random ones.
        now: the time, as of time.time(), for the header and for where writing begins. Together with
            `identity`, for files that are the same in every byte.

    Raises:
        AuditError: a file that is to be continued is damaged, of form 1, or of another key.
        BlockingIOError: somebody else is writing the file.
        ValueError: a durability that there is not, an interval or a key that is none, or too much
            `about`.
        OSError: the file cannot be opened or written.

    Example:
        >>> import tempfile, os.path
        >>> from pympi import Kernel, audit
        >>> path = os.path.join(tempfile.mkdtemp(), "run.audit")
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.File(path))
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     inbox.make_send(kernel.create_task("client")).send(b"hello", msgh_id=7)
        >>> [record.msgh_id for record in audit.read(path) if record.operation == "send"]
        [7]
    """

    def __init__(
        self, path: str | os.PathLike[str], when_full: str = "drop", *, durability: str = "none",
        interval: float = 1.0, key: bytes | bytearray | None = None, append: bool = False,
        about: Mapping[str, str] | None = None, identity: bytes | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.when_full, self.durability = when_full, durability
        self.path = str(Path(path).absolute())  # whatever becomes of the working directory
        self.synchronous = durability == "record"
        self._about, self._now = dict(about or {}), now
        self._mutex, self._pid = threading.RLock(), os.getpid()
        self._last = -1  # sequence number of the last record of this run
        self._kernel, self._empty, self._over = (
            0,
            True,
            False,
        )  # whose run, nothing of it, it is over
        self._drafts: deque[Draft] = deque([Draft()])
        self._tried: tuple[Draft, Block, int] | None = None  # what is being written, and from where
        self._lock = _Lock(self.path)
        self._writer: Writer | None = None
        try:
            self._open(interval, resume(self.path, key) if append else None, identity, key)
        except BaseException:
            self.abandon()
            raise
        self._timer = _Timer(self, interval) if durability == "interval" else None

    # ---- the beginning ----

    def _open(
        self, interval: float, old: Resumed | None, identity: bytes | None,
        key: bytes | bytearray | None,
    ) -> None:  # fmt: skip
        # Before the old file is replaced: what is wrong with the arguments must not cost it.
        header, chain = (b"", old.chain) if old else self._new(identity, key, self._about)
        mode = "a" if old else "w"
        self._writer = Writer(self.path, mode, self.durability, interval=interval)
        if header:
            self._writer.write(header)
        self._chain = chain
        self._begin(**old.said if old else {})
        self._write(everything=True)

    def _new(
        self, identity: bytes | None, key: bytes | bytearray | None, about: Mapping[str, str]
    ) -> tuple[bytes, Chain]:
        """Return the header of a new file, and its chain."""
        identity = secrets.token_bytes(16) if identity is None else identity
        if not isinstance(identity, bytes) or len(identity) != _IDENTITY:
            raise ValueError(f"an identity is {_IDENTITY} bytes, not {identity!r}")
        header = new_header(identity.hex(), self._time(), key is not None, about).packed()
        hashed = digest(header)
        secret = None if key is None else ForwardKey(key, hashed[:16])
        return header, Chain(hashed[:16], hashed, 0, secret)

    def _begin(self, **more: Any) -> None:
        """Begin a block for the records of a kernel that is new to the file."""
        said = {"opened": self._time(), "durability": self.durability, **more}
        self._drafts[-1].put(OPEN, json.dumps(said).encode())
        self._last, self._empty, self._over = -1, True, False

    def attached(self, kernel: int) -> None:
        """Take what comes from now on for a run of its own, unless it is of the kernel that was.

        `Audit.attach` calls this.

        Args:
            kernel: a number that no other kernel of this process has.

        Raises:
            ValueError: the file is closed.
            OSError: what could not be written before still cannot be.
        """
        with self._held():
            self._over = self._over or (kernel != self._kernel and not self._empty)
            self._kernel = kernel

    def _time(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).isoformat()

    # ---- batches ----

    def __call__(self, batch: Batch) -> None:
        """Take a batch.

        Raises:
            ValueError: its sequence numbers do not rise, or the file is closed; it was not taken.
            OSError: what is full could not be written. If that was so before, the batch was not
                taken; else it was, and is kept.
        """
        with self._held():
            records = batch.records.astype(RECORD, copy=False)
            if (wrong := rising(records["sequence"], -1)) >= 0:
                before, found = records["sequence"][wrong - 1 : wrong + 1]
                raise ValueError(f"expected a record after {before}, found {found}")
            for start in range(0, len(records), _AT_ONCE):
                self._take(batch, records[start : start + _AT_ONCE])
            self._write(everything=self.synchronous)

    def _take(self, batch: Batch, records: npt.NDArray[Any]) -> None:
        definitions = [*definitions_for(batch, records)]
        size = sum(len(text) + 24 for _, _, text in definitions) + records.nbytes
        if size > _LARGEST and len(records) > 1:
            half = len(records) // 2
            self._take(batch, records[:half])
            self._take(batch, records[half:])
            return
        another = self._over or int(records["sequence"][0]) <= self._last
        too_much = self._drafts[-1].size + size > _LARGEST
        if another or too_much or self._drafts[-1].contradicts(definitions):
            self._next()
        if another:
            self._begin()
        draft = self._drafts[-1]
        full = draft.size + size >= _BUFFER
        draft.add(records if full else records.copy(), definitions)
        self._last, self._empty = int(records["sequence"][-1]), False
        if full:
            _ = draft.sealed  # now: the records are the caller's
            self._next()

    def _next(self) -> None:
        """Go on in another block."""
        if self._drafts[-1].size:
            self._drafts.append(Draft())

    def strata(self, strata: Mapping[str, Any]) -> None:
        """Note what was counted and what was kept of it, if the records are a sample.

        Args:
            strata: what is to be found in `Reader.strata`; an object in JSON.

        Raises:
            ValueError, OSError: as of a call.
        """
        if not isinstance(strata, Mapping):  # no reader would take it
            raise ValueError(f"strata are an object, not {strata!r}")
        with self._held():
            raw = json.dumps(strata).encode()
            if self._over or self._drafts[-1].size + len(raw) > _LARGEST:
                self._next()
            if len(raw) > _LARGEST:
                raise ValueError(f"at most {_LARGEST} bytes of strata, not {len(raw)}")
            if self._over:
                self._begin()
            self._empty = False
            self._drafts[-1].put(STRATA, raw)

    # ---- the disk ----

    @contextmanager
    def _held(self) -> Iterator[Writer]:
        """Have it for us alone; write what could not be written before."""
        if os.getpid() != self._pid:  # where whoever held the mutex is not any more
            raise RuntimeError(f"{self.path} is written by the process that fork() was called in")
        with self._mutex:
            if self._writer is None:
                raise ValueError(f"{self.path} is closed")
            self._write()
            yield self._writer

    def _write(self, *, everything: bool = False, end: bool = False) -> None:
        """Write the blocks that are full, or everything; with `end`, the last one closes."""
        self._find_out()
        if everything:
            self._next()
        while len(self._drafts) > 1:
            self._write_block(self._drafts[0])
        if end:
            self._write_block(self._drafts[0], end=True)

    def _write_block(self, draft: Draft, *, end: bool = False) -> None:
        assert self._writer
        block, raw = self._chain.seal(draft, end=end)
        self._tried = draft, block, self._writer.size
        try:
            self._writer.write(raw)
        except FileChanged as change:
            self._tried = None
            self._renew(self._writer, change)
            self._write_block(draft, end=end)
        else:
            self._written(draft, block)

    def _find_out(self) -> None:
        """Find out what became of a block after Ctrl-C, or of a disk that says no when it has it.

        Ctrl-C may come anywhere, also right after the block was written: a second one of the same
        number would be damage.
        """
        if self._tried is None or self._writer is None or not self._writer.regular:
            return
        draft, block, start = self._tried
        end, size = start + BLOCK.size + block.length, self._writer.size
        if self._chain.number >= block.number or size == end:
            self._written(draft, block)
        elif start < size < end:
            self._writer.cut(start)
        self._tried = None

    def _written(self, draft: Draft, block: Block) -> None:
        """Move on behind a block, wherever this was interrupted before."""
        if self._chain.number < block.number:
            self._chain.advance(block)
        if self._drafts[0] is draft and len(self._drafts) > 1:
            self._drafts.popleft()
        elif self._drafts[0] is draft:
            self._drafts[0] = Draft()
        self._tried = None

    def _renew(self, writer: Writer, change: FileChanged) -> None:
        """Go on in a new file, where the old one was moved or deleted."""
        if change.what == "truncated" or self._chain.key:
            raise change
        old = self._chain
        follows = {"file": old.file.hex(), "block": str(old.number), "hash": old.previous.hex()}
        about = self._about | {f"follows {name}": text for name, text in follows.items()}
        self._lock.release()
        self._lock = _Lock(self.path)
        try:
            writer.reopen()
            if writer.position or not writer.regular:  # a file of somebody else is there now
                raise change
            header, chain = self._new(None, None, about)
            writer.write(header)
            self._chain = chain
        except BaseException:  # there is no file any more that could be gone on with
            self.abandon()
            raise

    @property
    def unwritten(self) -> int:
        """How many records were taken and are not in the file yet."""
        return sum(draft.records for draft in tuple(self._drafts))

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last block that was written, to be kept where the file is not:
        `pympi audit verify --head` then finds that all up to there is what was written."""
        with self._mutex:
            return self._chain.number, self._chain.previous.hex()

    def flush(self) -> None:
        """Write all there is, and wait for the disk unless the durability is "none".

        Raises:
            OSError: it could not be written; it is kept.
            ValueError: the file is closed.
        """
        with self._held() as writer:
            self._write(everything=True)
            if self.durability != "none":
                writer.sync()

    def close(self) -> None:
        """Write all there is, and that the file was closed. Again, or in a child: does nothing.

        Raises:
            OSError: it could not be written, or the disk did not take it. It is closed.
        """
        if os.getpid() != self._pid or self._writer is None:
            self.abandon()
            return
        if self._timer:
            self._timer.stop()
        with self._mutex:
            try:
                self._write(end=True)
                self._writer.close()
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is, and write nothing: for a child of fork()."""
        writer, self._writer = self._writer, None
        if writer:
            writer.abandon()
        self._lock.release()
        if chain := getattr(self, "_chain", None):
            chain.wipe()

    def __del__(self) -> None:
        if getattr(self, "_writer", None):
            with suppress(Exception):  # nobody is there to be told
                self.flush()
            self.abandon()


class _Lock:
    """That nobody else writes a file at the same time. What is no regular file has none.

    Raises:
        BlockingIOError: somebody does.
    """

    def __init__(self, path: str) -> None:
        self._fd = -1
        if not Path(path).is_file() and Path(path).exists():
            return
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise BlockingIOError(error.errno, "somebody else is writing it", path) from None
        except OSError:  # a file system without locks
            self.release()

    def release(self) -> None:
        """Let others write."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _Timer:
    """Has a file flushed each interval, in a thread that does not keep the file."""

    def __init__(self, file: File, interval: float) -> None:
        self._stop = threading.Event()
        arguments = (weakref.ref(file), interval, self._stop)
        name = f"audit {file.path}"
        self._thread = threading.Thread(target=_tick, args=arguments, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have it end, and wait until it has."""
        self._stop.set()
        self._thread.join()


def _tick(file: weakref.ref[File], interval: float, stop: threading.Event) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while not stop.wait(interval):
        if (found := file()) is None:
            return
        # What could not be written is kept: the next call says so, if it still cannot be.
        with suppress(OSError, ValueError):
            found.flush()
        del found
