# SPDX-License-Identifier: BSD-2-Clause
"""Python threads on one kernel; `make tsan` runs these against a core built with TSan."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from background import LONG, Run, settle

from pympi import AccessDenied, Kernel, Memory, PortDied, TimedOut
from pympi.policy import Rules
from pympi.testing import allow_all

SENDERS, MESSAGES = 3, 300


def test_senders_and_receivers_lose_nothing() -> None:
    with Kernel() as kernel, ThreadPoolExecutor(SENDERS + 2) as pool:
        server = kernel.create_task("server")
        client = kernel.create_task("client")
        inbox = server.allocate_port()
        right = inbox.make_send(client)

        def send(first: int) -> None:
            for number in range(first, first + MESSAGES):
                right.send(str(number).encode(), timeout=LONG)

        def receive(count: int) -> list[int]:
            return [int(inbox.receive(timeout=LONG).body) for _ in range(count)]

        total = SENDERS * MESSAGES
        receivers = [pool.submit(receive, n) for n in (total // 2, total - total // 2)]
        senders = [pool.submit(send, i * MESSAGES) for i in range(SENDERS)]
        for sender in senders:
            sender.result()
        got = [number for receiver in receivers for number in receiver.result()]
        assert sorted(got) == list(range(total))
        kernel.verify()


def test_each_sender_is_heard_in_its_order() -> None:
    with Kernel() as kernel, ThreadPoolExecutor(SENDERS) as pool:
        task = kernel.create_task("task")
        inbox = task.allocate_port()
        right = inbox.make_send(task)

        def send(sender: int) -> None:
            for number in range(MESSAGES):
                right.send(bytes([sender]) + str(number).encode(), timeout=LONG)

        for sender in range(SENDERS):
            pool.submit(send, sender)
        heard: dict[int, list[int]] = {sender: [] for sender in range(SENDERS)}
        for _ in range(SENDERS * MESSAGES):
            body = inbox.receive(timeout=LONG).body
            heard[body[0]].append(int(body[1:]))
        assert heard == {sender: list(range(MESSAGES)) for sender in range(SENDERS)}


def test_calls_from_threads_get_their_own_replies() -> None:
    with Kernel() as kernel, ThreadPoolExecutor(SENDERS) as pool:
        server = kernel.create_task("server")
        inbox = server.allocate_port()
        rights = [inbox.make_send(kernel.create_task(f"client{i}")) for i in range(SENDERS)]

        def ask(sender: int) -> bool:
            questions = [f"{sender}:{number}".encode() for number in range(MESSAGES // 3)]
            return all(rights[sender].call(q, timeout=LONG).body == q[::-1] for q in questions)

        answers = [pool.submit(ask, sender) for sender in range(SENDERS)]
        for _ in range(SENDERS * (MESSAGES // 3)):
            request = inbox.receive(timeout=LONG)
            request.reply(request.body[::-1])
        assert all(answer.result() for answer in answers)
        kernel.verify()


def test_replacing_a_policy_never_lets_what_it_forbids() -> None:
    """Deciders run outside the lock, in several threads, while the epoch moves."""
    with Kernel(policies=[allow_all()]) as kernel, ThreadPoolExecutor(2) as pool:
        task = kernel.create_task("task", label="rules/a")
        inbox = task.allocate_port(qlimit=1024)
        right = inbox.make_send(task)
        stop, denied = threading.Event(), threading.Event()

        def send() -> None:
            while not stop.is_set():
                try:
                    right.send(b"", timeout=0)
                    inbox.receive(timeout=0)
                except AccessDenied:
                    denied.set()
                except TimedOut:  # the other sender's receive was first
                    continue

        senders = [pool.submit(send) for _ in range(2)]
        for _ in range(50):
            kernel.policies.replace("rules", Rules())
            kernel.policies.replace("rules", allow_all())
        kernel.policies.replace("rules", Rules())
        sent = kernel.stats()["sent"]
        with pytest.raises(AccessDenied):
            right.send(b"")
        denied.clear()
        assert denied.wait(LONG)
        stop.set()
        assert [sender.result() for sender in senders] == [None] * 2
        assert kernel.stats()["sent"] == sent > 0
        assert kernel.policies.failures == {}
        kernel.verify()


def test_tasks_begin_and_end_beside_each_other() -> None:
    with Kernel() as kernel, ThreadPoolExecutor(SENDERS) as pool:
        inbox = kernel.create_task("server").allocate_port(qlimit=1024)

        def live(_number: int) -> None:
            for _ in range(MESSAGES // 6):
                task = kernel.create_task("mayfly")
                own = task.allocate_port()
                right = inbox.make_send(task)
                right.send(b"x", rights=[own.make_send(), own.make_send_once()], timeout=LONG)
                task.terminate()

        list(pool.map(live, range(SENDERS)))
        for _ in range(SENDERS * (MESSAGES // 6)):
            inbox.receive(timeout=0).close()
        kernel.verify()
        assert kernel.stats()["tasks"] == 1


def test_handlers_memory_and_audit_in_threads() -> None:
    released: list[int] = []
    with Kernel() as kernel, ThreadPoolExecutor(SENDERS + 1) as pool:
        kernel.audit.everything()
        server = kernel.create_task("server")
        echo = server.create_handler(lambda request: request.reply(request.body))
        stop = threading.Event()

        def ask(number: int) -> bool:
            right = echo.make_send(kernel.create_task(f"client{number}"))
            memory = Memory(bytes(100), lambda: released.append(number))
            answers = [right.call(b"%d" % i, memory=[memory], timeout=LONG) for i in range(50)]
            return [a.body for a in answers] == [b"%d" % i for i in range(50)]

        def drain() -> int:
            drained = 0
            while not stop.is_set():
                drained += len(kernel.audit.drain())
            return drained

        drainer = pool.submit(drain)
        assert all(pool.map(ask, range(SENDERS)))
        stop.set()
        assert drainer.result() > 0
        kernel.verify()
    assert len(released) == SENDERS * 50


def test_destroying_a_port_wakes_its_receiver() -> None:
    with Kernel() as kernel:
        inbox = kernel.create_task("task").allocate_port()
        waiting = Run(lambda: inbox.receive(timeout=LONG))
        settle(waiting)
        inbox.close()
        assert isinstance(waiting.error(), PortDied)


def test_kernels_of_threads_are_independent() -> None:
    rounds = 20

    def live(number: int) -> int:
        total = 0
        for _ in range(rounds):
            with Kernel() as kernel:
                task = kernel.create_task("task")
                inbox = task.allocate_port()
                inbox.make_send(task).send(bytes([number]))
                total += inbox.receive(timeout=0).body[0]
                kernel.verify()
        return total

    with ThreadPoolExecutor(SENDERS) as pool:
        assert list(pool.map(live, range(SENDERS))) == [n * rounds for n in range(SENDERS)]
