# SPDX-License-Identifier: BSD-2-Clause
"""Audit records: the core's fixed binary form, and in words.

The binary form is `struct pm_audit_record`, version 1: 104 bytes, never renumbered. `RECORD` is
made from it, field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._ffi import lib
from .._rows import dtype_of
from ..enums import AuditFlag, ObjectClass, Operation
from ..errors import code_name

__all__ = ["FLAGS", "OUTCOMES", "RECORD", "AuditRecord", "Batch", "outcome_of", "weight_of"]

_WEIGHT_SHIFT = int(lib.PM_AUDIT_WEIGHT_SHIFT)
FLAGS = (1 << _WEIGHT_SHIFT) - 1
"""The part of `flags` that is flags; above it is the weight."""

RECORD: np.dtype[Any] = dtype_of("pm_audit_record")
"""The numpy form of `struct pm_audit_record`."""


OUTCOMES = ("granted", "denied", "failed", "loss")
"""What may come of an operation: `AuditRecord.outcome`."""


def outcome_of(flags: int, denied: int, result: int) -> str:
    """Return what came of an operation, of the raw fields of a record.

    Returns:
        "loss" for a loss record; "denied" for what was refused, and enforced; "failed" for what
        failed for another reason than access; else "granted".
    """
    if flags & AuditFlag.LOSS:
        return "loss"
    if denied and not flags & AuditFlag.PERMISSIVE:
        return "denied"
    return "failed" if result else "granted"


def weight_of(flags: int) -> int:
    """Return for how many a record stands."""
    return max(1, flags >> _WEIGHT_SHIFT)


class AuditRecord(NamedTuple):
    """One operation on one object, in words.

    Attributes:
        sequence: counts records and losses: a gap is a loss.
        time: seconds, of the kernel's clock.
        operation: "send", "receive", "give", "take", "method", ...; "loss" for a loss record.
        subject: the label that was decided on (the effective one); real_subject: the task's own.
        object: the label of the object; peer: of a received message's sender, or of who put a right
            into the task's space.
        task, task_name: who did it; the name is "" if the task is gone.
        name: the name in the task's space it was done to; port: the port's number.
        tclass: the class; asked, denied, reported: permissions, by name.
        msgh_id, size: of the message.
        result: the code's name, "KERN_SUCCESS" if it was done.
        transfer: the message's number, the same at both ends; provenance: the transfer by which
            the task got the name.
        epoch: of the policy.
        flags: what is special about it.
        lost: how many records were lost before this one, if it is a loss record.
        service: if the operation is "service": the name that a server was asked about; where `task`
            is 0, who asked from outside, as in "user 1000, process 4242".
        weight: for how many it stands: more than 1 if it was sampled by chance.
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
    tclass: str
    asked: tuple[str, ...]
    denied: tuple[str, ...]
    reported: tuple[str, ...]
    msgh_id: int
    size: int
    result: str
    transfer: int
    provenance: int
    epoch: int
    flags: AuditFlag
    lost: int
    service: str = ""
    weight: int = 1

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`: see `outcome_of`."""
        done = self.result == "KERN_SUCCESS"
        return outcome_of(self.flags, bool(self.denied), not done)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records, and what their numbers stand for.

    Attributes:
        records: an array of dtype `RECORD`.
        labels: label text by SID.
        tasks: task name by number.
        classes: class by number.
        services: what a server was asked about, by `name` of records of the operation `service`.
        run: of which run of its file, from 1, if it was read from one that tells; else 0.
    """

    records: npt.NDArray[Any]
    labels: Mapping[int, str]
    tasks: Mapping[int, str]
    classes: Mapping[int, ObjectClass]
    services: Mapping[int, str] = field(default_factory=dict)
    run: int = field(default=0, kw_only=True)

    def __len__(self) -> int:
        return len(self.records)

    def used_classes(self) -> dict[str, ObjectClass]:
        """Return the classes that the records are of, by name."""
        numbers = np.unique(self.records["tclass"]).tolist()
        found = (self.classes.get(number) for number in numbers)
        return {tclass.name: tclass for tclass in found if tclass}

    def part(self, wanted: npt.NDArray[Any]) -> Batch:
        """Return some of the records, with the same words."""
        return replace(self, records=self.records[wanted])

    def __iter__(self) -> Iterator[AuditRecord]:
        label, names, service = _Labels(self.labels), _Names(self.classes), self.services.get
        for (
            sequence, time, transfer, provenance, port, real, effective, target, peer, task, name,
            tclass, operation, asked, denied, report, msgh_id, size, epoch, flags, result,
        ) in self.records[_FIELDS].tolist():  # fmt: skip
            loss = flags & _LOSS
            yield AuditRecord(
                sequence,
                time / 1e9,
                _operation(operation),
                label[effective],
                label[real],
                label[target],
                label[peer],
                task,
                self.tasks.get(task, ""),
                name,
                port,
                names[tclass, -1][0],
                names[tclass, asked],
                names[tclass, denied],
                names[tclass, report],
                msgh_id,
                size,
                "" if loss else _result(result),
                transfer,
                provenance,
                epoch,
                _flags(flags & FLAGS),
                result if loss else 0,
                service(name, "") if operation == Operation.SERVICE else "",
                weight_of(flags),
            )


class _Labels(dict[int, str]):
    """Labels by SID, also of those that are not known.

    Those that nobody asks for are not looked at: a hostile file has many batches, and many labels.
    """

    def __init__(self, labels: Mapping[int, str]) -> None:
        super().__init__({0: "-"})
        self._known = labels

    def __missing__(self, sid: int) -> str:
        return self.setdefault(sid, self._known.get(sid, f"sid:{sid}"))


class _Names(dict[tuple[int, int], tuple[str, ...]]):
    """Names of permissions by class and mask; with the mask -1 that of the class."""

    def __init__(self, classes: Mapping[int, ObjectClass]) -> None:
        super().__init__()
        self._classes = classes

    def __missing__(self, key: tuple[int, int]) -> tuple[str, ...]:
        number, mask = key
        tclass = self._classes.get(number, _NO_CLASS)
        names = (tclass.name,) if mask < 0 else tclass.names(mask) if tclass.name else ()
        return self.setdefault(key, names)


_FIELDS = list(RECORD.names or ())
_NO_CLASS = ObjectClass(0, "", ())
_LOSS = int(AuditFlag.LOSS)
_flags = lru_cache(4096)(AuditFlag)
_result = lru_cache(4096)(code_name)


@lru_cache(4096)
def _operation(number: int) -> str:
    try:
        return Operation(number).name.lower()
    except ValueError:
        return f"operation {number}"
