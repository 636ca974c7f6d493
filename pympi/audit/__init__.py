# SPDX-License-Identifier: BSD-2-Clause
"""Audit: what is recorded of each operation, and where the records go."""

from .avc import AVCFile, avc_line, avc_lines
from .control import Audit
from .reader import AuditError, Reader, read
from .record import RECORD, AuditRecord, Batch
from .sinks import File, Memory

__all__ = [
    "RECORD",
    "AVCFile",
    "Audit",
    "AuditError",
    "AuditRecord",
    "Batch",
    "File",
    "Memory",
    "Reader",
    "avc_line",
    "avc_lines",
    "read",
]
