# SPDX-License-Identifier: BSD-2-Clause
"""Group K, hostile policy files: each ends in a PolicyError, soon, with its place."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import pympi
from pympi import AccessDenied, Kernel, PolicyError
from pympi.cli import main
from pympi.policy import Rules, TypeEnforcement, rules
from pympi.policy.cil import Budget, PolicyDatabase, compile_policy, read_files
from pympi.policy.cil.grammar import STATEMENTS
from pympi.policy.rules import BUDGET

# A text that never ends would keep this file from ending.
pytestmark = pytest.mark.timeout(60, method="thread")

SMALL = "(type a)(type b)\n(allow a b (mach_port (send)))\n"


def compiled(text: str, **limits: int) -> PolicyDatabase:
    return compile_policy([("k.cil", text)], budget=Budget(**limits))


def refused(text: str, **limits: int) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        compiled(text, **limits)
    return placed(caught.value, "k.cil")


def refused_rules(text: str, **limits: int) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        Rules.from_text(text, "k.rules", budget=replace(BUDGET, **limits))
    return placed(caught.value, "k.rules")


def placed(error: PolicyError, file: str) -> PolicyError:
    assert error.file == file
    assert error.line > 0
    assert error.column > 0
    return error


# ---- what doubles ----


@pytest.mark.parametrize(
    "text",
    [
        "(block b0 (type t))(block b1 (blockinherit b0) (block x (blockinherit b0)))",
        "(macro m0 () (type t))(macro m1 () (call m0) (call m0))",
        "(block b (blockabstract b))",
        "(optional o (type t))",
    ],
)
def test_k1_inheritance_and_macros_are_outside(text: str) -> None:
    assert "outside the subset" in str(refused(text))


def test_k1_doubling_of_class_maps_is_no_doubling() -> None:
    """Each of 30 maps has two permissions made of both permissions of the one before."""
    text = "(type a)(classmap m0 (x y))(classmapping m0 x (service (list)))"
    text += "(classmapping m0 y (service (create)))"
    for n in range(1, 30):
        both = f"(m{n - 1} (x y))"
        text += f"(classmap m{n} (x y))(classmapping m{n} x {both})(classmapping m{n} y {both})"
    db = compiled(text + "(allow a a (m29 (x)))")
    assert [db.rule_text(rule) for rule in db.rules] == ["(allow a a (service (create list)))"]


def test_k1_long_chains_of_class_maps_end() -> None:
    text = "(classmap m0 (x))(classmapping m0 x (service (list)))"
    for n in range(1, 2000):
        text += f"(classmap m{n} (x))(classmapping m{n} x (m{n - 1} (x)))"
    order = re.findall(r"\(classmap .*?\)\)\(classmapping .*?\)\)\)", text)
    assert "one made of the other" in str(refused("".join(reversed(order))))


@pytest.mark.parametrize("text", ['(include "k.cil")', "(include k.cil)", "(in k (in k (type a)))"])
def test_k2_nothing_includes(text: str) -> None:
    assert "expected" in str(refused(text + "(block k)")) or "another" in str(
        refused(text + "(block k)")
    )


def test_k2_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "k.cil"
    path.write_text(SMALL)
    with pytest.raises(PolicyError, match="given twice"):
        read_files([path, path])


@pytest.mark.parametrize("kind", ["type", "category", "role", "permission"])
def test_k2_sets_that_contain_themselves(kind: str) -> None:
    text = {
        "type": "(typeattribute x)(typeattribute y)"
        "(typeattributeset x (y))(typeattributeset y (x))",
        "category": "(categoryset x (y))(categoryset y (x))",
        "role": "(roleattribute x)(roleattribute y)(roleattributeset x (y))"
        "(roleattributeset y (x))",
        "permission": "(classpermission x)(classpermission y)"
        "(classpermissionset x y)(classpermissionset y x)",
    }[kind]
    assert "contains itself" in str(refused(text))


# ---- what multiplies ----


def attributes(count: int, members: str) -> str:
    return "".join(f"(typeattribute g{n})(typeattributeset g{n} ({members}))" for n in range(count))


def test_k3_ten_thousand_attributes_of_ten_thousand_types() -> None:
    text = "".join(f"(type t{n})" for n in range(8000)) + "\n" + attributes(8000, "all")
    db = compiled(text + "\n(allow g0 g7999 (mach_port (all)))")
    assert db.type("g0").members.bit_count() == 8002
    assert len(db.rules) == 1, "attributes stay what they are"


def test_k3_types_and_operands_are_bounded() -> None:
    types = "".join(f"(type t{n})\n" for n in range(20_001))
    assert "Budget.types" in str(refused(types))
    members = " ".join(f"t{n}" for n in range(1000))
    text = "".join(f"(type t{n})" for n in range(1000)) + "\n" + attributes(200, members)
    assert "Budget.operands" in str(refused(text.replace(")(", ")\n("), operands=100_000))


def test_k4_neverallow_of_everything_by_everything() -> None:
    groups = 2500
    text = "(type a)\n" + attributes(groups, "all").replace(")(", ")\n(")
    text += "".join(f"(allow g{n} g{n} (mach_port (send)))\n" for n in range(groups))
    text += "".join(f"(neverallow g{n} g{n} (mach_port (recv)))\n" for n in range(groups))
    assert "Budget.comparisons" in str(refused(text))


def test_k4_type_rules_of_everything_by_everything() -> None:
    groups = 2500
    text = "(type a)\n" + attributes(groups, "all").replace(")(", ")\n(")
    text += "".join(f"(typechange g{n} g{n} mach_port a)\n" for n in range(groups))
    assert "Budget.comparisons" in str(refused(text))


def test_k4_rules_of_class_maps_are_bounded() -> None:
    classes = "".join(f"(class c{n} (p))\n(classmapping m x (c{n} (p)))\n" for n in range(200))
    text = f"(type a)(classmap m (x))\n{classes}" + "(allow a a (m (x)))\n" * 600
    assert "Budget.rules" in str(refused(text, rules=100_000))


# ---- what is long or deep ----


def test_k5_identifier_of_a_mebibyte() -> None:
    for word in ("a" * (1 << 20), "a" * 2048):
        assert "Budget." in str(refused(f"(type {word})"))
    assert compiled(f"(type {'a' * 2047})").type("a" * 2047)
    assert "Budget.identifier" in str(refused(f"(block {'a' * 2000} (type {'b' * 100}))"))
    assert "Budget.line" in str(refused(f"; {'a' * (1 << 20)}"))


@pytest.mark.parametrize(
    "before", ["allow ", "allow a ", "allow a b mi_", "allow a b mi_x { ", "allow a b mi_x { c "]
)
def test_k5_name_of_a_mebibyte_in_rules(before: str) -> None:
    for length in (1 << 20, 2048):
        error = refused_rules(f"{before}{'a' * length} ")
        assert "Budget.identifier" in str(error)
        assert error.column == before.rfind(" ") + 2
    assert "found 'aaa" in str(refused_rules("a" * (1 << 20)))
    assert len(str(refused_rules("a" * (1 << 20)))) < 200
    assert Rules.from_text(f"allow {'a' * 2047} b * {{ * }}; # {'a' * (1 << 20)}").rules


@pytest.mark.parametrize(
    "text",
    [
        "(" * 900_000,
        "(\n" * 1_000_000,
        "(type a)\n" + ")" * 900_000,
        "(typeattribute x)(typeattributeset x " + "(not " * 100_000,
        "(block b " * 50_000,
        "(constrain (service (list)) " + "(not " * 100_000,
    ],
    ids=["open", "lines", "closed", "not", "block", "constrain"],
)
def test_k6_brackets(text: str) -> None:
    message = str(refused(text))
    assert "Budget.depth" in message or "nothing is open" in message


def test_k6_the_deepest_that_is_read_is_compiled() -> None:
    depth = Budget().depth
    nots = depth - 1
    text = f"(type a)(typeattribute x)(typeattributeset x {'(not ' * nots}a{')' * nots})"
    assert compiled(text).type("x").members.bit_count() in (1, 2)
    assert "Budget.depth" in str(refused(text.replace("(not a)", "(not (not a))")))


BRACES = [
    ("{" * 5_000_000, 1, 1),
    ("{\n" * 5_000_000, 1, 1),
    ("}" * 5_000_000, 1, 1),
    ("\n" * 1000 + "allow a b mi_x " + "{" * 5_000_000, 1001, 17),
    ("allow a b mi_x {" * 300_000, 1, 17 + len("allow a b mi_x ")),
    ("allow a b mi_x { c }" + ";" * 5_000_000, 1, 22),
    ("allow a b mi_x { c };\n}" + "allow a b mi_x { c };" * 200_000, 2, 1),
]


@pytest.mark.parametrize(("text", "line", "column"), BRACES, ids=range(len(BRACES)))
def test_k6_braces_in_rules(
    text: str, line: int, column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is where the first brace too many is, and nothing behind it is looked at."""
    looked_at = watched(monkeypatch)
    error = refused_rules(text)
    assert (error.line, error.column) == (line, column)
    assert len(looked_at) < 20


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of what is found in texts of rules from now on."""
    seen: list[str] = []

    class Watched:
        def finditer(self, text: str) -> Iterator[re.Match[str]]:
            for match in pattern.finditer(text):
                seen.append(match[0])
                yield match

    pattern = rules._TOKEN
    monkeypatch.setattr(rules, "_TOKEN", Watched())
    return seen


def test_k6_what_repeats_in_rules_is_bounded() -> None:
    assert "Budget.rules" in str(refused_rules("allow a b * { * };" * 5001, rules=5000))
    text = "allow a b * { " + "c " * 20_000
    assert "Budget.tokens" in str(refused_rules(text, tokens=20_000))
    assert "Budget.tokens" in str(refused_rules("#\n" * 20_001, tokens=20_000))
    text = "allow a b * { " + " ".join(f"c{n}" for n in range(5000))
    assert "Budget.types" in str(refused_rules(text, types=5000))
    assert "Budget.bytes" in str(refused_rules(" " * (BUDGET.bytes + 1)))


# ---- what contradicts, or names nothing ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(type a)", "expected a new name"),
        ("(typetransition a b mach_port a)(typetransition a b mach_port b)", "contradicts"),
        ("(neverallow a b (mach_port (send)))", "breaks"),
        ("(handleunknown deny)(handleunknown allow)", "said already"),
        ("(mls true)(mls false)", "said already"),
        ("(boolean x true)(boolean x false)", "expected a new name"),
    ],
)
def test_k7_contradictions(text: str, words: str) -> None:
    assert words in str(refused(SMALL + text))


def test_k7_the_same_rule_twice_is_the_same() -> None:
    db = compiled(SMALL + "(allow a b (mach_port (send)))")
    assert len({(r.source, r.target, r.tclass, r.permissions) for r in db.rules}) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(allow a nobody (mach_port (send)))", "'nobody', which is not declared"),
        ("(allow a b (mach_prot (send)))", "did you mean 'mach_port'?"),
        ("(allow a b (mach_port (sned)))", "expected a permission of mach_port"),
        ("(roletype r a)", "'r', which is not declared"),
        ("(userrange nobody ((s0) (s0)))", "expected a user"),
        ("(allowx a b (ioctl mach_port (1)))", "has no permission 'ioctl'"),
        ("(sidcontext kernel (u r a ((s0) (s0))))", "expected a user, found 'u'"),
    ],
)
def test_k8_undeclared(text: str, words: str) -> None:
    assert words in str(refused(SMALL + text))


@pytest.mark.parametrize("count", [33, 64, 65, 1000])
def test_k9_more_permissions_than_bits(count: int) -> None:
    words = " ".join(f"p{n}" for n in range(count))
    assert "at most 32 permissions" in str(refused(f"(class c ({words}))"))
    assert "at most 32 permissions" in str(refused(f"(common c ({words}))"))
    half = " ".join(f"q{n}" for n in range(30))
    text = f"(common k ({half}))(class c (x y z))(classcommon c k)"
    assert "at most 32 permissions" in str(refused(text))


def test_k9_the_32nd_permission_is_one() -> None:
    words = " ".join(f"p{n}" for n in range(32))
    db = compiled(f"(type a)(class c ({words}))(allow a a (c (p31)))(allow a a (c (all)))")
    assert [rule.permissions for rule in db.rules] == [1 << 31, (1 << 32) - 1]


def test_k10_what_grants_everything_shows() -> None:
    """An attribute of all types is not hidden behind its name: whoever looks sees the types."""
    text = (
        "(typeattribute world)(typeattributeset world (all))(allow world world (mach_port (all)))"
    )
    db = compiled(SMALL + text)
    rule = db.rules[-1]
    everything = (1 << db.type_count) - 1
    assert db.types[rule.source].members == db.types[rule.target].members == everything
    tclass = db.classes[rule.tclass]
    assert tclass.names(rule.permissions) == tclass.permissions


# ---- bytes ----


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"(type \xff)", "found the byte 0xff"),
        (b"(type a\0b)", "U+0000"),
        (b"\xef\xbb\xbf(type a)", "byte order mark"),
        ("(type a)\ufeff".encode(), "U+FEFF"),
        ("(type a) ; \u202e)b epyt(".encode(), "U+202E"),
        ("; \u2066(type a)\u2069".encode(), "U+2066"),
        ("(type \u0430dmin_t)".encode(), "U+0430"),
        ("(type a\u200b)".encode(), "U+200B"),
        ("(type a\u00a0b)".encode(), "U+00A0"),
        (b"; nothing\r(allow a b (mach_port (all)))", "U+000D"),
        ("; nothing\u2028(type b)".encode(), "U+2028"),
        (b"(type a\x1b[31m)", "U+001B"),
    ],
)
def test_k11_bytes_that_deceive(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "k.cil"
    path.write_bytes(data)
    with pytest.raises(PolicyError) as caught:
        compile_policy(read_files([path]))
    assert words in str(caught.value)
    assert caught.value.line
    assert caught.value.column
    assert str(caught.value).isprintable(), "the message deceives nobody either"


def test_k11_surrogates() -> None:
    assert "U+DC80" in str(refused("(type a) ; \udc80"))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "; the end", "\n\n"])
def test_k12_line_ends(ending: str, last: str) -> None:
    text = (SMALL + last).replace("\n", ending)
    db = compiled(text)
    assert db.rule_text(db.rules[0]) == "(allow a b (mach_port (send)))"
    assert db.rules[0].line == 2
    assert compile_policy([("k.cil", db.text)]).rules[0][:5] == db.rules[0][:5]


def test_k12_no_end_of_line_joins_files() -> None:
    db = compile_policy([("one", "(type a) ; no end"), ("two", "(allow a a (service (list)))")])
    assert compile_policy([("both", db.text)]).rules[0][:5] == db.rules[0][:5]


@pytest.mark.parametrize(
    "numbers",
    ["range 9 3", "range 0 4294967295", "range 0 4294967296", "range 0 " + "9" * 1000,
     "range -1 3", "65536", "0x10000", "1e3", "range 1", "range 1 2 3", "0b11", "٣"],
)  # fmt: skip
def test_k13_ranges_of_numbers(numbers: str) -> None:
    text = f"(class mi_x (r ioctl))(allowx a b (ioctl mi_x ({numbers})))"
    assert "expected" in str(refused(SMALL + text))


def test_k13_ranges_of_levels() -> None:
    levels = (
        "(sensitivity s0)(sensitivity s1)(sensitivityorder (s0 s1))(category c0)(category c1)"
        "(categoryorder (c0 c1))(sensitivitycategory s1 (all))"
    )
    assert "dominates" in str(refused(levels + "(levelrange r ((s1) (s0)))"))
    assert "not before" in str(refused(levels + "(level l (s1 (range c1 c0)))"))
    assert "categories of s0" in str(refused(levels + "(level l (s0 (all)))"))


# ---- files ----


@pytest.mark.parametrize("word", [b"\x8c\xff\x7c\xf9", b"\x8d\xff\x7c\xf9", b"\xf9\x7c\xff\x8c"])
def test_k14_compiled_policies(tmp_path: Path, word: bytes) -> None:
    path = tmp_path / "policy.33"
    path.write_bytes(word + b"\x08\0\0\0SE Linux\x21\0\0\0")
    with pytest.raises(PolicyError) as caught:
        compile_policy(read_files([path]))
    assert re.search("compiled policy|found the byte 0x", str(caught.value))


def test_k15_a_policy_that_allows_nothing_locks_nobody_out() -> None:
    """The embedding program is no subject: it replaces a policy that denies everything."""
    strict = TypeEnforcement.from_text("(user u)(role r)(type t)(userrole u r)(roletype r t)")
    open_ = TypeEnforcement.from_text(
        "(user u)(role r)(type t)(userrole u r)(roletype r t)(typeattribute k)"
        "(typeattributeset k (all))" + "".join(
            f"(allow k k ({name} (all)))" for name in ("mach_port", "mach_task", "service")
        )
    )  # fmt: skip
    with Kernel(policies=[strict]) as kernel:
        task = kernel.create_task("task", label="te/u:r:t")
        inbox = task.allocate_port()
        with pytest.raises(AccessDenied):
            inbox.make_send(task).send(b"x", timeout=0)
        kernel.policies.replace("te", open_)
        inbox.make_send(task).send(b"x", timeout=0)
        assert inbox.receive(timeout=0).body == b"x"


def test_k16_links_that_leave_the_root(tmp_path: Path) -> None:
    root, secret = tmp_path / "policies", tmp_path / "secret"
    root.mkdir()
    secret.write_text("(type hidden_name)")
    (root / "link").symlink_to(secret)
    (root / "directory").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    for path in (root / "link", root / "directory" / "secret", root / "loop"):
        with pytest.raises(PolicyError) as caught:
            read_files([path], root=root)
        assert "hidden_name" not in str(caught.value)


def test_k16_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull), Path("/dev/zero")):
        for read in (lambda path: read_files([path]), Rules.from_file):
            with pytest.raises(PolicyError, match="expected a regular file"):
                read(path)


def test_k16_links_in_the_names_of_rules(tmp_path: Path) -> None:
    for name, target in {"k.rules": "/dev/zero", "loop": "loop", "nowhere": "absent"}.items():
        (tmp_path / name).symlink_to(target)
        with pytest.raises(PolicyError, match=r"regular file|symbolic links|No such file"):
            Rules.from_file(tmp_path / name)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PolicyError, match=r"Budget\.bytes"):
        Rules.from_file(large)


def test_k16_the_commands_wait_for_no_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.rules")
    (tmp_path / "zero.rules").symlink_to("/dev/zero")
    trace = Path(pympi.__file__).parent / "data" / "demo.trace"
    for path in (tmp_path / "pipe.rules", tmp_path / "zero.rules"):
        for words in (
            ["policy", "check", path],
            ["policy", "explain", "--policy", path, "a", "b", "mach_port", "send"],
            ["replay", "--policy", path, trace],
        ):
            assert main([str(word) for word in words]) == 2
            assert "expected a regular file" in "".join(capsys.readouterr())


# ---- all of it ----


def test_changed_texts_end_in_a_policy_or_a_policy_error() -> None:
    """Words moved, lost and doubled in a text that has nearly every statement."""
    sample = (
        SMALL + "(typeattribute k)(typeattributeset k (a b))(typealias l)(typealiasactual l a)"
        "(class c (p ioctl))(common d (e))(classcommon c d)(classorder (c))(classmap m (x))"
        "(classmapping m x (c (p)))(classpermission s)(classpermissionset s (m (all)))(allow a b s)"
        "(user u)(role r)(userrole u r)(roletype r k)(roleattribute ra)(roleattributeset ra (r))"
        "(mls true)(sensitivity s0)(sensitivityorder (s0))(category c0)(category c1)"
        "(categoryorder (c0 c1))(sensitivitycategory s0 (range c0 c1))(categoryset cs (c0))"
        "(level v (s0 cs))(levelrange w ((s0) v))(userlevel u (s0))(userrange u w)(boolean o true)"
        "(context x (u r a w))(sid z)(sidcontext z x)(permissionx y (ioctl c (1 (range 2 3))))"
        "(allowx a self y)(booleanif (and o (not o)) (true (allow a k (c (p)))))(typepermissive b)"
        "(typetransition a k c b)(constrain (c (p)) (or (eq t1 (a k)) (eq u1 u2)))"
        "(mlsconstrain (c (p)) (domby l1 l2))(block n (type i))(in n (allow i a (c (p))))"
        "(neverallow b a (c (p)))(expandtypeattribute (k) true)(handleunknown allow)"
    )
    compiled(sample)
    rng = random.Random(20)
    words = re.findall(r"[()]|[^\s()]+", sample)
    vocabulary = [*set(words), *STATEMENTS, "self", "all", "range", '"q"', ".", "n.", ".a", "0x1"]
    accepted = sum(ends(" ".join(changed(rng, words, vocabulary))) for _ in range(2000))
    assert 0 < accepted < 2000


def changed(rng: random.Random, words: list[str], vocabulary: list[str]) -> list[str]:
    """Return words of which some were replaced, taken out, or put in."""
    words = list(words)
    for _ in range(rng.randint(1, 3)):
        at, how = rng.randrange(len(words)), rng.random()
        words[at : at + (how > 0.3)] = [rng.choice(vocabulary)] * (how < 0.8)
    return words


def ends(text: str) -> bool:
    """Whether a text is a policy; if not, the error says where."""
    try:
        compiled(text)
    except PolicyError as error:
        place = (error.line, error.column)
    else:
        return True
    assert all(place), text
    return False
