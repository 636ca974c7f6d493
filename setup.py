# SPDX-License-Identifier: BSD-2-Clause
"""The compiled part of the build; all else is in pyproject.toml."""

import os
import runpy
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

SWITCHES = ("SANITIZE", "PORTABLE", "DEBUG", "STOCK")  # of csrc/build_ffi.py
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tools"))

import environment  # noqa: E402

BUILD = runpy.run_path("csrc/build_ffi.py")
EMBED = "pympi/embed"


class BuildCore(build_ext):
    """Builds the core, after a look at whether this machine can.

    The core is a library in the package, with what embedding it takes: headers, and files for
    CMake and pkg-config. The module `pympi._core` is linked with it, as other programs are, so
    there is one copy of the core in a process, whoever brings it in.
    """

    def run(self) -> None:
        complaint = environment.complaint()
        if complaint:
            raise SystemExit(complaint)
        super().run()

    def build_extensions(self) -> None:
        core = next(extension for extension in self.extensions if extension.name == "pympi._core")
        root = Path(self.build_lib, EMBED)
        for name, text in BUILD["installed"]().items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        library = root / "lib" / BUILD["library_name"]()
        # Some Pythons would have the loader look in a place of their own, and before ours.
        self.compiler.linker_so = [
            word for word in self.compiler.linker_so if not word.startswith("-Wl,-rpath")
        ]
        if self.force or newer_group(BUILD["sources"](), str(library)):
            self.build_library(core, library)
        core.extra_objects = [*core.extra_objects, str(library)]
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        """Have an editable installation find all of it in the checkout."""
        super().copy_extensions_to_source()
        shutil.rmtree(HERE / EMBED, ignore_errors=True)
        shutil.copytree(Path(self.build_lib, EMBED), HERE / EMBED)

    def get_outputs(self) -> list[str]:
        """Return the files built: those of the modules, and what goes with the library."""
        names = [*BUILD["installed"](), f"lib/{BUILD['library_name']()}"]
        return [*super().get_outputs(), *(str(Path(self.build_lib, EMBED, name)) for name in names)]

    def build_library(self, core: Extension, library: Path) -> None:
        """Build the core with the module's own flags and macros."""
        objects = self.compiler.compile(
            ["csrc/pympi.c"],
            output_dir=self.build_temp,
            macros=core.define_macros,
            include_dirs=core.include_dirs,
            extra_postargs=core.extra_compile_args,
        )
        linker, self.compiler.linker_so = (
            self.compiler.linker_so,
            ["-dynamiclib" if word == "-bundle" else word for word in self.compiler.linker_so],
        )
        self.compiler.link_shared_object(
            objects, str(library), extra_postargs=BUILD["library_flags"]()
        )
        self.compiler.linker_so = linker


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
    options["bdist_wheel"] = {"py_limited_api": "cp311"}

setup(
    cffi_modules=modules(),
    cmdclass={"build_ext": BuildCore},
    options=options,
)
