# SPDX-License-Identifier: BSD-2-Clause
"""Looking into a kernel: snapshots of its state, and a control socket for others to ask at.

`Kernel.snapshot` takes a snapshot, of a system that goes on running; `Snapshot.load` reads one that
was saved. `Kernel.inspect_at` opens a control socket; `Connection` is its other end.
"""

from ..errors import InspectError, SnapshotError
from .client import Connection
from .server import ControlSocket, Limits
from .snapshot import (
    VERSION,
    Changes,
    Context,
    Mark,
    Module,
    Policy,
    Port,
    Right,
    Service,
    Snapshot,
    Task,
)
from .table import Table

__all__ = [
    "VERSION",
    "Changes",
    "Connection",
    "Context",
    "ControlSocket",
    "InspectError",
    "Limits",
    "Mark",
    "Module",
    "Policy",
    "Port",
    "Right",
    "Service",
    "Snapshot",
    "SnapshotError",
    "Table",
    "Task",
]
