# SPDX-License-Identifier: BSD-2-Clause
"""CIL text to a policy database.

First every statement is collected and every name declared, as CIL lets names be used before they
are declared; then the base adds what is missing; then names are resolved, sets found, rules read,
and what the policy promises is checked.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import base
from .budget import Budget
from .check import check_neverallows, check_type_rules
from .classes import (
    ClassPermissions,
    collect_sets,
    declare_words,
    join_commons,
    policy_classes,
)  # fmt: skip
from .grammar import nearest, statement
from .mls import Levels, People
from .orders import ordered
from .policydb import Context, Origin, PolicyDatabase, TypeDatum
from .reader import Node, Run
from .rules import RuleReader
from .scope import Draft, Scope, Symbol
from .sets import SetReader, settle

__all__ = ["compile_policy"]

# keyword -> what it declares
_NAMES = {
    "type": "type", "typealias": "type alias", "typeattribute": "attribute",
    "role": "role", "roleattribute": "role attribute", "user": "user", "sid": "SID",
    "classpermission": "classpermission", "sensitivity": "sensitivity",
    "sensitivityalias": "sensitivity alias", "category": "category",
    "categoryalias": "category alias", "boolean": "boolean",
}  # fmt: skip
_WITH_PERMISSIONS = {"class": "class", "common": "common", "classmap": "class map"}
_WITH_MEANING = ("categoryset", "level", "levelrange", "context", "permissionx")
_ALIASES = {
    "typealiasactual": ("type alias", "type"),
    "sensitivityaliasactual": ("sensitivity alias", "sensitivity"),
    "categoryaliasactual": ("category alias", "category"),
}
_CAPABILITIES = (
    "network_peer_controls", "open_perms", "extended_socket_class", "always_check_network",
    "cgroup_seclabel", "nnp_nosuid_transition", "genfs_seclabel_symlinks", "ioctl_skip_cloexec",
)  # fmt: skip
# keyword -> where a word with few values stands, and the values
_CHOICES = {
    "boolean": (3, ("true", "false")),
    "mls": (2, ("true", "false")),
    "expandtypeattribute": (3, ("true", "false")),
    "handleunknown": (2, ("allow", "deny", "reject")),
    "policycap": (2, _CAPABILITIES),
}
_ONCE = ("mls", "handleunknown")


def compile_policy(
    sources: Iterable[tuple[str, str]], *, budget: Budget | None = None
) -> PolicyDatabase:
    """Compile a policy.

    Args:
        sources: name and text of each file; together they are one policy, in any order.
        budget: what it may cost.

    Raises:
        PolicyError: it is no valid policy of the subset, or over budget; says where, what was
            expected and what was found.

    Example:
        >>> from pympi.policy.cil import compile_policy
        >>> text = '''(type editor_t)(type printer_t)
        ... (allow editor_t printer_t (mach_port (send)))'''
        >>> db = compile_policy([("office.cil", text)])
        >>> db.rule_text(db.rules[0])
        '(allow editor_t printer_t (mach_port (send)))'
    """
    draft = Draft(budget or Budget())
    collector = _Collector(draft)
    for name, text in sources:
        collector.read(name, text)
    collector.finish_blocks()
    collector.read_base()
    return _resolve(draft, collector)


# ---- collecting ----


class _Collector:
    """Declares names, and sorts statements by keyword for later."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._additions: list[tuple[Scope, Node]] = []
        self._in_addition = False

    def read(self, name: str, text: str) -> None:
        """Collect the statements of a text."""
        self._collect_all(self._draft.sources.add(name, text))

    def read_base(self) -> None:
        """Collect what the base adds: first names, as then the policy may have used them."""
        self.read(base.NAME, base.declarations(self._draft))
        _resolve_aliases(self._draft)
        self.extend_base(base.supplement(self._draft))

    def extend_base(self, text: str) -> None:
        """Collect more of the base, which was read last."""
        self._collect_all(*self._draft.sources.extend(text))

    def _collect_all(self, number: int, skip: int = 0) -> None:
        root, pending = self._draft.root, self._draft.pending
        for node in self._draft.sources.statements(number, skip, fold=True):
            if isinstance(node, Run):
                pending.setdefault(node.keyword, []).append((root, node, 0))
            else:
                self._collect(root, node)

    def finish_blocks(self) -> None:
        """Add what `in` statements hold to their blocks, once all blocks are known."""
        self._in_addition = True
        for scope, node in self._additions:
            name = node[2]
            inner = scope.block(name)
            if inner is None:
                near = nearest(name, scope.top.blocks)
                self._draft.fail(f"expected a block, found '{name}', which is none{near}", node, 2)
            self._body(inner, node, 3)
        self._in_addition = False

    def _collect(self, scope: Scope, node: Node, condition: int = 0) -> None:
        row = statement(self._draft.sources, node)
        keyword = row.keyword
        if condition and not row.conditional:
            self._draft.fail(f"'{keyword}' may not stand in a booleanif", node, 1)
        if scope.parent and not row.block:
            self._draft.fail(f"'{keyword}' may not stand in a block", node, 1)
        if keyword in _CHOICES:
            self._check_choice(node, *_CHOICES[keyword])
        special = _SPECIAL.get(keyword)
        if special is not None:
            special(self, scope, node)
        else:
            pending = self._draft.pending
            if keyword in _ONCE and keyword in pending:
                self._draft.fail(f"'{keyword}' has been said already", node, 1)
            if keyword not in pending:
                pending[keyword] = []
            pending[keyword].append((scope, node, condition))

    def _body(self, scope: Scope, node: Node, first: int, condition: int = 0) -> None:
        """Collect the statements in a list, from its nth item."""
        for child in range(first, len(node)):
            if not isinstance(node[child], tuple):
                self._draft.expected("a statement", node, child)
            self._collect(scope, node[child], condition)

    def _check_choice(self, node: Node, child: int, choice: tuple[str, ...]) -> None:
        if node[child] not in choice:
            self._draft.expected(f"one of {' '.join(choice)}", node, child)

    def _name(self, scope: Scope, node: Node) -> None:
        symbol = self._draft.declare(_NAMES[node[1]], scope, node)
        symbol.parts = [(scope, node, 3)] if node[1] == "boolean" else []
        if symbol.kind in ("type", "attribute"):
            self._draft.spend("types", 1, node[0])

    def _words(self, scope: Scope, node: Node) -> None:
        declare_words(self._draft, _WITH_PERMISSIONS[node[1]], scope, node)

    def _meaning(self, scope: Scope, node: Node) -> None:
        self._draft.declare(node[1], scope, node).parts.append((scope, node, 3))

    def _capability(self, scope: Scope, node: Node) -> None:
        self._draft.declare("policy capability", scope, node)

    def _block(self, scope: Scope, node: Node) -> None:
        name = self._draft.name(node, 2)
        self._draft.declare("block", scope, node)
        inner = scope.blocks[name] = Scope(f"{scope.prefix}{name}.", scope)
        self._body(inner, node, 3)

    def _in(self, scope: Scope, node: Node) -> None:
        if self._in_addition:
            self._draft.fail("'in' may not stand in another", node, 1)
        if node[2] in ("before", "after"):
            self._draft.fail(f"'{node[2]}' is outside the subset", node, 2)
        self._additions.append((scope, node))

    def _booleanif(self, scope: Scope, node: Node) -> None:
        self._draft.conditions.append((scope, node))
        number = len(self._draft.conditions)
        seen: list[str] = []
        for child, branch in enumerate(node[3:], 3):
            word = branch[1] if len(branch) > 1 else None
            if word not in ("true", "false") or word in seen:
                left = [each for each in ("true", "false") if each not in seen]
                words = " or ".join(f"({each} STATEMENT...)" for each in left)
                self._draft.expected(words, node, child)
            if len(branch) == 2:
                self._draft.fail("expected a statement, found ')'", branch, 2)
            seen.append(word)
            self._body(scope, branch, 2, number if word == "true" else -number)


