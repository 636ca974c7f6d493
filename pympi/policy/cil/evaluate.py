# SPDX-License-Identifier: BSD-2-Clause
"""The security server: decisions of a compiled policy, as SELinux makes them.

A rule is about a pair if its source is the subject's type or an attribute of it, and its target
likewise. What all such rules say is put together; constraints then take away.

Rules are kept by class and source, so that a decision looks at few of them: attributes in no rule
of the class are not walked, and what the rules of a type's attributes say is merged when a type
first asks, as long as there is room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, cast

from ...enums import first_routine
from .contexts import OBJECT_R
from .policydb import (
    SELF,
    Comparison,
    Constraint,
    Context,
    Expression,
    ExtendedRule,
    PolicyDatabase,
    Range,
    Rule,
    RuleKind,
    TypeRule,
)

__all__ = [
    "PLACE", "AccessVectors", "Evaluator", "SecurityServer", "compiled", "excluded", "holds",
    "numbered",
]  # fmt: skip

_ALL = 0xFFFFFFFF
_MERGED = 1 << 18
"""How many entries merged tables may have altogether, some 30 MB; beyond, tables are shared."""


class AccessVectors(NamedTuple):
    """What is allowed, and recorded when granted, or when refused: a bit for each permission."""

    allowed: int
    auditallow: int
    auditdeny: int


class SecurityServer(Protocol):
    """What a backend of `te` answers, in numbers and bits of its policy.

    Attributes:
        booleans: their present values.
    """

    @property
    def booleans(self) -> Mapping[str, bool]: ...
    def with_booleans(self, booleans: Mapping[str, bool]) -> SecurityServer: ...
    def access(self, source: Context, target: Context, tclass: int) -> AccessVectors: ...
    def routines(
        self, source: Context, target: Context, tclass: int
    ) -> tuple[tuple[int, int], ...] | None: ...
    def compute_sid(
        self, kind: RuleKind, source: Context, target: Context, tclass: int
    ) -> Context: ...


# ---- expressions ----

Test = Callable[[Context, Context], bool]

_FIELDS: dict[str, Callable[[Context], Any]] = {
    "u": attrgetter("user"),
    "r": attrgetter("role"),
    "t": attrgetter("type"),
    "l": attrgetter("range.low"),
    "h": attrgetter("range.high"),
}
_LEVEL_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "dom": lambda a, b: a.dominates(b),
    "domby": lambda a, b: b.dominates(a),
    "incomp": lambda a, b: not (a.dominates(b) or b.dominates(a)),
}
_EQUALITY: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
}


def _role_order(object_r: int) -> dict[str, Callable[[Any, Any], bool]]:
    """Return the comparisons of roles.

    Without (roledominance), which CIL does not have, a role dominates itself alone; and libsepol's
    object_r dominates nothing at all.
    """
    return _EQUALITY | {
        "dom": lambda a, b: a == b != object_r,
        "domby": lambda a, b: a == b != object_r,
        "incomp": lambda a, b: a != b or a == object_r,
    }


def compiled(expression: Expression, object_r: int) -> Test:
    """Return a constraint's expression as a function of source and target.

    Args:
        expression: a constraint's.
        object_r: the number of that role.
    """
    if isinstance(expression, Comparison):
        return _comparison(expression, object_r)
    operator, *operands = cast("tuple[str, ...]", expression)
    tests = [compiled(operand, object_r) for operand in operands]
    if operator == "not":
        (test,) = tests
        return lambda source, target: not test(source, target)
    if len(tests) == 2:
        one, other = tests
        if operator == "and":
            return lambda source, target: one(source, target) and other(source, target)
        return lambda source, target: one(source, target) or other(source, target)
    every = all if operator == "and" else any
    return lambda source, target: every(test(source, target) for test in tests)


def _comparison(leaf: Comparison, object_r: int) -> Test:
    left = _operand(leaf.left.what)
    if isinstance(leaf.right, int):
        members, wanted = leaf.right, leaf.operator == "eq"
        return lambda source, target: bool(members >> left(source, target) & 1) is wanted
    right = _operand(leaf.right.what)
    field = leaf.left.what[0]
    orders = {"l": _LEVEL_ORDER, "h": _LEVEL_ORDER, "r": _role_order(object_r)}
    order = orders.get(field, _EQUALITY)[leaf.operator]
    return lambda source, target: order(left(source, target), right(source, target))


def _operand(what: str) -> Callable[[Context, Context], Any]:
    field = _FIELDS[what[0]]
    if what[1] == "1":
        return lambda source, target: field(source)
    return lambda source, target: field(target)


def holds(expression: Expression, booleans: Mapping[str, bool]) -> bool:
    """Tell whether the expression of a booleanif is true."""
    if isinstance(expression, str):
        return booleans[expression]
    operator, *operands = cast("tuple[str, ...]", expression)
    values = [holds(operand, booleans) for operand in operands]
    if operator == "not":
        return not values[0]
    if operator in ("and", "or"):
        return all(values) if operator == "and" else any(values)
    return (values[0] == values[1]) is (operator == "eq")


# ---- rules, by class ----


class _Class:
    """What the policy says about one class; the same whatever the booleans are."""

    def __init__(self, name: str) -> None:
        self.process = name == "process"
        self.rules: dict[int, list[Rule]] = {}
        self.extended: dict[int, list[ExtendedRule]] = {}
        self.targets: set[int] = set()
        self.constraints: list[tuple[int, Test, Constraint]] = []
        self.transit = 0
        self._targets_of: dict[int, tuple[int, ...]] = {}

    def targets_of(self, kind: int, numbers: Iterable[int]) -> tuple[int, ...]:
        """Return what a type may be as a target: itself and attributes, as far as rules say."""
        found = self._targets_of.get(kind)
        if found is None:
            found = tuple(number for number in numbers if number in self.targets)
            self._targets_of[kind] = found
        return found


class _Index:
    """The rules of a policy, by class and source."""

    def __init__(self, db: PolicyDatabase) -> None:
        self.db = db
        self.classes = [_Class(each.name) for each in db.classes]
        self.type_rules: dict[tuple[RuleKind, int], dict[int, list[TypeRule]]] = {}
        self.kept: dict[str, Any] = {}
        self._numbers: dict[int, tuple[int, ...]] = {}
        self._add_rules()
        self._add_constraints()
        self._attributes = self._used_attributes()

    def _add_rules(self) -> None:
        for rule in self.db.rules:
            tclass = self.classes[rule.tclass]
            tclass.rules.setdefault(rule.source, []).append(rule)
            tclass.targets.add(rule.target)
        for extended in self.db.extended_rules:
            tclass = self.classes[extended.tclass]
            tclass.extended.setdefault(extended.source, []).append(extended)
        for change in self.db.type_rules:
            sources = self.type_rules.setdefault((change.kind, change.tclass), {})
            sources.setdefault(change.source, []).append(change)

    def _add_constraints(self) -> None:
        object_r = self.db.role(OBJECT_R).number
        tests: dict[int, Test] = {}  # the classes of one statement share its expression
        for constraint in self.db.constraints:
            if self.db.mls or not constraint.mls:
                expression = constraint.expression
                test = tests.get(id(expression)) or compiled(expression, object_r)
                tests[id(expression)] = test
                entry = (constraint.permissions, test, constraint)
                self.classes[constraint.tclass].constraints.append(entry)
        for tclass, datum in zip(self.classes, self.db.classes, strict=True):
            if tclass.process:
                named = {"transition", "dyntransition"} & set(datum.permissions)
                tclass.transit = datum.mask(tuple(named))

    def _used_attributes(self) -> list[tuple[int, int]]:
        lists = (self.db.rules, self.db.extended_rules, self.db.type_rules)
        used = {
            number for rules in lists for rule in rules for number in (rule.source, rule.target)
        }
        first = self.db.type_count
        return [(n, self.db.types[n].members) for n in sorted(used) if n >= first]

    def numbers(self, kind: int) -> tuple[int, ...]:
        """Return a type's number, and those of its attributes that occur in rules."""
        found = self._numbers.get(kind)
        if found is None:
            attributes = (n for n, members in self._attributes if members >> kind & 1)
            found = self._numbers[kind] = (kind, *attributes)
        return found


