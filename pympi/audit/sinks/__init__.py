# SPDX-License-Identifier: BSD-2-Clause
"""Where audit records go. A sink is anything that can be called with a `Batch`.

What else a sink may have, all of it optional:

    when_full, high, low, patience   on what terms it wants records: see `Audit.attach`
    flush()                          called where somebody waits for all to be written
    interval                         seconds above 0; `flush` is also called so long after a batch
    close()                          called at the end, and when it failed
    attached(number)                 called when it is attached, with the number that the kernel has
                                     in this process; `attach` raises what it raises
    abandon()                        called in a child of fork(): to let go, and write nothing
    unwritten                        how many records it has taken and not written: lost if it fails
    synchronous                      true: operations return when it has their records
    name                             for people

It is called by one thread at a time, and after it raised only `close` is called. What has a `close`
is attached to one kernel at a time.
"""

from __future__ import annotations

from ..file import File
from .call import Callable
from .jsonl import JSONLines
from .lines import LineFile
from .log import Logging
from .memory import Memory
from .otel import OpenTelemetry
from .syslog import Syslog
from .text import AuditText, AVCFile

__all__ = [
    "AVCFile",
    "AuditText",
    "Callable",
    "File",
    "JSONLines",
    "LineFile",
    "Logging",
    "Memory",
    "OpenTelemetry",
    "Syslog",
]
