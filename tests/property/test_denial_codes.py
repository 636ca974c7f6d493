# SPDX-License-Identifier: BSD-2-Clause
"""Each row of the table of denials: the code, what became of every right, and the record.

A refused send or kernel call changes nothing. A refused receive destroys the message with its
notifications; a refused right is destroyed alone, and the rest arrives (SEDarwin, without its
defects).
"""

import contextlib
import gc
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from faults.world import (
    COPY_SEND,
    DISPOSITIONS,
    HEADER,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    SEND,
    differences,
    message,
    ool,
    ool_ports,
    outcome,
    port,
    refused,
    state,
)
from property.refusals import GIVE, TAKE, Refuse, Scene

from pympi import AccessDenied, Kernel, MachError, Memory, mach
from pympi.enums import MachPort, Notification, Operation
from pympi.mig import Interface
from pympi.policy import Rules

NO_ACCESS = "KERN_NO_ACCESS"
DEAD = 0xFFFFFFFF
PRINTING = Interface("printing", 1200, ["print_page", "cancel"])

cached = pytest.mark.parametrize("uncached", [False, True], ids=["cached", "uncached"])


def record_of(records: Any, operation: Operation, permission: str) -> None:
    """Assert what the one record says: the operation, and what was refused of a port."""
    assert records["operation"].tolist() == [operation]
    assert records["denied"].tolist() == [MachPort[permission]]
    assert records["asked"][0] & MachPort[permission]


# ---- send ----


class Row(NamedTuple):
    """A send that one refusal stops.

    Attributes:
        target: label of the object that is refused to the client.
        permission: what is refused.
        make: the message.
        code: that the sender sees.
        operation: of the record.
    """

    target: str
    permission: str
    make: Callable[[Scene], bytes]
    code: str
    operation: Operation


def reply_message(scene: Scene, disposition: int) -> bytes:
    name = scene.to_give(disposition)
    return message(scene.dest, COPY_SEND, name, disposition)


def body_message(scene: Scene, disposition: int) -> bytes:
    items = (port(scene.to_give(disposition), disposition),)
    return message(scene.dest, descriptors=items)


def array_message(scene: Scene, disposition: int) -> bytes:
    mach.vm_write(scene.client, scene.memory, struct.pack("=I", scene.to_give(disposition)))
    return message(scene.dest, descriptors=(ool_ports(scene.memory, 1, disposition),))


def rows() -> dict[str, Row]:
    dest, right = "MACH_SEND_INVALID_DEST", "MACH_SEND_INVALID_RIGHT"
    reply = "MACH_SEND_INVALID_REPLY"
    found = {
        "send": Row("inbox", "send", lambda s: message(s.dest), dest, Operation.SEND),
        "carry_rights": Row(
            "inbox", "carry_rights", lambda s: body_message(s, COPY_SEND),
            "MACH_SEND_NO_GRANT_DEST", Operation.SEND,
        ),
        "carry_memory": Row(
            "inbox", "carry_memory",
            lambda s: message(s.dest, descriptors=(ool(s.memory, 8, deallocate=1),)),
            "MACH_SEND_INVALID_MEMORY", Operation.SEND,
        ),
        "set_reply": Row(
            "gift", "set_reply", lambda s: reply_message(s, MAKE_SEND_ONCE), reply, Operation.GIVE
        ),
    }  # fmt: skip
    for how in DISPOSITIONS:
        give = GIVE[how]
        found[f"{give} a body right"] = Row(
            "gift", give, lambda s, h=how: body_message(s, h), right, Operation.GIVE
        )
        found[f"{give} in an array"] = Row(
            "gift", give, lambda s, h=how: array_message(s, h), right, Operation.GIVE
        )
        if how != MOVE_RECEIVE:
            found[f"{give} the destination"] = Row(
                "inbox", give, lambda s, h=how: message(s.to_send(h), h), dest, Operation.SEND
            )
            found[f"{give} the reply right"] = Row(
                "gift", give, lambda s, h=how: reply_message(s, h), reply, Operation.GIVE
            )
    return found


ROWS = rows()


