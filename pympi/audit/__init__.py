# SPDX-License-Identifier: BSD-2-Clause
"""Audit: what is recorded of each operation, and where the records go."""

from typing import TYPE_CHECKING

from .._lazy import lazily
from .avc import audit_lines, avc_line, avc_lines
from .control import Audit
from .feed import SinkFailure, SinkStats
from .file import File
from .proof import prove
from .reader import AuditError, Reader, read
from .record import OUTCOMES, RECORD, AuditRecord, Batch, outcome_of
from .sampling import STRATUM, Estimate, Strata, Stratum, estimate, weights
from .selection import Rule, Selection
from .sinks import (
    AuditText,
    AVCFile,
    Callable,
    JSONLines,
    LineFile,
    Logging,
    Memory,
    OpenTelemetry,
    Syslog,
)
from .verify import Finding, Verdict, verify
from .watch import FILTERS, Watch, WatchRecord
from .writer import FileChanged, Writer

if TYPE_CHECKING:
    from .forms import batches
    from .lineage import joined
    from .parquet import Parquet
else:
    __getattr__, __dir__ = lazily(__name__, {
        "forms": "batches",
        "lineage": "joined",
        "parquet": "Parquet",
    })  # fmt: skip

__all__ = [
    "FILTERS",
    "OUTCOMES",
    "RECORD",
    "STRATUM",
    "AVCFile",
    "Audit",
    "AuditError",
    "AuditRecord",
    "AuditText",
    "Batch",
    "Callable",
    "Estimate",
    "File",
    "FileChanged",
    "Finding",
    "JSONLines",
    "LineFile",
    "Logging",
    "Memory",
    "OpenTelemetry",
    "Parquet",
    "Reader",
    "Rule",
    "Selection",
    "SinkFailure",
    "SinkStats",
    "Strata",
    "Stratum",
    "Syslog",
    "Verdict",
    "Watch",
    "WatchRecord",
    "Writer",
    "audit_lines",
    "avc_line",
    "avc_lines",
    "batches",
    "estimate",
    "joined",
    "outcome_of",
    "prove",
    "read",
    "verify",
    "weights",
]
