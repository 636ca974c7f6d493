# SPDX-License-Identifier: BSD-2-Clause
"""Python objects that the binding makes in C (csrc/callables.h)."""

from __future__ import annotations

import ctypes
from typing import Any

from ._ffi import ffi, lib

__all__ = ["RECEIVED", "adopt", "borrow"]


def adopt(pointer: Any) -> Any:
    """Return the object behind a new reference that C gave as a `void *`.

    Raises:
        MemoryError: C could not make it.
    """
    address = int(ffi.cast("uintptr_t", pointer))
    if not address:
        raise MemoryError("no memory for an object of the binding")
    try:
        result = ctypes.py_object.from_buffer(ctypes.c_void_p(address)).value
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(result))
    except ctypes.ArgumentError as error:  # whatever kept ctypes from making an argument
        raise MemoryError(str(error)) from None
    return result


def borrow(value: Any) -> Any:
    """Return the `void *` by which C is lent an object."""
    return ffi.cast("void *", id(value))


RECEIVED: Any = adopt(lib.pm_received_type())
"""The base of `Message`: a `struct pm_received` with its fields as attributes."""
