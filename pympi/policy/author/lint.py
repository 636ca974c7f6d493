# SPDX-License-Identifier: BSD-2-Clause
"""What is allowed by the language and hardly meant: rules that can never matter, and traps.

    for finding in lint(db):
        print(finding)

`CHECKS` lists what is looked for. Everything that is found is certain, but for two: what a policy
keeps for later is not dead to its author, and what grants everything may be meant.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple, cast

from ...enums import first_routine
from ..cil.contexts import OBJECT_R
from ..cil.evaluate import holds, numbered
from ..cil.explain import condition_text, expression_text, extended_text
from ..cil.policydb import (
    SELF,
    Comparison,
    Constraint,
    Expression,
    ExtendedRule,
    Origin,
    PolicyDatabase,
    Rule,
    RuleKind,
)
from ..rules import Rule as RulesRule
from ..rules import Rules
from .covering import COMPARISONS, Covering
from .query import boolean_names, rule_text

__all__ = ["CHECKS", "Finding", "lint", "lint_rules"]

BASE = "<base>"
MOST_BOOLEANS = 12
"""A condition of more booleans is not tried out: there are too many states."""


class Finding(NamedTuple):
    """Something to look at.

    Attributes:
        id: which check found it, a key of `CHECKS`.
        file, line, column: where it is; column 1 if only the line is known.
        message: what is the matter.
        advice: what to do.
    """

    id: str
    file: str
    line: int
    column: int
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.id}: {self.message}; {self.advice}"


CHECKS: Mapping[str, str] = {
    "grants-everything": "a rule lets everybody do something to everything",
    "dominated-rule": "a rule says what another says already",
    "empty-rule": "a rule is about an attribute that no type is in",
    "constant-condition": "a condition has the same value whatever its booleans are",
    "roleless-source": "a type acts, and no role may have it",
    "dead-type": "a type is in no rule, directly or by an attribute",
    "dead-attribute": "an attribute is declared and not used",
    "permissive-type": "what is refused to a type is done all the same",
    "constant-constraint": "a constraint is always met, or never",
    "idle-constraint": "a constraint takes away what no rule gives",
    "idle-dontaudit": "a dontaudit hides the refusal of what is allowed",
    "idle-auditallow": "an auditallow records what no rule allows",
    "allowx-without-allow": "an allowx narrows what no rule gives",
    "allowx-without-ioctl": "an allowx that SELinux's tools do not read: nothing allows ioctl",
    "allowx-elsewhere": "an allowx is for a class or for routines that it cannot narrow",
    "empty-neverallow": "a neverallow is about an attribute that no type is in",
    "empty-role": "a role may have no type",
    "unfinished": "too many rules: not all were compared",
}
"""What is looked for, by id."""


def lint(db: PolicyDatabase) -> list[Finding]:
    """Return what is questionable about a policy, in the order of its text.

    What the base supplies is not looked at.

    Example:
        >>> from pympi.policy.cil import compile_policy
        >>> db = compile_policy([("office.cil", "(type editor_t)")])
        >>> print(*lint(db))
        office.cil:1:1: dead-type: type editor_t is in no rule; use it, or remove it
    """
    policy = _Policy(db)
    found = [finding for check in _RUNS for finding in check(policy)]
    own = (finding for finding in found if finding.file != BASE)
    places = {name: number for number, name in enumerate(db.files)}
    return sorted(own, key=lambda each: (places.get(each.file, 0), *each[2:4], each.id))


class _Policy:
    """A policy, with what several checks want to know."""

    def __init__(self, db: PolicyDatabase) -> None:
        self.db = db
        self.members = [datum.members for datum in db.types]
        self.all_types = (1 << db.type_count) - 1
        base = (n for n in range(db.type_count) if db.types[n].origin.file == BASE)
        self.own_types = self.all_types & ~sum(1 << number for number in base)
        self.constants = [_constant(each.expression) for each in db.conditions]
        self.allows = [rule for rule in db.rules if rule.kind is RuleKind.ALLOW]
        self._by_source: dict[int, dict[int, list[Rule]]] = {}
        for rule in self.allows:
            self._by_source.setdefault(rule.tclass, {}).setdefault(rule.source, []).append(rule)

    def target(self, rule: Any) -> int:
        """Return the types that a rule is about as targets."""
        return self.members[rule.source if rule.target == SELF else rule.target]

    def given(self, rule: Any) -> int:
        """Return what allow rules give of a rule's class to some of the pairs it is about."""
        members, said = self.members, 0
        whom = members[rule.source]
        for source, allows in self._by_source.get(rule.tclass, {}).items():
            if members[source] & whom:
                for allow in allows:
                    said |= _meet(self, rule, allow)
        return said

    def empty(self, rule: Any) -> bool:
        """Tell whether a rule is about no pair of types."""
        return not (self.members[rule.source] and self.target(rule))

    def at(self, check: str, rule: Any, message: str, advice: str) -> Finding:
        """Return a finding about a rule."""
        return Finding(check, *self.db.origin(rule), message, advice)


