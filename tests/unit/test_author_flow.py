# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.flow: the ways that rules leave to information, and no other."""

from __future__ import annotations

from collections import deque
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi.enums import CLASSES, hooks
from pympi.errors import PolicyError
from pympi.policy import MLS, Biba
from pympi.policy.author.flow import METHOD, SENSES, FlowGraph, sense
from pympi.policy.cil import PolicyDatabase, compile_policy
from pympi.policy.cil.policydb import SELF

TYPES = [f"t{n}" for n in range(6)]
SETS = ["x", "y"]


def compiled(text: str) -> PolicyDatabase:
    return compile_policy([("f.cil", text)])


@pytest.fixture(scope="module")
def desktop() -> PolicyDatabase:
    return compiled((resources.files("pympi") / "data" / "desktop.cil").read_text())


# ---- the map of permissions ----


def test_every_hook_has_a_sense_and_nothing_else_has() -> None:
    assert {(c, p) for c, names in SENSES.items() for p in names} == {
        (hook.class_name, hook.permission) for hook in hooks()
    }


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: f"{hook.class_name}-{hook.permission}")
def test_weight_says_whether_anything_flows(hook: object) -> None:
    direction, weight = sense(hook.class_name, hook.permission)  # type: ignore[attr-defined]
    assert direction in "rwbn"
    assert (weight == 0) is (direction == "n")
    assert weight <= 10


@pytest.mark.parametrize("module", [MLS(), Biba()], ids=lambda module: module.name)
def test_levels_agree_on_what_reads_and_writes(module: MLS | Biba) -> None:
    expected = {"read": "r", "write": "w", "both": "b"}
    said = [
        (hook.class_name, hook.permission, module.relation(hook.class_name, hook.permission).word)
        for hook in hooks()
    ]
    asked = [(c, p, expected[word]) for c, p, word in said if word in expected]
    assert len(asked) > 15
    assert [(c, p, sense(c, p).direction) for c, p, _ in asked] == asked


def test_methods_write_and_foreign_classes_do_nothing() -> None:
    assert sense("mi_printing", "print_page") == METHOD
    assert METHOD.direction == "w"
    assert sense("file", "read").direction == "n"
    assert sense("mach_port", "no_such").direction == "n"


# ---- paths ----


def test_path_through_a_port_with_the_rules_of_each_step(desktop: PolicyDatabase) -> None:
    (path,) = FlowGraph(desktop).paths("editor_t", "printd_t")
    assert [(step.source, step.target) for step in path] == [
        ("editor_t", "spool_t"),
        ("spool_t", "printd_t"),
    ]
    sends, calls = path[0].rules
    assert (sends[1], sends[2]) == (("send", "carry_rights", "carry_memory"), False)
    assert (calls[1], calls[2]) == (("print_page",), False)
    ((_, names, reads),) = path[1].rules
    assert (names, reads) == (("use_recv",), True)


def test_class_and_weight_choose_rules(desktop: PolicyDatabase) -> None:
    calls = FlowGraph(desktop, classes=["mi_printing"])
    assert calls.distances("editor_t").keys() == {
        desktop.type(name).number for name in ("editor_t", "spool_t")
    }
    assert FlowGraph(desktop).paths("printd_t", "courier_t")[0][-1].source == "editor_t"
    assert FlowGraph(desktop, weight=10).paths("printd_t", "courier_t") == []


def test_length_and_number_of_paths_are_bounded() -> None:
    middle = [f"m{n}" for n in range(8)]
    text = "".join(f"(type {name})" for name in ["a", "b", *middle])
    text += "".join(
        f"(allow a {m} (mach_port (send)))(allow {m} b (mach_port (send)))" for m in middle
    )
    graph = FlowGraph(compiled(text))
    assert graph.paths("a", "b", most=1) == []
    assert len(graph.paths("a", "b", most=2, limit=100)) == 8
    assert len({path[0].target for path in graph.paths("a", "b", limit=3)}) == 3


