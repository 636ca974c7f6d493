# SPDX-License-Identifier: BSD-2-Clause
"""Where a program that embeds the core finds it: headers, library, files for CMake and pkg-config.

They are installed with the package, which may lie anywhere, and it may be moved. The library is the
one that Python itself calls: a process that has loaded both has one copy of the core, so a kernel
made in Python can be used in C (`Kernel.pointer`), and the reverse (`Kernel.borrow`).

    >>> import pathlib, pympi
    >>> sorted(path.name for path in pathlib.Path(pympi.get_include()).glob("*.h*"))
    ['pympi.h', 'pympi.hpp']
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = [
    "cflags",
    "get_cmake_dir",
    "get_include",
    "get_library",
    "get_pkgconfig_dir",
    "get_prefix",
    "libs",
]


def get_prefix() -> str:
    """Return the directory that holds `include` and `lib`, as CMAKE_PREFIX_PATH takes it.

    Raises:
        FileNotFoundError: the package was copied from its source, and never built.
    """
    prefix = Path(__file__).resolve().parent / "embed"
    if not prefix.is_dir():
        raise FileNotFoundError(f"{prefix}: pympi is not built; run `pip install` on its source")
    return str(prefix)


def get_include() -> str:
    """Return the directory of `pympi.h` and `pympi.hpp`."""
    return _below("include")


def get_library() -> str:
    """Return the path of the shared library of the core."""
    return _below("lib", "libpympi.dylib" if sys.platform == "darwin" else "libpympi.so")


def get_cmake_dir() -> str:
    """Return the directory that `pympi_DIR` is set to for `find_package(pympi)`."""
    return _below("lib", "cmake", "pympi")


def get_pkgconfig_dir() -> str:
    """Return the directory of `pympi.pc`, for PKG_CONFIG_PATH."""
    return _below("lib", "pkgconfig")


def cflags() -> str:
    """Return the compiler's flags, as words of a shell."""
    return shlex.quote(f"-I{get_include()}")


def libs() -> str:
    """Return the linker's flags, as words of a shell; the program finds the library where it is."""
    where = str(Path(get_library()).parent)
    return shlex.join([f"-L{where}", "-lpympi", f"-Wl,-rpath,{where}"])


def _below(*names: str) -> str:
    return str(Path(get_prefix(), *names))
