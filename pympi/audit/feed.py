# SPDX-License-Identifier: BSD-2-Clause
"""What stands between the drain and one sink: `Feed`, a bounded queue with a thread of its own.

A sink is slow, or hangs, or raises: that is the feed's to deal with, and nobody else notices more
of it than the sink's `when_full` says. `InPlace` is a feed without queue and thread, for a kernel
whose time is simulated.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..enums import AuditFlag, Operation
from .record import RECORD, Batch
from .writer import checked_interval

__all__ = [
    "WHEN_FULL",
    "Feed",
    "InPlace",
    "Mark",
    "Sink",
    "SinkFailure",
    "SinkStats",
    "Terms",
    "in_sink",
]

Sink = Callable[[Batch], object]

WHEN_FULL = ("drop", "block", "fail", "abort")
"""From the mildest to the strictest: among several sinks the strictest holds."""


class _Told(NamedTuple):
    """What a sink is told of the strata, where records are sampled."""

    strata: Mapping[str, Any]


class Mark:
    """A place in what a sink is given, which is set when the sink has got there.

    Made of a plain lock: Ctrl-C in a wait for a condition may leave that locked.

    Attributes:
        flushes: the sink is to have written out, too, all that is before it.
    """

    def __init__(self, *, flushes: bool = True) -> None:
        self.flushes, self._set = flushes, False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Set it. Again: does nothing."""
        before, self._set = self._set, True
        if not before:
            self._lock.release()

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds; return whether it is set. For one thread alone."""
        return self._set or self._lock.acquire(timeout=timeout)


QUEUE = 1
"""`name` of a loss record that is a sink's own: its queue was full; 0 is the kernel's ring."""

_log = logging.getLogger("pympi.audit")
_HIGH = 1 << 18  # records; 27 MB
_PATIENCE = 30.0
_LOOK = 0.25  # seconds after which who waits looks for a Ctrl-C that came right before the wait
_LONGEST = 1000  # characters of what a sink is called, or says
_LARGEST_LOSS = 2**31 - 1
# Signals that tell of a thread's own mistake; all others are for the threads of the embedder.
_OWN = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
_here = threading.local()


def in_sink() -> bool:
    """Whether this thread is in a call of a sink: it must not wait for what waits for the sink."""
    return getattr(_here, "depth", 0) > 0


def leave_signals_to_others() -> None:
    """Block signals in this thread: so Ctrl-C reaches who waits, and SIGPIPE ends nobody."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OWN)


class SinkStats(NamedTuple):
    """How a sink is doing.

    Attributes:
        name: of the sink.
        state: "open"; "behind", from when its queue was filled to the high mark until it is down to
            the low one; "failed"; "closed".
        when_full: what becomes of records, or operations, while it is behind.
        queued: records that wait for it, or are with it.
        written: records it has taken.
        lost: records it did not get, or not for certain.
    """

    name: str
    state: str
    when_full: str
    queued: int
    written: int
    lost: int


class SinkFailure(NamedTuple):
    """Why a sink gets no more records.

    Attributes:
        name: of the sink.
        sink: itself.
        time: when, as `time.time()`.
        error: what it said, in words.
        exception: what it raised; None if it hung.
        lost: records that it had been given and did not get because of that, or not for certain:
            what it had taken and not written (`unwritten`) is among them. `SinkStats.lost` also has
            those that were recorded later, as long as nothing is done without it.
    """

    name: str
    sink: Sink
    time: float
    error: str
    exception: BaseException | None
    lost: int


