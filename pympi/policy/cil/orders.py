# SPDX-License-Identifier: BSD-2-Clause
"""classorder, sidorder, sensitivityorder, categoryorder: several lists become one.

There must be one way only to join them, as what secilc does with others depends on their places.
"""

from __future__ import annotations

from itertools import pairwise

from .reader import Node
from .scope import Draft, Scope, Symbol

__all__ = ["merge", "ordered"]


def ordered(draft: Draft, kind: str, keyword: str) -> list[Symbol]:
    """Return the symbols of a kind in their order.

    Raises:
        PolicyError: one of them is in no order, or the orders cannot be joined.
    """
    order = merge(draft, kind, keyword)
    placed = set(order)
    for symbol in draft.symbols[kind]:
        if symbol not in placed:
            message = f"{kind} {symbol.name} is in no {keyword}"
            raise draft.sources.error(message, symbol.position, 2)
    return order


def merge(draft: Draft, kind: str, keyword: str) -> list[Symbol]:
    """Return the symbols of a kind that are in an order, in it."""
    after: dict[Symbol, set[Symbol]] = {}
    before: dict[Symbol, int] = {}
    for scope, node, _ in draft.pending.get(keyword, ()):
        chain = _chain(draft, kind, scope, node, keyword)
        for symbol in chain:
            after.setdefault(symbol, set())
            before.setdefault(symbol, 0)
        for lower, higher in pairwise(chain):
            if higher not in after[lower]:
                after[lower].add(higher)
                before[higher] += 1
    return _sorted(draft, after, before, keyword)


def _chain(draft: Draft, kind: str, scope: Scope, statement: Node, keyword: str) -> list[Symbol]:
    node = statement[2]
    if len(node) == 1:
        draft.fail("expected at least one name, found ')'", node, 1)
    if node[1] == "unordered":
        draft.fail(f"'unordered' in {keyword} is outside the subset", node, 1)
    chain = [draft.find((kind,), scope, node, child) for child in range(1, len(node))]
    seen: set[Symbol] = set()
    for child, symbol in enumerate(chain, 1):
        if symbol in seen:
            draft.fail(f"'{symbol.name}' is twice in this {keyword}", node, child)
        seen.add(symbol)
    return chain


def _sorted(
    draft: Draft, after: dict[Symbol, set[Symbol]], before: dict[Symbol, int], keyword: str
) -> list[Symbol]:
    ready = [symbol for symbol, count in before.items() if not count]
    order: list[Symbol] = []
    while ready:
        if len(ready) > 1:
            names = f"'{ready[0].name}' and '{ready[1].name}'"
            _fail(draft, keyword, f"the {keyword}s do not say which of {names} is first")
        order.append(ready.pop())
        for higher in after[order[-1]]:
            before[higher] -= 1
            if not before[higher]:
                ready.append(higher)
    if len(order) < len(before):
        names = next(symbol.name for symbol, count in before.items() if count)
        _fail(draft, keyword, f"the {keyword}s contradict each other about '{names}'")
    return order


def _fail(draft: Draft, keyword: str, message: str) -> None:
    draft.fail(message, draft.pending[keyword][-1][1])
