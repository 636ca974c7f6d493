# SPDX-License-Identifier: BSD-2-Clause
"""What only grows from one snapshot to the next, by who made it; and what is kept for nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..enums import PortType
from .compare import check_order
from .joined import Joined
from .snapshot import Port, Right, Snapshot

__all__ = ["Growth", "Leaks", "find_leaks"]

LARGE = 1000  # user references of one name


class Growth(NamedTuple):
    """Something of which there was never less than before, and more at the end.

    Attributes:
        what: "ports", by the task that made them; "names", by the task that has them; "references",
            by the name that has them.
        task: the number of that task.
        types: of names and references: what the names hold, MACH_PORT_TYPE_* bits.
        label: of the ports.
        received: of names and references: they came in messages or from other tasks.
        counts: in each snapshot.
        new: numbers of ports, or names, that were not in the first snapshot and are in the last; of
            references, the name.
        transfers: of names that were received: the first and last transfer that created a new one;
            else 0, 0.
    """

    what: str
    task: int
    types: int
    label: str
    received: bool
    counts: tuple[int, ...]
    new: tuple[int, ...]
    transfers: tuple[int, int]

    @property
    def grown(self) -> int:
        """How many more there are at the end."""
        return self.counts[-1] - self.counts[0]


class Leaks(NamedTuple):
    """What `find_leaks` found.

    Attributes:
        seconds: of the kernel's clock between the first and the last snapshot.
        growing: what only grows, that which grew most first.
        dead_names: that were there in all snapshots, by task.
        references: names with many user references at the end.
        stuck: ports whose queue is full in all snapshots, from which nobody received in between and
            nobody waits to.
    """

    seconds: float
    growing: list[Growth]
    dead_names: dict[int, list[int]]
    references: list[Right]
    stuck: list[Port]

    def __bool__(self) -> bool:
        return any((self.growing, self.dead_names, self.references, self.stuck))


def find_leaks(snapshots: Sequence[Snapshot], *, large: int = LARGE) -> Leaks:
    """Find what grows in snapshots of one kernel, and what the last of them keeps for nothing.

    Args:
        snapshots: in the order in which they were taken; of a single one nothing is known to grow.
        large: how many user references of a name are many.

    Raises:
        SnapshotError: they are not of one kernel, or in another order.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     task, taken = kernel.create_task("leaky"), []
        ...     for _ in range(3):
        ...         port = task.allocate_port()
        ...         taken.append(kernel.snapshot())
        >>> [(growth.what, growth.counts) for growth in find_leaks(taken).growing]
        [('ports', (1, 2, 3))]
    """
    check_order(*snapshots)
    all_joined = [Joined(snapshot) for snapshot in snapshots]
    last = all_joined[-1]
    growing = [g for what, found in _FOUND.items() for g in _growing(what, found, all_joined)]
    return Leaks(
        snapshots[-1].kernel_time - snapshots[0].kernel_time,
        sorted(growing, key=lambda growth: -growth.grown),
        _dead_names(snapshots),
        [right for right in last.snapshot.rights if right.user_references >= large],
        _stuck(all_joined),
    )


# ---- what grows: groups, and in each what there is, with its count ----


class _Group(NamedTuple):
    """What one line is about: alike in all of this; `name` is that of references."""

    task: int
    types: int
    label: str
    received: bool
    name: int = 0


_Found = dict[_Group, dict[int, int]]


def _ports(joined: Joined) -> _Found:
    found: defaultdict[_Group, dict[int, int]] = defaultdict(dict)
    for port in joined.ports.values():
        if port.state != "dead":
            found[_Group(port.maker, 0, port.label, False)][port.id] = 1
    return found


def _group(joined: Joined, right: Right) -> _Group:
    port = joined.ports.get(right.object)
    label = port.label if port else ""
    return _Group(right.task, right.types, label, right.provenance != 0)


def _names(joined: Joined) -> _Found:
    """Return names but those of ports that the task made itself: they are told of as ports."""
    found: defaultdict[_Group, dict[int, int]] = defaultdict(dict)
    for right in joined.snapshot.rights:
        port = joined.ports.get(right.object)
        own = port and right.types & PortType.RECEIVE and port.maker == right.task
        if not own:
            found[_group(joined, right)][right.name] = 1
    return found


def _references(joined: Joined) -> _Found:
    """Return names with references: a group each."""
    return {
        _group(joined, right)._replace(name=right.name): {right.name: right.user_references}
        for right in joined.snapshot.rights
        if right.user_references
    }


_FOUND: dict[str, Callable[[Joined], _Found]] = {
    "ports": _ports, "names": _names, "references": _references,
}  # fmt: skip


def _growing(
    what: str, found: Callable[[Joined], _Found], all_joined: Sequence[Joined]
) -> Iterator[Growth]:
    samples = [found(joined) for joined in all_joined]
    for group, members in samples[-1].items():
        first = samples[0].get(group, {})
        if group.name and not first:
            continue  # a new name, which is told of as such
        counts = tuple(sum(sample.get(group, {}).values()) for sample in samples)
        if counts[-1] > counts[0] and list(counts) == sorted(counts):
            new = sorted(m for m in members if group.name or m not in first)
            received = what == "names" and group.received
            transfers = _transfers(all_joined[-1], group.task, new) if received else (0, 0)
            yield Growth(what, *group[:4], counts, tuple(new), transfers)


def _transfers(joined: Joined, task: int, names: Sequence[int]) -> tuple[int, int]:
    space = joined.spaces[task]
    found = [space[name].provenance for name in names]
    return (min(found), max(found)) if found else (0, 0)


# ---- what is kept ----


def _dead_names(snapshots: Sequence[Snapshot]) -> dict[int, list[int]]:
    sets = [
        {(r.task, r.name) for r in snapshot.rights if r.types & PortType.DEAD_NAME}
        for snapshot in snapshots
    ]
    found: defaultdict[int, list[int]] = defaultdict(list)
    for task, name in sorted(set.intersection(*sets)):
        found[task].append(name)
    return dict(found)


def _stuck(all_joined: Sequence[Joined]) -> list[Port]:
    def is_stuck(now: Any, port: Port) -> bool:
        return (
            now is not None and not now.handler and now.seqno == port.seqno
            and 0 < now.queue_limit <= now.queue_length and not now.blocked_receivers
        )  # fmt: skip

    last = all_joined[-1].ports.values()
    return [p for p in last if all(is_stuck(j.ports.get(p.id), p) for j in all_joined)]
