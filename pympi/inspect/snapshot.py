# SPDX-License-Identifier: BSD-2-Clause
"""The state of a kernel at one time, as data: what the tools read, live or from a file.

A snapshot is taken while the system runs. It is consistent object by object: each row is what that
object was at one moment between `begin` and `end`. What the kernel did in the meantime is in
`changes`; none of it, and the snapshot is exact.

Ports, tasks and sets have numbers that are never used twice in a kernel, so rows are joined by
them: a right's `object` is a port's `id`, a port's `receiver` a task's `id`. A number that no row
has is that of an object made or gone meanwhile, or of one that the peer may not see.
"""

from __future__ import annotations

import os

import msgspec

from .table import I32, U32, U64, Flag, Row, Table, Text

__all__ = [
    "VERSION", "Changes", "Context", "Mark", "Module", "Policy", "Port", "Right", "Service",
    "Snapshot", "Task",
]  # fmt: skip

VERSION = 1
"""Version of the data model, of the file and of the protocol's rows."""


class Task(Row, frozen=True):
    """A task.

    Attributes:
        id: its number.
        name, label: as given; "" for a label that is not known any more.
        alive: False once it is terminated: something still refers to it.
        parent: the number of the task that made it; 0 none.
        auid, euid, egid, ruid, rgid, pid, asid: its identity, from its audit token.
        names: how many names its space holds.
        ports, sids, notifications: how many of each it pays for.
        queued_bytes, memory: bytes it pays for.
        in_flight: messages that it sent and that are not gone yet.
        bootstrap: the number of its bootstrap port; 0 none.
    """

    id: U32
    name: Text
    label: Text
    alive: Flag
    parent: U32
    auid: U32
    euid: U32
    egid: U32
    ruid: U32
    rgid: U32
    pid: U32
    asid: U32
    names: U32
    ports: U32
    sids: U32
    notifications: U32
    queued_bytes: U64
    memory: U64
    in_flight: U32
    bootstrap: U64

    @property
    def uid(self) -> int:
        """The real user number."""
        return self.ruid


class Port(Row, frozen=True):
    """A port.

    Attributes:
        id: its number.
        label: "" if it is not known any more.
        state: "received": a task holds the receive right; "in transit": a message carries it;
            "dead": what is left of it is kept by those who hold its name.
        receiver: the number of the task with the receive right; 0 unless received.
        receiver_name: the name under which it holds it.
        destination: in transit: the number of the port whose queue the message is in; 0 if that is
            not known.
        queue_length, queue_limit: messages.
        queued_bytes: of message bodies.
        queued_bytes_partial: only the first 1,024 messages were added up.
        seqno, mscount: as in Mach.
        send_rights, send_once_rights: how many there are, those in messages and those kept by the
            kernel included. A task's user references of a name count once.
        sets: how many port sets it is in; set: the number of one of them.
        kind: of kernel object, as in the trace; 0 none.
        handler: a handler takes its messages instead of a queue.
        interface: the class of its methods, "mi_<subsystem>"; "" none.
        guarded, strict, immovable: its guard.
        reply_port: gives send-once rights and nothing else.
        no_senders, port_destroyed: the number of the port to which that notification goes; 0 not
            armed.
        blocked_senders, blocked_receivers: threads that wait.
        maker: the number of the task that made it, and pays for it.
        owner, number: its identity in the trace; number -1: it has not been given one.
    """

    id: U64
    label: Text
    state: Text
    receiver: U32
    receiver_name: U32
    destination: U64
    queue_length: U32
    queue_limit: U32
    queued_bytes: U64
    queued_bytes_partial: Flag
    seqno: U32
    mscount: U32
    send_rights: U32
    send_once_rights: U32
    sets: U32
    set: U64
    kind: U32
    handler: Flag
    interface: Text
    guarded: Flag
    strict: Flag
    immovable: Flag
    reply_port: Flag
    no_senders: U64
    port_destroyed: U64
    blocked_senders: U32
    blocked_receivers: U32
    maker: U32
    owner: Text
    number: I32


class Right(Row, frozen=True):
    """A name in a task's space, and what it denotes.

    Attributes:
        task: the number of the task.
        name: the name.
        types: MACH_PORT_TYPE_* bits: `pympi.enums.PortType`; several for a name of the receive
            right and send rights.
        user_references: of a send right or dead name.
        object: the number of the port or port set; of a dead name, that of the port it denoted if
            that is still known, else 0.
        request: the notification armed for the name: "dead name", "send possible" or "".
        request_port: the number of the port to which it goes.
        provenance: the transfer that created the name (as in audit records); 0: made in this task.
    """

    task: U32
    name: U32
    types: U32
    user_references: U32
    object: U64
    request: Text
    request_port: U64
    provenance: U64


class Mark(msgspec.Struct, frozen=True):
    """The kernel's counters at one moment.

    Attributes:
        sequence: counts operations; equal at two marks: nothing happened between them.
        time: of the kernel's clock, nanoseconds.
        ports_made, ports_gone, tasks_made, tasks_ended: since the kernel began. Port sets count as
            ports.
        sent, received, transfers: messages.
        epoch: of the policy.
    """

    sequence: int = 0
    time: int = 0
    ports_made: int = 0
    ports_gone: int = 0
    tasks_made: int = 0
    tasks_ended: int = 0
    sent: int = 0
    received: int = 0
    transfers: int = 0
    epoch: int = 0


