# SPDX-License-Identifier: BSD-2-Clause
"""Text that somebody else chose, where it must do nothing but be read."""

from __future__ import annotations

import re

__all__ = ["csv_cell", "escape", "unescape"]

_ESCAPED = re.compile(
    "[\\\\\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_ESCAPE = re.compile(r"\\(?:(\\)|u\{([0-9a-f]{1,6})\})")


def escape(name: str) -> str:
    r"""`name` with backslashes, control and direction characters as `\\` and `\u{hex}`.

    >>> escape("a\tb|c : d")
    'a\\u{9}b|c : d'
    """
    return _ESCAPED.sub(lambda m: r"\\" if m[0] == "\\" else f"\\u{{{ord(m[0]):x}}}", name)


def unescape(text: str) -> str:
    """The name that `escape` wrote as `text`. Raises ValueError when it never writes that."""
    name = _ESCAPE.sub(lambda m: m[1] or chr(int(m[2], 16)), text)
    if escape(name) != text:
        raise ValueError(f"expected an escaped name, found {text!r}")
    return name


def csv_cell(text: str) -> str:
    """Return a text that a spreadsheet takes for a text: formulas get an apostrophe before them.

    >>> csv_cell("=1+1"), csv_cell("a-b"), csv_cell("-")
    ("'=1+1", 'a-b', '-')
    """
    shown = escape(text)
    return f"'{shown}" if len(shown) > 1 and shown[0] in "=+-@" else shown
