# SPDX-License-Identifier: BSD-2-Clause
"""The four simulations of examples/embedding come to the same bytes, seed by seed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pympi import _ffi

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "embedding"
COMPILED = ("with_numba", "with_cpp")
PROGRAMS = ("with_simpy", "with_submit", *COMPILED)
SMALL = {"clients": 12, "services": 3, "requests": 20}


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """The modules of the example, by name."""
    pytest.importorskip("simpy", reason="the extra `sim` is not installed")
    before = set(sys.modules)
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield SimpleNamespace(
            world=importlib.import_module("world"), simulate=importlib.import_module("simulate")
        )
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in set(sys.modules) - before:
            if name in ("world", "simulate", *PROGRAMS):
                del sys.modules[name]


def loaded(example: Any, name: str) -> Any:
    """Return a program; skip the test where it cannot run, saying why."""
    if name in COMPILED and _ffi.BUILD.startswith(("address", "thread")):
        pytest.skip("a program that is not sanitized cannot load a core that is")
    module, why = example.simulate.load(name)
    if module is None:
        pytest.skip(why)
    return module


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_comes_to_the_same(example: Any, name: str) -> None:
    size = example.world.Size(**SMALL, seed=7)
    expected = example.simulate.recorded(loaded(example, "with_submit"), size)[:2]
    counts, digest, _ = example.simulate.recorded(loaded(example, name), size)
    assert (counts, digest) == expected
    assert min(counts.answered, counts.denied, counts.full) > 0  # it is about all of these


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("services", [1, 2, 8])
def test_simpy_and_submit_agree(example: Any, seed: int, services: int) -> None:
    size = example.world.Size(clients=10, services=services, requests=15, seed=seed)
    outcomes = [
        example.simulate.recorded(loaded(example, name), size)[:2]
        for name in ("with_simpy", "with_submit")
    ]
    assert outcomes[0] == outcomes[1]


def test_another_seed_is_another_run(example: Any) -> None:
    module = loaded(example, "with_submit")
    digests = {
        example.simulate.recorded(module, example.world.Size(**SMALL, seed=seed))[1]
        for seed in (1, 1, 2, 3)
    }
    assert len(digests) == 3


def test_a_table_is_printed(
    example: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in COMPILED:  # which takes a while, and is tried above
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(MISSING="no time"))
    assert example.simulate.main(["--clients", "4", "--services", "2", "--requests", "3"]) == 0
    printed = capsys.readouterr().out
    assert "with_numba   skipped: no time\n" in printed
    assert len(set(re.findall(r"\b[0-9a-f]{64}\b", printed))) == 1
    assert "events a second (processor)" in printed


def test_a_program_that_does_something_else_is_found(example: Any) -> None:
    right = loaded(example, "with_submit")

    def run(world: Any) -> Any:
        world.think = world.think * 1.000001
        return right.run(world)

    size = example.world.Size(clients=4, services=2, requests=5)
    programs = {"with_submit": right, "with_simpy": SimpleNamespace(run=run)}
    assert not example.simulate.compare(programs, size, rounds=1)


def test_sizes_that_are_none(example: Any) -> None:
    for wrong in ({"clients": 0}, {"services": 0}, {"requests": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="1 of each at least"):
            example.world.Size(**wrong)


@pytest.mark.parametrize("word", ["--clients=0", "--requests=-1", "--seed=-1", "--services=many"])
def test_no_size_of_a_simulation(
    example: Any, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    with pytest.raises(SystemExit):
        example.simulate.main([word])
    assert "error: " in capsys.readouterr().err
