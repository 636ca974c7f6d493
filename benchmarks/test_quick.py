# SPDX-License-Identifier: BSD-2-Clause
"""The Python rows under pytest-benchmark, and the harness's own arithmetic.

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

from benchmarks.__main__ import duration
from benchmarks.cases import api, author, core, embedding, policy
from benchmarks.cases.api import rights
from benchmarks.harness import WARM_UP_ROUNDS, Pair, Row, Skip, Timed, judge, measure, quartiles
from benchmarks.peers import BODY
from benchmarks.rows import ROWS

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


def test_every_row_has_a_case() -> None:
    cases = core.CASES | api.CASES | policy.CASES | author.CASES | embedding.CASES
    assert {row.case for row in ROWS} <= cases.keys()
    assert len({row.number for row in ROWS}) == len(ROWS)


def test_a_time_is_what_a_bound_costs() -> None:
    assert author.limit(20 * author.MICROSECOND)(3) == 60_000
    assert [duration(ns) for ns in (34.16, 20_000, 4.2e9)] == ["34.2", "20000.0", "4.20 s"]


def test_a_row_without_budget_has_no_verdict() -> None:
    assert judge(Row("1", "case", "what", "against"), [7.0]) == ""


def test_quartiles_of_one_value_are_that_value() -> None:
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def spy(name: str, seen: list[str], cost: float) -> Timed:
    """Return a side that takes `cost` ns a repetition, and notes when it is asked."""

    def run(count: int) -> float:
        seen.append(name)
        return cost * count

    return run


def test_sides_take_turns_to_be_first_and_a_round_is_a_pair() -> None:
    seen: list[str] = []
    pair = Pair(spy("ours", seen, 3.0), spy("theirs", seen, 2.0))
    costs = list(measure(pair, rounds=4))
    assert [round(ours / theirs, 6) for ours, theirs in costs] == [1.5] * 4
    rounds = seen[-2 * (4 + WARM_UP_ROUNDS) :]
    assert rounds[-8:] == ["theirs", "ours", "ours", "theirs"] * 2
    assert rounds.count("ours") == rounds.count("theirs")


def test_what_is_exact_is_asked_once() -> None:
    seen: list[str] = []
    pair = Pair(spy("ours", seen, 3.0), spy("theirs", seen, 2.0), exact=True)
    assert list(measure(pair, rounds=4)) == [(3.0, 2.0)]
    assert seen == ["ours", "theirs"]


@pytest.fixture
def ends() -> Iterator[tuple[Any, Any]]:
    try:
        destination, inbox = rights()
    except Skip as skip:
        pytest.skip(str(skip))
    with inbox.task.kernel:
        yield destination, inbox


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
