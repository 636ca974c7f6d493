# SPDX-License-Identifier: BSD-2-Clause
"""`rules`: a table of what is allowed, for tests, examples and small systems.

    # who    whom     class      what
    allow editor printer mach_port { send hold_send };
    allow * printer mi_printing { print_page };

A label is `rules/<name>`. `*` stands for every name, none included, for every class, and for every
permission. What no line allows is refused. `#` begins a comment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..enums import ALL, CLASSES, ObjectClass
from ..errors import PolicyError
from .base import Decision, PolicyModule

__all__ = ["Rule", "Rules"]

_NAME = re.compile(r"[A-Za-z0-9_.:/-]+")
_TOKEN = re.compile(r"[^\s{};#]+|[{};]")
_ANY = "*"


class Rule(NamedTuple):
    """One line: `source` may do `permissions` to `target`.

    Attributes:
        source, target: names, or "*".
        tclass: a class, or "*".
        permissions: names, or ("*",).
        line: where it was written; 0 if it was not.
    """

    source: str
    target: str
    tclass: str
    permissions: tuple[str, ...]
    line: int = 0

    def __str__(self) -> str:
        words = " ".join(self.permissions)
        return f"allow {self.source} {self.target} {self.tclass} {{ {words} }};"


class _Token(NamedTuple):
    text: str
    line: int
    column: int


class _Reader:
    """Reads rules from text, one token after another."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._tokens = list(self._split(text))
        lines = text.split("\n")
        self._end = _Token("", len(lines), len(lines[-1]) + 1)
        self._at = 0

    def _split(self, text: str) -> Iterator[_Token]:
        for number, line in enumerate(text.split("\n"), 1):
            for match in _TOKEN.finditer(line.partition("#")[0]):
                yield _Token(match[0], number, match.start() + 1)

    def peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else self._end

    def next(self) -> _Token:
        token = self.peek()
        self._at += 1
        return token

    def fail(self, token: _Token, expected: str) -> NoReturn:
        found = repr(token.text) if token.text else "the end of the policy"
        message = f"expected {expected}, found {found}"
        raise PolicyError(message, self.file, token.line, token.column)

    def word(self, expected: str) -> _Token:
        token = self.next()
        if token.text != _ANY and not _NAME.fullmatch(token.text):
            self.fail(token, expected)
        return token

    def literal(self, text: str) -> _Token:
        token = self.next()
        if token.text != text:
            self.fail(token, f"'{text}'")
        return token

    def rules(self) -> Iterator[Rule]:
        while self.peek().text:
            yield self.rule()

    def rule(self) -> Rule:
        line = self.literal("allow").line
        source = self.word("a source: a name, or '*'").text
        target = self.word("a target: a name, or '*'").text
        tclass = self.tclass()
        self.literal("{")
        permissions = tuple(self.permissions(tclass))
        self.literal(";")
        return Rule(source, target, tclass, permissions, line)

    def tclass(self) -> str:
        token = self.word("a class: " + ", ".join(CLASSES) + ", mi_<interface>, or '*'")
        if token.text != _ANY and token.text not in CLASSES and not token.text.startswith("mi_"):
            self.fail(token, "a class: " + ", ".join(CLASSES) + ", mi_<interface>, or '*'")
        return token.text

    def permissions(self, tclass: str) -> Iterator[str]:
        known = CLASSES[tclass].bits if tclass in CLASSES else None
        expected = f"a permission of {tclass}, or '*'"
        first = self.peek()
        while self.peek().text != "}":
            token = self.word(f"{expected}, or '}}'")
            if known is not None and token.text != _ANY and token.text not in known:
                self.fail(token, f"{expected} ({' '.join(known)})")
            yield token.text
        if self.next() is first:
            self.fail(first, expected)


class Rules(PolicyModule):
    """Allows what its rules say, and nothing else.

    Args:
        rules: `Rule`s, or tuples of (source, target, class, permissions).

    Example:
        >>> from pympi import Kernel
        >>> policy = Rules.from_text("allow editor printer mach_port { send };")
        >>> with Kernel(policies=[policy]) as kernel:
        ...     bool(kernel.access("rules/editor", "rules/printer", "mach_port", "send"))
        True
    """

    name = "rules"

    def __init__(self, rules: Iterable[tuple[Any, ...]] = ()) -> None:
        self.rules = [_rule(rule) for rule in rules]
        self._table: dict[tuple[str, str], list[Rule]] = {}
        for rule in self.rules:
            self._table.setdefault((rule.source, rule.target), []).append(rule)

    @classmethod
    def from_text(cls, text: str, file: str = "<text>") -> Rules:
        """Return the policy that a text describes.

        Raises:
            PolicyError: with file, line, column, and what was expected there.
        """
        return cls(_Reader(text, file).rules())

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Rules:
        """Return the policy in a file.

        Raises:
            PolicyError: as `from_text`; also if the file is not UTF-8.
            OSError: it cannot be read.
        """
        raw = Path(path).read_bytes()
        try:
            return cls.from_text(raw.decode(), str(path))
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            column = error.start - raw.rfind(b"\n", 0, error.start)
            raise PolicyError("expected UTF-8", str(path), line, column) from None

    def parse(self, text: str) -> str:
        """Return the name.

        Raises:
            ValueError: it is not letters, digits and _ . : / -.
        """
        if not _NAME.fullmatch(text):
            raise ValueError(f"a name has letters, digits and _ . : / - only, not {text!r}")
        return text

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Allow what the rules for these names, and for any, say together."""
        allowed = 0
        for rule in self._matching(source, target, tclass):
            allowed |= _vector(rule, tclass)
        return Decision(allowed=allowed)

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Name the rule that allows it, or say that there is none."""
        asked = tclass.mask(permission)
        for rule in self._matching(source, target, tclass):
            if _vector(rule, tclass) & asked:
                return f"allows by {rule}" + (f" (line {rule.line})" if rule.line else "")
        return f"refuses: no rule allows {source or 'what has no label'} {permission} on {target}"

    def _matching(self, source: Any, target: Any, tclass: ObjectClass) -> Iterator[Rule]:
        for pair in {(s, t) for s in (source, _ANY) for t in (target, _ANY)}:
            for rule in self._table.get(pair, ()):
                if rule.tclass in (_ANY, tclass.name):
                    yield rule


def _rule(rule: tuple[Any, ...]) -> Rule:
    source, target, tclass, permissions, *line = rule
    names = permissions.split() if isinstance(permissions, str) else permissions
    made = Rule(source, target, tclass, tuple(names), *line)
    if tclass in CLASSES and _ANY not in names:
        CLASSES[tclass].mask(names)
    elif tclass != _ANY and tclass not in CLASSES and not str(tclass).startswith("mi_"):
        raise PolicyError(f"no class {tclass!r}: {', '.join(CLASSES)}, mi_<interface>")
    return made


def _vector(rule: Rule, tclass: ObjectClass) -> int:
    """Return what a rule allows of a class; what the class does not have, it does not allow."""
    if _ANY in rule.permissions:
        return ALL
    return sum(tclass.bits[name] for name in set(rule.permissions) if name in tclass.bits)
