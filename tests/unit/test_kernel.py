# SPDX-License-Identifier: BSD-2-Clause
"""Kernels: their life, their options, and what can be asked of them."""

import copy
import gc
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from background import Run, settle

from pympi import (
    ForkedError,
    Kernel,
    KernelClosed,
    MachError,
    SimulatedClock,
    Task,
    VerifyError,
    audit,
)
from pympi.errors import LabelError
from pympi.policy import Partition, Rules, Stub


def test_a_kernel_is_used_and_closed() -> None:
    with Kernel() as kernel:
        task = kernel.create_task("task")
        assert kernel.tasks == {task.id: task}
        assert not kernel.closed
    assert kernel.closed
    assert not task.alive
    kernel.close()


def test_a_closed_kernel_says_so() -> None:
    kernel = Kernel()
    task = kernel.create_task("task")
    check = kernel.checker("mach_port", "send")
    kernel.close()
    for call in (
        kernel.stats,
        kernel.verify,
        lambda: kernel.create_task("late"),
        lambda: kernel.policies.load(Stub()),
        lambda: check(1, 1),
        task.allocate_port,
    ):
        with pytest.raises(KernelClosed):
            call()


def test_a_kernel_dropped_unclosed_warns() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Kernel().create_task("task")
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]


def test_a_kernel_dropped_unclosed_warns_whatever_was_looked_at() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kernel = Kernel()
        _ = kernel.audit.stats, kernel.trace, kernel.snapshot()
        del kernel, _
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]


def test_kernels_share_nothing(server: Task) -> None:
    with Kernel() as other:
        assert other.create_task("stranger").id == 1
        assert other.stats()["tasks"] == 1
    assert server.alive


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"clock": "fast"}, ValueError),
        ({"guard_violations": "ignore"}, ValueError),
        ({"audit_full": "shrug"}, ValueError),
        ({"avc_entries": 1 << 31}, MachError),
        ({"policies": ["stub"]}, TypeError),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Kernel(**options)  # type: ignore[arg-type]


def test_a_kernel_cannot_be_copied(kernel: Kernel, server: Task) -> None:
    for thing in (kernel, server, server.allocate_port()):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            pickle.dumps(thing)
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copy.copy(thing)


def test_names_of_tasks(kernel: Kernel) -> None:
    assert kernel.create_task("ü" * 500).name == "ü" * 500
    for name in ("a\0b", "x" * 1024):
        with pytest.raises(ValueError, match="name"):
            kernel.create_task(name)


def test_simulated_time() -> None:
    clock = SimulatedClock(start=1.0)
    with Kernel(clock=clock) as kernel, Kernel(clock=clock) as other:
        clock.advance(1.5)
        assert kernel.time == other.time == clock.now() == 2.5
        for wrong in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="time passes"):
                clock.advance(wrong)


def test_exact_time_is_now() -> None:
    with Kernel(clock="exact") as kernel:
        assert kernel.time > 1.6e9


