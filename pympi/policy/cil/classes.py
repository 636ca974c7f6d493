# SPDX-License-Identifier: BSD-2-Clause
"""Classes, commons, class maps, and the permissions that rules name."""

from __future__ import annotations

from itertools import islice

from .bits import members
from .policydb import PolicyClass
from .reader import Node
from .scope import NAME_COST, Draft, Part, Scope, Symbol
from .sets import SetReader

__all__ = ["ClassPermissions", "collect_sets", "declare_words", "join_commons", "policy_classes"]

LARGEST = 32  # permissions of a class: an access vector has 32 bits
_DEEPEST = 32  # maps and sets of permissions, one made of the other
_VECTOR_COST = 100  # bytes that a class takes in a set of permissions


def declare_words(draft: Draft, kind: str, scope: Scope, node: Node) -> None:
    """class, common, classmap: declare the name, and its permissions."""
    symbol = draft.declare(kind, scope, node)
    words = node[3]
    if len(words) == 1 and kind != "class":
        draft.fail("expected at least one permission, found ')'", words, 1)
    draft.spend("memory", NAME_COST * (len(words) - 1), words[0])
    for child in range(1, len(words)):
        word = draft.name(words, child)
        if word in symbol.words:
            draft.fail(f"expected a new permission, found '{word}' again", words, child)
        symbol.words[word] = child - 1
    if kind != "class map" and len(symbol.words) > LARGEST:
        _too_many(draft, words, LARGEST + 1, f"{kind} {symbol.name}")


def _too_many(draft: Draft, node: Node, child: int, whose: str) -> None:
    draft.fail(f"expected at most {LARGEST} permissions of {whose}, found more", node, child)


def join_commons(draft: Draft) -> dict[Symbol, str]:
    """classcommon: put the permissions of commons before those of their classes.

    Returns:
        class -> name of its common.
    """
    commons: dict[Symbol, str] = {}
    for scope, node, _ in draft.pending.get("classcommon", ()):
        symbol = draft.find(("class",), scope, node, 2)
        common = draft.find(("common",), scope, node, 3)
        if symbol in commons:
            draft.fail(f"class {symbol.name} has a common: {commons[symbol]}", node, 2)
        if both := symbol.words.keys() & common.words.keys():
            listed = " ".join(sorted(both))
            draft.fail(f"class {symbol.name} has permissions of its common: {listed}", node, 3)
        commons[symbol] = common.name
        words = [*common.words, *symbol.words]
        symbol.words = {word: bit for bit, word in enumerate(words)}
        if len(symbol.words) > LARGEST:
            _too_many(draft, node, 3, f"class {symbol.name} and its common")
    return commons


def policy_classes(
    draft: Draft, order: list[Symbol], commons: dict[Symbol, str]
) -> tuple[PolicyClass, ...]:
    """Number the classes in their order."""
    for number, symbol in enumerate(order):
        symbol.number = number
    places = draft.places(order)
    return tuple(
        PolicyClass(s.name, s.number, tuple(s.words), places[s.position], commons.get(s, ""))
        for s in order
    )


def collect_sets(draft: Draft) -> None:
    """classmapping, classpermissionset: note what maps and named sets are made of."""
    for scope, node, _ in draft.pending.get("classmapping", ()):
        symbol = draft.find(("class map",), scope, node, 2)
        bit = symbol.words.get(node[3])
        if bit is None:
            draft.expected(f"a permission of {symbol.name}: {_few(symbol)}", node, 3)
        symbol.mapping.setdefault(bit, []).append((scope, node, 4))
    for scope, node, _ in draft.pending.get("classpermissionset", ()):
        symbol = draft.find(("classpermission",), scope, node, 2)
        symbol.parts.append((scope, node, 3))
    for symbol in draft.symbols["class map"]:
        if lacking := symbol.words.values() - symbol.mapping.keys():
            word = list(symbol.words)[min(lacking)]
            message = f"class map {symbol.name} has no classmapping for {word}"
            raise draft.sources.error(message, symbol.position, 2)
    for symbol in draft.symbols["classpermission"]:
        if not symbol.parts:
            message = f"classpermission {symbol.name} has no classpermissionset"
            raise draft.sources.error(message, symbol.position, 2)


