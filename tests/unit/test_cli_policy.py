# SPDX-License-Identifier: BSD-2-Clause
"""pympi policy check, access, label, explain, query, diff, flow: screens, JSON, exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import click
import pytest

from pympi import Kernel
from pympi.cli import main
from pympi.mig import Interface
from pympi.policy import TypeEnforcement

SAMPLE = resources.files("pympi") / "data" / "desktop.cil"
PYMPI = Path(sys.executable).parent / "pympi"
VERBS = ("check", "access", "label", "explain", "query", "diff", "flow")


class Result:
    """What a command line gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.setenv("PYMPI_CACHE", str(tmp_path / "cache"))

    def call(*words: object) -> Result:
        code = main(["policy", *map(str, words)])
        return Result(code, *capsys.readouterr())

    return call


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ---- access ----


def test_access_lists_what_is_allowed_and_audited(run: Callable[..., Result]) -> None:
    done = run("access", "editor_t", "spool_t", "mach_port")
    assert done.code == 0
    assert (
        done.out.splitlines()
        == [
            "te/user_u:user_r:editor_t to te/user_u:object_r:spool_t, mach_port",
            "  allowed               send copy_send hold_send carry_rights carry_memory",
            "  unrecorded if refused  get_attributes",
        ]
        or "get_attributes" in done.out
    )
    found = run("access", "editor_t", "spool_t", "mach_port", "--json").json
    assert found["allowed"] == ["send", "copy_send", "hold_send", "carry_rights", "carry_memory"]
    assert found["dontaudit"] == ["get_attributes"]
    assert (found["auditallow"], found["reported"], found["permissive"]) == ([], [], False)


def test_access_with_nothing_allowed(run: Callable[..., Result]) -> None:
    done = run("access", "spool_t", "editor_t", "kernel")
    assert (done.code, done.out.splitlines()[1:]) == (0, ["  allowed  -"])


@pytest.mark.parametrize(
    ("permissions", "code", "refused"),
    [
        (["print_page"], 0, {}),
        (["cancel"], 1, {"cancel": ["te"]}),
        (["print_page", "cancel", "set_default"], 1, {"cancel": ["te"], "set_default": ["te"]}),
    ],
)
def test_access_answers_by_its_exit_code(
    run: Callable[..., Result], permissions: list[str], code: int, refused: dict[str, list[str]]
) -> None:
    done = run("access", "editor_t", "spool_t", "mi_printing", *permissions, "--json")
    assert (done.code, done.json["granted"]) == (code, not code)
    assert done.json["refused"] == refused


def test_access_says_each_permission(run: Callable[..., Result]) -> None:
    done = run("access", "editor_t", "spool_t", "mi_printing", "print_page", "cancel")
    assert [line.split() for line in done.out.splitlines()[1:]] == [
        ["print_page", "yes"],
        ["cancel", "no", "refused", "by", "te"],
    ]


def test_access_tells_what_a_permissive_type_is_only_reported_for(
    run: Callable[..., Result],
) -> None:
    done = run("access", "draft_t", "printd_t", "mach_port", "--json")
    assert done.json["permissive"]
    assert set(done.json["allowed"]) - set(done.json["reported"]) == {"recv"}
    done = run("access", "draft_t", "printd_t", "mach_port", "send")
    assert (done.code, "only reported" in done.out) == (0, True)


