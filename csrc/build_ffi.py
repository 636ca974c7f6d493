# SPDX-License-Identifier: BSD-2-Clause
"""Describes the core, a library, and `pympi._core`, the module cffi makes for it; setup.py runs it.

The public header is the declaration: the part of pympi.h between its `cdef-begin` and `cdef-end`
marks is what cffi reads. From the same text come three kinds of glue, so that neither is written
twice:

- a function whose last parameter is `const struct pm_wait *wait` may sleep. It gets a wrapper
  `pm_block_<x>` with `int64_t timeout_ns` in that place, which gives the GIL up (binding.h);
- a function named in TAKE_LONG works for long. It gets a wrapper `pm_long_<x>`, which gives the GIL
  up;
- a function pointer type `pm_<x>` may be answered in Python. It gets an `extern "Python"`
  function `pm_python_<x>`, unless callables.h has that.

The environment chooses the build: PYMPI_SANITIZE=address,undefined or thread; PYMPI_PORTABLE=1
(pthread and a pipe, no futex and eventfd); PYMPI_DEBUG=1 (assertions that the lock is held);
PYMPI_STOCK=1 (cffi as it comes: every call gives the GIL up).
"""

import os
import re
import runpy
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).parent  # relative, as setuptools wants the paths of a project
HEADERS = ("pympi.h", "pympi.hpp", "sec/hooks.def")  # what programs that embed the core include
BEGIN, END = "/* cdef-begin */", "/* cdef-end */"

SWITCHES = {"PYMPI_PORTABLE": "PM_PORTABLE", "PYMPI_DEBUG": "PM_DEBUG", "PYMPI_STOCK": "PM_STOCK"}
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes"]

FILLED = re.compile(r"@([A-Z]+)@")
COMMENT = re.compile(r"/\*.*?\*/", re.S)
WAITER = re.compile(
    r"^(?P<result>\w[\w ]*[ *])(?P<name>pm_\w+)\((?P<parameters>[^()]*?),"
    r"\s*const struct pm_wait \*wait\);",
    re.M,
)
TAKE_LONG = (
    "pm_audit_drain", "pm_inspect_read", "pm_inspect_stopped",
    "pm_receive_many", "pm_send_many", "pm_submit",
)  # fmt: skip
TAKER = re.compile(
    rf"^(?P<result>\w[\w ]*[ *])(?P<name>{'|'.join(TAKE_LONG)})\((?P<parameters>[^()]*)\);", re.M
)
CALLBACK = re.compile(
    r"^typedef (?P<result>\w[\w ]*[ *])\(\*pm_(?P<name>\w+)\)\((?P<parameters>[^()]*)\);", re.M
)

# Handlers are called so often that callables.h calls them itself.
ANSWERED_IN_C = ("handler",)

# What binding.h offers to pympi/_ffi.py, and the release function of memory that Python owns.
BINDING = """
int pm_binding_holds_gil(uintptr_t gilstate_check);
const char *pm_binding_build(void);
void pm_binding_interrupt(void);
extern "Python" void pm_python_release(void *context);
"""

BLOCKING = """
static {signature}
{{
    struct pm_pause pause;
    {result}result;

    if (timeout_ns == 0 || !({unpolled})) {{
        result = {name}({arguments}, NULL);
        if (timeout_ns == 0 || !pm_timed_out(result))
            return result;
    }}
    pm_pause_begin(&pause, timeout_ns);
    result = {name}({arguments}, &pause.wait);
    pm_pause_end(&pause);
    return result;
}}
"""

LENGTHY = """
static {signature}
{{
    pm_gil gil = pm_gil_take();
    PyThreadState *thread = PyEval_SaveThread();
    {result}result;

    __atomic_store_n(&pm_gil_kept, 0, __ATOMIC_RELAXED);
    result = {name}({arguments});
    pm_gil_look();
    PyEval_RestoreThread(thread);
    __atomic_store_n(&pm_gil_kept, 1, __ATOMIC_RELAXED);
    pm_gil_drop(gil);
    return result;
}}
"""

