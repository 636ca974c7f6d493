# SPDX-License-Identifier: BSD-2-Clause
"""asyncio: waiting without threads, in turn, and without losing messages."""

import asyncio
import select
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pympi import AccessDenied, InvalidName, Kernel, Message, PortDied, SendRight, Task
from pympi.enums import PortType
from pympi.policy import Rules
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


# ---- sending ----


def test_senders_are_served_in_turn_and_do_not_spin(server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=1)
    right = port.make_send(client)

    async def main() -> list[bytes]:
        sends = []
        for number in range(4):
            sends.append(asyncio.create_task(right.send_async(b"%d" % number)))
            await settle()
        before = server.kernel.stats()["transfers"], client.usage.ports
        for _ in range(50):
            await asyncio.sleep(0)
        assert (server.kernel.stats()["transfers"], client.usage.ports) == before
        got = []
        for _ in range(4):
            got.append((await port.receive_async()).body)
            await settle()
        await asyncio.gather(*sends)
        return got

    ports = client.usage.ports
    tries = counted(server.kernel)
    assert run(main()) == [b"0", b"1", b"2", b"3"]
    assert tries() < 30
    assert client.usage.ports == ports


def counted(kernel: Kernel) -> Callable[[], int]:
    """Return what tells how many notifications have been asked for from now on."""
    kernel.audit.drain()
    kernel.audit.select("all", operations="notification")
    return lambda: len(kernel.audit.drain())


@pytest.mark.parametrize("which", [0, 1, 2])
def test_cancelling_a_sender_sends_nothing_and_lets_the_next_have_its_turn(
    server: Task, client: Task, which: int
) -> None:
    port = server.allocate_port(qlimit=1)
    right = port.make_send(client)

    async def main() -> list[bytes]:
        right.send(b"full")
        sends = [asyncio.create_task(right.send_async(b"%d" % n)) for n in range(3)]
        await settle()
        assert port.receive(timeout=0).body == b"full"  # whoever is first is told, and cancelled
        sends[which].cancel()
        got = []
        for _ in range(2):
            got.append((await port.receive_async()).body)
            await settle()
        await asyncio.gather(*sends, return_exceptions=True)
        assert not port.status.msgcount
        return got

    assert run(main()) == [b"%d" % n for n in range(3) if n != which]


def test_a_sender_learns_that_the_port_died(server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=0)
    right = port.make_send(client)

    async def main() -> None:
        sends = [asyncio.create_task(right.send_async(b"x")) for _ in range(3)]
        await settle()
        port.close()
        for result in await asyncio.gather(*sends, return_exceptions=True):
            assert isinstance(result, PortDied)

    run(main())
    assert client.right(right.name).refs == 1  # references that notifications brought are gone


def test_a_timeout_of_asyncios(port: ReceiveRight, right: SendRight) -> None:
    async def main() -> bytes:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(port.receive_async(), 0.01)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(right.call_async(b"?"), 0.01)
        right.send(b"x")
        request = port.receive(timeout=0)
        with pytest.raises(PortDied):
            request.reply(b"late")
        return (await asyncio.wait_for(port.receive_async(), 1)).body

    names = right.task.names()
    assert run(main()) == b"x"
    assert right.task.names() == names


