# SPDX-License-Identifier: BSD-2-Clause
"""Handler ports: as whom they act, what bounds them, and what becomes of their messages."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from functools import partial

import pytest
from background import LONG, Run

from pympi import (
    AccessDenied,
    Kernel,
    LimitExceeded,
    MachError,
    Memory,
    Message,
    PortDied,
    SendRight,
    Task,
    mach,
)
from pympi.enums import Notification
from pympi.policy import Decision, PolicyModule, Rules

DEEPEST: int = mach.lib.PM_HANDLER_DEPTH


def test_it_acts_as_its_owner(kernel: Kernel, server: Task, client: Task) -> None:
    seen: list[Message] = []
    port = server.create_handler(seen.append)
    port.make_send(client).send(b"body", msgh_id=7)
    (message,) = seen
    assert message.task is server
    assert message.sender.task is client
    assert message.port == port
    assert (message.body, message.msgh_id, message.seqno) == (b"body", 7, 0)
    assert kernel.stats()["messages_queued"] == 0


def test_it_runs_in_the_thread_of_the_sender(server: Task, client: Task) -> None:
    threads: list[int] = []
    right = server.create_handler(lambda _m: threads.append(threading.get_ident())).make_send(
        client
    )
    thread = threading.Thread(target=lambda: right.send(b""))
    thread.start()
    thread.join(10)
    right.send(b"")
    assert threads == [thread.ident, threading.get_ident()]


POLICY = """
allow owner * mach_port {{ set_attributes make_send make_send_once use_recv {owner} }};
allow sender * mach_port {{ send copy_send hold_send make_send {sender} }};
allow sender * mach_port {{ make_send_once set_reply carry_rights }};
"""


def with_policy(owner: str = "", sender: str = "") -> Kernel:
    return Kernel(policies=[Rules.from_text(POLICY.format(owner=owner, sender=sender))])


def test_its_owner_is_asked_for_every_receive() -> None:
    """recv: may the owner receive from this sender? The sender is not told that it may not."""
    for may, expected in (("recv", 1), ("hold_send", 0)):
        with with_policy(owner=may) as kernel:
            owner = kernel.create_task("owner", label="rules/owner")
            sender = kernel.create_task("sender", label="rules/sender")
            seen: list[Message] = []
            right = owner.create_handler(seen.append).make_send(sender)
            right.send(b"x")
            assert len(seen) == expected
            assert kernel.stats()["messages_queued"] == 0
            kernel.verify()


def test_a_right_its_owner_may_not_hold_is_missing() -> None:
    with with_policy(owner="recv") as kernel:
        owner = kernel.create_task("owner", label="rules/owner")
        sender = kernel.create_task("sender", label="rules/sender")
        seen: list[Message] = []
        right = owner.create_handler(seen.append).make_send(sender)
        right.send(b"x", rights=[sender.allocate_port().make_send()])
        assert (seen[0].rights, seen[0].denied) == ([None], 1)
        kernel.verify()


def test_what_it_sends_is_asked_of_its_owner() -> None:
    with with_policy(owner="recv hold_send_once", sender="use_recv recv") as kernel:
        owner = kernel.create_task("owner", label="rules/owner")
        sender = kernel.create_task("sender", label="rules/sender")
        errors: list[Exception] = []

        def reply(request: Message) -> None:
            try:
                request.reply(b"")
            except AccessDenied as error:
                errors.append(error)
                request.close()

        with pytest.raises(PortDied):
            owner.create_handler(reply).make_send(sender).call(b"", timeout=5)
        (error,) = errors
        assert isinstance(error, AccessDenied)
        assert "send" in error.permission.split()
        kernel.verify()


def chain(server: Task, length: int) -> tuple[SendRight, list[int]]:
    """Return a right to the first of `length` handlers, each of which sends to the next."""
    reached: list[int] = []
    rights: list[SendRight] = []
    for index in range(length):

        def handle(message: Message, index: int = index) -> None:
            reached.append(index)
            if index + 1 < length:
                rights[index + 1].send(message.body)

        rights.append(server.create_handler(handle).make_send(server))
    return rights[0], reached


def test_a_chain_may_be_as_deep_as_the_limit(kernel: Kernel, server: Task) -> None:
    right, reached = chain(server, DEEPEST)
    right.send(b"x")
    assert reached == list(range(DEEPEST))
    assert kernel.stats()["handler_failures"] == 0


def test_a_deeper_chain_is_refused_where_it_is_too_deep(kernel: Kernel, server: Task) -> None:
    refused: list[MachError] = []

    def again(_message: Message) -> None:
        try:
            right.send(b"x")
        except LimitExceeded as error:
            refused.append(error)

    right = server.create_handler(again).make_send(server)
    for rounds in (1, 2):
        right.send(b"x")
        assert [error.code for error in refused] == [mach.MACH_SEND_NO_BUFFER] * rounds
    assert kernel.stats()["handler_failures"] == 0


def test_two_handlers_that_call_each_other_end(kernel: Kernel, server: Task) -> None:
    rights: dict[str, SendRight] = {}
    calls: list[str] = []

    def ping(other: str) -> Callable[[Message], None]:
        def handle(request: Message) -> None:
            calls.append(other)
            with rights[other].call(request.body, timeout=5) as answer:
                request.reply(answer.body)

        return handle

    rights["b"] = server.create_handler(ping("a")).make_send(server)
    rights["a"] = server.create_handler(ping("b")).make_send(server)
    with pytest.raises(MachError):
        rights["a"].call(b"", timeout=5)
    assert 1 < len(calls) <= DEEPEST
    assert kernel.stats()["messages_queued"] == 0


def test_its_right_goes_nowhere(server: Task, client: Task) -> None:
    port = server.create_handler(lambda _message: None)
    both = server.create_port_set()
    inbox = client.allocate_port()
    for wrong in (
        lambda: port.move_receive(client),
        lambda: both.add(port),
        lambda: inbox.make_send(server).send(b"", rights=[port.move_receive()]),
        lambda: port.receive(timeout=0),
    ):
        with pytest.raises(MachError):
            wrong()
    port.make_send(client).send(b"", timeout=0)


def test_it_ends_with_its_port_and_with_its_task(server: Task, client: Task) -> None:
    for end in (lambda port: port.close(), lambda _port: server.terminate()):
        seen: list[Message] = []
        port = server.create_handler(seen.append)
        right = port.make_send(client)
        end(port)
        with pytest.raises(PortDied):
            right.send(b"")
        assert seen == []


def test_it_may_destroy_its_own_port(kernel: Kernel, server: Task, client: Task) -> None:
    port = server.create_handler(lambda _message: port.close())
    right = port.make_send(client)
    right.send(b"")
    with pytest.raises(PortDied):
        right.send(b"")
    assert kernel.stats()["handler_failures"] == 0


def test_it_is_told_of_notifications(server: Task, client: Task) -> None:
    seen: list[Notification | None] = []
    told = server.create_handler(lambda message: seen.append(message.notification))
    inbox = client.allocate_port()
    right = inbox.make_send(server)
    right.request_notification(Notification.DEAD_NAME, told)
    told.make_send_once(server).close()
    inbox.close()
    assert seen == [Notification.SEND_ONCE, Notification.DEAD_NAME]


def test_failing_gives_everything_back(
    kernel: Kernel, server: Task, client: Task, caplog: pytest.LogCaptureFixture
) -> None:
    """The reply right notifies, a receive right that came dies, memory is released."""
    released: list[int] = []
    # A log record would keep the traceback, that the message, and that its memory.
    caplog.set_level(logging.CRITICAL + 1, "pympi")

    def fail(_message: Message) -> None:
        raise OSError("disk")

    right = server.create_handler(fail).make_send(client)
    moved, answers = client.allocate_port(), client.allocate_port()
    watch = moved.make_send(client)
    memory = Memory(b"m" * 5000, lambda: released.append(1))
    names = server.names()
    right.send(b"x", rights=[moved.move_receive()], reply=answers, memory=[memory])
    assert answers.receive(timeout=0).notification is Notification.SEND_ONCE
    with pytest.raises(PortDied):
        watch.send(b"")
    gc.collect()
    assert released == [1]
    assert server.names() == names
    assert kernel.stats()["handler_failures"] == 1


def test_senders_in_many_threads(kernel: Kernel, server: Task) -> None:
    right = server.create_handler(lambda m: m.reply(m.body)).make_send(server)
    questions = [[b"%d/%d" % (number, i) for i in range(50)] for number in range(4)]

    def ask(bodies: list[bytes]) -> list[bytes]:
        return [right.call(body, timeout=10).body for body in bodies]

    runs = [Run(partial(ask, bodies)) for bodies in questions]
    assert [run.result() for run in runs] == questions
    assert kernel.stats()["handler_failures"] == 0


def test_who_asks_while_another_message_is_decided_about_gets_its_own_answer() -> None:
    """A policy that asks the same handler is answered, and the first message is not lost to it."""
    with Kernel() as kernel:
        server, client, inside = (kernel.create_task(n) for n in ("server", "client", "inside"))
        echo = server.create_handler(lambda request: request.reply(request.body))
        asked, nested = echo.make_send(client), echo.make_send(inside)
        answers: list[bytes] = []

        class Asking(PolicyModule):
            name = "asking"
            uncached = True

            def decide(self, source: object, target: object, tclass: object) -> Decision:
                if len(answers) < 20 and not self.busy:
                    self.busy = True
                    answers.append(nested.call(b"inner", timeout=LONG).body)
                    self.busy = False
                return Decision()

            busy = False

        kernel.policies.load(Asking())
        assert [asked.call(b"outer", timeout=LONG).body for _ in range(3)] == [b"outer"] * 3
        assert answers == [b"inner"] * len(answers)
        assert len(answers) > 3
        kernel.verify()


def test_ports_share_a_handler(server: Task, client: Task) -> None:
    before = len(server._handlers)
    seen: list[Message] = []
    function = seen.append
    for number in range(3):
        server.create_handler(function).make_send(client).send(b"", number)
    assert [message.msgh_id for message in seen] == [0, 1, 2]
    assert len(server._handlers) == before + 1
