# SPDX-License-Identifier: BSD-2-Clause
"""What binaries offer: the functions of pympi.h and the entry of the module, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pympi import get_library

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


def test_header_declares_the_calls_we_know() -> None:
    assert {"pm_kernel_create", "pm_send", "pm_mach_msg", "pm_hook"} <= declared()


def test_library_exports_the_header() -> None:
    pytest.importorskip("pympi._core")
    assert exported(Path(get_library())) == declared()


def test_extension_exports_its_entry() -> None:
    """The core is in the library alone: a second copy would have locks and counts of its own."""
    _core = pytest.importorskip("pympi._core")
    assert exported(Path(_core.__file__)) == {MODULE_ENTRY}


def test_libsepol_stays_inside_its_module() -> None:
    _sepol = pytest.importorskip("pympi._sepol", reason="built without libsepol-dev")
    assert exported(Path(_sepol.__file__)) == {"PyInit__sepol"}


def test_module_has_the_calls_of_the_header() -> None:
    lib = pytest.importorskip("pympi._core").lib
    assert declared() <= set(dir(lib))


def test_the_module_looks_for_the_library_beside_itself_and_nowhere_else() -> None:
    _core = pytest.importorskip("pympi._core")
    if shutil.which("readelf") is None:
        pytest.skip("no readelf to read where the loader looks")
    for binary, places in ((_core.__file__, ["$ORIGIN/embed/lib"]), (get_library(), [])):
        listing = subprocess.run(
            ["readelf", "-d", binary], capture_output=True, text=True, check=True
        ).stdout
        assert re.findall(r"R(?:UN)?PATH\)\s+Library r(?:un)?path: \[(.*)\]", listing) == places
