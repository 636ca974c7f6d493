# SPDX-License-Identifier: BSD-2-Clause
"""A name server in three parts, under the sample policy names.cil: who sees what, and who may not.

Users may look names up and register none; a service may register its own names and no others; what
is secret looks to everybody else as if it were not there. Each refusal is shown with its line in
the audit trail. Run it: python examples/names.py
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from pympi import Kernel, MachError, Task
from pympi.bootstrap import Bootstrap, ServiceContexts, sentence
from pympi.policy import TypeEnforcement

DATA = resources.files("pympi") / "data"
OBJECT = "te/system_u:object_r:"
SYSTEM = "te/system_u:system_r:"
USER = "te/user_u:user_r:"
PRINT, VAULT = "com.example.print", "com.example.vault"


def set_up(kernel: Kernel) -> dict[str, Task]:
    """Make the name server with its three contexts, and the tasks; return these by name."""
    contexts = ServiceContexts.from_text((DATA / "names.contexts").read_text("utf-8"))
    names = kernel.start_bootstrap(
        label=f"{SYSTEM}names_t", service_contexts=contexts, root_label=f"{OBJECT}root_names_t"
    )
    user_names = names.create_context(label=f"{OBJECT}user_names_t")
    secret_names = names.create_context(user_names, label=f"{OBJECT}secret_names_t")
    names.declare("com.example.clipboard", user_names)
    names.declare("com.example.diary", secret_names)
    tasks = {
        name: kernel.create_task(name, f"{SYSTEM}{name}_t") for name in ("init", "printd", "vaultd")
    }
    for name, context in (("user", user_names), ("secret", secret_names)):
        tasks[name] = kernel.create_task(name, f"{USER}{name}_t")
        names.give(tasks[name], context)
    return tasks


def trial(kernel: Kernel, what: str, act: Callable[[], object]) -> str:
    """Do something, print what came of it and what the trail says; return what came of it."""
    kernel.audit.drain()
    try:
        found = act()
        outcome = "done" if found is None else repr(found)
    except MachError as error:
        outcome = f"{type(error).__name__}: {error.name}"
    print(f"{what}\n  {outcome}")
    for record in kernel.audit.batch(kernel.audit.drain()):
        print(f"    {sentence(record, kernel)}")
    return outcome


def visible(names: Bootstrap) -> list[str]:
    """Return the names that a task sees."""
    return sorted(info.name for info in names.info())


def main() -> list[str]:
    """Run the scenario; return what came of each trial."""
    policy = TypeEnforcement.from_text((DATA / "names.cil").read_text("utf-8"), "names.cil")
    with Kernel(policies=[policy]) as kernel:
        tasks = set_up(kernel)
        spool = tasks["printd"].allocate_port(label=f"{OBJECT}print_port_t")
        vault = tasks["vaultd"].allocate_port(label=f"{OBJECT}vault_port_t")
        init, printd, vaultd, user, secret = (task.bootstrap for task in tasks.values())
        trials: list[tuple[str, Callable[[], object]]] = [
            ("printd registers its own name", lambda: printd.register(PRINT, spool)),
            ("vaultd registers its own name", lambda: vaultd.register(VAULT, vault)),
            ("printd registers another's", lambda: printd.register(f"{VAULT}.key", spool)),
            ("vaultd checks in as the printer", lambda: vaultd.check_in(PRINT)),
            ("a user looks the printer up", lambda: user.look_up(PRINT).send(b"page 1")),
            ("a user registers a name", lambda: user.register("com.example.mine", None)),
            ("a user asks for the context above", user.parent),
            ("a user looks the vault up", lambda: user.look_up(VAULT)),
            ("a user asks how the vault is", lambda: user.status(VAULT)),
            ("a user looks up what is not there", lambda: user.look_up("com.example.nothing")),
            ("a secret user looks the vault up", lambda: secret.look_up(VAULT).send(b"open")),
            ("what root sees", lambda: visible(init)),
            ("what a user sees", lambda: visible(user)),
            ("what a secret user sees", lambda: visible(secret)),
        ]
        outcomes = [trial(kernel, what, act) for what, act in trials]
        kernel.verify()
        return outcomes


if __name__ == "__main__":
    main()
