# SPDX-License-Identifier: BSD-2-Clause
"""What modules answer: whether it is an answer, and the one that several make.

Allowed is the AND of the answers, auditallow the OR, auditdeny the OR over those that refused, in
earnest or in word only. Where modules answer with codes, `PRECEDENCE` chooses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .._ffi import lib
from ..enums import ALL
from .base import Decision
from .shadow import Shadow

__all__ = [
    "NOTHING", "PRECEDENCE", "Change", "Trial", "Verdict", "checked_code", "compose", "first_code",
    "permissive", "validated",
]  # fmt: skip

PRECEDENCE: tuple[int, ...] = (
    lib.KERN_INVALID_ARGUMENT,
    lib.KERN_INVALID_VALUE,
    lib.KERN_INVALID_TASK,
    lib.KERN_INVALID_NAME,
    lib.KERN_NO_ACCESS,
    lib.KERN_DENIED,
)
"""Which code wins where several modules refuse: what is wrong with the call, then what must not be
seen, then access, then privilege (as TrustedBSD's mac_error_select orders errno). Any other code
comes after these, the smallest first."""

NOTHING = Decision(allowed=0, auditallow=0, auditdeny=ALL)
"""The answer of a module that failed."""


def compose(answers: Iterable[Decision]) -> Decision:
    """Return the one decision of several modules' answers, whatever their order.

    Example:
        >>> compose([Decision(allowed=6), Decision(allowed=5, auditallow=1)])
        Decision(allowed=4, auditallow=1, auditdeny=4294967291, report=0)
    """
    allowed, auditallow, auditdeny, report = ALL, 0, 0, 0
    for answer in answers:
        allowed &= answer.allowed
        auditallow |= answer.auditallow
        auditdeny |= answer.auditdeny & (~answer.allowed | answer.report)
        report |= answer.report
    return Decision(allowed, auditallow, auditdeny & ALL, report)


def first_code(codes: Iterable[int]) -> int:
    """Return the code that wins among the modules' answers; 0 if none refuses."""
    refusals = sorted({code for code in codes if code})
    known = [code for code in PRECEDENCE if code in refusals]
    return (known or refusals or [0])[0]


def validated(answer: object) -> Decision:
    """Return a module's answer if it is one, in numbers that do nothing of their own.

    Raises:
        TypeError: it is no `Decision` of access vectors.
    """
    if not isinstance(answer, Decision):
        raise TypeError(f"decide() must return a Decision, not {answer!r}")
    fields = (answer.allowed, answer.auditallow, answer.auditdeny, answer.report)
    if type(answer) is Decision and _plain(fields):
        return answer
    return Decision(*map(_vector, fields))


def _plain(fields: tuple[object, ...]) -> bool:
    """Tell what nearly all answers are: numbers, not of a kind of their own, that are vectors."""
    a, b, c, d = fields
    if not type(a) is type(b) is type(c) is type(d) is int:
        return False
    return 0 <= a | b | c | d <= ALL


def _vector(number: object) -> int:
    if isinstance(number, int) and not isinstance(number, bool):
        plain = int.__index__(number)
        if 0 <= plain <= ALL:
            return plain
    raise TypeError(f"an access vector is an int from 0 to 2**32 - 1, not {number!r}")


def checked_code(answer: object) -> int:
    """Return a module's answer if it is a Mach code.

    Raises:
        TypeError: it is none.
    """
    if isinstance(answer, int) and not isinstance(answer, bool):
        plain = int.__index__(answer)
        if 0 <= plain < lib.PM_FORKED:
            return plain
    raise TypeError(f"check_relabel() must return a Mach code, not {answer!r}")


def permissive(answer: Decision) -> Decision:
    """Return an answer as a permissive module's: everything allowed, what it refuses reported."""
    refused = ~answer.allowed & ALL
    return Decision(ALL, answer.auditallow, answer.auditdeny, answer.report | refused)


class Trial(NamedTuple):
    """What a shadow policy answered, and what the module that it is a shadow of did."""

    shadow: Shadow
    present: Decision
    answer: Decision


class Verdict(NamedTuple):
    """What the modules say of a question, and whether they will say so again the next time."""

    decision: Decision
    lasting: bool
    trials: list[Trial]


class Change(NamedTuple):
    """What the modules say of a change of label.

    Attributes:
        code: the Mach code that refuses it; 0 if none does.
        reported: whether a permissive module would refuse it.
        refused_by: the names of the modules that refuse it.
    """

    code: int
    reported: bool
    refused_by: tuple[str, ...]
