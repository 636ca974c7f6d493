# SPDX-License-Identifier: BSD-2-Clause
"""Runs one case: `python -m benchmarks.cases NAME ROUNDS`. Each case has a process of its own."""

import sys

from benchmarks.cases import CASES
from pympi.bench.harness import child

name, rounds = sys.argv[1:]
child(CASES[name], int(rounds))
