# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.coverage: which rules were used, and which of their permissions."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest

from pympi import Kernel, audit
from pympi.cli import main
from pympi.policy import TypeEnforcement
from pympi.policy.author.closure import Grant
from pympi.policy.author.coverage import Coverage, RuleUse, coverage
from pympi.policy.author.learn import learn
from pympi.policy.cil import compile_policy
from pympi.policy.cil.policydb import Origin

DEMO = Path(str(resources.files("pympi") / "data" / "demo.trace"))

POLICY = """\
(type a) (type b) (type c)
(typeattribute clients) (typeattributeset clients (a b))
(boolean often false)
(allow a c (mach_port (send copy_send)))
(allow clients c (mach_port (hold_send)))
(allow clients self (mach_port (use_recv)))
(allow c clients (mach_port (recv send)))
(booleanif often (true
    (allow a b (mach_port (send)))))
(allow b a (mach_task (terminate create)))
(auditallow a c (mach_port (send)))
"""


def found(*used: tuple[str, str, str], tclass: str = "mach_port") -> list[tuple[int, str, bool]]:
    grants = {Grant(source, target, tclass, name) for source, target, name in used}
    rules = covered(*grants).unused
    return [(each.origin.line, " ".join(each.idle), not each.used) for each in rules]


def covered(*grants: Grant) -> Coverage:
    return coverage(compile_policy([("small.cil", POLICY)]), grants)


ALL = [
    (4, "send copy_send", True),
    (5, "hold_send", True),
    (6, "use_recv", True),
    (7, "send recv", True),
    (9, "send", True),
    (10, "terminate create", True),
]


def but(*changes: tuple[int, str, bool], gone: int = 0) -> list[tuple[int, str, bool]]:
    lines = {line: (line, *rest) for line, *rest in (*ALL, *changes)}
    return [lines[line] for line in sorted(lines) if line != gone]


def test_nothing_used() -> None:
    assert found() == ALL


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (("a", "c", "send"), but((4, "copy_send", False))),
        (("b", "c", "hold_send"), but(gone=5)),
        (("b", "b", "use_recv"), but(gone=6)),
        (("a", "b", "use_recv"), ALL),
        (("c", "a", "recv"), but((7, "send", False))),
        (("a", "b", "send"), but(gone=9)),
        (("nobody", "c", "send"), ALL),
        (("a", "c", "no_such"), ALL),
    ],
)
def test_what_was_used(used: tuple[str, str, str], expected: list[tuple[int, str, bool]]) -> None:
    assert found(used) == expected


def test_other_classes() -> None:
    left = found(("b", "a", "create"), tclass="mach_task")
    assert left == but((10, "terminate", False))
    assert found(("b", "a", "send"), tclass="mi_unknown") == ALL


def test_the_text_of_the_rule_is_told() -> None:
    first = covered().rules[0]
    assert (str(first.origin), first.rule) == (
        "small.cil:4",
        "(allow a c (mach_port (send copy_send)))",
    )


def test_figures() -> None:
    """All permissions of a rule, or one of two, or none: the percentage is theirs."""
    nothing = covered()
    assert (nothing.exercised, nothing.permissions, nothing.percent) == (0, (0, 9), 0)
    grants = (
        Grant("a", "c", "mach_port", "send"),
        Grant("b", "c", "mach_port", "hold_send"),
        Grant("b", "a", "mach_task", "create"),
        Grant("a", "b", "mach_task", "create"),
    )
    some = covered(*grants, *grants)
    assert [str(each).rpartition(": ")[2] for each in some.rules] == [
        "copy_send", "used", "unused", "unused", "unused", "terminate",
    ]  # fmt: skip
    assert (some.exercised, some.permissions) == (3, (3, 9))
    assert str(some) == "3 of 6 rules exercised, 3 of 9 permissions: 33.3 %"
    assert str(some.rules[0]).endswith("(mach_port (send copy_send))): partly used, not: copy_send")


def test_nearly_all_is_not_all() -> None:
    rules = [RuleUse(Origin("x", 1), "", ("a",) * 9999, ("b",))]
    assert str(Coverage(tuple(rules))).endswith(": 99.9 %")
    assert Coverage(()).percent == 100


@pytest.mark.parametrize("generalise", [[], ["sources", "targets"]])
def test_nothing_learned_is_unused(tmp_path: Path, capsys, generalise: list[str]) -> None:
    policy = tmp_path / "learned.cil"
    policy.write_text(learn([DEMO], generalise=generalise).text)
    assert main(["policy", "unused", str(policy), str(DEMO)]) == 0
    assert capsys.readouterr().out == ""


