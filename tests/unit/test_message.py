# SPDX-License-Identifier: BSD-2-Clause
"""Messages: what they say of themselves, what they bring, and what becomes of that."""

import gc
import pickle

import pytest

from pympi import (
    AccessDenied,
    InvalidRight,
    Kernel,
    KernelClosed,
    MachError,
    Memory,
    Message,
    QueueFull,
    ReceiveRight,
    SendOnceRight,
    SendRight,
    Task,
    mach,
)
from pympi.enums import Notification, PortType
from pympi.policy import Rules


def test_fields(kernel: Kernel, server: Task, client: Task) -> None:
    port = server.allocate_port(context=99)
    right = port.make_send(client)
    right.send(b"first")
    right.send(b"second", msgh_id=5)
    first, second = port.receive(), port.receive()
    assert (first.seqno, second.seqno) == (0, 1)
    assert (second.body, second.size, second.msgh_id) == (b"second", 6, 5)
    assert second.transfer > first.transfer > 0
    assert (second.context, second.voucher, second.denied) == (99, 0, 0)
    assert (second.task, second.port) == (server, port)
    assert second.access == kernel.access(client, port, "mach_port", "send").vector
    assert (second.rights, second.memory, second.reply_right) == ([], [], None)
    assert second.sender.task is client
    assert repr(second) == "<Message 5, 6 bytes, from task 2>"


def test_messages_are_only_received() -> None:
    with pytest.raises(TypeError, match="made by receiving"):
        Message()


def test_messages_cannot_be_pickled_or_changed(server: Task) -> None:
    port = server.allocate_port()
    port.make_send(server).send(b"")
    message = port.receive()
    with pytest.raises(TypeError, match="owns rights"):
        pickle.dumps(message)
    for name in ("msgh_id", "body", "unheard_of"):
        with pytest.raises(AttributeError):
            setattr(message, name, 1)


def test_the_sender_is_who_it_was(kernel: Kernel, server: Task) -> None:
    port = server.allocate_port()
    gone = kernel.create_task("gone", label="selftest/a")
    right = port.make_send(gone)
    right.send(b"")
    gone.relabel("selftest/b")
    gone.terminate()
    message = port.receive()
    assert message.sender.task is None
    assert message.sender.task_id == gone.id
    assert message.sender.label == message.sender.real_label == "selftest/a"
    message.close()


def test_rights_of_all_kinds(server: Task, client: Task) -> None:
    port, spool = server.allocate_port(), client.allocate_port()
    right = port.make_send(client)
    extra = spool.make_send(client)
    right.send(
        b"rights",
        rights=[right.copy_send(), None, spool.make_send_once(), extra.move_send(),
                spool.move_receive()],
    )  # fmt: skip
    kinds = [type(r) for r in port.receive().rights]
    assert kinds == [SendRight, type(None), SendOnceRight, SendRight, ReceiveRight]
    assert list(client.names().values()) == [PortType.SEND]


def test_what_cannot_be_sent_stays(server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=0)
    right = port.make_send(client)
    spool = client.allocate_port()
    extra = spool.make_send(client)
    before = client.names()
    with pytest.raises(QueueFull):
        right.send(b"", rights=[extra.move_send(), spool.move_receive()], timeout=0)
    assert client.names() == before
    assert extra.refs == 1
    with pytest.raises(InvalidRight):
        right.send(b"", rights=[extra.move_send(), extra.move_send()], timeout=0)
    assert client.names() == before


def test_closing_drops_what_it_brought(server: Task, client: Task) -> None:
    port, spool = server.allocate_port(), client.allocate_port()
    right = port.make_send(client)
    right.send(b"body", rights=[spool.make_send()], reply=spool)
    names = server.names()
    with port.receive() as message:
        assert len(server.names()) == len(names) + 2
    assert server.names() == names
    assert message.body == b"body"
    assert message.rights == []
    assert spool.receive(timeout=0).notification is Notification.SEND_ONCE
    message.close()


def test_not_closing_leaves_the_rights(server: Task, client: Task) -> None:
    port, spool = server.allocate_port(), client.allocate_port()
    port.make_send(client).send(b"", rights=[spool.make_send()])
    port.receive()
    gc.collect()
    assert list(server.names().values()) == [PortType.RECEIVE, PortType.SEND]


def test_replies(server: Task, client: Task) -> None:
    port, answers = server.allocate_port(), client.allocate_port()
    right = port.make_send(client)
    right.send(b"?", msgh_id=(1 << 31) - 1, reply=answers)
    request = port.receive()
    assert isinstance(request.reply_right, SendOnceRight)
    request.reply(b"!")
    assert request.reply_right is None
    with pytest.raises(InvalidRight, match="replied to already"):
        request.reply(b"!")
    assert answers.receive(timeout=0).msgh_id == -(1 << 31) + 99
    right.send(b"")
    with pytest.raises(InvalidRight, match="no reply right"):
        port.receive().reply(b"")


