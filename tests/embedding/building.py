# SPDX-License-Identifier: BSD-2-Clause
"""Builds and runs programs that embed the core, with the compilers and tools of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pympi import _ffi, embedding

PROGRAMS = Path(__file__).parent / "programs"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror")
TIMEOUT = 120  # seconds


def need(tool: str) -> str:
    """Return a tool's path; skip the test where it is absent, saying so."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"no {tool} here")
    if _ffi.BUILD.startswith(("address", "thread")):
        pytest.skip("a program that is not sanitized cannot load a core that is")
    return found


def run(*command: str | Path, **options: object) -> str:
    """Run a command that has to succeed, and return what it printed on stdout."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=TIMEOUT,
        check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stderr}"
    return str(done.stdout)


def compiled(source: Path, target: Path, *flags: str) -> Path:
    """Compile and link one source in C or C++ with what `pympi config` says."""
    compiler, standard = ("g++", "-std=c++17") if source.suffix == ".cpp" else ("gcc", "-std=c11")
    found = shlex.split(f"{embedding.cflags()} {embedding.libs()}")
    run(need(compiler), standard, "-O1", *STRICT, source, "-o", target, *found, "-pthread", *flags)
    return target


def environment(**changes: str) -> dict[str, str]:
    """Return the environment with these changes."""
    return {**os.environ, **changes}