def test_loops_in_several_threads_share_a_port(server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=1000)
    right = port.make_send(client)
    got: list[bytes] = []

    async def take() -> None:
        while (body := (await port.receive_async()).body) != b"end":
            got.append(body)

    threads = [threading.Thread(target=asyncio.run, args=(take(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        right.send(b"%d" % number)
    for _ in threads:
        right.send(b"end")
    for thread in threads:
        thread.join(30)
    assert sorted(got, key=int) == [b"%d" % number for number in range(200)]


def test_senders_in_several_loops_do_not_spin(server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=1)
    right = port.make_send(client)
    right.send(b"full")
    ports, asked = client.usage.ports, counted(server.kernel)
    threads = [
        threading.Thread(target=asyncio.run, args=(right.send_async(b"%d" % number),))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    assert asked() <= len(threads)
    got = [port.receive(timeout=30).body for _ in range(5)]
    for thread in threads:
        thread.join(30)
    assert sorted(got) == [b"0", b"1", b"2", b"3", b"full"]
    assert client.usage.ports == ports


# ---- serving ----


def test_a_service_of_coroutines(port: ReceiveRight, right: SendRight) -> None:
    most = now = 0

    async def handle(request: Message) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        request.reply(request.body * 2)

    async def main() -> list[bytes]:
        service = asyncio.create_task(port.serve_async(handle, limit=3))
        answers = await asyncio.gather(*(right.call_async(b"%d" % n) for n in range(9)))
        port.close()
        await service
        return [answer.body for answer in answers]

    assert run(main()) == [b"%d%d" % (n, n) for n in range(9)]
    assert most == 3


def test_a_handler_that_raises_destroys_its_message(
    port: ReceiveRight, right: SendRight, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(request: Message) -> None:
        if request.body == b"bad":
            raise ZeroDivisionError
        request.reply(b"good")

    async def main() -> bytes:
        service = asyncio.create_task(port.serve_async(handle))
        with pytest.raises(PortDied):
            await right.call_async(b"bad")
        answer = await right.call_async(b"other")
        service.cancel()
        with pytest.raises(asyncio.CancelledError):
            await service
        return answer.body

    assert run(main()) == b"good"
    assert [record.message for record in caplog.records] == ["handler failed"]


def test_a_service_that_is_cancelled_lets_go_of_what_it_has(
    port: ReceiveRight, right: SendRight
) -> None:
    async def handle(_request: Message) -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        service = asyncio.create_task(port.serve_async(handle, limit=1))
        calls = [asyncio.create_task(right.call_async(b"%d" % n)) for n in range(2)]
        await settle()
        service.cancel()
        with pytest.raises(PortDied):
            await calls[0]
        with port.receive(timeout=0) as waiting:  # it was not taken
            assert waiting.body == b"1"
        calls[1].cancel()
        await asyncio.gather(service, calls[1], return_exceptions=True)

    run(main())
    assert [kind for kind in port.task.names().values() if kind & PortType.SEND_ONCE] == []


def test_who_may_not_send_cannot_stop_a_service() -> None:
    rules = """
        allow server server mach_port { make_send use_recv };
        allow good server mach_port { hold_send copy_send send };
        allow bad server mach_port { hold_send copy_send send };
        allow server good mach_port { recv };
    """
    got: list[bytes] = []

    async def handle(request: Message) -> None:
        got.append(request.body)

    async def main(port: ReceiveRight, rights: list[SendRight]) -> None:
        service = asyncio.create_task(port.serve_async(handle))
        for right in rights:
            right.send(right.task.name.encode())
            await settle()
        assert not service.done()
        port.close()
        await service

    with Kernel([Rules.from_text(rules)]) as kernel:
        tasks = [kernel.create_task(name, f"rules/{name}") for name in ("bad", "good")]
        port = kernel.create_task("server", "rules/server").allocate_port()
        asyncio.run(asyncio.wait_for(main(port, [port.make_send(task) for task in tasks]), 10))
    assert got == [b"good"]


def test_a_service_that_may_not_receive_says_so() -> None:
    async def handle(_request: Message) -> None:
        """Is never called."""

    with Kernel([Rules.from_text("")]) as kernel:
        port = kernel.create_task("server", "rules/server").allocate_port()
        with pytest.raises(AccessDenied, match="use_recv"):
            asyncio.run(asyncio.wait_for(port.serve_async(handle), 10))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_service_that_serves_nothing_is_refused(limit: int) -> None:
    async def handle(_request: Message) -> None:
        """Is never called."""

    with Kernel() as kernel:
        port = kernel.create_task("server").allocate_port()
        with pytest.raises(ValueError, match=f"limit is how many .* 1 or more: {limit}"):
            asyncio.run(port.serve_async(handle, limit=limit))
