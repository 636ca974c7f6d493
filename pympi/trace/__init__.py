# SPDX-License-Identifier: BSD-2-Clause
"""ipctrace: recorded paths as text, and recordings run again (SEDarwin ipctrace)."""

from typing import TYPE_CHECKING

from .._lazy import lazily
from ..enums import KOBJECTS
from .mangle import mangle, port_label, task_label, unmangle
from .text import (
    EVENTS,
    SEDARWIN_EVENTS,
    TraceError,
    TraceReader,
    TraceRecord,
    read_trace,
    sedarwin_records,
    write_full,
    write_sedarwin,
)

if TYPE_CHECKING:
    from .labels import Labels, read_labels
    from .plan import Plan, make_plan
else:
    __getattr__, __dir__ = lazily(__name__, {
        "labels": "Labels read_labels",
        "plan": "Plan make_plan",
    })  # fmt: skip

__all__ = [
    "EVENTS",
    "KOBJECTS",
    "SEDARWIN_EVENTS",
    "Labels",
    "Plan",
    "TraceError",
    "TraceReader",
    "TraceRecord",
    "make_plan",
    "mangle",
    "port_label",
    "read_labels",
    "read_trace",
    "sedarwin_records",
    "task_label",
    "unmangle",
    "write_full",
    "write_sedarwin",
]
