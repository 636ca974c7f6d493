# SPDX-License-Identifier: BSD-2-Clause
"""The queue before a sink: marks, losses that show, sinks that raise or hang."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pympi.audit import RECORD, Batch
from pympi.audit.feed import QUEUE, Feed, InPlace, Terms, in_sink
from pympi.enums import AuditFlag, Operation

LONG = 60.0


def batch(first: int, count: int = 1) -> Batch:
    records = np.zeros(count, RECORD)
    records["sequence"] = np.arange(first, first + count)
    return Batch(records, {}, {}, {})


class Gate:
    """A sink that takes a batch only when it is let."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.entered = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.closed = 0

    def __call__(self, batch: Batch) -> None:
        self.entered.release()
        self.let.acquire()
        self.batches.append(batch)

    def close(self) -> None:
        self.closed += 1

    @property
    def sequences(self) -> list[int]:
        return [n for batch in self.batches for n in batch.records["sequence"].tolist()]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def feeds() -> Iterator[Callable[..., Feed]]:
    """Make feeds; in the end they are let go."""
    made: list[Feed] = []

    def make(
        sink: object, changed: Callable[[InPlace], object] = lambda _: None, **terms: object
    ) -> Feed:
        known = {"patience": LONG, **terms}
        made.append(Feed(sink, Terms(**known), changed))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for feed in made:
        for _ in range(1000):
            getattr(feed.sink, "let", threading.Semaphore()).release()
        feed.close()


def test_terms() -> None:
    class Strict:
        when_full, high = "block", 100

    assert Terms.of(Strict, when_full=None, high=None, low=None) == Terms("block", 100, 50)
    assert Terms.of(Strict, when_full="fail", high=10, low=2) == Terms("fail", 10, 2)
    assert Terms.of(print, when_full=None) == Terms()
    for wrong, what in (
        ({"when_full": "perhaps"}, "one of drop, block, fail, abort, not 'perhaps'"),
        ({"high": 10, "low": 10}, "0 <= low < high, not 10 and 10"),
        ({"patience": 0}, "more than 0 seconds"),
    ):
        with pytest.raises(ValueError, match=what):
            Terms(**wrong)  # type: ignore[arg-type]


def test_batches_arrive_in_order(feeds: Callable[..., Feed]) -> None:
    seen: list[int] = []
    feed = feeds(lambda batch: seen.extend(batch.records["sequence"].tolist()))
    for first in range(100):
        feed.put(batch(first))
    assert feed.wait(feed.mark())
    assert seen == list(range(100))
    assert feed.stats[1:] == ("open", "drop", 0, 100, 0)


def test_what_is_dropped_is_whole_batches_and_told_of(
    gate: Gate, feeds: Callable[..., Feed]
) -> None:
    feed = feeds(gate, high=10, low=4)
    feed.put(batch(0, 6))
    gate.entered.acquire()
    feed.put(batch(6, 4))  # the high mark
    assert (feed.behind, feed.stats.state, feed.stats.queued) == (True, "behind", 10)
    feed.put(batch(10, 5))
    feed.put(batch(15, 1))
    gate.let.release()
    gate.entered.acquire()  # the first is done: 4 are left, which is the low mark
    assert feed.stats[1:] == ("open", "drop", 4, 6, 6)
    feed.put(batch(16, 2))
    gate.let.release(2)
    assert feed.wait(feed.mark())
    assert gate.sequences == [*range(10), 15, 16, 17]
    loss = gate.batches[-1].records[0]
    assert (loss["operation"], loss["flags"]) == (Operation.LOSS, AuditFlag.LOSS)
    assert (loss["name"], loss["result"]) == (QUEUE, 6)
    [told] = [record for record in gate.batches[-1] if record.operation == "loss"]
    assert (told.sequence, told.lost) == (15, 6)


def test_a_loss_is_told_of_though_nothing_follows(gate: Gate, feeds: Callable[..., Feed]) -> None:
    feed = feeds(gate, high=1, low=0)
    for number in range(3):
        feed.put(batch(number))
    gate.let.release(2)
    feed.close()
    assert gate.sequences == [0, 2]
    assert gate.batches[-1].records["result"] == [2]
    assert (feed.stats.state, gate.closed) == ("closed", 1)


