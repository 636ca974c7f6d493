# SPDX-License-Identifier: BSD-2-Clause
"""What a policy allows and nothing in the recordings used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..cil.policydb import SELF, Origin, PolicyDatabase, Rule, RuleKind
from .closure import Grant

__all__ = ["Unused", "unused"]


class Unused(NamedTuple):
    """A rule of which something was not used.

    Attributes:
        origin: where it was written.
        rule: as CIL.
        permissions: those that nothing used, in the policy's order.
        wholly: whether that is all of them.
    """

    origin: Origin
    rule: str
    permissions: tuple[str, ...]
    wholly: bool


def unused(policy: PolicyDatabase, used: Iterable[Grant]) -> list[Unused]:
    """Return the allow rules of which something was not used, in the order of the policy.

    A rule is used by whatever it allows, also where another rule allows the same, and whether or
    not its condition is true. What the package adds to every policy is left out.

    Args:
        policy: as `compile_policy` returns it.
        used: what was used; `read_recording(path)` has it in `used` and `closure`.
    """
    vectors = _vectors(policy, used)
    found = []
    for rule in policy.rules:
        origin = policy.origin(rule)
        if rule.kind is not RuleKind.ALLOW or origin.file == "<base>":
            continue
        idle = rule.permissions & ~_used(policy, rule, vectors[rule.tclass])
        if idle:
            names = policy.classes[rule.tclass].names(idle)
            wholly = idle == rule.permissions
            found.append(Unused(origin, policy.rule_text(rule), names, wholly))
    return found


_Vectors = dict[tuple[int, int], int]


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
