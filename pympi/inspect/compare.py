# SPDX-License-Identifier: BSD-2-Clause
"""Two snapshots of one kernel: what came, what went, what changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from ..errors import SnapshotError
from .snapshot import Snapshot

__all__ = ["KINDS", "Change", "check_order", "compare"]

Rows = Iterator[tuple[Hashable, Any]]


class Change(NamedTuple):
    """Something that came, went or changed.

    Attributes:
        kind: "task", "port", "name", "context", "service", "module" or "policy".
        key: a number; of a name, those of task and name; of a service, those of its context, its
            name and label; of a module, its name.
        old, new: the rows; None where it was not there.
        fields: of what changed, the old and the new value by field.
    """

    kind: str
    key: Any
    old: Any
    new: Any
    fields: dict[str, tuple[Any, Any]]

    @property
    def what(self) -> str:
        """Say "came", "went" or "changed"."""
        return "came" if self.old is None else "went" if self.new is None else "changed"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        key = list(self.key) if isinstance(self.key, tuple) else self.key
        rows = {"old": msgspec.to_builtins(self.old), "new": msgspec.to_builtins(self.new)}
        return {"kind": self.kind, "key": key, "what": self.what, **rows, "fields": self.fields}


def _services(snapshot: Snapshot) -> Rows:
    """Yield services; those of one name and label, which labels have of their own, are counted."""
    seen: Counter[Hashable] = Counter()
    for context in snapshot.bootstrap or ():
        for service in context.services:
            key = (context.id, service.name, service.label)
            yield (*key, seen[key]), service
            seen[key] += 1


#: Of each kind: its rows with their keys, and the fields that are compared. Counts that other rows
#: tell in detail, or that every message moves, are not among these.
KINDS: dict[str, tuple[Callable[[Snapshot], Rows], tuple[str, ...]]] = {
    "task": (
        lambda s: ((row.id, row) for row in s.tasks),
        ("name", "label", "alive", "parent", "auid", "euid", "egid", "ruid", "rgid", "bootstrap"),
    ),
    "port": (
        lambda s: ((row.id, row) for row in s.ports),
        ("label", "state", "receiver", "queue_length", "queue_limit", "sets", "set", "kind",
         "handler", "interface", "guarded", "strict", "immovable", "reply_port", "no_senders",
         "port_destroyed"),
    ),
    "name": (
        lambda s: (((row.task, row.name), row) for row in s.rights),
        ("types", "user_references", "object", "request"),
    ),
    "context": (
        lambda s: ((c.id, msgspec.structs.replace(c, services=())) for c in s.bootstrap or ()),
        ("parent", "label", "port"),
    ),
    "service": (_services, ("server", "state", "port", "task")),
    "module": (
        lambda s: ((row.name, row) for row in s.policy.modules),
        ("permissive", "failures", "shadow"),
    ),
    "policy": (
        lambda s: iter([("policy", msgspec.structs.replace(s.policy, modules=()))]),
        ("epoch", "permissive", "failures"),
    ),
}  # fmt: skip


def compare(old: Snapshot, new: Snapshot) -> list[Change]:
    """Return what is different in `new`, by kind and key.

    Raises:
        SnapshotError: they are not of one kernel, or not in this order.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     task = kernel.create_task("server")
        ...     before = kernel.snapshot()
        ...     port = task.allocate_port()
        ...     after = kernel.snapshot()
        >>> [(change.what, change.kind) for change in compare(before, after)]
        [('came', 'port'), ('came', 'name')]
    """
    check_order(old, new)
    return [change for kind in KINDS for change in _changes(kind, old, new)]


def _changes(kind: str, old: Snapshot, new: Snapshot) -> Iterator[Change]:
    rows, fields = KINDS[kind]
    before, after = dict(rows(old)), dict(rows(new))
    for key in sorted({*before, *after}):  # type: ignore[type-var]
        was, now = before.get(key), after.get(key)
        if was is None or now is None:
            yield Change(kind, key, was, now, {})
        elif was != now and (changed := _different(was, now, fields)):
            yield Change(kind, key, was, now, changed)


def _different(was: Any, now: Any, fields: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    pairs = ((field, getattr(was, field), getattr(now, field)) for field in fields)
    return {field: (a, b) for field, a, b in pairs if a != b}


def check_order(*snapshots: Snapshot) -> None:
    """Make sure that snapshots are of one kernel, the older first.

    Raises:
        SnapshotError: they cannot be: counters went back, or a number means another task.
    """
    for old, new in pairwise(snapshots):
        names = {task.id: task.name for task in old.tasks}
        renamed = any(names.get(task.id, task.name) != task.name for task in new.tasks)
        if renamed or new.begin.sequence < old.begin.sequence:
            raise SnapshotError("snapshots of different kernels, or not the older one first")
