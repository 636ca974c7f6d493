# SPDX-License-Identifier: BSD-2-Clause
"""Each semantics of a policy in a small file, which says itself what is to be expected.

; set: BOOLEAN=true|false ...                                for what follows
; expect: WORD SOURCE TARGET CLASS PERMISSION...             WORD is a key of MEANINGS
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pympi.enums import ALL, CLASSES
from pympi.policy import Decision, TypeEnforcement

FILES = sorted(Path(__file__).parent.glob("*.cil"))

# What the bits of a vector must be, all of them.
MEANINGS: dict[str, Callable[[Decision], int]] = {
    "yes": lambda answer: answer.allowed,
    "no": lambda answer: ALL & ~answer.allowed,
    "recorded": lambda answer: answer.auditallow,
    "unrecorded": lambda answer: ALL & ~answer.auditdeny,
    "reported": lambda answer: answer.report,
    "unreported": lambda answer: ALL & ~answer.report,
}


class Expectation(NamedTuple):
    """A line of a policy file."""

    line: int
    booleans: dict[str, bool]
    word: str
    source: str
    target: str
    tclass: str
    permissions: tuple[str, ...]


def expectations(text: str) -> Iterator[Expectation]:
    """Yield what a policy file expects."""
    booleans: dict[str, bool] = {}
    for number, line in enumerate(text.splitlines(), 1):
        mark, _, rest = line.partition(": ")
        if mark == "; set":
            booleans = {
                n: v == "true" for n, _, v in (word.partition("=") for word in rest.split())
            }
        if mark == "; expect":
            word, source, target, tclass, *permissions = rest.split()
            yield Expectation(number, booleans, word, source, target, tclass, tuple(permissions))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_policy_does_what_it_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    policy, expected = TypeEnforcement.from_file(path), list(expectations(text))
    assert len(expected) >= 3
    for case in expected:
        policy.set_booleans(**case.booleans)
        tclass = CLASSES[case.tclass]
        answer = policy.decide(policy.parse(case.source), policy.parse(case.target), tclass)
        lacking = tclass.mask(case.permissions) & ~MEANINGS[case.word](answer)
        assert not lacking, f"{path.name}:{case.line}: {case.word}: {tclass.names(lacking)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_explanation_agrees_with_the_decision(path: Path) -> None:
    policy = TypeEnforcement.from_file(path)
    for case in expectations(path.read_text(encoding="utf-8")):
        policy.set_booleans(**case.booleans)
        tclass = CLASSES[case.tclass]
        values = policy.parse(case.source), policy.parse(case.target)
        allowed = policy.decide(*values, tclass).allowed
        for name, bit in tclass.bits.items():
            text = policy.explain(*values, tclass, name)
            assert text.startswith("allows" if allowed & bit else "refuses"), (case, text)


def test_there_are_cases() -> None:
    assert len(FILES) >= 8
