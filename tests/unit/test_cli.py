# SPDX-License-Identifier: BSD-2-Clause
"""The `pympi` command: what it says when it cannot do what it was told, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import audit_files
import click
import pytest

from pympi.cli import main
from pympi.cli.policy import VERBS

DATA = resources.files("pympi") / "data"
PYMPI = Path(sys.executable).with_name("pympi")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the sample policy and the demo."""
    for name in ("desktop.cil", "demo.trace", "demo.rules"):
        shutil.copy(str(DATA / name), tmp_path)
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "binary.cil").write_bytes(bytes(range(256)))
    (tmp_path / "cut.audit").write_bytes(b"pympi audit 1\nRECS\xff")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- errors for programs ----


@pytest.mark.parametrize(
    ("command", "code", "place"),
    [
        ("policy access nobody_t spool_t mach_port", 2, (None, None, None)),
        ("policy access editor_t spool_t nothing", 2, (None, None, None)),
        ("policy access editor_t spool_t mach_port sned", 2, (None, None, None)),
        ("policy label nobody_t spool_t mach_port", 2, (None, None, None)),
        ("policy explain editor_t spool_t mach_port sned", 2, (None, None, None)),
        ("policy query --source nobody_t", 2, (None, None, None)),
        ("policy query --policy wrong.cil", 2, ("wrong.cil", 2, 12)),
        ("policy flow --policy wrong.cil a_t b_t", 2, ("wrong.cil", 2, 12)),
        ("policy diff desktop.cil wrong.cil", 2, ("wrong.cil", 2, 12)),
        ("policy query --policy demo.rules", 2, ("demo.rules", None, None)),
        ("policy query --policy absent.cil", 2, ("absent.cil", None, None)),
        ("policy learn absent.trace", 2, ("absent.trace", None, None)),
        ("replay absent.trace", 2, ("absent.trace", None, None)),
        ("policy query --nonsense", 2, (None, None, None)),
        ("policy learn wrong.cil", 2, ("wrong.cil", 1, 1)),
        ("policy learn cut.audit", 2, (None, None, None)),
        ("policy unused desktop.cil empty", 2, ("empty", 1, 1)),
        ("policy coverage wrong.cil demo.trace", 2, ("wrong.cil", 2, 12)),
        ("policy learn demo.trace --neverallow never.cil", 1, ("never.cil", 1, None)),
        ("policy learn demo.trace --out absent/x.cil", 2, ("absent/x.cil", None, None)),
        ("replay wrong.cil", 2, ("wrong.cil", 1, 1)),
        ("nonsense", 2, (None, None, None)),
    ],
)
def test_with_json_errors_are_objects(
    here: Path, capsys, command: str, code: int, place: tuple[object, ...]
) -> None:
    (here / "wrong.cil").write_text("(type a_t)\n(allow a_t b_t (mach_port (send)))\n")
    rule = "(neverallow task-boot-first kobject_host__priv (mach_port (send)))\n"
    (here / "never.cil").write_text(rule)
    assert main(command.split()) == code
    said = " ".join(capsys.readouterr().err.split()).rpartition("pympi: ")[2]
    assert main([*command.split(), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["line"], found["column"]) == place
    assert said == " ".join(found["error"].split())


# ---- errors ----

BAD = [
    ("policy check missing.cil", "File 'missing.cil' does not exist."),
    ("policy check directory", "File 'directory' is a directory."),
    (
        "policy coverage binary.cil demo.trace",
        "binary.cil:2:118: expected UTF-8, found",
    ),
    ("policy coverage empty demo.trace", "empty: expected a file of CIL, named *.cil"),
    ("policy unused desktop.cil binary.cil", "binary.cil:1:1: expected '<N> trace records:'"),
    ("policy coverage desktop.cil cut.audit", "cut.audit, byte 14: the file is cut off"),
    (
        "policy learn empty",
        "empty:1:1: expected '<N> trace records:' or 'pympi trace 1: ...', or an audit file, a",
    ),
    ("policy coverage desktop.cil", "Missing argument 'TRACE-OR-AUDIT...'"),
    (
        "replay demo.trace --policy binary.cil",
        "binary.cil:2:118: expected UTF-8, found",
    ),
    ("replay demo.trace --policy desktop.cil", "no type 'task_mach__kernel'; there are: courier_t"),
    ("nothing", "No such command 'nothing'"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_what_was_given_is_at_fault(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("pympi: ")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("policy learn demo.trace --out nowhere/p.cil", "nowhere/p.cil"),
        ("policy learn demo.trace --certificate nowhere/p", "nowhere/p"),
        ("replay demo.trace --out /proc/nowhere", "/proc/nowhere"),
    ],
)
def test_what_cannot_be_written_is_named_as_it_was_given(
    capsys: pytest.CaptureFixture[str], words: str, path: str
) -> None:
    assert main(words.split()) == 2
    assert capsys.readouterr().err == f"pympi: {path}: No such file or directory\n"


def test_names_of_files_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bad, trace = "bad\x1b[31m\n.cil", "evil\x1b[2J.trace"
    Path(bad).write_text("(allow a b)")
    shutil.copy("demo.trace", trace)
    shutil.copy("desktop.cil", good := "good\x1b[31m\n.cil")
    for words in (
        ["check", bad], ["query", "--policy", bad], ["coverage", bad, trace],
        ["coverage", good, trace], ["unused", good, trace], ["check", "gone\x1b[31m"],
        ["certify", bad, trace, trace], ["learn", bad], ["gone\x1b[31m"],
        ["check", "--gone\x1b[31m"],
    ):  # fmt: skip
        main(["policy", *words])
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err, words
        assert "\n.cil" not in out + err, words


def test_certify_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "certify", "desktop.cil", "empty", "demo.trace"]) == 1
    assert capsys.readouterr().out.startswith("desktop.cil:11: not what learn writes")
    assert main(["policy", "learn", "demo.trace", "--out", "p.cil"]) == 0
    capsys.readouterr()
    assert main(["policy", "certify", "p.cil", "empty", "demo.trace"]) == 1
    assert capsys.readouterr().out.startswith("empty: expected JSON")


