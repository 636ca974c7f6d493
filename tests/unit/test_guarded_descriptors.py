# SPDX-License-Identifier: BSD-2-Clause
"""Guarded port descriptors: a receive right that says how it is guarded (XNU's mach/message.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from pympi import AccessDenied, Kernel, Task, mach
from pympi.policy import Rules

IMMOVABLE = mach.MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE
UNGUARDED = mach.MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND


@pytest.fixture
def task() -> Iterator[Task]:
    with Kernel() as kernel:
        yield kernel.create_task("task")
        kernel.verify()


def send(task: Task, dest: int, name: int, context: int, flags: int) -> int:
    kind, disposition = mach.MACH_MSG_GUARDED_PORT_DESCRIPTOR, mach.MACH_MSG_TYPE_MOVE_RECEIVE
    bits = 0x80000000 | mach.MACH_MSG_TYPE_MAKE_SEND
    head = struct.pack("<IIIIIi", bits, 44, dest, 0, 0, 1)
    body = struct.pack("<IQHBBI", 1, context, flags, disposition, kind, name)
    return mach.mach_msg(task, head + body, mach.MACH_SEND_MSG | mach.MACH_SEND_TIMEOUT)[0]


def arrived(task: Task, inbox: int) -> int:
    code, message = mach.mach_msg(
        task, b"", mach.MACH_RCV_MSG | mach.MACH_RCV_TIMEOUT, rcv_size=256, rcv_name=inbox
    )
    assert code == 0
    return int(struct.unpack_from("<I", message, 28)[0])


@pytest.mark.parametrize(
    ("guard", "context", "flags", "code"),
    [
        (None, 9, 0, 0),
        (None, 9, UNGUARDED, 0),
        (7, 7, 0, 0),
        (7, 8, 0, mach.MACH_SEND_INVALID_RIGHT),
        (7, 7, UNGUARDED, mach.MACH_SEND_INVALID_RIGHT),
        (None, 9, 4, mach.MACH_SEND_INVALID_TYPE),
    ],
)
def test_the_sender_knows_the_guard(
    task: Task, guard: int | None, context: int, flags: int, code: int
) -> None:
    inbox, port = (mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE) for _ in range(2))
    if guard is not None:
        mach.mach_port_guard(task, port, guard, False)
    assert send(task, inbox, port, context, flags) == code
    if code:
        assert mach.mach_port_type(task, port) == mach.MACH_PORT_TYPE_RECEIVE
    else:
        mach.mach_port_unguard(task, arrived(task, inbox), context)


def test_it_can_arrive_immovable(task: Task) -> None:
    inbox, port = (mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE) for _ in range(2))
    assert send(task, inbox, port, 9, IMMOVABLE) == 0
    port = arrived(task, inbox)
    assert send(task, inbox, port, 9, 0) == mach.MACH_SEND_INVALID_RIGHT


def test_asking_for_port_destroyed_is_giving_the_right_away() -> None:
    rules = Rules.from_text("allow a * mach_port { request_notification make_send_once };")
    with Kernel(policies=[rules]) as kernel:
        task = kernel.create_task("task", label="rules/a")
        port, told = task.allocate_port(), task.allocate_port()
        with pytest.raises(AccessDenied) as refusal:
            mach.mach_port_request_notification(
                task, port.name, mach.MACH_NOTIFY_PORT_DESTROYED, 0, told.name,
                mach.MACH_MSG_TYPE_MAKE_SEND_ONCE,
            )  # fmt: skip
        assert refusal.value.permission == "move_recv"
