# SPDX-License-Identifier: BSD-2-Clause
"""`pympi avcstat`: how the access vector cache does (as libselinux's avcstat shows it)."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Iterator, Mapping

import click

from ._output import print_json, width
from ._source import Seconds, Source, source_arguments
from ._table import say_left_out

Counts = dict[str, int]

#: What is shown, and the counters of the kernel that it is the sum of.
COLUMNS: dict[str, tuple[str, ...]] = {
    "lookups": ("checks_avc", "misses"),
    "hits": ("checks_avc",),
    "misses": ("misses",),
    "native": ("native_decisions",),
    "decisions": ("decider_calls",),
    "denials": ("denials",),
    "inserts": ("avc_inserts",),
    "evictions": ("avc_evictions",),
    "stale": ("avc_refused",),
    "records": ("audit_records",),
    "lost": ("audit_lost",),
}
WIDE = 10  # cells of a column


@click.command()
@source_arguments("interval")
@click.option("-c", "--cumulative", is_flag=True, help="Counts since the kernel began, each time.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N lines.")
def avcstat(
    source: Source, interval: str | None, cumulative: bool, count: int | None, as_json: bool
) -> int:
    """Show how the access vector cache does.

    With INTERVAL, every so many seconds, until Ctrl-C. The first line counts from when the kernel
    began, each later one what came since the last. "native" are the misses that the core decided by
    tables of the policy, "decisions" questions to the policy itself, "stale" decisions that came
    too late to be kept; "records" and "lost" are of the audit trail. What a right's own hint
    answers is in none of the columns.
    """
    seconds = None if interval is None else Seconds()(interval)
    if seconds is not None and source.file is not None:
        raise click.UsageError("INTERVAL is for a live system: --attach SOCKET.")
    times = count or (1 if seconds is None else None)
    lines = _lines(_counts(source, seconds or 0.0, times), cumulative)
    if as_json:
        print_json({"lines": lines})
    else:
        _print(lines)
    return 0


def _counts(source: Source, seconds: float, times: int | None) -> Iterator[Counts]:
    """Yield the counters, `times` times or until Ctrl-C."""
    for number in itertools.count() if times is None else range(times):
        try:
            if number:
                sys.stdout.flush()
                time.sleep(seconds)
        except KeyboardInterrupt:
            return
        yield _shown(source.snapshot().stats if source.file else source.ask(lambda c: c.stats()))


def _shown(stats: Mapping[str, int]) -> Counts:
    return {
        name: sum(stats.get(each, 0) for each in counters) for name, counters in COLUMNS.items()
    }


def _lines(counts: Iterator[Counts], cumulative: bool) -> Iterator[Counts]:
    before: Counts = {}
    for now in counts:
        yield {name: value - before.get(name, 0) for name, value in now.items()}
        before = {} if cumulative else now


def _print(lines: Iterator[Counts]) -> None:
    names = list(COLUMNS)[: max(1, width() // WIDE)]
    say_left_out(list(COLUMNS)[len(names) :])
    every = max(1, shutil.get_terminal_size().lines - 2)
    for number, line in enumerate(lines):
        if number % every == 0:
            click.secho("".join(name.rjust(WIDE) for name in names), bold=True)
        # A counter of more digits pushes its neighbours, and keeps a blank before it.
        click.echo("".join(f" {line[name]}".rjust(WIDE) for name in names))
