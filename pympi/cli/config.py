# SPDX-License-Identifier: BSD-2-Clause
"""`pympi config`: what compilers, CMake and pkg-config need to find the core."""

from __future__ import annotations

from collections.abc import Callable

import click

from .. import embedding

ANSWERS: dict[str, tuple[Callable[[], str], str]] = {
    "cflags": (embedding.cflags, "Flags for the compiler."),
    "libs": (embedding.libs, "Flags for the linker; programs find the library where it is now."),
    "include": (embedding.get_include, "The directory of pympi.h and pympi.hpp."),
    "library": (embedding.get_library, "The shared library of the core."),
    "prefix": (embedding.get_prefix, "For CMAKE_PREFIX_PATH: it has include and lib."),
    "cmakedir": (embedding.get_cmake_dir, "For pympi_DIR: it has pympi-config.cmake."),
    "pkgconfigdir": (embedding.get_pkgconfig_dir, "For PKG_CONFIG_PATH: it has pympi.pc."),
}


@click.command(no_args_is_help=True)
def config(**asked: bool) -> int:
    """Print what a program in C or C++ needs to embed the core.

    With several options, on one line, in the order of this list:

    \b
      cc program.c $(pympi config --cflags --libs)
      cmake -S . -B build -Dpympi_DIR="$(pympi config --cmakedir)"
    """
    click.echo(" ".join(answer() for name, (answer, _) in ANSWERS.items() if asked[name]))
    return 0


for _name, (_, _help) in ANSWERS.items():
    config.params.append(click.Option([f"--{_name}"], is_flag=True, help=_help))
