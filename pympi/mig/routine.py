# SPDX-License-Identifier: BSD-2-Clause
"""Routines and their arguments: who gives them, who gets them, and which travel in messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..message import Message
from .text import parse_type
from .types import Packet, Port, Scalar, String, Type

__all__ = ["KINDS", "RETCODE", "Argument", "Kind", "Routine", "reply_id", "write"]

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Kind(NamedTuple):
    """What a kind of argument means.

    Attributes:
        request, reply: whether it travels in the request, in the reply.
        given: whether the client's caller gives it; returned: whether it gets it back.
        served: whether the server's function gets it.
        from_message: how it is found in the message that arrived, if it does not travel itself.
    """

    request: bool = False
    reply: bool = False
    given: bool = False
    returned: bool = False
    served: bool = False
    from_message: Callable[[Message], Any] | None = None


def _hidden(
    client: bool, server: bool, found: Callable[[Message], Any] | None, given: bool = False
) -> Kind:
    return Kind(given=given, returned=client, served=server, from_message=found)


def _label(message: Message) -> str:
    return message.sender.label


def _security_token(message: Message) -> tuple[int, ...]:
    return message.sender.security_token


def _audit_token(message: Message) -> tuple[int, ...]:
    return message.sender.audit_token


def _reply_right(message: Message) -> Any:
    return message.reply_right


KINDS: Mapping[str, Kind] = {
    "in": Kind(request=True, given=True, served=True),
    "out": Kind(reply=True, returned=True),
    "inout": Kind(request=True, reply=True, given=True, returned=True, served=True),
    "requestport": Kind(),  # the right that the client sends to, and `Message.port`
    "replyport": _hidden(False, True, _reply_right, given=True),
    "sreplyport": _hidden(False, True, _reply_right),
    "ureplyport": _hidden(False, False, None, given=True),
    "waittime": _hidden(False, False, None, given=True),
    "msgoption": _hidden(False, False, None, given=True),
    "msgseqno": _hidden(False, True, lambda message: message.seqno),
    "accessflag": _hidden(False, True, lambda message: bool(message.method)),
    "msglabels": _hidden(True, True, _label),
    "usermsglabels": _hidden(True, False, _label),
    "servermsglabels": _hidden(False, True, _label),
    "sectoken": _hidden(True, True, _security_token),
    "usersectoken": _hidden(True, False, _security_token),
    "serversectoken": _hidden(False, True, _security_token),
    "audittoken": _hidden(True, True, _audit_token),
    "useraudittoken": _hidden(True, False, _audit_token),
    "serveraudittoken": _hidden(False, True, _audit_token),
}
"""All kinds of arguments; the words are MIG's, those with access and labels SEDarwin's."""

_LABELS = ("msglabels", "usermsglabels", "servermsglabels")
_PORTS = ("requestport", "replyport", "sreplyport", "ureplyport")
_INTS = ("accessflag", "waittime", "msgoption", "msgseqno")


@dataclass(frozen=True)
class Argument:
    """An argument of a routine.

    Attributes:
        name: an identifier.
        type: what it is.
        kind: a word in `KINDS`.
        flags: who frees what, and so on; they change nothing here.

    Raises:
        ValueError: no such kind, not an identifier, or a type that the kind does not take.
    """

    name: str
    type: Type
    kind: str = "in"
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"not an identifier: {self.name!r}")
        if self.kind not in KINDS:
            raise ValueError(f"no kind of argument: {self.kind!r}; there are: {', '.join(KINDS)}")
        if wanted := self._wanted():
            raise ValueError(f"{self.name}: {self.kind} takes {wanted}, not {self.type}")

    def _wanted(self) -> str:
        """Return what the kind takes, if the type is not that."""
        if self.kind in _LABELS:
            plain = self.type.size == 8 and not isinstance(self.type, (Port, String))
            return "" if plain else "a struct of 64 bits (msg_labels_t)"
        if self.kind in _INTS:
            return "" if isinstance(self.type, Scalar) and self.type.size == 4 else "an int"
        return "" if self.kind not in _PORTS or isinstance(self.type, Port) else "a port"

    @property
    def means(self) -> Kind:
        """What its kind means."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.type}"


