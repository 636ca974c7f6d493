# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.diff: what two policies decide differently, and nothing else."""

from __future__ import annotations

from importlib import resources
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi.policy.author import diff as module
from pympi.policy.author.diff import diff
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.evaluate import Evaluator
from pympi.policy.cil.policydb import Context, Level, Range

BASE = """(type a)(type b)(type c)(typeattribute ab)(typeattributeset ab (a b))
(boolean p true)(boolean q false)
(class mi_x (one two ioctl))
"""


def compiled(text: str) -> PolicyDatabase:
    return compile_policy([("d.cil", text)])


def changes(old: str, new: str) -> list[str]:
    found = diff(compiled(BASE + old), compiled(BASE + new))
    return [str(each) for each in (*found.items, *found.accesses)]


SEND = "(mach_port (send))"

EQUAL = [
    (
        "(allow a c (mach_port (send recv)))",
        "(allow a c (mach_port (recv)))(allow a c (mach_port (send)))",
    ),
    (f"(allow ab c {SEND})", f"(allow b c {SEND})(allow a c {SEND})"),
    (f"(allow ab ab {SEND})", f"(allow a ab {SEND})(allow b ab {SEND})(allow ab self {SEND})"),
    (f"(allow a self {SEND})", f"(allow a a {SEND})"),
    (f"(allow ab self {SEND})", f"(allow a a {SEND})(allow b b {SEND})"),
    (f"(booleanif p (true (allow a c {SEND})))", f"(booleanif (not p) (false (allow a c {SEND})))"),
    (f"(booleanif p (true (allow a c {SEND}))(false (allow a c {SEND})))", f"(allow a c {SEND})"),
    (
        f"(booleanif (or p q) (true (allow a c {SEND})))",
        f"(booleanif p (true (allow a c {SEND})))(booleanif q (true (allow a c {SEND})))",
    ),
    (
        f"(booleanif (or p q) (true (allow a c {SEND})))",
        (
            f"(booleanif p (true (allow a c {SEND})))"
            f"(booleanif (and q (not p)) (true (allow a c {SEND})))"
        ),
    ),
    (
        f"(booleanif (xor p q) (true (allow a c {SEND})))",
        f"(booleanif (eq p q) (false (allow a c {SEND})))",
    ),
    (
        f"(booleanif (and p (or q (not q))) (true (allow a c {SEND})))",
        f"(booleanif p (true (allow a c {SEND})))",
    ),
    (f"(allow a c {SEND})(booleanif p (true (allow a c {SEND})))", f"(allow a c {SEND})"),
    (f"(booleanif (and p (not p)) (true (allow a c {SEND})))", ""),
    (
        "(typetransition ab c mach_port a)",
        "(typetransition a c mach_port a)(typetransition b c mach_port a)",
    ),
    (
        "(allowx a c (ioctl mi_x ((range 0 1))))",
        "(allowx a c (ioctl mi_x (0)))(allowx a c (ioctl mi_x (1)))",
    ),
    (
        "(constrain (mach_port (send recv)) (eq u1 u2))",
        "(constrain (mach_port (recv)) (eq u1 u2))(constrain (mach_port (send)) (eq u1 u2))",
    ),
    (
        "(constrain (mach_port (send)) (and (eq t1 ab) (eq u1 u2)))",
        "(constrain (mach_port (send)) (and (eq u1 u2) (eq t1 (b a))))",
    ),
    (f"(neverallow a c {SEND})", ""),
    (f"(typeattribute none)(allow none a {SEND})", ""),
    ("(role r)(role s)", "(role s)(role r)"),
    ("(type d)(type e)", "(type e)(type d)"),
]


@pytest.mark.parametrize(("old", "new"), EQUAL)
def test_equal_in_meaning(old: str, new: str) -> None:
    assert changes(old, new) == []
    assert changes(new, old) == []


