# SPDX-License-Identifier: BSD-2-Clause
"""The loops that are compiled here: by the C and C++ compilers that there are, and by Numba.

What a compiler makes lives in a directory that goes with the process.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import repeat
from pathlib import Path
from time import thread_time_ns
from typing import Any

from .._ffi import ffi, lib
from .harness import Skip, Timed
from .systems import System

U32, U64, POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
SEND = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, U32, POINTER, U64, ctypes.c_int32, POINTER)
RECEIVE = ctypes.CFUNCTYPE(ctypes.c_int64, POINTER, U32, POINTER, U64, POINTER)


def compiler(variable: str = "CC") -> list[str]:
    """Return the command of a compiler, CC or CXX, as setuptools would start it.

    Raises:
        Skip: there is none.
    """
    said = os.environ.get(variable) or str(sysconfig.get_config_var(variable) or "")
    command = shlex.split(said)
    if not command or not shutil.which(command[0]):
        kind = "C" if variable == "CC" else "C++"
        raise Skip(f"there is no {kind} compiler {said!r}; {variable}=COMMAND names another")
    return command


@cache
def built(source: str, variable: str = "CC", flags: Sequence[str] = ()) -> Path:
    """Compile a source of this package to a shared object; return it.

    Raises:
        Skip: there is no compiler, or it lacks something.
    """
    directory = Path(tempfile.mkdtemp(prefix="pympi-bench-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    target = directory / f"{Path(source).stem}.so"
    with resources.as_file(resources.files(__package__) / source) as path:
        words = [*compiler(variable), "-O3", "-fPIC", "-shared", *flags, str(path), "-o"]
        done = subprocess.run([*words, str(target)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(f"{source} does not compile: {(done.stderr.splitlines() or ['?'])[0]}")
    return target


@cache
def loops(*, gil: bool = True) -> ctypes.CDLL:
    """Return the loops of loop.c, which keep the GIL as calls into the core do, or give it up."""
    library = (ctypes.PyDLL if gil else ctypes.CDLL)(str(built("loop.c")))
    for name in ("pairs", "rows", "operations", "checks", "lines", "chase", "computing"):
        getattr(library, f"loop_{name}").restype = U64
    return library


def address(function: str) -> int:
    """Return where a function of the core is, without the wrapper that cffi puts around it."""
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, function)))


def pointer(value: Any) -> int:
    """Return the address behind a pointer of cffi's."""
    return int(ffi.cast("uintptr_t", value))


class Way(ctypes.Structure):
    """struct way of loop.c."""

    _fields_ = [
        ("send", POINTER),
        ("receive", POINTER),
        ("sender", POINTER),
        ("receiver", POINTER),
        ("to", U32),
        ("name", U32),
        ("size", U32),
        ("msgh_id", ctypes.c_int32),
    ]


def ends(system: System) -> tuple[int, int, int, int]:
    """Return the addresses of the two functions, and of the two tasks."""
    tasks = (pointer(task._pointer) for task in (system.sender, system.receiver))
    return (address("pm_send"), address("pm_receive"), *tasks)  # type: ignore[return-value]


def way(system: System) -> Way:
    """Return the way from the first sender to the first port."""
    return Way(*ends(system), system.outlet.name, system.inbox.name, system.setting.size, 0)


def right(wrong: int) -> None:
    """Check that nothing went wrong."""
    if wrong:
        raise RuntimeError(f"{wrong} calls into the core went wrong")


def in_c(system: System, *, gil: bool = True) -> Timed:
    """Return the loop in C, with the GIL or without.

    Raises:
        Skip: there is no compiler.
    """
    pairs_of, through = loops(gil=gil).loop_pairs, ctypes.byref(way(system))

    def run(pairs: int) -> float:
        start = thread_time_ns()
        wrong = pairs_of(through, U64(pairs))
        elapsed = thread_time_ns() - start
        right(wrong)
        return elapsed

    return run


def computing() -> Timed:
    """Return a loop in C that computes, without the GIL.

    Raises:
        Skip: there is no compiler.
    """
    compute = loops(gil=False).loop_computing

    def run(count: int) -> float:
        start = thread_time_ns()
        right(compute(U64(count)))
        return thread_time_ns() - start

    return run


def in_pybind11(system: System) -> Timed:
    """Return a loop in Python over a binding made with pybind11.

    Raises:
        Skip: there is no pybind11, or no compiler.
    """
    try:
        import pybind11
    except ImportError:
        raise Skip("pybind11 is not installed: pip install 'pympi-mach[bench]'") from None
    include = (pybind11.get_include(), sysconfig.get_paths()["include"])
    flags = ("-std=c++17", "-fvisibility=hidden", *(f"-I{each}" for each in include))
    spec = importlib.util.spec_from_file_location(
        "pympi_bench_loop", built("loop.cpp", "CXX", flags)
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Way(*ends(system), system.outlet.name, system.inbox.name, system.setting.size)
    send, receive, body = made.send, made.receive, bytes(system.setting.size)

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in repeat(None, pairs):
            send(body)
            receive()
        return thread_time_ns() - start

    return run


def in_numba(system: System) -> Timed:
    """Return the loop as Numba compiles it.

    Raises:
        Skip: there is no Numba.
    """
    try:
        import numba
    except ImportError:
        raise Skip("Numba is not installed: pip install 'pympi-mach[numba]'") from None
    import numpy as np

    at_send, at_receive, *_ = ends(system)
    send = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, U32, POINTER, U64, ctypes.c_int32, POINTER)(
        at_send
    )
    receive = ctypes.CFUNCTYPE(ctypes.c_int64, POINTER, U32, POINTER, U64, POINTER)(at_receive)
    out, room = np.zeros(system.setting.size, np.uint8), np.zeros(system.setting.size, np.uint8)
    size, to, name = system.setting.size, system.outlet.name, system.inbox.name

    @numba.njit  # type: ignore[untyped-decorator]
    def pairs_of(sender: int, receiver: int, body: int, into: int, null: int, pairs: int) -> int:
        wrong = 0
        for _ in range(pairs):
            wrong += send(sender, to, body, size, 0, null) != 0
            wrong += receive(receiver, name, into, size, null) != size
        return wrong

    arguments = tuple(
        np.uintp(value) for value in (*ends(system)[2:], out.ctypes.data, room.ctypes.data, 0)
    )

    pairs_of(*arguments, 1)  # compiles

    def run(pairs: int) -> float:
        start = thread_time_ns()
        wrong = pairs_of(*arguments, pairs)
        elapsed = thread_time_ns() - start
        right(wrong)
        _ = out, room  # go with this function
        return elapsed

    return run
