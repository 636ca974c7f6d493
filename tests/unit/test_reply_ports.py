# SPDX-License-Identifier: BSD-2-Clause
"""Reply ports (XNU's MPO_REPLY_PORT), and ports that take replies to nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pympi import Kernel, MachError, Task, mach

MAKE_SEND, MAKE_SEND_ONCE = mach.MACH_MSG_TYPE_MAKE_SEND, mach.MACH_MSG_TYPE_MAKE_SEND_ONCE


@pytest.fixture
def task() -> Iterator[Task]:
    with Kernel() as kernel:
        yield kernel.create_task("task")
        kernel.verify()


def port(task: Task, flags: int = 0) -> int:
    return mach.mach_port_construct(task, (flags, 0))


def refused(code: int, call: object, *arguments: object) -> None:
    with pytest.raises(MachError) as failure:
        call(*arguments)  # type: ignore[operator]
    assert failure.value.code == code


def send(task: Task, dest: int, reply: int, disposition: int) -> int:
    bits = MAKE_SEND | disposition << 8
    words = (bits, 24, dest, reply, 0, 1)
    message = b"".join(word.to_bytes(4, "little") for word in words)
    option = mach.MACH_SEND_MSG | mach.MACH_SEND_TIMEOUT
    return mach.mach_msg(task, message, option)[0]


def test_gives_send_once_rights_and_nothing_else(task: Task) -> None:
    reply, inbox = port(task, mach.MPO_REPLY_PORT), port(task)
    assert send(task, inbox, reply, MAKE_SEND) == mach.MACH_SEND_INVALID_REPLY
    assert send(task, inbox, reply, MAKE_SEND_ONCE) == 0
    refused(mach.KERN_INVALID_RIGHT, mach.mach_port_insert_right, task, reply, reply, MAKE_SEND)


def test_tells_nobody_of_its_end(task: Task) -> None:
    reply, told = port(task, mach.MPO_REPLY_PORT), port(task)
    for wish in (mach.MACH_NOTIFY_NO_SENDERS, mach.MACH_NOTIFY_PORT_DESTROYED):
        arguments = (task, reply, wish, 0, told, MAKE_SEND_ONCE)
        refused(mach.KERN_INVALID_RIGHT, mach.mach_port_request_notification, *arguments)


def test_cannot_be_born_with_a_send_right(task: Task) -> None:
    flags = mach.MPO_REPLY_PORT | mach.MPO_INSERT_SEND_RIGHT
    refused(mach.KERN_INVALID_ARGUMENT, port, task, flags)


def test_a_service_can_insist_on_reply_ports(task: Task) -> None:
    inbox = port(task, mach.MPO_ENFORCE_REPLY_PORT_SEMANTICS)
    assert send(task, inbox, port(task), MAKE_SEND_ONCE) == mach.MACH_SEND_INVALID_REPLY
    assert send(task, inbox, port(task, mach.MPO_REPLY_PORT), MAKE_SEND_ONCE) == 0
    assert send(task, inbox, 0, 0) == 0
