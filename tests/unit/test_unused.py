# SPDX-License-Identifier: BSD-2-Clause
"""pympi.policy.author.unused: rules that nothing used, and permissions of rules."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from pympi.cli import main
from pympi.policy.author.closure import Grant
from pympi.policy.author.learn import learn
from pympi.policy.author.unused import unused
from pympi.policy.cil import compile_policy

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
    database = compile_policy([("small.cil", POLICY)])
    return [(u.origin.line, " ".join(u.permissions), u.wholly) for u in unused(database, grants)]


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
    database = compile_policy([("small.cil", POLICY)])
    first = unused(database, ())[0]
    assert (str(first.origin), first.rule) == (
        "small.cil:4",
        "(allow a c (mach_port (send copy_send)))",
    )


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


def test_bad_input(tmp_path: Path, capsys) -> None:
    policy = tmp_path / "p.cil"
    policy.write_text("(allow a b)")
    assert main(["policy", "unused", str(policy), str(DEMO)]) == 2
    assert "p.cil:1:" in capsys.readouterr().err
