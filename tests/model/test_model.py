# SPDX-License-Identifier: BSD-2-Clause
"""The core against the model: Hypothesis finds and shrinks, the seeded driver covers ground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import drive
import mach_numbers as m
import pytest
from core_world import CoreWorld
from drive import Settings, explore, shrink, steps_of
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model import ASKED_OF_SPACE, Model, Task
from operations import OPERATIONS, Scene, Step, draw_step
from party import Party, refused
from tables import Table
from wire import PORT, Letter
from worlds import ModelWorld

MESSAGES = ("send", "receive", "send_receive", "send_bytes")
MESSAGE_CODES = {
    m.SUCCESS,
    m.SEND_INVALID_DEST,
    m.SEND_TIMED_OUT,
    m.SEND_INVALID_VOUCHER,
    m.SEND_MSG_TOO_SMALL,
    m.SEND_INVALID_REPLY,
    m.SEND_INVALID_RIGHT,
    m.SEND_INVALID_MEMORY,
    m.SEND_TOO_LARGE,
    m.SEND_INVALID_TYPE,
    m.SEND_INVALID_HEADER,
    m.SEND_NO_GRANT_DEST,
    m.SEND_MSG_FILTERED,
    m.RCV_INVALID_NAME,
    m.RCV_TIMED_OUT,
    m.RCV_TOO_LARGE,
    m.RCV_INVALID_DATA,
    m.RCV_INVALID_TRAILER,
    m.RCV_BODY_ERROR | m.IPC_SPACE,
}


class Drawn:
    """Choices that Hypothesis makes, and takes back."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def below(self, bound: int) -> int:
        chosen: int = self.data.draw(st.integers(0, bound - 1))
        return chosen


class Compared(RuleBasedStateMachine):
    """One rule for each line of the operation table; the whole state is compared after each."""

    settings_of_run = Settings(compare_every=1)

    def __init__(self) -> None:
        super().__init__()
        self.scene = drive.make_scene(self.settings_of_run)
        self.number = 0

    def do(self, operation: str, data: st.DataObject) -> None:
        step = draw_step(self.scene, Drawn(data), self.number, operation)
        self.number += 1
        drive.perform(self.scene, step)

    @invariant()
    @precondition(lambda self: self.number)
    def worlds_agree(self) -> None:
        drive.compare_state(self.scene, self.number)

    def teardown(self) -> None:
        close(self.scene)


def close(scene: Scene) -> None:
    for world in scene.worlds:
        world.close()


def add_rule(operation: str) -> None:
    def step(self: Compared, data: st.DataObject) -> None:
        self.do(operation, data)

    step.__name__ = operation
    setattr(Compared, operation, rule(data=st.data())(step))


for each in OPERATIONS:
    add_rule(each)


class ComparedWithPolicy(Compared):
    """The same, under a random policy."""

    settings_of_run = Settings(seed=11, compare_every=1, policy="random")


TestCompared = Compared.TestCase
TestComparedWithPolicy = ComparedWithPolicy.TestCase


@pytest.mark.parametrize("policy", ["none", "random"])
@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "defining"])
def test_random_run(policy: str, fast_path: bool) -> None:
    settings = Settings(20_260, 5_000, fast_path, policy, trace=True)
    finding = explore(settings)
    assert not finding.text, f"{settings}: {finding.text}"


class Forgetful(Model):
    """A kernel whose sets keep a member that is taken out of them while it has messages."""

    def mach_port_extract_member(self, task: Task, name: int, after: int) -> None:
        port = self.receive_right(task, name)
        if not port.queue:
            super().mach_port_extract_member(task, name, after)


def test_allocations_fail_whole() -> None:
    """A call that is refused for want of memory has changed nothing, and succeeds when repeated."""
    settings = Settings(seed=20_261, steps=8_000, policy="random", faults=True)
    finding = explore(settings)
    assert not finding.text, f"{settings}: {finding.text}"


def full_port_and_full_table(carried: int) -> tuple[Scene, Step]:
    """A task with room for few names, and a message that finds no room in its only busy port."""
    scene = drive.make_scene(Settings())
    port = 0x103
    calls: list[tuple[str, tuple[object, ...]]] = [("create_task", ("a", 0, False))]
    calls += [("allocate", (m.RIGHT_RECEIVE,))] * 14
    calls += [("set_attributes", (port, m.LIMITS_INFO, (0,)))]
    for number, (call, arguments) in enumerate(calls):
        drive.perform(scene, Step(number, call, 0, arguments))
    letter = Letter(port, m.MAKE_SEND, items=((PORT, 0x203, carried),))
    return scene, Step(len(calls), "send", 0, (letter, m.OPTION_SEND))


def test_message_that_cannot_be_handed_back_comes_as_it_was() -> None:
    """Where memory for that is short, too, nothing has changed; when repeated it is handed back."""
    came_as_sent = 0
    for at in range(1, 9):
        scene, step = full_port_and_full_table(m.MAKE_SEND)
        scene.worlds[1].fault = at
        outcome = scene.outcome(step, 1)
        scene.worlds[1].fault = 0
        if scene.came_back_as_sent(step, outcome):
            came_as_sent += 1
            drive.compare_state(scene, step.number)
            drive.perform(scene, step)
        close(scene)
    assert came_as_sent


