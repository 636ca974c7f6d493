# SPDX-License-Identifier: BSD-2-Clause
"""Rights: sending, receiving, waiting, handing over, closing."""

import gc
import signal
import sys
import threading
import time
from collections import deque

import numpy as np
import pytest

from pympi import (
    AccessDenied,
    InvalidName,
    InvalidRight,
    Kernel,
    MachError,
    Memory,
    Message,
    PortDied,
    QueueFull,
    SendOnceRight,
    SendRight,
    SimulatedClock,
    Task,
    TimedOut,
    _upcall,
    mach,
)
from pympi.enums import Notification, PortType
from pympi.policy import Rules


def test_views_change_nothing_when_collected(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    del right
    gc.collect()
    assert list(client.names().values()) == [PortType.SEND]


def test_close_drops_exactly_one_reference(server: Task, client: Task) -> None:
    port = server.allocate_port()
    first, second = port.make_send(client), port.make_send(client)
    assert first == second
    assert first.refs == 2
    with first:
        pass
    first.close()
    assert second.refs == 1
    second.close()
    assert client.names() == {}
    port.close()
    assert server.names() == {}


def test_closing_what_moved_away_does_nothing(server: Task, client: Task) -> None:
    port = server.allocate_port()
    moved = port.move_receive(client)
    port.close()
    assert moved.type == PortType.RECEIVE
    assert server.names() == {}


def test_rights_handed_over_at_once(kernel: Kernel, server: Task, client: Task) -> None:
    third = kernel.create_task("third")
    port = server.allocate_port()
    right = port.make_send(client)
    copied = right.copy_send(third)
    assert (copied.task, right.refs) == (third, 1)
    moved = right.move_send(third)
    assert moved == copied
    assert moved.refs == 2
    with pytest.raises(InvalidName):
        right.refs  # noqa: B018
    once = port.make_send_once(client)
    again = once.move_send_once(third)
    again.send(b"once")
    assert port.receive().body == b"once"
    with pytest.raises(MachError):
        again.send(b"twice", timeout=0)
    assert port.status.mscount == 1


@pytest.mark.parametrize("body", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_bodies(server: Task, body: object) -> None:
    port = server.allocate_port()
    port.make_send(server).send(body)
    assert port.receive().body == b"abc"


def test_bodies_of_numpy(server: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(server)
    array = np.arange(10, dtype="<u2")
    right.send(array)
    right.send(array[::2])
    assert port.receive().body == array.tobytes()
    assert port.receive().body == array[::2].tobytes()


@pytest.mark.parametrize("body", ["text", 5, None, [1, 2]])
def test_what_is_no_body(server: Task, body: object) -> None:
    right = server.allocate_port().make_send(server)
    with pytest.raises(TypeError, match="bytes"):
        right.send(body)
    with pytest.raises(TypeError, match="bytes"):
        right.sender()(body)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 4096, 4097, 100_000, 2_000_000])
def test_sizes(server: Task, size: int) -> None:
    port = server.allocate_port()
    right = port.make_send(server)
    body = bytes(i & 255 for i in range(size))
    right.send(body)
    assert port.receive().body == body
    right.send(body)
    assert port.receiver()() == body


def test_numbers_of_messages(server: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(server)
    for number in (-(1 << 31), -1, 0, (1 << 31) - 1):
        right.send(b"", msgh_id=number)
        assert port.receive().msgh_id == number
    for number in (1 << 31, -(1 << 31) - 1, 1 << 80):
        with pytest.raises(OverflowError):
            right.send(b"", msgh_id=number)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("inf"), 1e300])
