# SPDX-License-Identifier: BSD-2-Clause
"""`rules`: a table of what is allowed, for tests, examples and small systems.

    # who    whom     class      what
    allow editor printer mach_port { send hold_send };
    allow * printer mi_printing { print_page };

A label is `rules/<name>`. `*` stands for every name, none included, for every class, and for every
permission. What no line allows is refused. `#` begins a comment.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..enums import ALL, CLASSES, ObjectClass
from ..errors import PolicyError
from .base import Decision, PolicyModule
from .cil import Budget
from .cil.reader import found
from .files import decode, read_bytes

if TYPE_CHECKING:
    from .tables import Sight, Table

__all__ = ["BUDGET", "Rule", "Rules"]

_NAME = re.compile(r"[A-Za-z0-9_.:/-]+")
_TOKEN = re.compile(r"([^\s{};#]+|[{};])|#.*")
_ANY = "*"
_KNOWN = {name: {*tclass.bits, _ANY} for name, tclass in CLASSES.items()}
_CLASS = "a class: " + ", ".join(CLASSES) + ", mi_<interface>, or '*'"

BUDGET = Budget(bytes=32 << 20, tokens=8_000_000, types=500_000, rules=500_000)
"""What a table may cost if nothing else is said. `types` are names here, of whatever; `tokens` are
words, marks and comments; `identifier` is what it is in CIL, and the other limits have no use."""


_TABLED = 1 << 22
"""How many rows the core's tables may have: a rule for every class has one for each."""


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


class _Reader:
    """Reads rules from text, one word after another, no further than the first that is wrong."""

    def __init__(self, text: str, file: str, budget: Budget) -> None:
        self._text, self._file, self._budget = text, file, budget
        self._token: re.Match[str] | None = None  # the one read last; None at the ends of the text
        self._line, self._counted = 1, 0  # the number of a line, and a place in it
        self._names = {_ANY: _ANY}  # each is kept once, however often it is said
        self._words = self._split()

    def _split(self) -> Iterator[str]:
        limit, tokens = self._budget.tokens, enumerate(_TOKEN.finditer(self._text))
        for number, self._token in tokens:
            if number == limit:
                self._exceeded("tokens", "words, marks and comments")
            if word := self._token[1]:
                yield word
        self._token = None

    def rules(self) -> Iterator[Rule]:
        if len(self._text) > self._budget.bytes:
            words = f"more than {self._budget.bytes} bytes (Budget.bytes)"
            raise PolicyError(words, self._file, 1, 1)
        for number, word in enumerate(self._words):
            if word != "allow":
                self._fail("'allow'", word)
            if number == self._budget.rules:
                self._exceeded("rules", "rules")
            yield self._rule()

    def _rule(self) -> Rule:
        line = self._lines()
        source = self._name("a source: a name, or '*'")
        target = self._name("a target: a name, or '*'")
        tclass = self._name(_CLASS)
        if not _is_class(tclass):
            self._fail(_CLASS, tclass)
        self._literal("{")
        permissions = self._permissions(tclass)
        self._literal(";")
        return Rule(source, target, tclass, permissions, line)

    def _literal(self, text: str) -> None:
        word = next(self._words, "")
        if word != text:
            self._fail(f"'{text}'", word)

    def _name(self, expected: str) -> str:
        word = next(self._words, "")
        return self._names.get(word) or self._new(word, expected)

    def _permissions(self, tclass: str) -> tuple[str, ...]:
        """Read permissions up to the '}', one at least."""
        known, names = _KNOWN.get(tclass), self._names
        read: list[str] = []
        while (word := next(self._words, "")) != "}" or not read:
            if known and word not in known:
                self._fail(_permission(tclass, read), word)
            read.append(names.get(word) or self._new(word, _permission(tclass, read)))
        return tuple(read)

    def _new(self, word: str, expected: str) -> str:
        if not _NAME.fullmatch(word):
            self._fail(expected, word)
        if len(word) > self._budget.identifier:
            self._exceeded("identifier", "characters in a name")
        if len(self._names) > self._budget.types:
            self._exceeded("types", "names")
        self._names[word] = word
        return word

    # ---- places ----

    def _at(self) -> int:
        return self._token.start() if self._token else len(self._text)

    def _lines(self) -> int:
        """Return the line of the word read last. From one call to the next, none is recounted."""
        at = self._at()
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        return self._line

    def _error(self, message: str) -> NoReturn:
        column = self._at() - self._text.rfind("\n", 0, self._at())
        raise PolicyError(message, self._file, self._lines(), column)

    def _fail(self, expected: str, word: str) -> NoReturn:
        end = "the end of the policy"
        self._error(f"expected {expected}, found {found(word) if word else end}")

    def _exceeded(self, limit: str, what: str) -> NoReturn:
        self._error(f"more than {getattr(self._budget, limit)} {what} (Budget.{limit})")