@dataclass(frozen=True)
class Terms:
    """On what terms a sink gets records; what is not said is what the sink says, or a default.

    Args:
        when_full: "drop" loses whole batches, counted, until there is room; "block" has operations
            wait; "fail" has them refused; "abort" ends the process.
        high: records in the queue from which on the sink is behind.
        low: records down to which it stays so.
        patience: seconds after which a sink that finishes nothing is given up, where somebody waits
            for it: who is blocked, a flush, the end.

    Raises:
        ValueError: an unknown when_full; marks that are not 0 <= low < high.
    """

    when_full: str = "drop"
    high: int = _HIGH
    low: int = _HIGH // 2
    patience: float = _PATIENCE

    def __post_init__(self) -> None:
        if self.when_full not in WHEN_FULL:
            known = ", ".join(WHEN_FULL)
            raise ValueError(f"when_full must be one of {known}, not {self.when_full!r}")
        if not 0 <= self.low < self.high:
            raise ValueError(f"marks must be 0 <= low < high, not {self.low} and {self.high}")
        if not self.patience > 0:
            raise ValueError(f"patience must be more than 0 seconds, not {self.patience!r}")

    @classmethod
    def of(cls, sink: Sink, **said: Any) -> Terms:
        """Return the terms of a sink: what is said here, else what it says itself."""
        own = {key: getattr(sink, key, None) for key in said}
        terms = {key: own[key] if value is None else value for key, value in said.items()}
        known = {key: value for key, value in terms.items() if value is not None}
        if "high" in known and "low" not in known:
            known["low"] = known["high"] // 2
        return cls(**known)


