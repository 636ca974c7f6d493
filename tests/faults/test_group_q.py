# SPDX-License-Identifier: BSD-2-Clause
"""Group Q, what happens to processes, threads and interpreters: usable, or a clear error."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from background import LONG, Run, output, program, settle

from pympi import Kernel, MachError, SendRight, Task, TimedOut, audit
from pympi.audit import AuditError
from pympi.port import ReceiveRight

pytestmark = pytest.mark.timeout(60, method="thread")


@pytest.fixture
def inbox(kernel: Kernel) -> ReceiveRight:
    return kernel.create_task("server").allocate_port(qlimit=2)


@pytest.fixture
def right(kernel: Kernel, inbox: ReceiveRight) -> SendRight:
    return inbox.make_send(kernel.create_task("client"))


# ---- fork ----

FORK = """
    import os, sys, threading, time
    from pympi import ForkedError, Kernel, SimulatedClock
    from pympi.policy import Stub

    kernel = Kernel(policies=[Stub()])
    task = kernel.create_task("task")
    inbox = task.allocate_port(qlimit=1)
    right = inbox.make_send(task)
    sender, receiver = right.sender(timeout=0), inbox.receiver(timeout=0)
    both = task.create_port_set()

    def child(action):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                action()
                status = 0
            except BaseException as error:
                print(type(error).__name__, error, flush=True)
            os._exit(status)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, 9)
        return "hangs"

    def refused(*calls):
        for call in calls:
            try:
                call()
            except ForkedError:
                continue
            raise AssertionError(call)
"""


def test_q1_fork_with_an_idle_library() -> None:
    """The child may make kernels of its own and close its parent's; the parent notices nothing."""
    assert output(
        FORK
        + """
    def action():
        with Kernel() as own:
            port = own.create_task("own").allocate_port()
            port.make_send(own.create_task("other")).send(b"x")
            assert port.receive().body == b"x"
            own.verify()
        kernel.close()
        kernel.close()

    print(child(action))
    right.send(b"parent")
    print(inbox.receive().body)
    kernel.verify()
    kernel.close()
    """
    ) == ["0", "b'parent'"]


def test_q2_fork_while_another_thread_holds_the_lock() -> None:
    """The lock that a thread held at the fork is never taken in the child."""
    assert output(
        FORK
        + """
    stop = threading.Event()

    def busy():
        own = kernel.create_task("busy")
        while not stop.is_set():
            own.allocate_port().close()
            kernel.verify()

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()

    def action():
        refused(lambda: right.send(b"x", timeout=0), kernel.stats, task.allocate_port)
        inbox.close()
        kernel.close()

    print({child(action) for _ in range(20)})
    stop.set()
    for thread in threads:
        thread.join()
    kernel.verify()
    kernel.close()
    """
    ) == ["{0}"]


def test_q3_use_in_the_child_is_refused() -> None:
    assert output(
        FORK
        + """
    right.send(b"queued")
    message_port = task.allocate_port()

    def action():
        refused(
            lambda: right.send(b"x"), lambda: right.send(b"x", timeout=0.01),
            lambda: right.send(b"x", rights=[inbox.make_send()]),
            lambda: right.call(b"x", timeout=0.01), lambda: sender(b"x"), receiver,
            inbox.receive, lambda: inbox.receive(timeout=0), lambda: both.receive(timeout=0.01),
            task.allocate_port, lambda: task.create_port_set(), task.names, lambda: task.usage,
            lambda: task.relabel("-"), lambda: inbox.relabel("-"), task.terminate,
            lambda: inbox.status, lambda: inbox.label, lambda: inbox.fileno(),
            lambda: kernel.create_task("t"), kernel.stats, kernel.verify,
            lambda: kernel.access(task, inbox, "mach_port", "send"),
            lambda: kernel.policies.unload("stub"), lambda: kernel.audit.drain(),
            lambda: kernel.trace.start(),
        )
        right.close()
        inbox.close()
        kernel.close()

    print(child(action))
    print(inbox.receive(timeout=0).body)
    kernel.verify()
    kernel.close()
    """
    ) == ["0", "b'queued'"]


SPAWNED = """
from pympi import Kernel

def talk(text):
    with Kernel() as kernel:
        inbox = kernel.create_task("child").allocate_port()
        inbox.make_send(kernel.create_task("other")).send(text)
        return inbox.receive(timeout=0).body
"""


