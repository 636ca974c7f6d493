# SPDX-License-Identifier: BSD-2-Clause
"""What of a watch the bearer of a label is shown, as long as it watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from ..audit import Watch, WatchRecord
from .view import Subject

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Onlooker"]

# What of an object's label is asked, by class; of all others, ports and their methods, this:
_PORT = ("mach_port", "get_attributes")
_OBJECTS = {"mach_task": ("mach_task", "observe"), "service": ("service", "list")}
_UNNAMED = "sid:"  # a label that went before it could be read


class Onlooker:
    """Shows records as a snapshot shows objects: those of tasks and ports that are seen.

    Answers are remembered as long as the policy stays.

    Args:
        kernel: that is watched.
        subject: makes who asks anew, for as long as one policy.
        allowed: raises if the subject may not look at the kernel any more.
    """

    def __init__(
        self, kernel: Kernel, subject: Callable[[], Subject], allowed: Callable[[Subject], None]
    ) -> None:
        self._kernel = kernel
        self._new_subject = subject
        self._allowed = allowed
        self.renew()

    def renew(self) -> None:
        """Ask the policy anew, if it is another one.

        Raises:
            AnswerError: it lets the subject look no more.
        """
        epoch = self._kernel.policies.epoch
        if epoch != getattr(self, "_epoch", None):
            self._subject, self._epoch = self._new_subject(), epoch
            self._allowed(self._subject)

    def watch(self, words: Iterable[str]) -> Watch:
        """Return a watch that shows what the subject sees.

        Raises:
            ValueError: see `Kernel.watch`.
        """
        return Watch(self._kernel, words, seen=self.sees)

    def sees(self, record: WatchRecord) -> WatchRecord | None:
        """Return a record without what the subject may not see; None: it may not see any of it."""
        labels = (record.subject, record.real_subject)
        if not all(self._may(label, "mach_task", "observe") for label in labels):
            return None
        if record.tclass and record.tclass != "kernel":
            tclass, permission = _OBJECTS.get(record.tclass, _PORT)
            if not self._may(record.object, tclass, permission):
                return None
        return msgspec.structs.replace(record, **self._hidden(record))

    def _hidden(self, record: WatchRecord) -> dict[str, object]:
        """Return fields about others than the subject and the object, if these are not seen."""
        hidden: dict[str, object] = {}
        if record.receiver and not self._sees_task(record.receiver):
            hidden |= {"receiver": 0, "receiver_name": ""}
        if record.peer != "-" and not self._may(record.peer, "mach_task", "observe"):
            hidden["peer"] = "-"
        # Of a service the port is another object, of an error nobody knows the label.
        if record.tclass in ("", "service") and len(self._kernel.policies):
            hidden |= {"port": 0} if record.tclass else {"port": 0, "name": 0, "provenance": 0}
        return hidden

    def _sees_task(self, number: int) -> bool:
        task = self._kernel.tasks.get(number)
        return task is not None and self._may(self._label_of(task), "mach_task", "observe")

    @staticmethod
    def _label_of(task: object) -> str:
        try:
            return str(task.label)  # type: ignore[attr-defined]
        except Exception:  # it ends just now
            return _UNNAMED

    def _may(self, label: str, tclass: str, permission: str) -> bool:
        return self._subject.may("" if label.startswith(_UNNAMED) else label, tclass, permission)
