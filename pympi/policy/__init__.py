# SPDX-License-Identifier: BSD-2-Clause
"""Policy modules, and how they are composed (TrustedBSD's MAC framework).

A kernel asks all the modules loaded into it; see `pympi.policy.base` to write one.
"""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .base import Decision, PolicyModule
    from .biba import Biba
    from .cil import Budget
    from .count import Count
    from .mls import MLS
    from .none import NoHooks
    from .partition import Partition
    from .rules import Rule, Rules
    from .selftest import SelfTest
    from .shadow import Difference, Shadow
    from .stub import Stub
    from .te import TypeEnforcement
else:
    __getattr__, __dir__ = lazily(__name__, {
        "base": "Decision PolicyModule",
        "biba": "Biba",
        "cil": "Budget",
        "count": "Count",
        "mls": "MLS",
        "none": "NoHooks",
        "partition": "Partition",
        "rules": "Rule Rules",
        "selftest": "SelfTest",
        "shadow": "Difference Shadow",
        "stub": "Stub",
        "te": "TypeEnforcement",
    })  # fmt: skip

__all__ = [
    "MLS",
    "Biba",
    "Budget",
    "Count",
    "Decision",
    "Difference",
    "NoHooks",
    "Partition",
    "PolicyModule",
    "Rule",
    "Rules",
    "SelfTest",
    "Shadow",
    "Stub",
    "TypeEnforcement",
]