@cached
@pytest.mark.parametrize("name", ROWS)
def test_a_refused_send(name: str, uncached: bool) -> None:
    row = ROWS[name]
    with Scene(uncached=uncached) as scene:
        raw = row.make(scene)
        send = lambda: scene.send(raw)  # noqa: E731
        scene.refuse(("client", row.target, "mach_port", row.permission))
        records = refused(scene.kernel, send, row.code)
        record_of(records, row.operation, row.permission)
        assert outcome(send) == row.code
        scene.refuse()
        assert outcome(send) == "KERN_SUCCESS"


@pytest.mark.parametrize("msgh_id", [1200, 1202, 1199, -1])
def test_a_refused_method(msgh_id: int) -> None:
    with Scene() as scene:
        scene.server.receive_right(scene.inbox).serve(PRINTING)
        scene.refuse(("client", "inbox", "mi_printing", "print_page"))
        raw = message(scene.dest, COPY_SEND, scene.answer, MAKE_SEND_ONCE, msgh_id)
        send = lambda: scene.send(raw)  # noqa: E731
        records = refused(scene.kernel, send, "MACH_SEND_MSG_FILTERED")
        assert records["operation"].tolist() == [Operation.METHOD]
        allowed = message(scene.dest, msgh_id=1201)
        assert scene.send(allowed)[0] == 0


def test_a_refused_effective_label() -> None:
    with Scene() as scene:
        scene.refuse(("client", "other", "mach_port", "specify"))
        right = scene.client.right(scene.dest)
        call = lambda: right.send(b"", effective="who/other", timeout=0)  # type: ignore[attr-defined] # noqa: E731
        with scene.kernel.borrowed("who/other"):  # a label that is minted would be a change
            records = refused(scene.kernel, call, "MACH_SEND_INVALID_DEST")
        assert records["denied"].tolist() == [MachPort.specify]
        scene.refuse(("other", "inbox", "mach_port", "send"))
        assert outcome(lambda: right.send(b"", timeout=0)) == "KERN_SUCCESS"  # type: ignore[attr-defined]
        assert outcome(call) == "MACH_SEND_INVALID_DEST"


def test_memory_of_a_refused_message_stays_with_its_owner() -> None:
    released: list[int] = []
    with Scene() as scene:
        scene.refuse(("client", "inbox", "mach_port", "carry_memory"))
        right = scene.client.right(scene.dest)
        call = lambda: right.send(  # noqa: E731
            b"", memory=[Memory(b"abc", lambda: released.append(1))], timeout=0
        )  # type: ignore[attr-defined]
        refused(scene.kernel, call, "MACH_SEND_INVALID_MEMORY")
        gc.collect()
    assert released == []


@pytest.mark.parametrize("name", ["send", "move_send the destination"])
def test_denied_looks_like_absent(name: str) -> None:
    """Where denials are concealed, not even the exception's class tells."""
    row = ROWS[name]
    with Scene(conceal_denials=True) as scene:
        scene.refuse(("client", row.target, "mach_port", row.permission))
        right = scene.client.right(scene.dest)
        with pytest.raises(MachError) as denied:
            right.use_up(b"", timeout=0)  # type: ignore[attr-defined]
        mach.mach_port_destroy(scene.client, scene.dest)
        with pytest.raises(MachError) as absent:
            right.use_up(b"", timeout=0)  # type: ignore[attr-defined]
        assert type(denied.value) is type(absent.value)
        assert str(denied.value) == str(absent.value)


def test_a_denial_names_the_operation() -> None:
    with Scene() as scene:
        scene.refuse(("client", "inbox", "mach_port", "send"))
        for call in (
            lambda: scene.client.send(scene.dest, b"", timeout=0),
            lambda: scene.client.right(scene.dest).sender()(b""),  # type: ignore[attr-defined]
            lambda: scene.client.right(scene.dest).call(b"", timeout=0),  # type: ignore[attr-defined]
        ):
            with pytest.raises(AccessDenied) as denied:
                call()
            error = denied.value
            assert (error.name, error.operation) == ("MACH_SEND_INVALID_DEST", "send")
            assert (error.permission, error.tclass) == ("send", "mach_port")
            assert isinstance(error, PermissionError)


# ---- receive ----


