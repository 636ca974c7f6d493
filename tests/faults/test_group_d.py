# SPDX-License-Identifier: BSD-2-Clause
"""Fault group D: floods and starvation. Memory is bounded, the culprit pays, others go on."""

import struct
from collections import Counter

import pytest
from background import LONG, Run, settle
from faults.names import check_books
from faults.world import (
    MOVE_RECEIVE,
    SEND,
    World,
    differences,
    message,
    outcome,
    port,
    refused,
    state,
)
from property.refusals import Scene

from pympi import Kernel, Quota, mach
from pympi._ffi import ffi, lib
from pympi.bootstrap import Limits
from pympi.enums import AuditFlag, MachPort, Notification, PortType
from pympi.errors import LabelError
from pympi.policy import Decision, PolicyModule

HEADER_AND_PORT = struct.Struct("=7I I 4xHBB")


class Parity(PolicyModule):
    """Labels are numbers; one may send to another if their sum is even."""

    name = "parity"

    def decide(self, source: str, target: str, tclass: object) -> Decision:
        even = (int(source or 0) + int(target or 0)) % 2 == 0
        return Decision(allowed=int(MachPort.send) if even else 0)


def test_d1_one_sender_fills_a_queue(world: World) -> None:
    kernel, other = world.kernel, world.server.allocate_port()
    elsewhere = other.make_send(world.client)
    for _ in range(5):
        assert world.send(message(world.dest))[0] == 0
    memory = kernel.stats()["memory"]
    client, body = world.client, bytes(1024)
    for _ in range(1000):
        assert world.send(message(world.dest, body=body))[0] == mach.MACH_SEND_TIMED_OUT
        code = lib.pm_send(client._pointer, world.dest, body, len(body), 0, ffi.NULL)
        assert code == mach.MACH_SEND_TIMED_OUT
    assert kernel.stats()["memory"] < memory + 64 * 1024
    elsewhere.send(b"goes on", timeout=0)
    assert other.receive(timeout=0).body == b"goes on"


def test_d1_the_sender_pays_for_what_is_queued(world: World) -> None:
    kernel = world.kernel
    inbox = world.server.receive_right(world.inbox)
    inbox.qlimit = 1000
    world.client.set_quota(Quota(queued_bytes=10_000))
    for _ in range(9):
        world.client.send(world.dest, bytes(1000), timeout=0)
    call = lambda: world.client.send(world.dest, bytes(1001), timeout=None)  # noqa: E731
    refused(kernel, call, "MACH_SEND_NO_BUFFER")
    assert (world.client.usage.queued_bytes, world.server.usage.queued_bytes) == (9000, 0)
    other = kernel.create_task("other")
    inbox.make_send(other).send(bytes(5000), timeout=0)
    for _ in range(10):
        inbox.receive(timeout=0).close()
    assert world.client.usage.queued_bytes == 0
    world.client.send(world.dest, bytes(10_000), timeout=0)


def test_d2_a_thousand_senders_in_order(kernel: Kernel) -> None:
    server = kernel.create_task("server")
    inbox = server.allocate_port(qlimit=1024)
    for number in range(1000):
        inbox.make_send(kernel.create_task(f"sender {number}")).send(b"", number, timeout=0)
    assert [inbox.receive(timeout=0).msgh_id for _ in range(1000)] == list(range(1000))


def test_d2_blocked_senders_in_order(kernel: Kernel) -> None:
    """Who waits longer goes first, and nobody who comes later passes."""
    inbox = kernel.create_task("server").allocate_port(qlimit=1)
    rights = [inbox.make_send(kernel.create_task(f"sender {number}")) for number in range(8)]
    rights[0].send(b"", 0, timeout=0)
    runs = []
    for number in range(1, 8):
        runs.append(Run(lambda n=number: rights[n].send(b"", n, timeout=LONG)))  # type: ignore[misc]
        settle(runs[-1])
    order = []
    for _ in range(7):
        order.append(inbox.receive(timeout=LONG).msgh_id)
        # Now there is room, or it is taken by who was first to wait: in neither case for others.
        assert outcome(lambda: rights[0].send(b"", 99, timeout=0)) == "MACH_SEND_TIMED_OUT"
    order.append(inbox.receive(timeout=LONG).msgh_id)
    assert [run.error() for run in runs] == [None] * 7
    assert order == list(range(8))


