# SPDX-License-Identifier: BSD-2-Clause
"""Audit: what is recorded of each operation, and where the records go."""

from typing import TYPE_CHECKING

from .._lazy import lazily
from .avc import AVCFile, avc_line, avc_lines
from .control import Audit
from .reader import AuditError, Reader, read
from .record import RECORD, AuditRecord, Batch
from .sampling import STRATUM, Estimate, Strata, Stratum, estimate, weights
from .selection import Rule, Selection
from .sinks import File, Memory
from .watch import FILTERS, Watch, WatchRecord

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
