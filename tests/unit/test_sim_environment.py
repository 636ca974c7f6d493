# SPDX-License-Identifier: BSD-2-Clause
"""SimPy: waits on ports are events, which lose no message, and whose time is the kernel's."""

from __future__ import annotations

import contextlib
import gc
import random
import subprocess
import sys
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import pytest

from pympi import (
    AccessDenied,
    InvalidName,
    InvalidRight,
    Kernel,
    MachError,
    Message,
    PortDied,
    QueueFull,
    Quota,
    SendRight,
    SimulatedClock,
    Task,
    TimedOut,
)
from pympi.enums import Notification, PortType
from pympi.policy import Rules, SelfTest
from pympi.port import ReceiveRight

simpy = pytest.importorskip("simpy", reason="the extra `sim` is not installed")

from pympi.sim import Environment  # noqa: E402
from pympi.sim.waits import Line, Receive  # noqa: E402

Life = Generator[Any, Any, Any]


@pytest.fixture
def env() -> Environment:
    return Environment()


@pytest.fixture
def kernel(env: Environment) -> Iterator[Kernel]:
    watch = SelfTest()
    with Kernel([watch], clock=env.clock) as kernel:
        yield kernel
        kernel.verify()
    assert watch.violations == []


@pytest.fixture
def inbox(server: Task) -> ReceiveRight:
    return server.allocate_port(qlimit=2)


@pytest.fixture
def right(inbox: ReceiveRight, client: Task) -> SendRight:
    return inbox.make_send(client)


def bodies(port: ReceiveRight) -> list[bytes]:
    """Take all that waits in a port."""
    return [port.receive(timeout=0).body for _ in range(port.status.msgcount)]


# ---- receiving ----


def test_a_message_that_comes(env: Environment, inbox: ReceiveRight, right: SendRight) -> None:
    seen = []

    def server() -> Life:
        for _ in range(2):
            message = yield env.receive(inbox)
            seen.append((env.now, inbox.task.kernel.time, message.body))

    def client() -> Life:
        yield env.timeout(1.5)
        yield env.send(right, b"1")
        yield env.timeout(0.1)
        right.send(b"2")  # however it is sent

    env.process(server())
    env.process(client())
    env.run()
    assert seen == [(1.5, 1.5, b"1"), (1.6, 1.6, b"2")]


def test_a_message_that_is_there(env: Environment, inbox: ReceiveRight, right: SendRight) -> None:
    right.send(b"there")
    assert env.run(until=env.receive(inbox)).body == b"there"
    assert env.now == 0


