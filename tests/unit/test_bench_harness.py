# SPDX-License-Identifier: BSD-2-Clause
"""The harness of the benchmarks: rounds, medians, and what may be concluded from them."""

from pathlib import Path

import pytest

from pympi.bench.harness import (
    WARM_UP_ROUNDS,
    Pair,
    Result,
    Row,
    Run,
    Runner,
    Timed,
    judge,
    measure,
    noise,
    quartiles,
    repetitions,
    times,
)

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


def test_a_side_is_repeated_for_a_round_whatever_its_first_times_take() -> None:
    costs = iter([5e9, 5e9])  # the second is one that was interrupted

    def run(count: int) -> float:
        return next(costs, 100.0 * count)

    assert repetitions(run) == 20_000


@pytest.mark.parametrize(
    ("ratio", "text"), [(1234.56, "1,234.6"), (1.03, "1.030"), (0.1, "0.100"), (0.00027, "0.00027")]
)
def test_a_ratio_has_the_digits_that_tell_something(ratio: float, text: str) -> None:
    assert times(ratio) == text


# ---- processes ----

WORKER = """
import sys
from pympi.bench.harness import Pair, Skip, child

def make():
    if sys.argv[1] == "skips":
        raise Skip("nothing here")
    if sys.argv[1] == "crashes":
        raise RuntimeError("broken")
    if sys.argv[1] == "large":
        return Pair(lambda n: 1e6 * n, lambda n: 1e6 * n, large=True)
    if sys.argv[1] == "wide":
        return Pair(float, float, cores=10_000)
    factor = float(sys.argv[1])
    return Pair(lambda n: 2000.0 * factor * n, lambda n: 1000.0 * n, notes=lambda: {"seen": 1.0})

child(make, int(sys.argv[2]))
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(["-c", WORKER], tmp_path, rounds=6, processes=3)


def row(case: str, must: float | None = None) -> Row:
    return Row("1", case, "what", "against", must)


def test_a_run_is_spread_over_processes(runner: Runner) -> None:
    result = runner.run_row(row("1"))
    assert result.ratios == [2.0] * 6
    assert (len(result.runs), result.runs[0].notes, result.verdict) == (1, {"seen": 1.0}, "")


def test_what_is_large_is_made_in_one_process(runner: Runner) -> None:
    assert len(runner.run_row(row("large")).ratios) == 6 / 3


def test_what_misses_is_run_again_before_it_is_said(runner: Runner) -> None:
    result = runner.run_row(row("1", must=1.5))
    assert (len(result.runs), result.verdict) == (2, "miss")
    assert len(runner.run_row(row("1", must=2.5)).runs) == 1


def test_what_cannot_run_says_why(runner: Runner) -> None:
    skipped, crashed, wide = (runner.run_row(row(name)) for name in ("skips", "crashes", "wide"))
    assert (skipped.verdict, skipped.runs[0].skipped) == ("skipped", "nothing here")
    assert crashed.verdict == "crashed"
    assert "RuntimeError: broken" in crashed.runs[0].crashed
    assert wide.runs[0].skipped == "needs 10000 cores"


def control(*ratios: float) -> Result:
    run = Run(subject=list(ratios), baseline=[1.0] * len(ratios))
    return Result(row("control"), [run])


def test_a_control_that_is_not_one_is_noise() -> None:
    assert noise(control(0.98, 1.0, 1.02)) == ""
    assert "too noisy to conclude" in noise(control(0.5, 1.0, 1.9))
    assert noise(control()) == ""
