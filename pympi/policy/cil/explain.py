# SPDX-License-Identifier: BSD-2-Clause
"""Why a permission is allowed or refused: the rules, in words, with where they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast

from .check import forbidding
from .contexts import OBJECT_R, level_text
from .evaluate import Evaluator, compiled
from .policydb import (
    SELF,
    Comparison,
    Condition,
    Constraint,
    Context,
    Expression,
    ExtendedRule,
    Operand,
    PolicyDatabase,
    Rule,
    RuleKind,
)

__all__ = ["Question", "Verdict", "condition_text", "explain", "expression_text", "extended_text"]


class Question(NamedTuple):
    """Whether a subject has a permission on an object.

    Attributes:
        source, target: their contexts.
        tclass: the class's number in the policy.
        permission: its name there.
        routine: its index in its interface; None if it is no routine.
    """

    source: Context
    target: Context
    tclass: int
    permission: str
    routine: int | None = None


class Verdict(NamedTuple):
    """The answer, and why: one or more reasons."""

    allowed: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return ("allows by " if self.allowed else "refuses: ") + "; ".join(self.reasons)


def explain(server: Evaluator, question: Question) -> Verdict:
    """Return why a permission is allowed or refused, before permissive types."""
    rules = _about(server, question, RuleKind.ALLOW)
    allowing = [rule for rule in rules if server.enabled(rule)]
    others = [*_constraints(server, question), *_narrowed(server, question)]
    effect = "would be needed for it" if others else "would allow it"
    refusals = [*([] if allowing else _no_rule(server, question, rules, effect)), *others]
    if refusals:
        return Verdict(False, (*refusals, *_unrecorded(server, question)))
    return Verdict(True, (_cited(server, allowing[0]),))


def _about(server: Evaluator, question: Question, kind: RuleKind) -> list[Rule]:
    source, target, tclass = question.source.type, question.target.type, question.tclass
    asked = server.db.classes[tclass].mask((question.permission,))
    found = server.rules(kind, source, target, tclass)
    return [rule for rule in found if rule.permissions & asked]


def _cited(server: Evaluator, rule: Rule) -> str:
    """Return a rule with its place, and what it depends on."""
    db = server.db
    text = f"{db.origin(rule)}: {db.rule_text(rule)}"
    if not rule.condition:
        return text
    return f"{text}, while {_condition(server, rule)}"


def _condition(server: Evaluator, rule: Rule) -> str:
    condition = server.db.conditions[abs(rule.condition) - 1]
    return f"{condition_text(condition.expression)} is {str(rule.condition > 0).lower()}"


def _no_rule(
    server: Evaluator, question: Question, disabled: list[Rule], effect: str
) -> Iterator[str]:
    """Say what would allow it: rules that booleans keep out of force, or one there is not.

    What a neverallow forbids is not proposed: the policy would not compile with it.
    """
    db = server.db
    for rule in disabled:
        states = _states(db.conditions[abs(rule.condition) - 1], server.booleans)
        text = f"{db.origin(rule)}: {db.rule_text(rule)}"
        yield f"{text} {effect} if {_condition(server, rule)} (now {states})"
    if disabled:
        return
    wanted = _wanted(db, question)
    forbidden = ", ".join(_cited(server, rule) for rule in forbidding(db, wanted))
    if forbidden:
        yield f"no rule, and none may allow it: {forbidden}"
    else:
        yield f"no rule; {db.rule_text(wanted)} {effect}"


def _wanted(db: PolicyDatabase, question: Question) -> Rule:
    """Return the rule that would allow just what is asked for; it is written nowhere."""
    source, target, tclass, permission, _ = question
    asked = db.classes[tclass].mask((permission,))
    return Rule(RuleKind.ALLOW, source.type, target.type, tclass, asked, file=-1, line=0)


def _states(condition: Condition, booleans: Mapping[str, bool]) -> str:
    names = dict.fromkeys(_names(condition.expression))
    return ", ".join(f"{name}={str(booleans[name]).lower()}" for name in names)


def _names(expression: Expression) -> Iterator[str]:
    if isinstance(expression, str):
        yield expression
        return
    for operand in cast("tuple[str, ...]", expression)[1:]:
        yield from _names(operand)


def _constraints(server: Evaluator, question: Question) -> Iterator[str]:
    """Say which constraints refuse it, their failing parts marked."""
    db = server.db
    datum = db.classes[question.tclass]
    asked = datum.mask((question.permission,))
    pair = question.source, question.target
    object_r = db.role(OBJECT_R).number

    def met(part: Expression) -> bool:
        return compiled(part, object_r)(*pair)

    for constraint in server.failing(*pair, question.tclass):
        if constraint.permissions & asked:
            text = _marked(constraint.expression, met)
            needed = _needed(db, constraint.expression, met, pair)
            yield f"{db.origin(constraint)}: {_constraint_head(db, constraint)} {text}){needed}"
    roles = {each.role for each in pair}
    if datum.name == "process" and "transition" in question.permission and len(roles) > 1:
        yield "a change of role needs a rule that this language does not have"


def _constraint_head(db: PolicyDatabase, constraint: Constraint) -> str:
    datum = db.classes[constraint.tclass]
    word = "mlsconstrain" if constraint.mls else "constrain"
    return f"({word} ({datum.name} ({' '.join(datum.names(constraint.permissions))}))"


def _narrowed(server: Evaluator, question: Question) -> Iterator[str]:
    """Name the extended rules, if they leave the routine out."""
    source, target = question.source.type, question.target.type
    rules = list(server.extended_rules(source, target, question.tclass))
    index = question.routine
    pairs = [pair for rule in rules for pair in rule.ranges]
    if index is None or not rules or any(low <= index <= high for low, high in pairs):
        return
    cited = ", ".join(f"{server.db.origin(r)}: {extended_text(server.db, r)}" for r in rules)
    yield f"routine {index} is not among those left by {cited}"


def _unrecorded(server: Evaluator, question: Question) -> Iterator[str]:
    for rule in filter(server.enabled, _about(server, question, RuleKind.DONTAUDIT)):
        yield f"not recorded, by {_cited(server, rule)}"
        return


# ---- text ----


def extended_text(db: PolicyDatabase, rule: ExtendedRule) -> str:
    """Return an extended rule as CIL."""
    target = "self" if rule.target == SELF else db.types[rule.target].name
    words = " ".join(f"(range {low:#x} {high:#x})" for low, high in rule.ranges)
    tclass = db.classes[rule.tclass].name
    return f"(allowx {db.types[rule.source].name} {target} (ioctl {tclass} ({words})))"


def condition_text(expression: Expression) -> str:
    """Return the expression of a booleanif as CIL."""
    if isinstance(expression, str):
        return expression
    operator, *operands = cast("tuple[str, ...]", expression)
    return f"({' '.join([operator, *map(condition_text, operands)])})"


def expression_text(expression: Expression) -> str:
    """Return a constraint's expression as CIL."""
    if isinstance(expression, Comparison):
        right = expression.right
        other = right.what if isinstance(right, Operand) else expression.names
        return f"({expression.operator} {expression.left.what} {other})"
    operator, *operands = cast("tuple[Comparison, ...]", expression)
    return f"({' '.join([str(operator), *map(expression_text, operands)])})"


