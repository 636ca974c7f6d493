# SPDX-License-Identifier: BSD-2-Clause
"""The Python rows: the public API beside the queues that Python has."""

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, thread_time_ns
from typing import Any

from benchmarks.harness import Pair, Skip, Timed
from benchmarks.peers import BODY, containers, simulation, zeromq


def rights(**options: Any) -> tuple[Any, Any]:
    """Return a send right and the receive right it leads to, of two tasks of a new kernel.

    Raises:
        Skip: pympi is not built.
    """
    try:
        import pympi
    except ImportError as error:
        raise Skip(str(error)) from error
    kernel = pympi.Kernel(**options)
    sender, receiver = (kernel.create_task(name) for name in ("sender", "receiver"))
    inbox = receiver.allocate_port()
    return inbox.make_send(sender), inbox


def bound() -> Timed:
    """Return the bound callables for inner loops: sender() and receiver(), bytes in and out."""
    destination, inbox = rights()
    send, receive = destination.sender(), inbox.receiver()

    def run(pairs: int) -> float:
        start = thread_time_ns()
        for _ in itertools.repeat(None, pairs):
            send(BODY)
            receive()
        return thread_time_ns() - start

    return run


def methods() -> Timed:
    """Return the methods everybody uses: send, and receive which gives a Message."""
    return calls(*rights())


def calls(destination: Any, inbox: Any) -> Timed:
    """Return the same, of these rights."""

    def run(pairs: int) -> float:
        send, receive = destination.send, inbox.receive
        start = thread_time_ns()
        for _ in itertools.repeat(None, pairs):
            send(BODY)
            receive()
        return thread_time_ns() - start

    return run


def attached() -> Pair:
    """Pair a kernel that another process watches for what nobody does there, with another."""
    destination, inbox = rights()
    directory = tempfile.TemporaryDirectory()
    control = inbox.task.kernel.inspect_at(Path(directory.name) / "run" / "control")
    command = [sys.executable, "-m", "benchmarks.cases.onlooker", str(control.path)]
    onlooker = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert onlooker.stdout is not None
    onlooker.stdout.readline()
    loop = calls(destination, inbox)

    def run(pairs: int) -> float:
        _ = directory, onlooker  # go with this function
        return loop(pairs)

    seen = monotonic() + 1  # whom the watch does not know yet it is shown, once
    while monotonic() < seen:
        loop(1000)
    return Pair(run, methods())


CASES: dict[str, Callable[[], Pair]] = {
    "bound_deque": lambda: Pair(bound(), containers.deque()),
    "methods_deque": lambda: Pair(methods(), containers.deque()),
    "watch_attached": attached,
    "bound_zeromq": lambda: Pair(bound(), zeromq.inproc()),
    "bound_queue": lambda: Pair(bound(), containers.queue_queue()),
    "bound_simpy": lambda: Pair(bound(), simulation.store()),
}
