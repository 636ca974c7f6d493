# SPDX-License-Identifier: BSD-2-Clause
"""Audit records: the core's fixed binary form, and in words.

The binary form is `struct pm_audit_record`, version 1: 104 bytes, never renumbered. `RECORD` is
made from it, field by field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._rows import dtype_of
from ..enums import AuditFlag, ObjectClass, Operation
from ..errors import code_name

__all__ = ["RECORD", "AuditRecord", "Batch"]

RECORD: np.dtype[Any] = dtype_of("pm_audit_record")
"""The numpy form of `struct pm_audit_record`."""
_LOSS = int(AuditFlag.LOSS)


class AuditRecord(NamedTuple):
    """One operation on one object, in words.

    Attributes:
        sequence: counts records and losses: a gap is a loss.
        time: seconds, of the kernel's clock.
        operation: "send", "receive", "give", "take", "method", ...; "loss" for a loss record.
        subject: the label that was decided on (the effective one); real_subject: the task's own.
        object: the label of the object; peer: of a received message's sender.
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


@dataclass(frozen=True, slots=True)
class Batch:
    """Records, and what their numbers stand for.

    Attributes:
        records: an array of dtype `RECORD`.
        labels: label text by SID.
        tasks: task name by number.
        classes: class by number.
        services: what a server was asked about, by `name` of records of the operation `service`.
    """

    records: npt.NDArray[Any]
    labels: Mapping[int, str]
    tasks: Mapping[int, str]
    classes: Mapping[int, ObjectClass]
    services: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[AuditRecord]:
        return map(_Wording(self), self.records[_FIELDS].tolist())


#: The order in which `_Wording` takes what is in a record.
_FIELDS = [
    "sequence", "time", "operation", "effective_sid", "real_sid", "object_sid", "peer_sid", "task",
    "name", "port", "tclass", "asked", "denied", "report", "msgh_id", "size", "result", "transfer",
    "provenance", "epoch", "flags",
]  # fmt: skip
_NO_CLASS = ObjectClass(0, "", ())


class _Wording:
    """Puts records of a batch into words; the same numbers mean the same words in all of them."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._labels = _Kept(lambda sid: batch.labels.get(sid, f"sid:{sid}") if sid else "-")
        self._classes = _Kept(lambda number: batch.classes.get(number, _NO_CLASS))
        self._names = _Kept(lambda key: self._classes[key[0]].names(key[1]))
        self._codes = _Kept(code_name)
        self._operations = _Kept(lambda number: Operation(number).name.lower())
        self._flags = _Kept(AuditFlag)

    def __call__(self, raw: tuple[int, ...]) -> AuditRecord:
        """Return a record from its numbers, in the order of `_FIELDS`."""
        (
            sequence, time, operation, effective, real, target, peer, task, name, port, tclass,
            asked, denied, report, msgh_id, size, result, transfer, provenance, epoch, flags,
        ) = raw  # fmt: skip
        labels, names, loss = self._labels, self._names, flags & _LOSS
        return AuditRecord(
            sequence, time / 1e9, self._operations[operation],
            labels[effective], labels[real], labels[target], labels[peer],
            task, self._batch.tasks.get(task, ""), name, port, self._classes[tclass].name,
            names[tclass, asked], names[tclass, denied], names[tclass, report],
            msgh_id, size, "" if loss else self._codes[result], transfer, provenance, epoch,
            self._flags[flags], result if loss else 0,
            self._batch.services.get(name, "") if operation == Operation.SERVICE else "",
        )  # fmt: skip


class _Kept(dict[Any, Any]):
    """What a function returned, by what it was called with."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, key: Any) -> Any:
        value = self[key] = self._function(key)
        return value