def test_strange_timeouts(server: Task, timeout: float) -> None:
    port = server.allocate_port()
    with pytest.raises(ValueError, match="timeout"):
        port.receive(timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        port.make_send(server).send(b"", timeout=timeout)


def test_polls_do_not_wait(server: Task) -> None:
    port = server.allocate_port(qlimit=1)
    right = port.make_send(server)
    with pytest.raises(TimedOut):
        port.receive(timeout=0)
    right.send(b"1")
    with pytest.raises(QueueFull):
        right.send(b"2", timeout=0)
    with pytest.raises(TimeoutError):
        right.sender(timeout=0)(b"2")
    assert port.status.msgcount == 1


def test_waits_end_and_not_before_their_time(server: Task) -> None:
    port = server.allocate_port()
    began = time.monotonic_ns()
    with pytest.raises(TimedOut):
        port.receive(timeout=0.05)
    assert time.monotonic_ns() - began >= 50_000_000


def test_waits_end_with_a_message(server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=1)
    right = port.make_send(client)
    got: deque[bytes] = deque()
    thread = threading.Thread(target=lambda: got.extend(port.receive().body for _ in range(20)))
    thread.start()
    for i in range(20):
        right.send(bytes([i]))
    thread.join(10)
    assert list(got) == [bytes([i]) for i in range(20)]


class Alarm(Exception):
    """Raised by a signal handler."""


@pytest.mark.parametrize("form", ["receive", "receiver", "send", "sender", "call", "effective"])
def test_signals_end_waits_and_nothing_is_lost(server: Task, client: Task, form: str) -> None:
    port, full = server.allocate_port(), server.allocate_port(qlimit=0)
    right, stuck = port.make_send(client), full.make_send(client)
    waits = {
        "receive": port.receive,
        "receiver": port.receiver(),
        "send": lambda: stuck.send(b""),
        "sender": lambda: stuck.sender()(b""),
        "call": lambda: stuck.call(b""),
        "effective": lambda: port.receive(effective="-"),
    }

    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Alarm):
            waits[form]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    right.send(b"after")
    assert port.receive(timeout=0).body == b"after"
    assert full.status.msgcount == 0


def test_nothing_waits_under_a_simulated_clock() -> None:
    with Kernel(clock=SimulatedClock()) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port(qlimit=0)
        with pytest.raises(TimedOut):
            port.receive()
        with pytest.raises(QueueFull):
            port.make_send(task).send(b"")


