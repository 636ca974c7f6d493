# SPDX-License-Identifier: BSD-2-Clause
"""Questions about recorded files: filters, in the words of `Kernel.watch`, and SQL."""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..enums import AuditFlag, Operation
from ..errors import PympiError
from .forms import Damaged, arrow, batches, duckdb, form_of, parts
from .record import Batch
from .table import SEVERAL, Words, columns_of
from .watch import FILTERS, Filter

__all__ = ["QUERY_FILTERS", "Answer", "QueryError", "Question", "select", "sql"]

Array = npt.NDArray[Any]

QUERY_FILTERS = {
    **FILTERS,
    "to": "who received from the port, as far as the files tell",
    "operation": "send, receive, give, take, method, ...",
    "result": "name of the Mach code",
    "flag": "what is special about it",
    "port": "number of the port, or FIRST..LAST",
    "name": "number in the task's space, or a range",
    "msgh_id": "number of the message's kind, or a range",
    "size": "bytes of the message's body, or a range",
    "transfer": "number of the message, or a range",
    "sequence": "number of the record, or a range",
    "time": "seconds or YYYY-MM-DDThh:mm:ss of UTC, or a range",
}
"""What a filter of `Question` may say, as in "port=7" and "sequence=100..": those of a watch, and
more."""

#: Columns that a filter is about, of which one has to match; `to` is none of the record.
_COLUMNS = {
    "task": ("task", "task_name"),
    "label": ("subject", "object"),
    "class": ("class",),
    "permission": ("asked",),
    "routine": ("routine",),
    "service": ("service",),
    "outcome": ("outcome",),
    "operation": ("operation",),
    "result": ("result",),
    "flag": ("flags",),
}
#: Words of which all are known.
_CLOSED = {
    "operation": [each.name.lower() for each in Operation],
    "flag": [each.name or "" for each in AuditFlag],
}
_RANGES = ("port", "name", "msgh_id", "size", "transfer", "sequence", "time")
_LAST = 1 << 64


class QueryError(PympiError, ValueError):
    """SQL that is refused, or wrong."""


