# SPDX-License-Identifier: BSD-2-Clause
"""Measures one case: `python -m pympi.bench CASE ROUNDS`. Each has a process of its own."""

import sys

from .cases import CASES
from .harness import child

case, rounds = sys.argv[1:]
child(CASES[case].make, int(rounds))