def test_only_the_shortest_paths_are_found() -> None:
    text = """(type a)(type b)(type c)
        (allow a c (mach_port (send)))
        (allow a b (mach_port (send)))(allow b c (mach_port (send)))"""
    (path,) = FlowGraph(compiled(text)).paths("a", "c")
    assert len(path) == 1


def test_booleans_decide() -> None:
    text = """(type a)(type b)(boolean open false)
        (booleanif open (true (allow a b (mach_port (send)))))"""
    db = compiled(text)
    assert FlowGraph(db).paths("a", "b") == []
    assert FlowGraph(db, booleans={"open": True}).paths("a", "b")


@pytest.mark.parametrize(
    "rule",
    [
        "(dontaudit a b (mach_port (send)))",
        "(auditallow a b (mach_port (send)))",
        "(allow a self (mach_port (send)))",
        "(allow a b (mach_port (make_send copy_send hold_send recv)))",
        "(allow b a (mach_port (send)))",
    ],
)
def test_rules_that_move_nothing_this_way(rule: str) -> None:
    assert FlowGraph(compiled(f"(type a)(type b){rule}")).paths("a", "b") == []


def test_no_path_to_itself(desktop: PolicyDatabase) -> None:
    assert FlowGraph(desktop).paths("editor_t", "editor_t") == []


def test_unknown_names(desktop: PolicyDatabase) -> None:
    with pytest.raises(PolicyError, match="no class 'mach_prt'; did you mean mach_port"):
        FlowGraph(desktop, classes=["mach_prt"])
    with pytest.raises(KeyError):
        FlowGraph(desktop).paths("editor_t", "nobody_t")


# ---- against the definition ----

NAMES = st.sampled_from([*TYPES, *SETS])
RULES = st.lists(
    st.tuples(
        NAMES,
        st.one_of(NAMES, st.just("self")),
        st.sampled_from(["send", "use_recv", "hold_recv", "copy_send", "get_attributes"]),
    ),
    max_size=12,
)
MEMBERS = st.lists(st.sampled_from(TYPES), unique=True)


def neighbours(db: PolicyDatabase) -> dict[str, set[str]]:
    """By definition: for each pair of types and each rule, whether it moves something."""
    found: dict[str, set[str]] = {name: set() for name in TYPES}
    for rule in db.rules:
        for s in TYPES:
            for t in TYPES:
                sources, targets = db.types[rule.source].members, 0
                if rule.target == SELF:
                    targets = 1 << db.type(s).number
                else:
                    targets = db.types[rule.target].members
                if not (sources >> db.type(s).number & 1 and targets >> db.type(t).number & 1):
                    continue
                for name in db.classes[rule.tclass].names(rule.permissions):
                    direction, weight = sense(db.classes[rule.tclass].name, name)
                    if s != t and weight >= 3:
                        found[s].update([t] if direction in "wb" else [])
                        found[t].update([s] if direction in "rb" else [])
    return found


@given(RULES, MEMBERS, MEMBERS)
def test_distances_are_those_of_the_definition(
    rules: list[tuple[str, str, str]], x: list[str], y: list[str]
) -> None:
    text = "".join(f"(type {name})" for name in TYPES)
    for name, members in zip(SETS, (x, y), strict=True):
        text += f"(typeattribute {name})"
        text += f"(typeattributeset {name} ({' '.join(members)}))" if members else ""
    text += "".join(f"(allow {s} {t} (mach_port ({p})))" for s, t, p in rules)
    db = compiled(text)
    graph, links = FlowGraph(db), neighbours(db)
    expected, queue = {TYPES[0]: 0}, deque([TYPES[0]])
    while queue:
        name = queue.popleft()
        for other in links[name] - expected.keys():
            expected[other] = expected[name] + 1
            queue.append(other)
    found = {db.types[n].name: steps for n, steps in graph.distances(TYPES[0]).items()}
    assert found == expected
    for end in TYPES[1:]:
        for path in graph.paths(TYPES[0], end):
            assert len(path) == expected[end]
            assert all(step.target in links[step.source] and step.rules for step in path)
        assert bool(graph.paths(TYPES[0], end)) is (end in expected)


def test_classes_of_the_kernel_are_all_there() -> None:
    assert set(SENSES) == set(CLASSES)
