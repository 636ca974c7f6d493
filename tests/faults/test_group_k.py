# SPDX-License-Identifier: BSD-2-Clause
"""Group K, hostile policy files: each ends in a PolicyError, soon, with its place."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import pympi
from pympi import AccessDenied, Kernel, PolicyError
from pympi.cli import main
from pympi.policy import Rules, TypeEnforcement, rules
from pympi.policy.cil import Budget, PolicyDatabase, compile_policy, read_files
from pympi.policy.cil.contexts import parse_context
from pympi.policy.cil.evaluate import Evaluator
from pympi.policy.cil.grammar import STATEMENTS
from pympi.policy.rules import BUDGET

# A text that never ends would keep this file from ending.
pytestmark = pytest.mark.timeout(60, method="thread")

SMALL = "(type a)(type b)\n(allow a b (mach_port (send)))\n"


def compiled(text: str, **limits: int) -> PolicyDatabase:
    return compile_policy([("k.cil", text)], budget=Budget(**limits))


def refused(text: str, **limits: int) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        compiled(text, **limits)
    return placed(caught.value, "k.cil")


def refused_rules(text: str, **limits: int) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        Rules.from_text(text, "k.rules", budget=replace(BUDGET, **limits))
    return placed(caught.value, "k.rules")


def placed(error: PolicyError, file: str) -> PolicyError:
    assert error.file == file
    assert error.line > 0
    assert error.column > 0
    return error


# ---- what doubles ----


@pytest.mark.parametrize(
    "text",
    [
        "(block b0 (type t))(block b1 (blockinherit b0) (block x (blockinherit b0)))",
        "(macro m0 () (type t))(macro m1 () (call m0) (call m0))",
        "(block b (blockabstract b))",
        "(optional o (type t))",
    ],
)
def test_k1_inheritance_and_macros_are_outside(text: str) -> None:
    assert "outside the subset" in str(refused(text))


def test_k1_doubling_of_class_maps_is_no_doubling() -> None:
    """Each of 30 maps has two permissions made of both permissions of the one before."""
    text = "(type a)(classmap m0 (x y))(classmapping m0 x (service (list)))"
    text += "(classmapping m0 y (service (create)))"
    for n in range(1, 30):
        both = f"(m{n - 1} (x y))"
        text += f"(classmap m{n} (x y))(classmapping m{n} x {both})(classmapping m{n} y {both})"
    db = compiled(text + "(allow a a (m29 (x)))")
    assert [db.rule_text(rule) for rule in db.rules] == ["(allow a a (service (create list)))"]


def test_k1_long_chains_of_class_maps_end() -> None:
    text = "(classmap m0 (x))(classmapping m0 x (service (list)))"
    for n in range(1, 2000):
        text += f"(classmap m{n} (x))(classmapping m{n} x (m{n - 1} (x)))"
    order = re.findall(r"\(classmap .*?\)\)\(classmapping .*?\)\)\)", text)
    assert "one made of the other" in str(refused("".join(reversed(order))))


@pytest.mark.parametrize("text", ['(include "k.cil")', "(include k.cil)", "(in k (in k (type a)))"])
def test_k2_nothing_includes(text: str) -> None:
    assert "expected" in str(refused(text + "(block k)")) or "another" in str(
        refused(text + "(block k)")
    )


def test_k2_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "k.cil"
    path.write_text(SMALL)
    with pytest.raises(PolicyError, match="given twice"):
        read_files([path, path])


@pytest.mark.parametrize("kind", ["type", "category", "role", "permission"])
def test_k2_sets_that_contain_themselves(kind: str) -> None:
    text = {
        "type": "(typeattribute x)(typeattribute y)"
        "(typeattributeset x (y))(typeattributeset y (x))",
        "category": "(categoryset x (y))(categoryset y (x))",
        "role": "(roleattribute x)(roleattribute y)(roleattributeset x (y))"
        "(roleattributeset y (x))",
        "permission": "(classpermission x)(classpermission y)"
        "(classpermissionset x y)(classpermissionset y x)",
    }[kind]
    assert "contains itself" in str(refused(text))


# ---- what multiplies ----


def attributes(count: int, members: str) -> str:
    return "".join(f"(typeattribute g{n})(typeattributeset g{n} ({members}))" for n in range(count))


def test_k3_ten_thousand_attributes_of_ten_thousand_types() -> None:
    text = "".join(f"(type t{n})" for n in range(8000)) + "\n" + attributes(8000, "all")
    db = compiled(text + "\n(allow g0 g7999 (mach_port (all)))")
    assert db.type("g0").members.bit_count() == 8002
    assert len(db.rules) == 1, "attributes stay what they are"


def test_k3_types_and_operands_are_bounded() -> None:
    types = "".join(f"(type t{n})\n" for n in range(20_001))
    assert "Budget.types" in str(refused(types))
    members = " ".join(f"t{n}" for n in range(1000))
    text = "".join(f"(type t{n})" for n in range(1000)) + "\n" + attributes(200, members)
    assert "Budget.operands" in str(refused(text.replace(")(", ")\n("), operands=100_000))


def test_k4_neverallow_of_everything_by_everything() -> None:
    groups = 2500
    text = "(type a)\n" + attributes(groups, "all").replace(")(", ")\n(")
    text += "".join(f"(allow g{n} g{n} (mach_port (send)))\n" for n in range(groups))
    text += "".join(f"(neverallow g{n} g{n} (mach_port (recv)))\n" for n in range(groups))
    assert "Budget.comparisons" in str(refused(text))


def test_k4_type_rules_of_sets_are_bounded() -> None:
    groups = 2500
    text = "(type a)(type b)\n" + "".join(f"(type t{n})\n" for n in range(groups))
    text += "".join(
        f"(typeattribute g{n})(typeattributeset g{n} (t{n}))\n"
        f"(typechange g{n} g{n} mach_port {'ab'[n % 2]})\n"
        for n in range(groups)
    )
    assert len(compiled(text).type_rules) == groups
    assert "Budget.comparisons" in str(refused(text, comparisons=1_000_000))


@pytest.mark.parametrize("rule", ["a b", "g g", "a self"])
def test_k4_the_same_type_rule_again_costs_no_comparison(rule: str) -> None:
    text = "(type a)(type b)(typeattribute g)(typeattributeset g (a b))\n(boolean x true)\n"
    again = f"(typetransition {rule} mach_port b)\n" * 3000
    db = compiled(text + again + f"(booleanif x (true {again}))", comparisons=0)
    assert len(db.type_rules) == 6000
    other = f"(typetransition {rule} mach_port a)"
    assert "contradicts" in str(refused(text + again + other, comparisons=10))


def test_k4_type_rules_of_large_conditions() -> None:
    """Rules in both branches of the same large expression, written twice."""
    tree = "x"
    for _ in range(8):
        tree = f"(and {tree} {tree})"
    for _ in range(40):
        tree = f"(or {tree} (and x x))"
    text = "(type a)(type b)(boolean x true)\n"
    for word, result in (("true", "a"), ("false", "b")):
        rules = f"(typechange a b mach_port {result})\n" * 3000
        text += f"(booleanif {tree} ({word} {rules}))\n"
    assert len(compiled(text, comparisons=10).type_rules) == 6000


def test_k4_rules_of_class_maps_are_bounded() -> None:
    classes = "".join(f"(class c{n} (p))\n(classmapping m x (c{n} (p)))\n" for n in range(200))
    text = f"(type a)(classmap m (x))\n{classes}" + "(allow a a (m (x)))\n" * 600
    assert "Budget.rules" in str(refused(text, rules=100_000))


def lines(form: str, count: int) -> str:
    return "".join(form.format(n, (n * 7 + 1) % count) + "\n" for n in range(count))


def categories(count: int) -> str:
    names = "\n".join(f"c{n}" for n in range(count))
    return lines("(category c{0})", count) + f"(categoryorder ({names}))\n"


EXTENDED = "(type a)(class mi_x (ioctl))\n(permissionx p (ioctl mi_x ({})))\n"
MAPPING = "(classmapping m x{0} (service (list)))"
MAP = "(class c{0} (p))(classmapping m x (c{0} (p)))"
MLS = "(mls true)(sensitivity s)(sensitivityorder (s))(sensitivitycategory s (all))\n"
LONG = "b" * 2000

# What n bytes of text would make n * n of: the text, the limit that it passes.
MULTIPLY: dict[str, tuple[str, dict[str, int]]] = {
    "role attributes": (
        lines("(role r{0})(roleattribute a{0})(roleattributeset a{0} (not (r{1})))", 3000),
        {"memory": 8_000_000},
    ),
    "roletype": (
        "(type a)" + lines("(role r{0})(roleattribute a{0})(roleattributeset a{0} (all))", 500)
        + lines("(roletype a{0} a)", 500),
        {"operands": 200_000},
    ),
    "userrole": (
        lines("(role r{0})(roleattribute a{0})(roleattributeset a{0} (not (r{1})))", 1500)
        + lines("(user u{0})(userrole u{0} a{0})(userrole u{0} r{1})", 1500),
        {"memory": 5_300_000},
    ),
    "categorysets": (
        categories(3000) + lines("(categoryset s{0} (not (c{0})))", 3000), {"memory": 8_000_000},
    ),
    "levels": (
        categories(3000) + MLS + lines("(level l{0} (s (not (c{0}))))", 3000),
        {"memory": 8_000_000},
    ),
    "types in constraints": (
        lines("(type t{0})", 3000)
        + lines("(constrain (service (list)) (eq t1 (t{0} t{1})))", 3000),
        {"memory": 7_000_000},
    ),
    "users in constraints": (
        lines("(user u{0})", 40_000) + f"(constrain (service (list)) (eq u1 ({'u39999 ' * 20})))",
        {"operands": 50},
    ),
    "names in constraints": (
        f"(block {LONG}\n{lines('(type t{0})', 20)}"
        + "(constrain (service (list)) (eq t1 (t0 t1 t2 t3 t4 t5 t6 t7 t8 t9)))\n" * 100 + ")",
        {"memory": 1_500_000},
    ),
    "constraints of class maps": (
        "(classmap m (x))" + lines(MAP, 200) + "(constrain (m (x)) (eq t1 t2))\n" * 600,
        {"rules": 100_000},
    ),
    "neverallows of class maps": (
        "(type a)(classmap m (x))" + lines(MAP, 200) + "(neverallow a a (m (x)))\n" * 600,
        {"rules": 100_000},
    ),
    "permissions of class maps": (
        f"(classmap m ({lines('x{0}', 300)}))" + lines(MAPPING, 300)
        + lines("(constrain (m (not (x{0}))) (eq t1 t2))", 300),
        {"operands": 100_000},
    ),
    "sets of permissions": (
        "(classmap m (x))" + lines(MAP, 300)
        + lines("(classpermission s{0})(classpermissionset s{0} (m (x)))"
                "(classpermissionset s{0} (service (list)))", 300),
        {"operands": 80_000},
    ),
    "lists without names": (
        f"(typeattribute a)(typeattributeset a ({'(not (all)) (all)' * 1000}))",
        {"operands": 2000},
    ),
    "names": (lines("(sid s{0})", 1000), {"memory": 1_000_000}),
    "permissions": (
        f"(classmap m ({lines('x{0}', 1000)}))" + lines(MAPPING, 1000),
        {"memory": 1_000_000},
    ),
    "names in blocks": (
        f"(block {LONG} {lines('(boolean x{0} true)', 500)})", {"memory": 2_000_000},
    ),
    "extended rules": (EXTENDED.format("1") + "(allowx a a p)\n" * 2000, {"rules": 1000}),
    "type rules": ("(type a)" + "(typechange a a service a)\n" * 2000, {"rules": 1000}),
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIPLY)
def test_k7_what_multiplies_is_counted(name: str) -> None:
    text, limits = MULTIPLY[name]
    assert compiled(text), "it is well-formed, and fits into the default"
    message = str(refused(text, **limits))
    ((limit, most),) = limits.items()
    assert f"more than {most} " in message
    assert f"(Budget.{limit}); " in message, "and then what would be right"


def test_k7_a_set_of_numbers_is_there_once() -> None:
    numbers = " ".join(str(2 * n) for n in range(1000))
    db = compiled(EXTENDED.format(numbers) + "(allowx a a p)\n" * 3000)
    assert len(db.extended_rules) == 3000
    assert len({id(rule.ranges) for rule in db.extended_rules}) == 1
    context = db.initial_sids["kernel"]._replace(type=db.type("a").number)
    ranges = Evaluator(db).routines(context, context, db.tclass("mi_x").number)
    assert ranges == db.extended_rules[0].ranges


def test_k7_equal_sets_are_there_once() -> None:
    text = lines("(type t{0})(typeattribute a{0})(typeattributeset a{0} (all))", 300)
    text += categories(300) + MLS + lines("(level l{0} (s (all)))", 300)
    text += lines("(user u{0})(userlevel u{0} (s))(userrange u{0} ((s) (s (all))))", 300)
    text += lines("(role r{0})(roletype r{0} a{0})", 300)
    text += lines("(constrain (service (list)) (eq t1 (a{0} t{1})))", 300)
    text += "(user system_u)(userlevel system_u (s))(userrange system_u ((s) (s)))"
    db = compiled(text)
    everything = db.type("a0").members
    assert all(db.type(f"a{n}").members is everything for n in range(300))
    assert all(db.role(f"r{n}").types is everything for n in range(300))
    assert len({id(user.range.high.categories) for user in db.users}) == 2
    assert len({id(rule.expression.right) for rule in db.constraints}) == 1  # type: ignore[union-attr]


def test_k7_sets_that_are_empty_are_no_rules() -> None:
    text = "(type a)(classmap m (x))"
    text += lines("(class c{0} (p))(classmapping m x (c{0} (not (all))))", 500)
    text += "(allow a a (m (x)))\n(constrain (m (x)) (eq t1 t2))\n" * 5000
    db = compiled(text)
    assert len(db.rules) == 1, "of the base"
    assert not db.constraints


def test_k7_what_the_base_adds_for_users_is_short() -> None:
    """Each user without a range gets the highest level, of all categories."""
    sensitivity = "(sensitivity s)(sensitivityorder (s))(sensitivitycategory s (all))\n"
    text = categories(500) + sensitivity
    added = len(compiled(text).text) - len(text)
    users = lines("(user u{0})", 1000)
    db = compiled(text + users)
    assert len(db.text) - len(text) - len(users) < added + 1000 * 60
    assert {user.range.high for user in db.users} == {db.users[0].range.high}
    again = compiled(db.text)
    assert len(again.users) == 1001
    more = compiled(db.text + "(user last)")
    assert len(more.users) == 1002, "a name of the base's may be taken"


def test_k7_the_base_names_categories_of_the_highest_sensitivity() -> None:
    text = categories(40) + "(sensitivity s)(sensitivityorder (s))(sensitivitycategory s (all))\n"
    text += "(user u)(userrole u object_r)(type a)(context c (u object_r a ((s) (s (c0 c39)))))"
    text += "(roletype object_r a)"
    assert compiled(text).mls is False


# What takes n * n steps, unless it is read with care: this file would not end.
SLOW: dict[str, tuple[str, str]] = {
    "a chain of aliases": (
        "(typealias last)(typealiasactual last a)(type a)"
        + lines("(typealias a{0})", 60_000)
        + "".join(f"(typealiasactual a{n} a{n + 1})\n" for n in range(59_999))
        + "(typealiasactual a59999 last)",
        "",
    ),
    "a circle of aliases": (
        lines("(typealias a{0})", 60_000)
        + "".join(f"(typealiasactual a{n} a{(n + 1) % 60_000})\n" for n in range(60_000)),
        "is an alias of itself",
    ),
    "places in two long lines": (
        "".join(f"(category a{n})" for n in range(10_000)) + "\n"
        + "".join(f"(category b{n})" for n in range(10_000)) + "\n"
        + f"(categoryorder ({lines('a{0} b{0}', 10_000)}))",
        "",
    ),
    "permissions of a map": (
        f"(classmap m ({lines('x{0}', 60_000)}))\n" + lines(MAPPING, 60_000),
        "",
    ),
    "a permission twice": (
        f"(classmap m ({lines('x{0}', 60_000)} x59999))", "found 'x59999' again",
    ),
    "roles of all types": (
        lines("(role r{0})(type t{0})(roletype r{0} t{0})", 15_000), "",
    ),
    "names from many blocks around": (
        "(type t)" + lines("(block b{0}", 28) + "(typeattribute a)(typeattributeset a ("
        + "t t t t t t t t t t\n" * 60_000 + "))" + ")" * 28,
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
def test_k7_what_is_long_is_no_more_than_that(name: str) -> None:
    text, words = SLOW[name]
    if words:
        assert words in str(refused(text))
    else:
        assert compiled(text)


def test_k7_messages_are_short() -> None:
    words = lines("x{0}", 10_000)
    text = f"(classmap m ({words}))\n"
    for wrong in ("(classmapping m y (service (list)))", "(constrain (m (y)) (eq t1 t2))"):
        error = refused(text + lines(MAPPING, 10_000) + wrong)
        assert "x0 x1 x2" in str(error)
        assert len(str(error)) < 500


def test_k7_hints_among_very_many_names() -> None:
    db = compiled(lines("(user user_with_a_number_{0})(userrole user_with_a_number_{0} r)", 30_000)
                  + "(role r)(type t)(roletype r t)")  # fmt: skip
    with pytest.raises(ValueError, match="no user 'user_with_a_number_x'; did you mean user_"):
        parse_context(db, "user_with_a_number_x:r:t")


CHILD = """
import resource, sys
from pympi import PolicyError
from pympi.policy import TypeEnforcement
text = sys.stdin.read()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), -1))
try:
    TypeEnforcement.from_text(text)
    print("in force")
