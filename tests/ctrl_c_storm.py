# SPDX-License-Identifier: BSD-2-Clause
"""A program that is sent Ctrl-C hundreds of times a second, and tells what its trail then misses.

python ctrl_c_storm.py FILE SECONDS RATE
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from contextlib import suppress

from pympi import Kernel, MachError, audit

_BURST = 40
_PAUSE = 0.05


def storm(seconds: float, rate: float, over: threading.Event) -> None:
    """Press Ctrl-C."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main, end = threading.main_thread().ident, time.monotonic() + seconds
    assert main
    while time.monotonic() < end:
        for _ in range(_BURST):
            time.sleep(1 / rate)
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(_PAUSE)  # in which something returns, on slow machines too
    over.set()


class Pressed:
    """What Ctrl-C does: it interrupts a send, as often as twice, and nothing else here."""

    def __init__(self) -> None:
        self.left = 0
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        if self.left:
            self.left -= 1
            raise KeyboardInterrupt


def main(path: str, seconds: float, rate: float) -> None:
    """Send, while it storms, and note which sends returned."""
    kernel = Kernel(audit_records=256)
    task = kernel.create_task("task")
    inbox = task.allocate_port(qlimit=1024)
    right = inbox.make_send(task)
    kernel.audit.select("granted", "mach_port", "send")
    kernel.audit.attach(audit.File(path, durability="record"))
    returned: list[int] = []
    pressed, tried, over = Pressed(), 0, threading.Event()
    threading.Thread(target=storm, args=(seconds, rate, over), daemon=True).start()
    while not over.is_set():
        tried += 1
        with suppress(KeyboardInterrupt), suppress(KeyboardInterrupt):
            pressed.left = 2
            right.send(b"", msgh_id=tried)
            returned.append(tried)
        pressed.left = 0
        with suppress(MachError):  # it came before the send
            inbox.receive(timeout=0)
    kernel.close()
    tell(path, tried, returned)


def tell(path: str, tried: int, returned: list[int]) -> None:
    """Compare what returned with what is in the file."""
    records = list(audit.read(path))
    sent = {record.msgh_id for record in records if record.operation == "send"}
    losses = [record.lost for record in records if record.operation == "loss"]
    there = len(records) - len(losses)
    found = {
        "interrupted": tried - len(returned),
        "returned": len(returned),
        "missing": [number for number in returned if number not in sent],
        "gap": records[-1].sequence + 1 - there,  # numbers of no record, those of losses too
        "told": sum(losses),
        "state": audit.verify(path).state,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
