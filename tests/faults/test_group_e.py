# SPDX-License-Identifier: BSD-2-Clause
"""Group E, life-cycle races: no deadlock, no lost wake-up, all rights accounted for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from background import LONG, Run, settle
from faults.world import MOVE_RECEIVE, SEND, message, port

from pympi import (
    AccessDenied,
    Kernel,
    MachError,
    Message,
    PolicyError,
    PortDied,
    SendRight,
    Task,
    TimedOut,
    mach,
)
from pympi.enums import ALL, Notification, PortType
from pympi.policy import Decision, Partition, PolicyModule, Rules, Stub
from pympi.port import ReceiveRight
from pympi.testing import allow_all

pytestmark = pytest.mark.timeout(120, method="thread")

ROUNDS = 100


@pytest.fixture
def server(kernel: Kernel) -> Task:
    return kernel.create_task("server")


@pytest.fixture
def client(kernel: Kernel) -> Task:
    return kernel.create_task("client")


def fill(right: SendRight, limit: int = 1024) -> int:
    """Send until the queue is full; return how many messages that took."""
    for count in range(limit):
        try:
            right.send(b"full", timeout=0)
        except TimedOut:
            return count
    raise AssertionError("the queue has no limit")


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Start calls at the same moment, each in a thread; return what they returned, or raised."""
    barrier = threading.Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Callable[[], Any]:
        def begun() -> Any:
            barrier.wait(LONG)
            return call()

        return begun

    runs = [Run(begin(call)) for call in calls]
    return [run.error() or run.result() for run in runs]


def drain(inbox: ReceiveRight) -> list[Message]:
    messages = []
    while True:
        try:
            messages.append(inbox.receive(timeout=0))
        except TimedOut:
            return messages


# ---- what waits when its port dies ----


def test_e1_port_destroyed_while_senders_wait(server: Task, client: Task) -> None:
    """As in Mach, who waited for room has sent; what the message carried is destroyed with it."""
    inbox = server.allocate_port(qlimit=1)
    right = inbox.make_send(client)
    answers = client.allocate_port()
    fill(right)
    runs = [Run(lambda: right.send(b"late", reply=answers, timeout=LONG)) for _ in range(3)]
    settle(*runs)
    inbox.close()
    assert [run.error() for run in runs] == [None] * 3
    told = [answers.receive(timeout=LONG).notification for _ in range(3)]
    assert told == [Notification.SEND_ONCE] * 3
    with pytest.raises(PortDied):
        right.send(b"later")


@pytest.mark.parametrize(
    ("through", "code"),
    [("port", mach.MACH_RCV_PORT_DIED), ("set", mach.MACH_RCV_PORT_CHANGED)],
)
def test_e2_port_destroyed_while_receivers_wait(server: Task, through: str, code: int) -> None:
    """A port dies; a set is only gone, as in Mach."""
    inbox = server.allocate_port()
    source = inbox if through == "port" else server.create_port_set(inbox)
    runs = [Run(lambda: source.receive(timeout=LONG)) for _ in range(3)]
    settle(*runs)
    source.close()
    errors = [run.error() for run in runs]
    assert [isinstance(error, MachError) and error.code for error in errors] == [code] * 3


def test_e2_member_destroyed_while_its_set_is_waited_on(server: Task, client: Task) -> None:
    first, second = server.allocate_port(), server.allocate_port()
    both = server.create_port_set(first, second)
    run = Run(lambda: both.receive(timeout=LONG).body)
    settle(run)
    first.close()
    settle(run)
    second.make_send(client).send(b"from the other")
    assert run.result() == b"from the other"


@pytest.mark.parametrize("victim", ["owner", "caller"])
def test_e3_task_killed_in_its_callback(server: Task, client: Task, victim: str) -> None:
    killed = {"owner": server, "caller": client}[victim]
    handler = server.create_handler(lambda _request: killed.terminate())
    right = handler.make_send(client)
    with pytest.raises(MachError):
        right.call(b"", timeout=LONG)
    assert not killed.alive
    survivor = client if victim == "owner" else server
    assert survivor.allocate_port().type


