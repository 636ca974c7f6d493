# SPDX-License-Identifier: BSD-2-Clause
"""Looking on live, beside the audit trail: `Kernel.watch`.

What is watched is filtered where it happens, and goes through a ring that loses what finds no room
and counts it. Nothing waits for who watches, and nothing is audited otherwise.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from .._closing import Closing
from .._ffi import ffi, lib
from ..enums import ALL, AuditFlag, MachPort, ObjectClass
from ..errors import KernelClosed, MachError, check, exception
from .record import RECORD, AuditRecord

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["FILTERS", "Filter", "Watch", "WatchRecord"]

FILTERS = {
    "task": "who does it: a task's number, or its name",
    "to": "who has the receive right of the port: a task's number, or its name",
    "label": "of who does it, or of what it is done to",
    "class": "of the object",
    "permission": "that is asked for",
    "routine": "that a message calls",
    "service": "that the name server is asked about",
    "outcome": "granted, denied, or failed for another reason",
}
"""What a filter may say, as in "task=printd"; * and ? stand for any characters."""

OUTCOMES = ("granted", "denied", "failed")
_LONGEST = 256  # characters of a value
_SLICE = 512  # records taken out under one hold of the kernel's lock
_PAUSE = 0.05  # seconds between looks of who waits for records
_REMEMBERED = 65536  # names of tasks
_METHODS = "mi_"
_VALUES = re.compile(r"(?:[^,\\]|\\.)+", re.DOTALL)  # of a label, each with its module's name
_SHARED = [name for name in AuditRecord._fields if name not in ("flags", "lost", "weight")]


class WatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on one object, in words: an `AuditRecord`, and who is at the other end.

    Attributes:
        sequence: counts what this watch wanted, kept or lost.
        time: seconds, exact wherever time is real.
        receiver, receiver_name: the task that has the receive right of the port; 0 and "" none.
        routine: that the message calls; "" where nothing says so.
        outcome: "granted", "denied", or "failed" for another reason than access.
        flags: names of `pympi.enums.AuditFlag`.
        lost: how many records were lost before this one.

    The others are those of `AuditRecord`.
    """

    sequence: int
    time: float
    operation: str
    subject: str
    real_subject: str
    object: str
    peer: str
    task: int
    task_name: str
    name: int
    port: int
    receiver: int = 0
    receiver_name: str = ""
    tclass: str
    asked: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()
    routine: str = ""
    service: str = ""
    msgh_id: int
    size: int
    outcome: str
    result: str
    transfer: int
    provenance: int
    epoch: int
    flags: tuple[str, ...] = ()
    lost: int = 0


class Filter:
    """What is wanted: words, of which all have to hold.

    Attributes:
        known: what the words may say.

    Args:
        words: as in "task=printd" and "outcome=denied"; `FILTERS` lists them.

    Raises:
        ValueError: a word that is none, or is there twice.
    """

    known: ClassVar[Mapping[str, str]] = FILTERS

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words = tuple(words)
        self.values: dict[str, str] = {}
        for word in self.words:
            key, equals, value = word.partition("=")
            if not equals or key not in self.known or not value:
                known = ", ".join(f"{name}=" for name in self.known)
                raise ValueError(f"no filter {word[:_LONGEST]!r}; there are: {known}")
            if len(value) > _LONGEST:
                raise ValueError(f"{key}= has at most {_LONGEST} characters, not {len(value)}")
            if key in self.values:
                raise ValueError(f"{key}= is there twice: a record has one {key}")
            self.values[key] = value
        if (outcome := self.values.get("outcome", "granted")) not in OUTCOMES:
            raise ValueError(f"no outcome {outcome!r}; there are: {', '.join(OUTCOMES)}")

    def matches(self, key: str, text: str, number: int = -1) -> bool:
        """Return whether a text, or a number that is given as one, is wanted."""
        wanted = self.values.get(key)
        if wanted is None:
            return True
        if number >= 0 and wanted.isascii() and wanted.isdecimal():
            return int(wanted) == number
        return fnmatchcase(text, wanted)

    @property
    def errors(self) -> bool:
        """Whether calls that fail for other reasons than access are wanted; these have no class."""
        return self.every_class and self.values.get("outcome", "failed") == "failed"

    @property
    def every_class(self) -> bool:
        """Whether all classes are wanted, those too that will be."""
        return not {"class", "permission", "routine", "service"} & self.values.keys()

    def masks(self, classes: Iterable[ObjectClass]) -> dict[int, tuple[int, int]]:
        """Return what is wanted of classes, by number: of granted and of denied operations.

        Raises:
            ValueError: no class, permission or routine is of that name; the text lists those there
                are.
        """
        chosen = self._classes(list(classes))
        masks = {tclass: self._mask(tclass) for tclass in chosen}
        if not any(masks.values()):
            self._complain(chosen)
        return {tclass.number: self._by_outcome(tclass, mask) for tclass, mask in masks.items()}

    def _classes(self, classes: list[ObjectClass]) -> list[ObjectClass]:
        chosen = [tclass for tclass in classes if self.matches("class", tclass.name)]
        if "service" in self.values:
            classes = [tclass for tclass in classes if tclass.name == "service"]
            chosen = [tclass for tclass in chosen if tclass in classes]
        if not chosen:
            known = ", ".join(tclass.name for tclass in classes)
            also = " that service= is about" if "service" in self.values else ""
            raise ValueError(f"no class {self.values['class']!r}{also}; there are: {known}")
        return chosen

    def _mask(self, tclass: ObjectClass) -> int:
        if not {"permission", "routine"} & self.values.keys():
            return ALL
        if "routine" in self.values and not tclass.name.startswith(_METHODS):
            return 0
        wanted = (
            name for name in tclass.bits
            if self.matches("permission", name) and self.matches("routine", name)
        )  # fmt: skip
        return tclass.mask(list(wanted))

    def _complain(self, classes: list[ObjectClass]) -> None:
        kind = "routine" if "routine" in self.values else "permission"
        if kind == "routine":
            classes = [tclass for tclass in classes if tclass.name.startswith(_METHODS)]
        known = dict.fromkeys(name for tclass in classes for name in tclass.bits if name != "ioctl")
        there = f"there are: {', '.join(known)}" if known else f"these classes have no {kind}s"
        raise ValueError(f"no {kind} {self.values[kind]!r}; {there}")

    def _by_outcome(self, tclass: ObjectClass, mask: int) -> tuple[int, int]:
        outcome = self.values.get("outcome")
        received = MachPort.use_recv if tclass.name == "mach_port" and mask & MachPort.recv else 0
        granted, denied = outcome in (None, "granted"), outcome in (None, "denied")
        return (mask | int(received)) * granted, mask * denied


