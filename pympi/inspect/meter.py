# SPDX-License-Identifier: BSD-2-Clause
"""What a live system does each second: two looks at it, and the difference."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import InspectError
from .client import Connection
from .snapshot import Snapshot

__all__ = ["Edge", "Look", "Meter", "PortRate", "Rates", "rates"]

_SENDS = ("class=mach_port", "permission=send", "outcome=granted")
_NAME_SERVER = "mi_bootstrap"
_EDGES = 65536  # that are counted apart
_SHARE = 4  # a snapshot is taken so many times as long apart as the last one took


class PortRate(msgspec.Struct, frozen=True, kw_only=True):
    """A port: messages per second that were sent to it, and its queue."""

    port: int
    receiver: str
    service: str
    label: str
    messages: float
    queued: int
    limit: int


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends to whom: messages per second, and since the meter began."""

    sender: str
    receiver: str
    messages: float
    total: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What went on between two looks.

    Attributes:
        seconds: between them.
        per_second: counters of `Kernel.stats`, as rates.
        stats: these counters, now.
        hit_rate: of the access vector cache, among what was looked up; None: nothing was.
        lost: messages that the meter itself did not see, of those that `ports` and `edges` count.
        name_server: names, contexts, and requests per second; empty where there is none.
        ports, edges: those with messages, and ports with something in their queues.
    """

    seconds: float
    per_second: Mapping[str, float]
    stats: Mapping[str, int]
    hit_rate: float | None
    lost: int
    name_server: Mapping[str, float]
    ports: tuple[PortRate, ...]
    edges: tuple[Edge, ...]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a system.

    Attributes:
        time: seconds of some clock.
        stats: `Kernel.stats`.
        snapshot: the last that was taken.
        by_port: messages by number of port, so far; by_edge: by the numbers of sender and receiver.
        names: of tasks, by number.
        lost: messages that were missed.
    """

    time: float
    stats: Mapping[str, int]
    snapshot: Snapshot
    by_port: Mapping[int, int]
    by_edge: Mapping[tuple[int, int], int]
    names: Mapping[int, str]
    lost: int


class Meter:
    """Looks at a live system by its control socket: a connection to ask, another that watches.

    Raises:
        InspectError: see `Connection`; also `look`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._asking = Connection(path)
        try:
            self._watching = Connection(path)
        except BaseException:
            self._asking.close()
            raise
        self._lock = threading.Lock()
        self._by_port: Counter[int] = Counter()
        self._by_edge: Counter[tuple[int, int]] = Counter()
        self._names: dict[int, str] = {}
        self._lost = 0
        self._failure: InspectError | None = None
        self._watches = threading.Event()  # or has failed to
        self._snapshot, self._next = self._take()
        self._thread = threading.Thread(target=self._watch, name="pympi-meter", daemon=True)
        self._thread.start()
        self._watches.wait()

    def close(self) -> None:
        """Look no more."""
        self._asking.close()
        self._watching.interrupt()
        self._thread.join(5)

    def look(self) -> Look:
        """Return what there is to see now."""
        if self._failure is not None:
            raise self._failure
        if time.monotonic() >= self._next:
            self._snapshot, self._next = self._take()
        stats = self._asking.stats()
        with self._lock:
            return Look(
                time=time.monotonic(), stats=stats, snapshot=self._snapshot,
                by_port=dict(self._by_port), by_edge=dict(self._by_edge),
                names=dict(self._names), lost=self._lost,
            )  # fmt: skip

    def _take(self) -> tuple[Snapshot, float]:
        begun = time.monotonic()
        snapshot = self._asking.snapshot()
        took = time.monotonic() - begun
        return snapshot, begun + _SHARE * took

    def _watch(self) -> None:
        try:
            for records in self._watching.watch_batches(*_SENDS):
                self._watches.set()
                with self._lock:
                    for record in records:
                        self._lost += record.lost
                        self._by_port[record.port] += 1
                        self._by_edge[record.task, record.receiver] += 1
                        self._names[record.task] = record.task_name
                        self._names[record.receiver] = record.receiver_name
                    if len(self._by_edge) > _EDGES or len(self._by_port) > _EDGES:
                        self._forget()
        except InspectError as error:
            self._failure = error
        finally:
            self._watches.set()

    def _forget(self) -> None:
        """Keep the half that has most messages."""
        self._by_port = Counter(dict(self._by_port.most_common(_EDGES // 2)))
        self._by_edge = Counter(dict(self._by_edge.most_common(_EDGES // 2)))
        kept = {number for edge in self._by_edge for number in edge}
        self._names = {number: name for number, name in self._names.items() if number in kept}


def rates(before: Look, now: Look) -> Rates:
    """Return what went on between two looks."""
    seconds = max(now.time - before.time, 1e-3)
    stats = now.stats
    per_second = {name: (stats[name] - before.stats.get(name, 0)) / seconds for name in stats}
    looked_up = per_second.get("checks_avc", 0.0) + per_second.get("misses", 0.0)
    return Rates(
        seconds=seconds,
        per_second=per_second,
        stats=stats,
        hit_rate=per_second["checks_avc"] / looked_up if looked_up else None,
        lost=now.lost,
        name_server=_name_server(before, now, seconds),
        ports=tuple(_ports(before, now, seconds)),
        edges=tuple(_edges(before, now, seconds)),
    )


def _name_server(before: Look, now: Look, seconds: float) -> dict[str, float]:
    contexts = now.snapshot.bootstrap
    if contexts is None:
        return {}
    columns = now.snapshot.ports.columns
    texts = now.snapshot.ports.texts
    of_server = (
        port for port, interface in zip(
            columns["id"].tolist(), columns["interface"].tolist(), strict=True
        ) if texts[interface] == _NAME_SERVER
    )  # fmt: skip
    asked = sum(now.by_port.get(port, 0) - before.by_port.get(port, 0) for port in of_server)
    names = sum(len(context.services) for context in contexts)
    return {"names": names, "contexts": len(contexts), "requests": asked / seconds}


def _ports(before: Look, now: Look, seconds: float) -> list[PortRate]:
    snapshot = now.snapshot
    services = {
        service.port: service.name
        for context in snapshot.bootstrap or () for service in context.services
    }  # fmt: skip
    names = {task.id: task.name for task in snapshot.tasks} | dict(now.names)
    columns = snapshot.ports.columns
    queued = {
        int(columns["id"][at]): snapshot.ports[at]
        for at in columns["queue_length"].nonzero()[0].tolist()
    }
    found = []
    for number in {**queued, **now.by_port}:
        port: Any = queued.get(number) or snapshot.port(number)
        sent = now.by_port.get(number, 0) - before.by_port.get(number, 0)
        if port is None or not (sent > 0 or port.queue_length):
            continue
        found.append(
            PortRate(
                port=number, receiver=_named(port.receiver, names),
                service=services.get(number, ""), label=port.label,
                messages=max(0, sent) / seconds, queued=port.queue_length, limit=port.queue_limit,
            )
        )  # fmt: skip
    return found


def _edges(before: Look, now: Look, seconds: float) -> list[Edge]:
    return [
        Edge(
            sender=_named(sender, now.names), receiver=_named(receiver, now.names),
            messages=max(0, total - before.by_edge.get((sender, receiver), 0)) / seconds,
            total=total,
        )
        for (sender, receiver), total in now.by_edge.items()
    ]  # fmt: skip


def _named(number: int, names: Mapping[int, str]) -> str:
    if not number:
        return "?"
    name = names.get(number, "")
    return f"{name} ({number})" if name else f"task {number}"
