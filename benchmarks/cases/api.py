# SPDX-License-Identifier: BSD-2-Clause
"""The Python row that `pympi bench` has not: a kernel that is watched from another process."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from pympi.bench.harness import Pair
from pympi.bench.loops import methods
from pympi.bench.systems import Setting, System

SETTING = Setting(audit="denials")


def attached() -> Pair:
    """Pair a kernel that another process watches for what nobody does there, with another."""
    watched, alone = System(SETTING), System(SETTING)
    directory = tempfile.TemporaryDirectory()
    control = watched.kernel.inspect_at(Path(directory.name) / "run" / "control")
    command = [sys.executable, "-m", "benchmarks.cases.onlooker", str(control.path)]
    onlooker = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert onlooker.stdout is not None
    onlooker.stdout.readline()
    loop = methods(watched)

    def run(pairs: int) -> float:
        _ = directory, onlooker  # go with this function
        return loop(pairs)

    seen = monotonic() + 1  # whom the watch does not know yet it is shown, once
    while monotonic() < seen:
        loop(1000)
    return Pair(run, methods(alone))


CASES: dict[str, Callable[[], Pair]] = {"watch_attached": attached}
