# SPDX-License-Identifier: BSD-2-Clause
"""Constraints: what may be compared with what, and the comparisons that SELinux's tools misread."""

import itertools

import pytest

from pympi import PolicyError
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.constraints import NAMES, OPERANDS, PAIRS
from pympi.policy.cil.policydb import Comparison, Operand

BASE = (
    "(mls true)(sensitivity s0)(sensitivityorder (s0))(type t)(type w)(role r)(user u)"
    "(userlevel u (s0))(userrange u ((s0) (s0)))(typeattribute k)(typeattributeset k (t w))"
)


def compiled(expression: str, keyword: str = "mlsconstrain") -> PolicyDatabase:
    text = f"{BASE}({keyword} (mach_port (send)) {expression})"
    return compile_policy([("a.cil", text)])


def refused(expression: str, keyword: str = "mlsconstrain") -> str:
    with pytest.raises(PolicyError) as caught:
        compiled(expression, keyword)
    assert caught.value.column > len(BASE)
    return str(caught.value)


@pytest.mark.parametrize(("pair", "operators"), PAIRS.items())
def test_pairs(pair: tuple[str, str], operators: frozenset[str]) -> None:
    for operator in ("eq", "neq", "dom", "domby", "incomp"):
        text = f"({operator} {pair[0]} {pair[1]})"
        if operator not in operators:
            assert f"expected one of {' '.join(sorted(operators))}" in refused(text)
            continue
        expression = compiled(text).constraints[0].expression
        assert expression == Comparison(operator, Operand(pair[0]), Operand(pair[1]))


@pytest.mark.parametrize("pair", sorted(set(itertools.product(OPERANDS, OPERANDS)) - set(PAIRS)))
def test_other_pairs_are_refused(pair: tuple[str, str]) -> None:
    message = refused(f"(eq {pair[0]} {pair[1]})")
    if pair[::-1] in PAIRS:
        assert f"write (eq {pair[1]} {pair[0]})" in message
    else:
        assert "compares what cannot be compared" in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("(dom l2 l1)", "(domby l1 l2)"), ("(domby h2 l1)", "(dom l1 h2)"),
        ("(incomp l2 h1)", "(incomp h1 l2)"), ("(neq u2 u1)", "(neq u1 u2)"),
        ("(dom h1 l1)", "(domby l1 h1)"),
    ],
)  # fmt: skip
def test_misread_comparisons_say_what_is_meant(wrong: str, right: str) -> None:
    message = refused(f"(or (eq u1 u2) {wrong})")
    assert f"{wrong} would be compiled to another comparison" in message
    assert f"write {right}" in message
    assert compiled(f"(or (eq u1 u2) {right})").constraints


@pytest.mark.parametrize("operand", NAMES)
def test_names(operand: str) -> None:
    name = {"u": "u", "r": "r", "t": "t"}[operand[0]]
    db = compiled(f"(neq {operand} {name})")
    (constraint,) = db.constraints
    number = {"u": db.user, "r": db.role, "t": db.type}[operand[0]](name).number
    assert constraint.expression == Comparison("neq", Operand(operand), 1 << number, name)
    assert "expected eq or neq with a name" in refused(f"(dom {operand} {name})")


def test_lists_of_names() -> None:
    db = compiled("(eq t1 (t k))", "constrain")
    (constraint,) = db.constraints
    assert constraint.expression == Comparison("eq", Operand("t1"), db.type("k").members, "(t k)")
    assert not constraint.mls
    assert db.classes[constraint.tclass].names(constraint.permissions) == ("send",)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(all)", "expected one of dom domby eq incomp neq and or not"),
        ("(xor (eq u1 u2) (eq u1 u2))", "expected one of dom"),
        ("((eq u1 u2))", "expected one of dom"),
        ("(and (eq u1 u2))", "expected 2 operands of 'and', found 1"),
        ("(and t1 t2)", "expected an expression such as (eq u1 u2)"),
        ("(eq u1)", "expected 2 operands of 'eq'"),
        ("(eq t1 ())", "expected at least one name"),
        ("(eq t1 (all))", "found 'all', which is not declared"),
        ("(eq t1 ((t)))", "expected a name, found a list"),
        ("(eq t1 nobody)", "expected a type or an attribute, found 'nobody'"),
        ("(eq t t1)", "expected one of"),
        ("(eq l1 t)", "expected an operand to compare l1 with (l2 h2 h1)"),
    ],
)
def test_expressions_refused(expression: str, words: str) -> None:
    assert words in refused(expression)


@pytest.mark.parametrize("expression", ["(eq l1 l2)", "(dom h1 h2)"])
def test_levels_need_mlsconstrain(expression: str) -> None:
    assert "expected one of r1 r2 t1 t2 u1 u2" in refused(expression, "constrain")
    assert compiled(expression).constraints[0].mls


def test_mlsconstrain_means_nothing_without_mls() -> None:
    text = BASE.replace("(mls true)", "(mls false)")
    text += "(mlsconstrain (mach_port (send)) (eq l1 l2))(constrain (mach_port (send)) (eq u1 u2))"
    db = compile_policy([("a.cil", text)])
    assert [constraint.mls for constraint in db.constraints] == [False]


def test_depth_is_what_the_kernel_evaluates() -> None:
    left = "(and " * 20 + "(eq u1 u2)" + " (eq t1 t2))" * 20
    assert compiled(left).constraints
    right = "(and (eq u1 u2) " * 4 + "(eq t1 t2)" + ")" * 4
    assert compiled(right).constraints
    assert "stack of more than 5" in refused(f"(and (eq u1 u2) {right})")


def test_a_class_map_makes_a_constraint_for_each_class() -> None:
    text = (
        "(classmap m (x))(classmapping m x (mach_port (send)))(classmapping m x (service (list)))"
        "(constrain (m (x)) (eq u1 u2))(constrain (mach_port (not (all))) (eq u1 u2))"
    )
    db = compile_policy([("a.cil", text)])
    found = [(db.classes[c.tclass].name, c.permissions) for c in db.constraints]
    assert found == [("mach_port", 4), ("service", 32)]
