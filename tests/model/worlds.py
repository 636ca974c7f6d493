# SPDX-License-Identifier: BSD-2-Clause
"""Two kernels behind one face: the model and the core.

Both answer `call(name, task, ...)` with plain values or `Refused`, and `mach_msg` with a code and
an `Arrived` or None, so that a fact or a random step is written once and run on both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import mach_numbers as m
from model import Fault, Model, Task
from tables import Table
from wire import Arrived, Letter, decode

TIMEOUTS = m.OPTION_SEND_TIMEOUT | m.OPTION_RCV_TIMEOUT
MESSAGE_OF_CODE = (m.RCV_TOO_LARGE, m.SEND_TIMED_OUT, m.RCV_BODY_ERROR | m.IPC_SPACE)


class Refused(Exception):
    """A Mach call that failed."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code} ({code:#x})")
        self.code = code


class World(ABC):
    """What a fact may do to a kernel. Tasks are opaque."""

    fault = 0  # which allocation of the next calls fails, counted from 1; 0 for none

    @abstractmethod
    def create_task(self, label: str | None = "", uid: int = 0, parent: Any = None) -> Any:
        """A new task; without a label, with its parent's."""

    @abstractmethod
    def terminate(self, task: Any, caller: Any = None) -> None:
        """Ends a task."""

    @abstractmethod
    def call(self, name: str, task: Any, *args: Any, **options: Any) -> Any:
        """The Mach call of this name, acting on the task; raises `Refused`."""

    @abstractmethod
    def wire(
        self, task: Any, message: bytes, option: int, rcv_size: int, rcv_name: int
    ) -> tuple[int, bytes]:
        """One mach_msg: its code, and the message received or handed back."""

    @abstractmethod
    def place(self, task: Any, data: bytes) -> int:
        """Puts bytes into the task's memory; their address."""

    @abstractmethod
    def fetch(self, task: Any, address: int, size: int) -> bytes:
        """Reads a region and gives it back."""

    @abstractmethod
    def release(self, task: Any, address: int, size: int) -> None:
        """Gives a region back, if it is still there."""

    @abstractmethod
    def reload(self, seed: int) -> None:
        """Puts another policy in force, if there is one."""

    @abstractmethod
    def verify(self) -> None:
        """Raises unless every count is what the rights add up to."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """How many sets, names and queued messages there are."""

    @abstractmethod
    def events(self) -> dict[int, int]:
        """What ipctrace has counted, by kind of event."""

    @abstractmethod
    def ports(self) -> int:
        """How many ports there are, dead ones included that something still refers to."""

    def close(self) -> None:  # noqa: B027  a kernel of Python objects has nothing to end
        """Ends the kernel."""

    def mach_msg(
        self, task: Any, letter: Letter | bytes, option: int, rcv_size: int = 0, rcv_name: int = 0
    ) -> tuple[int, Arrived | None]:
        """One mach_msg that does not wait. What was placed for it and not moved is freed."""
        placed: list[tuple[int, int]] = []

        def place(data: bytes) -> int:
            address = self.place(task, data) if data else 0
            if data:
                placed.append((address, len(data)))
            return address

        message = letter.encode(place) if isinstance(letter, Letter) else letter
        code, buffer = self.wire(task, message, option | TIMEOUTS, rcv_size, rcv_name)
        whole = code in MESSAGE_OF_CODE or (code == 0 and option & m.OPTION_RCV)
        if code == m.RCV_TOO_LARGE and rcv_size < m.HEADER_SIZE:
            whole = False
        arrived = None
        if whole:
            arrived = decode(buffer, lambda address, size: self.fetch(task, address, size))
        for address, size in placed:
            self.release(task, address, size)
        return code, arrived

    def send(self, task: Any, letter: Letter | bytes, option: int = 0) -> int:
        """The code of a send; a message handed back is dropped."""
        return self.mach_msg(task, letter, option | m.OPTION_SEND)[0]

    def receive(
        self, task: Any, name: int, option: int = 0, size: int = 4096
    ) -> tuple[int, Arrived | None]:
        return self.mach_msg(task, b"", option | m.OPTION_RCV, size, name)


class ModelWorld(World):
    """The reference model."""

    def __init__(self, allows: Any = None) -> None:
        self.model = Model(allows)

    def create_task(self, label: str | None = "", uid: int = 0, parent: Task | None = None) -> Task:
        try:
            return self.model.create_task(label, uid, parent)
        except Fault as fault:
            raise Refused(fault.code) from None

    def terminate(self, task: Task, caller: Task | None = None) -> None:
        try:
            self.model.terminate(task, caller)
        except Fault as fault:
            raise Refused(fault.code) from None

    def call(self, name: str, task: Task, *args: Any, **options: Any) -> Any:
        try:
            return self.model.call(name, task, *args, **options)
        except Fault as fault:
            raise Refused(fault.code) from None

    def wire(
        self, task: Task, message: bytes, option: int, rcv_size: int, rcv_name: int
    ) -> tuple[int, bytes]:
        return self.model.mach_msg(task, message, option, rcv_size, rcv_name)

    def place(self, task: Task, data: bytes) -> int:
        return self.model.vm_place(task, data)

    def fetch(self, task: Task, address: int, size: int) -> bytes:
        return task.memory.pop(address)[:size] if size else b""

    def release(self, task: Task, address: int, size: int) -> None:
        task.memory.pop(address, None)

    def reload(self, seed: int) -> None:
        if self.model.checked:
            self.model.allows = Table(seed)

    def verify(self) -> None:
        self.model.recount()

    def counts(self) -> dict[str, int]:
        return self.model.counts()

    def events(self) -> dict[int, int]:
        return dict(self.model.events)

    def ports(self) -> int:
        return len(self.model.living())
