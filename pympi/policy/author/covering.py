# SPDX-License-Identifier: BSD-2-Clause
"""Which rules of a policy say all that another one says, without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..cil.policydb import SELF, PolicyDatabase, Rule, RuleKind

__all__ = ["COMPARISONS", "Covering"]

COMPARISONS = 20_000_000
"""How many comparisons of rules with rules the search for dominated rules may take."""


class Covering:
    """Rules by what they are about, to find those that another one covers.

    A rule covers another of its kind and class if its sources and targets include the other's, and
    it is in force whenever the other is.

    Attributes:
        left: how many comparisons may still be made; below 0 is over.
    """

    def __init__(self, db: PolicyDatabase, kind: RuleKind) -> None:
        self.db = db
        self.left = COMPARISONS
        self._members = [datum.members for datum in db.types]
        self.rules: dict[int, dict[int, dict[int, list[int]]]] = {}
        for number, rule in enumerate(db.rules):
            if rule.kind is kind:
                sources = self.rules.setdefault(rule.tclass, {})
                sources.setdefault(rule.source, {}).setdefault(rule.target, []).append(number)
        self._sets: dict[int, list[int]] = {}
        self._wider: dict[tuple[int, int], list[int]] = {}
        first = db.type_count
        self._target_sets = {
            (tclass, source): [n for n in targets if n >= first or n == SELF]
            for tclass, sources in self.rules.items()
            for source, targets in sources.items()
        }

    def covering(self, rule: Rule) -> Iterator[int]:
        """Yield the numbers of rules that cover a rule, itself included if it is of the kind."""
        sources = self.rules.get(rule.tclass)
        if not sources:
            return
        for source in self._including(rule.tclass, rule.source):
            targets = sources[source]
            for target in self._covering_targets(rule, source, targets):
                for number in targets[target]:
                    self.left -= 1
                    if self.db.rules[number].condition in (0, rule.condition):
                        yield number

    def _including(self, tclass: int, number: int) -> list[int]:
        """Return the sources of rules of the class that include a type's or attribute's types."""
        key = tclass, number
        found = self._wider.get(key)
        if found is None:
            wanted, members = self._members[number], self._members
            sources = self._attribute_sources(tclass)
            found = [n for n in sources if n != number and not wanted & ~members[n]]
            if number in self.rules[tclass]:
                found.append(number)
            self._wider[key] = found
            self.left -= len(sources)
        return found

    def _attribute_sources(self, tclass: int) -> list[int]:
        found = self._sets.get(tclass)
        if found is None:
            first = self.db.type_count
            found = self._sets[tclass] = [n for n in self.rules[tclass] if n >= first]
        return found

    def _covering_targets(
        self, rule: Rule, source: int, targets: Mapping[int, Any]
    ) -> Iterator[int]:
        """Yield the targets, of rules of one source, that include those of a rule."""
        # A type with itself is one pair, and within an attribute's pairs with itself.
        same = {rule.target, rule.source} if rule.target == SELF else {rule.target}
        yield from (target for target in same if target in targets)
        which = rule.source if rule.target == SELF else rule.target
        wanted, members = self._members[which], self._members
        alone = rule.source == rule.target < self.db.type_count
        sets = self._target_sets[rule.tclass, source]
        self.left -= len(sets)
        for target in sets:
            if target == SELF:
                if alone:
                    yield target
            elif target not in same and not wanted & ~members[target]:
                yield target