class Watch(Closing):
    """Records of what a kernel does, as it happens; `Kernel.watch` makes one.

    Iterate over it for records as they come, or `take` those there are; in one thread at a time.
    Close it in the end, from any thread, or use it as a context manager.

    Args:
        kernel: to watch.
        words: see `Filter`.
        records: how many find room until they are taken; rounded up to a power of two.
        seen: makes of each record what is shown, or None; `to=` and `service=` look at that.

    Attributes:
        lost (int): how many records found no room so far.
    """

    _number: int | None = None

    def __init__(
        self, kernel: Kernel, words: Iterable[str] = (), *, records: int = 4096,
        seen: Callable[[WatchRecord], WatchRecord | None] = lambda record: record,
    ) -> None:  # fmt: skip
        self._kernel = kernel
        self._filter = Filter(words)
        self._seen = seen
        self._classes = 0
        self._names: dict[int, str] = {}
        self._sequence = self._gap = 0
        self.lost = 0
        self._filter.masks(kernel.object_classes)  # complains before anything is open
        number = lib.pm_watch_open(kernel.pointer, records)
        if number < 0:
            raise exception(number, "watch()")
        self._number = number
        self._records = np.zeros(_SLICE, RECORD)
        self._receivers = np.zeros(_SLICE, np.uint32)
        self._lost = ffi.new("uint64_t *")
        check(lib.pm_watch_errors(kernel.pointer, number, self._filter.errors), "watch()")
        self._select()
        self._know(list(kernel.tasks))

    # ---- life ----

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its kernel was."""
        return self._number is None or self._kernel.closed

    def close(self) -> None:
        """End the watch. A second time does nothing."""
        number, self._number = self._number, None
        if number is not None and not self._kernel.closed:
            lib.pm_watch_close(self._kernel.pointer, number)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Watch {' '.join(self._filter.words) or 'of everything'}>"

    # ---- records ----

    def take(self) -> list[WatchRecord]:
        """Return the next records that there are, at most 512; it does not wait.

        Raises:
            KernelClosed: the kernel, or this watch, was closed.
        """
        number = self._number
        if number is None:
            raise KernelClosed(lib.KERN_TERMINATED, "this watch is closed")
        if len(self._kernel.object_classes) != self._classes:
            self._select()
        room = ffi.from_buffer("struct pm_audit_record[]", self._records, require_writable=True)
        receivers = ffi.from_buffer("uint32_t[]", self._receivers, require_writable=True)
        count = lib.pm_watch_drain(
            self._kernel.pointer, number, room, receivers, _SLICE, self._lost
        )
        if count == -lib.KERN_INVALID_NAME:
            raise KernelClosed(lib.KERN_TERMINATED, "this watch is closed")
        if count < 0:
            raise exception(count, "watch")
        self.lost = int(self._lost[0])
        return self._worded(self._records[:count], self._receivers[:count]) if count else []

    def __iter__(self) -> Iterator[WatchRecord]:
        """Yield records, and wait for more, until the watch or its kernel is closed."""
        while not self.closed:
            try:
                records = self.take()
            except KernelClosed:  # just now
                return
            yield from records
            if not records:
                time.sleep(_PAUSE)

    def _select(self) -> None:
        """Have the core filter by classes; those of interfaces come later, too."""
        classes = self._kernel.object_classes
        self._classes = len(classes)
        masks = self._filter.masks(classes)
        if self._filter.every_class:
            masks = {0: masks[classes[0].number], **masks}
        for tclass, (granted, denied) in masks.items():
            pointer = self._kernel.pointer
            check(lib.pm_watch_select(pointer, self._number, tclass, granted, denied), "watch()")

    def _know(self, tasks: list[int]) -> None:
        """Remember the names of tasks: records may be read when these are gone."""
        if len(self._names) > _REMEMBERED:
            self._names.clear()
        for number in tasks:
            task = self._kernel.tasks.get(number)
            if task is not None and number not in self._names:
                self._names[number] = task.name

    def _worded(self, records: npt.NDArray[Any], receivers: npt.NDArray[Any]) -> list[WatchRecord]:
        self._know(np.unique(np.concatenate([records["task"], receivers])).tolist())
        numbers = records["sequence"].astype(np.int64)
        gaps = np.diff(numbers, prepend=self._sequence - 1) - 1
        self._sequence = int(numbers[-1]) + 1
        wanted = self._wanted(records)
        before = np.cumsum(gaps)
        batch = self._kernel.audit.batch(records[wanted])
        worded = zip(
            dataclasses.replace(batch, tasks=self._names), receivers[wanted].tolist(),
            before[wanted].tolist(), strict=True,
        )  # fmt: skip
        base, total, shown = -self._gap, int(before[-1]), []
        for record, receiver, lost in worded:
            made = self._show(record, receiver, lost - base)
            if made is not None:
                shown.append(made)
                base = lost
        self._gap = total - base
        return shown

    def _show(self, record: AuditRecord, receiver: int, lost: int) -> WatchRecord | None:
        fields = {name: getattr(record, name) for name in _SHARED}
        denied, failed = bool(record.denied), record.result != "KERN_SUCCESS"
        method = record.tclass.startswith(_METHODS)
        shown = self._seen(
            WatchRecord(
                **fields,
                receiver=receiver,
                receiver_name=self._names.get(receiver, ""),
                routine=record.asked[0] if method and record.asked else "",
                outcome="denied" if denied else "failed" if failed else "granted",
                flags=tuple(flag.name or "" for flag in AuditFlag if flag in record.flags),
                lost=lost,
            )
        )
        if shown is None or not self._filter.matches("service", shown.service):
            return None
        wanted = self._filter.matches("to", shown.receiver_name, shown.receiver)
        return shown if wanted else None

    # ---- tasks and labels: who is not wanted is left out by the core from then on ----

    def _wanted(self, records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        wanted = np.ones(len(records), np.bool_)
        if "task" in self._filter.values:
            wanted &= self._sorted_out(lib.PM_WATCH_TASKS, records["task"], self._is_wanted_task)
        if "label" in self._filter.values:
            both = np.concatenate([records["effective_sid"], records["object_sid"]])
            found = self._sorted_out(lib.PM_WATCH_LABELS, both, self._is_wanted_label)
            wanted &= found[: len(records)] | found[len(records) :]
        return wanted

    def _sorted_out(
        self, kind: int, numbers: npt.NDArray[Any], is_wanted: Callable[[int], bool]
    ) -> npt.NDArray[np.bool_]:
        different, places = np.unique(numbers, return_inverse=True)
        wanted = np.array([is_wanted(number) for number in different.tolist()], np.bool_)
        unwanted = np.ascontiguousarray(different[~wanted & (different != 0)], np.uint32)
        if len(unwanted):
            pointer = ffi.from_buffer("uint32_t[]", unwanted)
            lib.pm_watch_leave_out(self._kernel.pointer, self._number, kind, pointer, len(unwanted))
        return wanted[places]

    def _is_wanted_task(self, number: int) -> bool:
        return self._filter.matches("task", self._names.get(number, ""), number)

    def _is_wanted_label(self, sid: int) -> bool:
        if not sid:
            return False
        try:
            text = self._kernel.label(sid)
        except MachError:  # it went before it could be read
            return False
        return any(self._filter.matches("label", part) for part in (text, *_VALUES.findall(text)))
