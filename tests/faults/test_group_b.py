# SPDX-License-Identifier: BSD-2-Clause
"""Fault group B: forged and stale names. Never another object than the one that was named.

Codes are XNU's (osfmk/ipc/mach_port.c), call by call.
"""

import copy
import pickle
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from background import Run
from faults.world import (
    COPY_SEND,
    DISPOSITIONS,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    NO_NAME,
    RECEIVE,
    World,
    differences,
    guarded,
    make_world,
    message,
    ool_ports,
    outcome,
    port,
    refused,
    state,
)

from pympi import Kernel, MachError, mach
from pympi._ffi import lib
from pympi.errors import code_name

DEAD = 0xFFFFFFFF
OK, NAME, RIGHT, VALUE = (
    "KERN_SUCCESS", "KERN_INVALID_NAME", "KERN_INVALID_RIGHT", "KERN_INVALID_VALUE",
)  # fmt: skip
ARGUMENT, CAPABILITY = "KERN_INVALID_ARGUMENT", "KERN_INVALID_CAPABILITY"


class Case(NamedTuple):
    """A call with one name to try, and its codes for one that is unknown, null, and dead."""

    call: Callable[[World, int], Any]
    unknown: str
    null: str
    dead: str


def on(function: Callable[..., Any], *arguments: Any) -> Callable[[World, int], Any]:
    return lambda world, name: function(world.client, name, *arguments)


def notified(msgh_id: int) -> Callable[[World, int], Any]:
    call = mach.mach_port_request_notification
    return lambda world, name: call(world.client, name, msgh_id, 0, world.plain)


