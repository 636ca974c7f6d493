# SPDX-License-Identifier: BSD-2-Clause
"""A recorded run, for the tests of what reads recordings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pympi import AccessDenied, Kernel, SimulatedClock
from pympi.audit import File
from pympi.enums import ALL, ObjectClass
from pympi.policy import Decision, PolicyModule

HOSTILE = "=cmd\n\x1b[31m\u202e"


class NoSpies(PolicyModule):
    """Labels are words; all is allowed, but that `spy` sends."""

    name = "who"

    def parse(self, text: str) -> str:
        """Return the label."""
        return text

    def decide(self, source: object, target: object, tclass: ObjectClass) -> Decision:
        """Return what is allowed."""
        spies = source == "spy" and tclass.name == "mach_port"
        return Decision(allowed=ALL & ~tclass.mask("send") if spies else ALL)


def record(path: Path) -> None:
    """Record how a right goes from printd by the name server to the editor, and on to a helper.

    In the end a spy that was given the right may not send, and a task has a hostile name and label.
    """
    clock = SimulatedClock()
    with Kernel(policies=[NoSpies()], clock=clock) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(File(path, when_full="block"))
        names = kernel.start_bootstrap(label="who/names")
        tasks = {}
        for name in ("printd", "editor", "helper", "spy", HOSTILE):
            tasks[name] = kernel.create_task(name, label=f"who/{name}")
        for name in ("printd", "editor"):
            names.give(tasks[name])
        inbox = tasks["printd"].allocate_port()
        tasks["printd"].bootstrap.register("com.example.print", inbox)
        printer = tasks["editor"].bootstrap.look_up("com.example.print")
        kernel.audit.flush()
        clock.advance(1.5)
        printer.send(b"page 1", msgh_id=1200)
        inbox.receive()
        desk = tasks["helper"].allocate_port()
        desk.make_send(tasks["editor"]).send(b"", rights=[printer.copy_send()], msgh_id=8)
        [right] = desk.receive().rights
        right.send(b"page 2", msgh_id=1201)
        kernel.audit.flush()
        clock.advance(1.5)
        for name in ("spy", HOSTILE):
            with suppress(AccessDenied):
                printer.copy_send(tasks[name]).send(b"mine", msgh_id=1202)