def test_replying_through_a_send_right_uses_it_up(server: Task, client: Task) -> None:
    port, answers = server.allocate_port(), client.allocate_port()
    right = port.make_send(client)
    right.send(b"?", reply=answers.make_send())
    request = port.receive()
    assert isinstance(request.reply_right, SendRight)
    request.reply(b"!", msgh_id=3)
    assert answers.receive(timeout=0).msgh_id == 3
    assert list(server.names().values()) == [PortType.RECEIVE]


def test_a_reply_that_finds_no_room_can_be_sent_again(server: Task, client: Task) -> None:
    port, answers = server.allocate_port(), client.allocate_port(qlimit=0)
    port.make_send(client).send(b"?", reply=answers.make_send())
    request = port.receive()
    with pytest.raises(QueueFull):
        request.reply(b"!", timeout=0)
    answers.qlimit = 1
    request.reply(b"!", timeout=0)
    assert answers.receive(timeout=0).body == b"!"


def test_memory_is_a_view_that_ends(server: Task) -> None:
    port = server.allocate_port()
    source = bytearray(b"x" * 10_000)
    port.make_send(server).send(b"", memory=[source, b"second"])
    message = port.receive()
    first, second = message.memory
    assert (len(first), bytes(second)) == (10_000, b"second")
    source[0] = ord("y")
    assert first[0] == ord("y")
    inner = memoryview(first)
    with pytest.raises(BufferError):
        message.close()
    inner.release()
    message.close()
    with pytest.raises(ValueError, match="released"):
        first[0]


def test_messages_outlive_their_kernel() -> None:
    released: list[int] = []
    kernel = Kernel()
    task = kernel.create_task("task")
    port = task.allocate_port()
    right = port.make_send(task)
    for number in range(3):
        memory = Memory(b"m" * 100, lambda number=number: released.append(number))
        right.send(b"kept", rights=[right.copy_send()], memory=[memory])
    first, second = port.receive(), port.receive()
    view = second.memory[0]
    kernel.close()
    assert released == [2]
    assert (first.body, second.body) == (b"kept", b"kept")
    assert bytes(view[:3]) == b"mmm"
    with pytest.raises(KernelClosed):
        first.sender  # noqa: B018
    first.close()
    assert released == [2, 0]
    del view
    second.close()
    assert sorted(released) == [0, 1, 2]


POLICY = """
allow client server mach_port { send hold_send copy_send carry_rights };
allow client client mach_port { make_send make_send_once set_reply use_recv get_attributes };
allow server server mach_port { use_recv make_send get_attributes };
allow server client mach_port { recv };
"""


def ruled(policy: str) -> tuple[Kernel, ReceiveRight, SendRight, Task]:
    kernel = Kernel(policies=[Rules.from_text(policy)])
    server = kernel.create_task("server", label="rules/server")
    client = kernel.create_task("client", label="rules/client")
    port = server.allocate_port()
    return kernel, port, port.make_send(client), client


def test_a_refused_right_is_none_and_counted() -> None:
    kernel, port, right, client = ruled(POLICY)
    with kernel:
        spool = client.allocate_port()
        right.send(b"body", rights=[spool.make_send()], reply=spool)
        message = port.receive()
        assert message.body == b"body"
        assert message.rights == [None]
        assert message.denied == 2
        assert message.reply_right is None
        assert spool.receive(timeout=0).notification is Notification.SEND_ONCE
        assert not spool.status.send_rights
        kernel.verify()


def test_a_refused_message_is_destroyed() -> None:
    kernel, port, right, _ = ruled(POLICY.replace("{ recv }", "{ send }"))
    with kernel:
        right.send(b"body")
        with pytest.raises(AccessDenied) as caught:
            port.receive()
        assert (caught.value.operation, caught.value.permission) == ("receive", "recv")
        assert caught.value.code == mach.MACH_RCV_INVALID_DATA
        assert port.status.msgcount == 0


def test_without_use_recv_the_message_waits() -> None:
    kernel, port, right, _ = ruled(POLICY.replace("use_recv ", ""))
    with kernel:
        right.send(b"body")
        with pytest.raises(AccessDenied) as caught:
            port.receive(timeout=0)
        assert caught.value.permission == "use_recv"
        kernel.policies.unload("rules")
        assert port.receive(timeout=0).body == b"body"


def test_handing_over_is_refused_without_trace() -> None:
    kernel, _, right, client = ruled(POLICY.replace("make_send make_send_once", "make_send"))
    with kernel:
        spool = client.allocate_port()
        with pytest.raises(MachError) as caught:
            right.send(b"", reply=spool)
        assert isinstance(caught.value, AccessDenied)
        assert caught.value.permission == "make_send_once"
        assert caught.value.code == mach.MACH_SEND_INVALID_REPLY
        assert spool.status.mscount == 0