INFO, STATUS = mach.MACH_PORT_LIMITS_INFO, mach.MACH_PORT_RECEIVE_STATUS
CASES = {
    "type": Case(on(mach.mach_port_type), NAME, NAME, OK),
    "get_refs send": Case(on(mach.mach_port_get_refs, 0), NAME, OK, OK),
    "get_refs receive": Case(on(mach.mach_port_get_refs, 1), NAME, NAME, NAME),
    "get_refs send once": Case(on(mach.mach_port_get_refs, 2), NAME, OK, OK),
    "get_refs set": Case(on(mach.mach_port_get_refs, 3), NAME, NAME, NAME),
    "get_refs dead": Case(on(mach.mach_port_get_refs, 4), NAME, NAME, NAME),
    "get_refs bad": Case(on(mach.mach_port_get_refs, 6), VALUE, VALUE, VALUE),
    "mod_refs send": Case(on(mach.mach_port_mod_refs, 0, 1), NAME, OK, OK),
    "mod_refs receive": Case(on(mach.mach_port_mod_refs, 1, -1), NAME, NAME, NAME),
    "mod_refs send once": Case(on(mach.mach_port_mod_refs, 2, -1), NAME, OK, OK),
    "mod_refs set": Case(on(mach.mach_port_mod_refs, 3, -1), NAME, NAME, NAME),
    "mod_refs dead": Case(on(mach.mach_port_mod_refs, 4, -1), NAME, NAME, NAME),
    "mod_refs bad": Case(on(mach.mach_port_mod_refs, 6, 0), VALUE, VALUE, VALUE),
    "deallocate": Case(on(mach.mach_port_deallocate), NAME, OK, OK),
    "destroy": Case(on(mach.mach_port_destroy), NAME, OK, OK),
    "destruct": Case(on(mach.mach_port_destruct, 0, 0), NAME, NAME, NAME),
    "insert_right poly": Case(
        lambda w, name: mach.mach_port_insert_right(w.client, 0x9903, name, COPY_SEND),
        NAME, CAPABILITY, CAPABILITY,
    ),
    "extract_right": Case(on(mach.mach_port_extract_right, COPY_SEND), NAME, RIGHT, RIGHT),
    "insert_member port": Case(
        lambda w, name: mach.mach_port_insert_member(w.client, name, w.pset), NAME, RIGHT, RIGHT
    ),
    "insert_member set": Case(
        lambda w, name: mach.mach_port_insert_member(w.client, w.own, name), NAME, RIGHT, RIGHT
    ),
    "extract_member port": Case(
        lambda w, name: mach.mach_port_extract_member(w.client, name, w.pset), NAME, RIGHT, RIGHT
    ),
    "extract_member set": Case(
        lambda w, name: mach.mach_port_extract_member(w.client, w.own, name), NAME, RIGHT, RIGHT
    ),
    "move_member port": Case(
        lambda w, name: mach.mach_port_move_member(w.client, name, w.pset), NAME, RIGHT, RIGHT
    ),
    "move_member after": Case(
        lambda w, name: mach.mach_port_move_member(w.client, w.own, name),
        NAME, "KERN_NOT_IN_SET", RIGHT,
    ),
    "get_set_status": Case(on(mach.mach_port_get_set_status), NAME, RIGHT, RIGHT),
    "get_attributes limits": Case(on(mach.mach_port_get_attributes, INFO), NAME, OK, OK),
    "get_attributes status": Case(on(mach.mach_port_get_attributes, STATUS), NAME, RIGHT, RIGHT),
    "set_attributes": Case(on(mach.mach_port_set_attributes, INFO, [3]), NAME, RIGHT, RIGHT),
    "assert_attributes": Case(
        on(mach.mach_port_assert_attributes, mach.MACH_PORT_GUARD_INFO, [1, 0]), NAME, RIGHT, RIGHT
    ),
    "set_mscount": Case(on(mach.mach_port_set_mscount, 1), NAME, RIGHT, RIGHT),
    "set_seqno": Case(on(mach.mach_port_set_seqno, 1), NAME, RIGHT, RIGHT),
    "get_context": Case(on(mach.mach_port_get_context), NAME, RIGHT, RIGHT),
    "set_context": Case(on(mach.mach_port_set_context, 1), NAME, RIGHT, RIGHT),
    "guard": Case(on(mach.mach_port_guard, 1), NAME, RIGHT, RIGHT),
    "guard_with_flags": Case(on(mach.mach_port_guard_with_flags, 1, 1), NAME, RIGHT, RIGHT),
    "unguard": Case(on(mach.mach_port_unguard, 1), NAME, RIGHT, RIGHT),
    "swap_guard": Case(on(mach.mach_port_swap_guard, 1, 2), NAME, RIGHT, RIGHT),
    "peek": Case(on(mach.mach_port_peek), NAME, RIGHT, RIGHT),
    "request dead-name": Case(notified(mach.MACH_NOTIFY_DEAD_NAME), NAME, ARGUMENT, ARGUMENT),
    "request send-possible": Case(
        notified(mach.MACH_NOTIFY_SEND_POSSIBLE), NAME, ARGUMENT, ARGUMENT
    ),
    "request of no kind": Case(notified(99), VALUE, VALUE, VALUE),
    "request notify": Case(
        lambda w, name: mach.mach_port_request_notification(w.client, w.dest, 72, 0, name),
        CAPABILITY, OK, CAPABILITY,
    ),
    "ports_register": Case(
        lambda w, name: mach.mach_ports_register(w.client, [name]), NAME, OK, OK
    ),
    "special port": Case(
        lambda w, name: mach.task_set_special_port(w.client, 4, name), NAME, OK, OK
    ),
    "event_fd": Case(
        lambda w, name: w.client.receive_right(name).fileno(), NAME, NAME, NAME
    ),
    "send": Case(
        lambda w, name: w.send(message(name)),
        *("MACH_SEND_INVALID_DEST",) * 3,
    ),
    "short send": Case(
        lambda w, name: w.client.send(name, b"", timeout=0),
        *("MACH_SEND_INVALID_DEST",) * 3,
    ),
    "reply": Case(
        lambda w, name: w.send(message(w.dest, reply=name, reply_type=MAKE_SEND_ONCE)),
        "MACH_SEND_INVALID_REPLY", "KERN_SUCCESS", "KERN_SUCCESS",
    ),
    "body": Case(
        lambda w, name: w.send(message(w.dest, descriptors=(port(name, COPY_SEND),))),
        "MACH_SEND_INVALID_RIGHT", "KERN_SUCCESS", "KERN_SUCCESS",
    ),
    "receive": Case(
        lambda w, name: mach.mach_msg(w.client, b"", RECEIVE, 100, name),
        *("MACH_RCV_INVALID_NAME",) * 3,
    ),
    "short receive": Case(
        lambda w, name: w.client.receive(name, timeout=0),
        *("MACH_RCV_INVALID_NAME",) * 3,
    ),
}  # fmt: skip


