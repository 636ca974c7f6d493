# SPDX-License-Identifier: BSD-2-Clause
"""Couriers, proxies and carrying, by policies in CIL: what DTOS keeps apart, `te` can keep apart.

Each world's policy is the least that lets its story happen. The tests take one permission out of it
and say what becomes of the story, down to the names in the audit record.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pympi import AccessDenied, InvalidRight, Kernel, Message, TimedOut
from pympi.audit import AuditRecord
from pympi.enums import Notification, PortType
from pympi.policy import TypeEnforcement
from pympi.port import ReceiveRight, SendOnceRight, SendRight
from pympi.testing import capture_audit

RULE = re.compile(r"\(allow (\w+) (\w+) \(mach_port \(([\w ]+)\)\)\)")


class Missing(NamedTuple):
    """A permission that a policy is to be without."""

    source: str
    target: str
    permission: str


def permissions(policy: str) -> list[Missing]:
    """Return what a policy allows, one by one."""
    return [
        Missing(rule[1], rule[2], permission)
        for rule in RULE.finditer(policy)
        for permission in rule[3].split()
    ]


def without(policy: str, *missing: Missing) -> str:
    """Return a policy that allows less. What is to be missing has to be there once."""
    for one in missing:
        assert permissions(policy).count(one) == 1, one

    def shorter(rule: re.Match[str]) -> str:
        kept = [p for p in rule[3].split() if Missing(rule[1], rule[2], p) not in missing]
        return f"(allow {rule[1]} {rule[2]} (mach_port ({' '.join(kept)})))" if kept else ""

    return RULE.sub(shorter, policy)


def label(kind: str) -> str:
    return f"te/system_u:system_r:{kind}"


def declared(*kinds: str) -> str:
    """Return declarations of types, for processes and for ports."""
    roles = "".join(f"(type {kind}) (roletype system_r {kind})\n" for kind in kinds)
    return f"{roles}(userrole system_u system_r)\n"


@contextmanager
def kernel_under(policy: str) -> Iterator[Kernel]:
    with Kernel(policies=[TypeEnforcement.from_text(policy)]) as kernel:
        yield kernel
        kernel.verify()
        assert kernel.policies.failures == {}


def refusals(kernel: Kernel) -> list[AuditRecord]:
    """Return the records of what was refused since the last time."""
    return [r for r in kernel.audit.batch(kernel.audit.drain()) if r.denied]


# ---- a courier ----


class Kind(NamedTuple):
    """A kind of right: the methods that make and pass it on, permissions, and who needs what.

    Attributes:
        make, give: methods of the right that is there before.
        take, use, gives: permissions.
        rules: what the story needs of the thing, besides the road.
    """

    make: str
    give: str
    take: str
    use: str
    gives: str
    rules: str


SENT = """
(allow owner_t goal_t (mach_port (recv)))
(allow owner_t thing_t (mach_port (make_send use_recv)))
(allow goal_t thing_t (mach_port (hold_send send copy_send)))
"""
KINDS = {
    "send by copy": Kind(
        "make_send", "copy_send", "hold_send", "send", "copy_send",
        f"{SENT}(allow courier_t thing_t (mach_port (hold_send copy_send)))",
    ),
    "send by move": Kind(
        "make_send", "move_send", "hold_send", "send", "move_send",
        f"{SENT}(allow courier_t thing_t (mach_port (hold_send move_send)))",
    ),
    "send once": Kind(
        "make_send_once", "move_send_once", "hold_send_once", "send", "move_send_once",
        """(allow owner_t goal_t (mach_port (recv)))
        (allow owner_t thing_t (mach_port (make_send_once use_recv)))
        (allow courier_t thing_t (mach_port (hold_send_once move_send_once)))
        (allow goal_t thing_t (mach_port (hold_send_once send move_send_once)))""",
    ),
    "receive": Kind(
        "move_receive", "move_receive", "hold_recv", "use_recv", "move_recv",
        """(allow owner_t thing_t (mach_port (make_send hold_send send copy_send move_recv)))
        (allow courier_t thing_t (mach_port (hold_recv move_recv)))
        (allow goal_t thing_t (mach_port (hold_recv use_recv)))
        (allow goal_t owner_t (mach_port (recv)))""",
    ),
}  # fmt: skip
ROAD = f"""{declared("owner_t", "courier_t", "goal_t")}
(type thing_t) (typetransition owner_t owner_t mach_port thing_t)
(allow owner_t courier_t (mach_port (hold_send send copy_send carry_rights)))
(allow courier_t courier_t (mach_port (make_send use_recv)))
(allow courier_t owner_t (mach_port (recv)))
(allow courier_t goal_t (mach_port (hold_send send copy_send carry_rights)))
(allow goal_t goal_t (mach_port (make_send use_recv)))
(allow goal_t courier_t (mach_port (recv)))
"""
THING = "te/system_u:object_r:thing_t"
Held = SendRight | SendOnceRight | ReceiveRight


def use(right: Held) -> None:
    """Use a right for what it is for."""
    if isinstance(right, ReceiveRight):
        assert right.receive(timeout=0).body == b"used"
    elif isinstance(right, SendOnceRight):
        right.use_up(b"used")
    else:
        right.send(b"used")


class Destroyed(Exception):
    """A right did not arrive."""


class Delivery:
    """A right to the owner's `thing` travels from the owner by the courier to its goal."""

    def __init__(self, kernel: Kernel, kind: Kind) -> None:
        self.kernel, self.kind = kernel, kind
        self.owner, self.courier, self.goal = (
            kernel.create_task(name, label(f"{name}_t")) for name in ("owner", "courier", "goal")
        )
        self.thing = self.owner.allocate_port()
        self.bag, self.desk = self.courier.allocate_port(), self.goal.allocate_port()
        self.to_courier = self.bag.make_send(self.owner)
        self.to_goal = self.desk.make_send(self.courier)
        self.back = None
        if kind.use == "use_recv":
            self.back = self.thing.make_send(self.owner)
            self.back.send(b"used")

    def hand_over(self) -> None:
        self.to_courier.send(b"parcel", rights=[getattr(self.thing, self.kind.make)()])

    def take(self, task_port: ReceiveRight) -> tuple[Message, Any]:
        message = task_port.receive(timeout=0)
        return message, message.rights[0]

    def deliver(self, right: Held) -> None:
        self.to_goal.send(b"parcel", rights=[getattr(right, self.kind.give)()])

    def whole(self) -> None:
        """The story from beginning to end."""
        self.hand_over()
        _, held = self.take(self.bag)
        if held is None:
            raise Destroyed
        self.deliver(held)
        _, delivered = self.take(self.desk)
        if delivered is None:
            raise Destroyed
        use(delivered)
        if self.back is None:
            assert self.thing.receive(timeout=0).body == b"used"


