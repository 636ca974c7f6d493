# SPDX-License-Identifier: BSD-2-Clause
"""Describes the optional module `pympi._sepol` to cffi; setup.py runs it where libsepol is.

The header between its marks is what cffi reads, as in csrc/build_ffi.py. libsepol comes from the
system as a static archive, since its shared library hides what is needed, and none of its names
leave the module.
"""

import os
import runpy
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import SimpleNamespace

from cffi import FFI

HERE = Path(__file__).parent  # relative, as setuptools wants the paths of a project
HEADER = "sepol/policydb/services.h"


def core() -> SimpleNamespace:
    """Return what csrc/build_ffi.py defines; its flags are used here too."""
    return SimpleNamespace(**runpy.run_path(str(HERE.parent / "build_ffi.py")))


def compiler() -> list[str]:
    """Return the command of the C compiler that setuptools would use; empty if it is not there."""
    words = shlex.split(os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc"))
    return words if words and shutil.which(words[0]) else []


def archive() -> str:
    """Return the path of the system's libsepol.a; empty if it, or its headers, are not there."""
    command = compiler()
    if not command:
        return ""
    test = [*command, "-E", "-x", "c", "-include", HEADER, os.devnull]
    headers = subprocess.run(test, capture_output=True, check=False)
    asked = [*command, "-print-file-name=libsepol.a"]
    where = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    # A compiler that does not find a file gives back its bare name.
    return where if headers.returncode == 0 and Path(where).is_absolute() else ""


def wanted() -> bool:
    """Tell whether the module can be built, and was not turned off with PYMPI_SEPOL=0."""
    return os.environ.get("PYMPI_SEPOL", "1") != "0" and os.name == "posix" and bool(archive())


def ffibuilder() -> FFI:
    """Return the description of `pympi._sepol`. A failure to build it is not the package's."""
    build = core()
    checked = build.sanitizers()
    ffi = FFI()
    header = (HERE / "sepol.h").read_text(encoding="utf-8")
    ffi.cdef(build.public_declarations(header, "sepol/sepol.h"))
    ffi.set_source(
        "pympi._sepol",
        'PyMODINIT_FUNC PyInit__sepol(void); /* cffi defines it */\n#include "sepol.c"',
        include_dirs=[str(HERE)],
        depends=[str(HERE / name) for name in ("sepol.c", "sepol.h", "build_ffi.py")],
        define_macros=[("_GNU_SOURCE", None), *build.python_macros()],
        extra_compile_args=[*build.compile_flags(), "-ffunction-sections"],
        extra_objects=[archive()],
        extra_link_args=[
            "-pthread",
            "-Wl,--exclude-libs,ALL",
            "-Wl,--gc-sections",
            *([f"-fsanitize={checked}"] if checked else []),
        ],
        py_limited_api=build.limited_api(),
        optional=True,
    )
    return ffi