def _finding(check: str, origin: Origin, message: str, advice: str) -> Finding:
    return Finding(check, *origin, message, advice)


# ---- rules ----


def _everything(policy: _Policy) -> Iterator[Finding]:
    for rule in policy.allows:
        source, target = policy.members[rule.source], policy.target(rule)
        own = policy.own_types
        if rule.target == SELF or not own or own & ~source or own & ~target:
            continue
        tclass = policy.db.classes[rule.tclass]
        whole = rule.permissions == (1 << len(tclass.permissions)) - 1
        words = "everything" if whole else " ".join(tclass.names(rule.permissions))
        yield policy.at(
            "grants-everything", rule, f"every type may do {words} to every {tclass.name}",
            "name the types that need it, in an attribute",
        )  # fmt: skip


def _empty(policy: _Policy) -> Iterator[Finding]:
    db = policy.db
    lists = ((db.rules, "empty-rule"), (db.neverallows, "empty-neverallow"),
             (db.type_rules, "empty-rule"), (db.extended_rules, "empty-rule"))  # fmt: skip
    for rules, check in lists:
        for rule in cast("Iterable[Any]", rules):
            if policy.empty(rule):
                which = rule.source if not policy.members[rule.source] else rule.target
                name = db.types[which].name
                never = check == "empty-neverallow"
                consequence = "promises nothing" if never else "can never matter"
                yield policy.at(
                    check, rule, f"no type is in {name}: this {rule.kind.value} {consequence}",
                    f"add types to {name}, or remove the rule",
                )  # fmt: skip


def _conditions(policy: _Policy) -> Iterator[Finding]:
    db = policy.db
    rules: Counter[int] = Counter(rule.condition for rule in db.rules)
    rules.update(change.condition for change in db.type_rules)
    for number, value in enumerate(policy.constants, 1):
        if value is None:
            continue
        condition = db.conditions[number - 1]
        dead = rules[-number if value else number]
        text = f"{condition_text(condition.expression)} is always {str(value).lower()}"
        if dead:
            text += f": {_count(dead, 'rule')} can never be in force"
        yield policy.at(
            "constant-condition", condition, text,
            "mend the expression, or keep the branch that is in force without the condition",
        )  # fmt: skip


def _constant(expression: Expression) -> bool | None:
    """Return the value of a condition if it has one value only."""
    names = sorted(boolean_names(expression))
    if len(names) > MOST_BOOLEANS:
        return None
    states = product((False, True), repeat=len(names))
    values = {holds(expression, dict(zip(names, state, strict=True))) for state in states}
    return values.pop() if len(values) == 1 else None


def _roleless(policy: _Policy) -> Iterator[Finding]:
    """Types that act in rules, and can be no task's: no user may have a role that has them."""
    db = policy.db
    held = 0
    for user in db.users:
        held |= user.roles
    acting = 0
    for role in db.roles:
        if role.name != OBJECT_R and held >> role.number & 1:
            acting |= role.types
    for context in db.initial_sids.values():
        acting |= 1 << context.type
    named: dict[int, list[Rule]] = defaultdict(list)
    for rule in policy.allows:
        if rule.source < db.type_count and not acting >> rule.source & 1:
            named[rule.source].append(rule)
    for number, rules in named.items():
        name = db.types[number].name
        count = _count(len(rules), "rule")
        yield policy.at(
            "roleless-source", rules[0],
            f"no role of a user may have {name}: {count} can never matter",
            f"(roletype ROLE {name}), and a user with that role",
        )  # fmt: skip


