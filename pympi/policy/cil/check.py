# SPDX-License-Identifier: BSD-2-Clause
"""What a policy promises of itself: no neverallow is broken, no two type rules contradict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import PolicyError
from .policydb import SELF, PolicyDatabase, Rule, RuleKind, TypeRule
from .scope import Draft

__all__ = ["check_neverallows", "check_type_rules", "forbidding"]

# ---- neverallow ----


@dataclass(slots=True)
class _Bundle:
    """The allow rules of one source about one class: what they give at most, and which they are."""

    permissions: int = 0
    targets: int = 0
    rules: list[int] = field(default_factory=list)


def check_neverallows(
    db: PolicyDatabase, draft: Draft, places: Sequence[int], never: Sequence[int]
) -> None:
    """Check that no allow rule gives what a neverallow forbids; conditions are not looked at.

    Args:
        db: the policy.
        draft: the same, with what its comparisons may cost.
        places, never: positions of its rules and of its neverallows.

    Raises:
        PolicyError: one does, or too many comparisons.
    """
    by_class: dict[int, list[int]] = {}
    for number, forbidden in enumerate(db.neverallows):
        by_class.setdefault(forbidden.tclass, []).append(number)
    given: dict[int, list[int]] = {tclass: [] for tclass in by_class}
    for number, rule in enumerate(db.rules):
        if rule.kind is RuleKind.ALLOW and rule.tclass in given:
            given[rule.tclass].append(number)
    found: list[tuple[int, int]] = []
    for tclass, numbers in by_class.items():  # one after the other: a class's bundles are large
        bundles = _bundles(db, given[tclass])
        for number in numbers:
            broken = _broken(db, draft, bundles, number, never)
            if broken is not None:
                found.append((number, broken))
                break
    if found:
        raise _violation(db, draft, *min(found), places, never)


def _bundles(db: PolicyDatabase, numbers: Iterable[int]) -> dict[int, _Bundle]:
    """Return rules of one class by their source."""
    bundles: dict[int, _Bundle] = {}
    for number in numbers:
        rule = db.rules[number]
        bundle = bundles.setdefault(rule.source, _Bundle())
        bundle.permissions |= rule.permissions
        target = rule.source if rule.target == SELF else rule.target
        bundle.targets |= db.types[target].members
        bundle.rules.append(number)
    return bundles


def _broken(
    db: PolicyDatabase, draft: Draft, bundles: dict[int, _Bundle], number: int, never: Sequence[int]
) -> int | None:
    """Return the number of the first rule that gives what a neverallow forbids."""
    types, forbidden = db.types, db.neverallows[number]
    whom = types[forbidden.source].members
    to = whom if forbidden.target == SELF else types[forbidden.target].members
    draft.spend("comparisons", len(bundles), never[number])
    for source, bundle in bundles.items():
        if not (
            bundle.permissions & forbidden.permissions
            and bundle.targets & to
            and types[source].members & whom
        ):
            continue
        draft.spend("comparisons", len(bundle.rules), never[number])
        for each in bundle.rules:
            rule = db.rules[each]
            if rule.permissions & forbidden.permissions and _meet(db, rule, forbidden):
                return each
    return None


def forbidding(db: PolicyDatabase, rule: Rule) -> Iterator[Rule]:
    """Iterate over the neverallow rules that a rule would break if the policy had it."""
    for forbidden in db.neverallows:
        same = forbidden.tclass == rule.tclass and forbidden.permissions & rule.permissions
        if same and _meet(db, rule, forbidden):
            yield forbidden


def _meet(db: PolicyDatabase, rule: Rule | TypeRule, other: Rule | TypeRule) -> bool:
    """Whether two rules are about a pair (source type, target type) that is the same."""
    types = db.types
    both = types[rule.source].members & types[other.source].members
    if not both:
        return False
    if rule.target == SELF and other.target == SELF:
        return True
    if rule.target == SELF:
        return bool(both & types[other.target].members)
    if other.target == SELF:
        return bool(both & types[rule.target].members)
    return bool(types[rule.target].members & types[other.target].members)


def _violation(
    db: PolicyDatabase, draft: Draft, forbidden: int, number: int,
    places: Sequence[int], never: Sequence[int],
) -> PolicyError:  # fmt: skip
    rule, broken = db.rules[number], db.neverallows[forbidden]
    where = draft.sources.origin(never[forbidden])
    return draft.sources.error(
        f"{db.rule_text(rule)} breaks {db.rule_text(broken)}"
        f" at {where.file}:{where.line}:{where.column}",
        places[number],
    )


# ---- typetransition, typechange ----


def check_type_rules(db: PolicyDatabase, draft: Draft, places: Sequence[int]) -> None:
    """Check that no two type rules say different things about the same pair of types.

    Two rules that are never in force at once may: the branches of a booleanif. To say the same
    again is harmless, and costs no comparison.

    Raises:
        PolicyError: two do, or too many comparisons.
    """
    states = _states(db)
    distinct = {(*rule[:5], states[n]): n for n, rule in reversed([*enumerate(db.type_rules)])}
    groups: dict[tuple[object, ...], dict[int, list[int]]] = {}
    for number in distinct.values():
        rule = db.type_rules[number]
        for group in (_kind(rule), _pair(rule)):
            groups.setdefault(group, {}).setdefault(rule.result, []).append(number)
    for number in reversed(distinct.values()):
        rule = db.type_rules[number]
        for result, others in groups[_kind(rule) if _is_set(db, rule) else _pair(rule)].items():
            if result != rule.result:
                draft.spend("comparisons", len(others), places[number])
                _check_one(db, draft, places, states, number, others)


def _states(db: PolicyDatabase) -> list[int]:
    """Return for each type rule when it is in force: n and -n are never at once, 0 is always."""
    known: dict[object, int] = {}
    numbers = [known.setdefault(each.expression, len(known) + 1) for each in db.conditions]
    signed = [0, *numbers, *(-number for number in reversed(numbers))]
    return [signed[rule.condition] for rule in db.type_rules]


def _kind(rule: TypeRule) -> tuple[object, ...]:
    return rule.kind, rule.tclass


def _pair(rule: TypeRule) -> tuple[object, ...]:
    return *_kind(rule), rule.source, rule.source if rule.target == SELF else rule.target


def _is_set(db: PolicyDatabase, rule: TypeRule) -> bool:
    return rule.source >= db.type_count or rule.target >= db.type_count


def _check_one(
    db: PolicyDatabase, draft: Draft, places: Sequence[int], states: Sequence[int],
    number: int, others: Iterable[int],
) -> None:  # fmt: skip
    rules, types = db.type_rules, db.types
    rule = rules[number]
    whom = types[rule.source].members
    near = [each for each in others if whom & types[rules[each].source].members]
    for each in near:
        exclusive = states[number] and states[number] == -states[each]
        if exclusive or not _meet(db, rule, rules[each]):
            continue
        where = draft.sources.origin(places[min(number, each)])
        raise draft.sources.error(
            f"this {rule.kind.value} contradicts {where.file}:{where.line}:{where.column}:"
            " for some types they give different results",
            places[max(number, each)],
        )
