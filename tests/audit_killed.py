# SPDX-License-Identifier: BSD-2-Clause
"""Writes audit files until it is killed: a program that a test starts.

Reads lines "PATH DURABILITY SEED [append] [kernel]" from stdin. For each it forks a child, prints
"pid N", and when that is dead, "dead". The child writes records, numbered from 1, as fast as it
can, and prints after each step the last record that it was about:

    written N       the system has taken a block
    synced N        so has the disk, with all before it
    returned N      a call of the sink is done

With "kernel" the records are those of messages that a kernel sends, which the sink is attached to,
and "returned" has how many were sent.
"""

from __future__ import annotations

import os
import random
import sys
from itertools import count
from typing import Any

import audit_files as make

from pympi import Kernel
from pympi.audit import File
from pympi.audit import file as module
from pympi.audit.chain import BLOCK, MAGIC, Block
from pympi.audit.writer import Writer

KEY = bytes(range(32))


def say(what: str, number: int) -> None:
    os.write(1, f"{what} {number}\n".encode())


class Telling(Writer):
    """A writer that tells what it has done."""

    last = 0

    def write(self, data: Any) -> None:
        super().write(data)
        if data[: len(MAGIC)] == MAGIC:
            self.last = Block.read(data[: BLOCK.size]).last or self.last
            say("written", self.last)

    def sync(self) -> None:
        last = self.last
        super().sync()
        say("synced", last)


def write(path: str, durability: str, seed: str, *how: str) -> None:
    file = File(path, durability=durability, interval=0.002, key=KEY, append="append" in how)
    if "kernel" in how:
        send(file)
    write_batches(file, durability, seed)


def send(file: File) -> None:
    kernel = Kernel()
    kernel.audit.attach(file)
    kernel.audit.everything()
    port = kernel.create_task("server").allocate_port()
    right = port.make_send(kernel.create_task("client"))
    for number in count(1):
        right.send(b"", msgh_id=number)
        say("returned", number)
        port.receive()


def write_batches(file: File, durability: str, seed: str) -> None:
    chance = random.Random(seed)
    most = 300 if durability == "record" else 9000
    first = 1
    while True:
        some = chance.randrange(1, most)
        file(make.batch(some, first))
        first += some
        say("returned", first - 1)


def main() -> None:
    module.Writer = Telling  # type: ignore[misc]
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            write(*line.split())
        say("pid", pid)
        os.waitpid(pid, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main()