def test_e3_task_killed_while_another_thread_is_in_its_callback(
    kernel: Kernel, server: Task, client: Task
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def handle(request: Message) -> None:
        inside.set()
        assert go_on.wait(LONG)
        request.reply(b"too late")

    right = server.create_handler(handle).make_send(client)
    run = Run(lambda: right.call(b"", timeout=LONG))
    assert inside.wait(LONG)
    server.terminate()
    kernel.verify()
    go_on.set()
    assert isinstance(run.error(), PortDied)


# ---- rights that move ----


def test_e4_receive_right_moves_while_others_send(
    kernel: Kernel, server: Task, client: Task
) -> None:
    senders = 3
    inbox = server.allocate_port()
    rights = [inbox.make_send(kernel.create_task(f"sender{i}")) for i in range(senders)]

    def send(number: int) -> None:
        for i in range(ROUNDS):
            rights[number].send(bytes([number, i]), timeout=LONG)

    runs = [Run(partial(send, number)) for number in range(senders)]
    heard: list[bytes] = []
    owners = [server, client]
    while len(heard) < senders * ROUNDS:
        heard.append(inbox.receive(timeout=LONG).body)
        owners.reverse()
        inbox = inbox.move_receive(owners[0])
    for run in runs:
        run.result()
    for number in range(senders):
        own = [body[1] for body in heard if body[0] == number]
        assert own == list(range(ROUNDS)), "each sender is heard in its order"
    assert drain(inbox) == []


def test_e4_receive_right_moves_away_from_who_waits(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    run = Run(lambda: inbox.receive(timeout=LONG))
    settle(run)
    moved = inbox.move_receive(client)
    error = run.error()
    assert isinstance(error, MachError)
    assert error.code == mach.MACH_RCV_PORT_CHANGED
    moved.make_send(client).send(b"still there")
    assert moved.receive(timeout=0).body == b"still there"


def test_e5_two_receivers_race_for_one_message(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    right = inbox.make_send(client)
    for number in range(20):
        runs = [Run(lambda: inbox.receive(timeout=LONG)) for _ in range(2)]
        right.send(bytes([number]))
        while all(run.is_alive() for run in runs):
            runs[0].join(0.001)
        (loser,) = [run for run in runs if run.is_alive()]
        settle(loser)
        right.send(b"the next")
        assert [run.result().body == b"the next" for run in runs] == [r is loser for r in runs]
        assert {run.result().body for run in runs} == {bytes([number]), b"the next"}


def send_receive_right(task: Task, moved: int, dest: int) -> int:
    raw = message(dest, descriptors=(port(moved, MOVE_RECEIVE),))
    return mach.mach_msg(task, raw, SEND)[0]


def test_e6_receive_right_sent_to_itself(kernel: Kernel, client: Task) -> None:
    inbox = client.allocate_port()
    right = inbox.make_send(client)
    watch = client.allocate_port()
    right.request_notification(Notification.DEAD_NAME, watch)
    before = kernel.stats()
    assert send_receive_right(client, inbox.name, right.name) == 0
    after = kernel.stats()
    assert after["circular"] == before["circular"] + 1
    assert after["ports"] == before["ports"] - 1, "nobody could ever have received it"
    assert watch.receive(timeout=0).notification is Notification.DEAD_NAME


@pytest.mark.parametrize("length", [2, 3, 16])
def test_e7_cycle_built_concurrently(kernel: Kernel, length: int) -> None:
    tasks = [kernel.create_task(f"task{i}") for i in range(length)]
    for _ in range(10):
        inboxes = [task.allocate_port() for task in tasks]
        into_next = [inboxes[(i + 1) % length].make_send(task) for i, task in enumerate(tasks)]
        codes = together(
            *(
                partial(send_receive_right, task, inbox.name, right.name)
                for task, inbox, right in zip(tasks, inboxes, into_next, strict=True)
            )
        )
        assert set(codes) <= {0, mach.MACH_SEND_INVALID_DEST}
        kernel.verify()
        assert [task.usage.ports for task in tasks] == [0] * length
        assert kernel.stats()["messages_queued"] == 0, "a ring that nobody can reach is gone"
        assert {right.type for right in into_next} == {PortType.DEAD_NAME}


@pytest.mark.parametrize("freed", ["by closing", "with its task"])
def test_e8_chain_of_100_000_ports(kernel: Kernel, client: Task, freed: str) -> None:
    allocate, insert = mach.mach_port_allocate, mach.mach_port_insert_right
    names = []
    for _ in range(100_000):
        name = allocate(client, mach.MACH_PORT_RIGHT_RECEIVE)
        insert(client, name, name, mach.MACH_MSG_TYPE_MAKE_SEND)
        if names:
            assert send_receive_right(client, names[-1], name) == 0
        names.append(name)
    assert kernel.stats()["messages_queued"] == len(names) - 1
    if freed == "by closing":
        mach.mach_port_mod_refs(client, names[-1], mach.MACH_PORT_RIGHT_RECEIVE, -1)
        assert mach.mach_port_type(client, names[0]) == PortType.DEAD_NAME
        assert client.usage.ports == 0
    else:
        client.terminate()
        assert kernel.stats()["ports"] == 0
    assert kernel.stats()["messages_queued"] == 0


def test_e9_members_come_and_go_during_a_receive(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    other = server.allocate_port()
    both = server.create_port_set(inbox, other)
    right = inbox.make_send(client)
    stop = threading.Event()

    def toggle() -> None:
        while not stop.is_set():
            both.remove(inbox)
            both.add(inbox)

    def send() -> None:
        for i in range(ROUNDS):
            right.send(bytes([i]), timeout=LONG)

    toggling, sending = Run(toggle), Run(send)
    heard = [both.receive(timeout=LONG).body[0] for _ in range(ROUNDS)]
    stop.set()
    toggling.result()
    sending.result()
    assert heard == list(range(ROUNDS))
    with pytest.raises(TimedOut):
        both.receive(timeout=0)


# ---- notifications ----


def test_e10_notification_armed_during_the_last_release(server: Task, client: Task) -> None:
    """Each send-once right that was made ends once: as a notification, or back in a hand."""
    told = server.allocate_port(qlimit=1024)
    for _ in range(ROUNDS):
        inbox = server.allocate_port()
        right = inbox.make_send(client)
        armed = Counter[str]()

        def arm(inbox: ReceiveRight = inbox, armed: Counter[str] = armed) -> None:
            for _ in range(3):
                previous = inbox.request_notification(Notification.NO_SENDERS, told)
                armed["made"] += 1
                if previous:
                    previous.close()

        assert together(arm, right.close) == [None, None]
        inbox.close()
        ends = [m.notification for m in drain(told)]
        assert len(ends) == armed["made"]
        assert set(ends) <= {Notification.NO_SENDERS, Notification.SEND_ONCE}
    assert told.status.send_once_rights == 0


def test_e11_no_senders_against_make_send(server: Task, client: Task) -> None:
    """It tells of a count of made rights; who reads it can tell whether more were made since."""
    told = server.allocate_port(qlimit=1024)
    for _ in range(ROUNDS):
        inbox = server.allocate_port()
        right = inbox.make_send(client)
        inbox.request_notification(Notification.NO_SENDERS, told)
        late: list[SendRight] = []
        assert together(right.close, lambda: late.append(inbox.make_send(client))) == [None, None]  # noqa: B023
        (made,) = late
        early = drain(told)
        made.send(b"the late right works")
        assert inbox.receive(timeout=0).body == b"the late right works"
        made.close()
        notes = early + drain(told)
        assert [m.notification for m in notes] == [Notification.NO_SENDERS], "once, in either order"
        count = int.from_bytes(notes[0].body[-4:], "little")
        assert count == (1 if early else 2)
        inbox.close()


# ---- policy ----


def test_e12_policy_reloaded_during_sends_and_receives() -> None:
    """Once replace() has returned, nothing is sent or received under the old policy."""
    with Kernel(policies=[allow_all()]) as kernel:
        task = kernel.create_task("task", label="rules/a")
        inbox = task.allocate_port()
        right = inbox.make_send(task)
        stop, denied, done = threading.Event(), threading.Event(), threading.Event()

        def repeat(call: Callable[[], Any]) -> None:
            while not stop.is_set():
                try:
                    call()
                    done.set()
                except AccessDenied:
                    denied.set()
                except TimedOut:
                    continue

        calls = [lambda: right.send(b"", timeout=0.01)] * 2
        calls.append(lambda: inbox.receive(timeout=0.01))
        runs = [Run(partial(repeat, call)) for call in calls]
        for _ in range(ROUNDS):
            kernel.policies.replace("rules", Rules())
            before = passed(kernel)
            denied.clear()
            assert denied.wait(LONG)
            assert passed(kernel) == before
            kernel.policies.replace("rules", allow_all())
            done.clear()
            assert done.wait(LONG)
        stop.set()
        for run in runs:
            run.result()
        kernel.verify()


def passed(kernel: Kernel) -> tuple[int, int]:
    """How many messages were sent and received so far."""
    stats = kernel.stats()
    return stats["sent"], stats["received"]


class Divider(PolicyModule):
    """Forbids to send to what is secret; does what it is told to before it answers."""

    name = "divider"
    uncached = True

    def __init__(self) -> None:
        self.meddle: Callable[[], None] | None = None

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        meddle, self.meddle = self.meddle, None
        if meddle:
            meddle()
        secret = target == "secret" and tclass.name == "mach_port"
        return Decision(allowed=ALL & ~tclass.mask("send") if secret else ALL)


def test_e13_port_relabelled_between_check_and_commit() -> None:
    """The label that counts is the one at the point of no return."""
    divider = Divider()
    with Kernel(policies=[divider]) as kernel:
        client = kernel.create_task("client", label="divider/x")
        inbox = client.allocate_port("divider/open")
        right = inbox.make_send(client)
        divider.meddle = lambda: inbox.relabel("divider/secret")
        with pytest.raises(AccessDenied):
            right.send(b"", timeout=0)
        assert inbox.label == "divider/secret"
        assert inbox.status.msgcount == 0
        divider.meddle = lambda: inbox.relabel("divider/open")
        right.send(b"", timeout=0)
        assert inbox.status.msgcount == 1
        kernel.verify()


def test_e14_policy_unloaded_while_labels_refer_to_it() -> None:
    with Kernel(policies=[Partition(), Stub()]) as kernel:
        red = kernel.create_task("red", label="partition/red")
        blue = kernel.create_task("blue", label="partition/blue")
        inbox = blue.allocate_port()
        kernel.policies.unload("partition")
        right = inbox.make_send(red)
        right.send(b"the message keeps the label of its sender")
        assert inbox.receive(timeout=0).sender.label == "-"
        kernel.policies.load(Partition())
        assert (red.label, inbox.label) == ("-", "-"), "its values do not come back"
        right.send(b"")
        kernel.verify()


def test_e15_two_policies_of_one_name_loaded_at_once() -> None:
    with Kernel() as kernel:
        for _ in range(20):
            outcomes = together(*[lambda: kernel.policies.load(Partition())] * 3)
            assert sorted(map(type, outcomes), key=str) == [type(None), PolicyError, PolicyError]
            assert list(kernel.policies) == ["partition"]
            kernel.policies.unload("partition")
        kernel.verify()


def test_e_tasks_end_while_others_begin(kernel: Kernel) -> None:
    """What a dead task had is gone, and what is said of it is that it is dead."""

    def live() -> None:
        for _ in range(ROUNDS):
            task = kernel.create_task("mayfly")
            inbox = task.allocate_port()
            inbox.make_send(task).send(b"x", rights=[inbox.make_send()])
            task.terminate()
            with pytest.raises(MachError) as caught:
                inbox.receive(timeout=0)
            assert caught.value.code == mach.KERN_INVALID_TASK

    assert together(live, live) == [None, None]
    assert (kernel.stats()["ports"], kernel.stats()["tasks"]) == (0, 0)
