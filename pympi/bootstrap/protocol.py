# SPDX-License-Identifier: BSD-2-Clause
"""The name server's protocol: Mach's subsystem bootstrap, 400 to 410, and its codes."""

from __future__ import annotations

import unicodedata
from enum import IntEnum
from importlib import resources
from typing import NamedTuple

from ..errors import MachError
from ..mig import Interface, MigError

__all__ = [
    "BOOTSTRAP",
    "LOOK_UP",
    "LOOK_UP_ANSWER",
    "MAX_LISTED",
    "MAX_LOOKUP_COUNT",
    "NAME_MAX",
    "NAME_ROOM",
    "NDR",
    "BootstrapError",
    "Code",
    "NameInUse",
    "NotPrivileged",
    "ServiceActive",
    "ServiceInfo",
    "Status",
    "UnknownService",
    "acceptable",
    "failure",
]

BOOTSTRAP = Interface.from_text(
    (resources.files("pympi") / "data" / "bootstrap.defs").read_text("utf-8"), "bootstrap.defs"
)
"""Numbers, arguments and permissions (class `mi_bootstrap`) of the eleven routines."""

NAME_MAX = 127
"""Bytes of a service's name, in UTF-8."""

NAME_ROOM = NAME_MAX + 1
"""Bytes that a name takes in a message."""

MAX_LOOKUP_COUNT = 20
"""How many names look_up_array takes at once."""

MAX_LISTED = 1 << 14
"""How many services info lists; where a client sees more, there is no room for the answer."""

LOOK_UP = BOOTSTRAP.base + 4
LOOK_UP_ANSWER = LOOK_UP + 100
NDR = bytes([0, 0, 0, 0, 1, 0, 0, 0])
"""What a request begins with; client and server read and write look-ups without MIG's help."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # categories of characters


class Code(IntEnum):
    """What the name server answers where it does not do what it was asked (servers/bootstrap.h)."""

    NOT_PRIVILEGED = 1100
    NAME_IN_USE = 1101
    UNKNOWN_SERVICE = 1102
    SERVICE_ACTIVE = 1103
    BAD_COUNT = 1104
    NO_MEMORY = 1105


class Status(IntEnum):
    """The state of a service (bootstrap_status_t).

    INACTIVE: nobody serves it; messages to it wait. ACTIVE: somebody does. ON_DEMAND: nobody does,
    and the first message has its server started.
    """

    INACTIVE = 0
    ACTIVE = 1
    ON_DEMAND = 2


class ServiceInfo(NamedTuple):
    """A service as others see it.

    Attributes:
        name, server: the latter is "" for a service without a server that is started.
        status: what state it is in.
    """

    name: str
    server: str
    status: Status


class BootstrapError(MigError):
    """The name server did not do what it was asked.

    Attributes:
        code (int): one of `Code`.
        name (str): such as "BOOTSTRAP_UNKNOWN_SERVICE".
    """

    def __str__(self) -> str:
        prefix = f"{self.detail}: " if self.detail else ""
        return f"{prefix}{_SENTENCES[self.code]} ({self.name})"


class NotPrivileged(BootstrapError, PermissionError):
    """The caller may not change this; or, the context takes no changes any more."""


class NameInUse(BootstrapError):
    """A service of that name can be seen from here already."""


class UnknownService(BootstrapError, LookupError):
    """No such service; one that the caller may not see looks the same."""


class ServiceActive(BootstrapError):
    """Somebody serves that name."""


_SENTENCES: dict[int, str] = {
    Code.NOT_PRIVILEGED: "not privileged",
    Code.NAME_IN_USE: "the name is in use",
    Code.UNKNOWN_SERVICE: "no such service",
    Code.SERVICE_ACTIVE: "the service is active",
    Code.BAD_COUNT: f"more than {MAX_LOOKUP_COUNT} names",
    Code.NO_MEMORY: "the name server has no room for it",
}
_KINDS: dict[int, type[BootstrapError]] = {
    Code.NOT_PRIVILEGED: NotPrivileged,
    Code.NAME_IN_USE: NameInUse,
    Code.UNKNOWN_SERVICE: UnknownService,
    Code.SERVICE_ACTIVE: ServiceActive,
}


def failure(code: int, detail: str = "") -> MachError:
    """Return the exception of a code that the name server answered."""
    if code not in _SENTENCES:
        return MigError(code, detail)
    return _KINDS.get(code, BootstrapError)(code, detail)


def acceptable(name: str) -> bool:
    """Tell whether a name can be given to a service: whoever reads it sees what it is.

    It has 1 to 127 bytes in UTF-8, no control, format or unassigned characters, and is in Unicode's
    normal form C, so that no two names look the same for want of it.
    """
    if not name or len(name) > NAME_MAX:
        return False
    if name.isascii():
        return name.isprintable()
    shown = not any(unicodedata.category(character) in _UNSEEN for character in name)
    return shown and len(name.encode()) <= NAME_MAX and unicodedata.is_normalized("NFC", name)
