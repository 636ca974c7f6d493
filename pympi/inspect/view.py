# SPDX-License-Identifier: BSD-2-Clause
"""What of a kernel the bearer of a label may see.

A task is seen by who may `observe` it, a port by who may `get_attributes` of it, a name by who sees
both the task and the port; a service by who may `list` it. What may not be seen looks absent, its
number in other rows too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..enums import PortType
from ..errors import LabelError
from .snapshot import Context, Service, Snapshot
from .table import Table

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Subject"]

Array = npt.NDArray[Any]

# Columns that hold a number of another object, and the columns that go with it.
_TASK_NUMBERS = {"receiver": ("receiver_name",), "maker": ("owner",), "parent": ()}
_PORT_NUMBERS = ("destination", "no_senders", "port_destroyed", "bootstrap", "request_port")


class Subject:
    """The bearer of a label, who asks.

    Args:
        kernel: which decides.
        label: of who asks.
        kernel_label: of what class `kernel` is asked; None: the label itself.
        peer: who that is, for the audit trail.
    """

    def __init__(
        self, kernel: Kernel, label: str, kernel_label: str | None = None, peer: str = ""
    ) -> None:
        self.kernel = kernel
        self.label = label
        self.peer = peer
        self._known: dict[tuple[str, str, str], bool] = {}  # for as long as one request
        self.kernel_label = label if kernel_label is None else kernel_label

    def anew(self) -> Subject:
        """Return the same subject, who was told nothing yet: for when the policy is another."""
        return Subject(self.kernel, self.label, self.kernel_label, self.peer)

    def may_kernel(self, permission: str) -> bool:
        """Return whether the subject may do something to the kernel as a whole; it is recorded."""
        where = (self.label, self.kernel_label, "kernel", permission)
        return self.kernel.check_peer(self.peer, *where)

    def may(self, label: str, tclass: str, permission: str) -> bool:
        """Return whether the subject may do something to what has a label; "": it is not known."""
        question = (label, tclass, permission)
        if question not in self._known:
            # A label that went before it could be read: only where nothing is decided by labels.
            gone = not label and not len(self.kernel.policies)
            self._known[question] = gone or (bool(label) and self._ask(*question))
        return self._known[question]

    def _ask(self, label: str, tclass: str, permission: str) -> bool:
        try:
            return bool(self.kernel.access(self.label, label, tclass, permission))
        except LabelError:  # the modules in force cannot read it
            return False

    def _seen(self, table: Table[Any], tclass: str, permission: str) -> Array:
        """Return a truth value for each row; each label is asked for once."""
        places, rows = np.unique(table.columns["label"], return_inverse=True)
        asked = [self.may(table.texts[at], tclass, permission) for at in places.tolist()]
        return np.array(asked, bool)[rows] if asked else np.zeros(0, bool)

    def sees(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with what the subject may see."""
        tasks = snapshot.tasks.select(self._seen(snapshot.tasks, "mach_task", "observe"))
        ports = snapshot.ports.select(self._seen(snapshot.ports, "mach_port", "get_attributes"))
        known = _Known(tasks.columns["id"], ports.columns["id"])
        bootstrap = snapshot.bootstrap
        return msgspec.structs.replace(
            snapshot,
            tasks=known.cleared(tasks),
            ports=known.cleared(ports),
            rights=known.cleared(snapshot.rights.select(known.rights(snapshot.rights))),
            bootstrap=None if bootstrap is None else self._contexts(bootstrap, known),
        )

    def _contexts(self, contexts: tuple[Context, ...], known: _Known) -> tuple[Context, ...]:
        seen = [c for c in contexts if self.may(c.label or "-", "mach_port", "get_attributes")]
        numbers = {context.id for context in seen}
        return tuple(
            msgspec.structs.replace(
                context,
                parent=context.parent if context.parent in numbers else 0,
                port=known.port(context.port),
                services=tuple(
                    known.service(service)
                    for service in context.services
                    if self.may(service.label or "-", "service", "list")
                ),
            )
            for context in seen
        )


class _Known:
    """The numbers of what is seen."""

    def __init__(self, tasks: Array, ports: Array) -> None:
        self.tasks = tasks
        self.ports = ports

    def rights(self, rights: Table[Any]) -> Array:
        """Return which names are seen: of sets too, but not of ports that were made meanwhile."""
        columns = rights.columns
        sets = columns["types"] & PortType.PORT_SET != 0
        ports = (columns["object"] == 0) | np.isin(columns["object"], self.ports)
        seen: Array = np.isin(columns["task"], self.tasks) & (sets | ports)
        return seen

    def cleared(self, table: Table[Any]) -> Table[Any]:
        """Return a table without the numbers of what is not seen."""
        columns = dict(table.columns)
        texts = [*table.texts, ""]
        empty = {"owner": len(texts) - 1}
        for field, others in _TASK_NUMBERS.items():
            if field in columns:
                seen = np.isin(columns[field], self.tasks)
                for name in (field, *others):
                    columns[name] = np.where(seen, columns[name], empty.get(name, 0)).astype("<u4")
        for field in _PORT_NUMBERS:
            if field in columns:
                seen = np.isin(columns[field], self.ports)
                columns[field] = np.where(seen, columns[field], 0).astype("<u8")
        return Table(table.row, columns, texts)

    def port(self, number: int) -> int:
        return number if number in self.ports else 0

    def service(self, service: Service) -> Service:
        if service.task and service.task not in self.tasks:
            service = msgspec.structs.replace(service, task=0, server="")
        return msgspec.structs.replace(service, port=self.port(service.port))
