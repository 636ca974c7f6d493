# SPDX-License-Identifier: BSD-2-Clause
"""Calls from the core into Python.

The core knows a Python object by a number, given as the `void *context` of the callback. A number
that is gone (a kernel closed meanwhile) is found to be so; a pointer could only crash.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

from ._ffi import ffi, lib

__all__ = [
    "DECIDER",
    "DRAINER",
    "HANDLER",
    "NOBODY",
    "RELEASE",
    "context",
    "deciding",
    "forget",
    "interrupt",
    "register",
]

_log = logging.getLogger("pympi")
_numbers = itertools.count(1)
_targets: dict[int, Any] = {}
_decisions = threading.local()


def register(target: Any) -> int:
    """Return a number by which the core may call `target`; it lives until forgotten."""
    number = next(_numbers)
    _targets[number] = target
    return number


def forget(number: int) -> Any:
    """Forget a number; return what it stood for, or None."""
    return _targets.pop(number, None)


def context(number: int) -> Any:
    """Return the `void *` that stands for a number."""
    return ffi.cast("void *", number)


def _target(pointer: Any) -> Any:
    return _targets.get(int(ffi.cast("uintptr_t", pointer)))


def interrupt() -> None:
    """Have a KeyboardInterrupt raised by the call into the core that this upcall is part of."""
    lib.pm_binding_interrupt()


def guarded(what: str, call: Callable[..., int], *arguments: Any) -> int:
    """Return what a call from the core returns; 1, failure, if it raises.

    Nothing may be raised through the core. A Ctrl-C that arrives meanwhile makes the call fail, and
    is raised when the core has returned.
    """
    try:
        return call(*arguments)
    except BaseException as error:
        raised(what, error)
    return 1


def raised(what: str, error: BaseException) -> None:
    """Log what a call from the core raised; have a Ctrl-C raised by the call that it is part of."""
    if isinstance(error, KeyboardInterrupt):
        interrupt()
    else:
        _log.error("%s failed", what, exc_info=error)


def deciding() -> bool:
    """Whether this thread is in a decision: it may hold what others have to wait for."""
    return getattr(_decisions, "depth", 0) > 0


def _unguarded(_kind: object, error: BaseException, _traceback: object) -> None:
    """Tell of what was raised right before or after what `guarded` guards."""
    raised("a call from the core", error)


@ffi.def_extern(error=1, onerror=_unguarded)  # type: ignore[untyped-decorator]
def pm_python_decider(pointer: Any, queries: Any, count: int, epoch: int) -> int:
    target = _target(pointer)
    before = getattr(_decisions, "depth", 0)  # to be found again wherever Ctrl-C comes
    try:
        _decisions.depth = before + 1
        return 1 if target is None else guarded("decider", target, queries, count, epoch)
    finally:
        _decisions.depth = before


@ffi.def_extern(error=1, onerror=_unguarded)  # type: ignore[untyped-decorator]
def pm_python_drainer(pointer: Any) -> int:
    target = _target(pointer)
    return 1 if target is None else guarded("drainer", target)


@ffi.def_extern(onerror=_unguarded)  # type: ignore[untyped-decorator]
def pm_python_release(pointer: Any) -> None:
    release = forget(int(ffi.cast("uintptr_t", pointer)))
    if release is not None:
        guarded("release function", lambda: release() and 0)


lib.pm_upcall_targets(ffi.cast("void *", id(_targets)))

NOBODY = context(0)
"""Stands for nothing: a handler with it refuses every message."""

DECIDER = lib.pm_python_decider
HANDLER = ffi.addressof(lib, "pm_python_handler")
DRAINER = lib.pm_python_drainer
RELEASE = lib.pm_python_release