def test_dead_ports_are_told_from_missing_names(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    port.close()
    with pytest.raises(PortDied):
        right.send(b"")
    right.close()
    with pytest.raises(InvalidName):
        right.send(b"")
    with pytest.raises(InvalidName):
        port.receive(timeout=0)


def test_calls(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)

    def serve() -> None:
        for _ in range(3):
            request = port.receive(timeout=10)
            request.reply(request.body.upper())

    thread = threading.Thread(target=serve)
    thread.start()
    for word in (b"a", b"b", b"c"):
        answer = right.call(word, msgh_id=7, timeout=10)
        assert (answer.body, answer.msgh_id) == (word.upper(), 107)
    thread.join(10)
    assert list(client.names().values()).count(PortType.RECEIVE) == 1


def test_a_late_answer_is_not_taken_for_another(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    with pytest.raises(TimedOut):
        right.call(b"slow", timeout=0.01)
    late = port.receive()
    thread = threading.Thread(target=lambda: port.receive(timeout=10).reply(b"second"))
    with pytest.raises(PortDied):
        late.reply(b"first")
    thread.start()
    assert right.call(b"again", timeout=10).body == b"second"
    thread.join(10)


def test_a_destroyed_request_ends_the_call(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    thread = threading.Thread(target=lambda: port.receive(timeout=10).close())
    thread.start()
    with pytest.raises(PortDied, match="destroyed"):
        right.call(b"", timeout=10)
    thread.join(10)


def test_bound_callables_outlive_their_right(kernel: Kernel) -> None:
    def make() -> tuple[object, object]:
        task = kernel.create_task("task")
        port = task.allocate_port()
        return port.make_send(task).sender(msgh_id=9, timeout=0), port.receiver(timeout=0)

    send, receive = make()
    gc.collect()
    send(b"one")  # type: ignore[operator]
    assert receive() == b"one"  # type: ignore[operator]
    with pytest.raises(TimedOut):
        receive()  # type: ignore[operator]


def test_a_bound_callable_takes_overrides(server: Task) -> None:
    port = server.allocate_port()
    send = port.make_send(server).sender(msgh_id=1)
    send(b"", 2)
    assert port.receive().msgh_id == 2
    for arguments in ((), (b"", 1, 0, 0), (b"", "1"), (b"", 1 << 40), (b"", 0, -2)):
        with pytest.raises((TypeError, OverflowError)):
            send(*arguments)


def test_receiver_drops_rights(server: Task, client: Task) -> None:
    port, extra = server.allocate_port(), client.allocate_port()
    right = port.make_send(client)
    right.send(b"with a right", rights=[extra.make_send()])
    assert port.receiver()() == b"with a right"
    assert not extra.status.send_rights


def test_rights_of_others_are_refused(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    with pytest.raises(ValueError, match="of task 'server', not of 'client'"):
        right.send(b"", rights=[port.make_send()])
    with pytest.raises(TypeError, match="copy_send"):
        right.send(b"", rights=[right])  # type: ignore[list-item]


def test_attributes(server: Task) -> None:
    port = server.allocate_port(qlimit=3, context=77)
    assert (port.qlimit, port.context) == (3, 77)
    port.qlimit, port.context, port.seqno, port.mscount = 4, 5, 6, 7
    status = port.status
    assert (status.qlimit, status.seqno, status.mscount) == (4, 6, 7)
    assert (port.qlimit, port.context, port.seqno, port.mscount) == (4, 5, 6, 7)
    with pytest.raises(MachError):
        port.qlimit = 1025
    assert port.qlimit == 4
    with pytest.raises(InvalidRight):
        mach.mach_port_set_seqno(server, server.create_port_set().name, 1)


def test_guards(server: Task) -> None:
    port = server.allocate_port()
    port.guard(1, strict=True)
    with pytest.raises(MachError):
        port.guard(2)
    with pytest.raises(MachError):
        port.unguard(2)
    assert port.context == 0
    port.unguard(1)
    port.guard(3)
    port.swap_guard(3, 4)
    port.destruct(4)
    assert server.names() == {}


def test_peek(server: Task) -> None:
    port = server.allocate_port()
    assert port.peek() is None
    right = port.make_send(server)
    right.send(b"12345678", msgh_id=5)
    seen = port.peek()
    assert seen is not None
    assert (seen.seqno, seen.msgh_id) == (0, 5)
    assert port.receive().seqno == 0
    with pytest.raises(InvalidName):
        mach.mach_port_peek(server, 0x7703)


def test_sets_rotate(server: Task) -> None:
    ports = [server.allocate_port() for _ in range(2)]
    both = server.create_port_set(*ports)
    for port in ports:
        right = port.make_send(server)
        right.send(b"1")
        right.send(b"2")
    got = [both.receive() for _ in range(4)]
    assert [m.port for m in got] == [*ports, *ports]
    assert sorted(p.name for p in both.members()) == sorted(p.name for p in ports)
    both.remove(ports[0])
    assert both.members() == [ports[1]]
    with pytest.raises(MachError):
        both.remove(ports[0])
    both.close()


def test_no_senders(server: Task, client: Task) -> None:
    port, mailbox = server.allocate_port(), server.allocate_port()
    right = port.make_send(client)
    assert port.request_notification(Notification.NO_SENDERS, mailbox, sync=1) is None
    right.close()
    message = mailbox.receive(timeout=0)
    assert message.notification is Notification.NO_SENDERS
    assert message.sender.task_id == 0
    assert message.sender.label == "-"


def test_the_next_message_is_told_of_once(server: Task, client: Task) -> None:
    port, mailbox = server.allocate_port(), server.allocate_port()
    right = port.make_send(client)
    port.request_notification(Notification.MESSAGE, mailbox)
    right.send(b"one")
    right.send(b"two")
    told = mailbox.receive(timeout=0)
    assert told.notification is Notification.MESSAGE
    assert int.from_bytes(told.body[8:], "little") == port.name
    assert not mailbox.status.msgcount
    port.request_notification(Notification.MESSAGE, mailbox, sync=1)
    assert mailbox.receive(timeout=0).notification is Notification.MESSAGE  # two wait already
    assert [port.receive(timeout=0).body for _ in range(2)] == [b"one", b"two"]


@pytest.mark.parametrize("end", ["move", "destroy"])
def test_who_asked_for_the_next_message_is_told_that_none_will_come(
    server: Task, client: Task, end: str
) -> None:
    port, mailbox = server.allocate_port(), server.allocate_port()
    right = port.make_send(client)
    port.request_notification(Notification.MESSAGE, mailbox)
    if end == "move":
        port.move_receive(client)
        right.send(b"not told of")
    else:
        port.close()
    assert mailbox.receive(timeout=0).notification is Notification.SEND_ONCE
    assert not mailbox.status.msgcount
    server.kernel.verify()


def test_a_handler_port_has_no_next_message(server: Task) -> None:
    port = server.create_handler(lambda message: None)
    with pytest.raises(InvalidRight):
        port.request_notification(Notification.MESSAGE, server.allocate_port())


def test_dead_names_and_cancelling(server: Task, client: Task) -> None:
    port, mailbox = server.allocate_port(), client.allocate_port()
    right = port.make_send(client)
    right.request_notification(Notification.DEAD_NAME, mailbox)
    previous = right.cancel_notification(Notification.DEAD_NAME)
    assert isinstance(previous, SendOnceRight)
    previous.close()
    assert mailbox.receive(timeout=0).notification is Notification.SEND_ONCE
    right.request_notification(Notification.DEAD_NAME, mailbox)
    port.close()
    assert mailbox.receive(timeout=0).notification is Notification.DEAD_NAME
    assert client.right(right.name).type & PortType.DEAD_NAME


def test_a_message_of_a_task_is_no_notification(server: Task) -> None:
    port = server.allocate_port()
    port.make_send(server).send(b"", msgh_id=Notification.NO_SENDERS)
    assert port.receive().notification is None


def test_handlers(server: Task, client: Task) -> None:
    seen: list[bytes] = []
    port = server.create_handler(lambda m: seen.append(m.body), kind="clock")
    right = port.make_send(client)
    right.send(b"1")
    right.sender()(b"2")
    assert seen == [b"1", b"2"]
    with pytest.raises(MachError):
        port.move_receive(client)


def test_a_handler_may_keep_its_message(server: Task, client: Task) -> None:
    kept: deque[object] = deque()
    port = server.create_handler(kept.append)
    extra = client.allocate_port()
    memory = b"by reference" * 100
    port.make_send(client).send(b"body", rights=[extra.make_send()], memory=[memory])
    message = kept.pop()
    assert message.body == b"body"  # type: ignore[attr-defined]
    assert bytes(message.memory[0]) == memory  # type: ignore[attr-defined]
    (right,) = message.rights  # type: ignore[attr-defined]
    right.send(b"back")
    assert extra.receive(timeout=0).body == b"back"
    message.close()  # type: ignore[attr-defined]


def test_a_raising_handler_destroys_what_it_got(
    kernel: Kernel, server: Task, client: Task, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[Message] = []
    views: list[memoryview] = []

    def fail(message: Message) -> None:
        kept.append(message)
        views.extend(message.memory)
        raise RuntimeError("no")

    right = server.create_handler(fail).make_send(client)
    extra = client.allocate_port()
    with pytest.raises(PortDied):
        right.call(b"body", rights=[extra.make_send()], memory=[b"seen"], timeout=5)
    assert not extra.status.send_rights
    assert kernel.stats()["handler_failures"] == 1
    assert "RuntimeError: no" in caplog.text
    assert kept[0].body == b"body"
    assert bytes(views[0]) == b"seen"


def test_what_keeps_a_failed_handler_from_cleaning_up_is_told(
    kernel: Kernel, server: Task, client: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_message: Message) -> None:
        raise RuntimeError("no")

    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(str(what.exc_value)))
    monkeypatch.setattr(Message, "_drop_rights", fail)
    with pytest.raises(TimedOut):
        server.create_handler(fail).make_send(client).call(b"", timeout=0)
    assert told == ["no"]
    assert kernel.stats()["handler_failures"] == 1


def test_a_handler_that_nobody_knows_any_more_refuses(
    kernel: Kernel, server: Task, client: Task
) -> None:
    right = server.create_handler(lambda message: message.reply(b"")).make_send(client)
    for number in server._handlers.values():
        _upcall.forget(number)
    with pytest.raises(PortDied):
        right.call(b"", rights=[right.copy_send()], timeout=0)
    assert kernel.stats()["handler_failures"] == 1
    kernel.verify()


@pytest.mark.parametrize("form", ["send", "sender", "call", "rights"])
def test_ctrl_c_in_a_handler_is_raised_by_the_call(server: Task, client: Task, form: str) -> None:
    def press(_message: Message) -> None:
        raise KeyboardInterrupt

    right = server.create_handler(press).make_send(client)
    calls = {
        "send": lambda: right.send(b""),
        "sender": lambda: right.sender()(b""),
        "call": lambda: right.call(b""),
        "rights": lambda: right.send(b"", rights=[right.copy_send()]),
    }
    with pytest.raises(KeyboardInterrupt):
        calls[form]()
    assert server.alive


def test_handlers_that_call_themselves_end(server: Task) -> None:
    depth = 0

    def again(_message: object) -> None:
        nonlocal depth
        depth += 1
        right.send(b"")

    right = server.create_handler(again).make_send(server)
    right.send(b"")
    assert depth == mach.lib.PM_HANDLER_DEPTH


def test_memory_is_released_exactly_once(server: Task, client: Task) -> None:
    released: list[str] = []

    def memory(name: str) -> Memory:
        return Memory(bytearray(name, "ascii") * 1000, lambda: released.append(name))

    port = server.allocate_port(qlimit=2)
    right = port.make_send(client)
    right.send(b"1", memory=[memory("received")])
    right.send(b"2", memory=[memory("queued")])
    with pytest.raises(QueueFull):
        right.send(b"3", memory=[memory("unsent")], timeout=0)
    message = port.receive()
    assert bytes(message.memory[0][:8]) == b"received"
    assert message.memory[0].readonly
    assert released == []
    message.close()
    assert released == ["received"]
    port.close()
    assert released == ["received", "queued"]


def test_memory_in_use_keeps_its_message(server: Task) -> None:
    released: list[int] = []
    port = server.allocate_port()
    port.make_send(server).send(b"", memory=[Memory(b"x" * 5000, lambda: released.append(1))])
    view = port.receive().memory[0]
    gc.collect()
    assert bytes(view[:3]) == b"xxx"
    del view
    gc.collect()
    assert released == [1]


POLICY = """
allow client server mach_port { send hold_send set_reply };
allow server * mach_port { recv use_recv make_send };
"""


def test_a_denial_names_the_operation() -> None:
    with Kernel(policies=[Rules.from_text(POLICY)]) as kernel:
        server = kernel.create_task("server", label="rules/server")
        client = kernel.create_task("client", label="rules/client")
        stranger = kernel.create_task("stranger", label="rules/stranger")
        port = server.allocate_port()
        with pytest.raises(AccessDenied) as caught:
            port.make_send(stranger)
        assert caught.value.permission == "hold_send"
        right = port.make_send(client)
        with pytest.raises(AccessDenied) as caught:
            right.send(b"x")
        assert (caught.value.operation, caught.value.permission) == ("send", "copy_send")
        assert caught.value.code == mach.MACH_SEND_INVALID_DEST
        assert isinstance(caught.value, PermissionError)
        assert isinstance(right, SendRight)
        assert "send refused: no copy_send on mach_port" in str(caught.value)


def test_denials_can_be_concealed() -> None:
    with Kernel(policies=[Rules.from_text(POLICY)], conceal_denials=True) as kernel:
        server = kernel.create_task("server", label="rules/server")
        client = kernel.create_task("client", label="rules/client")
        right = server.allocate_port().make_send(client)
        with pytest.raises(InvalidName) as caught:
            right.send(b"x")
        assert not isinstance(caught.value, AccessDenied)
        with pytest.raises(InvalidName) as absent:
            SendRight(client, 0x7703).send(b"x")
        assert type(caught.value) is type(absent.value)
        assert caught.value.code == absent.value.code


def test_effective_labels() -> None:
    policy = Rules.from_text("allow * * mach_port { * }; allow client guest mach_port { specify };")
    with Kernel(policies=[policy]) as kernel:
        client = kernel.create_task("client", label="rules/client")
        port = kernel.create_task("server", label="rules/server").allocate_port()
        port.make_send(client).send(b"x", effective="rules/guest")
        sender = port.receive().sender
        assert (sender.label, sender.real_label) == ("rules/guest", "rules/client")


def test_what_the_kernel_tells_a_handler_is_not_asked_about() -> None:
    """The owner may not use its port: what tasks send is refused, that a port died is not lost."""
    rules = Rules.from_text("""
        allow server server mach_port { make_send make_send_once set_attributes };
        allow server server mach_port { request_notification };
        allow client server mach_port { hold_send send copy_send };
        allow client client mach_port { make_send };
        allow server client mach_port { hold_send request_notification };
    """)
    with Kernel(policies=[rules]) as kernel:
        server = kernel.create_task("server", "rules/server")
        client = kernel.create_task("client", "rules/client")
        seen: list[int] = []
        port = server.create_handler(lambda message: seen.append(message.msgh_id))
        watched = client.allocate_port()
        watched.make_send(server).request_notification(Notification.DEAD_NAME, port)
        port.make_send(client).send(b"", msgh_id=1)
        assert seen == []
        watched.close()
        assert seen == [Notification.DEAD_NAME]
        kernel.verify()
