# SPDX-License-Identifier: BSD-2-Clause
"""HTML and SVG from elements: whatever is not an element is text, and stays text."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from ..trace.text import escape

__all__ = ["Markup", "data", "element", "joined", "printable"]

_EMPTY = frozenset({"meta", "input", "br", "link"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def printable(text: str) -> str:
    r"""Return a text with what is not printable, or changes its direction, as `\u{hex}`."""
    return escape(text).replace("\\\\", "\\")


def _escaped(child: object) -> str:
    return child if isinstance(child, Markup) else html.escape(printable(str(child)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        tag: its name.
        children: elements, and texts, which are escaped.
        attributes: `class_` is class, `aria_label` aria-label; True stands alone, None and False
            leave it out.

    Example:
        >>> element("p", "a < b", element("b", "!"), class_="x")
        '<p class="x">a &lt; b<b>!</b></p>'
    """
    named = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items() if value is not None and value is not False
    )  # fmt: skip
    if tag in _EMPTY:
        return Markup(f"<{tag}{named}>")
    return Markup(f"<{tag}{named}>{''.join(map(_escaped, children))}</{tag}>")


def joined(parts: Iterable[Markup], between: str = "") -> Markup:
    """Return elements one after the other."""
    return Markup(between.join(parts))


def data(value: Any) -> Markup:
    """Return JSON that can stand in a script element: nothing in it ends that, or begins another.

    Raises:
        ValueError: a number that JSON does not have.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
