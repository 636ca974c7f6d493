# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel records, and how the records leave it: `kernel.audit`."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from .. import _upcall
from .._ffi import ffi, lib
from ..enums import ObjectClass
from ..errors import check
from .drain import Drain
from .feed import WHEN_FULL, Sink, SinkFailure, SinkStats, Terms
from .record import Batch
from .sampler import Sampler
from .sampling import Strata
from .selection import ALL_CLASSES, Selection, Selector, Tasks, listed

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Audit"]

_FULL = {
    "drop": lib.PM_AUDIT_DROP,
    "block": lib.PM_AUDIT_BLOCK,
    "fail": lib.PM_AUDIT_FAIL,
    "abort": lib.PM_AUDIT_ABORT,
}


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

    def __init__(self, kernel: Kernel, threaded: bool, room: int) -> None:
        self._kernel = kernel
        self._everything, self._errors = False, True
        self._full = "drop"
        self._told: tuple[Any, ...] = ()
        self._lock = threading.RLock()  # of what is selected, and of the sample
        self._selector, self._sampler = Selector(kernel), Sampler(kernel)
        calls = self._set_options, self._before_draining, self._told_strata
        self._drain = Drain(kernel, threaded, room, *calls)
        self._number = _upcall.register(_weakly(self._drain.make_room))
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
            ValueError: an outcome, a class, a permission or an operation that there is not, an
                empty list, or more rules than there may be (31).
        """
        names = permissions.split() if isinstance(permissions, str) else permissions
        classes, permissions = listed("classes", classes), listed("permissions", names)
        others = {
            "labels": labels, "tasks": tasks, "routines": routines, "operations": operations
        }  # fmt: skip
        given = {name: listed(name, some) for name, some in others.items() if some is not None}
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

    @contextmanager
    def everything_meanwhile(self) -> Iterator[None]:
        """Record every operation in a `with` block; after it, what was selected before holds again.

        Rules keep their numbers, and what is sampled stays sampled. What is selected for classes in
        the block ends with it.

        Example:
            >>> from pympi import Kernel
            >>> with Kernel() as kernel:
            ...     kernel.audit.select("none")
            ...     with kernel.audit.everything_meanwhile():
            ...         inbox = kernel.create_task("server").allocate_port()
            ...         printer = inbox.make_send(kernel.create_task("client"))
            ...     printer.send(b"page")
            ...     len(kernel.audit.drain())
            2
        """
        options = self._everything, self._errors
        self._everything = self._errors = True
        self._set_options()
        with self._lock:
            chosen = self._selector.replace(ALL_CLASSES)
        try:
            yield
        finally:
            with self._lock:
                self._selector.replace(chosen)
            self._everything, self._errors = options
            self._set_options()

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
        forgotten, once the sinks were told of it.

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
        self._drain.tell()
        with self._lock:
            self._sampler.start(budget, per, one_in, strata, by_message=by_message, seed=seed)

    def keep_all(self) -> None:
        """Sample no more: keep all that is selected. Sinks are told of the strata before."""
        self._drain.tell()
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
        drains first, "fail" fails it with `AuditFull`, "abort" aborts the process.

        It is the strictest of what was set here and what sinks were attached with."""
        sinks = [feed.terms.when_full for feed in self._drain.feeds]
        return max((self._full, *sinks), key=WHEN_FULL.index)

    @when_full.setter
    def when_full(self, when_full: str) -> None:
        if when_full not in _FULL:
            raise ValueError(f"when_full must be one of {', '.join(_FULL)}, not {when_full!r}")
        self._full = when_full
        self._set_options()

    def _set_options(self) -> None:
        """Tell the core what is wanted, where that has changed."""
        drain = self._drain
        with drain.change:
            full = _FULL[self._when_ring_full()]
            options = self._everything, self._errors, full, drain.synchronous
            told = (*options, drain.halted)
            if told != self._told:
                check(lib.pm_audit_options(self._kernel.pointer, *options))
                check(lib.pm_audit_halt(self._kernel.pointer, drain.halted))
                self._told = told

    def _before_draining(self) -> None:
        """Learn labels that only records not yet drained keep known."""
        with self._lock:
            self._sampler.learn_labels()

    def _told_strata(self) -> dict[str, Any] | None:
        with self._lock:
            return self._sampler.told()

    def _when_ring_full(self) -> str:
        """What a full ring means. Where sinks have queues, it is emptied into these, which know."""
        drain = self._drain
        queued = drain.threaded and bool(drain.feeds) and self._full == "drop"
        return "block" if queued else self.when_full

    # ---- sinks ----

    @property
    def threaded(self) -> bool:
        """Whether a thread drains, and each sink has one of its own; else all is done by who asks.

        By default so, except where time is simulated: there the same calls give the same bytes.
        """
        return self._drain.threaded

    @threaded.setter
    def threaded(self, threaded: bool) -> None:
        if self._drain.feeds:
            raise ValueError("how sinks are fed cannot change while there are some")
        self._drain.threaded = threaded

    def attach(
        self, sink: Sink, *, when_full: str | None = None, high: int | None = None,
        low: int | None = None, patience: float | None = None,
    ) -> None:  # fmt: skip
        """Give all records to a sink from now on, as they come.

        A thread takes them out of the kernel's ring, and a thread of the sink's gives them to it in
        batches; between the two is a queue. In a simulation, and if `threaded` is off, they are
        given by `drain`, `flush`, by closing the kernel, and, if `when_full` is "block", when there
        is no room left.

        A sink that raises gets no more; `failures` says why. What is not said here is what the sink
        says itself, in attributes of the same name.

        Args:
            sink: called with batches; its `flush`, if it has one, where somebody waits for all to
                be written, and each `interval` seconds, if it has that; its `close` at the end.
                While records are sampled its `strata`, if it has one, is called with an object of
                what was counted, before `flush`, when it is detached, and at the end.
            when_full: what happens while the sink is behind. "drop", the default: whole batches
                are lost, counted, and told of by a loss record. "block": operations that are
                recorded wait. "fail": they are refused, with `AuditFull`, also once the sink has
                failed, until it is detached. "abort": the process is aborted, also if it fails.
            high: how many records may wait; 262144, which are 27 MB, unless said.
            low: down to how many it is behind, once `high` was reached; by default half of it.
            patience: seconds after which a sink that finishes nothing is given up, where anything
                waits for it; 30 unless said.

        Raises:
            ValueError: an unknown when_full, or marks that are not 0 <= low < high. It is attached
                already; or, if it has a `close`, to another kernel.
            TypeError: it cannot be called.
            RuntimeError: no thread can be started.
        """
        said = {"when_full": when_full, "high": high, "low": low, "patience": patience}
        self._drain.attach(sink, Terms.of(sink, **said))

    def detach(self, sink: Sink) -> None:
        """Give a sink what there is, and then no more; it is not closed.

        In a call of a sink it gets nothing more at all. One that has failed gets nothing anyway.

        Raises:
            ValueError: it was not attached.
        """
        self._drain.detach(sink)

    def flush(self, timeout: float | None = None) -> None:
        """Give the sinks the records that there are, and wait until they have written them.

        A sink that hangs is given up: see `attach`. In a call of a sink this does nothing, since
        it would wait for itself.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: they have not, so far.
        """
        self._drain.flush(timeout)

    @property
    def sinks(self) -> Sequence[SinkStats]:
        """How each sink is doing."""
        return self._drain.stats

    @property
    def failures(self) -> Sequence[SinkFailure]:
        """Why sinks get no more records, the oldest of the last ones first."""
        return tuple(self._drain.failures)

    # ---- records ----

    @property
    def note(self) -> Callable[[str], int]:
        """A callable for servers that record what they are asked: it takes what that is about, and
        returns the number for the record of the operation `service`, which is its `service` then.

        Words for the last 32,768 are kept.
        """
        return self._drain.words.trail.note

    def drain(self) -> npt.NDArray[Any]:
        """Take the records that there are, and return them: an array of dtype `RECORD`.

        Sinks get these too. While there are sinks, they may have got others before, which are not
        returned unless `keeps` is set.

        Raises:
            RuntimeError: in a call of a sink.
        """
        return self._drain.take()

    @property
    def keeps(self) -> bool:
        """Whether records that sinks got are kept for `drain` as well; they fill memory until then.

        For programs that drain themselves, so that sinks may be attached beside.
        """
        return self._drain.keeps

    @keeps.setter
    def keeps(self, keeps: bool) -> None:
        self._drain.keeps = keeps

    def batch(self, records: npt.NDArray[Any]) -> Batch:
        """Return records with what their numbers stand for; iterate over it for words.

        Labels nobody uses any more are known until records are next drained.
        """
        return self._drain.words.batch(records)

    def task_ends(self, number: int, name: str) -> None:
        """Remember what a task was called, of which there may be records. The kernel does this."""
        self._drain.words.remember(number, name)

    # ---- state ----

    @property
    def stats(self) -> dict[str, int]:
        """Counts: records written by the kernel, lost for want of room, and drained."""
        kernel = self._kernel.stats()
        return {
            "records": kernel["audit_records"],
            "lost": kernel["audit_lost"],
            "drained": self._drain.taken,
        }

    @property
    def may_wait(self) -> bool:
        """Whether this thread may wait for one that closes the kernel.

        Not in a sink, which that one may wait for, nor where fork() left it behind.
        """
        return self._drain.may_wait

    def close(self) -> None:
        """Give the sinks what there is, and close them. The kernel does this.

        A sink that hangs is given up, and `failures` says so. In a child of fork() there is nothing
        to drain, and the records are the parent's to write.

        Raises:
            KeyboardInterrupt: Ctrl-C came meanwhile. While `running`, the kernel must not be freed.
        """
        try:
            self._drain.close()
        finally:
            lib.pm_audit_set_drainer(self._kernel.pointer, ffi.NULL, ffi.NULL)
            _upcall.forget(self._number)

    @property
    def running(self) -> bool:
        """Whether a thread of the audit uses the kernel."""
        return self._drain.running
