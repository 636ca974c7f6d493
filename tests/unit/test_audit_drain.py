# SPDX-License-Identifier: BSD-2-Clause
"""The drain: records reach sinks by themselves, and who waits for whom never goes in a circle."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from background import LONG, Run, program, settle

from pympi import (
    AccessDenied,
    AuditFull,
    ForkedError,
    Kernel,
    KernelClosed,
    SendRight,
    SimulatedClock,
    _upcall,
    audit,
)
from pympi.audit import RECORD, Batch
from pympi.audit import drain as drain_module
from pympi.audit.drain import Words
from pympi.policy import Decision, Partition, PolicyModule
from pympi.port import ReceiveRight

ROOM = 64


class Scene:
    """A kernel with a small ring, in which sends are recorded."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        task = kernel.create_task("task")
        self.inbox: ReceiveRight = task.allocate_port(qlimit=1024)
        self.right: SendRight = self.inbox.make_send(task)
        kernel.audit.flush()
        kernel.audit.drain()
        kernel.audit.select("granted", "mach_port", "send")

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.right.send(b"")
            self.inbox.receive()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Kernel(audit_records=ROOM) as kernel:
        yield Scene(kernel)


class Gate:
    """A sink that takes a batch only when it is let."""

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.entered = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, batch: Batch) -> None:
        self.entered.release()
        self.let.acquire()
        self.sequences += batch.records["sequence"].tolist()

    def open(self) -> None:
        self.let.release(100_000)


class Seen:
    """A sink that can be waited for."""

    def __init__(self) -> None:
        self._came = threading.Condition()
        self.sequences: list[int] = []

    def __call__(self, batch: Batch) -> None:
        with self._came:
            self.sequences += batch.records["sequence"].tolist()
            self._came.notify_all()

    def wait(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.sequences) >= count, LONG)


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_records_come_by_themselves(scene: Scene) -> None:
    seen = Seen()
    scene.kernel.audit.attach(seen)
    for count in (1, 2, 3):
        scene.send()
        seen.wait(count)


def test_records_are_kept_for_who_drains_beside_sinks(scene: Scene) -> None:
    seen = Seen()
    scene.kernel.audit.keeps = True
    scene.kernel.audit.attach(seen, when_full="block")
    scene.send(5 * ROOM)
    seen.wait(ROOM)
    kept = scene.kernel.audit.drain()["sequence"].tolist()
    scene.kernel.audit.flush()
    assert kept == seen.sequences == list(range(5 * ROOM))


def test_a_closed_kernel_takes_no_sink(scene: Scene) -> None:
    scene.kernel.close()
    before = names()
    with pytest.raises(KernelClosed):
        scene.kernel.audit.attach(Seen())
    assert names() == before


def test_the_threads_end_with_the_kernel() -> None:
    before = names()
    with Kernel() as kernel:
        kernel.audit.attach(Seen())
        assert names() - before == {"audit", "audit Seen"}
    assert names() == before


def collect_until(gone: Callable[[], bool], seconds: float = 20.0) -> None:
    """Collect garbage again and again: its thread may look at a kernel just now."""
    end = time.monotonic() + seconds
    while not gone() and time.monotonic() < end:
        gc.collect()
    assert gone()


def test_a_kernel_nobody_closes_is_closed_with_its_threads() -> None:
    before = names()
    seen, made = Seen(), []

    def forget() -> None:
        kernel = Kernel()
        kernel.audit.attach(seen)
        scene = Scene(kernel)
        scene.send()
        made.append(weakref.ref(kernel))

    gc.disable()  # else it may be closed before anybody listens
    try:
        forget()
        with pytest.warns(ResourceWarning, match="never closed"):
            collect_until(lambda: made[0]() is None)
    finally:
        gc.enable()
    assert len(seen.sequences) == 1
    assert names() == before


def test_who_is_blocked_goes_on_when_there_is_room(scene: Scene) -> None:
    gate = Gate()
    scene.kernel.audit.attach(gate, when_full="block", high=10, low=5)
    assert scene.kernel.audit.when_full == "block"
    run = Run(lambda: scene.send(10 * ROOM))
    gate.entered.acquire()
    settle(run)
    assert run.is_alive()
    gate.open()
    run.result()
    scene.kernel.audit.flush()
    assert len(gate.sequences) == 10 * ROOM
    assert np.all(np.diff(gate.sequences) == 1)
    assert scene.kernel.audit.stats["lost"] == 0