def tried(world: World, case: Case, name: int, code: str) -> None:
    """Assert the code of a call with a name, and that a refusal changes nothing."""
    if code == OK:
        assert outcome(lambda: case.call(world, name)) == OK
        world.kernel.verify()
    else:
        refused(world.kernel, lambda: case.call(world, name), code)


every_call = pytest.mark.parametrize("call", CASES)


@every_call
def test_b1_a_random_name(world: World, rng: random.Random, call: str) -> None:
    case, known = CASES[call], set(world.client.names())
    for _ in range(20):
        name = rng.getrandbits(32)
        if name not in known | {0, DEAD}:
            tried(world, case, name, case.unknown)


@every_call
def test_b2_the_wrong_generation(world: World, call: str) -> None:
    case = CASES[call]
    for real in (world.own, world.dest, world.pset):
        for generation in {4, 8, 0x80, 0xFC} | {1, 2, 3}:
            tried(world, case, real ^ generation, case.unknown)


@every_call
def test_b3_a_name_of_another_space(world: World, call: str) -> None:
    for _ in range(8):
        theirs = world.server.allocate_port().name
    assert theirs not in world.client.names()
    tried(world, CASES[call], theirs, CASES[call].unknown)


@every_call
def test_b4_a_name_whose_right_moved_away(world: World, call: str) -> None:
    raw = message(world.dest, MOVE_SEND, descriptors=(port(world.plain, MOVE_RECEIVE),))
    assert world.send(raw)[0] == 0
    world.plain, gone = world.client.allocate_port().name, world.plain
    assert gone != world.plain
    tried(world, CASES[call], gone, CASES[call].unknown)


def test_b5_a_name_that_is_deallocated_meanwhile(kernel: Kernel, world: World) -> None:
    """Whoever comes second is told; the message went to this port or to none."""
    client, inbox = world.client, world.server.receive_right(world.inbox)
    current, stop = [world.dest], threading.Event()

    def change() -> None:
        while not stop.is_set():
            current[0] = inbox.make_send(client).name
            time.sleep(0)  # the other thread's turn, while there is a name
            mach.mach_port_destroy(client, current[0])
            time.sleep(0)  # and while there is none

    changing = Run(change)
    codes: Counter[int] = Counter()
    try:
        while (codes[0] < 200 or len(codes) < 2) and changing.is_alive():
            code, _ = world.send(message(current[0], msgh_id=5))
            codes[code] += 1
            assert (world.receive()[0] == 0) == (code == 0)
    finally:
        stop.set()
    assert changing.error() is None
    assert set(codes) == {0, mach.MACH_SEND_INVALID_DEST}
    assert kernel.stats()["messages_queued"] == 0
    kernel.verify()


def test_b6_a_chosen_name_that_is_taken(world: World) -> None:
    """mach_port_rename is not XNU's; names are chosen with insert_right and allocate_name."""
    kernel, client = world.kernel, world.client
    for name in world.names.values():
        for right in (1, 3, 4):
            call = lambda n=name, r=right: mach.mach_port_allocate_name(client, r, n)  # noqa: E731
            refused(kernel, call, "KERN_NAME_EXISTS")
    insert = mach.mach_port_insert_right
    for poly, name, code in (
        (world.own, world.plain, "KERN_RIGHT_EXISTS"),
        (world.plain, world.dest, "KERN_RIGHT_EXISTS"),
        (world.dest, world.own, "KERN_RIGHT_EXISTS"),
    ):
        how = COPY_SEND if poly == world.dest else MAKE_SEND
        refused(kernel, lambda n=name, p=poly, h=how: insert(client, n, p, h), code)
    for name in (world.dest, world.once, world.pset, world.dead):
        call = lambda n=name: insert(client, n, world.plain, MAKE_SEND_ONCE)  # noqa: E731
        refused(kernel, call, "KERN_NAME_EXISTS")


