# SPDX-License-Identifier: BSD-2-Clause
"""The trace of a running kernel: `kernel.trace`."""

from __future__ import annotations

import io
import os
from pathlib import Path

from ..enums import Event
from ..ipctrace import Recorder
from .text import TraceRecord, sedarwin_records, write_full, write_sedarwin

__all__ = ["Trace"]


class Trace(Recorder):
    """Who talks to whom, counted in the core; `records()` and `save()` put it into words.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     send = inbox.make_send(kernel.create_task("client")).send
        ...     kernel.trace.start()
        ...     send(b"1"); send(b"2")
        ...     [(r.event, r.task, r.owner, r.count) for r in kernel.trace.records()]
        [('send', 'client', 'server', 2), ('copy_send', 'client', 'server', 2)]
    """

    def records(self) -> list[TraceRecord]:
        """Return the distinct paths and their counts, in order of first occurrence.

        Events that found no room in the table belong to no path: `lost` counts them.
        """
        return [
            TraceRecord(
                Event(path["event"]).name.lower(),
                self.text(int(path["task"])),
                self.text(int(path["owner"])),
                int(path["kind"]),
                int(path["number"]),
                int(path["count"]),
            )
            for path in self.paths()
            if path["task"]
        ]

    def save(self, path: str | os.PathLike[str], form: str = "full") -> None:
        """Write the trace to a file.

        Args:
            path: of the file, which is replaced; not if there is an error.
            form: "full", or "sedarwin" for the three events that SEDarwin's ipctrace records.

        Raises:
            ValueError: another form.
            TraceError: a name that SEDarwin's form cannot say.
        """
        if form not in ("full", "sedarwin"):
            raise ValueError(f"form must be 'full' or 'sedarwin', not {form!r}")
        records, text = self.records(), io.BytesIO()
        if form == "sedarwin":
            write_sedarwin(text, sedarwin_records(records), str(path))
        else:
            write_full(text, records, lost=self.lost, name=str(path))
        Path(path).write_bytes(text.getvalue())