class _Numbering:
    """Numbers the names in rules from 1; 0 are all others, and none."""

    def __init__(self, grants: Mapping[tuple[str, str, str], Mapping[str, Rule]]) -> None:
        self.grants = grants
        self.numbers: dict[Any, int] = {}
        for source, target, _ in grants:
            for name in (source, target):
                self.numbers.setdefault(name, len(self.numbers) + 1)

    def sight(self, value: Any) -> Sight:
        """Return what is seen of a name."""
        from .tables import Sight

        if value is not None and type(value) is not str:
            raise ValueError(f"a name is text, not {value!r}")
        return Sight((self.numbers.get(value, 0), 0, 0))


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
        self._budget = BUDGET
        self._take(rules)

    def _take(self, rules: Iterable[tuple[Any, ...]]) -> None:
        self.rules = [_rule(rule) for rule in rules]
        # By source, target and class: the first rule that gives a permission.
        self._grants: dict[tuple[str, str, str], dict[str, Rule]] = {}
        for rule in self.rules:
            grants = self._grants.setdefault((rule.source, rule.target, rule.tclass), {})
            for permission in rule.permissions:
                grants.setdefault(permission, rule)

    @classmethod
    def from_text(cls, text: str, file: str = "<text>", *, budget: Budget | None = None) -> Rules:
        """Return the policy that a text describes.

        Args:
            text: the rules.
            file: its name, for errors.
            budget: what it may cost; `BUDGET` if None.

        Raises:
            PolicyError: with file, line, column, and what was expected there.
        """
        budget = budget or BUDGET
        made = cls(_Reader(text, file, budget).rules())
        made._budget = budget
        return made

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, budget: Budget | None = None) -> Rules:
        """Return the policy in a file.

        Args:
            path: the file.
            budget: what it may cost; `BUDGET` if None.

        Raises:
            PolicyError: as `from_text`; also if the file cannot be read, is no regular file, too
                large, or not UTF-8.
        """
        name, budget = os.fspath(path), budget or BUDGET
        data, _ = read_bytes(name, budget.bytes)
        return cls.from_text(decode(name, data), name, budget=budget)

    @property
    def text_limit(self) -> int:
        """How many bytes of text rules may have: the budget's."""
        return self._budget.bytes

    def rewritten(self, texts: Sequence[tuple[str, str]]) -> Rules:
        """Return the module with the rules in another text, within the same budget.

        Raises:
            PolicyError: as `from_text`; or there are several texts.
        """
        if len(texts) != 1:
            raise PolicyError(f"rules are made of one text, not of {len(texts)}")
        [(file, text)] = texts
        made = copy.copy(self)
        made._take(_Reader(text, file, self._budget).rules())
        return made

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
        for grants in self._matching(source, target, tclass):
            allowed |= _vector(grants, tclass)
        return Decision(allowed=allowed)

    @property
    def table_obstacle(self) -> str:
        """Nothing."""
        return ""

    def compile_tables(self, classes: Sequence[ObjectClass], before: Any) -> Table:
        """Return the rules as they are; "*" is a group that every name is in."""
        from .tables import ClassTable, Table, groups_of, rules_of  # when a kernel needs them

        known = isinstance(before, _Numbering) and before.grants is self._grants
        numbering = before if known else _Numbering(self._grants)
        kinds = len(numbering.numbers) + 1
        numbers = {**numbering.numbers, _ANY: kinds}
        if len(self._grants) * len(classes) > _TABLED:
            raise ValueError(f"more than {_TABLED} pairs of a rule and a class")
        rows = [
            (numbers[source], numbers[target], tclass.number, vector, 0, 0, 0)
            for (source, target, name), grants in self._grants.items()
            for tclass in classes
            if name in (tclass.name, _ANY) and (vector := _vector(grants, tclass))
        ]
        return Table(
            numbering, {tclass.number: ClassTable() for tclass in classes}, rules_of(rows),
            groups_of([[kinds]] * kinds), kinds + 1,
        )  # fmt: skip

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Name a rule that allows it, or the one that would."""
        for grants in self._matching(source, target, tclass):
            if rule := grants.get(permission) or grants.get(_ANY):
                return f"allows by {rule}" + (f" (line {rule.line})" if rule.line else "")
        missing = Rule(source or _ANY, target or _ANY, tclass.name, (permission,))
        hint = " (what has no label is named by '*' alone)" if None in (source, target) else ""
        return f"refuses: no rule; {missing} would allow it{hint}"

    def _matching(self, source: Any, target: Any, tclass: ObjectClass) -> Iterator[dict[str, Rule]]:
        """Yield what is granted by permission, what names source, target and class first."""
        for key in product((source, _ANY), (target, _ANY), (tclass.name, _ANY)):
            if grants := self._grants.get(key):
                yield grants


def _vector(grants: Mapping[str, Rule], tclass: ObjectClass) -> int:
    """Return the permissions of a class that are granted by name, or by "*" all."""
    if _ANY in grants:
        return ALL
    return sum(tclass.bits[permission] for permission in grants.keys() & tclass.bits.keys())


def _is_class(name: str) -> bool:
    return name == _ANY or name in CLASSES or name.startswith("mi_")


def _permission(tclass: str, read: Sequence[str]) -> str:
    """Return what is expected behind the permissions that were read."""
    known = f" ({' '.join(CLASSES[tclass].bits)})" if tclass in CLASSES else ""
    return f"a permission of {tclass}, or '*'{', or ' + repr('}') if read else ''}{known}"


def _rule(rule: tuple[Any, ...]) -> Rule:
    """Return a rule whose class and permissions there are."""
    made: Any = rule if isinstance(rule, Rule) else Rule(*rule)
    if not isinstance(made.permissions, tuple):
        words = made.permissions
        made = made._replace(permissions=tuple(words.split() if isinstance(words, str) else words))
    if not _is_class(made.tclass):
        raise PolicyError(f"no class {made.tclass!r}: {', '.join(CLASSES)}, mi_<interface>")
    if made.tclass in CLASSES and not _KNOWN[made.tclass].issuperset(made.permissions):
        CLASSES[made.tclass].mask(name for name in made.permissions if name != _ANY)
    return made
