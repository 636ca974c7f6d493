# SPDX-License-Identifier: BSD-2-Clause
"""Kernels in simulations: one source of time, and waits that are events.

`Environment` is SimPy's, whose time is that of the kernels in it (extra `sim`). `EventLoop` and
`run` are asyncio's, with a time that passes when there is nothing left to do at the present one.
"""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .environment import Environment
    from .loop import EventLoop, NothingLeft, run
else:
    __getattr__, __dir__ = lazily(__name__, {
        "environment": "Environment",
        "loop": "EventLoop NothingLeft run",
    })  # fmt: skip

__all__ = ["Environment", "EventLoop", "NothingLeft", "run"]
