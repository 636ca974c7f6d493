# SPDX-License-Identifier: BSD-2-Clause
"""What a report counts in an audit trail, a batch at a time: rates, refusals, losses.

A message that was recorded by chance counts for as many as its record stands for. Refusals are kept
for certain.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..audit.sampling import stands_for
from ..audit.stats import Gaps
from ..enums import AuditFlag, Operation

if TYPE_CHECKING:
    from ..audit import AuditRecord, Batch

__all__ = ["Loss", "Rates", "Refusal", "Tally"]

BINS = 240
"""Intervals at most; at least half as many, where there is time for them."""
MAX_LOSSES = 100
MAX_REFUSALS = 100_000

_OF_SINK = 1
"""The `name` of a loss record of a sink's queue, whose own number is the last that was lost."""
#: What makes refusals the same.
_SAME = [
    "task", "effective_sid", "object_sid", "peer_sid", "tclass", "denied", "asked", "msgh_id",
    "operation", "result", "flags", "name",
]  # fmt: skip


class Rates:
    """Counts by time, in intervals that double as time goes on.

    Attributes:
        width: nanoseconds of an interval.
        start: of the first one; None before anything came.
        sent, refused: counts by interval.
    """

    def __init__(self) -> None:
        self.width = 1000
        self.start: int | None = None
        self.sent = np.zeros(BINS, np.int64)
        self.refused = np.zeros(BINS, np.int64)
        self._last = 0

    def add(self, times: npt.NDArray[Any], sent: Any, refused: Any, stand: Any = None) -> None:
        """Count records; masks say which are messages sent, and refusals; `stand`, for how many
        each record stands."""
        times = np.minimum(times, np.uint64(2**62)).astype(np.int64)
        if self.start is None:
            self.start = int(times.min())
        since = np.maximum(times - self.start, 0)
        self._last = max(self._last, int(since.max()))
        while self._last // self.width >= BINS:
            self._fold()
        places = since // self.width
        each = None if stand is None else stand[sent]
        self.sent += np.bincount(places[sent], each, BINS).astype(np.int64)
        self.refused += np.bincount(places[refused], minlength=BINS)

    def _fold(self) -> None:
        self.width *= 2
        nothing = np.zeros(BINS // 2, np.int64)
        self.sent = np.concatenate([self.sent[::2] + self.sent[1::2], nothing])
        self.refused = np.concatenate([self.refused[::2] + self.refused[1::2], nothing])

    @property
    def used(self) -> int:
        """How many intervals there are, from the first record to the last."""
        return 0 if self.start is None else self._last // self.width + 1

    @property
    def duration(self) -> int:
        """Nanoseconds from the first record to the last."""
        return self._last


class Loss(NamedTuple):
    """A place where the trail lacks records: nanoseconds since its beginning, and how many."""

    time: int
    lost: int


class Refusal(NamedTuple):
    """What was refused, in words; `enforced`: it was not done."""

    task: str
    subject: str
    object: str
    tclass: str
    permissions: tuple[str, ...]
    what: str
    result: str
    enforced: bool


class Tally:
    """Counts what comes.

    Attributes:
        rates: by time.
        records, messages: how many.
        sampled: records that were kept by chance and stand for others: if there are any, `messages`
            and the rates of what was sent are estimates.
        refused: operations that were refused, and not done.
        lost: records that are missing, as the trail itself says; `losses` the first places.
        refusals: how often, by what was refused.
        classes: permissions of the classes that were met, by name.
        more_refusals: how many there were beyond the kinds that are told apart.
    """

    def __init__(self) -> None:
        self.rates = Rates()
        self.records = self.messages = self.lost = self.more_refusals = self.sampled = 0
        self.refused = 0
        self.losses: list[Loss] = []
        self.refusals: Counter[Refusal] = Counter()
        self.classes: dict[str, tuple[str, ...]] = {}
        self._gaps = Gaps()
        self._told = 0  # numbers that are missing, as loss records say

    @property
    def missing(self) -> int:
        """Records that are not here and that no loss record tells of: cut out, or not kept."""
        return max(self._gaps.missing - self._told, 0)

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        records = batch.records
        if not len(records):
            return
        loss = records["flags"] & AuditFlag.LOSS != 0
        open_ = records["flags"] & AuditFlag.PERMISSIVE != 0
        refused = (records["denied"] != 0) & ~loss
        done = (records["flags"] & AuditFlag.ERROR == 0) & (~refused | open_) & ~loss
        sent = (records["operation"] == int(Operation.SEND)) & done
        stand = stands_for(records)
        self.rates.add(records["time"], sent, refused & ~open_, stand)
        self.refused += int((refused & ~open_).sum())
        self.sampled += 0 if stand is None else int((stand > 1).sum())
        self.messages += int(sent.sum() if stand is None else stand[sent].sum())
        self._count_losses(records[loss])
        self._count_refusals(batch, records[refused])
        self.classes |= {each.name: each.permissions for each in batch.classes.values()}
        self._told += self._told_missing(records, loss)
        self._gaps.add(records)
        self.records += len(records)

    def _told_missing(self, records: npt.NDArray[Any], loss: npt.NDArray[np.bool_]) -> int:
        """Return how many numbers before their own the loss records among these tell of."""
        told = np.where(loss, records["result"].astype(np.int64) - (records["name"] == _OF_SINK), 0)
        if not self.records:  # what was lost before the first record leaves no gap
            told[0] = 0
        return int(told.sum())

    def _count_losses(self, records: npt.NDArray[Any]) -> None:
        for time, lost in zip(records["time"].tolist(), records["result"].tolist(), strict=True):
            self.lost += max(lost, 0)
            if len(self.losses) < MAX_LOSSES:
                self.losses.append(Loss(time - (self.rates.start or 0), lost))

    def _count_refusals(self, batch: Batch, records: npt.NDArray[Any]) -> None:
        if not len(records):
            return
        kinds = np.zeros(len(records), records.dtype)
        for name in _SAME:
            kinds[name] = records[name]
        kinds["name"] *= kinds["operation"] == int(Operation.SERVICE)
        kinds["flags"] &= int(AuditFlag.PERMISSIVE)
        distinct, times = np.unique(kinds, return_counts=True)
        for record, count in zip(_worded(batch, distinct), times.tolist(), strict=True):
            for refusal in _refusals(record):
                if refusal in self.refusals or len(self.refusals) < MAX_REFUSALS:
                    self.refusals[refusal] += count
                else:
                    self.more_refusals += count


def _worded(batch: Batch, records: npt.NDArray[Any]) -> list[AuditRecord]:
    return [*type(batch)(records, batch.labels, batch.tasks, batch.classes, batch.services)]


def _refusals(record: AuditRecord) -> list[Refusal]:
    """Return what a record says was refused; `recv` is asked of the sender's label."""
    of_sender = tuple(n for n in record.denied if n == "recv" and record.tclass == "mach_port")
    of_object = tuple(name for name in record.denied if name not in of_sender)
    what = record.service or (f"msgh_id {record.msgh_id}" if record.msgh_id else "")
    task = record.task_name or f"task {record.task}"
    enforced = AuditFlag.PERMISSIVE not in record.flags
    return [
        Refusal(task, record.subject, label, record.tclass, names, what, record.result, enforced)
        for label, names, there in (
            (record.object, of_object, of_object or not of_sender),  # or in no words, but refused
            (record.peer, of_sender, of_sender),
        ) if there
    ]  # fmt: skip
