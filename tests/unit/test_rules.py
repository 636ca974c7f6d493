# SPDX-License-Identifier: BSD-2-Clause
"""`rules`: what is read, what it allows, what it says, and what is too much."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi import Kernel, PolicyError
from pympi.enums import ALL, CLASSES, ObjectClass
from pympi.errors import LabelError
from pympi.policy import Budget, Rule, Rules
from pympi.policy.rules import BUDGET

PORT, TASK = CLASSES["mach_port"], CLASSES["mach_task"]

ALLOW = "allow a b mach_port { send }; "

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
    assert module.explain("boss", None, PORT, "send") == "allows by allow boss * * { * }; (line 5)"


def test_of_several_rules_the_one_that_names_most_explains() -> None:
    lines = ["allow * * * { * };", "allow a * mach_port { send };", "allow a b mach_port { send };"]
    told = Rules.from_text("\n".join(lines)).explain("a", "b", PORT, "send")
    assert told == f"allows by {lines[2]} (line 3)"


@given(*[st.sampled_from(["editor", "printer", "boss", "other", None])] * 2)
def test_the_rule_that_would_allow_it_does(source: str | None, target: str | None) -> None:
    for name, bit in PORT.bits.items():
        text, told = TEXT, Rules.from_text(TEXT).explain(source, target, PORT, name)
        if not told.startswith("allows by "):
            found = re.match(r"refuses: no rule; (allow .*;) would allow it", told)
            assert found
            text += found[1]
        assert Rules.from_text(text).decide(source, target, PORT).allowed & bit


def test_what_has_no_label_has_no_name() -> None:
    told = Rules.from_text(TEXT).explain(None, "b", PORT, "send")
    assert told == (
        "refuses: no rule; allow * b mach_port { send }; would allow it "
        "(what has no label is named by '*' alone)"
    )


def test_rules_as_tuples() -> None:
    module = Rules([("a", "b", "mach_port", "send recv"), ("a", "*", "mi_x", ["f"])])
    assert allowed(module, "a", "b", PORT) == "send recv"
    with pytest.raises(ValueError, match="no permission"):
        Rules([("a", "b", "mach_port", "sned")])
    with pytest.raises(ValueError, match="'sned' is no permission"):
        Rules([("a", "b", "mach_port", "* sned")])
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
    with pytest.raises(PolicyError, match="No such file"):
        Rules.from_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("limits", "text", "line", "column"),
    [
        ({"bytes": 29}, ALLOW, 1, 1),
        ({"tokens": 8}, ALLOW + "\n# more", 2, 1),
        ({"types": 3}, "allow a b mach_port { send };", 1, 23),
        ({"rules": 2}, ALLOW * 2 + "\n " + ALLOW, 2, 2),
        ({"identifier": 9}, "allow a b mach_port { hold_send };\nallow a long_names *", 2, 9),
        ({"identifier": 10}, "allow a b mi_x {\n  send hold_send_once };", 2, 8),
    ],
)
def test_what_a_table_may_cost(limits: dict[str, int], text: str, line: int, column: int) -> None:
    ((name, _),) = limits.items()
    with pytest.raises(PolicyError, match=rf"Budget\.{name}") as caught:
        Rules.from_text(text, "a.rules", budget=Budget(**limits))
    assert (caught.value.file, caught.value.line, caught.value.column) == ("a.rules", line, column)


def test_the_page_has_the_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`.* \| ([\d,]+)( MiB)? \|$", page, re.MULTILINE)
    said = {name: int(number.replace(",", "")) << 20 * bool(mib) for name, number, mib in rows}
    assert said.keys() == {"bytes", "tokens", "rules", "types", "identifier"}
    assert said.items() <= asdict(BUDGET).items()


def test_what_a_budget_allows() -> None:
    exact = Budget(bytes=30, tokens=8, types=4, rules=1, identifier=9)
    assert Rules.from_text(ALLOW, budget=exact).rules


def test_an_error_ends_the_reading() -> None:
    """What stands behind it, were it too much or wrong, is not looked at."""
    text = ALLOW + " {" + ALLOW * 5
    with pytest.raises(PolicyError, match=r"expected 'allow', found '\{'") as caught:
        Rules.from_text(text, budget=Budget(tokens=10, rules=1))
    assert caught.value.column == len(ALLOW) + 2


def test_the_budget_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.rules"
    path.write_text(ALLOW)
    assert Rules.from_file(path, budget=Budget(bytes=30)).rules
    for limits in ({"bytes": 29}, {"tokens": 7}):
        with pytest.raises(PolicyError, match=r"\(Budget\.") as caught:
            Rules.from_file(path, budget=Budget(**limits))
        assert caught.value.file == str(path)


def test_what_cannot_be_read_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.rules"
    path.write_text("allow a b mach_port { send }")
    with Kernel(policies=[Rules.from_text(ALLOW)]) as kernel:
        with pytest.raises(PolicyError):
            kernel.policies.replace("rules", Rules.from_file(path))
        assert kernel.access("rules/a", "rules/b", "mach_port", "send")


def test_names_in_labels() -> None:
    with Kernel(policies=[Rules()]) as kernel:
        kernel.create_task("t", label="rules/a-b_c.d:e/f")
        with pytest.raises(LabelError, match="letters, digits"):
            kernel.create_task("t", label="rules/a b")