class Question(Filter):
    """What is asked for: words, of which all have to hold.

    Args:
        words: as in "task=printd" and "time=10..20"; `QUERY_FILTERS` lists them.

    Raises:
        ValueError: a word that is none, or is there twice; a number that is none.
    """

    known = QUERY_FILTERS

    def __init__(self, words: Iterable[str] = ()) -> None:
        super().__init__(words)
        self._ranges = {key: _range(key, self.values[key]) for key in _RANGES if key in self.values}
        self._ports: Array | None = None
        for key, there in _CLOSED.items():
            if key in self.values and not any(self.matches(key, name) for name in there):
                text, known = self.values[key], ", ".join(there)
                raise ValueError(f"no {key} {text!r}; there are: {known}")

    def prepare(self, recorded: Iterable[Batch]) -> None:
        """Find out who receives from which port, if `to=` is asked for; else do nothing.

        Args:
            recorded: all records, which are read for that.
        """
        if "to" not in self.values:
            return
        ports: set[int] = set()
        for batch in recorded:
            received = batch.records[batch.records["operation"] == Operation.RECEIVE]
            for number in np.unique(received["task"]).tolist():
                if self.matches("to", batch.tasks.get(number, ""), number):
                    ports.update(received["port"][received["task"] == number].tolist())
        self._ports = np.array(sorted(ports), np.uint64)

    def wanted(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return which records of a batch are asked for."""
        keys = [key for key in self.values if key in _COLUMNS]
        names = {name for key in keys for name in _COLUMNS[key]}
        columns: dict[str, Any] = columns_of(batch, [*names, *self._ranges])
        wanted = np.ones(len(batch), np.bool_)
        for key in keys:
            wanted &= np.any([self._matching(key, columns[n], n) for n in _COLUMNS[key]], axis=0)
        for key, (first, last) in self._ranges.items():
            wanted &= (columns[key] >= first) & (columns[key] <= last)
        if self._ports is not None:
            wanted &= np.isin(batch.records["port"], self._ports)
        return wanted

    def _matching(self, key: str, column: Array | Words, name: str) -> Array:
        if isinstance(column, Words):
            found = [self._matches_word(key, word, name in SEVERAL) for word in column.words]
            return np.array([*found, False], np.bool_)[column.codes]
        value = self.values[key]
        number = int(value) if value.isascii() and value.isdecimal() else -1
        return column == number if 0 <= number < _LAST >> 32 else np.zeros(len(column), np.bool_)

    def _matches_word(self, key: str, word: str, several: bool) -> bool:
        return any(self.matches(key, each) for each in (word.split() if several else [word]))


def select(
    paths: Sequence[str | Path], words: Iterable[str] = (), damaged: Damaged | None = None, *,
    check: bool = True,
) -> Iterator[Batch]:  # fmt: skip
    """Iterate over the records of files for which all words hold.

    Args:
        paths: of recorded files, of whatever form.
        words: see `Question`.
        damaged, check: see `batches`.

    Raises:
        ValueError: see `Question`.
        AuditError, OSError: see `batches`.
    """
    question = Question(words)
    if "to" in question.values:
        question.prepare(batches(paths, damaged and (lambda _: None), check=check))
    for batch in batches(paths, damaged, check=check):
        if not question.values:
            yield batch
            continue
        wanted = question.wanted(batch)
        if wanted.any():
            yield replace(batch, records=batch.records[wanted])


# ---- ranges ----


def _range(key: str, text: str) -> tuple[int, int]:
    first, dots, last = text.partition("..")
    number = _nanoseconds if key == "time" else _number
    low = number(key, first) if first else -(1 << 31)
    high = (number(key, last) if last else _LAST - 1) if dots else low
    if (key == "time" and not dots) or text == "..":
        raise ValueError(f"{key}= is FIRST..LAST, of which one may be left out, not {text!r}")
    if low > high:
        raise ValueError(f"{key}= is FIRST..LAST, and {first} is after {last}")
    if key != "msgh_id":
        low = max(low, 0)
    return min(low, _LAST - 1), min(high, _LAST - 1)


def _number(key: str, text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError(f"{key}= is a number, or FIRST..LAST, not {text!r}") from None
    if not -(1 << 31) <= number < _LAST:
        raise ValueError(f"{key}={text} is out of range")
    return number


_DAY = re.compile(r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")


def _nanoseconds(_: str, text: str) -> int:
    if day := _DAY.fullmatch(text):
        with contextlib.suppress(ValueError):
            at = datetime.fromisoformat(day[1]).replace(tzinfo=UTC)
            return int(at.timestamp()) * 10**9 + int((day[2] or "0").ljust(9, "0"))
    try:
        seconds = Decimal(text)
        if 0 <= seconds < _LAST:
            return int(seconds * 10**9)
    except InvalidOperation:
        pass
    raise ValueError(f"a time is seconds, or YYYY-MM-DDThh:mm:ss of UTC, not {text!r}")


# ---- SQL ----

MEMORY = "400MB"
_READS = ("SELECT", "EXPLAIN")
_FETCHED = 10_000  # rows


class Answer:
    """Rows that a query gave, read once.

    Attributes:
        columns: their names.

    Args:
        cursor: of DuckDB.
        told: raises what went wrong in a file, if something did.
    """

    def __init__(self, cursor: Any, told: Callable[[], None]) -> None:
        self.columns = tuple(str(column[0]) for column in cursor.description or ())
        self._cursor, self._told = cursor, told

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while True:
            with _telling(self._told):
                rows = self._cursor.fetchmany(_FETCHED)
            if not rows:
                return
            yield from rows


@contextlib.contextmanager
def sql(
    paths: Sequence[str | Path],
    text: str,
    words: Iterable[str] = (),
    damaged: Damaged | None = None,
    *,
    memory: str = MEMORY,
) -> Iterator[Answer]:
    """Ask in SQL: the table `records` has the columns of `pympi.audit.table.COLUMNS`.

    DuckDB reads the files while it answers, and of them the columns that the query is about; what
    does not fit into its memory goes to a temporary directory. The query can do nothing but read
    this table: it reaches no file, no network, no variable and no setting.

    Args:
        paths: of recorded files, of whatever form; the table has the records of all.
        text: one SELECT (or WITH, FROM, VALUES, DESCRIBE, EXPLAIN).
        words: of a `Question`: the table has the records for which all hold.
        damaged: see `batches`; it is told once for each time that the query reads the file.
        memory: that DuckDB may use, as in "400MB".

    Raises:
        QueryError: the text is no such query, or wrong.
        AuditError: a file is damaged; or there is no DuckDB, or no pyarrow.
        OSError: a file cannot be read.

    Example:
        >>> import tempfile, os.path
        >>> from pympi import Kernel, audit
        >>> path = os.path.join(tempfile.mkdtemp(), "run.audit")
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.File(path))
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     inbox.make_send(kernel.create_task("client")).send(b"hello", msgh_id=7)
        >>> with sql([path], "SELECT task_name, size FROM records WHERE msgh_id = 7") as answer:
        ...     answer.columns, list(answer)
        (('task_name', 'size'), [('client', 5)])
    """
    database = duckdb()
    failures: list[Exception] = []

    def told() -> None:
        if failures:
            raise failures[0]

    with (
        tempfile.TemporaryDirectory(prefix="pympi-") as spill,
        contextlib.closing(database.connect(":memory:")) as connection,
    ):
        recorded = functools.partial(select, words=tuple(words), damaged=damaged, check=False)
        _fill(connection, paths, recorded, failures, apart=not words and damaged is None)
        with _telling(told):
            _lock_up(connection, spill, memory)
            _check(connection.extract_statements(text))
            connection.execute(text)
        yield Answer(connection, told)


def _check(statements: Sequence[Any]) -> None:
    kinds = [statement.type.name for statement in statements]
    if len(kinds) != 1 or kinds[0] not in _READS:
        found = ", ".join(kinds) or "nothing"
        raise QueryError(f"expected one SELECT, found {found}")


def _lock_up(connection: Any, spill: str, memory: str) -> None:
    """Leave the connection what a query needs, for good."""
    settings: dict[str, str] = {
        "memory_limit": memory,
        "temp_directory": spill,
        "python_enable_replacements": "false",
        "enable_external_access": "false",
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "lock_configuration": "true",
    }
    for name, value in settings.items():
        quoted = value.replace("'", "''")
        connection.execute(f"SET {name} = '{quoted}'")


def _fill(
    connection: Any, paths: Sequence[str | Path],
    recorded: Callable[[Sequence[str | Path]], Iterator[Batch]], failures: list[Exception], *,
    apart: bool,
) -> None:  # fmt: skip
    """Make the table; `apart`: files of Parquet are read by pyarrow alone, not as batches."""
    module = arrow()
    each = [part for name in paths for part in parts(name)]
    stored = [path for path in each if apart and form_of(path).columns]
    others = [path for path in each if path not in stored]
    tables = []
    if stored:
        connection.register("_stored", module.Stored(stored))
        tables.append(connection.table("_stored"))
    if others or not stored:
        source = module.Recorded(lambda: _noting(recorded(others), failures))
        connection.register("_recorded", source)
        tables.append(connection.table("_recorded"))
    functools.reduce(lambda all_, more: all_.union(more), tables).create_view("records")


def _noting(recorded: Iterator[Batch], failures: list[Exception]) -> Iterator[Batch]:
    """Keep what went wrong: of an exception in here, DuckDB passes on a text."""
    try:
        yield from recorded
    except Exception as error:
        failures.append(error)
        raise


@contextlib.contextmanager
def _telling(told: Callable[[], None]) -> Iterator[None]:
    database = duckdb()
    try:
        yield
    except database.InterruptException:
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # what DuckDB makes of Ctrl-C
            raise
        raise KeyboardInterrupt from None
    except database.Error as error:
        told()
        said = str(error).partition("\nLINE ")[0].strip()  # then come the query, and an arrow below
        hint = "; the table is called records" if "Table with name" in said else ""
        raise QueryError(said + hint) from error
