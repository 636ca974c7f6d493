# SPDX-License-Identifier: BSD-2-Clause
"""What modules say about several permissions that were refused at once."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["together"]


def together(said: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Return what is said of permissions, each thing once.

    What differs by the permission alone, in the braces of a rule, is one thing about all of them:
    a rule that allows one of them would not help.

    Args:
        said: permissions, and texts about each.

    Example:
        >>> together((name, [f"no rule; allow a b c {{ {name} }}; would allow it", "te allows"])
        ...     for name in ("send", "copy_send"))
        ['no rule; allow a b c { send copy_send }; would allow it', 'te allows']
    """
    alike: dict[str, list[str]] = {}
    for permission, texts in said:
        place = re.compile(rf"(?<=[{{(])( ?){re.escape(permission)}(?= ?[)}}])")
        for text in texts:
            alike.setdefault(place.sub("\\1\0", text), []).append(permission)
    return [text.replace("\0", " ".join(names)) for text, names in alike.items()]
