# SPDX-License-Identifier: BSD-2-Clause
"""A policy, in one state of its booleans, as the tables that the core decides by.

Types are kinds, attributes groups of them, rules stay as they were written: to expand attributes
could take a million rules for one. Constraints become tests. `Evaluator` is what they have to agree
with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ...enums import ALL, ObjectClass
from .. import tables
from ..tables import TARGET, ClassTable, Sight, Steps, Table, Test
from .contexts import OBJECT_R, parse_context
from .evaluate import PLACE, Evaluator, excluded
from .policydb import SELF, Comparison, Expression, PolicyDatabase

if TYPE_CHECKING:
    from ..tables import Words

__all__ = ["ClassMapping", "ContextNumbering", "compile_policy_table"]

_NUMBERS = {"t": 0, "r": 1, "u": 2}
_LEVELS = {"l": 0, "h": 1}
_COLUMNS = "kind", "source", "target", "tclass", "permissions", "condition"


class ClassMapping(NamedTuple):
    """A class of the kernel in the policy.

    Attributes:
        tclass: the kernel's.
        number: the policy's; None if it has none of this name.
        granted: the kernel's permissions that are allowed since the policy does not know them.
        first: the index of the class's first routine.
        narrowed: whether extended rules are about it.
    """

    tclass: ObjectClass
    number: int | None
    granted: int
    first: int
    narrowed: bool


class ContextNumbering:
    """Numbers contexts as their policy does."""

    def __init__(self, db: PolicyDatabase) -> None:
        self.db = db

    def sight(self, value: Any) -> Sight:
        """Return what is seen of a context: type, role and user; low and high level."""
        if value is not None and type(value) is not str:
            raise ValueError(f"a context is text, not {value!r}")
        known = self.db.initial_sids["unlabeled"]
        context = known if value is None else parse_context(self.db, value)
        low, high = (tables.Level(*level) for level in context.range)
        return Sight((context.type, context.role, context.user), (low, high, high))


def compile_policy_table(
    rules: Evaluator, mappings: Sequence[ClassMapping], numbering: ContextNumbering
) -> Table:
    """Return a policy's decisions as a table.

    Args:
        rules: the policy, in a state of its booleans.
        mappings: the classes of the kernel.
        numbering: of this policy.

    Raises:
        ValueError: it cannot be told by tables.
    """
    db, sets = rules.db, _Sets(rules.db)
    enabled = _enabled(rules)
    parts = [tables.rules_of()]
    classes: dict[int, ClassTable] = {}
    for mapping in mappings:
        tests: tuple[Test, ...] = ()
        if mapping.number is not None:
            parts += [_rows(db, enabled, mapping), _narrowing(rules, mapping)]
            tests = tuple(_tests(rules, mapping, sets))
        classes[mapping.tclass.number] = ClassTable(0, mapping.granted, tests)
    permissive = sets.number(db.permissive) if db.permissive else None
    return Table(
        numbering, classes, np.concatenate(parts), _memberships(rules), len(db.types), sets.bits,
        permissive,
    )  # fmt: skip


# ---- rules ----


def _columns(rules: Evaluator) -> npt.NDArray[np.int64]:
    """Return the rules of the policy as columns; they are the same whatever booleans are."""
    found = rules.kept.get("columns")
    if found is None:
        rows = rules.db.rules
        places = [PLACE[rule.kind] // 32 for rule in rows]
        named = ([getattr(rule, name) for rule in rows] for name in _COLUMNS[1:])
        found = rules.kept["columns"] = np.array([places, *named], np.int64)
    return cast("npt.NDArray[np.int64]", found)


def _enabled(rules: Evaluator) -> npt.NDArray[np.int64]:
    """Return the columns of the rules that are in force."""
    columns = _columns(rules)
    condition = columns[-1]
    truth = np.array([False, *rules.truth])[np.abs(condition)]
    return columns[:, (condition == 0) | (truth == (condition > 0))]


def _bits(db: PolicyDatabase, mapping: ClassMapping) -> list[int]:
    """Return the kernel's bit for each permission of the policy; 0 for what it has not."""
    assert mapping.number is not None
    known = mapping.tclass.bits
    return [known.get(name, 0) for name in db.classes[mapping.number].permissions]


def _translated(bits: Sequence[int], vector: int) -> int:
    return sum(bit for place, bit in enumerate(bits) if vector >> place & 1)


def _rows(db: PolicyDatabase, columns: npt.NDArray[np.int64], mapping: ClassMapping) -> Words:
    """Return the rules about a class, its permissions in the kernel's bits."""
    kind, source, target, _, permissions, _ = columns[:, columns[3] == mapping.number]
    vector = np.zeros_like(permissions)
    for place, bit in enumerate(_bits(db, mapping)):
        vector |= np.where(permissions >> place & 1, bit, 0)
    made = np.zeros((len(kind), 7), np.uint32)
    made[:, 0] = source
    made[:, 1] = np.where(target == SELF, tables.SELF, target)
    made[:, 2] = mapping.tclass.number
    for place in range(3):
        made[:, 3 + place] = np.where(kind == place, vector, 0)
    return made[vector != 0]


