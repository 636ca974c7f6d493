# SPDX-License-Identifier: BSD-2-Clause
"""What a message says of its method holds when it is received, whatever has changed since."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from pympi import AccessDenied, Kernel, SendRight, Task, mach
from pympi.enums import Notification
from pympi.message import Message
from pympi.mig import Interface, Routine, Server
from pympi.policy import Rules
from pympi.port import ReceiveRight

PLAIN = Interface("plain", 400, ["look", "touch"])
VAULT = Interface("vault", 400, [Routine("peek", {}), Routine("open", {}, protected=True)])
OPEN = 401
BASIC = "allow * * mach_port { * };"
GRANTED = BASIC + "allow client * mi_plain { * };"


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(policies=[Rules.from_text(GRANTED)]) as kernel:
        yield kernel
        kernel.verify()


@pytest.fixture
def port(kernel: Kernel) -> ReceiveRight:
    port = kernel.create_task("server", label="rules/server").allocate_port()
    port.serve(PLAIN)
    return port


@pytest.fixture
def client(kernel: Kernel) -> Task:
    return kernel.create_task("client", label="rules/client")


@pytest.fixture
def right(port: ReceiveRight, client: Task) -> SendRight:
    return port.make_send(client)


def rules(kernel: Kernel, text: str) -> None:
    """Have another policy."""
    kernel.policies.replace("rules", Rules.from_text(BASIC + text))


def relabel(port: ReceiveRight) -> None:
    rules(port.task.kernel, "allow client server mi_plain { * };")
    port.relabel("rules/other")


CHANGES: dict[str, tuple[Callable[[ReceiveRight], object], tuple[str, str]]] = {
    "interface": (lambda port: port.serve(VAULT), ("mi_vault", "open")),
    "unknown": (lambda port: port.serve(Interface("o", 1, ["f"])), ("mi_o", "ioctl")),
    "policy": (lambda port: rules(port.task.kernel, ""), ("mi_plain", "touch")),
    "label": (relabel, ("mi_plain", "touch")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fast", [True, False])
def test_what_is_not_allowed_any_more_is_not_received(
    change: str, fast: bool, kernel: Kernel, port: ReceiveRight, right: SendRight, client: Task
) -> None:
    """It is destroyed with what it brought; who waits for its answer is told."""
    answers, moved = client.allocate_port(), client.allocate_port()
    if fast:
        right.send(b"", OPEN)
    else:
        right.send(b"", OPEN, rights=[moved.move_receive()], reply=answers)
    kernel.audit.drain()
    act, (tclass, permission) = CHANGES[change]
    act(port)
    with pytest.raises(AccessDenied) as caught:
        port.receive(timeout=0)
    error = caught.value
    assert (error.code, error.operation) == (mach.MACH_RCV_INVALID_DATA, "method")
    assert (error.tclass, error.permission) == (tclass, permission)
    (record,) = kernel.audit.batch(kernel.audit.drain())
    assert (record.operation, record.denied, record.msgh_id) == ("method", (permission,), OPEN)
    assert (record.subject, record.task_name) == ("rules/client", "client")
    assert port.status.msgcount == 0
    if not fast:
        assert answers.receive(timeout=0).notification is not None


@pytest.mark.parametrize("change", CHANGES)
def test_bytes_alone_are_not_received_either(
    change: str, port: ReceiveRight, right: SendRight
) -> None:
    receive = port.receiver()
    right.send(b"one", OPEN)
    CHANGES[change][0](port)
    with pytest.raises(AccessDenied):
        receive()


def test_what_was_queued_before_there_was_an_interface(
    port: ReceiveRight, right: SendRight
) -> None:
    port.serve(None)
    for _ in range(3):
        right.send(b"", OPEN)
    port.serve(PLAIN)
    assert port.receive().asked == ("mi_plain", "touch")
    port.serve(VAULT)
    with pytest.raises(AccessDenied):
        port.receive(timeout=0)
    port.serve(None)
    message = port.receive()
    assert (message.asked, message.method) == (None, 0)
    assert message.tclass == message.task.kernel.object_class("mach_port").number


def test_what_is_still_allowed_says_what_it_is_about_now(
    kernel: Kernel, port: ReceiveRight, right: SendRight
) -> None:
    right.send(b"", OPEN)
    rules(kernel, "allow client * mi_vault { open };")
    port.serve(VAULT)
    message = port.receive()
    assert (message.asked, message.method, message.access) == (("mi_vault", "open"), 1, 0b10)


def test_a_vector_is_not_that_of_an_interface_that_is_gone(
    port: ReceiveRight, right: SendRight
) -> None:
    right.send(b"", OPEN)
    port.serve(None)
    message = port.receive()
    assert (message.asked, message.method) == (None, 0)
    assert message.access == port.task.kernel.object_class("mach_port").mask("*")


def test_nothing_is_asked_twice_where_nothing_changed(
    kernel: Kernel, port: ReceiveRight, right: SendRight
) -> None:
    kernel.audit.select("granted", "mi_plain")
    right.send(b"", OPEN)
    other = port.task.allocate_port()
    other.serve(VAULT)
    other.relabel("rules/server")
    assert port.receive().method == 1
    records = [r for r in kernel.audit.batch(kernel.audit.drain()) if r.tclass == "mi_plain"]
    assert len(records) == 1


def test_policies_that_come_later_count() -> None:
    """Where there is no policy everything is allowed: that is no verdict for later."""
    with Kernel() as kernel:
        port = kernel.create_task("server").allocate_port()
        right = port.make_send(kernel.create_task("client"))
        right.send(b"", OPEN)
        assert port.receive().method == 1
        right.send(b"", OPEN)
        kernel.policies.load(Rules.from_text(BASIC))
        assert port.receive().method == 0


def test_a_permissive_policy_lets_it_through_and_says_so(
    kernel: Kernel, port: ReceiveRight, right: SendRight
) -> None:
    right.send(b"", OPEN)
    kernel.policies.permissive = True
    rules(kernel, "")
    assert port.receive().method == 0


def test_nothing_is_left_of_a_permissive_time(
    kernel: Kernel, port: ReceiveRight, right: SendRight
) -> None:
    rules(kernel, "")
    kernel.policies.permissive = True
    right.send(b"", OPEN)
    kernel.policies.permissive = False
    with pytest.raises(AccessDenied):
        port.receive(timeout=0)


def test_who_sent_under_another_label_is_asked_about_by_that(
    kernel: Kernel, port: ReceiveRight
) -> None:
    deputy = kernel.create_task("deputy", label="rules/deputy")
    right = port.make_send(deputy)
    right.send(b"", OPEN, effective="rules/client")
    rules(kernel, "allow client * mi_plain { touch };")
    assert port.receive().method == 1
    rules(kernel, GRANTED.removeprefix(BASIC))
    right.send(b"", OPEN, effective="rules/client")
    rules(kernel, "allow deputy * mi_plain { touch };")
    with pytest.raises(AccessDenied):
        port.receive(timeout=0)


def test_the_kernels_own_messages_are_no_methods(port: ReceiveRight, client: Task) -> None:
    """One that comes under a routine's number was asked about by nobody, and is none."""
    watched = client.allocate_port()
    watched.make_send(port.task).request_notification(Notification.DEAD_NAME, port)
    watched.close()
    notified = Interface("notified", 64, [f"r{n}" for n in range(16)])
    port.serve(notified)
    message = port.receive(timeout=0)
    assert message.notification is not None
    assert (message.asked, message.method) == (None, 0)