def test_access_tells_what_a_permissive_type_is_not_even_reported_for(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    quiet = tmp_path / "quiet.cil"
    quiet.write_text(
        "(type a_t) (roletype r a_t) (role r) (user u) (userrole u r) (typepermissive a_t)"
        "(allow a_t a_t (mach_port (recv))) (dontaudit a_t a_t (mach_port (send)))"
    )
    asked = ("a_t", "a_t", "mach_port", "--policy", str(quiet))
    found = run("access", *asked, "--json").json
    assert (found["dontaudit"], found["permissive"]) == (["send"], True)
    assert not {"send", "recv"} & {*found["reported"]}
    lines = run("access", *asked).out
    assert "allowed                recv\n" in lines
    assert "unrecorded if refused  send\n" in lines
    assert "done, and reported, unless unrecorded." in lines
    lines = run("access", *asked, "send", "recv", "make_send").out.splitlines()[1:]
    assert {line.split()[0]: line.split("yes")[1].strip() for line in lines} == {
        "send": "but only permitted, unrecorded: it would be refused",
        "recv": "",
        "make_send": "but only reported: it would be refused",
    }
    done = run("explain", *asked, "send", "make_send")
    assert (
        done.code,
        "te allows, and dontaudit keeps silent about it, because a_t" in done.out,
    ) == (0, True)
    assert "te allows, and reports, because a_t is permissive" in done.out


def test_access_is_what_a_kernel_decides(run: Callable[..., Result]) -> None:
    types = ["printd_t", "spool_t", "editor_t", "courier_t", "settings_t", "draft_t"]
    policy = TypeEnforcement.from_text(SAMPLE.read_text())
    compared = 0
    with Kernel(policies=[policy]) as kernel:
        Interface("printing", 1200, ["print_page", "cancel", "set_default"]).number(kernel)
        for source in types:
            for target in types:
                for tclass in ("mach_port", "mi_printing"):
                    said = run("access", source, target, tclass, "--json").json
                    kind = kernel.object_class(tclass)
                    names = [name for name in kind.permissions if name and name != "ioctl"]
                    allowed = [
                        name
                        for name in names
                        if kernel.access(said["source"], said["target"], tclass, name)
                    ]
                    assert [name for name in said["allowed"] if name != "ioctl"] == allowed
                    compared += len(allowed)
    assert compared > 50


@pytest.mark.parametrize(
    "source", ["editor_t", "user_u:user_r:editor_t", "te/user_u:user_r:editor_t"]
)
def test_three_ways_to_name_a_subject(run: Callable[..., Result], source: str) -> None:
    done = run("access", source, "spool_t", "mach_port", "--json")
    assert done.json["source"] == "te/user_u:user_r:editor_t"


def test_further_modules_are_asked(run: Callable[..., Result]) -> None:
    words = ["access", "editor_t,mls/high", "spool_t,mls/low", "mach_port", "send", "--json"]
    assert run(*words, "--module", "mls").json["refused"] == {"send": ["mls"]}
    words[1:3] = ["spool_t,mls/high,partition/a", "spool_t,mls/low,partition/b"]
    both = run(*words, "--module", "mls", "--module", "partition").json
    assert both["refused"] == {"send": ["mls", "partition", "te"]}


def test_rules_alone_and_with_cil(run: Callable[..., Result], tmp_path: Path) -> None:
    rules = written(
        tmp_path / "office.rules", "allow a b mach_port { send };\nallow a b mi_x { go };"
    )
    done = run("access", "a", "b", "mach_port", "--policy", rules, "--json").json
    assert (done["source"], done["allowed"]) == ("rules/a", ["send"])
    assert run("access", "a", "b", "mi_x", "go", "--policy", rules).code == 0
    pair = ["editor_t,rules/a", "spool_t,rules/b", "mach_port", "send", "copy_send"]
    cil = written(tmp_path / "desktop.cil", SAMPLE.read_text())
    done = run("access", *pair, "--policy", rules, "--policy", cil, "--json").json
    assert done["refused"] == {"copy_send": ["rules"]}


def test_several_files_make_one_policy(run: Callable[..., Result], tmp_path: Path) -> None:
    one = written(tmp_path / "one.cil", "(allow a_t b_t (mach_port (send)))")
    two = written(tmp_path / "two.cil", "(type a_t) (type b_t)")
    assert (
        run("access", "a_t", "b_t", "mach_port", "send", "--policy", one, "--policy", two).code == 0
    )


def test_levels_in_a_policy(run: Callable[..., Result], tmp_path: Path) -> None:
    text = """(mls true)(sensitivity s0)(sensitivity s1)(sensitivityorder (s0 s1))
    (category c0)(category c1)(categoryorder (c0 c1))
    (sensitivitycategory s0 (all))(sensitivitycategory s1 (all))
    (user u)(role r)(userrole u r)(roletype r a_t)(userlevel u (s0))
    (userrange u ((s0) (s1 (all))))(type a_t)(allow a_t self (mach_port (send)))
    (mlsconstrain (mach_port (send)) (dom l1 l2))"""
    policy = written(tmp_path / "levels.cil", text)
    high = "u:r:a_t:s1:c0,c1"
    assert run("access", high, "a_t", "mach_port", "send", "--policy", policy).code == 0
    done = run("access", "a_t", high, "mach_port", "send", "--policy", policy, "--json")
    assert done.json["source"] == "te/u:r:a_t:s0"
    assert done.json["target"] == r"te/u:r:a_t:s1:c0\,c1"
    assert done.code == 1


# ---- label ----


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["printd_t", "printd_t", "mach_port"], "te/system_u:object_r:spool_t"),
        (["editor_t", "editor_t", "mach_port"], "te/user_u:user_r:editor_t"),
        (["editor_t", "editor_t", "mach_task"], "te/user_u:user_r:courier_t"),
        (["courier_t", "courier_t", "mach_task"], "te/user_u:user_r:courier_t"),
        (["editor_t", "spool_t", "mi_printing"], "te/user_u:object_r:spool_t"),
    ],
)
def test_label(run: Callable[..., Result], words: list[str], label: str) -> None:
    done = run("label", *words)
    assert (done.code, done.out) == (0, label + "\n")
    assert run("label", *words, "--json").json["label"] == label


