# SPDX-License-Identifier: BSD-2-Clause
"""What a policy promises of itself: no neverallow is broken, no two type rules contradict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import PolicyError
from .policydb import SELF, Condition, PolicyDatabase, Rule, RuleKind, TypeRule
from .reader import Sources

__all__ = ["check_neverallows", "check_type_rules", "forbidding"]


class _Counter:
    """Counts comparisons of rules."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def spend(self, count: int, sources: Sources, position: int) -> None:
        self._left -= count
        if self._left < 0:
            words = f"more than {self._limit} comparisons of rules (Budget.comparisons)"
            raise sources.error(words, position)


# ---- neverallow ----


@dataclass(slots=True)
class _Bundle:
    """The allow rules of one source about one class: what they give at most, and which they are."""

    permissions: int = 0
    targets: int = 0
    rules: list[int] = field(default_factory=list)


Index = dict[int, dict[int, _Bundle]]
"""class -> source -> rules."""


def _index(db: PolicyDatabase) -> Index:
    index: Index = {}
    members = [datum.members for datum in db.types]
    for number, rule in enumerate(db.rules):
        if rule.kind is RuleKind.ALLOW:
            bundle = index.setdefault(rule.tclass, {}).setdefault(rule.source, _Bundle())
            bundle.permissions |= rule.permissions
            bundle.targets |= members[rule.source if rule.target == SELF else rule.target]
            bundle.rules.append(number)
    return index


def check_neverallows(
    db: PolicyDatabase, sources: Sources, places: Sequence[int], never: Sequence[int], limit: int
) -> None:
    """Check that no allow rule gives what a neverallow forbids; conditions are not looked at.

    Args:
        db: the policy.
        places, never: positions of its rules and of its neverallows.
        limit: how many comparisons that may take.

    Raises:
        PolicyError: one does, or too many comparisons.
    """
    if not db.neverallows:
        return
    index, counter = _index(db), _Counter(limit)
    for number, forbidden in enumerate(db.neverallows):
        found = _broken(
            db, index.get(forbidden.tclass, {}), forbidden, counter, sources, never[number]
        )
        if found is not None:
            raise _violation(db, sources, found, number, places, never)


def _broken(
    db: PolicyDatabase, by_source: dict[int, _Bundle], forbidden: Rule, counter: _Counter,
    sources: Sources, position: int,
) -> int | None:  # fmt: skip
    """Return the number of the first rule that gives what is forbidden."""
    types = db.types
    whom = types[forbidden.source].members
    to = whom if forbidden.target == SELF else types[forbidden.target].members
    counter.spend(len(by_source), sources, position)
    for source, bundle in by_source.items():
        if not (
            bundle.permissions & forbidden.permissions
            and bundle.targets & to
            and types[source].members & whom
        ):
            continue
        counter.spend(len(bundle.rules), sources, position)
        for number in bundle.rules:
            rule = db.rules[number]
            if rule.permissions & forbidden.permissions and _meet(db, rule, forbidden):
                return number
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
    db: PolicyDatabase, sources: Sources, number: int, forbidden: int,
    places: Sequence[int], never: Sequence[int],
) -> PolicyError:  # fmt: skip
    rule, broken = db.rules[number], db.neverallows[forbidden]
    where = sources.origin(never[forbidden])
    return sources.error(
        f"{db.rule_text(rule)} breaks {db.rule_text(broken)}"
        f" at {where.file}:{where.line}:{where.column}",
        places[number],
    )


# ---- typetransition, typechange ----


def check_type_rules(
    db: PolicyDatabase, sources: Sources, places: Sequence[int], limit: int
) -> None:
    """Check that no two type rules say different things about the same pair of types.

    Two rules that are never in force at once may: the branches of a booleanif.

    Raises:
        PolicyError: two do, or too many comparisons.
    """
    counter = _Counter(limit)
    plain: dict[tuple[object, ...], list[int]] = {}
    groups: dict[tuple[object, ...], list[int]] = {}
    sets: dict[tuple[object, ...], list[int]] = {}
    for number, rule in enumerate(db.type_rules):
        group = (rule.kind, rule.tclass)
        groups.setdefault(group, []).append(number)
        if _is_set(db, rule):
            sets.setdefault(group, []).append(number)
        else:
            target = rule.source if rule.target == SELF else rule.target
            plain.setdefault((*group, rule.source, target), []).append(number)
    pairs = [(numbers, numbers) for numbers in plain.values() if len(numbers) > 1]
    pairs += [(numbers, groups[group]) for group, numbers in sets.items()]
    for some, others in pairs:
        for number in some:
            counter.spend(len(others), sources, places[number])
            _check_one(db, sources, places, number, others)


def _is_set(db: PolicyDatabase, rule: TypeRule) -> bool:
    return rule.source >= db.type_count or rule.target >= db.type_count


def _check_one(
    db: PolicyDatabase, sources: Sources, places: Sequence[int], number: int, others: list[int]
) -> None:
    rule = db.type_rules[number]
    for each in others:
        other = db.type_rules[each]
        if rule.result == other.result or not _meet(db, rule, other):
            continue
        if _exclusive(db.conditions, rule.condition, other.condition):
            continue
        where = sources.origin(places[min(number, each)])
        raise sources.error(
            f"this {rule.kind.value} contradicts {where.file}:{where.line}:{where.column}:"
            " for some types they give different results",
            places[max(number, each)],
        )


def _exclusive(conditions: Sequence[Condition], one: int, other: int) -> bool:
    """Whether two rules are the true and the false branch of the same expression."""
    if not one or not other or (one > 0) == (other > 0):
        return False
    return conditions[abs(one) - 1].expression == conditions[abs(other) - 1].expression
