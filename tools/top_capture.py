# SPDX-License-Identifier: BSD-2-Clause
"""Runs a small system, has `pympi top` look at it twice, and keeps what its screen shows.

    python tools/top_capture.py docs/top.svg

The traffic is the same each time, and so is the second that it is said to take.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from pympi import Kernel, ReceiveRight, SendRight, Task
from pympi.cli._top import Top
from pympi.enums import ALL, ObjectClass
from pympi.inspect.meter import Meter
from pympi.mig import Interface
from pympi.policy import Decision, PolicyModule


class Clerk(PolicyModule):
    """Nobody sets the default printer."""

    name = "clerk"

    def decide(self, source: str, target: str, tclass: ObjectClass) -> Decision:
        refused = tclass.mask("set_default") if tclass.name == "mi_printing" else 0
        return Decision(allowed=ALL & ~refused)


PRINTING = Interface("printing", 1200, ["print_page", "set_default"])


def traffic(
    editors: list[Task], inbox: ReceiveRight, sends: list[SendRight], locked: SendRight
) -> int:
    """A sixth of a second of it; return how many pages were printed."""
    pages = 0
    for number, (editor, send) in enumerate(zip(editors, sends, strict=True)):
        for _ in range(600 // (number + 1)):
            send.send(b"page", msgh_id=1200)
            inbox.receive()
            pages += 1
        for _ in range(3 * number):
            with contextlib.suppress(PermissionError):
                send.send(b"mine", msgh_id=1201)
        for name in ("com.example.print", "com.example.none"):
            with contextlib.suppress(Exception):
                editor.bootstrap.look_up(name)
    with contextlib.suppress(TimeoutError):
        locked.send(b"secret", timeout=0)
    return pages


def tidy(svg: str) -> str:
    """Return the picture in lines of a readable length, and without fonts from elsewhere."""
    own = re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL).replace("><", ">\n<")
    return "".join(line.rstrip() + "\n" for line in own.splitlines() if line.strip())


async def capture(path: Path) -> None:
    """Look twice, at 80 columns and 24 lines."""
    with tempfile.TemporaryDirectory() as directory, Kernel([Clerk()]) as kernel:
        printd, vaultd = kernel.create_task("printd"), kernel.create_task("vaultd")
        inbox = printd.allocate_port()
        inbox.serve(PRINTING)
        editors = [kernel.create_task(f"editor{n}") for n in (1, 2, 3)]
        sends = [inbox.make_send(editor) for editor in editors]
        vault = vaultd.allocate_port()
        locked = vault.make_send(editors[0])
        printd.bootstrap.register("com.example.print", inbox)
        vaultd.bootstrap.register("com.example.vault", vault)
        meter = Meter(kernel.inspect_at(Path(directory) / "run" / "control").path)
        app = Top(meter.look, "run/control", interval=0)
        async with app.run_test(size=(80, 24)) as pilot:
            app.seen(replace(meter.look(), time=0.0))
            pages = 0
            for _ in range(6):
                pages += traffic(editors, inbox, sends, locked)
                while meter.look().by_port.get(inbox.port_id) != pages:
                    await pilot.pause(0.05)
            app.seen(replace(meter.look(), time=1.0))
            await pilot.pause()
            path.write_text(tidy(app.export_screenshot(title="pympi top")))
        meter.close()


if __name__ == "__main__":
    asyncio.run(capture(Path(sys.argv[1])))
