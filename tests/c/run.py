# SPDX-License-Identifier: BSD-2-Clause
"""Builds and runs the C test programs beside this file, and the tour of the C++ header.

pytest collects one test per program.

A program `test_<module>.c` asserts and ends with 0; 77 means skipped, its output says why. It is
linked with the core, unless it includes `.c` files of the core itself. Programs run under ASan and
UBSan with leaks detected, those in `threads/` under TSan, all with the core's own assertions
(PM_DEBUG). PYMPI_PORTABLE=1 builds them against the pthread and pipe form.
"""

import functools
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
TOUR = HERE.parent / "embedding" / "programs" / "tour.cpp"
PROGRAMS = [*sorted(HERE.rglob("test_*.c")), TOUR]
MEMORY, THREADS = "address,undefined", "thread"

COMPILER = os.environ.get("CC", "cc")
COMPILERS = {
    ".c": (COMPILER, ["-std=gnu11", "-Wstrict-prototypes", "-Wmissing-prototypes"]),
    ".cpp": (os.environ.get("CXX", "c++"), ["-std=c++17"]),
}
FLAGS = [
    "-O1",
    "-g",
    "-pthread",
    "-fno-omit-frame-pointer",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Werror",
    "-DPM_DEBUG",
    f"-I{CSRC}",
]
INCLUDES_CORE = re.compile(r'^\s*#\s*include\s+"[^"]+\.c"', re.M)
SKIPPED = 77
TIMEOUT = 240  # seconds


def sanitizer_of(program: Path) -> str:
    """Return the sanitizers a program runs under: those of its place."""
    return THREADS if program.parent == HERE / "threads" else MEMORY


def flags(sanitizer: str) -> list[str]:
    """Return the compiler's flags for a program under `sanitizer`."""
    form = ["-DPM_PORTABLE"] if os.environ.get("PYMPI_PORTABLE", "0") not in ("", "0") else []
    return [*FLAGS, *form, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]


def compile_c(arguments: list[str], language: str = ".c") -> subprocess.CompletedProcess[str]:
    """Run the compiler of a language; the caller judges the result."""
    compiler, standard = COMPILERS[language]
    return subprocess.run(
        [compiler, *standard, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@functools.cache
def unusable(sanitizer: str, directory: Path) -> str:
    """Return why programs cannot be built and run under `sanitizer`; empty where they can."""
    if shutil.which(COMPILER) is None:
        return f"no C compiler ({COMPILER})"
    probe = directory / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    built = compile_c([*flags(sanitizer), str(probe), "-o", str(directory / "probe")])
    if built.returncode != 0:
        return f"{COMPILER} lacks -fsanitize={sanitizer}"
    ran = execute(directory / "probe", sanitizer)
    return "" if ran.returncode == 0 else f"-fsanitize={sanitizer} does not run here: {ran.stderr}"


@functools.cache
def core(sanitizer: str, directory: Path) -> Path:
    """Return the core as an object file, built once for all programs under `sanitizer`."""
    target = directory / "core.o"
    built = compile_c([*flags(sanitizer), "-c", str(CSRC / "pympi.c"), "-o", str(target)])
    assert built.returncode == 0, f"the core does not compile:\n{built.stderr}"
    return target


def execute(binary: Path, sanitizer: str) -> subprocess.CompletedProcess[str]:
    """Run a program, TSan's where addresses are not random: it wants places of its own."""
    fixed = ["setarch", platform.machine(), "-R"] if sanitizer == THREADS else []
    if fixed and subprocess.run([*fixed, "true"], capture_output=True, check=False).returncode:
        fixed = []
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["ASAN_OPTIONS"] = "detect_leaks=1"
    environment["UBSAN_OPTIONS"] = "print_stacktrace=1"
    return subprocess.run(
        [*fixed, str(binary)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=environment,
    )


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory for the binaries of each sanitizer."""
    return {name: tmp_path_factory.mktemp("c") for name in (MEMORY, THREADS)}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: os.path.relpath(path, HERE))
def test_program(program: Path, directories: dict[str, Path]) -> None:
    """The program compiles without a warning, and ends with 0 and without a sanitizer's report."""
    sanitizer = sanitizer_of(program)
    directory = directories[sanitizer]
    reason = unusable(sanitizer, directory)
    if reason:
        pytest.skip(reason)
    inputs = [str(program)]
    if not INCLUDES_CORE.search(program.read_text(encoding="utf-8")):
        inputs.append(str(core(sanitizer, directory)))
    binary = directory / program.stem
    if shutil.which(COMPILERS[program.suffix][0]) is None:
        pytest.skip(f"no compiler for {program.name} ({COMPILERS[program.suffix][0]})")
    built = compile_c([*flags(sanitizer), *inputs, "-o", str(binary)], program.suffix)
    assert built.returncode == 0, f"{program.name} does not compile:\n{built.stderr}"
    ran = execute(binary, sanitizer)
    if ran.returncode == SKIPPED:
        pytest.skip(f"{program.name}: {ran.stdout.strip() or 'no reason given'}")
    assert ran.returncode == 0, (
        f"{program.name} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
    )
