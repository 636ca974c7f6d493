# SPDX-License-Identifier: BSD-2-Clause
"""Fault group A: malformed messages. A code, nothing changed, one audit record.

The order of checks and the codes are XNU's (osfmk/ipc/ipc_kmsg.c), with the deviation that a send
that fails leaves body rights, too, with the sender.
"""

import itertools
import random
import struct
import threading
import time
from collections import Counter

import pytest
from background import Run
from faults.world import (
    COMPLEX,
    COPY_SEND,
    DISPOSITIONS,
    HEADER,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    RECEIVE,
    SEND,
    World,
    differences,
    guarded,
    make_world,
    message,
    ool,
    ool_ports,
    port,
    refused,
    state,
)

from pympi import Kernel, mach
from pympi._ffi import ffi, lib
from pympi.mig import Interface

TOO_SMALL = "MACH_SEND_MSG_TOO_SMALL"
INVALID_TYPE = "MACH_SEND_INVALID_TYPE"
INVALID_RIGHT = "MACH_SEND_INVALID_RIGHT"
INVALID_MEMORY = "MACH_SEND_INVALID_MEMORY"
TOO_LARGE = "MACH_SEND_TOO_LARGE"
CODES = frozenset(ffi.typeof("enum pm_code").elements)
GIVEN_BACK = (
    mach.MACH_SEND_TIMED_OUT, mach.MACH_SEND_INTERRUPTED, mach.MACH_SEND_NO_BUFFER,
)  # fmt: skip


@pytest.mark.parametrize("size", range(0, 24, 4))
def test_a1_size_below_the_header(world: World, size: int) -> None:
    world.refuses(message(world.dest)[:size], TOO_SMALL)


def test_a2_size_above_the_limit(world: World) -> None:
    world.refuses(message(world.dest, body=bytes(lib.PM_MESSAGE_MAX - 20)), TOO_LARGE)


@pytest.mark.parametrize("size", [25, 26, 27, 29, 31])
def test_a3_size_no_multiple_of_four(world: World, size: int) -> None:
    world.refuses(message(world.dest, body=bytes(8))[:size], TOO_SMALL)


@pytest.mark.parametrize("claimed", [0, 8, 23, 36, 2**31, 2**32 - 1])
def test_a4_size_field_is_not_the_length(world: World, claimed: int) -> None:
    """As in XNU the length given with the call counts; the field is written by the kernel."""
    raw = bytearray(message(world.dest, body=b"12345678"))
    struct.pack_into("=I", raw, 4, claimed)
    assert world.send(bytes(raw))[0] == 0
    code, got = world.receive()
    assert (code, HEADER.unpack_from(got)[1], got[24:32]) == (0, 32, b"12345678")


def bodies(world: World) -> dict[str, tuple[bytes, ...]]:
    """Messages that carry something of each kind."""
    struct_names = struct.pack("=II", world.dest, world.own)
    mach.vm_write(world.client, world.memory, struct_names)
    return {
        "port": (port(world.own, MAKE_SEND),),
        "ool": (ool(world.memory, 16),),
        "ool ports": (ool_ports(world.memory, 2, COPY_SEND),),
        "volatile": (ool(world.memory, 16, 3),),
        "guarded": (guarded(world.plain),),
        "mixed": (port(world.own, MAKE_SEND), ool(world.memory, 4), guarded(world.plain)),
    }


@pytest.mark.parametrize("kind", ["port", "ool", "ool ports", "volatile", "guarded", "mixed"])
def test_a5_truncated_at_each_byte(world: World, kind: str) -> None:
    raw = message(world.dest, descriptors=bodies(world)[kind])
    for size in range(len(raw)):
        world.refuses(raw[:size], TOO_SMALL)
    assert world.send(raw)[0] == 0


