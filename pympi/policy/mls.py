# SPDX-License-Identifier: BSD-2-Clause
"""`mls`: multi-level secrecy after Bell and LaPadula (SEDarwin and FreeBSD mac_mls).

    mls/<effective>[(<low>-<high>)]          mls/low, mls/5:1+3(low-high)

Information may go up only: nobody reads what is above, or writes to what is below. The text is that
of `pympi.policy.levels`; docs/levels.md lists what each permission needs.
"""

from __future__ import annotations

from .levels import HIGH, LOW, Label, Levels, Range, dominates

__all__ = ["MLS", "dominates", "format", "parse"]


def parse(text: str) -> Label:
    """Return the label that is written so; one without an effective element too.

    Raises:
        ValueError: the text is not a label; it says what is wrong, and what would be right.
    """
    return Label.from_text(text)


def format(label: Label) -> str:  # noqa: A001  the pair of parse
    """Return the one text of a label: `parse(format(label)) == label`."""
    return str(label)


class MLS(Levels):
    """Keeps secrets: information goes up only.

    What has no label of this module is `low(low-high)`: low, and free to become anything.

    Example:
        >>> from pympi import Kernel
        >>> with Kernel(policies=[MLS()]) as kernel:
        ...     general = kernel.create_task("general", label="mls/high")
        ...     private = kernel.create_task("private", label="mls/low")
        ...     reports, orders = general.allocate_port(), private.allocate_port()
        ...     bool(kernel.access(private, reports, "mach_port", "send"))
        ...     bool(kernel.access(general, orders, "mach_port", "send"))
        True
        False
    """

    name = "mls"
    default = Label(LOW, Range(LOW, HIGH))
    up = True
    compile_tables = Levels._compile_tables
