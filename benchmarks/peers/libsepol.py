# SPDX-License-Identifier: BSD-2-Clause
"""libsepol's compute_av, called from C: SELinux's decisions without Python."""

import ctypes
import runpy
from pathlib import Path
from typing import Any

from benchmarks import build
from pympi.bench.harness import Skip, Timed


def library() -> Path:
    """Return the loop in c/bench_sepol.c as a shared object, built if need be.

    Raises:
        Skip: the system has no libsepol-dev.
    """
    target = build.OUT / "bench_sepol.so"
    archive = runpy.run_path(str(build.CSRC / "sepol" / "build_ffi.py"))["archive"]()
    if not archive:
        raise Skip("there is no libsepol.a with its headers (Debian: libsepol-dev)")
    if build.stale(target):
        build.OUT.mkdir(parents=True, exist_ok=True)
        flags = [f for f in build.flags() if f != "-fvisibility=hidden"]
        source = [f"-I{build.CSRC / 'sepol'}", "-D_GNU_SOURCE", build.HERE / "bench_sepol.c"]
        build.run(*build.compiler(), *flags, "-shared", *source, archive, "-pthread", "-o", target)
    return target


def compute_av(text: str, pairs: list[tuple[str, str]], tclass: str) -> Timed:
    """Return its decisions about pairs of contexts.

    Raises:
        Skip: there is no libsepol.
    """
    from pympi.policy import sepol

    if not sepol.AVAILABLE:
        raise Skip("pympi was built without libsepol")
    lib: Any = ctypes.CDLL(str(library()))
    lib.bench_open.restype = ctypes.c_void_p
    lib.bench_run.restype = ctypes.c_int64
    image = sepol.compile_binary([("policy.cil", text)])
    state = ctypes.c_void_p(lib.bench_open(image, ctypes.c_size_t(len(image))))
    sids = {c: lib.bench_sid(state, c.encode()) for pair in pairs for c in pair}
    if not state or not all(sids.values()):
        raise RuntimeError("libsepol does not take the policy or its contexts")
    flat = [sids[context] for pair in pairs for context in pair]
    table = (ctypes.c_uint32 * len(flat))(*flat)
    number = lib.bench_class(state, tclass.encode())

    def run(count: int) -> float:
        taken = lib.bench_run(state, table, len(pairs), number, ctypes.c_int64(count))
        if taken < 0:
            raise RuntimeError("libsepol gave no answer")
        return float(taken)

    return run
