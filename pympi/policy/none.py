# SPDX-License-Identifier: BSD-2-Clause
"""`none`: a module without any opinion (SEDarwin mac_none).

A kernel that has only this asks nothing: the baseline that the price of checks is measured against.
"""

from __future__ import annotations

from .base import PolicyModule

__all__ = ["NoHooks"]


class NoHooks(PolicyModule):
    """No hooks at all: loading it changes nothing but the epoch."""

    name = "none"
