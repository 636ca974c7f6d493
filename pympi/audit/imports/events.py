# SPDX-License-Identifier: BSD-2-Clause
"""Events in words, and the batches of records that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...enums import CLASSES, ROUTINES_PER_CLASS, AuditFlag, ObjectClass, Operation
from ..record import RECORD, Batch

__all__ = ["NO_ACCESS", "Event", "batches_of", "escaped", "lost"]

NO_ACCESS = 8
"""KERN_NO_ACCESS: the result of what was refused."""

_BATCH = 4096
_LABELS = ("effective_sid", "object_sid", "peer_sid")
_FIRST_CLASS = 16  # classes of interfaces begin here, as in a kernel
_BITS = 32  # of a vector

_Classes = dict[tuple[str, str], ObjectClass]


class Event(NamedTuple):
    """One record in words; fields as of `pympi.audit.AuditRecord`, time in nanoseconds.

    Attributes:
        task: the number the recording gives, 0 for none, and the name.
        labels: of the subject, the object, and the sender of what was received; "" for none.
        asked, denied: permissions, by name.
    """

    time: int
    operation: Operation
    task: tuple[int, str] = (0, "")
    labels: tuple[str, str, str] = ("", "", "")
    tclass: str = ""
    asked: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    port: int = 0
    name: int = 0
    service: str = ""
    msgh_id: int = 0
    size: int = 0
    transfer: int = 0
    provenance: int = 0
    flags: AuditFlag = AuditFlag(0)
    result: int = 0


def lost(time: int, count: int = 1) -> Event:
    """Return the event that says that something is missing."""
    return Event(time, Operation.LOSS, flags=AuditFlag.LOSS, result=count)


def escaped(value: str) -> str:
    """Return a text as the value of a module in a label."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def batches_of(read: Callable[[], Iterable[Event]]) -> Iterator[Batch]:
    """Yield the records of events.

    Args:
        read: reads the events from the beginning; it is called twice.

    Raises:
        ValueError: they have more different words than numbers are given to.
    """
    words = _Words()
    for event in read():
        words.learn(event)
    classes = words.classes()
    events = enumerate(read())
    while some := list(islice(events, _BATCH)):
        yield words.batch(some, classes)


class _Numbers:
    """Numbers for words, from the first on."""

    MOST = 1 << 20

    def __init__(self, first: int = 1) -> None:
        self._first = first
        self._of: dict[Hashable, int] = {}
        self.texts: dict[int, str] = {}

    def number(self, word: Hashable, text: str) -> int:
        found = self._of.get(word)
        if found is None:
            if len(self._of) == self.MOST:
                raise ValueError(f"more than {self.MOST:,} different labels, tasks or names")
            found = self._of[word] = self._first + len(self._of)
            self.texts[found] = text
        return found


class _Words:
    """What numbers stand for."""

    def __init__(self) -> None:
        self._labels = _Numbers()
        self._services = _Numbers()
        self._most = 0
        self._others = _Numbers()  # tasks without a number, or with another's: behind all others
        self._tasks: dict[int, str] = {}
        self._permissions: dict[str, dict[str, None]] = {}

    def learn(self, event: Event) -> None:
        """Take the words of an event in."""
        self._most = max(self._most, event.task[0])
        if event.tclass and event.tclass not in CLASSES:
            self._permissions.setdefault(event.tclass, {}).update(dict.fromkeys(event.asked))

    def classes(self) -> _Classes:
        """Return the classes by name and permission; of more than fit into one, there are several.

        A class of another system has as many permissions as a vector has bits, one of an interface
        has one less.
        """
        self._others = _Numbers(self._most + 1)
        made = {(n, each): tclass for n, tclass in CLASSES.items() for each in tclass.permissions}
        number = _FIRST_CLASS
        for name, permissions in self._permissions.items():
            room, waiting = ROUTINES_PER_CLASS if name.startswith("mi_") else _BITS, [*permissions]
            for part in range(1, -(-len(waiting) // room) + 1):
                some = tuple(waiting[(part - 1) * room : part * room])
                tclass = ObjectClass(number, name if part == 1 else f"{name}_{part}", some)
                made.update(((name, each), tclass) for each in some)
                number += 1
        return made

    def batch(self, events: list[tuple[int, Event]], classes: _Classes) -> Batch:
        """Return events, numbered, as records, with what their numbers stand for."""
        records = np.zeros(len(events), RECORD)
        used: dict[int, ObjectClass] = {}
        for at, (sequence, event) in enumerate(events):
            fields = self._fields(sequence, event, classes, used)
            for field, value in fields.items():
                records[field][at] = value
        return Batch(
            records, _used(records, _LABELS, self._labels.texts),
            _used(records, ("task",), self._tasks | self._others.texts), used,
            _used(records, ("name",), self._services.texts),
        )  # fmt: skip

    def _fields(
        self, sequence: int, event: Event, classes: _Classes, used: dict[int, ObjectClass]
    ) -> dict[str, Any]:
        subject, target, peer = (self._label(text) for text in event.labels)
        fields = {
            "sequence": sequence, "time": event.time, "transfer": event.transfer,
            "provenance": event.provenance,
            "real_sid": subject, "effective_sid": subject, "object_sid": target, "peer_sid": peer,
            "task": self._task(*event.task), "port": event.port, "name": event.name,
            "operation": event.operation, "msgh_id": event.msgh_id, "size": event.size,
            "flags": event.flags, "result": event.result,
        }  # fmt: skip
        if event.operation is Operation.SERVICE:
            fields["name"] = self._services.number(event.service, event.service)
        if event.tclass:
            tclass = classes[event.tclass, event.asked[0]]
            used[tclass.number] = tclass
            fields["tclass"] = tclass.number
            fields["asked"] = tclass.mask([n for n in event.asked if n in tclass.bits])
            fields["denied"] = tclass.mask([n for n in event.denied if n in tclass.bits])
        return fields

    def _label(self, text: str) -> int:
        return self._labels.number(text, text) if text else 0

    def _task(self, number: int, name: str) -> int:
        """Return a number for a task: its own, if no other task had that before it."""
        if not number and not name:
            return 0
        if number and (not name or self._tasks.setdefault(number, name) == name):
            return number
        return self._others.number((number, name), name)


def _used(
    records: npt.NDArray[Any], fields: tuple[str, ...], texts: Mapping[int, str]
) -> dict[int, str]:
    """Return what the numbers in these fields stand for."""
    numbers = np.unique(np.concatenate([records[field] for field in fields])).tolist()
    return {number: texts[number] for number in numbers if number in texts}
