# SPDX-License-Identifier: BSD-2-Clause
"""Effective labels: acting under another label, which is asked for, checked and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pympi import AccessDenied, Kernel, LabelError, MachError, Quota, Task, mach
from pympi._ffi import ffi, lib
from pympi.audit import avc_line
from pympi.policy import Rules
from pympi.port import ReceiveRight, SendRight
from pympi.testing import capture_audit

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


@pytest.mark.parametrize("known", [False, True], ids=["asked", "remembered"])
def test_specify_is_recorded_as_the_send_that_it_is(
    kernel: Kernel, agent: Task, right: SendRight, known: bool
) -> None:
    """Whether or not the decider had to be asked, after which the send begins again."""
    parts: dict[str, Any] = {"rights": [agent.allocate_port().make_send()], "msgh_id": 7}
    if known:
        right.send(b"x", effective="rules/low", **parts)
    with capture_audit(kernel) as records:
        right.send(b"x", effective="rules/low", **parts)
    specified, sent, given = records
    assert (specified.operation, specified.asked) == ("send", ("specify",))
    assert (specified.subject, specified.object) == ("rules/agent", "rules/low")
    assert (given.operation, given.asked) == ("give", ("make_send",))
    whole = [(r.operation, r.name, r.port, r.provenance, r.msgh_id) for r in (specified, sent)]
    assert whole == [("send", right.name, sent.port, sent.provenance, 7)] * 2
    assert "granted  { specify } for" in (line := avc_line(specified))
    assert f"port={right.name:#x} msgh_id=7" in line


@pytest.mark.parametrize("known", [False, True], ids=["asked", "remembered"])
def test_a_refused_specify_is_a_refused_send(
    kernel: Kernel, agent: Task, right: SendRight, known: bool
) -> None:
    for _ in range(1 + known):
        with pytest.raises(AccessDenied) as caught:
            right.send(b"x", rights=[agent.allocate_port().make_send()], effective="rules/high")
    assert (caught.value.operation, caught.value.permission) == ("send", "specify")
    record = [*kernel.audit.batch(kernel.audit.drain())][-1]
    assert (record.operation, record.denied, record.name) == ("send", ("specify",), right.name)


def test_interpose_has_a_record_of_its_own(
    kernel: Kernel, right: SendRight, inbox: ReceiveRight
) -> None:
    """It is asked of a label before a port is looked at: no other question joins it."""
    seen = []
    for _ in range(2):
        right.send(b"x", effective="rules/low")
        kernel.audit.select("all", "mach_port", ["interpose", "recv"])
        inbox.receive(effective="rules/low")
        records = kernel.audit.batch(kernel.audit.drain())
        kernel.audit.select("denied")
        seen.append([(r.operation, r.asked, r.real_subject, r.subject, r.port) for r in records])
    (interposed, received), again = seen
    assert again == [interposed, received]
    assert interposed == ("receive", ("interpose",), "rules/agent", "rules/agent", 0)
    assert received[1:4] == (("recv",), "rules/agent", "rules/low")


def test_an_error_of_a_send_is_about_the_send(
    kernel: Kernel, agent: Task, right: SendRight
) -> None:
    """That there is no room is found out after the rights of the body were asked about."""
    agent.set_quota(Quota(queued_bytes=1))
    with pytest.raises(MachError):
        right.send(b"x" * 10, rights=[agent.allocate_port().make_send()], effective="rules/low")
    record = [*kernel.audit.batch(kernel.audit.drain())][-1]
    assert record.result == "MACH_SEND_NO_BUFFER"
    assert (record.operation, record.name) == ("send", right.name)


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