def test_b6_a_name_onto_itself(world: World) -> None:
    client = world.client
    for name, how in ((world.own, MAKE_SEND), (world.own, COPY_SEND), (world.dest, COPY_SEND)):
        refs = mach.mach_port_get_refs(client, name, 0)
        mach.mach_port_insert_right(client, name, name, how)
        assert mach.mach_port_get_refs(client, name, 0) == refs + 1
    before = world.held()[world.dest]
    mach.mach_port_insert_right(client, world.dest, world.dest, MOVE_SEND)
    assert world.held()[world.dest] == before
    world.kernel.verify()


@pytest.mark.parametrize("name", [1, 2, 0x100, 0x102, 0xFFFFFFFE])
def test_b6_a_chosen_name_that_is_none(world: World, name: int) -> None:
    for right in (1, 3, 4):
        call = lambda r=right: mach.mach_port_allocate_name(world.client, r, name)  # noqa: E731
        refused(world.kernel, call, VALUE)
    call = lambda: mach.mach_port_insert_right(world.client, name, world.own, MAKE_SEND)  # noqa: E731
    refused(world.kernel, call, VALUE)


def test_b6_a_chosen_name_out_of_reach(world: World) -> None:
    allocate = mach.mach_port_allocate_name
    refused(world.kernel, lambda: allocate(world.client, 1, 3), "KERN_FAILURE")
    refused(world.kernel, lambda: allocate(world.client, 1, world.own ^ 4), "KERN_FAILURE")
    refused(world.kernel, lambda: allocate(world.client, 1, 0xFFFFFF03), "KERN_NO_SPACE")


@every_call
def test_b7_null(world: World, call: str) -> None:
    tried(world, CASES[call], 0, CASES[call].null)


@every_call
def test_b7_dead(world: World, call: str) -> None:
    tried(world, CASES[call], DEAD, CASES[call].dead)


@pytest.mark.parametrize("name", [0, DEAD])
def test_b7_names_to_be_made(world: World, name: int) -> None:
    for right in (1, 3, 4):
        call = lambda r=right: mach.mach_port_allocate_name(world.client, r, name)  # noqa: E731
        refused(world.kernel, call, VALUE, records=int(name != 0))
    call = lambda: mach.mach_port_insert_right(world.client, name, world.own, MAKE_SEND)  # noqa: E731
    refused(world.kernel, call, VALUE)


# What calls want a receive right, and say of any other name.
RECEIVES = [
    "mod_refs receive", "destruct", "get_attributes status", "set_attributes",
    "assert_attributes", "set_mscount", "set_seqno", "get_context", "set_context", "guard",
    "unguard", "swap_guard", "peek", "insert_member port", "extract_member port",
    "move_member port", "event_fd",
]  # fmt: skip


@pytest.mark.parametrize("call", RECEIVES)
@pytest.mark.parametrize("kind", ["dest", "once", "dead"])
def test_b9_a_send_right_where_receive_is_needed(world: World, call: str, kind: str) -> None:
    refused(world.kernel, lambda: CASES[call].call(world, world.names[kind]), RIGHT)


@pytest.mark.parametrize("kind", ["dest", "once", "dead"])
def test_b9_receiving_from_a_send_right(world: World, kind: str) -> None:
    for call in ("receive", "short receive"):
        case = CASES[call]
        name = world.names[kind]
        refused(world.kernel, lambda c=case, n=name: c.call(world, n), "MACH_RCV_INVALID_NAME")


def test_b8_a_dead_name_as_a_live_one(world: World) -> None:
    world.refuses(message(world.dead), "MACH_SEND_INVALID_DEST")
    call = lambda: world.client.send(world.dead, b"", timeout=0)  # noqa: E731
    refused(world.kernel, call, "MACH_SEND_INVALID_DEST")
    for right in (0, 1, 2, 3):
        call = lambda r=right: mach.mach_port_mod_refs(world.client, world.dead, r, -1)  # noqa: E731
        refused(world.kernel, call, RIGHT)
    for how in (MAKE_SEND, MAKE_SEND_ONCE, MOVE_RECEIVE):
        call = lambda h=how: mach.mach_port_extract_right(world.client, world.dead, h)  # noqa: E731
        refused(world.kernel, call, RIGHT)


