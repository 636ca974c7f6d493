# SPDX-License-Identifier: BSD-2-Clause
"""Ten defects of SEDarwin and XNU, P1 to P10: what went wrong there, and that it does not here."""

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from background import LONG, Run, settle
from faults.world import (
    COPY_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    message,
    outcome,
    port,
)
from property.refusals import Refuse, Scene

from pympi import AccessDenied, Kernel, Memory, mach
from pympi._ffi import lib
from pympi.enums import ALL, MachPort, Notification, ObjectClass
from pympi.mig import Interface
from pympi.policy import Decision, PolicyModule, Stub
from pympi.trace import read_trace

INVALID_RIGHT = "MACH_SEND_INVALID_RIGHT"


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Scene() as scene:
        yield scene


def give(scene: Scene, how: int) -> str:
    raw = message(scene.dest, descriptors=(port(scene.to_give(how), how),))
    return outcome(lambda: scene.send(raw))


def test_p1_move_send_was_checked_with_the_bit_of_copy_send(scene: Scene) -> None:
    """SEDarwin's sebsd: who might copy might move, and who might move could not."""
    scene.refuse(("client", "gift", "mach_port", "copy_send"))
    assert (give(scene, COPY_SEND), give(scene, MOVE_SEND)) == (INVALID_RIGHT, "KERN_SUCCESS")
    scene.held = scene.server.receive_right(scene.gift).make_send(scene.client).name
    scene.refuse(("client", "gift", "mach_port", "move_send"))
    assert (give(scene, MOVE_SEND), give(scene, COPY_SEND)) == (INVALID_RIGHT, "KERN_SUCCESS")


@pytest.mark.parametrize("how", [MOVE_SEND, MOVE_SEND_ONCE])
def test_p2_both_moves_asked_copy_send(scene: Scene, how: int) -> None:
    """XNU's copyin, in messages and in kernel calls; the right check stood only before it."""
    own = {MOVE_SEND: "move_send", MOVE_SEND_ONCE: "move_send_once"}[how]
    extract = lambda: mach.mach_port_extract_right(  # noqa: E731
        scene.client, scene.to_give(how), how, caller=scene.server
    )
    scene.refuse(("*", "gift", "mach_port", own))
    assert (give(scene, how), outcome(extract)) == (INVALID_RIGHT, "KERN_NO_ACCESS")
    scene.refuse(("*", "gift", "mach_port", "copy_send"))
    assert outcome(extract) == "KERN_SUCCESS"


class Watching(Refuse):
    """Looks at a port's queue while it is asked about the receiver."""

    def __init__(self) -> None:
        super().__init__(uncached=True)
        self.look: Any = None
        self.seen: list[int] = []

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        if self.look is not None and target == "client":
            self.seen.append(self.look())
        return super().decide(source, target, tclass)


def test_p3_the_message_was_off_the_queue_when_it_was_checked() -> None:
    """Here it is decided while the message is queued; only a denial takes it off."""
    policy = Watching()
    with Kernel(policies=[policy]) as kernel:
        server, client = (
            kernel.create_task("s", "who/server"),
            kernel.create_task("c", "who/client"),
        )
        inbox = server.allocate_port("who/inbox")
        send = inbox.make_send(client)
        send.send(b"kept until decided", timeout=0)
        policy.look = lambda: kernel.stats()["messages_queued"]
        assert inbox.receive(timeout=0).body == b"kept until decided"
        assert set(policy.seen) == {1}
        policy.look = None
        kernel.verify()


def test_p3_a_denied_message_leaked_with_its_rights() -> None:
    released: list[str] = []
    with Scene() as scene:
        right, told = scene.client.right(scene.dest), scene.client.receive_right(scene.answer)
        scene.client.receive_right(scene.spare).make_send(scene.client)
        memory = Memory(b"page", lambda: released.append("memory"))
        rights = [scene.client.receive_right(scene.spare).move_receive()]
        right.send(b"", reply=told, rights=rights, memory=[memory])  # type: ignore[attr-defined]
        scene.refuse(("server", "client", "mach_port", "recv"))
        with pytest.raises(AccessDenied, match="recv"):
            scene.server.receive(scene.inbox, timeout=0)
        assert told.receive(timeout=0).notification is Notification.SEND_ONCE
        assert scene.client.right(scene.spare).type == mach.MACH_PORT_TYPE_DEAD_NAME
        gc.collect()
        assert released == ["memory"]


def test_p3_a_receiver_that_waited_first_was_never_asked(scene: Scene) -> None:
    """SEDarwin handed it the message directly."""
    scene.refuse(("server", "client", "mach_port", "recv"))
    waiting = Run(lambda: scene.server.receive(scene.inbox, timeout=LONG))
    settle(waiting)
    scene.client.send(scene.dest, b"", timeout=0)
    error = waiting.error()
    assert isinstance(error, AccessDenied)
    assert error.name == "MACH_RCV_INVALID_DATA"


