# SPDX-License-Identifier: BSD-2-Clause
"""Kernels in simulations: one source of time, and waits that are events.

`Environment` is SimPy's, whose time is that of the kernels in it (extra `sim`).
"""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .environment import Environment
else:
    __getattr__, __dir__ = lazily(__name__, {
        "environment": "Environment",
    })  # fmt: skip

__all__ = ["Environment"]