def test_b8_a_dead_name_in_a_body_arrives_dead(world: World) -> None:
    assert world.send(message(world.dest, descriptors=(port(world.dead, COPY_SEND),)))[0] == 0
    got = world.server.receive(world.inbox, timeout=0)
    assert [right.name for right in got.rights if right] == [DEAD]
    assert mach.mach_port_get_refs(world.client, world.dead, 4) == 1


def test_b9_a_receive_right_where_send_is_needed(world: World) -> None:
    world.refuses(message(world.plain, COPY_SEND), "MACH_SEND_INVALID_DEST")
    world.refuses(message(world.plain, MOVE_SEND), "MACH_SEND_INVALID_DEST")
    kernel, client = world.kernel, world.client
    register = lambda: mach.mach_ports_register(client, [world.dest, world.plain])  # noqa: E731
    refused(kernel, register, RIGHT)
    refused(kernel, lambda: mach.task_set_special_port(client, 4, world.plain), RIGHT)
    refused(kernel, lambda: mach.mach_port_deallocate(client, world.plain), RIGHT)


@pytest.mark.parametrize("call", RECEIVES)
def test_b10_a_set_where_a_port_is_needed(world: World, call: str) -> None:
    if call == "event_fd":
        assert outcome(lambda: CASES[call].call(world, world.pset)) == OK
    else:
        refused(world.kernel, lambda: CASES[call].call(world, world.pset), RIGHT)


def test_b10_a_set_in_a_message(world: World) -> None:
    for how in DISPOSITIONS:
        descriptors = (port(world.pset, how),)
        world.refuses(message(world.dest, descriptors=descriptors), "MACH_SEND_INVALID_RIGHT")
    world.refuses(message(world.pset), "MACH_SEND_INVALID_DEST")
    world.refuses(message(world.dest, reply=world.pset, reply_type=COPY_SEND),
                  "MACH_SEND_INVALID_REPLY")  # fmt: skip
    call = lambda: mach.mach_port_insert_member(world.client, world.pset, world.pset)  # noqa: E731
    refused(world.kernel, call, RIGHT)


@every_call
def test_b11_after_the_task_died(kernel: Kernel, world: World, call: str) -> None:
    world.client.terminate()
    names = [world.own, world.dest, 0, DEAD]
    if call == "get_attributes limits":
        names = names[:2]  # null and dead have limits wherever they are asked for, as in XNU
    for name in names:
        refused(kernel, lambda n=name: CASES[call].call(world, n), "KERN_INVALID_TASK")  # type: ignore[misc]


