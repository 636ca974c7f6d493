# SPDX-License-Identifier: BSD-2-Clause
"""Audit: what is recorded of each operation, and where the records go."""

from .avc import AVCFile, avc_line, avc_lines
from .control import Audit
from .forms import batches
from .lineage import joined
from .parquet import Parquet
from .reader import AuditError, Reader, read
from .record import RECORD, AuditRecord, Batch
from .sampling import STRATUM, Estimate, Strata, Stratum, estimate, weights
from .selection import Rule, Selection
from .sinks import File, Memory
from .watch import FILTERS, Watch, WatchRecord

__all__ = [
    "FILTERS",
    "RECORD",
    "STRATUM",
    "AVCFile",
    "Audit",
    "AuditError",
    "AuditRecord",
    "Batch",
    "Estimate",
    "File",
    "Memory",
    "Parquet",
    "Reader",
    "Rule",
    "Selection",
    "Strata",
    "Stratum",
    "Watch",
    "WatchRecord",
    "avc_line",
    "avc_lines",
    "batches",
    "estimate",
    "joined",
    "read",
    "weights",
]
