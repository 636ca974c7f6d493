# SPDX-License-Identifier: BSD-2-Clause
"""A record in words, in one line: when, who under which label, what to what, what came of it.

Whatever a task or a policy chose (names, labels, services) is escaped, so that a record is one line
and does nothing to a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from ..enums import AuditFlag
from ..escape import escape
from .record import AuditRecord

__all__ = ["about", "line", "loss", "outcome", "what", "when", "who"]

_REAL = 1e8  # seconds: a clock that says less is none of the calendar
_MESSAGES = ("send", "receive", "method")


def line(record: AuditRecord, time: str) -> str:
    """Return a record in one line, without its end.

    Args:
        record: of any operation.
        time: in words.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     task = kernel.create_task("editor")
        ...     task.allocate_port().make_send(task).send(b"hello", msgh_id=7)
        ...     records = [*kernel.audit.batch(kernel.audit.drain())]
        >>> said, _, more = line(records[-1], "12:00").partition(",")
        >>> said
        '12:00 #2 editor (1) send copy_send on port 1'
        >>> more
        ' name 0x103, message 7 of 5 B, transfer 2: granted'
    """
    head = f"{time} #{record.sequence}"
    if record.operation == "loss":
        return f"{head} {loss(record)}"
    number = f" ({record.task})" if record.task_name else ""
    subject = "" if record.subject == "-" else f" {_subject(record)}"
    did = f"{who(record)}{number}{subject} {what(record)}{about(record)}{_details(record)}"
    return f"{head} {did}: {outcome(record)}"


def when(seconds: float, digits: Literal[3, 6] = 3) -> str:
    """Return a time of the calendar, or seconds of a clock that has none."""
    if seconds < _REAL:
        return f"{seconds:.{digits}f}"
    spec = {3: "milliseconds", 6: "microseconds"}[digits]
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec=spec)
    return text.replace("+00:00", "Z")


def loss(record: AuditRecord) -> str:
    """Return what a loss record says."""
    return f"{record.lost:,} record{' was' if record.lost == 1 else 's were'} lost"


def who(record: AuditRecord) -> str:
    """Return the task's name, or who it was that is no task (`Kernel.check_peer`)."""
    if record.task:
        return escape(record.task_name) or f"task {record.task}"
    return escape(record.service) or "somebody"


def what(record: AuditRecord) -> str:
    """Return what was asked for; where nothing was, the operation."""
    return " ".join(map(escape, record.asked)) or record.operation


def about(record: AuditRecord) -> str:
    """Return what it was done to, and its label, with a blank before it."""
    if record.operation == "service" and record.task:
        return f" {_service(record)}{_labelled(record)}"
    if not record.tclass:  # an error: what was to be decided is not known
        return f" by name {record.name:#x}" if record.name else ""
    port = f" {record.port}" if record.port else ""
    kinds = {"kernel": "the kernel", "mach_task": "a task", "mach_port": f"port{port}"}
    tclass = escape(record.tclass)  # of an interface, or of another system
    kind = kinds.get(record.tclass, f"port{port}, class {tclass}" if port else tclass)
    return f" on {kind}{_labelled(record)}"


def outcome(record: AuditRecord, refusers: Sequence[str] = ()) -> str:
    """Return what came of it.

    Args:
        record: of any operation.
        refusers: names of the policy modules that refuse it, where that is known.
    """
    if record.denied and AuditFlag.PERMISSIVE not in record.flags:
        part = "" if record.denied == record.asked else f" {_words(record.denied)}"
        by = f" by {', '.join(map(escape, refusers))}" if refusers else ""
        return f"refused{part}{by}"
    would_be = _words(record.denied + record.reported)
    would = f", though {would_be} would be refused" if would_be else ""
    if record.result != "KERN_SUCCESS":
        return f"{'allowed, and ' if record.asked else ''}failed: {record.result}{would}"
    port = f", port {record.port}" if record.port and record.operation == "service" else ""
    return f"granted{port}{would}"


def _words(names: Sequence[str]) -> str:
    return " ".join(map(escape, names))


def _service(record: AuditRecord) -> str:
    """Return the name that was asked for, or that it is not known any more."""
    return f'"{escape(record.service)}"' if record.service else "(a name asked for too long ago)"


def _labelled(record: AuditRecord) -> str:
    return "" if record.object == "-" else f" ({escape(record.object)})"


def _subject(record: AuditRecord) -> str:
    if record.real_subject in (record.subject, "-"):
        return escape(record.subject)
    return f"{escape(record.real_subject)} as {escape(record.subject)}"


def _details(record: AuditRecord) -> str:
    if record.operation == "service":
        return ""
    parts = []
    if record.name and record.tclass:
        parts.append(f"name {record.name:#x}")
    if record.peer != "-":
        parts.append(f"from {escape(record.peer)}")
    if record.msgh_id or record.operation in _MESSAGES:
        size = f" of {record.size:,} B" if record.operation in _MESSAGES else ""
        parts.append(f"message {record.msgh_id}{size}")
    if record.transfer:
        parts.append(f"transfer {record.transfer}")
    return "".join(f", {part}" for part in parts)