def test_losses_add_up(gate: Gate, feeds: Callable[..., Feed]) -> None:
    """Between any two records, what is missing is what the loss records say, to the last number."""
    feed = feeds(gate, high=3, low=1)
    random = np.random.default_rng(7)
    sent = 0
    for _ in range(300):
        size = int(random.integers(1, 5))
        feed.put(batch(sent, size))
        sent += size
        if random.random() < 0.4:
            gate.let.release()
    gate.let.release(1000)
    feed.close()
    expected = 0
    for record in (record for batch in gate.batches for record in batch.records):
        is_loss = record["operation"] == Operation.LOSS
        assert record["sequence"] == expected + (record["result"] - 1 if is_loss else 0)
        expected = int(record["sequence"]) + 1
    assert expected == sent
    assert feed.stats.lost > 0


def test_who_is_blocked_waits_until_the_low_mark(gate: Gate, feeds: Callable[..., Feed]) -> None:
    feed = feeds(gate, when_full="block", high=2, low=0)
    feed.put(batch(0))
    feed.put(batch(1))
    waiting = threading.Thread(target=feed.room)
    waiting.start()
    gate.entered.acquire()
    gate.let.release()
    gate.entered.acquire()
    assert waiting.is_alive()
    assert feed.behind
    gate.let.release()
    waiting.join()
    assert (feed.stats.queued, feed.stats.lost) == (0, 0)


def test_nobody_waits_for_a_sink_that_drops(gate: Gate, feeds: Callable[..., Feed]) -> None:
    feed = feeds(gate, high=1, low=0)
    feed.put(batch(0))
    feed.room()
    assert feed.behind


def test_refusals_cannot_flood_a_sink_without_which_nothing_is_done(
    gate: Gate, feeds: Callable[..., Feed]
) -> None:
    feed = feeds(gate, when_full="fail", high=10, low=5)
    for number in range(30):
        feed.put(batch(number))
    assert feed.full()
    assert (feed.stats.queued, feed.stats.lost) == (20, 10)
    gate.let.release(1000)
    feed.close()
    assert gate.sequences == [*range(20), 29]


def test_a_sink_that_blocks_never_loses(gate: Gate, feeds: Callable[..., Feed]) -> None:
    """Who brings more has waited, or looked whether it is full: or it is the end."""
    feed = feeds(gate, when_full="block", high=10, low=5)
    for number in range(30):
        feed.put(batch(number))
    assert feed.full()
    gate.let.release(1000)
    feed.close()
    assert gate.sequences == list(range(30))


def test_changes_are_told_of(gate: Gate, feeds: Callable[..., Feed]) -> None:
    states: list[str] = []
    feed = feeds(
        gate, lambda feed: states.append(feed.stats.state), when_full="fail", high=2, low=0
    )
    for number in range(3):
        feed.put(batch(number))
    gate.let.release(3)
    assert feed.wait(feed.mark())
    assert states == ["behind", "open"]


def test_a_sink_that_raises_gets_no_more(
    feeds: Callable[..., Feed], caplog: pytest.LogCaptureFixture
) -> None:
    begun, told = threading.Semaphore(0), []
    closed: list[int] = []

    class Broken:
        name = "broken sink"

        def __call__(self, batch: Batch) -> None:
            begun.acquire()
            raise OSError("disk full")

        def close(self) -> None:
            closed.append(1)

    feed = feeds(Broken(), told.append)
    with caplog.at_level(logging.WARNING):
        feed.put(batch(0, 5))
        feed.put(batch(5, 2))
        mark = feed.mark()
        begun.release(9)
        feed.wait(mark)
        feed.put(batch(7))
        feed.close()
    assert feed.failure is not None
    assert feed.failure[:2] == ("broken sink", feed.sink)
    assert (feed.failure.error, feed.failure.lost) == ("OSError: disk full", 7)
    assert isinstance(feed.failure.exception, OSError)
    assert feed.stats[1:] == ("failed", "drop", 0, 0, 8)
    assert "broken sink failed, gets no more records: OSError: disk full" in caplog.text
    assert (told, closed) == ([feed], [1])


