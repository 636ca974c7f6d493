# SPDX-License-Identifier: BSD-2-Clause
"""Which permission each act asks, from whom, and what a refusal does.

The tables here are those of SEDarwin's hooks and of DTOS's services: who gives, takes, uses.
SEDarwin and XNU both shipped a right that asked its neighbour's permission; each asks its own here.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from background import Run, settle

from pympi import AccessDenied, Kernel, Message, Task, TimedOut, mach
from pympi.enums import ALL, Disposition, Notification, ObjectClass, PortType
from pympi.mig import Interface
from pympi.policy import Decision, PolicyModule
from pympi.port import ReceiveRight, SendOnceRight, SendRight
from pympi.testing import capture_audit


class Deny(PolicyModule):
    """Allows all but what it is told: {(source, target, permission)}."""

    name = "deny"
    uncached = True

    def __init__(self) -> None:
        self.refused: set[tuple[str, str, str]] = set()

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        refused = sum(
            tclass.bits[permission]
            for s, t, permission in self.refused
            if (s, t) == (source, target) and permission in tclass.bits
        )
        return Decision(allowed=ALL & ~refused)


class World:
    """Alice sends to Bob's port `dest`; `thing` is the port whose rights travel."""

    def __init__(self) -> None:
        self.deny = Deny()
        self.kernel = Kernel(policies=[self.deny])
        self.alice, self.bob, self.carol = (
            self.kernel.create_task(name, label=f"deny/{name}")
            for name in ("alice", "bob", "carol")
        )
        self.inbox = self.bob.allocate_port(label="deny/dest")
        self.dest = self.inbox.make_send(self.alice)

    def refuse(self, source: str, target: str, *permissions: str) -> None:
        self.deny.refused |= {(source, target, permission) for permission in permissions}

    def thing(self, task: Task) -> ReceiveRight:
        return task.allocate_port(label="deny/thing")

    def held(self) -> SendRight:
        return self.thing(self.alice).make_send(self.alice)

    def asked(self, act: Callable[[], object]) -> set[tuple[str, str, str]]:
        """Return what an act asks: {(subject, object, permission)}."""
        with capture_audit(self.kernel) as records:
            act()
        return {
            (name(r.subject), name(r.object if p != "recv" else r.peer), p)
            for r in records
            for p in r.asked
        }


def name(label: str) -> str:
    return label.removeprefix("deny/")


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with world.kernel:
        yield world
        world.deny.refused.clear()
        world.kernel.verify()
        assert world.kernel.policies.failures == {}


# ---- each disposition asks exactly its permission ----

SEND = {("alice", "dest", "send"), ("alice", "dest", "copy_send")}
CARRY = {("alice", "dest", "carry_rights")}
RECEIVE = {("bob", "dest", "use_recv"), ("bob", "alice", "recv")}

# How a right comes to be in Alice's hands, what is done with it, what is asked of giver and taker.
TRAVELS: dict[str, tuple[Callable[[World], Any], str, str]] = {
    "make_send": (lambda w: w.thing(w.alice).make_send, "make_send", "hold_send"),
    "make_send_once": (
        lambda w: w.thing(w.alice).make_send_once, "make_send_once", "hold_send_once",
    ),
    "copy_send": (lambda w: w.held().copy_send, "copy_send", "hold_send"),
    "move_send": (lambda w: w.held().move_send, "move_send", "hold_send"),
    "move_send_once": (
        lambda w: w.thing(w.alice).make_send_once(w.alice).move_send_once,
        "move_send_once", "hold_send_once",
    ),
    "move_receive": (lambda w: w.thing(w.alice).move_receive, "move_recv", "hold_recv"),
}  # fmt: skip


@pytest.mark.parametrize("how", TRAVELS)
def test_a_right_in_a_body(world: World, how: str) -> None:
    prepare, give, take = TRAVELS[how]
    carried = prepare(world)()
    sending = world.asked(lambda: world.dest.send(b"", rights=[carried]))
    assert sending == SEND | CARRY | {("alice", "thing", give)}
    assert world.asked(world.inbox.receive) == RECEIVE | {("bob", "thing", take)}


