# SPDX-License-Identifier: BSD-2-Clause
"""The binding: who holds the GIL when, and what a signal does to a thread waiting in the core."""

import importlib.util
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import LONG, Run

from pympi import _ffi
from pympi._ffi import ffi, lib

FOREVER = -1
SHORT = 0.1  # seconds after which a signal or a message comes
SHORT_NS = 100_000_000
BODY = b"a page"


class Wire:
    """One task with one receive right and a send right to it, below the Python API."""

    def __init__(self) -> None:
        kernel, task = ffi.new("struct pm_kernel **"), ffi.new("struct pm_task **")
        assert lib.pm_kernel_create(ffi.NULL, kernel) == 0
        self.kernel = kernel[0]
        sid = lib.pm_sid_intern(self.kernel, ffi.NULL, b"test", 4)
        assert sid > 0
        made = lib.pm_task_create(self.kernel, ffi.NULL, b"t", sid, ffi.NULL, ffi.NULL, task)
        assert made == 0
        self.task = task[0]
        self.name = lib.pm_port_allocate(self.task, self.task, lib.MACH_PORT_RIGHT_RECEIVE, 0)
        assert self.name > 0
        arguments = (self.task, self.task, self.name, self.name, lib.MACH_MSG_TYPE_MAKE_SEND)
        assert lib.pm_port_insert_right(*arguments) == 0
        self.buffer = ffi.new("char[64]")

    def send(self, wait: object = ffi.NULL) -> int:
        return lib.pm_send(self.task, self.name, BODY, len(BODY), 1, wait)

    def block_send(self, timeout_ns: int) -> int:
        return lib.pm_block_send(self.task, self.name, BODY, len(BODY), 1, timeout_ns)

    def block_receive(self, timeout_ns: int) -> int:
        return lib.pm_block_receive(self.task, self.name, self.buffer, 64, timeout_ns)

    def fill(self) -> int:
        """Send until the queue is full; return how many messages it took."""
        sent = 0
        while self.send() == 0:
            sent += 1
        return sent

    def close(self) -> None:
        lib.pm_task_release(self.task)
        lib.pm_kernel_destroy(self.kernel)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def on_signal() -> Iterator[object]:
    """Set a handler of SIGUSR1, and have the signal come in SHORT seconds."""
    before = signal.getsignal(signal.SIGUSR1)
    timers = []

    def arrange(handler: object) -> None:
        signal.signal(signal.SIGUSR1, handler)
        timers.append(threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGUSR1)))
        timers[0].start()

    yield arrange
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGUSR1, before)


def interrupt_soon() -> threading.Timer:
    timer = threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_gil_is_kept_unless_stock() -> None:
    assert ("stock" in _ffi.BUILD.split()) != _ffi.GIL_KEPT


