# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of bad input share: a system with every kind of right, and what "unchanged" means.

A refused call must leave everything as it was. `state` is that everything, as the calls of Mach
show it; `refused` makes a call, and asserts its code, that nothing has changed, that exactly one
audit record tells of it, and that the kernel's own books are right.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pympi import Kernel, MachError, Task, mach
from pympi.enums import PortRight, PortType
from pympi.errors import code_name

HEADER = struct.Struct("=IIIIIi")
COMPLEX = 0x80000000
MOVE_RECEIVE, MOVE_SEND, MOVE_SEND_ONCE = 16, 17, 18
COPY_SEND, MAKE_SEND, MAKE_SEND_ONCE = 19, 20, 21
DISPOSITIONS = range(MOVE_RECEIVE, MAKE_SEND_ONCE + 1)
SEND = mach.MACH_SEND_MSG | mach.MACH_SEND_TIMEOUT
RECEIVE = mach.MACH_RCV_MSG | mach.MACH_RCV_TIMEOUT
NO_NAME = 0x7F0003  # a well-formed name that denotes nothing

# ---- messages in wire form ----


def message(
    dest: int, dest_type: int = COPY_SEND, reply: int = 0, reply_type: int = 0, msgh_id: int = 0,
    body: bytes = b"", descriptors: tuple[bytes, ...] | None = None, bits: int = 0,
    count: int | None = None,
) -> bytes:  # fmt: skip
    """Return a message; `descriptors` makes it complex, `count` lies about how many there are."""
    if descriptors is not None:
        number = len(descriptors) if count is None else count
        body = struct.pack("=I", number) + b"".join(descriptors) + body
        bits |= COMPLEX
    bits |= dest_type | reply_type << 8
    return HEADER.pack(bits, HEADER.size + len(body), dest, reply, 0, msgh_id) + body


def port(name: int, disposition: int, kind: int = mach.MACH_MSG_PORT_DESCRIPTOR) -> bytes:
    return struct.pack("=IIHBB", name, 0, 0, disposition, kind)


def ool(address: int, size: int, kind: int = 1, *, deallocate: int = 0, copy: int = 1) -> bytes:
    return struct.pack("=QBBBBI", address, deallocate, copy, 0, kind, size)


def ool_ports(address: int, count: int, disposition: int, *, deallocate: int = 0) -> bytes:
    kind = mach.MACH_MSG_OOL_PORTS_DESCRIPTOR
    return struct.pack("=QBBBBI", address, deallocate, 1, disposition, kind, count)


def guarded(name: int, disposition: int = MOVE_RECEIVE, context: int = 7, flags: int = 0) -> bytes:
    kind = mach.MACH_MSG_GUARDED_PORT_DESCRIPTOR
    return struct.pack("=QHBBI", context, flags, disposition, kind, name)


# ---- a system with every kind of right ----


@dataclass
class World:
    """A server with an inbox, and a client that has a name of each kind.

    Attributes:
        inbox: the server's receive right.
        dest: send right to it, two references.
        once: send-once right to it.
        own: a receive right of the client's, with a send right under the same name.
        plain: a receive right alone.
        dead: a dead name.
        pset: a port set.
        memory: the address of 64 bytes of the client's.
    """

    kernel: Kernel
    server: Task
    client: Task
    inbox: int
    dest: int
    once: int
    own: int
    plain: int
    dead: int
    pset: int
    memory: int

    @property
    def names(self) -> dict[str, int]:
        """The client's names, by what they hold."""
        kinds = ("dest", "once", "own", "plain", "dead", "pset")
        return {kind: getattr(self, kind) for kind in kinds}

    def held(self) -> dict[int, Any]:
        """Return what the client holds, by name."""
        found: dict[int, Any] = state(self.kernel)[f"task {self.client.id}"]["names"]
        return found

    def send(self, raw: bytes, option: int = SEND) -> tuple[int, bytes]:
        return mach.mach_msg(self.client, raw, option)

    def receive(self, size: int = 4096, option: int = 0, name: int = 0) -> tuple[int, bytes]:
        return mach.mach_msg(self.server, b"", RECEIVE | option, size, name or self.inbox)

    def refuses(self, raw: bytes, code: str) -> np.ndarray[Any, Any]:
        """Assert that a message is refused, and that this changes nothing."""
        return refused(self.kernel, lambda: self.send(raw), code)


