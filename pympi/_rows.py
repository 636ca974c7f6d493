# SPDX-License-Identifier: BSD-2-Clause
"""Structs of the core as numpy types: what the core fills in C is looked at in columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ffi import ffi

__all__ = ["dtype_of"]

_FORMATS = {"uint64_t": "<u8", "uint32_t": "<u4", "int32_t": "<i4"}


def _format(kind: Any) -> Any:
    if kind.kind == "array":
        return (_FORMATS[kind.item.cname], (kind.length,))
    return _FORMATS[kind.cname]


def dtype_of(name: str, *, align: bool = False) -> np.dtype[Any]:
    """Return the numpy form of `struct <name>`, field by field; `align`ed: its arrays are."""
    struct = ffi.typeof(f"struct {name}")
    return np.dtype(
        {
            "names": [field for field, _ in struct.fields],
            "formats": [_format(field.type) for _, field in struct.fields],
            "offsets": [field.offset for _, field in struct.fields],
            "itemsize": ffi.sizeof(struct),
        },
        align=align,
    )