def _marked(expression: Expression, met: Callable[[Expression], bool]) -> str:
    """Return an expression with the smallest parts that fail marked: (eq t1 t2 -fails-)."""
    text = expression_text(expression)
    if met(expression):
        return text
    if isinstance(expression, Comparison) or expression[0] == "not":
        return f"{text[:-1]} -fails-)"
    operator, *operands = cast("tuple[Comparison, ...]", expression)
    return f"({' '.join([str(operator), *(_marked(each, met) for each in operands)])})"


# ---- what would meet a constraint ----

_VERBS = {
    "eq": "be", "neq": "be other than", "dom": "dominate", "domby": "be dominated by",
    "incomp": "be incomparable with",
}  # fmt: skip
_FIELDS: dict[str, tuple[str, Callable[[PolicyDatabase, Context], str]]] = {
    "u": ("user", lambda db, context: db.users[context.user].name),
    "r": ("role", lambda db, context: db.roles[context.role].name),
    "t": ("type", lambda db, context: db.types[context.type].name),
    "l": ("low level", lambda db, context: level_text(db, context.range.low)),
    "h": ("high level", lambda db, context: level_text(db, context.range.high)),
}


def _needed(
    db: PolicyDatabase, expression: Expression, met: Callable[[Expression], bool],
    pair: tuple[Context, Context],
) -> str:  # fmt: skip
    """Return what would meet a constraint, if one comparison is all that fails in it; else ""."""
    part, *others = _failing(expression, met)
    if others or not isinstance(part, Comparison):
        return ""
    right = part.right
    if isinstance(right, Operand):
        other = _named(db, right, pair)
    else:
        several = "one of " if part.operator == "eq" else "any of "
        other = f"{several if right.bit_count() != 1 else ''}{part.names}"
    return f": {_named(db, part.left, pair)}, would have to {_VERBS[part.operator]} {other}"


def _failing(expression: Expression, met: Callable[[Expression], bool]) -> Iterator[Expression]:
    """Iterate over the smallest parts that fail, of an expression that does."""
    if isinstance(expression, Comparison) or expression[0] == "not":
        yield expression
        return
    for operand in cast("tuple[Comparison, ...]", expression)[1:]:
        if not met(operand):
            yield from _failing(operand, met)


def _named(db: PolicyDatabase, operand: Operand, pair: tuple[Context, Context]) -> str:
    """Return an operand in words, with what it is: the source's role, user_r."""
    word, value = _FIELDS[operand.what[0]]
    place = int(operand.what[1]) - 1
    return f"the {('source', 'target')[place]}'s {word}, {value(db, pair[place])}"