@pytest.mark.parametrize("how", [MAKE_SEND_ONCE, COPY_SEND, MOVE_SEND])
def test_p3_a_denied_reply_right_was_a_bogus_name(scene: Scene, how: int) -> None:
    """In SEDarwin only an assertion stood there, and a name entry leaked."""
    raw = message(scene.dest, COPY_SEND, scene.to_give(how), how)
    assert scene.send(raw)[0] == 0
    scene.refuse(("server", "gift", "mach_port", "hold_send hold_send_once"))
    names = set(scene.server.names())
    got = scene.server.receive(scene.inbox, timeout=0)
    assert (got.reply_name, got.reply_right, got.denied) == (0, None, 1)
    assert set(scene.server.names()) == names


PRINTING = Interface("printing", 1200, ["print_page", "cancel"])


def test_p4_method_control_was_advisory(scene: Scene) -> None:
    """The verdict stood in a trailer that a server might forget to ask for."""
    inbox = scene.server.receive_right(scene.inbox)
    inbox.serve(PRINTING)
    scene.refuse(("client", "inbox", "mi_printing", "cancel"))
    client = PRINTING.client(scene.client.right(scene.dest))  # type: ignore[arg-type]
    with pytest.raises(AccessDenied, match="cancel"):
        client.cancel(b"", timeout=0)
    assert inbox.status.msgcount == 0
    client.print_page(b"page", timeout=0)
    got = inbox.receive(timeout=0)
    assert (got.body, got.method) == (b"page", 1)
    assert got.access & 3 == 1


def test_p4_the_interface_goes_with_the_port(scene: Scene) -> None:
    scene.server.receive_right(scene.inbox).serve(PRINTING)
    scene.refuse(("client", "inbox", "mi_printing", "cancel"))
    moved = scene.server.receive_right(scene.inbox).move_receive(
        scene.kernel.create_task("heir", "who/server")
    )
    raw = message(scene.dest, msgh_id=1201)
    assert outcome(lambda: scene.send(raw)) == "MACH_SEND_MSG_FILTERED"
    assert moved.status.msgcount == 0


def test_p5_method_control_failed_open(scene: Scene) -> None:
    """A message number in no subsystem was allowed."""
    inbox = scene.server.receive_right(scene.inbox)
    inbox.serve(PRINTING)
    for msgh_id in (0, 1199, 1202, 1300, -1, 2**31 - 1):
        raw = message(scene.dest, msgh_id=msgh_id)
        assert outcome(lambda r=raw: scene.send(r)) == (  # type: ignore[misc]
            "MACH_SEND_MSG_FILTERED"
        )
    inbox.serve(Interface("lenient", 1200, ["print_page"], allow_unknown=True))
    assert scene.send(message(scene.dest, msgh_id=7))[0] == 0


def test_p6_eight_ids_in_a_row_shared_a_bucket() -> None:
    """Each of 1,000 consecutive ids is its own permission, through 33 classes."""
    with Scene() as scene:
        big = Interface("big", 31336, [f"r{number}" for number in range(1000)])
        scene.server.receive_right(scene.inbox).serve(big)
        scene.server.receive_right(scene.inbox).qlimit = 1024
        for number in (0, 7, 8, 30, 31, 62, 511, 999):
            suffix = f"_{number // 31 + 1}" if number >= 31 else ""
            scene.refuse(("client", "inbox", f"mi_big{suffix}", f"r{number}"))
            for near in {max(0, number - 8), max(0, number - 1), number, min(999, number + 1)}:
                raw = message(scene.dest, msgh_id=31336 + near)
                code = outcome(lambda r=raw: scene.send(r))  # type: ignore[misc]
                assert (code == "MACH_SEND_MSG_FILTERED") == (near == number), (near, number)


def test_p7_a_reload_freed_what_readers_used() -> None:
    """Method tables and policies change while messages are sent; nobody sees what was freed."""
    with Kernel(policies=[Stub()]) as kernel:
        server = kernel.create_task("server")
        inbox = server.allocate_port(qlimit=1024)
        inbox.serve(PRINTING)
        rights = [inbox.make_send(kernel.create_task(f"client {n}")) for n in range(2)]
        stop = threading.Event()

        def work(right: Any) -> set[str]:
            codes = set()
            while not stop.is_set():
                codes.add(outcome(lambda: right.send(b"", 1200, timeout=0)))
                codes.add(outcome(lambda: inbox.receive(timeout=0)))
            return codes

        runs = [Run(lambda r=right: work(r)) for right in rights]  # type: ignore[misc]
        for turn in range(150):
            kernel.policies.replace("stub", Stub())
            inbox.serve(Interface(f"i{turn}", 1200, ["first"]))
        stop.set()
        assert [run.error() for run in runs] == [None, None]
        kernel.verify()


def traced(kernel: Kernel, senders: int) -> list[Any]:
    """Let as many tasks send to a port, twice each; return their rights."""
    inbox = kernel.create_task("server").allocate_port(qlimit=1024)
    rights = [inbox.make_send(kernel.create_task(f"client {n}")) for n in range(senders)]
    kernel.trace.start()
    for right in rights * 2:
        right.send(b"", timeout=0)
    return rights


