# SPDX-License-Identifier: BSD-2-Clause
"""For tests of programs that use pympi."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .audit import AuditRecord
from .kernel import Kernel
from .policy import Rules

__all__ = ["allow_all", "capture_audit"]


def allow_all() -> Rules:
    """Return a policy that is asked everything and allows everything."""
    return Rules([("*", "*", "*", "*")])


@contextmanager
def capture_audit(kernel: Kernel) -> Iterator[list[AuditRecord]]:
    """Record everything for the time of a `with` block, into a list that is filled at its end.

    Afterwards the default selection holds again: denials.

    Example:
        >>> with Kernel() as kernel:
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     printer = inbox.make_send(kernel.create_task("client"))
        ...     with capture_audit(kernel) as records:
        ...         printer.send(b"page")
        ...     [record.operation for record in records]
        ['send']
    """
    records: list[AuditRecord] = []
    kernel.audit.drain()
    kernel.audit.everything()
    try:
        yield records
    finally:
        records.extend(kernel.audit.batch(kernel.audit.drain()))
        kernel.audit.only_denials()
