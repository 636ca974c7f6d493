# SPDX-License-Identifier: BSD-2-Clause
"""Tables: aligned, cut to the terminal, and nothing in a cell does anything to it."""

from __future__ import annotations

import pytest

from pympi.cli import _table
from pympi.cli._table import Column, Section, cell, cells, cut, print_sections, print_table

COLUMNS = (
    Column("NUMBER", right=True),
    Column("NAME", least=6),
    Column("EMPTY"),
    Column("LABEL", least=6, tail=True, spare=1),
    Column("MORE", spare=2),
)
ROWS = [
    ("1", "short", "", "te/u:r:a_t", "x"),
    ("1,000", "a long name of something", "", "te/u:r:editor_t", "yy"),
]


def printed(capsys: pytest.CaptureFixture[str], room: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_table, "width", lambda: room)
    print_table(COLUMNS, ROWS)
    return capsys.readouterr().out


def test_columns_are_aligned_and_empty_ones_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert printed(capsys, 200, monkeypatch).splitlines() == [
        "NUMBER  NAME                      LABEL            MORE",
        "     1  short                     te/u:r:a_t       x",
        " 1,000  a long name of something  te/u:r:editor_t  yy",
    ]


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (40, " 1,000  a long name…  …:r:editor_t  yy"),
        (28, " 1,000  a lon…  …tor_t  yy"),
        (24, " 1,000  a long…  …itor_t"),
        (16, " 1,000  a long…"),
    ],
)
def test_what_does_not_fit_is_cut_and_then_left_out(
    room: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, room, monkeypatch).splitlines()
    assert lines[-1] == line
    assert max(map(len, lines)) <= room


def test_what_is_left_out_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_table, "width", lambda: 16)
    print_table(COLUMNS, ROWS)
    assert capsys.readouterr().err == "No room for MORE, LABEL: a wider terminal, or --json.\n"


def test_without_a_terminal_cells_are_long_but_not_without_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table((Column("A", least=5), Column("B")), [("x" * 1_000_000, "b"), ("y", "b")])
    lines = capsys.readouterr().out.splitlines()
    assert [len(line) for line in lines] == [_table.LARGEST + 3] * 3


def test_sections_are_aligned_with_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    print_sections(
        (Column("A"), Column("B")),
        [Section("first", [("1", "x")]), Section("second", [("100", "y")])],
    )
    assert capsys.readouterr().out == "A    B\n\nfirst\n1    x\n\nsecond\n100  y\n"


def test_no_rows_no_titles(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, [])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "size", "tail", "result"),
    [
        ("abcdef", 6, False, "abcdef"),
        ("abcdef", 4, False, "abc…"),
        ("abcdef", 4, True, "…def"),
        ("日本語", 5, False, "日本…"),
        ("日本語", 4, False, "日…"),
        ("日本語", 4, True, "…語"),
    ],
)
def test_texts_are_cut_by_cells(text: str, size: int, tail: bool, result: str) -> None:
    assert cut(text, size, tail) == result
    assert cells(result) <= size


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\u202eb", "\x9b31m", "\u2066", "\r", "\x7f"])
def test_a_cell_keeps_to_its_place(text: str) -> None:
    assert cell(text).isprintable()
    assert "\\u{" in cell(text)