def test_label_is_what_a_kernel_gives(run: Callable[..., Result]) -> None:
    with Kernel(policies=[TypeEnforcement.from_text(SAMPLE.read_text())]) as kernel:
        task = kernel.create_task("printd", label="te/system_u:system_r:printd_t")
        port = kernel.label_text(task.allocate_port())
    assert run("label", "printd_t", "printd_t", "mach_port").out == port + "\n"


def test_label_with_further_modules(run: Callable[..., Result]) -> None:
    words = [
        "label",
        "printd_t,mls/5(low-high)",
        "printd_t,mls/low",
        "mach_port",
        "--module",
        "mls",
    ]
    assert run(*words).out == "mls/5,te/system_u:object_r:spool_t\n"


@pytest.mark.parametrize(
    ("tclass", "made"),
    [
        ("mach_port", "te/u:object_r:p_t"),
        ("mach_task", "te/u:r:tsk_t"),
        ("service", "te/u:object_r:svc_t"),
        ("kernel", "te/u:object_r:b_t"),
        ("process", "te/u:r:tsk_t"),
    ],
)
def test_label_is_by_rules_about_the_class(
    run: Callable[..., Result], tmp_path: Path, tclass: str, made: str
) -> None:
    policy = tmp_path / "classes.cil"
    policy.write_text(
        "(role r) (user u) (userrole u r) (type a_t) (type b_t) (roletype r a_t) (roletype r b_t)"
        "(type svc_t) (type p_t) (type tsk_t) (roletype r tsk_t)"
        "(class process (fork)) (classorder (process))"
        "(typechange a_t b_t service svc_t) (typechange a_t b_t mach_port p_t)"
        "(typetransition a_t b_t mach_port b_t)"
        "(typechange a_t b_t mach_task tsk_t) (typetransition a_t b_t process tsk_t)"
    )
    assert run("label", "a_t", "b_t", tclass, "--policy", policy).out == made + "\n"


def test_a_label_that_is_not_valid_is_complained_of(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    policy = tmp_path / "p.cil"
    policy.write_text(
        "(role r) (user u) (userrole u r) (type a_t) (roletype r a_t) (type b_t)"
        "(typechange a_t a_t mach_task b_t)"
    )
    done = run("label", "a_t", "a_t", "mach_task", "--policy", policy)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("pympi: te: the new label u:r:b_t is not valid: role r may not have")


def test_label_without_a_cil_policy_is_inherited(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    policy = tmp_path / "rules"
    policy.write_text("allow a b service { look_up };\n")
    assert run("label", "a", "b", "service", "--policy", policy).out == "rules/b\n"


# ---- explain ----


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["editor_t", "spool_t", "mach_port", "send"], 0, "allows by desktop.cil:"),
        (["courier_t", "spool_t", "mach_port", "send"], 1, "none may allow it: desktop.cil:61:"),
        (["courier_t", "printd_t", "mach_port", "send"], 1, "(allow courier_t printd_t (mach_port"),
        (["editor_t", "spool_t", "mi_printing", "cancel"], 1, "if editors_cancel is true"),
        (["settings_t", "spool_t", "mi_printing", "set_default"], 1, "user_r, would have to be"),
        (["editor_t", "spool_t", "mach_port", "get_attributes"], 1, "not recorded"),
        (["draft_t", "printd_t", "mach_port", "send"], 0, "draft_t is permissive"),
    ],
)  # fmt: skip
def test_explain(run: Callable[..., Result], words: list[str], code: int, reason: str) -> None:
    done = run("explain", *words)
    assert done.code == code
    assert reason in done.out
    (answer,) = run("explain", *words, "--json").json["permissions"]
    assert answer["allowed"] is (code == 0)
    assert answer["refused_by"] == (["te"] if code else [])
    assert reason in answer["reasons"][0]["text"]


