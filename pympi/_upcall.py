# SPDX-License-Identifier: BSD-2-Clause
"""Calls from the core into Python.

The core knows a Python object by a number, given as the `void *context` of the callback. A number
that is gone (a kernel closed meanwhile) is found to be so; a pointer could only crash.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ._ffi import ffi, lib

__all__ = [
    "DECIDER",
    "DRAINER",
    "HANDLER",
    "RELEASE",
    "context",
    "forget",
    "interrupt",
    "raise_interrupt",
    "register",
]

_log = logging.getLogger("pympi")
_numbers = itertools.count(1)
_targets: dict[int, Any] = {}
_interrupted: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_SOON = 0.01  # seconds


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
    """Note a KeyboardInterrupt that could not be raised through the core.

    The call it came in raises it, if that fails. If it does not, Ctrl-C is pressed again, as it
    were, once the call is over.
    """
    thread = threading.current_thread()
    _interrupted.add(thread)
    if thread is threading.main_thread():
        with contextlib.suppress(RuntimeError):  # no thread can be started: the next failure tells
            threading.Timer(_SOON, _press_again).start()


def raise_interrupt() -> None:
    """Raise the KeyboardInterrupt that was noted in this thread, if any."""
    if _interrupted:
        thread = threading.current_thread()
        if thread in _interrupted:
            _interrupted.discard(thread)
            raise KeyboardInterrupt


def _press_again() -> None:
    main = threading.main_thread()
    if main in _interrupted and callable(signal.getsignal(signal.SIGINT)):
        _interrupted.discard(main)
        signal.pthread_kill(main.ident or 0, signal.SIGINT)


def guarded(what: str, call: Callable[..., int], *arguments: Any) -> int:
    """Return what a call from the core returns; 1, failure, if it raises.

    Nothing may be raised through the core. A Ctrl-C that arrives meanwhile makes the call fail, and
    is raised in place of that failure.
    """
    try:
        return call(*arguments)
    except KeyboardInterrupt:
        interrupt()
    except BaseException:
        _log.exception("%s failed", what)
    return 1


@ffi.def_extern(error=1)  # type: ignore[untyped-decorator]
def pm_python_decider(pointer: Any, queries: Any, count: int, epoch: int) -> int:
    target = _target(pointer)
    return 1 if target is None else guarded("decider", target, queries, count, epoch)


@ffi.def_extern(error=1)  # type: ignore[untyped-decorator]
def pm_python_handler(pointer: Any, received: Any) -> int:
    target = _target(pointer)
    return 1 if target is None else guarded("handler", target, received)


@ffi.def_extern(error=1)  # type: ignore[untyped-decorator]
def pm_python_drainer(pointer: Any) -> int:
    target = _target(pointer)
    return 1 if target is None else guarded("drainer", target)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def pm_python_release(pointer: Any) -> None:
    release = forget(int(ffi.cast("uintptr_t", pointer)))
    if release is not None:
        guarded("release function", lambda: release() and 0)


DECIDER = lib.pm_python_decider
HANDLER = lib.pm_python_handler
DRAINER = lib.pm_python_drainer
RELEASE = lib.pm_python_release
