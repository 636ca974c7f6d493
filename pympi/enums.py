# SPDX-License-Identifier: BSD-2-Clause
"""Numbers that have names: rights, dispositions, notifications, classes and permissions.

Every value is asked of the core; nothing is typed a second time. Classes and permissions come from
csrc/sec/hooks.def, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

from ._ffi import ffi, lib

__all__ = [
    "ALL",
    "CLASSES",
    "KOBJECTS",
    "ROUTINES_PER_CLASS",
    "AuditFlag",
    "Disposition",
    "Event",
    "GuardFlavor",
    "Hook",
    "KernelClass",
    "MachPort",
    "MachTask",
    "Notification",
    "ObjectClass",
    "Operation",
    "PortRight",
    "PortType",
    "Service",
    "SpecialPort",
    "first_routine",
    "hooks",
    "interface_classes",
]

ALL = 0xFFFFFFFF
"""An access vector with every permission."""

KOBJECTS = (
    "none", "thread", "task", "host", "host_priv", "processor", "pset", "pset_name", "timer",
    "paging_request", "mig", "memory_object", "xmm_pager", "xmm_kernel", "xmm_reply",
    "und_reply", "host_notify", "host_security", "ledger", "master_device", "act", "subsystem",
    "io_done_queue", "semaphore", "lock_set", "clock", "clock_ctrl", "iokit_spare",
    "named_entry", "iokit_connect", "iokit_object", "upl", "labelh", "unknown", "max_type",
)  # fmt: skip
"""Kinds of kernel objects by number, as SEDarwin's ipctrace counts them."""


class PortRight(IntEnum):
    """mach_port_right_t: the kinds of right a name may hold."""

    SEND = lib.MACH_PORT_RIGHT_SEND
    RECEIVE = lib.MACH_PORT_RIGHT_RECEIVE
    SEND_ONCE = lib.MACH_PORT_RIGHT_SEND_ONCE
    PORT_SET = lib.MACH_PORT_RIGHT_PORT_SET
    DEAD_NAME = lib.MACH_PORT_RIGHT_DEAD_NAME


class PortType(IntFlag):
    """mach_port_type_t: what a name holds now."""

    NONE = lib.MACH_PORT_TYPE_NONE
    SEND = lib.MACH_PORT_TYPE_SEND
    RECEIVE = lib.MACH_PORT_TYPE_RECEIVE
    SEND_ONCE = lib.MACH_PORT_TYPE_SEND_ONCE
    PORT_SET = lib.MACH_PORT_TYPE_PORT_SET
    DEAD_NAME = lib.MACH_PORT_TYPE_DEAD_NAME
    SPREQUEST = lib.MACH_PORT_TYPE_SPREQUEST
    DNREQUEST = lib.MACH_PORT_TYPE_DNREQUEST


class Disposition(IntEnum):
    """mach_msg_type_name_t: what becomes of a right that a message carries."""

    NONE = lib.MACH_MSG_TYPE_PORT_NONE
    MOVE_RECEIVE = lib.MACH_MSG_TYPE_MOVE_RECEIVE
    MOVE_SEND = lib.MACH_MSG_TYPE_MOVE_SEND
    MOVE_SEND_ONCE = lib.MACH_MSG_TYPE_MOVE_SEND_ONCE
    COPY_SEND = lib.MACH_MSG_TYPE_COPY_SEND
    MAKE_SEND = lib.MACH_MSG_TYPE_MAKE_SEND
    MAKE_SEND_ONCE = lib.MACH_MSG_TYPE_MAKE_SEND_ONCE


class Notification(IntEnum):
    """msgh_id of the messages the kernel sends about ports."""

    PORT_DELETED = lib.MACH_NOTIFY_PORT_DELETED
    SEND_POSSIBLE = lib.MACH_NOTIFY_SEND_POSSIBLE
    PORT_DESTROYED = lib.MACH_NOTIFY_PORT_DESTROYED
    NO_SENDERS = lib.MACH_NOTIFY_NO_SENDERS
    SEND_ONCE = lib.MACH_NOTIFY_SEND_ONCE
    DEAD_NAME = lib.MACH_NOTIFY_DEAD_NAME
    MESSAGE = lib.PM_NOTIFY_MESSAGE


