# SPDX-License-Identifier: BSD-2-Clause
"""Label handles: ports that stand for a label (SEDarwin's ipc_labelh), for `pympi.mach`.

A handle is a port of kernel-object kind 32. It has two labels: the *stored* one, which it stands
for and which never changes, and the *access* label, which it has as every port does and which says
who may do what with it. The core knows the second; the first is in a table here, by the port's
number, which no other port ever has. So nobody can forge a handle, and a name says whether it is
one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from . import _upcall
from ._ffi import ffi, lib
from .enums import KOBJECTS
from .errors import AccessDenied, LabelError, MachError, exception
from .port import Right, SendRight

if TYPE_CHECKING:
    from collections.abc import Callable

    from .kernel import AccessDecision, Kernel
    from .task import Task

__all__ = ["TEXT_MAX", "LabelHandles"]

TEXT_MAX = 512
"""Bytes of a string in the calls of the `security` subsystem."""

_KIND = KOBJECTS.index("labelh")
_FEWEST = 64


class _Handle(NamedTuple):
    """A handle: its stored label, and where its receive right is, which cannot move."""

    sid: int
    owner: Task
    name: int


class LabelHandles:
    """The label handles of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lock = threading.RLock()
        self._handles: dict[int, _Handle] = {}
        self._of_tasks: dict[int, int] = {}
        self._purge_at = _FEWEST

    @classmethod
    def of(cls, kernel: Kernel) -> LabelHandles:
        """Return the label handles of a kernel, the same each time."""
        found = kernel.__dict__.get("_label_handles")
        return found or kernel.__dict__.setdefault("_label_handles", cls(kernel))

    # ---- making ----

    def create(self, task: Task, sid: int, caller: Task | None = None) -> int:
        """Make a handle in a task's space: its receive right and a send right, under one name."""
        options = ffi.new("struct pm_port_options *")
        options.flags, options.trace_kind = lib.MPO_INSERT_SEND_RIGHT, _KIND
        options.trace_number = -1
        name = task._get(lib.pm_port_construct, options, caller=caller)
        try:
            arguments = (name, _upcall.HANDLER, _upcall.NOBODY, _KIND)
            task._do(lib.pm_port_set_handler, *arguments, caller=caller)
            self._file(task, name, sid)
        except BaseException:
            lib.pm_port_destroy(task._pointer, task._pointer, name)
            raise
        return name

    def _file(self, task: Task, name: int, sid: int) -> None:
        number = Right(task, name).port_id
        code = lib.pm_sid_retain(self._kernel.pointer, sid)
        if code:
            raise exception(code, "label handle")
        with self._lock:
            if len(self._handles) >= self._purge_at:
                self._purge()
            self._handles[number] = _Handle(sid, task, name)

    def _purge(self) -> None:
        """Forget the handles whose ports died."""
        dead = [
            number
            for number, handle in self._handles.items()
            if Right(handle.owner, handle.name).port_id != number
        ]
        for number in dead:
            lib.pm_sid_release(self._kernel.pointer, self._handles.pop(number).sid)
        self._of_tasks = {t: n for t, n in self._of_tasks.items() if n in self._handles}
        self._purge_at = max(_FEWEST, 2 * len(self._handles))

    def of_task(self, task: Task, caller: Task | None = None) -> int:
        """Return the name of the handle of a task's own label, with one send reference more."""
        with self._lock:
            handle = self._handles.get(self._of_tasks.get(task.id, 0))
        if handle is not None and handle.sid == task.sid and self._one_more(handle, caller):
            return handle.name
        name = self.create(task, task.sid, caller)
        with self._lock:
            self._of_tasks[task.id] = Right(task, name).port_id
        return name

    def _one_more(self, handle: _Handle, caller: Task | None) -> bool:
        send = lib.MACH_PORT_RIGHT_SEND
        if self.stored(handle.owner, handle.name) is None:
            return False
        try:
            handle.owner._do(lib.pm_port_mod_refs, handle.name, send, 1, caller=caller)
        except AccessDenied:
            raise
        except MachError:
            return False
        return True

    # ---- reading ----

    def stored(self, task: Task, name: int) -> int | None:
        """Return the SID of the label that a name stands for; None if it is no label handle."""
        handle = self._handles.get(Right(task, name).port_id)
        return None if handle is None else handle.sid

    def label_of(self, task: Task, name: int, caller: Task | None = None) -> int:
        """Return the SID that a name gives: the stored label of a handle, else a port's label.

        Raises:
            AccessDenied: KERN_NO_ACCESS: the handle may not be read.
        """
        stored = self.stored(task, name)
        if stored is None:
            return Right(task, name).sid
        self.may_read(caller or task, task, name)
        return stored

    def may_read(self, reader: Task, task: Task, name: int) -> None:
        """Ask whether a handle may be read: get_attributes of its access label.

        Raises:
            AccessDenied: KERN_NO_ACCESS.
        """
        right = SendRight(task, name)
        decision = self._kernel.access(reader, right, "mach_port", "get_attributes")
        if decision.audited or decision.reported:
            self._record(reader, right, decision)
        if decision:
            return
        detail = f"task {reader.name!r}, name {name:#x}"
        if self._kernel.conceals_denials:
            raise exception(lib.KERN_NO_ACCESS, detail)
        denied = " ".join(decision.denied)
        raise AccessDenied(lib.KERN_NO_ACCESS, detail, "attributes", denied, "mach_port")

    def _record(self, reader: Task, right: Right, decision: AccessDecision) -> None:
        """Write what the core writes of a check: a permissive kernel's refusals as denied."""
        tclass = self._kernel.object_class("mach_port")
        asked = tclass.mask("get_attributes")
        permissive = decision.reported and self._kernel.policies.permissive
        reported = decision.reported and not permissive
        record = ffi.new("struct pm_audit_record *")
        record.operation, record.tclass = lib.PM_OP_ATTRIBUTES, tclass.number
        record.real_sid = record.effective_sid = reader.sid
        record.object_sid, record.port = right.sid, right.port_id
        record.task, record.name = reader.id, right.name
        record.asked, record.report = asked, asked if reported else 0
        record.denied = asked if permissive or not decision else 0
        record.flags |= lib.PM_AUDIT_PERMISSIVE if permissive else 0
        record.flags |= lib.PM_AUDIT_REPORTED if reported else 0
        record.result = 0 if decision else lib.KERN_NO_ACCESS
        lib.pm_audit_write(self._kernel.pointer, record)