except PolicyError as error:
    print(error)
"""

# Texts of a megabyte or so for which there was no memory.
LARGE: dict[str, tuple[str, str]] = {
    "roles": (lines("(role r{0})", 70_000), "Budget.memory"),
    "categories": (categories(70_000), "Budget.memory"),
    "types in constraints": (
        lines("(type t{0})", 15_000) + "(typeattribute g)(typeattributeset g (all))\n"
        + "(constrain (service (list)) (and (eq t1 g) (eq t2 g)))\n" * 20_000,
        "in force",
    ),
    "levels": (
        categories(20_000) + MLS + lines("(level l{0} (s (not (c{0}))))", 20_000)
        + lines("(level k{0} (s (not (c{0} c0))))", 20_000)
        + lines("(level m{0} (s (not (c{0} c1))))", 20_000), "Budget.memory",
    ),
    "sources and classes": (
        lines("(type t{0})", 10_000) + "(typeattribute g)(typeattributeset g (all))\n"
        + lines("(class c{0} (p q))(neverallow t0 t1 (c{0} (q)))", 30)
        + lines("(classpermission p{0})(classpermissionset p{0} (c{0} (p)))", 30)
        + "".join(lines(f"(allow t{{0}} g p{c})", 10_000) for c in range(30)),
        "in force",
    ),
    "names in constraints": (
        f"(block {LONG} (type t)(constrain (service (list)) (eq t1 (\n"
        + "t t t t t t t t t t t t t t t t t t t t\n" * 40_000 + "))))",
        "Budget.memory",
    ),
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for its memory")
@pytest.mark.parametrize("name", LARGE)
def test_k7_half_a_gibibyte_is_enough(name: str) -> None:
    text, words = LARGE[name]
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=text, capture_output=True, text=True, check=False
    )
    assert words in child.stdout, child.stderr[-500:]


# ---- what is long or deep ----


def test_k5_identifier_of_a_mebibyte() -> None:
    for word in ("a" * (1 << 20), "a" * 2048):
        assert "Budget." in str(refused(f"(type {word})"))
    assert compiled(f"(type {'a' * 2047})").type("a" * 2047)
    assert "Budget.identifier" in str(refused(f"(block {'a' * 2000} (type {'b' * 100}))"))
    assert "Budget.line" in str(refused(f"; {'a' * (1 << 20)}"))


@pytest.mark.parametrize(
    "before", ["allow ", "allow a ", "allow a b mi_", "allow a b mi_x { ", "allow a b mi_x { c "]
)
def test_k5_name_of_a_mebibyte_in_rules(before: str) -> None:
    for length in (1 << 20, 2048):
        error = refused_rules(f"{before}{'a' * length} ")
        assert "Budget.identifier" in str(error)
        assert error.column == before.rfind(" ") + 2
    assert "found 'aaa" in str(refused_rules("a" * (1 << 20)))
    assert len(str(refused_rules("a" * (1 << 20)))) < 200
    assert Rules.from_text(f"allow {'a' * 2047} b * {{ * }}; # {'a' * (1 << 20)}").rules


@pytest.mark.parametrize(
    "text",
    [
        "(" * 900_000,
        "(\n" * 1_000_000,
        "(type a)\n" + ")" * 900_000,
        "(typeattribute x)(typeattributeset x " + "(not " * 100_000,
        "(block b " * 50_000,
        "(constrain (service (list)) " + "(not " * 100_000,
    ],
    ids=["open", "lines", "closed", "not", "block", "constrain"],
)
def test_k6_brackets(text: str) -> None:
    message = str(refused(text))
    assert "Budget.depth" in message or "nothing is open" in message


def test_k6_the_deepest_that_is_read_is_compiled() -> None:
    depth = Budget().depth
    nots = depth - 1
    text = f"(type a)(typeattribute x)(typeattributeset x {'(not ' * nots}a{')' * nots})"
    assert compiled(text).type("x").members.bit_count() in (1, 2)
    assert "Budget.depth" in str(refused(text.replace("(not a)", "(not (not a))")))


BRACES = [
    ("{" * 5_000_000, 1, 1),
    ("{\n" * 5_000_000, 1, 1),
    ("}" * 5_000_000, 1, 1),
    ("\n" * 1000 + "allow a b mi_x " + "{" * 5_000_000, 1001, 17),
    ("allow a b mi_x {" * 300_000, 1, 17 + len("allow a b mi_x ")),
    ("allow a b mi_x { c }" + ";" * 5_000_000, 1, 22),
    ("allow a b mi_x { c };\n}" + "allow a b mi_x { c };" * 200_000, 2, 1),
]


@pytest.mark.parametrize(("text", "line", "column"), BRACES, ids=range(len(BRACES)))
def test_k6_braces_in_rules(
    text: str, line: int, column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is where the first brace too many is, and nothing behind it is looked at."""
    looked_at = watched(monkeypatch)
    error = refused_rules(text)
    assert (error.line, error.column) == (line, column)
    assert len(looked_at) < 20


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of what is found in texts of rules from now on."""
    seen: list[str] = []

    class Watched:
        def finditer(self, text: str) -> Iterator[re.Match[str]]:
            for match in pattern.finditer(text):
                seen.append(match[0])
                yield match

    pattern = rules._TOKEN
    monkeypatch.setattr(rules, "_TOKEN", Watched())
    return seen


def test_k6_what_repeats_in_rules_is_bounded() -> None:
    assert "Budget.rules" in str(refused_rules("allow a b * { * };" * 5001, rules=5000))
    text = "allow a b * { " + "c " * 20_000
    assert "Budget.tokens" in str(refused_rules(text, tokens=20_000))
    assert "Budget.tokens" in str(refused_rules("#\n" * 20_001, tokens=20_000))
    text = "allow a b * { " + " ".join(f"c{n}" for n in range(5000))
    assert "Budget.types" in str(refused_rules(text, types=5000))
    assert "Budget.bytes" in str(refused_rules(" " * (BUDGET.bytes + 1)))


# ---- what contradicts, or names nothing ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(type a)", "expected a new name"),
        ("(typetransition a b mach_port a)(typetransition a b mach_port b)", "contradicts"),
        ("(neverallow a b (mach_port (send)))", "breaks"),
        ("(handleunknown deny)(handleunknown allow)", "said already"),
        ("(mls true)(mls false)", "said already"),
        ("(boolean x true)(boolean x false)", "expected a new name"),
    ],
)
def test_k7_contradictions(text: str, words: str) -> None:
    assert words in str(refused(SMALL + text))


def test_k7_the_same_rule_twice_is_the_same() -> None:
    db = compiled(SMALL + "(allow a b (mach_port (send)))")
    assert len({(r.source, r.target, r.tclass, r.permissions) for r in db.rules}) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(allow a nobody (mach_port (send)))", "'nobody', which is not declared"),
        ("(allow a b (mach_prot (send)))", "did you mean 'mach_port'?"),
        ("(allow a b (mach_port (sned)))", "expected a permission of mach_port"),
        ("(roletype r a)", "'r', which is not declared"),
        ("(userrange nobody ((s0) (s0)))", "expected a user"),
        ("(allowx a b (ioctl mach_port (1)))", "has no permission 'ioctl'"),
        ("(sidcontext kernel (u r a ((s0) (s0))))", "expected a user, found 'u'"),
    ],
)
def test_k8_undeclared(text: str, words: str) -> None:
    assert words in str(refused(SMALL + text))


@pytest.mark.parametrize("count", [33, 64, 65, 1000])
def test_k9_more_permissions_than_bits(count: int) -> None:
    words = " ".join(f"p{n}" for n in range(count))
    assert "at most 32 permissions" in str(refused(f"(class c ({words}))"))
    assert "at most 32 permissions" in str(refused(f"(common c ({words}))"))
    half = " ".join(f"q{n}" for n in range(30))
    text = f"(common k ({half}))(class c (x y z))(classcommon c k)"
    assert "at most 32 permissions" in str(refused(text))


def test_k9_the_32nd_permission_is_one() -> None:
    words = " ".join(f"p{n}" for n in range(32))
    db = compiled(f"(type a)(class c ({words}))(allow a a (c (p31)))(allow a a (c (all)))")
    assert [rule.permissions for rule in db.rules] == [1 << 31, (1 << 32) - 1]


def test_k10_what_grants_everything_shows() -> None:
    """An attribute of all types is not hidden behind its name: whoever looks sees the types."""
    text = (
        "(typeattribute world)(typeattributeset world (all))(allow world world (mach_port (all)))"
    )
    db = compiled(SMALL + text)
    rule = db.rules[-1]
    everything = (1 << db.type_count) - 1
    assert db.types[rule.source].members == db.types[rule.target].members == everything
    tclass = db.classes[rule.tclass]
    assert tclass.names(rule.permissions) == tclass.permissions


# ---- bytes ----


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"(type \xff)", "found the byte 0xff"),
        (b"(type a\0b)", "U+0000"),
        (b"\xef\xbb\xbf(type a)", "byte order mark"),
        ("(type a)\ufeff".encode(), "U+FEFF"),
        ("(type a) ; \u202e)b epyt(".encode(), "U+202E"),
        ("; \u2066(type a)\u2069".encode(), "U+2066"),
        ("(type \u0430dmin_t)".encode(), "U+0430"),
        ("(type a\u200b)".encode(), "U+200B"),
        ("(type a\u00a0b)".encode(), "U+00A0"),
        (b"; nothing\r(allow a b (mach_port (all)))", "U+000D"),
        ("; nothing\u2028(type b)".encode(), "U+2028"),
        (b"(type a\x1b[31m)", "U+001B"),
    ],
)
def test_k11_bytes_that_deceive(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "k.cil"
    path.write_bytes(data)
    with pytest.raises(PolicyError) as caught:
        compile_policy(read_files([path]))
    assert words in str(caught.value)
    assert caught.value.line
    assert caught.value.column
    assert str(caught.value).isprintable(), "the message deceives nobody either"


def test_k11_surrogates() -> None:
    assert "U+DC80" in str(refused("(type a) ; \udc80"))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "; the end", "\n\n"])
def test_k12_line_ends(ending: str, last: str) -> None:
    text = (SMALL + last).replace("\n", ending)
    db = compiled(text)
    assert db.rule_text(db.rules[0]) == "(allow a b (mach_port (send)))"
    assert db.rules[0].line == 2
    assert compile_policy([("k.cil", db.text)]).rules[0][:5] == db.rules[0][:5]


def test_k12_no_end_of_line_joins_files() -> None:
    db = compile_policy([("one", "(type a) ; no end"), ("two", "(allow a a (service (list)))")])
    assert compile_policy([("both", db.text)]).rules[0][:5] == db.rules[0][:5]


@pytest.mark.parametrize(
    "numbers",
    ["range 9 3", "range 0 4294967295", "range 0 4294967296", "range 0 " + "9" * 1000,
     "range -1 3", "65536", "0x10000", "1e3", "range 1", "range 1 2 3", "0b11", "٣"],
)  # fmt: skip
def test_k13_ranges_of_numbers(numbers: str) -> None:
    text = f"(class mi_x (r ioctl))(allowx a b (ioctl mi_x ({numbers})))"
    assert "expected" in str(refused(SMALL + text))


def test_k13_ranges_of_levels() -> None:
    levels = (
        "(sensitivity s0)(sensitivity s1)(sensitivityorder (s0 s1))(category c0)(category c1)"
        "(categoryorder (c0 c1))(sensitivitycategory s1 (all))"
    )
    assert "dominates" in str(refused(levels + "(levelrange r ((s1) (s0)))"))
    assert "not before" in str(refused(levels + "(level l (s1 (range c1 c0)))"))
    assert "categories of s0" in str(refused(levels + "(level l (s0 (all)))"))


# ---- files ----


@pytest.mark.parametrize("word", [b"\x8c\xff\x7c\xf9", b"\x8d\xff\x7c\xf9", b"\xf9\x7c\xff\x8c"])
def test_k14_compiled_policies(tmp_path: Path, word: bytes) -> None:
    path = tmp_path / "policy.33"
    path.write_bytes(word + b"\x08\0\0\0SE Linux\x21\0\0\0")
    with pytest.raises(PolicyError) as caught:
        compile_policy(read_files([path]))
    assert re.search("compiled policy|found the byte 0x", str(caught.value))


def test_k15_a_policy_that_allows_nothing_locks_nobody_out() -> None:
    """The embedding program is no subject: it replaces a policy that denies everything."""
    strict = TypeEnforcement.from_text("(user u)(role r)(type t)(userrole u r)(roletype r t)")
    open_ = TypeEnforcement.from_text(
        "(user u)(role r)(type t)(userrole u r)(roletype r t)(typeattribute k)"
        "(typeattributeset k (all))" + "".join(
            f"(allow k k ({name} (all)))" for name in ("mach_port", "mach_task", "service")
        )
    )  # fmt: skip
    with Kernel(policies=[strict]) as kernel:
        task = kernel.create_task("task", label="te/u:r:t")
        inbox = task.allocate_port()
        with pytest.raises(AccessDenied):
            inbox.make_send(task).send(b"x", timeout=0)
        kernel.policies.replace("te", open_)
        inbox.make_send(task).send(b"x", timeout=0)
        assert inbox.receive(timeout=0).body == b"x"


def test_k16_links_that_leave_the_root(tmp_path: Path) -> None:
    root, secret = tmp_path / "policies", tmp_path / "secret"
    root.mkdir()
    secret.write_text("(type hidden_name)")
    (root / "link").symlink_to(secret)
    (root / "directory").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    for path in (root / "link", root / "directory" / "secret", root / "loop"):
        with pytest.raises(PolicyError) as caught:
            read_files([path], root=root)
        assert "hidden_name" not in str(caught.value)


def test_k16_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull), Path("/dev/zero")):
        for read in (lambda path: read_files([path]), Rules.from_file):
            with pytest.raises(PolicyError, match="expected a regular file"):
                read(path)


def test_k16_links_in_the_names_of_rules(tmp_path: Path) -> None:
    for name, target in {"k.rules": "/dev/zero", "loop": "loop", "nowhere": "absent"}.items():
        (tmp_path / name).symlink_to(target)
        with pytest.raises(PolicyError, match=r"regular file|symbolic links|No such file"):
            Rules.from_file(tmp_path / name)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PolicyError, match=r"Budget\.bytes"):
        Rules.from_file(large)


def test_k16_the_commands_wait_for_no_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.rules")
    (tmp_path / "zero.rules").symlink_to("/dev/zero")
    trace = Path(pympi.__file__).parent / "data" / "demo.trace"
    for path in (tmp_path / "pipe.rules", tmp_path / "zero.rules"):
        for words in (
            ["policy", "check", path],
            ["policy", "explain", "--policy", path, "a", "b", "mach_port", "send"],
            ["replay", "--policy", path, trace],
        ):
            assert main([str(word) for word in words]) == 2
            assert "expected a regular file" in "".join(capsys.readouterr())


# ---- all of it ----


def test_changed_texts_end_in_a_policy_or_a_policy_error() -> None:
    """Words moved, lost and doubled in a text that has nearly every statement."""
    sample = (
        SMALL + "(typeattribute k)(typeattributeset k (a b))(typealias l)(typealiasactual l a)"
        "(class c (p ioctl))(common d (e))(classcommon c d)(classorder (c))(classmap m (x))"
        "(classmapping m x (c (p)))(classpermission s)(classpermissionset s (m (all)))(allow a b s)"
        "(user u)(role r)(userrole u r)(roletype r k)(roleattribute ra)(roleattributeset ra (r))"
        "(mls true)(sensitivity s0)(sensitivityorder (s0))(category c0)(category c1)"
        "(categoryorder (c0 c1))(sensitivitycategory s0 (range c0 c1))(categoryset cs (c0))"
        "(level v (s0 cs))(levelrange w ((s0) v))(userlevel u (s0))(userrange u w)(boolean o true)"
        "(context x (u r a w))(sid z)(sidcontext z x)(permissionx y (ioctl c (1 (range 2 3))))"
        "(allowx a self y)(booleanif (and o (not o)) (true (allow a k (c (p)))))(typepermissive b)"
        "(typetransition a k c b)(constrain (c (p)) (or (eq t1 (a k)) (eq u1 u2)))"
        "(mlsconstrain (c (p)) (domby l1 l2))(block n (type i))(in n (allow i a (c (p))))"
        "(neverallow b a (c (p)))(expandtypeattribute (k) true)(handleunknown allow)"
    )
    compiled(sample)
    rng = random.Random(20)
    words = re.findall(r"[()]|[^\s()]+", sample)
    vocabulary = [*set(words), *STATEMENTS, "self", "all", "range", '"q"', ".", "n.", ".a", "0x1"]
    accepted = sum(ends(" ".join(changed(rng, words, vocabulary))) for _ in range(2000))
    assert 0 < accepted < 2000


def changed(rng: random.Random, words: list[str], vocabulary: list[str]) -> list[str]:
    """Return words of which some were replaced, taken out, or put in."""
    words = list(words)
    for _ in range(rng.randint(1, 3)):
        at, how = rng.randrange(len(words)), rng.random()
        words[at : at + (how > 0.3)] = [rng.choice(vocabulary)] * (how < 0.8)
    return words


def ends(text: str) -> bool:
    """Whether a text is a policy; if not, the error says where."""
    try:
        compiled(text)
    except PolicyError as error:
        place = (error.line, error.column)
    else:
        return True
    assert all(place), text
    return False
