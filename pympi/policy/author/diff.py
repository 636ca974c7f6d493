# SPDX-License-Identifier: BSD-2-Clause
"""What two policies decide differently: their meaning is compared, not their text.

    for change in diff(old, new).accesses:
        print(change)

Attributes are expanded, types are matched by name, conditions by the states of booleans in which
they hold. How a policy is divided into rules, attributes and files makes no difference, nor do
names of attributes. Promises (neverallow) decide nothing, and are not compared, nor is the rule
that the base adds to a policy without any.

A rule becomes rows: for a subject's type and a *point*, such as "allow, mach_port, send", the set
of types it may do that to, as a number with a bit for each type. Rows of types and attributes are
made first; only where two policies have other ones are they put together, type by type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple, cast

from ...enums import first_routine
from ..cil.contexts import OBJECT_R, format_context
from ..cil.evaluate import holds, numbered
from ..cil.explain import condition_text, expression_text
from ..cil.policydb import SELF, Comparison, Expression, Level, Operand, PolicyDatabase
from .query import boolean_names

__all__ = ["Access", "Difference", "Item", "diff"]

MOST_BOOLEANS = 6
"""Conditions of more booleans are compared as they are written."""


class Access(NamedTuple):
    """What pairs of types may do that they might not, or the reverse.

    Attributes:
        added: whether the new policy has it, and not the old one.
        kind: "allow", "auditallow", "dontaudit", "typetransition", "typechange" or "allowx".
        sources, targets: names of types, or of an attribute that has just these; targets may be
            ("self",): each source to itself.
        tclass: the class.
        permissions: those; the resulting type; or the routines' numbers.
        condition: when, as text; "" for always.
        pairs: how many pairs of types that is.
    """

    added: bool
    kind: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    tclass: str
    permissions: tuple[str, ...]
    condition: str
    pairs: int

    def __str__(self) -> str:
        sign = "+" if self.added else "-"
        who, whom, what = map(_list, (self.sources, self.targets, self.permissions))
        return f"{sign} {self.kind} {who} {whom} {self.tclass} {what}" + (
            f"  if {self.condition}" if self.condition else ""
        )


class Item(NamedTuple):
    """Something else that one policy has, or has otherwise.

    Attributes:
        added: True if only in the new policy, False if only in the old one.
        kind: "type", "boolean", "constraint", "role", "user", ...
        text: what it is.
    """

    added: bool
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{'+' if self.added else '-'} {self.kind} {self.text}"


@dataclass(frozen=True)
class Difference:
    """Between two policies; false if they mean the same.

    Attributes:
        items: declarations and constraints, and what holds for the whole policy.
        accesses: rules, summarised.
    """

    items: list[Item] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.items or self.accesses)


def diff(old: PolicyDatabase, new: PolicyDatabase) -> Difference:
    """Return what the new policy means that the old one does not, and the reverse.

    Example:
        >>> from pympi.policy.cil import compile_policy
        >>> text = "(type a_t)(type b_t)(allow a_t b_t (mach_port (send)))"
        >>> texts = text, text.replace("send", "recv")
        >>> old, new = (compile_policy([("x.cil", each)]) for each in texts)
        >>> [str(each) for each in diff(old, new).accesses]
        ['- allow a_t b_t mach_port send', '+ allow a_t b_t mach_port recv']
    """
    names = sorted({each.name for db in (old, new) for each in db.types[: db.type_count]})
    numbers = {name: number for number, name in enumerate(names)}
    sides = _Rows(old, numbers), _Rows(new, numbers)
    return Difference(_items(old, new), _accesses(*sides, names))


def _list(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{{ {' '.join(words)} }}"


# ---- conditions ----

State = tuple[tuple[str, bool], ...]
"""Booleans and their values; () is every state. Or a condition as text, with whether it holds."""


def _states(expression: Expression, wanted: bool) -> tuple[State, ...]:
    """Return the states in which a condition has a value, of the booleans that are in it."""
    names = sorted(boolean_names(expression))
    if len(names) > MOST_BOOLEANS:
        return (((condition_text(expression), wanted),),)
    rows = product((False, True), repeat=len(names))
    states = (dict(zip(names, row, strict=True)) for row in rows)
    return tuple(tuple(state.items()) for state in states if holds(expression, state) is wanted)


def _plain(states: Mapping[State, int]) -> dict[State, int]:
    """Return sets by state in the one form there is: by prime implicants (Blake's canonical form).

    So that (if a X)(if not a X) is X, and what holds always is in no other state.
    """
    sets = _expanded(states)
    for count in range(max(map(len, sets), default=0), 0, -1):
        for state in [each for each in sets if len(each) == count]:
            for place, (name, value) in enumerate(state):
                rest = state[:place] + state[place + 1 :]
                other = state[:place] + ((name, not value),) + state[place + 1 :]
                both = sets.get(state, 0) & sets.get(other, 0)
                if both:
                    sets[rest] = sets.get(rest, 0) | both
    return {state: own for state in sets if (own := sets[state] & ~_implied(sets, state))}


def _expanded(states: Mapping[State, int]) -> dict[State, int]:
    """Return sets by states of all the booleans that are named, if they are not too many."""
    names = sorted({name for state in states for name, _ in state})
    if len(names) > MOST_BOOLEANS:
        return dict(states)
    sets: dict[State, int] = defaultdict(int)
    for state, bits in states.items():
        known = dict(state)
        free = [name for name in names if name not in known]
        for row in product((False, True), repeat=len(free)):
            whole = known | dict(zip(free, row, strict=True))
            sets[tuple((name, whole[name]) for name in names)] |= bits
    return dict(sets)


def _implied(sets: Mapping[State, int], state: State) -> int:
    """Return what holds in a state already by what is said of fewer booleans."""
    named = set(state)
    return sum_of(
        bits for other, bits in sets.items() if len(other) < len(state) and named >= set(other)
    )


def sum_of(sets: Iterable[int]) -> int:
    """Return the union of sets."""
    union = 0
    for bits in sets:
        union |= bits
    return union


# ---- rows ----

Point = tuple[str, str, str]
"""(kind, class, permission or resulting type or routine)"""

Row = dict[Point, dict[State, int]]


class _Rows:
    """The rows of a policy, by the type or attribute that rules were written with."""

    def __init__(self, db: PolicyDatabase, numbers: Mapping[str, int]) -> None:
        self.db = db
        self.common = [numbers[each.name] for each in db.types[: db.type_count]]
        """A type's number among the types of both policies, by its own number."""
        self.identical = self.common == list(range(db.type_count))
        self.members = [self._translated(each.members) for each in db.types]
        self._by_number: dict[int, Row] = {}
        self._selves: dict[int, Row] = {}
        self._conditions = [
            {wanted: _states(each.expression, wanted) for wanted in (True, False)}
            for each in db.conditions
        ]
        self._add_all()
        sets = (n for n in {*self._by_number, *self._selves} if n >= db.type_count)
        self._attributes = sorted(sets, key=lambda n: db.types[n].name)

    def _translated(self, bits: int) -> int:
        """Return a set of types in the numbers of both policies."""
        if self.identical:
            return bits
        return sum(1 << self.common[number] for number in _bits(bits))

    def _add_all(self) -> None:
        db = self.db
        words: dict[tuple[int, int], tuple[str, ...]] = {}
        base = len(db.files) - 1
        for rule in db.rules:
            if rule.file == base:
                continue
            key = rule.tclass, rule.permissions
            if key not in words:
                words[key] = db.classes[rule.tclass].names(rule.permissions)
            self._add(rule, words[key], self._states(rule.condition))
        for change in db.type_rules:
            self._add(change, (db.types[change.result].name,), self._states(change.condition))
        for extended in db.extended_rules:
            self._add(extended, tuple(_routines(db, extended)), ((),))

    def _states(self, condition: int) -> tuple[State, ...]:
        return self._conditions[abs(condition) - 1][condition > 0] if condition else ((),)

    def _add(self, rule: Any, words: Iterable[str], states: Iterable[State]) -> None:
        table = self._selves if rule.target == SELF else self._by_number
        row = table.get(rule.source)
        if row is None:
            row = table[rule.source] = {}
        targets = 1 if rule.target == SELF else self.members[rule.target]
        kind, tclass = rule.kind.value, self.db.classes[rule.tclass].name
        for word in words:
            sets = row.setdefault((kind, tclass, word), {})
            for state in states:
                sets[state] = sets.get(state, 0) | targets

    def signature(self, number: int) -> tuple[Any, ...]:
        """Return what is said of a type by itself and by its attributes, to be compared fast."""
        names = [number, *(n for n in self._attributes if self.db.types[n].members >> number & 1)]
        found = ((self._by_number.get(n), self._selves.get(n)) for n in names)
        return tuple(pair for pair in found if pair != (None, None))

    def row(self, number: int) -> Row:
        """Return everything that is said of a type as the source."""
        merged: Row = {}
        own = 1 << self.common[number]
        for row, selves in self.signature(number):
            for said, factor in ((row, 0), (selves, own)):
                for point, sets in (said or {}).items():
                    into = merged.setdefault(point, {})
                    for state, bits in sets.items():
                        into[state] = into.get(state, 0) | (factor or bits)
        return {point: _plain(sets) if any(sets) else sets for point, sets in merged.items()}


def _routines(db: PolicyDatabase, rule: Any) -> Iterator[str]:
    """Yield the routines of an extended rule, by name; "(none)" if it leaves none."""
    tclass = db.classes[rule.tclass]
    if not tclass.name.startswith("mi_"):
        return
    known = numbered(tclass.permissions, first_routine(tclass.name))
    left = [
        name
        for name, index in known.items()
        if any(low <= index <= high for low, high in rule.ranges)
    ]
    yield "(narrowed)"
    yield from left


def _accesses(old: _Rows, new: _Rows, names: list[str]) -> list[Access]:
    """Return the differences of all rows, summarised."""
    own = [{common: n for n, common in enumerate(side.common)} for side in (old, new)]
    groups: dict[tuple[Any, ...], int] = defaultdict(int)
    for common in range(len(names)):
        rows = [(side, numbers.get(common)) for side, numbers in zip((old, new), own, strict=True)]
        signatures = [side.signature(n) if n is not None else () for side, n in rows]
        if signatures[0] == signatures[1]:
            continue
        before, after = (side.row(n) if n is not None else {} for side, n in rows)
        for key in _changes(before, after, common):
            groups[key] |= 1 << common
    namer = _Namer((new, old), names)
    return sorted(
        _joined(groups, namer), key=lambda a: (a.sources, a.targets, a.tclass, a.kind, a.added)
    )


def _changes(before: Row, after: Row, source: int) -> Iterator[tuple[Any, ...]]:
    """Yield (added, kind, class, state, targets, permissions) of one source."""
    found: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for point in sorted(before.keys() | after.keys()):
        ours, theirs = before.get(point, {}), after.get(point, {})
        for state in sorted(ours.keys() | theirs.keys()):
            old, new = ours.get(state, 0), theirs.get(state, 0)
            for added, targets in ((False, old & ~new), (True, new & ~old)):
                if targets:
                    alone = "self" if targets == 1 << source else targets
                    found[added, point[0], point[1], state, alone].append(point[2])
    for key, words in found.items():
        yield (*key, tuple(words))


def _joined(groups: Mapping[tuple[Any, ...], int], namer: _Namer) -> Iterator[Access]:
    """Yield accesses; states that differ in what does not matter are joined to one."""
    states: dict[tuple[Any, ...], list[State]] = defaultdict(list)
    for (added, kind, tclass, state, targets, words), sources in groups.items():
        single = sources & (sources - 1) == 0
        if targets == "self" and single:
            targets = sources
        states[added, kind, tclass, targets, words, sources].append(state)
    for (added, kind, tclass, targets, words, sources), several in states.items():
        count = sources.bit_count() * (1 if targets == "self" else targets.bit_count())
        whom = ("self",) if targets == "self" else namer.names(targets)
        condition = " or ".join(map(_state_text, sorted(several))) if several != [()] else ""
        yield Access(added, kind, namer.names(sources), whom, tclass, words, condition, count)


def _state_text(state: State) -> str:
    return " and ".join(f"{name} is {str(value).lower()}" for name, value in state)


class _Namer:
    """Names sets of types: by a type, by an attribute that has just these, or one by one."""

    def __init__(self, sides: Iterable[_Rows], names: list[str]) -> None:
        self._types = names
        self._attributes: dict[int, str] = {}
        for side in sides:
            for datum in side.db.types[side.db.type_count :]:
                self._attributes.setdefault(side.members[datum.number], datum.name)

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the names of a set."""
        if bits & (bits - 1) and bits in self._attributes:
            return (self._attributes[bits],)
        return tuple(self._types[number] for number in _bits(bits))


def _bits(number: int) -> Iterator[int]:
    return (bit for bit, digit in enumerate(reversed(f"{number:b}")) if digit == "1")


# ---- declarations ----


def _items(old: PolicyDatabase, new: PolicyDatabase) -> list[Item]:
    found: list[Item] = []
    for kind, read in _KINDS.items():
        before, after = set(read(old)), set(read(new))
        found += [Item(False, kind, text) for text in sorted(before - after)]
        found += [Item(True, kind, text) for text in sorted(after - before)]
    return found


def _type_names(db: PolicyDatabase, bits: int) -> str:
    return " ".join(sorted(db.types[number].name for number in _bits(bits)))


def _users(db: PolicyDatabase) -> Iterator[str]:
    for user in db.users:
        roles = " ".join(sorted(db.roles[number].name for number in _bits(user.roles)))
        levels = ""
        if db.mls:
            words = [_level(db, level) for level in (user.level, *user.range)]
            levels = f", level {words[0]}, range {words[1]} to {words[2]}"
        yield f"{user.name}: {roles}{levels}"


def _level(db: PolicyDatabase, level: Level) -> str:
    names = [db.categories[number].name for number in _bits(level.categories)]
    return db.sensitivities[level.sensitivity].name + (f" ({' '.join(names)})" if names else "")


def _constraints(db: PolicyDatabase) -> Iterator[str]:
    for each in db.constraints:
        if each.mls and not db.mls:
            continue
        tclass = db.classes[each.tclass]
        text = _expression(db, each.expression)
        for name in tclass.names(each.permissions):
            yield f"{tclass.name} {name}: {text}"


def _expression(db: PolicyDatabase, expression: Expression) -> str:
    """Return a constraint's expression with sets written as the types that are in them."""
    if isinstance(expression, Comparison):
        if isinstance(expression.right, Operand):
            return expression_text(expression)
        table: tuple[Any, ...] = {"u": db.users, "r": db.roles, "t": db.types}[
            expression.left.what[0]
        ]
        names = " ".join(sorted(table[number].name for number in _bits(expression.right)))
        return f"({expression.operator} {expression.left.what} ({names}))"
    operator, *operands = cast("tuple[Expression, ...]", expression)
    texts = [_expression(db, operand) for operand in operands]
    if operator in ("and", "or"):
        texts.sort()
    return f"({' '.join([str(operator), *texts])})"


def _sensitivities(db: PolicyDatabase) -> Iterator[str]:
    if db.mls:
        for rank, each in enumerate(db.sensitivities):
            names = sorted(db.categories[number].name for number in _bits(each.categories))
            yield f"{each.name}, rank {rank}" + (f", with {' '.join(names)}" if names else "")


_KINDS: Mapping[str, Callable[[PolicyDatabase], Iterable[str]]] = {
    "handleunknown": lambda db: [db.handle_unknown],
    "mls": lambda db: [str(db.mls).lower()],
    "class": lambda db: [f"{c.name}: {' '.join(sorted(c.permissions))}" for c in db.classes],
    "sensitivity": _sensitivities,
    "user": _users,
    "role": lambda db: [
        f"{role.name}: {_type_names(db, role.types)}"
        for role in db.roles
        if role.name != OBJECT_R
    ],
    "type": lambda db: [each.name for each in db.types[: db.type_count]],
    "permissive": lambda db: [db.types[number].name for number in _bits(db.permissive)],
    "boolean": lambda db: [f"{name}, {str(value).lower()}" for name, value in db.booleans.items()],
    "initial SID": lambda db: [
        f"{name}: {format_context(db, context)}" for name, context in db.initial_sids.items()
    ],
    "constraint": _constraints,
}  # fmt: skip
"""What is compared besides rules: kind, and its texts."""
