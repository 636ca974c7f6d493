# SPDX-License-Identifier: BSD-2-Clause
"""The table of statements: what it refuses, in which words, and that the documentation has it."""

import re
from pathlib import Path

import pytest

from pympi import PolicyError
from pympi.policy.cil import compile_policy
from pympi.policy.cil.compiler import _ALIASES, _NAMES, _SPECIAL
from pympi.policy.cil.grammar import ARGUMENTS, OUTSIDE, STATEMENTS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cil.md"
ROW = re.compile(r"\| `\((\S+)((?: [^)]*)?)\)` \| ([^|]*) \| ([^|]*) \|")


def refused(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        compile_policy([("a.cil", text)])
    return caught.value


@pytest.mark.parametrize("keyword", OUTSIDE)
def test_outside_the_subset(keyword: str) -> None:
    error = refused(f"(type a)\n ({keyword} a b)")
    assert (error.line, error.column) == (2, 3)
    assert f"'{keyword}' is CIL, but outside the subset: {OUTSIDE[keyword]}" in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(typ a)", "did you mean 'type'?"),
        ("(alow a b c)", "did you mean 'allow'?"),
        ("(zzz)", "expected a statement's keyword, found 'zzz'"),
        ("()", "expected a statement's keyword, found the end of the list"),
        ("((type a))", "found a list beginning with 'type'"),
    ],
)
def test_unknown_keyword(text: str, words: str) -> None:
    assert words in str(refused(text))


@pytest.mark.parametrize("keyword", STATEMENTS)
def test_too_few_arguments(keyword: str) -> None:
    row = STATEMENTS[keyword]
    error = refused(f"({keyword})")
    assert f"expected {ARGUMENTS[row.arguments[0]].words}, found ')'" in str(error)
    assert (error.line, error.column) == (1, len(keyword) + 2)


BOUNDED = [k for k, row in STATEMENTS.items() if "..." not in row.shape and k != "typetransition"]


@pytest.mark.parametrize("keyword", BOUNDED)
def test_too_many_arguments(keyword: str) -> None:
    row = STATEMENTS[keyword]
    items = ["(x)" if ARGUMENTS[name].list else "x" for name in row.arguments]
    error = refused(f"({keyword} {' '.join(items)} surplus)")
    assert "expected ')', found 'surplus'" in str(error)


@pytest.mark.parametrize("keyword", STATEMENTS)
def test_arguments_of_the_wrong_kind(keyword: str) -> None:
    row = STATEMENTS[keyword]
    for place, name in enumerate(row.arguments):
        argument = ARGUMENTS[name]
        if argument.word and argument.list:
            continue
        items = ["(x)" if ARGUMENTS[each].list else "x" for each in row.arguments]
        items[place] = "x" if argument.list else "(x)"
        error = refused(f"({keyword} {' '.join(items)})")
        assert argument.words in str(error)
        assert error.column == len(" ".join([f"({keyword}", *items[:place], ""])) + 1


def test_file_name_transition() -> None:
    text = '(type a)(typetransition a a mach_port "name" a)'
    assert "file name is outside the subset" in str(refused(text))


def test_every_statement_has_a_shape_that_is_known() -> None:
    assert {name for row in STATEMENTS.values() for name in row.arguments} == set(ARGUMENTS)
    assert not set(STATEMENTS) & set(OUTSIDE)
    assert set(_SPECIAL) | set(_ALIASES) | set(_NAMES) <= set(STATEMENTS)


def test_documentation_is_the_table() -> None:
    rows = {m[1]: m.groups()[1:] for m in ROW.finditer(DOCUMENT.read_text(encoding="utf-8"))}
    where = {(False, False): "top", (True, False): "block", (True, True): "block, booleanif"}
    expected = {
        keyword: (f" {row.shape}", where[row.block, row.conditional], row.remark)
        for keyword, row in STATEMENTS.items()
    }
    assert rows == expected


def test_documentation_says_what_is_outside() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.partition("## Outside")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z_]+)`", section)) >= set(OUTSIDE)