@cached
def test_use_recv_refused(uncached: bool) -> None:
    """The message stays for who may receive it."""
    with Scene(uncached=uncached) as scene:
        assert scene.send(message(scene.dest, msgh_id=3))[0] == 0
        scene.refuse(("server", "inbox", "mach_port", "use_recv"))
        records = refused(scene.kernel, lambda: scene.receive(), "MACH_RCV_INVALID_NAME")
        record_of(records, Operation.RECEIVE, "use_recv")
        right = scene.server.receive_right(scene.inbox)
        for call in (lambda: right.receive(timeout=0), right.receiver(timeout=0)):
            with pytest.raises(AccessDenied, match="use_recv"):
                call()
        scene.refuse()
        assert right.receive(timeout=0).msgh_id == 3


def test_use_recv_refused_on_an_empty_port() -> None:
    """Who may not receive learns nothing of the queue, and does not wait."""
    with Scene() as scene:
        scene.refuse(("server", "inbox", "mach_port", "use_recv"))
        refused(scene.kernel, lambda: scene.receive(), "MACH_RCV_INVALID_NAME")
        call = lambda: scene.server.receive(scene.inbox, timeout=None)  # noqa: E731
        refused(scene.kernel, call, "MACH_RCV_INVALID_NAME")


def test_use_recv_refused_in_a_set() -> None:
    """Members that may not be used wait; the others are served."""
    with Scene() as scene:
        other = scene.server.allocate_port("who/other")
        both = scene.server.create_port_set(scene.server.receive_right(scene.inbox), other)
        to_other = other.make_send(scene.client)
        scene.refuse(("server", "inbox", "mach_port", "use_recv"))
        scene.client.send(scene.dest, b"kept", timeout=0)
        to_other.send(b"served", timeout=0)
        scene.kernel.audit.drain()
        assert scene.receive(both.name)[1][24:32] == b"served\0\0"
        assert len(scene.kernel.audit.drain()) == 0, "nothing was refused to the receiver"
        refused(scene.kernel, lambda: scene.receive(both.name), "MACH_RCV_INVALID_NAME")


def laden(scene: Scene) -> None:
    """Send a message whose destruction somebody is to be told of, in each way there is."""
    client = scene.client
    told = client.receive_right(scene.answer)
    client.receive_right(scene.spare).make_send(client)
    client.right(scene.spare).request_notification(Notification.DEAD_NAME, told)
    gift = scene.server.receive_right(scene.gift)
    gift.request_notification(Notification.NO_SENDERS, gift)
    items = (port(scene.spare, MOVE_RECEIVE), port(scene.held, MOVE_SEND), ool(scene.memory, 64))
    raw = message(scene.dest, COPY_SEND, scene.answer, MAKE_SEND_ONCE, 9, descriptors=items)
    assert mach.mach_msg(client, raw, SEND)[0] == 0


@cached
def test_recv_refused(uncached: bool) -> None:
    """Destroyed: the reply right notifies, the receive right dies, the send right is missed."""
    with Scene(uncached=uncached) as scene:
        laden(scene)
        transfer = scene.kernel.stats()["transfers"]
        before = state(scene.kernel)["counts"]
        scene.refuse(("server", "client", "mach_port", "recv"))
        scene.kernel.audit.drain()
        assert scene.receive()[0] == mach.MACH_RCV_INVALID_DATA
        records = scene.kernel.audit.drain()
        record_of(records, Operation.RECEIVE, "recv")
        assert records["msgh_id"].tolist() == [9]
        assert records["transfer"].tolist() == [transfer], "which message that was"
        scene.refuse()
        assert scene.receive()[0] == mach.MACH_RCV_TIMED_OUT
        told = scene.client.receive_right(scene.answer)
        arrived = {told.receive(timeout=0).notification for _ in range(2)}
        assert arrived == {Notification.SEND_ONCE, Notification.DEAD_NAME}
        gift = scene.server.receive_right(scene.gift)
        assert gift.receive(timeout=0).notification == Notification.NO_SENDERS
        assert scene.server.receive_right(scene.inbox).seqno == 1
        after = state(scene.kernel)["counts"]
        assert after["ports"] == before["ports"] - 1
        assert after["messages_queued"] == 0
        assert scene.client.usage.queued_bytes == 0


