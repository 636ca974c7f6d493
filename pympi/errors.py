# SPDX-License-Identifier: BSD-2-Clause
"""The exception tree, and the one table that turns a Mach code into an exception.

`PympiError` is the root. What comes from the core is a `MachError`, with Mach's code and name, and
derives from the fitting builtin exception too. A denial says which operation was refused, never
why: the reason is for the audit trail, and for who may read it.
"""

from __future__ import annotations

import functools
import operator

from ._ffi import ffi, lib

__all__ = [
    "AccessDenied",
    "AuditFull",
    "ForkedError",
    "GuardViolation",
    "InspectError",
    "InvalidName",
    "InvalidRight",
    "KernelClosed",
    "LabelError",
    "LimitExceeded",
    "MachError",
    "PolicyError",
    "PortDied",
    "PympiError",
    "QueueFull",
    "SnapshotError",
    "TimedOut",
    "VerifyError",
    "check",
    "code_name",
    "code_number",
    "exception",
]


class PympiError(Exception):
    """The root of everything pympi raises on its own account."""


class MachError(PympiError):
    """A call that the kernel answered with a code.

    Attributes:
        code (int): the Mach code, as in mach/kern_return.h and mach/message.h.
        name (str): its name, such as "KERN_INVALID_NAME".
        detail (str): what it was about.
    """

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    @property
    def name(self) -> str:
        return code_name(self.code)

    def __str__(self) -> str:
        _, sentence = _entry(self.code)
        prefix = f"{self.detail}: " if self.detail else ""
        return f"{prefix}{sentence} ({self.name})"


class AccessDenied(MachError, PermissionError):
    """Mandatory access control refused the operation.

    Attributes:
        operation (str): "send", "receive", "give", "take", "method", "relabel", ...
        permission (str): the permissions that were refused, separated by blanks.
        tclass (str): their class.
    """

    def __init__(
        self, code: int, detail: str = "", operation: str = "", permission: str = "",
        tclass: str = "",
    ) -> None:  # fmt: skip
        super().__init__(code, detail)
        self.args = (code, detail, operation, permission, tclass)
        self.operation = operation
        self.permission = permission
        self.tclass = tclass

    def __str__(self) -> str:
        prefix = f"{self.detail}: " if self.detail else ""
        refused = f"{self.operation} refused: no {self.permission} on {self.tclass}"
        return f"{prefix}{refused} ({self.name})"


class TimedOut(MachError, TimeoutError):
    """The time was over before the call could be satisfied; nothing has changed."""


class QueueFull(TimedOut):
    """The port's queue is full, and stayed full for the time given; nothing was sent."""


class InvalidName(MachError, LookupError):
    """The name denotes nothing in this task's space."""


class InvalidRight(MachError):
    """The name denotes something, but not the right this call needs."""


class PortDied(MachError):
    """The port is dead."""


class LimitExceeded(MachError):
    """A quota, a limit of the kernel, or memory is exhausted."""


class AuditFull(LimitExceeded):
    """The operation could not be recorded, and so was not done."""


class ForkedError(MachError, RuntimeError):
    """The kernel was made by another process; after fork() a child may only close it."""


class GuardViolation(MachError):
    """A guarded port, or an invalid name, was misused (XNU's guard exceptions).

    Attributes:
        flavor (pympi.enums.GuardFlavor): what was done wrong.
        port_name (int): to which name.
        payload (int): the value that came with it.
    """

    flavor: int = 0
    port_name: int = 0
    payload: int = 0


class KernelClosed(MachError, ValueError):
    """The kernel was closed."""


class PolicyError(PympiError, ValueError):
    """A policy that cannot be used.

    Attributes:
        file (str): its name.
        line (int): 1-based; 0 if no place in a text is to blame.
        column (int): 1-based, likewise.
    """

    def __init__(self, message: str, file: str = "<text>", line: int = 0, column: int = 0) -> None:
        super().__init__(message, file, line, column)
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        return f"{where}{self.args[0]}"


class LabelError(PympiError, ValueError):
    """A label that cannot be used: what is wrong with it, and where."""


