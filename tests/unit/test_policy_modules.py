# SPDX-License-Identifier: BSD-2-Clause
"""The modules that come along: partition, count, selftest, stub, none, and rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi import Kernel, PolicyError
from pympi.enums import ALL, CLASSES, ObjectClass
from pympi.errors import LabelError
from pympi.policy import (
    Count,
    Decision,
    NoHooks,
    Partition,
    PolicyModule,
    Rule,
    Rules,
    SelfTest,
    Stub,
)

PORT, TASK = CLASSES["mach_port"], CLASSES["mach_task"]
OPTIONAL = (
    "decide", "label_new", "label_new_port", "label_new_task", "check_relabel", "explain",
)  # fmt: skip


@pytest.mark.parametrize("method", OPTIONAL)
def test_stub_has_every_method_and_none_has_none(method: str) -> None:
    assert Stub.answers(method)
    assert not NoHooks.answers(method)


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [("a", "a", True), ("a", "b", False), (None, "a", True), ("a", None, True), (None, None, True)],
)
def test_partitions(source: Any, target: Any, allowed: bool) -> None:
    module = Partition()
    assert module.decide(source, target, PORT).allowed == (ALL if allowed else 0)
    assert module.explain(source, target, PORT, "send").startswith(
        "allows" if allowed else "refuses"
    )


def test_partitions_have_no_hidden_blanks() -> None:
    with pytest.raises(ValueError, match="blanks"):
        Partition().parse(" a")


def test_count_counts_and_refuses() -> None:
    count = Count()
    count.refuse("mach_port", "send recv")
    assert count.decide(None, None, PORT).allowed == ALL & ~PORT.mask("send recv")
    assert count.decide(None, None, TASK).allowed == ALL
    assert "told" in count.explain(None, None, PORT, "send")
    assert count.counts == {"mach_port": 1, "mach_task": 1}


def test_selftest_notices_what_is_not_its_own() -> None:
    watch, other = SelfTest(), SelfTest()
    value = watch.parse("a")
    assert watch.decide(value, None, PORT).allowed == ALL
    assert watch.label_new_port(value, value) is watch.label_new(value, value, PORT) is value
    assert watch.violations == []
    for call in (
        lambda: watch.decide("a", None, PORT),
        lambda: watch.decide(other.parse("a"), None, PORT),
        lambda: watch.decide(value, None, "mach_port"),  # type: ignore[arg-type]
        lambda: watch.check_relabel(value, 5, value, PORT),
        lambda: watch.label_new(value, other.parse("a"), PORT),
        lambda: watch.label_new(value, value, None),  # type: ignore[arg-type]
        lambda: watch.format("a"),
        lambda: watch.parse(""),
    ):
        with pytest.raises(AssertionError):
            call()
    assert len(watch.violations) == 8


def test_a_base_module_has_no_opinion() -> None:
    class Nothing(PolicyModule):
        name = "nothing"

    assert not any(Nothing.answers(method) for method in OPTIONAL if method != "explain")
    assert Nothing().decide(None, None, PORT) == Decision()
    assert Nothing().label_new_port(None, None) is Nothing().label_new_task(None) is None
    assert Nothing().check_relabel(None, None, None, PORT) == 0


# ---- rules ----

TEXT = """\
# a comment; with { } in it
allow editor printer mach_port { send hold_send };   # and one here
allow * printer mach_port { copy_send };
allow editor * mach_task { * };
allow boss * * { * };
allow editor
    printer mi_printing
    { print_page };
