# SPDX-License-Identifier: BSD-2-Clause
"""Records as columns in words: what is asked of them, exported, and stored as Parquet.

`COLUMNS` is the one list of what a record has in words. A column of words is computed from numbers
that are few: the different ones are put into words, however many records have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..enums import AuditFlag, Operation
from ..errors import code_name
from .record import RECORD, Batch

__all__ = ["COLUMNS", "Column", "Words", "columns_of", "gathered", "rows", "time_text"]

Array = npt.NDArray[Any]

OUTCOMES = ("granted", "denied", "failed", "loss")
METHODS = "mi_"
GATHERED = 65536  # records
WEIGHT_SHIFT = 16
"""Above so many bits of `flags`: for how many a sampled record stands; 0: for itself."""
_FLAG_BITS = (1 << WEIGHT_SHIFT) - 1
_BITS = 32
_LOW = 0xFFFFFFFF
_DENSE = 1 << 17  # numbers that a table may have
_BLOCK = 8192  # records, which fit into a processor's cache
_MIX, _DIGITS = np.uint64(0x9E3779B97F4A7C15), np.uint64(48)


class Words(NamedTuple):
    """A column of words: `words[code]` for each code.

    Attributes:
        codes: int32, one for each record.
        words: two of them may be the same.
    """

    codes: Array
    words: Sequence[str]


class Column(NamedTuple):
    """A column.

    Attributes:
        name: as in SQL, in CSV and in JSON.
        what: it says, with the unit.
        fields: of `RECORD`, which it is made of.
        word: of a batch and a key; None: the column has numbers.
        key: makes a number of the fields, where there is more than one.
    """

    name: str
    what: str
    fields: tuple[str, ...]
    word: Callable[[Batch, int], str] | None = None
    key: Callable[..., Array] = lambda field: field

    @property
    def kind(self) -> np.dtype[Any]:
        """The dtype of the column's numbers."""
        return RECORD[self.fields[0]] if len(self.fields) == 1 else np.dtype(np.uint32)


# ---- keys ----


def _pair(high: Array, low: Array) -> Array:
    """Two 32-bit fields as one number."""
    return high.astype(np.uint64) << np.uint64(_BITS) | low.view(np.uint32)


def _outcome_key(denied: Array, result: Array, flags: Array) -> Array:
    enforced = flags & np.uint32(AuditFlag.PERMISSIVE) == 0
    key = np.where((denied != 0) & enforced, 1, np.where(result != 0, 2, 0))
    return np.where(flags & np.uint32(AuditFlag.LOSS) != 0, 3, key)


def _lost(flags: Array, result: Array) -> Array:
    loss = flags & np.uint32(AuditFlag.LOSS) != 0
    return np.where(loss, result.view(np.uint32), np.uint32(0))


def _flags_key(flags: Array) -> Array:
    return flags & np.uint32(_FLAG_BITS)


def _weight(flags: Array) -> Array:
    return np.maximum(flags >> np.uint32(WEIGHT_SHIFT), np.uint32(1))


def _service_key(operation: Array, name: Array) -> Array:
    return np.where(operation == Operation.SERVICE, name, np.uint32(0))


# ---- words ----


def _operation(_: Batch, number: int) -> str:
    try:
        return Operation(number).name.lower()
    except ValueError:  # of a later version
        return f"operation:{number}"


def _label(batch: Batch, sid: int) -> str:
    return batch.labels.get(sid, f"sid:{sid}") if sid else "-"


def _class(batch: Batch, number: int) -> str:
    if not number:
        return ""
    found = batch.classes.get(number)
    return found.name if found else f"class:{number}"


def _named(names: Mapping[str, int], vector: int) -> str:
    """Return the names of bits; of one that has none, its number, as in `bit31`."""
    left = vector & ~sum(names.values())
    unnamed = [f"bit{bit}" for bit in range(_BITS) if left >> bit & 1]
    return " ".join([*(name for name, bit in names.items() if vector & bit), *unnamed])


def _permissions(batch: Batch, key: int) -> str:
    tclass = batch.classes.get(key >> _BITS)
    return _named(tclass.bits if tclass else {}, key & _LOW)


