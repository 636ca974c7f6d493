# SPDX-License-Identifier: BSD-2-Clause
"""Methods: control is enforced by the core, by number, before anything moves, and fails closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from background import LONG, Run, settle
from faults.world import COPY_SEND, SEND, message

from pympi import AccessDenied, Kernel, MachError, QueueFull, Task, mach
from pympi.mig import Interface
from pympi.policy import Rules
from pympi.port import ReceiveRight, SendRight

NAMES = Interface("names", 400, ["look_up", "register", "status"])
BASIC = "allow * * mach_port { * };"
POLICY = BASIC + "allow client * mi_names { look_up status };"


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(policies=[Rules.from_text(POLICY)]) as kernel:
        yield kernel
        kernel.verify()


@pytest.fixture
def client(kernel: Kernel) -> Task:
    return kernel.create_task("client", label="rules/client")


@pytest.fixture
def port(kernel: Kernel) -> ReceiveRight:
    port = kernel.create_task("server", label="rules/server").allocate_port(qlimit=3)
    port.serve(NAMES)
    return port


@pytest.fixture
def right(port: ReceiveRight, client: Task) -> SendRight:
    return port.make_send(client)


def refused(right: SendRight, msgh_id: int) -> AccessDenied:
    with pytest.raises(AccessDenied) as caught:
        right.send(b"", msgh_id, timeout=0)
    assert caught.value.code == mach.MACH_SEND_MSG_FILTERED
    assert caught.value.operation == "method"
    return caught.value


def test_look_up_yes_register_no(right: SendRight, port: ReceiveRight) -> None:
    right.send(b"", 400)
    error = refused(right, 401)
    assert (error.tclass, error.permission) == ("mi_names", "register")
    right.send(b"", 402)
    assert [port.receive().msgh_id for _ in range(2)] == [400, 402]


@pytest.mark.parametrize("msgh_id", [399, 403, 0, -1, 65, 500, -(1 << 31), (1 << 31) - 1])
def test_unknown_numbers_are_refused(right: SendRight, msgh_id: int, port: ReceiveRight) -> None:
    """Also those of replies and of notifications, when a task sends them."""
    refused(right, msgh_id)
    assert port.status.msgcount == 0


def test_nothing_moves_before_the_verdict(
    right: SendRight, port: ReceiveRight, client: Task
) -> None:
    moved, answers = client.allocate_port(), client.allocate_port()
    names = client.names()
    with pytest.raises(AccessDenied):
        right.send(b"", 401, rights=[moved.move_receive()], reply=answers)
    assert client.names() == names
    assert answers.status.send_once_rights == 0
    assert port.status.msgcount == 0


def test_the_verdict_does_not_depend_on_room(right: SendRight) -> None:
    for _ in range(3):
        right.send(b"", 400)
    refused(right, 401)
    with pytest.raises(QueueFull):
        right.send(b"", 400, timeout=0)


def test_send_is_asked_too_and_first(kernel: Kernel, right: SendRight) -> None:
    text = "allow client * mi_names { * }; allow * * mach_port { copy_send };"
    kernel.policies.replace("rules", Rules.from_text(text))
    with pytest.raises(AccessDenied) as caught:
        right.send(b"", 400)
    assert (caught.value.code, caught.value.permission) == (mach.MACH_SEND_INVALID_DEST, "send")


def test_every_way_to_send_is_controlled(right: SendRight, port: ReceiveRight) -> None:
    with pytest.raises(AccessDenied):
        right.sender(401)(b"")
    with pytest.raises(AccessDenied):
        right.call(b"", 401, timeout=0)
    with pytest.raises(AccessDenied):
        right.send(b"", 401, rights=[None])
    once = port.make_send_once(right.task)
    with pytest.raises(AccessDenied):
        once.send(b"", 401)
    assert once.type, "it was not used up"
    wire = message(right.name, COPY_SEND, msgh_id=401)
    assert mach.mach_msg(right.task, wire, SEND)[0] == mach.MACH_SEND_MSG_FILTERED
    assert port.status.msgcount == 0


def test_who_waits_for_room_is_judged_again(
    kernel: Kernel, right: SendRight, port: ReceiveRight
) -> None:
    """A policy that changed during the wait is the one that counts; for what was queued as well."""
    for _ in range(3):
        right.send(b"", 400)
    waiting = Run(lambda: right.send(b"late", 400, timeout=LONG))
    settle(waiting)
    kernel.policies.replace("rules", Rules.from_text(BASIC))
    for _ in range(3):
        with pytest.raises(AccessDenied):
            port.receive(timeout=0)
    assert isinstance(waiting.error(), AccessDenied)
    assert port.status.msgcount == 0


def test_interfaces_come_and_go(right: SendRight, port: ReceiveRight) -> None:
    port.serve(None)
    right.send(b"", 401)
    assert port.receive().method == 0, "nobody was asked about a method"
    port.serve(NAMES)
    refused(right, 401)
    right.send(b"", 400)
    assert port.receive().method == 1
    port.serve(Interface("other", 401, ["anything"]))
    refused(right, 401)


def test_setting_one_is_asked_for(kernel: Kernel, port: ReceiveRight) -> None:
    kernel.policies.replace("rules", Rules.from_text("allow * * mach_port { send };"))
    for interface in (None, NAMES):
        with pytest.raises(AccessDenied) as caught:
            port.serve(interface)
        assert caught.value.permission == "set_attributes"


def test_numbers_at_the_edges(kernel: Kernel, port: ReceiveRight, right: SendRight) -> None:
    """Bases near the ends of 32 bits; ranges that would run over them are no interfaces."""
    top = (1 << 31) - 2
    text = BASIC + "allow client * mi_top { * }; allow client * mi_low { * };"
    kernel.policies.replace("rules", Rules.from_text(text))
    port.serve(Interface("top", top, ["a", "b"]))
    right.send(b"", top + 1)
    refused(right, -(1 << 31))
    port.serve(Interface("low", -(1 << 31), ["a"]))
    right.send(b"", -(1 << 31))
    refused(right, top + 1)
    with pytest.raises(MachError):
        port.serve(Interface("over", top, ["a", "b", "c"]))


def test_the_vector_tells_what_else_its_sender_may(right: SendRight, port: ReceiveRight) -> None:
    right.send(b"", 400)
    got = port.receive()
    assert (got.access, got.method) == (0b101, 1)


def test_a_permissive_policy_tells_the_server(
    kernel: Kernel, right: SendRight, port: ReceiveRight
) -> None:
    kernel.policies.permissive = True
    right.send(b"", 401)
    assert port.receive().method == 0
    right.send(b"", 400)
    assert port.receive().method == 1


def test_a_reply_is_not_a_method(right: SendRight, port: ReceiveRight) -> None:
    calling = Run(lambda: right.call(b"", 400, timeout=LONG).body)
    port.receive(timeout=LONG).reply(b"found")
    assert calling.result() == b"found"


def test_the_record_names_the_method(kernel: Kernel, right: SendRight) -> None:
    kernel.audit.drain()
    refused(right, 401)
    (record,) = kernel.audit.batch(kernel.audit.drain())
    assert (record.operation, record.msgh_id) == ("method", 401)
    assert record.denied == ("register",)
    assert record.tclass == "mi_names"