def test_explain_names_each_module_and_permission(run: Callable[..., Result]) -> None:
    words = ["editor_t,mls/high", "spool_t,mls/low", "mach_port", "send", "copy_send"]
    done = run("explain", *words, "--module", "mls", "--json")
    first, second = done.json["permissions"]
    assert (done.code, first["refused_by"], second["refused_by"]) == (1, ["mls"], [])
    assert [each["module"] for each in first["reasons"]] == ["mls", "te"]


# ---- query ----


def test_query_prints_rules_where_they_were_written(run: Callable[..., Result]) -> None:
    done = run("query", "--source", "editor_t", "--indirect", "--class", "mi_printing")
    lines = SAMPLE.read_text().splitlines()
    found = [line.partition(": ") for line in done.out.splitlines()]
    assert [text.partition("  ;")[0] for _, _, text in found] == [
        "(allow client spool_t (mi_printing (print_page)))",
        "(allow editor_t spool_t (mi_printing (cancel)))",
    ]
    assert all(
        text.partition("  ;")[0] in lines[int(place.split(":")[1]) - 1] for place, _, text in found
    )
    assert found[1][2].endswith("  ; if editors_cancel is true")
    assert (done.code, done.err) == (0, "2 rules\n")


def test_query_without_a_find_says_no(run: Callable[..., Result]) -> None:
    done = run("query", "--source", "spool_t", "--json")
    assert (done.code, done.json) == (1, {"rules": []})


def test_query_as_json(run: Callable[..., Result]) -> None:
    (rule,) = run("query", "--boolean", "editors_cancel", "--json").json["rules"]
    assert (rule["kind"], rule["source"], rule["target"]) == ("allow", "editor_t", "spool_t")
    assert (rule["permissions"], rule["condition"]) == (["cancel"], "editors_cancel is true")
    rules = run("query", "--target", "self", "--json").json["rules"]
    assert {each["target"] for each in rules} == {"self"}