def test_d3_send_once_rights_pass_the_limit_up_to_a_cap(world: World) -> None:
    """As in Mach the queue limit does not hold for them; the kernel's own does."""
    client, inbox = world.client, world.server.receive_right(world.inbox)
    server = world.server._pointer
    inbox.qlimit = 0
    full = 0
    for sent in range(lib.PM_QUEUE_MAX + 1):
        name = lib.pm_port_transfer(server, world.inbox, 21, client._pointer)
        full = lib.pm_send(client._pointer, name, b"", 0, sent, ffi.NULL)
        if full:
            break
    assert (full, sent) == (mach.MACH_SEND_NO_BUFFER, lib.PM_QUEUE_MAX)
    world.kernel.verify()
    mach.mach_port_destroy(world.server, world.inbox)
    assert world.kernel.stats()["messages_queued"] == 0


def test_d3_the_sender_pays_for_send_once_floods(world: World) -> None:
    world.client.set_quota(Quota(queued_bytes=100))
    for _ in range(4):
        once = world.server.receive_right(world.inbox).make_send_once(world.client)
        code = outcome(lambda o=once: o.send(bytes(30), timeout=0))  # type: ignore[misc]
    assert code == "MACH_SEND_NO_BUFFER"


def test_d4_many_ports(kernel: Kernel) -> None:
    task = kernel.create_task("flooder", quota=Quota(ports=100))
    ports = [task.allocate_port() for _ in range(100)]
    refused(kernel, task.allocate_port, "KERN_RESOURCE_SHORTAGE")
    assert kernel.create_task("other").allocate_port().name
    ports[0].close()
    assert task.allocate_port().name


def test_d4_a_dead_port_is_not_charged_to_its_maker(kernel: Kernel) -> None:
    """Whoever keeps names of dead ports uses names of its own, not ports of the maker's."""
    server = kernel.create_task("server", quota=Quota(ports=3))
    hoarder = kernel.create_task("hoarder", quota=Quota(names=200))
    for _ in range(100):
        made = server.allocate_port()
        made.make_send(hoarder)
        made.close()
    assert server.usage.ports == 0
    assert hoarder.usage.names == 100
    kernel.verify()


def test_d4_ports_take_bounded_memory(kernel: Kernel) -> None:
    task, before = kernel.create_task("task"), kernel.stats()["memory"]
    for _ in range(20_000):
        lib.pm_port_allocate(task._pointer, task._pointer, 1, 0)
    assert kernel.stats()["memory"] - before < 20_000 * 320
    task.terminate()
    kernel.verify()


def test_d4_names_are_paid_by_who_holds_them(kernel: Kernel) -> None:
    victim = kernel.create_task("victim", quota=Quota(names=10))
    flooder = kernel.create_task("flooder")
    inbox = victim.allocate_port(qlimit=100)
    to_victim = inbox.make_send(flooder)
    for _ in range(20):
        rights = [flooder.allocate_port().make_send() for _ in range(2)]
        to_victim.send(b"", rights=rights, timeout=0)
    for _ in range(4):
        assert inbox.receive(timeout=0).rights != [None, None]
    call = lambda: inbox.receive(timeout=0)  # noqa: E731
    refused(kernel, call, "MACH_RCV_HEADER_ERROR|MACH_MSG_IPC_SPACE")


def test_d5_large_sets(kernel: Kernel) -> None:
    task = kernel.create_task("task")
    ports = [task.allocate_port() for _ in range(1000)]
    everything = task.create_port_set(*ports)
    sets = [task.create_port_set(ports[0]) for _ in range(1000)]
    assert len(everything.members()) == 1000
    ports[0].make_send(task).send(b"once", timeout=0)
    assert sets[500].receive(timeout=0).body == b"once"
    assert outcome(lambda: everything.receive(timeout=0)) == "MACH_RCV_TIMED_OUT"
    kernel.verify()
    ports[0].close()
    assert sets[999].members() == []
    kernel.verify()


