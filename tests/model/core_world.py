# SPDX-License-Identifier: BSD-2-Clause
"""The core behind the face of `World`: pympi.mach and the Kernel object."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from model import INTERFACE, ROUTINES
from tables import Table
from worlds import Refused, World

from pympi import Kernel, MachError, mach
from pympi._ffi import ffi, lib
from pympi.mig import Interface
from pympi.policy import Decision, PolicyModule

Allows = Callable[[str, str, str, str], bool]
MODULE = "table"

# Results that Mach gives as arrays, as the model gives them.
PLAIN: dict[str, Callable[[Any], Any]] = {
    "mach_port_names": lambda result: sorted(zip(*map(list, result), strict=True)),
    "mach_port_get_attributes": tuple,
    "mach_port_get_set_status": list,
    "mach_port_extract_right": tuple,
    "mach_port_peek": tuple,
    "mach_ports_lookup": list,
}


class TableModule(PolicyModule):
    """The model's `allows`, as a policy module."""

    name = MODULE

    def __init__(self, allows: Allows) -> None:
        self.allows = allows

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        allowed = 0
        for permission in tclass.permissions:
            if self.allows(source, target, tclass.name, permission):
                allowed |= tclass.mask(permission)
        return Decision(allowed=allowed)


class CoreWorld(World):
    """A kernel of pympi."""

    def __init__(
        self, allows: Allows | None = None, fast_path: bool = True, trace: bool = False
    ) -> None:
        self.checked = allows is not None
        modules = [TableModule(allows)] if allows else []
        self.kernel = Kernel(policies=modules, fast_path=fast_path, seed=1)
        name = INTERFACE.removeprefix("mi_")
        self.interface = Interface(name, min(ROUTINES), list(ROUTINES.values()))
        if trace:
            lib.pm_trace_start(self.kernel.pointer)

    def text(self, label: str) -> str:
        return f"{MODULE}/{label}" if self.checked else "-"

    def create_task(self, label: str | None = "", uid: int = 0, parent: Any = None) -> Any:
        text = None if label is None else self.text(label)
        try:
            return self.kernel.create_task("task", text, uid=uid, parent=parent)
        except MachError as error:
            raise Refused(error.code) from error

    def terminate(self, task: Any, caller: Any = None) -> None:
        try:
            task.terminate(caller=caller)
        except MachError as error:
            raise Refused(error.code) from error

    def relabel_task(self, task: Any, label: str, caller: Any = None) -> None:
        task.relabel(self.text(label), caller=caller)

    def relabel_port(self, task: Any, name: int, label: str, caller: Any = None) -> None:
        with self.kernel.borrowed(self.text(label), task) as sid:
            task._do(lib.pm_port_relabel, name, sid, caller=caller)

    def long_send(
        self,
        task: Any,
        dest: tuple[int, int],
        reply: tuple[int, int],
        msgh_id: int,
        rights: Sequence[tuple[int, int]],
        body: bytes,
    ) -> None:
        """pm_send_message, without waiting."""
        spec = ffi.new("struct pm_send_spec *", {"msgh_id": msgh_id})
        spec.dest, spec.dest_disposition = dest[:2]
        spec.reply, spec.reply_disposition = reply[:2]
        array = ffi.new("struct pm_right[]", [list(right) for right in rights])
        data = ffi.from_buffer(body)
        spec.rights, spec.rights_count = array, len(rights)
        spec.body, spec.size = data, len(body)
        code = lib.pm_send_message(task._pointer, spec, ffi.NULL)
        if code:
            raise Refused(code)

    def long_receive(self, task: Any, name: int) -> tuple[Any, ...]:
        """pm_receive_message, without waiting."""
        got = ffi.new("struct pm_received *")
        code = lib.pm_receive_message(task._pointer, name, 0, got, ffi.NULL)
        if code not in (0, lib.MACH_RCV_BODY_ERROR | lib.MACH_MSG_IPC_SPACE):
            raise Refused(code)
        sender = self.kernel.label(got.sender_sid).removeprefix(f"{MODULE}/")
        rights = tuple(
            (right.name, right.disposition) for right in got.rights[0 : got.rights_count]
        )
        memory = tuple(
            bytes(ffi.buffer(each.address, each.size)) for each in got.memory[0 : got.memory_count]
        )
        body = bytes(ffi.buffer(got.body, got.size)) if got.size else b""
        head = got.msgh_id, got.seqno, got.local, got.reply, got.reply_disposition
        label = (sender if self.checked else "") if got.sender_task else None
        token = tuple(got.identity.audit_token)
        denied = got.denied
        lib.pm_message_free(got.message)
        return *head, label, token, body, rights, memory, denied

    def serve(self, task: Any, name: int, serves: bool) -> None:
        number = self.interface.number(self.kernel) if serves else 0
        task._do(lib.pm_port_set_interface, name, number)

    @contextlib.contextmanager
    def short_of_memory(self) -> Iterator[None]:
        """While an allocation fails, if one is to."""
        if self.fault:
            lib.pm_kernel_fault(self.kernel.pointer, self.fault, 0)
        try:
            yield
        finally:
            if self.fault:
                lib.pm_kernel_fault(self.kernel.pointer, 0, 0)

    def mach_port_construct(
        self, task: Any, flags: int, qlimit: int, context: int, caller: Any = None
    ) -> int:
        options = mach.PortOptions(flags, qlimit)
        name: int = mach.mach_port_construct(task, options, context, caller=caller)
        return name

    def short_send(self, task: Any, dest: int, body: bytes, msgh_id: int) -> None:
        """pm_send, without waiting."""
        code = lib.pm_send(task._pointer, dest, body, len(body), msgh_id, ffi.NULL)
        if code:
            raise Refused(code)

    def short_receive(self, task: Any, name: int, capacity: int) -> bytes:
        """pm_receive, without waiting."""
        room = ffi.new("char[]", max(capacity, 1))
        size = lib.pm_receive(task._pointer, name, room, capacity, ffi.NULL)
        if size < 0:
            raise Refused(-size)
        return bytes(ffi.buffer(room, size))

    def call(self, name: str, task: Any, *args: Any, **options: Any) -> Any:
        function = getattr(self, name, None) or getattr(mach, name)
        try:
            with self.short_of_memory():
                result = function(task, *args, **options)
        except MachError as error:
            raise Refused(error.code) from error
        return PLAIN[name](result) if name in PLAIN else result

    def wire(
        self, task: Any, message: bytes, option: int, rcv_size: int, rcv_name: int
    ) -> tuple[int, bytes]:
        with self.short_of_memory():
            code, buffer = mach.mach_msg(task, message, option, rcv_size, rcv_name)
        return code, bytes(buffer)

    def place(self, task: Any, data: bytes) -> int:
        address: int = mach.vm_allocate(task, len(data))
        mach.vm_write(task, address, data)
        return address

    def fetch(self, task: Any, address: int, size: int) -> bytes:
        if not size:
            return b""
        data: bytes = mach.vm_read(task, address, size)
        mach.vm_deallocate(task, address, size)
        return data

    def release(self, task: Any, address: int, size: int) -> None:
        with contextlib.suppress(MachError):  # the message may have taken it along
            mach.vm_deallocate(task, address, size)

    def reload(self, seed: int) -> None:
        if self.checked:
            self.kernel.policies.replace(MODULE, TableModule(Table(seed)))

    def verify(self) -> None:
        self.kernel.verify()

    def counts(self) -> dict[str, int]:
        stats = self.kernel.stats()
        return {key: stats[key] for key in ("port_sets", "names", "messages_queued")}

    def events(self) -> dict[int, int]:
        total: Counter[int] = Counter()
        size = lib.pm_trace_read(self.kernel.pointer, 0, ffi.NULL, 0)
        records = ffi.new("struct pm_trace_record[]", max(size, 1))
        lib.pm_trace_read(self.kernel.pointer, 0, records, size)
        for record in records[0:size]:
            total[record.event] += record.count
        return dict(total)

    def ports(self) -> int:
        return int(self.kernel.stats()["ports"])

    def close(self) -> None:
        self.kernel.close()