def load_with(core: types.ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Execute pympi/_ffi.py anew, with `core` in the place of the compiled module."""
    monkeypatch.setitem(sys.modules, "pympi._core", core)
    spec = importlib.util.spec_from_file_location("pympi._ffi_again", Path(_ffi.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_core(build: str, holds_gil: int, abi: int = 1) -> types.ModuleType:
    core = types.ModuleType("pympi._core")
    core.ffi = types.SimpleNamespace(string=lambda text: text)
    core.lib = types.SimpleNamespace(
        pm_binding_build=lambda: build.encode(), pm_binding_holds_gil=lambda _check: holds_gil,
        pm_abi_version=lambda: abi, PM_ABI_VERSION=1,
    )  # fmt: skip
    return core


def test_import_fails_where_the_gil_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match="PYMPI_STOCK=1"):
        load_with(fake_core("release", 0), monkeypatch)


def test_import_fails_with_a_library_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match=r"compiled for version 1 .* found has version 2"):
        load_with(fake_core("release", 1, abi=2), monkeypatch)


def test_import_of_stock_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load_with(fake_core("stock", 0), monkeypatch).GIL_KEPT


def test_import_without_build_says_how_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match="pympi is not built: there is no"):
        load_with(None, monkeypatch)


def test_a_poll_ends_though_nothing_comes(wire: Wire) -> None:
    assert wire.block_receive(0) == -lib.MACH_RCV_TIMED_OUT
    wire.fill()
    assert wire.block_send(0) == lib.MACH_SEND_TIMED_OUT


def test_wait_times_out_and_not_before_its_time(wire: Wire) -> None:
    begin = time.monotonic_ns()
    assert wire.block_receive(SHORT_NS) == -lib.MACH_RCV_TIMED_OUT
    assert time.monotonic_ns() - begin >= SHORT_NS


def test_wait_ends_with_a_message(wire: Wire) -> None:
    timer = threading.Timer(SHORT, wire.send)
    timer.start()
    assert wire.block_receive(FOREVER) == len(BODY)
    assert ffi.unpack(wire.buffer, len(BODY)) == BODY
    timer.join()


def test_wait_ends_with_room(wire: Wire) -> None:
    capacity = wire.fill()
    timer = threading.Timer(SHORT, wire.block_receive, (0,))
    timer.start()
    assert wire.block_send(FOREVER) == 0
    timer.join()
    assert [wire.block_receive(0) for _ in range(capacity)] == [len(BODY)] * capacity


def test_other_threads_run_during_a_wait(wire: Wire) -> None:
    def work_and_send() -> int:
        total = sum(range(1_000_000))  # long enough to lose the GIL more than once
        assert wire.send() == 0
        return total

    other = Run(work_and_send)
    assert wire.block_receive(FOREVER) == len(BODY)
    assert other.result() == 499999500000


def test_other_threads_run_while_one_waits_for_records(wire: Wire) -> None:
    lib.pm_audit_select(wire.kernel, 0, 0xFFFFFFFF, 0)

    def work_and_send() -> int:
        total = sum(range(1_000_000))
        assert wire.send() == 0
        return total

    other = Run(work_and_send)
    assert lib.pm_block_audit_wait(wire.kernel, 1, FOREVER) >= 1
    assert other.result() == 499999500000
    woken = Run(lambda: lib.pm_block_audit_wait(wire.kernel, 1000, FOREVER))
    assert lib.pm_audit_wake(wire.kernel) == 0  # kept, if it comes before the wait
    assert woken.result() >= 1
    records = ffi.new("struct pm_audit_record[4]")
    assert lib.pm_long_audit_drain(wire.kernel, records, 4) >= 1
    assert lib.pm_block_audit_wait(wire.kernel, 1000, 0) == 0


@pytest.mark.parametrize("direction", ["receive", "send"])
def test_interrupt_ends_a_wait(wire: Wire, direction: str) -> None:
    if direction == "send":
        wire.fill()
    timer = interrupt_soon()
    wait = wire.block_receive if direction == "receive" else wire.block_send
    with pytest.raises(KeyboardInterrupt):
        wait(FOREVER)
    timer.join()
    assert lib.pm_kernel_verify(wire.kernel, ffi.NULL, 0) == 0


def test_interrupt_leaves_nothing_behind(wire: Wire) -> None:
    timer = interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        wire.block_receive(FOREVER)
    timer.join()
    assert wire.send() == 0
    assert wire.block_receive(FOREVER) == len(BODY)


def test_handler_that_raises_ends_a_wait(wire: Wire, on_signal: object) -> None:
    def refuse(_number: int, _frame: object) -> None:
        raise LookupError("from the handler")

    on_signal(refuse)
    with pytest.raises(LookupError, match="from the handler"):
        wire.block_receive(FOREVER)


def test_handler_that_returns_lets_a_wait_go_on(wire: Wire, on_signal: object) -> None:
    """A message is sent only after the handler ran: the wait it ends is the one it interrupted."""
    came = threading.Event()
    on_signal(lambda _number, _frame: came.set())
    other = Run(lambda: (came.wait(LONG), wire.send()))
    assert wire.block_receive(FOREVER) == len(BODY)
    assert other.result() == (True, 0)


def test_handler_that_sends_ends_its_own_wait(wire: Wire, on_signal: object) -> None:
    on_signal(lambda _number, _frame: wire.send())
    assert wire.block_receive(FOREVER) == len(BODY)


def test_interrupt_is_the_main_threads(wire: Wire) -> None:
    other = Run(lambda: wire.block_receive(FOREVER))
    timer = interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        threading.Event().wait(LONG)
    timer.join()
    assert wire.send() == 0
    assert other.result() == len(BODY)


@pytest.mark.parametrize("call", ["send", "block_send"])
def test_decider_in_python_is_asked(wire: Wire, call: str) -> None:
    asked = []

    @ffi.callback("pm_decider")
    def decide(_context: object, queries: object, count: int, _epoch: int) -> int:
        for index in range(count):
            asked.append(queries[index].tclass)
            queries[index].allowed = 0
        return 0

    lib.pm_kernel_set_decider(wire.kernel, decide, ffi.NULL)
    lib.pm_kernel_set_policy(wire.kernel, lib.PM_POLICY_LOADED)
    arguments = () if call == "send" else (FOREVER,)
    assert getattr(wire, call)(*arguments) == lib.MACH_SEND_INVALID_DEST
    assert asked
