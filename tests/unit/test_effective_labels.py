# SPDX-License-Identifier: BSD-2-Clause
"""Effective labels: acting under another label, which is asked for, checked and recorded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pympi import AccessDenied, Kernel, LabelError, Task, mach
from pympi._ffi import ffi, lib
from pympi.policy import Rules
from pympi.port import ReceiveRight, SendRight

POLICY = """
allow agent low mach_port { specify interpose };
allow agent other mach_port { specify };
allow low inbox mach_port { send copy_send use_recv carry_rights carry_memory set_reply };
allow agent agent mach_port { send copy_send recv use_recv relabelfrom };
allow agent agent mach_port { hold_send make_send move_recv };
allow agent inbox mach_port { hold_send make_send use_recv relabelfrom relabelto };
allow low agent mach_port { make_send make_send_once set_reply };
allow low low mach_port { recv };
allow agent low mach_port { recv };
"""


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(policies=[Rules.from_text(POLICY)]) as kernel:
        yield kernel
        kernel.verify()


@pytest.fixture
def agent(kernel: Kernel) -> Task:
    return kernel.create_task("agent", label="rules/agent")


@pytest.fixture
def inbox(agent: Task) -> ReceiveRight:
    port = agent.allocate_port()
    port.relabel("rules/inbox")
    return port


@pytest.fixture
def right(agent: Task, inbox: ReceiveRight) -> SendRight:
    return inbox.make_send(agent)


def test_specify_comes_first_then_the_effective_label_is_asked(
    right: SendRight, inbox: ReceiveRight
) -> None:
    """What the task may not do as itself it may do as what it may speak for, and the reverse."""
    with pytest.raises(AccessDenied) as caught:
        right.send(b"as itself")
    assert caught.value.permission == "send copy_send"
    right.send(b"as low", effective="rules/low")
    sender = inbox.receive().sender
    assert (sender.label, sender.real_label) == ("rules/low", "rules/agent")


def test_a_label_it_may_not_speak_for(right: SendRight) -> None:
    with pytest.raises(AccessDenied) as caught:
        right.send(b"x", effective="rules/high")
    assert caught.value.permission == "specify"
    assert caught.value.code == mach.MACH_SEND_INVALID_DEST


def test_a_number_that_stands_for_no_label(agent: Task, right: SendRight) -> None:
    """Only C callers can say one; nothing is asked about it, and nothing is sent."""
    spec = ffi.new("struct pm_send_spec *", {"dest": right.name, "effective_sid": 12345})
    code = lib.pm_send_message(agent._pointer, spec, ffi.NULL)
    assert code == mach.KERN_INVALID_ARGUMENT


def test_a_label_that_may_not_send(right: SendRight) -> None:
    with pytest.raises(AccessDenied) as caught:
        right.send(b"x", effective="rules/other")
    assert "send" in caught.value.permission.split()


def test_its_own_label_needs_no_leave(agent: Task) -> None:
    """The policy lets nobody specify or interpose itself."""
    own = agent.allocate_port()
    own.make_send(agent).send(b"x", effective="rules/agent")
    assert own.receive(effective="rules/agent").body == b"x"


def test_rights_are_asked_of_the_effective_label(
    agent: Task, right: SendRight, inbox: ReceiveRight
) -> None:
    spare = agent.allocate_port()
    right.send(b"x", rights=[spare.make_send()], effective="rules/low")
    with pytest.raises(AccessDenied) as caught:
        right.send(b"x", rights=[spare.move_receive()], effective="rules/low")
    assert caught.value.permission == "move_recv"
    assert spare.type, "it was not moved"
    right.send(b"x", memory=[b"m" * 10], effective="rules/low")
    bodies = [inbox.receive(timeout=0, effective="rules/low").body for _ in range(2)]
    assert bodies == [b"x", b"x"]


def test_a_receive_under_another_label(right: SendRight, inbox: ReceiveRight) -> None:
    right.send(b"x", effective="rules/low")
    with pytest.raises(AccessDenied) as caught:
        inbox.receive(timeout=0, effective="rules/other")
    assert caught.value.permission == "interpose"
    message = inbox.receive(timeout=0, effective="rules/low")
    assert message.body == b"x", "a refused label costs no message"


def test_the_record_keeps_both_labels(
    kernel: Kernel, right: SendRight, inbox: ReceiveRight
) -> None:
    kernel.audit.everything()
    kernel.audit.drain()
    right.send(b"x", effective="rules/low")
    inbox.receive(effective="rules/low")
    records = [
        r for r in kernel.audit.batch(kernel.audit.drain()) if r.operation in ("send", "receive")
    ]
    asked = {r.operation: (r.real_subject, r.subject) for r in records}
    assert asked == {
        "send": ("rules/agent", "rules/low"),
        "receive": ("rules/agent", "rules/low"),
    }


def test_a_relabelled_task_has_sent_what_it_sent(
    kernel: Kernel, right: SendRight, inbox: ReceiveRight, agent: Task
) -> None:
    """A queued message keeps its sender's labels of send time."""
    right.send(b"x", effective="rules/low")
    kernel.policies.replace("rules", Rules([("*", "*", "*", "*")]))
    agent.relabel("rules/another")
    sender = inbox.receive().sender
    assert (sender.label, sender.real_label) == ("rules/low", "rules/agent")


def test_a_wrong_label_is_no_message(right: SendRight, inbox: ReceiveRight) -> None:
    for wrong in ("nothing", "rules/", "rules/a b", "stub/x"):
        with pytest.raises(LabelError):
            right.send(b"x", effective=wrong)
        with pytest.raises(LabelError):
            inbox.receive(timeout=0, effective=wrong)