def _routine(batch: Batch, key: int) -> str:
    tclass = batch.classes.get(key >> _BITS)
    method = tclass is not None and tclass.name.startswith(METHODS)
    return next(iter(tclass.names(key & _LOW)), "") if method and tclass else ""


def _result(_: Batch, key: int) -> str:
    code = key & _LOW
    loss = key >> _BITS & AuditFlag.LOSS
    return "" if loss else code_name(code - (1 << _BITS) if code >> 31 else code)


_FLAGS = {flag.name or "": int(flag) for flag in AuditFlag}

COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("sequence", "counts records and losses: a gap is a loss", ("sequence",)),
        Column("time", "of the kernel's clock, exact to the nanosecond", ("time",)),
        Column("operation", "send, receive, give, take, method, ... or loss", ("operation",),
               _operation),
        Column("outcome", "granted, denied, failed for another reason, or loss",
               ("denied", "result", "flags"), lambda _, key: OUTCOMES[key], _outcome_key),
        Column("subject", "label that was decided on", ("effective_sid",), _label),
        Column("real_subject", "the task's own label", ("real_sid",), _label),
        Column("object", "label of what it was done to", ("object_sid",), _label),
        Column("peer", "label of the sender, where something was received or taken",
               ("peer_sid",), _label),
        Column("task", "number of who did it", ("task",)),
        Column("task_name", "its name", ("task",), lambda batch, key: batch.tasks.get(key, "")),
        Column("name", "number of the name in the task's space", ("name",)),
        Column("port", "number of the port", ("port",)),
        Column("class", "of the object", ("tclass",), _class),
        Column("asked", "permissions", ("tclass", "asked"), _permissions, _pair),
        Column("denied", "permissions", ("tclass", "denied"), _permissions, _pair),
        Column("reported", "permissions that something permissive would refuse",
               ("tclass", "report"), _permissions, _pair),
        Column("routine", "that a message calls", ("tclass", "asked"), _routine, _pair),
        Column("service", "that the name server was asked about", ("operation", "name"),
               lambda batch, key: batch.services.get(key, "") if key else "", _service_key),
        Column("msgh_id", "number that the message has by its kind", ("msgh_id",)),
        Column("size", "bytes of the message's body", ("size",)),
        Column("result", "name of the Mach code", ("flags", "result"), _result, _pair),
        Column("transfer", "number of the message, the same at both ends", ("transfer",)),
        Column("provenance", "transfer by which the task got the name; 0: made here",
               ("provenance",)),
        Column("epoch", "of the policy", ("epoch",)),
        Column("flags", "what is special about it", ("flags",),
               lambda _, key: _named(_FLAGS, key), _flags_key),
        Column("lost", "in a loss record, how many records were lost before it",
               ("flags", "result"), None, _lost),
        Column("weight", "for how many it stands: more than 1 if it was sampled by chance",
               ("flags",), None, _weight),
    )
}  # fmt: skip
"""What a record has in words, by name, in order."""
SEVERAL = ("asked", "denied", "reported", "flags")
"""Columns whose words are several, separated by blanks."""


# ---- columns of a batch ----


def columns_of(batch: Batch, names: Iterable[str] = COLUMNS) -> dict[str, Any]:
    """Return columns of a batch, by name: arrays of numbers, or `Words`.

    Raises:
        KeyError: there is no such column.
    """
    chosen = [COLUMNS[name] for name in names]
    fields = _fields(batch.records, {field for column in chosen for field in column.fields})
    return {column.name: _column(batch, column, fields) for column in chosen}


def _fields(records: Array, names: Iterable[str]) -> dict[str, Array]:
    """Return fields of records, each in one piece."""
    fields = {name: np.empty(len(records), RECORD[name]) for name in names}
    for start in range(0, len(records), _BLOCK):
        block = records[start : start + _BLOCK]
        for name, values in fields.items():
            values[start : start + _BLOCK] = block[name]
    return fields


