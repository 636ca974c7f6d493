# SPDX-License-Identifier: BSD-2-Clause
"""What is in recorded files, in numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..enums import Operation
from .record import Batch
from .sampling import is_certain
from .table import WEIGHT_SHIFT, Words, columns_of, encoded

__all__ = ["Gaps", "Stats", "Tally", "Total", "sizes_of", "stats"]

Array = npt.NDArray[Any]

MOST = 1 << 20
"""Different things of a kind that are counted apart."""


class Gaps:
    """Counts the numbers that are missing between records of a run."""

    def __init__(self) -> None:
        self.missing = self.backwards = self.runs = 0
        self._next: int | None = None
        self._run = -1

    def add(self, records: Array, run: int = 0) -> None:
        """Look at the records that follow; `run` as of a `Batch`."""
        if not len(records):
            return
        if run != self._run:
            self.runs, self._run, self._next = self.runs + 1, run, None
        numbers = records["sequence"].astype(np.int64)
        first = int(numbers[0]) if self._next is None else self._next
        steps = np.diff(numbers, prepend=first - 1) - 1
        self.missing += int(steps[steps > 0].sum())
        self.backwards += int((steps < 0).sum())
        self._next = int(numbers[-1]) + 1


class Total(NamedTuple):
    """How many records there were of something.

    Attributes:
        records: that there are.
        weight: for how many they stand, which is an estimate of how many there were (Horvitz and
            Thompson, 1952); the same if none was sampled by chance.
        variance: of that estimate.
    """

    records: int = 0
    weight: int = 0
    variance: int = 0

    @property
    def exact(self) -> bool:
        """Whether nothing is estimated."""
        return not self.variance

    @property
    def half(self) -> float:
        """Half the interval in which the number lies with a confidence of 95 %, roughly."""
        return _SPREAD * math.sqrt(self.variance)

    def plus(self, other: Iterable[int]) -> Total:
        """Return the sum."""
        return Total(*map(sum, zip(self, other, strict=True)))


class Tally:
    """Counts of things, of which at most `MOST` are told apart.

    Attributes:
        totals: of each.
        others: of those that came when the table was full.
    """

    def __init__(self) -> None:
        self.totals: dict[Any, Total] = {}
        self.others = Total()

    def add(self, thing: Hashable, more: Iterable[int]) -> None:
        """Count what are the numbers of a `Total`."""
        if thing in self.totals or len(self.totals) < MOST:
            self.totals[thing] = self.totals.get(thing, _NONE).plus(more)
        else:
            self.others = self.others.plus(more)

    def most(self, count: int | None = None) -> list[tuple[Any, Total]]:
        """Return the most frequent, in an order that does not depend on chance."""
        ordered = sorted(self.totals.items(), key=lambda item: (-item[1].weight, str(item[0])))
        return ordered[:count]

    def correct(self, thing: Hashable, more: Total) -> None:
        """Add to what is counted already; of what is not told apart there is nothing to correct."""
        if thing in self.totals:
            self.totals[thing] = self.totals[thing].plus(more)


_NONE = Total()
_KEYS = 1 << 62  # that a number has room for
_SPREAD = 1.96


#: What is counted, and by which columns.
COUNTED = {
    "operations": ("operation",),
    "outcomes": ("outcome",),
    "classes": ("class",),
    "results": ("result",),
    "pairs": ("subject", "object", "outcome"),
    "tasks": ("task", "task_name"),
    "ports": ("port",),
}


#: By which columns strata are told apart (`pympi.audit.sampling.TOLD`).
_STRATUM = ("subject", "object", "peer", "class", "asked", "operation", "msgh_id")


@dataclass
class Stats:
    """What was counted.

    Attributes:
        total: how many, without loss records.
        first, last: nanoseconds of the kernel's clock, the earliest and the latest; None: no
            records.
        lost: how many were lost, as loss records tell.
        missing: numbers that are not there between the first record and the last; in a file of all
            that was recorded, as many as were lost since, but for those that loss records of a
            sink's queue have themselves.
        backwards: how often a number was not above the one before, in a run.
        runs: as far as files tell: of kernels one after the other in a file.
        messages: how many were sent, and `size`: the bytes of their bodies.
        tallies: by what is counted, as in `COUNTED`; keys are tuples of the columns.
        sampled: how many were kept by chance and stand for others.
        by_chance: what was kept by chance, by stratum.
    """

    total: Total = _NONE
    first: int | None = None
    last: int | None = None
    lost: int = 0
    missing: int = 0
    backwards: int = 0
    runs: int = 0
    messages: Total = _NONE
    size: Total = _NONE
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in COUNTED})
    sampled: int = 0
    by_chance: Tally = field(default_factory=Tally)

    @property
    def seconds(self) -> float:
        """From the first record to the last."""
        return 0.0 if self.first is None or self.last is None else (self.last - self.first) / 1e9

    def correct(self, stratum: tuple[Any, ...], more: Total) -> None:
        """Correct what follows from a stratum by what is known of it; what does not, cannot be."""
        subject, target, _, tclass, _, operation, _ = stratum
        follows = {
            "operations": (operation,), "outcomes": ("granted",), "classes": (tclass,),
            "results": ("KERN_SUCCESS",), "pairs": (subject, target, "granted"),
        }  # fmt: skip
        self.total = self.total.plus(more)
        if operation == "send":
            self.messages = self.messages.plus(more)
        for name, thing in follows.items():
            self.tallies[name].correct(thing, more)

    @property
    def rate(self) -> float | None:
        """How many there were in a second; None if no time passed."""
        return self.total.weight / self.seconds if self.seconds else None


def stats(batches: Iterable[Batch]) -> Stats:
    """Count what is in batches.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     _ = kernel.create_task("a").allocate_port().make_send(kernel.create_task("b"))
        ...     found = stats([kernel.audit.batch(kernel.audit.drain())])
        >>> [(name, total.records) for name, total in found.tallies["operations"].most()]
        [(('give',), 1), (('take',), 1)]
    """
    result, gaps = Stats(), Gaps()
    names = {name for columns in COUNTED.values() for name in columns}
    for batch in batches:
        if not len(batch):
            continue
        gaps.add(batch.records, batch.run)
        columns = columns_of(batch, [*names, "time", "lost", "size", "weight"])
        _count(result, columns)
        _count_by_chance(result, batch)
    result.missing, result.backwards, result.runs = gaps.missing, gaps.backwards, gaps.runs
    return result


def _count(result: Stats, columns: dict[str, Any]) -> None:
    times, lost, outcome = columns["time"], columns["lost"], columns["outcome"]
    is_record = ~_is(outcome, "loss")
    weight = columns["weight"]
    result.total = result.total.plus(_total(weight[is_record]))
    result.lost += int(lost.sum(dtype=np.uint64))
    first, last = int(times.min()), int(times.max())
    result.first = first if result.first is None else min(result.first, first)
    result.last = last if result.last is None else max(result.last, last)
    sent = _is(columns["operation"], "send") & _is(outcome, "granted")
    result.messages = result.messages.plus(_total(weight[sent]))
    result.size = result.size.plus(_total(weight[sent], columns["size"][sent]))
    result.sampled += int((weight > 1).sum())
    exact = int(weight.max()) == 1
    for name, by in COUNTED.items():
        about = is_record & (columns["port"] != 0) if name == "ports" else is_record
        chosen = slice(None) if about.all() else about
        weights = None if exact else weight[chosen].astype(np.int64)
        _add(result.tallies[name], [columns[column] for column in by], chosen, weights)


def _total(weight: Array, value: Array | int = 1) -> Total:
    """Return what there is, and was, of a value of records."""
    value, weight = np.asarray(value, np.uint64), weight.astype(np.uint64)
    values = np.broadcast_to(value, weight.shape)
    excess = weight * (weight - 1)
    if excess.any() and value.ndim:  # squares of sizes may be more than 64 bits have
        excess = excess.astype(np.float64) * np.asarray(value, np.float64)
    return Total(int(values.sum()), int((values * weight).sum()), int((excess * values).sum()))


def _count_by_chance(result: Stats, batch: Batch) -> None:
    """Count, by stratum, what was kept by chance."""
    chosen = batch.records["flags"] >> np.uint32(WEIGHT_SHIFT) != 0
    if chosen.any():
        columns = columns_of(batch.part(chosen), [*_STRATUM, "weight"])
        weight = columns.pop("weight").astype(np.int64)
        _add(result.by_chance, [*columns.values()], slice(None), weight)


def sizes_of(batches: Iterable[Batch]) -> Tally:
    """Count, by stratum, the bytes that were sent in what chance decides on, firsts included.

    Returns:
        A tally whose totals have, beside how many records there are, bytes and their variance.
    """
    tally = Tally()
    for batch in batches:
        chosen = (batch.records["operation"] == Operation.SEND) & ~is_certain(batch.records)
        if chosen.any():
            columns = columns_of(batch.part(chosen), [*_STRATUM, "weight", "size"])
            size, weight = (columns.pop(name).astype(np.float64) for name in ("size", "weight"))
            _add(tally, [*columns.values()], slice(None), weight, size)
    return tally


def _is(column: Words, word: str) -> Array:
    return np.array([each == word for each in column.words])[column.codes]


def _add(
    tally: Tally, columns: list[Array | Words], chosen: Any, weight: Array | None,
    value: Array | int = 1,
) -> None:  # fmt: skip
    """Count the combinations of columns in the records that are chosen, or sum up a value."""
    words: list[tuple[list[Any], Array]] = []
    key, keys = np.zeros(1, np.int64), 1
    for column in columns:
        different, codes = (
            (list(column.words), column.codes[chosen]) if isinstance(column, Words)
            else encoded(column[chosen])
        )  # fmt: skip
        if keys * len(different) > _KEYS:
            combinations, key = encoded(key)
            key, keys = key.astype(np.int64), len(combinations)
        keys *= max(len(different), 1)
        key = key * max(len(different), 1) + codes
        words.append((different, codes))
    combinations, places = encoded(key)
    examples = np.zeros(len(combinations), np.int64)
    examples[places] = np.arange(len(places))
    counts = np.bincount(places).tolist()
    sums = (counts, counts, [0] * len(counts))
    if weight is not None:
        terms = (weight * value, weight * (weight - 1) * value * value)
        sums = (counts, *([*map(int, np.bincount(places, t).tolist())] for t in terms))
    things = [[different[place] for place in codes[examples]] for different, codes in words]
    for *thing, more in zip(*things, zip(*sums, strict=True), strict=True):
        tally.add(tuple(thing), more)
