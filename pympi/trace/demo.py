# SPDX-License-Identifier: BSD-2-Clause
"""The boot trace the package ships, and its policy, made from a small model of a desktop.

`python -m pympi.trace.demo DIR` writes both again, byte for byte. The system is our own: sixteen
programs, a kernel, a name server that hands out the rights, a window server that everything
talks to. What they do to each other is in the tables; how a request, a look-up or a check-in looks
to ipctrace is in `Boot`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from ..enums import KOBJECTS
from .mangle import port_label, task_label
from .text import MACH_KERNEL, TraceRecord, write_sedarwin

INIT = "/boot/first"
NAMES = "/boot/names"
LOGGER = "/services/logger"
CLOCK = "/services/clock"
NETWORK = "/services/network"
STORAGE = "/services/storage"
KEYS = "/services/keys"
FONTS = "/services/font server"
PRINTER = "/services/printer"
WINDOWS = "/desktop/windows/WindowServer"
LOGIN = "/desktop/login"
DOCK = "/desktop/Dock.app/Contents/Dock"
EDITOR = "/programs/Editor.app/Contents/Editor"
MAIL = "/programs/Mail & News.app/Contents/Mail & News"
UPDATER = "/programs/Updater.app/Contents/Frameworks/Download.framework/Helpers/fetch-agent"
#: Gone before it did anything that is recorded; others still hold rights to its ports.
GREETER = "/desktop/greeter"

REPLY, EVENTS_PORT = 3, 5  # numbers of the reply port and of the event port of each task

#: In the order of starting: who, and its calls to kernel objects (kind, calls).
STARTS: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = (
    (NAMES, (("host_priv", 4), ("task", 31))),
    (LOGGER, (("host", 2), ("task", 18), ("clock", 5))),
    (CLOCK, (("host", 2), ("clock", 120), ("clock_ctrl", 2))),
    (STORAGE, (("host_priv", 3), ("task", 44), ("master_device", 12), ("iokit_object", 61))),
    (NETWORK, (("task", 26), ("master_device", 9), ("iokit_connect", 37))),
    (KEYS, (("host", 1), ("task", 15), ("host_security", 2))),
    (FONTS, (("task", 22), ("named_entry", 14))),
    (WINDOWS, (("task", 90), ("act", 6), ("master_device", 7), ("iokit_connect", 210))),
    (LOGIN, (("task", 19), ("host_priv", 2))),
    (DOCK, (("task", 35), ("act", 2))),
    (PRINTER, (("task", 12), ("iokit_object", 8))),
    (EDITOR, (("task", 57), ("act", 3), ("named_entry", 2))),
    (MAIL, (("task", 49), ("act", 4), ("semaphore", 30))),
    (UPDATER, (("task", 16), ("clock", 11))),
)

#: Port number of the service each server checks in or registers.
SERVICES = {
    LOGGER: 9,
    CLOCK: 9,
    STORAGE: 11,
    NETWORK: 10,
    KEYS: 9,
    FONTS: 8,
    WINDOWS: 14,
    PRINTER: 9,
}
#: Services whose receive right the name server made, and hands over when the server checks in.
ON_DEMAND = {PRINTER: 21, FONTS: 22}

#: client, server, requests it makes. Each is answered, but for the logger's.
REQUESTS = (
    (CLOCK, LOGGER, 12),
    (STORAGE, LOGGER, 64),
    (NETWORK, LOGGER, 85),
    (NETWORK, STORAGE, 24),
    (NETWORK, CLOCK, 40),
    (KEYS, STORAGE, 11),
    (FONTS, STORAGE, 140),
    (WINDOWS, FONTS, 96),
    (WINDOWS, STORAGE, 18),
    (WINDOWS, LOGGER, 33),
    (LOGIN, KEYS, 7),
    (LOGIN, WINDOWS, 160),
    (DOCK, WINDOWS, 640),
    (DOCK, FONTS, 28),
    (EDITOR, WINDOWS, 1250),
    (EDITOR, FONTS, 74),
    (EDITOR, STORAGE, 95),
    (EDITOR, PRINTER, 6),
    (MAIL, WINDOWS, 880),
    (MAIL, NETWORK, 230),
    (MAIL, KEYS, 13),
    (MAIL, STORAGE, 61),
    (UPDATER, NETWORK, 150),
    (UPDATER, STORAGE, 45),
    (UPDATER, KEYS, 2),
    (UPDATER, LOGGER, 9),
    (PRINTER, LOGGER, 4),
)
#: Who the window server sends events to, and how many.
WINDOW_EVENTS = ((LOGIN, 42), (DOCK, 310), (EDITOR, 560), (MAIL, 275))

#: client, server: requests the policy does not allow. An updater downloads; keys and files are
#: nothing to it.
REFUSED = ((UPDATER, KEYS), (UPDATER, STORAGE))


def service(server: str) -> tuple[str, int]:
    """The port a server is reached by; ports keep the identity of whoever made them."""
    return (NAMES, ON_DEMAND[server]) if server in ON_DEMAND else (server, SERVICES[server])


class Boot:
    """Counts what ipctrace would: distinct paths in order of first occurrence."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, int, int], int] = {}

    def records(self) -> list[TraceRecord]:
        """The recording so far."""
        return [TraceRecord(*key, count) for key, count in self._counts.items()]

    def _count(self, event: str, task: str, owner: str, number: int, times: int) -> None:
        owner, _, kobject = owner.partition(":")
        key = (event, task, owner, KOBJECTS.index(kobject) if kobject else 0, number)
        self._counts[key] = self._counts.get(key, 0) + times

    def copy(self, task: str, owner: str, number: int, times: int = 1) -> None:
        """A right travels in the body of a message: copied, not sent to."""
        self._count("copy_send", task, owner, number, times)

    def send(self, task: str, owner: str, number: int, times: int = 1) -> None:
        """A message by COPY_SEND, as every request goes."""
        self.copy(task, owner, number, times)
        self._count("send", task, owner, number, times)

    def reply(self, task: str, owner: str, times: int = 1) -> None:
        """A message by a send-once right, as every reply goes."""
        self._count("send", task, owner, REPLY, times)

    def give_up(self, task: str, owner: str, number: int) -> None:
        """A last message by MOVE_SEND: the sender's right goes with it, uncopied."""
        self._count("send", task, owner, number, 1)

    def call_kernel(self, task: str, kobject: str, times: int) -> None:
        """Calls to a kernel object. A quarter of them come back as messages of the kernel."""
        self.send(task, f"{MACH_KERNEL}:{kobject}", 0, times)
        if times >= 4:
            self.reply(MACH_KERNEL, task, times // 4)

    def call(self, client: str, server: str, number: int, times: int = 1) -> None:
        """Requests to a port of `server`, all answered."""
        self.send(client, server, number, times)
        self.reply(server, client, times)

    def check_in(self, server: str) -> None:
        """A server gets its receive right from the name server, or registers a port it made."""
        self.call(server, NAMES, 7)
        if server in ON_DEMAND:
            self._count("move_recv", NAMES, NAMES, ON_DEMAND[server], 1)
        else:
            self.copy(server, server, SERVICES[server])

    def look_up(self, client: str, server: str) -> None:
        """The name server answers a look-up with a copy of the service's send right."""
        self.call(client, NAMES, 7)
        self.copy(NAMES, *service(server))

    def request(self, client: str, server: str, times: int) -> None:
        """Look the service up, then use it."""
        self.look_up(client, server)
        self.send(client, *service(server), times)
        if server != LOGGER:
            self.reply(server, client, times)


def boot() -> list[TraceRecord]:
    """The recording of the boot."""
    system = Boot()
    system.send(MACH_KERNEL, f"{MACH_KERNEL}:named_entry", 0, 4)
    system.call_kernel(INIT, "host_priv", 6)
    system.call_kernel(INIT, "task", 52)
    for task, calls in STARTS:
        system.copy(INIT, NAMES, 7)  # every child inherits the way to the name server
        for kobject, times in calls:
            system.call_kernel(task, kobject, times)
        if task in SERVICES:
            system.check_in(task)
        for client, server, times in REQUESTS:
            if client == task:
                system.request(client, server, times)
    for client, times in WINDOW_EVENTS:
        system.copy(client, client, EVENTS_PORT)
        system.send(WINDOWS, client, EVENTS_PORT, times)
    system.give_up(WINDOWS, LOGIN, EVENTS_PORT)
    system.send(LOGIN, GREETER, EVENTS_PORT, 2)
    system.copy(LOGIN, f"{MACH_KERNEL}:task", 0, 3)
    system.copy(INIT, GREETER, REPLY)
    return system.records()


_FREE = (
    "recv use_recv make_send make_send_once move_send_once hold_send hold_send_once hold_recv "
    "carry_rights request_notification"
)


def rules() -> str:
    """The policy, for `pympi.policy.Rules`."""
    free = ["allow * * mach_task { insert_right };", f"allow * * mach_port {{ {_FREE} }};"]
    head = (
        "# What the demo allows: holding rights, receiving and answering is free; who may send a",
        "# request to whom is not. Written by python -m pympi.trace.demo.",
    )
    return "\n".join([*head, *free, *dict.fromkeys(_pair_rules()), ""])


def _pair_rules() -> Iterator[str]:
    def allow(task: str, target: str, permissions: str) -> str:
        return f"allow {task} {target} mach_port {{ {permissions} }};"

    kernel = task_label(MACH_KERNEL)
    yield allow(kernel, "*", "send copy_send")
    yield allow(task_label(INIT), "*", "send copy_send")
    yield allow(task_label(NAMES), "*", "send copy_send move_recv")
    yield allow("*", port_label(NAMES), "send copy_send")
    for task, calls in STARTS:
        yield allow(task_label(task), port_label(task), "copy_send")
        for kobject, _ in calls:
            target = port_label(MACH_KERNEL, KOBJECTS.index(kobject))
            yield allow(task_label(task), target, "send copy_send")
    for client, server, _ in REQUESTS:
        if (client, server) not in REFUSED:
            yield allow(task_label(client), port_label(service(server)[0]), "send copy_send")
        yield allow(task_label(server), port_label(client), "send")
    for client, _ in WINDOW_EVENTS:
        yield allow(task_label(WINDOWS), port_label(client), "send copy_send move_send")


def files() -> dict[str, bytes]:
    """What the package ships, by name."""
    trace = io.BytesIO()
    write_sedarwin(trace, boot(), "demo.trace")
    return {"demo.trace": trace.getvalue(), "demo.rules": rules().encode()}


def main(argv: list[str]) -> None:
    """Write the files to the directory named on the command line."""
    for name, contents in files().items():
        (Path(argv[1]) / name).write_bytes(contents)


if __name__ == "__main__":
    main(sys.argv)