class GuardFlavor(IntFlag):
    """XNU's guard exception flavours: what was done wrong to a guarded or invalid name."""

    DESTROY = lib.kGUARD_EXC_DESTROY
    MOD_REFS = lib.kGUARD_EXC_MOD_REFS
    SET_CONTEXT = lib.kGUARD_EXC_SET_CONTEXT
    UNGUARDED = lib.kGUARD_EXC_UNGUARDED
    INCORRECT_GUARD = lib.kGUARD_EXC_INCORRECT_GUARD
    IMMOVABLE = lib.kGUARD_EXC_IMMOVABLE
    INVALID_RIGHT = lib.kGUARD_EXC_INVALID_RIGHT
    INVALID_NAME = lib.kGUARD_EXC_INVALID_NAME
    INVALID_VALUE = lib.kGUARD_EXC_INVALID_VALUE


class SpecialPort(IntEnum):
    """task_special_port_t: the special ports a task has."""

    KERNEL = lib.TASK_KERNEL_PORT
    HOST = lib.TASK_HOST_PORT
    NAME = lib.TASK_NAME_PORT
    BOOTSTRAP = lib.TASK_BOOTSTRAP_PORT
    INSPECT = lib.TASK_INSPECT_PORT
    READ = lib.TASK_READ_PORT
    SEATBELT = lib.TASK_SEATBELT_PORT
    ACCESS = lib.TASK_ACCESS_PORT


class Operation(IntEnum):
    """What an audit record, or a denial, is about."""

    NONE = lib.PM_OP_NONE
    SEND = lib.PM_OP_SEND
    RECEIVE = lib.PM_OP_RECEIVE
    GIVE = lib.PM_OP_GIVE
    TAKE = lib.PM_OP_TAKE
    METHOD = lib.PM_OP_METHOD
    INSERT_RIGHT = lib.PM_OP_INSERT_RIGHT
    EXTRACT_RIGHT = lib.PM_OP_EXTRACT_RIGHT
    ATTRIBUTES = lib.PM_OP_ATTRIBUTES
    NOTIFICATION = lib.PM_OP_NOTIFICATION
    RELABEL = lib.PM_OP_RELABEL
    TASK = lib.PM_OP_TASK
    NAME = lib.PM_OP_NAME
    GUARD = lib.PM_OP_GUARD
    LOSS = lib.PM_OP_LOSS
    SERVICE = lib.PM_OP_SERVICE


class AuditFlag(IntFlag):
    """What is special about an audit record."""

    PERMISSIVE = lib.PM_AUDIT_PERMISSIVE
    REPORTED = lib.PM_AUDIT_REPORTED
    LOSS = lib.PM_AUDIT_LOSS
    ERROR = lib.PM_AUDIT_ERROR
    GUARD = lib.PM_AUDIT_GUARD
    UREFS = lib.PM_AUDIT_UREFS
    CIRCULAR = lib.PM_AUDIT_CIRCULAR
    RECEIVE = lib.PM_AUDIT_RECEIVE


class Event(IntEnum):
    """The events ipctrace counts: each use, give and take of a right."""

    SEND = lib.PM_EVENT_SEND
    RECV = lib.PM_EVENT_RECV
    MAKE_SEND = lib.PM_EVENT_MAKE_SEND
    MAKE_SEND_ONCE = lib.PM_EVENT_MAKE_SEND_ONCE
    COPY_SEND = lib.PM_EVENT_COPY_SEND
    MOVE_SEND = lib.PM_EVENT_MOVE_SEND
    MOVE_SEND_ONCE = lib.PM_EVENT_MOVE_SEND_ONCE
    MOVE_RECV = lib.PM_EVENT_MOVE_RECV
    HOLD_SEND = lib.PM_EVENT_HOLD_SEND
    HOLD_SEND_ONCE = lib.PM_EVENT_HOLD_SEND_ONCE
    HOLD_RECV = lib.PM_EVENT_HOLD_RECV


@dataclass(frozen=True, slots=True)
class Hook:
    """One controlled operation: a line of hooks.def."""

    tclass: int
    bit: int
    class_name: str
    permission: str
    object: str
    operation: str
    sentence: str


def _hook(raw: Any) -> Hook:
    texts = (raw.class_name, raw.permission, raw.object, raw.operation, raw.sentence)
    return Hook(raw.tclass, raw.bit, *(ffi.string(text).decode() for text in texts))


def hooks() -> list[Hook]:
    """Return every controlled operation, in the order of hooks.def."""
    found: list[Hook] = []
    while raw := lib.pm_hook(len(found)):
        found.append(_hook(raw))
    return found