def test_recv_refused_on_the_short_path() -> None:
    with Scene() as scene:
        right = scene.server.receive_right(scene.inbox)
        take = right.receiver(timeout=0)
        for _ in range(3):
            scene.client.send(scene.dest, b"warm", timeout=0)
            assert take() == b"warm"
        for call in (take, lambda: right.receive(timeout=0)):
            scene.refuse()
            scene.client.send(scene.dest, b"refused", timeout=0)
            scene.refuse(("server", "client", "mach_port", "recv"))
            with pytest.raises(AccessDenied, match="recv"):
                call()
            assert right.status.msgcount == 0


def test_recv_is_asked_of_the_label_of_send_time() -> None:
    with Scene() as scene:
        scene.client.send(scene.dest, b"as client", timeout=0)
        scene.client.relabel("who/other")
        scene.client.send(scene.dest, b"as other", timeout=0)
        scene.refuse(("server", "other", "mach_port", "recv"))
        right = scene.server.receive_right(scene.inbox)
        got = right.receive(timeout=0)
        assert (got.body, got.sender.label) == (b"as client", "who/client")
        with pytest.raises(AccessDenied, match="recv"):
            right.receive(timeout=0)


@cached
@pytest.mark.parametrize("how", DISPOSITIONS)
def test_take_of_a_body_right_refused(how: int, uncached: bool) -> None:
    """That right is destroyed, its name null; the rest, on both sides of it, arrives."""
    with Scene(uncached=uncached) as scene:
        kernel, given = scene.kernel, scene.to_give(how)
        rest = scene.client.allocate_port("who/rest").name
        items = (port(rest, MAKE_SEND), port(given, how), port(rest, MAKE_SEND_ONCE))
        raw = message(scene.dest, msgh_id=4, descriptors=items, body=b"body")
        assert scene.send(raw)[0] == 0
        scene.refuse(("server", "gift", "mach_port", TAKE[how]))
        kernel.audit.drain()
        code, got = scene.receive()
        assert code == mach.MACH_RCV_BODY_ERROR | mach.MACH_MSG_IPC_SPACE
        record_of(kernel.audit.drain(), Operation.TAKE, TAKE[how])
        names = [struct.unpack_from("=I", got, 28 + 12 * place)[0] for place in range(3)]
        assert names[1] == 0
        held = [mach.mach_port_type(scene.server, names[place]) for place in (0, 2)]
        assert held == [mach.MACH_PORT_TYPE_SEND, mach.MACH_PORT_TYPE_SEND_ONCE]
        assert got[64:68] == b"body"
        destroyed(scene, how)


def destroyed(scene: Scene, how: int) -> None:
    """Assert that a right that was refused is gone, and who is told is told."""
    scene.refuse()
    gift = scene.server.receive_right(scene.gift)
    spare = scene.client.receive_right(scene.spare)
    if how == MOVE_RECEIVE:
        assert scene.spare not in scene.client.names()
    elif how == MOVE_SEND:
        assert not gift.status.send_rights
    elif how == COPY_SEND:
        assert mach.mach_port_get_refs(scene.client, scene.held, 0) == 1
    elif how == MAKE_SEND:
        assert (spare.status.send_rights, spare.mscount) == (False, 1)
    else:
        home = gift if how == MOVE_SEND_ONCE else spare
        assert home.receive(timeout=0).notification == Notification.SEND_ONCE
        assert home.status.send_once_rights == 0
    scene.kernel.verify()


@cached
@pytest.mark.parametrize("how", DISPOSITIONS[1:])
def test_take_of_the_reply_right_refused(how: int, uncached: bool) -> None:
    with Scene(uncached=uncached) as scene:
        assert scene.send(reply_message(scene, how))[0] == 0
        scene.refuse(("server", "gift", "mach_port", TAKE[how]))
        scene.kernel.audit.drain()
        code, got = scene.receive()
        assert code == mach.MACH_RCV_BODY_ERROR | mach.MACH_MSG_IPC_SPACE
        record_of(scene.kernel.audit.drain(), Operation.TAKE, TAKE[how])
        assert HEADER.unpack_from(got)[2] == 0
        destroyed(scene, how)


