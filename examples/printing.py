# SPDX-License-Identifier: BSD-2-Clause
"""A printing service whose protected routine is kept from who may not call it.

The editor may print and the administrator may do everything. The kernel maps the number of each
message to the routine it asks for, and refuses before anything moves: the server never learns that
the editor tried, and the audit trail says what it tried. Run it: python examples/printing.py
"""

from __future__ import annotations

from pathlib import Path

from pympi import AccessDenied, Kernel, Message
from pympi.mig import Interface
from pympi.policy import TypeEnforcement

PRINTING = Interface.from_defs(Path(__file__).with_name("printing.defs"))
POLICY = f"""
(type editor_t) (type admin_t) (type printd_t)
(typeattribute client)
(typeattributeset client (editor_t admin_t))
(roletype system_r printd_t) (roletype system_r client)
(userrole system_u system_r)

(allow client printd_t (mach_port (hold_send copy_send send carry_memory recv)))
(allow client self (mach_port (make_send_once set_reply recv use_recv)))
(allow printd_t self (mach_port (make_send recv use_recv set_attributes)))
(allow printd_t client (mach_port (recv hold_send_once move_send_once send)))

{PRINTING.cil()}
(allow client printd_t (mi_printing (print_page)))
(allow admin_t printd_t (mi_printing (set_default)))
"""


class Printer:
    """The server's functions: each gets the message, and the arguments that the client gave."""

    def __init__(self) -> None:
        self.default = "laser"
        self.jobs: list[int] = []
        self.calls: list[str] = []

    def print_page(self, message: Message, copies: int, page: memoryview) -> int:
        """Queue a page; return the job's number."""
        self.calls.append("print_page")
        print(f"printd: {copies} x {len(page)} bytes for {message.sender.label}")
        self.jobs.append(100 + len(self.jobs))
        return self.jobs[-1]

    def set_default(self, message: Message, name: str) -> list[int]:
        """Choose a printer; return the jobs that are queued."""
        self.calls.append("set_default")
        self.default = name
        print(f"printd: {name} is the default, says {message.sender.label}")
        return self.jobs


def main() -> Printer:
    """Have both clients call both routines; return the server."""
    printer = Printer()
    with Kernel(policies=[TypeEnforcement.from_text(POLICY)]) as kernel:
        printd = kernel.create_task("printd", label="te/system_u:system_r:printd_t")
        port = printd.create_handler(PRINTING.server(printer))
        port.serve(PRINTING)
        for name in ("editor", "admin"):
            task = kernel.create_task(name, label=f"te/system_u:system_r:{name}_t")
            client = PRINTING.client(port.make_send(task))
            print(f"{name}: job {client.print_page(2, b'a page')}")
            try:
                print(f"{name}: queued are {client.set_default('inkjet')}")
            except AccessDenied as error:
                print(f"{name}: {error}")
        for record in kernel.audit.batch(kernel.audit.drain()):
            refused = " ".join(record.denied)
            print(f"audit: {record.subject} {record.operation} {record.tclass} {{ {refused} }}"
                  f" msgh_id={record.msgh_id} {record.result}")  # fmt: skip
    return printer


if __name__ == "__main__":
    main()