# ---- rules that say what others say ----


def _unfinished(policy: _Policy, rule: Rule, which: str) -> Finding:
    return policy.at(
        "unfinished", rule, f"each {rule.kind.value} {which} this one was not compared with others",
        f"split the policy; {COMPARISONS:,} comparisons were made",
    )  # fmt: skip


def _dominated(policy: _Policy) -> Iterator[Finding]:
    for kind in (RuleKind.ALLOW, RuleKind.AUDITALLOW, RuleKind.DONTAUDIT):
        yield from _dominated_of(policy, kind)


def _dominated_of(policy: _Policy, kind: RuleKind) -> Iterator[Finding]:
    db, coverage = policy.db, Covering(policy.db, kind)
    gone: set[int] = set()
    for number in range(len(db.rules) - 1, -1, -1):
        rule = db.rules[number]
        if rule.kind is not kind or policy.empty(rule) or db.origin(rule).file == BASE:
            continue
        if coverage.left < 0:
            yield _unfinished(policy, rule, "before")
            return
        others = [n for n in coverage.covering(rule) if n != number and n not in gone]
        said = 0
        for other in others:
            said |= db.rules[other].permissions
        if rule.permissions & ~said:
            continue
        gone.add(number)
        citation = min(
            others, key=lambda n: bin(rule.permissions & ~db.rules[n].permissions).count("1")
        )
        where = f"{db.origin(db.rules[citation])} says"
        if rule.permissions & ~db.rules[citation].permissions:
            where += ", with others,"
        yield policy.at(
            "dominated-rule", rule, f"{where} what {rule_text(db, rule)} does", "remove it"
        )


# ---- types, attributes, roles ----


def _dead_types(policy: _Policy) -> Iterator[Finding]:
    db = policy.db
    used = 0
    for rules in (db.rules, db.type_rules, db.extended_rules):
        for rule in cast("Iterable[Any]", rules):
            used |= policy.members[rule.source] | policy.target(rule)
    for change in db.type_rules:
        used |= 1 << change.result
    for number in range(db.type_count):
        if not used >> number & 1:
            datum = db.types[number]
            yield _finding(
                "dead-type",
                datum.origin,
                f"type {datum.name} is in no rule",
                "use it, or remove it",
            )


def _dead_attributes(policy: _Policy) -> Iterator[Finding]:
    db = policy.db
    lists = (db.rules, db.neverallows, db.type_rules, db.extended_rules)
    used = {
        number
        for rules in lists
        for rule in cast("Iterable[Any]", rules)
        for number in (rule.source, rule.target)
    }
    candidates = [datum for datum in db.types[db.type_count :] if datum.number not in used]
    words = _words(db.text) if candidates else Counter()
    for datum in candidates:
        if not words[datum.name.rpartition(".")[2]]:
            yield _finding(
                "dead-attribute", datum.origin, f"attribute {datum.name} is not used",
                "use it in a rule, or remove it",
            )  # fmt: skip


_TOKEN = re.compile(r';.*|"[^"]*"|\(\s*typeattribute(?:set)?\s+\S+|[^\s()";]+')


def _words(text: str) -> Counter[str]:
    """Return how often words occur, but for what an attribute is declared and made by."""
    tokens = (token for token in _TOKEN.findall(text) if token[0] not in ';("')
    return Counter(token.rpartition(".")[2] for token in tokens)


def _permissive(policy: _Policy) -> Iterator[Finding]:
    for datum in policy.db.types:
        if datum.permissive:
            yield _finding(
                "permissive-type", datum.permissive,
                f"type {datum.name} is permissive: nothing is refused",
                f"learn its rules, then remove (typepermissive {datum.name})",
            )  # fmt: skip


