# SPDX-License-Identifier: BSD-2-Clause
"""Recorded files of whatever form, as batches: a file's first bytes say which it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from .imports.dbus import MAGICS
from .reader import AuditError, Reader
from .record import Batch

__all__ = [
    "FORMS",
    "Damaged",
    "Form",
    "arrow",
    "batches",
    "duckdb",
    "form_by",
    "form_of",
    "known",
    "parts",
]

PARTS = "part-*.parquet"
_EXTRA = "pip install 'pympi-mach[analysis]'"


class Form(NamedTuple):
    """A form that records come in.

    Attributes:
        name: for people.
        word: for programs.
        begins: what the first bytes of a file are; one of these.
        batches: reads a file, and checks it by its hashes where it has some and that is asked for.
        columns: it has the columns of `pympi.audit.table`, which pyarrow reads by themselves.
    """

    name: str
    word: str
    begins: tuple[bytes, ...]
    batches: Callable[[Path, bool], Iterator[Batch]]
    columns: bool = False


def _needed(module: str, package: str) -> Any:
    try:
        return import_module(module, __package__)
    except ImportError as error:
        if error.name != package:
            raise
        raise AuditError(f"this needs {package}, which is not installed: {_EXTRA}") from error


def arrow() -> Any:
    """Return `pympi.audit.arrow`.

    Raises:
        AuditError: there is no pyarrow; the text says how to get it.
    """
    return _needed(".arrow", "pyarrow")


def duckdb() -> Any:
    """Return DuckDB's module.

    Raises:
        AuditError: there is none; the text says how to get it.
    """
    return _needed("duckdb", "duckdb")


def _binary(path: Path, check: bool) -> Iterator[Batch]:
    with path.open("rb") as file:
        yield from Reader(file, str(path), check=check)


def _parquet(path: Path, _: bool) -> Iterator[Batch]:
    yield from arrow().parquet_batches(path)


def _avc(path: Path, _: bool) -> Iterator[Batch]:
    from .imports import avc_batches

    return avc_batches(path)


def _dbus(path: Path, _: bool) -> Iterator[Batch]:
    from .imports import dbus_batches

    return dbus_batches(path)


# What the lines of a log begin with: of auditd, of ausearch, of a kernel.
_LOGS = (b"type=", b"node=", b"----\n", b"time->", b"audit: ", b"audit(", b"avc: ", b"[ ")

FORMS: list[Form] = [
    Form("an audit file", "audit", (b"pympi audit ",), _binary),
    Form("a file of Parquet", "parquet", (b"PAR1",), _parquet, columns=True),
    Form("a D-Bus capture", "dbus", (*MAGICS,), _dbus),
    Form("a log of AVC messages", "avc", _LOGS, _avc),
]
"""The forms there are, in the order in which they are tried."""


def parts(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files that a name stands for: a directory has parts, as the sink Parquet writes.

    Raises:
        AuditError: a directory without parts.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = sorted(path.glob(PARTS))
    if not found:
        raise AuditError(f"{path}: a directory without files {PARTS}: no part was complete")
    return found


_LONGEST = max(len(begin) for form in FORMS for begin in form.begins)


def form_of(path: Path) -> Form:
    """Return the form of a file.

    Raises:
        AuditError: it has none of those there are.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        found = file.read(_LONGEST)
    if form := form_by(found):
        return form
    begins = f"it begins with {found[:16]!r}" if found else "it is empty"
    raise AuditError(f"{path}: expected {known()}; {begins}")


def known() -> str:
    """Return what there is, in words."""
    *others, last = (form.name for form in FORMS)
    return f"{', '.join(others)} or {last}"


def form_by(begin: bytes) -> Form | None:
    """Return the form of a file that begins so (16 bytes are enough), if it has one."""
    return next((form for form in FORMS if begin.startswith(form.begins)), None)


Damaged = Callable[[AuditError], object]
"""Is told why the rest of a file is left out."""


def batches(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    damaged: Damaged | None = None,
    *,
    check: bool = True,
) -> Iterator[Batch]:
    """Iterate over the records of files of whatever form, one file after the other.

    Args:
        paths: of files, or of directories that the sink `Parquet` wrote.
        damaged: of a file that is cut off or damaged, takes what comes before, and is told; None:
            that is an error.
        check: that records are what their hashes say; without it a change of records is not seen,
            and reading takes a quarter of the time.

    Raises:
        AuditError: one of them is no recording, or damaged; or its form needs a package that is not
            installed. What comes before that is good.
        OSError: one of them cannot be read.

    Example:
        >>> import tempfile, os.path
        >>> from pympi import Kernel, audit
        >>> path = os.path.join(tempfile.mkdtemp(), "run.audit")
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.File(path))
        ...     kernel.create_task("server").allocate_port().make_send(kernel.create_task("client"))
        <SendRight 0x103 of task 'client'>
        >>> [record.operation for batch in batches(path) for record in batch]
        ['give', 'take']
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    for name in several:
        for path in parts(name):
            try:
                yield from form_of(path).batches(path, check)
            except AuditError as error:
                if damaged is None:
                    raise
                damaged(error)