def test_what_is_queued_goes_with_the_port_and_its_interface(
    kernel: Kernel, port: ReceiveRight, right: SendRight
) -> None:
    """Its next owner receives under the interface it came with, or another that it sets."""
    for number in (400, 401, 401):
        right.send(b"", number)
    heir = kernel.create_task("heir", label="rules/heir")
    post = heir.allocate_port()
    post.make_send(port.task).send(b"", rights=[port.move_receive()])
    (moved,) = post.receive().rights
    assert isinstance(moved, ReceiveRight)
    assert moved.receive().asked == ("mi_plain", "look")
    moved.serve(PLAIN)  # what it served before: nothing changes
    assert moved.receive().asked == ("mi_plain", "touch")
    moved.serve(VAULT)
    with pytest.raises(AccessDenied):
        moved.receive(timeout=0)


def test_of_a_set_the_member_is_asked_about(port: ReceiveRight, right: SendRight) -> None:
    plain = port.task.allocate_port()
    both = port.task.create_port_set(port, plain)
    right.send(b"", OPEN)
    plain.make_send(right.task).send(b"", OPEN)
    port.serve(VAULT)
    with pytest.raises(AccessDenied) as caught:
        both.receive(timeout=0)
    assert caught.value.tclass == "mi_vault"
    assert both.receive(timeout=0).local_name == plain.name


