# SPDX-License-Identifier: BSD-2-Clause
"""What binaries offer: the functions of pympi.h and the entry of the module, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
COMMENT = re.compile(r"/\*.*?\*/", re.S)
FUNCTION = re.compile(r"^(?!typedef\b)\w[\w ]*[ *](pm_\w+)\([^;{}]*\);", re.M)
MODULE_ENTRY = "PyInit__core"


def declared() -> set[str]:
    """Return the names of the functions that the public header declares."""
    header = (CSRC / "pympi.h").read_text(encoding="utf-8")
    return set(FUNCTION.findall(COMMENT.sub("", header)))


def exported(binary: Path) -> set[str]:
    """Return the symbols that a shared object defines for others."""
    if shutil.which("nm") is None:
        pytest.skip("no nm to read symbols with")
    options = ["-gU"] if sys.platform == "darwin" else ["-D", "--defined-only"]
    listing = subprocess.run(["nm", *options, binary], capture_output=True, text=True, check=True)
    names = {line.split()[-1].partition("@")[0] for line in listing.stdout.splitlines()}
    return {name.removeprefix("_") for name in names} if sys.platform == "darwin" else names


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core as a shared library that hides by default, as the extension does."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    binary = tmp_path_factory.mktemp("library") / "libpympi.so"
    flags = ["-O1", "-std=gnu11", "-fvisibility=hidden", "-fPIC", "-shared", "-pthread"]
    source = ["-I", str(CSRC), str(CSRC / "pympi.c"), "-o", str(binary)]
    built = subprocess.run([compiler, *flags, *source], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return binary


def test_header_declares_the_calls_we_know() -> None:
    assert {"pm_kernel_create", "pm_send", "pm_mach_msg", "pm_hook"} <= declared()


def test_library_exports_the_header(library: Path) -> None:
    assert exported(library) == declared()


def test_extension_exports_its_entry() -> None:
    _core = pytest.importorskip("pympi._core")
    names = exported(Path(_core.__file__))
    assert MODULE_ENTRY in names
    others = {name for name in names if not name.startswith("pm_")} - {MODULE_ENTRY}
    assert not others


def test_libsepol_stays_inside_its_module() -> None:
    _sepol = pytest.importorskip("pympi._sepol", reason="built without libsepol-dev")
    assert exported(Path(_sepol.__file__)) == {"PyInit__sepol"}


def test_module_has_the_calls_of_the_header() -> None:
    lib = pytest.importorskip("pympi._core").lib
    assert declared() <= set(dir(lib))
