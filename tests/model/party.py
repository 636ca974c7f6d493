# SPDX-License-Identifier: BSD-2-Clause
"""A task of some world, with the short words that facts are told in."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import mach_numbers as m
import pytest
from wire import Arrived, Letter
from worlds import Refused, World


def refused(code: int, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Asserts that the call is refused with exactly this code."""
    with pytest.raises(Refused) as caught:
        call(*arguments, **options)
    assert caught.value.code == code


class Party:
    """`party.allocate(...)` is mach_port_allocate with this task as the actor, and so on."""

    def __init__(self, world: World, label: str = "", parent: Party | None = None) -> None:
        self.world = world
        self.task: Any = world.create_task(label, 0, parent.task if parent else None)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return self.world.call(f"mach_port_{name}", self.task, *arguments, **options)

        return call

    def port(self, sends: int = 0) -> int:
        """A new receive right, with that many user references of send rights."""
        name: int = self.allocate(m.RIGHT_RECEIVE)
        for _ in range(sends):
            self.insert_right(name, name, m.MAKE_SEND)
        return name

    def set(self, *members: int) -> int:
        """A new port set with these members."""
        name: int = self.allocate(m.RIGHT_PORT_SET)
        for member in members:
            self.insert_member(member, name)
        return name

    def dead_name(self, urefs: int = 1) -> int:
        """A dead name that was a send right with so many references."""
        name = self.port(sends=urefs)
        self.mod_refs(name, m.RIGHT_RECEIVE, -1)
        return name

    def take(self, other: Party, name: int, disposition: int) -> int:
        """Takes a right out of another party's space; its name here."""
        taken: int = other.extract_right(name, disposition, caller=self.task)[0]
        return taken

    def once(self, name: int) -> int:
        """A new send-once right for a port of this task."""
        made: int = self.extract_right(name, m.MAKE_SEND_ONCE)[0]
        return made

    def refs(self, name: int, right: int = m.RIGHT_SEND) -> int:
        count: int = self.get_refs(name, right)
        return count

    def kind(self, name: int) -> int:
        bits: int = self.type(name)
        return bits

    def status(self, name: int) -> dict[str, int]:
        """RECEIVE_STATUS by field."""
        fields = "psets seqno mscount qlimit msgcount sorights srights pdrequest nsrequest flags"
        values = self.get_attributes(name, m.RECEIVE_STATUS)
        return dict(zip(fields.split(), values, strict=True))

    def names_now(self) -> dict[int, int]:
        return dict(self.names())

    def limit(self, name: int, qlimit: int) -> None:
        self.set_attributes(name, m.LIMITS_INFO, [qlimit])

    def notify(self, name: int, id_: int, sync: int, notify: int) -> int:
        """request_notification with a send-once right made from `notify`; the previous one."""
        previous: int = self.request_notification(name, id_, sync, notify, m.MAKE_SEND_ONCE)
        return previous

    def send(self, dest: int, dest_type: int = m.COPY_SEND, **fields: Any) -> int:
        """The code of sending a `Letter`."""
        option = fields.pop("option", 0)
        return self.world.send(self.task, Letter(dest, dest_type, **fields), option)

    def send_back(self, dest: int, dest_type: int, **fields: Any) -> tuple[int, Arrived | None]:
        """The code, and the message if it was handed back."""
        option = fields.pop("option", 0) | m.OPTION_SEND
        return self.world.mach_msg(self.task, Letter(dest, dest_type, **fields), option)

    def send_bytes(self, message: bytes) -> int:
        return self.world.send(self.task, message)

    def fill(self, name: int, dest_type: int = m.MAKE_SEND) -> None:
        """Fills the queue of a port of this task."""
        while (status := self.status(name))["msgcount"] < status["qlimit"]:
            assert self.send(name, dest_type) == m.SUCCESS

    def receive(self, name: int, option: int = 0, size: int = 4096) -> Arrived:
        """The next message; the test fails if there is none."""
        code, arrived = self.world.receive(self.task, name, option, size)
        assert code == m.SUCCESS, hex(code)
        assert arrived is not None
        return arrived

    def receive_code(self, name: int, option: int = 0, size: int = 4096) -> int:
        return self.world.receive(self.task, name, option, size)[0]

    def empty(self, name: int) -> bool:
        return self.receive_code(name) == m.RCV_TIMED_OUT

    def told(self, name: int) -> list[tuple[int, int]]:
        """The notifications waiting on a port: (id, name or count)."""
        found = []
        while (result := self.world.receive(self.task, name))[0] == m.SUCCESS:
            arrived = result[1]
            assert arrived is not None
            word = struct.unpack_from("<I", arrived.data, 8)[0] if len(arrived.data) >= 12 else 0
            found.append((arrived.id, word))
        return found

    def terminate(self) -> None:
        self.world.terminate(self.task)
