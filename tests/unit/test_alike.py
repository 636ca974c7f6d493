# SPDX-License-Identifier: BSD-2-Clause
"""What was meant is found among thousands of names, and few are compared for it."""

from __future__ import annotations

import difflib

import pytest

from pympi.errors import PolicyError
from pympi.policy import TypeEnforcement
from pympi.policy.cil import contexts, grammar
from pympi.policy.cil.alike import alike

MANY = [f"{'ab' * 20}_{number:05d}_t" for number in range(20_000)]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many names were compared, each time."""
    found: list[int] = []
    matches = difflib.get_close_matches

    def counted(word: str, names: list[str], *rest: float) -> list[str]:
        found.append(len(names))
        return matches(word, names, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    return found


def test_few_are_compared_and_the_right_one_is_among_them(compared: list[int]) -> None:
    name = MANY[12_345]
    for slip in (name + "x", name[:-2], name.replace("_t", "t"), name.replace("45", "54")):
        assert alike(slip, MANY, 3, 0.6)
    assert alike(name + "x", MANY, 1, 0.6) == [name]
    assert compared == [256] * 5


def test_both_hints_are_bounded(compared: list[int]) -> None:
    assert contexts.nearest("lokup", [*MANY, "look_up"]) == "did you mean look_up?"
    assert grammar.nearest("alow", [*MANY, "allow"]) == "; did you mean 'allow'?"
    assert contexts.nearest("q", MANY).startswith("there are: ab")
    assert max(compared) == 256


def test_what_is_long_is_compared_with_nothing(compared: list[int]) -> None:
    assert contexts.nearest("a" * 100_000, ["a" * 100_000, "b"]).startswith("there are: ")
    assert grammar.nearest("a" * 65, ["a" * 64]) == ""
    assert alike("a", ["b" * 10_000], 1, 0.1) == []
    assert compared == [0]


def test_a_policy_of_many_types(compared: list[int]) -> None:
    types = "".join(f"(type t{number}_t)" for number in range(5000))
    with pytest.raises(PolicyError, match="did you mean 't4321_t'"):
        TypeEnforcement.from_text(f"{types}(type a_t)(allow a_t t4321_x (mach_port (all)))")
    assert max(compared) == 256
