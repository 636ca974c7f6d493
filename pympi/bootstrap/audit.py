# SPDX-License-Identifier: BSD-2-Clause
"""The name server's part of the audit trail, a readable line for each record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audit import AuditRecord
from ..audit import sentence as words
from ..errors import PympiError
from ..escape import escape

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["sentence"]


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
    when = words.when(record.time)
    if record.lost:
        return f"{when} {words.loss(record)}"
    head = f"{when} {words.who(record)} ({escape(record.subject)}) {words.what(record)}"
    return f"{head}{words.about(record)}: {words.outcome(record, _refusers(record, kernel))}"


def _refusers(record: AuditRecord, kernel: Kernel | None) -> tuple[str, ...]:
    if kernel is None or not record.denied:
        return ()
    try:
        return kernel.policies.refused_by(
            record.subject, record.object, record.tclass, record.denied
        )
    except (PympiError, ValueError):  # labels or classes that are no more
        return ()
