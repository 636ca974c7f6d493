# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.lint: each check finds what it is for, and nothing where all is well."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi.policy import Rules
from pympi.policy.author import covering
from pympi.policy.author import lint as module
from pympi.policy.author.diff import diff
from pympi.policy.author.lint import CHECKS, Finding, lint, lint_rules
from pympi.policy.cil import PolicyDatabase, compile_policy

BASE = """(user u) (role r) (userrole u r) (type a) (type b) (type c)
(roletype r a) (roletype r b) (roletype r c)
(allow a b (mach_port (send))) (allow b c (mach_port (send)))
"""


def compiled(text: str) -> PolicyDatabase:
    return compile_policy([("l.cil", text)])


def found(text: str) -> list[tuple[str, int]]:
    """Check and line of what is found after BASE, which is without findings; lines from 1."""
    return [(each.id, each.line - 3) for each in lint(compiled(BASE + text))]


def test_nothing_where_all_is_well() -> None:
    assert found("") == []


# what is added to BASE -> what is found in its lines
CASES: list[tuple[str, list[tuple[str, int]]]] = [
    # grants-everything
    (
        (
            "(typeattribute all_t)(typeattributeset all_t (all))\n"
            "(allow all_t all_t (mach_task (all)))"
        ),
        [("grants-everything", 2)],
    ),
    (
        (
            "(typeattribute all_t)(typeattributeset all_t (a b c))\n"
            "(allow all_t all_t (kernel (inspect)))"
        ),
        [("grants-everything", 2)],
    ),
    (
        "(typeattribute all_t)(typeattributeset all_t (all))\n(allow all_t self (mach_task (all)))",
        [],
    ),
    ("(typeattribute all_t)(typeattributeset all_t (all))\n(allow a all_t (mach_task (all)))", []),
    # empty-rule, empty-neverallow
    ("(typeattribute none)\n(allow none a (mach_port (recv)))", [("empty-rule", 2)]),
    ("(typeattribute none)\n(allow a none (mach_port (recv)))", [("empty-rule", 2)]),
    ("(typeattribute none)\n(dontaudit a none (mach_port (recv)))", [("empty-rule", 2)]),
    ("(typeattribute none)\n(typetransition a none mach_port b)", [("empty-rule", 2)]),
    ("(typeattribute none)\n(neverallow a none (mach_port (recv)))", [("empty-neverallow", 2)]),
    ("(neverallow a c (mach_port (recv)))", []),
    # dominated-rule
    ("(allow a b (mach_port (send)))", [("dominated-rule", 1)]),
    ("(allow a b (mach_port (send recv)))", [("dominated-rule", 0)]),
    ("(allow a b (mach_port (recv)))", []),
    ("(allow a b (mach_task (observe)))", []),
    ("(auditallow a b (mach_port (send)))", []),
    (
        "(typeattribute ab)(typeattributeset ab (a b))\n(allow ab b (mach_port (send)))",
        [("dominated-rule", 0)],
    ),
    (
        "(typeattribute ab)(typeattributeset ab (a b))\n(allow a ab (mach_port (send)))",
        [("dominated-rule", 0)],
    ),
    ("(typeattribute ac)(typeattributeset ac (a c))\n(allow ac a (mach_port (send)))", []),
    ("(allow c self (mach_port (recv)))\n(allow c c (mach_port (recv)))", [("dominated-rule", 2)]),
    ("(allow c c (mach_port (recv)))\n(allow c self (mach_port (recv)))", [("dominated-rule", 2)]),
    (
        (
            "(typeattribute ab)(typeattributeset ab (a b))\n(allow ab self (mach_port (recv)))\n"
            "(allow a a (mach_port (recv)))"
        ),
        [("dominated-rule", 3)],
    ),
    (
        (
            "(typeattribute ab)(typeattributeset ab (a b))\n(allow ab self (mach_port (recv)))\n"
            "(allow ab ab (mach_port (recv)))"
        ),
        [("dominated-rule", 2)],
    ),
    (
        (
            "(allow c a (mach_port (send)))\n(allow c a (mach_port (recv)))\n"
            "(allow c a (mach_port (send recv)))"
        ),
        [("dominated-rule", 3)],
    ),
    (
        "(boolean x true)\n(booleanif x (true (allow a b (mach_port (send)))))",
        [("dominated-rule", 2)],
    ),
    (
        (
            "(boolean x true)\n(booleanif x (true (allow a c (mach_port (send)))\n"
            "(allow a c (mach_port (send)))))"
        ),
        [("dominated-rule", 3)],
    ),
    (
        (
            "(boolean x true)\n(booleanif x (true (allow a c (mach_port (send)))) "
            "(false (allow a c (mach_port (send)))))"
        ),
        [],
    ),
    (
        (
            "(boolean x true)\n(booleanif x (true (allow a c (mach_port (send)))))\n"
            "(allow a c (mach_port (send)))"
        ),
        [("dominated-rule", 2)],
    ),
    # constant-condition
    (
        "(boolean x true)\n(booleanif (or x (not x)) (true (allow a c (mach_port (send)))))",
        [("constant-condition", 2)],
    ),
    (
        "(boolean x true)\n(booleanif (and x (not x)) (true (allow a c (mach_port (send)))))",
        [("constant-condition", 2)],
    ),
    (
        (
            "(boolean x true)(boolean y true)\n"
            "(booleanif (xor x y) (true (allow a c (mach_port (send)))))"
        ),
        [],
    ),
    # roleless-source
    (
        "(type d)\n(allow d a (mach_port (send)))\n(allow d b (mach_port (send)))",
        [("roleless-source", 2)],
    ),
    ("(type d)\n(role s)(roletype s d)\n(allow d a (mach_port (send)))", [("roleless-source", 3)]),
    ("(type d)\n(allow a d (mach_port (send)))", []),
    ("(allow kernel_t a (mach_port (send)))", []),
    # dead-type, dead-attribute
    ("(type d)", [("dead-type", 1)]),
    ("(type d)\n(neverallow a d (mach_port (recv)))", [("dead-type", 1)]),
    ("(type d)\n(typetransition a b mach_port d)", []),
    ("(type d)\n(typeattribute x)(typeattributeset x (d))\n(allow a x (mach_port (recv)))", []),
    ("(typeattribute x)\n(typeattributeset x (a)) ; x", [("dead-attribute", 1)]),
    ("(typeattribute x)\n(typeattributeset x (a))\n(roletype r x)", []),
    ("(typeattribute x)\n(typeattributeset x (a))\n(neverallow x c (mach_port (recv)))", []),
    ("(typeattribute x)\n(typeattributeset x (a))\n(constrain (mach_port (send)) (neq t1 x))", []),
    (
        (
            "(typeattribute x)(typeattributeset x (a))\n"
            "(typeattribute y)(typeattributeset y (not (x)))\n"
            "(allow y a (mach_port (recv)))"
        ),
        [("dead-type", -99)][:0],
    ),
    ("(block k (typeattribute x)\n(typeattributeset x (a)))", [("dead-attribute", 1)]),
    # permissive-type, empty-role
    ("(typepermissive a)", [("permissive-type", 1)]),
    (
        (
            "(typepermissive c)\n(typealias l)(typealiasactual l a)\n(typepermissive l)\n"
            "(typepermissive a)\n(block k (type d)\n (typepermissive d))(roletype r k.d)"
            "(allow k.d a (mach_port (send)))"
        ),
        [("permissive-type", 1), ("permissive-type", 3), ("permissive-type", 6)],
    ),
    ("(role idle)", [("empty-role", 1)]),
    # constraints
    ("(constrain (mach_port (send)) (eq u1 u2))", []),
    ("(constrain (mach_port (send)) (or (eq u1 u2) (not (eq u1 u))))", []),
    (
        "(typeattribute x)(typeattributeset x (all))\n(constrain (mach_port (send)) (eq t1 x))",
        [("constant-constraint", 2)],
    ),
    (
        "(typeattribute x)(typeattributeset x (all))\n(constrain (mach_port (send)) (neq t1 x))",
        [("constant-constraint", 2)],
    ),
    (
        (
            "(typeattribute x)(typeattributeset x (all))\n"
            "(constrain (mach_port (send)) (or (eq u1 u2) (eq t2 x)))"
        ),
        [("constant-constraint", 2)],
    ),
    (
        (
            "(typeattribute x)(typeattributeset x (all))\n"
            "(constrain (mach_port (send)) (and (eq u1 u2) (eq t2 x)))"
        ),
        [],
    ),
    ("(constrain (mach_port (recv)) (eq u1 u2))", [("idle-constraint", 1)]),
    ("(mlsconstrain (mach_port (recv)) (eq l1 l2))", []),
    # idle-dontaudit, idle-auditallow
    ("(dontaudit a b (mach_port (send)))", [("idle-dontaudit", 1)]),
    ("(dontaudit a b (mach_port (send recv)))", []),
    ("(dontaudit a b (mach_port (send)))\n(constrain (mach_port (send)) (eq u1 u2))", []),
    (
        (
            "(boolean x true)\n(booleanif x (true (allow a c (mach_port (send)))))\n"
            "(dontaudit a c (mach_port (send)))"
        ),
        [],
    ),
    ("(auditallow a c (mach_port (send)))", [("idle-auditallow", 1)]),
    ("(auditallow a b (mach_port (recv)))", [("idle-auditallow", 1)]),
    ("(typeattribute x)(typeattributeset x (b c))\n(auditallow a x (mach_port (send)))", []),
    # allowx
    ("(class mi_x (one ioctl))\n(allow a b (mi_x (one ioctl)))\n(allowx a b (ioctl mi_x (0)))", []),
    (
        "(class mi_x (one ioctl))\n(allow a b (mi_x (one)))\n(allowx a b (ioctl mi_x (0)))",
        [("allowx-without-ioctl", 3)],
    ),
    (
        "(class mi_x (one ioctl))\n(allow a c (mi_x (one ioctl)))\n(allowx a b (ioctl mi_x (0)))",
        [("allowx-without-allow", 3)],
    ),
    (
        "(class mi_x (one ioctl))\n(allow a b (mi_x (ioctl)))\n(allowx a b (ioctl mi_x (0)))",
        [("allowx-without-allow", 3)],
    ),
    (
        (
            "(class mi_x (one ioctl))\n(allow a b (mi_x (one ioctl)))\n"
            "(allowx a b (ioctl mi_x (1200)))"
        ),
        [("allowx-elsewhere", 3)],
    ),
    (
        "(class file (ioctl))\n(allow a b (file (ioctl)))\n(allowx a b (ioctl file (0)))",
        [("allowx-elsewhere", 3)],
    ),
    (
        (
            "(typeattribute none)(class mi_x (one ioctl))\n(allow a b (mi_x (one)))\n"
            "(allowx a none (ioctl mi_x (0)))"
        ),
        [("empty-rule", 3)],
    ),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_check(text: str, expected: list[tuple[str, int]]) -> None:
    assert found(text) == expected


def test_every_check_has_a_case() -> None:
    cases = {check for _, expected in CASES for check, _ in expected}
    assert cases == CHECKS.keys() - {"unfinished"}


def test_levels_in_constraints() -> None:
    single = "(mls true)(mlsconstrain (mach_port (send)) (domby l1 l2))"
    assert next(
        each.id for each in lint(compiled(single + "(type a)(allow a a (mach_port (send)))"))
    ) == ("constant-constraint")


def test_constant_conditions_say_what_is_lost() -> None:
    text = "(boolean x true)\n(booleanif (or x (not x)) (true (allow a c (mach_port (send)))) "
    (first,) = lint(compiled(BASE + text + "(false (allow b a (mach_port (send)))))"))
    assert first.message == "(or x (not x)) is always true: 1 rule can never be in force"


def test_conditions_of_too_many_booleans_are_left_alone() -> None:
    names = [f"x{n}" for n in range(module.MOST_BOOLEANS + 1)]
    text = "".join(f"(boolean {name} true)" for name in names)
    expression = "(or x0 (not x0))"
    for name in names[1:]:
        expression = f"(or {expression} {name})"
    rule = "(true (allow a c (mach_port (send))))"
    assert found(f"{text}\n(booleanif {expression} {rule})") == []


def test_search_stops_in_time_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "COMPARISONS", 1)
    text = "\n".join(f"(allow a c (mach_port ({name})))" for name in ("send", "recv", "use_recv"))
    assert [each for each in found(text) if each[0] == "unfinished"] == [("unfinished", 2)]
    text += "".join(f"\n(dontaudit a c (mach_port ({name})))" for name in ("send", "recv", "send"))
    findings = [each for each in lint(compiled(BASE + text)) if each.id == "unfinished"]
    assert {tuple(each.message.split()[:3]) for each in findings} == {
        ("each", "allow", "before"),
        ("each", "dontaudit", "before"),
        ("each", "dontaudit", "from"),
    }


