# SPDX-License-Identifier: BSD-2-Clause
"""pympi: an embeddable secured Mach IPC kernel.

Tasks hold port rights; messages and rights move through ports; every controlled operation is
decided by mandatory access control and can be audited. The core is C; here is its Python face.

    >>> from pympi import Kernel
    >>> with Kernel() as kernel:
    ...     inbox = kernel.create_task("server").allocate_port()
    ...     printer = inbox.make_send(kernel.create_task("client"))
    ...     printer.send(b"page 1", msgh_id=100)
    ...     inbox.receive().body
    b'page 1'
"""

from typing import TYPE_CHECKING

from ._lazy import lazily
from ._version import __version__

if TYPE_CHECKING:
    from . import audit, batch, enums, mach, mig, policy
    from .clock import SimulatedClock
    from .decisions import AccessDecision
    from .embedding import get_include, get_library
    from .errors import (
        AccessDenied,
        AuditFull,
        ForkedError,
        GuardViolation,
        InspectError,
        InvalidName,
        InvalidRight,
        KernelClosed,
        LabelError,
        LimitExceeded,
        MachError,
        PolicyError,
        PortDied,
        PympiError,
        QueueFull,
        SnapshotError,
        TimedOut,
        VerifyError,
    )
    from .kernel import Kernel
    from .message import Carried, Memory, Message, Sender
    from .port import DeadName, PortSet, PortStatus, ReceiveRight, Right, SendOnceRight, SendRight
    from .task import Quota, Task, Usage
else:
    __getattr__, __dir__ = lazily(__name__, {
        "clock": "SimulatedClock",
        "decisions": "AccessDecision",
        "embedding": "get_include get_library",
        "errors": "AccessDenied AuditFull ForkedError GuardViolation InspectError InvalidName"
                  " InvalidRight KernelClosed LabelError LimitExceeded MachError PolicyError"
                  " PortDied PympiError QueueFull SnapshotError TimedOut VerifyError",
        "kernel": "Kernel",
        "message": "Carried Memory Message Sender",
        "port": "DeadName PortSet PortStatus ReceiveRight Right SendOnceRight SendRight",
        "task": "Quota Task Usage",
    })  # fmt: skip

__all__ = [
    "AccessDecision",
    "AccessDenied",
    "AuditFull",
    "Carried",
    "DeadName",
    "ForkedError",
    "GuardViolation",
    "InspectError",
    "InvalidName",
    "InvalidRight",
    "Kernel",
    "KernelClosed",
    "LabelError",
    "LimitExceeded",
    "MachError",
    "Memory",
    "Message",
    "PolicyError",
    "PortDied",
    "PortSet",
    "PortStatus",
    "PympiError",
    "QueueFull",
    "Quota",
    "ReceiveRight",
    "Right",
    "SendOnceRight",
    "SendRight",
    "Sender",
    "SimulatedClock",
    "SnapshotError",
    "Task",
    "TimedOut",
    "Usage",
    "VerifyError",
    "__version__",
    "audit",
    "batch",
    "enums",
    "get_include",
    "get_library",
    "mach",
    "mig",
    "policy",
]
