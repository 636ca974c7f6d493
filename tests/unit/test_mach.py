# SPDX-License-Identifier: BSD-2-Clause
"""The Mach calls under their Mach names; the codes are those of a measured GNU Mach and of XNU."""

import random
import struct
from collections.abc import Callable

import pytest

from pympi import Kernel, MachError, Task, mach
from pympi._ffi import ffi, lib

HEADER = struct.Struct("=IIIIIi")


@pytest.fixture
def task(kernel: Kernel) -> Task:
    return kernel.create_task("task")


@pytest.fixture
def port(task: Task) -> int:
    return mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE)


def code_of(call: Callable[..., object], *arguments: object, **keywords: object) -> str:
    """Return the name of the code that a call raises; "" if it does not."""
    try:
        call(*arguments, **keywords)
    except MachError as error:
        return error.name
    return ""


def test_all_constants_are_there() -> None:
    enums = ("pm_code", "pm_disposition", "pm_option", "pm_flavor", "pm_construct_flag", "pm_type")
    for enum in enums:
        for name, value in ffi.typeof(f"enum {enum}").relements.items():
            if name.startswith(("KERN_", "MACH_", "MPO_")):
                assert getattr(mach, name) == value
    assert (mach.MACH_PORT_NULL, mach.MACH_PORT_DEAD) == (0, 0xFFFFFFFF)
    assert mach.MACH_PORT_TYPE_DNREQUEST == 0x80000000
    assert mach.TASK_BOOTSTRAP_PORT == 4


def test_allocate(task: Task) -> None:
    for right in (1, 3, 4):
        name = mach.mach_port_allocate(task, right)
        assert mach.mach_port_type(task, name) == 1 << (16 + right)
        assert name & 3 == 3
    for right in (0, 2, 5, 99):
        assert code_of(mach.mach_port_allocate, task, right) == "KERN_INVALID_VALUE"


def test_allocate_name(task: Task) -> None:
    mach.mach_port_allocate_name(task, 1, 0x5503)
    assert mach.mach_port_type(task, 0x5503) == mach.MACH_PORT_TYPE_RECEIVE
    for name, code in (
        (0x5503, "KERN_NAME_EXISTS"),
        (0, "KERN_INVALID_VALUE"),
        (0xFFFFFFFF, "KERN_INVALID_VALUE"),
        (0x6600, "KERN_INVALID_VALUE"),
    ):
        assert code_of(mach.mach_port_allocate_name, task, 1, name) == code