def test_q4_multiprocessing_spawn(tmp_path: Path) -> None:
    """A spawned process has kernels of its own; none is carried over."""
    (tmp_path / "spawned_child.py").write_text(SPAWNED)
    assert output(
        """
        import concurrent.futures, multiprocessing, sys
        sys.path.insert(0, sys.argv[1])
        from spawned_child import talk
        from pympi import Kernel
        spawn = multiprocessing.get_context("spawn")
        with Kernel() as kernel, concurrent.futures.ProcessPoolExecutor(2, spawn) as pool:
            print(list(pool.map(talk, [b"a", b"b"])))
            try:
                pool.submit(print, kernel.create_task("t")).result()
            except TypeError as error:
                print("cannot be copied or pickled" in str(error))
        """,
        str(tmp_path),
    ) == ["[b'a', b'b']", "True"]


# ---- signals ----


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what happens at SIGUSR1, and has it come soon."""
    before = signal.getsignal(signal.SIGUSR1)
    timers = []

    def arrange(action: Callable[[], object]) -> None:
        signal.signal(signal.SIGUSR1, lambda _number, _frame: action())
        timers.append(soon(signal.SIGUSR1))

    yield arrange
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGUSR1, before)


def soon(number: int, after: float = 0.1) -> threading.Timer:
    timer = threading.Timer(after, os.kill, (os.getpid(), number))
    timer.start()
    return timer


Arrange = Callable[[Callable[[], object]], None]


def test_q5_signal_handler_sends(inbox: ReceiveRight, right: SendRight, on_signal: Arrange) -> None:
    on_signal(lambda: right.send(b"from the handler"))
    assert inbox.receive(timeout=LONG).body == b"from the handler"


def test_q5_signal_handler_makes_room(
    inbox: ReceiveRight, right: SendRight, on_signal: Arrange
) -> None:
    right.send(b"1")
    right.send(b"2")
    on_signal(lambda: inbox.receive(timeout=0))
    right.send(b"3", timeout=LONG)
    assert [inbox.receive(timeout=0).body for _ in range(2)] == [b"2", b"3"]


def test_q5_signal_handler_destroys_the_port_waited_on(
    inbox: ReceiveRight, on_signal: Arrange
) -> None:
    on_signal(inbox.close)
    with pytest.raises(MachError):
        inbox.receive(timeout=LONG)


def test_q5_the_wait_goes_on_and_keeps_its_place(
    inbox: ReceiveRight, right: SendRight, on_signal: Arrange
) -> None:
    """The main thread waits first; a signal comes; another thread waits; the first is first."""
    came = threading.Event()
    right.send(b"1")
    right.send(b"2")
    on_signal(came.set)

    def other() -> list[bytes]:
        assert came.wait(LONG)
        second = Run(lambda: right.send(b"second", timeout=LONG))
        settle(second)
        bodies = [inbox.receive(timeout=LONG).body]
        while inbox.status.msgcount < 2:  # two that are woken together race for the queue
            time.sleep(0.001)
        bodies += [inbox.receive(timeout=LONG).body for _ in range(3)]
        second.result()
        return bodies

    run = Run(other)
    right.send(b"first", timeout=LONG)
    assert run.result() == [b"1", b"2", b"first", b"second"]


@pytest.mark.parametrize("timeout", [None, LONG])
def test_q6_keyboard_interrupt_in_a_blocked_receive(
    inbox: ReceiveRight, right: SendRight, timeout: float | None
) -> None:
    timer = soon(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        inbox.receive(timeout=timeout)
    timer.join()
    right.send(b"nothing is lost")
    assert inbox.receive(timeout=0).body == b"nothing is lost"


def test_q6_keyboard_interrupt_in_a_blocked_send(inbox: ReceiveRight, right: SendRight) -> None:
    right.send(b"1")
    right.send(b"2")
    for send in (lambda: right.send(b"3"), lambda: right.send(b"3", rights=[None])):
        timer = soon(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send()
        timer.join()
    assert inbox.status.msgcount == 2, "nothing was sent"


def test_q6_keyboard_interrupt_in_a_call(inbox: ReceiveRight, right: SendRight) -> None:
    timer = soon(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        right.call(b"?")
    timer.join()
    request = inbox.receive(timeout=0)
    with pytest.raises(MachError):
        request.reply(b"to nobody")


def test_q6_keyboard_interrupt_in_bound_callables(inbox: ReceiveRight) -> None:
    for call in (inbox.receiver(), inbox.receiver(timeout=LONG)):
        timer = soon(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            call()
        timer.join()


def test_q6_a_storm_of_signals(inbox: ReceiveRight, right: SendRight) -> None:
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.0005)

    storming = Run(storm)
    sending = Run(lambda: [right.send(bytes([i]), timeout=LONG) for i in range(200)])
    try:
        heard = [inbox.receive(timeout=LONG).body[0] for _ in range(200)]
        with pytest.raises(TimedOut):  # a wait that began anew at each signal would never end
            inbox.receive(timeout=0.2)
    finally:
        stop.set()
        storming.result()
        signal.signal(signal.SIGUSR1, before)
    sending.result()
    assert heard == list(range(200))


# ---- the end of threads and interpreters ----

BLOCKED = """
    import threading, time, atexit
    from pympi import Kernel
    kernel = Kernel()
    task = kernel.create_task("task")
    inbox = task.allocate_port(qlimit=1)
    right = inbox.make_send(task)