def test_waiters_are_served_in_the_order_they_came(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    got = []

    def wait(number: int) -> Life:
        yield env.timeout(number)
        got.append((number, (yield env.receive(inbox)).body))

    for number in (2, 0, 1):
        env.process(wait(number))
    env.run(until=10)
    right.send(b"a")
    right.send(b"b")
    env.run(until=11)
    right.send(b"c")
    env.run()
    assert got == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_a_timeout_is_simulated(env: Environment, inbox: ReceiveRight) -> None:
    def server() -> Life:
        with pytest.raises(TimedOut):
            yield env.receive(inbox, timeout=2.5)
        assert env.now == 2.5
        with pytest.raises(TimedOut):
            yield env.receive(inbox, timeout=0)
        return env.now

    assert env.run(until=env.process(server())) == 2.5


def test_polling_beside_those_who_wait(
    env: Environment, server: Task, client: Task, inbox: ReceiveRight
) -> None:
    full = server.allocate_port(qlimit=0)
    right = full.make_send(client)

    def scenario() -> Life:
        waiting = env.process(iter_send(env, right, 0, b"never"))
        also = env.process(iter_receive(env, inbox))
        yield env.timeout(1)
        for _ in range(2):
            with pytest.raises(QueueFull):
                yield env.send(right, b"x", timeout=0)
            with pytest.raises(QueueFull):
                yield env.call(right, b"x", timeout=0)
            with pytest.raises(TimedOut):
                yield env.receive(inbox, timeout=0)
            late = env.receive(inbox, timeout=1)
            yield env.timeout(2)
            with pytest.raises(TimedOut):
                yield late
        assert waiting.is_alive
        assert also.is_alive
        return env.now

    assert env.run(until=env.process(scenario())) == 5


def iter_receive(env: Environment, inbox: ReceiveRight) -> Life:
    """Wait for a message."""
    yield env.receive(inbox)


def test_a_message_in_time(env: Environment, inbox: ReceiveRight, right: SendRight) -> None:
    def server() -> Life:
        message = yield env.receive(inbox, timeout=2)
        yield env.timeout(5)  # beyond the time that is over meanwhile
        return message.body

    env.process(iter_send(env, right, 1.0, b"x"))
    assert env.run(until=env.process(server())) == b"x"


def iter_send(env: Environment, right: SendRight, when: float, *messages: bytes) -> Life:
    """Send messages at a time."""
    yield env.timeout(when - env.now)
    for message in messages:
        yield env.send(right, message)


def test_sets(env: Environment, server: Task, inbox: ReceiveRight, right: SendRight) -> None:
    both = server.create_port_set(inbox, server.allocate_port())
    env.process(iter_send(env, right, 1.0, b"x"))
    assert env.run(until=env.receive(both)).port == inbox
    env.process(iter_send(env, right, 2.0, b"y"))
    assert env.run(until=env.receive(both)).body == b"y"


@pytest.mark.parametrize("end", ["close", "move", "terminate"])
def test_who_waits_learns_that_the_port_is_gone(
    env: Environment, inbox: ReceiveRight, client: Task, end: str
) -> None:
    def server() -> Life:
        with pytest.raises((InvalidName, PortDied, Exception)) as caught:
            yield env.receive(inbox)
        return type(caught.value)

    def other() -> Life:
        yield env.timeout(1)
        {
            "close": inbox.close, "move": lambda: inbox.move_receive(client),
            "terminate": inbox.task.terminate,
        }[end]()  # fmt: skip

    env.process(other())
    assert issubclass(env.run(until=env.process(server())), Exception)
    assert env.now == 1


# ---- nothing is lost ----


def test_a_wait_that_was_given_up_takes_nothing(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    def server() -> Life:
        for _ in range(20):
            get = env.receive(inbox)
            got = yield get | env.timeout(1)
            assert get not in got
        return env.now

    assert env.run(until=env.process(server())) == 20
    right.send(b"kept")
    env.run(until=30)
    assert bodies(inbox) == [b"kept"]


def test_a_wait_can_be_taken_up_again(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    def server() -> Life:
        get = env.receive(inbox)
        yield env.timeout(2)  # the message comes meanwhile, and stays queued
        assert inbox.status.msgcount == 1
        first = yield get
        again = env.receive(inbox)
        for _ in range(3):
            yield again | env.timeout(1)
        second = yield again
        return first.body, second.body, env.now

    env.process(iter_send(env, right, 1.0, b"1"))
    env.process(iter_send(env, right, 4.5, b"2"))
    assert env.run(until=env.process(server())) == (b"1", b"2", 4.5)


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupt_loses_nothing(
    env: Environment, inbox: ReceiveRight, right: SendRight, combined: bool, earlier: bool
) -> None:
    """In the same instant: who has been given the message is told of that first."""
    log: list[Any] = []

    def server() -> Life:
        while True:
            get = env.receive(inbox)
            try:
                got = yield ((get | env.timeout(100)) & env.timeout(0)) if combined else get
                log.append(got[get].body if combined else got.body)
            except simpy.Interrupt:
                log.append("interrupted")
                yield env.timeout(1)

    def other() -> Life:
        yield env.timeout(1)
        if earlier:
            process.interrupt()
        right.send(b"x")
        if not earlier:
            process.interrupt()

    process = env.process(server())
    env.process(other())
    env.run(until=10)
    assert log == [b"x", "interrupted"]


def test_an_interrupted_condition_can_be_taken_up_again(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    other = inbox.task.allocate_port()

    def server() -> Life:
        either = env.receive(other) | env.receive(inbox)
        with pytest.raises(simpy.Interrupt):
            yield either
        yield env.timeout(2)
        assert inbox.status.msgcount == 1
        got = yield either
        return [message.body for message in got.values()], env.now

    process = env.process(server())

    def disturb() -> Life:
        yield env.timeout(1)
        process.interrupt()

    env.process(disturb())
    env.process(iter_send(env, right, 2.0, b"x"))
    assert env.run(until=process) == ([b"x"], 3)


def test_both(env: Environment, inbox: ReceiveRight, right: SendRight) -> None:
    def server() -> Life:
        first, second = env.receive(inbox), env.receive(inbox)
        got = yield first & second
        return [got[first].body, got[second].body]

    env.process(iter_send(env, right, 1.0, b"1", b"2"))
    assert env.run(until=env.process(server())) == [b"1", b"2"]


@pytest.mark.parametrize("seed", range(10))
def test_at_random_every_message_is_received_once_and_in_order(
    env: Environment, server: Task, client: Task, seed: int
) -> None:
    rng, got, sent = random.Random(seed), [], []
    inbox = server.allocate_port(qlimit=2)
    right = inbox.make_send(client)

    def receiver() -> Life:
        while True:
            get = env.receive(inbox, timeout=rng.choice([None, 1, 2]))
            try:
                if rng.random() < 0.5:
                    done = yield get | env.timeout(rng.randrange(3))
                    got.extend([done[get].body] if get in done else [])
                else:
                    got.append((yield get).body)
            except (TimedOut, simpy.Interrupt):
                continue

    def sender(number: int) -> Life:
        for count in range(30):
            yield env.timeout(rng.randrange(3))
            body = b"%d.%d" % (number, count)
            send = env.send(right, body, timeout=rng.choice([None, 0, 1]))
            try:
                yield send
                sent.append(body)
            except QueueFull:
                pass

    def disturb() -> Life:
        while True:
            yield env.timeout(rng.randrange(3))
            rng.choice(receivers).interrupt()

    receivers = [env.process(receiver()) for _ in range(3)]
    env.process(disturb())
    for number in range(3):
        env.process(sender(number))
    env.run(until=300)
    got += bodies(inbox)
    assert len(sent) > 40
    assert sorted(got) == sorted(sent)
    for number in range(3):
        mine = [int(body[2:]) for body in got if body[:1] == b"%d" % number]
        assert mine == sorted(mine)


def test_waits_that_were_given_up_do_not_pile_up(env: Environment, inbox: ReceiveRight) -> None:
    def first() -> Life:
        yield env.receive(inbox)  # and never has anything

    def other() -> Life:
        while True:
            with contextlib.suppress(simpy.Interrupt):
                yield env.receive(inbox) | env.timeout(1)

    def disturb() -> Life:
        while True:
            yield env.timeout(0.7)
            process.interrupt()

    env.process(first())
    process = env.process(other())
    env.process(disturb())
    env.run(until=500)
    gc.collect()
    assert sum(type(thing) is Receive for thing in gc.get_objects()) < 50


# ---- sending ----


def test_senders_wait_for_room_in_order(
    env: Environment, server: Task, client: Task, kernel: Kernel
) -> None:
    port, log = server.allocate_port(qlimit=1), []
    rights = [port.make_send(task) for task in (client, kernel.create_task("c2"), server)]

    def sender(number: int) -> Life:
        yield env.timeout(number / 10)
        for count in range(2):
            yield env.send(rights[number], b"%d.%d" % (number, count))
            log.append((number, env.now))

    for number in range(3):
        env.process(sender(number))
    env.run(until=1)
    assert log == [(0, 0)]
    got = []

    def receiver() -> Life:
        while True:
            got.append((yield env.receive(port)).body)
            yield env.timeout(1)

    env.process(receiver())
    env.run(until=20)
    assert got == [b"0.0", b"0.1", b"1.0", b"2.0", b"1.1", b"2.1"]
    assert log == [(0, 0), (0, 1), (1, 2), (2, 3), (1, 4), (2, 5)]


def test_nobody_overtakes_who_waits_for_room(env: Environment, server: Task, client: Task) -> None:
    port = server.allocate_port(qlimit=1)
    right = port.make_send(client)

    def scenario() -> Life:
        yield env.send(right, b"0")
        env.send(right, b"1")  # sent when there is room, though nobody waits for that
        port.receive(timeout=0)
        late = env.send(right, b"2", timeout=3)
        with pytest.raises(QueueFull):
            yield late
        return env.now

    assert env.run(until=env.process(scenario())) == 3
    assert bodies(port) == [b"1"]


def test_a_send_that_was_given_up_is_not_sent(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    def scenario() -> Life:
        yield env.send(right, b"0") & env.send(right, b"1")
        send = env.send(right, b"2")
        assert send not in (yield send | env.timeout(1))
        bodies(inbox)
        yield env.timeout(1)
        assert not send.triggered

    env.run(until=env.process(scenario()))
    assert bodies(inbox) == []


def test_sending_to_a_port_that_dies(
    env: Environment, inbox: ReceiveRight, right: SendRight, client: Task
) -> None:
    def scenario() -> Life:
        yield env.send(right, b"0")
        yield env.send(right, b"1")
        with pytest.raises(PortDied):
            yield env.send(right, b"2")
        return env.now

    def end() -> Life:
        yield env.timeout(1)
        inbox.close()

    env.process(end())
    assert env.run(until=env.process(scenario())) == 1
    assert client.right(right.name).refs == 1  # the notification's reference was given back


def test_an_error_that_nobody_waits_for_stops_the_simulation(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    inbox.close()
    env.send(right, b"x")
    with pytest.raises(PortDied):
        env.run()


# ---- calling ----


def test_calls_are_answered(env: Environment, inbox: ReceiveRight, right: SendRight) -> None:
    def server() -> Life:
        while True:
            request = yield env.receive(inbox)
            yield env.timeout(1)
            yield env.reply(request, request.body * 2)

    def client(number: int) -> Life:
        answer = yield env.call(right, b"%d" % number)
        return answer.body, env.now

    before = len(right.task.names())
    env.process(server())
    done = env.run(until=env.all_of([env.process(client(n)) for n in range(4)]))
    assert list(done.values()) == [(b"00", 1), (b"11", 2), (b"22", 3), (b"33", 4)]
    assert len(right.task.names()) == before


@pytest.mark.parametrize("timeout", [None, 0, 1])
def test_a_handler_answers_at_once(
    env: Environment, server: Task, client: Task, timeout: float | None
) -> None:
    port = server.create_handler(lambda request: request.reply(request.body * 2))
    call = env.call(port.make_send(client), b"ab", timeout=timeout)
    assert env.run(until=call).body == b"abab"
    assert env.now == 0


@pytest.mark.parametrize("end", ["time", "interrupt", "condition"])
def test_a_late_answer_is_destroyed(
    env: Environment, inbox: ReceiveRight, right: SendRight, end: str
) -> None:
    def server() -> Life:
        request = yield env.receive(inbox)
        yield env.timeout(5)
        if end == "time":
            with pytest.raises(PortDied):
                yield env.reply(request, b"late")
        else:
            yield env.reply(request, b"late")

    def client() -> Life:
        call = env.call(right, b"?", timeout=2 if end == "time" else None)
        if end == "condition":
            assert call not in (yield call | env.timeout(2))
        else:
            with pytest.raises((TimedOut, simpy.Interrupt)):
                yield call
        return env.now

    before = len(right.task.names())
    serving, calling = env.process(server()), env.process(client())
    if end == "interrupt":
        env.process(interrupting(env, 2, calling))
    assert env.run(until=calling) == 2
    env.run(until=serving)
    assert len(right.task.names()) == before


def interrupting(env: Environment, when: float, process: Any) -> Life:
    """Interrupt a process at a time."""
    yield env.timeout(when)
    process.interrupt()


def test_a_request_that_is_destroyed(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    def client() -> Life:
        with pytest.raises(PortDied):
            yield env.call(right, b"?")
        return env.now

    def server() -> Life:
        message: Message = yield env.receive(inbox)
        yield env.timeout(1)
        message.close()

    env.process(server())
    assert env.run(until=env.process(client())) == 1


def test_a_call_waits_for_room(env: Environment, inbox: ReceiveRight, right: SendRight) -> None:
    def scenario() -> Life:
        yield env.send(right) & env.send(right)
        call = env.call(right, b"?")
        assert call not in (yield call | env.timeout(1))
        with pytest.raises(QueueFull):
            yield env.call(right, b"?", timeout=1)

    before = len(right.task.names())
    env.run(until=env.process(scenario()))
    bodies(inbox)
    env.run()
    assert len(right.task.names()) == before


# ---- what cannot be ----


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_no_time_to_wait(
    env: Environment, inbox: ReceiveRight, right: SendRight, timeout: float
) -> None:
    names = right.task.names()
    for act in (env.receive, env.send, env.call):
        with pytest.raises(ValueError, match="timeout must be at least 0 seconds"):
            act(inbox if act == env.receive else right, timeout=timeout)
    assert right.task.names() == names
    if timeout != -1:
        with pytest.raises(ValueError, match="time is from 0 to"):
            env.timeout(timeout)


@pytest.mark.parametrize("timeout", [1e11, 1e300])
def test_a_time_that_no_clock_has(
    env: Environment, inbox: ReceiveRight, right: SendRight, timeout: float
) -> None:
    names = right.task.names()
    for act in (env.receive, env.send, env.call):
        with pytest.raises(ValueError, match="time is from 0 to 9223372036 seconds, not 1"):
            act(inbox if act == env.receive else right, timeout=timeout)
    assert right.task.names() == names
    right.send(b"there", timeout=0)
    env.run()


def test_times_of_numpy_are_as_fine_as_others(env: Environment, kernel: Kernel) -> None:
    env.timeout(1e6)
    env.run()
    for delay in (np.float32(0.25), np.float16(0.125), np.int8(1)):
        env.timeout(delay)
    env.receive(kernel.create_task("a").allocate_port(), timeout=np.float32(0.0625))
    env.run()
    assert (type(env.now), env.now, kernel.time) == (float, 1e6 + 1, 1e6 + 1)


def test_what_is_not_waited_on(
    env: Environment, inbox: ReceiveRight, right: SendRight, server: Task
) -> None:
    wrong: list[tuple[Any, tuple[Any, ...], str]] = [
        (env.receive, (right,), r"env\.receive\(\) from a ReceiveRight or PortSet, not <SendRight"),
        (env.send, (inbox,), r"env\.send\(\) to a SendRight or SendOnceRight, not <ReceiveRight"),
        (env.call, (None,), r"env\.call\(\) to a SendRight or SendOnceRight, not None"),
        (env.reply, (b"x",), r"env\.reply\(\) to a Message, not b'x'"),
        (env.task_process, (inbox, iter_send(env, right, 1)), r"task_process\(\) of a Task, not <"),
        (env.receive, (inbox, "1"), "must be real number, not str"),
        (Environment, (env,), r"clock is a pympi\.SimulatedClock, not <pympi"),
    ]
    names = right.task.names(), server.names()
    for what, arguments, told in wrong:
        with pytest.raises(TypeError, match=told):
            what(*arguments)
    assert (right.task.names(), server.names()) == names


def test_wrong_arguments_are_told_to_who_sends(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    def scenario() -> Life:
        with pytest.raises(TypeError, match="bytes-like"):
            yield env.send(right, "text")
        with pytest.raises(OverflowError):
            yield env.call(right, b"", 1 << 40)
        yield env.send(right, b"the line goes on")

    names = right.task.names()
    env.run(until=env.process(scenario()))
    assert bodies(inbox) == [b"the line goes on"]
    assert right.task.names() == names


def test_an_answer_waits_for_room(
    env: Environment, server: Task, client: Task, inbox: ReceiveRight, right: SendRight
) -> None:
    answers = client.allocate_port(qlimit=1)

    def scenario() -> Life:
        yield env.send(right, b"?", reply=answers.make_send())  # a send right: it can be full
        answers.make_send(server).send(b"in the way")
        request = yield env.receive(inbox)
        with pytest.raises(QueueFull):
            yield env.reply(request, b"!", timeout=2)
        env.timeout(1).callbacks.append(lambda _: answers.receive(0))
        yield env.reply(request, b"!", timeout=2)
        return env.now

    assert env.run(until=env.process(scenario())) == 3
    assert bodies(answers) == [b"!"]


def test_a_request_that_wants_no_answer(
    env: Environment, inbox: ReceiveRight, right: SendRight
) -> None:
    def scenario() -> Life:
        yield env.send(right, b"x")
        request = yield env.receive(inbox)
        with pytest.raises(InvalidRight):
            yield env.reply(request, b"y")

    env.run(until=env.process(scenario()))


# ---- tasks and time ----


@pytest.mark.parametrize("end", ["return", "interrupt", "raise"])
def test_a_task_ends_with_its_process(env: Environment, server: Task, end: str) -> None:
    def life() -> Life:
        try:
            yield env.timeout(1)
        except simpy.Interrupt:
            return
        if end == "raise":
            raise ZeroDivisionError

    process = env.task_process(server, life())
    if end == "interrupt":
        env.process(interrupting(env, 0.5, process))
    try:
        env.run(until=process)
    except ZeroDivisionError:
        assert end == "raise"
    assert not server.alive
    assert env.now == (0.5 if end == "interrupt" else 1)


def lines() -> int:
    """Return how many lines there are to wait in."""
    gc.collect()
    return sum(type(thing) is Line for thing in gc.get_objects())


def test_tasks_that_come_and_go_leave_nothing_behind(env: Environment, kernel: Kernel) -> None:
    def life(task: Task) -> Life:
        inbox = task.allocate_port()
        yield env.receive(inbox) | env.timeout(1)

    sizes = []
    for _ in range(5):
        for number in range(10):
            task = kernel.create_task(f"task{number}")
            env.task_process(task, life(task))
        env.run()
        stats = kernel.stats()
        sizes.append((stats["ports"], stats["names"], len(kernel.tasks), lines()))
    assert sizes[1:] == sizes[:-1]


def test_tasks_that_are_ended_by_others_leave_little_behind(env: Environment) -> None:
    def life(task: Task) -> Life:
        inbox = task.allocate_port()
        inbox.make_send(task).send(b"there")
        for _ in range(2):
            yield env.receive(inbox)

    def leftover() -> int:
        with Kernel(clock=env.clock) as kernel:
            for number in range(400):
                task = kernel.create_task(f"task{number}")
                process = env.process(life(task))
                env.run(until=env.now + 1)
                task.terminate()
                with pytest.raises(MachError):
                    env.run(until=process)
            kernel.verify()
            observer = env.observer(kernel)
            assert len(observer._by_port) == len(observer._ears)
            assert len(observer._task._handlers) == 1  # type: ignore[union-attr]
            return kernel.stats()["ports"]

    assert leftover() < 40
    leftover()
    assert len(env._observers) == 1


def test_waits_on_a_silent_port_leave_nothing_behind(
    env: Environment, inbox: ReceiveRight, kernel: Kernel
) -> None:
    def patient() -> Life:
        for _ in range(300):
            with pytest.raises(TimedOut):
                yield env.receive(inbox, timeout=1)

    before = lines()
    env.run(until=env.process(patient()))
    assert lines() == before
    [ear] = env.observer(kernel)._ears.values()
    assert [len(keys) for names in ear.asked.values() for keys in names.values()] == [1]


def test_time_is_the_kernels_to_the_nanosecond(env: Environment, kernel: Kernel) -> None:
    kernel.audit.everything()
    inbox = kernel.create_task("a").allocate_port()
    right = inbox.make_send(inbox.task)

    def life() -> Life:
        for _ in range(1000):
            yield env.timeout(0.1)
            assert kernel.time == round(env.now, 9)
        kernel.audit.drain()
        right.send(b"x")

    env.run(until=env.process(life()))
    assert {int(record["time"]) for record in kernel.audit.drain()} == {100_000_000_000}


def test_somebody_else_advanced_the_clock(env: Environment) -> None:
    env.timeout(1)
    env.clock.advance(2)
    with pytest.raises(ValueError, match=r"time does not go from 2\.0 to 1"):
        env.run()


def test_it_begins_at_the_clocks_time() -> None:
    clock = SimulatedClock(100.0)
    env = Environment(clock)
    env.timeout(1)
    env.run()
    assert (env.now, clock.now()) == (101, 101)


def test_a_kernel_with_another_clock_is_refused(env: Environment) -> None:
    for clock in (None, SimulatedClock()):
        with Kernel(clock=clock) as kernel, pytest.raises(ValueError, match=r"clock=env\.clock"):
            env.receive(kernel.create_task("a").allocate_port())
        with Kernel(clock=clock) as kernel:
            port = kernel.create_task("a").allocate_port()
            right, names = port.make_send(port.task), port.task.names()
            with pytest.raises(ValueError, match=r"clock=env\.clock"):
                env.call(right)
            assert port.task.names() == names


@pytest.mark.parametrize("through", ["port", "set"])
def test_when_a_port_dies_the_others_of_its_task_are_still_heard_of(
    env: Environment, server: Task, client: Task, through: str
) -> None:
    ports = [server.allocate_port(qlimit=1) for _ in range(4)]
    rights = [port.make_send(client) for port in ports]
    waited = server.create_port_set(*ports) if through == "set" else None
    got, sent = [], []

    def receiver(number: int) -> Life:
        try:
            while True:
                got.append((yield env.receive(waited or ports[number])).body)
        except InvalidName:
            got.append(b"%d died" % number)

    def sender(number: int) -> Life:
        yield env.send(rights[number], b"%d" % number)
        yield env.send(rights[number], b"%d again" % number)  # there is no room
        sent.append(number)

    def life() -> Life:
        for number in range(4):
            yield env.timeout(1)
            ports[number].close()
            with contextlib.suppress(PortDied):
                yield env.all_of([env.process(sender(each)) for each in range(number + 1, 4)])

    for number in range(4 if waited is None else 1):
        env.process(receiver(number))
    env.run(until=env.process(life()))
    assert sent == [1, 2, 3, 2, 3, 3]
    told = [b"%d%s" % (number, more) for number in sent for more in (b"", b" again")]
    deaths = [] if waited else [b"%d died" % number for number in range(4)]
    assert sorted(got) == sorted(told + deaths)


def test_when_a_port_dies_who_waits_for_room_elsewhere_still_hears(
    env: Environment, server: Task, client: Task
) -> None:
    ports = [server.allocate_port(qlimit=1) for _ in range(3)]
    rights = [port.make_send(client) for port in ports]
    for right in rights:
        right.send(b"first")
    sends = [env.send(right, b"second") for right in rights]
    env.timeout(1).callbacks.append(lambda _: ports[0].close())
    with pytest.raises(PortDied):
        env.run(until=sends[0])
    env.timeout(1).callbacks.append(lambda _: [port.receive(0) for port in ports[1:]])
    env.run(until=sends[1] & sends[2])
    assert env.now == 2


@pytest.mark.parametrize("seed", range(5))
def test_at_random_whoever_waits_hears_of_the_end(
    env: Environment, kernel: Kernel, seed: int
) -> None:
    rng = random.Random(seed)
    servers = [kernel.create_task(f"server{number}") for number in range(3)]
    ports = [task.allocate_port(qlimit=1) for task in servers for _ in range(3)]
    client = kernel.create_task("client")

    def receiver(port: ReceiveRight) -> Life:
        with contextlib.suppress(MachError):
            while True:
                with contextlib.suppress(simpy.Interrupt), (yield env.receive(port)) as request:
                    if request.reply_name and rng.random() < 0.5:
                        with contextlib.suppress(PortDied):  # it was given up
                            request.reply(timeout=0)

    def sender(right: SendRight) -> Life:
        while True:
            try:
                with contextlib.suppress(simpy.Interrupt):
                    yield env.timeout(rng.random())
                    yield rng.choice([env.send, env.call])(right)
            except MachError:
                if right.type != PortType.SEND:  # else a request was destroyed unanswered
                    return

    lives = [env.process(receiver(port)) for port in ports * 2]
    lives += [env.process(sender(port.make_send(client))) for port in ports * 2]
    for _ in range(40):
        env.run(until=env.now + rng.random())
        rng.choice([life for life in lives if life.is_alive]).interrupt()
    for end in rng.sample([*(port.close for port in ports), *(t.terminate for t in servers)], 12):
        end()
        env.run(until=env.now + rng.random())
    env.run(until=env.now + 5)
    assert not [life for life in lives if life.is_alive]


@pytest.mark.parametrize("forged", [*Notification])
def test_a_request_that_was_taken_back_and_used_up(
    env: Environment, inbox: ReceiveRight, right: SendRight, forged: Notification
) -> None:
    def meddle(_: Any) -> None:
        taken = inbox.cancel_notification(Notification.MESSAGE, caller=inbox.task)
        assert taken is not None
        taken.use_up(b"\0" * 8 + inbox.name.to_bytes(4, "little"), forged)

    env.timeout(1).callbacks.append(meddle)
    env.process(iter_send(env, right, 2, b"x"))
    assert env.run(until=env.receive(inbox, timeout=9)).body == b"x"
    assert env.now == 2


def test_several_kernels(env: Environment) -> None:
    with Kernel(clock=env.clock) as one, Kernel(clock=env.clock) as two:
        inboxes = [kernel.create_task("a").allocate_port() for kernel in (one, two)]
        rights = [inbox.make_send(inbox.task) for inbox in inboxes]
        for number, right in enumerate(rights):
            env.process(iter_send(env, right, 1 + number, b"%d" % number))
        got = env.run(until=env.all_of([env.receive(inbox) for inbox in inboxes]))
        assert [message.body for message in got.values()] == [b"0", b"1"]
        assert one.time == two.time == 2


# ---- access control ----

RULES = """
    allow a a mach_port { make_send hold_send copy_send send recv use_recv };
    allow b a mach_port { hold_send copy_send };
    allow sim a mach_task { insert_right };
    allow sim a mach_port { request_notification };
    allow sim sim mach_port { make_send_once set_attributes };
"""
ELSE = {"mach_task": "observe", "mach_port": "get_attributes"}


def test_what_the_observer_needs() -> None:
    env = Environment(label="rules/sim")
    with Kernel([Rules.from_text(RULES)], clock=env.clock) as kernel:
        kernel.audit.drain()
        inbox = kernel.create_task("a", "rules/a").allocate_port()
        right = inbox.make_send(inbox.task)
        env.process(iter_send(env, right, 1, b"x"))
        assert env.run(until=env.receive(inbox)).body == b"x"
        full = inbox.task.allocate_port(qlimit=1)
        to_full = full.make_send(inbox.task)
        to_full.send(b"1")
        send = env.send(to_full, b"2")
        env.timeout(1).callbacks.append(lambda _: full.receive(0))
        env.run(until=send)
        assert not len(kernel.audit.drain())
        send = env.send(to_full, b"3")
        env.timeout(1).callbacks.append(lambda _: full.close())
        with pytest.raises(PortDied):
            env.run(until=send)
        other = inbox.make_send(kernel.create_task("b", "rules/b"))
        with pytest.raises(AccessDenied, match="send"):
            env.run(until=env.send(other, b"x"))


@pytest.mark.parametrize(
    ("whom", "less"),
    [("a", "insert_right"), ("a", "request_notification"), ("sim", "make_send_once"),
     ("sim", "set_attributes")],
)  # fmt: skip
def test_an_observer_that_may_not_observe_says_so(whom: str, less: str) -> None:
    env = Environment(label="rules/sim")
    lines = [
        line.replace(f" {less} ", f" {ELSE[line.split()[3]]} ")
        if line.startswith(f"    allow sim {whom} ")
        else line
        for line in RULES.splitlines()
    ]
    assert lines != RULES.splitlines()
    with Kernel([Rules.from_text("\n".join(lines))], clock=env.clock) as kernel:
        inbox = kernel.create_task("a", "rules/a").allocate_port()
        with pytest.raises(AccessDenied, match=less):
            env.run(until=env.receive(inbox))


def test_a_simulated_task_pays_nothing_for_waiting(env: Environment, kernel: Kernel) -> None:
    task = kernel.create_task("a", quota=Quota(ports=1, names=1))
    inbox = task.allocate_port()
    right = inbox.make_send(kernel.create_task("b"))
    names = task.names()
    env.process(iter_send(env, right, 1, b"x"))
    env.run(until=env.receive(inbox))
    assert task.names() == names


# ---- the same again ----


def records_of(seed: int) -> bytes:
    """Return the records of a small random simulation."""
    rng, env = random.Random(seed), Environment()
    with Kernel(clock=env.clock, seed=seed) as kernel:
        kernel.audit.everything()
        tasks = [kernel.create_task(f"task{number}") for number in range(4)]
        inboxes = [task.allocate_port(qlimit=2) for task in tasks]

        def life(task: Task, inbox: ReceiveRight) -> Life:
            while True:
                yield env.timeout(rng.expovariate(1.0))
                to = rng.choice(inboxes)
                with to.make_send(task) as right:
                    send = env.send(right, bytes(rng.randrange(9)))
                    yield send | env.timeout(0.5)
                yield env.receive(inbox) | env.timeout(rng.random())

        for task, inbox in zip(tasks, inboxes, strict=True):
            env.process(life(task, inbox))
        env.run(until=50)
        return kernel.audit.drain().tobytes()


def test_the_same_seed_gives_the_same_records() -> None:
    assert records_of(1) == records_of(1)
    assert records_of(1) != records_of(2)


# ---- without SimPy ----


def test_simpy_is_imported_by_who_uses_it() -> None:
    program = "import sys, pympi, pympi.sim; pympi.sim.__all__; assert 'simpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_simpy_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['simpy'] = None; from pympi.sim import Environment"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'pympi-mach[sim]'" in done.stderr