class _Gap:
    """Which records a sink lost from its queue: those after what it got, up to `last`."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._last: npt.NDArray[Any] | None = None

    def __bool__(self) -> bool:
        return self._last is not None

    def got(self, records: npt.NDArray[Any]) -> None:
        self._expected, self._last = int(records["sequence"][-1]) + 1, None

    def lost(self, records: npt.NDArray[Any]) -> None:
        if self._expected is None:
            self._expected = int(records["sequence"][0])
        self._last = records[-1:].copy()

    def record(self) -> npt.NDArray[Any]:
        """Return the loss record: an array of one, with the number of the last one lost.

        It says of how many numbers, its own the last of them, nothing is known: records, and
        losses that the kernel's own loss records told of.
        """
        assert self._last is not None
        assert self._expected is not None
        loss = np.zeros(1, RECORD)
        for field in ("sequence", "time", "epoch"):
            loss[field] = self._last[field]
        loss["operation"], loss["flags"] = Operation.LOSS, AuditFlag.LOSS
        loss["name"] = QUEUE
        count = int(self._last["sequence"][0]) + 1 - self._expected
        loss["result"] = min(count, _LARGEST_LOSS)
        return loss


class InPlace:
    """Hands batches to a sink in the thread that brings them.

    Args:
        sink: called with batches.
        terms: see there.
        changed: called, with nothing locked, when the sink fails, falls behind or has caught up.

    Attributes:
        sink, terms: as given.
        name (str): the sink's `name`, or that of its class or function.
        behind (bool): see `SinkStats`.
        failure (SinkFailure | None): why it gets no more.
    """

    def __init__(self, sink: Sink, terms: Terms, changed: Callable[[InPlace], object]) -> None:
        self.sink, self.terms = sink, terms
        named = getattr(sink, "name", None) or getattr(sink, "__qualname__", None)
        self.name = _one_line(str(named or type(sink).__name__))
        self.behind = False
        self.failure: SinkFailure | None = None
        self._changed = changed
        self._gap = _Gap()
        self._strata: Mapping[str, Any] = {}
        self._closed = False
        self._queued = self._written = self._lost = 0
        self._unwritten = 0  # before the present call of the sink

    @property
    def closed(self) -> bool:
        """Whether the sink is never called any more."""
        return self._closed

    @property
    def synchronous(self) -> bool:
        """Whether operations return only when the sink has their records."""
        return bool(getattr(self.sink, "synchronous", False))

    @property
    def stats(self) -> SinkStats:
        pace = "behind" if self.behind else "open"
        state = "failed" if self.failure else "closed" if self._closed else pace
        when_full = self.terms.when_full
        return SinkStats(self.name, state, when_full, self._queued, self._written, self._lost)

    def put(self, batch: Batch) -> None:
        """Give it a batch. A sink that raises has failed; only Ctrl-C and the like go on."""
        if self.failure or self._closed:
            self._lost += len(batch)
            return
        try:
            given = self._preceded(batch)
            self._call(self.sink, given)
            self._gap.got(given.records)
            self._written += len(given)
        except Exception as error:
            self._fail(error, len(batch))
        except BaseException:
            self._lose(batch)
            raise

    def _preceded(self, batch: Batch) -> Batch:
        """Return a batch with, before it, the loss record that is due."""
        if not self._gap:
            return batch
        return replace(batch, records=np.concatenate([self._gap.record(), batch.records]))

    def _lose(self, batch: Batch) -> None:
        self._lost += len(batch)
        self._gap.lost(batch.records)

    def tell(self, strata: Mapping[str, Any]) -> None:
        """Tell it of strata, if it wants to know (has a method `strata`) and they are news."""
        if self._closed or self._strata == strata or not hasattr(self.sink, "strata"):
            return
        self._strata = strata
        self._pass_on(_Told(strata))

    def _pass_on(self, told: _Told) -> None:
        try:
            self._call(getattr(self.sink, "strata", None), told.strata)
        except Exception as error:
            self._fail(error, 0)

    def full(self) -> bool:
        """Whether it must not be given any more."""
        return False

    def room(self, unless: Callable[[], bool] = bool) -> None:
        """Wait until it is not behind, if that is what `when_full` wants.

        Args:
            unless: says that somebody cannot wait so long; `stir` has it asked.
        """

    def stir(self) -> None:
        """Have who waits for room look whether he still may."""

    def mark(self, *, flushes: bool = True) -> Mark:
        """Mark what it was given so far; return what is set when it has taken that.

        Args:
            flushes: and has written it out.
        """
        done = Mark(flushes=flushes)
        try:
            if flushes:
                self._write_out()
        finally:
            done.set()
        return done

    def pass_by(self, done: Mark) -> None:
        """Wait for a mark, with nothing that Ctrl-C could leave locked. See `wait`."""

    def _write_out(self) -> None:
        try:
            self._call(getattr(self.sink, "flush", None))
        except Exception as error:
            self._fail(error, 0)

    def wait(self, done: Mark, deadline: float | None = None) -> bool:
        """Wait for a mark, until `deadline` (of `time.monotonic`); return whether it is set.

        A sink that hangs is given up meanwhile, so nobody waits for ever.
        """
        return done.is_set()

    def close(self) -> None:
        """Give it no more, and close it when it has written what it was given."""
        if not self._closed:
            self._closed = True
            self._end()

    def release(self) -> None:
        """Give it no more, and leave it open: it is the embedder's again."""
        self._closed = True

    def settle(self) -> None:
        """Wait, not for long, until one that failed is closed: then its file is free."""

    def interrupt(self) -> None:
        """Let nobody wait for room any more: the end is near."""

    def closing(self) -> None:
        """Begin to close it, without waiting."""

    # ---- failure ----

    def _fail(self, error: BaseException | str, lost: int) -> None:
        """Give the sink up, say why, and close it."""
        self._closed = True
        self._note(error, lost)
        self._tell()
        self._end()

    def _call(self, function: Callable[..., object] | None, *arguments: Any) -> None:
        """Call the sink, or one of the methods that it need not have."""
        self._unwritten = _unwritten(self.sink)
        _call(function, *arguments)

    def _note(self, error: BaseException | str, lost: int) -> None:
        # What it had taken before and not written; what it is taking now is in `lost`.
        lost += min(self._unwritten, _unwritten(self.sink))
        exception = None if isinstance(error, str) else error
        words = error if isinstance(error, str) else _in_words(error)
        self._lost += lost
        self.failure = SinkFailure(self.name, self.sink, time.time(), words, exception, lost)

    def _tell(self) -> None:
        """Say that it failed; first to who stops what must not be done without it."""
        assert self.failure is not None
        self._changed(self)
        try:
            with suppress(Exception):  # of the filters and handlers of an embedder
                _log.warning(
                    "audit sink %s failed, gets no more records: %s", self.name, self.failure.error
                )
        finally:
            if self.terms.when_full == "abort":
                os.abort()

    def _end(self) -> None:
        """Close the sink. What it says to that is its failure, if it is the first."""
        try:
            self._call(getattr(self.sink, "close", None))
        except Exception as error:
            if self.failure is None:
                self._note(error, 0)
                self._tell()