def test_a_sink_that_drops_keeps_nobody_waiting(scene: Scene) -> None:
    gate, other = Gate(), Seen()
    scene.kernel.audit.attach(gate, when_full="drop", high=10, low=5)
    scene.kernel.audit.attach(other)
    for count in range(1, ROOM // 2):
        scene.send()
        other.wait(count)
    [dropping, fine] = scene.kernel.audit.sinks
    assert (dropping.state, dropping.lost > 0) == ("behind", True)
    assert (fine.state, fine.lost, fine.written) == ("open", 0, ROOM // 2 - 1)
    assert scene.kernel.audit.stats["lost"] == 0
    gate.open()


def test_a_busy_program_loses_nothing_while_there_is_room_in_the_queue(scene: Scene) -> None:
    """The thread of the drain gets its turn seldom, and the ring is small."""
    seen = Seen()
    scene.kernel.audit.attach(seen, when_full="drop")
    scene.send(100 * ROOM)
    scene.kernel.audit.flush()
    assert seen.sequences == list(range(100 * ROOM))
    assert scene.kernel.audit.when_full == "drop"


def test_what_cannot_be_recorded_is_not_done(scene: Scene) -> None:
    gate = Gate()
    scene.kernel.audit.attach(gate, when_full="fail", high=10, low=5)
    with pytest.raises(AuditFull):
        scene.send(100 * ROOM)
    assert scene.kernel.audit.sinks[0].state == "behind"
    queued = scene.inbox.status.msgcount
    with pytest.raises(AuditFull):
        scene.right.send(b"")
    assert scene.inbox.status.msgcount == queued
    gate.open()
    scene.kernel.audit.flush()
    scene.right.send(b"")
    scene.kernel.audit.flush()
    assert np.all(np.diff(gate.sequences) == 1)


def test_a_failed_sink_that_must_not_fail_stops_everything(scene: Scene) -> None:
    def broken(_batch: Batch) -> None:
        raise OSError("disk full")

    other = Seen()
    scene.kernel.audit.attach(broken, when_full="fail")
    scene.kernel.audit.attach(other)
    scene.send()
    scene.kernel.audit.flush()
    for _ in range(3):
        with pytest.raises(AuditFull):
            scene.right.send(b"")
    assert [sink.state for sink in scene.kernel.audit.sinks] == ["open", "failed"]
    scene.kernel.audit.detach(broken)
    scene.send()
    scene.kernel.audit.flush()
    assert len(other.sequences) == 2
    scene.kernel.audit.detach(broken)
    with pytest.raises(ValueError, match="is not attached"):
        scene.kernel.audit.detach(print)


class Refusing(PolicyModule):
    """Refuses all; what it does meanwhile, a test says."""

    name = "refusing"

    def __init__(self) -> None:
        self.meanwhile: Callable[[], object] = lambda: None
        self.allowed = True

    def decide(self, source: object, target: object, tclass: object) -> Decision:
        self.meanwhile()
        return Decision(allowed=0xFFFFFFFF if self.allowed else 0)


def test_refusals_stand_while_nothing_is_done() -> None:
    policy = Refusing()
    with Kernel([policy], audit_records=ROOM) as kernel:
        scene = Scene(kernel)
        gate = Gate()
        kernel.audit.attach(gate, when_full="fail", high=1, low=0)
        with pytest.raises(AuditFull):
            scene.send(10 * ROOM)
        policy.allowed = False
        kernel.policies.renew()
        for _ in range(10):
            with pytest.raises(AccessDenied):
                scene.inbox.make_send(scene.inbox.task)
        gate.open()


@pytest.mark.parametrize("behind", [False, True])
def test_nothing_is_done_from_the_failure_on(scene: Scene, behind: bool) -> None:
    """Whoever hears of it first finds that nothing can be done any more."""
    gate, heard = Gate(), SimpleQueue[str]()

    def broken(batch: Batch) -> None:
        gate(batch)
        raise OSError("disk full")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with pytest.raises(AuditFull):
                scene.right.send(b"")
            heard.put(record.getMessage())
            raise RuntimeError("and a handler that raises")

    drain, told = scene.kernel.audit._drain, []
    options = drain._options
    scene.kernel.audit.attach(broken, when_full="fail", high=1 if behind else 100, low=0)
    drain._options = lambda: (told.append(drain.halted), options())  # type: ignore[assignment, func-returns-value]
    logger, handler = logging.getLogger("pympi.audit"), Handler()
    logger.addHandler(handler)
    try:
        scene.send()
        assert gate.entered.acquire(timeout=LONG)
        gate.open()
        scene.kernel.audit.flush()
        said = heard.get(timeout=LONG)  # by the drain's thread, which may have flush() return first
    finally:
        logger.removeHandler(handler)
    assert heard.empty()
    assert said.endswith("broken failed, gets no more records: OSError: disk full")
    assert set(told) == {True}


def test_nothing_is_done_unrecorded_while_a_kernel_is_closed() -> None:
    """Others may still be at it; here it is the sink itself, when it is closed."""
    with Kernel(audit_records=ROOM) as kernel:
        scene, tried = Scene(kernel), []

        class Strict:
            when_full = "fail"

            def __call__(self, _batch: Batch) -> None:
                pass

            def close(self) -> None:
                with pytest.raises(AuditFull):
                    scene.right.send(b"")
                tried.append(scene.inbox.status.msgcount)

        kernel.audit.attach(Strict())
    assert tried == [0]


def test_a_sink_is_attached_once(scene: Scene) -> None:
    @dataclass
    class Alike:
        got: int = 0

        def __call__(self, batch: Batch) -> None:
            self.got += len(batch)

    class Method:
        def take(self, _batch: Batch) -> None:
            pass

    one, other, method = Alike(), Alike(), Method()
    for sink in (one, other, method.take):
        scene.kernel.audit.attach(sink)
    for sink in (one, method.take):
        with pytest.raises(ValueError, match="is attached already"):
            scene.kernel.audit.attach(sink)
    scene.kernel.audit.detach(other)
    scene.send()
    scene.kernel.audit.flush()
    assert (one.got, other.got) == (1, 0)
    scene.kernel.audit.attach(other)


def test_a_loss_at_the_end_is_told_of() -> None:
    """Though nothing follows it, and nobody drains but the end."""
    sequences: list[tuple[int, int]] = []
    with Kernel(audit_records=8, clock=SimulatedClock()) as kernel:
        scene = Scene(kernel)
        kernel.audit.attach(
            lambda batch: sequences.extend(batch.records[["sequence", "result"]].tolist())
        )
        scene.send(20)
        first, lost = kernel.audit.stats["drained"], kernel.audit.stats["lost"]
    *records, (last, told) = sequences
    assert len(records) == 7
    assert lost == told == 13
    assert last == records[-1][0] + told + 1
    assert first == 0


# ---- nobody waits for himself ----


def test_a_decision_does_not_wait_for_a_sink_that_waits_for_it() -> None:
    """The policy holds a lock and does what is recorded; the sink is behind, and wants the lock."""
    lock, policy = threading.Lock(), Refusing()
    entered, outcomes = threading.Event(), []

    def sink(_batch: Batch) -> None:
        entered.set()
        with lock:
            pass

    with Kernel([policy], audit_records=ROOM) as kernel:
        scene = Scene(kernel)

        def meanwhile() -> None:
            policy.meanwhile = lambda: None
            with lock:
                try:
                    scene.send(10 * ROOM)
                except AuditFull as error:
                    outcomes.append(error)
                assert entered.wait(LONG)

        kernel.audit.attach(sink, when_full="block", high=8, low=4, patience=LONG)
        policy.meanwhile = meanwhile
        kernel.policies.renew()
        Run(lambda: scene.inbox.make_send(scene.inbox.task)).result()
        kernel.audit.flush()
        assert not kernel.audit.failures
        assert kernel.audit.sinks[0].lost == 0
    assert len(outcomes) == 1


def test_a_sink_that_sends_is_audited_too(scene: Scene) -> None:
    seen: list[int] = []

    def sink(batch: Batch) -> None:
        seen.extend(batch.records["sequence"].tolist())
        if len(seen) < 500:
            with suppress(AuditFull):
                scene.send(2)

    scene.kernel.audit.attach(sink, when_full="block", high=10, low=5, patience=LONG)
    scene.send(3)
    scene.kernel.audit.flush()
    assert len(seen) >= 3
    scene.kernel.audit.detach(sink)
    assert not scene.kernel.audit.failures


@pytest.mark.parametrize("threaded", [True, False])
def test_what_a_sink_may_ask_for(scene: Scene, threaded: bool) -> None:
    control = scene.kernel.audit
    control.threaded = threaded
    seen, errors, late = [], [], Seen()

    def sink(batch: Batch) -> None:
        seen.append(len(batch))
        control.flush()
        try:
            control.drain()
        except RuntimeError as error:
            errors.append(str(error))
        assert control.sinks[0].name.endswith("sink")
        control.attach(late)
        control.detach(sink)

    control.attach(sink, patience=LONG)
    scene.send()
    control.flush()
    scene.send()
    control.flush()
    assert seen == [1]
    assert errors == ["a sink cannot drain: it is what is drained into"]
    assert len(late.sequences) >= 1
    assert [stats.name for stats in control.sinks] == ["Seen"]
    assert not control.failures


def test_how_sinks_are_fed_stays(scene: Scene) -> None:
    scene.kernel.audit.attach(Seen())
    with pytest.raises(ValueError, match="cannot change while there are some"):
        scene.kernel.audit.threaded = False


def test_a_flush_with_a_limit(scene: Scene) -> None:
    gate = Gate()
    scene.kernel.audit.attach(gate)
    scene.send()
    with pytest.raises(TimeoutError, match=r"not done in 0\.01 s, and going on: Gate"):
        scene.kernel.audit.flush(timeout=0.01)
    gate.open()
    scene.kernel.audit.flush(timeout=LONG)
    assert len(gate.sequences) == 1


def test_closing_gives_up_a_sink_that_hangs() -> None:
    gate, good = Gate(), Seen()
    with Kernel() as kernel:
        scene = Scene(kernel)
        kernel.audit.attach(gate, patience=0.05)
        kernel.audit.attach(good)
        scene.send(3)
        control = kernel.audit
    [failure] = control.failures
    assert (failure.sink, failure.error) == (gate, "finished nothing in 0.05 s")
    assert failure.lost == 3
    assert len(good.sequences) == 3
    gate.open()


def test_a_sink_that_wants_each_record_at_once(scene: Scene) -> None:
    class Synchronous:
        synchronous = True

        def __init__(self) -> None:
            self.sequences: list[int] = []
            self.threads: set[int] = set()

        def __call__(self, batch: Batch) -> None:
            self.sequences += batch.records["sequence"].tolist()
            self.threads.add(threading.get_ident())

    sink = Synchronous()
    scene.kernel.audit.attach(sink)
    for count in range(1, 20):
        scene.send()
        assert len(sink.sequences) == count
    assert threading.get_ident() not in sink.threads


def test_a_sink_that_wants_each_record_at_once_and_hangs_is_given_up(scene: Scene) -> None:
    gate = Gate()
    gate.synchronous = True  # type: ignore[attr-defined]
    scene.kernel.audit.attach(gate, patience=0.3)
    scene.send()
    [failure] = scene.kernel.audit.failures
    assert (failure.error, failure.lost) == ("finished nothing in 0.3 s", 1)
    scene.send()
    gate.open()


def test_hundreds_of_ctrl_c_a_second_keep_no_operation_from_the_trail(tmp_path: Path) -> None:
    """What returned is recorded, and no record is told to be lost that is not."""
    storm = [sys.executable, str(Path(__file__).parents[1] / "ctrl_c_storm.py")]
    command = [*storm, str(tmp_path / "storm.audit"), "2", "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LONG, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["interrupted"] > 100
    assert found["returned"] > 0
    assert (found["missing"], found["told"], found["state"]) == ([], found["gap"], "closed")


# ---- simulations ----


def test_a_simulation_has_no_threads_and_repeats_itself() -> None:
    def run() -> tuple[bytes, list[int]]:
        batches: list[bytes] = []
        with Kernel(clock=SimulatedClock(), seed=3, audit_records=ROOM) as kernel:
            before = names()
            sink = audit.Memory()
            kernel.audit.attach(lambda batch: batches.append(batch.records.tobytes()))
            kernel.audit.attach(sink, when_full="block")
            Scene(kernel).send(3 * ROOM)
            assert names() == before
        return b"|".join(batches), [record.sequence for record in sink.records]

    first = run()
    assert run() == first
    assert len(first[1]) == 3 * ROOM


def test_a_sink_in_place_that_sends_into_a_full_ring() -> None:
    """It is in what makes room, so there is none for it: its own send fails, and nothing hangs."""
    failed: list[AuditFull] = []
    with Kernel(clock=SimulatedClock(), audit_records=ROOM) as kernel:
        scene = Scene(kernel)

        def sink(_batch: Batch) -> None:
            try:
                scene.send(2 * ROOM)
            except AuditFull as error:
                failed.append(error)

        kernel.audit.attach(sink, when_full="block")
        with pytest.raises(AuditFull):
            scene.send(2 * ROOM)
        kernel.audit.detach(sink)
        kernel.audit.drain()
        scene.send()
    assert failed


# ---- processes ----


def test_a_child_of_fork_only_closes(scene: Scene) -> None:
    seen, abandoned = Seen(), []
    scene.kernel.audit.attach(seen)
    seen.abandon = lambda: abandoned.append(1)  # type: ignore[attr-defined]
    scene.send()
    pid = os.fork()
    if not pid:
        good = False
        try:
            for call in (
                scene.kernel.audit.flush, scene.kernel.audit.drain,
                lambda: scene.kernel.audit.attach(seen), lambda: scene.kernel.audit.detach(seen),
            ):  # fmt: skip
                try:
                    call()
                except ForkedError:
                    continue
                os._exit(2)
            scene.kernel.close()
            good = abandoned == [1]
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    scene.kernel.audit.flush()
    assert (len(seen.sequences), abandoned) == (1, [])


def test_what_nobody_closed_is_written_at_exit() -> None:
    done = program(
        """
        from pympi import Kernel, audit
        kernel = Kernel()
        kernel.audit.everything()

        class Slow:
            def __call__(self, batch):
                print(len(batch), flush=True)
            def close(self):
                print("closed", flush=True)

        kernel.audit.attach(Slow())
        task = kernel.create_task("task")
        kernel.kept = task.allocate_port().make_send(task)
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("closed\n")
    assert sum(map(int, done.stdout.split()[:-1])) > 0


def test_ctrl_c_while_blocked(scene: Scene) -> None:
    gate = Gate()
    scene.kernel.audit.attach(gate, when_full="block", high=4, low=2, patience=LONG)
    main = threading.get_ident()

    def interrupt() -> None:
        gate.entered.acquire()
        while scene.kernel.audit.sinks[0].state != "behind":
            pass
        signal.pthread_kill(main, signal.SIGINT)

    run = Run(interrupt)
    with pytest.raises(KeyboardInterrupt):
        scene.send(100 * ROOM)
    run.result()
    gate.open()
    scene.kernel.audit.flush()
    assert np.all(np.diff(gate.sequences) == 1)


class Wordy:
    """Puts records into words when it is let: until then the drain's thread is busy."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.let = threading.Event(), threading.Event()
        words = scene.kernel.audit._drain.words
        self._whole = words.batch
        monkeypatch.setattr(words, "batch", self._batch)

    def _batch(self, records: npt.NDArray[Any]) -> Batch:
        self.entered.set()
        assert self.let.wait(LONG)
        return self._whole(records)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_closing_frees_no_kernel_that_is_in_use(
    monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    kernel, seen, freed = Kernel(audit_records=ROOM), Seen(), []
    scene, main = Scene(kernel), threading.get_ident()
    kernel.audit.attach(seen)
    wordy = Wordy(scene, monkeypatch)
    scene.send()
    assert wordy.entered.wait(LONG)
    policies_close = kernel.policies.close  # right before the kernel is freed
    monkeypatch.setattr(kernel.policies, "close", lambda: (freed.append(names()), policies_close()))

    def press() -> None:
        for _ in range(presses):
            time.sleep(0.2)
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.2)
        wordy.let.set()

    run = Run(press)
    with pytest.raises(KeyboardInterrupt):
        kernel.close()
    assert kernel.closed == (presses == 1)
    run.result()
    kernel.close()
    assert (kernel.closed, len(freed), len(seen.sequences)) == (True, 1, 1)
    assert "audit" not in freed[0]


def test_what_fails_in_the_thread_is_raised_where_it_was_asked_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen, drain = Seen(), scene.kernel.audit._drain
    scene.kernel.audit.attach(seen)

    def fails() -> None:
        raise MemoryError("no labels")

    with monkeypatch.context() as patch:
        patch.setattr(drain, "_before", fails)
        scene.send()
        for _ in range(2):
            with pytest.raises(MemoryError, match="no labels"):
                scene.kernel.audit.flush()
    scene.kernel.audit.flush()
    assert seen.sequences == [0]
    assert "the audit's drain failed, and tries again" in caplog.text


def test_ctrl_c_reaches_who_receives(scene: Scene) -> None:
    scene.kernel.audit.attach(Seen())
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        scene.inbox.receive(timeout=LONG)
    timer.join()


def test_ctrl_c_on_the_way_into_a_call_from_the_core(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before anything in there could catch it: it was printed, and swallowed."""
    target = _upcall._target

    def interrupted(_pointer: object) -> object:
        monkeypatch.setattr(_upcall, "_target", target)
        raise KeyboardInterrupt

    with Kernel(clock=SimulatedClock(), audit_records=ROOM) as kernel:
        scene = Scene(kernel)
        kernel.audit.when_full = "block"
        monkeypatch.setattr(_upcall, "_target", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scene.send(2 * ROOM)
    assert capfd.readouterr().err == ""


# ---- words ----


def test_ctrl_c_while_records_are_put_into_words(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in no ring any more: whoever drains next goes on with them."""
    seen, words = Seen(), scene.kernel.audit._drain.words
    scene.kernel.audit.threaded = False  # else Ctrl-C would not come where they are
    scene.kernel.audit.attach(seen)
    whole = words.batch

    def interrupted(_records: object) -> Batch:
        monkeypatch.setattr(words, "batch", whole)
        raise KeyboardInterrupt

    monkeypatch.setattr(words, "batch", interrupted)
    scene.send(3)
    with pytest.raises(KeyboardInterrupt):
        scene.kernel.audit.flush()
    scene.kernel.audit.flush()
    assert len(seen.sequences) == 3


def test_distinct_numbers_are_all_found(kernel: Kernel) -> None:
    words, random = Words(kernel), np.random.default_rng(1)
    for top in (3, 1000, 2**20, 2**32):
        records = np.zeros(3000, RECORD)
        for field in ("real_sid", "object_sid"):
            records[field] = random.integers(0, top, len(records), dtype=np.uint32)
        records["object_sid"][::3] = records["real_sid"][::3] ^ 0x10001  # the same slot
        both = np.concatenate([records["real_sid"], records["object_sid"]])
        found = words._distinct(records, "real_sid", "object_sid")
        assert found == sorted(set(both.tolist()) - {0})


def test_names_of_tasks_are_known_when_these_are_gone(scene: Scene) -> None:
    memory = audit.Memory()
    scene.kernel.audit.attach(memory)
    task = scene.kernel.create_task("short-lived")
    right = scene.inbox.make_send(task)
    right.send(b"")
    scene.kernel.audit.flush()
    right.send(b"")
    task.terminate()
    scene.kernel.audit.flush()
    assert {record.task_name for record in memory.records} == {"short-lived"}


def test_names_of_tasks_that_were_gone_before_anybody_looked() -> None:
    with Kernel(clock=SimulatedClock()) as kernel:
        scene, memory = Scene(kernel), audit.Memory()
        kernel.audit.attach(memory)
        task = kernel.create_task("short-lived")
        scene.inbox.make_send(task).send(b"")
        task.terminate()
        kernel.audit.flush()
        assert [record.task_name for record in memory.records] == ["short-lived"]


def test_so_many_names_of_tasks_are_remembered(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "_NAMES", 4)
    words = Words(kernel)
    for number in range(1, 8):
        words.remember(number, f"task {number}")
    assert [*words._tasks(range(1, 8))] == [5, 6, 7]


def until_its_number_comes_again(kernel: Kernel, scene: Scene, sid: int) -> str:
    """Use up labels, and have records drained, until one has a SID that another had."""
    for number in range(10_000):
        scene.send()
        kernel.audit.drain()
        kernel.audit.drain()
        label = f"rules/churn_{number}"
        with kernel.borrowed(label) as found:
            if found == sid:
                kernel.create_task(label, label=label)
                return label
    raise AssertionError


class Alone(PolicyModule):
    """Allows everything but to one."""

    name = "rules"

    def decide(self, source: object, target: object, tclass: object) -> Decision:
        return Decision(allowed=0 if "churn" in str(source) else 0xFFFFFFFF)


def test_a_label_that_got_the_number_of_another_is_decided_anew_and_shown() -> None:
    """Numbers come again after 4096 labels in one place; whatever was known of it then is not."""
    with Kernel(policies=[Alone()], clock=SimulatedClock()) as kernel:
        scene = Scene(kernel)
        kernel.audit.sample(one_in=1)
        brief = kernel.create_task("brief", label="rules/brief")
        sid, right = brief.sid, scene.inbox.make_send(brief)
        right.send(b"")
        scene.inbox.receive()
        first = kernel.audit.batch(kernel.audit.drain())
        assert first.labels[sid] == "rules/brief"
        brief.terminate()
        del brief, right  # which keep its label
        churn = until_its_number_comes_again(kernel, scene, sid)
        [task] = [task for task in kernel.tasks.values() if task.name == churn]
        assert task.sid == sid
        with pytest.raises(AccessDenied):
            scene.inbox.make_send(task)
        kernel.audit.select("denied")
        with pytest.raises(AccessDenied):
            scene.inbox.make_send(task)
        [record] = kernel.audit.batch(kernel.audit.drain())
        assert record.subject == churn
        subjects = [stratum.subject for stratum in kernel.audit.strata()]
        assert (subjects.count("rules/brief"), subjects[-1]) == (1, churn)


def test_labels_are_shown_as_the_policy_is_now() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        task = kernel.create_task("task", label="partition/red")
        records = np.zeros(1, RECORD)
        records["effective_sid"] = task.sid
        assert kernel.audit.batch(records).labels == {task.sid: "partition/red"}
        kernel.policies.unload("partition")
        assert kernel.audit.batch(records).labels == {task.sid: "-"}


def test_records_that_cannot_be_put_into_words_are_kept(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(_number: int) -> str:
        raise RuntimeError("no words")

    seen = Seen()
    scene.kernel.audit._drain.words._tasks = raises  # type: ignore[method-assign, assignment]
    scene.kernel.audit.attach(seen)
    scene.send()
    scene.kernel.audit.flush()
    assert len(seen.sequences) == 1
    assert "1 audit records could not be put into words" in caplog.text


def test_a_sink_in_place_that_fills_the_ring_once() -> None:
    """With "block" room is made again: it has an end."""
    seen: list[int] = []
    with Kernel(audit_records=16) as kernel:
        kernel.audit.threaded = False
        inbox = kernel.create_task("server").allocate_port(qlimit=100)
        right = inbox.make_send(kernel.create_task("client"))
        kernel.audit.select("granted", "mach_port", "send")

        def sink(batch: Batch) -> None:
            first = not seen
            seen.extend(batch.records["msgh_id"].tolist())
            for number in range(12 if first else 0):
                right.send(b"", msgh_id=100 + number)

        kernel.audit.attach(sink, when_full="block")
        for number in range(20):
            right.send(b"", msgh_id=number)
    assert sorted(seen) == [*range(20), *range(100, 112)]
