# SPDX-License-Identifier: BSD-2-Clause
"""A clock of the simulation's own: nothing waits, nothing happens by itself, everything repeats."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import pytest

from pympi import Kernel, Message, PortDied, QueueFull, SimulatedClock, Task, TimedOut, mach
from pympi.port import ReceiveRight, SendRight


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(100.0)


@pytest.fixture
def kernel(clock: SimulatedClock) -> Iterator[Kernel]:
    """What waits here in earnest waits for ever, or for longer than a test may take."""
    with Kernel(clock=clock) as kernel:
        yield kernel
        kernel.verify()


@pytest.fixture
def inbox(server: Task) -> ReceiveRight:
    return server.allocate_port(qlimit=1)


@pytest.fixture
def right(inbox: ReceiveRight, client: Task) -> SendRight:
    return inbox.make_send(client)


def test_what_cannot_be_received_now_times_out(inbox: ReceiveRight, server: Task) -> None:
    both = server.create_port_set(inbox)
    waits: list[Callable[[], object]] = [
        inbox.receive, lambda: inbox.receive(timeout=1000), both.receive,
        inbox.receiver(), inbox.receiver(timeout=1000),
    ]  # fmt: skip
    for wait in waits:
        with pytest.raises(TimedOut):
            wait()


def test_what_cannot_be_sent_now_finds_a_full_queue(inbox: ReceiveRight, right: SendRight) -> None:
    right.send(b"full")
    waits: list[Callable[[], object]] = [
        lambda: right.send(b"x"), lambda: right.send(b"x", timeout=1000),
        lambda: right.send(b"x", rights=[None]), lambda: right.sender()(b"x"),
    ]  # fmt: skip
    for wait in waits:
        with pytest.raises(QueueFull):
            wait()
    assert inbox.receive().body == b"full"
    right.send(b"there is room")


def test_a_call_without_a_handler_times_out_and_its_answer_is_destroyed(
    inbox: ReceiveRight, right: SendRight
) -> None:
    with pytest.raises(TimedOut):
        right.call(b"?")
    with pytest.raises(PortDied, match="who asked is gone"):
        inbox.receive().reply(b"late")


def test_a_call_to_a_handler_is_answered(server: Task, client: Task) -> None:
    right = server.create_handler(lambda request: request.reply(b"at once")).make_send(client)
    assert right.call(b"?").body == b"at once"


def test_the_wire_form_does_not_wait_either(server: Task, inbox: ReceiveRight) -> None:
    code, _ = mach.mach_msg(server, b"", mach.MACH_RCV_MSG, 100, inbox.name)
    assert code == mach.MACH_RCV_TIMED_OUT


def test_time_is_what_it_is_told_to_be(kernel: Kernel, clock: SimulatedClock) -> None:
    assert (kernel.time, clock.now()) == (100.0, 100.0)
    clock.advance(0)
    clock.advance(1e-9)
    assert round((kernel.time - 100.0) * 1e9) == 1
    for wrong in (-1.0, -1e-9, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="time passes"):
            clock.advance(wrong)
    assert kernel.time == clock.now()


def test_time_can_be_set_without_adding_up_what_was_rounded(
    kernel: Kernel, clock: SimulatedClock
) -> None:
    for step in range(1, 1001):
        clock.advance_to(100 + step / 3e9)
    assert (clock.now(), kernel.time) == (100 + 333e-9,) * 2
    clock.advance_to(clock.now())
    with pytest.raises(ValueError, match="time does not go from"):
        clock.advance_to(100.0)
    for wrong in (float("nan"), float("inf"), -1.0, 1e300):
        with pytest.raises(ValueError, match="time is from 0 to"):
            clock.advance_to(wrong)
    assert clock.now() == 100 + 333e-9
    assert clock.drives(kernel)
    assert not SimulatedClock().drives(kernel)


def test_one_clock_for_several_kernels(clock: SimulatedClock) -> None:
    with Kernel(clock=clock) as first:
        clock.advance(1)
        with Kernel(clock=clock) as second:
            clock.advance(1)
            assert first.time == second.time == 102.0
        clock.advance(1)
        assert first.time == 103.0


def test_records_bear_simulated_time(
    kernel: Kernel, clock: SimulatedClock, inbox: ReceiveRight, right: SendRight
) -> None:
    kernel.audit.everything()
    kernel.audit.drain()
    right.send(b"x")
    clock.advance(2.5)
    inbox.receive()
    times = [int(record["time"]) for record in kernel.audit.drain()]
    assert sorted(set(times)) == [100_000_000_000, 102_500_000_000]


def run(seed: int) -> bytes:
    """Return the records of a small random run."""
    rng, clock = random.Random(seed), SimulatedClock()
    with Kernel(clock=clock, seed=seed) as kernel:
        kernel.audit.everything()
        tasks = [kernel.create_task(f"task{i}") for i in range(4)]
        inboxes = [task.allocate_port() for task in tasks]
        for _ in range(300):
            clock.advance(rng.random())
            to, by = rng.randrange(4), rng.choice(tasks)
            try:
                if rng.random() < 0.5:
                    with inboxes[to].make_send(by) as right:
                        right.send(rng.randbytes(rng.randrange(50)), rights=[None])
                else:
                    inboxes[to].receive()
            except (TimedOut, QueueFull):
                continue
        return kernel.audit.drain().tobytes()


def test_the_same_seed_gives_the_same_records_byte_for_byte() -> None:
    assert run(1) == run(1)
    assert run(1) != run(2)


def test_asyncio_turns_waits_into_events(inbox: ReceiveRight, right: SendRight) -> None:
    async def main() -> list[bytes]:
        waiter = asyncio.create_task(inbox.receive_async())
        await asyncio.sleep(0)
        right.send(b"1")
        first: Message = await asyncio.wait_for(waiter, 5)
        right.send(b"2")
        sender = asyncio.create_task(right.send_async(b"3"))
        await asyncio.sleep(0)
        second = await asyncio.wait_for(inbox.receive_async(), 5)
        await asyncio.wait_for(sender, 5)
        return [first.body, second.body, inbox.receive().body]

    assert asyncio.run(main()) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("start", [-1.0, -1e-9, 2.0**63 / 1e9, 1e300, float("inf"), float("nan")])
def test_times_that_there_are_not(start: float) -> None:
    with pytest.raises(ValueError, match=r"time is from 0 to 9223372036 seconds, not"):
        SimulatedClock(start)


@pytest.mark.parametrize("seconds", [1e300, 9.3e9])
def test_more_time_than_there_is_changes_nothing(seconds: float) -> None:
    clock = SimulatedClock(5.0)
    with Kernel(clock=clock) as kernel:
        with pytest.raises(ValueError, match="time is from 0 to 9223372036 seconds"):
            clock.advance(seconds)
        clock.advance(1.0)
        assert (clock.now(), kernel.time) == (6.0, 6.0)
