# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel records, and how the records leave it: `kernel.audit`."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import _upcall
from .._ffi import ffi, lib
from ..enums import ObjectClass, Operation
from ..errors import ForkedError, MachError, check, exception
from .names import NameTrail
from .record import RECORD, Batch
from .sampler import Sampler
from .sampling import Strata
from .selection import Selection, Selector, Tasks

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Audit"]

Sink = Callable[[Batch], object]

# From the mildest to the strictest: among several sinks the strictest holds.
_FULL = {
    "drop": lib.PM_AUDIT_DROP,
    "block": lib.PM_AUDIT_BLOCK,
    "fail": lib.PM_AUDIT_FAIL,
    "abort": lib.PM_AUDIT_ABORT,
}
_SIDS = ("real_sid", "effective_sid", "object_sid", "peer_sid")
_BATCH = 4096


def _weakly(method: Callable[[], int]) -> Callable[[], int]:
    """Return a callable that does not keep the object whose method it calls."""
    reference = weakref.WeakMethod(method)

    def call() -> int:
        found = reference()
        return 1 if found is None else found()

    return call


class Audit:
    """The audit of a kernel.

    By default denials are recorded, except where a policy says not to (dontaudit), and calls that
    fail for another reason than access: malformed messages, stale names, limits. What is not
    selected costs nothing.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel() as kernel:
        ...     kernel.audit.select(outcome="granted", classes="mach_port", permissions="send")
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     inbox.make_send(kernel.create_task("client")).send(b"hello", msgh_id=7)
        ...     kernel.audit.drain()["msgh_id"].tolist()
        [7]
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lock = threading.RLock()
        self._sinks: list[Sink] = []
        self._pending: list[npt.NDArray[Any]] = []
        self._everything, self._errors = False, True
        self._full = "drop"
        self._synchronous = False
        self._selector, self._sampler = Selector(kernel), Sampler(kernel)
        self._drained = 0
        self._trail = NameTrail()
        self._number = _upcall.register(_weakly(self._make_room))
        context = _upcall.context(self._number)
        check(lib.pm_audit_set_drainer(kernel.pointer, _upcall.DRAINER, context))

    # ---- selection ----

    def select(
        self, outcome: str = "denied", classes: str | Iterable[str] | None = None,
        permissions: str | Iterable[str] | None = None, *,
        labels: str | Iterable[str] | None = None, tasks: Tasks | None = None,
        routines: str | Iterable[str] | None = None,
        operations: str | Iterable[str] | None = None,
    ) -> int | None:  # fmt: skip
        """Choose what is recorded from now on.

        With classes and permissions alone it is chosen for these classes, whoever is concerned;
        without classes for all, in the place of everything that was chosen before. With anything
        else it is a rule, and stands beside: what any rule wants is recorded. In patterns * stands
        for any characters and ? for one.

        Args:
            outcome: of the operation: "denied", "granted", "all" or "none".
            classes: to which this applies; the rest keeps its selection. None: all.
            permissions: to which this applies, of these classes; others are not recorded. None:
                all.
            labels: patterns: of who does it or of what it is done to, as a whole or one of its
                values ("te/u:r:app*"). Labels that come into being later are no exception.
            tasks: who does it: patterns of names, numbers, or tasks; later ones as well.
            routines: patterns of what a message calls: "submit", or with the interface
                "printing.submit"; of interfaces that come later as well. Without classes.
            operations: names, as records have them: "send", "give", "method" ...

        Returns:
            The number of the rule, for `deselect`; None where it is none.

        Raises:
            ValueError: an outcome, a class, a permission or an operation that there is not, or
                more rules than there may be (31).
        """
        others = {
            "labels": labels, "tasks": tasks, "routines": routines, "operations": operations
        }  # fmt: skip
        given: dict[str, Any] = {name: some for name, some in others.items() if some is not None}
        if permissions is not None and classes is None and not given.get("routines"):
            raise ValueError("permissions belong to a class: name it in classes")
        with self._lock:
            if given:
                return self._selector.rule(outcome, classes, permissions, **given)
            if classes is None:
                self._selector.everywhere(outcome)
            else:
                self._selector.classes(outcome, classes, permissions)
        return None

    def deselect(self, rule: int) -> None:
        """Drop a rule that `select` or `transfers` made.

        Raises:
            ValueError: there is none of that number.
        """
        with self._lock:
            self._selector.remove(rule)

    @property
    def selection(self) -> Selection:
        """What is recorded now; `str()` of it says so in words."""
        with self._lock:
            chosen = self._selector
            return Selection(
                chosen.outcomes(), chosen.rules, self._everything, self._errors, self._sampler.words
            )

    def classes_came(self, classes: Iterable[ObjectClass]) -> None:
        """Let rules about routines know of the classes of a new interface. The kernel does this."""
        with self._lock:
            self._selector.classes_came(classes)

    def everything(self, *, errors: bool = True) -> None:
        """Record every operation, denied ones even where a policy says not to.

        Args:
            errors: also calls that fail for other reasons than access.
        """
        self._everything, self._errors = True, errors
        self._set_options()
        self.select("all")

    def only_denials(self, *, errors: bool = True) -> None:
        """Record what is recorded by default: denials, except where a policy says not to, and the
        acts of name servers.

        Args:
            errors: also calls that fail for other reasons than access.
        """
        self._everything, self._errors = False, errors
        self._set_options()
        with self._lock:
            self._selector.default()

    def transfers(self, *, errors: bool = True) -> int:
        """Record the default, and beside it whatever gives, takes or installs a right.

        Args:
            errors: also calls that fail for other reasons than access.

        Returns:
            The number of the rule, for `deselect`.
        """
        self.only_denials(errors=errors)
        with self._lock:
            return self._selector.transfers()

    # ---- sampling ----

    def sample(
        self, budget: int | None = None, *, per: float = 1.0, one_in: int | None = None,
        strata: int = 4096, by_message: bool = False, seed: int | None = None,
    ) -> None:  # fmt: skip
        """Keep, of what is selected, what is rare or matters, and of the rest what the budget has.

        Kept always are the first record of each stratum (labels of who does it, of the object and
        of the sender; class and permissions), rights that change hands, what is done to tasks and
        labels, acts of name servers, denials, errors and losses. Of the rest one in so many is
        kept, by chance; `pympi.audit.estimate` makes totals of it. What was counted before is
        forgotten.

        Args:
            budget: of records by chance in `per` seconds of the kernel's clock, on average; a
                burst may go over it once, by a quarter for each time the rate had to be halved.
            per: seconds.
            one_in: instead of a budget, from 1 to 65535: how many one stands for.
            strata: that are told apart; others are counted together. From 1 to 2**20, of some 100
                bytes each.
            by_message: also tell messages of different msgh_id apart, where there may be many.
            seed: of chance. None: an unknown one; 0 under a simulated clock, where the same seed
                makes the same trace.

        Raises:
            ValueError: numbers out of range, or not one of budget and one_in.
            LimitExceeded: no memory for so many strata; nothing has changed.
        """
        with self._lock:
            self._sampler.start(budget, per, one_in, strata, by_message=by_message, seed=seed)

    def keep_all(self) -> None:
        """Sample no more: keep all that is selected."""
        with self._lock:
            self._sampler.stop()

    def strata(self) -> Strata:
        """Return what was seen and kept since sampling began; none where nothing is sampled.

        Example:
            >>> from pympi import Kernel
            >>> with Kernel() as kernel:
            ...     kernel.audit.select("granted", "mach_port", "send")
            ...     kernel.audit.sample(100)
            ...     inbox = kernel.create_task("server").allocate_port()
            ...     inbox.make_send(kernel.create_task("client")).send(b"page")
            ...     [(s.operation, s.asked, s.seen, s.bytes) for s in kernel.audit.strata()]
            [('send', ('send', 'copy_send'), 1, 4)]
        """
        with self._lock:
            return self._sampler.strata()

    @property
    def when_full(self) -> str:
        """What becomes of an operation whose record finds no room: "drop" counts the loss, "block"
        drains first, "fail" fails it with `AuditFull`, "abort" aborts the process."""
        return self._full

    @when_full.setter
    def when_full(self, when_full: str) -> None:
        if when_full not in _FULL:
            raise ValueError(f"when_full must be one of {', '.join(_FULL)}, not {when_full!r}")
        self._full = when_full
        self._set_options()

    def _set_options(self) -> None:
        options = self._everything, self._errors, _FULL[self._full], self._synchronous
        check(lib.pm_audit_options(self._kernel.pointer, *options))

    # ---- records ----

    @property
    def note(self) -> Callable[[str], int]:
        """A callable for servers that record what they are asked: it takes what that is about, and
        returns the number for the record of the operation `service`, which is its `service` then.

        Words for the last 32,768 are kept.
        """
        return self._trail.note

    def attach(self, sink: Sink) -> None:
        """Give all records to a sink from now on, when they are drained.

        They are drained by `drain`, `flush`, by closing the kernel, and, if `when_full` is "block",
        when there is no room left. Among several sinks the strictest `when_full` holds.
        """
        wanted = getattr(sink, "when_full", "drop")
        self.when_full = max((wanted, self._full), key=list(_FULL).index)
        self._sinks.append(sink)

    def detach(self, sink: Sink) -> None:
        """Drain, and give a sink no more."""
        self.flush()
        self._sinks.remove(sink)

    def drain(self) -> npt.NDArray[Any]:
        """Take the records that there are, and return them: an array of dtype `RECORD`."""
        with self._lock:
            self._collect()
            taken, self._pending = self._pending, []
        return np.concatenate([*taken, np.zeros(0, RECORD)])

    def flush(self) -> None:
        """Hand the records that there are to the sinks, and let these write them out."""
        with self._lock:
            self._collect()
            for sink in self._sinks:
                getattr(sink, "flush", lambda: None)()
            if self._sinks:
                self._pending = []

    def batch(self, records: npt.NDArray[Any]) -> Batch:
        """Return records with what their numbers stand for; iterate over it for words.

        Labels nobody uses any more are known until records are next drained.
        """
        sids = np.unique(np.concatenate([records[field] for field in _SIDS]))
        numbers = np.unique(records["task"]).tolist()
        known = {n: self._kernel.tasks.get(n) for n in numbers}
        tasks = {n: task.name for n, task in known.items() if task is not None}
        classes = {
            n: self._kernel.object_class(n) for n in np.unique(records["tclass"]).tolist() if n
        }
        asked = records["name"][records["operation"] == Operation.SERVICE]
        services = {n: name for n in asked.tolist() if (name := self._trail.name(n))}
        return Batch(records, dict(self._labels(sids.tolist())), tasks, classes, services)

    def _labels(self, sids: list[int]) -> Iterable[tuple[int, str]]:
        for sid in sids:
            try:
                yield sid, self._kernel.label(sid)
            except MachError:
                continue

    def _collect(self) -> None:
        """Take all records out of the ring, to the sinks and to those pending for drain()."""
        count = _BATCH
        while count == _BATCH:
            records = np.zeros(_BATCH, RECORD)
            room = ffi.from_buffer("struct pm_audit_record[]", records, require_writable=True)
            self._sampler.learn_labels()
            count = lib.pm_audit_drain(self._kernel.pointer, room, _BATCH)
            if count < 0:
                raise exception(count, "drain()")
            if count:
                self._distribute(records[:count])

    def _distribute(self, records: npt.NDArray[Any]) -> None:
        self._drained += len(records)
        self._pending.append(records)
        if self._sinks:
            batch = self.batch(records)
            for sink in self._sinks:
                sink(batch)

    def _make_room(self) -> int:
        with self._lock:
            self._collect()
            if self._sinks:
                self._pending = []
        return 0

    # ---- state ----

    @property
    def stats(self) -> dict[str, int]:
        """Counts: records written by the kernel, lost for want of room, and drained."""
        kernel = self._kernel.stats()
        return {
            "records": kernel["audit_records"],
            "lost": kernel["audit_lost"],
            "drained": self._drained,
        }

    def close(self) -> None:
        """Drain into the sinks, and close those that can be closed. The kernel does this.

        In a child of fork() there is nothing to drain, and the records are the parent's to write.
        """
        try:
            self.flush()
        except ForkedError:
            self._sinks = []
        finally:
            lib.pm_audit_set_drainer(self._kernel.pointer, ffi.NULL, ffi.NULL)
            _upcall.forget(self._number)
            for sink in self._sinks:
                getattr(sink, "close", lambda: None)()
            self._sinks = []
