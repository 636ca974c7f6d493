# SPDX-License-Identifier: BSD-2-Clause
"""CIL text to tuples, and back to lines and columns."""

import random

import pytest

from pympi import PolicyError
from pympi.policy.cil import compile_policy, reader
from pympi.policy.cil.budget import Budget
from pympi.policy.cil.policydb import Origin, PolicyDatabase
from pympi.policy.cil.reader import Node, Run, Sources


def read(text: str, **limits: int) -> list[Node]:
    """Return the statements of a text without their positions."""
    sources = Sources(Budget(**limits))
    number = sources.add("a.cil", text)
    return [strip(node) for node in sources.statements(number)]


def strip(node: Node) -> Node:
    return tuple(strip(each) if isinstance(each, tuple) else each for each in node[1:])


def refused(text: str, **limits: int) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        read(text, **limits)
    assert caught.value.file == "a.cil"
    return caught.value


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", []),
        ('; nothing (but) "this\n;; and é', []),
        ("(type a)", [("type", "a")]),
        ("(type a)(type b) ; both", [("type", "a"), ("type", "b")]),
        ("(a\n ( b\t(c)) ;x\n d)", [("a", ("b", ("c",)), "d")]),
        ("()", [()]),
        ('(a "b ;c)")', [("a", '"b ;c)"')]),
        ("(a)\r\n(b)\r\n", [("a",), ("b",)]),
        ("(a .b.c-d_e 0x1F)", [("a", ".b.c-d_e", "0x1F")]),
    ],
)
def test_reads(text: str, nodes: list[Node]) -> None:
    assert read(text) == nodes


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("(a", 1, 1, "expected ')', found the end of the text"),
        ("(a)\n  (b (c)", 2, 3, "expected ')', found the end of the text"),
        ("(a))", 1, 4, "nothing is open"),
        ("\n  type", 2, 3, "expected '(' and a statement, found 'type'"),
        ("(a)\n(b $c)", 2, 4, "found '$'"),
        ("(a b'c)", 1, 5, 'found "\'"'),
        ('(a "b)', 1, 4, "at the end of a string"),
        ("(a\x0cb)", 1, 3, "U+000C"),
        ("(a)\n(b\rc)", 2, 3, "U+000D"),
        ("(a\u00a0b)", 1, 3, "U+00A0"),
        ("; a\u202e b", 1, 4, "U+202E"),
        (";;* lmx 1 a.conf", 1, 1, "line mark"),
    ],
)
def test_refuses_with_place(text: str, line: int, column: int, words: str) -> None:
    error = refused(text)
    assert (error.line, error.column) == (line, column)
    assert words in str(error)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"bytes": 10}, "bytes"), ({"line": 10}, "line"), ({"tokens": 5}, "tokens"),
        ({"depth": 2}, "depth"), ({"identifier": 9}, "identifier"),
    ],
)  # fmt: skip
def test_budget(limits: dict[str, int], name: str) -> None:
    text = "(typeattributeset a (b (c)))"
    assert read(text)
    assert f"Budget.{name}" in str(refused(text, **limits))


def test_bytes_are_those_of_utf_8() -> None:
    text = "(a) ; \N{GREEK SMALL LETTER ALPHA}\n"
    assert read(text, bytes=9)
    assert "Budget.bytes" in str(refused(text, bytes=8))


