# SPDX-License-Identifier: BSD-2-Clause
"""Memory that goes by reference: released exactly once, whatever becomes of its message."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from background import Run

from pympi import AccessDenied, Kernel, MachError, Memory, QueueFull, Task
from pympi.policy import Rules
from pympi.port import ReceiveRight, SendRight


class Lender:
    """Lends buffers, and counts what is released."""

    def __init__(self) -> None:
        self.released: list[int] = []

    def lend(self, number: int = 0, size: int = 5000) -> Memory:
        return Memory(bytearray(b"m") * size, lambda: self.released.append(number))


@pytest.fixture
def lender() -> Lender:
    return Lender()


@pytest.fixture
def inbox(server: Task) -> ReceiveRight:
    return server.allocate_port(qlimit=3)


@pytest.fixture
def right(inbox: ReceiveRight, client: Task) -> SendRight:
    return inbox.make_send(client)


ENDS: dict[str, Callable[[Kernel, ReceiveRight], object]] = {
    "received and closed": lambda _kernel, inbox: inbox.receive().close(),
    "received and dropped": lambda _kernel, inbox: inbox.receive() and None,
    "bytes only": lambda _kernel, inbox: inbox.receiver()(),
    "port closed": lambda _kernel, inbox: inbox.close(),
    "receiver ended": lambda _kernel, inbox: inbox.task.terminate(),
    "kernel closed": lambda kernel, _inbox: kernel.close(),
}


@pytest.mark.parametrize("end", ENDS)
def test_released_once(
    kernel: Kernel, inbox: ReceiveRight, right: SendRight, lender: Lender, end: str
) -> None:
    right.send(b"x", memory=[lender.lend(1), lender.lend(2)])
    gc.collect()
    assert lender.released == []
    ENDS[end](kernel, inbox)
    gc.collect()
    assert sorted(lender.released) == [1, 2]


def test_a_message_that_outlives_its_kernel(
    kernel: Kernel, inbox: ReceiveRight, right: SendRight, lender: Lender
) -> None:
    right.send(b"x", memory=[lender.lend(1)])
    message = inbox.receive()
    view = message.memory[0]
    kernel.close()
    assert bytes(view[:2]) == b"mm"
    assert lender.released == []
    del view, message
    gc.collect()
    assert lender.released == [1]


def test_the_sender_ends_first(
    client: Task, inbox: ReceiveRight, right: SendRight, lender: Lender
) -> None:
    right.send(b"x", memory=[lender.lend(1)])
    client.terminate()
    assert lender.released == []
    assert bytes(inbox.receive().memory[0]) == b"m" * 5000


def test_a_send_that_fails_leaves_it_with_its_owner(
    inbox: ReceiveRight, right: SendRight, lender: Lender
) -> None:
    for _ in range(3):
        right.send(b"full")
    with pytest.raises(QueueFull):
        right.send(b"x", memory=[lender.lend()], timeout=0)
    with pytest.raises(QueueFull):
        right.send(b"x", memory=[lender.lend()], timeout=0.01)
    inbox.close()
    with pytest.raises(MachError):
        right.send(b"x", memory=[lender.lend()])
    gc.collect()
    assert lender.released == []


def test_a_refused_send_leaves_it_too(lender: Lender) -> None:
    policy = Rules([("*", "*", "mach_port", "send make_send copy_send hold_send")])
    with Kernel(policies=[policy]) as kernel:
        task = kernel.create_task("task", label="rules/a")
        with pytest.raises(AccessDenied) as caught:
            task.allocate_port().make_send(task).send(b"", memory=[lender.lend()])
        assert caught.value.permission == "carry_memory"
        gc.collect()
    assert lender.released == []


def test_what_is_sent_is_not_copied(inbox: ReceiveRight, right: SendRight) -> None:
    array = np.arange(1000, dtype=np.uint64)
    right.send(b"", memory=[Memory(array)])
    with inbox.receive() as message:
        got = np.frombuffer(message.memory[0], np.uint64)
        assert got.__array_interface__["data"][0] == array.__array_interface__["data"][0]
        assert (got == array).all()
        del got


def test_the_view_is_read_only_and_ends_with_the_message(
    inbox: ReceiveRight, right: SendRight, lender: Lender
) -> None:
    right.send(b"", memory=[lender.lend()])
    message = inbox.receive()
    (view,) = message.memory
    with pytest.raises(TypeError):
        view[0] = 1
    message.close()
    assert lender.released == [0]
    with pytest.raises(ValueError, match="released"):
        bytes(view)


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20])
def test_sizes(inbox: ReceiveRight, right: SendRight, lender: Lender, size: int) -> None:
    right.send(b"", memory=[lender.lend(size=size)])
    with inbox.receive() as message:
        assert [len(view) for view in message.memory] == [size]
    gc.collect()
    assert lender.released == [0]


def test_what_is_no_memory_is_refused(right: SendRight) -> None:
    for wrong in ("text", 5, None, np.zeros((4, 4))[:, ::2]):
        with pytest.raises((TypeError, ValueError, BufferError)):
            right.send(b"", memory=[wrong])


def test_a_release_that_raises_is_logged_and_harms_nobody(
    inbox: ReceiveRight, right: SendRight, lender: Lender, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    def fail() -> None:
        raise OSError("disk")

    right.send(b"", memory=[Memory(b"a" * 100, fail), lender.lend(1)])
    with caplog.at_level(logging.ERROR, "pympi"):
        inbox.receive().close()
    assert "OSError: disk" in caplog.text
    assert lender.released == [1]
    right.send(b"goes on")
    assert inbox.receive().body == b"goes on"


def test_a_release_may_use_the_kernel(
    kernel: Kernel, inbox: ReceiveRight, right: SendRight
) -> None:
    def release() -> None:
        kernel.verify()
        right.send(b"free again")

    right.send(b"", memory=[Memory(b"a" * 100, release)])
    inbox.receive().close()
    assert inbox.receive(timeout=0).body == b"free again"


def test_released_once_in_threads(server: Task, client: Task) -> None:
    lender = Lender()
    inbox = server.allocate_port(qlimit=5)
    right = inbox.make_send(client)

    def send(first: int) -> None:
        for number in range(first, first + 100):
            right.send(b"", memory=[lender.lend(number)], timeout=30)

    runs = [Run(partial(send, i * 100)) for i in range(3)]
    for _ in range(300):
        inbox.receive(timeout=30).close()
    for run in runs:
        run.result()
    assert sorted(lender.released) == list(range(300))


def test_a_view_is_read_by_what_ends_with_it(
    inbox: ReceiveRight, client: Task, lender: Lender
) -> None:
    """In a cycle that is garbage everything has its last word before anything is given back."""
    heard: list[bytes] = []

    def process(held: list[object], view: memoryview) -> Iterator[None]:
        try:
            yield
        finally:
            heard.append(bytes(view[:3]))
            held.clear()

    inbox.make_send(client).send(b"", memory=[lender.lend()])
    held: list[object] = []
    running = process(held, inbox.receive().memory[0])
    next(running)
    held.append(running)
    del held, running
    gc.collect()
    assert heard == [b"mmm"]
    assert lender.released == [0]
