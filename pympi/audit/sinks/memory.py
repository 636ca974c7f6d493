# SPDX-License-Identifier: BSD-2-Clause
"""Records in memory."""

from __future__ import annotations

from collections import deque

from ..record import AuditRecord, Batch

__all__ = ["Memory"]


class Memory:
    """Keeps the last records, in words.

    Args:
        capacity: how many; None for all.

    Attributes:
        records (deque[AuditRecord]): the oldest first.
    """

    when_full = "drop"

    def __init__(self, capacity: int | None = 65536) -> None:
        self.records: deque[AuditRecord] = deque(maxlen=capacity)

    def __call__(self, batch: Batch) -> None:
        """Keep a batch."""
        self.records.extend(batch)