def test_d5_nested_sets(world: World) -> None:
    inner = world.client.create_port_set()
    call = lambda: mach.mach_port_insert_member(world.client, inner.name, world.pset)  # noqa: E731
    refused(world.kernel, call, "KERN_INVALID_RIGHT")


def storm(kernel: Kernel, count: int) -> int:
    """Let `count` ports die at once that somebody wants to be told of; return how many told."""
    server, client = kernel.create_task("server"), kernel.create_task("client")
    mailbox = client.allocate_port()
    for _ in range(count):
        name = lib.pm_port_allocate(server._pointer, server._pointer, 1, 0)
        got = lib.pm_port_transfer(server._pointer, name, 20, client._pointer)
        arguments = (got, Notification.DEAD_NAME, 0, mailbox.name, 21)
        assert lib.pm_port_request_notification(client._pointer, client._pointer, *arguments) == 0
    server.terminate()
    return mailbox.status.msgcount


def test_d6_a_storm_of_notifications(kernel: Kernel) -> None:
    assert storm(kernel, 20_000) == 20_000
    kernel.verify()


@pytest.mark.long
def test_d6_a_greater_storm(kernel: Kernel) -> None:
    """None is lost: each was reserved, and charged to who asked, when it was asked for."""
    assert storm(kernel, 100_000) == 100_000
    kernel.verify()


def test_d6_requests_are_paid_by_who_asks(kernel: Kernel) -> None:
    server = kernel.create_task("server")
    client = kernel.create_task("client", quota=Quota(notifications=5))
    mailbox = client.allocate_port()
    rights = [server.allocate_port().make_send(client) for _ in range(6)]
    for right in rights[:5]:
        right.request_notification(Notification.DEAD_NAME, mailbox)
    call = lambda: rights[5].request_notification(Notification.DEAD_NAME, mailbox)  # noqa: E731
    refused(kernel, call, "KERN_RESOURCE_SHORTAGE")
    rights[0].cancel_notification(Notification.DEAD_NAME).close()  # type: ignore[union-attr]
    assert outcome(call) == "KERN_SUCCESS"


def test_d7_registration_spam(kernel: Kernel) -> None:
    """Who fills, pays: one owner's names take no room from others, and are all given back."""
    limits = Limits(services=1000, services_per_owner=100)
    names = kernel.start_bootstrap(limits=limits)
    flooder, other = kernel.create_task("flooder", uid=1), kernel.create_task("other", uid=2)
    port = flooder.allocate_port()
    right = port.make_send(flooder)
    outcomes = [
        outcome(lambda n=n: flooder.bootstrap.register(f"spam.{n}", right.copy_send()))  # type: ignore[misc]
        for n in range(200)
    ]
    assert Counter(outcomes) == {"KERN_SUCCESS": 100, "BOOTSTRAP_NO_MEMORY": 100}
    other.bootstrap.register("wanted", other.allocate_port())
    assert flooder.bootstrap.look_up("wanted")
    port.close()  # the names are kept for their owner, and count as before
    assert outcome(lambda: flooder.bootstrap.create_service("more")) == "BOOTSTRAP_NO_MEMORY"
    for n in range(100):
        flooder.bootstrap.register(f"spam.{n}", None)
    assert [service.name for service in names.services()] == ["wanted"]
    flooder.bootstrap.create_service("more")
    check_books(names)


def test_d8_lookup_spam(kernel: Kernel) -> None:
    """Names that are not there leave nothing behind, however many are asked for."""
    names, client = kernel.bootstrap, kernel.create_task("client")

    def spam(first: int) -> dict[str, int]:
        for n in range(first, first + 2000):
            assert outcome(lambda n=n: client.bootstrap.look_up(f"absent.{n}")) == (  # type: ignore[misc]
                "BOOTSTRAP_UNKNOWN_SERVICE"
            )
        stats = kernel.stats()
        return {key: stats[key] for key in ("memory", "ports", "names", "sids", "messages_queued")}

    assert spam(0) == spam(2000)
    assert names.services() == []
    check_books(names)