def test_b11_right_objects_after_the_task_died(kernel: Kernel, world: World) -> None:
    own, dest = world.client.receive_right(world.own), world.client.right(world.dest)
    sender, receiver = dest.sender(), own.receiver(timeout=0)  # type: ignore[attr-defined]
    world.client.terminate()
    calls: list[Callable[[], Any]] = [
        lambda: dest.send(b"x", timeout=0),  # type: ignore[attr-defined]
        lambda: dest.call(b"x", timeout=0),  # type: ignore[attr-defined]
        lambda: dest.copy_send(world.server),  # type: ignore[attr-defined]
        lambda: own.receive(timeout=0), lambda: own.type, lambda: own.refs, lambda: own.label,
        lambda: own.status, lambda: own.make_send(world.server), lambda: sender(b"x"), receiver,
        lambda: world.client.allocate_port(), lambda: world.client.create_port_set(),
        lambda: kernel.create_task("child", parent=world.client),
        lambda: world.client.relabel("-"), lambda: world.client.registered_ports(),
        lambda: mach.vm_allocate(world.client, 8), lambda: mach.vm_read(world.client, 1, 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(MachError):
            call()
    own.close()
    dest.close()
    assert (own.port_id, own.provenance) == (0, 0)
    kernel.verify()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_b12_copied_or_pickled(kernel: Kernel, world: World, how: Callable[[Any], Any]) -> None:
    own = world.client.receive_right(world.own)
    world.send(message(world.dest, descriptors=(port(world.own, MAKE_SEND),)))
    things = [
        kernel, world.client, own, world.client.right(world.dest), world.client.right(world.once),
        world.client.right(world.pset), world.client.right(world.dead),
        world.server.receive(world.inbox, timeout=0),
    ]  # fmt: skip
    before = state(kernel)
    for thing in things:
        with pytest.raises(TypeError, match=r"copied or pickled|pickle"):
            how(thing)
    if how is not copy.copy:
        with pytest.raises(TypeError):
            how(own.make_send())
    assert differences(before, state(kernel)) == {}


def test_b12_a_right_of_another_kernel(world: World) -> None:
    with Kernel() as other:
        theirs = make_world(other)
        for call in (
            lambda: world.client.receive_right(world.own).make_send(theirs.client),
            lambda: mach.mach_port_names(world.client, caller=theirs.client),
            lambda: mach.task_terminate(world.client, caller=theirs.client),
        ):
            assert outcome(call) == "KERN_INVALID_TASK"
        right = theirs.client.receive_right(theirs.own).make_send()
        with pytest.raises(ValueError, match="is of task"):
            world.client.send(world.dest, b"", rights=[right])
        assert world.client.alive
        other.verify()


def cycled(world: World, cycles: int) -> list[int]:
    """Allocate and free a port again and again; return the names."""
    names = []
    for _ in range(cycles):
        name = lib.pm_port_allocate(world.client._pointer, world.client._pointer, 1, 0)
        lib.pm_port_destroy(world.client._pointer, world.client._pointer, name)
        names.append(name)
    return names


def test_b13_generations_wrap(world: World) -> None:
    """An index has 64 names, as in XNU; a stale one means nothing until all were used."""
    names = cycled(world, 640)
    assert len(set(names)) == 64
    for place in range(len(names) - 63):
        assert len(set(names[place : place + 64])) == 64
    known = [name for name in set(names) if name in world.client.names()]
    assert known == []
    world.kernel.verify()


@pytest.mark.long
def test_b13_many_cycles(world: World) -> None:
    for _ in range(1 << 10):
        cycled(world, 1 << 14)
    assert code_name(-lib.pm_port_type(world.client._pointer, world.client._pointer, NO_NAME)) == (
        NAME
    )
    world.kernel.verify()


def test_b_names_in_out_of_line_arrays(world: World) -> None:
    """Each name of an array is looked at as in a descriptor; one that is bad refuses all."""
    names = [world.own, NO_NAME]
    mach.vm_write(world.client, world.memory, b"".join(n.to_bytes(4, "little") for n in names))
    descriptors = (ool_ports(world.memory, 2, COPY_SEND),)
    world.refuses(message(world.dest, descriptors=descriptors), "MACH_SEND_INVALID_RIGHT")


@pytest.mark.parametrize("mode", ["audit", "raise"])
def test_b_a_handler_that_fails_with_guarded_rights(mode: str) -> None:
    """What the message brought is destroyed, guarded or not, and however long it is looked at."""
    seen: list[Any] = []

    def broken(request: Any) -> None:
        seen.append(request)
        raise ValueError("broken")

    with Kernel(guard_violations=mode) as kernel:
        world = make_world(kernel)
        clerk = world.server.create_handler(broken).make_send(world.client)
        names = world.server.names()
        items = (guarded(world.plain, flags=1), port(world.own, MAKE_SEND))
        raw = message(clerk.name, COPY_SEND, world.own, MAKE_SEND_ONCE, descriptors=items)
        assert world.send(raw)[0] == 0
        assert world.server.names() == names
        assert world.client.usage.ports == 1
        assert (seen[0].body, seen[0].reply_right, seen[0].rights) == (b"", None, [])
        seen[0].close()
        seen[0].close()
        kernel.verify()


def test_b_every_call_in_random_order(world: World, rng: random.Random) -> None:
    """Whatever was done before, a call with any name ends with a code, and the books are right."""
    calls = list(CASES.values())
    for turn in range(3000):
        if turn % 100 == 0:
            world.kernel.verify()
            fresh = make_world(world.kernel)
            names = [*fresh.names.values(), *world.client.names(), 0, DEAD, NO_NAME]
            world.client.terminate()
            world = fresh
        name = rng.choice(names)
        result = outcome(lambda w=world, n=name: rng.choice(calls).call(w, n))  # type: ignore[misc]
        assert result.startswith(("KERN_", "MACH_")), result
    world.kernel.verify()