def test_what_a_sink_says_is_one_line(feeds: Callable[..., Feed]) -> None:
    def forges(_batch: Batch) -> None:
        raise OSError("no\nWARNING all is well\u202e" + "x" * 5000)

    forges.__qualname__ = "a\nsink"
    feed = feeds(forges)
    feed.put(batch(0))
    feed.close()
    assert feed.name == r"a\nsink"
    assert feed.failure is not None
    assert feed.failure.error.startswith(r"OSError: no\nWARNING all is well\u202exxx")
    assert len(feed.failure.error) < 1010


def test_a_sink_that_exits_fails_like_any(feeds: Callable[..., Feed]) -> None:
    def leaves(_batch: Batch) -> None:
        raise SystemExit(3)

    feed = feeds(leaves)
    feed.put(batch(0))
    feed.close()
    assert feed.failure is not None
    assert feed.failure.error == "SystemExit: 3"


@pytest.mark.parametrize("wait", ["mark", "room", "close"])
def test_a_sink_that_hangs_is_given_up(gate: Gate, feeds: Callable[..., Feed], wait: str) -> None:
    feed = feeds(gate, when_full="block", high=2, low=0, patience=0.05)
    feed.put(batch(0, 3))
    feed.put(batch(3, 2))
    gate.entered.acquire()
    {"mark": lambda: feed.wait(feed.mark()), "room": feed.room, "close": feed.close}[wait]()
    assert feed.failure is not None
    assert (feed.failure.error, feed.failure.lost) == ("finished nothing in 0.05 s", 5)
    assert feed.stats[1:] == ("failed", "block", 0, 0, 5)
    gate.let.release()  # it comes back: too late, but it is closed
    feed._thread.join()
    assert gate.closed == 1
    assert feed.stats.written == 0


def test_a_deadline_gives_nobody_up(gate: Gate, feeds: Callable[..., Feed]) -> None:
    feed = feeds(gate)
    feed.put(batch(0))
    mark = feed.mark()
    assert not feed.wait(mark, deadline=0.0)
    assert feed.failure is None
    gate.let.release()
    assert feed.wait(mark)


def test_a_sink_let_go_is_left_open(gate: Gate, feeds: Callable[..., Feed]) -> None:
    feed = feeds(gate)
    gate.let.release(9)
    feed.put(batch(0))
    feed.release()
    feed.put(batch(1))
    assert (gate.sequences, gate.closed, feed.stats.state) == ([0], 0, "closed")


def test_a_sink_that_wants_it_is_flushed_after_a_while(feeds: Callable[..., Feed]) -> None:
    flushed = threading.Event()

    class Slow:
        interval = 0.001

        def __call__(self, batch: Batch) -> None:
            assert in_sink()

        def flush(self) -> None:
            flushed.set()

    feeds(Slow()).put(batch(0))
    assert flushed.wait(LONG)


def test_what_is_given_in_place() -> None:
    seen: list[int] = []
    feed = InPlace(lambda batch: seen.append(len(batch)), Terms(), lambda _: None)
    feed.put(batch(0, 3))
    assert (seen, feed.stats.written) == ([3], 3)
    assert feed.wait(feed.mark())
    feed.close()
    assert feed.stats.state == "closed"


def test_ctrl_c_in_place_loses_a_batch_that_is_told_of() -> None:
    seen: list[Batch] = []

    def sink(batch: Batch) -> None:
        if not seen:
            seen.append(batch)
            raise KeyboardInterrupt
        seen.append(batch)

    feed = InPlace(sink, Terms(), lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        feed.put(batch(0, 3))
    feed.put(batch(3))
    assert feed.failure is None
    assert seen[1].records["sequence"].tolist() == [2, 3]
    assert seen[1].records["result"].tolist() == [3, 0]
