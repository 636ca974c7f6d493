# SPDX-License-Identifier: BSD-2-Clause
"""Audit records: the core's fixed binary form, and in words.

The binary form is `struct pm_audit_record`, version 1: 104 bytes, never renumbered. `RECORD` is
made from it, field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._ffi import lib
from .._rows import dtype_of
from ..enums import AuditFlag, ObjectClass, Operation
from ..errors import code_name

__all__ = ["RECORD", "AuditRecord", "Batch"]

_FLAGS = (1 << lib.PM_AUDIT_WEIGHT_SHIFT) - 1

RECORD: np.dtype[Any] = dtype_of("pm_audit_record")
"""The numpy form of `struct pm_audit_record`."""


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
        names = self.records.dtype.names or ()
        return (self._worded(dict(zip(names, row, strict=True))) for row in self.records.tolist())

    def _worded(self, raw: dict[str, int]) -> AuditRecord:
        tclass = self.classes.get(raw["tclass"])
        loss = bool(raw["flags"] & AuditFlag.LOSS)
        return AuditRecord(
            sequence=raw["sequence"],
            time=raw["time"] / 1e9,
            operation=Operation(raw["operation"]).name.lower(),
            subject=self._label(raw["effective_sid"]),
            real_subject=self._label(raw["real_sid"]),
            object=self._label(raw["object_sid"]),
            peer=self._label(raw["peer_sid"]),
            task=raw["task"],
            task_name=self.tasks.get(raw["task"], ""),
            name=raw["name"],
            port=raw["port"],
            tclass=tclass.name if tclass else "",
            asked=tclass.names(raw["asked"]) if tclass else (),
            denied=tclass.names(raw["denied"]) if tclass else (),
            reported=tclass.names(raw["report"]) if tclass else (),
            msgh_id=raw["msgh_id"],
            size=raw["size"],
            result="" if loss else code_name(raw["result"]),
            transfer=raw["transfer"],
            provenance=raw["provenance"],
            epoch=raw["epoch"],
            flags=AuditFlag(raw["flags"] & _FLAGS),
            lost=raw["result"] if loss else 0,
            service=self.services.get(raw["name"], "") if self._by_server(raw) else "",
            weight=max(1, raw["flags"] >> lib.PM_AUDIT_WEIGHT_SHIFT),
        )

    @staticmethod
    def _by_server(raw: Mapping[str, int]) -> bool:
        return raw["operation"] == Operation.SERVICE

    def _label(self, sid: int) -> str:
        return self.labels.get(sid, f"sid:{sid}") if sid else "-"