def _roles(policy: _Policy) -> Iterator[Finding]:
    for role in policy.db.roles:
        if not role.types and role.name != OBJECT_R:
            yield _finding(
                "empty-role", role.origin, f"role {role.name} may have no type",
                f"(roletype {role.name} TYPE), or remove it",
            )  # fmt: skip


# ---- constraints ----


def _constraints(policy: _Policy) -> Iterator[Finding]:
    db = policy.db
    given: Counter[int] = Counter()
    for rule in policy.allows:
        given[rule.tclass] |= rule.permissions
    for constraint in db.constraints:
        if constraint.mls and not db.mls:
            continue
        value = _value(policy, constraint.expression)
        text = expression_text(constraint.expression)
        names = " ".join(db.classes[constraint.tclass].names(constraint.permissions))
        if value is not None:
            always = (
                "always true: it takes nothing away"
                if value
                else f"never true: {names} is refused always"
            )
            yield policy.at(
                "constant-constraint", constraint, f"{text} is {always}", "mend it, or remove it"
            )
        elif not given[constraint.tclass] & constraint.permissions:
            yield policy.at(
                "idle-constraint", constraint,
                f"no rule allows {names} of {db.classes[constraint.tclass].name} at all",
                "remove it, or keep it for rules that are to come",
            )  # fmt: skip


def _value(policy: _Policy, expression: Expression) -> bool | None:
    """Return what an expression is for all contexts there can be; None if that differs."""
    if isinstance(expression, Comparison):
        return _leaf(policy, expression)
    operator, *operands = cast("tuple[Any, ...]", expression)
    values = [_value(policy, operand) for operand in operands]
    if operator == "not":
        return None if values[0] is None else not values[0]
    decisive = operator == "or"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def _leaf(policy: _Policy, leaf: Comparison) -> bool | None:
    db = policy.db
    kind = leaf.left.what[0]
    if kind in "lh":
        single = len(db.sensitivities) == 1 and not db.categories
        return leaf.operator in ("eq", "dom", "domby") if single else None
    everything = {"u": len(db.users), "r": len(db.roles), "t": db.type_count}[kind]
    if not isinstance(leaf.right, int):
        return leaf.operator in ("eq", "dom", "domby") if everything == 1 else None
    if leaf.right in (0, (1 << everything) - 1):
        return bool(leaf.right) is (leaf.operator == "eq")
    return None


# ---- what audit rules and extended rules are for ----


def _dontaudits(policy: _Policy) -> Iterator[Finding]:
    db, coverage = policy.db, Covering(policy.db, RuleKind.ALLOW)
    for rule in db.rules:
        if (
            rule.kind is not RuleKind.DONTAUDIT
            or policy.empty(rule)
            or _taken(db.constraints, rule)
        ):
            continue
        if coverage.left < 0:
            yield _unfinished(policy, rule, "from")
            return
        said = 0
        for number in coverage.covering(rule):
            said |= db.rules[number].permissions
        if not rule.permissions & ~said:
            yield policy.at(
                "idle-dontaudit", rule, f"{rule_text(db, rule)} hides nothing: it is all allowed",
                "remove it, or the rule that allows it",
            )  # fmt: skip


def _taken(constraints: Iterable[Constraint], rule: Rule) -> bool:
    """Tell whether a constraint may refuse what the rule is about."""
    return any(c.tclass == rule.tclass and c.permissions & rule.permissions for c in constraints)


def _auditallows(policy: _Policy) -> Iterator[Finding]:
    for rule in policy.db.rules:
        if rule.kind is not RuleKind.AUDITALLOW or policy.empty(rule):
            continue
        if not policy.given(rule) & rule.permissions:
            yield policy.at(
                "idle-auditallow", rule,
                f"{rule_text(policy.db, rule)} records nothing: no rule allows it",
                "remove it, or allow it",
            )  # fmt: skip