@pytest.mark.parametrize("how", TRAVELS)
def test_a_right_handed_over_at_once(world: World, how: str) -> None:
    prepare, give, take = TRAVELS[how]
    hand_over = prepare(world)
    asked = world.asked(lambda: hand_over(world.bob))
    assert asked == {("alice", "thing", give), ("bob", "thing", take)}


@pytest.mark.parametrize("how", TRAVELS)
def test_giving_is_recorded_as_giving(world: World, how: str) -> None:
    """Also where the decider had to be asked, and the whole attempt was made again."""
    prepare, give, take = TRAVELS[how]
    hand_over = prepare(world)
    with capture_audit(world.kernel) as records:
        hand_over(world.bob)
    assert [(r.operation, r.asked) for r in records] == [("give", (give,)), ("take", (take,))]
    world.refuse("alice", "thing", give)
    again = prepare(world)
    with pytest.raises(AccessDenied) as caught:
        again(world.bob)
    assert caught.value.operation == "give"


@pytest.mark.parametrize("how", [how for how in TRAVELS if how != "move_receive"])
def test_a_reply_right(world: World, how: str) -> None:
    prepare, give, take = TRAVELS[how]
    carried = prepare(world)()
    sending = world.asked(lambda: world.dest.send(b"", reply=carried))
    assert sending == SEND | {("alice", "thing", "set_reply"), ("alice", "thing", give)}
    assert world.asked(world.inbox.receive) == RECEIVE | {("bob", "thing", take)}


@pytest.mark.parametrize(
    ("disposition", "give"),
    [
        (Disposition.COPY_SEND, "copy_send"),
        (Disposition.MOVE_SEND, "move_send"),
        (Disposition.MAKE_SEND, "make_send"),
        (Disposition.MAKE_SEND_ONCE, "make_send_once"),
        (Disposition.MOVE_SEND_ONCE, "move_send_once"),
    ],
)
def test_the_right_to_the_destination(world: World, disposition: int, give: str) -> None:
    port = world.alice.allocate_port(label="deny/thing")
    if disposition == Disposition.MOVE_SEND_ONCE:
        right: int = port.make_send_once(world.alice).name
    else:
        right = port.make_send(world.alice).name
    header = mach._HEADER.pack(disposition, 24, right, 0, 0, 0)
    sending = world.asked(lambda: mach.mach_msg(world.alice, header, mach.MACH_SEND_MSG))
    assert sending == {("alice", "thing", "send"), ("alice", "thing", give)}


def test_memory_and_labels(world: World) -> None:
    memory = world.asked(lambda: world.dest.send(b"", memory=[b"x" * 100]))
    assert memory == SEND | {("alice", "dest", "carry_memory")}
    world.inbox.receive().close()
    effective = world.asked(lambda: world.dest.send(b"", effective="deny/guest"))
    as_guest = {("guest", target, permission) for _, target, permission in SEND}
    assert effective == as_guest | {("alice", "guest", "specify")}
    interposed = world.asked(lambda: world.inbox.receive(effective="deny/proxy"))
    assert interposed == {
        ("bob", "proxy", "interpose"), ("proxy", "dest", "use_recv"), ("proxy", "guest", "recv"),
    }  # fmt: skip


def test_kernel_calls(world: World) -> None:
    port = world.thing(world.alice)
    mailbox = world.alice.allocate_port()
    expected: dict[str, Callable[[], object]] = {
        "get_attributes": lambda: port.status,
        "set_attributes": lambda: setattr(port, "qlimit", 7),
        "request_notification": lambda: port.request_notification(
            Notification.NO_SENDERS, mailbox, sync=1
        ),
    }
    for permission, act in expected.items():
        assert ("alice", "thing", permission) in world.asked(act)
    relabelled = world.asked(lambda: port.relabel("deny/other"))
    assert relabelled == {("alice", "thing", "relabelfrom"), ("alice", "other", "relabelto")}
    for permission, call in {
        "observe": lambda: world.bob.names(caller=world.alice),
        "insert_right": lambda: world.bob.allocate_port(caller=world.alice),
        "terminate": lambda: world.bob.terminate(caller=world.alice),
    }.items():
        assert ("alice", "bob", permission) in world.asked(call)


def test_what_a_task_does_in_its_own_space_is_not_asked(world: World) -> None:
    def act() -> None:
        port = world.bob.allocate_port()
        mach.mach_port_mod_refs(world.bob, port.name, mach.MACH_PORT_RIGHT_RECEIVE, 0)
        world.bob.names()
        port.close()

    assert world.asked(act) == set()


