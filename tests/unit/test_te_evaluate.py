# SPDX-License-Identifier: BSD-2-Clause
"""The evaluator beside the definition: random policies, decided twice."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil import evaluate as module
from pympi.policy.cil.contexts import parse_context
from pympi.policy.cil.evaluate import AccessVectors, Evaluator
from pympi.policy.cil.policydb import SELF, Comparison, Context, Operand, Rule, RuleKind

ALL = 0xFFFFFFFF
HEAD = """
(mls true)
(sensitivity s0) (sensitivity s1) (sensitivityorder (s0 s1))
(category c0) (category c1) (categoryorder (c0 c1))
(sensitivitycategory s0 (c0 c1)) (sensitivitycategory s1 (c0 c1))
(class mi_job (start stop pause ioctl))
(classorder (mi_job))
(boolean one true) (boolean two false)
(type a) (type b) (type c)
(typeattribute x) (typeattribute y) (typeattribute z)
"""
USERS = "".join(
    f"(user {user}) (userlevel {user} (s0)) (userrange {user} ((s0) (s1 (c0 c1))))"
    f"(userrole {user} r) (userrole {user} s)"
    for user in "uv"
)
ROLES = (
    "(typeattribute e) (typeattributeset e (all)) (role r) (role s) (roletype r e) (roletype s e)"
)
TYPES, NAMES = ["a", "b", "c"], ["a", "b", "c", "x", "y", "z"]
PERMISSIONS = {"mach_port": ["send", "recv", "copy_send"], "mi_job": ["start", "stop", "pause"]}


# ---- the definition, read off line by line ----


def stands_for(db: PolicyDatabase, number: int, kind: int) -> bool:
    return bool(db.types[number].members >> kind & 1)


def about(db: PolicyDatabase, rule: Any, source: Context, target: Context, tclass: int) -> bool:
    if rule.target == SELF:
        matches = source.type == target.type
    else:
        matches = stands_for(db, rule.target, target.type)
    return matches and rule.tclass == tclass and stands_for(db, rule.source, source.type)


def true(expression: Any, booleans: Mapping[str, bool]) -> bool:
    if isinstance(expression, str):
        return booleans[expression]
    values = [true(part, booleans) for part in expression[1:]]
    return {
        "and": all(values),
        "or": any(values),
        "not": not values[0],
        "xor": values[0] != values[-1],
        "eq": values[0] == values[-1],
        "neq": values[0] != values[-1],
    }[expression[0]]


def in_force(db: PolicyDatabase, rule: Rule, booleans: Mapping[str, bool]) -> bool:
    if rule.condition == 0:
        return True
    condition = db.conditions[abs(rule.condition) - 1]
    return true(condition.expression, booleans) == (rule.condition > 0)


def meets(db: PolicyDatabase, expression: Any, source: Context, target: Context) -> bool:
    if not isinstance(expression, Comparison):
        values = [meets(db, part, source, target) for part in expression[1:]]
        return {"and": all(values), "or": any(values), "not": not values[0]}[expression[0]]
    left = operand(expression.left, source, target)
    if isinstance(expression.right, int):
        return bool(expression.right >> left & 1) == (expression.operator == "eq")
    right = operand(expression.right, source, target)
    up = left == right if isinstance(left, int) else left.dominates(right)
    down = left == right if isinstance(left, int) else right.dominates(left)
    if expression.left.what[0] == "r" and left == db.role("object_r").number:
        up = down = False
    answers = {"eq": left == right, "neq": left != right, "dom": up, "domby": down}
    return (answers | {"incomp": not up and not down})[expression.operator]


def operand(what: Operand, source: Context, target: Context) -> Any:
    context = source if what.what[1] == "1" else target
    field = what.what[0]
    if field in "lh":
        return context.range.low if field == "l" else context.range.high
    return {"u": context.user, "r": context.role, "t": context.type}[field]


def naive(
    db: PolicyDatabase, booleans: Mapping[str, bool], source: Context, target: Context, tclass: int
) -> AccessVectors:
    said = dict.fromkeys(RuleKind, 0)
    for rule in db.rules:
        if about(db, rule, source, target, tclass) and in_force(db, rule, booleans):
            said[rule.kind] |= rule.permissions
    allowed = said[RuleKind.ALLOW]
    for constraint in db.constraints:
        if constraint.tclass == tclass and not meets(db, constraint.expression, source, target):
            allowed &= ~constraint.permissions
    rules = [rule for rule in db.extended_rules if about(db, rule, source, target, tclass)]
    ranges = [pair for rule in rules for pair in rule.ranges]
    for routine in range(3) if rules else ():
        if not any(low <= routine <= high for low, high in ranges):
            allowed &= ~(1 << routine)
    return AccessVectors(allowed, said[RuleKind.AUDITALLOW], ALL & ~said[RuleKind.DONTAUDIT])


# ---- random policies ----


@st.composite
def access_rules(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["allow", "allow", "allow", "auditallow", "dontaudit"]))
    tclass = draw(st.sampled_from(sorted(PERMISSIONS)))
    words = draw(st.sets(st.sampled_from(PERMISSIONS[tclass]), min_size=1))
    source, target = draw(st.sampled_from(NAMES)), draw(st.sampled_from([*NAMES, "self"]))
    rule = f"({kind} {source} {target} ({tclass} ({' '.join(sorted(words))})))"
    conditions = ["", "", "", "one", "(not two)", "(and one two)", "(xor one two)", "(neq one two)"]
    condition = draw(st.sampled_from(conditions))
    branch = draw(st.sampled_from(["true", "false"]))
    return f"(booleanif {condition} ({branch} {rule}))" if condition else rule


@st.composite
def narrowing_rules(draw: st.DrawFn) -> str:
    low = draw(st.integers(0, 3))
    source, target = draw(st.sampled_from(NAMES)), draw(st.sampled_from([*NAMES, "self"]))
    return f"(allowx {source} {target} (ioctl mi_job ((range {low} {draw(st.integers(low, 4))}))))"


LEAVES = st.one_of(
    st.builds("({} {} {})".format, st.sampled_from(["eq", "neq"]), st.just("u1"), st.just("u2")),
    st.builds("({} r1 r2)".format, st.sampled_from(["eq", "neq", "dom", "domby", "incomp"])),
    st.builds(
        "({} {} {})".format,
        st.sampled_from(["eq", "neq"]),
        st.sampled_from(["t1", "t2"]),
        st.sampled_from(NAMES),
    ),
    st.builds("({} t1 t2)".format, st.sampled_from(["eq", "neq"])),
    st.builds(
        "({} {})".format,
        st.sampled_from(["eq", "neq", "dom", "domby", "incomp"]),
        st.sampled_from(["l1 l2", "l1 h2", "h1 l2", "h1 h2", "l1 h1", "l2 h2"]),
    ),
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("(not {})".format, inner),
        st.builds("({} {} {})".format, st.sampled_from(["and", "or"]), inner, inner),
    ),
    max_leaves=4,
)


@st.composite
def constraints(draw: st.DrawFn) -> str:
    tclass = draw(st.sampled_from(sorted(PERMISSIONS)))
    words = draw(st.sets(st.sampled_from(PERMISSIONS[tclass]), min_size=1))
    return f"(mlsconstrain ({tclass} ({' '.join(sorted(words))})) {draw(EXPRESSIONS)})"


@st.composite
def policies(draw: st.DrawFn) -> str:
    attributes = [
        f"(typeattributeset {name} ({' '.join(members)}))"
        for name in "xyz"
        if (members := sorted(draw(st.sets(st.sampled_from(TYPES)))))
    ]
    lines = [
        *draw(st.lists(access_rules(), max_size=12)),
        *draw(st.lists(narrowing_rules(), max_size=2)),
        *draw(st.lists(constraints(), max_size=3)),
    ]
    return "\n".join([HEAD, USERS, ROLES, *attributes, *lines])


CONTEXTS = st.builds(
    "{}:{}:{}:{}".format,
    st.sampled_from("uv"),
    st.sampled_from(["r", "s", "object_r"]),
    st.sampled_from(TYPES),
    st.sampled_from(["s0", "s1", "s0:c0", "s0:c1", "s0-s1", "s0:c0-s1:c0,c1", "s1:c0,c1"]),
)


@pytest.mark.parametrize("room", [1 << 18, 0], ids=["merged", "shared"])
@given(text=policies(), texts=st.lists(CONTEXTS, min_size=2, max_size=4), flips=st.booleans())
def test_decisions_are_those_of_the_definition(
    text: str, texts: list[str], flips: bool, room: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MERGED", room)
        db = compile_policy([("random.cil", text)])
        booleans = {"one": not flips, "two": flips}
        evaluator = Evaluator(db).with_booleans(booleans)
    for source in [parse_context(db, each) for each in texts]:
        for target in [parse_context(db, each) for each in texts]:
            for name in PERMISSIONS:
                number = db.tclass(name).number
                expected = naive(db, booleans, source, target, number)
                assert evaluator.compute_av(source, target, number) == expected