def test_on_the_wire_too(port: ReceiveRight, right: SendRight) -> None:
    """The verdict is msgh_ad of the trailer; no size is told of what is refused."""
    option = mach.MACH_RCV_MSG | mach.MACH_RCV_TIMEOUT | mach.MACH_RCV_LARGE | 7 << 24

    def receive(size: int) -> tuple[int, bytes]:
        return mach.mach_msg(port.task, b"", option, size, port.name)

    right.send(b"", OPEN)
    right.send(b"", OPEN)
    rules(port.task.kernel, "allow client * mi_plain { touch };")
    code, got = receive(256)
    assert (code, struct.unpack_from("<I", got, len(got) - 8)) == (0, (1,))
    rules(port.task.kernel, "")
    assert receive(24)[0] == mach.MACH_RCV_INVALID_DATA
    assert receive(256)[0] == mach.MACH_RCV_TIMED_OUT


# ---- servers ----


def ran(interface: Interface) -> tuple[list[str], Server]:
    """A server of an interface, and where it says which functions were called."""
    called: list[str] = []

    def note(name: str) -> Callable[[Message], None]:
        return lambda _: called.append(name)

    names = [routine.name for _, routine in interface.numbered()]
    return called, interface.server({name: note(name) for name in names})


def test_a_server_serves_what_was_asked_about(port: ReceiveRight, right: SendRight) -> None:
    """A port that serves an interface proves nothing about the routines of another."""
    called, server = ran(VAULT)
    for number in (400, 401):
        right.send(b"", number)
        server(port.receive())
    assert called == []
    assert server.counts == {"refused": 2}


def test_an_equal_interface_is_the_same(kernel: Kernel, port: ReceiveRight) -> None:
    rules(kernel, "allow client * mi_vault { * };")
    port.serve(VAULT)
    right = port.make_send(kernel.create_task("c", label="rules/client"))
    called, server = ran(
        Interface("vault", 400, [Routine("peek", {}), Routine("open", {}, protected=True)])
    )
    right.send(b"", OPEN)
    server(port.receive())
    assert called == ["open"]


def test_a_protected_routine_is_not_run_on_a_verdict_of_before(
    kernel: Kernel, port: ReceiveRight, right: SendRight
) -> None:
    """Permissive, so that it arrives at all: what is said of another interface is not enough."""
    called, server = ran(VAULT)
    right.send(b"", OPEN)
    kernel.policies.permissive = True
    port.serve(VAULT)
    server(port.receive())
    assert (called, server.counts) == ([], {"refused": 1})


def test_a_handler_is_not_called_with_it(kernel: Kernel, client: Task) -> None:
    """The policy changes while the message is on its way to the handler."""
    called, server = ran(VAULT)
    port = kernel.create_task("keeper", label="rules/keeper").create_handler(server)
    port.serve(PLAIN)
    right = port.make_send(client)

    class Switch(Rules):
        """Sets the other interface when it is asked whether the handler's owner may receive."""

        armed = True
        uncached = True

        def decide(self, source, target, tclass):  # type: ignore[no-untyped-def]
            if source == "keeper" and self.armed:
                self.armed = False
                port.serve(VAULT)
            return super().decide(source, target, tclass)

    module = Switch.from_text(GRANTED)
    kernel.policies.replace("rules", module)
    right.send(b"", OPEN)
    assert not module.armed
    assert called == []
    kernel.verify()