def make_world(kernel: Kernel, label: str | None = None) -> World:
    server, client = kernel.create_task("server", label), kernel.create_task("client", label)
    inbox = server.allocate_port()
    dest = inbox.make_send(client)
    mach.mach_port_mod_refs(client, dest.name, PortRight.SEND, 1)
    own, dying = client.allocate_port(), server.allocate_port()
    own.make_send(client)
    dead = dying.make_send(client).name
    mach.mach_port_destroy(server, dying.name)
    return World(
        kernel, server, client, inbox.name, dest.name, inbox.make_send_once(client).name, own.name,
        client.allocate_port().name, dead, client.create_port_set().name,
        mach.vm_allocate(client, 64),
    )  # fmt: skip


# ---- everything that a refused call must not change ----

_COUNTS = ("tasks", "ports", "port_sets", "names", "messages_queued", "bytes_queued", "sids")


def state(kernel: Kernel) -> dict[str, Any]:
    """Return the whole state as tasks can see it, whatever they may see of it.

    Looking is mediated too, so it is done in permissive mode; this moves the policy's epoch.
    """
    if watched := bool(len(kernel.policies)) and not kernel.policies.permissive:
        kernel.policies.permissive = True
    try:
        for task in kernel.tasks.values():
            task.names()  # rights to dead ports become dead names when they are looked at
        seen: dict[str, Any] = {f"task {task.id}": _task(task) for task in kernel.tasks.values()}
    finally:
        if watched:
            kernel.policies.permissive = False
    stats = kernel.stats()
    seen["counts"] = {count: stats[count] for count in _COUNTS}
    return seen


def _task(task: Task) -> dict[str, Any]:
    names = {name: _name(task, name, held) for name, held in task.names().items()}
    return {"label": task.sid, "usage": task.usage, "names": names}


def _name(task: Task, name: int, held: int) -> tuple[Any, ...]:
    refs = [mach.mach_port_get_refs(task, name, right) for right in PortRight]
    right = task.receive_right(name)
    facts = (held, refs, right.port_id, right.provenance)
    if held & PortType.PORT_SET:
        return (*facts, mach.mach_port_get_set_status(task, name))
    if not held & PortType.RECEIVE:
        return facts
    flavors = (mach.MACH_PORT_RECEIVE_STATUS, mach.MACH_PORT_DNREQUESTS_SIZE)
    attributes = [mach.mach_port_get_attributes(task, name, flavor) for flavor in flavors]
    status = right.status
    places = range(status.msgcount)
    queue = [right.peek((status.seqno + place) & 0xFFFFFFFF) for place in places]
    return (*facts, right.sid, attributes, right.context, queue)


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what differs between two states: before and after, by task. Neither may lack any."""
    keys = before.keys() | after.keys()
    both = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def outcome(call: Callable[[], Any]) -> str:
    """Return the name of the code a call ends with."""
    try:
        result = call()
    except MachError as error:
        return error.name
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], bytes):
        return code_name(result[0])
    return "KERN_SUCCESS"


def refused(
    kernel: Kernel, call: Callable[[], Any], code: str, records: int = 1
) -> np.ndarray[Any, Any]:
    """Assert that a call fails with `code`, changes nothing and is audited; return the records."""
    before = state(kernel)
    kernel.audit.drain()
    found = outcome(call)
    written = kernel.audit.drain()
    assert found == code
    assert differences(before, state(kernel)) == {}
    kernel.verify()
    assert len(written) == records, written
    assert {code_name(result) for result in written["result"].tolist()} <= {code}
    kernel.audit.drain()
    return written
