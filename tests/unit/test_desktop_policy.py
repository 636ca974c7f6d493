# SPDX-License-Identifier: BSD-2-Clause
"""The sample policy, `pympi/data/desktop.cil`: what its comments tell happens, by all its rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources

import pytest

from pympi import AccessDenied, Kernel, Task, mach
from pympi.mig import Interface
from pympi.policy import TypeEnforcement
from pympi.port import SendRight
from pympi.testing import PolicyCoverage

PRINTING = Interface("printing", 1200, ["print_page", "cancel", "set_default"])


def sample() -> TypeEnforcement:
    text = (resources.files("pympi") / "data" / "desktop.cil").read_text(encoding="utf-8")
    return TypeEnforcement.from_text(text, "desktop.cil")


@dataclass
class Desktop:
    """A kernel under the sample policy, with a printing service."""

    kernel: Kernel
    policy: TypeEnforcement

    def __post_init__(self) -> None:
        self.printd = self.task("printd_t", "system_u:system_r")
        self.spool = self.printd.allocate_port()
        self.spool.serve(PRINTING)

    def task(self, kind: str, who: str = "user_u:user_r") -> Task:
        return self.kernel.create_task(kind, label=f"te/{who}:{kind}")

    def printer(self, client: Task) -> SendRight:
        return self.spool.make_send(client)

    def received(self) -> str:
        return PRINTING.routine(self.spool.receive(timeout=0))


@contextmanager
def desktop(exercised: PolicyCoverage, policy: TypeEnforcement) -> Iterator[Desktop]:
    with Kernel(policies=[policy]) as kernel:
        with exercised.record(kernel):
            yield Desktop(kernel, policy)
        assert kernel.policies.failures == {}
        kernel.verify()


# ---- what happens on it ----


def an_editor_prints_and_is_answered(on: Desktop) -> None:
    editor = on.task("editor_t")
    answers = editor.allocate_port()
    printer = on.printer(editor)
    printer.send(b"page", 1200, reply=answers, memory=[b"a picture"])
    on.spool.receive(timeout=0).reply(b"printed")
    assert answers.receive(timeout=0).body == b"printed"
    with pytest.raises(AccessDenied):
        PRINTING.client(printer).cancel()


def an_editor_sends_a_right_to_be_told_later(on: Desktop) -> None:
    editor = on.task("editor_t")
    answers = editor.allocate_port()
    on.printer(editor).send(b"page", 1200, rights=[answers.make_send_once()])
    (later,) = on.spool.receive(timeout=0).rights
    later.use_up(b"it is printed")
    assert answers.receive(timeout=0).body == b"it is printed"


def a_draft_sends_to_itself_and_it_is_reported(on: Desktop) -> None:
    draft = on.task("draft_t")
    port = draft.allocate_port()
    port.make_send(draft).send(b"note")
    assert port.receive(timeout=0).body == b"note"
    told = on.kernel.explain(draft, port, "mach_port", "send")
    assert "allows, and reports, because draft_t is permissive" in told


def settings_cancel_and_those_of_the_system_choose(on: Desktop) -> None:
    mine = PRINTING.client(on.printer(on.task("settings_t")))
    mine.cancel()
    with pytest.raises(AccessDenied):
        mine.set_default()
    system = on.task("settings_t", "system_u:system_r")
    PRINTING.client(on.printer(system)).set_default()
    assert [on.received(), on.received()] == ["cancel", "set_default"]


def editors_cancel_while_the_switch_is_on(on: Desktop) -> None:
    client = PRINTING.client(on.printer(on.task("editor_t")))
    on.policy.set_booleans(editors_cancel=True)
    client.cancel()
    assert on.received() == "cancel"


def a_courier_hands_the_printer_on(on: Desktop) -> None:
    """A copy and the right itself; it cannot print."""
    editor = on.task("editor_t")
    courier = on.kernel.create_task("courier", parent=editor)
    bag = editor.allocate_port()
    to_editor = bag.make_send(courier)
    printer = on.printer(courier)
    with pytest.raises(AccessDenied):
        PRINTING.client(printer).print_page()
    for right in (printer.copy_send(), printer.move_send()):
        to_editor.send(b"the printer", rights=[right])
        (printing,) = bag.receive(timeout=0).rights
        PRINTING.client(printing).print_page()
        assert on.received() == "print_page"


def an_editor_gives_its_courier_a_right(on: Desktop) -> None:
    editor = on.task("editor_t")
    courier = on.kernel.create_task("courier", parent=editor)
    port = editor.allocate_port()
    mach.mach_port_insert_right(
        courier, 0x1003, port.name, mach.MACH_MSG_TYPE_MAKE_SEND, caller=editor
    )
    assert courier.names()


STORIES = (
    an_editor_prints_and_is_answered,
    an_editor_sends_a_right_to_be_told_later,
    a_draft_sends_to_itself_and_it_is_reported,
    settings_cancel_and_those_of_the_system_choose,
    editors_cancel_while_the_switch_is_on,
    a_courier_hands_the_printer_on,
    an_editor_gives_its_courier_a_right,
)


def test_every_rule_is_exercised_or_named_here() -> None:
    """A rule that is added to the sample needs a story, or a place in this list."""
    exercised = PolicyCoverage(sample())
    for story in STORIES:
        with desktop(exercised, sample()) as on:
            story(on)
    found = exercised.result()
    assert [str(each) for each in found.unused] == [], str(found)
    assert found.percent == 100