def test_d9_rights_parked_in_a_queue_that_nobody_reads(world: World) -> None:
    """The queue limit bounds them; with the port they are set free, and their peers told."""
    kernel, client = world.kernel, world.client
    ports = [client.allocate_port() for _ in range(5)]
    sends = [made.make_send(world.server) for made in ports]
    for made in ports:
        raw = message(world.dest, descriptors=(port(made.name, MOVE_RECEIVE),))
        assert world.send(raw)[0] == 0
    extra = client.allocate_port()
    raw = message(world.dest, descriptors=(port(extra.name, MOVE_RECEIVE),))
    code, back = mach.mach_msg(client, raw, SEND)
    assert code == mach.MACH_SEND_TIMED_OUT
    handed_back = client.receive_right(HEADER_AND_PORT.unpack(back)[7])
    assert handed_back.type == PortType.RECEIVE
    assert client.usage.ports == 8
    world.server.send(sends[0].name, b"to a port in transit", timeout=0)
    mach.mach_port_destroy(world.server, world.inbox)
    assert {outcome(lambda s=s: s.send(b"", timeout=0)) for s in sends} == {  # type: ignore[misc]
        "MACH_SEND_INVALID_DEST"
    }
    assert client.usage.ports == 3
    kernel.verify()


def thrash(labels: int, per_label: int) -> None:
    """Ask for many distinct pairs twice: memory stays, every verdict is right."""
    with Kernel(policies=[Parity()], avc_entries=1024) as kernel:
        sids = [kernel.policies.intern(f"parity/{number}") for number in range(labels)]
        may_send = kernel.checker("mach_port", "send")
        memory = kernel.stats()["memory"]
        for a in range(labels):
            for b in range(per_label):
                assert may_send(sids[a], sids[b]) == ((a + b) % 2 == 0)
        stats = kernel.stats()
        assert stats["memory"] == memory
        assert stats["avc_entries"] <= 1024
        assert stats["avc_evictions"] >= labels * per_label - 1024 - stats["avc_refused"]
        assert may_send(sids[0], sids[0])
        kernel.verify()


def test_d10_the_cache_thrashes() -> None:
    thrash(1000, 100)


@pytest.mark.long
def test_d10_the_cache_thrashes_long() -> None:
    thrash(1000, 1000)


def test_d11_colliding_keys() -> None:
    """In a cache of one set everything collides; the verdicts do not."""
    for seed in range(4):
        with Kernel(policies=[Parity()], avc_entries=1, seed=seed) as kernel:
            sids = [kernel.policies.intern(f"parity/{number}") for number in range(20)]
            may_send = kernel.checker("mach_port", "send")
            for turn in range(3):
                for a, source in enumerate(sids):
                    for b, target in enumerate(sids):
                        assert may_send(source, target) == ((a + b) % 2 == 0), (turn, a, b)
            assert kernel.stats()["avc_entries"] <= 8


def test_d11_consecutive_method_ids(kernel: Kernel, world: World) -> None:
    """Methods are found by subtraction: 200 interfaces, and ids eight bits apart."""
    numbers = [kernel.create_interface(f"i{n}", n * 256, ["a", "b"]) for n in range(200)]
    assert len(set(numbers)) == 200
    lib.pm_port_set_interface(*[world.server._pointer] * 2, world.inbox, numbers[150])
    assert world.send(message(world.dest, msgh_id=150 * 256 + 1))[0] == 0
    if len(kernel.policies):
        for wrong in (0, 149 * 256, 150 * 256 + 2, 151 * 256):
            world.refuses(message(world.dest, msgh_id=wrong), "MACH_SEND_MSG_FILTERED")


