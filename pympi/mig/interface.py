# SPDX-License-Identifier: BSD-2-Clause
"""A subsystem: routines with consecutive message numbers.

A port that serves an interface is asked about by method: the kernel maps the message's number to a
permission of the class `mi_<name>`, and refuses before anything moves (unlike SEDarwin, whose
servers had to ask for the verdict).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..message import Message
    from ..port import SendOnceRight, SendRight

__all__ = ["Client", "Interface", "Method"]


class Interface:
    """A list of routines, the first numbered `base`.

    Args:
        name: of the subsystem; its class is `mi_<name>`, 31 routines to a class.
        base: the first routine's msgh_id.
        routines: their names, in order.
        allow_unknown: take messages of other numbers too; by default they are refused.

    Example:
        >>> from pympi import Kernel
        >>> from pympi.mig import Interface
        >>> printing = Interface("printing", 1200, ["print_page", "cancel"])
        >>> with Kernel() as kernel:
        ...     inbox = kernel.create_task("printd").allocate_port()
        ...     inbox.serve(printing)
        ...     client = printing.client(inbox.make_send(kernel.create_task("editor")))
        ...     client.print_page(b"page 1")
        ...     printing.routine(inbox.receive())
        'print_page'
    """

    def __init__(
        self, name: str, base: int, routines: Sequence[str], *, allow_unknown: bool = False
    ) -> None:
        self.name = name
        self.base = base
        self.routines = tuple(routines)
        self.allow_unknown = allow_unknown
        wrong = [routine for routine in self.routines if not routine.isidentifier()]
        if wrong or not name.isidentifier():
            raise ValueError(f"not an identifier: {(wrong or [name])[0]!r}")
        if len(set(self.routines)) != len(self.routines) or not self.routines:
            raise ValueError(f"interface {name!r} needs routines, each of another name")
        self._numbers: weakref.WeakKeyDictionary[Kernel, int] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Interface {self.name} {self.base}, {len(self.routines)} routines>"

    def number(self, kernel: Kernel) -> int:
        """Return the number by which a kernel knows this interface; it is told of it at need."""
        if kernel not in self._numbers:
            self._numbers[kernel] = kernel.create_interface(
                self.name, self.base, self.routines, allow_unknown=self.allow_unknown
            )
        return self._numbers[kernel]

    def client(self, right: SendRight | SendOnceRight) -> Client:
        """Return an object with a method for each routine, which sends to `right`."""
        return Client(self, right)

    def routine(self, message: Message) -> str | None:
        """Return the name of the routine that a message asks for; None if it is none of these."""
        index = message.msgh_id - self.base
        return self.routines[index] if 0 <= index < len(self.routines) else None


class Method:
    """A routine of a port. Calling it sends the request; `call` waits for the answer as well."""

    __slots__ = ("_right", "msgh_id")

    def __init__(self, right: SendRight | SendOnceRight, msgh_id: int) -> None:
        self._right = right
        self.msgh_id = msgh_id

    def __call__(self, body: Any = b"", **arguments: Any) -> None:
        """Send the request; arguments as for `SendRight.send`."""
        self._right.send(body, self.msgh_id, **arguments)

    def call(self, body: Any = b"", **arguments: Any) -> Message:
        """Send the request and return the answer; arguments as for `SendRight.call`."""
        return self._right.call(body, self.msgh_id, **arguments)


class Client:
    """The routines of an interface, as methods."""

    def __init__(self, interface: Interface, right: SendRight | SendOnceRight) -> None:
        for index, routine in enumerate(interface.routines):
            setattr(self, routine, Method(right, interface.base + index))
        self._interface = interface

    def __getattr__(self, routine: str) -> Method:
        known = ", ".join(self._interface.routines)
        raise AttributeError(f"{self._interface!r} has no routine {routine!r}; it has: {known}")
