# SPDX-License-Identifier: BSD-2-Clause
"""pympi tasks, ports, labels: screens, JSON, exit codes, filters, hostile names."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from pympi import Kernel
from pympi.enums import Notification
from pympi.mig import Interface
from pympi.policy import MLS, Partition

HOSTILE = "evil\x1b[31m\n\u202ename"
PYMPI = Path(sys.executable).parent / "pympi"
Run = Callable[..., Any]


@pytest.fixture
def snap(tmp_path: Path) -> Path:
    """A printing service, two clients, and the name server that knows it."""
    path = tmp_path / "run.snap"
    with Kernel() as kernel:
        printd, editor = kernel.create_task("printd", uid=7), kernel.create_task("editor")
        other = kernel.create_task(HOSTILE)
        inbox = printd.allocate_port()
        inbox.serve(Interface("printing", 1200, ["print_page"]))
        printd.bootstrap.register("com.example.print", inbox)
        editor.bootstrap.look_up("com.example.print").send(b"page 1")
        inbox.make_send(other)
        inbox.request_notification(Notification.NO_SENDERS, printd.allocate_port())
        kernel.snapshot(path)
    return path


# ---- tasks ----


def test_tasks(pympi: Run, snap: Path) -> None:
    done = pympi("tasks", snap)
    assert done.code == 0
    titles = "TASK NAME UID NAMES PORTS QUEUED BYTES IN FLIGHT LABEL"
    assert " ".join(done.lines[0]) == titles
    assert [row[:3] for row in done.lines[1:3]] == [["1", "printd", "7"], ["2", "editor", "0"]]
    assert done.lines[3][1] == "evil\\u{1b}[31m\\u{a}\\u{202e}name"
    assert done.err == "4 tasks\n"


def test_tasks_as_json(pympi: Run, snap: Path) -> None:
    done = pympi("tasks", snap, "--json")
    assert [task["name"] for task in done.json["tasks"]] == [
        "printd",
        "editor",
        HOSTILE,
        "bootstrap",
    ]
    assert done.out.isascii()
    assert all(char == "\n" or char.isprintable() for char in done.out)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["2"], ["editor"]),
        (["*d*"], ["printd", "editor"]),
        (["e*", "--label", "-"], ["editor", HOSTILE]),
        (["--label", "te/*"], []),
    ],
)
def test_tasks_are_chosen(pympi: Run, snap: Path, words: list[str], names: list[str]) -> None:
    assert [task["name"] for task in pympi("tasks", snap, *words, "--json").json["tasks"]] == names


def test_no_such_task(pympi: Run, snap: Path) -> None:
    done = pympi("ports", snap, "nobody\x1b[31m")
    assert (done.code, done.out) == (1, "")
    assert "no task has the number or name" in done.err
    assert "\x1b" not in done.err


# ---- ports ----


def test_ports_say_who_is_at_the_other_end(pympi: Run, snap: Path) -> None:
    done = pympi("ports", snap, "editor")
    assert done.code == 0
    assert done.out.splitlines()[2] == "editor (task 2)  -"
    [row] = [line for line in done.out.splitlines() if "com.example.print" in line]
    assert "-> printd (1)" in row
    assert " 1/5 " in row
    assert "mi_printing" in row
    assert done.err == "3 names of 1 task\n"  # with the port for replies


def test_ports_of_the_receiver(pympi: Run, snap: Path) -> None:
    [row] = [line for line in pympi("ports", snap, 1).out.splitlines() if "mi_printing" in line]
    assert "no senders" in row
    assert "<- editor (2), evil\\u{1b}[31m\\u{a}\\u{202e}name (3), and 1 more" in row


def test_ports_as_json(pympi: Run, snap: Path) -> None:
    found = pympi("ports", snap, "editor", "--json").json["rights"]
    [right] = [each for each in found if each["services"]]
    assert right["services"] == ["com.example.print"]
    assert right["other_end"] == [{"task": 1, "name": "printd"}]
    assert (right["right"], right["port"]["queue_length"]) == (["send"], 1)


def test_every_state_of_a_name_is_said(pympi: Run, tmp_path: Path) -> None:
    with Kernel() as kernel:
        server, client = kernel.create_task("server"), kernel.create_task("client")
        gone = server.allocate_port()
        gone.make_send(client)
        gone.destruct()
        inbox, moving = server.allocate_port(), server.allocate_port()
        moving.make_send(client)
        inbox.make_send(server).send(b"", rights=[moving.move_receive()])
        client.create_port_set(client.allocate_port(), client.allocate_port())
        inbox.make_send_once(client)
        kernel.snapshot(tmp_path / "run.snap")
    rows = [words[1:] for words in pympi("ports", tmp_path / "run.snap", "client").lines[3:]]
    ends = {row[0]: " ".join(row).partition(" - ")[2] or row[-1] for row in rows}
    assert ends["dead"] == "dead"
    assert ends["send-once"] == "-> server (1)"
    assert " ".join(next(row for row in rows if row[0] == "set")).endswith("2 ports")
    assert any(" ".join(row).endswith("in transit to port 2") for row in rows)


def test_ports_by_label(pympi: Run, tmp_path: Path) -> None:
    with Kernel(policies=[Partition()]) as kernel:
        task = kernel.create_task("a", "partition/1")
        task.allocate_port()
        kernel.snapshot(tmp_path / "run.snap")
    assert (
        len(pympi("ports", tmp_path / "run.snap", "--label", "*/1", "--json").json["rights"]) == 1
    )
    done = pympi("ports", tmp_path / "run.snap", "--label", "*/2")
    assert (done.code, done.out, done.err) == (0, "", "0 names of 0 tasks\n")


# ---- labels ----


def test_labels_by_module(pympi: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.snap"
    with Kernel(policies=[Partition(), MLS()]) as kernel:
        task = kernel.create_task("editor", "partition/1,mls/low")
        task.allocate_port()
        task.allocate_port()
        kernel.snapshot(path)
    assert pympi("labels", path).lines == [
        ["TASK", "NAME", "OF", "MLS", "PARTITION"],
        ["1", "editor", "task", "low", "1"],
        ["2", "ports", "low", "1"],
    ]
    assert pympi("labels", path, "--module", "mls").lines[1] == ["1", "editor", "task", "low"]
    [found] = pympi("labels", path, "editor", "--json").json["tasks"]
    assert found["values"] == {"mls": "low", "partition": "1"}
    assert found["received_from"][0]["ports"] == 2


# ---- what is no source ----


@pytest.mark.parametrize("verb", ["tasks", "ports", "labels", "avcstat", "leaks"])
def test_without_a_source_it_is_asked_for(pympi: Run, verb: str) -> None:
    done = pympi(verb)
    assert (done.code, done.out) == (2, "")
    assert "--attach SOCKET" in done.err


@pytest.mark.parametrize("verb", [["tasks"], ["ports"], ["labels"], ["leaks"], ["avcstat"],
                                  ["policy", "status"], ["bootstrap", "dump"]])  # fmt: skip
def test_a_damaged_file_is_refused(pympi: Run, snap: Path, verb: list[str]) -> None:
    data = bytearray(snap.read_bytes())
    data[len(data) // 2] ^= 1
    snap.write_bytes(data)
    done = pympi(*verb, snap)
    assert (done.code, done.out) == (2, "")
    assert f"{snap}: damaged" in done.err
    done = pympi(*verb, snap.parent)
    assert (done.code, done.out) == (2, "")
    done = pympi(*verb, snap.parent / "none")
    assert (done.code, done.err) == (
        2,
        f"pympi: {snap.parent / 'none'}: No such file or directory\n",
    )


@pytest.mark.parametrize("verb", [["tasks"], ["ports"], ["labels"], ["leaks"], ["avcstat"],
                                  ["policy", "status"]])  # fmt: skip
def test_an_empty_kernel(pympi: Run, tmp_path: Path, verb: list[str]) -> None:
    with Kernel() as kernel:
        kernel.snapshot(tmp_path / "run.snap")
    assert pympi(*verb, tmp_path / "run.snap").code == 0
    assert pympi(*verb, tmp_path / "run.snap", "--json").json


def test_too_many_words(pympi: Run, snap: Path) -> None:
    done = pympi("tasks", snap, "1", "2\x1b")
    assert (done.code, "unexpected extra argument (2\\u{1b})" in done.err) == (2, True)


# ---- terminals and pipes ----


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_screens_fit_a_terminal(snap: Path, columns: int) -> None:
    master, slave = pty.openpty()
    with subprocess.Popen(
        [PYMPI, "ports", snap], stdout=slave, stderr=slave,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "dumb"},
    ):  # fmt: skip
        os.close(slave)
        output = b""
        while True:
            try:
                output += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
    os.close(master)
    lines = click.unstyle(output.decode()).split("\r\n")
    assert max(len(line) for line in lines if not line.startswith("No room")) <= columns
    assert any("-> printd (1)" in line for line in lines)


def test_whoever_has_read_enough_hears_no_complaint(tmp_path: Path) -> None:
    with Kernel() as kernel:
        task = kernel.create_task("task")
        for _ in range(5000):
            task.allocate_port()
        kernel.snapshot(tmp_path / "run.snap")
    for option in ([], ["--json"]):
        with subprocess.Popen(
            [PYMPI, "ports", tmp_path / "run.snap", *option],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as done:  # fmt: skip
            assert done.stdout is not None
            assert done.stderr is not None
            done.stdout.read(10)
            done.stdout.close()
            assert done.stderr.read() == b""
        assert done.returncode == 141


def test_colours_are_not_for_everybody(
    pympi: Run, snap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click._compat.should_strip_ansi", lambda *_, **__: False)
    monkeypatch.setattr(
        "click.utils.should_strip_ansi", lambda stream=None, color=None: color is False
    )
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[1m" in pympi("tasks", snap).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in pympi("tasks", snap).out