@pytest.mark.parametrize("count", [2**32 // 12 + 1, 2**32 // 16, 2**32 // 16 + 1, 2**31, 2**32 - 1])
def test_a6_count_times_size_overflows(world: World, count: int) -> None:
    descriptors = (port(world.own, MAKE_SEND), ool(world.memory, 4))
    world.refuses(message(world.dest, descriptors=descriptors, count=count), TOO_SMALL)


@pytest.mark.parametrize("kind", ["port", "ool", "ool ports", "volatile", "guarded", "mixed"])
def test_a7_more_descriptors_than_fit(world: World, kind: str) -> None:
    descriptors = bodies(world)[kind]
    count = len(descriptors) + 1
    world.refuses(message(world.dest, descriptors=descriptors, count=count), TOO_SMALL)


def test_a8_complex_without_a_body(world: World) -> None:
    world.refuses(message(world.dest, bits=COMPLEX), TOO_SMALL)


def test_a9_descriptors_in_a_simple_message_are_bytes(world: World) -> None:
    body = struct.pack("=I", 1) + port(world.own, MOVE_RECEIVE)
    before = world.held()
    assert world.send(message(world.dest, body=body))[0] == 0
    assert world.held() == before
    code, got = world.receive()
    assert (code, got[24:40], HEADER.unpack_from(got)[0] & COMPLEX) == (0, body, 0)


@pytest.mark.parametrize("kind", [5, 6, 127, 128, 255])
def test_a10_unknown_descriptor_type(world: World, kind: int) -> None:
    descriptors = (port(world.own, MAKE_SEND), port(world.own, MAKE_SEND, kind), bytes(16))
    world.refuses(message(world.dest, descriptors=descriptors), INVALID_TYPE)


def test_a11_unknown_disposition(world: World) -> None:
    for disposition in set(range(256)) - set(DISPOSITIONS):
        for item in (port(world.own, disposition), ool_ports(world.memory, 1, disposition)):
            world.refuses(message(world.dest, descriptors=(item,)), INVALID_TYPE)
    for disposition in set(range(32)) - set(DISPOSITIONS[1:]):
        world.refuses(message(world.dest, disposition), "MACH_SEND_INVALID_HEADER")
        if disposition:
            raw = message(world.dest, reply=world.own, reply_type=disposition)
            world.refuses(raw, "MACH_SEND_INVALID_HEADER")
    raw = message(world.dest, reply=world.own, reply_type=0)
    world.refuses(raw, "MACH_SEND_INVALID_HEADER")


@pytest.mark.parametrize("disposition", [d for d in range(256) if d != MOVE_RECEIVE][::17])
def test_a11_guarded_rights_only_move(world: World, disposition: int) -> None:
    raw = message(world.dest, descriptors=(guarded(world.plain, disposition),))
    world.refuses(raw, INVALID_TYPE)


@pytest.mark.parametrize("flags", [4, 8, 0x100, 0xFFFF])
def test_a11_unknown_guard_flags(world: World, flags: int) -> None:
    raw = message(world.dest, descriptors=(guarded(world.plain, flags=flags),))
    world.refuses(raw, INVALID_TYPE)


@pytest.mark.parametrize("kind", [1, 3])
@pytest.mark.parametrize("copy", [2, 3, 255])
def test_a11_unknown_copy_option(world: World, kind: int, copy: int) -> None:
    raw = message(world.dest, descriptors=(ool(world.memory, 4, kind, copy=copy),))
    world.refuses(raw, INVALID_TYPE)


# What each kind of name can give.
GIVES = {
    "dest": {MOVE_SEND, COPY_SEND},
    "once": {MOVE_SEND_ONCE},
    "own": {MOVE_RECEIVE, MOVE_SEND, COPY_SEND, MAKE_SEND, MAKE_SEND_ONCE},
    "plain": {MOVE_RECEIVE, MAKE_SEND, MAKE_SEND_ONCE},
    "dead": {MOVE_SEND, COPY_SEND, MOVE_SEND_ONCE},
    "pset": set(),
}
ILLEGAL = [(k, d) for k, d in itertools.product(GIVES, DISPOSITIONS) if d not in GIVES[k]]


@pytest.mark.parametrize(("kind", "disposition"), ILLEGAL)
def test_a12_disposition_the_right_cannot_meet(world: World, kind: str, disposition: int) -> None:
    name = world.names[kind]
    world.refuses(message(world.dest, descriptors=(port(name, disposition),)), INVALID_RIGHT)
    mach.vm_write(world.client, world.memory, struct.pack("=II", world.own, name))
    arrays = (ool_ports(world.memory + 4, 1, disposition),)
    world.refuses(message(world.dest, descriptors=arrays), INVALID_RIGHT)
    if disposition != MOVE_RECEIVE:
        world.refuses(message(name, disposition), "MACH_SEND_INVALID_DEST")
        other = world.own if kind == "dest" else world.dest
        raw = message(other, reply=name, reply_type=disposition)
        world.refuses(raw, "MACH_SEND_INVALID_REPLY")


LEGAL = [(k, d) for k, d in itertools.product(GIVES, DISPOSITIONS) if d in GIVES[k]]


@pytest.mark.parametrize(("kind", "disposition"), LEGAL)
def test_a12_the_others_are_met(world: World, kind: str, disposition: int) -> None:
    """The counterpart, without which refusing everything would pass."""
    item = port(world.names[kind], disposition)
    assert world.send(message(world.dest, descriptors=(item,)))[0] == 0


def test_a13_a_receive_right_twice(world: World) -> None:
    mach.vm_write(world.client, world.memory, struct.pack("=II", world.plain, world.plain))
    for descriptors in (
        (port(world.plain, MOVE_RECEIVE),) * 2,
        (ool_ports(world.memory, 2, MOVE_RECEIVE),),
        (guarded(world.plain), port(world.plain, MOVE_RECEIVE)),
        (port(world.plain, MOVE_RECEIVE), port(world.plain, MAKE_SEND)),
        (port(world.plain, MOVE_RECEIVE), ool_ports(world.memory, 1, MAKE_SEND_ONCE)),
    ):
        world.refuses(message(world.dest, descriptors=descriptors), INVALID_RIGHT)


def test_a14_a_send_once_right_twice(world: World) -> None:
    once = port(world.once, MOVE_SEND_ONCE)
    world.refuses(message(world.dest, descriptors=(once, once)), INVALID_RIGHT)
    raw = message(world.dest, COPY_SEND, world.once, MOVE_SEND_ONCE, descriptors=(once,))
    world.refuses(raw, INVALID_RIGHT)
    world.refuses(message(world.once, MOVE_SEND_ONCE, descriptors=(once,)), INVALID_RIGHT)


def test_a14_more_send_references_than_there_are(world: World) -> None:
    move = port(world.dest, MOVE_SEND)
    world.refuses(message(world.own, COPY_SEND, descriptors=(move,) * 3), INVALID_RIGHT)
    world.refuses(message(world.dest, MOVE_SEND, descriptors=(move,) * 2), INVALID_RIGHT)
    assert world.send(message(world.dest, MOVE_SEND, descriptors=(move,)))[0] == 0


def test_a15_the_reply_is_the_destination(world: World) -> None:
    for dest, reply in itertools.product(DISPOSITIONS, DISPOSITIONS):
        raw = message(world.once, dest, world.once, reply)
        code = "MACH_SEND_INVALID_DEST"
        if MOVE_RECEIVE in (dest, reply):
            code = "MACH_SEND_INVALID_HEADER"
        elif MOVE_SEND_ONCE not in (dest, reply):
            code = "MACH_SEND_INVALID_REPLY"
        world.refuses(raw, code)
    mach.mach_port_mod_refs(world.client, world.dest, mach.MACH_PORT_RIGHT_SEND, -1)
    world.refuses(message(world.dest, MOVE_SEND, world.dest, MOVE_SEND), "MACH_SEND_INVALID_DEST")


@pytest.mark.parametrize("dest", [0, 0xFFFFFFFF])
@pytest.mark.parametrize("disposition", DISPOSITIONS[1:])
def test_a16_destination_null_or_dead(world: World, dest: int, disposition: int) -> None:
    world.refuses(message(dest, disposition), "MACH_SEND_INVALID_DEST")


@pytest.mark.parametrize("kind", [1, 3])
def test_a17_memory_at_null(world: World, kind: int) -> None:
    world.refuses(message(world.dest, descriptors=(ool(0, 4, kind),)), INVALID_MEMORY)
    arrays = (ool_ports(0, 1, COPY_SEND),)
    world.refuses(message(world.dest, descriptors=arrays), INVALID_MEMORY)
    nothing = (ool(0, 0, kind), ool_ports(0, 0, COPY_SEND))
    assert world.send(message(world.dest, descriptors=nothing))[0] == 0


@pytest.mark.parametrize("offset", [-8, 60, 64, 2**63])
def test_a17_memory_of_nobody(world: World, offset: int) -> None:
    address = (world.memory + offset) % 2**64
    for item in (ool(address, 8), ool_ports(address, 2, COPY_SEND)):
        world.refuses(message(world.dest, descriptors=(item,)), INVALID_MEMORY)


def test_a17_memory_of_another_task(world: World) -> None:
    theirs = mach.vm_allocate(world.server, 64)
    for item in (ool(theirs, 8), ool(theirs, 64, deallocate=1), ool_ports(theirs, 2, COPY_SEND)):
        world.refuses(message(world.dest, descriptors=(item,)), INVALID_MEMORY)
    assert mach.vm_read(world.server, theirs, 64) == bytes(64)


def test_a17_the_same_memory_moved_twice(world: World) -> None:
    """Both copies arrive; the region goes once."""
    mach.vm_write(world.client, world.memory, b"x" * 64)
    twice = (ool(world.memory, 64, deallocate=1),) * 2
    assert world.send(message(world.dest, descriptors=twice))[0] == 0
    code, got = world.receive()
    assert code == 0
    for offset in (28, 44):
        address, *_, size = struct.unpack_from("=QBBBBI", got, offset)
        assert mach.vm_read(world.server, address, size) == b"x" * 64
    raw = message(world.dest, descriptors=(ool(world.memory, 64),))
    world.refuses(raw, INVALID_MEMORY)


def received_memory(world: World) -> bytes:
    """Receive a message with one region, and return what was in it."""
    code, got = world.receive()
    assert code == 0
    address, *_, size = struct.unpack_from("=QBBBBI", got, 28)
    found = mach.vm_read(world.server, address, size)
    mach.vm_deallocate(world.server, address, size)
    return found


def test_a18_memory_that_changes_and_goes_while_it_is_sent(world: World) -> None:
    """What arrives is whole, or the send says that the memory is not there."""
    size = 1 << 16
    places = [mach.vm_allocate(world.client, size)]
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            for turn in range(10):
                mach.vm_write(world.client, places[0], bytes([turn]) * size)
                time.sleep(0)  # the other thread's turn, while there is memory
            mach.vm_deallocate(world.client, places[0], size)
            time.sleep(0)  # and while there is none
            places[0] = mach.vm_allocate(world.client, size)

    disturbing = Run(disturb)
    codes: Counter[int] = Counter()
    try:
        while (codes[0] < 200 or len(codes) < 2) and disturbing.is_alive():
            code, _ = world.send(message(world.dest, descriptors=(ool(places[0], size),)))
            codes[code] += 1
            if code == 0:
                assert len(set(received_memory(world))) == 1
    finally:
        stop.set()
    assert disturbing.error() is None
    assert set(codes) == {0, mach.MACH_SEND_INVALID_MEMORY}


@pytest.mark.parametrize("count", [16384, 2**30, 2**30 + 1, 2**31, 2**32 - 1])
def test_a19_a_huge_array_of_ports(world: World, count: int) -> None:
    descriptors = (ool_ports(world.memory, count, COPY_SEND),)
    world.refuses(message(world.dest, descriptors=descriptors), TOO_LARGE)


def test_a19_many_arrays_of_ports(world: World) -> None:
    descriptors = (ool_ports(world.memory, 8192, COPY_SEND),) * 2
    world.refuses(message(world.dest, descriptors=descriptors), TOO_LARGE)
    memory = (ool(world.memory, 2**31),) * 3
    world.refuses(message(world.dest, descriptors=memory), TOO_LARGE)


def sent(world: World, size: int = 100) -> None:
    assert world.send(message(world.dest, msgh_id=9, body=bytes(size)))[0] == 0


@pytest.mark.parametrize("room", [0, 4, 23, 24, 124, 131])
def test_a20_too_small_to_receive_stays_with_large(world: World, room: int) -> None:
    sent(world)
    large = mach.MACH_RCV_LARGE | mach.MACH_RCV_LARGE_IDENTITY
    refused(world.kernel, lambda: world.receive(room, large), "MACH_RCV_TOO_LARGE")
    code, got = world.receive(room, large)
    assert code == mach.MACH_RCV_TOO_LARGE
    if room >= 24:
        assert HEADER.unpack_from(got)[1] == 124
        assert HEADER.unpack_from(got)[3] == world.inbox
    assert world.receive(132)[0] == 0


@pytest.mark.parametrize("room", [0, 4, 23, 24, 124, 131])
def test_a20_too_small_to_receive_is_destroyed(world: World, room: int) -> None:
    raw = message(
        world.dest, COPY_SEND, world.own, MAKE_SEND_ONCE, 9, bytes(96), (port(0, COPY_SEND),)
    )
    assert world.send(raw)[0] == 0
    assert world.receive(room)[0] == mach.MACH_RCV_TOO_LARGE
    assert world.receive()[0] == mach.MACH_RCV_TIMED_OUT
    answer = mach.mach_msg(world.client, b"", RECEIVE, 100, world.own)
    assert HEADER.unpack_from(answer[1])[5] == mach.MACH_NOTIFY_SEND_ONCE
    world.kernel.verify()


@pytest.mark.parametrize("element", [5, 6, *range(9, 16)])
def test_a21_unknown_trailer(world: World, element: int) -> None:
    sent(world)
    call = lambda: world.receive(option=element << 24)  # noqa: E731
    refused(world.kernel, call, "MACH_RCV_INVALID_TRAILER")
    refused(world.kernel, lambda: world.receive(option=1 << 28), "MACH_RCV_INVALID_TRAILER")
    assert world.receive()[0] == 0


@pytest.mark.parametrize(("element", "size"), [(0, 8), (1, 12), (2, 20), (3, 52), (4, 60), (7, 68)])
def test_a21_a_trailer_needs_its_room(world: World, element: int, size: int) -> None:
    sent(world)
    large = mach.MACH_RCV_LARGE | element << 24
    refused(world.kernel, lambda: world.receive(124 + size - 1, large), "MACH_RCV_TOO_LARGE")
    code, got = world.receive(124 + size, large)
    assert (code, len(got)) == (0, 124 + size)


@pytest.mark.parametrize("msgh_id", [-(2**31), -1, 0, 1, 2**31 - 1, 0x7F000000, 70, 71])
def test_a22_any_message_id(world: World, msgh_id: int) -> None:
    """Any is a number like another; none makes a message a notification."""
    assert world.send(message(world.dest, msgh_id=msgh_id))[0] == 0
    got = world.server.receive(world.inbox, timeout=0)
    assert (got.msgh_id, got.notification) == (msgh_id, None)


@pytest.mark.parametrize("base", [-(2**31), 0, 2**31 - 2])
def test_a22_ids_around_an_interface(kernel: Kernel, world: World, base: int) -> None:
    world.server.receive_right(world.inbox).serve(Interface("edge", base, ["first", "second"]))
    for msgh_id in (base, base + 1):
        assert world.send(message(world.dest, msgh_id=msgh_id))[0] == 0
    checked = len(kernel.policies)
    for msgh_id in {base - 1, base + 2, ~base} - {base, base + 1}:
        if not -(2**31) <= msgh_id < 2**31:
            continue
        raw = message(world.dest, msgh_id=msgh_id)
        if checked:
            world.refuses(raw, "MACH_SEND_MSG_FILTERED")
        else:
            assert world.send(raw)[0] == 0


@pytest.mark.parametrize("bit", [bit for bit in range(32) if not 0x801F1F1F & 1 << bit])
def test_a23_reserved_header_bits(world: World, bit: int) -> None:
    world.refuses(message(world.dest, bits=1 << bit), "MACH_SEND_INVALID_HEADER")


def test_a23_vouchers_there_are_not(world: World) -> None:
    for kind in set(range(1, 32)) - {MOVE_SEND, COPY_SEND}:
        world.refuses(message(world.dest, bits=kind << 16), "MACH_SEND_INVALID_VOUCHER")
    raw = bytearray(message(world.dest, bits=COPY_SEND << 16))
    struct.pack_into("=I", raw, 16, world.own)
    world.refuses(bytes(raw), "MACH_SEND_INVALID_VOUCHER")


# ---- A24: objects that are one thing when measured and another when used ----


class Number(int):
    """An int that lies in every comparison, and about what it is combined to."""

    def __lt__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return False

    def __or__(self, other: object) -> int:
        return int(self)

    def __and__(self, other: int) -> int:
        return int(self) & other

    __ror__ = __or__


class Index:
    """Something that is another number each time it is asked."""

    def __init__(self, *values: int) -> None:
        self._values = list(values)

    def __index__(self) -> int:
        return self._values.pop(0) if len(self._values) > 1 else self._values[0]

    __int__ = __index__


def test_a24_a_room_that_compares_falsely(world: World) -> None:
    sent(world, 4000)
    code, got = world.receive(Number(8000))
    assert (code, len(got)) == (0, 24 + 4000 + 8)


def test_a24_an_option_that_will_not_be_combined(world: World) -> None:
    """Python's mach_msg confines memory to the task's; no object talks it out of that."""
    raw = message(world.dest, descriptors=(ool(0x1000, 8),))
    code, _ = mach.mach_msg(world.client, raw, Number(SEND))
    assert code == mach.MACH_SEND_INVALID_MEMORY


@pytest.mark.parametrize("values", [(4, 1 << 16), (1 << 16, 4)])
def test_a24_a_size_that_changes(world: World, values: tuple[int, int]) -> None:
    """It is asked once: what was checked is what is used."""
    address = mach.vm_allocate(world.client, 1 << 16)
    assert len(mach.vm_read(world.client, address, Index(*values))) == values[0]  # type: ignore[arg-type]


class Longer(list):  # type: ignore[type-arg]
    """A list that says it is longer than it is."""

    def __len__(self) -> int:
        return super().__len__() + 5000


def test_a24_a_sequence_that_lies_about_its_length(kernel: Kernel, world: World) -> None:
    client, dest = world.client, world.client.right(world.dest)
    rights = Longer([client.receive_right(world.own).make_send_once()])
    dest.send(b"rights", rights=rights)  # type: ignore[union-attr]
    assert len(world.server.receive(world.inbox, timeout=0).rights) == 1
    client.register_ports(Longer([dest]))  # type: ignore[arg-type]
    assert [r and r.name for r in client.registered_ports()] == [world.dest, None, None]
    mach.mach_ports_register(client, Longer([]))
    assert client.registered_ports() == [None, None, None]
    mach.mach_port_set_attributes(client, world.own, mach.MACH_PORT_LIMITS_INFO, Longer([3]))
    assert client.receive_right(world.own).qlimit == 3
    dest.send(b"memory", memory=Longer([b"abc"]))  # type: ignore[union-attr]
    assert [bytes(m) for m in world.server.receive(world.inbox, timeout=0).memory] == [b"abc"]
    kernel.verify()


class Shrinking:
    """A right that makes the list it stands in shorter when it is looked at."""

    def __init__(self, others: list[object], right: object) -> None:
        self.others, self._right = others, right

    @property
    def right(self) -> object:
        self.others.clear()
        return self._right


def test_a24_a_list_that_shrinks_while_it_is_read(kernel: Kernel, world: World) -> None:
    dest = world.client.right(world.dest)
    rights: list[object] = []
    rights += [Shrinking(rights, dest)] * 100
    with pytest.raises((TypeError, ValueError)):
        dest.send(b"", rights=rights)  # type: ignore[union-attr]
    kernel.verify()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("option", -1), ("option", 2**70), ("option", 1.5), ("option", "1"), ("rcv_size", -1),
        ("rcv_name", 2**32), ("rcv_name", -1), ("rcv_name", None), ("notify", 2**32),
        ("timeout", -1), ("timeout", 2**32), ("timeout", 0.5), ("message", "text"),
        ("message", 5), ("message", None),
    ],
)  # fmt: skip
def test_a24_arguments_that_are_no_numbers_or_bytes(
    kernel: Kernel, world: World, argument: str, value: object
) -> None:
    arguments: dict[str, object] = {"message": message(world.dest), "option": SEND}
    before = state(kernel)
    with pytest.raises((TypeError, OverflowError, ValueError)):
        mach.mach_msg(world.client, **{**arguments, argument: value})  # type: ignore[arg-type]
    assert state(kernel) == before


