# SPDX-License-Identifier: BSD-2-Clause
"""Rules: allow and its kin, allowx, typetransition and typechange, constraints."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import chain, repeat

from ...errors import PolicyError
from .bits import runs
from .classes import ClassPermissions, Vectors
from .constraints import condition, constraint
from .policydb import SELF, Condition, Constraint, ExtendedRule, Rule, RuleKind, TypeDatum, TypeRule
from .reader import Node, Run
from .scope import Draft, Pending, Scope, Symbol
from .sets import SetReader

__all__ = ["RuleReader"]

Ranges = tuple[tuple[int, int], ...]

_TYPES, _SELF = ("type", "attribute"), "self"
_NUMBER = re.compile(r"0x[0-9A-Fa-f]{1,8}|0|[1-9][0-9]{0,8}")
_XPERM, _LARGEST = "ioctl", 0xFFFF
VECTOR_KINDS = (RuleKind.ALLOW, RuleKind.AUDITALLOW, RuleKind.DONTAUDIT, RuleKind.NEVERALLOW)
TYPE_KINDS = (RuleKind.TYPETRANSITION, RuleKind.TYPECHANGE)


class RuleReader:
    """Turns pending statements into rules.

    Attributes:
        rules, places: allow, auditallow and dontaudit, and the position of each.
        neverallows, neverallow_places: likewise.
        type_rules, type_places: likewise.
    """

    def __init__(self, draft: Draft, permissions: ClassPermissions) -> None:
        self._draft, self._permissions = draft, permissions
        self.rules: list[Rule] = []
        self.places: list[int] = []
        self.neverallows: list[Rule] = []
        self.neverallow_places: list[int] = []
        self.type_rules: list[TypeRule] = []
        self.type_places: list[int] = []
        self.extended_rules: list[ExtendedRule] = []
        self.constraints: list[Constraint] = []
        self._numbers_of: dict[Symbol, tuple[int, Ranges]] = {}
        self._written: dict[str, Vectors] = {}  # what the accesses of runs stand for
        symbols = draft.symbols["type"] + draft.symbols["attribute"]
        numbers = {symbol.name: symbol.number for symbol in symbols}
        # Numbers by name, of what may be a source and of what may be a target.
        self._known: defaultdict[Scope, tuple[dict[str, int], dict[str, int]]]
        self._known = defaultdict(lambda: ({}, {_SELF: SELF}))
        self._known[draft.root] = numbers, {**numbers, _SELF: SELF}

    def read(self, mls: bool) -> None:
        """Read everything that is pending."""
        self.read_vectors()
        for kind in TYPE_KINDS:
            for pending in self._draft.pending.get(kind.value, ()):
                self._type_rule(kind, pending)
        for symbol in self._draft.symbols["permissionx"]:
            scope, node, _ = symbol.parts[0]
            self._numbers_of[symbol] = self._extended(scope, node[3])
        for scope, node, _ in self._draft.pending.get("allowx", ()):
            self._allowx(scope, node)
        for keyword in ("constrain", "mlsconstrain"):
            for scope, node, _ in self._draft.pending.get(keyword, ()):
                self._constrain(scope, node, keyword == "mlsconstrain", mls)

    def read_vectors(self) -> None:
        """Read the access vector rules that are pending."""
        for kind in VECTOR_KINDS:
            never = kind is RuleKind.NEVERALLOW
            rules = self.neverallows if never else self.rules
            places = self.neverallow_places if never else self.places
            self._vectors(kind, self._draft.pending.pop(kind.value, []), rules, places)

    def any_in_force(self, types: tuple[TypeDatum, ...]) -> bool:
        """Whether a rule, whatever the booleans are, is about any type."""
        return any(
            types[rule.source].members and (rule.target == SELF or types[rule.target].members)
            for rule in self.rules
            if not rule.condition
        )

    def conditions(self) -> tuple[Condition, ...]:
        """Return the conditions of the booleanifs, in order."""
        return tuple(
            Condition(condition(self._draft, scope, node), *self._draft.sources.line(node[0]))
            for scope, node in self._draft.conditions
        )

    def _vectors(
        self, kind: RuleKind, pending: list[Pending], rules: list[Rule], places: list[int]
    ) -> None:
        for scope, node, conditional in pending:
            if not isinstance(node, Run):
                self._vector(kind, scope, node, conditional, rules, places)
            elif not self._by_columns(kind, node, rules, places):
                for each in node.nodes():
                    self._vector(kind, scope, each, 0, rules, places)

    def _vector(
        self, kind: RuleKind, scope: Scope, node: Node, conditional: int,
        rules: list[Rule], places: list[int],
    ) -> None:  # fmt: skip
        sources, targets = self._known[scope]
        source, target = sources.get(node[2]), targets.get(node[3])
        if source is None:
            source = sources[node[2]] = self._draft.find(_TYPES, scope, node, 2).number
        if target is None:
            target = targets[node[3]] = self._draft.find(_TYPES, scope, node, 3).number
        vectors, where = self._permissions.read(scope, node, 4), self._draft.sources.line(node[0])
        self._draft.spend("rules", len(vectors), node[0])
        for tclass, bits in vectors:
            rules.append(Rule(kind, source, target, tclass, bits, *where, conditional))
            places.append(node[0])

    def _by_columns(self, kind: RuleKind, run: Run, rules: list[Rule], places: list[int]) -> bool:
        """Do what `_vector` does with the rules of a run, all at once.

        Returns:
            False: something in it is wrong, or not as it mostly is. Rule by rule will tell.
        """
        numbers = self._known[self._draft.root]
        try:
            self._see(run)
            vectors = [*map(self._written.__getitem__, run.accesses)]
            columns: list[list[int]] = [
                [*map(numbers[0].__getitem__, run.sources)],
                [*map(numbers[1].__getitem__, run.targets)],
                self._draft.sources.lines(run.positions), [*run.positions],
            ]  # fmt: skip
        except (KeyError, PolicyError):
            return False
        counts = [*map(len, vectors)]
        if not self._draft.affords("rules", sum(counts)):
            return False
        self._draft.spend("rules", sum(counts), run.positions[0])
        if set(counts) != {1}:
            columns = [[*chain.from_iterable(map(repeat, each, counts))] for each in columns]
        if any(counts):
            sources, targets, lines, positions = columns
            meant = zip(*chain.from_iterable(vectors), strict=True)  # classes, permissions
            file, _ = self._draft.sources.line(positions[0])
            fields = repeat(kind), sources, targets, *meant, repeat(file), lines, repeat(0)
            rules += map(Rule._make, zip(*fields, strict=False))
            places += positions
        return True

    def _see(self, run: Run) -> None:
        """Work out what the rules of a run are about."""
        for n, access in enumerate(run.accesses):
            if access not in self._written:
                node = run.node(n)
                self._written[access] = self._permissions.read(self._draft.root, node, 4)

    def _target(self, scope: Scope, node: Node) -> int:
        if node[3] == _SELF:
            return SELF
        return self._draft.find(_TYPES, scope, node, 3).number

    def _type_rule(self, kind: RuleKind, pending: Pending) -> None:
        scope, node, conditional = pending
        find = self._draft.find
        source = find(_TYPES, scope, node, 2).number
        target = self._target(scope, node)
        tclass = find(("class",), scope, node, 4).number
        result = find(("type",), scope, node, 5).number
        where = self._draft.sources.line(node[0])
        self._draft.spend("rules", 1, node[0])
        self.type_rules.append(TypeRule(kind, source, target, tclass, result, *where, conditional))
        self.type_places.append(node[0])

    def _allowx(self, scope: Scope, node: Node) -> None:
        source = self._draft.find(_TYPES, scope, node, 2).number
        target = self._target(scope, node)
        if isinstance(node[4], str):
            symbol = self._draft.find(("permissionx",), scope, node, 4)
            tclass, ranges = self._numbers_of[symbol]
        else:
            tclass, ranges = self._extended(scope, node[4])
        where = self._draft.sources.line(node[0])
        self._draft.spend("rules", 1, node[0])
        rule = ExtendedRule(RuleKind.ALLOWX, source, target, tclass, ranges, *where)
        self.extended_rules.append(rule)

    def _extended(self, scope: Scope, node: Node) -> tuple[int, Ranges]:
        draft = self._draft
        if len(node) != 4 or not isinstance(node[3], tuple):
            child = min(3, len(node)) if len(node) <= 4 else 4
            draft.expected("(ioctl CLASS (NUMBER...))", node, child)
        if node[1] != _XPERM:
            draft.expected(f"the kind '{_XPERM}', the only one in the subset", node, 1)
        symbol = draft.find(("class",), scope, node, 2)
        if _XPERM not in symbol.words:
            draft.fail(f"class {symbol.name} has no permission '{_XPERM}'", node, 2)
        everything = (2 << _LARGEST) - 1
        bits = SetReader(draft, self._number_bit, everything, self._numbers).read((scope, node, 3))
        if not bits:
            draft.fail("expected at least one number, found an empty set", node, 3)
        return symbol.number, tuple(runs(bits))

    def _number_bit(self, _scope: Scope, node: Node, child: int) -> int:
        return 1 << self._number(node, child)

    def _numbers(self, _scope: Scope, node: Node) -> int:
        low, high = self._number(node, 2), self._number(node, 3)
        if low > high:
            self._draft.fail(f"expected a number not below {low}, found {high}", node, 3)
        return (2 << high) - (1 << low)

    def _number(self, node: Node, child: int) -> int:
        word = node[child]
        if not isinstance(word, str) or not _NUMBER.fullmatch(word):
            self._draft.expected("a decimal number, or 0x and a hexadecimal one", node, child)
        number = int(word, 0)
        if number > _LARGEST:
            self._draft.expected(f"a number from 0 to 0x{_LARGEST:x}", node, child)
        return number

    def _constrain(self, scope: Scope, node: Node, own_mls: bool, mls: bool) -> None:
        vectors = self._permissions.read(scope, node, 2)
        expression = constraint(self._draft, scope, node, own_mls)
        if own_mls and not mls:
            return
        where = self._draft.sources.line(node[0])
        self._draft.spend("rules", len(vectors), node[0])
        self.constraints += [
            Constraint(tclass, bits, expression, *where, own_mls) for tclass, bits in vectors
        ]
