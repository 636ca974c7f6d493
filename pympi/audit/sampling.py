# SPDX-License-Identifier: BSD-2-Clause
"""Sampling by meaning: what was seen and kept of each stratum, and what can be said of the rest.

The core samples (csrc/sec/sample.h). A record that was kept by chance bears in the upper half of
its flags for how many it stands (`weights`); any other stands for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._ffi import lib
from .._rows import dtype_of
from ..enums import ObjectClass, Operation

__all__ = ["STRATUM", "Estimate", "Strata", "Stratum", "estimate", "weights"]

STRATUM: np.dtype[Any] = dtype_of("pm_audit_stratum")
"""The numpy form of `struct pm_audit_stratum`."""

_KEY = ("ssid", "tsid", "peer_sid", "tclass", "asked", "operation", "msgh_id")
_KEY_OF_RECORD = ("effective_sid", "object_sid", *_KEY[2:])
_CERTAIN = (
    Operation.GIVE, Operation.TAKE, Operation.INSERT_RIGHT, Operation.EXTRACT_RIGHT, Operation.TASK,
    Operation.RELABEL, Operation.GUARD, Operation.LOSS, Operation.SERVICE,
)  # fmt: skip
_OVERFLOW = "(overflow)"


class Stratum(NamedTuple):
    """Records of one meaning, in words.

    Attributes:
        subject, object: labels; "(overflow)" for all that found no row in the table.
        peer: label of who sent what is received, else "-".
        tclass, asked: the permissions asked for.
        operation: "send", "receive", "method", ...
        msgh_id: where messages are told apart by it, else 0.
        certain: whether all are kept: rights that change hands, acts of servers, denials, errors.
        seen, kept: how many there were, and how many of them were recorded.
        bytes: of all that there were.
        first: seconds, when the first one came.
    """

    subject: str
    object: str
    peer: str
    tclass: str
    asked: tuple[str, ...]
    operation: str
    msgh_id: int
    certain: bool
    seen: int
    kept: int
    bytes: int
    first: float


@dataclass(frozen=True, slots=True)
class Strata:
    """What was seen, and what their numbers stand for.

    Attributes:
        rows: an array of dtype `STRATUM`.
        labels: of each row: label text by SID, which may come to stand for another.
        classes: class by number.
        by_message: whether messages of different msgh_id are different strata.
    """

    rows: npt.NDArray[Any]
    labels: Sequence[Mapping[int, str]]
    classes: Mapping[int, ObjectClass]
    by_message: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Stratum]:
        return map(self._worded, self.rows, self.labels)

    @property
    def seen(self) -> int:
        """How many records there were in all."""
        return int(self.rows["seen"].sum())

    @property
    def kept(self) -> int:
        """How many of them were kept."""
        return int(self.rows["kept"].sum())

    @property
    def by_chance(self) -> Strata:
        """Those, most frequent first, of which all but the first were kept by chance."""
        places = np.flatnonzero(self.rows["flags"] == 0)
        seen = self.rows["seen"][places].astype(np.int64)
        places = places[np.argsort(-seen, kind="stable")]
        labels = [self.labels[place] for place in places.tolist()]
        return replace(self, rows=self.rows[places], labels=labels)

    def _worded(self, row: Any, labels: Mapping[int, str]) -> Stratum:
        tclass = self.classes.get(int(row["tclass"]))
        overflow = bool(row["flags"] & lib.PM_STRATUM_OVERFLOW)
        return Stratum(
            subject=_OVERFLOW if overflow else _label(labels, int(row["ssid"])),
            object=_OVERFLOW if overflow else _label(labels, int(row["tsid"])),
            peer=_label(labels, int(row["peer_sid"])),
            tclass=tclass.name if tclass else "",
            asked=tclass.names(int(row["asked"])) if tclass else (),
            operation=Operation(int(row["operation"])).name.lower(),
            msgh_id=int(row["msgh_id"]),
            certain=bool(row["flags"] & lib.PM_STRATUM_CERTAIN),
            seen=int(row["seen"]),
            kept=int(row["kept"]),
            bytes=int(row["bytes"]),
            first=int(row["first"]) / 1e9,
        )


def _label(labels: Mapping[int, str], sid: int) -> str:
    return labels.get(sid, f"sid:{sid}") if sid else "-"


# ---- estimates ----


class Estimate(NamedTuple):
    """What there was in all, of a group of records.

    Attributes:
        group: the values of the fields that the group is by.
        total: the estimate.
        low, high: between which it lies with the confidence asked for; infinite where nothing is
            known. Both are `total` where it is exact.
        records: how many records of the group there are to go by.
        by_chance: how many of these were kept by chance; with less than some 30 the interval is a
            rough one.
    """

    group: tuple[int, ...]
    total: float
    low: float
    high: float
    records: int
    by_chance: int

    @property
    def exact(self) -> bool:
        """Whether nothing was estimated."""
        return self.low == self.total == self.high


def weights(records: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return for how many each record stands: 1, unless it was sampled by chance."""
    said = records["flags"] >> lib.PM_AUDIT_WEIGHT_SHIFT
    return np.asarray(np.where(said == 0, 1, said), np.float64)