def test_take_refused_in_the_object_api() -> None:
    with Scene() as scene:
        right = scene.client.right(scene.dest)
        gift, spare = scene.client.right(scene.held), scene.client.receive_right(scene.spare)
        rights = [gift.copy_send(), spare.move_receive()]  # type: ignore[attr-defined]
        right.send(b"page", rights=rights, reply=scene.client.receive_right(scene.answer))  # type: ignore[attr-defined]
        scene.refuse(
            ("server", "gift", "mach_port", "hold_recv"),
            ("server", "answer", "mach_port", "hold_send_once"),
        )
        got = scene.server.receive(scene.inbox, timeout=0)
        assert (got.body, got.denied, got.reply_right) == (b"page", 2, None)
        assert [type(r).__name__ for r in got.rights] == ["SendRight", "NoneType"]


def test_nothing_is_asked_for_dead_rights() -> None:
    """A name that is dead, or a port that died on the way, arrives dead, whatever is refused."""
    with Scene() as scene:
        mach.mach_port_destroy(scene.server, scene.gift)
        scene.refuse(("*", "gift", "mach_port", "copy_send hold_send"))
        raw = message(scene.dest, descriptors=(port(scene.held, COPY_SEND),))
        assert scene.send(raw)[0] == 0
        code, got = scene.receive()
        assert (code, struct.unpack_from("=I", got, 28)[0]) == (0, DEAD)
        scene.refuse()
        made = message(scene.dest, descriptors=(port(scene.spare, MAKE_SEND),))
        assert scene.send(made)[0] == 0
        mach.mach_port_destroy(scene.client, scene.spare)
        scene.refuse(("*", "gift", "mach_port", "hold_send"))
        code, got = scene.receive()
        assert (code, struct.unpack_from("=I", got, 28)[0]) == (0, DEAD)


# ---- kernel calls ----


class Call(NamedTuple):
    """A kernel call that one refusal stops: who is refused what, and the call."""

    refusal: tuple[str, str, str, str]
    make: Callable[[Scene], Any]


def at_port(permission: str, function: Callable[..., Any], *arguments: Any) -> Call:
    refusal = ("client", "gift", "mach_port", permission)
    return Call(refusal, lambda s: function(s.client, s.spare, *arguments))


def at_task(permission: str, make: Callable[[Scene], Any]) -> Call:
    """The server acts on the client."""
    return Call(("server", "client", "mach_task", permission), make)


def asking(function: Callable[..., Any], *arguments: Any) -> Callable[[Scene], Any]:
    return lambda s: function(s.client, s.spare, *arguments, caller=s.server)