class InspectError(PympiError, ConnectionError):
    """A control socket that cannot be used, or a request that it refused.

    Attributes:
        code (str): "no server", "timeout", "closed", "protocol"; or the server's: "bad request",
            "denied", "read only", "busy", "failed", "not supported", "closing".
        file (str), line (int), column (int): of a policy that failed, where; "" and 0 if that is
            not known.
    """

    def __init__(
        self, code: str, message: str, file: str = "", line: int = 0, column: int = 0
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.file, self.line, self.column = file, line, column

    def __str__(self) -> str:
        return f"{self.args[1]} ({self.code})"


class SnapshotError(PympiError, ValueError):
    """A file that is no snapshot, or one that cannot be used: which, and what is wrong with it."""


class VerifyError(PympiError, AssertionError):
    """`Kernel.verify()` found the kernel's counts and reality apart.

    Attributes:
        faults (list[str]): one line for each.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return f"{len(self.faults)} faults: " + "; ".join(self.faults)


# Every code of the core: the exception it becomes, and what it says.
_CODES: dict[str, tuple[type[MachError], str]] = {
    "KERN_SUCCESS": (MachError, "nothing is wrong"),
    "KERN_NO_SPACE": (LimitExceeded, "no room for another name"),
    "KERN_INVALID_ARGUMENT": (MachError, "an argument is not valid"),
    "KERN_FAILURE": (MachError, "the call could not be done"),
    "KERN_RESOURCE_SHORTAGE": (LimitExceeded, "memory, a table or a quota is exhausted"),
    "KERN_NO_ACCESS": (MachError, "no access"),
    "KERN_ALREADY_IN_SET": (MachError, "the port is in that set already"),
    "KERN_NOT_IN_SET": (MachError, "the port is not in that set"),
    "KERN_NAME_EXISTS": (MachError, "the name is taken"),
    "KERN_ABORTED": (MachError, "the call was aborted"),
    "KERN_INVALID_NAME": (InvalidName, "the name denotes nothing in this task"),
    "KERN_INVALID_TASK": (MachError, "the task is terminated"),
    "KERN_INVALID_RIGHT": (InvalidRight, "the name does not hold the right this needs"),
    "KERN_INVALID_VALUE": (MachError, "a value is out of range"),
    "KERN_UREFS_OVERFLOW": (LimitExceeded, "the name would hold more than 65535 references"),
    "KERN_INVALID_CAPABILITY": (InvalidRight, "the right is null, dead or may not move"),
    "KERN_RIGHT_EXISTS": (MachError, "the task has the right under another name"),
    "KERN_TERMINATED": (MachError, "the object is terminated"),
    "KERN_NOT_SUPPORTED": (MachError, "not supported"),
    "KERN_DENIED": (MachError, "denied"),
    "PM_FORKED": (ForkedError, "a child of fork() may only close its parent's kernel"),
    "PM_AUDIT_FULL": (AuditFull, "it must be recorded and cannot be: no room, or a sink failed"),
    "PM_ABI_MISMATCH": (MachError, "compiled with the header of another version of the library"),
    "MACH_SEND_IN_PROGRESS": (MachError, "the send is in progress"),
    "MACH_SEND_INVALID_DATA": (MachError, "the message cannot be read"),
    "MACH_SEND_INVALID_DEST": (InvalidName, "the destination is no right to send"),
    "MACH_SEND_TIMED_OUT": (QueueFull, "the queue is full"),
    "MACH_SEND_INVALID_VOUCHER": (MachError, "the voucher is not valid"),
    "MACH_SEND_INTERRUPTED": (MachError, "the send was interrupted"),
    "MACH_SEND_MSG_TOO_SMALL": (MachError, "the message is shorter than it says"),
    "MACH_SEND_INVALID_REPLY": (InvalidRight, "the reply right is not valid"),
    "MACH_SEND_INVALID_RIGHT": (InvalidRight, "a right in the message is not valid"),
    "MACH_SEND_INVALID_NOTIFY": (MachError, "the notify right is not valid"),
    "MACH_SEND_INVALID_MEMORY": (MachError, "out-of-line memory in the message is not valid"),
    "MACH_SEND_NO_BUFFER": (LimitExceeded, "no room for the message"),
    "MACH_SEND_TOO_LARGE": (LimitExceeded, "the message is too large"),
    "MACH_SEND_INVALID_TYPE": (MachError, "a descriptor in the message is not valid"),
    "MACH_SEND_INVALID_HEADER": (MachError, "the message's header is not valid"),
    "MACH_SEND_INVALID_TRAILER": (MachError, "the message's trailer is not valid"),
    "MACH_SEND_INVALID_CONTEXT": (MachError, "the message's context is not valid"),
    "MACH_SEND_NO_GRANT_DEST": (MachError, "the destination takes no rights"),
    "MACH_SEND_MSG_FILTERED": (MachError, "the destination's interface does not take this message"),
    "MACH_RCV_IN_PROGRESS": (MachError, "the receive is in progress"),
    "MACH_RCV_INVALID_NAME": (InvalidName, "the name is no receive right or port set"),
    "MACH_RCV_TIMED_OUT": (TimedOut, "no message arrived in time"),
    "MACH_RCV_TOO_LARGE": (LimitExceeded, "the message does not fit the buffer"),
    "MACH_RCV_INTERRUPTED": (MachError, "the receive was interrupted"),
    "MACH_RCV_PORT_CHANGED": (MachError, "the receive right moved away"),
    "MACH_RCV_INVALID_NOTIFY": (MachError, "the notify right is not valid"),
    "MACH_RCV_INVALID_DATA": (MachError, "the message cannot be delivered"),
    "MACH_RCV_PORT_DIED": (PortDied, "the port died"),
    "MACH_RCV_IN_SET": (MachError, "the port is in a set"),
    "MACH_RCV_HEADER_ERROR": (LimitExceeded, "no room for the message's rights; it stays queued"),
    "MACH_RCV_BODY_ERROR": (MachError, "a right in the body could not be delivered"),
    "MACH_RCV_INVALID_TYPE": (MachError, "the trailer asked for is not known"),
    "MACH_RCV_SCATTER_SMALL": (MachError, "the scatter list is too small"),
    "MACH_RCV_INVALID_TRAILER": (MachError, "the trailer asked for is not known"),
    "MACH_RCV_INVALID_ARGUMENTS": (MachError, "the arguments of the receive are not valid"),
    "MACH_MSG_IPC_SPACE": (MachError, "no room in the name space"),
    "MACH_MSG_VM_SPACE": (MachError, "no room in the address space"),
}  # fmt: skip

# What servers answer that the core never does: the bootstrap subsystem's (servers/bootstrap.h).
_SERVERS = {
    1100: "BOOTSTRAP_NOT_PRIVILEGED",
    1101: "BOOTSTRAP_NAME_IN_USE",
    1102: "BOOTSTRAP_UNKNOWN_SERVICE",
    1103: "BOOTSTRAP_SERVICE_ACTIVE",
    1104: "BOOTSTRAP_BAD_COUNT",
    1105: "BOOTSTRAP_NO_MEMORY",
}

_SPACE_BITS: int = lib.MACH_MSG_IPC_SPACE | lib.MACH_MSG_VM_SPACE
_NUMBERS: dict[str, int] = ffi.typeof("enum pm_code").relements
_NAMES: dict[int, str] = {number: name for name, number in _NUMBERS.items()} | _SERVERS
_CODE_OF = {name: number for number, name in _NAMES.items()}
_TABLE = {_NUMBERS[name]: entry for name, entry in _CODES.items()}


def code_name(code: int) -> str:
    """Return the name of a code, with the bits Mach adds: "MACH_RCV_BODY_ERROR|..."."""
    if code in _NAMES or code & ~_SPACE_BITS not in _NAMES:
        return _NAMES.get(code, hex(code))
    parts = [_NAMES[code & ~_SPACE_BITS]]
    for bit in (lib.MACH_MSG_IPC_SPACE, lib.MACH_MSG_VM_SPACE):
        if code & bit:
            parts.append(_NAMES[bit])
    return "|".join(parts)


def code_number(name: str) -> int:
    """Return the code of a name that `code_name` gave.

    Raises:
        ValueError: it never does.

    Example:
        >>> code_number(code_name(4)), code_number("0x1234")
        (4, 4660)
    """
    if name[:2] == "0x" or name[:3] == "-0x":
        return int(name, 16)
    try:
        return functools.reduce(operator.or_, map(_CODE_OF.__getitem__, name.split("|")))
    except KeyError:
        raise ValueError(f"no code is named {name!r}") from None


def code_names() -> dict[int, str]:
    """Return the names of all codes, without the bits Mach adds."""
    return dict(_NAMES)


def _entry(code: int) -> tuple[type[MachError], str]:
    unknown = (MachError, "unknown code")
    return _TABLE.get(code) or _TABLE.get(code & ~_SPACE_BITS, unknown)


def exception(code: int, detail: str = "") -> MachError:
    """Return the exception of a code: the one translation.

    Args:
        code: a Mach code, of either sign (the core negates it where a call returns a value).
        detail: what the call was about.
    """
    code = abs(code)
    kind, _ = _entry(code)
    return kind(code, detail)


def check(code: int, detail: str = "") -> None:
    """Raise the exception of a code that is not 0.

    Raises:
        MachError: or the class of it that belongs to the code.
    """
    if code:
        raise exception(code, detail)