_SPECIAL = {
    **dict.fromkeys(_NAMES, _Collector._name),
    **dict.fromkeys(_WITH_PERMISSIONS, _Collector._words),
    **dict.fromkeys(_WITH_MEANING, _Collector._meaning),
    "policycap": _Collector._capability,
    "block": _Collector._block,
    "in": _Collector._in,
    "booleanif": _Collector._booleanif,
}


# ---- resolving ----


def _resolve_aliases(draft: Draft) -> None:
    """typealiasactual and its kin: make every alias point at what it stands for."""
    for keyword, (kind, real) in _ALIASES.items():
        bound: dict[Symbol, tuple[Symbol, Node]] = {}
        for scope, node, _ in draft.pending.get(keyword, ()):
            alias = draft.find((kind,), scope, node, 2)
            if alias in bound:
                draft.fail(f"'{alias.name}' stands for something already", node, 2)
            bound[alias] = (draft.find((real, kind), scope, node, 3), node)
        for alias in draft.symbols[kind]:
            _bind(draft, alias, bound)
        for alias in bound:
            if alias.actual:
                alias.actual.aliases.append(alias.name)


def _bind(draft: Draft, alias: Symbol, bound: dict[Symbol, tuple[Symbol, Node]]) -> None:
    path: dict[Symbol, None] = {}
    end = alias
    while end in bound and end.actual is None:
        if end in path:
            draft.fail(f"'{end.name}' is an alias of itself", bound[end][1], 2)
        path[end] = None
        end = bound[end][0]
    end = end.actual or end
    if end.kind == alias.kind:
        message = f"alias '{end.name}' stands for nothing: no {alias.kind.split()[0]}aliasactual"
        raise draft.sources.error(message, end.position, 2)
    for each in path:
        each.actual = end


