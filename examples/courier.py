# SPDX-License-Identifier: BSD-2-Clause
"""A courier carries port rights that it cannot use.

The printing service sends a parcel to the editor, by courier: a send and a send-once right to
itself, and the receive right of a box with a note in it. Then the same is done with less in the
policy (courier.cil). Run it: python examples/courier.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pympi import AccessDenied, Kernel, Message, Task, TimedOut
from pympi.policy import TypeEnforcement
from pympi.port import ReceiveRight, SendOnceRight, SendRight

POLICY = Path(__file__).with_suffix(".cil").read_text()
KINDS: dict[type, tuple[str, Callable[[Any], object], Callable[[Any], Any]]] = {
    SendRight: ("sends", lambda right: right.send(b"page 1"), SendRight.move_send),
    SendOnceRight: ("sends once", lambda it: it.use_up(b"page 2"), SendOnceRight.move_send_once),
    ReceiveRight: ("opens the box", lambda box: waiting(box), ReceiveRight.move_receive),
}
"""By kind of right: what it is good for, how it is used, how it is passed on."""


def waiting(port: ReceiveRight) -> str:
    """Take all that waits in a port."""
    found = []
    try:
        while True:
            message = port.receive(timeout=0)
            notified = message.notification
            found.append(f"notification {notified.name}" if notified else message.body.decode())
    except TimedOut:
        return ", ".join(found)


def attempt(what: str, act: Callable[[], object]) -> bool:
    """Do something, and say what became of it."""
    try:
        result = act()
    except AccessDenied as error:
        print(f"  {what}: no {error.permission} ({error.name})")
        return False
    print(f"  {what}: {result or 'done'}")
    return True


def use(message: Message) -> None:
    """Use each right that arrived, or try to."""
    for right in filter(None, message.rights):
        name, how, _ = KINDS[type(right)]
        attempt(f"{message.task.name} {name}", partial(how, right))


def deliver(printd: Task, courier: Task, editor: Task) -> None:
    """Have a parcel go from the printing service to the editor, by courier."""
    jobs, box, bag, desk = (task.allocate_port() for task in (printd, printd, courier, editor))
    to_courier, to_editor = bag.make_send(printd), desk.make_send(courier)
    box.make_send(printd).send(b"a note")

    parcel = [jobs.make_send(), jobs.make_send_once(), box.move_receive()]
    hand_over = partial(to_courier.send, b"parcel", rights=parcel, memory=[b"a map"])
    if not attempt("printd hands the parcel over", hand_over):
        print(f"  printd still has the box: {waiting(box)}")
        return
    message = bag.receive(timeout=0)
    print(f"  courier has it, with {bytes(message.memory[0]).decode()};"
          f" rights destroyed: {message.denied} of {len(message.rights)}")  # fmt: skip
    use(message)
    passed = [KINDS[type(right)][2](right) if right else None for right in message.rights]
    attempt("courier delivers", partial(to_editor.send, b"parcel", rights=passed))
    use(desk.receive(timeout=0))
    print(f"  printd got: {waiting(jobs)}")


def main() -> None:
    """Deliver under the policy, then under the policy less some permissions."""
    for less in ("", "hold_send", "hold_send_once hold_recv", "carry_rights", "carry_memory"):
        print(f"Without {less}" if less else "The policy as it is")
        gone = [f"(mach_port ({permission}))" for permission in less.split()]
        rules = [rule for rule in POLICY.splitlines() if not any(part in rule for part in gone)]
        with Kernel(policies=[TypeEnforcement.from_text("\n".join(rules))]) as kernel:
            names = ("printd", "courier", "editor")
            deliver(*(kernel.create_task(n, f"te/system_u:system_r:{n}_t") for n in names))
            for record in kernel.audit.batch(kernel.audit.drain()):
                if record.operation == "take":
                    print(f"  audit: {record.task_name} may not {' '.join(record.denied)}")


if __name__ == "__main__":
    main()