def test_a_label_in_an_audit_file_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    from pympi import Kernel, audit
    from pympi.policy import Partition

    with Kernel(policies=[Partition()]) as kernel:
        kernel.audit.everything()
        batches: list[audit.Batch] = []
        kernel.audit.attach(batches.append)
        task = kernel.create_task("a", label="partition/red")
        task.allocate_port().make_send(task)
    whole = audit_files.form_1(batches)
    Path("run.audit").write_bytes(whole.replace(b"partition/red", b"partition+red"))
    assert main(["policy", "coverage", "desktop.cil", "run.audit"]) == 2
    assert capsys.readouterr().err.startswith("pympi: run.audit: label 'partition+red'")


# ---- how it ends ----


def test_interrupted_it_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pympi.cli.policy import _policy

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_policy, "database", interrupt)
    assert main(["policy", "query"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.skipif(not PYMPI.exists(), reason="pympi is not installed as a command")
@pytest.mark.parametrize("words", [["policy", "query"], ["--help"], ["policy", "check", "--help"]])
def test_nobody_reads_what_it_prints(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [PYMPI, *words], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_shells_can_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PYMPI_COMPLETE", "bash_source")
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code in (0, 1)


# ---- screens ----


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_no_line_of_a_help_screen_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in ([], ["policy"], ["replay"], ["demo"], *(["policy", verb] for verb in VERBS)):
        assert main([*words, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= int(columns)
        commands = lines[lines.index("Commands:") :] if "Commands:" in lines else []
        assert not [line for line in commands if line.endswith("...")]


def be_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the standard streams say that they are a terminal, 60 columns wide."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)


def lines_of(text: str) -> list[str]:
    return click.unstyle(text).splitlines()


def test_refusals_and_complaints_are_broken_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_terminal(monkeypatch)
    assert main(["replay", "demo.trace", "--policy", "demo.rules"]) == 0
    lines = lines_of(capsys.readouterr().out)
    assert max(len(line) for line in lines if " " in line.strip()) <= 60
    main(["policy", "explain", "editor_t", "spool_t", "mach_port", "sned"])
    lines = lines_of(capsys.readouterr().err)
    assert max(map(len, lines)) <= 60
    assert any("relabelfrom" in line for line in lines), "no word is cut"


class AtOnce:
    """A timer for those who cannot wait."""

    def __init__(self, _: float, act: Callable[[], None]) -> None:
        self.start = act

    def cancel(self) -> None: ...
    def join(self) -> None: ...


def test_what_takes_long_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_terminal(monkeypatch)
    main(["policy", "check", "desktop.cil"])
    assert "policy check" not in capsys.readouterr().err
    monkeypatch.setattr(threading, "Timer", AtOnce)
    main(["policy", "check", "desktop.cil"])
    out, err = capsys.readouterr()
    assert "policy check ..." in err
    assert "policy check" not in out


def test_json_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        "check desktop.cil", "access editor_t spool_t mach_port send recv",
        "label editor_t editor_t mach_task", "explain courier_t spool_t mach_port send", "query",
        "diff desktop.cil desktop.cil", "flow editor_t printd_t",
        "learn demo.trace --out p.cil --certificate p.json", "certify p.cil p.json demo.trace",
        "unused p.cil demo.trace", "coverage p.cil demo.trace --fail-under 100",
    ):  # fmt: skip
        assert main(["policy", *words.split(), "--json"]) in (0, 1), words
        out, err = capsys.readouterr()
        assert json.loads(out), words
        assert err == "", words
