# SPDX-License-Identifier: BSD-2-Clause
"""Bytes into a file that others can fill, cut, move or stop reading: `Writer`."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

__all__ = ["DURABILITIES", "FileChanged", "Writer", "checked_interval"]

DURABILITIES = ("none", "interval", "record")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
_MODES = {"w": os.O_TRUNC, "a": 0, "x": os.O_EXCL}
_PRIVATE = 0o600


def checked_interval(interval: Any) -> Any:
    """Return seconds that a thread can wait for, or None as it is.

    Raises:
        ValueError: it is neither.
    """
    number = isinstance(interval, int | float) and 0 < interval <= threading.TIMEOUT_MAX
    if interval is not None and not number:
        raise ValueError(f"interval must be a number of seconds above 0, not {interval!r}")
    return interval


class FileChanged(OSError):
    """A file is not what was written any more; nothing was written of what was to be.

    Attributes:
        what: "moved" (its path leads to another file), "deleted" or "truncated".
    """

    def __init__(self, what: str, path: str) -> None:
        super().__init__(errno.ESTALE, f"the file was {what} by somebody else", path)
        self.what = what


class Writer:
    """Writes pieces of bytes to a file: each in full, or an error and as if it had not been.

    Every piece is handed to the system at once, so killing the process loses none; `durability`
    says when the disk is waited for. What may happen meanwhile, and what becomes of it:

    | what happens | what becomes of it |
    |---|---|
    | short write, EINTR | the rest is written |
    | EAGAIN: a pipe is full | it is waited for, `patience` seconds, then TimeoutError |
    | ENOSPC, EDQUOT, EFBIG, EIO | what was written of the piece is cut off again; OSError |
    | EIO from the disk in `sync` | OSError, now and ever after: nobody knows what was kept |
    | the file was truncated, moved or deleted | FileChanged; `reopen` goes on with what is there |
    | somebody else appends to it | pieces of both follow each other, each whole |
    | the reader of a pipe is gone | BrokenPipeError, and no SIGPIPE |
    | a pipe nobody reads yet | OSError (ENXIO) when it is opened |
    | fork() | a child may only close: the file is the parent's |

    Args:
        path: of a file, a pipe or a device. A new file is for its owner only.
        mode: "w" replaces a file, "a" goes on at its end, "x" wants it not to be there.
        durability: "none" leaves the disk to the system; "interval" waits for it where `interval`
            seconds have passed since it last did; "record" waits in each `write`. Without effect on
            what is no regular file.
        interval: seconds.
        patience: seconds a full pipe is waited for.

    Attributes:
        path (str): as given.
        durability (str), interval (float): as given.
        position (int): bytes that the file has, as last seen.
        regular (bool): it is a file on a disk, which can be synced and cut.

    Raises:
        ValueError: a mode or a durability that there is not, an interval that is none.
        OSError: the file cannot be opened.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "log")
        >>> writer = Writer(path, "w")
        >>> writer.write(b"one line\\n")
        >>> _ = path.rename(path.with_suffix(".1"))
        >>> try:
        ...     writer.write(b"another\\n")
        ... except FileChanged as change:
        ...     print(change.what)
        ...     writer.reopen()
        moved
        >>> writer.write(b"another\\n")
        >>> writer.close()
        >>> path.read_text()
        'another\\n'
    """

    def __init__(
        self, path: str | os.PathLike[str], mode: str = "w", durability: str = "none", *,
        interval: float = 1.0, patience: float = 30.0,
    ) -> None:  # fmt: skip
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}")
        if durability not in DURABILITIES:
            known = ", ".join(DURABILITIES)
            raise ValueError(f"durability must be one of {known}, not {durability!r}")
        self.path = os.fspath(path)
        self.durability, self._patience = durability, patience
        self.interval: float = checked_interval(interval)
        self._fd = -1
        self._open(_MODES[mode])

    def _open(self, flags: int) -> None:
        fd = os.open(self.path, _CREATE | flags, _PRIVATE)
        old, self._fd = self._fd, fd
        status = os.fstat(fd)
        self.regular = stat.S_ISREG(status.st_mode)
        self.position = status.st_size if self.regular else 0
        self._identity = (status.st_dev, status.st_ino)
        self._broken: OSError | None = None
        self._synced, self._dirty = time.monotonic(), False
        if old >= 0:
            os.close(old)
        if self.regular and self.durability != "none":
            self._sync_directory()

    def _sync_directory(self) -> None:
        """Have the disk know the name of a new file; some file systems cannot be told to."""
        with suppress(OSError):
            fd = os.open(Path(self.path).parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def write(self, data: Any) -> None:
        """Write a piece, in full.

        Args:
            data: bytes, or anything with a buffer.

        Raises:
            FileChanged: see there.
            BrokenPipeError: nobody reads it any more.
            TimeoutError: a pipe was full for too long.
            OSError: the disk is full, or broken.
            ValueError: it is closed.
        """
        self._check()
        view = memoryview(data).cast("B")
        try:
            with _sigpipe_blocked() if not self.regular else nullcontext():
                self._write(view)
        except OSError as error:
            raise self._named(error) from error
        self.position += len(view)
        self._dirty = True
        if self.durability == "record" or self.due:
            self.sync()

    def _check(self) -> None:
        """Look whether the file is still there as it was."""
        if self._fd < 0:
            raise ValueError(f"{self.path} is closed")
        if self._broken:
            raise self._broken
        if self.regular and (change := self._changed()):
            raise FileChanged(change, self.path)

    def _changed(self) -> str:
        try:
            status = Path(self.path).stat()
        except FileNotFoundError:
            return "deleted" if not os.fstat(self._fd).st_nlink else "moved"
        if (status.st_dev, status.st_ino) != self._identity:
            return "moved" if os.fstat(self._fd).st_nlink else "deleted"
        if status.st_size < self.position:
            return "truncated"
        self.position = status.st_size
        return ""

    def _write(self, view: memoryview) -> None:
        done = 0
        try:
            while done < len(view):
                try:
                    done += os.write(self._fd, view[done:])
                except BlockingIOError:
                    self._wait()
        except BaseException:
            self._take_back(done)
            raise

    def _wait(self) -> None:
        """Wait until a pipe can take more."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(self._patience * 1000):
            raise TimeoutError(errno.ETIMEDOUT, f"nothing was read for {self._patience:g} s")

    def _take_back(self, count: int) -> None:
        """Cut off the beginning of a piece that could not be written in full."""
        if count and self.regular:
            end = os.fstat(self._fd).st_size
            if end == self.position + count:
                os.ftruncate(self._fd, self.position)

    @property
    def size(self) -> int:
        """Bytes that the file has; 0 if it is none on a disk."""
        return os.fstat(self._fd).st_size if self.regular else 0

    def cut(self, size: int) -> None:
        """Cut off what is behind so many bytes."""
        os.ftruncate(self._fd, size)
        self.position = size

    def _named(self, error: OSError) -> OSError:
        return type(error)(error.errno, error.strerror or str(error), self.path)

    # ---- the disk ----

    @property
    def due(self) -> bool:
        """Whether the durability asks for a `sync` now: of something written an interval ago."""
        waited = self._dirty and self.durability == "interval"
        return waited and time.monotonic() - self._synced >= self.interval

    def sync(self) -> None:
        """Wait until all that was written is on the disk.

        Raises:
            OSError: it is not, and will not be: what the system could not write it has forgotten,
                so asking again would be answered with yes. So it is said ever after.
        """
        if self._broken:
            raise self._broken
        if self.regular and self._dirty:
            try:
                _sync_call()(self._fd)
            except OSError as error:
                self._broken = self._named(error)
                raise self._broken from error
        self._synced, self._dirty = time.monotonic(), False

    def reopen(self) -> None:
        """Open the path again and go on at the end of what is there: after it was rotated.

        Raises:
            OSError: it cannot be opened; the file that was open stays so.
        """
        self._open(_MODES["a"])

    def close(self) -> None:
        """Sync, if the durability asks for that at all, and close. Again: does nothing.

        Raises:
            OSError: what was written may not be on the disk. It is closed.
        """
        if self._fd < 0:
            return
        try:
            if self.durability != "none":
                self.sync()
        finally:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def abandon(self) -> None:
        """Close the file and do nothing else: for a child of fork()."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _sync_call() -> Callable[[int], None]:
    return getattr(os, "fdatasync", os.fsync)


@contextmanager
def _sigpipe_blocked() -> Iterator[None]:
    """Have a pipe without readers answer EPIPE, also where SIGPIPE would end the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE not in before:
            if signal.SIGPIPE in signal.sigpending():
                signal.sigwait({signal.SIGPIPE})
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
