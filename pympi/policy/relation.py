# SPDX-License-Identifier: BSD-2-Clause
"""What a permission needs to hold between a subject's value and an object's: policies as data.

A module that decides by such relations can say what it decides for each hook before it is asked;
docs/levels.md is made from that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["NO_OPINION", "Relation"]


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation between the values of a subject and an object.

    Attributes:
        word (str): its name in tables.
        meaning (str): when it holds, as a clause.
        holds (Callable[[Any, Any], bool]): whether it holds: `holds(subject, object)`.
        remedy (Callable[[Any, Any], str]): where it does not, which other subject or object it
            would hold for, in words.
    """

    word: str
    meaning: str
    holds: Callable[[Any, Any], bool]
    remedy: Callable[[Any, Any], str]


NO_OPINION = Relation(
    "none", "always: the module has no opinion", lambda subject, target: True, lambda *_: "any"
)
"""What a module says of a hook that is none of its business."""
