# SPDX-License-Identifier: BSD-2-Clause
"""Acts: the records of one operation, together.

A message of three rights is four records at each end. They follow each other in the audit trail,
because an operation writes its records at once, and agree in task, time and transfer id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ...enums import AuditFlag

if TYPE_CHECKING:
    from ...audit import AuditRecord, Batch

__all__ = ["Act", "acts"]

#: Operations that others consist of.
_PARTS = frozenset({"give", "take", "method"})
_RECEIVE, _PERMISSIVE = AuditFlag.RECEIVE.value, AuditFlag.PERMISSIVE.value


class Act(NamedTuple):
    """One operation of one task.

    Attributes:
        records: the first says what it is; the others are rights that went with it, and the method.
    """

    records: tuple[AuditRecord, ...]

    @property
    def head(self) -> AuditRecord:
        """The first record."""
        return self.records[0]

    @property
    def kind(self) -> str:
        """What it is: "send" also where the method was refused."""
        return "send" if self.head.operation == "method" else self.head.operation

    @property
    def arrives(self) -> bool:
        """Whether it is the second end of a transfer: a receive, or a right that came by a call."""
        head = self.head
        return bool(head.flags.value & _RECEIVE) or head.operation == "take"

    @property
    def task(self) -> str:
        """The name of who did it; of one that is gone, its number."""
        return self.head.task_name or f"task {self.head.task}"

    @property
    def routine(self) -> str:
        """What a message asks for: the routine, else its number; "" for what is no message."""
        for record in self.records:
            if record.operation == "method" and record.asked:
                return record.asked[0]
        message = self.kind in ("send", "receive")
        return f"msgh_id {self.head.msgh_id}" if message else ""

    @property
    def is_reply(self) -> bool:
        """Whether it is a message by a right for one message."""
        return self.kind == "send" and "move_send_once" in self.head.asked

    @property
    def refused(self) -> tuple[str, ...]:
        """The permissions that were refused, and so not done."""
        return tuple(
            name for record in self.records if record.denied
            for name in record.denied if not record.flags.value & _PERMISSIVE
        )  # fmt: skip

    @property
    def tolerated(self) -> tuple[str, ...]:
        """The permissions that a policy would refuse, and that were not enforced."""
        found: dict[str, None] = {}
        for record in self.records:
            found |= dict.fromkeys(record.reported)
            if record.flags.value & _PERMISSIVE:
                found |= dict.fromkeys(record.denied)
        return tuple(found)


def acts(batches: Iterable[Batch]) -> Iterator[Act]:
    """Group records, which may come in batches of any size, into acts. A loss is one, too."""
    group: list[AuditRecord] = []
    for batch in batches:
        for record in batch:
            if group and not _belongs(record, group[0]):
                yield Act(tuple(group))
                group = []
            group.append(record)
    if group:
        yield Act(tuple(group))


def _belongs(record: AuditRecord, head: AuditRecord) -> bool:
    """Whether a record is a part of the act that `head` began."""
    return (
        record.transfer == head.transfer != 0
        and record.operation in _PARTS
        and record.task == head.task
        and record.time == head.time
        and (record.flags.value ^ head.flags.value) & _RECEIVE == 0
    )
