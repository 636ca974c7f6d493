# SPDX-License-Identifier: BSD-2-Clause
"""Which label a service has, by its name: the file that Android calls service_contexts.

    # name or beginning of names      label
    com.example.print                 te/system_u:object_r:print_service_t
    com.example.*                     te/system_u:object_r:example_service_t
    *                                 te/system_u:object_r:default_service_t

A pattern is a name, or the beginning of names with a `*` behind it. A name counts before every
beginning, and a longer beginning before a shorter one, whatever their order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ..errors import PolicyError
from ..policy import Budget
from ..policy.files import decode, read_bytes

__all__ = ["ServiceContexts"]

_BUDGET = Budget(bytes=1 << 26)
_LINE = re.compile(r"(\S+)\s+(\S.*)")


class ServiceContexts:
    """Labels of services by name.

    Args:
        rules: patterns and labels.

    Raises:
        ValueError: a pattern stands twice, or has a `*` in its middle.

    Example:
        >>> contexts = ServiceContexts(
        ...     {"com.example.*": "te/u:r:a", "com.example.print": "te/u:r:b"})
        >>> contexts.label("com.example.print"), contexts.label("com.example.scan")
        ('te/u:r:b', 'te/u:r:a')
    """

    def __init__(self, rules: Iterable[tuple[str, str]] | dict[str, str] = ()) -> None:
        self._names: dict[str, str] = {}
        self._beginnings: dict[str, str] = {}
        for pattern, label in rules.items() if isinstance(rules, dict) else rules:
            self._add(pattern, label)
        self._lengths = sorted({len(text) for text in self._beginnings}, reverse=True)

    def _add(self, pattern: str, label: str) -> None:
        table = self._beginnings if pattern.endswith("*") else self._names
        text = pattern[:-1] if pattern.endswith("*") else pattern
        if "*" in text:
            raise ValueError(f"pattern {pattern!r}: '*' stands at the end, for any rest of a name")
        if text in table:
            raise ValueError(f"pattern {pattern!r} stands twice")
        table[text] = label

    @classmethod
    def from_text(cls, text: str, file: str = "<text>") -> ServiceContexts:
        """Return what a text says, a pattern and a label to a line; `#` begins a comment.

        Raises:
            PolicyError: with file and line.
        """
        made = cls()
        for number, line in enumerate(text.splitlines(), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            found = _LINE.fullmatch(stripped)
            try:
                if not found:
                    raise ValueError(f"expected a pattern and a label, found {stripped[:80]!r}")
                made._add(*found.groups())
            except ValueError as error:
                raise PolicyError(str(error), file, number, 1) from None
        made._lengths = sorted({len(text) for text in made._beginnings}, reverse=True)
        return made

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, budget: Budget | None = None
    ) -> ServiceContexts:
        """Return what a file says.

        Args:
            path: the file.
            budget: of which `bytes` bounds it; 64 MiB if None.

        Raises:
            PolicyError: as `from_text`; also if the file cannot be read, is no regular file, too
                large, or not UTF-8.
        """
        name = os.fspath(path)
        data, _ = read_bytes(name, (budget or _BUDGET).bytes)
        return cls.from_text(decode(name, data), name)

    def label(self, name: str) -> str | None:
        """Return the label of a name; None where no pattern fits it."""
        found = self._names.get(name)
        if found is not None:
            return found
        fits = (name[:length] for length in self._lengths if length <= len(name))
        return next((self._beginnings[text] for text in fits if text in self._beginnings), None)

    def labels(self) -> set[str]:
        """Return all labels that services may get."""
        return {*self._names.values(), *self._beginnings.values()}
