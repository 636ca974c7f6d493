# SPDX-License-Identifier: BSD-2-Clause
"""What a port's death tells, and in which order (XNU's ipc_port.c)."""

from __future__ import annotations

from pympi import Kernel, mach

MAKE_SEND_ONCE = mach.MACH_MSG_TYPE_MAKE_SEND_ONCE


def test_no_senders_then_messages_then_dead_names() -> None:
    with Kernel() as kernel:
        owner, other = kernel.create_task("owner"), kernel.create_task("other")
        port, told = owner.allocate_port(), owner.allocate_port(qlimit=9)
        right = port.make_send(other)
        right.send(b"", reply=told.make_send_once(other).move_send_once())
        for task, name, wish in (
            (owner, port.name, mach.MACH_NOTIFY_NO_SENDERS),
            (other, right.name, mach.MACH_NOTIFY_DEAD_NAME),
        ):
            notify = told.name if task is owner else told.make_send_once(other).name
            how = MAKE_SEND_ONCE if task is owner else mach.MACH_MSG_TYPE_MOVE_SEND_ONCE
            mach.mach_port_request_notification(task, name, wish, 0, notify, how)
        port.close()
        ids = [told.receive(timeout=0).msgh_id for _ in range(3)]
        once, dead = mach.MACH_NOTIFY_SEND_ONCE, mach.MACH_NOTIFY_DEAD_NAME
        assert ids == [once, once, dead]
        refs = mach.mach_port_get_refs(other, right.name, mach.MACH_PORT_RIGHT_DEAD_NAME)
        assert refs == 2  # the notification brought one
        kernel.verify()
