# SPDX-License-Identifier: BSD-2-Clause
"""The Python rows under pytest-benchmark, and what holds of the table.

    python -m pytest benchmarks/test_quick.py --benchmark-enable

Times of single calls, to look at while working; the budgets are judged by `python -m benchmarks`.
"""

import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import build
from benchmarks.__main__ import duration
from benchmarks.cases import CASES, author
from benchmarks.rows import ROWS
from pympi.bench.harness import Runner
from pympi.bench.peers import BODY
from pympi.bench.systems import Setting, System


def test_every_row_has_a_case() -> None:
    assert {row.case for row in ROWS} <= CASES.keys()
    assert len({row.number for row in ROWS}) == len(ROWS)


def test_a_time_is_what_a_bound_costs() -> None:
    assert author.limit(20 * author.MICROSECOND)(3) == 60_000
    assert [duration(ns) for ns in (34.16, 20_000, 4.2e9)] == ["34.2", "20000.0", "4.20 s"]


@pytest.mark.parametrize("case", ["batch_rows", "batch_submit", "batch_checks"])
def test_batches_do_the_same_as_loops_in_c(case: str) -> None:
    run = Runner(["-m", "benchmarks.cases"], build.ROOT, 2, 1).run_case(case)
    assert not run.crashed
    if run.skipped:
        pytest.skip(run.skipped)
    assert min(run.ratios) > 0


@pytest.fixture
def ends() -> Iterator[tuple[Any, Any]]:
    system = System(Setting())
    with system.kernel:
        yield system.outlet, system.inbox


def test_deque(benchmark: Any) -> None:
    queue: deque[bytes] = deque()

    def pair() -> Any:
        queue.append(BODY)
        return queue.popleft()

    assert benchmark(pair) == BODY


def test_bound_callables(benchmark: Any, ends: tuple[Any, Any]) -> None:
    destination, inbox = ends
    send, receive = destination.sender(), inbox.receiver()

    def pair() -> Any:
        send(BODY)
        return receive()

    assert benchmark(pair) == BODY


def test_methods(benchmark: Any, ends: tuple[Any, Any]) -> None:
    destination, inbox = ends

    def pair() -> Any:
        destination.send(BODY)
        return inbox.receive().body

    assert benchmark(pair) == BODY