def policy_of(kind: str) -> str:
    return ROAD + KINDS[kind].rules


@contextmanager
def delivery(kind: str, *missing: Missing) -> Iterator[Delivery]:
    with kernel_under(without(policy_of(kind), *missing)) as kernel:
        yield Delivery(kernel, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_courier_carries_what_it_may_not_use(kind: str) -> None:
    with delivery(kind) as story:
        story.hand_over()
        message, held = story.take(story.bag)
        assert (message.denied, message.body) == (0, b"parcel")
        assert held.label == THING
        before = story.courier.names()
        with pytest.raises(AccessDenied) as caught:
            use(held)
        assert story.kind.use in caught.value.permission.split()
        assert story.courier.names() == before, "it still holds it"
        (record,) = refusals(story.kernel)
        assert (record.task_name, record.subject, record.object) == (
            "courier", label("courier_t"), THING,
        )  # fmt: skip
        assert (record.tclass, record.result) == ("mach_port", caught.value.name)
        assert story.kind.use in record.denied
        story.deliver(held)
        _, delivered = story.take(story.desk)
        use(delivered)
        assert refusals(story.kernel) == []


LEAST = [(kind, one) for kind in KINDS for one in permissions(policy_of(kind))]


@pytest.mark.parametrize(("kind", "one"), LEAST, ids=str)
def test_every_permission_of_the_story_is_needed(kind: str, one: Missing) -> None:
    """And the first refusal is of that permission, by its subject, to its object."""
    with kernel_under(without(policy_of(kind), one)) as kernel:
        with pytest.raises((AccessDenied, Destroyed)):
            Delivery(kernel, KINDS[kind]).whole()
        first = refusals(kernel)[0]
        target = first.peer if one.permission == "recv" else first.object
        expected = THING if one.target == "thing_t" else label(one.target)
        assert (first.subject, target, first.denied) == (
            label(one.source), expected, (one.permission,),
        )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_story_as_a_whole(kind: str) -> None:
    with delivery(kind) as story:
        story.whole()
        assert refusals(story.kernel) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_not_be_held_is_destroyed_on_arrival(kind: str) -> None:
    missing = Missing("courier_t", "thing_t", KINDS[kind].take)
    with delivery(kind, missing) as story:
        story.hand_over()
        names = story.courier.names()
        message, held = story.take(story.bag)
        assert (message.body, message.rights, message.denied) == (b"parcel", [None], 1)
        assert held is None
        assert story.courier.names() == names
        (record,) = refusals(story.kernel)
        assert (record.operation, record.denied) == ("take", (missing.permission,))
        assert (record.task_name, record.subject, record.object) == (
            "courier", label("courier_t"), THING,
        )  # fmt: skip
        assert record.transfer == message.transfer
        gone(story)


def gone(story: Delivery) -> None:
    """The right is nowhere, and who has to know of it is told."""
    if story.kind.take == "hold_recv":
        assert story.back is not None
        assert story.back.type == PortType.DEAD_NAME
    elif story.kind.take == "hold_send_once":
        assert story.thing.receive(timeout=0).notification is Notification.SEND_ONCE
    else:
        assert story.owner.names()[story.thing.name] == PortType.RECEIVE
        assert story.kernel.stats()["names"] == 5, "three receive rights, and two to the road"


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_not_be_given_stays(kind: str) -> None:
    missing = Missing("courier_t", "thing_t", KINDS[kind].gives)
    with delivery(kind, missing) as story:
        story.hand_over()
        _, held = story.take(story.bag)
        before = story.courier.names()
        with pytest.raises(AccessDenied) as caught:
            story.deliver(held)
        assert (caught.value.name, caught.value.permission) == (
            "MACH_SEND_INVALID_RIGHT", missing.permission,
        )  # fmt: skip
        assert story.courier.names() == before
        (record,) = refusals(story.kernel)
        assert (record.operation, record.denied, record.object) == (
            "give", (missing.permission,), THING,
        )  # fmt: skip


# ---- a proxy ----

PROXY = f"""{declared("client_t", "proxy_t", "server_t")}
(allow client_t client_t (mach_port (use_recv make_send_once set_reply move_send_once)))
(allow client_t server_t (mach_port (hold_send send copy_send recv)))
(allow server_t server_t (mach_port (use_recv make_send move_recv)))
(allow server_t client_t (mach_port (recv hold_send_once send move_send_once)))
(allow proxy_t server_t (mach_port (hold_recv hold_send interpose)))
(allow proxy_t client_t (mach_port (specify)))
"""
CLIENT, AGENT, SERVER = map(label, ("client_t", "proxy_t", "server_t"))
SPECIFY = Missing("proxy_t", "client_t", "specify")
INTERPOSE = Missing("proxy_t", "server_t", "interpose")


class Tapped:
    """A server's front, whose receive right a proxy has; the way from there; and a client."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.client, self.proxy, self.server = (
            kernel.create_task(name, label(f"{name}_t")) for name in ("client", "proxy", "server")
        )
        front, self.back = self.server.allocate_port(), self.server.allocate_port()
        self.answers = self.client.allocate_port()
        self.printer, self.out = front.make_send(self.client), self.back.make_send(self.proxy)
        self.tap = front.move_receive(self.proxy)

    def ask(self) -> None:
        self.printer.send(b"page", msgh_id=7, reply=self.answers)

    def tapped(self) -> Message:
        return self.tap.receive(timeout=0, effective=SERVER)

    def send_on(self, request: Message) -> None:
        right = request.reply_right
        assert isinstance(right, SendOnceRight)
        reply, client = right.move_send_once(), request.sender.label
        self.out.send(request.body, request.msgh_id, reply=reply, effective=client)

    def whole(self) -> None:
        """The story from beginning to end."""
        self.ask()
        request = self.tapped()
        if request.denied:
            raise Destroyed
        self.send_on(request)
        job = self.back.receive(timeout=0)
        if job.denied:
            raise Destroyed
        assert (job.body, job.msgh_id) == (b"page", 7)
        job.reply(b"printed")
        assert self.answers.receive(timeout=0).body == b"printed"


@contextmanager
def tapped(*missing: Missing) -> Iterator[Tapped]:
    with kernel_under(without(PROXY, *missing)) as kernel:
        yield Tapped(kernel)


def records(kernel: Kernel, act: Callable[[], object]) -> list[AuditRecord]:
    """Return what is recorded while something is done."""
    with capture_audit(kernel) as found:
        act()
    return found


def test_neither_side_has_to_know_of_the_proxy() -> None:
    with tapped() as story:
        story.ask()
        story.send_on(story.tapped())
        job = story.back.receive(timeout=0)
        assert (job.sender.label, job.sender.real_label) == (CLIENT, AGENT)
        assert job.sender.task == story.proxy
        job.reply(b"printed")
        assert story.answers.receive(timeout=0).sender.label == SERVER
        assert refusals(story.kernel) == []


@pytest.mark.parametrize("one", permissions(PROXY), ids=str)
def test_every_permission_of_the_proxy_s_story_is_needed(one: Missing) -> None:
    with kernel_under(without(PROXY, one)) as kernel:
        with pytest.raises((AccessDenied, Destroyed)):
            Tapped(kernel).whole()
        first = refusals(kernel)[0]
        target = first.peer if one.permission == "recv" else first.object
        assert (first.subject, target, first.denied) == (
            label(one.source), label(one.target), (one.permission,),
        )  # fmt: skip


def test_the_records_keep_both_labels() -> None:
    with tapped() as story:
        story.ask()
        got: list[Message] = []
        receiving = records(story.kernel, lambda: got.append(story.tapped()))
        assert [(r.real_subject, r.subject, r.object, r.asked) for r in receiving] == [
            (AGENT, AGENT, SERVER, ("interpose",)),
            (AGENT, SERVER, SERVER, ("recv", "use_recv")),
            (AGENT, SERVER, CLIENT, ("hold_send_once",)),
        ]
        sending = records(story.kernel, lambda: story.send_on(got[0]))
        assert [(r.real_subject, r.subject, r.object, r.asked) for r in sending] == [
            (AGENT, AGENT, CLIENT, ("specify",)),
            (AGENT, CLIENT, SERVER, ("send", "copy_send")),
            (AGENT, CLIENT, CLIENT, ("move_send_once", "set_reply")),
        ]
        assert {r.task_name for r in receiving + sending} == {"proxy"}
        (at_receiver,) = [
            r
            for r in records(story.kernel, lambda: story.back.receive(timeout=0))
            if r.operation == "receive"
        ]
        assert [r.operation for r in sending] == ["send", "send", "give"]
        assert {r.transfer for r in sending} == {at_receiver.transfer}
        assert at_receiver.peer == CLIENT


def test_as_itself_a_proxy_may_do_nothing() -> None:
    with tapped() as story:
        story.ask()
        with pytest.raises(AccessDenied) as caught:
            story.tap.receive(timeout=0)
        assert caught.value.permission == "use_recv"
        with pytest.raises(AccessDenied) as caught:
            story.out.send(b"")
        assert caught.value.permission == "send copy_send"
        assert [(r.subject, r.real_subject) for r in refusals(story.kernel)] == [(AGENT, AGENT)] * 2


def test_without_specify_nothing_is_sent() -> None:
    with tapped(SPECIFY) as story:
        story.ask()
        request = story.tapped()
        before = story.proxy.names()
        with pytest.raises(AccessDenied) as caught:
            story.send_on(request)
        assert (caught.value.name, caught.value.permission) == ("MACH_SEND_INVALID_DEST", "specify")
        assert story.proxy.names() == before, "with the client's right to be answered"
        (record,) = refusals(story.kernel)
        assert (record.denied, record.result) == (("specify",), "MACH_SEND_INVALID_DEST")
        assert (record.real_subject, record.subject, record.object) == (AGENT, AGENT, CLIENT)
        request.close()
        assert story.answers.receive(timeout=0).notification is Notification.SEND_ONCE


def test_without_interpose_nothing_is_taken() -> None:
    with tapped(INTERPOSE) as story:
        story.ask()
        with pytest.raises(AccessDenied) as caught:
            story.tapped()
        assert (caught.value.name, caught.value.permission) == (
            "MACH_RCV_INVALID_NAME", "interpose",
        )  # fmt: skip
        assert story.kernel.stats()["messages_queued"] == 1
        (record,) = refusals(story.kernel)
        assert (record.denied, record.result) == (("interpose",), "MACH_RCV_INVALID_NAME")
        assert (record.real_subject, record.subject, record.object) == (AGENT, AGENT, SERVER)


ACTS: dict[str, tuple[str, Callable[[Tapped], object]]] = {
    "specify": (SERVER, lambda story: story.out.send(b"", effective=SERVER)),
    "interpose": (CLIENT, lambda story: story.tap.receive(timeout=0, effective=CLIENT)),
}


@pytest.mark.parametrize("permission", ACTS)
def test_speaking_as_one_is_not_listening_as_it(permission: str) -> None:
    """A proxy may receive as the server and send as the client, not the other way round."""
    effective, act = ACTS[permission]
    with tapped() as story:
        story.ask()
        with pytest.raises(AccessDenied) as caught:
            act(story)
        assert caught.value.permission == permission
        (record,) = refusals(story.kernel)
        assert (record.subject, record.object) == (AGENT, effective)


def test_a_proxy_does_what_the_other_may_and_no_more() -> None:
    """An effective label brings its permissions, not others."""
    with tapped(Missing("server_t", "client_t", "recv")) as story:
        story.ask()
        with pytest.raises(AccessDenied) as caught:
            story.tapped()
        assert (caught.value.name, caught.value.permission) == ("MACH_RCV_INVALID_DATA", "recv")
        (record,) = refusals(story.kernel)
        assert (record.real_subject, record.subject, record.peer) == (AGENT, SERVER, CLIENT)


# ---- what a message may carry ----

CARRY = f"""{declared("sender_t", "receiver_t")}
(allow sender_t receiver_t (mach_port (hold_send send copy_send carry_rights carry_memory)))
(allow sender_t sender_t (mach_port (make_send)))
(allow receiver_t receiver_t (mach_port (make_send use_recv)))
(allow receiver_t sender_t (mach_port (recv hold_send)))
"""
CARRIES = {"carry_rights": "MACH_SEND_NO_GRANT_DEST", "carry_memory": "MACH_SEND_INVALID_MEMORY"}


@contextmanager
def carrying(*missing: str) -> Iterator[Carrying]:
    gone = (Missing("sender_t", "receiver_t", name) for name in missing)
    with kernel_under(without(CARRY, *gone)) as kernel:
        yield Carrying(kernel)


class Carrying:
    """A sender, a receiver, and a port whose right may be sent along."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.sender, self.receiver = (
            kernel.create_task(name, label(f"{name}_t")) for name in ("sender", "receiver")
        )
        self.inbox, self.thing = self.receiver.allocate_port(), self.sender.allocate_port()
        self.right = self.inbox.make_send(self.sender)

    def send(self, *what: str) -> None:
        rights = [self.thing.make_send()] if "carry_rights" in what else []
        memory = [b"memory"] if "carry_memory" in what else []
        self.right.send(b"body", rights=rights, memory=memory)


