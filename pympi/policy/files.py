# SPDX-License-Identifier: BSD-2-Clause
"""Policy files: regular ones of bounded size, strictly UTF-8, whatever a name leads to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import PolicyError

__all__ = ["check_regular", "decode", "read_bytes"]

_COMPILED = bytes.fromhex("8cff7cf9")  # a kernel's binary policy begins with this number
_MARK = b"\xef\xbb\xbf"


def read_bytes(
    path: str | os.PathLike[str], limit: int, root: str | os.PathLike[str] | None = None
) -> tuple[bytes, tuple[int, int]]:
    """Return what is in a file, and what tells it from every other file: device and inode.

    Args:
        path: the file.
        limit: how many bytes it may have.
        root: a directory that it must lie in, symbolic links followed. None: anywhere.

    Raises:
        PolicyError: it cannot be read, is no regular file, too large, or outside `root`.
    """
    name = os.fspath(path)
    try:
        within = _within(name, root)
        # Not to wait for whoever has the other end of a pipe: what is no file is refused below.
        follow = 0 if root is None else os.O_NOFOLLOW  # what became a link since is not followed
        descriptor = os.open(within, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
        try:
            return _contents(descriptor, name, limit)
        finally:
            os.close(descriptor)
    except PolicyError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise PolicyError(f"{name}: {getattr(error, 'strerror', None) or error}", name) from error


def check_regular(*paths: str | os.PathLike[str]) -> None:
    """Check that files are regular ones, for who reads them himself, perhaps more than once.

    Raises:
        PolicyError: one is of another kind.
        OSError: there is none, or it cannot be looked at.
    """
    for path in paths:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            name = os.fspath(path)
            raise PolicyError(f"{name}: expected a regular file, found another kind", name)


def _within(name: str, root: str | os.PathLike[str] | None) -> Path:
    if root is None:
        return Path(name)
    path, directory = Path(name).resolve(strict=True), Path(root).resolve(strict=True)
    if not path.is_relative_to(directory):
        raise PolicyError(f"{name}: leads to {path}, outside {directory}", name)
    return path


def _contents(descriptor: int, name: str, limit: int) -> tuple[bytes, tuple[int, int]]:
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        raise PolicyError(f"{name}: expected a regular file, found another kind", name)
    with open(descriptor, "rb", closefd=False) as file:
        data = file.read(limit + 1)  # what the size says may change while it is read
    if len(data) > limit:
        raise PolicyError(f"{name}: larger than {limit:,} bytes, the limit (Budget.bytes)", name)
    return data, (about.st_dev, about.st_ino)


def decode(name: str, data: bytes) -> str:
    """Return the text of a policy file.

    Raises:
        PolicyError: with the place; it is not UTF-8, begins with a mark, or is a compiled policy.
    """
    if data.startswith(_COMPILED):
        raise PolicyError("expected text, found a compiled policy", name, 1, 1)
    if data.startswith(_MARK):
        raise PolicyError("expected text, found a byte order mark (U+FEFF)", name, 1, 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
        raise PolicyError(
            f"expected UTF-8, found the byte 0x{data[error.start]:02x}", name, line, column
        ) from error
