# SPDX-License-Identifier: BSD-2-Clause
"""What a snapshot of a kernel says, and what taking one does to it."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pympi import ForkedError, Kernel, KernelClosed, SimulatedClock, survey
from pympi._ffi import lib
from pympi.enums import PortType
from pympi.inspect import Context, Service, Snapshot
from pympi.mig import Interface
from pympi.policy import Partition, Stub


@pytest.fixture
def kernel():
    with Kernel() as kernel:
        yield kernel


def test_who_is_at_the_other_end(kernel: Kernel) -> None:
    kernel.policies.load(Partition(), Stub())
    kernel.policies.permissive = True
    server = kernel.create_task("server", "partition/s", uid=7)
    client = kernel.create_task("client", "partition/c")
    printer = server.allocate_port().make_send(client)
    snapshot = kernel.snapshot()
    (right,) = snapshot.rights_of(client.id)
    assert right.name == printer.name
    assert right.types == PortType.SEND
    port = snapshot.port(right.object)
    assert (port.label, port.state, port.owner) == ("partition/s", "received", "server")
    assert port.receiver == port.maker == server.id
    assert snapshot.task(port.receiver).uid == 7
    assert {right.task for right in snapshot.holders(port.id)} == {server.id, client.id}


def test_another_thread_closes_the_kernel_during_a_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    server, interface = kernel.create_task("server"), kernel.create_interface("s", 100, ["submit"])
    lib.pm_port_set_interface(
        server.pointer, server.pointer, server.allocate_port().name, interface
    )
    del server  # whose handle keeps the kernel

    def closed_then(*arguments):
        code = lib.pm_long_inspect_read(*arguments)
        kernel.close()
        return code

    calls = {name: getattr(lib, name) for name in dir(lib)} | {"pm_long_inspect_read": closed_then}
    monkeypatch.setattr(survey, "lib", SimpleNamespace(**calls))
    assert kernel.survey().classes == {interface: lib.PM_CLASS_INTERFACE}


def test_children_know_their_parent(kernel: Kernel) -> None:
    parent = kernel.create_task("parent")
    child = kernel.create_task("child", parent=parent)
    assert [task.parent for task in kernel.snapshot().tasks] == [0, parent.id]
    child.terminate()
    tasks = kernel.snapshot().tasks
    assert [task.alive for task in tasks] == [True, False]


def test_a_port_in_a_message(kernel: Kernel) -> None:
    server, client = kernel.create_task("server"), kernel.create_task("client")
    inbox = server.allocate_port()
    travels = client.allocate_port()
    number = travels.port_id
    inbox.make_send(client).send(b"take it", rights=[travels.move_receive()])
    snapshot = kernel.snapshot()
    port = snapshot.port(number)
    assert (port.state, port.receiver, port.destination) == ("in transit", 0, inbox.port_id)
    assert not snapshot.holders(number)
    queue = snapshot.port(inbox.port_id)
    assert (queue.queue_length, queue.queued_bytes, queue.queued_bytes_partial) == (1, 7, False)


def test_handler_interface_and_kind(kernel: Kernel) -> None:
    server = kernel.create_task("server")
    clock = server.create_handler(lambda request: None, kind="clock")
    inbox = server.allocate_port()
    inbox.serve(Interface("printing", 1200, ["print_page"]))
    snapshot = kernel.snapshot()
    assert snapshot.port(clock.port_id).handler
    assert snapshot.port(clock.port_id).kind
    port = snapshot.port(inbox.port_id)
    assert (port.interface, port.handler) == ("mi_printing", False)


def test_names_that_are_no_text(kernel: Kernel, tmp_path: Path) -> None:
    kernel.create_task("bad \udcff name").allocate_port()
    snapshot = kernel.snapshot(tmp_path / "a.snap")
    assert snapshot.tasks[0].name == "bad \\xff name"
    assert snapshot.ports[0].owner == "bad \\xff name"
    assert Snapshot.load(tmp_path / "a.snap") == snapshot


def test_policy(kernel: Kernel) -> None:
    kernel.policies.load(Partition(), Stub())
    kernel.policies.set_permissive("stub")
    kernel.policies.replace("partition", Partition(), shadow=True)
    policy = kernel.snapshot().policy
    assert policy.epoch == kernel.policies.epoch
    assert [(m.name, m.permissive, m.shadow) for m in policy.modules] == [
        ("partition", False, 0),
        ("stub", True, None),
    ]


def test_counters(kernel: Kernel) -> None:
    kernel.create_task("server").allocate_port()
    snapshot = kernel.snapshot()
    assert snapshot.stats["ports"] == 1
    assert snapshot.audit == kernel.audit.stats
    assert snapshot.changes.operations == 0
    assert snapshot.stopped_seconds is None


def test_the_kernel_stands_still(kernel: Kernel, tmp_path: Path) -> None:
    kernel.create_task("server").allocate_port()
    snapshot = kernel.snapshot(tmp_path / "a.snap", consistent=True)
    assert snapshot.stopped_seconds > 0
    assert snapshot.begin == snapshot.end
    assert Snapshot.load(tmp_path / "a.snap") == snapshot


def test_times() -> None:
    clock = SimulatedClock(3.5)
    with Kernel(clock=clock) as kernel:
        assert kernel.snapshot().kernel_time == 3.5


def test_the_name_server_tells_of_its_contexts(kernel: Kernel) -> None:
    assert kernel.snapshot().bootstrap is None
    context = Context(1, label="x", services=(Service("com.example", "server", "active"),))
    kernel.bootstrap_contexts = lambda: [context]
    assert kernel.snapshot().bootstrap == (context,)


def test_a_kernel_that_is_not_there(kernel: Kernel) -> None:
    closed = Kernel()
    closed.close()
    with pytest.raises(KernelClosed):
        closed.snapshot()
    child = os.fork()
    if child == 0:
        try:
            kernel.snapshot()
        except ForkedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("consistent", [False, True])
def test_while_everything_changes(kernel: Kernel, consistent: bool) -> None:
    """Every row is true to itself, and what is not found was made or went meanwhile."""
    done, churned = threading.Event(), []

    def churn() -> None:
        while not done.is_set():
            task = kernel.create_task("short")
            inbox = task.allocate_port()
            inbox.make_send(task).send(b"x")
            task.terminate()
            churned.append(task.id)

    stays = kernel.create_task("stays")
    ports = [stays.allocate_port().port_id for _ in range(300)]
    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        snapshots = [kernel.snapshot(consistent=consistent) for _ in range(20)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for snapshot in snapshots:
        assert set(ports) <= {port.id for port in snapshot.ports}
        assert len(snapshot.rights_of(stays.id)) == 300
        assert len({port.id for port in snapshot.ports}) == len(snapshot.ports)
        assert all(p.receiver or p.state != "received" for p in snapshot.ports)
        if consistent:
            tasks = {task.id for task in snapshot.tasks}
            assert all(not p.receiver or p.receiver in tasks for p in snapshot.ports)
            known = {port.id for port in snapshot.ports}
            assert all(right.object in known for right in snapshot.rights)
    kernel.verify()
    assert churned