def test_p8_a_full_trace_dropped_events_silently() -> None:
    """What finds no room is counted: nothing is lost from the sum."""
    with Kernel(trace_paths=8) as kernel:
        traced(kernel, 50)
        counted = sum(record.count for record in kernel.trace.records())
        assert kernel.trace.lost > 0
        assert counted + kernel.trace.lost == 50 * 2 * 2


def test_p8_an_event_like_a_stale_record_was_lost() -> None:
    """After each dump SEDarwin counted the first path again where nobody looked."""
    with Kernel() as kernel:
        right = traced(kernel, 1)[0]
        for turn in range(1, 4):
            kernel.trace.reset()
            for _ in range(turn):
                right.send(b"", timeout=0)
            found = {record.event: record.count for record in kernel.trace.records()}
            assert found == {"send": turn, "copy_send": turn}


def test_p8_task_names_were_copied_without_a_limit() -> None:
    longest = "n" * lib.PM_TASK_NAME_MAX
    with Kernel() as kernel:
        right = kernel.create_task("s").allocate_port().make_send(kernel.create_task(longest))
        kernel.trace.start()
        right.send(b"", timeout=0)
        assert {record.task for record in kernel.trace.records()} == {longest}
        with pytest.raises(ValueError, match="at most 1023 bytes"):
            kernel.create_task(longest + "n")


def test_p8_many_paths_each_have_their_own_count() -> None:
    """SEDarwin compared two strings with each of 8,192 records, and counted past the last."""
    with Kernel() as kernel:
        rights = traced(kernel, 500)
        rights[250].send(b"", timeout=0)
        counts = {record.task: record.count for record in kernel.trace.records()}
        assert counts == {right.task.name: 2 + (right is rights[250]) for right in rights}
        assert kernel.trace.lost == 0


def test_p9_receives_and_most_events_were_not_traced(scene: Scene) -> None:
    """Every use, give and take at both ends, in order."""
    scene.kernel.trace.start()
    items = (port(scene.spare, MOVE_RECEIVE), port(scene.once, MOVE_SEND_ONCE))
    raw = message(scene.dest, COPY_SEND, scene.answer, MAKE_SEND_ONCE, descriptors=items)
    assert scene.send(raw)[0] == 0
    scene.server.receive(scene.inbox, timeout=0)
    found = [(record.task, record.event) for record in scene.kernel.trace.records()]
    assert found == [
        ("client", "send"), ("client", "copy_send"), ("client", "make_send_once"),
        ("client", "move_recv"), ("client", "move_send_once"), ("server", "recv"),
        ("server", "hold_send_once"), ("server", "hold_recv"), ("server", "hold_send_once"),
    ]  # fmt: skip


def test_p9_no_decision_method_or_order_was_kept(scene: Scene) -> None:
    """The audit trail has them: method, verdict, order, and one transfer at both ends."""
    scene.kernel.audit.everything()
    scene.kernel.audit.drain()
    scene.client.send(scene.dest, b"", 1234, timeout=0)
    scene.server.receive(scene.inbox, timeout=0)
    sent, received = scene.kernel.audit.batch(scene.kernel.audit.drain())
    assert (sent.operation, received.operation) == ("send", "receive")
    assert sent.msgh_id == received.msgh_id == 1234
    assert sent.transfer == received.transfer > 0
    assert received.sequence == sent.sequence + 1
    assert received.asked == ("recv", "use_recv")


@pytest.mark.parametrize("name", ["a|b", "a : b", "a b", "a\tb\nc", "\\x41", "(x) = 1", "größe"])
def test_p9_a_path_with_a_bar_broke_the_graph(name: str, tmp_path: Any) -> None:
    with Kernel() as kernel:
        right = kernel.create_task(name).allocate_port().make_send(kernel.create_task(name + "|"))
        kernel.trace.start()
        right.send(b"", timeout=0)
        kernel.trace.save(tmp_path / "run.trace")
        records = kernel.trace.records()
        assert {(r.task, r.owner) for r in records} == {(name + "|", name)}
        assert read_trace(tmp_path / "run.trace") == records


class Vectors(PolicyModule):
    """Answers a vector that a test sets."""

    name = "vectors"
    uncached = True
    allowed = ALL

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        return Decision(allowed=self.allowed)


def test_p10_send_and_receive_were_audited_only_as_denials_were() -> None:
    """There was no audit call in the message path; here both ends have records of their own."""
    policy = Vectors()
    with Kernel(policies=[policy]) as kernel:
        task = kernel.create_task("task")
        inbox = task.allocate_port()
        right = inbox.make_send(task)
        kernel.audit.select("all", "mach_port", "send recv")
        kernel.audit.drain()
        right.send(b"", timeout=0)
        inbox.receive(timeout=0)
        policy.allowed = ALL & ~int(MachPort.send)
        assert outcome(lambda: right.send(b"", timeout=0)) == "MACH_SEND_INVALID_DEST"
        records = kernel.audit.drain()
        assert [bool(denied) for denied in records["denied"]] == [False, False, True]
        assert [r.operation for r in kernel.audit.batch(records)] == ["send", "receive", "send"]