Vectors = tuple[tuple[int, int], ...]
"""(class, permissions) for each class, in class order."""


class ClassPermissions:
    """What the CLASSPERMS of rules stand for. What is written alike is worked out once."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._known: dict[object, Vectors] = {}
        self._open: list[object] = []

    def check(self) -> None:
        """Work out all maps and named sets, used or not."""
        for symbol in self._draft.symbols["class map"]:
            for bit in symbol.words.values():
                self._mapped(symbol, bit)
        for symbol in self._draft.symbols["classpermission"]:
            self._named(symbol)

    def read(self, scope: Scope, node: Node, child: int) -> Vectors:
        """Return what the nth item of a list stands for."""
        item = node[child]
        if isinstance(item, str):
            return self._named(self._draft.find(("classpermission",), scope, node, child))
        key = (
            (scope, item[1], item[2][1:]) if len(item) == 3 and item[2].__class__ is tuple else None
        )
        vectors = self._known.get(key)
        if vectors is None:
            vectors = self._known[key] = self._inline(scope, item)
        return vectors

    def _inline(self, scope: Scope, node: Node) -> Vectors:
        draft = self._draft
        if len(node) != 3 or not isinstance(node[2], tuple):
            child = min(2, len(node)) if len(node) <= 3 else 3
            draft.expected("(CLASS (PERMISSION...))", node, child)
        symbol = draft.find(("class", "class map"), scope, node, 1)

        def member(_scope: Scope, at: Node, child: int) -> int:
            bit = symbol.words.get(at[child])
            if bit is None:
                draft.expected(f"a permission of {symbol.name}: {_few(symbol)}", at, child)
            return 1 << bit

        bits = SetReader(draft, member, (1 << len(symbol.words)) - 1).read((scope, node, 2))
        if symbol.kind == "class":
            return ((symbol.number, bits),) if bits else ()
        return self._union([self._mapped(symbol, bit) for bit in members(bits)], node)

    def _mapped(self, symbol: Symbol, bit: int) -> Vectors:
        return self._made_of((symbol, bit), symbol.mapping[bit])

    def _named(self, symbol: Symbol) -> Vectors:
        return self._made_of((symbol, None), symbol.parts)

    def _made_of(self, key: tuple[Symbol, int | None], parts: list[Part]) -> Vectors:
        if key in self._known:
            return self._known[key]
        if key in self._open:
            self._draft.fail(f"'{_name(*key)}' contains itself", parts[0][1])
        if len(self._open) >= _DEEPEST:
            words = f"more than {_DEEPEST} sets of permissions, one made of the other"
            self._draft.fail(words, parts[0][1])
        self._open.append(key)
        several = [self.read(*part) for part in parts]
        vectors = self._known[key] = self._union(several, parts[0][1])
        self._open.pop()
        return vectors

    def _union(self, several: list[Vectors], node: Node) -> Vectors:
        if len(several) == 1:
            return several[0]
        self._draft.spend("operands", len(several) + sum(map(len, several)), node[0])
        vectors: dict[int, int] = {}
        for each in several:
            for number, bits in each:
                vectors[number] = vectors.get(number, 0) | bits
        self._draft.spend("memory", _VECTOR_COST * len(vectors), node[0])
        return tuple(sorted(vectors.items()))


def _name(symbol: Symbol, bit: int | None) -> str:
    """Return the name of a set of permissions, or of a map and its permission."""
    return symbol.name if bit is None else f"{symbol.name} {list(symbol.words)[bit]}"


def _few(symbol: Symbol) -> str:
    """Return the permissions of a class or map, as far as one wants to read them."""
    words = list(islice(symbol.words, LARGEST + 1))
    return " ".join(words[:LARGEST]) + (" ..." if words[LARGEST:] else "") or "(it has none)"