Types = Mapping[str, "Type | str"]


def _typed(kind: Type | str) -> Type:
    return parse_type(kind) if isinstance(kind, str) else kind


def _arguments(inward: Types, outward: Types) -> tuple[Argument, ...]:
    """Return arguments from two tables; what is in both is inout."""
    there = {name: _typed(kind) for name, kind in inward.items()}
    back = {name: _typed(kind) for name, kind in outward.items()}
    for name in there.keys() & back.keys():
        if there[name] != back[name]:
            raise ValueError(f"{name} is {there[name]} in and {back[name]} out")
    kinds = {name: "inout" if name in back else "in" for name in there}
    kinds |= {name: "out" for name in back if name not in there}
    return tuple(Argument(name, (back | there)[name], kind) for name, kind in kinds.items())


class Routine:
    """A routine.

    Args:
        name: an identifier; the permission to call it has the same.
        in_: types of what the client gives, by name, in MIG's notation or as `Type`.
        out: types of what the server answers; a name that is in both is inout.
        simple: nothing is answered, and nobody waits for it (simpleroutine).
        protected: the server refuses it where access control would, even if a permissive policy
            let the request through (checkaccess).
        arguments: instead of `in_` and `out`: all of them, of every kind.

    Without `in_`, `out` and `arguments` the routine takes and answers bytes as they are.

    Attributes:
        arguments (tuple[Argument, ...] | None): None for bytes as they are.

    Raises:
        ValueError: a name or a type that cannot be used, two arguments of one name, or a simple
            routine that answers.

    Example:
        >>> Routine("print_page", in_={"copies": "int", "page": "^array[] of char"},
        ...         out={"job": "int"})
        <Routine print_page(in copies: int32_t; in page: ^array[] of char; out job: int32_t)>
    """

    def __init__(
        self, name: str, in_: Types | None = None, out: Types | None = None, *,
        simple: bool = False, protected: bool = False,
        arguments: tuple[Argument, ...] | None = None,
    ) -> None:  # fmt: skip
        if arguments is None and (in_ is not None or out is not None):
            arguments = _arguments(in_ or {}, out or {})
        self.name = name
        self.simple = simple
        self.protected = protected
        self.arguments = arguments
        self._check()
        every = arguments or ()
        self.request = [a for a in every if a.means.request]
        self.reply = [a for a in every if a.means.reply]
        self.given = [a for a in every if a.means.given]
        self.returned = [a for a in every if a.means.returned]
        self.served = [a for a in every if a.means.served]

    def _check(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"not an identifier: {self.name!r}")
        if self.name == "ioctl" or self.name.startswith("__"):
            raise ValueError(f"{self.name!r} is reserved, and no name of a routine")
        names = [argument.name for argument in self.arguments or ()]
        if len(set(names)) != len(names):
            raise ValueError(f"routine {self.name!r}: two arguments have one name")
        if self.simple and any(a.means.reply or a.means.returned for a in self.arguments or ()):
            raise ValueError(f"simpleroutine {self.name!r} has an argument that it would answer")

    @property
    def typed(self) -> bool:
        """Whether its arguments are known."""
        return self.arguments is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Routine):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return self.name, self.arguments, self.simple, self.protected

    def __repr__(self) -> str:
        what = "simpleroutine" if self.simple else "Routine"
        words = "; ".join(map(str, self.arguments or ())) if self.typed else "..."
        return f"<{what} {self.name}{' checkaccess' if self.protected else ''}({words})>"


# ---- what both ends do ----

RETCODE = Scalar("kern_return_t", "i")


def reply_id(msgh_id: int) -> int:
    """Return the number of the answer to a request: 100 more, in 32 bits."""
    return (msgh_id + 100 + (1 << 31)) % (1 << 32) - (1 << 31)


def write(routine: Routine, packet: Packet, arguments: Sequence[Argument], values: Any) -> None:
    """Add values to a message; errors name routine and argument."""
    for argument, value in zip(arguments, values, strict=True):
        try:
            argument.type.put(packet, value)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{routine.name}, {argument.name}: {error}") from None
