# SPDX-License-Identifier: BSD-2-Clause
"""A subsystem: routines with consecutive message numbers.

A port that serves an interface is asked about by method: the kernel maps the message's number to a
permission of the class `mi_<name>`, and refuses before anything moves (unlike SEDarwin, whose
servers had to ask for the verdict).
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..enums import interface_classes
from .client import Client, Method
from .defs import Limits, Subsystem, read_defs, read_defs_text
from .routine import Routine
from .server import Server

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..message import Message
    from ..port import SendOnceRight, SendRight

__all__ = ["Client", "Interface", "Method"]

_FLASK_MAX = 128  # routines that SEDarwin's tables have room for


class Interface:
    """A list of routines, the first numbered `base`.

    Args:
        name: of the subsystem; its class is `mi_<name>`, 31 routines to a class.
        base: the first routine's msgh_id, 32 bits, signed.
        routines: names or `Routine`s, in order; None skips a number.
        allow_unknown: take messages of other numbers too; by default they are refused.

    Attributes:
        routines (tuple[str, ...]): names, which are those of the permissions; `unused<N>` holds the
            place of a number that is skipped.
        table (tuple[Routine | None, ...]): the routines; None for a number that is skipped.
        server_prefix (str): what the functions of a server may begin with.

    Raises:
        ValueError: a name that cannot be used, two routines of one name, or none; a base that does
            not fit. A name that ends in _2, _3, ... is kept for the classes of an interface with
            many routines.

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
        self, name: str, base: int, routines: Sequence[str | Routine | None], *,
        allow_unknown: bool = False,
    ) -> None:  # fmt: skip
        if not -(1 << 31) <= base < 1 << 31:
            raise ValueError(f"interface {name!r}: numbers have 32 bits, unlike {base}")
        self.name = name
        self.base = base
        self.table = tuple(Routine(r) if isinstance(r, str) else r for r in routines)
        self.routines = tuple(r.name if r else f"unused{n}" for n, r in enumerate(self.table))
        self.allow_unknown = allow_unknown
        self.server_prefix = ""
        if not any(self.table):
            raise ValueError(f"interface {name!r} has no routines but skipped ones")
        self._classes = interface_classes(name, self.routines)
        self._numbers: weakref.WeakKeyDictionary[Kernel, int] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    @classmethod
    def from_defs(
        cls, path: str | os.PathLike[str], *, allow_unknown: bool = False,
        limits: Limits | None = None,
    ) -> Interface:  # fmt: skip
        """Return the interface that a `.defs` file declares.

        Raises:
            DefsError: the file is none, or larger than `limits`.
            OSError: it cannot be read.
        """
        return cls._of(read_defs(path, limits=limits), allow_unknown)

    @classmethod
    def from_text(
        cls, text: str, file: str = "<text>", *, allow_unknown: bool = False,
        limits: Limits | None = None,
    ) -> Interface:  # fmt: skip
        """Return the interface that the text of a `.defs` file declares; errors as `from_defs`.

        Example:
            >>> Interface.from_text('''
            ...     subsystem printing 1200;
            ...     routine print_page(printer: mach_port_t; copies: int; out job: int);
            ... ''').routines
            ('print_page',)
        """
        return cls._of(read_defs_text(text, file, limits=limits), allow_unknown)

    @classmethod
    def _of(cls, subsystem: Subsystem, allow_unknown: bool) -> Interface:
        routines = subsystem.routines
        made = cls(subsystem.name, subsystem.base, routines, allow_unknown=allow_unknown)
        made.server_prefix = subsystem.server_prefix
        return made

    def __repr__(self) -> str:
        return f"<Interface {self.name} {self.base}, {len(self.routines)} routines>"

    def number(self, kernel: Kernel) -> int:
        """Return the number by which a kernel knows this interface; it is told of it at need.

        Raises:
            ValueError: the kernel knows another interface of this name.
        """
        with self._lock:
            if kernel not in self._numbers:
                names = [routine.name if routine else "" for routine in self.table]
                self._numbers[kernel] = kernel.create_interface(
                    self.name, self.base, names, allow_unknown=self.allow_unknown
                )
            return self._numbers[kernel]

    def numbered(self) -> Iterator[tuple[int, Routine]]:
        """Yield the routines with their numbers."""
        for number, routine in enumerate(self.table, self.base):
            if routine is not None:
                yield number, routine

    def routine(self, message: Message) -> str | None:
        """Return the name of the routine that a message asks for; None if it is none of these."""
        index = message.msgh_id - self.base
        found = self.table[index] if 0 <= index < len(self.table) else None
        return found.name if found else None

    # ---- both sides ----

    def client(
        self, right: SendRight | SendOnceRight, *, timeout: float | None = None,
        effective: str | None = None,
    ) -> Client:  # fmt: skip
        """Return an object with a method for each routine, which sends to `right`.

        Args:
            right: where to.
            timeout: seconds that a call of a typed routine may take; None is for ever.
            effective: the label under which typed routines are called.
        """
        options = {"timeout": timeout, "effective": effective}
        return Client(self, right, {k: v for k, v in options.items() if v is not None})

    def server(
        self, implementation: Any, *, otherwise: Callable[[Message], object] | None = None,
        partial: bool = False,
    ) -> Server:  # fmt: skip
        """Return a callable that serves messages: see `Server`.

        Args:
            implementation: an object with a method for each routine, or a mapping of functions.
            otherwise: takes messages of other numbers; without it they get MIG_BAD_ID.
            partial: whether functions may be missing; their routines then get MIG_BAD_ID.

        Raises:
            TypeError: a function is missing.
        """
        return Server(self, implementation, otherwise=otherwise, partial=partial)

    # ---- for policies ----

    def classes(self) -> dict[str, tuple[str, ...]]:
        """Return the permissions of the interface's classes, in bit order, by class."""
        return dict(self._classes)

    def cil(self, *, order: bool = False) -> str:
        """Return the declarations of the classes for a policy in SELinux CIL.

        Args:
            order: whether to give them a place among the classes, for a policy that SELinux's
                compiler is to take as it is; `te` gives places itself, and refuses `unordered`.

        Raises:
            ValueError: a routine's name begins with "_", as no name does in CIL.

        Example:
            >>> print(Interface("printing", 1200, ["print_page", "cancel"]).cil(), end="")
            (class mi_printing (print_page cancel ioctl))
        """
        wrong = [name for name in self.routines if name.startswith("_")]
        if wrong:
            raise ValueError(f"in CIL a permission begins with a letter, unlike {wrong[0]!r}")
        classes = self.classes()
        lines = [f"(class {name} ({' '.join(p)} ioctl))" for name, p in classes.items()]
        if order:
            lines.append(f"(classorder (unordered {' '.join(classes)}))")
        return "\n".join([*lines, ""])

    def flask(self) -> str:
        """Return the class as SEDarwin's `mig -flasksc` writes it: the first 128 routines.

        More of them are warned of.

        Example:
            >>> print(Interface("mtest", 1200, ["printi", None, "printia"]).flask(), end="")
            class mi_mtest #subsystem 1200
            {
                printi
                _unused1
                printia
            }
        """
        if len(self.routines) > _FLASK_MAX:
            left = len(self.routines) - _FLASK_MAX
            warnings.warn(f"{self!r}: {left} routines left out", stacklevel=2)
        table = enumerate(self.table[:_FLASK_MAX])
        names = [f"    {routine.name if routine else f'_unused{n}'}" for n, routine in table]
        return "\n".join([f"class mi_{self.name} #subsystem {self.base}", "{", *names, "}", ""])
