# SPDX-License-Identifier: BSD-2-Clause
"""Records as Parquet, in words, for DuckDB, pyarrow and whatever else reads it.

The columns are those of `pympi.audit.table`: `time` is a timestamp in nanoseconds, numbers are as
wide as in a record, words are strings, coded by a dictionary. What rises (sequence, time, transfer)
is stored as differences, and all is compressed by zstd. The metadata of a file have, under
`pympi.classes`, the permissions of the classes in bit order, as JSON; and where records are a
sample, under `pympi.strata`, a list of what was counted and what kept: the objects of
`Reader.samplings`, each with `run`, which with `sampling` says of which one it is the last word.

A file of Parquet ends with its index, and cannot be read without. So the sink writes a directory of
parts, each a complete file that appears under its name by a rename when all of it is on the disk:

    run.parquet/part-00001.parquet, run.parquet/part-00002.parquet, ...

Who is killed loses the records of the part that was not complete, and no others; if there is
anything of it, its name begins with a dot. What a later part says of a sample holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .forms import PARTS, arrow
from .record import Batch
from .table import gathered

__all__ = ["Parquet", "write_parquet"]

ROWS = 131_072  # of a group: fewer take more bytes each, more take more memory
PART = 2 * ROWS


class Parquet:
    """A sink that writes a directory of files of Parquet.

    Args:
        path: of the directory, which is made, with its parents. It may be there, without parts.
        when_full: what becomes of an operation whose record finds no room, as for `File`.
        records: how many a part has, but for the last one and after `flush`; so many wait in
            memory, at 104 bytes each.

    Raises:
        AuditError: there is no pyarrow.
        FileExistsError: the directory has parts, which are somebody's records.
        OSError: it cannot be made.

    Example:
        >>> import tempfile, os
        >>> from pympi import Kernel, audit
        >>> path = os.path.join(tempfile.mkdtemp(), "run.parquet")
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.Parquet(path))
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     inbox.make_send(kernel.create_task("client")).send(b"hello", msgh_id=7)
        >>> os.listdir(path)
        ['part-00001.parquet']
        >>> [r.msgh_id for b in audit.batches(path) for r in b if r.operation == "send"]
        [7]
    """

    def __init__(
        self, path: str | os.PathLike[str], when_full: str = "drop", *, records: int = PART
    ) -> None:
        if records < 1:
            raise ValueError(f"a part has at least one record, not {records}")
        arrow()
        self.when_full = when_full
        self._directory = Path(path)
        self._records = records
        self._waiting: list[Batch] = []
        self._count = self._parts = 0
        self._kernel, self._runs = 0, 0
        self._told: dict[tuple[int, Any], Mapping[str, Any]] = {}  # since the last part
        self._directory.mkdir(parents=True, exist_ok=True)
        if found := sorted(self._directory.glob(PARTS)):
            raise FileExistsError(17, "there are records here; choose another name", str(found[0]))

    def __call__(self, batch: Batch) -> None:
        """Keep a batch, and write a part if there are records enough."""
        self._waiting.append(batch)
        self._count += len(batch)
        if self._count >= self._records:
            self.flush()

    def attached(self, kernel: int) -> None:
        """Keep what is said of the samples of kernels apart. `Audit.attach` calls this."""
        self._runs += kernel != self._kernel
        self._kernel = kernel

    def strata(self, strata: Mapping[str, Any]) -> None:
        """Keep what was counted and what was kept of it, for the next part."""
        self._told[self._runs, strata.get("sampling")] = {**strata, "run": self._runs}

    @property
    def unwritten(self) -> int:
        """How many records were taken and are in no part yet."""
        return self._count

    def flush(self) -> None:
        """Write what there is as a part; without records, if there is news of what was left out.

        Raises:
            OSError: it could not be written, and waits for the next time; earlier parts are good.
        """
        if not self._count and not self._told:
            return
        name = f"part-{self._parts + 1:05}.parquet"
        staged = self._directory / f".{name}.new"
        try:
            with staged.open("wb") as file:
                write_parquet(file, self._waiting, self._told.values())
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self._directory / name)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        self._parts += 1
        self._waiting, self._count, self._told = [], 0, {}

    def close(self) -> None:
        """Write what there is."""
        self.flush()


def write_parquet(
    file: BinaryIO, batches: Iterable[Batch], samplings: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Write one file of Parquet.

    Args:
        file: opened for writing bytes.
        batches: the records.
        samplings: what was counted and kept, if they are a sample, each with its `run`.

    Raises:
        AuditError: there is no pyarrow.
        OSError: it cannot be written.
    """
    writer = arrow().ParquetWriter(file)
    for batch in gathered(batches, ROWS):
        writer(batch)
    writer.close(samplings)