def _meet(policy: _Policy, rule: Any, allow: Rule) -> int:
    """Return the permissions of an allow rule of the class if both are about one same pair."""
    members = policy.members
    both = members[rule.source] & members[allow.source]
    if SELF in (rule.target, allow.target):
        both &= policy.target(rule) & policy.target(allow)
        return allow.permissions if both else 0
    return allow.permissions if both and members[rule.target] & members[allow.target] else 0


def _extended(policy: _Policy) -> Iterator[Finding]:
    db = policy.db
    for rule in db.extended_rules:
        if policy.empty(rule):
            continue
        name, text = db.classes[rule.tclass].name, extended_text(db, rule)
        if not name.startswith("mi_"):
            yield policy.at(
                "allowx-elsewhere", rule,
                f"{text} has no effect: {name} is no class of an interface",
                "extended rules are for classes mi_<interface>",
            )  # fmt: skip
            continue
        yield from _extended_finding(policy, rule, text, policy.given(rule))


def _extended_finding(
    policy: _Policy, rule: ExtendedRule, text: str, given: int
) -> Iterator[Finding]:
    tclass = policy.db.classes[rule.tclass]
    first = first_routine(tclass.name)
    routines = numbered(tclass.permissions, first)
    last = max(routines.values(), default=first)
    if not given & tclass.mask(tuple(routines)):
        yield policy.at(
            "allowx-without-allow", rule, f"{text} narrows nothing: no rule allows a routine",
            f"allow routines of {tclass.name}; allowx never gives any",
        )  # fmt: skip
    elif not any(low <= last and high >= first for low, high in rule.ranges):
        yield policy.at(
            "allowx-elsewhere", rule,
            f"{text} names no routine of {tclass.name}: they are {first} to {last}",
            "number routines as in the interface, from 0; message numbers are not meant",
        )  # fmt: skip
    elif not given & tclass.mask(("ioctl",)):
        yield policy.at(
            "allowx-without-ioctl", rule,
            f"{text} narrows here, and means nothing to SELinux's tools",
            f"add ioctl to the allow rule of {tclass.name}",
        )  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_RUNS: tuple[Callable[[_Policy], Iterator[Finding]], ...] = (
    _everything, _empty, _conditions, _roleless, _dominated, _dead_types, _dead_attributes,
    _permissive, _roles, _constraints, _dontaudits, _auditallows, _extended,
)  # fmt: skip


# ---- the small language of `rules` ----


def lint_rules(rules: Rules, file: str) -> list[Finding]:
    """Return what is questionable about a policy of `rules`.

    Example:
        >>> [each.id for each in lint_rules(Rules.from_text("allow * * * { * };"), "all.rules")]
        ['grants-everything']
    """
    found = []
    earlier: dict[tuple[str, str, str], dict[str, int]] = {}
    for rule in rules.rules:
        if rule.source == rule.target == "*" and "*" in (rule.tclass, *rule.permissions):
            found.append(Finding(
                "grants-everything", file, rule.line, 1,
                f"{rule} lets everybody do it to everything",
                "name who needs what",
            ))  # fmt: skip
        lines = _said_before(rule, earlier)
        if lines:
            which = f"line {lines[0]} says" if len(lines) == 1 else f"lines {_listed(lines)} say"
            found.append(Finding(
                "dominated-rule", file, rule.line, 1, f"{which} what {rule} does", "remove it",
            ))  # fmt: skip
        given = earlier.setdefault(rule[:3], {})
        for permission in rule.permissions:
            given.setdefault(permission, rule.line)
    return found


def _said_before(
    rule: RulesRule, earlier: Mapping[tuple[str, str, str], Mapping[str, int]]
) -> list[int]:
    """Return the lines that give all that a rule gives; none if they do not."""
    keys = product({rule.source, "*"}, {rule.target, "*"}, {rule.tclass, "*"})
    given = [earlier[key] for key in keys if key in earlier]
    lines = set()
    for permission in rule.permissions:
        line = next((g[p] for g in given for p in (permission, "*") if p in g), None)
        if line is None:
            return []
        lines.add(line)
    return sorted(lines)


def _listed(lines: list[int]) -> str:
    return ", ".join(map(str, lines[:4])) + (", ..." if lines[4:] else "")