GET, SET = "get_attributes", "set_attributes"
CALLS = {
    "get_attributes": at_port(GET, mach.mach_port_get_attributes, mach.MACH_PORT_RECEIVE_STATUS),
    "get_context": at_port(GET, mach.mach_port_get_context),
    "assert_attributes": at_port(
        GET, mach.mach_port_assert_attributes, mach.MACH_PORT_GUARD_INFO, [0, 0]
    ),
    "peek": at_port(GET, mach.mach_port_peek),
    "set_attributes": at_port(
        SET, mach.mach_port_set_attributes, mach.MACH_PORT_LIMITS_INFO, [9]
    ),
    "set_mscount": at_port(SET, mach.mach_port_set_mscount, 4),
    "set_seqno": at_port(SET, mach.mach_port_set_seqno, 4),
    "set_context": at_port(SET, mach.mach_port_set_context, 4),
    "guard": at_port(SET, mach.mach_port_guard, 4),
    "unguard": at_port(SET, mach.mach_port_unguard, 4),
    "swap_guard": at_port(SET, mach.mach_port_swap_guard, 4, 5),
    "serve": Call(
        ("client", "gift", "mach_port", SET),
        lambda s: s.client.receive_right(s.spare).serve(PRINTING),
    ),
    "request_notification": Call(
        ("client", "gift", "mach_port", "request_notification"),
        lambda s: mach.mach_port_request_notification(s.client, s.held, 72, 0, s.answer),
    ),
    "request_notification, its right": Call(
        ("client", "answer", "mach_port", "make_send_once"),
        lambda s: mach.mach_port_request_notification(s.client, s.held, 72, 0, s.answer),
    ),
    "relabel from": Call(
        ("client", "gift", "mach_port", "relabelfrom"),
        lambda s: s.client.receive_right(s.spare).relabel("who/answer"),
    ),
    "relabel to": Call(
        ("client", "answer", "mach_port", "relabelto"),
        lambda s: s.client.receive_right(s.spare).relabel("who/answer"),
    ),
    "a port born with a label, from": Call(
        ("client", "client", "mach_port", "relabelfrom"),
        lambda s: s.client.allocate_port("who/answer"),
    ),
    "a port born with a label, to": Call(
        ("client", "answer", "mach_port", "relabelto"),
        lambda s: s.client.allocate_port("who/answer"),
    ),
    "relabel a task from": at_task(
        "relabelfrom", lambda s: s.client.relabel("who/server", caller=s.server)
    ),
    "relabel a task to": Call(
        ("server", "inbox", "mach_task", "relabelto"),
        lambda s: s.client.relabel("who/inbox", caller=s.server),
    ),
    "relabel oneself": Call(
        ("client", "client", "mach_task", "relabelfrom"), lambda s: s.client.relabel("who/server")
    ),
    "create": Call(
        ("client", "client", "mach_task", "create"),
        lambda s: s.kernel.create_task("child", parent=s.client),
    ),
    "terminate": at_task("terminate", lambda s: s.client.terminate(caller=s.server)),
    "set_special_port": at_task(
        "set_special_port", lambda s: mach.task_set_special_port(s.client, 4, 0, caller=s.server)
    ),
    "ports_register": at_task(
        "set_special_port", lambda s: mach.mach_ports_register(s.client, [], caller=s.server)
    ),
    "get_special_port": at_task(
        "get_special_port", lambda s: mach.task_get_special_port(s.client, 4, caller=s.server)
    ),
    "ports_lookup": at_task(
        "get_special_port", lambda s: mach.mach_ports_lookup(s.client, caller=s.server)
    ),
    "special port, its right": Call(
        ("client", "gift", "mach_port", "copy_send"),
        lambda s: mach.task_set_special_port(s.client, 4, s.held),
    ),
    "special port, to hold": Call(
        ("client", "gift", "mach_port", "hold_send"),
        lambda s: mach.task_set_special_port(s.client, 4, s.held),
    ),
    "names of another": at_task(
        "observe", lambda s: mach.mach_port_names(s.client, caller=s.server)
    ),
    "type of another": at_task("observe", asking(mach.mach_port_type)),
    "refs of another": at_task("observe", asking(mach.mach_port_get_refs, 1)),
    "status of another": at_task("observe", asking(mach.mach_port_get_attributes, 2)),
    "context of another": at_task("observe", asking(mach.mach_port_get_context)),
    "peek at another": at_task("observe", asking(mach.mach_port_peek)),
    "set of another": at_task("observe", asking(mach.mach_port_get_set_status)),
    "allocate for another": at_task(
        "insert_right", lambda s: mach.mach_port_allocate(s.client, 1, caller=s.server)
    ),
    "construct for another": at_task(
        "insert_right", lambda s: mach.mach_port_construct(s.client, caller=s.server)
    ),
    "limits of another": at_task("insert_right", asking(mach.mach_port_set_attributes, 1, [3])),
    "guard of another": at_task("insert_right", asking(mach.mach_port_guard, 3)),
    "mod_refs of another": at_task("extract_right", asking(mach.mach_port_mod_refs, 1, -1)),
    "deallocate of another": at_task("extract_right", asking(mach.mach_port_deallocate)),
    "destroy of another": at_task("extract_right", asking(mach.mach_port_destroy)),
    "destruct of another": at_task("extract_right", asking(mach.mach_port_destruct, 0, 0)),
    "insert_right": at_task(
        "insert_right",
        lambda s: mach.mach_port_insert_right(s.client, 0x9903, s.gift, 21, caller=s.server),
    ),
    "insert_right, to give": Call(
        ("server", "gift", "mach_port", "make_send_once"),
        lambda s: mach.mach_port_insert_right(s.client, 0x9903, s.gift, 21, caller=s.server),
    ),
    "insert_right, to take": Call(
        ("client", "gift", "mach_port", "hold_send_once"),
        lambda s: mach.mach_port_insert_right(s.client, 0x9903, s.gift, 21, caller=s.server),
    ),
    "extract_right": at_task(
        "extract_right",
        lambda s: mach.mach_port_extract_right(s.client, s.spare, MOVE_RECEIVE, caller=s.server),
    ),
    "extract_right, to give": Call(
        ("server", "gift", "mach_port", "move_recv"),
        lambda s: mach.mach_port_extract_right(s.client, s.spare, MOVE_RECEIVE, caller=s.server),
    ),
    "extract_right, to take": Call(
        ("server", "gift", "mach_port", "hold_recv"),
        lambda s: mach.mach_port_extract_right(s.client, s.spare, MOVE_RECEIVE, caller=s.server),
    ),
}  # fmt: skip