def _resolve(draft: Draft, collector: _Collector) -> PolicyDatabase:
    commons = join_commons(draft)
    classes = policy_classes(draft, ordered(draft, "class", "classorder"), commons)
    base.check_classes(draft)
    types = _types(draft)
    mls = any(node[2] == "true" for _, node, _ in draft.pending["mls"])
    levels = Levels(draft)
    type_count = len(draft.symbols["type"])
    people = People(draft, levels, (1 << type_count) - 1, mls)
    sids = _initial_sids(draft, people)
    collect_sets(draft)
    permissions = ClassPermissions(draft)
    permissions.check()
    rules = RuleReader(draft, permissions)
    rules.read(mls)
    if not rules.any_in_force(types):
        collector.extend_base(base.RULE)
        rules.read_vectors()
    db = PolicyDatabase(
        files=tuple(draft.sources.names),
        types=types,
        type_count=type_count,
        classes=classes,
        roles=people.roles(),
        users=people.users(),
        sensitivities=levels.sensitivities(),
        categories=levels.categories(),
        rules=tuple(rules.rules),
        neverallows=tuple(rules.neverallows),
        type_rules=tuple(rules.type_rules),
        extended_rules=tuple(rules.extended_rules),
        constraints=tuple(rules.constraints),
        conditions=rules.conditions(),
        booleans={s.name: s.parts[0][1][3] == "true" for s in draft.symbols["boolean"]},
        permissive=sum(each.members for each in types if each.permissive),
        initial_sids=sids,
        handle_unknown=draft.pending["handleunknown"][0][1][2],
        mls=mls,
        text=draft.sources.text(),
    )
    check_type_rules(db, draft, rules.type_places)
    check_neverallows(db, draft, rules.places, rules.neverallow_places)
    return db


def _types(draft: Draft) -> tuple[TypeDatum, ...]:
    types, attributes = draft.symbols["type"], draft.symbols["attribute"]
    for number, symbol in enumerate([*types, *attributes]):
        symbol.number = number
    for symbol in types:
        symbol.bits = draft.shared(1 << symbol.number, symbol.position)
    for scope, node, _ in draft.pending.get("typeattributeset", ()):
        symbol = draft.find(("attribute", "type"), scope, node, 2)
        if symbol.kind != "attribute":
            draft.find(("attribute",), scope, node, 2)
        symbol.parts.append((scope, node, 3))

    def member(scope: Scope, node: Node, child: int) -> int:
        return draft.find(("type", "attribute"), scope, node, child).bits

    settle(draft, "attribute", SetReader(draft, member, (1 << len(types)) - 1).read)
    _check_expansions(draft)
    places = draft.places([*types, *attributes])
    permissive = _permissive(draft)
    return tuple(
        TypeDatum(
            s.name, s.number, s.kind == "attribute", s.bits, places[s.position], tuple(s.aliases),
            permissive.get(s.number),
        )
        for s in [*types, *attributes]
    )  # fmt: skip


def _check_expansions(draft: Draft) -> None:
    """expandtypeattribute: what it names must be attributes; that is all it means here."""
    for scope, node, _ in draft.pending.get("expandtypeattribute", ()):
        item = node[2]
        parts = [(node, 2)] if isinstance(item, str) else [(item, i) for i in range(1, len(item))]
        for list_, child in parts:
            draft.find(("attribute",), scope, list_, child)
        if not parts:
            draft.fail("expected an attribute, found ')'", item, 1)


def _permissive(draft: Draft) -> dict[int, Origin]:
    """Return by type where it is made permissive, for the first time."""
    first: dict[int, int] = {}
    for scope, node, _ in draft.pending.get("typepermissive", ()):
        first.setdefault(draft.find(("type",), scope, node, 2).number, node[0])
    origins = draft.sources.origins(set(first.values()))
    return {number: origins[position] for number, position in first.items()}


def _initial_sids(draft: Draft, people: People) -> dict[str, Context]:
    ordered(draft, "SID", "sidorder")
    sids: dict[str, Context] = {}
    for scope, node, _ in draft.pending.get("sidcontext", ()):
        symbol = draft.find(("SID",), scope, node, 2)
        if symbol.name in sids:
            draft.fail(f"SID {symbol.name} has a context already", node, 2)
        sids[symbol.name] = people.context(scope, node, 3)
    return sids
