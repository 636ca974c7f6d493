# SPDX-License-Identifier: BSD-2-Clause
"""`selftest`: watches how the framework treats labels (SEDarwin mactest, FreeBSD mac_test).

Every value it parses carries a mark. Whatever comes back to it later must carry that mark, and be
of this very module: a value of another module, of a module unloaded meanwhile, or a made-up one is
a violation. It allows everything, so it can be loaded beside any policy, and is in all tests.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..enums import ObjectClass
from .base import Decision, PolicyModule

__all__ = ["Mark", "SelfTest"]

_NO_OPINION = Decision()


@dataclass(frozen=True)
class Mark:
    """A value of `SelfTest`: text, and whose it is."""

    text: str
    module: SelfTest = field(repr=False)


class SelfTest(PolicyModule):
    """Allows everything, and asserts that labels live as they should.

    Attributes:
        counts (Counter[str]): how often each method was called.
        violations (list[str]): what was wrong. Empty in a correct kernel.
    """

    name = "selftest"

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []

    def parse(self, text: str) -> Mark:
        """Return a marked value."""
        self.counts["parse"] += 1
        self._assert(bool(text), "parse: a value without text")
        return Mark(text, self)

    def format(self, value: Any) -> str:
        """Return the text of a marked value."""
        self._check("format", value)
        return str(value.text)

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Check both values and the class, and allow everything."""
        self._check("decide", source, target)
        self._check_class("decide", tclass)
        return _NO_OPINION

    def label_new(self, source: Any, target: Any, tclass: ObjectClass) -> Any:
        """Check both values and the class; what is new takes the target's."""
        self._check("label_new", source, target)
        self._check_class("label_new", tclass)
        return target

    def label_new_port(self, issuer: Any, owner: Any) -> Any:
        """Check both values; the port takes the owner's."""
        self._check("label_new_port", issuer, owner)
        return owner

    def label_new_task(self, parent: Any) -> Any:
        """Check the value, and pass it on."""
        self._check("label_new_task", parent)
        return parent

    def check_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> int:
        """Check all values, and allow it."""
        self._check("check_relabel", subject, old, new)
        self._check_class("check_relabel", tclass)
        return 0

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Say what is known of the values."""
        self._check("explain", source, target)
        return "has no opinion"

    def explain_relabel(self, subject: Any, old: Any, new: Any, tclass: ObjectClass) -> str:
        """Say what is known of the values."""
        self._check("explain_relabel", subject, old, new)
        return "has no opinion"

    def _check(self, method: str, *values: Any) -> None:
        self.counts[method] += 1
        for value in values:
            ours = value is None or (isinstance(value, Mark) and value.module is self)
            self._assert(ours, f"{method}: {value!r} is not a value of this module")

    def _check_class(self, method: str, tclass: Any) -> None:
        known = isinstance(tclass, ObjectClass) and bool(tclass.permissions)
        self._assert(known, f"{method}: {tclass!r} is no class")

    def _assert(self, condition: bool, violation: str) -> None:
        if not condition:
            self.violations.append(violation)
            raise AssertionError(violation)
