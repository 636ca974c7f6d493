# SPDX-License-Identifier: BSD-2-Clause
"""A compiled policy: what remains of CIL text once names are resolved (SELinux's policydb).

Types and attributes share one numbering, types first, so that a set of types is an `int` with bit
n for type n. Rules keep the sources and targets they were written with; attributes are expanded
when a decision is made. Nothing here changes after it was built, except through `PolicyDatabase`'s
readers: who flips booleans keeps their state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Union

__all__ = [
    "SELF", "Category", "Comparison", "Condition", "Constraint", "Context", "ExtendedRule", "Level",
    "Operand", "Origin", "PolicyClass", "PolicyDatabase", "Range", "Role", "Rule", "RuleKind",
    "Sensitivity", "TypeDatum", "TypeRule", "User",
]  # fmt: skip

SELF = -1
"""The target of a rule that is about each source type and itself."""


class Origin(NamedTuple):
    """Where something was written.

    Attributes:
        file: its name; "<base>" for what the package supplies.
        line, column: 1-based.
    """

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class RuleKind(Enum):
    """The kinds of rules; the values are CIL's words."""

    ALLOW = "allow"
    AUDITALLOW = "auditallow"
    DONTAUDIT = "dontaudit"
    NEVERALLOW = "neverallow"
    TYPETRANSITION = "typetransition"
    TYPECHANGE = "typechange"
    ALLOWX = "allowx"


class Rule(NamedTuple):
    """An access vector rule.

    Attributes:
        kind: ALLOW, AUDITALLOW, DONTAUDIT or NEVERALLOW.
        source: number of a type or attribute.
        target: number of a type or attribute, or SELF.
        tclass: number of a class of the policy (its place in `PolicyDatabase.classes`).
        permissions: a bit for each of the class's permissions, in the *policy's* order.
        line: where it was written, in the file with number `file`.
        condition: 0 if always in force; n: while condition n-1 is true; -n: while it is false.
    """

    kind: RuleKind
    source: int
    target: int
    tclass: int
    permissions: int
    file: int
    line: int
    condition: int = 0


class TypeRule(NamedTuple):
    """TYPETRANSITION or TYPECHANGE: the type of something new. Fields as of `Rule`."""

    kind: RuleKind
    source: int
    target: int
    tclass: int
    result: int
    file: int
    line: int
    condition: int = 0


class ExtendedRule(NamedTuple):
    """ALLOWX: narrows a method class to routines. `ranges`: inclusive pairs of routine indices."""

    kind: RuleKind
    source: int
    target: int
    tclass: int
    ranges: tuple[tuple[int, int], ...]
    file: int
    line: int


class Level(NamedTuple):
    """A sensitivity (by rank, lowest 0) and a set of categories (bit n: the nth in order)."""

    sensitivity: int
    categories: int = 0

    def dominates(self, other: Level) -> bool:
        """Whether this level is at least as high, and has all the other's categories."""
        lacking = other.categories & ~self.categories
        return self.sensitivity >= other.sensitivity and not lacking


class Range(NamedTuple):
    """The levels from `low` to `high`, which dominates it."""

    low: Level
    high: Level


class Context(NamedTuple):
    """A security context, by numbers; `PolicyDatabase` reads and writes its text.

    Attributes:
        user, role, type: numbers in `users`, `roles`, `types`.
        range: its levels; lowest to lowest where the policy has none.
    """

    user: int
    role: int
    type: int
    range: Range


@dataclass(frozen=True, slots=True)
class TypeDatum:
    """A type or an attribute.

    Attributes:
        name: with the blocks it is in: "block.name".
        number: types come first.
        attribute: whether it stands for a set of types.
        members (int): of an attribute, its types; of a type, itself: bit n for type n.
        origin: where it was declared.
        aliases: other names of a type.
        permissive: where it was made permissive; None if it is not.
    """

    name: str
    number: int
    attribute: bool
    members: int
    origin: Origin
    aliases: tuple[str, ...] = ()
    permissive: Origin | None = None


@dataclass(frozen=True, slots=True)
class PolicyClass:
    """A class: its permissions in the policy's bit order, those of its common first."""

    name: str
    number: int
    permissions: tuple[str, ...]
    origin: Origin
    common: str = ""

    def mask(self, names: tuple[str, ...]) -> int:
        """Return the bits of permissions; unknown names raise ValueError."""
        return sum(1 << self.permissions.index(name) for name in set(names))

    def names(self, mask: int) -> tuple[str, ...]:
        """Return the permissions in a vector, in bit order."""
        return tuple(name for bit, name in enumerate(self.permissions) if mask >> bit & 1)