def test_the_sample_is_clean_but_for_what_it_shows() -> None:
    text = (resources.files("pympi") / "data" / "desktop.cil").read_text()
    assert [(each.id, each.message) for each in lint(compiled(text))] == [
        ("permissive-type", "type draft_t is permissive: nothing is refused")
    ]


def test_a_finding_as_text() -> None:
    (finding,) = lint(compiled(BASE + " (typepermissive a)"))
    assert str(finding) == (
        "l.cil:4:2: permissive-type: type a is permissive: nothing is refused; "
        "learn its rules, then remove (typepermissive a)"
    )


# ---- what is dominated may go ----

NAMES = st.sampled_from(["a", "b", "c", "x", "y"])
TARGETS = st.sampled_from(["a", "b", "c", "x", "y", "self"])
WORDS = st.sampled_from(["send", "recv", "send recv", "use_recv"])
KINDS = st.sampled_from(["allow", "allow", "dontaudit", "auditallow"])
PLACES = st.sampled_from(["", "", "true", "false"])
RULES = st.lists(st.tuples(KINDS, NAMES, TARGETS, WORDS, PLACES), max_size=14)
MEMBERS = st.lists(st.sampled_from(["a", "b", "c"]), unique=True)


def policy(rules: list[tuple[str, ...]], sets: dict[str, list[str]]) -> str:
    text = "(type a)(type b)(type c)(boolean p true)"
    for name, members in sets.items():
        text += f"(typeattribute {name})"
        text += f"(typeattributeset {name} ({' '.join(members)}))" if members else ""
    for kind, source, target, words, place in rules:
        rule = f"({kind} {source} {target} (mach_port ({words})))"
        text += f"\n(booleanif p ({place} {rule}))" if place else f"\n{rule}"
    return text


