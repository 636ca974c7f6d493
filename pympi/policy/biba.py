# SPDX-License-Identifier: BSD-2-Clause
"""`biba`: integrity, the dual of `mls` (FreeBSD mac_biba; SEDarwin had none).

    biba/<effective>[(<low>-<high>)]         biba/high, biba/10(low-high)

Information may go down only: nobody writes to what is above, or reads what is below. The text is
that of `pympi.policy.levels`; docs/levels.md lists what each permission needs.
"""

from __future__ import annotations

from .levels import HIGH, LOW, Label, Levels, Range

__all__ = ["Biba"]


class Biba(Levels):
    """Keeps what is trusted clean: information goes down only.

    What has no label of this module is `high(low-high)`, FreeBSD's default.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel(policies=[Biba()]) as kernel:
        ...     system = kernel.create_task("system", label="biba/high")
        ...     guest = kernel.create_task("guest", label="biba/low")
        ...     commands, news = system.allocate_port(), guest.allocate_port()
        ...     bool(kernel.access(guest, commands, "mach_port", "send"))
        ...     bool(kernel.access(system, news, "mach_port", "send"))
        False
        True
    """

    name = "biba"
    default = Label(HIGH, Range(LOW, HIGH))
    up = False
    compile_tables = Levels._compile_tables
