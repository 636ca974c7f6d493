# SPDX-License-Identifier: BSD-2-Clause
"""Policy files to texts: regular files of bounded size, strictly UTF-8."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from ...errors import PolicyError
from .budget import Budget

__all__ = ["read_files"]

_COMPILED = bytes.fromhex("8cff7cf9")  # a kernel's binary policy begins with this number
_MARK = b"\xef\xbb\xbf"


def read_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    budget: Budget | None = None,
    root: str | os.PathLike[str] | None = None,
) -> list[tuple[str, str]]:
    """Read policy files, for `compile_policy`.

    Args:
        paths: the files; each may be given once.
        budget: how large they may be.
        root: a directory that they must lie in, symbolic links followed. None: anywhere.

    Returns:
        name and text of each, in order.

    Raises:
        PolicyError: a file that cannot be read, is no regular file, too large, not UTF-8, outside
            `root`, or given twice.
    """
    limit = (budget or Budget()).bytes
    seen: dict[tuple[int, int], str] = {}
    texts = []
    for path in paths:
        name = os.fspath(path)
        data, identity = _read(name, limit, root)
        if identity in seen:
            raise PolicyError(f"the same file as {seen[identity]}, given twice", name)
        seen[identity] = name
        limit -= len(data)
        texts.append((name, _decode(name, data)))
    return texts


def _read(
    name: str, limit: int, root: str | os.PathLike[str] | None
) -> tuple[bytes, tuple[int, int]]:
    try:
        path = _within(name, root)
        # Not to wait for whoever has the other end of a pipe: what is no file is refused below.
        follow = 0 if root is None else os.O_NOFOLLOW  # what became a link since is not followed
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise PolicyError(f"{name}: {getattr(error, 'strerror', None) or error}", name) from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise PolicyError(f"{name}: expected a regular file, found another kind", name)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)  # what the size says may change while it is read
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise PolicyError(f"{name}: larger than the policy may be (Budget.bytes)", name)
    return data, (about.st_dev, about.st_ino)


def _within(name: str, root: str | os.PathLike[str] | None) -> Path:
    if root is None:
        return Path(name)
    path, directory = Path(name).resolve(strict=True), Path(root).resolve(strict=True)
    if not path.is_relative_to(directory):
        raise PolicyError(f"{name}: leads to {path}, outside {directory}", name)
    return path


def _decode(name: str, data: bytes) -> str:
    if data.startswith(_COMPILED):
        raise PolicyError("expected CIL text, found a compiled policy", name, 1, 1)
    if data.startswith(_MARK):
        raise PolicyError("expected '(', found a byte order mark (U+FEFF)", name, 1, 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
        raise PolicyError(
            f"expected UTF-8, found the byte 0x{data[error.start]:02x}", name, line, column
        ) from error