def test_references(task: Task, port: int) -> None:
    mach.mach_port_insert_right(task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    mach.mach_port_mod_refs(task, port, mach.MACH_PORT_RIGHT_SEND, 4)
    assert mach.mach_port_get_refs(task, port, mach.MACH_PORT_RIGHT_SEND) == 5
    assert mach.mach_port_get_refs(task, port, mach.MACH_PORT_RIGHT_RECEIVE) == 1
    assert mach.mach_port_get_refs(task, port, mach.MACH_PORT_RIGHT_DEAD_NAME) == 0
    mach.mach_port_deallocate(task, port)
    assert mach.mach_port_names(task) == ([port], [0x30000])
    refs = mach.mach_port_mod_refs
    assert code_of(refs, task, port, mach.MACH_PORT_RIGHT_SEND, -9) == "KERN_INVALID_VALUE"
    assert code_of(refs, task, port, mach.MACH_PORT_RIGHT_SEND_ONCE, -1) == "KERN_INVALID_RIGHT"
    assert code_of(refs, task, port, 7, -1) == "KERN_INVALID_VALUE"
    assert code_of(refs, task, 0x7703, 0, -1) == "KERN_INVALID_NAME"
    assert code_of(refs, task, port, 0, 65535) == "KERN_UREFS_OVERFLOW"
    mach.mach_port_destroy(task, port)
    assert mach.mach_port_names(task) == ([], [])


def test_rights_move_between_tasks(kernel: Kernel, task: Task, port: int) -> None:
    boss = kernel.create_task("boss")
    poly, kind = mach.mach_port_extract_right(task, port, mach.MACH_MSG_TYPE_MAKE_SEND, caller=boss)
    assert kind == mach.MACH_MSG_TYPE_PORT_SEND
    assert mach.mach_port_type(boss, poly) == mach.MACH_PORT_TYPE_SEND
    own = mach.mach_port_allocate(boss, mach.MACH_PORT_RIGHT_RECEIVE)
    mach.mach_port_insert_right(task, 0x9903, own, mach.MACH_MSG_TYPE_MAKE_SEND, caller=boss)
    assert mach.mach_port_type(task, 0x9903) == mach.MACH_PORT_TYPE_SEND
    taken = (task, 0x9903, poly, mach.MACH_MSG_TYPE_COPY_SEND)
    assert code_of(mach.mach_port_insert_right, *taken, caller=boss) == "KERN_RIGHT_EXISTS"
    assert code_of(mach.mach_port_extract_right, task, 0x8803, 20) == "KERN_INVALID_NAME"


def test_construct_and_destruct(task: Task) -> None:
    flags = mach.MPO_INSERT_SEND_RIGHT | mach.MPO_QLIMIT | mach.MPO_CONTEXT_AS_GUARD
    name = mach.mach_port_construct(task, mach.PortOptions(flags, qlimit=9), context=33)
    assert mach.mach_port_type(task, name) == 0x30000
    assert mach.mach_port_get_attributes(task, name, mach.MACH_PORT_LIMITS_INFO) == [9]
    assert code_of(mach.mach_port_destruct, task, name, 0, 34) == "KERN_INVALID_ARGUMENT"
    mach.mach_port_destruct(task, name, -1, 33)
    assert mach.mach_port_names(task) == ([], [])
    wrong = mach.PortOptions(mach.MPO_QLIMIT, 2000)
    assert code_of(mach.mach_port_construct, task, wrong) == "KERN_INVALID_VALUE"


def test_sets(task: Task, port: int) -> None:
    pset = mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_PORT_SET)
    other = mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_PORT_SET)
    mach.mach_port_insert_member(task, port, pset)
    assert mach.mach_port_get_set_status(task, pset) == [port]
    assert code_of(mach.mach_port_insert_member, task, port, pset) == "KERN_ALREADY_IN_SET"
    mach.mach_port_move_member(task, port, other)
    assert mach.mach_port_get_set_status(task, pset) == []
    mach.mach_port_extract_member(task, port, other)
    assert code_of(mach.mach_port_extract_member, task, port, other) == "KERN_NOT_IN_SET"
    assert code_of(mach.mach_port_move_member, task, port, 0) == "KERN_NOT_IN_SET"


def test_attributes_and_guards(task: Task, port: int) -> None:
    mach.mach_port_set_attributes(task, port, mach.MACH_PORT_LIMITS_INFO, [7])
    mach.mach_port_set_mscount(task, port, 3)
    mach.mach_port_set_seqno(task, port, 4)
    status = mach.mach_port_get_attributes(task, port, mach.MACH_PORT_RECEIVE_STATUS)
    assert status[1:4] == [4, 3, 7]
    get = mach.mach_port_get_attributes
    assert code_of(get, task, port, mach.MACH_PORT_RECEIVE_STATUS, 3) == "KERN_FAILURE"
    assert code_of(get, task, port, 999) == "KERN_INVALID_ARGUMENT"
    mach.mach_port_set_context(task, port, 1 << 60)
    assert mach.mach_port_get_context(task, port) == 1 << 60
    assert code_of(mach.mach_port_guard, task, port, 5) == "KERN_INVALID_ARGUMENT"
    mach.mach_port_set_context(task, port, 0)
    mach.mach_port_guard_with_flags(task, port, 5, mach.MPG_STRICT)
    mach.mach_port_assert_attributes(task, port, mach.MACH_PORT_GUARD_INFO, [5, 0])
    assert code_of(mach.mach_port_swap_guard, task, port, 5, 6) == "KERN_INVALID_ARGUMENT"
    mach.mach_port_unguard(task, port, 5)
    mach.mach_port_guard(task, port, 7)
    mach.mach_port_swap_guard(task, port, 7, 8)
    mach.mach_port_unguard(task, port, 8)


def test_notifications(task: Task, port: int) -> None:
    mach.mach_port_insert_right(task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    mailbox = mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE)
    request = mach.mach_port_request_notification
    assert request(task, port, mach.MACH_NOTIFY_DEAD_NAME, 0, mailbox) == 0
    assert mach.mach_port_type(task, port) & mach.MACH_PORT_TYPE_DNREQUEST
    previous = request(task, port, mach.MACH_NOTIFY_DEAD_NAME, 0, 0)
    assert mach.mach_port_type(task, previous) == mach.MACH_PORT_TYPE_SEND_ONCE
    assert code_of(request, task, port, 99, 0, mailbox) == "KERN_INVALID_VALUE"


