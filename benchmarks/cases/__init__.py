# SPDX-License-Identifier: BSD-2-Clause
"""The cases, by name. `python -m benchmarks.cases NAME ROUNDS` runs one and prints JSON lines."""
