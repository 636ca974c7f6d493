# SPDX-License-Identifier: BSD-2-Clause
"""The system in C++, through pybind11: simulation.cpp has the events and all that happens."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from world import Counts, World

import pympi

try:
    import pybind11
except ImportError as error:
    MISSING = f"no {error.name} here"
else:
    MISSING = "" if shutil.which("g++") else "no g++ here"

SOURCE = Path(__file__).with_name("simulation.cpp")


@cache
def module() -> Any:
    """Compile the module, once, and import it."""
    directory = tempfile.TemporaryDirectory()
    target = Path(directory.name) / f"simulation{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = pybind11.get_include(), sysconfig.get_path("include"), pympi.get_include()
    flags = "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"
    where = Path(pympi.get_library()).parent
    subprocess.run(
        ["g++", *flags, *(f"-I{path}" for path in includes), str(SOURCE), "-o", str(target),
         f"-L{where}", "-lpympi"], check=True,
    )  # fmt: skip
    spec = importlib.util.spec_from_file_location("simulation", target)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    directory.cleanup()
    return loaded


def run(world: World) -> Counts:
    """Simulate until all clients have stopped."""
    counts = Counts(*module().run(world))
    world.clock.advance_to(counts.end)
    return counts
