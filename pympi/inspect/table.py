# SPDX-License-Identifier: BSD-2-Clause
"""Rows of one kind, kept in columns: a million ports are a few arrays, not a million objects.

A row is a `msgspec.Struct` whose fields are of the types below. Each type says, beside what values
it takes, which column it is kept in; a text is kept as its place in a list of texts that all tables
of a snapshot share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar, get_type_hints, overload

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["I32", "U32", "U64", "Builder", "Flag", "Row", "Table", "Text", "columns_of", "texts_of"]

TEXT_COLUMN = "text"
_CHUNK = 1024  # rows made at a time

U32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32, extra={"column": "<u4"})]
U64 = Annotated[int, msgspec.Meta(ge=0, extra={"column": "<u8"})]
I32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31, extra={"column": "<i4"})]
Flag = Annotated[bool, msgspec.Meta(extra={"column": "?"})]
Text = Annotated[str, msgspec.Meta(extra={"column": TEXT_COLUMN})]


class Row(msgspec.Struct, frozen=True, gc=False):
    """What rows of tables derive from."""


RowT = TypeVar("RowT", bound=Row)


@lru_cache(maxsize=64)
def _kinds(row: type[Row]) -> dict[str, str]:
    hints = get_type_hints(row, include_extras=True)
    return {name: hints[name].__metadata__[0].extra["column"] for name in row.__struct_fields__}


def columns_of(row: type[Row]) -> dict[str, str]:
    """Return the columns in which rows of a kind are kept: a numpy type for each field."""
    kinds = _kinds(row).items()
    return {name: "<u4" if kind == TEXT_COLUMN else kind for name, kind in kinds}


@lru_cache(maxsize=64)
def texts_of(row: type[Row]) -> tuple[str, ...]:
    """Return the names of the fields that are texts."""
    return tuple(name for name, kind in _kinds(row).items() if kind == TEXT_COLUMN)


class Table(Sequence[RowT], Generic[RowT]):
    """A sequence of rows, made from columns when they are looked at.

    Args:
        row: the class of the rows.
        columns: a numpy array for each field, of the type that `columns_of(row)` says.
        texts: what its text columns point into.

    Attributes:
        columns: as given; for who computes with whole columns: `table.columns["queue_length"]`.
    """

    def __init__(
        self, row: type[RowT], columns: Mapping[str, npt.NDArray[Any]], texts: Sequence[str]
    ) -> None:
        types = {name: column.dtype.newbyteorder("<").str for name, column in columns.items()}
        wanted = {name: np.dtype(kind).str for name, kind in columns_of(row).items()}
        if types != wanted or len({len(column) for column in columns.values()}) != 1:
            raise TypeError(f"columns of {row.__name__} are {wanted}, of one length; not {types}")
        self.row = row
        self.columns = columns
        self.texts = texts
        self._orders: dict[str, npt.NDArray[np.intp]] = {}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __repr__(self) -> str:
        return f"<Table of {len(self)} {self.row.__name__}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> RowT: ...
    @overload
    def __getitem__(self, index: slice) -> Table[RowT]: ...
    def __getitem__(self, index: int | slice) -> RowT | Table[RowT]:
        if isinstance(index, slice):
            return self.select(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return next(self._rows(index, index + 1 or None))

    def __iter__(self) -> Iterator[RowT]:
        for start in range(0, len(self), _CHUNK):
            yield from self._rows(start, start + _CHUNK)

    def _rows(self, start: int, end: int | None) -> Iterator[RowT]:
        texts = texts_of(self.row)
        lists = [
            [self.texts[at] for at in self.columns[name][start:end].tolist()]
            if name in texts
            else self.columns[name][start:end].tolist()
            for name in self.row.__struct_fields__
        ]
        return map(self.row, *lists)

    def text(self, field: str) -> list[str]:
        """Return a text column as a list."""
        return [self.texts[at] for at in self.columns[field].tolist()]

    def find(self, field: str, value: int) -> Table[RowT]:
        """Return the rows in which a column of numbers has this value.

        The first search in a column sorts it; each then takes the time of a look-up.
        """
        column = self.columns[field]
        if field not in self._orders:
            self._orders[field] = np.argsort(column, kind="stable")
        order = self._orders[field]
        limits = np.iinfo(column.dtype)
        if not limits.min <= value <= limits.max:
            return self.select(slice(0))
        wanted = column.dtype.type(value)
        first, last = (np.searchsorted(column, wanted, side, order) for side in ("left", "right"))
        return self.select(order[first:last])

    def select(self, wanted: slice | npt.NDArray[Any]) -> Table[RowT]:
        """Return some of the rows.

        Args:
            wanted: as numpy indexes an array: a truth value for each row, places, or a slice.
        """
        columns = {name: column[wanted] for name, column in self.columns.items()}
        return Table(self.row, columns, self.texts)

    @classmethod
    def of(cls, row: type[RowT], rows: Iterable[RowT]) -> Table[RowT]:
        """Return a table of these rows."""
        builder = Builder(row)
        builder.extend(rows)
        return builder.table()


class Builder(Generic[RowT]):
    """Makes a table of rows that come by and by; they are kept in columns already."""

    def __init__(self, row: type[RowT]) -> None:
        self.row = row
        self._places: dict[str, int] = {}
        self._rows: list[RowT] = []
        self._parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in columns_of(row)}

    def extend(self, rows: Iterable[RowT]) -> None:
        """Append rows."""
        self._rows.extend(rows)
        if len(self._rows) >= _CHUNK:
            self._pack()

    def _pack(self) -> None:
        places = self._places
        for name, kind in columns_of(self.row).items():
            values = [getattr(one, name) for one in self._rows]
            if name in texts_of(self.row):
                values = [places.setdefault(text, len(places)) for text in values]
            self._parts[name].append(np.array(values, kind))
        self._rows.clear()

    def table(self) -> Table[RowT]:
        """Return the table of all rows."""
        self._pack()
        columns = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        return Table(self.row, columns, list(self._places))
