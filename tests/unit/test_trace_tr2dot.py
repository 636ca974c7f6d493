# SPDX-License-Identifier: BSD-2-Clause
"""pympi.trace.graph.tr2dot and .rules: SEDarwin's tool with its quirks, and its rules files."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from pympi.trace.graph.names import shortened
from pympi.trace.graph.rules import Matches, Rule, RulesError, parse_rule, read_rules
from pympi.trace.graph.tr2dot import Pair, pair_dot, split, tr2dot


def line(task: str, owner: str, event: str = "send", number: int = 7, count: int = 1) -> bytes:
    return f"{event:<9} {task:<66} | {owner:<66}:{number:5} {count:6}".encode()


def pairs(*lines: bytes, rules: str = "") -> list[Pair]:
    made = tr2dot(lines, [parse_rule(rule) for rule in rules.splitlines()])
    assert made.bad == []
    return made.pairs


# ---- its edges ----


@pytest.mark.parametrize(
    ("lines", "pair"),
    [
        ([line("/a", "/b")], Pair("/a", "/b", "forward")),
        # the arrow points at the sender: "back" of an edge that begins there
        ([line("/b", "/a")], Pair("/b", "/a", "back")),
        ([line("/a", "/b"), line("/b", "/a")], Pair("/a", "/b", "none")),
        ([line("/b", "/a"), line("/a", "/b")], Pair("/b", "/a", "none")),
        ([line("/a", "/a")], Pair("/a", "/a", "back")),
        ([line("/x/a", "/y/a")], Pair("a", "a", "back")),  # one name, whoever it was
        ([line("/B", "/a")], Pair("/B", "/a", "forward")),  # by bytes: capitals first
    ],
)
def test_directions(lines: list[bytes], pair: Pair) -> None:
    assert pairs(*lines) == [pair]


def test_events_ports_and_counts_do_not_matter() -> None:
    some = [
        line("/a", "/b", event, n, n + 1) for n, event in enumerate(("send", "move_recv", "xy"))
    ]
    assert pairs(*some) == [Pair("/a", "/b", "forward")]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("/usr/sbin/syslogd", "syslogd"),
        ("/foo", "/foo"),
        ("foo/", "foo/"),
        ("/A/Mail.app/Contents/MacOS/Mail", "Mail.app"),
        ("/A/Mail.app/Contents/MacOS/Main", "Main"),
        ("/A/Mail.app/Contents/MacOS/Mail/x", "x"),
        ("mach_kernel:task", "mach_kernel"),
        ("mach_kernel_server", "mach_kernel"),
        ("/usr/mach_kernelx", "mach_kernel"),
        ("/A/font server", "font server"),
    ],
)
def test_names_are_shortened(name: str, short: str) -> None:
    assert shortened(name) == short
    assert pairs(line(name, "/zz"))[0].tail == short


def test_unknown_names_are_skipped() -> None:
    assert pairs(line("?", "/b"), line("/a", "?"), line("/a?", "/b")) == [
        Pair("/a?", "/b", "forward")
    ]


def test_names_with_blanks_colons_and_bars() -> None:
    assert pairs(line("/a b", "/c : d")) == [Pair("/a b", "/c : d", "forward")]
    # of several bars the last parts task from owner
    assert pairs(line("/a | b", "/c")) == [Pair("/a | b", "/c", "forward")]
    assert pairs(line("/a|b", "/c")) == [Pair("/a|b", "/c", "forward")]


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"nonsense", b"send", b" " + line("/a", "/b"), line("/a", "/b") + b" ",
        line("/a", "/b") + b"\r", line("/a", "/b").replace(b"|", b"!"), line("/a", "")[:160],
        line("/a", "/b").replace(b":", b";"), line("/a", "/b", "Send"),
        line("/a", "/b").replace(b"     1", b"    1x"), b"option", b"option color red",
        b"option color re[d /a", b"option paint red /a", b"option ignore (", b"x trace records:",
    ],
)  # fmt: skip
def test_bad_lines_are_told_and_passed_over(bad: bytes) -> None:
    made = tr2dot([bad, line("/a", "/b")])
    assert made.bad == [bad]
    assert made.pairs == [Pair("/a", "/b", "forward")]


def test_header_is_skipped() -> None:
    assert pairs(b"12 trace records:", line("/a", "/b")) == [Pair("/a", "/b", "forward")]


def test_hostile_lines_take_linear_time() -> None:
    for text in (b" " * 16000, b"send " + b" |" * 8000, b"send " + b"| : 1 1" * 2000, b":" * 16000):
        assert tr2dot([text] * 20).bad == [text] * 20


# ---- options ----


def test_ignored() -> None:
    records = line("/a", "/b"), line("/a", "mach_kernel:task"), line("/sbin/mach_init", "/a")
    assert pairs(*records, rules="option ignore ^mach_") == [Pair("/a", "/b", "forward")]
    assert pairs(*records, rules="option ignore a") == []  # anywhere in the name


def test_colours_of_the_port_owner_first_and_twice_if_both_match() -> None:
    rules = "option color red a\noption color blue b\noption color #00ff00 ."
    (pair,) = pairs(line("/a", "/b"), rules=rules)
    assert pair.colors == ("blue", "#00ff00", "red", "#00ff00")
    assert pair_dot([pair]) == (
        'digraph G {\n"/a" -> "/b" [dir=forward,color=blue,color="#00ff00",color=red,'
        'color="#00ff00"];\n}\n'
    )


def test_options_are_about_later_lines_and_colours_are_not_looked_at_again() -> None:
    lines = [line("/a", "/b"), b"option color red /a", line("/a", "/b"), line("/a", "/c")]
    lines += [b"option ignore c", line("/a", "/c"), line("/d", "/c")]
    assert pairs(*lines) == [Pair("/a", "/b", "forward"), Pair("/a", "/c", "forward", ("red",))]


def test_bytes_are_matched_one_by_one() -> None:
    assert pairs(line("/é", "/b"), rules="option ignore ^/..$") == []
    assert pairs(line("/é", "/b"), rules="option ignore \\w{2}") != []


# ---- names that break DOT in the ancestor ----


def test_hostile_names_are_escaped() -> None:
    made = pairs(line('/a" [URL="x', "/b\\"), line("/c\x1b", "/d"))
    assert pair_dot(made).splitlines()[1:-1] == [
        r'"/a\" [URL=\"x" -> "/b\\" [dir=forward];', r'"/c\\u{1b}" -> "/d" [dir=forward];',
    ]  # fmt: skip


# ---- dotbyproc, as it should have been ----


def test_split_by_name_not_by_part_of_a_name() -> None:
    made = split(pairs(line("/bin/sh", "/sbin/sshd"), line("/bin/font server", "/sbin/sshd")))
    assert {name: len(some) for name, some in made.items()} == {
        "font server": 1, "sh": 1, "sshd": 2,
    }  # fmt: skip


# ---- the recorded boot ----


@pytest.mark.real_data
def test_recorded_boot(shared_data: Path) -> None:
    text = (shared_data / "ipctrace" / "darwin-boot.trace").read_bytes()
    made = tr2dot(text.splitlines())
    assert made.bad == []
    assert len(made.pairs) == 362
    assert Counter(pair.direction for pair in made.pairs) == {
        "none": 144, "back": 138, "forward": 80,
    }  # fmt: skip
    less = tr2dot(
        text.splitlines(), [Rule("", "mach_kernel"), Rule("", "mach_init"), Rule("red", "Server")]
    ).pairs
    kept = {
        pair for pair in made.pairs
        if not {"mach_kernel", "mach_init"} & {pair.tail, pair.head}
    }  # fmt: skip
    assert {pair._replace(colors=()) for pair in less} == kept
    assert all(bool(p.colors) == ("Server" in p.tail or "Server" in p.head) for p in less)


@pytest.mark.real_data
def test_order_of_records_changes_no_pair(shared_data: Path, rng: random.Random) -> None:
    """What "none" means does not depend on the order; which end is drawn first does."""
    lines = (shared_data / "ipctrace" / "darwin-boot.trace").read_bytes().splitlines()[1:]
    before = {frozenset((p.tail, p.head)): p for p in tr2dot(lines).pairs}
    rng.shuffle(lines)
    after = {frozenset((p.tail, p.head)): p for p in tr2dot(lines).pairs}
    assert before.keys() == after.keys()
    for key, pair in before.items():
        assert (pair.direction == "none") == (after[key].direction == "none")


# ---- rules files ----


def rules_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "r.rules"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rules_file(tmp_path: Path) -> None:
    path = rules_file(tmp_path, "# mine\n\noption ignore ^a b$\r\noption\tcolor  red  x|y\n")
    found = read_rules(path)
    assert [(rule.color, rule.pattern, rule.line) for rule in found] == [
        ("", "^a b$", 3), ("red", "x|y", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("option ignore a\nignore b\n", ":2: expected 'option ignore REGEX' or"),
        ("option ignore\n", ":1: expected 'option ignore REGEX' or"),
        ("option color red\n", ":1: expected 'option ignore REGEX' or"),
        ('option color red,URL="x" a\n', ":1: expected a colour: a name, #rrggbb"),
        ("option ignore (a\n", ":1: '(a' is no expression of Python's: missing )"),
        ("option ignore [[:alpha:]]\n", ":1: '[[:alpha:]]' is no expression"),
        ("option ignore a\\z\n", ":1: 'a\\\\z' is no expression"),
        ("option ignore " + "(" * 3000 + "a" + ")" * 3000 + "\n", ":1: expected a line of at most"),
        (b"option ignore \xff\n", ":1: expected UTF-8"),
        ("option ignore a\n" * 1002, ":1001: expected at most 1000 lines"),
    ],
)
def test_broken_rules_are_refused_with_their_place(
    tmp_path: Path, text: str | bytes, complaint: str
) -> None:
    path = rules_file(tmp_path, text)
    with pytest.raises(RulesError) as caught:
        read_rules(path)
    assert str(caught.value).startswith(f"{path}{complaint}")


def test_an_expression_that_would_not_end_is_stopped_and_named(tmp_path: Path) -> None:
    rules = read_rules(rules_file(tmp_path, "option ignore b\noption color red (a+)+$\n"))
    with pytest.raises(RulesError, match=r"r\.rules:2: '\(a\+\)\+\$' takes too long \(all .* 1 se"):
        Matches(rules, ["a" * 60 + "!"], limit=1)


def test_first_colour_wins_in_our_own_pictures() -> None:
    matches = Matches([Rule("red", "a"), Rule("blue", "b"), Rule("", "z")], ["a", "ab", "z", "b"])
    assert [matches.color(name) for name in ("a", "ab", "b", "z")] == ["red", "red", "blue", ""]
    assert matches.ignored("a", "z")
    assert not matches.ignored("ab")
    assert matches.color() == ""


# ---- the same in Perl ----

PERL = Path(__file__).with_name("tr2dot_by_the_facts.pl")
needs_perl = pytest.mark.skipif(not shutil.which("perl"), reason="no perl")
RULES = (
    b"option ignore ^(names|mach_init)$", b"option color red Server$|^k",
    b"option color blue \\w+\\.app", b"option ignore (.)\\1\\1", b"option color green (?=l).*d",
)  # fmt: skip


def same_in_perl(lines: list[bytes]) -> None:
    """Compare the sets of edges, and the lines that are complained about."""
    done = subprocess.run(
        ["perl", str(PERL)], input=b"\n".join(lines), capture_output=True, check=True
    )
    made = tr2dot(lines)
    ours = pair_dot(made.pairs).encode("latin-1").splitlines()[1:-1]
    assert sorted(ours) == sorted(done.stdout.splitlines())
    assert [b"bad line " + line for line in made.bad] == done.stderr.splitlines()


@needs_perl
def test_perl_agrees_about_the_demo() -> None:
    lines = (Path(str(resources.files("pympi"))) / "data" / "demo.trace").read_bytes().splitlines()
    same_in_perl(lines)
    same_in_perl([*RULES[:2], *lines])
    same_in_perl([*lines[:100], *RULES, *lines[100:]])


@needs_perl
@pytest.mark.real_data
def test_perl_agrees_about_the_recorded_boot(shared_data: Path) -> None:
    lines = (shared_data / "ipctrace" / "darwin-boot.trace").read_bytes().splitlines()
    same_in_perl(lines)
    same_in_perl([*lines[:2000], *RULES, *lines[2000:]])


@needs_perl
def test_perl_agrees_about_lines_of_all_kinds(rng: random.Random) -> None:
    words = [
        "send", "copy_send", "Send", "a", "/a", "/x/b", "c d", "?", "mach_kernel:task", "|", " ",
        ":", " : ", " | ", "7", "12", "   ", "M.app/Contents/MacOS/M", "/", "é", "//",
        "option ignore a", "3 trace records:", "mach_kernel", "/x/", "xM.app/Contents/MacOS/M",
    ]  # fmt: skip
    lines = [line("/a b", "/x/c", number=1)]
    for _ in range(3000):
        parts = rng.choices(words, k=rng.randint(1, 9))
        text = rng.choice(["", " "]).join(parts)
        if rng.random() < 0.7:
            text = f"send {text} | {rng.choice(words)}: {rng.randint(0, 9)} {rng.randint(1, 9)}"
        if not text.startswith("option"):
            lines.append(text.encode())
    same_in_perl([text for text in lines if b'"' not in text and b"\\" not in text])