def _column(batch: Batch, column: Column, fields: Mapping[str, Array]) -> Array | Words:
    keys = column.key(*(fields[name] for name in column.fields))
    if column.word is None:
        return keys
    different, codes = encoded(keys)
    return Words(codes, [column.word(batch, key) for key in different])


def encoded(numbers: Array) -> tuple[list[int], Array]:
    """Return the different numbers, and for each number the place of that among them (int32)."""
    if not len(numbers):
        return [], np.zeros(0, np.int32)
    low, high = int(numbers.min()), int(numbers.max())
    if low == high:
        return [low], np.zeros(len(numbers), np.int32)
    if high - low >= _DENSE:
        return _few(numbers) or _many(numbers)
    found, codes = _dense(numbers - numbers.dtype.type(low) if low else numbers, high - low + 1)
    return (found + low).tolist(), codes


def _dense(places: Array, room: int) -> tuple[Array, Array]:
    seen = np.zeros(room, np.bool_)
    seen[places] = True
    found = np.flatnonzero(seen)
    table = np.zeros(room, np.int32)
    table[found] = np.arange(len(found), dtype=np.int32)
    return found, table[places]


def _few(numbers: Array) -> tuple[list[int], Array] | None:
    """Encode by a hash, if that is another one for each of the different numbers."""
    places = (numbers.astype(np.uint64) * _MIX >> _DIGITS).astype(np.uint16)
    of_place = np.zeros(1 << 16, numbers.dtype)
    of_place[places] = numbers
    if not np.array_equal(of_place[places], numbers):
        return None
    found, codes = _dense(places, len(of_place))
    return of_place[found].tolist(), codes


def _many(numbers: Array) -> tuple[list[int], Array]:
    different, codes = np.unique(numbers, return_inverse=True)
    return different.tolist(), codes.reshape(-1).astype(np.int32)


def rows(batch: Batch, names: Iterable[str] = COLUMNS) -> Iterator[tuple[Any, ...]]:
    """Iterate over records in words: tuples of the columns that are asked for, in their order."""
    return zip(*map(_listed, columns_of(batch, names).values()), strict=True)


def _listed(column: Array | Words) -> Iterable[Any]:
    if isinstance(column, Words):
        return map(column.words.__getitem__, column.codes.tolist())
    return column.tolist()


# ---- larger batches ----


def gathered(batches: Iterable[Batch], least: int = GATHERED) -> Iterator[Batch]:
    """Yield the same records in larger batches: small ones cost more than what is in them."""
    waiting: list[Batch] = []
    count = 0
    for batch in batches:
        if waiting and (count >= least or not _agree(waiting[-1], batch)):
            yield _together(waiting)
            waiting, count = [], 0
        waiting.append(batch)
        count += len(batch)
    if waiting:
        yield _together(waiting)


def _tables(batch: Batch) -> tuple[Mapping[int, Any], ...]:
    return batch.labels, batch.tasks, batch.classes, batch.services


def _agree(before: Batch, after: Batch) -> bool:
    """Whether no number of one batch stands for something else in the next."""
    return before.run == after.run and all(
        old is new or old.items() <= new.items() or _compatible(old, new)
        for old, new in zip(_tables(before), _tables(after), strict=True)
    )


def _compatible(old: Mapping[int, Any], new: Mapping[int, Any]) -> bool:
    return all(new.get(number, text) == text for number, text in old.items())


def _together(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    merged: tuple[dict[int, Any], ...] = ({}, {}, {}, {})
    for batch in batches:
        for table, more in zip(merged, _tables(batch), strict=True):
            table.update(more)
    records = np.concatenate([batch.records for batch in batches])
    return Batch(records, *merged, run=batches[0].run)


# ---- time ----

REAL = 10**17
"""Nanoseconds: a clock that says less is none of the calendar."""
_EPOCH = datetime(1970, 1, 1)
_END = 253_402_300_800  # seconds: the year 10000, which datetime does not know


def time_text(nanoseconds: int) -> str:
    """Return a time in UTC; of a clock that is none of the calendar, in seconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    if nanoseconds < REAL or seconds >= _END:
        return f"{seconds}.{rest:09}"
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
