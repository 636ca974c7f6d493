# SPDX-License-Identifier: BSD-2-Clause
r"""Labels as text: one value for each policy module.

    te/u:r:t,mls/5:1+3(low-high)

A label is a list of `module/value`, separated by commas and sorted by module. In a value a comma
is written `\,` and a backslash `\\`. A label without any value is written `-`. The text is all the
core ever sees; what a value means is known to its module alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import LabelError

__all__ = ["EMPTY", "choose", "format_label", "parse_label"]

EMPTY = "-"
"""The label without any value."""

_NAME = re.compile(r"[a-z][a-z0-9_]*(?:@[1-9][0-9]*)?")
_VALUE = re.compile(r"(?:[^,\\\0]|\\[,\\])+")
_ESCAPE = re.compile(r"\\(.)")


def parse_label(text: str) -> dict[str, str]:
    r"""Return the values of a label by module name.

    Args:
        text: `module/value,...`, or "-".

    Raises:
        LabelError: the text is not a label; it says where and what was expected.

    Example:
        >>> parse_label(r"te/a\,b,mls/low")
        {'te': 'a,b', 'mls': 'low'}
    """
    values: dict[str, str] = {}
    at = 0
    while text != EMPTY:
        name, value, at = _item(text, at)
        if name in values:
            raise _wrong(text, at, f"each module once, found {name!r} again")
        values[name] = value
        if at == len(text):
            break
        if text[at] != ",":
            raise _wrong(text, at, r"',' or the end (in a value write '\\' for a backslash)")
        at += 1
    return values


def _item(text: str, at: int) -> tuple[str, str, int]:
    name = _NAME.match(text, at)
    if not name:
        raise _wrong(text, at, "a module name, as in 'module/value'")
    if text[name.end() : name.end() + 1] != "/":
        raise _wrong(text, name.end(), f"'/' and a value after {name[0]!r}")
    value = _VALUE.match(text, name.end() + 1)
    if not value:
        raise _wrong(text, name.end() + 1, f"a value of {name[0]!r}")
    return name[0], _ESCAPE.sub(r"\1", value[0]), value.end()


def _wrong(text: str, at: int, expected: str) -> LabelError:
    return LabelError(f"label {text!r}, character {at + 1}: expected {expected}")


def format_label(values: Mapping[str, str]) -> str:
    r"""Return the text of a label, the inverse of `parse_label`.

    Raises:
        LabelError: a name is no module name, or a value is empty or has a NUL.

    Example:
        >>> format_label({"te": "a,b", "mls": "low"})
        'mls/low,te/a\\,b'
    """
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise LabelError(f"{name!r} is no module name: lower-case letters, digits, '_'")
        if not value or "\0" in value:
            raise LabelError(f"a value of {name!r} must be text without NUL, not {value!r}")
    items = sorted(values.items())
    return ",".join(f"{name}/{_escaped(value)}" for name, value in items) or EMPTY


def choose(label: str, names: str) -> str:
    r"""Return the part of a label that belongs to some modules, as a label.

    Args:
        label: `module/value,...`, or "-".
        names: of modules, separated by commas. One that begins with "?" is left out where the label
            has no value of it. "*" alone stands for all that there are.

    Raises:
        LabelError: a value is missing that is not optional, or `names` is no such list. Nothing is
            returned then.

    Example:
        >>> choose("mls/low,te/u:r:t", "te,?biba")
        'te/u:r:t'
    """
    values = parse_label(label)
    if names == "*":
        return format_label(values)
    chosen: dict[str, str] = {}
    seen: set[str] = set()
    for item in names.split(","):
        name = item.removeprefix("?")
        if not _NAME.fullmatch(name) or name in seen:
            problem = "is there twice" if name in seen else "is no module name"
            raise LabelError(
                f"names {names!r}: {item!r} {problem}; expected as in 'te,?mls' or '*'"
            )
        seen.add(name)
        if name in values:
            chosen[name] = values[name]
        elif item == name:
            raise LabelError(
                f"label {label!r} has no value of {name!r}; ask for '?{name}' if it may"
            )
    return format_label(chosen)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,")
