# SPDX-License-Identifier: BSD-2-Clause
"""The compiled part of the build; all else is in pyproject.toml."""

import os
import runpy
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

SWITCHES = ("SANITIZE", "PORTABLE", "DEBUG", "STOCK")  # of csrc/build_ffi.py
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tools"))

import environment  # noqa: E402


class BuildCore(build_ext):
    """Builds the core, after a look at whether this machine can."""

    def run(self) -> None:
        complaint = environment.complaint()
        if complaint:
            raise SystemExit(complaint)
        super().run()


def variant() -> str:
    """Name the build by its switches, so that builds of several kinds share no object files."""
    values = [(name, os.environ.get(f"PYMPI_{name}", "")) for name in SWITCHES]
    chosen = [f"{name}-{value}" for name, value in values if value]
    return "-".join(chosen).replace(",", "-").lower() or "release"


def modules() -> list[str]:
    """Return the modules cffi builds: the core, and the binding of libsepol where that is."""
    found = ["csrc/build_ffi.py:ffibuilder"]
    if runpy.run_path("csrc/sepol/build_ffi.py")["wanted"]():
        found.append("csrc/sepol/build_ffi.py:ffibuilder")
    return found


options = {"build": {"build_base": f"build/{variant()}"}}
if not (sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount")):
    options["bdist_wheel"] = {"py_limited_api": "cp310"}

setup(
    cffi_modules=modules(),
    cmdclass={"build_ext": BuildCore},
    options=options,
)
