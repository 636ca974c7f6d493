# SPDX-License-Identifier: BSD-2-Clause
"""The files of a policy to texts."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ...errors import PolicyError
from ..files import decode, read_bytes
from .budget import Budget

__all__ = ["read_files"]


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
        data, identity = read_bytes(name, limit, root)
        if identity in seen:
            raise PolicyError(f"the same file as {seen[identity]}, given twice", name)
        seen[identity] = name
        limit -= len(data)
        texts.append((name, decode(name, data)))
    return texts
