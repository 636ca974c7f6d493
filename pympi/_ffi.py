# SPDX-License-Identifier: BSD-2-Clause
"""The compiled core: `ffi` and `lib`, as cffi makes them from csrc/pympi.h.

This is the only module that imports `pympi._core`. It proves at import that calls into the core
keep the GIL, as csrc/binding.h arranges, since that leans on the C text that cffi generates.

A call that may sleep has two forms. `lib.pm_x(..., wait)` with `ffi.NULL` for `wait` polls.
`lib.pm_block_x(..., timeout_ns)` polls first, then gives the GIL up and waits, negative for ever;
Python signal handlers run during the wait, and what one raises is raised by the call.
"""

import ctypes

try:
    from pympi._core import ffi, lib
except ModuleNotFoundError as error:
    if error.name not in ("pympi._core", "_cffi_backend"):
        raise
    raise ImportError(
        f"pympi is not built: there is no module {error.name}; run `make build` in its checkout, "
        "or `pip install .`"
    ) from error

__all__ = ["BUILD", "GIL_KEPT", "ffi", "lib"]

if lib.pm_abi_version() != lib.PM_ABI_VERSION:
    raise ImportError(
        f"pympi's module was compiled for version {lib.PM_ABI_VERSION} of the core's interface, "
        f"and the library it found has version {lib.pm_abi_version()}: install pympi anew, and "
        "look for another libpympi that the loader finds first"
    )

BUILD: str = ffi.string(lib.pm_binding_build()).decode()
"""What kind of build this is: "release", or the sanitizers and switches it was made with."""


def _gil_kept() -> bool:
    """Tell whether a generated wrapper holds the GIL while it is in the core."""
    check = ctypes.cast(ctypes.pythonapi.PyGILState_Check, ctypes.c_void_p).value
    return bool(lib.pm_binding_holds_gil(check))


GIL_KEPT: bool = _gil_kept()
"""True unless this is the stock form of the binding, in which every call gives the GIL up."""

if not GIL_KEPT and "stock" not in BUILD.split():
    raise ImportError(
        "pympi's binding must keep the GIL in calls into its core, and does not: the cffi it was "
        "built with generates other code than csrc/binding.h expects; build with PYMPI_STOCK=1, "
        "which is slower and does not depend on it"
    )