def test_stats_count(kernel: Kernel, server: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(server)
    before = kernel.stats()
    right.send(b"x")
    queued = kernel.stats()
    port.receive()
    after = kernel.stats()
    assert (queued["messages_queued"], after["messages_queued"]) == (1, 0)
    assert after["sent"] - before["sent"] == after["received"] - before["received"] == 1
    assert after["tasks"] == 1


def test_a_fault_is_listed() -> None:
    error = VerifyError(["port 3: 2 send rights counted, 1 found"])
    assert error.faults == ["port 3: 2 send rights counted, 1 found"]
    assert "1 faults: port 3" in str(error)


POLICY = """
allow editor printer mach_port { send hold_send };
allow editor * mach_task { observe };
"""


@pytest.fixture
def ruled() -> Kernel:
    return Kernel(policies=[Rules.from_text(POLICY), Partition()])


def test_access_and_its_reason(ruled: Kernel) -> None:
    with ruled as kernel:
        editor = kernel.create_task("editor", label="rules/editor")
        answer = kernel.access(editor, "rules/printer", "mach_port", "send recv")
        assert not answer
        assert not answer.allowed
        assert answer.denied == ("recv",)
        assert answer.vector == kernel.object_class("mach_port").mask("send hold_send")
        assert kernel.access(editor, "rules/printer", "mach_port", "send").allowed
        text = kernel.explain(editor, "rules/printer", "mach_port", "send")
        assert text.splitlines()[0].endswith("mach_port send: allowed")
        assert (
            "rules: allows by allow editor printer mach_port { send hold_send }; (line 2)" in text
        )
        assert "refused" in kernel.explain(editor, editor, "mach_port", "recv")


def test_access_refuses_what_there_is_not(ruled: Kernel) -> None:
    with ruled as kernel:
        task = kernel.create_task("task")
        with pytest.raises(ValueError, match="no class 'mach_prt'"):
            kernel.access(task, task, "mach_prt", "send")
        with pytest.raises(ValueError, match="'sned' is no permission"):
            kernel.access(task, task, "mach_port", "sned")
        with pytest.raises(LabelError, match="no policy module 'te'"):
            kernel.access("te/x", task, "mach_port", "send")


def test_checks_agree_in_all_forms(ruled: Kernel) -> None:
    names = ["editor", "printer", "other"]
    with ruled as kernel:
        tasks = [kernel.create_task(name, label=f"rules/{name}") for name in names]
        sids = [task.sid for task in tasks]
        may_send = kernel.checker("mach_port", "send")
        pairs = [(s, t) for s in sids for t in sids]
        sources, targets = (np.array(column) for column in zip(*pairs, strict=True))
        expected = [pair == (sids[0], sids[1]) for pair in pairs]
        assert [may_send(*pair) for pair in pairs] == expected
        assert kernel.check_many(sources, targets, "mach_port", "send").tolist() == expected
        vectors = np.full(len(pairs), 4)
        assert kernel.check_many(sources, targets, 1, vectors).tolist() == expected
        assert kernel.check_many(sids[0], targets, "mach_port", "send").sum() == 3


def test_checks_refuse_strange_numbers(ruled: Kernel) -> None:
    with ruled as kernel:
        task = kernel.create_task("task", label="rules/editor")
        may_send = kernel.checker("mach_port", "send")
        assert may_send(task.sid, 123456) is False
        for wrong in ((-1, 0), (1 << 32, 0)):
            with pytest.raises(OverflowError):
                may_send(*wrong)
        with pytest.raises(TypeError):
            may_send("1", 2)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="2 arguments"):
            may_send(1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="integers"):
            kernel.check_many([1.5], [1], 1, 4)
        with pytest.raises(ValueError, match="broadcast"):
            kernel.check_many([1, 2], [1, 2, 3], 1, 4)


def test_closing_wakes_those_who_wait() -> None:
    kernel = Kernel()
    task = kernel.create_task("task")
    ports = [task.allocate_port(qlimit=0) for _ in range(4)]
    both = task.create_port_set(ports[0], ports[1])
    waits = [
        ports[2].receive,
        both.receive,
        lambda: ports[3].make_send(task).send(b""),
        lambda: ports[2].make_send(task).call(b""),
        ports[1].receiver(),
    ]
    runs = [Run(call) for call in waits]
    settle(*runs)
    kernel.close()
    assert all(isinstance(run.error(), MachError) for run in runs)


def in_child(action: object) -> int:
    """Return the exit status of a forked child that calls `action`."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = action()  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_after_fork_a_child_may_only_close(kernel: Kernel, server: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(server)
    right.send(b"x")

    def child() -> int:
        for call in (
            lambda: right.send(b"y"),
            lambda: port.receive(timeout=0),
            server.allocate_port,
            kernel.stats,
            lambda: kernel.create_task("child"),
            lambda: kernel.policies.load(Stub()),
        ):
            try:
                call()
            except ForkedError:
                continue
            return 1
        port.close()
        kernel.close()
        return 0

    assert in_child(child) == 0
    assert port.receive(timeout=0).body == b"x"


def test_a_child_writes_no_audit_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "run.audit"
    with Kernel() as kernel:
        kernel.audit.everything()
        kernel.audit.threaded = False  # so that records are there that are not written yet
        kernel.audit.attach(audit.File(path))
        task = kernel.create_task("task")
        task.allocate_port().make_send(task).send(b"")
        recorded = len(list(audit.read(path)))

        def child() -> int:
            kernel.close()
            return 0

        assert in_child(child) == 0
        assert len(list(audit.read(path))) == recorded
    assert len(list(audit.read(path))) > recorded


def test_memory_is_told_by_what_it_is_for() -> None:
    with Kernel() as kernel:
        before = kernel.stats()
        tasks = [kernel.create_task(f"task{number}") for number in range(500)]
        ports = [tasks[0].allocate_port() for _ in range(5000)]
        for port in ports[:600]:
            port.make_send(tasks[1]).send(bytes(1000))
        after = kernel.stats()
        grown = {part: after[part] - before[part] for part in after if part.startswith("memory")}
        assert grown["memory_tasks"] >= 500 * 300
        assert grown["memory_ports"] >= 5000 * 120
        assert grown["memory_names"] >= 5000 * 64
        assert grown["memory_messages"] >= 600 * 1000
        assert grown["memory_trace"] >= 0
        assert sum(grown.values()) == 2 * grown["memory"]  # the parts are all that grew