# ---- decisions ----

_Row = dict[int, int]
"""By target: what rules of a source say, as one number: allow, auditallow << 32, dontaudit << 64"""

PLACE = {RuleKind.ALLOW: 0, RuleKind.AUDITALLOW: 32, RuleKind.DONTAUDIT: 64}
"""Where in such a number the vectors of a kind of rules begin."""


class Evaluator:
    """Decides by a compiled policy, for one state of its booleans. Any thread may ask.

    Args:
        db: the policy.
        booleans: their values, where they are not the policy's defaults.

    Raises:
        KeyError: the policy has no such boolean.
    """

    def __init__(self, db: PolicyDatabase, booleans: Mapping[str, bool] | None = None) -> None:
        self._start(_Index(db), booleans or {})

    def _start(self, index: _Index, booleans: Mapping[str, bool]) -> None:
        self.db = index.db
        unknown = booleans.keys() - self.db.booleans.keys()
        if unknown:
            raise KeyError(min(unknown))
        self._index = index
        self.booleans: Mapping[str, bool] = MappingProxyType({**self.db.booleans, **booleans})
        self._true = [holds(each.expression, self.booleans) for each in self.db.conditions]
        self._rows: dict[tuple[int, int], _Row] = {}
        self._rows_of: dict[tuple[int, int], tuple[_Row, ...]] = {}
        self._room = _MERGED

    def with_booleans(self, booleans: Mapping[str, bool]) -> Evaluator:
        """Return the evaluator of the same policy for other values of these booleans."""
        other = Evaluator.__new__(Evaluator)
        other._start(self._index, {**self.booleans, **booleans})
        return other

    def compute_av(self, source: Context, target: Context, tclass: int) -> AccessVectors:
        """Return what a subject may do to an object, in the policy's bits.

        Extended rules are applied to classes of interfaces as if the policy listed the routines in
        their order.

        Args:
            source, target: their contexts.
            tclass: the class's number in the policy.
        """
        vectors = self.access(source, target, tclass)
        ranges = self.routines(source, target, tclass)
        if ranges is None:
            return vectors
        first = first_routine(self.db.classes[tclass].name)
        refused = excluded(self.db.classes[tclass].permissions, first, ranges)
        return vectors._replace(allowed=vectors.allowed & ~refused)

    def access(self, source: Context, target: Context, tclass: int) -> AccessVectors:
        """Return what `compute_av` does, before extended rules."""
        said = self._said(source.type, target.type, tclass)
        allowed = said & _ALL
        known = self._index.classes[tclass]
        for permissions, test, _ in known.constraints:
            if allowed & permissions and not test(source, target):
                allowed &= ~permissions
        if known.transit and source.role != target.role:
            allowed &= ~known.transit  # a change of role needs (roleallow), outside the subset
        return AccessVectors(allowed, said >> 32 & _ALL, ~(said >> 64) & _ALL)

    def _said(self, source: int, target: int, tclass: int) -> int:
        """Return what the rules in force say about two types, as in a row."""
        known = self._index.classes[tclass]
        rows = self._rows_of.get((source, tclass))
        if rows is None:
            rows = self._tables(source, tclass)
        targets = known._targets_of.get(target)
        if targets is None:
            targets = known.targets_of(target, self._index.numbers(target))
        said = 0
        for row in rows:
            get = row.get
            for number in targets:
                said |= get(number, 0)
            if source == target:
                said |= get(SELF, 0)
        return said

    def _tables(self, source: int, tclass: int) -> tuple[_Row, ...]:
        """Return the rows of a type and its attributes; merged into one if there is room."""
        known = self._index.classes[tclass]
        numbers = (n for n in self._index.numbers(source) if n in known.rules)
        rows = tuple(self._row(number, tclass) for number in numbers)
        size = sum(map(len, rows))
        if len(rows) > 1 and size <= self._room:
            self._room -= size
            rows = (_merged(rows),)
        self._rows_of[source, tclass] = rows
        return rows

    def _row(self, number: int, tclass: int) -> _Row:
        """Return what the rules in force with this source, a type or attribute, say."""
        row = self._rows.get((number, tclass))
        if row is None:
            row = {}
            for rule in self._index.classes[tclass].rules[number]:
                if self.enabled(rule):
                    said = rule.permissions << PLACE[rule.kind]
                    row[rule.target] = row.get(rule.target, 0) | said
            self._rows[number, tclass] = row
        return row

    @property
    def kept(self) -> dict[str, Any]:
        """What others made of the policy, for all states of its booleans."""
        return self._index.kept

    @property
    def truth(self) -> Sequence[bool]:
        """Whether each of the policy's conditions is true."""
        return self._true

    def constraints(self, tclass: int) -> Iterator[Constraint]:
        """Iterate over the constraints of a class that are in force."""
        return (constraint for _, _, constraint in self._index.classes[tclass].constraints)

    def transit(self, tclass: int) -> int:
        """Return the permissions of a class that need subject and object to have one role."""
        return self._index.classes[tclass].transit

    def enabled(self, rule: Rule | TypeRule) -> bool:
        """Tell whether a rule is in force: always, or by the booleans."""
        number = rule.condition
        return not number or self._true[abs(number) - 1] is (number > 0)

    def routines(
        self, source: Context, target: Context, tclass: int
    ) -> tuple[tuple[int, int], ...] | None:
        """Return the ranges of routines that extended rules leave; None if they leave all."""
        rules = self.extended_rules(source.type, target.type, tclass)
        found = {id(rule.ranges): rule.ranges for rule in rules}  # a permissionx is there once
        return tuple(chain.from_iterable(found.values())) if found else None

    def compute_sid(self, kind: RuleKind, source: Context, target: Context, tclass: int) -> Context:
        """Return the context of something new, or to be relabelled.

        The type is that of a rule, else the target's; user and low level are the source's, the role
        is object_r. For the class `process` what no rule says is the source's.

        Args:
            kind: TYPETRANSITION or TYPECHANGE.
            source, target: who makes it, and from what.
            tclass: the class's number in the policy.
        """
        result = self.new_type(kind, source.type, target.type, tclass)
        if self._index.classes[tclass].process:
            return source if result is None else source._replace(type=result)
        low = source.range.low
        role = self.db.role(OBJECT_R).number
        return Context(
            source.user, role, target.type if result is None else result, Range(low, low)
        )

    def new_type(self, kind: RuleKind, source: int, target: int, tclass: int) -> int | None:
        """Return the type that a rule in force gives; None without one.

        A rule outside of every condition comes first.
        """
        sources = self._index.type_rules.get((kind, tclass))
        found = self._about(sources, source, target) if sources else ()
        rules = sorted(filter(self.enabled, found), key=lambda rule: rule.condition != 0)
        return rules[0].result if rules else None

    # ---- which rules ----

    def rules(self, kind: RuleKind, source: int, target: int, tclass: int) -> Iterator[Rule]:
        """Iterate over the rules about two types, whether in force or not."""
        rules = self._about(self._index.classes[tclass].rules, source, target)
        return (rule for rule in rules if rule.kind is kind)

    def extended_rules(self, source: int, target: int, tclass: int) -> Iterator[ExtendedRule]:
        """Iterate over the extended rules that narrow what is allowed between two types."""
        known = self._index.classes[tclass]
        if not known.extended or not self.db.classes[tclass].name.startswith("mi_"):
            return iter(())
        return self._about(known.extended, source, target)

    def failing(self, source: Context, target: Context, tclass: int) -> Iterator[Constraint]:
        """Iterate over the constraints of a class that a pair does not meet."""
        for _, test, constraint in self._index.classes[tclass].constraints:
            if not test(source, target):
                yield constraint

    def _about(self, rules: Mapping[int, list[Any]], source: int, target: int) -> Iterator[Any]:
        targets = {*self._index.numbers(target), *([SELF] if source == target else [])}
        for number in self._index.numbers(source):
            for rule in rules.get(number, ()):
                if rule.target in targets:
                    yield rule


def _merged(rows: Iterable[_Row]) -> _Row:
    merged: _Row = {}
    for row in rows:
        for target, said in row.items():
            merged[target] = merged.get(target, 0) | said
    return merged


# ---- routines of interfaces ----


def numbered(permissions: Iterable[str], first: int) -> dict[str, int]:
    """Return the routines of a class with their indices, counted from `first`.

    All but the permission that allowx names are routines; one without a name is none.
    """
    names = [name for name in permissions if name != "ioctl"]
    return {name: index for index, name in enumerate(names, first) if name}


def excluded(permissions: tuple[str, ...], first: int, ranges: Iterable[tuple[int, int]]) -> int:
    """Return the bits of a class's routines, the first numbered `first`, that are in no range."""
    pairs = tuple(ranges)
    return sum(
        1 << permissions.index(name)
        for name, index in numbered(permissions, first).items()
        if not any(low <= index <= high for low, high in pairs)
    )