@pytest.mark.parametrize("size", [5000, 1 << 20])
def test_d12_a_label_of_a_mebibyte(size: int) -> None:
    with Kernel(policies=[Parity()]) as kernel:
        task = kernel.create_task("task", "parity/1")
        before, memory = state(kernel), kernel.stats()["memory"]
        text = "parity/" + "1" * size
        for call in (
            lambda: task.relabel(text),
            lambda: task.allocate_port(text),
            lambda: kernel.create_task("child", text, parent=task),
        ):
            with pytest.raises(LabelError, match="at most 4096 bytes"):
                call()
        assert differences(before, state(kernel)) == {}
        assert kernel.stats()["memory"] <= memory + 4096


def denials(kernel: Kernel, count: int) -> list[str]:
    """Be denied many times, and let another task be served meanwhile."""
    culprit, server = kernel.create_task("culprit", "parity/1"), kernel.create_task("s", "parity/2")
    inbox = server.allocate_port()
    kernel.policies.permissive = True
    right = inbox.make_send(culprit)
    kernel.policies.permissive = False
    kernel.audit.drain()
    return [outcome(lambda: right.send(b"", timeout=0)) for _ in range(count)]


def test_d13_a_storm_of_denials_drops_and_counts() -> None:
    with Kernel(policies=[Parity()], audit_records=16) as kernel:
        assert set(denials(kernel, 100)) == {"MACH_SEND_INVALID_DEST"}
        first = kernel.audit.drain()
        assert len(first) <= 16
        task = kernel.create_task("task", "parity/2")
        assert outcome(lambda: task.send(1, b"", timeout=0)) == "MACH_SEND_INVALID_DEST"
        later = kernel.audit.drain()
        assert first["flags"][-1] == AuditFlag.LOSS
        assert later["flags"].tolist() == [AuditFlag.ERROR]
        assert len(first) - 1 + first["result"][-1] >= 100
        assert first["sequence"][-1] == first["sequence"][-2] + first["result"][-1] + 1
        assert later["sequence"][0] == first["sequence"][-1] + 1


def test_d13_a_storm_of_denials_into_a_sink_that_keeps_up() -> None:
    seen: list[int] = []
    with Kernel(policies=[Parity()], audit_records=16, audit_full="block") as kernel:
        kernel.audit.attach(lambda batch: seen.extend(batch.records["sequence"].tolist()))
        assert set(denials(kernel, 1000)) == {"MACH_SEND_INVALID_DEST"}
        assert kernel.stats()["audit_lost"] == 0
    assert seen == list(range(len(seen)))
    assert len(seen) >= 1000


def test_d13_a_refusal_stands_even_unrecorded() -> None:
    with Kernel(policies=[Parity()], audit_records=16, audit_full="fail") as kernel:
        codes = denials(kernel, 100)
        assert set(codes) == {"MACH_SEND_INVALID_DEST"}
        assert kernel.stats()["audit_lost"] >= 84


def test_d13_refused_messages_into_a_sink_that_keeps_up() -> None:
    """A refused receive destroys the message; its record waits for room as any other."""
    seen: list[int] = []
    with Scene(audit_records=4, audit_full="block") as scene:
        inbox = scene.server.receive_right(scene.inbox)
        inbox.qlimit = 100
        answers = scene.client.receive_right(scene.answer)
        for _ in range(50):
            scene.client.right(scene.dest).send(b"", reply=answers, timeout=0)  # type: ignore[attr-defined]
        scene.refuse(("server", "client", "mach_port", "recv"))
        scene.kernel.audit.attach(lambda batch: seen.extend(batch.records["result"].tolist()))
        codes = {outcome(lambda: inbox.receive(timeout=0)) for _ in range(50)}
        assert codes == {"MACH_RCV_INVALID_DATA"}
        assert (inbox.status.msgcount, answers.status.msgcount) == (0, 50)
        assert scene.kernel.stats()["audit_lost"] == 0
        scene.kernel.audit.flush()
    assert seen == [mach.MACH_RCV_INVALID_DATA] * 50
