# SPDX-License-Identifier: BSD-2-Clause
"""The cases, by name. `python -m benchmarks.cases NAME ROUNDS` runs one and prints JSON lines."""

from collections.abc import Callable

from benchmarks.cases import api, author, bulk, core, embedding, policy
from pympi.bench.cases import CASES as PACKAGED
from pympi.bench.harness import Pair

CASES: dict[str, Callable[[], Pair]] = {
    **core.CASES,
    **api.CASES,
    **policy.CASES,
    **author.CASES,
    **bulk.CASES,
    **embedding.CASES,
    **{name: case.make for name, case in PACKAGED.items()},
}
