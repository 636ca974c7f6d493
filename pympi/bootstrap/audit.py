# SPDX-License-Identifier: BSD-2-Clause
"""The name server's part of the audit trail, a readable line for each record."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..audit import AuditRecord
from ..enums import AuditFlag
from ..errors import PympiError
from ..trace.text import escape

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["sentence"]

_REAL = 1e8  # seconds: a clock that says less is none of the calendar


def sentence(record: AuditRecord, kernel: Kernel | None = None) -> str:
    """Return a record in one line: when, who under which label, what to what, what came of it.

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
    if record.lost:
        return f"{_when(record.time)} {record.lost:,} records were lost"
    what = " ".join(record.asked) or record.operation
    about = _service(record) if record.operation == "service" and record.task else _target(record)
    head = f"{_when(record.time)} {_who(record)} ({escape(record.subject)}) {what}"
    return f"{head}{about}: {_outcome(record, kernel)}"


def _when(seconds: float) -> str:
    """Return a time of the calendar, or seconds of a clock that has none."""
    if seconds < _REAL:
        return f"{seconds:.3f}"
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _who(record: AuditRecord) -> str:
    """Return the task's name, or who it was that is no task (`Kernel.check_peer`)."""
    if record.task:
        return escape(record.task_name) or f"task {record.task}"
    return escape(record.service) or "somebody"


def _service(record: AuditRecord) -> str:
    """Return the name that was asked for, and its label, or that it is not known any more."""
    name = f'"{escape(record.service)}"' if record.service else "(a name asked for too long ago)"
    return f" {name}{_labelled(record)}"


def _target(record: AuditRecord) -> str:
    if not record.tclass:  # an error: what was to be decided is not known
        return f" by name {record.name:#x}" if record.name else ""
    port = f" {record.port}" if record.port else ""
    kinds = {"kernel": "the kernel", "mach_task": "a task", "mach_port": f"port{port}"}
    kind = kinds.get(record.tclass, f"port{port}, class {escape(record.tclass)}")
    return f" on {kind}{_labelled(record)}"


def _labelled(record: AuditRecord) -> str:
    return "" if record.object == "-" else f" ({escape(record.object)})"


def _outcome(record: AuditRecord, kernel: Kernel | None) -> str:
    if record.denied and not record.flags & AuditFlag.PERMISSIVE:
        by = ", ".join(_refusers(record, kernel))
        part = "" if record.denied == record.asked else f" {' '.join(record.denied)}"
        return f"refused{part}{f' by {by}' if by else ''}"
    would_be = " ".join(record.denied + record.reported)
    would = f", though {would_be} would be refused" if would_be else ""
    if record.result != "KERN_SUCCESS":
        return f"{'allowed, and ' if record.asked else ''}failed: {record.result}{would}"
    port = f", port {record.port}" if record.port and record.operation == "service" else ""
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