# ---- take, use and give are independent ----

Held = SendRight | SendOnceRight | ReceiveRight


def give_send(w: World) -> Any:
    return w.thing(w.alice).make_send


def give_once(w: World) -> Any:
    return w.thing(w.alice).make_send_once


def give_receive(w: World) -> Any:
    return w.thing(w.alice).move_receive


def pass_on(right: Held, to: Task) -> object:
    if isinstance(right, SendRight):
        return right.copy_send(to)
    if isinstance(right, SendOnceRight):
        return right.move_send_once(to)
    return right.move_receive(to)


def use(right: Held) -> object:
    if isinstance(right, ReceiveRight):
        return right.receive(timeout=0)
    return right.send(b"", timeout=0) if isinstance(right, SendRight) else right.use_up(b"")


KINDS: dict[str, tuple[Callable[[World], Any], str, tuple[str, ...], tuple[str, ...]]] = {
    "send": (give_send, "hold_send", ("send",), ("copy_send", "move_send")),
    "send_once": (give_once, "hold_send_once", ("send",), ("move_send_once",)),
    "receive": (give_receive, "hold_recv", ("use_recv",), ("move_recv",)),
}


def works(act: Callable[[], object]) -> bool:
    try:
        act()
    except AccessDenied:
        return False
    except TimedOut:
        return True  # a full queue, or an empty one: it was allowed to look
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("states", list(itertools.product([True, False], repeat=3)), ids=str)
def test_take_use_and_give_are_independent(
    world: World, kind: str, states: tuple[bool, bool, bool]
) -> None:
    """A task that may hold and not use is a courier; one that may use and not give a dead end."""
    prepare, take, uses, gives = KINDS[kind]
    may_take, may_use, may_give = states
    held = prepare(world)(world.bob)
    spare = prepare(world)(world.bob)
    if not may_take:
        world.refuse("bob", "thing", take)
    if not may_use:
        world.refuse("bob", "thing", *uses)
    if not may_give:
        world.refuse("bob", "thing", *gives)
    assert works(lambda: prepare(world)(world.bob)) == may_take
    assert works(lambda: pass_on(spare, world.carol)) == may_give
    # Using a send right in a message also gives a copy of it, or the right, to the message.
    expected = may_use and (may_give or kind == "receive")
    assert works(lambda: use(held)) == expected


# ---- what a refusal answers and changes ----

METHODS = Interface("methods", 500, ["one"])


def with_rights(w: World) -> Any:
    return lambda: w.dest.send(b"", rights=[w.thing(w.alice).make_send()])


def with_reply(w: World) -> Any:
    port = w.thing(w.alice)
    return lambda: w.dest.send(b"", reply=port)


def with_method(w: World) -> Any:
    w.inbox.serve(METHODS)
    return lambda: w.dest.send(b"", msgh_id=500)


def received(w: World) -> Any:
    w.dest.send(b"")
    return lambda: w.inbox.receive(timeout=0)


def plainly(w: World) -> Any:
    return lambda: w.dest.send(b"")


def with_memory(w: World) -> Any:
    return lambda: w.dest.send(b"", memory=[b"x"])


def relabelled(w: World) -> Any:
    return lambda: w.inbox.relabel("deny/other")


def status(w: World) -> Any:
    return lambda: w.inbox.status


def renamed(w: World) -> Any:
    return lambda: w.bob.names(caller=w.alice)


