# SPDX-License-Identifier: BSD-2-Clause
"""A proxy stands between an editor and a printing service, and neither has to know.

It receives under the service's label (interpose) and sends on under the client's (specify). The
records keep both labels. Then the same with less in proxy.cil. Run it: python examples/proxy.py
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pympi import AccessDenied, Kernel, Message, Task, TimedOut
from pympi.policy import TypeEnforcement
from pympi.port import ReceiveRight, SendOnceRight, SendRight

POLICY = Path(__file__).with_suffix(".cil").read_text()
NAMES = ("editor", "proxy", "printd")
EDITOR, PROXY, PRINTD = LABELS = [f"te/system_u:system_r:{name}_t" for name in NAMES]


def attempt(what: str, act: Callable[[], Message | bool]) -> Any:
    """Do something; if it is refused, say so."""
    try:
        return act()
    except AccessDenied as error:
        print(f"  {what}: no {error.permission} ({error.name})")
    return None


def short(label: str) -> str:
    """Return the type in a label."""
    return label.rpartition(":")[2]


def waiting(port: ReceiveRight) -> Message | None:
    """Take a message if there is one."""
    with suppress(TimedOut):
        return port.receive(timeout=0)
    return None


def send_on(request: Message, out: SendRight, effective: str | None = None) -> bool:
    """Send a request on, with the client's right to be answered; that right is gone then."""
    assert isinstance(request.reply_right, SendOnceRight)
    reply = request.reply_right.move_send_once()
    out.send(request.body, request.msgh_id, reply=reply, effective=effective)
    return True


def pass_on(tap: ReceiveRight, out: SendRight) -> None:
    """Be the proxy: `tap` is the front that the editor sends to, `out` leads to printd."""
    attempt("proxy receives as itself", partial(tap.receive, timeout=0))
    request = attempt("proxy receives as printd", partial(tap.receive, 0, effective=PRINTD))
    if request is None:
        return
    client = request.sender.label
    print(f"  proxy reads {request.body.decode()}, sent by {short(client)}")
    attempt("proxy sends on as itself", partial(send_on, request, out))
    if not attempt("proxy sends on as the editor", partial(send_on, request, out, client)):
        request.close()  # so that the editor learns that nobody will answer


def print_a_page(editor: Task, proxy: Task, printd: Task) -> None:
    """Send a page to the front, which by its label is printd's, and see what comes back."""
    front, back, answers = (task.allocate_port() for task in (printd, printd, editor))
    printer, out = front.make_send(editor), back.make_send(proxy)
    tap = front.move_receive(proxy)
    printer.send(b"page 1", reply=answers)
    pass_on(tap, out)
    if job := waiting(back):
        label, truth = job.sender.label, job.sender.real_label
        print(f"  printd prints {job.body.decode()} for {short(label)}, in truth {short(truth)}")
        job.reply(b"printed")
    answer = waiting(answers)
    print(f"  editor gets {answer and (answer.notification or answer.body)!r}")


def main() -> None:
    """Print under the policy, then under the policy less one permission."""
    for less in ("", "specify", "interpose"):
        print(f"Without {less}" if less else "The policy as it is")
        rules = [rule for rule in POLICY.splitlines() if not less or f"({less})" not in rule]
        with Kernel(policies=[TypeEnforcement.from_text("\n".join(rules))]) as kernel:
            tasks = map(kernel.create_task, NAMES, LABELS)
            kernel.audit.everything()
            print_a_page(*tasks)
            for record in kernel.audit.batch(kernel.audit.drain()):
                if record.task_name == "proxy":
                    who = f"{short(record.real_subject)} as {short(record.subject)}"
                    verdict = "may not" if record.denied else "may"
                    print(f"  audit: {who} {verdict} {' '.join(record.denied or record.asked)}")


if __name__ == "__main__":
    main()
