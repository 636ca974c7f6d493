# SPDX-License-Identifier: BSD-2-Clause
"""Tasks: how they come, what they have, and how they end."""

import gc
from collections.abc import Iterator

import pytest
from background import Run, settle

from pympi import (
    AccessDenied,
    GuardViolation,
    InvalidName,
    Kernel,
    LabelError,
    LimitExceeded,
    MachError,
    PortDied,
    Quota,
    Task,
    mach,
)
from pympi.enums import GuardFlavor, PortType, SpecialPort
from pympi.policy import Partition, Rules


def test_identity(kernel: Kernel) -> None:
    port = kernel.create_task("server").allocate_port()
    user = kernel.create_task("user", uid=501)
    token = tuple(range(1, 9))
    other = kernel.create_task("other", audit_token=token)
    for task in (user, other):
        port.make_send(task).send(b"")
    first, second = port.receive().sender, port.receive().sender
    assert first.task is user
    assert first.audit_token[:4] == (501, 501, 0, 501)
    assert first.security_token == (501, 0)
    assert (second.audit_token, second.security_token) == (token, (2, 0))


def test_identity_is_inherited(kernel: Kernel) -> None:
    parent = kernel.create_task("parent", uid=501)
    port = parent.allocate_port()
    port.make_send(kernel.create_task("child", parent=parent)).send(b"")
    port.make_send(kernel.create_task("other", parent=parent, uid=0)).send(b"")
    assert [port.receive().sender.audit_token[1] for _ in range(2)] == [501, 0]
    with pytest.raises(ValueError, match="8 numbers"):
        kernel.create_task("short", audit_token=[1, 2])


def test_labels_come_from_the_parent() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        parent = kernel.create_task("parent", label="partition/red")
        assert kernel.create_task("child", parent=parent).label == "partition/red"
        assert kernel.create_task("alone").label == "-"
        assert kernel.create_task("told", label="partition/blue").label == "partition/blue"
        with pytest.raises(LabelError, match="no policy module 'rules'"):
            kernel.create_task("wrong", label="rules/x")


def test_a_parent_is_asked_for_create() -> None:
    with Kernel(policies=[Rules.from_text("allow init init mach_task { create };")]) as kernel:
        init = kernel.create_task("init", label="rules/init")
        kernel.create_task("child", parent=init)
        with pytest.raises(AccessDenied) as caught:
            kernel.create_task("editor", label="rules/editor", parent=init)
        assert (caught.value.operation, caught.value.permission) == ("task", "create")
        assert caught.value.tclass == "mach_task"


def test_a_caller_is_asked_for_what_it_does_in_another_space() -> None:
    with Kernel(policies=[Rules.from_text("allow boss worker mach_task { observe };")]) as kernel:
        boss = kernel.create_task("boss", label="rules/boss")
        worker = kernel.create_task("worker", label="rules/worker")
        port = worker.allocate_port()
        assert worker.names(caller=boss) == {port.name: PortType.RECEIVE}
        with pytest.raises(AccessDenied) as caught:
            boss.names(caller=worker)
        assert caught.value.permission == "observe"
        assert caught.value.code == mach.KERN_NO_ACCESS
        with pytest.raises(AccessDenied):
            worker.terminate(caller=boss)
        assert worker.alive


def test_relabel() -> None:
    rules = Rules.from_text(
        "allow a a mach_task { relabelfrom }; allow a b mach_task { relabelto };"
    )
    with Kernel(policies=[rules]) as kernel:
        task = kernel.create_task("task", label="rules/a")
        with pytest.raises(AccessDenied) as caught:
            task.relabel("rules/c")
        assert (caught.value.operation, caught.value.permission) == ("relabel", "relabelto")
        task.relabel("rules/b")
        assert task.label == "rules/b"


