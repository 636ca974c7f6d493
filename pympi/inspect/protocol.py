# SPDX-License-Identifier: BSD-2-Clause
"""What goes over a control socket: lines of JSON. `docs/inspect.md` describes them.

A request is one line. Its answer is any number of lines with rows of a table, then one line with
either a result or an error. All carry the request's `id`.
"""

from __future__ import annotations

import functools
import operator
from typing import Annotated, Any

import msgspec

from .snapshot import Head, Service, Snapshot
from .table import U32, U64

__all__ = [
    "LINE_LARGEST", "OPERATIONS", "PROTOCOL", "ROWS_A_LINE", "AnswerError", "Avcstat", "Hello",
    "Ping", "PolicyStatus", "Ports", "Reload", "Rights", "ServiceRow", "SnapshotHead",
    "Stats",
    "TakeSnapshot", "Tasks", "Text", "Watch", "Welcome", "decode_request", "head_of",
]  # fmt: skip

PROTOCOL = 1
LINE_LARGEST = 4096
"""Bytes of a request, its newline included."""
ROWS_A_LINE = 256

Name = Annotated[str, msgspec.Meta(max_length=256)]
Word = Annotated[str, msgspec.Meta(max_length=300)]


class _Request(msgspec.Struct, forbid_unknown_fields=True, tag_field="op", kw_only=True):
    id: U64 = 0


class Hello(_Request, tag="hello"):
    """Who is there? The first request; `version` is the protocol's."""

    version: int = PROTOCOL


class Ping(_Request, tag="ping"):
    """Are you alive?"""


class TakeSnapshot(_Request, tag="snapshot"):
    """All tables, then what else a snapshot has."""

    consistent: bool = False


class Tasks(_Request, tag="tasks"):
    """Tasks, all or one."""

    task: U32 | None = None


class Ports(_Request, tag="ports"):
    """Ports: all, or those of which a task has the receive right."""

    task: U32 | None = None


class Rights(_Request, tag="rights"):
    """Names: all, or those in a task's space."""

    task: U32 | None = None


class Stats(_Request, tag="stats"):
    """The kernel's counters."""


class Avcstat(_Request, tag="avcstat"):
    """The counters of the access vector cache, and of audit."""


class PolicyStatus(_Request, tag="policy"):
    """What policy is in force."""


class Text(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A text that is to come: what errors call it, and how many bytes it has."""

    name: Word
    size: U32


class Reload(_Request, tag="reload"):
    """Have a module, or all, read anew where its answers come from; or one made of other texts.

    texts: what will be sent, one after the other and without anything between, once the server
        asks for it: with a line of no rows of the table "text".
    shadow: they are only tried.
    drop: the trial ends; there are no texts.
    """

    module: Name | None = None
    texts: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    shadow: bool = False
    drop: bool = False


class Watch(_Request, tag="watch"):
    """What happens, as it happens, until the next request comes.

    filter: words, as for `Kernel.watch`.
    """

    filter: Annotated[tuple[Word, ...], msgspec.Meta(max_length=16)] = ()


_REQUESTS = (
    Hello, Ping, TakeSnapshot, Tasks, Ports, Rights, Stats, Avcstat, PolicyStatus, Reload, Watch,
)  # fmt: skip
OPERATIONS = tuple(str(request.__struct_config__.tag) for request in _REQUESTS)


class AnswerError(Exception):
    """What is answered instead of a result.

    Attributes:
        code: "bad request", "denied", "read only", "busy", "failed", "not supported", "closing".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to hello.

    Attributes:
        version: of the protocol.
        pympi: the server's version.
        pid: of the process.
        label: that the peer was given.
        read_only: nothing can be changed here.
        operations: that are understood.
    """

    version: int
    pympi: str
    pid: int
    label: str
    read_only: bool
    operations: tuple[str, ...]


class ServiceRow(msgspec.Struct, frozen=True):
    """A row of the table of services: the context's number, and the service."""

    context: int
    service: Service


class SnapshotHead(Head, frozen=True, kw_only=True):
    """The result of snapshot: what it has beside tables. Contexts come without their services."""

    version: int


def head_of(snapshot: Snapshot) -> SnapshotHead:
    """Return what a snapshot has beside tables."""
    fields = {name: getattr(snapshot, name) for name in SnapshotHead.__struct_fields__}
    if snapshot.bootstrap is not None:
        contexts = (msgspec.structs.replace(c, services=()) for c in snapshot.bootstrap)
        fields["bootstrap"] = tuple(contexts)
    return SnapshotHead(**fields)


class _Id(msgspec.Struct):
    id: U64 = 0


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    functools.reduce(operator.or_, _REQUESTS)
)
_id_decoder = msgspec.json.Decoder(_Id)


def decode_request(line: bytes) -> tuple[int, Any]:
    """Return a request and its id; in the place of one that is none, an `AnswerError`."""
    try:
        request = _decoder.decode(line)
        return request.id, request
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return _id_of(line), AnswerError("bad request", str(error))


def _id_of(line: bytes) -> int:
    try:
        return _id_decoder.decode(line).id
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return 0
