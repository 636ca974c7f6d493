# SPDX-License-Identifier: BSD-2-Clause
"""MIG's return codes (mach/mig_errors.h), and the exception of a routine that did not succeed."""

from __future__ import annotations

from ..errors import MachError, code_name, exception

__all__ = [
    "KERN_FAILURE",
    "KERN_NO_ACCESS",
    "MIG_BAD_ARGUMENTS",
    "MIG_BAD_ID",
    "MIG_NO_REPLY",
    "MIG_REPLY_MISMATCH",
    "MIG_SERVER_DIED",
    "MIG_TYPE_ERROR",
    "MigError",
]

KERN_FAILURE = 5
KERN_NO_ACCESS = 8
MIG_TYPE_ERROR = -300
MIG_REPLY_MISMATCH = -301
MIG_BAD_ID = -303
MIG_BAD_ARGUMENTS = -304
MIG_NO_REPLY = -305
MIG_SERVER_DIED = -308

_CODES = {
    MIG_TYPE_ERROR: ("MIG_TYPE_ERROR", "the answer is not laid out as the routine says"),
    MIG_REPLY_MISMATCH: ("MIG_REPLY_MISMATCH", "the answer has another number"),
    -302: ("MIG_REMOTE_ERROR", "the server failed"),
    MIG_BAD_ID: ("MIG_BAD_ID", "the server has no such routine"),
    MIG_BAD_ARGUMENTS: ("MIG_BAD_ARGUMENTS", "the request is not laid out as the routine says"),
    MIG_NO_REPLY: ("MIG_NO_REPLY", "the server will answer later"),
    -306: ("MIG_EXCEPTION", "the server raised an exception"),
    -307: ("MIG_ARRAY_TOO_LARGE", "an array is too large"),
    MIG_SERVER_DIED: ("MIG_SERVER_DIED", "the server died"),
    -309: ("MIG_TRAILER_ERROR", "the trailer has an unknown format"),
}


class MigError(MachError):
    """A routine did not succeed.

    Always this class, whatever the code: what a server says has happened to it is not to be taken
    for what happened to the caller (a `TimedOut`, say, would promise that nothing was done).

    Attributes:
        code (int): a Mach code, one of MIG's (negative), or the server's own.
        name (str), detail (str): as for every `MachError`.

    Raised by a server's function, it is what the caller gets; MIG_NO_REPLY means that the function
    answers later, with `Server.answer`.
    """

    @property
    def name(self) -> str:
        if self.code in _CODES:
            return _CODES[self.code][0]
        return code_name(self.code)

    def __str__(self) -> str:
        if self.code not in _CODES and self.code > 0:
            return str(exception(self.code, self.detail))
        sentence = _CODES[self.code][1] if self.code in _CODES else "unknown code"
        prefix = f"{self.detail}: " if self.detail else ""
        return f"{prefix}{sentence} ({self.name})"