def test_places_far_into_a_text() -> None:
    """A text is split into its lines in stretches."""
    sources = Sources(Budget())
    lines = [f"(x{n}) (y)" + " " * (n % 50) for n in range(20_000)]
    nodes = list(sources.statements(sources.add("a.cil", "\n".join(lines))))
    numbers = [0, 1, 4_000, 39_999, 17, 20_000]
    found = sources.origins([nodes[n][0] for n in numbers])
    for n in numbers:
        column = 1 if n % 2 == 0 else lines[n // 2].index("(y)") + 1
        assert found[nodes[n][0]] == Origin("a.cil", n // 2 + 1, column)
        assert sources.origin(nodes[n][0]) == found[nodes[n][0]]
    assert sources.origin(nodes[-1][0], 1)[1:] == (20_000, lines[-1].index("(y)") + 2)
    assert sources.text() == "\n".join(lines)


def test_a_text_that_grows() -> None:
    sources = Sources(Budget())
    number = sources.add("a.cil", "(a)\n" * 3)
    assert len(list(sources.statements(number))) == 3
    assert sources.extend("(b)\n(c)") == (number, 4)
    places = [sources.origin(node[0])[1] for node in sources.statements(number, 4)]
    assert places == [5, 6]
    assert sources.text() == "(a)\n" * 3 + "\n(b)\n(c)"


def test_places_of_items() -> None:
    sources = Sources(Budget())
    number = sources.add("a.cil", "(x) (a b ; comment (\n  (c d)\n\te)")
    _, node = sources.statements(number)
    places = [sources.origin(node[0], child)[1:] for child in range(6)]
    assert places == [(1, 5), (1, 6), (1, 8), (2, 3), (3, 2), (3, 3)]
    assert sources.origin(node[3][0], 2)[1:] == (2, 6), "an item of an inner list"


def test_places_in_several_files() -> None:
    sources = Sources(Budget())
    nodes = [n for name in "ab" for n in sources.statements(sources.add(name, "\n (x)"))]
    assert [str(sources.origin(node[0])) for node in nodes] == ["a:2", "b:2"]
    assert sources.text() == "\n (x)\n\n (x)"


# ---- rules in a line of their own ----

LINES = """
(type a_t)
(typealias old_t) (typealiasactual old_t a_t)
(typeattribute some) (typeattributeset some (all))
(class mi_x (first second))
(classmap both (all_of_it))
(classmapping both all_of_it (mi_x (first second)))
(allow a_t a_t (mach_port (send recv)))
(allow old_t self (mach_port (send recv)))
(auditallow some a_t (mi_x (not (first))))
(dontaudit some some (both (all_of_it)))
(neverallow some self (mach_task (create)))
(block inner (type a_t)
(allow a_t .a_t (mach_port (send recv)))
)
(allow  a_t a_t (mach_port (send)))  ; with a remark
"""


def outcome(text: str, **limits: int) -> object:
    """What a policy becomes, or why it does not."""
    try:
        db = compile_policy([("a.cil", text)], budget=Budget(**limits))
    except PolicyError as error:
        return str(error), error.file, error.line, error.column
    return db


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("", {}),
        ("(allow b_t a_t (mach_port (send)))", {}),
        ("(allow a_t b_t (mach_port (send)))", {}),
        ("(allow self a_t (mach_port (send)))", {}),
        ("(allow a_t a_t (port (send)))", {}),
        ("(allow a_t a_t (mach_port (send sned)))", {}),
        ("(allow a_t a_t (mach_port (range send)))", {}),
        ("(allow a_t a_t (mach_task (create)))", {}),
        ("(allow a_t a_t (mach_port (sned)))\n(allow b_t a_t (mach_port (send)))", {}),
        ("(allow b_t a_t (mach_port (send)))\n(allow a_t a_t (mach_port (sned)))", {}),
        ("(allow a_t a_t (mach_port (send)))\n(allow a_t self (mach_task (create)))", {}),
        ("(allow inner.a_t old_t (mach_port (send)))\n(allow a_t self (both (all_of_it)))", {}),
        ("(allow a_t a_t (mach_port (send))) (", {}),
        ("(allow a_t a_t (mach_port (send)", {}),
        ("(allow a_t a_t (mach_port (" + " ".join(["send"] * 500) + ")))", {}),
        ("(allow a_t a_t (mach_port (" + " ".join(["send"] * 50_000) + ")))", {}),
        *(("", {"tokens": count}) for count in (30, 66, 67, 68, 80, 81, 146, 147)),
        ("", {"depth": 2}),
        ("", {"depth": 3}),
        ("", {"identifier": 20}),
        ("", {"line": 39}),
        ("", {"rules": 2}),
    ],
)
def test_a_rule_in_a_line_of_its_own_is_as_any_other(
    line: str, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = LINES + line
    seen = outcome(text, **limits)
    without_runs(monkeypatch)
    assert seen == outcome(text, **limits)


def without_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every line read as any other text."""
    rows, never = reader._Text.rows, lambda _: False
    monkeypatch.setattr(reader._Text, "rows", lambda self, first, _: rows(self, first, never))


def test_a_large_policy_is_the_same_without_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, permissions = random.Random(1), ["send", "recv", "copy_send", "hold_send"]
    forms = ["(allow {} {} (mach_port ({})))"] * 40 + [  # the others divide runs
        "(auditallow {} {} (mach_port ({})))", "(dontaudit {0} self (mach_port ({2})))",
        "(allow  {} {} (mach_port ({})))", "; {} {} {}",
        "(allow {} {}\n (mach_port ({})))", "(allow {} {} (mach_port (not ({}))))",
    ]  # fmt: skip
    names = [f"t{n}" for n in range(50)]
    lines = [f"(type {name})" for name in names]
    for _ in range(5000):
        some = " ".join(rng.sample(permissions, rng.randint(1, 3)))
        lines.append(rng.choice(forms).format(rng.choice(names), rng.choice(names), some))
    text = "\n".join(lines)
    seen = outcome(text)
    assert isinstance(seen, PolicyDatabase)
    assert len(seen.rules) > 4500
    without_runs(monkeypatch)
    assert seen == outcome(text)


def test_rules_of_a_line_are_columns_and_the_same_as_lists() -> None:
    sources = Sources(Budget())
    rules = "(allow a b (c (d e)))\n; remark\n(dontaudit a b (c (d)))\n(allow f g (h (i)))\n"
    number = sources.add("a.cil", f"(x)\n{rules}(allow a b (c (d))) (y)\n(z\n{rules})")
    _, allow, dontaudit, *others = sources.statements(number, fold=True)
    assert isinstance(allow, Run)
    assert allow[1:] == ("allow", ["a", "f"], ["b", "g"], ["(c (d e))", "(h (i))"])
    assert isinstance(dontaudit, Run)
    _, first, second, third, *rest = sources.statements(number)
    assert [*allow.nodes(), *dontaudit.nodes()] == [first, third, second]
    assert [*allow.positions, *dontaudit.positions] == [first[0], third[0], second[0]]
    assert others == rest
    assert [node[1] for node in rest] == ["allow", "y", "z"]
