# SPDX-License-Identifier: BSD-2-Clause
"""The Python rows under pytest-benchmark, and the harness's own arithmetic.

    python -m pytest benchmarks/test_quick.py --benchmark-enable

Times of single calls, to look at while working; the budgets are judged by `python -m benchmarks`.
"""

import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases.api import rights
from benchmarks.harness import Row, Skip, judge, quartiles
from benchmarks.peers import BODY

ROW = Row("1", "case", "what", "against", must=1.5, aim=1.2)


@pytest.mark.parametrize(
    ("medians", "verdict"),
    [
        ([1.1], "aim"),
        ([1.2], "aim"),
        ([1.3], "must"),
        ([1.1, 1.4], "must"),
        ([1.6], "noisy"),
        ([1.6, 1.3], "noisy"),
        ([1.6, 1.7], "miss"),
    ],
)
def test_a_row_misses_only_if_a_second_run_agrees(medians: list[float], verdict: str) -> None:
    assert judge(ROW, medians) == verdict


def test_a_row_without_budget_has_no_verdict() -> None:
    assert judge(Row("1", "case", "what", "against"), [7.0]) == ""


def test_quartiles_of_one_value_are_that_value() -> None:
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


@pytest.fixture
def ends() -> tuple[Any, Any]:
    try:
        return rights()
    except Skip as skip:
        pytest.skip(str(skip))


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