CARRIES = {"carry_rights": "MACH_SEND_NO_GRANT_DEST", "carry_memory": "MACH_SEND_INVALID_MEMORY"}


def test_a_message_with_both() -> None:
    with carrying() as story:
        story.send(*CARRIES)
        message = story.inbox.receive(timeout=0)
        assert isinstance(message.rights[0], SendRight)
        assert [bytes(memory) for memory in message.memory] == [b"memory"]
        assert refusals(story.kernel) == []


@pytest.mark.parametrize("what", CARRIES)
def test_what_a_message_may_not_carry_stays_where_it_is(what: str) -> None:
    with carrying(what) as story:
        names = story.sender.names()
        with pytest.raises(AccessDenied) as caught:
            story.send(what)
        assert (caught.value.name, caught.value.permission) == (CARRIES[what], what)
        (record,) = refusals(story.kernel)
        assert (record.operation, record.denied, record.result) == ("send", (what,), CARRIES[what])
        assert (record.task_name, record.subject, record.object) == (
            "sender", label("sender_t"), label("receiver_t"),
        )  # fmt: skip
        assert (story.sender.names(), story.kernel.stats()["messages_queued"]) == (names, 0)


@pytest.mark.parametrize("what", CARRIES)
def test_the_one_does_not_stand_for_the_other(what: str) -> None:
    (other,) = CARRIES.keys() - {what}
    with carrying(what) as story:
        story.send()
        story.send(other)
        first, second = (story.inbox.receive(timeout=0) for _ in range(2))
        assert (first.rights, first.memory) == ([], [])
        assert (len(second.rights), len(second.memory)) == (
            other == "carry_rights", other == "carry_memory",
        )  # fmt: skip
        with pytest.raises(AccessDenied) as caught:
            story.send(what, other)
        assert caught.value.permission == what
        assert story.thing.refs, "it was not moved"


