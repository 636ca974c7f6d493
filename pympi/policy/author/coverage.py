# SPDX-License-Identifier: BSD-2-Clause
"""Which rules of a policy were exercised by what was recorded, and of which something was not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..cil.policydb import SELF, Origin, PolicyDatabase, Rule, RuleKind
from .closure import Grant

__all__ = ["Coverage", "RuleUse", "coverage"]


class RuleUse(NamedTuple):
    """What was used of an allow rule.

    Attributes:
        origin: where it was written.
        rule: as CIL.
        used, idle: its permissions that were used, and those that were not, in the policy's order.
    """

    origin: Origin
    rule: str
    used: tuple[str, ...]
    idle: tuple[str, ...]

    def __str__(self) -> str:
        """Return the rule with its place, and how much of it was used."""
        how = "unused" if self.idle else "used"
        if self.used and self.idle:
            how = f"partly used, not: {' '.join(self.idle)}"
        return f"{self.origin}: {self.rule}: {how}"


@dataclass(frozen=True)
class Coverage:
    """What was used of a policy.

    Attributes:
        rules: its allow rules, in its order, but those that the package adds to every policy.
    """

    rules: tuple[RuleUse, ...]

    @property
    def unused(self) -> list[RuleUse]:
        """The rules of which something was not used."""
        return [each for each in self.rules if each.idle]

    @property
    def exercised(self) -> int:
        """How many rules something was used of."""
        return sum(bool(each.used) for each in self.rules)

    @property
    def permissions(self) -> tuple[int, int]:
        """How many of the permissions in the rules were used, and how many there are."""
        used = sum(len(each.used) for each in self.rules)
        return used, used + sum(len(each.idle) for each in self.rules)

    @property
    def percent(self) -> float:
        """How many of a hundred permissions in the rules were used; 100 if there are none."""
        used, written = self.permissions
        return 100 * used / written if written else 100.0

    def __str__(self) -> str:
        """Return the figures, in a line. The percentage is rounded down: 100.0 is all of them."""
        used, written = self.permissions
        return (
            f"{self.exercised:,} of {len(self.rules):,} rules exercised, {used:,} of {written:,} "
            f"permissions: {self.percent * 10 // 1 / 10} %"
        )


def coverage(policy: PolicyDatabase, used: Iterable[Grant]) -> Coverage:
    """Return what was used of the allow rules of a policy.

    A rule is used by whatever it allows, also where another rule allows the same, and whether or
    not its condition is true.

    Args:
        policy: as `compile_policy` returns it.
        used: what was used; `read_recording(path)` has it in `used` and `closure`.
    """
    vectors = _vectors(policy, used)
    return Coverage(tuple(_use(policy, rule, vectors[rule.tclass]) for rule in _written(policy)))


def _written(policy: PolicyDatabase) -> Iterator[Rule]:
    for rule in policy.rules:
        if rule.kind is RuleKind.ALLOW and policy.origin(rule).file != "<base>":
            yield rule


_Vectors = dict[tuple[int, int], int]


def _use(policy: PolicyDatabase, rule: Rule, vectors: _Vectors) -> RuleUse:
    used = rule.permissions & _used(policy, rule, vectors)
    names = policy.classes[rule.tclass].names
    idle = names(rule.permissions & ~used)
    return RuleUse(policy.origin(rule), policy.rule_text(rule), names(used), idle)


def _vectors(policy: PolicyDatabase, used: Iterable[Grant]) -> defaultdict[int, _Vectors]:
    """By class and (source, target): the permissions used, of those that the policy knows."""
    vectors: defaultdict[int, _Vectors] = defaultdict(dict)
    for grant in used:
        try:
            pair = policy.type(grant.source).number, policy.type(grant.target).number
            tclass = policy.tclass(grant.tclass)
            bit = tclass.mask((grant.permission,))
        except (KeyError, ValueError):
            continue
        known = vectors[tclass.number]
        known[pair] = known.get(pair, 0) | bit
    return vectors


def _used(policy: PolicyDatabase, rule: Rule, vectors: _Vectors) -> int:
    """What was used of what `rule` is about."""
    return _union(vectors[pair] for pair in _pairs(policy, rule, vectors))


def _pairs(policy: PolicyDatabase, rule: Rule, vectors: _Vectors) -> Iterator[tuple[int, int]]:
    pair = rule.source, rule.target
    if rule.target != SELF and not any(policy.types[number].attribute for number in pair):
        yield from [pair] * (pair in vectors)
        return
    sources = policy.types[rule.source].members
    targets = -1 if rule.target == SELF else policy.types[rule.target].members
    for source, target in vectors:
        mine = source == target or rule.target != SELF
        if mine and sources >> source & 1 and targets >> target & 1:
            yield source, target


def _union(vectors: Iterable[int]) -> int:
    union = 0
    for vector in vectors:
        union |= vector
    return union