# ---- fuzzing ----

WORDS = (0, 1, 2, 3, 4, 16, 24, 28, 2**16, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)


def valid_messages(world: World) -> list[bytes]:
    carried = [message(world.dest, descriptors=items) for items in bodies(world).values()]
    return [
        message(world.dest, msgh_id=1, body=bytes(64)),
        message(world.dest, COPY_SEND, world.own, MAKE_SEND_ONCE, 2),
        message(world.dest, COPY_SEND, world.dest, COPY_SEND, 3),
        message(world.dest, COPY_SEND, world.once, MOVE_SEND_ONCE, 4),
        message(world.own, COPY_SEND, descriptors=(port(world.own, MOVE_RECEIVE),)),
        message(world.once, MOVE_SEND_ONCE, descriptors=(port(world.dead, COPY_SEND),)),
        *carried,
    ]


def mutated(rng: random.Random, raw: bytes, names: list[int]) -> bytes:
    """Return a message with one to four things changed."""
    found = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(4)
        if kind == 0 and found:
            found[rng.randrange(len(found))] = rng.randrange(256)
        elif kind == 1 and len(found) >= 4:
            word = rng.choice([*WORDS, *names, rng.getrandbits(32)])
            struct.pack_into("=I", found, 4 * rng.randrange(len(found) // 4), word)
        elif kind == 2:
            found = found[: rng.randrange(len(found) + 1)]
        else:
            found += rng.randbytes(4 * rng.randrange(8))
    return bytes(found)


def drained(world: World, rng: random.Random) -> None:
    """Receive whatever came, with random room and trailers, and take the memory it brought."""
    for task, name in ((world.server, world.inbox), (world.client, world.own)):
        for _ in range(8):
            option = RECEIVE | rng.choice([0, mach.MACH_RCV_LARGE]) | rng.randrange(16) << 24
            code, _ = mach.mach_msg(task, b"", option, rng.choice([0, 30, 100, 5000]), name)
            assert code in CODES or code & ~0x3800 in CODES


def fuzzed(world: World, rng: random.Random, rounds: int) -> None:
    """Throw mutations of valid messages at a world, and make it new before it is worn."""
    kernel = world.kernel
    for turn in range(rounds):
        if turn % 200 == 0:
            drained(world, rng)
            kernel.verify()
            for task in (world.client, world.server):
                task.terminate()
            world = make_world(kernel)
            valid, names = valid_messages(world), list(world.names.values())
        raw = mutated(rng, rng.choice(valid), names)
        before = state(kernel) if turn % 50 == 0 else None
        code, back = world.send(raw)
        assert code in CODES, raw.hex()
        assert back == raw or code in GIVEN_BACK, raw.hex()
        if before and code and code not in GIVEN_BACK:
            assert differences(before, state(kernel)) == {}, raw.hex()
        if turn % 16 == 0:
            drained(world, rng)


def test_a_mutations_of_valid_messages(world: World, rng: random.Random) -> None:
    fuzzed(world, rng, 10_000)


@pytest.mark.long
def test_a_many_mutations_of_valid_messages(world: World, rng: random.Random) -> None:
    fuzzed(world, rng, 1_000_000)


def test_a_random_bytes(kernel: Kernel, world: World, rng: random.Random) -> None:
    names = list(world.names.values())
    for _ in range(3000):
        raw = bytearray(rng.randbytes(rng.randrange(200)))
        if len(raw) >= 24 and rng.random() < 0.7:
            HEADER.pack_into(raw, 0, COMPLEX | COPY_SEND, 0, rng.choice(names), 0, 0, 0)
            if len(raw) >= 28:
                struct.pack_into("=I", raw, 24, rng.randrange(5))
        assert world.send(bytes(raw))[0] in CODES
    drained(world, rng)
    kernel.verify()