@pytest.mark.parametrize("at", range(1, 9))
def test_receive_right_that_is_handed_back_looks_as_sent(at: int) -> None:
    """Though it has lost its counts. Send rights beside it keep the names, and one is moved."""
    scene, step = full_port_and_full_table(m.MOVE_RECEIVE)
    letter = step.arguments[0]._replace(dest_type=m.MOVE_SEND)
    before = [
        ("insert_right", (letter.dest, letter.dest, m.MAKE_SEND, 0)),
        ("insert_right", (0x203, 0x203, m.MAKE_SEND, 0)),
        ("set_mscount", (0x203, 7)),
    ]
    for number, (call, arguments) in enumerate(before, step.number):
        drive.perform(scene, Step(number, call, 0, arguments))
    sent = Step(step.number + len(before), "send", 0, (letter, m.OPTION_SEND))
    drive.perform(scene, sent, at)
    drive.compare_state(scene, sent.number)
    close(scene)


def allows_no_insert(_subject: str, _object: str, _class: str, permission: str) -> bool:
    return permission != "insert_right"


@pytest.mark.parametrize("make", [ModelWorld, CoreWorld])
def test_nonsense_is_refused_before_anybody_is_asked(make: type[ModelWorld | CoreWorld]) -> None:
    world = make(allows_no_insert)
    a, b = Party(world, "a"), Party(world, "b")
    by_other = {"caller": b.task}
    refused(m.NO_ACCESS, a.allocate_name, m.RIGHT_RECEIVE, 0x103, **by_other)
    refused(m.INVALID_VALUE, a.allocate_name, m.RIGHT_RECEIVE, m.NULL, **by_other)
    refused(m.NO_ACCESS, a.construct, 0, 0, 0, **by_other)
    refused(m.INVALID_VALUE, a.construct, m.MPO_QLIMIT, m.QLIMIT_MAX + 1, 0, **by_other)
    world.close()


def test_every_operation_comes_about() -> None:
    """Drawn often enough, and well enough to be done; and mach_msg meets each of its codes."""
    settings = Settings(seed=5, policy="random", against="model")
    scene = drive.make_scene(settings, alone=True)
    done, codes = set(), set()
    for step in drive.random_steps(scene, settings._replace(steps=40_000)):
        outcome = scene.perform(step)[0]
        if isinstance(outcome, tuple) and outcome and outcome[0] == "refused":
            continue
        if step.operation in MESSAGES:
            codes.add(outcome[0])
            done |= {step.operation} if outcome[0] == m.SUCCESS else set()
        else:
            done.add(step.operation)
    assert set(OPERATIONS) - done == set()
    assert codes >= MESSAGE_CODES


def test_what_is_asked_of_a_space_is_done_by_others() -> None:
    assert set(ASKED_OF_SPACE) <= set(OPERATIONS)


@pytest.fixture
def forgetful_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver compares the model with a forgetful one."""

    def make_forgetful(_settings: Settings, _allows: object) -> ModelWorld:
        world = ModelWorld()
        world.model = Forgetful()
        return world

    monkeypatch.setattr(drive, "make_other", make_forgetful)


@pytest.mark.usefixtures("forgetful_other")
def test_driver_finds_and_shrinks_a_planted_fault() -> None:
    settings = Settings(seed=4, steps=5_000)
    finding = explore(settings)
    assert "extract_member" in finding.text
    steps, again = shrink(settings, steps_of(settings, finding.place + 1), seconds=600)
    assert "extract_member" in again.text
    assert len(steps) <= 20 < finding.place


PLANTED = ["--seed", "4", "--steps", "5000", "--against", "model"]


@pytest.mark.usefixtures("forgetful_other")
def test_driver_leaves_the_report_of_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "SHRINK_SECONDS", 0)
    reports = tmp_path / "made" / "here"
    assert drive.main([*PLANTED, "--reports", str(reports)]) == 1
    left = reports / "model-difference-4.txt"
    printed = capsys.readouterr()
    assert left.read_text() == printed.out
    assert str(left) in printed.err
    assert "extract_member" in printed.out.splitlines()[0]
    assert "again: python tests/model/drive.py --seed 4" in printed.out


@pytest.mark.usefixtures("forgetful_other")
def test_difference_is_on_file_before_it_is_shrunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_settings: Settings, _steps: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drive, "shrink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drive.main([*PLANTED, "--reports", str(tmp_path)])
    assert "extract_member" in (tmp_path / "model-difference-4.txt").read_text()


def test_no_difference_leaves_no_report(tmp_path: Path) -> None:
    arguments = ["--seed", "4", "--steps", "500", "--against", "model"]
    assert drive.main([*arguments, "--reports", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())


def test_child_that_crashes_says_how() -> None:
    def crash(mark: Callable[[int], None]) -> None:
        mark(7)
        signal.raise_signal(signal.SIGSEGV)

    finding = drive.in_child(crash)
    assert finding.place == 7
    assert "Segmentation fault" in finding.text
    assert "in crash" in finding.text


def test_child_that_is_killed_says_by_what() -> None:
    finding = drive.in_child(lambda mark: signal.raise_signal(signal.SIGKILL))
    assert finding.text.rstrip() == "the process was ended by SIGKILL"


def test_child_that_raises_says_where() -> None:
    def stumble(_mark: Callable[[int], None]) -> None:
        raise LookupError("nothing there")

    text = drive.in_child(stumble).text
    assert "LookupError: nothing there" in text
    assert "in stumble" in text


PRINT_STEPS = """
import drive
settings = drive.Settings(seed=9, against="model", policy="random")
for step in drive.steps_of(settings, 2_000):
    print(step)
"""


def test_same_seed_same_steps() -> None:
    """In any process: nothing hangs on hashes or addresses."""
    told = [
        subprocess.run(
            [sys.executable, "-c", PRINT_STEPS],
            cwd=Path(drive.__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) == 2_000


def test_policy_table_is_stable() -> None:
    asked = [(s, o, "mach_port", p) for s in "abcd" for o in "abcd" for p in ("send", "recv")]
    first, second = Table(5), Table(5)
    assert [first(*key) for key in asked] == [second(*key) for key in reversed(asked)][::-1]
