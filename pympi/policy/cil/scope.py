# SPDX-License-Identifier: BSD-2-Clause
"""Names: what was declared where, and what a name means in a block.

A name is looked for in the block it is used in, then in those around it. `a.b` is b in the block
a, which is looked for like any name; `.a` begins at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import NoReturn

from .budget import Budget
from .grammar import RESERVED, nearest
from .policydb import Origin
from .reader import Node, Sources, found

__all__ = ["Draft", "Part", "Scope", "Symbol"]

NAME_COST = 1000
"""Bytes that a name takes until the policy is in force, with what stands for it everywhere."""
_SET_COST = 300

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# What is declared, and among which other names it must be the only one.
_SPACES = {
    "type": "type", "attribute": "type", "type alias": "type",
    "class": "class", "class map": "class", "common": "common",
    "classpermission": "classpermission", "permissionx": "permissionx",
    "role": "role", "role attribute": "role", "user": "user",
    "sensitivity": "sensitivity", "sensitivity alias": "sensitivity",
    "category": "category", "category alias": "category", "categoryset": "category",
    "level": "level", "levelrange": "levelrange", "context": "context", "SID": "SID",
    "boolean": "boolean", "block": "block", "policy capability": "policy capability",
}  # fmt: skip


class Scope:
    """The top, or a block: its names by kind of name."""

    def __init__(self, prefix: str = "", parent: Scope | None = None) -> None:
        self.prefix = prefix
        self.parent = parent
        self.names: dict[str, dict[str, Symbol]] = {}
        self.blocks: dict[str, Scope] = {}
        self._outer: dict[tuple[str, str], Symbol | None] = {}

    def get(self, space: str, name: str) -> Symbol | None:
        """Return what a name means here, once everything is declared."""
        symbol = self.names.get(space, {}).get(name)
        if symbol or not (self.parent or "." in name):
            return symbol
        if (space, name) not in self._outer:  # a way through many blocks is gone once
            self._outer[space, name] = self._search(space, name)
        return self._outer[space, name]

    def _search(self, space: str, name: str) -> Symbol | None:
        if "." in name:
            return self._dotted(space, name)
        scope: Scope | None = self
        while scope:
            if symbol := scope.names.get(space, {}).get(name):
                return symbol
            scope = scope.parent
        return None

    def block(self, name: str) -> Scope | None:
        """Return the block that a name means here."""
        first, *rest = name.split(".")
        scope: Scope | None = self
        if first:
            while scope and first not in scope.blocks:
                scope = scope.parent
            rest = [first, *rest]
        else:
            scope = self.top
        for part in rest:
            scope = scope.blocks.get(part) if scope else None
        return scope

    @property
    def top(self) -> Scope:
        """What is around all blocks."""
        scope = self
        while scope.parent:
            scope = scope.parent
        return scope

    def _dotted(self, space: str, name: str) -> Symbol | None:
        path, _, last = name.rpartition(".")
        scope = self.block(path) if path else self.top
        return scope.names.get(space, {}).get(last) if scope else None


Part = tuple[Scope, Node, int]
"""The nth item of a list, and where its names are looked for."""


@dataclass(slots=True, eq=False)
class Symbol:
    """Something declared.

    Attributes:
        kind: one of those above.
        name: with its blocks.
        position: of the declaration.
        number: its place among those of its kind.
        bits: the set it stands for; of what is no set, itself.
        words: permissions, of a class, a common or a class map, with their bits' numbers.
        parts: where its set is written: of attributes and sets.
        mapping: the same for each permission of a class map, by its bit's number.
        actual: what an alias stands for.
    """

    kind: str
    name: str
    position: int
    number: int = -1
    bits: int = 0
    words: dict[str, int] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    mapping: dict[int, list[Part]] = field(default_factory=dict)
    actual: Symbol | None = None
    aliases: list[str] = field(default_factory=list)


Pending = tuple[Scope, Node, int]
"""A statement to resolve, or a `Run`: where its names are looked for, itself, its condition."""


class Draft:
    """A policy while it is compiled: what was declared, and statements that are yet to do."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.sources = Sources(budget)
        self.root = Scope()
        self.symbols: dict[str, list[Symbol]] = {kind: [] for kind in _SPACES}
        self.pending: dict[str, list[Pending]] = {}
        self.conditions: list[tuple[Scope, Node]] = []
        self._left: dict[str, int] = asdict(budget)
        self._sets: dict[bytes, int] = {}

    # ---- errors ----

    def fail(self, message: str, node: Node, child: int = 0) -> NoReturn:
        """Raise an error about a list, or its nth item."""
        raise self.sources.error(message, node[0], child)

    def expected(self, what: str, node: Node, child: int) -> NoReturn:
        """Raise an error: something else stands there."""
        item = node[child] if child < len(node) else None
        self.fail(f"expected {what}, found {found(item)}", node, child)

    def place(self, symbol: Symbol) -> Origin:
        """Return where something was declared."""
        return self.sources.origin(symbol.position)

    def places(self, symbols: Iterable[Symbol]) -> dict[int, Origin]:
        """Return where many things were declared, by position."""
        return self.sources.origins({symbol.position for symbol in symbols})

    # ---- costs ----

    def spend(self, limit: str, count: int, position: int) -> None:
        """Count what a list costs against a limit of the budget, by its name there."""
        left = self._left[limit] - count
        self._left[limit] = left
        if left < 0:
            raise self.sources.error(self.budget.exceeded(limit), position)

    def affords(self, limit: str, count: int) -> bool:
        """Whether so much may still be spent."""
        return count <= self._left[limit]

    def shared(self, bits: int, position: int) -> int:
        """Return the one copy of a set that is kept; a new one takes memory."""
        data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        # An integer's own hash is its remainder: a text can make any number of sets collide.
        key = blake2b(data).digest()
        if key not in self._sets:
            self.spend("memory", _SET_COST + len(data) * 8 // 7, position)
            self._sets[key] = bits
        return self._sets[key]

    # ---- names ----

    def declare(self, kind: str, scope: Scope, node: Node, child: int = 2) -> Symbol:
        """Declare the name that is the nth item of a list."""
        name = self.name(node, child)
        names = scope.names.setdefault(_SPACES[kind], {})
        if other := names.get(name):
            before = f"{self.place(other)} declares {_a(other.kind)} of this name"
            self.fail(f"expected a new name, found {name!r}: {before}", node, child)
        full = scope.prefix + name
        if len(full) > self.budget.identifier:
            self.fail(self.budget.exceeded("identifier"), node, child)
        self.spend("memory", NAME_COST + 2 * len(full), node[0])
        symbol = names[name] = Symbol(kind, full, node[0])
        self.symbols[kind].append(symbol)
        return symbol

    def name(self, node: Node, child: int) -> str:
        """Return a new name: letters, digits, '_' and '-', a letter first."""
        name = node[child]
        if not isinstance(name, str) or name[0] not in _LETTERS:
            self.expected("a name that begins with a letter", node, child)
        if "." in name:
            self.fail(f"expected a name without '.', found {found(name)}", node, child)
        if name in RESERVED:
            self.fail(f"expected a name, found '{name}', which is a word of CIL", node, child)
        return name

    def find(self, kinds: tuple[str, ...], scope: Scope, node: Node, child: int) -> Symbol:
        """Return what the nth item of a list names, aliases followed.

        Args:
            kinds: what it may be; the first says among which names it is looked for.
        """
        symbol = self.look(kinds[0], scope, node, child)
        if symbol is None:
            self._unknown(kinds, scope, node, child)
        if symbol.actual is not None:
            symbol = symbol.actual
        if symbol.kind not in kinds:
            words = " or ".join(map(_a, kinds))
            about = f"{_a(symbol.kind)} (declared at {self.place(symbol)})"
            self.fail(f"expected {words}, found '{node[child]}', {about}", node, child)
        return symbol

    def look(self, kind: str, scope: Scope, node: Node, child: int) -> Symbol | None:
        """Return what the nth item of a list names, or None."""
        name = node[child]
        return scope.get(_SPACES[kind], name) if isinstance(name, str) else None

    def _unknown(self, kinds: tuple[str, ...], scope: Scope, node: Node, child: int) -> NoReturn:
        words = " or ".join(map(_a, kinds))
        if not isinstance(node[child], str):
            self.expected(words, node, child)
        near = nearest(node[child], _visible(scope, _SPACES[kinds[0]]))
        found_words = f"found {found(node[child])}, which is not declared{near}"
        self.fail(f"expected {words}, {found_words}", node, child)


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeioAEIOS" and not kind.startswith("sens") else f"a {kind}"


def _visible(scope: Scope | None, space: str) -> Iterator[str]:
    while scope:
        yield from scope.names.get(space, ())
        scope = scope.parent