def _narrowing(rules: Evaluator, mapping: ClassMapping) -> Words:
    """Return the extended rules about a class of an interface."""
    if not mapping.narrowed or not mapping.tclass.name.startswith("mi_"):
        return tables.rules_of()
    rows = []
    for rule in rules.db.extended_rules:
        if rule.tclass == mapping.number:
            left = ALL & ~excluded(mapping.tclass.permissions, mapping.first, rule.ranges)
            if not left:
                raise ValueError(f"all of class {mapping.tclass.name} are routines")
            target = tables.SELF if rule.target == SELF else rule.target
            rows.append((rule.source, target, mapping.tclass.number, 0, 0, 0, left))
    return tables.rules_of(rows)


def _memberships(rules: Evaluator) -> tuple[Words, Words]:
    """Return the attributes of each type, as far as rules name them."""
    found = rules.kept.get("memberships")
    if found is None:
        count, types = rules.db.type_count, rules.db.types
        used = [number for number in _named(rules) if number >= count]
        pairs = [np.zeros((0, 2), np.int64)]
        for number in used:
            raw = types[number].members.to_bytes(count // 8 + 1, "little")
            (members,) = np.nonzero(np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little"))
            pairs.append(np.stack([members, np.full(len(members), number)], 1))
        whole = np.concatenate(pairs)
        whole = whole[np.argsort(whole[:, 0], kind="stable")]
        first = np.searchsorted(whole[:, 0], np.arange(count + 1))
        found = first.astype(np.uint32), whole[:, 1].astype(np.uint32)
        rules.kept["memberships"] = found
    return cast("tuple[Words, Words]", found)


def _named(rules: Evaluator) -> Iterable[int]:
    """Return the numbers that are sources or targets of rules."""
    extended = [n for rule in rules.db.extended_rules for n in (rule.source, rule.target)]
    columns = _columns(rules)
    return [int(n) for n in np.unique(np.concatenate([columns[1], columns[2], extended]))]


# ---- constraints ----


@dataclass
class _Sets:
    """The sets that tests look into, each once."""

    db: PolicyDatabase
    bits: list[int] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)

    def number(self, bits: int) -> int:
        """Return the number of a set."""
        if bits not in self._numbers:
            self._numbers[bits] = len(self.bits)
            self.bits.append(bits)
        return self._numbers[bits]


def _tests(rules: Evaluator, mapping: ClassMapping, sets: _Sets) -> Iterable[Test]:
    assert mapping.number is not None
    bits = _bits(rules.db, mapping)
    for constraint in rules.constraints(mapping.number):
        permissions = _translated(bits, constraint.permissions)
        if permissions:
            yield Test(permissions, _steps(constraint.expression, sets))
    if transit := _translated(bits, rules.transit(mapping.number)):
        yield Test(transit, tables.same(_NUMBERS["r"], TARGET + _NUMBERS["r"]))


def _steps(expression: Expression, sets: _Sets) -> Steps:
    """Return a constraint's expression as a test."""
    if isinstance(expression, Comparison):
        return _compared(expression, sets)
    operator, *operands = cast("tuple[Any, ...]", expression)
    parts = [_steps(operand, sets) for operand in operands]
    if operator == "not":
        return tables.not_(*parts)
    return (tables.all_of if operator == "and" else tables.any_of)(*parts)


def _place(what: str) -> int:
    place = (_NUMBERS | _LEVELS)[what[0]]
    return place + TARGET if what[1] == "2" else place


def _compared(leaf: Comparison, sets: _Sets) -> Steps:
    left = _place(leaf.left.what)
    if isinstance(leaf.right, int):
        test = tables.is_in(left, sets.number(leaf.right))
        return test if leaf.operator == "eq" else tables.not_(test)
    right = _place(leaf.right.what)
    if leaf.left.what[0] in _LEVELS:
        return _level_compared(leaf.operator, left, right)
    equal = tables.same(left, right)
    if leaf.operator in ("eq", "neq"):
        return equal if leaf.operator == "eq" else tables.not_(equal)
    # A role dominates itself alone, and object_r nothing at all.
    object_r = sets.number(1 << sets.db.role(OBJECT_R).number)
    itself = tables.all_of(equal, tables.not_(tables.is_in(left, object_r)))
    return tables.not_(itself) if leaf.operator == "incomp" else itself


def _level_compared(operator: str, left: int, right: int) -> Steps:
    above, below = tables.dominates(left, right), tables.dominates(right, left)
    equal = tables.equal(left, right)
    return {
        "eq": equal, "neq": tables.not_(equal), "dom": above, "domby": below,
        "incomp": tables.not_(tables.any_of(above, below)),
    }[operator]  # fmt: skip