# ---- strings of the calls ----


def invalid(problem: object) -> MachError:
    """Return KERN_INVALID_ARGUMENT, which says what is wrong."""
    return exception(lib.KERN_INVALID_ARGUMENT, str(problem))


def argument(text: str) -> str:
    """Return a string argument.

    Raises:
        MachError: KERN_INVALID_ARGUMENT: it is longer than the calls take.
    """
    size = len(text.encode(errors="surrogateescape"))
    if size > TEXT_MAX:
        raise invalid(f"a string of the security calls has at most {TEXT_MAX} bytes, this {size}")
    return text


def text(kernel: Kernel, sid: int, namespaces: str) -> str:
    """Return the part of a label that some modules have in it.

    Raises:
        MachError: KERN_INVALID_ARGUMENT: a value is missing, or the text is too long.
    """
    try:
        return argument(kernel.label_text(sid, argument(namespaces)))
    except LabelError as error:
        raise invalid(error) from None


def with_label(task: Task, label: str, use: Callable[[int], int]) -> int:
    """Return what `use` makes of the SID of a label.

    Raises:
        MachError: KERN_INVALID_ARGUMENT: it is no label.
    """
    try:
        borrowed = task.kernel.borrowed(argument(label), task)
    except LabelError as error:
        raise invalid(error) from None
    with borrowed as sid:
        return use(sid)


def judge(kernel: Kernel, source: int | str, target: int | str, tclass: str, perm: str) -> None:
    """Answer whether the policy allows something.

    Raises:
        MachError: KERN_INVALID_ARGUMENT for what is no label, class or permission of it,
            KERN_NO_ACCESS where it is refused.
    """
    try:
        if not perm.strip() or not perm.isprintable():
            raise ValueError(f"no permission {perm!r}")
        decision = kernel.access(source, target, argument(tclass), argument(perm))
    except ValueError as error:
        raise invalid(error) from None
    if not decision:
        denied = " ".join(decision.denied)
        raise exception(lib.KERN_NO_ACCESS, f"no {denied} on {tclass}")