@given(RULES, MEMBERS, MEMBERS)
def test_dominated_and_empty_rules_can_be_removed(
    rules: list[tuple[str, ...]], x: list[str], y: list[str]
) -> None:
    sets = {"x": x, "y": y}
    db = compiled(policy(rules, sets))
    ids = ("dominated-rule", "empty-rule")
    gone = {each.line - 2 for each in lint(db) if each.id in ids}
    kept = [rule for number, rule in enumerate(rules) if number not in gone]
    smaller = compiled(policy(kept, sets))
    assert not diff(db, smaller)
    assert not [each for each in lint(smaller) if each.id in ids]


# ---- rules ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("allow a b mach_port { send };", []),
        ("allow * * * { * };", [("grants-everything", 1)]),
        ("allow * * mach_port { * };", [("grants-everything", 1)]),
        ("allow * * mach_port { send };", []),
        (
            "allow a b mach_port { send recv };\nallow a b mach_port { send };",
            [("dominated-rule", 2)],
        ),
        ("allow * b mach_port { * };\nallow a b mach_port { send };", [("dominated-rule", 2)]),
        ("allow a b mach_port { send };\nallow * b mach_port { send };", []),
    ],
)
def test_rules(text: str, expected: list[tuple[str, int]]) -> None:
    findings = lint_rules(Rules.from_text(text), "x.rules")
    assert all(isinstance(each, Finding) and each.file == "x.rules" for each in findings)
    assert [(each.id, each.line) for each in findings] == expected


def test_every_check_is_in_the_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "author.md").read_text()
    table = page[page.index("| id | what it means |") :]
    rows = [f"| `{name}` | {meaning} |" for name, meaning in CHECKS.items()]
    assert re.findall(r"^\| `[a-z-]+` \| .* \|$", table, re.MULTILINE) == rows


def test_rules_that_several_others_say_together() -> None:
    text = "allow a b mach_port { send };\nallow * b mach_port { recv };\n"
    rule = "allow a b mach_port { recv send };"
    findings = lint_rules(Rules.from_text(text + rule), "x.rules")
    expected = f"x.rules:3:1: dominated-rule: lines 1, 2 say what {rule} does; remove it"
    assert [str(each) for each in findings] == [expected]


def test_very_many_rules_are_looked_at_once_each() -> None:
    rules = (f"allow a{n} b mach_port {{ send }};" for n in range(50_000))
    findings = lint_rules(Rules.from_text("\n".join([*rules, "allow a7 b * { send };"])), "x.rules")
    assert findings == []
