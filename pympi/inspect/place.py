# SPDX-License-Identifier: BSD-2-Clause
"""Where a control socket lies: a directory that nobody else can write, and nothing else.

Nobody can connect before `listen`, and that comes after the socket's mode is set: there is no
moment in which others could reach it, whatever the umask.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["BACKLOG", "Peer", "Place", "checked_path", "peer_of"]

BACKLOG = 16
_OURS, _FOR_ALL = 0o600, 0o666  # who may connect, as far as the file says it
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_IS_DARWIN = os.uname().sysname == "Darwin"
LONGEST = 103 if _IS_DARWIN else 107  # of sun_path, without its NUL
_LOCAL_PEERCRED = 1  # of macOS and FreeBSD: struct xucred begins with a version and the uid
_LOCAL_PEERPID = 2  # of macOS


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path that a socket can be bound and connected to.

    Raises:
        ValueError: it is empty, an abstract name, or too long.
    """
    text = os.fspath(path)
    if not isinstance(text, str) or "\0" in text or not text:
        raise ValueError(f"{text!r} is no path: abstract names, open to everyone, are not used")
    absolute = Path(text).absolute()
    if (size := len(os.fsencode(absolute))) > LONGEST:
        raise ValueError(
            f"{absolute}: a socket's path has at most {LONGEST} bytes, this has {size}; "
            "choose a shorter one"
        )
    return absolute


class Peer(NamedTuple):
    """The process at the other end of a socket, as of when it connected.

    Attributes:
        uid: of its user.
        pid: its number; 0 where the system does not say.
    """

    uid: int
    pid: int

    def __str__(self) -> str:
        return f"user {self.uid}, process {self.pid}" if self.pid else f"user {self.uid}"


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end, as the system says it."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, _ = struct.unpack("iII", raw)
        return Peer(uid, pid)
    raw = connection.getsockopt(0, _LOCAL_PEERCRED, 76)
    pid = connection.getsockopt(0, _LOCAL_PEERPID) if _IS_DARWIN else 0
    return Peer(int(struct.unpack_from("II", raw)[1]), pid)


class Place:
    """A listening socket, and the files that go with it.

    Args:
        path: of the socket. Its directory is made, with mode 0700, if there is none.
        others: users besides us and root are to connect: whoever listens tells them apart. The
            directory is made with mode 0711 then, and the socket has 0666.

    Raises:
        ValueError: no path for a socket.
        OSError: somebody else could meddle with it, or something else is there.
    """

    def __init__(self, path: str | os.PathLike[str], others: bool = False) -> None:
        wanted = checked_path(path)
        self._pid = os.getpid()
        self._mode = _FOR_ALL if others else _OURS
        directory, self._made_directory = _own_directory(wanted.parent, others)
        self.path = checked_path(directory / wanted.name)
        self._file: tuple[int, int] | None = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _clear(self.path)
            self._bind()
        except BaseException:
            self.close()
            raise

    def _bind(self) -> None:
        self.socket.setblocking(False)
        self.socket.bind(os.fspath(self.path))
        status = self.path.lstat()
        self._file = status.st_dev, status.st_ino
        self.path.chmod(self._mode)
        self.socket.listen(BACKLOG)

    def close(self) -> None:
        """Close the socket, and remove the files that were made, if they are still those.

        In a child of fork() the files are the parent's, and stay.
        """
        self.socket.close()
        if self._pid != os.getpid():
            return
        with suppress(OSError):
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == self._file:
                self.path.unlink()
        made, self._made_directory = self._made_directory, False
        if made:
            with suppress(OSError):  # somebody put something else in
                self.path.parent.rmdir()


def _own_directory(path: Path, others: bool) -> tuple[Path, bool]:
    """Make sure that nobody but us, and root, can change what lies in a directory.

    Returns:
        The directory without links on the way to it, and whether it was made.
    """
    made = False
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        made = True
        if others:
            path.chmod(0o711)  # whatever the umask; they go through, and see and change nothing
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise NotADirectoryError(
            errno.ENOTDIR, "is a symbolic link, which is not followed", str(path)
        )
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is no directory", str(path))
    if status.st_uid != os.geteuid():
        _refuse(path, f"belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & OTHERS_WRITE:
        _refuse(path, f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})")
    resolved = path.resolve()
    for above in resolved.parents:
        _check_above(above)
    return resolved, made


def _check_above(path: Path) -> None:
    """Who can rename a directory above could put another in its place."""
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        _refuse(path, f"belongs to user {status.st_uid}, who could replace what is in it")
    if status.st_mode & OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        _refuse(path, "others may write to it, and could replace what is in it")


def _refuse(path: Path, why: str) -> None:
    raise PermissionError(
        errno.EACCES, f"{why}; a control socket needs a directory of its own, mode 0700", str(path)
    )


def _clear(path: Path) -> None:
    """Remove the socket of a server that is no more; anything else stays, and is an error."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "is there, and no socket", str(path))
    if status.st_uid != os.geteuid():
        _refuse(path, f"a socket of user {status.st_uid} is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        outcome = probe.connect_ex(os.fspath(path))
    if outcome != errno.ECONNREFUSED:  # 0, or EAGAIN where its backlog is full
        raise OSError(errno.EADDRINUSE, "a server listens there", str(path))
    path.unlink()
