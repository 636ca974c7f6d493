# SPDX-License-Identifier: BSD-2-Clause
"""Records as Arrow: columns in words from batches, and batches from such columns.

This is the one module that needs pyarrow; import it through `pympi.audit.forms.arrow`.
"""

from __future__ import annotations

import contextlib
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ..enums import CLASSES, AuditFlag, ObjectClass, Operation
from ..errors import code_number
from .reader import AuditError
from .record import RECORD, Batch
from .table import COLUMNS, WEIGHT_SHIFT, Column, Words, columns_of, encoded, gathered

__all__ = [
    "SCHEMA",
    "ParquetWriter",
    "Recorded",
    "Stored",
    "parquet_batches",
    "parquet_samplings",
    "record_batch",
]

Array = npt.NDArray[Any]

_READ = 65_536  # rows
_LEAST = 8192  # records: larger batches cost more to put together than they save
_LEVEL = 1  # of zstd: higher ones cost twice the time for a few percent
_WORD = pa.dictionary(pa.int32(), pa.string())
_RISING = ("sequence", "time", "transfer")
_WORDED = [name for name in COLUMNS if COLUMNS[name].word]
_CLASSES = b"pympi.classes"
_STRATA = b"pympi.strata"
_BIT = re.compile("bit([0-9]|[12][0-9]|3[01])", re.ASCII)


def _type(column: Column) -> pa.DataType:
    if column.word is not None:
        return _WORD
    return pa.timestamp("ns") if column.name == "time" else pa.from_numpy_dtype(column.kind)


SCHEMA = pa.schema([(column.name, _type(column)) for column in COLUMNS.values()])
"""The columns of `pympi.audit.table`, as Arrow and Parquet have them."""


# ---- from batches ----


def record_batch(batch: Batch, names: Sequence[str] = tuple(COLUMNS)) -> pa.RecordBatch:
    """Return columns of a batch."""
    arrays = [
        _arrow(name, column) for name, column in columns_of(batch, names).items()
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(arrays, schema=_schema(names))


def _schema(names: Iterable[str]) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in names])


def _arrow(name: str, column: Array | Words) -> pa.Array:
    if isinstance(column, Words):
        words = pa.array(map(_valid, column.words), pa.string())
        return pa.DictionaryArray.from_arrays(column.codes, words, safe=False)
    kind = SCHEMA.field(name).type
    return pa.array(column.view(np.int64) if name == "time" else column, kind)


def _valid(text: str) -> str:
    """Text that is none in UTF-8, as Python writes it: Arrow has no other."""
    return text.encode(errors="backslashreplace").decode()


