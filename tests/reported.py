# SPDX-License-Identifier: BSD-2-Clause
"""A small run with what a report is about, in a directory; names and labels may be anybody's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pympi import AccessDenied, Kernel, SimulatedClock, audit
from pympi.label import format_label
from pympi.mig import Interface
from pympi.policy import PolicyModule, Rules

PRINTING = Interface("printing", 1200, ["print_page", "cancel"])
RULES = """
allow * * mach_port { * };
allow * * mach_task { * };
allow editor printd mi_printing { print_page };
"""
#: Refuses the editor what the run allowed.
STRICT = "allow printd * mach_port { * };\nallow editor editor mach_port { * };\n"
HOSTILE = '</script><img src=x onerror="window.hacked=1">&"\'\n\u202e'
HOSTILE_LABEL = "<svg onload=window.hacked=1>"


class Remarks(PolicyModule):
    """Has no opinion; its values may be any text."""

    name = "remarks"


def write_run(directory: Path, *, stranger: str = HOSTILE, label: str = HOSTILE_LABEL) -> None:
    """An editor prints ten pages, and is told, and may not cancel; a stranger sends one message.

    Written are run.audit, policy.rules and run.snap.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "policy.rules").write_text(RULES)
    clock = SimulatedClock()
    with Kernel(policies=[Rules.from_text(RULES), Remarks()], clock=clock) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(directory / "run.audit"))
        printd = kernel.create_task("/sbin/printd", label="rules/printd")
        inbox = printd.allocate_port(label="rules/printd")
        inbox.serve(PRINTING)
        editor = kernel.create_task("editor", label="rules/editor")
        right = inbox.make_send(editor)
        answers = editor.allocate_port(label="rules/editor")
        for _ in range(10):
            right.send(b"page", msgh_id=1200, reply=answers.make_send_once())
            clock.advance(0.01)
            inbox.receive().reply(b"done")
            answers.receive()
            with suppress(AccessDenied):
                right.send(b"", msgh_id=1201)
        events = editor.allocate_port(label="rules/editor")
        events.make_send(printd).send(b"printed", msgh_id=9)
        events.receive()
        other = kernel.create_task(stranger, format_label({"rules": "stranger", "remarks": label}))
        mailbox = printd.allocate_port(label="rules/printd")
        mailbox.make_send(other).send(b"hello", msgh_id=7)
        mailbox.receive()
        kernel.snapshot(directory / "run.snap")