DIFFERENT = [
    ("", f"(allow a c {SEND})", ["+ allow a c mach_port send"]),
    (f"(allow a c {SEND})", "", ["- allow a c mach_port send"]),
    ("", "(allow ab c (mach_port (send recv)))", ["+ allow ab c mach_port { recv send }"]),
    ("", f"(allow ab self {SEND})", ["+ allow ab self mach_port send"]),
    ("", f"(allow a ab {SEND})", ["+ allow a ab mach_port send"]),
    (f"(allow ab c {SEND})", f"(allow a c {SEND})", ["- allow b c mach_port send"]),
    ("", f"(allow a ab {SEND})(allow a c {SEND})", ["+ allow a { a b c } mach_port send"]),
    (
        f"(allow a c {SEND})",
        f"(dontaudit a c {SEND})",
        ["- allow a c mach_port send", "+ dontaudit a c mach_port send"],
    ),
    (
        f"(allow a c {SEND})",
        f"(booleanif p (true (allow a c {SEND})))",
        ["- allow a c mach_port send", "+ allow a c mach_port send  if p is true"],
    ),
    (
        f"(booleanif p (true (allow a c {SEND})))",
        f"(booleanif p (false (allow a c {SEND})))",
        ["- allow a c mach_port send  if p is true", "+ allow a c mach_port send  if p is false"],
    ),
    (
        "",
        f"(booleanif (xor p q) (true (allow a c {SEND})))",
        ["+ allow a c mach_port send  if p is false and q is true or p is true and q is false"],
    ),
    (
        "(typetransition a c mach_port a)",
        "(typetransition a c mach_port b)",
        ["- typetransition a c mach_port a", "+ typetransition a c mach_port b"],
    ),
    (
        "(allowx a c (ioctl mi_x (0)))",
        "(allowx a c (ioctl mi_x (1)))",
        ["- allowx a c mi_x one", "+ allowx a c mi_x two"],
    ),
    ("", "(type d)", ["+ type d"]),
    ("(typepermissive a)", "", ["- permissive a"]),
    ("(boolean r true)", "(boolean r false)", ["- boolean r, true", "+ boolean r, false"]),
    ("(handleunknown allow)", "", ["- handleunknown allow", "+ handleunknown deny"]),
    (
        "",
        "(constrain (mach_port (send)) (eq t1 ab))",
        ["+ constraint mach_port send: (eq t1 (a b))"],
    ),
    ("(role r)", "(role r)(roletype r ab)", ["- role r: ", "+ role r: a b"]),
    ("(user u)(role r)(userrole u r)", "(user u)(role r)", ["- user u: r", "+ user u: "]),
    (
        "",
        "(roletype object_r a)(sid x)(sidcontext x (system_u object_r a ((s0) (s0))))",
        ["+ initial SID x: system_u:object_r:a"],
    ),
    ("", "(class mi_y (three))", ["+ class mi_y: three"]),
]


@pytest.mark.parametrize(("old", "new", "expected"), DIFFERENT)
def test_different_in_meaning(old: str, new: str, expected: list[str]) -> None:
    assert changes(old, new) == expected


def test_names_of_attributes_make_no_difference() -> None:
    text = BASE + f"(allow ab c {SEND})"
    assert not diff(compiled(text), compiled(text.replace("ab", "ba")))


def test_levels() -> None:
    text = """(mls true)(sensitivity s0)(sensitivity s1)(sensitivityorder (s0 s1))
    (category c0)(categoryorder (c0))(sensitivitycategory s1 (c0))
    (user u)(userlevel u (s0))(userrange u ((s0) (s1 (c0))))"""
    changed = text.replace("(userlevel u (s0))", "(userlevel u (s1))")
    found = diff(compiled(text), compiled(changed))
    assert [str(each) for each in found.items] == [
        "- user u: , level s0, range s0 to s1 (c0)",
        "+ user u: , level s1, range s0 to s1 (c0)",
    ]
    lower = text.replace(
        "(sensitivitycategory s1 (c0))",
        "(sensitivitycategory s1 (c0))(sensitivitycategory s0 (c0))",
    )
    assert [each.text for each in diff(compiled(text), compiled(lower)).items] == [
        "s0, rank 0",
        "s0, rank 0, with c0",
    ]


def test_pairs_are_counted() -> None:
    found = diff(
        compiled(BASE),
        compiled(BASE + f"(allow ab ab {SEND})(allow ab self (mach_task (observe)))"),
    )
    assert [(each.tclass, each.pairs) for each in found.accesses] == [
        ("mach_port", 4),
        ("mach_task", 2),
    ]


