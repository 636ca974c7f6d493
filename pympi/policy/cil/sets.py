# SPDX-License-Identifier: BSD-2-Clause
"""Set expressions to integers with a bit for each member, and sets that are made of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .reader import Node, found
from .scope import Draft, Part, Scope, Symbol

__all__ = ["SetReader", "check_operator", "settle", "union", "weight"]

# operator -> how many operands it takes
SET_OPERATORS = {"and": 2, "or": 2, "xor": 2, "not": 1, "all": 0}
_WORDS = frozenset([*SET_OPERATORS, "range"])
_LARGE = 14  # sets of so many bits, as a power of two, take longer than a name to look up


class SetReader(NamedTuple):
    """Reads set expressions.

    Attributes:
        draft: the policy.
        member: what a name stands for: the nth item of a list.
        all: the set of everything.
        range: what a range is, given the list (range LOW HIGH); None where there are none.
    """

    draft: Draft
    member: Callable[[Scope, Node, int], int]
    all: int
    range: Callable[[Scope, Node], int] | None = None

    def read(self, part: Part) -> int:
        """Return the set that an item of a list is: a name or an expression."""
        scope, node, child = part
        item = node[child]
        self.draft.spend("operands", weight(self.all), node[0])
        if isinstance(item, str):
            return self.member(scope, node, child)
        return self._list(scope, item)

    def _list(self, scope: Scope, node: Node) -> int:
        operator = node[1] if len(node) > 1 else None
        if operator is None:
            self.draft.fail("expected a name or an operator, found ')'", node, 1)
        if operator == "range" and self.range:
            check_operator(self.draft, node, 2)
            return self.range(scope, node)
        if not isinstance(operator, str) or operator not in SET_OPERATORS:
            union = 0
            for child in range(1, len(node)):
                union |= self.read((scope, node, child))
            return union
        check_operator(self.draft, node, SET_OPERATORS[operator])
        values = [self.read((scope, node, child)) for child in range(2, len(node))]
        return self._apply(operator, values)

    def _apply(self, operator: str, values: list[int]) -> int:
        if operator == "and":
            return values[0] & values[1]
        if operator == "or":
            return values[0] | values[1]
        if operator == "xor":
            return values[0] ^ values[1]
        return self.all & ~values[0] if operator == "not" else self.all


def weight(bits: int) -> int:
    """Return what an operand costs that is such a set, or one of its members."""
    return 1 + (bits.bit_length() >> _LARGE)


def check_operator(draft: Draft, node: Node, count: int) -> None:
    """Check that an operator, the first item of a list, has as many operands as it takes."""
    if len(node) - 2 < count:
        draft.fail(f"expected {count} operands of '{node[1]}', found {len(node) - 2}", node, 1)
    if len(node) - 2 > count:
        words = f"expected ')' after {count} operands of '{node[1]}'"
        draft.fail(f"{words}, found {found(node[count + 2])}", node, count + 2)


def operands(part: Part) -> Iterator[tuple[Node, int]]:
    """Iterate over the names in an expression."""
    _, node, child = part
    todo = [(node, child)]
    while todo:
        node, child = todo.pop()
        item = node[child]
        if isinstance(item, tuple):
            todo.extend((item, each) for each in range(len(item) - 1, 0, -1))
        elif item not in _WORDS:
            yield node, child


def settle(draft: Draft, kind: str, read: Callable[[Part], int]) -> None:
    """Find the sets that the symbols of a kind stand for; those in a set before the set.

    Raises:
        PolicyError: a set contains itself.
    """
    done: set[Symbol] = set()
    for symbol in draft.symbols[kind]:
        path: dict[Symbol, Iterator[tuple[Symbol, Node, int]]] = {}
        if symbol not in done:
            path[symbol] = _dependencies(draft, symbol)
        while path:
            current, steps = path.popitem()
            path[current] = steps
            step = next((s for s in steps if s[0] not in done), None)
            if step is None:
                path.popitem()
                done.add(current)
                current.bits = union(draft, current, read)
            elif step[0] in path:
                _circle(draft, list(path), step)
            else:
                path[step[0]] = _dependencies(draft, step[0])


def union(draft: Draft, symbol: Symbol, read: Callable[[Part], int]) -> int:
    """Return the set that the parts of a symbol are together."""
    bits = 0
    for part in symbol.parts:
        bits |= read(part)
    return draft.shared(bits, symbol.position)


def _dependencies(draft: Draft, symbol: Symbol) -> Iterator[tuple[Symbol, Node, int]]:
    """Iterate over the sets of the same kind that a set is made of, and where they are named."""
    for part in symbol.parts:
        for node, child in operands(part):
            other = draft.look(symbol.kind, part[0], node, child)
            if other and other.kind == symbol.kind:
                yield other, node, child


def _circle(draft: Draft, path: list[Symbol], step: tuple[Symbol, Node, int]) -> None:
    again, node, child = step
    names = [each.name for each in path[path.index(again) :]]
    if len(names) > 6:
        names[3:-2] = ["..."]
    draft.fail(f"'{again.name}' contains itself: {' > '.join([*names, again.name])}", node, child)