@cached
@pytest.mark.parametrize("name", CALLS)
def test_a_refused_kernel_call(name: str, uncached: bool) -> None:
    call = CALLS[name]
    _, _, tclass, permission = call.refusal
    with Scene(uncached=uncached) as scene, contextlib.ExitStack() as kept:
        PRINTING.number(scene.kernel)
        for label in ("answer", "inbox", "gift"):
            kept.enter_context(scene.kernel.borrowed(f"who/{label}"))
        scene.refuse(call.refusal)
        records = refused(scene.kernel, lambda: call.make(scene), NO_ACCESS)
        kind = scene.kernel.object_class(tclass)
        assert kind.names(int(records["denied"][0])) == (permission,)
        assert records["tclass"].tolist() == [kind.number]
        before = state(scene.kernel)
        scene.refuse(call.refusal)
        with pytest.raises(AccessDenied) as denied:
            call.make(scene)
        assert (denied.value.permission, denied.value.tclass) == (permission, tclass)
        assert differences(before, state(scene.kernel)) == {}


@pytest.mark.parametrize("conceal", [False, True])
@pytest.mark.parametrize(
    ("permission", "code"),
    [
        ("look_up", "BOOTSTRAP_UNKNOWN_SERVICE"),
        ("status", "BOOTSTRAP_UNKNOWN_SERVICE"),
        ("register", "BOOTSTRAP_NOT_PRIVILEGED"),
        ("check_in", "BOOTSTRAP_NOT_PRIVILEGED"),
        ("create", "BOOTSTRAP_NOT_PRIVILEGED"),
    ],
)
def test_name_server(permission: str, code: str, conceal: bool) -> None:
    """What may not be seen is not there, and changes are refused, whatever is concealed beside."""
    classes = ("mach_port", "mach_task", "mi_bootstrap")
    policy = " ".join(f"allow * * {tclass} {{ * }};" for tclass in classes)
    others = {"look_up", "status", "register", "check_in", "create", "list"} - {permission}
    policy += f" allow client * service {{ {' '.join(sorted(others))} }};"
    with Kernel(policies=[Rules.from_text(policy)], conceal_denials=conceal) as kernel:
        names = kernel.start_bootstrap(label="rules/names")
        names.declare("there")
        client = kernel.create_task("client", "rules/client")
        port = client.allocate_port()
        ask = {
            "create": client.bootstrap.create_service,
            "register": lambda name: client.bootstrap.register(name, port),
        }.get(permission) or getattr(client.bootstrap, permission)
        client.bootstrap.info()  # a port for answers stays
        for name in ("there", "nowhere"):
            held = client.names()
            kernel.audit.drain()
            with pytest.raises(MachError) as caught:
                ask(name)
            assert caught.value.name == code
            assert client.names() == held
            [record] = kernel.audit.batch(kernel.audit.drain())
            assert (record.service, record.denied) == (name, (permission,))
        kernel.verify()


# ---- what is not recorded, and what would be ----


def test_what_is_permitted_is_not_recorded() -> None:
    with Scene() as scene:
        scene.kernel.audit.drain()
        laden(scene)
        assert scene.receive()[0] == 0
        assert len(scene.kernel.audit.drain()) == 0


def test_permissive_mode_records_and_refuses_nothing() -> None:
    refuse = Refuse()
    refuse.permissive = True
    with Kernel(policies=[refuse]) as kernel:
        task = kernel.create_task("task", "who/client")
        inbox = task.allocate_port()
        right = inbox.make_send(task)
        refuse.refused = {("*", "*", "mach_port", "send")}
        kernel.policies.permissive = False
        kernel.audit.drain()
        right.send(b"", timeout=0)
        records = kernel.audit.drain()
        assert (len(records), int(records["result"][0])) == (1, 0)
        assert records["report"].tolist() == [MachPort.send]