@dataclass(frozen=True, slots=True)
class Role:
    """A role. `types`: those a context with this role may have. object_r takes every type."""

    name: str
    number: int
    types: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class User:
    """A user. `roles`: bit n for role n; contexts' ranges lie within `range`."""

    name: str
    number: int
    roles: int
    level: Level
    range: Range
    origin: Origin


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A sensitivity; its place in `PolicyDatabase.sensitivities` is its rank."""

    name: str
    categories: int
    origin: Origin
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Category:
    """A category; its place in `PolicyDatabase.categories` is its bit."""

    name: str
    origin: Origin
    aliases: tuple[str, ...] = ()


class Operand(NamedTuple):
    """A leaf of a constraint.

    Attributes:
        what: "u1", "r1", "t1", "l1", "h1" and so on, as CIL has them.
    """

    what: str


class Comparison(NamedTuple):
    """`(operator left right)` in a constraint.

    Attributes:
        operator: eq, neq, dom, domby or incomp.
        left: what stands on the left.
        right: another operand, or the set of users, roles or types named (bit n for number n).
        names: the text of the right side, for explanations.
    """

    operator: str
    left: Operand
    right: Operand | int
    names: str = ""


Expression = Union[str, Comparison, tuple["Expression", ...]]  # noqa: UP007  an alias is made at run time
"""`Comparison`, or a tuple ("and" | "or" | "not", operand...). Of a `Condition`: a boolean's name,
or a tuple ("and" | "or" | "xor" | "eq" | "neq" | "not", operand...)."""


class Constraint(NamedTuple):
    """constrain or mlsconstrain: permissions that need the expression to be true."""

    tclass: int
    permissions: int
    expression: Expression
    file: int
    line: int
    mls: bool


class Condition(NamedTuple):
    """The expression of a booleanif."""

    expression: Expression
    file: int
    line: int


@dataclass(frozen=True, slots=True)
class PolicyDatabase:
    """A policy, compiled. `pympi.policy.cil.compile_policy` makes it.

    Attributes:
        files: names of the files it was read from; the last one is "<base>".
        types: types and attributes, by number.
        type_count: how many of them are types; they come first.
        classes, roles, users, sensitivities, categories: by number.
        rules: allow, auditallow, dontaudit; neverallows: neverallow, checked already.
        type_rules, extended_rules, constraints, conditions: as written, in order.
        booleans: their default values.
        permissive: types whose refusals are only reported: bit n for type n.
        initial_sids: context by name; "kernel" and "unlabeled" are always there.
        handle_unknown: "deny", "allow" or "reject": of classes and permissions it does not define.
        mls: whether contexts have levels.
        text: the policy as plain CIL text that secilc takes as it is, with what the base supplied.
    """

    files: tuple[str, ...]
    types: tuple[TypeDatum, ...]
    type_count: int
    classes: tuple[PolicyClass, ...]
    roles: tuple[Role, ...]
    users: tuple[User, ...]
    sensitivities: tuple[Sensitivity, ...]
    categories: tuple[Category, ...]
    rules: tuple[Rule, ...]
    neverallows: tuple[Rule, ...]
    type_rules: tuple[TypeRule, ...]
    extended_rules: tuple[ExtendedRule, ...]
    constraints: tuple[Constraint, ...]
    conditions: tuple[Condition, ...]
    booleans: Mapping[str, bool]
    permissive: int
    initial_sids: Mapping[str, Context]
    handle_unknown: str
    mls: bool
    text: str
    _index: dict[str, dict[str, int]] = field(default_factory=dict, repr=False)

    def type(self, name: str) -> TypeDatum:
        """Return a type or attribute by name or alias.

        Raises:
            KeyError: there is none.
        """
        return self.types[self._number("types", name)]

    def tclass(self, name: str) -> PolicyClass:
        """Return a class by name.

        Raises:
            KeyError: there is none.
        """
        return self.classes[self._number("classes", name)]

    def role(self, name: str) -> Role:
        """Return a role by name; KeyError if there is none."""
        return self.roles[self._number("roles", name)]

    def user(self, name: str) -> User:
        """Return a user by name; KeyError if there is none."""
        return self.users[self._number("users", name)]

    def origin(self, rule: Rule | TypeRule | ExtendedRule | Constraint | Condition) -> Origin:
        """Return where a rule was written."""
        return Origin(self.files[rule.file], rule.line)

    def attributes_of(self, number: int) -> Iterator[TypeDatum]:
        """Iterate over the attributes that a type is in."""
        return (each for each in self.types[self.type_count :] if each.members >> number & 1)

    def rule_text(self, rule: Rule) -> str:
        """Return a rule as CIL."""
        target = "self" if rule.target == SELF else self.types[rule.target].name
        tclass = self.classes[rule.tclass]
        words = " ".join(tclass.names(rule.permissions))
        source = self.types[rule.source].name
        return f"({rule.kind.value} {source} {target} ({tclass.name} ({words})))"

    def _number(self, table: str, name: str) -> int:
        if table not in self._index:
            self._index[table] = dict(_names(getattr(self, table)))
        return self._index[table][name]


def _names(data: tuple[object, ...]) -> Iterator[tuple[str, int]]:
    for number, datum in enumerate(data):
        yield getattr(datum, "name"), number  # noqa: B009
        for alias in getattr(datum, "aliases", ()):
            yield alias, number