def test_query_reads_a_large_policy_from_the_cache(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pympi.policy.author import cache

    path = written(tmp_path / "large.cil", SAMPLE.read_text() + f"; {'x' * 1000}\n" * 300)
    first = run("query", "--policy", path, "--json")
    assert len(first.json["rules"]) == 19

    def fail(sources: object) -> None:
        raise AssertionError(f"compiled again: {sources!r}"[:80])

    monkeypatch.setattr(cache, "compile_policy", fail)
    assert run("query", "--policy", path, "--json").json == first.json


# ---- check ----


def test_check_of_the_sample(run: Callable[..., Result], tmp_path: Path) -> None:
    path = written(tmp_path / "desktop.cil", SAMPLE.read_text())
    done = run("check", path)
    assert (done.code, "permissive-type" in done.out) == (0, True)
    assert done.out.endswith("1 thing to look at\n")
    assert run("check", "--strict", path).code == 1
    assert [each["id"] for each in run("check", path, "--json").json["findings"]] == [
        "permissive-type"
    ]


def test_check_of_what_is_well(run: Callable[..., Result], tmp_path: Path) -> None:
    rules = written(tmp_path / "a.rules", "allow a b mach_port { send };")
    done = run("check", "--strict", rules)
    assert (done.code, done.out) == (0, "0 types, 1 rule: nothing to look at\n")
    assert "error" not in run("check", rules, "--json").json


def test_check_says_what_was_expected_where(run: Callable[..., Result], tmp_path: Path) -> None:
    path = written(tmp_path / "bad.cil", "(type a_t)\n(allow a_t b_t (mach_port (send)))")
    done = run("check", path)
    assert done.code == 2
    assert done.out.startswith(f"{path}:2:12: error: expected a type or an attribute, found 'b_t'")
    told = run("check", path, "--json").json
    (error,) = told["errors"]
    assert told["error"] == f"{path}:2:12: {error['message']}"
    for each in (told, error):
        assert (each["file"], each["line"], each["column"]) == (str(path), 2, 12)


def test_check_tells_the_errors_of_every_module(run: Callable[..., Result], tmp_path: Path) -> None:
    cil = written(tmp_path / "bad.cil", "(tpye a_t)")
    rules = written(tmp_path / "bad.rules", "allow a b mach_port { sedn };")
    done = run("check", cil, rules, "--json")
    assert (done.code, [each["line"] for each in done.json["errors"]]) == (2, [1, 1])


# ---- diff ----


def test_diff_of_equals(run: Callable[..., Result], tmp_path: Path) -> None:
    old = written(tmp_path / "old.cil", SAMPLE.read_text())
    new = written(tmp_path / "new.cil", SAMPLE.read_text().replace("client", "customer"))
    assert (run("diff", old, new).code, run("diff", old, new).out) == (
        0,
        "the policies mean the same\n",
    )
    assert run("diff", old, new, "--json").json == {"equal": True, "items": [], "accesses": []}


def test_diff_of_others(run: Callable[..., Result], tmp_path: Path) -> None:
    old = written(tmp_path / "old.cil", SAMPLE.read_text())
    text = SAMPLE.read_text().replace("(allow client printd_t (mach_port (recv)))", "")
    new = written(tmp_path / "new.cil", text.replace("editors_cancel false", "editors_cancel true"))
    done = run("diff", old, new)
    assert (done.code, done.out.splitlines()) == (1, [
        "- boolean editors_cancel, false",
        "+ boolean editors_cancel, true",
        "",
        "- allow client printd_t mach_port recv",
    ])  # fmt: skip
    assert done.err == "2 declarations, 3 pairs of types differ\n"
    found = run("diff", old, new, "--json").json
    assert (found["equal"], found["accesses"][0]["pairs"]) == (False, 3)


# ---- flow ----


def test_flow(run: Callable[..., Result]) -> None:
    done = run("flow", "editor_t", "printd_t")
    assert (done.code, done.out.splitlines()[0]) == (0, "editor_t > spool_t > printd_t")
    assert "  printd_t reads from spool_t: use_recv" in done.out.splitlines()
    assert "draft_t is taken at its rules" in done.err
    ((first, second),) = run("flow", "editor_t", "printd_t", "--json").json["paths"]
    assert (first["to"], second["from"]) == ("spool_t", "spool_t")
    assert [each["sense"] for each in second["rules"]] == ["read"]


def test_flow_without_a_path(run: Callable[..., Result]) -> None:
    done = run("flow", "editor_t", "printd_t", "--max-length", 1)
    assert (done.code, done.out) == (1, "no path from editor_t to printd_t\n")
    assert run("flow", "editor_t", "printd_t", "--class", "mach_task", "--json").json["paths"] == []


def test_flow_under_booleans(run: Callable[..., Result]) -> None:
    words = ["flow", "editor_t", "spool_t", "--class", "mi_printing", "--json"]
    rules = [
        run(*words, *more).json["paths"][0][0]["rules"]
        for more in ([], ["--boolean", "editors_cancel=true"])
    ]
    assert [len(each) for each in rules] == [1, 2]


# ---- bad input ----

BAD: list[tuple[list[str], str]] = [
    (["access", "nobody_t", "spool_t", "mach_port"], "no type 'nobody_t'; there are: "),
    (["access", "client", "spool_t", "mach_port"], "'client' is an attribute"),
    (["access", "user_u:user_r:printd_t", "spool_t", "mach_port"], "role user_r may not have type"),
    (["access", "mls/low", "spool_t", "mach_port"], "no policy module 'mls'; loaded: te"),
    (["access", "te/", "spool_t", "mach_port"], "a value of 'te'"),
    (["access", "editor_t", "spool_t", "mach_prt"], "no class 'mach_prt'; did you mean mach_port"),
    (["access", "editor_t", "spool_t", "mach_port", "sned"], "'sned' is no permission of class"),
    (["explain", "editor_t", "spool_t", "mach_port", "sned"], "'sned' is no permission of class"),
    (["label", "editor_t", "nobody_t", "mach_port"], "no type 'nobody_t'"),
    (["query", "--source", "nobody_t"], "no type or attribute 'nobody_t'"),
    (["query", "--kind", "alow"], "'alow' is not one of"),
    (["flow", "editor_t", "nobody_t"], "no type 'nobody_t'"),
    (["flow", "editor_t", "editor_t"], "the same type"),
    (["flow", "editor_t", "printd_t", "--boolean", "x=true"], "no boolean 'x'"),
    (["flow", "editor_t", "printd_t", "--boolean", "editors_cancel"], "expected NAME=true"),
    (["flow", "editor_t", "printd_t", "--class", "x"], "no class 'x'"),
    (["access", "editor_t"], "Missing argument"),
    (["check"], "Missing argument"),
    (["check", "no-such-file.cil"], "does not exist"),
    (["query", "--policy", "no-such-file.cil"], "does not exist"),
    (["nonsense"], "No such command"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), BAD, ids=lambda value: " ".join(value)[:40])
def test_bad_input(run: Callable[..., Result], words: list[str], message: str) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize("verb", ["access", "explain"])
def test_policies_that_are_none(run: Callable[..., Result], tmp_path: Path, verb: str) -> None:
    words = [verb, "a_t", "b_t", "mach_port", "send"]
    bad = written(tmp_path / "bad.cil", "(type a_t")
    assert f"{bad}:1:1: expected ')'" in run(*words, "--policy", bad).err
    assert run(*words, "--policy", bad).code == 2
    binary = tmp_path / "binary.cil"
    binary.write_bytes(b"\xff\xfe\x00")
    assert run(*words, "--policy", binary).code == 2
    assert run("query", "--policy", written(tmp_path / "x.rules", "")).code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["access", "a\x1b[31m_t", "b_t", "mach_port"],
        ["access", "te/a\x1b]0;x\x07:r:t", "b_t", "mach_port"],
        ["access", "a_t", "b_t", "\x1b[2J"],
        ["query", "--source", "x\u202ey"],
        ["query", "--permission", "x\x9by"],
    ],
)
def test_terminal_control_never_comes_out(run: Callable[..., Result], words: list[str]) -> None:
    done = run(*words)
    assert done.code == 2
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.out + done.err)


