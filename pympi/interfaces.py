# SPDX-License-Identifier: BSD-2-Clause
"""The interfaces that a kernel knows: methods of ports, by number, and their classes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ._ffi import lib
from .enums import CLASSES, ROUTINES_PER_CLASS, ObjectClass, interface_classes
from .errors import exception

if TYPE_CHECKING:
    from .policy.engine import Policies

__all__ = ["Declaration", "Interfaces"]


class Declaration(NamedTuple):
    """What an interface is, beside its name."""

    base: int
    routines: tuple[str, ...]
    allow_unknown: bool

    def __str__(self) -> str:
        names = ", ".join(name or "-" for name in self.routines[:4])
        more = ", ..." if len(self.routines) > 4 else ""
        unknown = ", other numbers allowed" if self.allow_unknown else ""
        return f"{self.base}: {names}{more} ({len(self.routines)} routines{unknown})"


class Interfaces:
    """The interfaces of a kernel, each made once.

    Attributes:
        classes (tuple[ObjectClass, ...]): hooks.def's, and those of interfaces as they come.
    """

    def __init__(self, policies: Policies) -> None:
        self.classes = tuple(CLASSES.values())
        self._policies = policies
        self._known: dict[str, tuple[Declaration, int]] = {}
        self._lock = threading.Lock()

    def create(self, kernel: Any, name: str, said: Declaration) -> int:
        """Return an interface's number: `Kernel.create_interface`.

        Args:
            kernel: the core's.
            name: of the interface.
            said: what it is.

        Raises:
            ValueError, LimitExceeded: as there.
        """
        with self._lock:
            known, number = self._known.get(name, (said, 0))
            if known != said:
                raise ValueError(
                    f"interface {name!r} is known to this kernel as {known}, not as {said}: "
                    "declare both alike, or give one another name"
                )
            if not number:
                number = self._create(kernel, name, said)
                self._known[name] = said, number
            return number

    def _create(self, kernel: Any, name: str, said: Declaration) -> int:
        names = said.routines
        classes = interface_classes(name, names)
        flags = lib.PM_INTERFACE_ALLOW_UNKNOWN if said.allow_unknown else 0
        holes = sum(1 << index for index, routine in enumerate(names) if not routine)
        skipped = holes.to_bytes((len(names) + 7) // 8, "little")
        number = lib.pm_interface_create(kernel, said.base, len(names), flags, skipped)
        if number < 0:
            raise exception(number, f"interface {name!r}")
        first = lib.pm_interface_class(kernel, number)
        for tclass, (known_as, some) in enumerate(classes.items(), first):
            permissions = (*some, *[""] * (ROUTINES_PER_CLASS - len(some)), "ioctl")
            self.classes += (ObjectClass(tclass, known_as, permissions),)
            self._policies.add_class(self.classes[-1])
        return int(number)
