# SPDX-License-Identifier: BSD-2-Clause
"""Shadow policies: what a module would decide, beside one that is in force, without effect.

Both are asked. Where they differ, the core is told to report the permissions (`report` of an access
vector), and it counts every operation that meets one; here it is known what the difference is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .._ffi import ffi, lib
from ..enums import ObjectClass, Operation
from ..errors import PolicyError, check, exception

if TYPE_CHECKING:
    from .base import Decision, PolicyModule

__all__ = ["Difference", "Shadow"]

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Difference:
    """Operations that a shadow policy would have decided otherwise.

    Attributes:
        source, target: the labels of the subject and the object.
        tclass: the object's class.
        only_present: permissions, of those the operations asked, that the module in force allows
            and its shadow refuses.
        only_shadow: those that the shadow allows and the module in force refuses.
        count: how many operations.
        operation: what the first of them was: "send", "receive", "give", ...
    """

    source: str
    target: str
    tclass: str
    only_present: tuple[str, ...]
    only_shadow: tuple[str, ...]
    count: int
    operation: str


class _Pair(NamedTuple):
    """What the two modules say of (source, target, class), as they were asked last."""

    source: str
    target: str
    tclass: ObjectClass
    present: int
    shadow: int


class Counts:
    """The core's counts of reported operations (csrc/sec/report.h), for all shadows of a kernel."""

    def __init__(self) -> None:
        self._room: Any = None

    def switch(self, pointer: Any, on: bool) -> None:
        """Begin to count, or end it.

        Raises:
            LimitExceeded: no memory for the table.
        """
        if on != (self._room is not None):
            check(lib.pm_kernel_count_reports(pointer, _ROWS if on else 0), "shadow policy")
            self._room = ffi.new("struct pm_report[]", _ROWS) if on else None

    def take(self, pointer: Any) -> tuple[list[Any], int]:
        """Return what was counted since last asked, and how many operations found no room."""
        if self._room is None:
            return [], 0
        lost = ffi.new("uint64_t *")
        count = lib.pm_kernel_take_reports(pointer, self._room, _ROWS, lost)
        if count < 0:
            raise exception(count, "shadow policy")
        return [self._room[index] for index in range(count)], int(lost[0])


