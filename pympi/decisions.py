# SPDX-License-Identifier: BSD-2-Clause
"""What is asked of a kernel without doing it: may they, why, and many questions at once.

`Kernel` has these as methods of the same names, where the arguments are described.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ._ffi import ffi, lib
from .enums import ALL, ObjectClass
from .errors import check, code_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from .kernel import Kernel
    from .port import Right
    from .task import Task

__all__ = ["AccessDecision", "access", "check_many", "explain", "explain_relabel"]


@dataclass(frozen=True, slots=True)
class AccessDecision:
    """Whether a subject may do something to an object: `Kernel.access`.

    Attributes:
        allowed (bool): all of the permissions asked for.
        denied (tuple[str, ...]): those that are refused.
        audited (bool): whether the policy has this recorded.
        reported (bool): allowed, and recorded because something would refuse it: a permissive type,
            module or kernel, or a shadow policy.
        permissive (tuple[str, ...]): those that are allowed only because a type, a module or the
            kernel is permissive; also where `dontaudit` keeps them from being recorded.
        vector (int): everything the subject may do to the object; in a permissive kernel all.
        epoch (int): of the policy that decided.
        refused_by (tuple[str, ...]): the modules that refuse one of the permissions; they are asked
            when this is looked at.
    """

    allowed: bool
    denied: tuple[str, ...]
    audited: bool
    reported: bool
    permissive: tuple[str, ...]
    vector: int
    epoch: int
    _refusers: Callable[[], tuple[str, ...]] = field(default=tuple, repr=False, compare=False)

    @property
    def refused_by(self) -> tuple[str, ...]:
        return self._refusers()

    def __bool__(self) -> bool:
        return self.allowed


def access(
    kernel: Kernel, subject: Task | str | int, target: Task | Right | str | int, tclass: str,
    permissions: str | int | Iterable[str],
) -> AccessDecision:  # fmt: skip
    """Return whether a subject may do something to an object."""
    kind = kernel.object_class(tclass)
    asked = kind.mask(permissions)
    permissive = 0
    refusers: Callable[[], tuple[str, ...]] = tuple
    with kernel._sid(subject) as ssid, kernel._sid(target) as tsid:
        found = ffi.new("struct pm_decision *")
        check(lib.pm_decide(kernel.pointer, ssid, tsid, kind.number, found), "access()")
        denied, passed = asked & ~found.allowed, asked & found.allowed & found.report
        if denied and not kernel.closed:
            refusers = kernel.policies.refusers(ssid, tsid, kind, denied)
        if passed and not kernel.closed:
            permissive = kernel.policies.let_pass(ssid, tsid, kind, passed)
    audited = found.auditdeny & denied if denied else found.auditallow & asked
    return AccessDecision(
        not denied, kind.names(denied), bool(audited), bool(found.auditdeny & passed),
        kind.names(permissive), found.allowed, found.epoch, refusers,
    )  # fmt: skip


def explain(
    kernel: Kernel, subject: Task | str | int, target: Task | Right | str | int, tclass: str,
    permission: str,
) -> str:  # fmt: skip
    """Return, in words, why a subject may or may not do something to an object."""
    kind = kernel.object_class(tclass)
    verdict = access(kernel, subject, target, tclass, permission)
    with kernel._sid(subject) as ssid, kernel._sid(target) as tsid:
        head = f"{kernel.label(ssid)} to {kernel.label(tsid)}, {tclass} {permission}: "
        lines = kernel.policies.explanations(ssid, tsid, kind, permission)
    said = _in_words(bool(verdict), bool(verdict.permissive), verdict.refused_by)
    return "\n".join([head + said, *lines])


def explain_relabel(
    kernel: Kernel, subject: Task | str | int, old: Task | Right | str | int, new: str | int,
    tclass: str, birth: bool,
) -> str:  # fmt: skip
    """Return, in words, why something may or may not get another label."""
    kind = kernel.object_class(tclass)
    asked = [(old, "relabelfrom"), (new, "relabelto")]
    if birth and kind.name == "mach_task":
        asked = [(new, "create")]
    permissions = [explain(kernel, subject, label, tclass, word) for label, word in asked]
    with kernel._sid(subject) as ssid, kernel._sid(old) as before, kernel._sid(new) as after:
        who, was, will = map(kernel.label, (ssid, before, after))
        change, lines = kernel.policies.relabel_explanations(ssid, before, after, kind)
    said = _in_words(not change.code, change.reported, change.refused_by)
    code = f" ({code_name(change.code)})" if change.code else ""
    head = f"{who} from {was} to {will}, {tclass} relabel: {said}{code}"
    return "\n".join([*permissions, head, *lines])


def _in_words(allowed: bool, permissive: bool, refused_by: tuple[str, ...]) -> str:
    """Return a verdict in words, with who refuses or lets it pass."""
    if allowed:
        return "allowed, only because of what is permissive" if permissive else "allowed"
    return f"refused by {', '.join(refused_by)}" if refused_by else "refused"


def check_many(
    kernel: Kernel, sources: Any, targets: Any, classes: Any, permissions: Any
) -> npt.NDArray[np.bool_]:
    """Decide many questions in one call."""
    if isinstance(classes, str):
        kind = kernel.object_class(classes)
        classes, permissions = kind.number, _mask(kind, permissions)
    columns = np.broadcast_arrays(*(_uint32(c) for c in (sources, targets, classes, permissions)))
    arrays = [np.ascontiguousarray(column).reshape(-1) for column in columns]
    results = np.zeros(columns[0].shape, np.uint8)
    pointers = [ffi.from_buffer("uint32_t[]", array) for array in arrays]
    flat = ffi.from_buffer("uint8_t[]", results.reshape(-1), require_writable=True)
    check(lib.pm_check_many(kernel.pointer, *pointers, flat, len(arrays[0])), "check_many()")
    return results.view(np.bool_)


def _mask(kind: ObjectClass, permissions: Any) -> Any:
    named = isinstance(permissions, str) or all(isinstance(p, str) for p in permissions)
    return kind.mask(permissions) if named else permissions


def _uint32(column: Any) -> npt.NDArray[np.uint32]:
    array = np.asarray(column)
    if array.dtype == np.uint32 and array.flags.aligned:
        return array
    if array.dtype.kind not in "ui" and array.size:
        raise TypeError(f"SIDs, classes and permissions are integers, not {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() <= ALL):
        raise OverflowError("SIDs, classes and permissions are numbers of 32 bits")
    return array.astype(np.uint32)