# Mostly there is nothing to wait for, so the wrapper asks first without a wait and keeps the GIL.
# Not where these hold: a poll that times out would have changed something already, or does not say
# that it timed out.
UNPOLLED = {
    "pm_audit_wait": "1",
    "pm_call": "1",
    "pm_call_many": "1",
    "pm_mach_msg": "option & MACH_SEND_MSG",
    "pm_send_message": "spec->option & MACH_SEND_NOTIFY",
}


def public_declarations(header: str, name: str = "pympi.h") -> str:
    """Return the marked part of a header, without comments."""
    begin, end = header.find(BEGIN), header.find(END)
    if begin < 0 or end < begin:
        raise SystemExit(f"pympi: csrc/{name} must hold the lines '{BEGIN}' and '{END}', in order")
    return COMMENT.sub("", header[begin:end])


def argument_name(parameter: str) -> str:
    """Return the name that `parameter`, such as `const void *body` or `int v[4]`, declares."""
    names = re.findall(r"\w+", parameter.partition("[")[0])
    return str(names[-1])


def blocking_signature(match: re.Match[str]) -> str:
    """Return the prototype, without semicolon, of the wrapper of a function that may wait."""
    name = match["name"].replace("pm_", "pm_block_", 1)
    return f"{match['result']}{name}({match['parameters']}, int64_t timeout_ns)"


def blocking_source(match: re.Match[str]) -> str:
    """Return the C definition of the wrapper of a function that may wait."""
    return BLOCKING.format(
        signature=blocking_signature(match),
        result=match["result"],
        name=match["name"],
        arguments=", ".join(map(argument_name, match["parameters"].split(","))),
        unpolled=UNPOLLED.get(match["name"], "0"),
    )


def lengthy_signature(match: re.Match[str]) -> str:
    """Return the prototype, without semicolon, of the wrapper of a function that takes long."""
    name = match["name"].replace("pm_", "pm_long_", 1)
    return f"{match['result']}{name}({match['parameters']})"


def lengthy_source(match: re.Match[str]) -> str:
    """Return the C definition of the wrapper of a function that takes long."""
    return LENGTHY.format(
        signature=lengthy_signature(match),
        result=match["result"],
        name=match["name"],
        arguments=", ".join(map(argument_name, match["parameters"].split(","))),
    )


def declarations(public: str) -> str:
    """Return all that cffi is to read."""
    waiters = [f"{blocking_signature(match)};" for match in WAITER.finditer(public)]
    takers = [f"{lengthy_signature(match)};" for match in TAKER.finditer(public)]
    callbacks = [
        f'extern "Python" {match["result"]}pm_python_{match["name"]}({match["parameters"]});'
        for match in CALLBACK.finditer(public)
        if match["name"] not in ANSWERED_IN_C
    ]
    return "\n".join([public, *waiters, *takers, *callbacks, BINDING])


def source(public: str) -> str:
    """Return the preamble of the module: header, binding, and a wrapper per waiting function."""
    wrappers = [blocking_source(match) for match in WAITER.finditer(public)]
    wrappers += [lengthy_source(match) for match in TAKER.finditer(public)]
    parts = ['#include "pympi.h"', '#include "binding.h"', *wrappers, '#include "callables.h"']
    return "\n".join(parts)


def sanitizers() -> str:
    """Return the sanitizers asked for, as -fsanitize= takes them; empty for none."""
    return os.environ.get("PYMPI_SANITIZE", "")


def macros() -> list[tuple[str, str | None]]:
    """Return the macros of the switches that are set, and the build's name for the binding."""
    chosen = [switch for switch in SWITCHES if os.environ.get(switch, "0") not in ("", "0")]
    name = " ".join(filter(None, [sanitizers(), *(s[6:].lower() for s in chosen)])) or "release"
    return [("PM_BUILD", f'"{name}"'), *((SWITCHES[switch], None) for switch in chosen)]


