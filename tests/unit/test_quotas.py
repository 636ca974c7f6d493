# SPDX-License-Identifier: BSD-2-Clause
"""Quotas: who fills, pays; what is over the limit is refused whole; what is back may be used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pympi import Kernel, LimitExceeded, MachError, Quota, SendRight, Task, mach
from pympi.enums import Notification


def over(kernel: Kernel, call: Callable[[], object]) -> None:
    """Assert that a call is refused for a quota, and that this is counted."""
    before = kernel.stats()["quota_refusals"]
    with pytest.raises(LimitExceeded):
        call()
    assert kernel.stats()["quota_refusals"] > before


def test_ports(kernel: Kernel) -> None:
    task = kernel.create_task("task", quota=Quota(ports=2))
    first = task.allocate_port()
    task.allocate_port()
    over(kernel, task.allocate_port)
    assert len(task.names()) == 2
    first.close()
    assert task.allocate_port().type


def test_a_port_is_paid_by_its_maker_wherever_it_goes(kernel: Kernel, server: Task) -> None:
    """Otherwise a task could fill the kernel, or another's quota, by giving its ports away."""
    poor = kernel.create_task("poor", quota=Quota(ports=1))
    moved = poor.allocate_port().move_receive(server)
    assert (poor.usage.ports, server.usage.ports) == (1, 0)
    over(kernel, poor.allocate_port)
    moved.close()
    poor.allocate_port()


def test_names(kernel: Kernel, server: Task) -> None:
    poor = kernel.create_task("poor", quota=Quota(names=2))
    own = poor.allocate_port()
    right = server.allocate_port().make_send(poor)
    over(kernel, lambda: server.allocate_port().make_send(poor))
    over(kernel, poor.create_port_set)
    assert set(poor.names()) == {own.name, right.name}
    own.make_send(poor)
    assert poor.usage.names == 2, "a second right under one name costs no name"
    right.close()
    assert poor.create_port_set().members() == []


def test_names_that_arrive_in_messages(kernel: Kernel, server: Task) -> None:
    """A message that finds no names stays where it is until there are some."""
    poor = kernel.create_task("poor", quota=Quota(names=3))
    inbox = poor.allocate_port()
    right = inbox.make_send(server)
    carried = [server.allocate_port().make_send() for _ in range(3)]
    right.send(b"x", rights=carried)
    for _ in range(2):
        with pytest.raises(MachError) as caught:
            inbox.receive(timeout=0)
        assert caught.value.code == mach.MACH_RCV_HEADER_ERROR | mach.MACH_MSG_IPC_SPACE
        assert (inbox.status.msgcount, poor.usage.names) == (1, 1)
    poor.set_quota(Quota(names=4))
    assert None not in inbox.receive(timeout=0).rights
    assert poor.usage.names == 4


def queued(kernel: Kernel, server: Task, quota: Quota) -> tuple[Task, SendRight]:
    poor = kernel.create_task("poor", quota=quota)
    return poor, server.allocate_port(qlimit=1000).make_send(poor)


def test_queued_bytes_are_the_senders(kernel: Kernel, server: Task, client: Task) -> None:
    poor, right = queued(kernel, server, Quota(queued_bytes=1000))
    right.send(b"x" * 600)
    over(kernel, lambda: right.send(b"x" * 600, timeout=0))
    over(kernel, lambda: right.send(b"x" * 600, timeout=10))
    right.copy_send(client).send(b"x" * 600)
    assert server.usage.queued_bytes == 0
    inbox = next(server.right(name) for name in server.names())
    assert inbox.receive(timeout=0).size == 600  # type: ignore[attr-defined]
    assert poor.usage.queued_bytes == 0
    right.send(b"x" * 600, timeout=0)


def test_memory_by_reference_counts_as_queued(kernel: Kernel, server: Task) -> None:
    poor, right = queued(kernel, server, Quota(queued_bytes=1000))
    over(kernel, lambda: right.send(b"", memory=[b"m" * 2000], timeout=0))
    right.send(b"", memory=[b"m" * 800], timeout=0)
    assert poor.usage.queued_bytes >= 800


def test_queued_bytes_return_when_the_port_dies(kernel: Kernel, server: Task) -> None:
    poor, right = queued(kernel, server, Quota(queued_bytes=1000))
    right.send(b"x" * 900)
    server.terminate()
    assert poor.usage.queued_bytes == 0


def test_a_task_that_ended_has_paid(kernel: Kernel, server: Task) -> None:
    """What it sent is still delivered, and its books are closed with the last message."""
    poor, right = queued(kernel, server, Quota(queued_bytes=1000))
    right.send(b"x" * 900)
    poor.terminate()
    kernel.verify()
    inbox = next(server.right(name) for name in server.names())
    assert inbox.receive(timeout=0).size == 900  # type: ignore[attr-defined]


def test_labels_are_paid_by_who_was_first_to_use_them(kernel: Kernel, client: Task) -> None:
    poor = kernel.create_task("poor", label="selftest/p", quota=Quota(sids=2))
    port = poor.allocate_port()
    port.relabel("selftest/1")
    other = poor.allocate_port("selftest/2")
    assert poor.usage.sids == 2
    over(kernel, lambda: poor.allocate_port("selftest/3"))
    client.allocate_port("selftest/4")
    poor.allocate_port("selftest/4").close()
    assert poor.usage.sids == 2, "it was known already"
    other.close()
    kernel.audit.drain()
    kernel.audit.drain()
    poor.allocate_port("selftest/5")


def test_notifications(kernel: Kernel, server: Task) -> None:
    poor = kernel.create_task("poor", quota=Quota(notifications=1))
    told = poor.allocate_port()
    rights = [server.allocate_port().make_send(poor) for _ in range(2)]
    rights[0].request_notification(Notification.DEAD_NAME, told)
    over(kernel, lambda: rights[1].request_notification(Notification.DEAD_NAME, told))
    cancelled = rights[0].cancel_notification(Notification.DEAD_NAME)
    assert cancelled is not None
    cancelled.close()
    rights[1].request_notification(Notification.DEAD_NAME, told)
    assert poor.usage.notifications == 1


def test_memory(kernel: Kernel) -> None:
    poor = kernel.create_task("poor", quota=Quota(memory=100_000))
    address = mach.vm_allocate(poor, 60_000)
    over(kernel, lambda: mach.vm_allocate(poor, 60_000))
    assert 60_000 <= poor.usage.memory <= 100_000
    mach.vm_deallocate(poor, address, 60_000)
    assert poor.usage.memory == 0
    mach.vm_allocate(poor, 60_000)


def test_a_lower_quota_takes_nothing_away(kernel: Kernel) -> None:
    task = kernel.create_task("task")
    ports = [task.allocate_port() for _ in range(3)]
    task.set_quota(Quota(ports=1))
    assert task.usage.ports == 3
    for port in ports[:2]:
        over(kernel, task.allocate_port)
        port.close()
    over(kernel, task.allocate_port)
    ports[2].close()
    task.allocate_port()


@pytest.mark.parametrize("wrong", [{"ports": -1}, {"ports": 1 << 32}, {"memory": 1 << 64}])
def test_wrong_quotas_are_refused(kernel: Kernel, wrong: dict[str, int]) -> None:
    with pytest.raises((OverflowError, ValueError)):
        kernel.create_task("task", quota=Quota(**wrong))