def test_special_ports_are_inherited(kernel: Kernel, server: Task) -> None:
    parent = kernel.create_task("parent")
    right = server.allocate_port().make_send(parent)
    assert parent.get_special_port(SpecialPort.BOOTSTRAP) is None
    parent.set_special_port(SpecialPort.BOOTSTRAP, right)
    child = kernel.create_task("child", parent=parent)
    got = child.get_special_port(SpecialPort.BOOTSTRAP)
    assert got is not None
    assert got.task is child
    assert got.port_id == right.port_id
    parent.set_special_port(SpecialPort.BOOTSTRAP, None)
    assert parent.get_special_port(SpecialPort.BOOTSTRAP) is None
    with pytest.raises(MachError):
        parent.set_special_port(99, right)  # type: ignore[arg-type]


def test_registered_ports(kernel: Kernel, server: Task) -> None:
    parent = kernel.create_task("parent")
    right = server.allocate_port().make_send(parent)
    parent.register_ports([right, right])
    child = kernel.create_task("child", parent=parent)
    ids = [port.port_id for port in child.registered_ports() if port]
    assert ids == [right.port_id] * 2
    with pytest.raises(MachError):
        parent.register_ports([right] * 4)


def test_quota(kernel: Kernel, server: Task) -> None:
    poor = kernel.create_task("poor", quota=Quota(ports=2, queued_bytes=1000))
    poor.allocate_port()
    poor.allocate_port()
    with pytest.raises(LimitExceeded):
        poor.allocate_port()
    assert poor.usage.ports == 2
    right = server.allocate_port().make_send(poor)
    right.send(b"x" * 500)
    assert poor.usage.queued_bytes >= 500
    with pytest.raises(LimitExceeded):
        right.send(b"x" * 600, timeout=0)
    poor.set_quota(Quota())
    poor.allocate_port()
    right.send(b"x" * 600, timeout=0)


def test_names_and_views(server: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(server)
    assert right.name == port.name
    assert server.names() == {port.name: PortType.SEND | PortType.RECEIVE}
    assert server.right(port.name) == port
    many = [server.allocate_port() for _ in range(200)]
    assert set(server.names()) == {port.name, *(p.name for p in many)}
    with pytest.raises(InvalidName):
        server.right(0x12345603)


def test_termination_wakes_and_kills(kernel: Kernel, server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    waiting = Run(port.receive)
    settle(waiting)
    server.terminate()
    error = waiting.error()
    assert isinstance(error, MachError)
    assert error.name == "KERN_TERMINATED"
    assert server.id not in kernel.tasks
    with pytest.raises(PortDied):
        right.send(b"x")
    with pytest.raises(MachError):
        server.allocate_port()


@pytest.mark.parametrize("choice", ["audit", "log", "raise"])
def test_guard_violations(choice: str, caplog: pytest.LogCaptureFixture) -> None:
    with Kernel(guard_violations=choice) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port()
        port.guard(42)
        expected = GuardViolation if choice == "raise" else MachError
        with pytest.raises(expected) as caught:
            task._do(mach.lib.pm_port_destruct, port.name, 0, 41)
        assert isinstance(caught.value, GuardViolation) == (choice == "raise")
        assert ("guard violation" in caplog.text) == (choice == "log")
        if isinstance(caught.value, GuardViolation):
            assert caught.value.port_name == port.name
            assert caught.value.flavor in GuardFlavor
        port.destruct(42)


def test_a_task_can_be_asked_by_what_ends_with_it(kernel: Kernel) -> None:
    """In a cycle that is garbage everything has its last word before anything is given back."""
    heard: list[tuple[bool, int]] = []

    def process(task: Task, held: list[object]) -> Iterator[None]:
        held.append(task)
        try:
            yield
        finally:
            heard.append((task.alive, task.sid))

    for name in ("first", "second"):
        held: list[object] = []
        running = process(kernel.create_task(name), held)
        next(running)
        held.append(running)
    del held, running
    gc.collect()
    assert [alive for alive, _ in heard] == [True, True]