class Changes(msgspec.Struct, frozen=True):
    """What the kernel did while the snapshot was taken: the difference of two marks."""

    operations: int
    ports_made: int
    ports_gone: int
    tasks_made: int
    tasks_ended: int
    sent: int
    received: int
    policies: int


class Module(msgspec.Struct, frozen=True):
    """A policy module in force.

    Attributes:
        name: its name in labels.
        permissive: its refusals are recorded, not enforced.
        failures: how often it raised or answered nonsense.
        shadow: how many operations a shadow of it would have decided otherwise; None: no shadow.
    """

    name: str
    permissive: bool = False
    failures: int = 0
    shadow: int | None = None


class Policy(msgspec.Struct, frozen=True):
    """The policy in force.

    Attributes:
        epoch: counts changes.
        permissive: nothing is refused.
        modules: in force.
        failures: questions that could not be answered for another reason than a module.
    """

    epoch: int = 0
    permissive: bool = False
    modules: tuple[Module, ...] = ()
    failures: int = 0


class Service(msgspec.Struct, frozen=True):
    """A name in a bootstrap context.

    Attributes:
        name: as registered: any text that UTF-8 can hold; escape it before it is shown.
        server: what runs to serve it: a program, or the name of a task; "" unknown.
        state: "active", "inactive" or "on demand".
        label: of the name: what class `service` is asked of.
        port: the number of its port; 0 none.
        task: the number of the task that serves it; 0 none.
    """

    name: str
    server: str = ""
    state: str = ""
    label: str = ""
    port: int = 0
    task: int = 0


class Context(msgspec.Struct, frozen=True):
    """A context of the name server.

    Attributes:
        id: its number; port: that of its port.
        parent: the number of the context around it; 0: it is the root.
        label: of its port.
        services: its names.
    """

    id: int
    parent: int = 0
    label: str = ""
    port: int = 0
    services: tuple[Service, ...] = ()


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot has beside its tables; what the fields are is said there."""

    kernel_time: float
    wall_time: float
    begin: Mark
    end: Mark
    stopped_seconds: float | None
    policy: Policy
    stats: dict[str, int]
    audit: dict[str, int]
    bootstrap: tuple[Context, ...] | None


class Snapshot(Head, frozen=True, kw_only=True, dict=True):
    """The state of a kernel.

    Attributes:
        version: of this form.
        kernel_time: seconds of the kernel's clock; wall_time: seconds since 1970. Both when begun.
        begin, end: the kernel's counters before and after.
        stopped_seconds: how long the kernel stood still for it; None: it did not.
        tasks, ports, rights: tables; each row is consistent in itself.
        policy: what is in force.
        stats: the kernel's counters, as of `Kernel.stats`.
        audit: counts of records: `Audit.stats`.
        bootstrap: the name server's contexts; None: this kernel has no name server.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     server, client = kernel.create_task("server"), kernel.create_task("client")
        ...     printer = server.allocate_port().make_send(client)
        ...     snapshot = kernel.snapshot()
        >>> right = snapshot.rights_of(client.id)[0]
        >>> port = snapshot.port(right.object)
        >>> snapshot.task(port.receiver).name
        'server'
    """

    version: int = VERSION
    tasks: Table[Task]
    ports: Table[Port]
    rights: Table[Right]
    bootstrap: tuple[Context, ...] | None = None

    @property
    def changes(self) -> Changes:
        """What the kernel did between `begin` and `end`."""
        begin, end = self.begin, self.end
        return Changes(
            operations=end.sequence - begin.sequence,
            ports_made=end.ports_made - begin.ports_made,
            ports_gone=end.ports_gone - begin.ports_gone,
            tasks_made=end.tasks_made - begin.tasks_made,
            tasks_ended=end.tasks_ended - begin.tasks_ended,
            sent=end.sent - begin.sent,
            received=end.received - begin.received,
            policies=end.epoch - begin.epoch,
        )

    # ---- joins ----

    def task(self, number: int) -> Task | None:
        """Return the task of a number, or None."""
        return next(iter(self.tasks.find("id", number)), None)

    def port(self, number: int) -> Port | None:
        """Return the port of a number, or None."""
        return next(iter(self.ports.find("id", number)), None)

    def rights_of(self, task: int) -> Table[Right]:
        """Return the names in a task's space."""
        return self.rights.find("task", task)

    def holders(self, port: int) -> Table[Right]:
        """Return the names, of any task, that denote a port or port set."""
        return self.rights.find("object", port)

    # ---- files ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the snapshot to a file; what was there before stays until all is written.

        Raises:
            OSError: it cannot be written; nothing has changed.
        """
        from . import file

        file.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Snapshot:
        """Read a snapshot from a file.

        Raises:
            SnapshotError: not a snapshot, damaged, too large, or of a later version.
            OSError: it cannot be read.
        """
        from . import file

        return file.load(path)
