# SPDX-License-Identifier: BSD-2-Clause
"""Builds the C side of the benchmarks with the release build's own compiler and flags.

The core is compiled from csrc/pympi.c as one translation unit, as csrc/build_ffi.py has it done,
and linked with c/bench_core.c into a shared object under build/bench/. The variant `audit_none` is
the same core with sec/audit_none.c in the place of sec/audit.c.
"""

import importlib.util
import shlex
import subprocess
import sysconfig
from pathlib import Path

from pympi.bench.harness import Skip

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
HERE = Path(__file__).resolve().parent / "c"
OUT = ROOT / "build" / "bench"

AUDIT = '#include "sec/audit.c"'
VARIANTS = {"core": AUDIT, "audit_none": '#include "sec/audit_none.c"'}


def compiler() -> list[str]:
    """Return the compiler's command, as setuptools would start it."""
    return shlex.split(str(sysconfig.get_config_var("CC")))


def flags() -> list[str]:
    """Return the flags of the release build: Python's own, then those of csrc/build_ffi.py."""
    spec = importlib.util.spec_from_file_location("build_ffi", CSRC / "build_ffi.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"there is no {CSRC / 'build_ffi.py'}")
    build_ffi = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_ffi)
    pythons = " ".join(str(sysconfig.get_config_var(name) or "") for name in ("CFLAGS", "CCSHARED"))
    return [*shlex.split(pythons), *build_ffi.compile_flags(), f"-I{CSRC}"]


def stale(target: Path) -> bool:
    """Tell whether any source is newer than `target`."""
    sources = [*CSRC.rglob("*.[chd]*"), CSRC / "build_ffi.py", *HERE.glob("*.[ch]*")]
    return not target.exists() or target.stat().st_mtime < max(s.stat().st_mtime for s in sources)


def run(*command: str | Path) -> None:
    """Run a compiler; what it says goes to our stderr."""
    subprocess.run([str(word) for word in command], check=True)


def library(variant: str = "core") -> Path:
    """Return the shared object of a variant, built if need be.

    Raises:
        Skip: the core has no such variant.
    """
    target = OUT / f"{variant}.so"
    if not stale(target):
        return target
    OUT.mkdir(parents=True, exist_ok=True)
    core = OUT / f"{variant}.c"
    text = (CSRC / "pympi.c").read_text(encoding="utf-8")
    if AUDIT not in text or (variant != "core" and not (CSRC / "sec" / f"{variant}.c").exists()):
        raise Skip(f"csrc has no {VARIANTS[variant]}")
    core.write_text(text.replace(AUDIT, VARIANTS[variant]), encoding="utf-8")
    run(*compiler(), *flags(), "-c", core, "-o", core.with_suffix(".o"))
    run(*compiler(), *flags(), "-c", HERE / "bench_core.c", "-o", OUT / "bench_core.o")
    objects = [core.with_suffix(".o"), OUT / "bench_core.o"]
    run(*compiler(), "-shared", *objects, "-pthread", "-o", target)
    return target


def loop(name: str, compiler: list[str]) -> Path:
    """Return the shared object of a loop, c/loop_*, linked with the library of the package."""
    import pympi

    library = Path(pympi.get_library())
    target = OUT / Path(name).with_suffix(".so")
    if stale(target) or target.stat().st_mtime < library.stat().st_mtime:
        OUT.mkdir(parents=True, exist_ok=True)
        where = ("-L", library.parent, "-lpympi", f"-Wl,-rpath,{library.parent}")
        kind = ("-O3", "-fPIC", "-shared", f"-I{pympi.get_include()}")
        run(*compiler, *kind, HERE / name, "-o", target, *where)
    return target


def counter() -> Path:
    """Return the program that runs pairs on a library for an instruction counter."""
    target = OUT / "count"
    if stale(target):
        OUT.mkdir(parents=True, exist_ok=True)
        run(*compiler(), *flags(), HERE / "count.c", "-ldl", "-o", target)
    return target
