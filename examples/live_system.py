# SPDX-License-Identifier: BSD-2-Clause
"""A small system that lives for a while, for the tools to look at from another terminal.

A name server with three contexts, under the sample policy names.cil; a printing service, users who
print, a vault that nobody empties, a client that leaks, and tries that are refused.

    python examples/live_system.py --socket /tmp/live/control
    pympi ports --attach /tmp/live/control
    pympi bootstrap dump --attach /tmp/live/as-user         (and as-secret, as-root)

With --save it takes a snapshot after each ten rounds instead, of simulated time, and ends.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack, suppress
from importlib import resources
from pathlib import Path

from pympi import Kernel, MachError, SendRight, SimulatedClock, Task
from pympi.bootstrap import ServiceContexts
from pympi.policy import TypeEnforcement

OBJECT = "te/system_u:object_r:"
SYSTEM = "te/system_u:system_r:"
USER = "te/user_u:user_r:"
PRINT, VAULT = "com.example.print", "com.example.vault"
OPERATOR = f"{SYSTEM}operator_t"
EYES = {"as-user": f"{USER}user_t", "as-secret": f"{USER}secret_t", "as-root": f"{SYSTEM}init_t"}
ROUNDS = 10  # before it is looked at, and between two snapshots
PAUSE = 0.1  # seconds between two rounds


class LiveSystem:
    """The system.

    Attributes:
        kernel (Kernel): all of it.
        tasks (dict[str, Task]): by name.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.tasks = self._start()
        self.inbox = self.tasks["printd"].allocate_port(label=f"{OBJECT}print_port_t")
        self.vault = self.tasks["vaultd"].allocate_port(label=f"{OBJECT}vault_port_t")
        self.tasks["printd"].bootstrap.register(PRINT, self.inbox)
        self.tasks["vaultd"].bootstrap.register(VAULT, self.vault)
        self.printers = [self.tasks[name].bootstrap.look_up(PRINT) for name in ("user", "secret")]
        self.safe: SendRight = self.tasks["secret"].bootstrap.look_up(VAULT)
        self.kept: list[object] = []

    def _start(self) -> dict[str, Task]:
        contexts = (resources.files("pympi") / "data" / "names.contexts").read_text("utf-8")
        names = self.kernel.start_bootstrap(
            label=f"{SYSTEM}names_t", root_label=f"{OBJECT}root_names_t",
            service_contexts=ServiceContexts.from_text(contexts),
        )  # fmt: skip
        users = names.create_context(label=f"{OBJECT}user_names_t")
        secrets = names.create_context(users, label=f"{OBJECT}secret_names_t")
        names.declare("com.example.clipboard", users)
        names.declare("com.example.diary", secrets)
        servers = {name: f"{SYSTEM}{name}_t" for name in ("init", "printd", "vaultd")}
        tasks = {name: self.kernel.create_task(name, label) for name, label in servers.items()}
        for name, context in (("user", users), ("secret", secrets), ("leaky", users)):
            tasks[name] = self.kernel.create_task(name, f"{USER}{name}_t")
            names.give(tasks[name], context)
        return tasks

    def round(self) -> None:
        """Let everybody do something once."""
        for printer in self.printers:
            printer.send(b"a page")
        for _ in self.printers:
            self.inbox.receive(timeout=0)
        leaky = self.tasks["leaky"]
        self.kept += [leaky.allocate_port(), leaky.bootstrap.look_up(PRINT)]
        with suppress(MachError):  # QueueFull: nobody empties it
            self.safe.send(b"a secret", timeout=0)
        with suppress(MachError):  # a user registers no names
            self.tasks["user"].bootstrap.register("com.example.mine", None)
        with suppress(MachError):  # and does not see the vault
            self.tasks["user"].bootstrap.look_up(VAULT)


def policy_files(stack: ExitStack) -> list[Path]:
    """Return the files that make the policy: the package's, and the one beside this program."""
    shipped = resources.as_file(resources.files("pympi") / "data" / "names.cil")
    return [stack.enter_context(shipped), Path(__file__).with_name("live_system.cil")]


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description="A small system for the tools to look at.")
    parser.add_argument("--socket", type=Path, help="open a control socket here")
    parser.add_argument("--seconds", type=float, default=60.0, help="end after so long (60)")
    parser.add_argument("--save", type=Path, nargs="+", default=[], metavar="FILE",
                        help="take a snapshot into each, ten rounds apart, and end")  # fmt: skip
    return parser.parse_args()


def save(kernel: Kernel, system: LiveSystem, clock: SimulatedClock, paths: list[Path]) -> None:
    """Take snapshots, some rounds apart."""
    for path in paths:
        for _ in range(ROUNDS):
            system.round()
            clock.advance(PAUSE)
        kernel.snapshot(path)


def live(kernel: Kernel, system: LiveSystem, socket: Path | None, seconds: float) -> None:
    """Go on for a while, or until Ctrl-C.

    Whoever asks at the socket is an operator; at the sockets beside it, one of those in EYES.
    """
    for _ in range(ROUNDS):
        system.round()
    if socket is not None:
        kernel.inspect_at(socket, label=OPERATOR, read_only=False)
        for name, label in EYES.items():
            kernel.inspect_at(socket.with_name(name), label=label)
        print(f"Ask at {socket}, for {seconds:g} seconds.", flush=True)
    end = time.monotonic() + seconds
    with suppress(KeyboardInterrupt):
        while time.monotonic() < end:
            system.round()
            time.sleep(PAUSE)


def main() -> None:
    """Run it."""
    wanted = arguments()
    clock = SimulatedClock() if wanted.save else None
    with ExitStack() as stack:
        policy = TypeEnforcement.from_file(*policy_files(stack))
        kernel = stack.enter_context(Kernel(policies=[policy], clock=clock))
        system = LiveSystem(kernel)
        if clock is not None:
            save(kernel, system, clock, wanted.save)
        else:
            live(kernel, system, wanted.socket, wanted.seconds)


if __name__ == "__main__":
    main()