"""


def test_q7_a_thread_ends_holding_nothing() -> None:
    """A thread that leaves a wait by an exception leaves no waiter behind."""
    assert output(
        BLOCKED
        + """
    import ctypes

    def wait():
        while True:
            try:
                inbox.receive(timeout=0.01)
            except TimeoutError:
                continue

    thread = threading.Thread(target=wait)
    threading.excepthook = lambda _arguments: None
    thread.start()
    time.sleep(0.1)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    thread.join(10)
    print(thread.is_alive())
    kernel.verify()
    right.send(b"x")
    print(inbox.receive().body)
    kernel.close()
    """
    ) == ["False", "b'x'"]


@pytest.mark.parametrize("waits", ["receive()", "receive(timeout=1000)", "receiver()()"])
def test_q8_daemon_thread_blocked_at_shutdown(waits: str) -> None:
    """Who waits without end, or for long, holds nobody up."""
    done = program(
        BLOCKED
        + f"""
    threading.Thread(target=lambda: inbox.{waits}, daemon=True).start()
    time.sleep(0.1)
    print("end")
    """
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def test_q8_daemon_thread_blocked_while_the_kernel_is_closed() -> None:
    done = program(
        BLOCKED
        + """
    right.send(b"full")
    errors = []
    def quietly(call):
        try:
            call()
        except Exception as error:
            errors.append(type(error).__name__)
    calls = [lambda: task.allocate_port().receive(), lambda: right.send(b"x")]
    threads = [threading.Thread(target=quietly, args=[call], daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    atexit.register(lambda: print("closed", kernel.closed))
    kernel.close()
    for thread in threads:
        thread.join(10)
    print(errors, [thread.is_alive() for thread in threads])
    """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['KernelClosed', 'KernelClosed'] [False, False]", "closed True"
    ]  # fmt: skip


@pytest.mark.parametrize("policy", ["", "policies=[Stub()]"])
def test_q9_everything_is_dropped_at_exit(policy: str) -> None:
    """Objects in cycles and in globals, finalised in whatever order, with handlers and memory."""
    done = program(
        f"""
        import atexit, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        from pympi import Kernel, Memory
        from pympi.policy import Stub
        kernel = Kernel({policy})
        task = kernel.create_task("task")
        inbox = task.allocate_port()
        right = inbox.make_send(task)
        send, receive = right.sender(), inbox.receiver()
        handler = task.create_handler(lambda message: None)
        echo = handler.make_send(task)
        right.send(b"x", memory=[Memory(b"m" * 100, lambda: None)])
        message = inbox.receive()
        view = message.memory[0]
        right.send(b"y", memory=[Memory(b"m" * 100, lambda: None)])
        kernel.cycle = [kernel, task, message, view, echo]

        class Late:
            def __del__(self):
                try:
                    right.send(b"late", timeout=0)
                    kernel.stats()
                    kernel.close()
                except Exception:
                    pass

        late = Late()
        atexit.register(lambda: echo.send(b"at exit"))
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_q9_a_kernel_closed_at_exit() -> None:
    assert output(BLOCKED + "    atexit.register(lambda: (kernel.close(), print('closed')))") == [
        "closed"
    ]


def test_q10_imported_a_second_time() -> None:
    """The Python part can be loaded anew; old objects go on to work, beside the new."""
    assert output(
        BLOCKED
        + """
    import sys, warnings
    for name in [name for name in sys.modules if name.split(".")[0] == "pympi"]:
        if name != "pympi._core":
            del sys.modules[name]
    import pympi
    assert pympi.Kernel is not Kernel
    with pympi.Kernel() as other:
        port = other.create_task("t").allocate_port()
        port.make_send(other.create_task("u")).send(b"new")
        print(port.receive().body)
    right.send(b"old")
    print(inbox.receive().body)
    kernel.verify()
    kernel.close()
    """
    ) == ["b'new'", "b'old'"]


def test_q10_sub_interpreters() -> None:
    """It works there, or says clearly that it does not."""
    done = program(
        """
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            print("absent"); raise SystemExit
        from pympi import Kernel
        other = interpreters.create()
        try:
            interpreters.run_string(other, '''
        from pympi import Kernel
        with Kernel() as kernel:
            port = kernel.create_task("t").allocate_port()
            port.make_send(kernel.create_task("u")).send(b"x")
            assert port.receive(timeout=0).body == b"x"
        '''.replace("\\n        ", "\\n"))
            print("works")
        except Exception as error:
            assert "ImportError" in str(type(error)) + str(error), error
            print("clear error")
        with Kernel() as kernel:
            task = kernel.create_task("t")
            port = task.create_handler(lambda message: message.reply(b"still works"))
            print(port.make_send(task).call(b"").body)
        """
    )
    if done.stdout == "absent\n":
        pytest.skip("this Python has no sub-interpreters")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first in ("works", "clear error")
    assert second == "b'still works'"


def test_q11_free_threaded_build(kernel: Kernel, inbox: ReceiveRight, right: SendRight) -> None:
    """The core's own lock is enough: threads that run at once lose and make nothing."""
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this Python has a GIL")
    count = 1000
    sending = [
        Run(lambda: [right.send(b"x", timeout=LONG) for _ in range(count)]) for _ in range(2)
    ]
    heard = Run(lambda: [inbox.receive(timeout=LONG).body for _ in range(count)])
    assert [inbox.receive(timeout=LONG).body for _ in range(count)] == heard.result()
    assert [len(run.result()) for run in sending] == [count] * 2
    kernel.verify()


# ---- switching in a wait or callback ----


def test_q12_asyncio_cancelled_during_a_receive(inbox: ReceiveRight, right: SendRight) -> None:
    """Whenever the waiter is cancelled, each message is either received or still there."""

    async def round_(delay: int) -> int:
        waiter = asyncio.create_task(inbox.receive_async())
        for _ in range(delay % 7):
            await asyncio.sleep(0)
        sender = asyncio.get_running_loop().run_in_executor(None, right.send, b"x")
        for _ in range(delay % 11):
            await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        await sender
        got = not waiter.cancelled()
        left = inbox.status.msgcount
        for _ in range(left):
            inbox.receive(timeout=0)
        return got + left

    async def main() -> list[int]:
        return [await round_(delay) for delay in range(77)]

    assert asyncio.run(main()) == [1] * 77


def test_q12_asyncio_timeout_during_a_call(inbox: ReceiveRight, right: SendRight) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(right.call_async(b"?"), 0.02)

    asyncio.run(main())
    with pytest.raises(MachError):
        inbox.receive(timeout=0).reply(b"late")


def test_q13_greenlet_switch_in_a_callback(kernel: Kernel, right: SendRight) -> None:
    greenlet = pytest.importorskip("greenlet", reason="greenlet is not installed")
    server: Task = kernel.create_task("greenlets")
    main = greenlet.getcurrent()
    other = greenlet.greenlet(lambda: echo.send(b"from a greenlet"))
    handler = server.create_handler(lambda _message: main.switch("switched"))
    echo = handler.make_send(server)
    assert other.switch() == "switched"
    right.send(b"x", timeout=0)
    kernel.verify()
    other.switch()
    kernel.verify()


def test_q14_the_extension_is_loaded_again() -> None:
    done = program(
        BLOCKED
        + """
    import sys
    for name in [name for name in sys.modules if name.split(".")[0] == "pympi"]:
        del sys.modules[name]
    try:
        import pympi
        with pympi.Kernel() as other:
            port = other.create_task("t").create_handler(lambda message: message.reply(b"again"))
            print(port.make_send(other.create_task("u")).call(b"").body)
    except ImportError as error:
        print("clear error")
    right.send(b"old")
    print(inbox.receive().body)
    kernel.verify()
    kernel.close()
    """
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first in ("b'again'", "clear error")
    assert second == "b'old'"


def test_q15_killed_in_the_middle_of_writing(tmp_path: Path) -> None:
    """What is whole is read; where the file is torn is said."""
    path = tmp_path / "run.audit"
    done = program(
        """
        import os, signal, sys, threading, time
        from pympi import Kernel, audit
        kernel = Kernel()
        kernel.audit.everything()
        kernel.audit.attach(audit.File(sys.argv[1]))
        task = kernel.create_task("task")
        inbox = task.allocate_port(qlimit=1000)
        right = inbox.make_send(task)

        def kill():
            while os.path.getsize(sys.argv[1]) < 100_000:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=kill).start()
        while True:
            right.send(b"x", 7)
            inbox.receive()
            kernel.audit.flush()
        """,
        str(path),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole = path.read_bytes()
    assert len(whole) >= 100_000
    torn, complaints = tmp_path / "torn.audit", 0
    for cut in (0, 1, 57, 104, 1000):
        torn.write_bytes(whole[: len(whole) - cut])
        numbers: list[int] = []
        complaint = ""
        try:
            for record in audit.read(torn):
                numbers.append(record.sequence)
        except AuditError as error:
            complaint = str(error)
        assert len(numbers) > 50
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert not complaint or f"{torn}, byte " in complaint
        complaints += bool(complaint)
    assert complaints >= 3, "a cut hardly ever falls between two frames"
