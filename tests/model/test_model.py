# SPDX-License-Identifier: BSD-2-Clause
"""The core against the model: Hypothesis finds and shrinks, the seeded driver covers ground."""

from __future__ import annotations

import drive
import pytest
from drive import Settings, explore, shrink, steps_of
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model import Model, Task
from operations import OPERATIONS, draw_step
from tables import Table
from worlds import ModelWorld


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
        for world in self.scene.worlds:
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


def test_driver_finds_and_shrinks_a_planted_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_forgetful(_settings: Settings, _allows: object) -> ModelWorld:
        world = ModelWorld()
        world.model = Forgetful()
        return world

    monkeypatch.setattr(drive, "make_other", make_forgetful)
    settings = Settings(seed=4, steps=5_000)
    finding = explore(settings)
    assert "extract_member" in finding.text
    steps, again = shrink(settings, steps_of(settings, finding.place + 1))
    assert "extract_member" in again.text
    assert len(steps) <= 20 < finding.place


def test_same_seed_same_steps() -> None:
    settings = Settings(seed=9, against="model")
    assert steps_of(settings, 300) == steps_of(settings, 300)


def test_policy_table_is_stable() -> None:
    asked = [(s, o, "mach_port", p) for s in "abcd" for o in "abcd" for p in ("send", "recv")]
    first, second = Table(5), Table(5)
    assert [first(*key) for key in asked] == [second(*key) for key in reversed(asked)][::-1]