def compile_flags() -> list[str]:
    """Return the compiler's flags of the build asked for."""
    flags = ["-std=gnu11", "-fvisibility=hidden", "-fno-semantic-interposition", *WARNINGS]
    if not sanitizers():
        return ["-O3", *flags]
    checked = [f"-fsanitize={sanitizers()}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    if "thread" in sanitizers():
        # glibc frees other thread-locals in a way that TSan takes for a race.
        checked.append("-ftls-model=initial-exec")
    return ["-O1", "-g", *flags, *checked]


def link_flags() -> list[str]:
    """Return the linker's flags of the build asked for."""
    return ["-pthread", *([f"-fsanitize={sanitizers()}"] if sanitizers() else [])]


def library_name() -> str:
    """Return the file name of the library, which is also what those linked with it look for."""
    return "libpympi.dylib" if sys.platform == "darwin" else "libpympi.so"


def library_flags() -> list[str]:
    """Return the linker's flags for the library: by which name others find it."""
    if sys.platform == "darwin":
        return [*link_flags(), f"-Wl,-install_name,@rpath/{library_name()}"]
    return [*link_flags(), f"-Wl,-soname,{library_name()}"]


def module_flags() -> list[str]:
    """Return the linker's flags for the module: it finds the library from where it is itself."""
    here = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    return [*link_flags(), f"-Wl,-rpath,{here}/embed/lib"]


def limited_api() -> bool:
    """Tell whether one binary serves all Pythons: not with the GIL gone, nor a debug Python."""
    return not (sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount"))


def python_macros() -> list[tuple[str, str | None]]:
    """Return the macros that say what of CPython's C API is used: as much as 3.11's stable part."""
    return [("Py_LIMITED_API", "0x030b0000")] if limited_api() else []


def installed() -> dict[str, str]:
    """Return what a program needs to embed the core, besides the library: text by place."""
    place = {"pc": "lib/pkgconfig", "cmake": "lib/cmake/pympi"}
    texts = {f"include/{name}": (CSRC / name).read_text(encoding="utf-8") for name in HEADERS}
    for template in sorted(CSRC.glob("install/*.in")):
        text = template.read_text(encoding="utf-8")
        name = template.stem
        texts[f"{place[name.rpartition('.')[2]]}/{name}"] = FILLED.sub(blank_filler(), text)
    return texts


def blank_filler() -> Callable[[re.Match[str]], str]:
    """Return what fills in `@NAME@` in the templates of csrc/install."""
    version = runpy.run_path(str(CSRC.parent / "pympi" / "_version.py"))["__version__"]
    release = re.match(r"[\d.]*\d", version)
    abi = re.search(r"^#define PM_ABI_VERSION (\d+)", (CSRC / "pympi.h").read_text(), re.M)
    if not release or not abi:
        raise SystemExit("pympi: no version in pympi/_version.py or csrc/pympi.h")
    values = {
        "VERSION": version,
        "RELEASE": release[0],
        "MINOR": ".".join(release[0].split(".")[:2]),
        "LIBRARY": library_name(),
        "SONAME": ("@rpath/" if sys.platform == "darwin" else "") + library_name(),
        "ABI": abi[1],
    }
    return lambda match: values[match[1]]


def sources() -> list[str]:
    """Return the files that the core and its module are made from."""
    return sorted(map(str, [*CSRC.rglob("*.[ch]"), *CSRC.rglob("*.def"), Path(__file__)]))


def ffibuilder() -> FFI:
    """Return the description of `pympi._core` that cffi builds from."""
    public, callables = (
        public_declarations((CSRC / name).read_text(encoding="utf-8"), name)
        for name in ("pympi.h", "callables.h")
    )
    ffi = FFI()
    ffi.cdef(declarations(public) + callables)
    ffi.set_source(
        "pympi._core",
        source(public),
        include_dirs=[str(CSRC)],
        depends=sources(),
        define_macros=[*macros(), *python_macros()],
        extra_compile_args=compile_flags(),
        extra_link_args=module_flags(),
        py_limited_api=limited_api(),
    )
    return ffi
