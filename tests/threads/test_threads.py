# SPDX-License-Identifier: BSD-2-Clause
"""Python threads on one kernel; `make tsan` runs these against a core built with TSan."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pympi import Kernel, PortDied

SENDERS, MESSAGES = 3, 300
LONG = 30.0  # seconds: only a lost wake-up takes so long


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


def run_blocked(wait: Callable[[], object], act: Callable[[], object]) -> BaseException | None:
    """Run `act` while another thread is in `wait`; return what that raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            wait()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    threading.Event().wait(0.1)
    act()
    thread.join(LONG)
    assert not thread.is_alive(), "the waiting thread was not woken"
    return raised[0] if raised else None


def test_destroying_a_port_wakes_its_receiver() -> None:
    with Kernel() as kernel:
        inbox = kernel.create_task("task").allocate_port()
        error = run_blocked(lambda: inbox.receive(timeout=LONG), inbox.close)
        assert isinstance(error, PortDied)


@pytest.mark.parametrize("rounds", [20])
def test_kernels_of_threads_are_independent(rounds: int) -> None:
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
