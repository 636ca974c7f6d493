# SPDX-License-Identifier: BSD-2-Clause
"""Random policies: tables of what a label may do to another."""

from __future__ import annotations

import random


class Table:
    """About one question in thirty is denied, always the same ones of a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.known: dict[tuple[str, str, str, str], bool] = {}

    def __call__(self, subject: str, object_: str, tclass: str, permission: str) -> bool:
        key = subject, object_, tclass, permission
        if key not in self.known:
            self.known[key] = random.Random(f"{self.seed}/{'/'.join(key)}").random() > 1 / 30
        return self.known[key]
