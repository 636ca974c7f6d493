# SPDX-License-Identifier: BSD-2-Clause
"""A system in which every object has a label of its own, and a policy that refuses what it is told.

`Refuse` allows everything but what was refused, so a test says exactly which question is answered
with no, and `Refuse.asked` tells which were asked.
"""

from __future__ import annotations

from typing import Any

from faults.world import (
    COPY_SEND,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    RECEIVE,
    SEND,
)

from pympi import Kernel, Task, mach
from pympi.enums import ALL, ObjectClass, PortRight
from pympi.policy import Decision, PolicyModule

# The permission to give by each disposition, and to take by each kind of right that arrives.
GIVE = {
    MOVE_RECEIVE: "move_recv",
    MOVE_SEND: "move_send",
    MOVE_SEND_ONCE: "move_send_once",
    COPY_SEND: "copy_send",
    MAKE_SEND: "make_send",
    MAKE_SEND_ONCE: "make_send_once",
}
TAKE = {
    MOVE_RECEIVE: "hold_recv",
    MOVE_SEND: "hold_send",
    MOVE_SEND_ONCE: "hold_send_once",
    COPY_SEND: "hold_send",
    MAKE_SEND: "hold_send",
    MAKE_SEND_ONCE: "hold_send_once",
}


class Refuse(PolicyModule):
    """Labels are names; refuses what it was told to, and remembers what it was asked.

    Args:
        uncached: whether it is asked about every operation.
    """

    name = "who"

    def __init__(self, *, uncached: bool = False) -> None:
        self.uncached = uncached
        self.refused: set[tuple[str, str, str, str]] = set()
        self.asked: list[tuple[str, str, str]] = []

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Allow all but what is refused for these three; "*" stands for every source or target."""
        self.asked.append((source, target, tclass.name))
        vector = 0
        for who, whom, kind, permission in self.refused:
            if who in (source, "*") and whom in (target, "*") and kind == tclass.name:
                vector |= tclass.mask(permission)
        return Decision(allowed=ALL & ~vector)


class Scene:
    """A client that has a right of each kind to give, and a server that will get them.

    Attributes:
        inbox: the server's port, labelled inbox.
        dest, dest_once: the client's rights to it; mine: a port of the client's so labelled.
        spare: a receive right of the client's, labelled gift.
        held, once: the client's send and send-once rights to a port of the server's labelled gift.
        answer: a receive right of the client's, labelled answer.
        memory: the address of 64 bytes of the client's.
    """

    def __init__(self, *, uncached: bool = False, **options: Any) -> None:
        self.policy = Refuse(uncached=uncached)
        self.kernel = kernel = Kernel(policies=[self.policy], **options)
        self.server: Task = kernel.create_task("server", "who/server")
        self.client: Task = kernel.create_task("client", "who/client")
        client, inbox = self.client, self.server.allocate_port("who/inbox")
        gift = self.server.allocate_port("who/gift")
        self.inbox = inbox.name
        self.gift = gift.name
        self.dest = inbox.make_send(client).name
        mach.mach_port_mod_refs(client, self.dest, PortRight.SEND, 1)
        self.dest_once = inbox.make_send_once(client).name
        self.mine = client.allocate_port("who/inbox").name
        self.spare = client.allocate_port("who/gift").name
        self.held = gift.make_send(client).name
        self.once = gift.make_send_once(client).name
        self.answer = client.allocate_port("who/answer").name
        self.memory = mach.vm_allocate(client, 64)

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.verify()
        self.kernel.close()

    def send(self, raw: bytes) -> tuple[int, bytes]:
        """Have the client send a message in wire form."""
        return mach.mach_msg(self.client, raw, SEND)

    def receive(self, name: int = 0) -> tuple[int, bytes]:
        """Have the server receive from its inbox, or from another name."""
        return mach.mach_msg(self.server, b"", RECEIVE, 4096, name or self.inbox)

    def refuse(self, *refused: tuple[str, str, str, str]) -> None:
        """Refuse (source, target, class, permissions), and forget what was decided."""
        self.policy.refused = set(refused)
        self.kernel.policies.permissive = False

    def to_give(self, disposition: int) -> int:
        """Return a name of the client's that can be given so; the port is labelled gift."""
        return {MOVE_SEND: self.held, COPY_SEND: self.held, MOVE_SEND_ONCE: self.once}.get(
            disposition, self.spare
        )

    def to_send(self, disposition: int) -> int:
        """Return a name that can be sent to so; the port is labelled inbox."""
        return {
            MOVE_SEND: self.dest, COPY_SEND: self.dest, MOVE_SEND_ONCE: self.dest_once
        }.get(disposition, self.mine)  # fmt: skip