class Shadow:
    """A policy module on trial: `kernel.policies.replace(name, module, shadow=True)`.

    At most 1024 different differences are listed; operations beyond them are counted in `unlisted`.
    When the shadow has ended, by `commit`, `drop`, or because the module it is a shadow of went, it
    keeps what it found.

    Attributes:
        name (str): of the module in force.
        module (PolicyModule): the one on trial.
        failures (int): how often the module on trial raised or answered nonsense; it then counts as
            refusing everything.
        active (bool): whether it is still asked.

    Example:
        >>> from pympi import Kernel
        >>> from pympi.policy import Rules
        >>> with Kernel(policies=[Rules.from_text("allow * * * { * };")]) as kernel:
        ...     shadow = kernel.policies.replace("rules", Rules(), shadow=True)
        ...     task = kernel.create_task("task")
        ...     task.allocate_port().make_send(task).send(b"hello")
        ...     [(d.only_present, d.count) for d in shadow.differences() if d.operation == "send"]
        [(('send', 'copy_send'), 1)]
    """

    def __init__(
        self, name: str, module: PolicyModule, collect: Callable[[], None],
        end: Callable[[Shadow, bool], None], lock: Any,
    ) -> None:  # fmt: skip
        self.name = name
        self.module = module
        self.failures = 0
        self.active = True
        self._collect = collect
        self._end = end
        self.lock = lock
        self._unlisted = 0
        self._full = False
        self._pairs: dict[tuple[int, int, int], _Pair] = {}
        self._found: dict[tuple[Any, ...], list[Any]] = {}

    def __repr__(self) -> str:
        state = "active" if self.active else "ended"
        return f"<Shadow of {self.name!r}, {state}, {len(self._found)} differences>"

    def differences(self) -> list[Difference]:
        """Return what would have been decided otherwise so far, the most frequent first."""
        self._update()
        with self.lock:
            rows = [Difference(*key, *value) for key, value in self._found.items()]
        return sorted(rows, key=lambda row: (-row.count, row.source, row.target, row.tclass))

    @property
    def count(self) -> int:
        """How many operations would have been decided otherwise, as far as they are listed."""
        return sum(row.count for row in self.differences())

    @property
    def unlisted(self) -> int:
        """How many reported operations there was no room to list."""
        self._update()
        return self._unlisted

    def commit(self) -> None:
        """Put the module in force, in place of the present one; labels keep their values.

        Raises:
            PolicyError: the shadow has ended.
        """
        self._finish(True)

    def drop(self) -> None:
        """Forget the module; nothing of it is in force.

        Raises:
            PolicyError: the shadow has ended.
        """
        self._finish(False)

    def _finish(self, commit: bool) -> None:
        with self.lock:
            if not self.active:
                raise PolicyError(f"this shadow of {self.name!r} has ended")
            self._end(self, commit)

    def _update(self) -> None:
        with self.lock:
            if self.active:
                self._collect()

    # ---- for the engine, which holds the lock ----

    def failed(self) -> None:
        """Count a failure of the module."""
        with self.lock:
            self.failures += 1

    def saw(
        self, pointer: Any, query: Any, labels: tuple[str, str], tclass: ObjectClass,
        present: Decision, shadow: Decision,
    ) -> int:  # fmt: skip
        """Note what both modules say; return the permissions on which they differ."""
        known = sum(tclass.bits.values())
        old, new = present.allowed & known, shadow.allowed & known
        pair = _Pair(*labels, tclass, old & ~new, new & ~old)
        with self.lock:
            if self.active:
                self._keep(pointer, (query.ssid, query.tsid, tclass.number), pair)
        return old ^ new

    def _keep(self, pointer: Any, key: tuple[int, int, int], pair: _Pair) -> None:
        before = self._pairs.get(key)
        if before is not None:
            if before != pair:
                self._collect()  # what was counted until now was about the difference before
                self._pairs[key] = pair
        elif pair.present or pair.shadow:
            if len(self._pairs) == _ROWS:
                self._full = True
            elif _retain(pointer, key[:2]):
                self._pairs[key] = pair

    def counted(self, row: Any) -> None:
        """Add a row of the core's counts, if it is of a difference of this shadow."""
        pair = self._pairs.get((row.ssid, row.tsid, row.tclass))
        if pair is None:
            self._unlisted += row.count if self._full else 0
            return
        present, shadow = row.report & pair.present, row.report & pair.shadow
        if not present and not shadow:
            return
        names = pair.tclass.names
        key = (pair.source, pair.target, pair.tclass.name, names(present), names(shadow))
        if key in self._found:
            self._found[key][0] += row.count
        elif len(self._found) < _ROWS:
            self._found[key] = [row.count, Operation(row.operation).name.lower()]
        else:
            self._unlisted += row.count

    def lost(self, count: int) -> None:
        """Add operations that the core found no room to count apart."""
        self._unlisted += count

    def ended(self, pointer: Any) -> None:
        """Let go of the labels; what was found stays."""
        self.active = False
        for ssid, tsid, _ in self._pairs:
            lib.pm_sid_release(pointer, ssid)
            lib.pm_sid_release(pointer, tsid)
        self._pairs.clear()


def _retain(pointer: Any, sids: tuple[int, ...]) -> bool:
    """Keep labels from being forgotten; False if one already is."""
    kept = [sid for sid in sids if lib.pm_sid_retain(pointer, sid) == 0]
    if len(kept) == len(sids):
        return True
    for sid in kept:
        lib.pm_sid_release(pointer, sid)
    return False
