# SPDX-License-Identifier: BSD-2-Clause
"""The budget: what it says of itself."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from pympi.policy.cil import Budget

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cil.md"
ROW = re.compile(r"^\| `([a-z]+)` \| (\d+) \| (.+) \|$", re.M)


@pytest.mark.parametrize("name", [each.name for each in fields(Budget)])
def test_a_limit_says_its_name_and_what_would_be_right(name: str) -> None:
    message = Budget(**{name: 7}).exceeded(name)
    assert message.startswith("more than 7 ")
    assert f" (Budget.{name}); " in message


def test_the_documentation_has_all_limits() -> None:
    budget = Budget()
    rows = {name: (int(limit), what) for name, limit, what in ROW.findall(DOCUMENT.read_text())}
    assert {name: limit for name, (limit, _) in rows.items()} == asdict(budget)
    for name, (limit, what) in rows.items():
        assert budget.exceeded(name).startswith(f"more than {limit} {what} (Budget.{name}); ")
