# SPDX-License-Identifier: BSD-2-Clause
"""What strata know of a sampled trail: how many there were of each is no estimate any more.

`stats` estimates from weights alone. A file also says, of each stratum, how many records there were
and how many were kept. Where all that were kept by chance are there, their weights give way to the
true number, and whatever follows from the stratum (label, class, permission, operation, bytes in
all) is exact; what does not (task, port) stays estimated. This is calibration of weights to known
totals (J.-C. Deville, C.-E. Särndal, 1992).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from .forms import arrow, form_by, parts
from .layout import is_audit_file
from .reader import AuditError, Reader
from .record import Batch
from .sampling import TOLD
from .stats import Stats, Tally, Total, sizes_of

__all__ = ["calibrate", "samplings_of"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Row = tuple[str, str, str, str, str, str, int, _Count, _Count, _Count, _Count]
_Key = tuple[str, str, str, str, str, str, int]


class _Whole(NamedTuple):
    """A stratum of which nothing is missing.

    Attributes:
        chosen: how many records there are that were kept by chance: all but the first.
        seen: of how many.
        kept: how many records there are.
        bytes: of all that were seen, the first one, too.
    """

    chosen: int = 0
    seen: int = 0
    kept: int = 0
    bytes: int = 0


class _Sampling(msgspec.Struct):
    """What a file says of one sampling (`pympi.audit.sampling.told`)."""

    by_message: bool
    columns: list[str]
    rows: list[_Row]


def samplings_of(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Mapping[str, Any]]:
    """Yield what audit files and files of Parquet say of how they were sampled; others say nothing.

    Of a file that is cut off or damaged, what it says before that. Of the parts of a directory, the
    last word on each sampling.

    Raises:
        OSError: one of them cannot be read.
    """
    for name in paths:
        found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for path in filter(Path.is_file, parts(name)):
            with suppress(AuditError):
                found |= _samplings(path)
        yield from found.values()


def _samplings(path: Path) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    with path.open("rb") as file:
        begin = file.read(16)
        if is_audit_file(begin):
            file.seek(0)
            reader = Reader(file, str(path), check=False)
            with suppress(AuditError):
                for _ in reader:
                    continue
            return {(path, number): told for number, told in enumerate(reader.samplings)}
    form = form_by(begin)
    told = arrow().parquet_samplings(path) if form and form.word == "parquet" else []
    return {(str(each.get("run")), str(each.get("sampling"))): each for each in told}


def calibrate(
    found: Stats, samplings: Iterable[Mapping[str, Any]], recorded: Iterable[Batch] = ()
) -> None:
    """Correct estimates by what is known of the strata.

    A stratum of which records are missing (lost, or from before the file), or of which nothing is
    known, is left as it is.

    Args:
        found: of all records of files.
        samplings: what the same files say of how they were sampled.
        recorded: the records again; without, how many bytes were sent stays an estimate.
    """
    known = [*_valid(samplings)]
    by_message = all(sampling.by_message for sampling in known)
    expected = _expected(known, found, by_message=by_message)
    here = _by_kind(found.by_chance, by_message=by_message)
    for kind, whole in expected.items():
        total = here.get(kind, Total())
        if total.records == whole.chosen:
            found.correct(kind, Total(0, whole.seen - total.weight, -total.variance))
    sizes = sizes_of(recorded) if known else Tally()
    if not sizes.others.records:
        _calibrate_size(found, expected, _by_kind(sizes, by_message=by_message))


def _calibrate_size(
    found: Stats, expected: Mapping[_Key, _Whole], sizes: Mapping[_Key, Total]
) -> None:
    """Correct how many bytes were sent; variance is left of strata that are not whole.

    With records from before the sampling in a stratum, it is not told which of them is its first.
    """
    if not sizes:
        return
    weight, variance = found.size.weight, 0
    for kind, size in sizes.items():
        whole = expected.get(kind, _NEVER)
        if size.records == whole.kept:
            weight += whole.bytes - size.weight
        else:
            variance += size.variance
    found.size = found.size._replace(weight=weight, variance=variance)


def _by_kind(tally: Tally, *, by_message: bool) -> dict[_Key, Total]:
    here: dict[_Key, Total] = {}
    for key, total in tally.totals.items():
        kind = _kind(key, by_message=by_message)
        here[kind] = here.get(kind, Total()).plus(total)
    return here


def _valid(samplings: Iterable[Mapping[str, Any]]) -> Iterator[_Sampling]:
    """Yield those of our form: a file may say anything."""
    for each in samplings:
        with suppress(msgspec.ValidationError):
            sampling = msgspec.convert(each, _Sampling)
            if sampling.columns == [*TOLD]:
                yield sampling


def _kind(key: Sequence[Any], *, by_message: bool) -> _Key:
    subject, target, peer, tclass, asked, operation, msgh_id = key
    return subject, target, peer, tclass, asked, operation, msgh_id if by_message else 0


def _expected(
    samplings: Iterable[_Sampling], found: Stats, *, by_message: bool
) -> dict[_Key, _Whole]:
    """Return of each kind what there is if nothing of it is missing.

    A stratum whose first record is older than the files is no more than partly in them.
    """
    expected: dict[_Key, _Whole] = {}
    for row in (row for sampling in samplings for row in sampling.rows):
        seen, kept, size, first = row[-4:]
        kind = _kind(row[:-4], by_message=by_message)
        before = expected.get(kind, _Whole())
        whole = found.first is not None and found.first <= first and 0 < kept <= seen
        more = _Whole(kept - 1, seen - 1, kept, size)
        expected[kind] = _Whole(*map(sum, zip(before, more, strict=True))) if whole else _NEVER
    return expected


_NEVER = _Whole(chosen=-(1 << 64), kept=-(1 << 64))
"""Of a stratum that is partly known: no number of records makes it whole."""