def test_what_was_generalised_is_unused(tmp_path: Path, capsys) -> None:
    wide = learn([DEMO], generalise=["families"])
    policy = tmp_path / "wide.cil"
    policy.write_text(wide.text)
    assert main(["policy", "unused", str(policy), str(DEMO), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["unused"]
    assert sum(len(each["permissions"]) for each in result) == len(wide.generalised)
    assert not any(each["wholly"] for each in result)
    assert {each["file"] for each in result} == {str(policy)}
    lines = wide.text.split("\n")
    assert all(lines[each["line"] - 1].startswith("(allow") for each in result)


def test_lines_for_people(tmp_path: Path, capsys) -> None:
    policy = tmp_path / "p.cil"
    text = learn([DEMO]).text
    line = text.count("\n") + 1
    more = "(allow task-boot-first task-boot-names (mach_port (specify)))\n"
    policy.write_text(text + more)
    assert main(["policy", "unused", str(policy), str(DEMO)]) == 0
    assert capsys.readouterr().out == f"{policy}:{line}: {more.strip()}: unused\n"


EXTRA = "(allow task-boot-first self (mach_task (observe)))\n"


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """What the demo needs, and a permission more."""
    policy = tmp_path / "wide.cil"
    policy.write_text(learn([DEMO]).text + EXTRA)
    return policy


def test_coverage_for_people(wide: Path, capsys) -> None:
    assert main(["policy", "coverage", str(wide), str(DEMO)]) == 0
    *rules, last, figures = capsys.readouterr().out.splitlines()
    assert rules
    assert all(line.startswith(f"{wide}:") and line.endswith(": used") for line in rules)
    assert last.endswith(f": {EXTRA.strip()}: unused")
    assert re.fullmatch(
        r"(\d+) of (\d+) rules exercised, \d+ of \d+ permissions: 9\d\.\d %", figures
    )


def test_coverage_for_programs(wide: Path, capsys) -> None:
    assert main(["policy", "coverage", str(wide), str(DEMO), "--json", "--fail-under", "50"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["percent"] == 100 * told["used"] / told["permissions"]
    assert (told["fail_under"], told["enough"]) == (50, True)
    *rules, last = told["rules"]
    assert told["exercised"] == len(rules)
    assert not any(each["unused"] for each in rules)
    assert last == {
        "file": str(wide), "line": wide.read_text().count("\n"), "rule": EXTRA.strip(),
        "used": [], "unused": ["observe"],
    }  # fmt: skip


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize(("under", "code"), [("0", 0), ("50", 0), ("99.99", 1), ("100", 1)])
def test_coverage_that_is_too_little(
    wide: Path, capsys, form: list[str], under: str, code: int
) -> None:
    words = ["policy", "coverage", str(wide), str(DEMO), "--fail-under", under, *form]
    assert main(words) == code
    told = capsys.readouterr().err
    assert told == (f"pympi: the coverage is under {under} %\n" if code and not form else "")


def test_coverage_of_all_of_it(tmp_path: Path, capsys) -> None:
    policy = tmp_path / "p.cil"
    policy.write_text(learn([DEMO]).text)
    assert main(["policy", "coverage", str(policy), str(DEMO), "--fail-under", "100"]) == 0
    assert capsys.readouterr().out.endswith(": 100.0 %\n")


@pytest.mark.parametrize("under", ["101", "-1", "many", "nan"])
def test_coverage_under_what_is_no_percentage(wide: Path, capsys, under: str) -> None:
    assert main(["policy", "coverage", str(wide), str(DEMO), "--fail-under", under]) == 2
    assert "'--fail-under'" in capsys.readouterr().err


def test_a_recording_of_another_policy_is_named(tmp_path: Path, capsys) -> None:
    (policy := tmp_path / "small.cil").write_text(POLICY)
    text = re.sub(r"\b([abc])\b", r"\1_t", POLICY) + (
        "(role r) (roletype r a_t) (user u) (userrole u r)"
        "(allow a_t a_t (mach_port (make_send hold_send)))"
        "(allow unlabeled_t unlabeled_t (mach_port (make_send hold_send)))"
    )
    with Kernel(policies=[TypeEnforcement.from_text(text)]) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(tmp_path / "run.audit"))
        for label in ("te/u:r:a_t", "te/system_u:object_r:unlabeled_t"):
            task = kernel.create_task("t", label)
            task.allocate_port().make_send(task)
    for verb in ("coverage", "unused"):
        assert main(["policy", verb, str(policy), str(tmp_path / "run.audit")]) == 0
        assert "run.audit used no type of" in capsys.readouterr().err
        (own := tmp_path / "own.cil").write_text(text)
        assert main(["policy", verb, str(own), str(tmp_path / "run.audit")]) == 0
        assert capsys.readouterr().err == ""


def test_levels_are_no_matter(tmp_path: Path, capsys) -> None:
    """Rules are about types: recordings with levels, of which nothing can be learned, will do."""
    policy, recording = tmp_path / "p.cil", tmp_path / "p.audit"
    policy.write_text(LEVELS)
    with Kernel(policies=[TypeEnforcement.from_file(policy)]) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(recording))
        task = kernel.create_task("a", label="te/user_u:r:a:s0-s1:c0")
        task.allocate_port().make_send(task).send(b"")
    assert main(["policy", "coverage", str(policy), str(recording)]) == 0
    assert capsys.readouterr().out.endswith("1 of 1 rules exercised, 4 of 5 permissions: 80.0 %\n")


LEVELS = """
(mls true) (sensitivity s0) (sensitivity s1) (sensitivityorder (s0 s1)) (category c0)
(categoryorder (c0)) (sensitivitycategory s0 (c0)) (sensitivitycategory s1 (c0))
(type a) (user user_u) (role r) (userrole user_u r) (roletype r a)
(userlevel user_u (s0)) (userrange user_u ((s0) (s1 (c0))))
(allow a self (mach_port (make_send hold_send copy_send send recv)))
"""


def test_bad_input(tmp_path: Path, capsys) -> None:
    policy = tmp_path / "p.cil"
    policy.write_text("(allow a b)")
    assert main(["policy", "unused", str(policy), str(DEMO)]) == 2
    assert "p.cil:1:" in capsys.readouterr().err
