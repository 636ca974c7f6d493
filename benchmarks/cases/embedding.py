# SPDX-License-Identifier: BSD-2-Clause
"""The embedding rows: one loop in C, C++ and Numba, on the library that users link with.

All sides send and receive in one kernel, made in Python, through the same two rights.
"""

import ctypes
import shutil
from time import thread_time_ns
from typing import Any

from benchmarks import build
from pympi.bench.harness import Pair, Skip, Timed
from pympi.bench.peers import BODY
from pympi.bench.systems import Setting, System

DECLARED = """
    int pm_send(uint64_t task, uint32_t dest, uint64_t body, uint64_t size, int32_t msgh_id,
                uint64_t wait);
    int64_t pm_receive(uint64_t task, uint32_t name, uint64_t body, uint64_t capacity,
                       uint64_t wait);
"""


class Loop(ctypes.Structure):
    """struct loop of c/loop.h."""

    _fields_ = [
        ("sender", ctypes.c_void_p),
        ("receiver", ctypes.c_void_p),
        ("right", ctypes.c_uint32),
        ("port", ctypes.c_uint32),
    ]


def timed(run: Any, *ends: Any) -> Timed:
    """Return what runs a loop, keeps its ends, and complains where a message was lost."""

    def measured(pairs: int) -> float:
        _ = ends
        start = thread_time_ns()
        done = run(pairs)
        elapsed = thread_time_ns() - start
        if done != pairs:
            raise RuntimeError(f"{pairs - done} of {pairs} messages were lost")
        return elapsed

    return measured


def compiled(name: str, compiler: list[str], outbox: Any, inbox: Any) -> Timed:
    """Return the loop of a C or C++ file, linked with the library of the package."""
    if not shutil.which(compiler[0]):
        raise Skip(f"no {compiler[0]}")
    library = ctypes.CDLL(str(build.loop(name, compiler)))
    library.loop_run.restype = ctypes.c_int64
    library.loop_run.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    loop = Loop(outbox.task.address, inbox.task.address, outbox.name, inbox.name)
    return timed(lambda pairs: library.loop_run(ctypes.byref(loop), pairs), outbox, inbox)


def in_c(outbox: Any, inbox: Any) -> Timed:
    """Return the loop in C."""
    return compiled("loop_c.c", build.compiler(), outbox, inbox)


def in_numba(outbox: Any, inbox: Any) -> Timed:
    """Return the loop in Numba."""
    try:
        import cffi
        import numba
        import numpy as np
    except ImportError as error:
        raise Skip(str(error)) from error
    import pympi

    ffi = cffi.FFI()
    ffi.cdef(DECLARED)
    core = ffi.dlopen(pympi.get_library())
    send, receive = core.pm_send, core.pm_receive

    def loop(client: int, right: int, server: int, port: int, body: Any, pairs: int) -> int:
        done, data, size = 0, body.ctypes.data, body.nbytes
        for i in range(pairs):
            if send(client, right, data, size, i, 0) != 0:
                break
            done += receive(server, port, data, size, 0) == size
        return done

    run, body = numba.njit(loop), np.frombuffer(bytearray(BODY), np.uint8)
    ends = outbox.task.address, outbox.name, inbox.task.address, inbox.name
    run(*ends, body, 1)  # which compiles it
    return timed(lambda pairs: run(*ends, body, pairs), outbox, inbox)


def rights() -> tuple[Any, Any]:
    """Return a send right and the receive right it leads to, of two tasks of a new kernel."""
    system = System(Setting())
    return system.outlet, system.inbox


def cpp() -> Pair:
    """Pair C++ with C."""
    ends = rights()
    return Pair(compiled("loop_cpp.cpp", ["g++"], *ends), in_c(*ends))


def compiled_by_numba() -> Pair:
    """Pair Numba with C."""
    ends = rights()
    return Pair(in_numba(*ends), in_c(*ends))


CASES = {"loop_cpp": cpp, "loop_numba": compiled_by_numba}
