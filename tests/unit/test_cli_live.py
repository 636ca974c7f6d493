# SPDX-License-Identifier: BSD-2-Clause
"""The verbs at a control socket: a live kernel, and what comes of one that is not there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pympi import Kernel
from pympi.inspect import Connection, Snapshot
from pympi.policy import Partition, TypeEnforcement
from pympi.policy.native import PATIENCE

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
POLICY = """
(type task_t)
(role task_r) (roletype task_r task_t) (user task_u) (userrole task_u task_r)
(allow task_t self (kernel (inspect reload_policy)))
(allow task_t self (mach_task (observe)))
(allow task_t self (mach_port (get_attributes make_send hold_send use_recv)))
"""
SENDS = "(allow task_t self (mach_port (send)))"
LABEL = "te/task_u:task_r:task_t"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with Kernel() as kernel:
        task = kernel.create_task("printd")
        task.bootstrap.register("com.example.print", task.allocate_port())
        kernel.inspect_at(tmp_path / "run" / "control", read_only=False)
        yield kernel


@pytest.fixture
def socket(kernel: Kernel, tmp_path: Path) -> Path:
    assert not kernel.closed
    return tmp_path / "run" / "control"


@pytest.mark.parametrize(
    "words",
    [["tasks"], ["ports"], ["labels"], ["bootstrap", "dump"],
     ["bootstrap", "look-up", "com.example.print"], ["policy", "status"]],
)  # fmt: skip
def test_live_and_saved_say_the_same(
    pympi: Run, socket: Path, tmp_path: Path, words: list[str]
) -> None:
    assert pympi("snapshot", "--attach", socket, tmp_path / "run.snap").code == 0
    for option in ([], ["--json"]):
        live = pympi(*words, "--attach", socket, *option)
        assert (live.code, live.err.startswith("Error")) == (0, False)
        assert live.out == pympi(*words, tmp_path / "run.snap", *option).out


def test_attached_the_first_word_is_a_task(pympi: Run, socket: Path) -> None:
    assert pympi("tasks", "--attach", socket, "printd").lines[1][1] == "printd"
    assert pympi("tasks", "--attach", socket, "nobody").code == 1
    assert pympi("tasks", "--attach", socket, "printd", "more").code == 2


# ---- snapshot ----


def test_snapshot(pympi: Run, socket: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.snap"
    done = pympi("snapshot", "--attach", socket, path)
    assert done.out.startswith(f"{path}: 2 tasks, ")
    assert "operations meanwhile" in done.out
    assert [task.name for task in Snapshot.load(path).tasks] == ["printd", "bootstrap"]
    done = pympi("snapshot", "--attach", socket, path, "--consistent")
    assert "stood still for" in done.out
    assert pympi("snapshot", "--attach", socket, path, "--json").json["tasks"] == 2


def test_snapshot_where_nothing_can_be_written(pympi: Run, socket: Path, tmp_path: Path) -> None:
    done = pympi("snapshot", "--attach", socket, tmp_path / "none" / "x")
    assert (done.code, done.err) == (2, f"pympi: {tmp_path}/none/x: No such file or directory\n")
    assert pympi("snapshot", tmp_path / "x").code == 2


# ---- avcstat ----


@pytest.fixture
def naps(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long avcstat and leaks wanted to sleep; each time a task is made and a port leaked."""
    slept: list[float] = []
    kept: list[object] = []

    def nap(seconds: float) -> None:
        slept.append(seconds)
        kept.append(kernel.tasks[1].allocate_port())

    monkeypatch.setattr(time, "sleep", nap)
    return slept