def test_both_are_named_where_both_are_missing() -> None:
    with carrying(*CARRIES) as story:
        with pytest.raises(AccessDenied) as caught:
            story.send(*CARRIES)
        assert set(caught.value.permission.split()) == set(CARRIES)
        (record,) = refusals(story.kernel)
        assert set(record.denied) == set(CARRIES)


def test_carrying_is_of_the_message_and_giving_of_each_right() -> None:
    """With leave to carry rights, but not to make this one."""
    with kernel_under(without(CARRY, Missing("sender_t", "sender_t", "make_send"))) as kernel:
        story = Carrying(kernel)
        with pytest.raises(AccessDenied) as caught:
            story.send("carry_rights")
        assert (caught.value.name, caught.value.permission) == (
            "MACH_SEND_INVALID_RIGHT", "make_send",
        )  # fmt: skip
        assert kernel.stats()["messages_queued"] == 0


# ---- the examples ----

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STORIES = {
    "courier": ("deliver", ("printd", "courier", "editor")),
    "proxy": ("print_a_page", ("editor", "proxy", "printd")),
}
"""Of each example: the function that is the story, and the tasks it is about."""
READS_ITS_OWN_BOX = Missing("printd_t", "self", "recv")
"""The one permission that is needed only where the parcel may not be handed over."""


def told(example: str, policy: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what an example prints under a policy, up to where it can go no further."""
    story, names = STORIES[example]
    tell = runpy.run_path(str(EXAMPLES / f"{example}.py"))[story]
    with kernel_under(policy) as kernel:
        tasks = [kernel.create_task(name, label(f"{name}_t")) for name in names]
        try:
            tell(*tasks)
        except (AccessDenied, InvalidRight, TimedOut, AssertionError) as error:
            print(type(error).__name__)
    return capsys.readouterr().out


@pytest.mark.parametrize("example", STORIES)
def test_the_policies_of_the_examples_are_least(
    example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = (EXAMPLES / f"{example}.cil").read_text()
    whole = told(example, policy, capsys)
    assert len(permissions(policy)) > 15
    for one in set(permissions(policy)) - {READS_ITS_OWN_BOX}:
        assert told(example, without(policy, one), capsys) != whole, one
