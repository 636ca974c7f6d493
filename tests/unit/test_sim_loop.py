# SPDX-License-Identifier: BSD-2-Clause
"""asyncio in simulated time, which passes when there is nothing else to do."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import pytest

from pympi import Kernel, QueueFull, SendRight, SimulatedClock, Task
from pympi.policy import SelfTest
from pympi.port import ReceiveRight
from pympi.sim import NothingLeft, run


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(100.0)


@pytest.fixture
def kernel(clock: SimulatedClock) -> Iterator[Kernel]:
    watch = SelfTest()
    with Kernel([watch], clock=clock) as kernel:
        yield kernel
        kernel.verify()
    assert watch.violations == []


@pytest.fixture
def inbox(server: Task) -> ReceiveRight:
    return server.allocate_port(qlimit=1)


@pytest.fixture
def right(inbox: ReceiveRight, client: Task) -> SendRight:
    return inbox.make_send(client)


def test_sleep_is_simulated(clock: SimulatedClock, kernel: Kernel) -> None:
    log = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        log.append((seconds, clock.now(), kernel.time, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(*map(sleep, (3e6, 0.1, 0.25, 0)))

    began = time.monotonic()
    run(main(), clock)
    assert time.monotonic() - began < 30
    assert log == [(seconds, *(100 + seconds,) * 3) for seconds in (0, 0.1, 0.25, 3e6)]


def test_timers_come_at_their_time_and_in_their_order(clock: SimulatedClock) -> None:
    log: list[tuple[int, float]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(1000):
            when = 100 + (number * 7919 % 1000) / 3
            loop.call_at(when, lambda when=when: log.append((round(when * 1e9), clock.now())))
        await asyncio.sleep(1000)

    run(main(), clock)
    assert [round(now * 1e9) for _, now in log] == sorted(when for when, _ in log)


def test_messages_go_back_and_forth(
    clock: SimulatedClock, inbox: ReceiveRight, right: SendRight
) -> None:
    async def serve() -> None:
        async for request in inbox:
            await asyncio.sleep(1.5)
            request.reply(request.body * 2)

    async def main() -> tuple[bytes, float]:
        service = asyncio.create_task(serve())
        answers = await asyncio.gather(*(right.call_async(b"%d" % n) for n in range(3)))
        service.cancel()
        return b"".join(answer.body for answer in answers), clock.now()

    assert run(main(), clock) == (b"001122", 104.5)


def test_timeouts_are_simulated(
    clock: SimulatedClock, inbox: ReceiveRight, right: SendRight
) -> None:
    async def main() -> bytes:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(inbox.receive_async(), 60)
        right.send(b"1")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(right.send_async(b"2"), 60)
        return inbox.receive().body

    assert run(main(), clock) == b"1"
    assert clock.now() == 220


def test_senders_that_wait_do_not_keep_time_from_passing(
    clock: SimulatedClock, inbox: ReceiveRight, right: SendRight
) -> None:
    async def main() -> list[bytes]:
        sends = [asyncio.create_task(right.send_async(b"%d" % n)) for n in range(4)]
        got = []
        for _ in sends:
            await asyncio.sleep(1)
            got.append((await inbox.receive_async()).body)
        await asyncio.gather(*sends)
        return got

    assert run(main(), clock) == [b"0", b"1", b"2", b"3"]
    assert clock.now() == 104


def test_what_would_wait_for_ever_says_so(clock: SimulatedClock, inbox: ReceiveRight) -> None:
    async def main() -> None:
        await inbox.receive_async()

    with pytest.raises(NothingLeft, match="nothing is left to happen"):
        run(main(), clock)


def test_threads_are_waited_for_and_take_no_time(clock: SimulatedClock) -> None:
    async def main() -> list[object]:
        sleeper = asyncio.create_task(asyncio.sleep(5))
        done = await asyncio.to_thread(lambda: time.sleep(0.05) or clock.now())
        await sleeper
        return [done, clock.now()]

    assert run(main(), clock) == [100, 105]


def test_what_is_left_at_the_end_is_cancelled(clock: SimulatedClock) -> None:
    log = []

    async def other() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            log.append(clock.now())

    async def main() -> int:
        log.append(asyncio.create_task(other()))  # type: ignore[arg-type]
        await asyncio.sleep(1)
        return 7

    assert run(main(), clock) == 7
    assert log[1:] == [101]


def test_an_error_comes_out(clock: SimulatedClock) -> None:
    async def main() -> None:
        await asyncio.sleep(1)
        raise QueueFull(0)

    with pytest.raises(QueueFull):
        run(main(), clock)


def records_of(seed: int) -> bytes:
    """Return the records of a small random simulation."""
    rng, clock = random.Random(seed), SimulatedClock()

    async def life(task: Task, inbox: ReceiveRight, inboxes: list[ReceiveRight]) -> None:
        for _ in range(20):
            await asyncio.sleep(rng.expovariate(1.0))
            with rng.choice(inboxes).make_send(task) as right:
                try:
                    await asyncio.wait_for(right.send_async(bytes(rng.randrange(9))), 0.5)
                    await asyncio.wait_for(inbox.receive_async(), rng.random())
                except TimeoutError:
                    continue

    async def main(kernel: Kernel) -> None:
        tasks = [kernel.create_task(f"task{number}") for number in range(8)]
        inboxes = [task.allocate_port(qlimit=1) for task in tasks]
        lives = [life(task, inbox, inboxes) for task, inbox in zip(tasks, inboxes, strict=True)]
        await asyncio.gather(*lives)

    with Kernel(clock=clock, seed=seed) as kernel:
        kernel.audit.everything()
        run(main(kernel), clock)
        return kernel.audit.drain().tobytes()


def test_the_same_seed_gives_the_same_records() -> None:
    assert records_of(1) == records_of(1)
    assert records_of(1) != records_of(2)
