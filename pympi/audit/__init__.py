# SPDX-License-Identifier: BSD-2-Clause
"""Audit: what is recorded of each operation, and where the records go."""

from .avc import AVCFile, avc_line, avc_lines
from .control import Audit
from .reader import AuditError, Reader, read
from .record import RECORD, AuditRecord, Batch
from .sinks import File, Memory
from .watch import FILTERS, Watch, WatchRecord

__all__ = [
    "FILTERS",
    "RECORD",
    "AVCFile",
    "Audit",
    "AuditError",
    "AuditRecord",
    "Batch",
    "File",
    "Memory",
    "Reader",
    "Watch",
    "WatchRecord",
    "avc_line",
    "avc_lines",
    "read",
]
