# SPDX-License-Identifier: BSD-2-Clause
"""How records get from the kernel's ring to the sinks: `Drain`.

With the first sink a thread starts, which waits for records (in the core, without the GIL), takes
them out in batches and gives each batch to every sink's feed. Nobody else takes any out then: who
finds the ring full, or wants all to be written, has the thread do it, and waits. So Ctrl-C, which
Python raises in the main thread alone, ends a wait and never what is done; who waits holds no lock
of Python's, since taking one with a condition can be interrupted halfway.

What is locked, and in what order. The *turn* is held while records are taken out and given to
feeds, so each sink sees them in order; under it the core is called, and a feed's own lock is
taken, never the other way round. Nobody waits for a sink with the turn held, except for a sink in
place, which is called in it. Who waits for a sink that is behind has nothing in hand. A thread in
a policy's decision, or in a sink, does not wait for sinks that are behind, since they may be
waiting for it: there the queue takes up to twice its high mark, and then the operation fails; and
the thread that drains leaves its own wait for that. A thread that takes records out and is
interrupted by itself (a signal's handler, a sink in place) does not begin anew.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import count, islice
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .. import _upcall
from .._ffi import ffi, lib
from ..enums import Operation
from ..errors import KernelClosed, MachError, exception
from .feed import (
    Feed,
    InPlace,
    Mark,
    Sink,
    SinkFailure,
    SinkStats,
    Terms,
    in_sink,
    leave_signals_to_others,
)
from .names import NameTrail
from .record import RECORD, Batch

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Drain", "Words"]

T = TypeVar("T")
Marks = list[tuple[InPlace, Mark]]

_log = logging.getLogger("pympi.audit")
_LARGEST = 1 << 16  # records of a batch
_ENOUGH = 4096  # records that are worth waking up for
_GATHER = 20_000_000  # nanoseconds in which a few records may become enough
_FOREVER = -1
_TRIES = 16  # to make room, where sinks in place fill it again
_FAILURES = 64  # that are remembered
_REMEMBERED = 16  # batches for which a label is
_LOOK = 0.25  # seconds after which who waits for the thread's end looks again
_NAMES = 1 << 16  # of tasks that are remembered
_SLOTS = 1 << 16
_SIDS = ("real_sid", "effective_sid", "object_sid", "peer_sid")


class Words:
    """What the numbers in records stand for.

    Names of tasks are remembered, so they are known of tasks that are gone.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._names: dict[int, str] = {}
        self._table = np.zeros(_SLOTS, np.uint32)
        self._lock = threading.Lock()  # of the table
        self._known: dict[int, str] = {}
        self._epoch = self._uses = 0
        self.trail = NameTrail()

    def batch(self, records: npt.NDArray[Any]) -> Batch:
        """Return records with what their numbers stand for."""
        labels = self._labels(self._distinct(records, *_SIDS))
        tasks = self._tasks(self._distinct(records, "task"))
        tclasses = self._distinct(records, "tclass")
        classes = {number: self._kernel.object_class(number) for number in tclasses}
        asked = records["name"][records["operation"] == Operation.SERVICE]
        services = {n: name for n in set(asked.tolist()) if (name := self.trail.name(n))}
        return Batch(records, labels, tasks, classes, services)

    def _distinct(self, records: npt.NDArray[Any], *fields: str) -> list[int]:
        """Return the numbers in some fields, in order, without 0.

        Each goes to a slot of a table that its bits say, and is looked for there: sorting all of
        them would take as long as everything else together.
        """
        found: set[int] = set()
        with self._lock:
            for field in fields:
                numbers = np.ascontiguousarray(records[field])
                slots = (numbers ^ (numbers >> 16)) & (_SLOTS - 1)
                self._table[slots] = numbers
                found.update(np.unique(numbers[self._table[slots] != numbers]).tolist())
                found.update(self._table[np.flatnonzero(self._table)].tolist())
                self._table[slots] = 0
        return sorted(found - {0})

    def _labels(self, sids: Iterable[int]) -> dict[int, str]:
        """Return labels by SID, remembered from batch to batch.

        Not for long: another policy shows another part of a label, and a SID that has been given
        out anew 4096 times comes back.
        """
        epoch = self._kernel.policies.epoch
        self._uses -= 1
        if epoch != self._epoch or self._uses <= 0:
            self._known, self._epoch, self._uses = {}, epoch, _REMEMBERED
        known, label = self._known, self._kernel.label
        for sid in sids:
            if sid not in known:
                with suppress(MachError):  # nobody has used it for long
                    known[sid] = label(sid)
        return {sid: known[sid] for sid in sids if sid in known}

    def _tasks(self, numbers: Iterable[int]) -> dict[int, str]:
        found = {}
        for number in numbers:
            name = self._names.get(number)
            if name is None and (task := self._kernel.tasks.get(number)) is not None:
                name = self.remember(number, task.name)
            if name is not None:
                found[number] = name
        return found

    def remember(self, task: int, name: str) -> str:
        """Remember the name of a task; with too many, the oldest ones are forgotten."""
        if len(self._names) >= _NAMES:
            for number in list(islice(self._names, _NAMES // 2)):
                self._names.pop(number, None)
        self._names[task] = name
        return name


class _Errand(Generic[T]):
    """Something that the drain's thread does for another, which waits for it.

    Args:
        call: what; the turn is held.
        urgent: the drain's thread must not wait for sinks before.
    """

    def __init__(self, call: Callable[[], T], *, urgent: bool) -> None:
        self._call, self.urgent = call, urgent
        self._done = threading.Lock()  # a plain one: Ctrl-C leaves it as it is
        self._done.acquire()
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()

    def wait(self) -> T:
        """Wait until it is done; return what it returned, or raise what it raised."""
        self._done.acquire()
        if self._error:
            raise self._error
        return self._results[0]


class Drain:
    """Takes records out of a kernel's ring and gives them to sinks.

    Args:
        kernel: whose.
        threaded: a thread drains, and each sink has one; else all is done in the thread that asks.
        room: of the ring, in records.
        options: called when what the core is told of the sinks has changed.
        before: called each time before records are taken out.
        strata: returns what sinks are told of strata; None where nothing is sampled.

    Attributes:
        words (Words): what numbers stand for.
        threaded (bool): as given; may be changed while there are no sinks.
        failures (deque[SinkFailure]): of sinks, the last ones.
        taken (int): how many records were taken out.
        keeps (bool): whether what sinks get is kept for `take` as well.
        change: locked while it changes which sinks there are, and what the core is told of them.
    """

    _attaching = threading.RLock()  # of a sink to this kernel or another

    def __init__(
        self, kernel: Kernel, threaded: bool, room: int, options: Callable[[], None],
        before: Callable[[], None], strata: Callable[[], Mapping[str, Any] | None],
    ) -> None:  # fmt: skip
        self._kernel = kernel
        self.words = Words(kernel)
        self.threaded = threaded
        self.failures: deque[SinkFailure] = deque(maxlen=_FAILURES)
        self.taken, self.keeps = 0, False
        self._room, self._enough = room, max(1, min(_ENOUGH, room // 4))
        self._options, self._before, self._strata = options, before, strata
        self._process, self._number = os.getpid(), next(_numbers)
        self._turn = threading.RLock()
        self._taking = False  # guarded by the turn
        self._pending: list[npt.NDArray[Any]] = []  # likewise: what no sink was there for
        self._raw: npt.NDArray[Any] | None = None  # likewise: what is being put into words
        self._due: deque[tuple[InPlace, Batch]] = deque()  # likewise
        self._feeds: tuple[InPlace, ...] = ()
        self._ends = False
        self._failed: deque[InPlace] = deque(maxlen=_FAILURES)  # whose threads may still close them
        self._broken: tuple[InPlace, ...] = ()  # that failed, and nothing is done without them
        self.change = threading.RLock()
        self._thread: threading.Thread | None = None
        self._end, self._ended = Mark(), Mark()  # of the thread: wanted, and reached
        self._errands: deque[_Errand[Any]] = deque()
        self._serves = threading.Event()  # while the thread does errands

    # ---- sinks ----

    @property
    def feeds(self) -> tuple[InPlace, ...]:
        """One for each sink that gets records."""
        return self._feeds

    @property
    def stats(self) -> tuple[SinkStats, ...]:
        return tuple(feed.stats for feed in (*self._feeds, *self._broken))

    def attach(self, sink: Sink, terms: Terms) -> None:
        """Give records to a sink from now on."""
        self.check_process()
        if not callable(sink):
            raise TypeError(f"a sink is called with batches, which {sink!r} cannot be")
        pointer = self._kernel.pointer
        self._hand_over()
        with Drain._attaching, self.change:
            if any(_same(feed.sink, sink) for feed in self._feeds):
                raise ValueError(f"{sink!r} is attached already")
            self._claim(sink)
            self._start(pointer)
            feed = (Feed if self.threaded else InPlace)(sink, terms, _weakly(self._changed))
            _fed[feed] = self._number
            self._feeds += (feed,)
            self._options()

    def _claim(self, sink: Sink) -> None:
        """Have a sink know whose records come.

        Raises:
            ValueError: it is another kernel's. What has no `close` may be that of several.
        """
        if hasattr(sink, "close"):
            for feed, number in list(_fed.items()):
                if number != self._number and not feed.closed and _same(feed.sink, sink):
                    raise ValueError(
                        f"{sink!r} is attached to another kernel: detach it there first, "
                        "or make one for each"
                    )
        if attached := getattr(sink, "attached", None):
            attached(self._number)

    def _hand_over(self) -> None:
        """Give the sinks there are what is theirs alone."""
        if self._feeds and not in_sink():
            self._have_done(self._to_sinks, urgent=True)

    def _start(self, pointer: Any) -> None:
        _at_exit.add(self)
        if self.threaded and self._thread is None:
            what = pointer, weakref.ref(self), self._end, self._ended
            thread = threading.Thread(target=_drain, args=what, name="audit", daemon=True)
            self._thread = thread  # before it runs: nothing is freed under it from here on
            try:
                thread.start()
            except RuntimeError:
                self._thread = None
                raise

    def detach(self, sink: Sink) -> None:
        """Give a sink what there is, unless a sink asks, and then no more."""
        self.check_process()
        feed = next((f for f in (*self._feeds, *self._broken) if _same(f.sink, sink)), None)
        if feed is None:
            if failed := [each for each in self._failed if _same(each.sink, sink)]:
                failed[-1].settle()
                return
            raise ValueError(f"{sink!r} is not attached")
        self.flush()
        with self.change:
            self._forget(feed)
        feed.release()

    def _forget(self, feed: InPlace) -> None:
        self._feeds = tuple(known for known in self._feeds if known is not feed)
        self._broken = tuple(known for known in self._broken if known is not feed)
        self._options()

    def _changed(self, feed: InPlace) -> None:
        """Note that a sink failed, fell behind or caught up."""
        if os.getpid() != self._process:  # in a child nothing is done any more
            return
        with self.change:
            if feed.failure and feed in self._feeds:
                self.failures.append(feed.failure)
                self._failed.append(feed)
                self._feeds = tuple(known for known in self._feeds if known is not feed)
                if feed.terms.when_full in ("fail", "abort"):
                    self._broken += (feed,)
            # Once: between the two anything could be done. The kernel may be closed, where Ctrl-C
            # kept who closed it from waiting for the sink.
            with suppress(KernelClosed):
                self._options()

    @property
    def halted(self) -> bool:
        """Whether there is a sink without which nothing shall be done, and that cannot take it."""
        strict = [feed for feed in self._feeds if feed.terms.when_full in ("fail", "abort")]
        if self._ends and (strict or self.synchronous):
            return True
        failing = (feed for feed in strict if feed.terms.when_full == "fail")
        return bool(self._broken) or any(feed.behind for feed in failing)

    @property
    def synchronous(self) -> bool:
        """Whether there is a sink that wants every record before the operation returns."""
        return any(feed.synchronous for feed in self._feeds)

    # ---- records ----

    def take(self) -> npt.NDArray[Any]:
        """Take out what there is, give it to the sinks, and return it."""
        self.check_process()
        if in_sink():
            raise RuntimeError("a sink cannot drain: it is what is drained into")
        self._have_done(self._set_aside)
        with self._turn:
            pending, self._pending = self._pending, []
        return np.concatenate([*pending, np.zeros(0, RECORD)])

    def _set_aside(self) -> None:
        self._pending += self._take()

    def flush(self, timeout: float | None = None) -> None:
        """Give the sinks what there is, and wait until they have written it."""
        self.check_process()
        if in_sink():
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        marks = self._have_done(self._marked, urgent=True)
        late = [f.name for f, mark in marks if not f.wait(mark, deadline) and not f.failure]
        if late:
            raise TimeoutError(f"not done in {timeout:g} s, and going on: {', '.join(late)}")

    def _marked(self) -> Marks:
        """Give the sinks what there is; return what is set when they have written it."""
        self._to_sinks()
        self._tell()
        return [(feed, feed.mark()) for feed in self._feeds]

    def tell(self) -> None:
        """Tell the sinks of the strata, where records are sampled, after what there is of these."""
        if not in_sink() and self._feeds:
            self._have_done(self._tell, urgent=True)

    def _tell(self) -> None:
        if self._feeds and not in_sink() and (strata := self._strata()):
            for feed in self._feeds:
                feed.tell(strata)

    def make_room(self) -> int:
        """Take records out of the full ring, or because a sink wants each at once; return 0 if that
        made room. Who is in a sink does not wait for any, which may be the one that he is in."""
        urgent = in_sink() or _upcall.deciding()
        if urgent and (not self.threaded or any(feed.full() for feed in self._feeds)):
            return 1
        made_room, marks = self._have_done(self._emptied, urgent=urgent)
        for feed, mark in () if in_sink() else marks:
            feed.pass_by(mark)
        return 0 if made_room else 1

    def _empty(self) -> bool:
        for _ in range(_TRIES):
            if not self._to_sinks():
                return False
            if not self._filled_again():
                return True
        return False

    def _emptied(self) -> tuple[bool, Marks]:
        """Empty the ring; return whether that made room, and what synchronous sinks are to pass."""
        made_room = self._empty()
        synchronous = [feed for feed in self._feeds if feed.synchronous]
        return made_room, [(feed, feed.mark(flushes=False)) for feed in synchronous]

    def _filled_again(self) -> bool:
        """Whether there is no room again: other threads did so much, or a sink in place itself,
        which may have no end."""
        waiting = lib.pm_audit_wait(self._kernel.pointer, 0, ffi.NULL)
        return not self.threaded and bool(self._feeds) and waiting > self._room // 2

    def _wait_for_room(self, unless: Callable[[], bool] = bool) -> None:
        for feed in self._feeds:
            feed.room(unless)

    def _to_sinks(self) -> bool:
        """Take out what there is for the sinks; where there is none, to be asked for."""
        if self._taking:
            return False
        taken = self._take()
        if self.keeps or not self._feeds:
            self._pending += taken
        return True

    def _take(self) -> list[npt.NDArray[Any]]:
        """Take out what there is, give it to the sinks, and return it. The turn is held."""
        if self._taking:
            return []
        self._taking = True
        try:
            taken: list[npt.NDArray[Any]] = []
            while self._taken_some(taken):
                continue
            return taken
        finally:
            self._taking = False

    def _taken_some(self, taken: list[npt.NDArray[Any]]) -> bool:
        """Take out a batch; return whether there may be more."""
        self._distribute()
        if self._raw is not None:  # Ctrl-C came before these were in words
            self._give(self._raw)
        pointer = self._kernel.pointer
        waiting = lib.pm_audit_wait(pointer, 0, ffi.NULL)
        records = np.empty(min(max(waiting, 0) + 1, _LARGEST), RECORD)  # one may tell of a loss
        room = ffi.from_buffer("struct pm_audit_record[]", records, require_writable=True)
        self._before()
        count = lib.pm_audit_drain(pointer, room, len(records))
        if count < 0:
            raise exception(count, "drain()")
        if count:
            self.taken += count
            taken.append(records[:count])
            self._give(records[:count])
        return count == _LARGEST

    def _give(self, records: npt.NDArray[Any]) -> None:
        if feeds := self._feeds:
            self._raw = records
            batch = self._worded(records)
            due = [(feed, batch) for feed in feeds]
            self._raw = None
            self._due.extend(due)
            self._distribute()
        for feed in self._broken:  # which counts what it does not get
            feed.put(Batch(records, {}, {}, {}))

    def _worded(self, records: npt.NDArray[Any]) -> Batch:
        """Return a batch; without words rather than none: these records are nowhere else.

        All sinks get the same one, so none can write into its records.
        """
        records = records.view()
        records.flags.writeable = False
        try:
            return self.words.batch(records)
        except Exception:
            _log.exception("%d audit records could not be put into words", len(records))
            return Batch(records, {}, {}, {})

    def _distribute(self) -> None:
        """Give batches to the feeds; after Ctrl-C, those that it kept from it."""
        while self._due:
            feed, batch = self._due.popleft()
            feed.put(batch)

    # ---- the thread ----

    def _have_done(self, call: Callable[[], T], *, urgent: bool = False) -> T:
        """Have the thread do something with the turn held; where there is none, do it here.

        Args:
            call: what; it has the sinks' feeds get records, or takes some out.
            urgent: without waiting for sinks that are behind.
        """
        if self.running and self._serves.is_set():
            errand = _Errand(call, urgent=urgent)
            self._errands.append(errand)
            lib.pm_audit_wake(self._kernel.pointer)
            for feed in self._feeds if urgent else ():
                feed.stir()
            if self._serves.is_set() or not self._taken_back(errand):
                return errand.wait()
        if not urgent:
            self._wait_for_room()
        with self._turn:
            return call()

    def _taken_back(self, errand: _Errand[Any]) -> bool:
        """Whether nobody does an errand that was given to the thread right before its end."""
        try:
            self._errands.remove(errand)
        except ValueError:
            return False
        return True

    def _hurried(self) -> bool:
        return self._end.is_set() or any(errand.urgent for errand in tuple(self._errands))

    def serve(self) -> None:
        """Do errands from now on. In the thread."""
        self._serves.set()

    def run(self) -> None:
        """Wait a little for more records, and for the sinks; do errands, and give what there is."""
        if not self._errands:
            lib.pm_block_audit_wait(self._kernel.pointer, self._enough, _GATHER)
        try:
            self._wait_for_room(self._hurried)
            self._run_errands()
            if not self._end.is_set():
                with self._turn:
                    self._to_sinks()
        finally:
            if self._errands:  # something failed: try again, for who waits
                lib.pm_audit_wake(self._kernel.pointer)

    def _run_errands(self) -> None:
        """Do what others wait for; while sinks are behind, what is urgent."""
        while self._errands:
            hurried = self._hurried()
            for _ in range(len(self._errands)):
                errand = self._errands.popleft()
                if hurried and not (errand.urgent or self._end.is_set()):
                    self._errands.append(errand)
                    continue
                with self._turn:
                    errand.run()
            self._wait_for_room(self._hurried)

    def finish(self) -> None:
        """Do, at the end of the thread, what is left to do."""
        self._serves.clear()
        with self._turn:
            self._to_sinks()
            self._tell()
        self._run_errands()

    def close(self) -> None:
        """Give the sinks what there is, and close them; in a child of fork(), only forget them.

        Where Ctrl-C comes meanwhile the thread gives them what there is all the same.
        """
        if os.getpid() != self._process:
            self._abandon()
            return
        try:
            with self.change:  # whatever is done from here on might not be recorded
                self._ends = True
                self._options()
            self._stop()
            with self._turn:
                self._to_sinks()
                self._tell()
        finally:
            self._stop()  # if Ctrl-C kept it from that
            _at_exit.discard(self)
            for feed in self._feeds:
                feed.closing()
            for feed in self._feeds:
                feed.close()
            for feed in self._failed:
                feed.settle()
            with self.change:
                self._feeds = self._broken = ()

    @property
    def running(self) -> bool:
        """Whether another thread uses the kernel: the one that drains, until it has said its end.

        After Ctrl-C in `join`, `Thread.is_alive` of Python 3.11 says that a thread has ended.
        """
        thread = self._thread not in (None, threading.current_thread())
        return thread and not self._ended.is_set()

    def _stop(self) -> None:
        """End the thread. Where Ctrl-C keeps this from returning it may be `running` still."""
        self._end.set()
        if not self.running:
            return
        for feed in self._feeds:
            feed.interrupt()
        lib.pm_audit_wake(self._kernel.pointer)
        while not self._ended.wait(_LOOK):
            continue
        assert self._thread
        self._thread.join()

    def _abandon(self) -> None:
        """Let go of files without writing to them: they are the parent's."""
        for feed in self._feeds:
            getattr(feed.sink, "abandon", lambda: None)()
        self._feeds, self._broken, self._due = (), (), deque()

    @property
    def may_wait(self) -> bool:
        """See `Audit.may_wait`."""
        return not in_sink() and os.getpid() == self._process

    def check_process(self) -> None:
        """Raise ForkedError in a child of fork(), which has neither threads nor who held locks."""
        if os.getpid() != self._process:
            raise exception(lib.PM_FORKED, "audit")


def _drain(pointer: Any, reference: weakref.ref[Drain], end: Mark, ended: Mark) -> None:
    """Drain until the kernel is closed; while there is nothing, without keeping it alive."""
    leave_signals_to_others()
    if drain := reference():
        drain.serve()
        del drain
    try:
        while not end.is_set() and lib.pm_block_audit_wait(pointer, 1, _FOREVER) >= 0:
            if (drain := reference()) is None:
                return
            _try(drain.run, end)
            del drain
        if drain := reference():
            _try(drain.finish, end)
    finally:
        ended.set()


def _try(call: Callable[[], None], end: Mark) -> None:
    try:
        call()
    except Exception:
        _log.exception("the audit's drain failed, and tries again")
        end.wait(1.0)


def _same(sink: Sink, other: Sink) -> bool:
    """Whether two are the same sink: a method is made anew each time that it is named."""
    method = isinstance(sink, MethodType | BuiltinMethodType)
    return sink is other or (method and sink == other)


def _weakly(method: Callable[[InPlace], None]) -> Callable[[InPlace], None]:
    """Return a callable that does not keep the object whose method it calls."""
    reference = weakref.WeakMethod(method)

    def call(feed: InPlace) -> None:
        if found := reference():
            found(feed)

    return call


_at_exit: weakref.WeakSet[Drain] = weakref.WeakSet()
_numbers = count(1)
_fed: weakref.WeakKeyDictionary[InPlace, int] = weakref.WeakKeyDictionary()
os.register_at_fork(after_in_child=lambda: setattr(Drain, "_attaching", threading.RLock()))


@atexit.register
def _close_all() -> None:
    """Write out what kernels that nobody closed have recorded."""
    for drain in list(_at_exit):
        with suppress(Exception):
            drain.close()