def test_avcstat_is_relative_after_the_first_line(
    tmp_path: Path, pympi: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Kernel(policies=[TypeEnforcement.from_text(POLICY)]) as kernel:
        kernel.inspect_at(tmp_path / "run" / "control", label=LABEL)
        port = kernel.create_task("a", LABEL).allocate_port()

        def work(_: float) -> None:
            for _ in range(10):
                kernel.access(LABEL, LABEL, "mach_port", "recv")
                port.make_send(port.task)

        monkeypatch.setattr(time, "sleep", work)
        words = ("avcstat", "--attach", tmp_path / "run" / "control", "2.5", "--count", 3, "--json")
        first, *later = pympi(*words).json["lines"]
        assert [*first][:3] == ["lookups", "hits", "misses"]
        assert first["lookups"] == first["hits"] + first["misses"] > 0
        assert all(0 <= line["misses"] < first["misses"] + 1 for line in later)
        cumulative = pympi(*words, "-c").json["lines"]
        hits = [line["hits"] for line in cumulative]
        assert hits == sorted(hits)
        assert hits[0] >= first["hits"]


def test_avcstat_tells_what_the_core_decided(tmp_path: Path, pympi: Run) -> None:
    with Kernel(policies=[Partition()]) as kernel:
        kernel.inspect_at(tmp_path / "run" / "control")
        words = ("avcstat", "--attach", tmp_path / "run" / "control")
        assert pympi(*words, "--json").json["lines"][0]["native"] == 0
        labels = [f"partition/{number}" for number in range(2 * PATIENCE)]
        for label in labels:
            kernel.access(label, labels[0], "mach_port", "send")
        decided = kernel.stats()["native_decisions"]
        assert decided > 0
        [line] = pympi(*words, "--json").json["lines"]
        assert (line["native"], line["misses"]) == (decided, kernel.stats()["misses"])
        header, figures = pympi(*words).lines
        assert figures[header.index("native")] == str(decided)
        with Connection(tmp_path / "run" / "control") as connection:
            assert connection.avcstat()["native_decisions"] == decided


def test_avcstat_repeats_its_header(
    pympi: Run, socket: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "5")
    done = pympi("avcstat", "--attach", socket, "0.5", "--count", 7)
    assert [at for at, line in enumerate(done.lines) if line[0] == "lookups"] == [0, 4, 8]
    assert naps == [0.5] * 6


def test_avcstat_ends_quietly_by_ctrl_c(
    pympi: Run, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    done = pympi("avcstat", "--attach", socket, "1")
    assert (done.code, len(done.lines), done.err) == (0, 2, "")
    assert len(pympi("avcstat", "--attach", socket, "1", "--json").json["lines"]) == 1


def test_avcstat_of_a_snapshot(pympi: Run, kernel: Kernel, tmp_path: Path) -> None:
    kernel.snapshot(tmp_path / "run.snap")
    assert len(pympi("avcstat", tmp_path / "run.snap").lines) == 2
    done = pympi("avcstat", tmp_path / "run.snap", "1")
    assert (done.code, "for a live system" in done.err) == (2, True)


@pytest.mark.parametrize("interval", ["0", "-1", "x", "nan", "inf"])
def test_avcstat_with_no_interval(pympi: Run, socket: Path, interval: str) -> None:
    assert pympi("avcstat", "--attach", socket, "--", interval).code == 2


# ---- leaks ----


def test_leaks_of_a_live_system(pympi: Run, socket: Path, naps: list[float]) -> None:
    done = pympi("leaks", "--attach", socket, "--interval", "0.25", "--samples", 4, "--json")
    assert (done.code, naps) == (1, [0.25] * 3)
    assert [each["what"] for each in done.json["growing"]] == ["ports"]
    assert done.json["growing"][0]["counts"] == [2, 3, 4, 5]


# ---- policies ----


def test_policy_reload(pympi: Run, tmp_path: Path) -> None:
    file, control = tmp_path / "p.cil", tmp_path / "run" / "control"
    file.write_text(POLICY)
    with Kernel(policies=[TypeEnforcement.from_file(file)]) as kernel:
        kernel.inspect_at(control, label=LABEL, read_only=False)
        assert pympi("policy", "status", "--attach", control).lines[-1] == ["te", "enforcing", "0"]
        assert not kernel.access(LABEL, LABEL, "mach_port", "send")
        file.write_text(f"{POLICY}(allow task_t self (mach_port (send)))")
        done = pympi("policy", "reload", "--module", "te", "--attach", control)
        assert (done.code, done.lines[-1]) == (0, ["te", "enforcing", "0"])
        assert kernel.access(LABEL, LABEL, "mach_port", "send")
        file.write_text("(nonsense")
        done = pympi("policy", "reload", "--attach", control)
        assert (done.code, "the policy is as it was" in done.err) == (1, True)
        told = pympi("policy", "reload", "--attach", control, "--json").json
        assert (told["file"], told["line"], told["column"]) == (str(file), 1, 1)
        assert kernel.access(LABEL, LABEL, "mach_port", "send")
        assert pympi("policy", "reload", "--module", "other", "--attach", control).code == 1


def test_policy_reload_of_a_file_of_ours(pympi: Run, tmp_path: Path) -> None:
    ours, theirs, control = tmp_path / "new.cil", tmp_path / "p.cil", tmp_path / "run" / "control"
    theirs.write_text(POLICY)
    ours.write_text(SENDS)
    reload = ("policy", "reload", "--attach", control)
    with Kernel(policies=[TypeEnforcement.from_file(theirs)]) as kernel:
        kernel.inspect_at(control, label=LABEL, read_only=False)
        done = pympi(*reload, theirs, ours)
        assert (done.code, done.lines[-1]) == (0, ["te", "enforcing", "0"])
        assert kernel.access(LABEL, LABEL, "mach_port", "send")
        assert pympi(*reload).code == 0  # its own file again
        assert not kernel.access(LABEL, LABEL, "mach_port", "send")
        assert pympi(*reload, theirs, ours, "--shadow").lines[-1] == ["te", "enforcing", "0", "0"]
        assert not kernel.access(LABEL, LABEL, "mach_port", "send")
        assert pympi(*reload, "--drop").lines[-1] == ["te", "enforcing", "0"]
        assert "no shadow" in pympi(*reload, "--drop").err


@pytest.mark.parametrize("wrong", ["(allow task_t no_t (mach_port (send)))", "(type a_t", "\xff"])
def test_policy_reload_tells_what_is_wrong_as_check_does(
    pympi: Run, tmp_path: Path, wrong: str
) -> None:
    file, control = tmp_path / "new.cil", tmp_path / "run" / "control"
    file.write_bytes(f"{POLICY}\n {wrong}".encode("latin-1"))
    check = pympi("policy", "check", file)
    with Kernel(policies=[TypeEnforcement.from_text(POLICY)]) as kernel:
        kernel.inspect_at(control, label=LABEL, read_only=False)
        module = kernel.policies["te"]
        done = pympi("policy", "reload", "--attach", control, file)
        told = pympi("policy", "reload", "--attach", control, file, "--json")
        assert kernel.policies["te"] is module
    assert (done.code, done.out) == (1, "")
    assert done.err == check.out + "pympi: the policy is as it was\n"
    assert (told.code, told.json["file"], told.json["line"]) == (1, str(file), 8)


def test_policy_reload_of_files_that_are_none(pympi: Run, tmp_path: Path, socket: Path) -> None:
    reload = ("policy", "reload", "--attach", socket)
    assert pympi(*reload, tmp_path / "none.cil").code == 2
    assert pympi(*reload, "--shadow").code == 2
    (tmp_path / "a.cil").write_text(POLICY)
    assert pympi(*reload, tmp_path / "a.cil", "--drop").code == 2
    done = pympi(*reload, tmp_path / "a.cil")  # a kernel without a policy
    assert (done.code, "Made of text: none of those loaded" in done.err) == (1, True)


def test_policy_reload_where_it_is_not_allowed(pympi: Run, tmp_path: Path) -> None:
    control = tmp_path / "run" / "control"
    with Kernel() as kernel:
        kernel.inspect_at(control)
        done = pympi("policy", "reload", "--attach", control)
        assert (done.code, "read-only" in done.err) == (1, True)
        done = pympi("snapshot", "--attach", control, tmp_path / "x.snap", "--consistent")
        assert (done.code, "read-only" in done.err) == (2, True)
    assert pympi("policy", "reload").code == 2


def test_policy_status_without_a_policy(pympi: Run, socket: Path) -> None:
    done = pympi("policy", "status", "--attach", socket)
    assert done.out.endswith(", no policy: everything is allowed.\n")
    assert pympi("policy", "status", "--attach", socket, "--json").json["modules"] == []


# ---- sockets that are none ----


def test_no_server(pympi: Run, tmp_path: Path, socket: Path) -> None:
    done = pympi("tasks", "--attach", tmp_path / "none")
    assert (done.code, "no such socket" in done.err) == (2, True)
    for no_socket in (tmp_path, Path(__file__)):
        assert "it is no socket" in pympi("tasks", "--attach", no_socket).err
    done = pympi("tasks", socket)
    assert (done.code, f"is a socket, no file: --attach {socket}" in done.err) == (2, True)


# ---- the example ----


PRINT, VAULT, CLIPBOARD, DIARY = (
    f"com.example.{name}" for name in ("print", "vault", "clipboard", "diary")
)


def names_seen(pympi: Run, socket: Path) -> set[str]:
    contexts = pympi("bootstrap", "dump", "--attach", socket, "--json").json["contexts"]
    return {service["name"] for context in contexts for service in context["services"]}


def test_the_example_lives_until_it_is_told(pympi: Run, tmp_path: Path) -> None:
    control = tmp_path / "run" / "control"
    with subprocess.Popen(
        [sys.executable, ROOT / "examples" / "live_system.py", "--socket", control],
        stdout=subprocess.PIPE, text=True,
    ) as system:  # fmt: skip
        try:
            assert system.stdout is not None
            assert system.stdout.readline() == f"Ask at {control}, for 60 seconds.\n"
            names = {line[1] for line in pympi("tasks", "--attach", control).lines[1:]}
            assert names == {"bootstrap", "init", "printd", "vaultd", "user", "secret", "leaky"}
            public, secret = {PRINT, CLIPBOARD}, {PRINT, VAULT, CLIPBOARD, DIARY}
            assert names_seen(pympi, control.with_name("as-user")) == public
            assert names_seen(pympi, control.with_name("as-secret")) == secret
            assert names_seen(pympi, control.with_name("as-root")) == {PRINT, VAULT}
            assert pympi("policy", "reload", "--module", "te", "--attach", control).code == 0
        finally:
            system.send_signal(signal.SIGINT)
    assert system.returncode == 0
