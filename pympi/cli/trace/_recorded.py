# SPDX-License-Identifier: BSD-2-Clause
"""What the verbs about records share: reading a file of them, with a bar where it takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..._pipes import kept_file
from .._output import bad_input, complain, progress

if TYPE_CHECKING:
    from ...audit import Batch

Advance = Callable[[int], None]


@contextmanager
def audit_file(path: str, *, hidden: bool) -> Iterator[tuple[Iterable[Batch], Advance]]:
    """Yield the batches of a recorded file, or of stdin ("-"), and what to call with the number of
    records done.

    Of records that were sampled by chance, stderr says so in the end.

    Raises:
        BadInput: it is none, or is damaged; also where that is noticed later.
    """
    from ...audit import RECORD, forms
    from ...trace.recordings import name_of, named

    name = name_of(path)
    with bad_input(), kept_file(path) as file:
        about = sum(part.stat().st_size for part in forms.parts(file)) // RECORD.itemsize
        with progress("reading", about, hidden=hidden) as advance:
            seen = _Sampled(named(forms.batches(file), file, name))
            yield seen, _by_thousands(advance)
    if seen.sampled:
        complain(f"{name} was sampled by chance: what there is to see is a part of what was done")


class _Sampled:
    """Batches as they come, and whether any record of them stands for others."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        self.sampled = False

    def __iter__(self) -> Iterator[Batch]:
        from ...audit.sampling import stands_for

        for batch in self._batches:
            self.sampled = self.sampled or stands_for(batch.records) is not None
            yield batch


def _by_thousands(advance: Advance) -> Advance:
    """Return the same, called seldom enough to cost nothing."""
    done = 0

    def later(records: int) -> None:
        nonlocal done
        done += records
        if done >= 1024:
            advance(done)
            done = 0

    return later
