# SPDX-License-Identifier: BSD-2-Clause
"""What came of a replay, in numbers and in files."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any, NamedTuple

from .plan import Plan
from .text import EVENTS, TraceRecord, sedarwin_records, write_full, write_sedarwin


class Denial(NamedTuple):
    """Operations refused: how often, whose, what for, and why; labels as text."""

    times: int
    subject: str
    permission: str
    object: str
    reason: str
    tclass: str


class Report(NamedTuple):
    """The last round of a replay.

    Attributes:
        plan: what was to be done.
        recorded: what ipctrace counted, every event.
        lost: events ipctrace had no room for.
        messages: how many were received.
        seconds: of each round, the last one last.
        denied: what was refused.
        not_performed: operations that were not refused themselves, but could not happen because
            others were: they lacked a right that was not got, or a message that was not sent.
        check_cost: seconds with the policy over seconds without, the median of paired rounds of
            the steps that were not refused; None where it was not measured.
        checked: whether there was a policy.
    """

    plan: Plan
    recorded: list[TraceRecord]
    lost: int
    messages: int
    seconds: list[float]
    denied: list[Denial]
    not_performed: int
    check_cost: float | None
    checked: bool

    @property
    def replayed(self) -> list[TraceRecord]:
        """What SEDarwin's ipctrace would have recorded."""
        return sedarwin_records(self.recorded)

    @property
    def exact(self) -> bool:
        """Whether that is the recording, record for record."""
        return Counter(self.replayed) == Counter(self.plan.records)

    @property
    def faithful(self) -> bool:
        """Whether the run did what it should: without a policy, exactly the recording."""
        return self.checked or self.exact

    @property
    def events_by_kind(self) -> dict[str, int]:
        """All events by kind, those beyond SEDarwin's three too."""
        counts = Counter[str]()
        for record in self.recorded:
            counts[record.event] += record.count
        return {event: counts[event] for event in EVENTS if counts[event]}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        replayed = self.replayed
        return {
            "tasks": len(self.plan.tasks),
            "ports": len(self.plan.ports),
            "records": len(replayed),
            "events": sum(record.count for record in replayed),
            "events_by_kind": self.events_by_kind,
            "messages": self.messages,
            "messages_per_second": self.messages / self.seconds[-1],
            "seconds": self.seconds[-1],
            "seconds_by_round": self.seconds,
            "exact": self.exact,
            "lost": self.lost,
            "denials": sum(denial.times for denial in self.denied),
            "not_performed": self.not_performed,
            "denied": [denial._asdict() for denial in self.denied],
            "check_cost": self.check_cost,
        }

    def files(self) -> dict[str, bytes]:
        """The artefacts by name: both text forms of the run, and its figures."""
        replayed, full = io.BytesIO(), io.BytesIO()
        write_sedarwin(replayed, self.replayed, "replayed.trace")
        write_full(full, self.recorded, lost=self.lost, name="full.trace")
        figures = json.dumps(self.as_dict(), indent=2) + "\n"
        return {
            "replayed.trace": replayed.getvalue(),
            "full.trace": full.getvalue(),
            "run.json": figures.encode(),
        }