ROWS = [
    (plainly, ("alice", "dest", "send"), "send", "MACH_SEND_INVALID_DEST"),
    (plainly, ("alice", "dest", "copy_send"), "send", "MACH_SEND_INVALID_DEST"),
    (with_method, ("alice", "dest", "one"), "method", "MACH_SEND_MSG_FILTERED"),
    (with_reply, ("alice", "thing", "set_reply"), "give", "MACH_SEND_INVALID_REPLY"),
    (with_reply, ("alice", "thing", "make_send_once"), "give", "MACH_SEND_INVALID_REPLY"),
    (with_rights, ("alice", "thing", "make_send"), "give", "MACH_SEND_INVALID_RIGHT"),
    (with_rights, ("alice", "dest", "carry_rights"), "send", "MACH_SEND_NO_GRANT_DEST"),
    (with_memory, ("alice", "dest", "carry_memory"), "send", "MACH_SEND_INVALID_MEMORY"),
    (received, ("bob", "dest", "use_recv"), "receive", "MACH_RCV_INVALID_NAME"),
    (received, ("bob", "alice", "recv"), "receive", "MACH_RCV_INVALID_DATA"),
    (relabelled, ("bob", "dest", "relabelfrom"), "relabel", "KERN_NO_ACCESS"),
    (relabelled, ("bob", "other", "relabelto"), "relabel", "KERN_NO_ACCESS"),
    (status, ("bob", "dest", "get_attributes"), "attributes", "KERN_NO_ACCESS"),
    (renamed, ("alice", "bob", "observe"), "name", "KERN_NO_ACCESS"),
]


@pytest.mark.parametrize(("prepare", "refused", "operation", "code"), ROWS)
def test_the_code_of_a_refusal(
    world: World, prepare: Any, refused: tuple[str, str, str], operation: str, code: str
) -> None:
    act = prepare(world)
    world.deny.refused.add(refused)
    before = (world.alice.names(), world.bob.names(), world.kernel.stats()["messages_queued"])
    with pytest.raises(AccessDenied) as caught:
        act()
    assert (caught.value.name, caught.value.permission) == (code, refused[2])
    assert caught.value.operation == operation
    world.deny.refused.clear()
    after = (world.alice.names(), world.bob.names(), world.kernel.stats()["messages_queued"])
    if refused[2] == "recv":
        assert after[2] == before[2] - 1
    else:
        assert after[2] == before[2]
    new = {n for n in after[0] if n not in before[0]}
    assert all(after[0][n] == PortType.RECEIVE for n in new)
    assert after[1] == before[1]
    act() if refused[2] != "recv" else world.dest.send(b"")


@pytest.mark.parametrize("how", TRAVELS)
def test_a_right_that_may_not_be_taken_is_destroyed(world: World, how: str) -> None:
    prepare, _, take = TRAVELS[how]
    world.dest.send(b"rest", rights=[prepare(world)()])
    world.refuse("bob", "thing", take)
    names = world.bob.names()
    message: Message = world.inbox.receive(timeout=0)
    assert (message.body, message.rights, message.denied) == (b"rest", [None], 1)
    assert world.bob.names() == names
    wire = mach.MACH_RCV_MSG | mach.MACH_RCV_TIMEOUT
    world.dest.send(b"rest", rights=[prepare(world)()])
    code, buffer = mach.mach_msg(world.bob, b"", wire, 500, world.inbox.name)
    assert code == mach.MACH_RCV_BODY_ERROR | mach.MACH_MSG_IPC_SPACE
    assert buffer[28:32] == bytes(4)


def test_a_denied_message_is_disposed_of_with_its_notifications(world: World) -> None:
    """SEDarwin destroyed it silently: whoever waited for a reply waited for ever."""
    answers = world.alice.allocate_port()
    world.dest.send(b"", reply=answers)
    world.refuse("bob", "alice", "recv")
    with pytest.raises(AccessDenied):
        world.inbox.receive(timeout=0)
    assert answers.receive(timeout=0).notification is Notification.SEND_ONCE


def test_a_blocked_receiver_is_checked_too(world: World) -> None:
    """SEDarwin checked only who found a message waiting."""
    world.refuse("bob", "alice", "recv")
    waiting = Run(world.inbox.receive)
    settle(waiting)
    world.dest.send(b"")
    assert isinstance(waiting.error(), AccessDenied)


def test_a_queued_message_keeps_its_senders_label(world: World) -> None:
    world.dest.send(b"")
    world.alice.relabel("deny/bystander")
    world.refuse("bob", "bystander", "recv")
    assert world.inbox.receive(timeout=0).sender.label == "deny/alice"


def test_nothing_is_asked_twice(world: World) -> None:
    with capture_audit(world.kernel) as records:
        world.dest.send(b"", rights=[world.thing(world.alice).make_send()])
        world.inbox.receive()
    keys = [(r.subject, r.object, r.peer, p) for r in records for p in r.asked]
    assert len(keys) == len(set(keys))