def stands_for(records: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
    """Return for how many each record stands; None where each stands for itself alone."""
    said = records["flags"] >> lib.PM_AUDIT_WEIGHT_SHIFT
    return said.clip(1).astype(np.int64) if said.max(initial=0) > 1 else None


def estimate(
    records: npt.NDArray[Any], value: str | npt.ArrayLike = 1, *, by: str | Sequence[str] = (),
    strata: Strata | None = None, confidence: float = 0.95,
) -> list[Estimate]:  # fmt: skip
    """Return what there was in all of what was selected, from what was kept of it.

    A record that was kept by chance, one in w, counts w times (Horvitz and Thompson, 1952). With
    `strata` the chance of how many were kept is taken out: how many there were of each stratum is
    known, so only the mean value in it is estimated (a ratio estimator; W. G. Cochran, Sampling
    Techniques, 1977, 6.2), and how many, by label or permission, is exact. The interval is the
    normal one, with a variance of independent choices: an approximation for many records. A group
    of which no record was kept is not in the answer; some of up to about 3 w may have been missed.

    Args:
        records: all that were kept, of dtype `RECORD`; loss records are left out.
        value: of what the total is wanted: a field, or a value for each record. 1: how many.
        by: fields to group by, as "effective_sid"; none: one group.
        strata: `kernel.audit.strata()` of the same time. A stratum of which records are missing
            here (lost, or not yet drained) is estimated as without.
        confidence: of the interval.

    Raises:
        ValueError: a field that records do not have, or a confidence that is none.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     kernel.audit.select("granted", "mach_port", "send")
        ...     kernel.audit.sample(one_in=10, seed=1)
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     right = inbox.make_send(kernel.create_task("client"))
        ...     for _ in range(1000):
        ...         right.send(b"page")
        ...         _ = inbox.receive()
        ...     records = kernel.audit.drain()
        ...     (sent,) = estimate(records, strata=kernel.audit.strata())
        >>> len(records) < 200, sent.total, sent.exact
        (True, 1000.0, True)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence!r}")
    records = records[records["operation"] != Operation.LOSS]
    fields = [by] if isinstance(by, str) else list(by)
    values = _column(records, value)
    groups, group = _numbered(records, fields)
    known = _Known(records, strata)
    sums = _Sums(records, np.broadcast_to(values, records.shape), group, len(groups), known)
    told = np.ndim(values) == 0 and set(fields) <= {*_KEY_OF_RECORD[: known.told]}
    most = float(values) if np.ndim(values) == 0 and values >= 0 else math.inf
    spread = NormalDist().inv_cdf((1 + confidence) / 2)
    return sums.estimates(groups, spread, told=told, most=most)


def _column(records: npt.NDArray[Any], value: str | npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the values of records; a single number where all have the same."""
    if isinstance(value, str):
        _check_fields(records, [value])
        return np.asarray(records[value], np.float64)
    return np.asarray(value, np.float64)


def _check_fields(records: npt.NDArray[Any], fields: Iterable[str]) -> None:
    names = records.dtype.names or ()
    for name in fields:
        if name not in names:
            raise ValueError(f"records have no field {name!r}; they have {', '.join(names)}")


def _numbered(
    records: npt.NDArray[Any], fields: list[str]
) -> tuple[list[tuple[int, ...]], npt.NDArray[np.intp]]:
    """Return the groups there are, and the number of the group of each record."""
    _check_fields(records, fields)
    if not fields:
        return [()], np.zeros(len(records), np.intp)
    columns = np.stack([records[name].astype(np.int64) for name in fields], axis=1)
    found, places = np.unique(columns, axis=0, return_inverse=True)
    return [tuple(row) for row in found.tolist()], places.reshape(-1)


class _Known:
    """What strata say of records.

    Attributes:
        told: how many fields of the key tell strata apart.
        stratum: of each record that was kept by chance: its number, or 0.
        seen: how many were subject to chance in each; not a number where that is not known.
        alone: records that stand alone for their stratum, and for how many more.
        unplaced: how many were left out of what found no row: of any group there may be some.

    Strata of one key are one here: a SID that was given out anew, after 4 thousand million others,
    is in records what it was before, and their total is that of both.
    """

    def __init__(self, records: npt.NDArray[Any], strata: Strata | None) -> None:
        self.told = len(_KEY) if strata is not None and strata.by_message else len(_KEY) - 1
        self.stratum, self.seen = np.zeros(len(records), np.intp), np.full(1, np.nan)
        self.alone: list[tuple[int, int]] = []
        self.unplaced = 0
        if strata is not None and len(records):
            self._match(records, strata.rows[strata.rows["flags"] == 0])
            full = strata.rows[strata.rows["flags"] == lib.PM_STRATUM_OVERFLOW]
            self.unplaced = int(full["seen"].sum()) - int(full["kept"].sum())

    def _match(self, records: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
        keys, number = _numbered(rows, list(_KEY[: self.told]))
        seen, kept, firsts = (
            np.bincount(number, terms, len(keys))
            for terms in (rows["seen"].astype(float), rows["kept"].astype(float), None)
        )
        place = self._places(records, keys)
        by_chance = records["flags"] >> lib.PM_AUDIT_WEIGHT_SHIFT != 0
        self.stratum = np.where(by_chance, place, 0)
        here = np.bincount(self.stratum, minlength=len(keys) + 1)[1:]
        more = seen - firsts
        whole = here == kept - firsts
        self.seen = np.concatenate([[np.nan], np.where(whole & (here > 0), more, np.nan)])
        lonely = np.flatnonzero(whole & (here == 0) & (more > 0)) + 1
        first = np.where(by_chance | is_certain(records), 0, place)
        for one in lonely.tolist():
            found = np.flatnonzero(first == one)[:1].tolist()
            self.alone += [(record, int(more[one - 1])) for record in found]

    def _places(
        self, records: npt.NDArray[Any], keys: list[tuple[int, ...]]
    ) -> npt.NDArray[np.intp]:
        known = {key: number for number, key in enumerate(keys, 1)}
        different, places = _numbered(records, list(_KEY_OF_RECORD[: self.told]))
        found = np.array([known.get(key, 0) for key in different], np.intp)
        return found[places]


def is_certain(records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which records were kept whatever their stratum (is_certain in csrc/sec/sample.c)."""
    special = records["flags"] & np.uint32(~lib.PM_AUDIT_RECEIVE & 0xFFFF)
    wrong = (records["denied"] | records["report"] | special) != 0
    return np.asarray(wrong | (records["result"] != 0) | np.isin(records["operation"], _CERTAIN))


class _Sums:
    """Sums over the records of each stratum and group, that estimates are made of."""

    def __init__(
        self, records: npt.NDArray[Any], value: npt.NDArray[np.float64],
        group: npt.NDArray[np.intp], groups: int, known: _Known,
    ) -> None:  # fmt: skip
        self._shape = len(known.seen), groups
        self._cell = known.stratum * groups + group
        self._known = known
        self._value, self._group = value, group
        weight = weights(records)
        by_chance = records["flags"] >> lib.PM_AUDIT_WEIGHT_SHIFT != 0
        chance = np.where(by_chance, weight, 0.0)
        excess = chance * (chance - 1).clip(0)
        self.records = self._sum(np.ones_like(weight)).sum(axis=0)
        self.chanced = self._sum((~is_certain(records)).astype(np.float64)).sum(axis=0)
        self.chosen = self._sum((weight > 1).astype(np.float64)).sum(axis=0)
        self.certain = self._sum(np.where(by_chance, 0.0, value)).sum(axis=0)
        self.weighted = self._sum(chance * value)
        self.weight = np.bincount(known.stratum, chance, self._shape[0])[:, None]
        self.excess = np.bincount(known.stratum, excess, self._shape[0])[:, None]
        self.excess_value = self._sum(excess * value)
        self.excess_square = self._sum(excess * value * value)

    def _sum(self, terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        size = self._shape[0] * self._shape[1]
        sums: npt.NDArray[np.float64] = np.bincount(self._cell, terms, size).astype(np.float64)
        return sums.reshape(self._shape)

    def _total_and_variance(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        seen = self._known.seen[:, None]
        calibrated = ~np.isnan(seen) & (self.weight > 0)
        factor = np.where(calibrated, seen / np.where(calibrated, self.weight, 1), 1)
        mean = np.where(calibrated, self.weighted / np.where(calibrated, self.weight, 1), 0)
        variance = factor**2 * (
            self.excess_square - 2 * mean * self.excess_value + mean**2 * self.excess
        )
        total = self.certain + (factor * self.weighted).sum(axis=0)
        return total, variance.sum(axis=0).clip(0)

    def estimates(
        self, groups: list[tuple[int, ...]], spread: float, *, told: bool, most: float
    ) -> list[Estimate]:
        """Return one estimate for each group.

        Args:
            groups: by their numbers.
            spread: of the interval, in standard deviations.
            told: value and group follow from the stratum.
            most: the largest value of a record.
        """
        total, variance = self._total_and_variance()
        half = spread * np.sqrt(variance)
        half[half < 1e-6 * np.abs(total)] = 0  # what is left of sums that cancel out
        open_ended = np.zeros(len(groups), np.bool_)
        low = total - half
        for record, more in self._known.alone:
            place = self._group[record]
            total[place] += more * self._value[record]
            low[place] += more * self._value[record] * told
            open_ended[place] |= not told
        high = np.where(open_ended, np.inf, total + half)
        if self._known.unplaced:  # what chance left out there is in no stratum that is known
            high[(high == total) & (self.chanced > 0)] += most * self._known.unplaced
        columns = zip(total, low, high, self.records, self.chosen, strict=True)
        return [
            Estimate(group, float(t), float(lo), float(hi), int(n), int(chosen))
            for group, (t, lo, hi, n, chosen) in zip(groups, columns, strict=True)
        ]


def described(budget: int, per: float, one_in: int) -> str:
    """Return how records are sampled, in words."""
    if budget:
        span = "second" if math.isclose(per, 1) else f"{per:g} seconds"
        return f"sampled: {budget:,} records a {span} of what repeats itself"
    return f"sampled: one in {one_in:,} of what repeats itself"


# ---- strata in words, for sinks ----

TOLD = ("subject", "object", "peer", "class", "asked", "operation", "msgh_id",
        "seen", "kept", "bytes", "first")  # fmt: skip
"""Columns of the rows that sinks are told; `first` in nanoseconds."""
_MOST_TOLD = 1 << 14  # rows
_MOST_LETTERS = 1 << 22


def told(strata: Strata, number: int, words: str) -> dict[str, Any]:
    """Return strata as an object for JSON, of bounded size.

    Args:
        strata: of a kernel.
        number: of the sampling in the kernel: what a larger one counts began later.
        words: how records are sampled.

    Returns:
        `sampling`, `by_message`, `seen` and `kept` of all; `columns` and `rows` of the strata of
        which records were kept by chance, the most frequent first; `left_out`: how many of these
        are not among them, for want of room.
    """
    rows: list[list[Any]] = []
    letters = 0
    for stratum in islice(strata.by_chance, _MOST_TOLD):
        asked, first = " ".join(stratum.asked), round(stratum.first * 1e9)
        key = stratum.subject, stratum.object, stratum.peer, stratum.tclass, asked
        letters += sum(map(len, key))
        if letters > _MOST_LETTERS:
            break
        numbers = stratum.msgh_id, stratum.seen, stratum.kept, stratum.bytes, first
        rows.append([*key, stratum.operation, *numbers])
    left_out = len(strata.by_chance) - len(rows)
    return {
        "sampling": number, "words": words, "by_message": strata.by_message, "seen": strata.seen,
        "kept": strata.kept, "left_out": left_out, "columns": list(TOLD), "rows": rows,
    }  # fmt: skip
