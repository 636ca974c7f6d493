# SPDX-License-Identifier: BSD-2-Clause
"""The reference: Mach IPC in plain Python, slow and meant to be obviously right.

Every call is one method of `Model`, under its Mach name, with the acting `Task` first. A refused
call raises `Fault` with Mach's code and has changed nothing; `mach_msg` returns its code. Queues,
rights and counts are plain attributes, so that a test can look at them.

What is decided here, once:

* Names, numbers and layouts are XNU's. The first names of a task are 0x103, 0x203, ...: index << 8
  | generation. A generation starts at 3 and moves by 4 (mod 256) each time its index is used
  again; a freed index is the next one used (last in, first out); index 0 is never used.
* A user reference beyond 65535 is UREFS_OVERFLOW and the count stays; when a right is copied out,
  the extra reference is dropped and the name delivered.
* An error of a send changes nothing, rights in the body included. TIMED_OUT is not an error in
  this sense: the message is pseudo-received, that is copied out again into the sender's space.
* Names 0 and ~0 in deallocate and destroy succeed, sets may be deallocated, a port may be in
  several sets (XNU); sets take their members in turn.
* A message that would carry a receive right into its own queue is accepted and destroyed (Mach).
* Dead names appear at once when a port dies. A real kernel may convert lazily; nobody can tell.
* A port that dies tells the latest request first; its queue is destroyed when the call is over,
  first in, first out, so that a chain of ports costs no stack. A name that goes in the same call
  tells who asked about it then.
* A call that fails leaves the rights it was given with the caller (Mach's in-process form), and
  insert_right decides where a right may stand before it moves.
* Extracting a dead name yields MACH_PORT_DEAD; a receive right that may not move is INVALID_RIGHT;
  destruct of an unguarded port takes the guard 0; a notify port that is none is
  INVALID_CAPABILITY; RECEIVE_STATUS counts the sets of a port.
* A guarded descriptor says how the right is guarded now, and will be where it arrives.
* There are no vouchers, so every name given as one is invalid.
* The kernel's own messages are neither mediated nor traced; without a policy all is allowed.
* Mandatory access control is a function `allows(subject, object, class, permission)`.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mach_numbers as m

GIVE = {
    m.MOVE_RECEIVE: "move_recv",
    m.MOVE_SEND: "move_send",
    m.MOVE_SEND_ONCE: "move_send_once",
    m.COPY_SEND: "copy_send",
    m.MAKE_SEND: "make_send",
    m.MAKE_SEND_ONCE: "make_send_once",
}
TAKE = {
    m.PORT_RECEIVE: "hold_recv",
    m.PORT_SEND: "hold_send",
    m.PORT_SEND_ONCE: "hold_send_once",
}
# The one interface there is: its class, and the routine of each message number.
INTERFACE = "mi_model"
ROUTINES = {100: "first", 101: "second", 102: "third"}
# SEDarwin's numbers of what ipctrace counts.
EVENT_SEND, EVENT_RECV = 1, 2
EVENT_GIVE = {
    m.MAKE_SEND: 3,
    m.MAKE_SEND_ONCE: 4,
    m.COPY_SEND: 5,
    m.MOVE_SEND: 6,
    m.MOVE_SEND_ONCE: 7,
    m.MOVE_RECEIVE: 8,
}
EVENT_TAKE = {m.PORT_SEND: 9, m.PORT_SEND_ONCE: 10, m.PORT_RECEIVE: 11}
RECEIVED = {
    m.MOVE_RECEIVE: m.PORT_RECEIVE,
    m.MOVE_SEND: m.PORT_SEND,
    m.MOVE_SEND_ONCE: m.PORT_SEND_ONCE,
    m.COPY_SEND: m.PORT_SEND,
    m.MAKE_SEND: m.PORT_SEND,
    m.MAKE_SEND_ONCE: m.PORT_SEND_ONCE,
    0: 0,
}
TYPE_OF_RIGHT = {right: 0x10000 << right for right in range(m.RIGHT_NUMBER)}
STATUS_FLAG = {
    m.TEMPOWNER: m.STATUS_TEMPOWNER,
    m.IMPORTANCE_RECEIVER: m.STATUS_IMP_DONATION,
    m.DENAP_RECEIVER: 0,
}
ALLOCATED = (m.RIGHT_RECEIVE, m.RIGHT_PORT_SET, m.RIGHT_DEAD_NAME)
# What is asked of the one whose space is acted on, where another acts.
INSERTS, EXTRACTS, OBSERVES = "insert_right", "extract_right", "observe"
ASKED_OF_SPACE = {
    "mach_port_allocate": INSERTS,
    "mach_port_allocate_name": INSERTS,
    "mach_port_construct": INSERTS,
    "mach_port_insert_member": INSERTS,
    "mach_port_move_member": INSERTS,
    "mach_port_set_attributes": INSERTS,
    "mach_port_set_mscount": INSERTS,
    "mach_port_set_seqno": INSERTS,
    "mach_port_set_context": INSERTS,
    "mach_port_guard": INSERTS,
    "mach_port_guard_with_flags": INSERTS,
    "mach_port_unguard": INSERTS,
    "mach_port_swap_guard": INSERTS,
    "mach_port_request_notification": INSERTS,
    "relabel_port": INSERTS,
    "mach_port_mod_refs": EXTRACTS,
    "mach_port_deallocate": EXTRACTS,
    "mach_port_destroy": EXTRACTS,
    "mach_port_destruct": EXTRACTS,
    "mach_port_extract_member": EXTRACTS,
    "mach_port_type": OBSERVES,
    "mach_port_names": OBSERVES,
    "mach_port_get_refs": OBSERVES,
    "mach_port_get_set_status": OBSERVES,
    "mach_port_get_attributes": OBSERVES,
    "mach_port_get_context": OBSERVES,
    "mach_port_peek": OBSERVES,
    "mach_port_assert_attributes": OBSERVES,
}
LIVE = m.TYPE_SEND | m.TYPE_RECEIVE | m.TYPE_SEND_ONCE
KERNEL_TOKEN = (0, 1)


class Fault(Exception):
    """A call that Mach refuses; `code` is the number it returns."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code:#x}")
        self.code = code


def need(condition: object, code: int) -> None:
    """Refuses the call with `code` unless `condition` holds."""
    if not condition:
        raise Fault(code)


def valid(name: int) -> bool:
    """MACH_PORT_VALID: neither null nor dead."""
    return name not in (m.NULL, m.DEAD)


class Right(NamedTuple):
    """A right outside any space: in a message, or held by the kernel."""

    kind: int  # PORT_RECEIVE, PORT_SEND, PORT_SEND_ONCE; 0 for no reply
    port: Port | int  # or NULL, or DEAD
    denied: bool = False  # the receiver may not hold it


@dataclass(eq=False)
class Request:
    """A dead-name or send-possible request of one entry."""

    task: Task
    name: int
    notify: Port
    possible: bool = False
    armed: bool = False


@dataclass(eq=False)
class Port:
    """A port. While its receive right is in a space, `task` and `name` say where."""

    label: str
    task: Task | None
    name: int
    alive: bool = True
    transit: Port | None = None  # the port in whose queue the receive right waits
    queue: list[Kmsg] = field(default_factory=list)
    qlimit: int = m.QLIMIT_DEFAULT
    seqno: int = 0
    mscount: int = 0
    srights: int = 0
    sorights: int = 0
    context: int = 0
    guarded: bool = False
    strict: bool = False
    immovable: bool = False
    reply_only: bool = False  # gives send-once rights and nothing else
    enforces_reply: bool = False  # takes no reply right but one made from such a port
    flags: int = 0
    serves: bool = False  # only the routines of INTERFACE
    no_senders: Port | None = None
    destroyed: Port | None = None
    requests: list[Request] = field(default_factory=list)
    sets: list[PortSet] = field(default_factory=list)

    def full(self) -> bool:
        return len(self.queue) >= self.qlimit


@dataclass(eq=False)
class PortSet:
    """A port set."""

    members: list[Port] = field(default_factory=list)
    ready: list[Port] = field(default_factory=list)  # members with messages, the next one first


@dataclass(eq=False)
class Entry:
    """What one name of a task denotes."""

    object: Port | PortSet | None
    types: int
    urefs: int = 0
    request: Request | None = None