@dataclass(frozen=True, slots=True)
class ObjectClass:
    """A class of objects and the permissions on them, bit by bit (Flask's access vectors).

    Attributes:
        number (int): as the core knows it.
        name (str): "mach_port", "mach_task", "service", "kernel" or "mi_<subsystem>".
        permissions (tuple[str, ...]): names; the index is the bit.
    """

    number: int
    name: str
    permissions: tuple[str, ...]
    bits: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        bits = {name: 1 << bit for bit, name in enumerate(self.permissions) if name}
        object.__setattr__(self, "bits", bits)

    def mask(self, permissions: str | int | Iterable[str]) -> int:
        """Return the access vector of permissions given by name.

        Args:
            permissions: one name, several separated by blanks, "*" for all, a sequence of names,
                or an int, which is returned as it is.

        Raises:
            ValueError: a name that is no permission of this class.

        Example:
            >>> from pympi.enums import CLASSES
            >>> CLASSES["mach_port"].mask("send recv")
            12
        """
        if isinstance(permissions, int):
            return permissions
        names = permissions.split() if isinstance(permissions, str) else list(permissions)
        if names == ["*"]:
            return ALL
        vector = 0
        for name in names:
            if name not in self.bits:
                known = " ".join(self.bits)
                raise ValueError(f"{name!r} is no permission of class {self.name}: {known}")
            vector |= self.bits[name]
        return vector

    def names(self, vector: int) -> tuple[str, ...]:
        """Return the names of the permissions in an access vector, in bit order."""
        return tuple(name for name, bit in self.bits.items() if vector & bit)


def _fixed_classes() -> dict[str, ObjectClass]:
    tables: dict[tuple[int, str], dict[int, str]] = {}
    for hook in hooks():
        tables.setdefault((hook.tclass, hook.class_name), {})[hook.bit] = hook.permission
    return {
        name: ObjectClass(number, name, tuple(bits.get(i, "") for i in range(max(bits) + 1)))
        for (number, name), bits in tables.items()
    }


CLASSES: Mapping[str, ObjectClass] = _fixed_classes()
"""The classes of hooks.def by name. Classes of interfaces belong to a kernel."""


def _flag(title: str, tclass: str) -> Any:
    return IntFlag(title, dict(CLASSES[tclass].bits))


# IntFlags of the permissions: MachPort.send, MachTask.terminate, ...
MachPort: Any = _flag("MachPort", "mach_port")
MachTask: Any = _flag("MachTask", "mach_task")
Service: Any = _flag("Service", "service")
KernelClass: Any = _flag("KernelClass", "kernel")


# ---- classes of interfaces ----

ROUTINES_PER_CLASS: int = lib.PM_ROUTINES_PER_CLASS
"""How many routines of an interface a class has; the next ones are in `mi_<interface>_2`."""

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_CONTINUES = re.compile(r".+_([2-9]|[1-9][0-9]{1,3})", re.DOTALL)


def interface_classes(name: str, routines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the classes of an interface and the routines of each.

    Args:
        name: of the interface.
        routines: names, in order; "" where a number is skipped.

    Raises:
        ValueError: no routine, two of one name, a name that is no identifier or is reserved; or the
            interface's is one that a class of another could have.

    Example:
        >>> [*interface_classes("x", [f"r{n}" for n in range(40)])]
        ['mi_x', 'mi_x_2']
    """
    named = [routine for routine in routines if routine]
    for word in (name, *named):
        if not _NAME.fullmatch(word):
            raise ValueError(f"not an identifier: {word!r}")
    if "ioctl" in named:
        raise ValueError("'ioctl' is reserved, and no name of a routine")
    if len(set(named)) != len(named) or not named:
        raise ValueError(f"interface {name!r} needs routines, each of another name")
    if match := _CONTINUES.fullmatch(name):
        other = name[: match.start(1) - 1]
        raise ValueError(
            f"interface {name!r}: mi_{name} is the name of a class of an interface {other!r} with "
            f"more than {ROUTINES_PER_CLASS} routines; let the name not end in _{match[1]}"
        )
    starts = range(0, len(routines), ROUTINES_PER_CLASS)
    parts = [tuple(routines[start : start + ROUTINES_PER_CLASS]) for start in starts]
    return {f"mi_{name}{f'_{n}' if n > 1 else ''}": part for n, part in enumerate(parts, 1)}


def first_routine(tclass: str) -> int:
    """Return the index, in its interface, of the first routine of a class.

    It goes by the name alone: what else a policy declares changes no numbers.

    Example:
        >>> first_routine("mi_x"), first_routine("mi_x_3")
        (0, 62)
    """
    match = _CONTINUES.fullmatch(tclass) if tclass.startswith("mi_") else None
    return ROUTINES_PER_CLASS * (int(match[1]) - 1) if match else 0
