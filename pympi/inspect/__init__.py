# SPDX-License-Identifier: BSD-2-Clause
"""Looking into a kernel: snapshots of its state.

`Kernel.snapshot` takes one, of a system that goes on running; `Snapshot.load` reads one that was
saved.
"""

from ..errors import SnapshotError
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
    "Context",
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