class Feed(InPlace):
    """A bounded queue of batches before one sink, and the thread that empties it.

    Raises:
        RuntimeError: no thread can be started.
        ValueError: the sink's interval is no number of seconds.
    """

    def __init__(self, sink: Sink, terms: Terms, changed: Callable[[InPlace], object]) -> None:
        super().__init__(sink, terms, changed)
        self._every: float | None = checked_interval(getattr(sink, "interval", None))
        self._news = threading.Condition()  # guards what follows, and the counts
        self._queue: deque[_Item] = deque()
        self._progress = time.monotonic()
        self._dirty = False
        self._unmarked: list[Mark] = []  # to be set once the failure has been told of
        self._told = False
        self._ends = False  # no more is coming
        self._closes = False  # the sink is to be closed then
        self._thread = threading.Thread(target=self._run, name=f"audit {self.name}", daemon=True)
        self._thread.start()

    # ---- those who bring batches ----

    def put(self, batch: Batch) -> None:
        """Queue a batch, or lose it; never waits."""
        with self._news:
            before = self.behind
            if self.failure or self._ends:
                self._lost += len(batch)
            elif self._refuses():
                self._lose(batch)
            else:
                self._enqueue(batch)
            changed = self.behind != before
        if changed:
            self._changed(self)

    def _refuses(self) -> bool:
        if self.behind and self.terms.when_full == "abort":
            _log.critical("audit sink %s is behind: the process is aborted", self.name)
            os.abort()
        return self.behind if self.terms.when_full == "drop" else self._overfull()

    def _overfull(self) -> bool:
        """Whether it has more than even a sink without which nothing is done should have to take:
        then it is flooded by refusals, which are recorded all the same."""
        return self.terms.when_full == "fail" and self.full()

    def _enqueue(self, batch: Batch) -> None:
        if not self._queued:
            self._progress = time.monotonic()
        batch = self._preceded(batch)
        self._gap.got(batch.records)
        self._queue.append(batch)
        self._queued += len(batch)
        self.behind = self.behind or self._queued >= self.terms.high
        self._news.notify_all()

    def _pass_on(self, told: _Told) -> None:
        with self._news:
            if not self.failure and not self._ends:
                if not self._queue:
                    self._progress = time.monotonic()
                self._queue.append(told)
                self._news.notify_all()

    def full(self) -> bool:
        """Whether it has twice what it should have: who cannot wait must not bring more."""
        return self.terms.when_full != "drop" and self._queued >= 2 * self.terms.high

    def room(self, unless: Callable[[], bool] = bool) -> None:
        if self.terms.when_full == "block":
            self._wait_until(lambda: not self.behind or unless())

    def stir(self) -> None:
        with self._news:
            self._news.notify_all()

    def pass_by(self, done: Mark) -> None:
        while not done.wait(_LOOK):
            self._wait_until(done.is_set, time.monotonic())

    def mark(self, *, flushes: bool = True) -> Mark:
        done = Mark(flushes=flushes)
        with self._news:
            if self.failure and not self._told:
                self._unmarked.append(done)
            elif self.failure or self._ends:
                done.set()
            else:
                if not self._queue:
                    self._progress = time.monotonic()
                self._queue.append(done)
                self._news.notify_all()
        return done

    def wait(self, done: Mark, deadline: float | None = None) -> bool:
        return self._wait_until(done.is_set, deadline)

    def close(self) -> None:
        self._finish(close=True)

    def release(self) -> None:
        self._finish(close=False)

    def closing(self) -> None:
        with self._news:
            self._stop(close=True)

    def _stop(self, *, close: bool) -> None:
        if not self._ends:
            self._progress = time.monotonic()
        self._ends, self._closes = True, close
        self._news.notify_all()

    def _finish(self, *, close: bool) -> None:
        with self._news:
            self._stop(close=close)
            if threading.current_thread() is self._thread and not close:
                self._lost += self._clear()
                self._unmark()
        if not in_sink():
            self._wait_until(lambda: self._closed)
            self.settle()

    def settle(self) -> None:
        mine = in_sink() or threading.current_thread() is self._thread
        if not mine and self.failure and self.failure.exception:  # it ends by itself
            self._thread.join(self.terms.patience)

    def interrupt(self) -> None:
        with self._news:
            self.behind = False
            self._news.notify_all()

    # ---- those who wait ----

    def _wait_until(self, reached: Callable[[], bool], deadline: float | None = None) -> bool:
        """Wait; return whether it came to that. A sink that hangs is given up."""
        with self._news:
            while not (reached() or self._told or self._closed):
                now, hangs = time.monotonic(), self._progress + self.terms.patience
                until = hangs if deadline is None else min(hangs, deadline)
                if self.failure or now < until:
                    self._news.wait(_LOOK if self.failure else min(until - now, _LOOK))
                elif hangs <= now:
                    self._note(f"finished nothing in {self.terms.patience:g} s", self._clear())
                    break
                else:
                    return False
            else:
                return reached()
        self._tell()
        return reached()

    def _tell(self) -> None:
        try:
            super()._tell()
        finally:
            with self._news:
                self._told = True
                self._unmark()

    def _unmark(self) -> None:
        for done in self._unmarked:
            done.set()
        self._unmarked.clear()
        self._news.notify_all()

    def _clear(self) -> int:
        """Empty the queue of what the sink will not get; return how many records that was."""
        self._unmarked += [item for item in self._queue if isinstance(item, Mark)]
        self._queue.clear()
        lost, self._queued = self._queued, 0
        self.behind, self._ends = False, True
        self._news.notify_all()
        return lost

    # ---- the thread ----

    def _run(self) -> None:
        leave_signals_to_others()
        while (item := self._next()) is not None:
            self._do(item)
            self._done(item)
        if self._closes or self.failure:
            self._end()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _next(self) -> _Item | None:
        """Return what is to be done next; None: nothing any more."""
        with self._news:
            while not self._queue:
                if self._gap:
                    loss = Batch(self._gap.record(), {}, {}, {})
                    self._gap.got(loss.records)
                    self._queued += 1
                    return loss
                if self._ends:
                    return None
                if not self._news.wait(self._interval()):
                    return Mark()
            return self._queue.popleft()

    def _interval(self) -> float | None:
        """Seconds after which a sink that was given something wants to be flushed."""
        return self._every if self._dirty else None

    def _do(self, item: _Item) -> None:
        """Give the sink a batch, tell it of strata, or have it write out what it has."""
        try:
            if isinstance(item, Batch):
                self._call(self.sink, item)
            elif isinstance(item, _Told):
                self._call(getattr(self.sink, "strata", None), item.strata)
            elif item.flushes:
                self._call(getattr(self.sink, "flush", None))
        except BaseException as error:
            with self._news:
                if self.failure:
                    return  # it was given up meanwhile, and that was said
                self._note(error, self._clear())
            self._tell()

    def _done(self, item: _Item) -> None:
        with self._news:
            before = self.behind
            if isinstance(item, Mark):
                self._dirty = self._dirty and not item.flushes
                if self.failure and not self._told:
                    self._unmarked.append(item)
                else:
                    item.set()
            elif not self.failure:
                self._dirty = True
                records = len(item) if isinstance(item, Batch) else 0
                self._queued -= records
                self._written += records
            if self._queued <= self.terms.low:
                self.behind = False
            self._progress = time.monotonic()
            self._news.notify_all()
            changed = self.behind != before
        if changed:
            self._changed(self)

    def _end(self) -> None:
        try:
            self._call(getattr(self.sink, "close", None))
        except BaseException as error:
            with self._news:
                if self.failure:
                    return
                self._note(error, self._clear())
            self._tell()


_Item = Batch | Mark | _Told
"""What is in a queue."""


def _one_line(text: str) -> str:
    """Return text that does not begin a line of its own in a log; exceptions may have any."""
    shown = text if text.isprintable() else text.encode("unicode_escape").decode()
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "..."


def _in_words(error: BaseException) -> str:
    """Return what an exception says; some raise another when they are asked."""
    said = ""
    with suppress(Exception):
        said = str(error)
    return _one_line(f"{type(error).__name__}: {said}")


def _unwritten(sink: Sink) -> int:
    """Return how many records a sink has taken and has not written, if it says so."""
    with suppress(Exception):
        count = getattr(sink, "unwritten", 0)
        return count if isinstance(count, int) else 0
    return 0


def _call(function: Callable[..., object] | None, *arguments: Any) -> None:
    """Call what is a sink's: this thread waits for no sink meanwhile."""
    before = getattr(_here, "depth", 0)  # to be found again wherever Ctrl-C comes
    try:
        _here.depth = before + 1
        if function is not None:
            function(*arguments)
    finally:
        _here.depth = before
