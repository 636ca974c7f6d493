# SPDX-License-Identifier: BSD-2-Clause
"""The name server's part of the audit trail, a readable line for each record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audit import AuditRecord
from ..enums import AuditFlag
from ..errors import PympiError
from ..trace.text import escape

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["sentence"]


def sentence(record: AuditRecord, kernel: Kernel | None = None) -> str:
    """Return a record in one line: who asked for what, and what came of it.

    Args:
        record: of any operation; of the name server's, `service` is the name it is about.
        kernel: asked anew which module refuses; without it that is left out.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     task = kernel.create_task("editor")
        ...     _ = task.bootstrap.create_service("com.example.print")
        ...     [record] = kernel.audit.batch(kernel.audit.drain())
        ...     sentence(record).partition(" ")[2]
        'editor (-) create "com.example.print": granted'
    """
    who = escape(record.task_name) or f"task {record.task}"
    what = " ".join(record.asked) or record.operation
    about = _service(record) if record.operation == "service" else _target(record)
    head = f"{record.time:.3f} {who} ({escape(record.subject)}) {what} {about}"
    return f"{head}: {_outcome(record, kernel)}"


def _service(record: AuditRecord) -> str:
    """Return the name that was asked for, or that it is not known any more."""
    return f'"{escape(record.service)}"' if record.service else "(a name asked for too long ago)"


def _target(record: AuditRecord) -> str:
    where = f"{record.tclass} of {escape(record.object)}" if record.tclass else "its space"
    return f"on {where}, by {record.operation}"


def _outcome(record: AuditRecord, kernel: Kernel | None) -> str:
    if record.denied and not record.flags & AuditFlag.PERMISSIVE:
        refused = ", ".join(_refusers(record, kernel))
        return f"refused {' '.join(record.denied)}{f' by {refused}' if refused else ''}"
    if record.result != "KERN_SUCCESS":
        return record.result
    would = f", though {' '.join(record.denied)} would be refused" if record.denied else ""
    port = f", port {record.port}" if record.port else ""
    return f"granted{port}{would}"


def _refusers(record: AuditRecord, kernel: Kernel | None) -> tuple[str, ...]:
    if kernel is None:
        return ()
    try:
        return kernel.policies.refused_by(
            record.subject, record.object, record.tclass, record.denied
        )
    except (PympiError, ValueError):  # labels or classes that are no more
        return ()