def test_terminal_control_in_names_of_files(run: Callable[..., Result], tmp_path: Path) -> None:
    path = written(
        tmp_path / "a\x1b[31mb.cil", "(type a_t)\n(type dead_t)(allow a_t a_t (mach_port (send)))"
    )
    for done in (
        run("query", "--policy", path),
        run("check", path),
        run("explain", "a_t", "a_t", "mach_port", "send", "--policy", path),
        run("check", written(tmp_path / "c\x1b[31md.cil", "(typ a_t)")),
    ):
        assert "\\u{1b}[31m" in done.out
        assert "\x1b" not in done.out + done.err


# ---- screens and start ----


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_a_screen(run: Callable[..., Result], verb: str) -> None:
    done = run(*[verb][: bool(verb)], "--help")
    assert done.code == 0
    assert [line for line in done.out.splitlines() if len(line) > 80] == []


@pytest.mark.skipif(not PYMPI.exists(), reason="pympi is not installed as a command")
def test_a_terminal_gets_lines_of_its_width() -> None:
    master, slave = pty.openpty()
    done = subprocess.Popen(
        [PYMPI, "policy", "flow", "editor_t", "printd_t"],
        stdout=slave, stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "60", "TERM": "dumb"},
    )  # fmt: skip
    os.close(slave)
    output = b""
    while True:
        try:
            output += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    os.close(master)
    assert done.wait(60) == 0
    lines = click.unstyle(output.decode()).split("\r\n")
    assert len(lines) > 8
    assert max(map(len, lines)) <= 60


def test_help_of_pympi_imports_no_verb_of_policies() -> None:
    program = (
        "import sys; from pympi.cli import main; main(['--help'])\n"
        "print(sorted(m for m in sys.modules if m.startswith('pympi.cli.policy.')"
        " or m.startswith('pympi.policy.author')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("verb", "rules"),
    [("access", True), ("label", True), ("explain", True), ("query", False), ("flow", False)],
)
def test_help_says_which_policies_are_taken(
    run: Callable[..., Result], verb: str, rules: bool
) -> None:
    words = " ".join(run(verb, "--help").out.split())
    assert ("others are rules" in words) == rules
    assert ("A file of CIL" in words) != rules
