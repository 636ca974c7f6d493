# SPDX-License-Identifier: BSD-2-Clause
"""asyncio: waiting without threads, in turn, and without losing messages."""

import asyncio
import select
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pympi import InvalidName, Message, PortDied, SendRight, Task
from pympi.port import ReceiveRight


@pytest.fixture
def port(server: Task) -> ReceiveRight:
    return server.allocate_port(qlimit=100)


@pytest.fixture
def right(port: ReceiveRight, client: Task) -> SendRight:
    return port.make_send(client)


def descriptors() -> int:
    """Return how many descriptors are open; 0 where that cannot be seen."""
    directory = Path("/proc/self/fd")
    return len(list(directory.iterdir())) if directory.is_dir() else 0


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine, at most ten seconds, and see that it leaves no descriptor but the port's."""
    before = descriptors()
    result = asyncio.run(asyncio.wait_for(main, 10))
    assert descriptors() <= before + 2  # an eventfd, or a pipe
    return result


async def settle() -> None:
    """Give the tasks of the loop, which has one thread, their turns until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_message_that_is_there(port: ReceiveRight, right: SendRight) -> None:
    right.send(b"there")
    assert run(port.receive_async()).body == b"there"


def test_a_message_that_comes(port: ReceiveRight, right: SendRight) -> None:
    async def main() -> bytes:
        asyncio.get_running_loop().call_later(0.01, right.send, b"later")
        return (await port.receive_async()).body

    assert run(main()) == b"later"


def test_a_message_from_a_thread(port: ReceiveRight, right: SendRight) -> None:
    async def main() -> bytes:
        sending = asyncio.get_running_loop().run_in_executor(None, right.send, b"thread")
        message = await port.receive_async()
        await sending
        return message.body

    assert run(main()) == b"thread"


def test_waiters_are_served_in_turn(port: ReceiveRight, right: SendRight) -> None:
    async def main() -> list[bytes]:
        got: list[tuple[int, bytes]] = []

        async def take(number: int) -> None:
            got.append((number, (await port.receive_async()).body))

        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(take(number)))
            await settle()
        for number in range(5):
            right.send(b"%d" % number)
        await asyncio.gather(*tasks)
        assert got == [(n, b"%d" % n) for n in range(5)]
        return [body for _, body in got]

    assert len(run(main())) == 5


def test_cancelling_loses_nothing(port: ReceiveRight, right: SendRight) -> None:
    async def main() -> None:
        for steps in range(8):
            tasks = [asyncio.create_task(port.receive_async()) for _ in range(3)]
            await settle()
            right.send(b"a")
            right.send(b"b")
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[0].cancel()
            done = await asyncio.gather(*tasks[:2], return_exceptions=True)
            got = [m.body for m in done if isinstance(m, Message)]
            rest = 2 - len(got)
            if rest:
                got.append((await asyncio.wait_for(tasks[2], 5)).body)
            elif not tasks[2].done():
                tasks[2].cancel()
            await asyncio.gather(tasks[2], return_exceptions=True)
            while port.status.msgcount:
                got.append(port.receive(timeout=0).body)
            assert sorted(got) == [b"a", b"b"], steps

    run(main())


def test_closing_wakes(port: ReceiveRight) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(port.receive_async()) for _ in range(3)]
        await settle()
        port.close()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, (InvalidName, PortDied))

    run(main())


def test_moving_away_wakes(port: ReceiveRight, client: Task) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(port.receive_async())
        await settle()
        port.move_receive(client)
        with pytest.raises(InvalidName):
            await waiting

    run(main())


def test_iteration_ends_with_the_port(port: ReceiveRight, right: SendRight) -> None:
    async def main() -> list[bytes]:
        right.send(b"1")
        right.send(b"2")
        got = []
        async for message in port:
            got.append(message.body)
            if len(got) == 2:
                asyncio.get_running_loop().call_soon(port.close)
        return got

    assert run(main()) == [b"1", b"2"]


def test_sets(server: Task, port: ReceiveRight, right: SendRight) -> None:
    async def main() -> ReceiveRight:
        both = server.create_port_set(port, server.allocate_port())
        asyncio.get_running_loop().call_later(0.01, right.send, b"")
        return (await both.receive_async()).port

    assert run(main()) == port


def test_calls_and_handlers_side_by_side(port: ReceiveRight, right: SendRight) -> None:
    async def serve() -> None:
        for _ in range(3):
            request = await port.receive_async()
            request.reply(request.body * 2)

    async def main() -> list[bytes]:
        server = asyncio.create_task(serve())
        answers = await asyncio.gather(*(right.call_async(b"%d" % n) for n in range(3)))
        await server
        return [answer.body for answer in answers]

    assert run(main()) == [b"00", b"11", b"22"]


def test_sending_waits_for_room(server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=1)
    right = port.make_send(client)

    async def main() -> list[bytes]:
        sends = [asyncio.create_task(right.send_async(b"%d" % n)) for n in range(4)]
        await settle()
        got = [(await port.receive_async()).body for _ in range(4)]
        await asyncio.gather(*sends)
        return sorted(got)

    assert run(main()) == [b"0", b"1", b"2", b"3"]


def test_many_ports_in_one_loop(server: Task, client: Task) -> None:
    ports = [server.allocate_port() for _ in range(50)]
    rights = [port.make_send(client) for port in ports]

    async def main() -> int:
        waiting = [asyncio.create_task(port.receive_async()) for port in ports]
        await settle()
        for right in rights:
            right.send(b"x")
        return len(await asyncio.gather(*waiting))

    assert asyncio.run(asyncio.wait_for(main(), 10)) == 50


def test_a_descriptor_for_select(port: ReceiveRight, right: SendRight) -> None:
    assert select.select([port], [], [], 0)[0] == []
    right.send(b"x")
    assert select.select([port], [], [], 0)[0] == [port]
    port.receive()
    assert select.select([port], [], [], 0)[0] == []
