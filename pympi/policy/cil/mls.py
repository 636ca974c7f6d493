# SPDX-License-Identifier: BSD-2-Clause
"""Sensitivities and categories, levels and ranges, users and contexts."""

from __future__ import annotations

from collections.abc import Container
from functools import reduce
from operator import or_

from .bits import members
from .orders import ordered
from .policydb import Category, Context, Level, Range, Role, Sensitivity, User
from .reader import Node
from .scope import Draft, Scope, Symbol
from .sets import SetReader, settle, union

__all__ = ["Levels", "People"]

OBJECT_ROLE = "object_r"
LOWEST = Range(Level(0), Level(0))


class Levels:
    """The sensitivities and categories of a policy, and what its levels and ranges mean."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._sensitivities = ordered(draft, "sensitivity", "sensitivityorder")
        for rank, symbol in enumerate(self._sensitivities):
            symbol.number = rank
        categories = ordered(draft, "category", "categoryorder")
        for number, symbol in enumerate(categories):
            symbol.number, symbol.bits = number, draft.shared(1 << number, symbol.position)
        self._categories = categories
        self._all = (1 << len(categories)) - 1
        self._reader = SetReader(draft, self._member, self._all, self._range)
        settle(draft, "categoryset", self._reader.read)
        for scope, node, _ in draft.pending.pop("sensitivitycategory", ()):
            draft.find(("sensitivity",), scope, node, 2).parts.append((scope, node, 3))
        for symbol in self._sensitivities:
            symbol.bits = union(draft, symbol, self._reader.read)
        self._levels: dict[Symbol, Level] = {}
        self._ranges: dict[Symbol, Range] = {}
        self._named()

    def _named(self) -> None:
        for symbol in self._draft.symbols["level"]:
            scope, node, _ = symbol.parts[0]
            self._levels[symbol] = self._new_level(scope, node[3])
        for symbol in self._draft.symbols["levelrange"]:
            scope, node, _ = symbol.parts[0]
            self._ranges[symbol] = self._new_range(scope, node[3])

    def _member(self, scope: Scope, node: Node, child: int) -> int:
        return self._draft.find(("category", "categoryset"), scope, node, child).bits

    def _range(self, scope: Scope, node: Node) -> int:
        low = self._draft.find(("category",), scope, node, 2)
        high = self._draft.find(("category",), scope, node, 3)
        if low.number > high.number:
            words = f"expected a category not before '{node[2]}', found '{node[3]}'"
            self._draft.fail(words, node, 3)
        return (2 << high.number) - (1 << low.number)

    def level(self, scope: Scope, node: Node, child: int) -> Level:
        """Return the level that the nth item of a list is: a name, or a list."""
        if isinstance(node[child], str):
            return self._levels[self._draft.find(("level",), scope, node, child)]
        return self._new_level(scope, node[child])

    def _new_level(self, scope: Scope, node: Node) -> Level:
        draft = self._draft
        if not 2 <= len(node) <= 3:
            child = min(3, len(node))
            draft.expected("(SENSITIVITY) or (SENSITIVITY CATEGORIES)", node, child)
        sensitivity = draft.find(("sensitivity",), scope, node, 1)
        bits = self._reader.read((scope, node, 2)) if len(node) == 3 else 0
        if wrong := bits & ~sensitivity.bits:
            first = self._categories[(wrong & -wrong).bit_length() - 1].name
            words = f"expected categories of {sensitivity.name}, found '{first}'"
            draft.fail(f"{words}, which no sensitivitycategory gives it", node, 2)
        return Level(sensitivity.number, draft.shared(bits, node[0]))

    def range(self, scope: Scope, node: Node, child: int) -> Range:
        """Return the range that the nth item of a list is: a name, or a list."""
        if isinstance(node[child], str):
            return self._ranges[self._draft.find(("levelrange",), scope, node, child)]
        return self._new_range(scope, node[child])

    def _new_range(self, scope: Scope, node: Node) -> Range:
        if len(node) != 3:
            self._draft.expected("(LEVEL LEVEL)", node, min(3, len(node)))
        low, high = (self.level(scope, node, child) for child in (1, 2))
        if not high.dominates(low):
            words = "expected a level that dominates the first, found one that does not"
            self._draft.fail(words, node, 2)
        return Range(low, high)

    def sensitivities(self) -> tuple[Sensitivity, ...]:
        """Return the sensitivities, lowest first."""
        places = self._draft.places(self._sensitivities)
        return tuple(
            Sensitivity(s.name, s.bits, places[s.position], tuple(s.aliases))
            for s in self._sensitivities
        )

    def categories(self) -> tuple[Category, ...]:
        """Return the categories, in order."""
        places = self._draft.places(self._categories)
        return tuple(
            Category(c.name, places[c.position], tuple(c.aliases)) for c in self._categories
        )


class People:
    """Roles, users, and the contexts that are made of them."""

    def __init__(self, draft: Draft, levels: Levels, types: int, mls: bool) -> None:
        self._draft, self._levels, self._mls = draft, levels, mls
        self._types = [0] * len(draft.symbols["role"])
        self._level: dict[Symbol, Level] = {}
        self._range: dict[Symbol, Range] = {}
        self._all_types = types
        self._contexts: dict[Symbol, Context] = {}
        self._read_roles()
        self._read_users()
        for symbol in draft.symbols["context"]:
            scope, node, _ = symbol.parts[0]
            self._contexts[symbol] = self._new_context(scope, node[3])

    def role_bits(self, scope: Scope, node: Node, child: int) -> int:
        """Return the roles that a name stands for."""
        return self._draft.find(("role", "role attribute"), scope, node, child).bits

    def _read_roles(self) -> None:
        draft, roles = self._draft, self._draft.symbols["role"]
        for number, symbol in enumerate(roles):
            symbol.number, symbol.bits = number, draft.shared(1 << number, symbol.position)
        for scope, node, _ in draft.pending.get("roleattributeset", ()):
            draft.find(("role attribute",), scope, node, 2).parts.append((scope, node, 3))
        reader = SetReader(draft, self.role_bits, (1 << len(roles)) - 1)
        settle(draft, "role attribute", reader.read)
        types_of: dict[Symbol, list[int]] = {}
        for scope, node, _ in draft.pending.get("roletype", ()):
            symbol = draft.find(("role", "role attribute"), scope, node, 2)
            types = draft.find(("type", "attribute"), scope, node, 3).bits
            types_of.setdefault(symbol, []).append(types)
        for symbol, several in types_of.items():
            draft.spend("operands", symbol.bits.bit_count(), symbol.position)
            types = reduce(or_, several)
            for number in members(symbol.bits):
                self._types[number] |= types
        for symbol in roles:
            types = self._types[symbol.number]
            self._types[symbol.number] = draft.shared(types, symbol.position)

    def _read_users(self) -> None:
        draft, users = self._draft, self._draft.symbols["user"]
        for number, symbol in enumerate(users):
            symbol.number = number
        for scope, node, _ in draft.pending.get("userrole", ()):
            draft.find(("user",), scope, node, 2).parts.append((scope, node, 3))
        for user in users:
            user.bits = union(draft, user, lambda part: self.role_bits(*part))
        for scope, node, _ in draft.pending.get("userlevel", ()):
            user = self._once("userlevel", scope, node, self._level)
            self._level[user] = self._levels.level(scope, node, 3)
        for scope, node, _ in draft.pending.get("userrange", ()):
            user = self._once("userrange", scope, node, self._range)
            self._range[user] = self._levels.range(scope, node, 3)
        for known, keyword in ((self._level, "userlevel"), (self._range, "userrange")):
            for user in users:
                if user not in known:
                    message = f"user {user.name} has no {keyword}"
                    raise draft.sources.error(message, user.position, 2)

    def _once(self, keyword: str, scope: Scope, node: Node, known: Container[Symbol]) -> Symbol:
        user = self._draft.find(("user",), scope, node, 2)
        if user in known:
            self._draft.fail(f"user {user.name} has a {keyword} already", node, 2)
        return user

    def context(self, scope: Scope, node: Node, child: int) -> Context:
        """Return the context that the nth item of a list is: a name, or a list."""
        if isinstance(node[child], str):
            return self._contexts[self._draft.find(("context",), scope, node, child)]
        return self._new_context(scope, node[child])

    def _new_context(self, scope: Scope, node: Node) -> Context:
        draft = self._draft
        if len(node) != 5:
            draft.expected("(USER ROLE TYPE RANGE)", node, min(5, len(node)))
        user = draft.find(("user",), scope, node, 1)
        role = draft.find(("role",), scope, node, 2)
        kind = draft.find(("type",), scope, node, 3)
        levels = self._levels.range(scope, node, 4)
        if not user.bits & role.bits:
            draft.fail(f"no userrole gives user {user.name} the role {role.name}", node, 2)
        if not self._types[role.number] & kind.bits:
            draft.fail(f"no roletype gives role {role.name} the type {kind.name}", node, 3)
        mine = self._range[user]
        if not (levels.low.dominates(mine.low) and mine.high.dominates(levels.high)):
            draft.fail(f"the range is not within that of user {user.name}", node, 4)
        return Context(user.number, role.number, kind.number, levels if self._mls else LOWEST)

    def roles(self) -> tuple[Role, ...]:
        """Return the roles."""
        types = {OBJECT_ROLE: self._all_types}
        roles = self._draft.symbols["role"]
        places = self._draft.places(roles)
        return tuple(
            Role(s.name, s.number, types.get(s.name, self._types[s.number]), places[s.position])
            for s in roles
        )

    def users(self) -> tuple[User, ...]:
        """Return the users."""
        places = self._draft.places(self._draft.symbols["user"])
        return tuple(
            User(
                s.name, s.number, s.bits,
                self._level[s] if self._mls else LOWEST.low,
                self._range[s] if self._mls else LOWEST,
                places[s.position],
            )
            for s in self._draft.symbols["user"]
        )  # fmt: skip