class ParquetWriter:
    """Writes batches to a file of Parquet.

    Args:
        file: opened for writing bytes; it is not closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._classes: dict[str, ObjectClass] = {}
        self._writer = pq.ParquetWriter(
            file, SCHEMA, compression="zstd", compression_level=_LEVEL,
            use_dictionary=[name for name in COLUMNS if name not in _RISING],
            column_encoding=dict.fromkeys(_RISING, "DELTA_BINARY_PACKED"),
        )  # fmt: skip

    def __call__(self, batch: Batch) -> None:
        """Write a batch as a group of rows: the larger, the fewer bytes a record takes."""
        self._classes.update((tclass.name, tclass) for tclass in batch.classes.values())
        self._writer.write_batch(record_batch(batch), row_group_size=max(len(batch), 1))

    def close(self, samplings: Iterable[Mapping[str, Any]] = ()) -> None:
        """Write the end, without which it is no file of Parquet.

        Args:
            samplings: what was counted and kept, where the records are a sample.
        """
        classes = {name: tclass.permissions for name, tclass in self._classes.items()}
        said = {_CLASSES: json.dumps(classes)}
        if told := list(samplings):
            said[_STRATA] = json.dumps(told)
        self._writer.add_key_value_metadata(said)
        self._writer.close()


# ---- to batches ----


def parquet_batches(path: Path) -> Iterator[Batch]:
    """Iterate over the records of a file of Parquet that has our columns.

    Labels have other numbers (SIDs) than they had in the kernel.

    Raises:
        AuditError: it has not, or is damaged.
    """
    with _telling(path):
        check_columns(path)
        file = pq.ParquetFile(path, read_dictionary=_WORDED)
        numbers = _Numbers(_classes_of(file.metadata.metadata or {}))
        for group in file.iter_batches(batch_size=_READ, columns=[*COLUMNS]):
            yield numbers.batch(group)


def parquet_samplings(path: Path) -> list[dict[str, Any]]:
    """Return what a file of Parquet says of how its records were sampled; it is not trusted.

    Raises:
        AuditError: it is damaged.
    """
    with _telling(path):
        metadata = pq.read_metadata(path).metadata or {}
    try:
        told = json.loads(metadata.get(_STRATA, b"[]"))
    except (ValueError, RecursionError):
        return []
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def check_columns(path: Path) -> None:
    """Check that a file of Parquet has the columns of records.

    Raises:
        AuditError: it has not.
    """
    names = {*pq.read_schema(path).names}
    if missing := [name for name in COLUMNS if name not in names]:
        raise AuditError(f"{path}: no audit records: there is no column {', '.join(missing)}")


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Errors of pyarrow name the file."""
    try:
        yield
    except AuditError:
        raise
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise AuditError(f"{path}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise AuditError(f"{path}: {error}") from error


def _classes_of(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return permissions in bit order, as far as the file tells; it is not trusted."""
    try:
        told = json.loads(metadata.get(_CLASSES, b"{}"))
    except ValueError:
        return {}
    return {
        name: tuple(permissions)
        for name, permissions in (told.items() if isinstance(told, dict) else ())
        if isinstance(permissions, list) and len(permissions) <= 32
        and all(isinstance(each, str) for each in permissions)
    }  # fmt: skip


class _Numbers:
    """Gives numbers to words: those the words had, where that is known."""

    def __init__(self, classes: Mapping[str, tuple[str, ...]]) -> None:
        self._sids: dict[str, int] = {"-": 0}
        self._permissions = {name: list(known) for name, known in classes.items()}
        self._numbers = {name: tclass.number for name, tclass in CLASSES.items()} | {"": 0}
        for name, tclass in CLASSES.items():
            self._permissions.setdefault(name, list(tclass.permissions))
        self._told = {*self._permissions}

    def batch(self, group: pa.RecordBatch) -> Batch:
        """Return the records of a group of rows."""
        columns = {name: _column(group.column(name), name) for name in COLUMNS}
        records = np.zeros(group.num_rows, RECORD)
        for name, column in columns.items():
            if not isinstance(column, Words) and name not in ("lost", "weight"):
                records[COLUMNS[name].fields[0]] = column
        self._fill(records, columns)
        labels = {sid: label for label, sid in self._sids.items() if sid}
        classes = {
            number: ObjectClass(number, name, tuple(self._permissions.get(name, ())))
            for name, number in self._numbers.items() if number
        }  # fmt: skip
        served = records["operation"] == Operation.SERVICE
        asked = _named(records["name"], columns["service"], served)
        tasks = _named(records["task"], columns["task_name"])
        return Batch(records, labels, tasks, classes, asked)

    def _fill(self, records: Array, columns: Mapping[str, Any]) -> None:
        for field, name, number in (
            ("operation", "operation", _operation), ("flags", "flags", _flags),
            ("result", "result", _code), ("tclass", "class", self._class),
            ("effective_sid", "subject", self._sid), ("real_sid", "real_subject", self._sid),
            ("object_sid", "object", self._sid), ("peer_sid", "peer", self._sid),
        ):  # fmt: skip
            codes, words = columns[name]
            records[field] = np.array([*map(number, words), 0], RECORD[field])[codes]
        for field, name in (("asked", "asked"), ("denied", "denied"), ("report", "reported")):
            records[field] = self._masks(columns["class"], columns[name])
        weight = columns["weight"]
        records["flags"] |= np.where(weight > 1, weight, 0).astype(np.uint32) << WEIGHT_SHIFT
        lost = records["flags"] & np.uint32(AuditFlag.LOSS) != 0
        records["result"][lost] = columns["lost"][lost].view(np.int32)

    def _sid(self, label: str) -> int:
        return self._sids.setdefault(label, len(self._sids))

    def _class(self, name: str) -> int:
        if name.startswith("class:") and name[6:].isdecimal():
            return int(name[6:])
        return self._numbers.setdefault(name, 16 + len(self._numbers))

    def _masks(self, tclass: Words, several: Words) -> Array:
        keys = tclass.codes.astype(np.int64) << 32 | several.codes
        different, codes = encoded(keys)
        masks = [
            self._mask(tclass.words[key >> 32], several.words[key & 0xFFFFFFFF])
            for key in different
        ]  # fmt: skip
        return np.array([*masks, 0], np.uint32)[codes]

    def _mask(self, tclass: str, names: str) -> int:
        known = self._permissions.setdefault(tclass, [])
        numbered = tclass in self._told or not tclass or tclass.startswith("class:")
        return _bits(names, lambda name: _place(known, name, tclass), numbered)


def _place(known: list[str], name: str, tclass: str) -> int:
    """Return the bit of a permission; one that is not known yet gets the next."""
    if name not in known:
        known.append(name)
    if len(known) > 32:
        raise ValueError(f"class {tclass!r} has more than 32 permissions")
    return known.index(name)


def _bits(names: str, place: Callable[[str], int], numbered: bool) -> int:
    """Return a vector of bits by name; `bit31` is a number, where names have theirs."""
    vector = 0
    for name in names.split():
        number = int(name[3:]) if _BIT.fullmatch(name) and numbered else place(name)
        vector |= 1 << number
    return vector


_OPERATIONS = {operation.name.lower(): int(operation) for operation in Operation}
_FLAG_BITS = {flag.name or "": int(flag).bit_length() - 1 for flag in AuditFlag}


def _operation(name: str) -> int:
    if name.startswith("operation:"):
        return int(name[10:])
    return _known(_OPERATIONS, name, "operation") if name else 0


def _flags(names: str) -> int:
    return _bits(names, lambda name: _known(_FLAG_BITS, name, "flag"), True)


def _known(numbers: Mapping[str, int], name: str, what: str) -> int:
    if name not in numbers:
        raise ValueError(f"no {what} is named {name!r}")
    return numbers[name]


def _code(name: str) -> int:
    return code_number(name) if name else 0


def _column(array: pa.Array, name: str) -> Array | Words:
    if SCHEMA.field(name).type != _WORD:
        kind = COLUMNS[name].kind
        wanted = pa.int64() if name == "time" else pa.from_numpy_dtype(kind)
        numbers = array.cast(SCHEMA.field(name).type).cast(wanted).fill_null(0)
        return np.asarray(numbers).view(kind) if name == "time" else np.asarray(numbers)
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode()
    words = [word or "" for word in array.dictionary.cast(pa.string()).to_pylist()]
    return Words(np.asarray(array.indices.fill_null(len(words))), [*words, ""])


def _named(numbers: Array, words: Any, wanted: Any = slice(None)) -> dict[int, str]:
    """Return the word that the first record of each number has, where it has one."""
    different, first = np.unique(numbers[wanted], return_index=True)
    codes = words.codes[wanted][first].tolist()
    found = zip(different.tolist(), (words.words[code] for code in codes), strict=True)
    return {number: word for number, word in found if word}


# ---- for DuckDB ----


class _Asked(ds.Dataset):  # type: ignore[misc]
    """Columns that DuckDB asks for, as often as it likes.

    Of a dataset it takes `schema` and `scanner`, and of a scanner `to_reader`; nothing else of them
    is here. (Lance does likewise.) Nothing runs ahead in threads of Arrow: a query that ends early
    leaves nothing running, and no more than a few batches are in memory.
    """

    @property
    def schema(self) -> pa.Schema:
        """All columns."""
        return SCHEMA

    def scanner(
        self, columns: Sequence[str] | None = None, filter: Any = None, **_: Any,  # noqa: A002
    ) -> _Scanner:  # fmt: skip
        """Return what reads these columns of the records that pass the filter."""
        return _Scanner(self, [*COLUMNS] if columns is None else [*columns], filter)

    @abstractmethod
    def reader(self, columns: Sequence[str], wanted: Any) -> pa.RecordBatchReader:
        """Return a reader of columns of the records that pass a filter, or without one, all."""


class _Scanner:
    def __init__(self, asked: _Asked, columns: Sequence[str], wanted: Any) -> None:
        self._asked, self._columns, self._wanted = asked, columns, wanted

    def to_reader(self) -> pa.RecordBatchReader:
        return self._asked.reader(self._columns, self._wanted)


class Recorded(_Asked):
    """Batches: nothing is put into words that the query does not want.

    Args:
        batches: called for each scan.
    """

    def __init__(self, batches: Callable[[], Iterable[Batch]]) -> None:
        self._batches = batches

    def reader(self, columns: Sequence[str], wanted: Any) -> pa.RecordBatchReader:
        """Return the reader."""
        return pa.RecordBatchReader.from_batches(_schema(columns), self._groups(columns, wanted))

    def _groups(self, columns: Sequence[str], wanted: Any) -> Iterator[pa.RecordBatch]:
        # The filter names columns of its own; if there are more in here, they do no harm.
        also = [n for n in COLUMNS if n not in columns and n in str(wanted)]
        for batch in gathered(self._batches(), _LEAST):
            group = record_batch(batch, [*columns, *also])
            if wanted is None:
                yield group
            else:
                table = pa.Table.from_batches([group]).filter(wanted)
                yield from table.select(columns).to_batches()


class Stored(_Asked):
    """Files of Parquet.

    Args:
        paths: of the files.

    Raises:
        AuditError: one of them has no records.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        for path in paths:
            with _telling(path):
                check_columns(path)
        options = ds.ParquetReadOptions(dictionary_columns=_WORDED)
        form = ds.ParquetFileFormat(read_options=options)
        self._files = ds.dataset([*map(str, paths)], schema=SCHEMA, format=form)

    def reader(self, columns: Sequence[str], wanted: Any) -> pa.RecordBatchReader:
        """Return the reader."""
        return self._files.scanner(
            columns=columns, filter=wanted, batch_size=_READ, batch_readahead=2,
            fragment_readahead=1,
        ).to_reader()  # fmt: skip
