# SPDX-License-Identifier: BSD-2-Clause
"""Runs one case: `python -m benchmarks.cases NAME ROUNDS`. Each case has a process of its own."""

import sys

from benchmarks.cases import api, author, core, embedding, policy
from benchmarks.harness import child

name, rounds = sys.argv[1:]
cases = core.CASES | api.CASES | policy.CASES | author.CASES | embedding.CASES
child(cases[name], int(rounds))