def test_conditions_of_too_many_booleans_are_compared_as_written() -> None:
    names = [f"x{n}" for n in range(module.MOST_BOOLEANS + 1)]
    text = "".join(f"(boolean {name} true)" for name in names)
    expression = names[0]
    for name in names[1:]:
        expression = f"(and {expression} {name})"
    policy = f"{BASE}{text}(booleanif {expression} (true (allow a c {SEND})))"
    assert not diff(compiled(policy), compiled(policy))
    (gone,) = diff(compiled(policy), compiled(BASE + text)).accesses
    assert gone.condition == f"{expression} is true"


def test_the_sample_is_as_itself_in_two_files() -> None:
    text = (resources.files("pympi") / "data" / "desktop.cil").read_text()
    half = text.index("; ---- messages")
    split = compile_policy([("two.cil", text[half:]), ("one.cil", text[:half])])
    assert not diff(compiled(text), split)


# ---- against the evaluator ----

TYPES, SETS, BOOLEANS = ["a", "b", "c"], ["x", "y"], ["p", "q"]
CONDITIONS = ["p", "q", "(not p)", "(or p q)", "(and p q)", "(xor p q)", "(eq p p)"]
RULES = st.lists(
    st.tuples(
        st.sampled_from(["allow", "allow", "dontaudit", "auditallow"]),
        st.sampled_from([*TYPES, *SETS]),
        st.sampled_from([*TYPES, *SETS, "self"]),
        st.sampled_from(["send", "recv", "send recv"]),
        st.sampled_from([None, None, *CONDITIONS]),
        st.sampled_from(["true", "false"]),
    ),
    max_size=7,
)
MEMBERS = st.lists(st.sampled_from(TYPES), unique=True)
POLICIES = st.tuples(RULES, MEMBERS, MEMBERS, st.permutations(TYPES))


def text_of(rules: list[tuple[str, ...]], x: list[str], y: list[str], order: list[str]) -> str:
    text = "".join(f"(type {name})" for name in order)
    text += "(boolean p true)(boolean q true)"
    for name, members in (("x", x), ("y", y)):
        text += f"(typeattribute {name})"
        text += f"(typeattributeset {name} ({' '.join(members)}))" if members else ""
    for kind, source, target, words, condition, branch in rules:
        rule = f"({kind} {source} {target} (mach_port ({words})))"
        text += f"(booleanif {condition} ({branch} {rule}))" if condition else rule
    return text


def decisions(db: PolicyDatabase) -> dict[tuple[object, ...], object]:
    """By definition: every decision in every state."""
    found: dict[tuple[object, ...], object] = {}
    tclass = db.tclass("mach_port").number
    low = Range(Level(0), Level(0))
    role = db.role("object_r").number
    for values in product((False, True), repeat=2):
        server = Evaluator(db, dict(zip(BOOLEANS, values, strict=True)))
        for source, target in product(TYPES, TYPES):
            pair = [Context(0, role, db.type(name).number, low) for name in (source, target)]
            found[values, source, target] = server.compute_av(*pair, tclass)
    return found


@given(POLICIES, POLICIES)
def test_equal_where_every_decision_is(one: tuple[list, ...], other: tuple[list, ...]) -> None:  # type: ignore[type-arg]
    old, new = compiled(text_of(*one)), compiled(text_of(*other))
    assert bool(diff(old, new)) is (decisions(old) != decisions(new))


@given(POLICIES, POLICIES)
def test_pairs_named_are_the_pairs_that_differ(
    one: tuple[list, ...], other: tuple[list, ...]
) -> None:  # type: ignore[type-arg]
    old, new = compiled(text_of(*one)), compiled(text_of(*other))
    before, after = decisions(old), decisions(new)
    expected = {key[1:] for key in before if before[key] != after[key]}
    sets = {name: set() for name in TYPES} | {  # type: ignore[var-annotated]
        name: {n for n in TYPES if db.type(name).members >> db.type(n).number & 1}
        for db in (old, new)
        for name in SETS
    }
    named: set[tuple[str, ...]] = set()
    for access in diff(old, new).accesses:
        if any(name in SETS for name in (*access.sources, *access.targets)):
            return  # the two policies may have other types in an attribute of one name
        for source in access.sources:
            targets = [source] if access.targets == ("self",) else access.targets
            named |= {(source, target) for target in targets}
    assert named == expected
    assert sets.keys() >= {name for pair in named for name in pair}