def test_special_and_registered_ports(kernel: Kernel, task: Task, port: int) -> None:
    mach.mach_port_insert_right(task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    mach.task_set_bootstrap_port(task, port)
    mach.mach_ports_register(task, [port])
    child = kernel.create_task("child", parent=task)
    name = mach.task_get_bootstrap_port(child)
    assert name
    assert mach.mach_ports_lookup(child) == [name, 0, 0]
    assert mach.mach_port_get_refs(child, name, mach.MACH_PORT_RIGHT_SEND) == 2
    mach.task_terminate(child)
    assert code_of(mach.mach_port_names, child) == "KERN_INVALID_TASK"


# ---- mach_msg ----


def message(bits: int, remote: int, local: int = 0, msgh_id: int = 0, rest: bytes = b"") -> bytes:
    return HEADER.pack(bits, HEADER.size + len(rest), remote, local, 0, msgh_id) + rest


def test_a_message_in_wire_format(task: Task, port: int) -> None:
    sent = message(mach.MACH_MSG_TYPE_MAKE_SEND, port, msgh_id=42, rest=b"12345678")
    code, back = mach.mach_msg(task, sent, mach.MACH_SEND_MSG)
    assert (code, back) == (0, sent)
    code, got = mach.mach_msg(
        task, b"", mach.MACH_RCV_MSG | mach.MACH_RCV_TRAILER_SEQNO << 24, 200, port
    )
    assert code == 0
    bits, size, remote, local, _, msgh_id = HEADER.unpack_from(got)
    assert (size, remote, local, msgh_id) == (32, 0, port, 42)
    assert bits == mach.MACH_MSG_TYPE_PORT_SEND << 8
    assert got[24:32] == b"12345678"
    kind, trailer_size, seqno = struct.unpack_from("=III", got, 32)
    assert (kind, trailer_size, seqno, len(got)) == (0, 12, 0, 44)


def test_send_and_receive_in_one_call(task: Task, port: int) -> None:
    sent = message(mach.MACH_MSG_TYPE_MAKE_SEND, port, msgh_id=1, rest=b"abcd")
    code, got = mach.mach_msg(task, sent, mach.MACH_SEND_MSG | mach.MACH_RCV_MSG, 100, port)
    assert code == 0
    assert got[24:28] == b"abcd"


def test_a_failed_send_is_handed_back(task: Task, port: int) -> None:
    mach.mach_port_insert_right(task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    mach.mach_port_set_attributes(task, port, mach.MACH_PORT_LIMITS_INFO, [0])
    option = mach.MACH_SEND_MSG | mach.MACH_SEND_TIMEOUT
    sent = message(mach.MACH_MSG_TYPE_COPY_SEND, port, rest=b"abcd")
    code, back = mach.mach_msg(task, sent, option)
    assert code == mach.MACH_SEND_TIMED_OUT
    assert HEADER.unpack_from(back)[0] == mach.MACH_MSG_TYPE_MOVE_SEND
    assert mach.mach_port_get_refs(task, port, mach.MACH_PORT_RIGHT_SEND) == 2
    mach.mach_port_set_attributes(task, port, mach.MACH_PORT_LIMITS_INFO, [1])
    assert mach.mach_msg(task, back, option)[0] == 0
    assert mach.mach_port_get_refs(task, port, mach.MACH_PORT_RIGHT_SEND) == 1


def test_too_large_to_receive(task: Task, port: int) -> None:
    sent = message(mach.MACH_MSG_TYPE_MAKE_SEND, port, rest=bytes(100))
    mach.mach_msg(task, sent, mach.MACH_SEND_MSG)
    poll = mach.MACH_RCV_MSG | mach.MACH_RCV_TIMEOUT
    code, got = mach.mach_msg(task, b"", poll | mach.MACH_RCV_LARGE, 40, port)
    assert code == mach.MACH_RCV_TOO_LARGE
    assert HEADER.unpack_from(got)[1] == 124
    code, got = mach.mach_msg(task, b"", poll, 200, port)
    assert (code, len(got)) == (0, 132)
    assert mach.mach_msg(task, b"", poll, 200, port)[0] == mach.MACH_RCV_TIMED_OUT


def test_memory_out_of_line(kernel: Kernel, task: Task, port: int) -> None:
    address = mach.vm_allocate(task, 5000)
    mach.vm_write(task, address, b"out of line" * 100)
    descriptor = struct.pack("=QBBBBI", address, 0, 1, 0, mach.MACH_MSG_OOL_DESCRIPTOR, 1100)
    rest = struct.pack("=I", 1) + descriptor
    sent = message(0x80000000 | mach.MACH_MSG_TYPE_MAKE_SEND, port, rest=rest)
    assert mach.mach_msg(task, sent, mach.MACH_SEND_MSG)[0] == 0
    mach.vm_deallocate(task, address, 5000)
    code, got = mach.mach_msg(task, b"", mach.MACH_RCV_MSG, 200, port)
    assert code == 0
    where, _, _, _, kind, size = struct.unpack_from("=QBBBBI", got, 28)
    assert (kind, size) == (mach.MACH_MSG_OOL_DESCRIPTOR, 1100)
    assert mach.vm_read(task, where, size) == b"out of line" * 100
    stranger = kernel.create_task("stranger")
    assert code_of(mach.vm_read, stranger, where, 1) == "KERN_INVALID_ARGUMENT"
    mach.vm_deallocate(task, where, size)


def test_addresses_of_others_are_refused(task: Task, port: int) -> None:
    descriptor = struct.pack("=QBBBBI", 0x1000, 0, 1, 0, mach.MACH_MSG_OOL_DESCRIPTOR, 100)
    rest = struct.pack("=I", 1) + descriptor
    sent = message(0x80000000 | mach.MACH_MSG_TYPE_MAKE_SEND, port, rest=rest)
    assert mach.mach_msg(task, sent, mach.MACH_SEND_MSG)[0] == mach.MACH_SEND_INVALID_MEMORY
    for call in (
        lambda: mach.vm_read(task, 0x1000, 4),
        lambda: mach.vm_write(task, 0x1000, b"boom"),
        lambda: mach.vm_deallocate(task, 0x1000, 4096),
    ):
        assert code_of(call) == "KERN_INVALID_ARGUMENT"


@pytest.mark.parametrize("length", [0, 1, 4, 20, 23, 25, 26])
def test_messages_of_odd_length(task: Task, port: int, length: int) -> None:
    sent = message(mach.MACH_MSG_TYPE_MAKE_SEND, port, rest=bytes(8))[:length]
    code, back = mach.mach_msg(task, sent, mach.MACH_SEND_MSG)
    assert code == mach.MACH_SEND_MSG_TOO_SMALL
    assert back == sent


def random_message(rng: random.Random, port: int) -> bytearray:
    """Return random bytes, mostly behind a header that is right, so that more than it is read."""
    raw = bytearray(rng.randbytes(4 * rng.randrange(40)))
    if len(raw) >= 24 and rng.random() < 0.8:
        bits = 19 | (0x80000000 if rng.random() < 0.7 else 0)
        HEADER.pack_into(raw, 0, bits, len(raw), port, 0, 0, 1)
        if len(raw) >= 28:
            struct.pack_into("=I", raw, 24, rng.randrange(4))
    return raw


def test_random_bytes_never_hurt(task: Task, port: int, rng: random.Random) -> None:
    mach.mach_port_insert_right(task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    for _ in range(3000):
        raw = random_message(rng, port)
        code, _ = mach.mach_msg(task, raw, mach.MACH_SEND_MSG | mach.MACH_SEND_TIMEOUT)
        assert code == 0 or code in ffi.typeof("enum pm_code").elements
    while mach.mach_msg(task, b"", mach.MACH_RCV_MSG | mach.MACH_RCV_TIMEOUT, 4096, port)[0] == 0:
        pass
    assert lib.pm_task_alive(task._pointer)


def test_peek(task: Task, port: int) -> None:
    assert code_of(mach.mach_port_peek, task, port) == "KERN_FAILURE"
    mach.mach_msg(task, message(20, port, msgh_id=7, rest=bytes(8)), mach.MACH_SEND_MSG)
    element = mach.MACH_RCV_TRAILER_SENDER << 24
    seqno, _, msgh_id, trailer = mach.mach_port_peek(task, port, element)
    assert (seqno, msgh_id, len(trailer)) == (0, 7, 20)
