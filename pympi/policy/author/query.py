# SPDX-License-Identifier: BSD-2-Clause
"""Rules of a policy that are about something, as they were written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Union, cast

from ...errors import PolicyError
from ..cil.contexts import named, nearest
from ..cil.explain import condition_text, extended_text
from ..cil.policydb import (
    SELF,
    Condition,
    Expression,
    ExtendedRule,
    PolicyDatabase,
    Rule,
    RuleKind,
    TypeRule,
)

__all__ = ["AnyRule", "boolean_names", "condition_of", "query", "rule_text"]

AnyRule = Union[Rule, TypeRule, ExtendedRule]  # noqa: UP007  an alias is made at run time

_SELF = "self"


def query(
    db: PolicyDatabase, *, source: str | None = None, target: str | None = None,
    tclass: str | None = None, permissions: Iterable[str] = (), kinds: Collection[RuleKind] = (),
    boolean: str | None = None, indirect: bool = False,
) -> list[AnyRule]:  # fmt: skip
    """Return the rules that meet all of what is said, in the order they were written.

    Args:
        db: the policy.
        source, target: a type or an attribute; as a target also "self".
        tclass: a class.
        permissions: rules that have one of these.
        kinds: the kinds of rules; without any, all.
        boolean: rules that depend on this one.
        indirect: find rules about attributes too that have one of the types, and about `self`.

    Raises:
        PolicyError: the policy has no such name; it says which are like it.

    Example:
        >>> from pympi.policy.cil import compile_policy
        >>> db = compile_policy([("office.cil", "(type a_t)(allow a_t self (mach_port (send)))")])
        >>> [rule_text(db, rule) for rule in query(db, source="a_t")]
        ['(allow a_t self (mach_port (send)))']
    """
    sources = None if source is None else _numbers(db, source, indirect)
    if target == _SELF:
        targets: frozenset[int] | None = frozenset([SELF])
    else:
        targets = None if target is None else _numbers(db, target, indirect)
    number = None if tclass is None else named(db.tclass, tclass, "class", db.classes).number
    vectors = _vectors(db, list(permissions), number)
    conditions = None if boolean is None else _conditions(db, boolean)
    found: list[AnyRule] = []
    for rules in _tables(db, kinds, bool(vectors), boolean is not None):
        for rule in rules:
            if (
                (sources is None or rule.source in sources)
                and (number is None or rule.tclass == number)
                and (targets is None or rule.target in targets)
            ):
                found.append(rule)
    if vectors:
        found = [
            r for r in found if isinstance(r, Rule) and r.permissions & vectors.get(r.tclass, 0)
        ]
    if conditions is not None:
        found = [r for r in found if not isinstance(r, ExtendedRule) and r.condition in conditions]
    if kinds:
        found = [rule for rule in found if rule.kind in kinds]
    if indirect and target is not None:
        found = [rule for rule in found if rule.target != SELF or _itself(db, rule, target)]
    return sorted(found, key=lambda rule: (rule.file, rule.line))


def _tables(
    db: PolicyDatabase, kinds: Collection[RuleKind], vectors: bool, conditional: bool
) -> Iterator[tuple[AnyRule, ...]]:
    """Yield the lists in which such rules may be."""
    yield db.rules
    if RuleKind.NEVERALLOW in kinds or not kinds:
        yield db.neverallows
    if not vectors:
        yield db.type_rules
        if not conditional:
            yield db.extended_rules


def _numbers(db: PolicyDatabase, name: str, indirect: bool) -> frozenset[int]:
    """Return what may stand in a rule that is about a type or an attribute."""
    datum = named(db.type, name, "type or attribute", db.types)
    if not indirect:
        return frozenset([datum.number])
    like = (each.number for each in db.types if each.members & datum.members)
    return frozenset([datum.number, SELF, *like])


def _itself(db: PolicyDatabase, rule: AnyRule, target: str) -> bool:
    """Tell whether a rule about `self` is about one of the types of the target."""
    return target == _SELF or bool(db.types[rule.source].members & db.type(target).members)


def _vectors(db: PolicyDatabase, names: list[str], tclass: int | None) -> dict[int, int]:
    """Return the bits of permissions by class."""
    classes = db.classes if tclass is None else db.classes[tclass : tclass + 1]
    for name in names:
        if not any(name in each.permissions for each in classes):
            hint = nearest(name, {word for each in classes for word in each.permissions})
            raise PolicyError(f"no permission {name!r}; {hint}")
    vectors = {
        each.number: each.mask(tuple(name for name in names if name in each.permissions))
        for each in classes
    }
    return {number: vector for number, vector in vectors.items() if vector}


def _conditions(db: PolicyDatabase, boolean: str) -> frozenset[int]:
    if boolean not in db.booleans:
        raise PolicyError(f"no boolean {boolean!r}; {nearest(boolean, db.booleans)}")
    named = [
        n for n, each in enumerate(db.conditions, 1) if boolean in boolean_names(each.expression)
    ]
    return frozenset([*named, *(-number for number in named)])


def boolean_names(expression: Expression) -> frozenset[str]:
    """Return the booleans in the expression of a condition."""
    if isinstance(expression, str):
        return frozenset([expression])
    _, *operands = cast("tuple[Expression, ...]", expression)
    return frozenset().union(*map(boolean_names, operands))


# ---- text ----


def rule_text(db: PolicyDatabase, rule: AnyRule) -> str:
    """Return a rule of any kind as CIL, without its condition."""
    if isinstance(rule, Rule):
        return db.rule_text(rule)
    if isinstance(rule, ExtendedRule):
        return extended_text(db, rule)
    target = _SELF if rule.target == SELF else db.types[rule.target].name
    names = db.types[rule.source].name, target, db.classes[rule.tclass].name
    return f"({rule.kind.value} {' '.join(names)} {db.types[rule.result].name})"


def condition_of(db: PolicyDatabase, rule: AnyRule) -> str:
    """Return when a rule is in force, as "BOOLEAN is true"; "" if always."""
    if isinstance(rule, ExtendedRule) or not rule.condition:
        return ""
    condition: Condition = db.conditions[abs(rule.condition) - 1]
    return f"{condition_text(condition.expression)} is {str(rule.condition > 0).lower()}"