@dataclass(eq=False)
class Task:
    """A task: its space, its identity and its memory."""

    label: str
    audit_token: tuple[int, ...] = (0,) * 8
    security_token: tuple[int, int] = (0, 0)
    alive: bool = True
    table: dict[int, Entry] = field(default_factory=dict)
    generations: dict[int, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    memory: dict[int, bytes] = field(default_factory=dict)
    special: dict[int, Port] = field(default_factory=dict)  # send rights, by number
    registered: dict[int, Port] = field(default_factory=dict)

    def indices(self) -> set[int]:
        return {name >> 8 for name in self.table}

    def fresh_name(self) -> int:
        """The name the next right gets, taken off the free list."""
        index = self.free.pop() if self.free else len(self.generations) + 1
        generation = (self.generations.get(index, 0xFF) + 4) & 0xFF
        self.generations[index] = generation
        return index << 8 | generation

    def claim_name(self, name: int) -> None:
        """Takes a chosen name; the unused indices below it are free, the lowest the next one."""
        index = name >> 8
        first = len(self.generations) + 1
        for unused in range(index, first - 1, -1):
            self.generations[unused] = 0xFF
            self.free.append(unused)
        self.free.remove(index)
        self.generations[index] = name & 0xFF

    def check_free(self, name: int) -> None:
        """Refuses a chosen name that cannot be made."""
        need(valid(name) and name & 3 == 3, m.INVALID_VALUE)
        need(name >> 8 != 0, m.FAILURE)
        need(name >> 8 < m.TABLE_MAX, m.NO_SPACE)
        need(name not in self.table, m.NAME_EXISTS)
        need(name >> 8 not in self.indices(), m.FAILURE)

    def name_of(self, port: Port) -> int | None:
        """The one name under which this task holds send or receive rights of the port."""
        for name, entry in self.table.items():
            if entry.object is port and entry.types & (m.TYPE_SEND | m.TYPE_RECEIVE):
                return name
        return None


class PortItem(NamedTuple):
    right: Right
    guard: tuple[int, int] | None = None  # context and flags of a guarded descriptor


class MemoryItem(NamedTuple):
    type: int
    data: bytes


class PortsItem(NamedTuple):
    kind: int
    rights: list[Right]


Item = PortItem | MemoryItem | PortsItem


def item_size(item: Item, option: int) -> int:
    """Of a descriptor; a guarded one comes as a plain one where it was not asked for."""
    if isinstance(item, PortItem) and not (item.guard and option & m.OPTION_RCV_GUARDED_DESC):
        return m.DESCRIPTOR_SIZE[m.DESCRIPTOR_PORT]
    return m.DESCRIPTOR_SIZE[m.DESCRIPTOR_OOL]


@dataclass(eq=False)
class Kmsg:
    """A message in flight."""

    dest: Right
    reply: Right
    id: int
    voucher: int = 0
    items: list[Item] = field(default_factory=list)
    data: bytes = b""
    complex: bool = False
    sender: str | None = None  # label at the time of sending; None for the kernel
    audit_token: tuple[int, ...] = (0,) * 8
    security_token: tuple[int, int] = KERNEL_TOKEN
    method: bool = False  # once received: it is one that was asked about, or there is no policy

    def size(self, option: int) -> int:
        """msgh_size for a receiver with this option."""
        sizes = [item_size(item, option) for item in self.items]
        return m.HEADER_SIZE + (4 + sum(sizes) if self.complex else 0) + len(self.data)

    def body_rights(self) -> Iterator[Right]:
        for item in self.items:
            if isinstance(item, PortItem):
                yield item.right
            elif isinstance(item, PortsItem):
                yield from item.rights

    def has_memory(self) -> bool:
        return not all(isinstance(item, PortItem) for item in self.items)

    def carried_ports(self) -> list[Port]:
        """Ports whose receive right is in this message."""
        return [
            right.port
            for right in self.body_rights()
            if right.kind == m.PORT_RECEIVE and isinstance(right.port, Port)
        ]


class Name(NamedTuple):
    """A right as a descriptor of an outgoing message names it."""

    name: int
    disposition: int
    guard: tuple[int, int] | None = None

    def gives_receive(self) -> bool:
        return self.disposition == m.MOVE_RECEIVE and valid(self.name)


class Wire(NamedTuple):
    """An outgoing message taken apart, nothing of it resolved."""

    bits: int
    remote: int
    local: int
    voucher: int
    id: int
    descriptors: list[Name | MemoryItem | tuple[int, list[Name]]]
    regions: list[int]  # addresses to free once the message is on its way
    data: bytes

    def names(self) -> Iterator[Name]:
        """The rights of the body, left to right."""
        for descriptor in self.descriptors:
            if isinstance(descriptor, Name):
                yield descriptor
            elif not isinstance(descriptor, MemoryItem):
                yield from descriptor[1]


class Model:
    """A kernel."""

    def __init__(self, allows: Callable[[str, str, str, str], bool] | None = None) -> None:
        self.allows = allows or (lambda subject, object_, tclass, permission: True)
        self.tasks: list[Task] = []
        self.checked = allows is not None  # without a policy all is allowed, unknown methods too
        self.doomed: list[Kmsg] = []
        self.obituaries: list[list[Request]] = []
        self.next_address = 0x10000
        self.caller: Task = Task("")  # who makes the present call
        self.events: Counter[int] = Counter()  # what ipctrace counts, by SEDarwin's numbers
        self.added: list[tuple[Task, int]] = []  # names that came into being

    def call(self, name: str, task: Task, *arguments: Any, caller: Task | None = None) -> Any:
        """The Mach call of this name, by `caller` where that is another task."""
        self.caller = caller or task
        if name == "mach_port_get_attributes" and self.no_port(*arguments):
            return ()
        if name in ("mach_port_allocate", "mach_port_allocate_name"):
            need(arguments[0] in ALLOCATED and m.NULL not in arguments[1:], m.INVALID_VALUE)
        if name == "mach_port_construct":
            self.check_options(*arguments)
        need(task.alive and self.caller.alive, m.INVALID_TASK)
        if self.caller is not task and name in ASKED_OF_SPACE:
            self.ask_task(task, ASKED_OF_SPACE[name])
        return getattr(self, name)(task, *arguments)

    @staticmethod
    def no_port(name: int, flavor: int) -> bool:
        """LIMITS_INFO of null and dead is no information, for anybody."""
        return flavor == m.LIMITS_INFO and not valid(name)

    # ---- names and entries -------------------------------------------------------------

    def add(self, task: Task, entry: Entry, name: int | None = None) -> int:
        """Enters `entry` under a fresh name, or one that was claimed."""
        if name is None:
            name = task.fresh_name()
        task.table[name] = entry
        self.added.append((task, name))
        return name

    def remove(self, task: Task, name: int) -> None:
        """Frees a name."""
        self.tell_deleted(task, name)
        del task.table[name]
        task.free.append(name >> 8)

    def tell_deleted(self, task: Task, name: int) -> None:
        """Whoever asked about this name hears that it is gone, or that it was dead already."""
        entry = task.table[name]
        for requests in self.obituaries:
            for request in [each for each in requests if (each.task, each.name) == (task, name)]:
                requests.remove(request)
                self.note_name(m.NOTIFY_DEAD_NAME, request.notify, name)
        if entry.request:
            self.forget(entry)
            self.note_name(m.NOTIFY_PORT_DELETED, entry.request.notify, name)
            entry.request = None

    def entry(self, task: Task, name: int, invalid: int = m.INVALID_NAME) -> Entry:
        """What `name` denotes; `invalid` is the code for null and dead."""
        need(valid(name), invalid)
        need(name in task.table, m.INVALID_NAME)
        return task.table[name]

    def receive_right(self, task: Task, name: int, invalid: int = m.INVALID_RIGHT) -> Port:
        entry = self.entry(task, name, invalid)
        need(entry.types & m.TYPE_RECEIVE, m.INVALID_RIGHT)
        assert isinstance(entry.object, Port)
        return entry.object

    def port_set(self, task: Task, name: int) -> PortSet:
        entry = self.entry(task, name, m.INVALID_RIGHT)
        need(entry.types & m.TYPE_PORT_SET, m.INVALID_RIGHT)
        assert isinstance(entry.object, PortSet)
        return entry.object

    def forget(self, entry: Entry) -> None:
        """Takes an entry's request off its port."""
        if isinstance(entry.object, Port) and entry.request in entry.object.requests:
            entry.object.requests.remove(entry.request)

    def ask(self, task: Task, port: Port, permission: str, code: int = m.NO_ACCESS) -> None:
        need(self.allows(task.label, port.label, "mach_port", permission), code)

    def ask_task(self, task: Task, permission: str) -> None:
        need(self.allows(self.caller.label, task.label, "mach_task", permission), m.NO_ACCESS)

    # ---- notifications -----------------------------------------------------------------

    def note(
        self, id_: int, notify: Port, body: bytes = b"", items: list[Item] | None = None
    ) -> None:
        """A message of the kernel, by the send-once right it holds to `notify`."""
        dest = Right(m.PORT_SEND_ONCE, notify)
        kmsg = Kmsg(dest, Right(0, m.NULL), id_, 0, items or [], body, bool(items))
        if notify.alive:
            self.post(kmsg)
        else:
            notify.sorights -= 1

    def note_name(self, id_: int, notify: Port, word: int) -> None:
        self.note(id_, notify, m.NDR_RECORD + struct.pack("<I", word))

    def note_destroyed(self, notify: Port, port: Port) -> None:
        """The receive right goes to whom it was promised; else the port dies."""
        if notify.alive and not self.circular(notify, [port]):
            item = PortItem(Right(m.PORT_RECEIVE, port))
            self.note(m.NOTIFY_PORT_DESTROYED, notify, b"", [item])
        else:
            self.note(m.NOTIFY_SEND_ONCE, notify)
            self.die(port)

    def settle(self) -> None:
        """Destroys the messages of ports that died in this call, and what follows from that."""
        while self.doomed or self.obituaries:
            if self.doomed:
                self.destroy_kmsg(self.doomed.pop(0))
            else:
                for request in self.obituaries.pop(0):
                    self.note_name(m.NOTIFY_DEAD_NAME, request.notify, request.name)

    # ---- the death of rights and ports -------------------------------------------------

    def drop_send(self, port: Port) -> None:
        """One naked send right less."""
        port.srights -= 1
        if port.alive and port.srights == 0 and port.no_senders:
            notify, port.no_senders = port.no_senders, None
            self.note_name(m.NOTIFY_NO_SENDERS, notify, port.mscount)

    def drop_send_once(self, port: Port) -> None:
        """A send-once right is destroyed instead of used; it sends its own notification."""
        self.note(m.NOTIFY_SEND_ONCE, port)

    def destroy_right(self, right: Right) -> None:
        port = right.port
        if not isinstance(port, Port):
            return
        if right.kind == m.PORT_RECEIVE:
            self.destroy_receive(port)
        elif right.kind == m.PORT_SEND:
            self.drop_send(port)
        else:
            self.drop_send_once(port)

    def destroy_kmsg(self, kmsg: Kmsg) -> None:
        for port in kmsg.carried_ports():
            port.transit = None
        for right in (kmsg.reply, *kmsg.body_rights()):
            self.destroy_right(right)
        self.use_dest(kmsg)

    def leave_space(self, port: Port) -> None:
        """The receive right leaves a space, to move or to die."""
        port.task = None
        port.name = 0
        port.seqno = port.mscount = port.context = 0
        port.guarded = port.strict = port.immovable = False
        self.leave_sets(port)

    def destroy_receive(self, port: Port) -> None:
        """The receive right, no longer in any space, is destroyed."""
        if port.destroyed:
            notify, port.destroyed = port.destroyed, None
            self.note_destroyed(notify, port)
        else:
            self.die(port)

    def die(self, port: Port) -> None:
        """Buries what names there are; who asked is told once the queue is destroyed."""
        port.alive = False
        if port.no_senders:
            self.drop_send_once(port.no_senders)
            port.no_senders = None
        self.doomed += port.queue
        port.queue = []
        requests, port.requests = port.requests, []
        for task in self.tasks:
            for entry in task.table.values():
                if entry.object is port:
                    self.bury(entry)
        self.obituaries.append(requests[::-1])

    def bury(self, entry: Entry) -> None:
        """The entry of a dead port becomes a dead name; its notification carries a reference."""
        urefs = entry.urefs + (1 if entry.request else 0)
        entry.object, entry.types, entry.request = None, m.TYPE_DEAD_NAME, None
        entry.urefs = min(urefs, m.UREFS_MAX)

    def drop_entry_receive(self, task: Task, name: int) -> None:
        """Destroys the receive right of a name; sends that remain become dead names."""
        entry = task.table[name]
        port = entry.object
        assert isinstance(port, Port)
        entry.types &= ~m.TYPE_RECEIVE
        self.leave_space(port)
        if not entry.types:
            self.remove(task, name)
        self.destroy_receive(port)

    def drop_entry_send(self, task: Task, name: int, count: int) -> None:
        """Takes `count` user references off the send right of a name."""
        entry = task.table[name]
        port = entry.object
        assert isinstance(port, Port)
        entry.urefs -= count
        if entry.urefs:
            return
        entry.types &= ~m.TYPE_SEND
        if not entry.types:
            self.remove(task, name)
        self.drop_send(port)

    def drop_entry_send_once(self, task: Task, name: int) -> None:
        port = task.table[name].object
        assert isinstance(port, Port)
        self.remove(task, name)
        self.drop_send_once(port)

    def drop_entry_dead(self, task: Task, name: int, count: int) -> None:
        entry = task.table[name]
        entry.urefs -= count
        if not entry.urefs:
            self.remove(task, name)

    def drop_entry_set(self, task: Task, name: int) -> None:
        pset = task.table[name].object
        assert isinstance(pset, PortSet)
        for port in list(pset.members):
            self.part(port, pset)
        self.remove(task, name)

    def drop_entry(self, task: Task, name: int) -> None:
        """Destroys everything a name denotes, whatever it is."""
        entry = task.table[name]
        self.tell_deleted(task, name)
        if entry.types & m.TYPE_PORT_SET:
            self.drop_entry_set(task, name)
        elif entry.types & m.TYPE_DEAD_NAME:
            self.drop_entry_dead(task, name, entry.urefs)
        elif entry.types & m.TYPE_SEND_ONCE:
            self.drop_entry_send_once(task, name)
        else:
            if entry.types & m.TYPE_RECEIVE and entry.types & m.TYPE_SEND:
                self.drop_entry_send(task, name, entry.urefs)
            if entry.types & m.TYPE_RECEIVE:
                self.drop_entry_receive(task, name)
            else:
                self.drop_entry_send(task, name, entry.urefs)

    # ---- copyin: from a name to a right ------------------------------------------------

    def try_copyin(
        self, task: Task, name: int, disposition: int, held: dict[int, list[int]], dead_ok: bool
    ) -> Port | int:
        """What copyin would yield after the copyins already tried; `held` remembers those.

        `held` maps a name to [types, urefs] as they would be by then.
        """
        need(name in task.table, m.INVALID_NAME)
        entry = task.table[name]
        state = held.setdefault(name, [entry.types, entry.urefs])
        if disposition in (m.MAKE_SEND, m.MOVE_RECEIVE) and isinstance(entry.object, Port):
            need(not entry.object.reply_only, m.INVALID_RIGHT)
        if disposition in (m.MAKE_SEND, m.MAKE_SEND_ONCE):
            need(state[0] & m.TYPE_RECEIVE, m.INVALID_RIGHT)
        elif disposition == m.MOVE_RECEIVE:
            need(state[0] & m.TYPE_RECEIVE, m.INVALID_RIGHT)
            assert isinstance(entry.object, Port)
            need(not entry.object.immovable, m.INVALID_RIGHT)
            state[0] &= ~m.TYPE_RECEIVE
        elif state[0] & m.TYPE_DEAD_NAME:
            need(dead_ok, m.INVALID_RIGHT)
            if disposition != m.COPY_SEND:
                self.try_drop(state, m.TYPE_DEAD_NAME)
            return m.DEAD
        elif disposition == m.MOVE_SEND_ONCE:
            need(state[0] & m.TYPE_SEND_ONCE, m.INVALID_RIGHT)
            state[0] = 0
        else:
            need(state[0] & m.TYPE_SEND, m.INVALID_RIGHT)
            if disposition == m.MOVE_SEND:
                self.try_drop(state, m.TYPE_SEND)
        assert isinstance(entry.object, Port)
        return entry.object

    @staticmethod
    def try_drop(state: list[int], type_: int) -> None:
        state[1] -= 1
        if state[1] == 0:
            state[0] &= ~type_

    def copyin(self, task: Task, name: int, disposition: int) -> Right:
        """Takes the right out of the space. `try_copyin` has said that it can."""
        kind = RECEIVED[disposition]
        if not valid(name):
            return Right(kind, name)
        entry = task.table[name]
        port = entry.object
        if not isinstance(port, Port):
            if disposition != m.COPY_SEND:
                self.drop_entry_dead(task, name, 1)
            return Right(kind, m.DEAD)
        if disposition == m.MOVE_RECEIVE:
            entry.types &= ~m.TYPE_RECEIVE
            self.leave_space(port)
        elif disposition == m.MAKE_SEND:
            port.mscount = (port.mscount + 1) & 0xFFFFFFFF
            port.srights += 1
        elif disposition == m.MAKE_SEND_ONCE:
            port.sorights += 1
        elif disposition == m.COPY_SEND:
            port.srights += 1
        elif disposition == m.MOVE_SEND_ONCE:
            entry.types = 0
        elif entry.urefs > 1:
            entry.urefs -= 1
            port.srights += 1
        else:
            entry.urefs = 0
            entry.types &= ~m.TYPE_SEND
        if not entry.types:
            self.remove(task, name)
        return Right(kind, port)

    # ---- copyout: from a right to a name -----------------------------------------------

    def copyout(self, task: Task, right: Right, name: int | None = None) -> int:
        """Gives the right to the task, under `name` if the task has none for the port yet."""
        port = right.port
        if not isinstance(port, Port):
            return port
        if right.denied:
            self.destroy_right(right)
            return m.NULL
        if not port.alive:
            self.destroy_right(right)
            return m.DEAD
        known = None if right.kind == m.PORT_SEND_ONCE else task.name_of(port)
        if known is None:
            known = self.add(task, Entry(port, 0), name)
        entry = task.table[known]
        if right.kind == m.PORT_RECEIVE:
            entry.types |= m.TYPE_RECEIVE
            port.task, port.name = task, known
        elif right.kind == m.PORT_SEND_ONCE:
            entry.types, entry.urefs = m.TYPE_SEND_ONCE, 1
        else:
            if entry.types & m.TYPE_SEND:
                self.drop_send(port)
            entry.types |= m.TYPE_SEND
            entry.urefs = min(entry.urefs + 1, m.UREFS_MAX)
        return known

    # ---- tasks ---------------------------------------------------------------------------

    def create_task(self, label: str | None, uid: int = 0, parent: Task | None = None) -> Task:
        """A task with this label, else the parent's. The parent's kept ports are copied."""
        if parent:
            need(parent.alive, m.INVALID_TASK)
            label = parent.label if label is None else label
            need(self.allows(parent.label, label, "mach_task", "create"), m.NO_ACCESS)
        task = Task(label or "", (uid, uid, 0, uid, 0, 0, 0, 0), (uid, 0))
        for kept, inherited in (
            (parent.special, task.special) if parent else ({}, {}),
            (parent.registered, task.registered) if parent else ({}, {}),
        ):
            for slot, port in kept.items():
                if port.alive:
                    port.srights += 1
                    inherited[slot] = port
        self.tasks.append(task)
        return task

    def terminate(self, task: Task, caller: Task | None = None) -> None:
        self.caller = caller or task
        need(task.alive and self.caller.alive, m.INVALID_TASK)
        if self.caller is not task:
            self.ask_task(task, "terminate")
        task.alive = False
        for name in sorted(task.table):
            if name in task.table:
                self.drop_entry(task, name)
        for port in (*task.special.values(), *task.registered.values()):
            self.drop_send(port)
        task.memory.clear()
        self.tasks.remove(task)
        self.settle()

    def keepable(self, task: Task, name: int) -> Port | None:
        """The port of a send right of the caller's, of which the task may keep a copy."""
        if not valid(name):
            return None
        entry = self.entry(self.caller, name)
        need(entry.types & m.TYPE_SEND, m.INVALID_RIGHT)
        assert isinstance(entry.object, Port)
        self.ask(self.caller, entry.object, "copy_send")
        self.ask(task, entry.object, "hold_send")
        return entry.object

    def keep(self, kept: dict[int, Port], slot: int, port: Port | None) -> None:
        old = kept.pop(slot, None)
        if old:
            self.drop_send(old)
        if port:
            port.srights += 1
            kept[slot] = port

    def show_kept(self, kept: dict[int, Port], slots: Sequence[int]) -> list[int]:
        """Send rights to what a task keeps, for the caller; null for what is not there."""
        ports = [kept.get(slot) for slot in slots]
        living = [port if port and port.alive else None for port in ports]
        for port in living:
            if port:
                self.ask(self.caller, port, "hold_send")
        names = []
        for port in living:
            if port:
                port.srights += 1
            names.append(self.copyout(self.caller, Right(m.PORT_SEND, port or m.NULL)))
        return names

    def task_set_special_port(self, task: Task, which: int, name: int) -> None:
        need(0 < which < m.SPECIAL_PORTS, m.INVALID_ARGUMENT)
        self.ask_task(task, "set_special_port")
        self.keep(task.special, which, self.keepable(task, name))
        self.settle()

    def task_get_special_port(self, task: Task, which: int) -> int:
        need(0 < which < m.SPECIAL_PORTS, m.INVALID_ARGUMENT)
        self.ask_task(task, "get_special_port")
        return self.show_kept(task.special, [which])[0]

    def mach_ports_register(self, task: Task, names: Sequence[int]) -> None:
        need(len(names) <= m.PORT_REGISTER_MAX, m.INVALID_ARGUMENT)
        self.ask_task(task, "set_special_port")
        ports = [self.keepable(task, name) for name in names]
        for slot, port in enumerate((ports + [None] * 3)[:3]):
            self.keep(task.registered, slot, port)
        self.settle()

    def mach_ports_lookup(self, task: Task) -> list[int]:
        self.ask_task(task, "get_special_port")
        return self.show_kept(task.registered, range(m.PORT_REGISTER_MAX))

    # ---- labels ------------------------------------------------------------------------------

    def relabel_task(self, task: Task, label: str) -> None:
        for permission, target in (("relabelfrom", task.label), ("relabelto", label)):
            need(self.allows(self.caller.label, target, "mach_task", permission), m.NO_ACCESS)
        task.label = label

    def relabel_port(self, task: Task, name: int, label: str) -> None:
        entry = self.entry(task, name)
        need(entry.types & LIVE, m.INVALID_RIGHT)
        assert isinstance(entry.object, Port)
        for permission, target in (("relabelfrom", entry.object.label), ("relabelto", label)):
            need(self.allows(self.caller.label, target, "mach_port", permission), m.NO_ACCESS)
        entry.object.label = label

    # ---- mach_port_*: names ---------------------------------------------------------------

    def mach_port_allocate(self, task: Task, right: int) -> int:
        return self.allocate(task, right, None)

    def mach_port_allocate_name(self, task: Task, right: int, name: int) -> None:
        self.allocate(task, right, name)

    def allocate(self, task: Task, right: int, name: int | None) -> int:
        if name is not None:
            task.check_free(name)
            task.claim_name(name)
        if right == m.RIGHT_PORT_SET:
            return self.add(task, Entry(PortSet(), m.TYPE_PORT_SET), name)
        if right == m.RIGHT_DEAD_NAME:
            return self.add(task, Entry(None, m.TYPE_DEAD_NAME, 1), name)
        port = Port(task.label, task, 0)
        port.name = self.add(task, Entry(port, m.TYPE_RECEIVE), name)
        return port.name

    @staticmethod
    def check_options(flags: int, qlimit: int, _context: int) -> None:
        """Refuses options that make no port, whoever asks."""
        chosen = [flag for flag in m.MPO_REPLIES if flags & flag]
        need(len(chosen) <= 1, m.INVALID_ARGUMENT)
        both = m.MPO_REPLY_PORT | m.MPO_INSERT_SEND_RIGHT
        need(flags & both != both, m.INVALID_ARGUMENT)
        need(not flags & m.MPO_QLIMIT or qlimit <= m.QLIMIT_MAX, m.INVALID_VALUE)

    def mach_port_construct(self, task: Task, flags: int, qlimit: int, context: int) -> int:
        name = self.mach_port_allocate(task, m.RIGHT_RECEIVE)
        entry = task.table[name]
        port = entry.object
        assert isinstance(port, Port)
        port.context = context
        port.qlimit = qlimit if flags & m.MPO_QLIMIT else m.QLIMIT_DEFAULT
        port.guarded = bool(flags & m.MPO_CONTEXT_AS_GUARD)
        port.strict = port.guarded and bool(flags & m.MPO_STRICT)
        port.immovable = port.guarded and bool(flags & m.MPO_IMMOVABLE_RECEIVE)
        port.reply_only = bool(flags & m.MPO_REPLY_PORT)
        port.enforces_reply = bool(flags & m.MPO_ENFORCE_REPLY_PORT_SEMANTICS)
        port.flags |= m.STATUS_TEMPOWNER if flags & m.MPO_TEMPOWNER else 0
        port.flags |= m.STATUS_IMP_DONATION if flags & m.MPO_IMPORTANCE_RECEIVER else 0
        if flags & m.MPO_INSERT_SEND_RIGHT:
            entry.types |= m.TYPE_SEND
            entry.urefs = port.srights = port.mscount = 1
        return name

    def mach_port_type(self, task: Task, name: int) -> int:
        if name == m.DEAD:
            return m.TYPE_DEAD_NAME
        entry = self.entry(task, name)
        if not entry.request:
            return entry.types
        return entry.types | (m.TYPE_SPREQUEST if entry.request.possible else m.TYPE_DNREQUEST)

    def mach_port_names(self, task: Task) -> list[tuple[int, int]]:
        return [(name, self.mach_port_type(task, name)) for name in sorted(task.table)]

    def mach_port_get_refs(self, task: Task, name: int, right: int) -> int:
        need(0 <= right < m.RIGHT_NUMBER, m.INVALID_VALUE)
        if not valid(name):
            need(right in (m.RIGHT_SEND, m.RIGHT_SEND_ONCE), m.INVALID_NAME)
            return 1
        entry = self.entry(task, name)
        if not entry.types & TYPE_OF_RIGHT[right]:
            return 0
        return entry.urefs if right in (m.RIGHT_SEND, m.RIGHT_DEAD_NAME) else 1

    def mach_port_mod_refs(self, task: Task, name: int, right: int, delta: int) -> None:
        need(0 <= right < m.RIGHT_NUMBER, m.INVALID_VALUE)
        if not valid(name):
            need(right in (m.RIGHT_SEND, m.RIGHT_SEND_ONCE), m.INVALID_NAME)
            return
        entry = self.entry(task, name)
        need(entry.types & TYPE_OF_RIGHT[right], m.INVALID_RIGHT)
        if right in (m.RIGHT_SEND, m.RIGHT_DEAD_NAME):
            need(entry.urefs + delta >= 0, m.INVALID_VALUE)
            need(entry.urefs + delta <= m.UREFS_MAX, m.UREFS_OVERFLOW)
            drop = self.drop_entry_send if right == m.RIGHT_SEND else self.drop_entry_dead
            drop(task, name, -delta)
        else:
            need(delta in (0, -1), m.INVALID_VALUE)
            if delta:
                self.drop_single(task, name, right)
        self.settle()

    def drop_single(self, task: Task, name: int, right: int) -> None:
        if right == m.RIGHT_RECEIVE:
            port = task.table[name].object
            assert isinstance(port, Port)
            need(not port.guarded, m.INVALID_RIGHT)
            self.drop_entry_receive(task, name)
        elif right == m.RIGHT_PORT_SET:
            self.drop_entry_set(task, name)
        else:
            self.drop_entry_send_once(task, name)

    def mach_port_deallocate(self, task: Task, name: int) -> None:
        if not valid(name):
            return
        entry = self.entry(task, name)
        need(entry.types != m.TYPE_RECEIVE, m.INVALID_RIGHT)
        if entry.types & m.TYPE_SEND:
            self.drop_entry_send(task, name, 1)
        elif entry.types & m.TYPE_DEAD_NAME:
            self.drop_entry_dead(task, name, 1)
        else:
            self.drop_entry(task, name)
        self.settle()

    def mach_port_destroy(self, task: Task, name: int) -> None:
        if not valid(name):
            return
        entry = self.entry(task, name)
        if entry.types & m.TYPE_RECEIVE:
            assert isinstance(entry.object, Port)
            need(not entry.object.guarded, m.INVALID_RIGHT)
        self.drop_entry(task, name)
        self.settle()

    def mach_port_destruct(self, task: Task, name: int, srdelta: int, guard: int) -> None:
        port = self.receive_right(task, name, m.INVALID_NAME)
        entry = task.table[name]
        if srdelta:
            need(entry.types & m.TYPE_SEND, m.INVALID_RIGHT)
            need(srdelta < 0 and entry.urefs + srdelta >= 0, m.INVALID_VALUE)
        need((port.context if port.guarded else 0) == guard, m.INVALID_ARGUMENT)
        if srdelta:
            self.drop_entry_send(task, name, -srdelta)
        self.drop_entry_receive(task, name)
        self.settle()

    # ---- mach_port_*: rights between spaces -----------------------------------------------

    def mach_port_insert_right(self, task: Task, name: int, poly: int, disposition: int) -> None:
        caller = self.caller
        need(disposition in m.DISPOSITIONS and valid(name), m.INVALID_VALUE)
        need(valid(poly), m.INVALID_CAPABILITY)
        if caller is not task:
            self.ask_task(task, "insert_right")
        port = self.try_copyin(caller, poly, disposition, {}, dead_ok=True)
        need(isinstance(port, Port), m.INVALID_CAPABILITY)
        assert isinstance(port, Port)
        self.ask(caller, port, GIVE[disposition])
        self.ask(task, port, TAKE[RECEIVED[disposition]])
        self.check_place(task, name, RECEIVED[disposition], port)
        own_move = caller is task and disposition == m.MOVE_SEND
        self.check_overflow(task, RECEIVED[disposition], port, own_move)
        if name not in task.table:
            task.claim_name(name)
        right = self.copyin(caller, poly, disposition)
        if task is caller and name == poly and name not in task.table:
            task.claim_name(name)
        self.trace_transfer(disposition)
        self.copyout(task, right, name)
        self.settle()

    def check_place(self, task: Task, name: int, kind: int, port: Port) -> None:
        """Can a right of this kind be put under `name`? Decided before anything moves."""
        need(name & 3 == 3, m.INVALID_VALUE)
        known = None if kind == m.PORT_SEND_ONCE else task.name_of(port)
        if known is None:
            task.check_free(name)
        else:
            need(known == name, m.RIGHT_EXISTS)

    def trace_transfer(self, disposition: int) -> None:
        self.events[EVENT_GIVE[disposition]] += 1
        self.events[EVENT_TAKE[RECEIVED[disposition]]] += 1

    @staticmethod
    def check_overflow(task: Task, kind: int, port: Port, own_move: bool) -> None:
        """One more user reference must fit, unless one of the same name goes away for it."""
        name = task.name_of(port)
        if name is not None and kind == m.PORT_SEND and not own_move:
            need(task.table[name].urefs < m.UREFS_MAX, m.UREFS_OVERFLOW)

    def mach_port_extract_right(self, task: Task, name: int, disposition: int) -> tuple[int, int]:
        caller = self.caller
        need(disposition in m.DISPOSITIONS, m.INVALID_VALUE)
        need(valid(name), m.INVALID_RIGHT)
        if caller is not task:
            self.ask_task(task, "extract_right")
        port = self.try_copyin(task, name, disposition, {}, dead_ok=True)
        if isinstance(port, Port):
            self.ask(caller, port, GIVE[disposition])
            self.ask(caller, port, TAKE[RECEIVED[disposition]])
            own_move = caller is task and disposition == m.MOVE_SEND
            self.check_overflow(caller, RECEIVED[disposition], port, own_move)
            self.trace_transfer(disposition)
        right = self.copyin(task, name, disposition)
        result = self.copyout(caller, right), right.kind
        self.settle()
        return result

    # ---- mach_port_*: sets ------------------------------------------------------------------

    def member_and_set(self, task: Task, name: int, after: int) -> tuple[Port, PortSet]:
        """Both names must be names before either is looked at closer."""
        need(valid(name) and valid(after), m.INVALID_RIGHT)
        need(name in task.table and after in task.table, m.INVALID_NAME)
        return self.receive_right(task, name), self.port_set(task, after)

    def mach_port_insert_member(self, task: Task, name: int, after: int) -> None:
        port, pset = self.member_and_set(task, name, after)
        need(pset not in port.sets, m.ALREADY_IN_SET)
        self.join(port, pset)

    def mach_port_extract_member(self, task: Task, name: int, after: int) -> None:
        port, pset = self.member_and_set(task, name, after)
        need(pset in port.sets, m.NOT_IN_SET)
        self.part(port, pset)

    def mach_port_move_member(self, task: Task, name: int, after: int) -> None:
        if after == m.NULL:
            port = self.receive_right(task, name)
            need(port.sets, m.NOT_IN_SET)
            self.leave_sets(port)
        else:
            port, pset = self.member_and_set(task, name, after)
            self.leave_sets(port)
            self.join(port, pset)

    def leave_sets(self, port: Port) -> None:
        for pset in list(port.sets):
            self.part(port, pset)

    @staticmethod
    def join(port: Port, pset: PortSet) -> None:
        port.sets.append(pset)
        pset.members.append(port)
        if port.queue:
            pset.ready.append(port)

    @staticmethod
    def part(port: Port, pset: PortSet) -> None:
        port.sets.remove(pset)
        pset.members.remove(port)
        if port in pset.ready:
            pset.ready.remove(port)

    def mach_port_get_set_status(self, task: Task, name: int) -> list[int]:
        return sorted(port.name for port in self.port_set(task, name).members)

    # ---- mach_port_*: attributes, counts, guards -----------------------------------------

    def mach_port_get_attributes(self, task: Task, name: int, flavor: int) -> tuple[int, ...]:
        port = self.seen_port(task, name)
        if flavor == m.LIMITS_INFO:
            return (port.qlimit,)
        if flavor in (m.RECEIVE_STATUS, m.INFO_EXT):
            return self.receive_status(port) + (0,) * (7 if flavor == m.INFO_EXT else 0)
        need(flavor == m.DNREQUESTS_SIZE, m.INVALID_ARGUMENT)
        return (len(port.requests),)

    def receive_status(self, port: Port) -> tuple[int, ...]:
        flags = port.flags
        flags |= m.STATUS_GUARDED if port.guarded else 0
        flags |= m.STATUS_STRICT_GUARD if port.strict else 0
        flags |= m.STATUS_IMMOVABLE_RECEIVE if port.immovable else 0
        return (
            len(port.sets),
            port.seqno,
            port.mscount,
            port.qlimit,
            len(port.queue),
            port.sorights,
            int(port.srights > 0),
            int(port.destroyed is not None),
            int(port.no_senders is not None),
            flags,
        )

    def mach_port_set_attributes(self, task: Task, name: int, flavor: int, info: list[int]) -> None:
        port = self.changed_port(task, name)
        if flavor == m.LIMITS_INFO:
            need(info, m.FAILURE)
            need(info[0] <= m.QLIMIT_MAX, m.INVALID_VALUE)
            port.qlimit = info[0]
            self.fire_possible(port)
        else:
            need(flavor in STATUS_FLAG, m.INVALID_ARGUMENT)
            port.flags |= STATUS_FLAG[flavor]

    def seen_port(self, task: Task, name: int) -> Port:
        """A port of which the caller may see attributes."""
        port = self.receive_right(task, name)
        self.ask(self.caller, port, "get_attributes")
        return port

    def changed_port(self, task: Task, name: int) -> Port:
        """A port of which the caller may change attributes."""
        port = self.receive_right(task, name)
        self.ask(self.caller, port, "set_attributes")
        return port

    def mach_port_assert_attributes(
        self, task: Task, name: int, flavor: int, info: Sequence[int]
    ) -> None:
        port = self.seen_port(task, name)
        need(flavor == m.GUARD_INFO, m.INVALID_ARGUMENT)
        need(len(info) >= 2, m.FAILURE)
        need(port.strict and port.context == info[0] | info[1] << 32, m.INVALID_ARGUMENT)

    def mach_port_peek(
        self, task: Task, name: int, trailer: int, seqno: int
    ) -> tuple[int, int, int, bytes]:
        port = self.seen_port(task, name)
        size = m.TRAILER_SIZE.get(trailer >> 24 & 0xFF, 0)
        need(0 < size <= m.TRAILER_SIZE[m.TRAILER_AUDIT], m.INVALID_VALUE)
        place = (seqno - port.seqno) & 0xFFFFFFFF if seqno else 0
        need(place < len(port.queue), m.FAILURE)
        kmsg, found = port.queue[place], (port.seqno + place) & 0xFFFFFFFF
        whole = kmsg.size(m.OPTION_RCV_GUARDED_DESC) + m.TRAILER_SIZE[0]
        return found, whole, kmsg.id, self.trailer(kmsg, found, port, size)

    def mach_port_set_mscount(self, task: Task, name: int, mscount: int) -> None:
        self.changed_port(task, name).mscount = mscount

    def mach_port_set_seqno(self, task: Task, name: int, seqno: int) -> None:
        self.changed_port(task, name).seqno = seqno

    def serve(self, task: Task, name: int, serves: bool) -> None:
        """pm_port_set_interface: messages must be methods from now on, or need not."""
        self.changed_port(task, name).serves = serves

    def mach_port_get_context(self, task: Task, name: int) -> int:
        port = self.seen_port(task, name)
        return 0 if port.strict else port.context

    def mach_port_set_context(self, task: Task, name: int, context: int) -> None:
        port = self.changed_port(task, name)
        need(not port.strict, m.INVALID_ARGUMENT)
        port.context = context

    def mach_port_guard(self, task: Task, name: int, guard: int, strict: bool) -> None:
        self.mach_port_guard_with_flags(task, name, guard, m.MPG_STRICT if strict else 0)

    def mach_port_guard_with_flags(self, task: Task, name: int, guard: int, flags: int) -> None:
        port = self.changed_port(task, name)
        need(not port.guarded and port.context == 0, m.INVALID_ARGUMENT)
        port.context, port.guarded, port.strict = guard, True, bool(flags & m.MPG_STRICT)
        port.immovable |= bool(flags & m.MPG_IMMOVABLE_RECEIVE)

    def mach_port_unguard(self, task: Task, name: int, guard: int) -> None:
        port = self.changed_port(task, name)
        need(port.guarded and port.context == guard, m.INVALID_ARGUMENT)
        port.context, port.guarded, port.strict = 0, False, False

    def mach_port_swap_guard(self, task: Task, name: int, old: int, new: int) -> None:
        port = self.changed_port(task, name)
        need(port.guarded and not port.strict and port.context == old, m.INVALID_ARGUMENT)
        port.context = new

    # ---- mach_port_request_notification ---------------------------------------------------

    def mach_port_request_notification(
        self, task: Task, name: int, id_: int, sync: int, notify: int, disposition: int
    ) -> int:
        register = {
            m.NOTIFY_NO_SENDERS: self.request_no_senders,
            m.NOTIFY_PORT_DESTROYED: self.request_destroyed,
            m.NOTIFY_DEAD_NAME: self.request_name,
            m.NOTIFY_SEND_POSSIBLE: self.request_name,
        }.get(id_)
        need(register, m.INVALID_VALUE)
        assert register
        entry = self.entry(task, name, m.INVALID_ARGUMENT)
        caller = self.caller
        target = self.try_notify(caller, notify, disposition)
        given_away = target and disposition == m.MOVE_SEND_ONCE and caller is task
        need(not given_away or name != notify, m.INVALID_NAME)
        if isinstance(entry.object, Port):
            held = entry.types & m.TYPE_RECEIVE and entry.object.reply_only
            need(not held, m.INVALID_RIGHT)
            self.ask(caller, entry.object, "request_notification")
            if target and id_ == m.NOTIFY_PORT_DESTROYED:
                self.ask(caller, entry.object, "move_recv")
        commit = register(task, name, sync, target, id_)
        if target:
            self.copyin(caller, notify, disposition)
        previous = commit()
        result = self.copyout(caller, Right(m.PORT_SEND_ONCE, previous)) if previous else m.NULL
        self.settle()
        return result

    def try_notify(self, task: Task, notify: int, disposition: int) -> Port | None:
        """The port to be told; None to cancel."""
        if notify == m.NULL:
            return None
        need(notify != m.DEAD, m.INVALID_CAPABILITY)
        need(disposition in (m.MAKE_SEND_ONCE, m.MOVE_SEND_ONCE), m.INVALID_VALUE)
        port = self.attempt(task, notify, disposition, {}, False, m.INVALID_CAPABILITY)
        assert isinstance(port, Port)
        self.ask(task, port, GIVE[disposition])
        return port

    def request_no_senders(
        self, task: Task, name: int, sync: int, notify: Port | None, _id: int
    ) -> Callable[[], Port | None]:
        port = self.receive_right(task, name)

        def commit() -> Port | None:
            previous, port.no_senders = port.no_senders, notify
            if notify and port.srights == 0 and sync <= port.mscount:
                port.no_senders = None
                self.note_name(m.NOTIFY_NO_SENDERS, notify, port.mscount)
            return previous

        return commit

    def request_destroyed(
        self, task: Task, name: int, sync: int, notify: Port | None, _id: int
    ) -> Callable[[], Port | None]:
        need(sync == 0, m.INVALID_VALUE)
        port = self.receive_right(task, name)
        need(not (notify and port.destroyed), m.FAILURE)

        def commit() -> Port | None:
            previous, port.destroyed = port.destroyed, notify
            return previous

        return commit

    def request_name(
        self, task: Task, name: int, sync: int, notify: Port | None, id_: int
    ) -> Callable[[], Port | None]:
        entry = task.table[name]
        need(entry.types != m.TYPE_PORT_SET, m.INVALID_RIGHT)
        if entry.types & m.TYPE_DEAD_NAME:
            need(sync, m.INVALID_ARGUMENT)
            need(not notify or entry.urefs < m.UREFS_MAX, m.UREFS_OVERFLOW)
            return lambda: self.fire_dead(entry, name, notify)
        possible = id_ == m.NOTIFY_SEND_POSSIBLE
        return lambda: self.register_name(task, entry, name, notify, possible, bool(sync))

    def fire_dead(self, entry: Entry, name: int, notify: Port | None) -> None:
        if notify:
            entry.urefs += 1
            self.note_name(m.NOTIFY_DEAD_NAME, notify, name)

    def register_name(
        self, task: Task, entry: Entry, name: int, notify: Port | None, possible: bool, sync: bool
    ) -> Port | None:
        port = entry.object
        assert isinstance(port, Port)
        previous = entry.request.notify if entry.request else None
        self.forget(entry)
        entry.request = None
        if not notify:
            return previous
        if possible and sync and (not port.full() or entry.types & m.TYPE_SEND_ONCE):
            self.note_name(m.NOTIFY_SEND_POSSIBLE, notify, name)
            return previous
        entry.request = Request(task, name, notify, possible, possible and sync)
        port.requests.append(entry.request)
        return previous

    def fire_possible(self, port: Port) -> None:
        """The queue has room: tells all who were waiting for that."""
        if port.full():
            return
        for request in [request for request in reversed(port.requests) if request.armed]:
            port.requests.remove(request)
            request.task.table[request.name].request = None
            self.note_name(m.NOTIFY_SEND_POSSIBLE, request.notify, request.name)

    # ---- mach_msg ---------------------------------------------------------------------------

    def mach_msg(
        self, task: Task, message: bytes, option: int, rcv_size: int = 0, rcv_name: int = 0
    ) -> tuple[int, bytes]:
        """The code, and the message received or handed back. Never waits."""
        code, buffer = m.SUCCESS, b""
        try:
            if option & m.OPTION_SEND:
                code, buffer = self.send(task, message, option)
                self.settle()
            if code == m.SUCCESS and option & m.OPTION_RCV:
                code, buffer = self.receive(task, option, rcv_size, rcv_name)
        except Fault as fault:
            code, buffer = fault.code, b""
        self.settle()
        return code, buffer

    def short_send(self, task: Task, dest: int, body: bytes, id_: int) -> None:
        """pm_send: inline bytes. Here a full queue changes nothing either."""
        need(valid(dest) and dest in task.table, m.SEND_INVALID_DEST)
        once = task.table[dest].types & m.TYPE_SEND_ONCE
        how = m.MOVE_SEND_ONCE if once else m.COPY_SEND
        wire = Wire(how, dest, 0, 0, id_, [], [], body)
        port = self.check_rights(task, wire)
        need(once or not port.full(), m.SEND_TIMED_OUT)
        self.trace_send(task, wire)
        self.post(self.build(task, wire))
        self.settle()

    def long_send(
        self,
        task: Task,
        dest: Name,
        reply: Name,
        id_: int,
        rights: Sequence[tuple[int, int]],
        body: bytes,
    ) -> None:
        """pm_send_message: rights beside the bytes; 0 chooses how the destination's is used."""
        need(dest.disposition in (0, *m.SEND_KINDS), m.SEND_INVALID_HEADER)
        good_reply = m.SEND_KINDS if reply.name else (0,)
        need(reply.disposition in good_reply, m.SEND_INVALID_HEADER)
        need(valid(dest.name), m.SEND_INVALID_DEST)
        names = [Name(*right) for right in rights]
        need(all(name.disposition in m.DISPOSITIONS for name in names), m.SEND_INVALID_TYPE)
        need(dest.name in task.table, m.SEND_INVALID_DEST)
        once = task.table[dest.name].types & m.TYPE_SEND_ONCE
        how = dest.disposition or (m.MOVE_SEND_ONCE if once else m.COPY_SEND)
        bits = how | reply.disposition << 8 | (m.BITS_COMPLEX if names else 0)
        wire = Wire(bits, dest.name, reply.name, 0, id_, [*names], [], body)
        port = self.check_rights(task, wire)
        fits = RECEIVED[how] == m.PORT_SEND_ONCE or not port.full()
        circular = self.circular(port, self.moved(task, wire))
        need(fits or circular, m.SEND_TIMED_OUT)
        self.trace_send(task, wire)
        kmsg = self.build(task, wire)
        if circular:
            self.destroy_kmsg(kmsg)
        else:
            self.post(kmsg)
        self.settle()

    @staticmethod
    def moved(task: Task, wire: Wire) -> list[object]:
        """The ports whose receive right is to go with this message."""
        return [task.table[name.name].object for name in wire.names() if name.gives_receive()]

    def long_receive(self, task: Task, name: int) -> tuple[Any, ...]:
        """pm_receive_message: everything that came."""
        try:
            port = self.next_port(task, name)
            kmsg = self.first_message(task, port)
        finally:
            self.settle()
        self.trace_receive(kmsg)
        seqno = port.seqno
        self.take(port, self.turn(task, name))
        self.deny_takes(task, kmsg)
        self.use_dest(kmsg)
        sent = kmsg.sender is not None
        reply = self.hand_over(task, kmsg.reply, sent)
        rights, memory = [], []
        for item in kmsg.items:
            if isinstance(item, MemoryItem):
                memory += [item.data] if item.data else []
                continue
            each = [item.right] if isinstance(item, PortItem) else item.rights
            rights += [(self.hand_over(task, right, sent), right.kind) for right in each]
            if isinstance(item, PortItem) and item.guard:
                self.guard_received(item, rights[-1][0])
        denied = sum(right.denied for right in (kmsg.reply, *kmsg.body_rights()))
        self.settle()
        head = kmsg.id, seqno, port.name, reply, kmsg.reply.kind, kmsg.sender, kmsg.audit_token
        return *head, kmsg.data, tuple(rights), tuple(memory), denied

    def short_receive(self, task: Task, name: int, capacity: int) -> bytes:
        """pm_receive: only the inline bytes; the rights that came along are dropped."""
        try:
            port = self.next_port(task, name)
            kmsg = self.first_message(task, port)
        finally:
            self.settle()
        need(len(kmsg.data) <= capacity, m.RCV_TOO_LARGE)
        self.trace_receive(kmsg)
        self.take(port, self.turn(task, name))
        self.deny_takes(task, kmsg)
        self.use_dest(kmsg)
        came = []
        for right in (kmsg.reply, *kmsg.body_rights()):
            came.append((self.hand_over(task, right, kmsg.sender is not None), right.kind))
        self.settle()
        for dropped, kind in came:
            if dropped in task.table:
                self.drop_arrived(task, dropped, kind)
        self.settle()
        return kmsg.data

    def drop_arrived(self, task: Task, name: int, kind: int) -> None:
        """One reference of what came under this name goes, be the port dead by now, or guarded."""
        if task.table[name].types & m.TYPE_DEAD_NAME:
            self.drop_entry_dead(task, name, 1)
        elif kind == m.PORT_RECEIVE:
            self.drop_entry_receive(task, name)
        elif kind == m.PORT_SEND:
            self.drop_entry_send(task, name, 1)
        else:
            self.drop_entry_send_once(task, name)

    def send(self, task: Task, message: bytes, option: int) -> tuple[int, bytes]:
        wire = self.parse(task, message)
        dest = self.check_rights(task, wire)
        circular = self.circular(dest, self.moved(task, wire))
        once = RECEIVED[wire.bits & 0x1F] == m.PORT_SEND_ONCE
        fits = circular or once or not dest.full()
        if option & m.OPTION_SEND_NOTIFY and not fits:
            self.arm(task.table[wire.remote])
        if fits:
            self.trace_send(task, wire)
        kmsg = self.build(task, wire)
        for address in wire.regions:
            task.memory.pop(address, None)
        if not fits:
            kmsg.voucher = wire.voucher
            return m.SEND_TIMED_OUT, self.pseudo_receive(task, kmsg)
        if circular:
            self.destroy_kmsg(kmsg)
        else:
            self.post(kmsg)
        return m.SUCCESS, b""

    def trace_send(self, task: Task, wire: Wire) -> None:
        """A send, and each right that the message takes along; dead names do not count."""
        self.events[EVENT_SEND] += 1
        header = [Name(wire.remote, wire.bits & 0x1F), Name(wire.local, wire.bits >> 8 & 0x1F)]
        for name in (*header, *wire.names()):
            if valid(name.name) and not task.table[name.name].types & m.TYPE_DEAD_NAME:
                self.events[EVENT_GIVE[name.disposition]] += 1

    def trace_take(self, right: Right) -> None:
        if isinstance(right.port, Port) and right.port.alive and not right.denied:
            self.events[EVENT_TAKE[right.kind]] += 1

    @staticmethod
    def arm(entry: Entry) -> None:
        """A send-possible request is armed by a message that finds no room."""
        if entry.request and entry.request.possible:
            entry.request.armed = True

    def post(self, kmsg: Kmsg) -> None:
        port = kmsg.dest.port
        assert isinstance(port, Port)
        port.queue.append(kmsg)
        for pset in port.sets:
            if port not in pset.ready:
                pset.ready.append(port)
        for carried in kmsg.carried_ports():
            carried.transit = port

    @staticmethod
    def circular(dest: Port | None, carried: Sequence[object]) -> bool:
        """Would a receive right travel, by way of others, in its own port's queue?"""
        while dest:
            if dest in carried:
                return True
            dest = dest.transit
        return False

    # ---- sending: the checks, in Mach's order ------------------------------------------------

    def parse(self, task: Task, message: bytes) -> Wire:
        """Sizes, descriptors, header, memory: all before any right is looked at."""
        need(len(message) >= m.HEADER_SIZE and len(message) % 4 == 0, m.SEND_MSG_TOO_SMALL)
        bits, _, remote, local, voucher, id_ = struct.unpack_from("<IIIIIi", message)
        starts, end = self.find_descriptors(message) if bits & m.BITS_COMPLEX else ([], 24)
        self.check_header(bits, remote, local, voucher)
        regions: list[int] = []
        descriptors = [self.descriptor(task, message, start, regions) for start in starts]
        data = message[end:]
        return Wire(bits, remote, local, voucher, id_, descriptors, regions, data)

    def find_descriptors(self, message: bytes) -> tuple[list[int], int]:
        """Where each descriptor starts, once it is known to be one, and where the last ends."""
        offset = m.HEADER_SIZE + 4
        need(len(message) >= offset, m.SEND_MSG_TOO_SMALL)
        (count,) = struct.unpack_from("<I", message, m.HEADER_SIZE)
        need(count * 12 <= len(message) - offset, m.SEND_MSG_TOO_SMALL)
        starts: list[int] = []
        ports, memory = m.MESSAGE_PORTS_MAX, m.MESSAGE_MAX  # how much room is left
        for _ in range(count):
            need(offset + 12 <= len(message), m.SEND_MSG_TOO_SMALL)
            size = m.DESCRIPTOR_SIZE.get(message[offset + 11])
            need(size, m.SEND_INVALID_TYPE)
            assert size
            need(offset + size <= len(message), m.SEND_MSG_TOO_SMALL)
            taken = self.check_descriptor(message, offset, ports, memory)
            ports, memory = ports - taken[0], memory - taken[1]
            starts.append(offset)
            offset += size
        return starts, offset

    @staticmethod
    def check_descriptor(message: bytes, start: int, ports: int, memory: int) -> tuple[int, int]:
        """How many rights and bytes the descriptor stands for, at most `ports` and `memory`."""
        type_, disposition = message[start + 11], message[start + 10]
        if type_ in (m.DESCRIPTOR_PORT, m.DESCRIPTOR_GUARDED):
            need(disposition in m.DISPOSITIONS, m.SEND_INVALID_TYPE)
            if type_ == m.DESCRIPTOR_GUARDED:
                (flags,) = struct.unpack_from("<H", message, start + 8)
                need(disposition == m.MOVE_RECEIVE and flags <= 3, m.SEND_INVALID_TYPE)
            need(ports, m.SEND_TOO_LARGE)
            return 1, 0
        address, _, copy, _, _, size = struct.unpack_from("<QBBBBI", message, start)
        need(copy in (0, 1), m.SEND_INVALID_TYPE)
        if type_ == m.DESCRIPTOR_OOL_PORTS:
            need(disposition in m.DISPOSITIONS, m.SEND_INVALID_TYPE)
            need(size <= ports, m.SEND_TOO_LARGE)
        need(address or not size, m.SEND_INVALID_MEMORY)
        if type_ == m.DESCRIPTOR_OOL_PORTS:
            return size, 0
        need(size <= memory, m.SEND_TOO_LARGE)
        return 0, size

    @staticmethod
    def check_header(bits: int, remote: int, local: int, voucher: int) -> None:
        """What can be said about a header without looking at any name."""
        dest_type, reply_type = bits & 0x1F, bits >> 8 & 0x1F
        voucher_type = bits >> 16 & 0x1F
        need(not bits & ~m.BITS_USER and dest_type in m.SEND_KINDS, m.SEND_INVALID_HEADER)
        if reply_type == 0:
            need(local == m.NULL, m.SEND_INVALID_HEADER)
        else:
            need(reply_type in m.SEND_KINDS, m.SEND_INVALID_HEADER)
        need(voucher_type in (0, m.MOVE_SEND, m.COPY_SEND), m.SEND_INVALID_VOUCHER)
        need(valid(remote), m.SEND_INVALID_DEST)
        if remote == local:
            need(m.MOVE_SEND_ONCE not in (dest_type, reply_type), m.SEND_INVALID_DEST)
        need(voucher_type == 0 or not valid(voucher), m.SEND_INVALID_VOUCHER)

    def descriptor(
        self, task: Task, message: bytes, start: int, regions: list[int]
    ) -> Name | MemoryItem | tuple[int, list[Name]]:
        type_, disposition = message[start + 11], message[start + 10]
        if type_ == m.DESCRIPTOR_PORT:
            return Name(struct.unpack_from("<I", message, start)[0], disposition)
        if type_ == m.DESCRIPTOR_GUARDED:
            context, flags, _, _, name = struct.unpack_from("<QHBBI", message, start)
            return Name(name, disposition, (context, flags))
        address, deallocate, _, _, _, size = struct.unpack_from("<QBBBBI", message, start)
        ports = type_ == m.DESCRIPTOR_OOL_PORTS
        data = self.read(task, address, size * 4 if ports else size)
        if deallocate and size:
            regions.append(address)
        if not ports:
            return MemoryItem(type_, data)
        names = struct.unpack(f"<{size}I", data)
        return disposition, [Name(name, disposition) for name in names]

    @staticmethod
    def read(task: Task, address: int, size: int) -> bytes:
        """Bytes of one of the task's regions."""
        for base, region in task.memory.items():
            if base <= address and address + size <= base + len(region):
                return region[address - base : address - base + size]
        need(size == 0, m.SEND_INVALID_MEMORY)
        return b""

    def check_rights(self, task: Task, wire: Wire) -> Port:
        """Everything that can refuse a send, in order; nothing changes. The destination."""
        dest_type, reply_type = wire.bits & 0x1F, wire.bits >> 8 & 0x1F
        entry = task.table.get(wire.remote)
        need(entry and entry.types & LIVE, m.SEND_INVALID_DEST)
        held: dict[int, list[int]] = {}
        reply = self.try_header(task, wire, dest_type, reply_type, held)
        assert entry
        dest = entry.object
        assert isinstance(dest, Port)
        self.ask_header(task, wire, dest, reply)
        body = [
            (name, self.try_name(task, name, held)) for name in wire.names() if valid(name.name)
        ]
        for name, port in body:
            if isinstance(port, Port) and name.guard and port.guarded:
                context, flags = name.guard
                known = port.context == context and not flags & m.GUARD_FLAGS_UNGUARDED_ON_SEND
                need(known, m.SEND_INVALID_RIGHT)
        for name, port in body:
            if isinstance(port, Port):
                self.ask(task, port, GIVE[name.disposition], m.SEND_INVALID_RIGHT)
        return dest

    def try_header(
        self, task: Task, wire: Wire, dest_type: int, reply_type: int, held: dict[int, list[int]]
    ) -> Port | int:
        """Reply and destination; of one name a copy is taken before a move."""
        reply: Port | int = wire.local
        if valid(wire.local):
            self.attempt(task, wire.local, reply_type, {}, True, m.SEND_INVALID_REPLY)
            self.attempt(task, wire.remote, dest_type, {}, False, m.SEND_INVALID_DEST)
            self.check_enforced(task, wire, reply_type)
        copy_first = wire.local == wire.remote and reply_type == m.COPY_SEND
        if copy_first:
            reply = self.attempt(task, wire.local, reply_type, held, True, m.SEND_INVALID_REPLY)
        self.attempt(task, wire.remote, dest_type, held, False, m.SEND_INVALID_DEST)
        if valid(wire.local) and not copy_first:
            same = wire.local == wire.remote
            code = m.SEND_INVALID_DEST if same else m.SEND_INVALID_REPLY
            reply = self.attempt(task, wire.local, reply_type, held, True, code)
        return reply

    @staticmethod
    def check_enforced(task: Task, wire: Wire, reply_type: int) -> None:
        """Some ports insist on a fresh send-once right to a port that gives no other."""
        dest, reply = task.table[wire.remote].object, task.table[wire.local].object
        if isinstance(dest, Port) and dest.enforces_reply:
            fits = isinstance(reply, Port) and reply.reply_only
            need(fits and reply_type == m.MAKE_SEND_ONCE, m.SEND_INVALID_REPLY)

    def attempt(
        self,
        task: Task,
        name: int,
        disposition: int,
        held: dict[int, list[int]],
        dead_ok: bool,
        code: int,
    ) -> Port | int:
        try:
            return self.try_copyin(task, name, disposition, held, dead_ok)
        except Fault:
            raise Fault(code) from None

    def try_name(self, task: Task, name: Name, held: dict[int, list[int]]) -> Port | int:
        return self.attempt(task, name.name, name.disposition, held, True, m.SEND_INVALID_RIGHT)

    def ask_header(self, task: Task, wire: Wire, dest: Port, reply: Port | int) -> None:
        """The mandatory checks of a header, with the code each refusal has."""
        self.ask(task, dest, "send", m.SEND_INVALID_DEST)
        self.ask(task, dest, GIVE[wire.bits & 0x1F], m.SEND_INVALID_DEST)
        if any(True for _ in wire.names()):
            self.ask(task, dest, "carry_rights", m.SEND_NO_GRANT_DEST)
        if any(isinstance(descriptor, MemoryItem) for descriptor in wire.descriptors):
            self.ask(task, dest, "carry_memory", m.SEND_INVALID_MEMORY)
        need(self.may_call(task.label, dest, wire.id), m.SEND_MSG_FILTERED)
        if isinstance(reply, Port):
            self.ask(task, reply, "set_reply", m.SEND_INVALID_REPLY)
            self.ask(task, reply, GIVE[wire.bits >> 8 & 0x1F], m.SEND_INVALID_REPLY)

    def may_call(self, sender: str, port: Port, number: int) -> bool:
        """Whether a port takes a message of this number from a sender."""
        if not (port.serves and self.checked):
            return True
        routine = ROUTINES.get(number)
        return routine is not None and self.allows(sender, port.label, INTERFACE, routine)

    def build(self, task: Task, wire: Wire) -> Kmsg:
        """Takes all rights out of the sender's space, the header's first, copies before moves."""
        dest_type, reply_type = wire.bits & 0x1F, wire.bits >> 8 & 0x1F
        if dest_type in (m.MOVE_SEND, m.MOVE_SEND_ONCE):
            reply = self.copyin(task, wire.local, reply_type)
            dest = self.copyin(task, wire.remote, dest_type)
        else:
            dest = self.copyin(task, wire.remote, dest_type)
            reply = self.copyin(task, wire.local, reply_type)
        items = [self.build_item(task, descriptor) for descriptor in wire.descriptors]
        voucher = 0 if wire.bits >> 16 & 0x1F else wire.voucher
        complex_ = bool(wire.bits & m.BITS_COMPLEX)
        kmsg = Kmsg(dest, reply, wire.id, voucher, items, wire.data, complex_, task.label)
        kmsg.audit_token, kmsg.security_token = task.audit_token, task.security_token
        return kmsg

    def build_item(
        self, task: Task, descriptor: Name | MemoryItem | tuple[int, list[Name]]
    ) -> Item:
        if isinstance(descriptor, MemoryItem):
            return descriptor
        if isinstance(descriptor, Name):
            right = self.copyin(task, descriptor.name, descriptor.disposition)
            return PortItem(right, descriptor.guard)
        disposition, names = descriptor
        rights = [self.copyin(task, name.name, disposition) for name in names]
        return PortsItem(RECEIVED[disposition], rights)

    # ---- receiving ----------------------------------------------------------------------------

    def receive(self, task: Task, option: int, rcv_size: int, name: int) -> tuple[int, bytes]:
        trailer_size = m.TRAILER_SIZE.get(option >> 24 & 0xFF)
        need(trailer_size, m.RCV_INVALID_TRAILER)
        assert trailer_size
        port = self.next_port(task, name)
        kmsg = self.first_message(task, port)
        if (kmsg.size(option) + 3 & ~3) + trailer_size > rcv_size:
            return m.RCV_TOO_LARGE, self.too_large(port, kmsg, option)[:rcv_size]
        self.trace_receive(kmsg)
        seqno = port.seqno
        self.take(port, self.turn(task, name))
        denied = self.deny_takes(task, kmsg)
        self.use_dest(kmsg)
        self.trace_take(kmsg.reply)  # of the kernel's messages there is none
        reply = self.copyout(task, kmsg.reply)
        message = self.encode(task, kmsg, reply, port.name, option, swapped=True)
        message += bytes(-len(message) % 4)
        code = m.RCV_BODY_ERROR | m.IPC_SPACE if denied else m.SUCCESS
        return code, message + self.trailer(kmsg, seqno, port, trailer_size)

    def first_message(self, task: Task, port: Port) -> Kmsg:
        """The message to receive.

        It is destroyed if the task may not hear its sender, or the sender may not call it any more:
        label and interface of the port may have changed since it was sent.
        """
        kmsg = port.queue[0]
        if kmsg.sender and not (
            self.allows(task.label, kmsg.sender, "mach_port", "recv")
            and self.may_call(kmsg.sender, port, kmsg.id)
        ):
            self.take(port)
            self.doomed.append(kmsg)
            raise Fault(m.RCV_INVALID_DATA)
        kmsg.method = kmsg.sender is not None and (port.serves or not self.checked)
        return kmsg

    def trace_receive(self, kmsg: Kmsg) -> None:
        if kmsg.sender is not None:
            self.events[EVENT_RECV] += 1

    def next_port(self, task: Task, name: int) -> Port:
        """The port to receive from: of a set, the first in turn that the task may use."""
        entry = task.table.get(name)
        need(entry and entry.types & (m.TYPE_RECEIVE | m.TYPE_PORT_SET), m.RCV_INVALID_NAME)
        assert entry
        if isinstance(entry.object, Port):
            self.ask(task, entry.object, "use_recv", m.RCV_INVALID_NAME)
            need(entry.object.queue, m.RCV_TIMED_OUT)
            return entry.object
        assert isinstance(entry.object, PortSet)
        need(entry.object.ready, m.RCV_TIMED_OUT)
        for port in entry.object.ready:
            if self.allows(task.label, port.label, "mach_port", "use_recv"):
                return port
        raise Fault(m.RCV_INVALID_NAME)

    @staticmethod
    def turn(task: Task, name: int) -> PortSet | None:
        """The set that a receive from this name is from."""
        pset = task.table[name].object
        return pset if isinstance(pset, PortSet) else None

    def take(self, port: Port, turn: PortSet | None = None) -> None:
        """Dequeues the first message; in the set it was received from, others are next."""
        kmsg = port.queue.pop(0)
        for carried in kmsg.carried_ports():
            carried.transit = None
        port.seqno = (port.seqno + 1) & 0xFFFFFFFF
        for pset in port.sets:
            if pset is turn or not port.queue:
                pset.ready.remove(port)
            if pset is turn and port.queue:
                pset.ready.append(port)
        self.fire_possible(port)

    def too_large(self, port: Port, kmsg: Kmsg, option: int) -> bytes:
        """With RCV_LARGE the message stays, and its size is told; else it is destroyed."""
        if option & m.OPTION_RCV_LARGE:
            name = port.name if option & m.OPTION_RCV_LARGE_IDENTITY else 0
            return struct.pack("<IIIIIi", 0, kmsg.size(option) + 3 & ~3, 0, name, 0, kmsg.id)
        header = struct.pack("<IIIIIi", 0, m.HEADER_SIZE, 0, port.name, 0, kmsg.id)
        self.take(port)
        self.doomed.append(kmsg)
        return header

    def use_dest(self, kmsg: Kmsg) -> None:
        """The message has arrived: the right that brought it is used up."""
        port = kmsg.dest.port
        assert isinstance(port, Port)
        if kmsg.dest.kind == m.PORT_SEND:
            self.drop_send(port)
        else:
            port.sorights -= 1

    def deny_takes(self, task: Task, kmsg: Kmsg) -> bool:
        """Marks the rights which the receiver may not hold; True if there are any."""
        if kmsg.sender is None:  # the kernel's messages are not mediated
            return False
        denied = 0

        def keep(right: Right) -> Right:
            nonlocal denied
            port = right.port
            if not isinstance(port, Port) or not port.alive:
                return right
            if self.allows(task.label, port.label, "mach_port", TAKE[right.kind]):
                return right
            denied += 1
            return right._replace(denied=True)

        kmsg.reply = keep(kmsg.reply)
        for place, item in enumerate(kmsg.items):
            if isinstance(item, PortItem):
                kmsg.items[place] = item._replace(right=keep(item.right))
            elif isinstance(item, PortsItem):
                kmsg.items[place] = item._replace(rights=[keep(right) for right in item.rights])
        return denied > 0

    def pseudo_receive(self, task: Task, kmsg: Kmsg) -> bytes:
        """The message goes back into the sender's space; nothing is swapped."""
        dest = self.copyout(task, kmsg.dest)
        reply = self.copyout(task, kmsg.reply)
        return self.encode(task, kmsg, dest, reply, m.OPTION_RCV_GUARDED_DESC, swapped=False)

    def encode(
        self, task: Task, kmsg: Kmsg, remote: int, local: int, option: int, swapped: bool
    ) -> bytes:
        """The wire form for this task, whose space takes the rights of the body."""
        first, second = (kmsg.reply, kmsg.dest) if swapped else (kmsg.dest, kmsg.reply)
        bits = first.kind | second.kind << 8 | (m.BITS_COMPLEX if kmsg.complex else 0)
        size = kmsg.size(option)
        head = struct.pack("<IIIIIi", bits, size, remote, local, kmsg.voucher, kmsg.id)
        if kmsg.complex:
            head += struct.pack("<I", len(kmsg.items))
        received = swapped and kmsg.sender is not None
        body = b"".join(self.encode_item(task, item, option, received) for item in kmsg.items)
        return head + body + kmsg.data

    def encode_item(self, task: Task, item: Item, option: int, received: bool) -> bytes:
        if isinstance(item, MemoryItem):
            address = self.vm_place(task, item.data)
            return struct.pack("<QBBBBI", address, 1, 1, 0, item.type, len(item.data))
        if isinstance(item, PortsItem):
            names = [self.hand_over(task, right, received) for right in item.rights]
            address = self.vm_place(task, struct.pack(f"<{len(names)}I", *names))
            kind = m.DESCRIPTOR_OOL_PORTS
            return struct.pack("<QBBBBI", address, 1, 1, item.kind, kind, len(names))
        name = self.hand_over(task, item.right, received)
        kind = item.right.kind
        if item.guard and received:
            self.guard_received(item, name)
        if item_size(item, option) == m.DESCRIPTOR_SIZE[m.DESCRIPTOR_PORT]:
            return struct.pack("<IIHBB", name, 0, 0, kind, m.DESCRIPTOR_PORT)
        assert item.guard
        return struct.pack("<QHBBI", *item.guard, kind, m.DESCRIPTOR_GUARDED, name)

    def hand_over(self, task: Task, right: Right, received: bool) -> int:
        """Copies a right of the body out; traced if another task sent it."""
        if received:
            self.trace_take(right)
        return self.copyout(task, right)

    @staticmethod
    def guard_received(item: PortItem, name: int) -> None:
        """The right of a guarded descriptor is guarded where it arrives."""
        port = item.right.port
        if isinstance(port, Port) and valid(name) and item.guard:
            port.context, flags = item.guard
            port.guarded = True
            port.immovable |= bool(flags & m.GUARD_FLAGS_IMMOVABLE_RECEIVE)

    @staticmethod
    def trailer(kmsg: Kmsg, seqno: int, port: Port, size: int) -> bytes:
        """The trailer, cut to the size asked for; its own size field says which."""
        whole = struct.pack("<III", 0, size, seqno)
        whole += struct.pack("<2I", *kmsg.security_token)
        whole += struct.pack("<8I", *kmsg.audit_token)
        whole += struct.pack("<QII", 0 if port.strict else port.context, kmsg.method, 0)
        return whole[:size]

    # ---- memory ---------------------------------------------------------------------------------

    def vm_place(self, task: Task, data: bytes) -> int:
        """A new region of the task with these bytes; no region for none."""
        if not data:
            return 0
        address = self.next_address
        self.next_address += len(data) + 0x1000
        task.memory[address] = data
        return address

    # ---- what a test may ask of the whole -------------------------------------------------------

    def living(self) -> set[Port]:
        """Every port that a name, a message or a task leads to, and that is alive."""
        work: list[object] = [entry.object for task in self.tasks for entry in task.table.values()]
        for task in self.tasks:
            work += [*task.special.values(), *task.registered.values()]
        found: set[Port] = set()
        while work:
            port = work.pop()
            if not isinstance(port, Port) or not port.alive or port in found:
                continue
            found.add(port)
            work += [port.no_senders, port.destroyed]
            work += [request.notify for request in port.requests]
            for kmsg in port.queue:
                work += [right.port for right in (kmsg.dest, kmsg.reply, *kmsg.body_rights())]
        return found

    def counts(self) -> dict[str, int]:
        ports = self.living()
        entries = [entry for task in self.tasks for entry in task.table.values()]
        return {
            "port_sets": sum(isinstance(entry.object, PortSet) for entry in entries),
            "names": len(entries),
            "messages_queued": sum(len(port.queue) for port in ports),
        }

    def recount(self) -> None:
        """Asserts that every port's counts are what spaces, messages and requests add up to."""
        ports = self.living()
        sends, onces = dict.fromkeys(ports, 0), dict.fromkeys(ports, 0)

        def count(counts: dict[Port, int], port: object) -> None:
            if isinstance(port, Port) and port in counts:
                counts[port] += 1

        for task in self.tasks:
            for entry in task.table.values():
                self.check_entry(entry)
                if entry.types & m.TYPE_SEND:
                    count(sends, entry.object)
                elif entry.types & m.TYPE_SEND_ONCE:
                    count(onces, entry.object)
            for port in (*task.special.values(), *task.registered.values()):
                count(sends, port)
        for port in ports:
            for kmsg in port.queue:
                for right in (kmsg.dest, kmsg.reply, *kmsg.body_rights()):
                    if right.kind != m.PORT_RECEIVE:
                        count(sends if right.kind == m.PORT_SEND else onces, right.port)
            for held in (port.no_senders, port.destroyed, *(r.notify for r in port.requests)):
                count(onces, held)
        for port in ports:
            assert (port.srights, port.sorights) == (sends[port], onces[port])

    @staticmethod
    def check_entry(entry: Entry) -> None:
        """User references go with the rights that are counted by them."""
        counted = entry.types & (m.TYPE_SEND | m.TYPE_DEAD_NAME | m.TYPE_SEND_ONCE)
        assert bool(entry.urefs) == bool(counted)
        assert entry.types
        if isinstance(entry.object, Port):
            assert entry.object.alive
