# SPDX-License-Identifier: BSD-2-Clause
"""The expressions of constraints, and those of booleans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .policydb import Comparison, Expression, Operand
from .reader import Node, found
from .scope import Draft, Scope
from .sets import check_operator, weight

__all__ = ["condition", "constraint"]

_EQUAL = frozenset(["eq", "neq"])
_ORDER = frozenset(["eq", "neq", "dom", "domby", "incomp"])

# What an operand may be compared with, and by which operators. secilc takes some other pairs
# without a word and compiles something else: (dom l2 l1) becomes "l2 dominates h2".
PAIRS: Mapping[tuple[str, str], frozenset[str]] = {
    ("u1", "u2"): _EQUAL, ("r1", "r2"): _ORDER, ("t1", "t2"): _EQUAL,
    ("l1", "l2"): _ORDER, ("l1", "h2"): _ORDER, ("h1", "l2"): _ORDER, ("h1", "h2"): _ORDER,
    ("l1", "h1"): _ORDER, ("l2", "h2"): _ORDER,
}  # fmt: skip
# What an operand may be compared with by name.
NAMES: Mapping[str, tuple[str, ...]] = {
    "u1": ("user",), "u2": ("user",), "r1": ("role", "role attribute"),
    "r2": ("role", "role attribute"), "t1": ("type", "attribute"), "t2": ("type", "attribute"),
}  # fmt: skip
OPERANDS = frozenset([*NAMES, "l1", "l2", "h1", "h2"])
_MIRROR = {"eq": "eq", "neq": "neq", "dom": "domby", "domby": "dom", "incomp": "incomp"}
_CONNECTIVES = {"and": 2, "or": 2, "not": 1}
_BOOLEAN = {"and": 2, "or": 2, "xor": 2, "eq": 2, "neq": 2, "not": 1}

_TEST_COST = 600  # bytes that a part of an expression takes until it can be evaluated

# The kernel evaluates with stacks of these sizes.
CONSTRAINT_STACK, CONDITION_STACK = 5, 10


def constraint(draft: Draft, scope: Scope, node: Node, mls: bool) -> Expression:
    """Return the expression of a constrain or mlsconstrain statement."""
    expression = _constraint(draft, scope, node[3], mls)
    if _stack(expression) > CONSTRAINT_STACK:
        words = f"the expression needs a stack of more than {CONSTRAINT_STACK}; nest on the left:"
        draft.fail(f"{words} (and (and A B) C), not (and A (and B C))", node, 3)
    return expression


def _constraint(draft: Draft, scope: Scope, node: Node, mls: bool) -> Expression:
    operator = node[1] if len(node) > 1 else None
    draft.spend("memory", _TEST_COST, node[0])
    if isinstance(operator, str) and operator in _CONNECTIVES:
        check_operator(draft, node, _CONNECTIVES[operator])
        parts = []
        for child in range(2, len(node)):
            if not isinstance(node[child], tuple):
                draft.expected("an expression such as (eq u1 u2)", node, child)
            parts.append(_constraint(draft, scope, node[child], mls))
        return (operator, *parts)
    if not isinstance(operator, str) or operator not in _ORDER:
        words = " ".join([*sorted(_ORDER), *_CONNECTIVES])
        draft.expected(f"one of {words}", node, 1)
    check_operator(draft, node, 2)
    return _comparison(draft, scope, node, mls)


def _comparison(draft: Draft, scope: Scope, node: Node, mls: bool) -> Comparison:
    operator, left, right = node[1:]
    known = OPERANDS if mls else frozenset(NAMES)
    if not isinstance(left, str) or left not in known:
        draft.expected(f"one of {' '.join(sorted(known))}", node, 2)
    if isinstance(right, str) and right in OPERANDS:
        if right not in known:
            draft.expected(f"a name or one of {' '.join(sorted(known))}", node, 3)
        if operator not in PAIRS.get((left, right), ()):
            draft.fail(_misread(operator, left, right), node, 2)
        return Comparison(operator, Operand(left), Operand(right))
    if left not in NAMES:
        right_sides = _partners(left) or "nothing: put it second"
        draft.expected(f"an operand to compare {left} with ({right_sides})", node, 3)
    if operator not in _EQUAL:
        draft.fail(f"expected eq or neq with a name, found '{operator}'", node, 1)
    bits, names = _names(draft, scope, node, left)
    return Comparison(operator, Operand(left), bits, names)


def _misread(operator: str, left: str, right: str) -> str:
    text = f"({operator} {left} {right})"
    if _MIRROR[operator] in PAIRS.get((right, left), ()):
        better = f"({_MIRROR[operator]} {right} {left})"
        return f"{text} would be compiled to another comparison by SELinux's tools; write {better}"
    operators = PAIRS.get((left, right))
    if operators:
        return f"expected one of {' '.join(sorted(operators))} between {left} and {right}"
    after = _partners(left) or "a name"
    return f"{text} compares what cannot be compared; after {left} may stand: {after}"


def _partners(operand: str) -> str:
    return " ".join(second for first, second in PAIRS if first == operand)


def _names(draft: Draft, scope: Scope, node: Node, left: str) -> tuple[int, str]:
    """Return the set on a right side: a name, or a list of names."""
    item = node[3]
    parts = [(node, 3)] if isinstance(item, str) else [(item, i) for i in range(1, len(item))]
    if not parts:
        draft.fail("expected at least one name, found ')'", item, 1)
    bits, names = 0, []
    for list_, child in parts:
        if not isinstance(list_[child], str):
            draft.expected("a name", list_, child)
        symbol = draft.find(NAMES[left], scope, list_, child)
        one = 1 << symbol.number if symbol.kind == "user" else symbol.bits
        draft.spend("operands", weight(one), node[0])
        bits |= one
        names.append(symbol.name)
    draft.spend("memory", sum(map(len, names)), node[0])
    text = " ".join(names)
    return draft.shared(bits, node[0]), text if isinstance(item, str) else f"({text})"


def condition(draft: Draft, scope: Scope, node: Node) -> Expression:
    """Return the expression of a booleanif."""
    expression = _condition(draft, scope, node, 2)
    if _stack(expression) > CONDITION_STACK:
        words = f"the expression needs a stack of more than {CONDITION_STACK}; nest on the left:"
        draft.fail(f"{words} (and (and a b) c), not (and a (and b c))", node, 2)
    return expression


def _condition(draft: Draft, scope: Scope, node: Node, child: int) -> Expression:
    item = node[child]
    if isinstance(item, str):
        return draft.find(("boolean",), scope, node, child).name
    operator = item[1] if len(item) > 1 else None
    if isinstance(operator, str) and operator in _BOOLEAN:
        check_operator(draft, item, _BOOLEAN[operator])
        parts = [_condition(draft, scope, item, each) for each in range(2, len(item))]
        return (operator, *parts)
    if len(item) != 2:
        words = f"a boolean, or one of {' '.join(_BOOLEAN)}"
        draft.fail(f"expected {words}, found {found(operator)}", item, 1)
    return _condition(draft, scope, item, 1)


def _stack(expression: Any) -> int:
    """How many values are held at once while the expression is evaluated, operands in order."""
    if not isinstance(expression, tuple) or isinstance(expression, Comparison):
        return 1
    return max(place + _stack(part) for place, part in enumerate(expression[1:]))