"""


def test_rules_are_read() -> None:
    rules = Rules.from_text(TEXT).rules
    assert rules[0] == Rule("editor", "printer", "mach_port", ("send", "hold_send"), 2)
    assert [rule.line for rule in rules] == [2, 3, 4, 5, 6]
    assert Rules.from_text("\n".join(map(str, rules))).rules[4][:4] == rules[4][:4]


def allowed(module: Rules, source: str | None, target: str | None, tclass: ObjectClass) -> str:
    vector = module.decide(source, target, tclass).allowed
    return "*" if vector == ALL else " ".join(tclass.names(vector))


def test_rules_add_up_and_the_rest_is_refused() -> None:
    module = Rules.from_text(TEXT)
    assert allowed(module, "editor", "printer", PORT) == "send copy_send hold_send"
    assert allowed(module, "other", "printer", PORT) == "copy_send"
    assert allowed(module, None, "printer", PORT) == "copy_send"
    assert allowed(module, "editor", None, TASK) == "*"
    assert allowed(module, "other", "editor", PORT) == ""
    assert allowed(module, "boss", None, CLASSES["service"]) == "*"
    printing = ObjectClass(16, "mi_printing", ("cancel", "print_page"))
    assert allowed(module, "editor", "printer", printing) == "print_page"


def test_rules_explain_themselves() -> None:
    module = Rules.from_text(TEXT)
    assert module.explain("editor", "printer", PORT, "send").endswith("(line 2)")
    assert module.explain("other", "editor", PORT, "send").startswith("refuses: no rule")


def test_rules_as_tuples() -> None:
    module = Rules([("a", "b", "mach_port", "send recv"), ("a", "*", "mi_x", ["f"])])
    assert allowed(module, "a", "b", PORT) == "send recv"
    with pytest.raises(ValueError, match="no permission"):
        Rules([("a", "b", "mach_port", "sned")])
    with pytest.raises(PolicyError, match="no class"):
        Rules([("a", "b", "mach_prt", "send")])


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"),
    [
        ("deny a b mach_port { send };", 1, 1, "expected 'allow', found 'deny'"),
        ("allow a b mach_prt { send };", 1, 11, "a class: mach_port"),
        ("allow a b mach_port send };", 1, 21, "expected '{', found 'send'"),
        ("allow a b mach_port { };", 1, 23, "a permission of mach_port"),
        ("allow a b mach_port {\n  sned };", 2, 3, "a permission of mach_port"),
        ("allow a b mach_port { send }", 1, 29, "';', found the end of the policy"),
        ("allow a b mach_port { send ;", 1, 28, "a permission of mach_port, or '*', or '}'"),
        ("allow a", 1, 8, "a target: a name, or '*', found the end of the policy"),
        ("# only\nallow", 2, 6, "a source"),
        ("allow ü b mach_port { send };", 1, 7, "a source: a name"),
    ],
)
def test_errors_say_where_and_what(text: str, line: int, column: int, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Rules.from_text(text, "a.rules")
    error = caught.value
    assert (error.file, error.line, error.column) == ("a.rules", line, column)
    assert expected in str(error)
    assert str(error).startswith(f"a.rules:{line}:{column}: ")


def rules_or_error(text: str) -> Sequence[Rule] | PolicyError:
    try:
        return Rules.from_text(text).rules
    except PolicyError as error:
        return error


@given(st.text(alphabet="allow ab*{};#\nmach_port sendü", max_size=60))
def test_any_text_is_rules_or_an_error(text: str) -> None:
    got = rules_or_error(text)
    if isinstance(got, PolicyError):
        lines = text.split("\n")
        assert 1 <= got.line <= len(lines)
        assert 1 <= got.column <= len(lines[got.line - 1]) + 1
    else:
        again = Rules.from_text("\n".join(map(str, got))).rules
        assert [rule[:4] for rule in again] == [rule[:4] for rule in got]


def test_rules_in_files(tmp_path: Path) -> None:
    path = tmp_path / "a.rules"
    path.write_text(TEXT, encoding="utf-8")
    assert len(Rules.from_file(path).rules) == 5
    path.write_bytes(b"# fine\nallow \xff")
    with pytest.raises(PolicyError) as caught:
        Rules.from_file(path)
    assert (caught.value.line, caught.value.column) == (2, 7)
    with pytest.raises(FileNotFoundError):
        Rules.from_file(tmp_path / "none")


def test_names_in_labels() -> None:
    with Kernel(policies=[Rules()]) as kernel:
        kernel.create_task("t", label="rules/a-b_c.d:e/f")
        with pytest.raises(LabelError, match="letters, digits"):
            kernel.create_task("t", label="rules/a b")
