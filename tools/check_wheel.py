# SPDX-License-Identifier: BSD-2-Clause
"""Proves that a wheel installs and runs where there is no compiler.

Usage: check_wheel.py WHEEL. Makes a virtual environment in a temporary directory, whose `bin` is
then all of PATH, installs the wheel there, and calls into the core.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROGRAM = """
from pympi._ffi import BUILD, GIL_KEPT, lib
import pympi
assert BUILD == "release" and GIL_KEPT, (BUILD, GIL_KEPT)
assert lib.pm_hook(0).tclass > 0
print("pympi", pympi.__version__, "runs without a compiler")
"""
COMPILERS = ("cc", "gcc", "clang", "c++", "g++")


def try_wheel(wheel: Path, directory: Path) -> None:
    """Install `wheel` in a new environment in `directory` and run it there."""
    venv.create(directory, with_pip=True)
    binaries = directory / "bin"
    environment = {**os.environ, "PATH": str(binaries)}
    found = [name for name in COMPILERS if shutil.which(name, path=environment["PATH"])]
    if found:
        raise SystemExit(f"this proves nothing: {', '.join(found)} in {binaries}")
    install = [
        "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        str(wheel),
    ]
    for program, *arguments in (install, ["python", "-I", "-c", PROGRAM], ["pympi", "--version"]):
        command = [str(binaries / program), *arguments]
        subprocess.run(command, check=True, cwd=directory, env=environment)


def main(arguments: list[str]) -> None:
    """Try the one wheel that `arguments` names."""
    if len(arguments) != 1:
        raise SystemExit("usage: check_wheel.py WHEEL (one file: remove older ones first)")
    with tempfile.TemporaryDirectory(prefix="pympi-wheel-") as directory:
        try_wheel(Path(arguments[0]).resolve(), Path(directory))


if __name__ == "__main__":
    main(sys.argv[1:])
