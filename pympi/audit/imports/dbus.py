# SPDX-License-Identifier: BSD-2-Clause
"""D-Bus messages in a capture of `dbus-monitor --pcap` (pcap, link type 231), as audit records.

| on the bus | here |
|---|---|
| a connection, `:1.7` | a task of that name |
| a name that is called | a port, labelled `dbus/<name>`, whose owner is who answers |
| a call | `send` to it, and `method`: class `mi_<interface>`, the member its permission |
| a call that wants an answer | besides `give`: the right to answer, at a port of its own |
| an answer, if not of the bus itself | `receive` of the call |
| an answer | `send` by that right, `receive` by who called |
| an error that says that access was refused | the method, denied |
| a signal | `send` and `method`, to whom it is for or else a port of the name `signals` |
| a signal to one connection | besides `receive`, by that |

In an interface's name "." is "-" here. D-Bus numbers messages for each connection; transfers are
numbered anew. A message that was captured in part counts as a lost record.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...enums import AuditFlag, Operation
from ..reader import AuditError
from ..record import Batch
from .events import NO_ACCESS, Event, batches_of, escaped, lost

__all__ = ["MAGICS", "dbus_batches"]

LINKTYPE = 231
MAGICS = {
    struct.pack(order + "I", magic): (order, scale)
    for order in "<>"
    for magic, scale in ((0xA1B2C3D4, 1000), (0xA1B23C4D, 1))
}
"""How a capture begins, and so its byte order, and what its fractions of seconds count in ns."""

_LARGEST = 1 << 27  # bytes of a message: D-Bus's own limit
_PENDING = 1 << 16  # calls that may wait for an answer; the oldest is forgotten
_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_NO_REPLY = 1  # flag
_SIGNALS = "signals"
_BUS = "org.freedesktop.DBus"  # which answers for those that are not there, or not allowed
_REFUSED = {
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.AuthFailed",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    "org.freedesktop.PolicyKit1.Error.NotAuthorized",
}
# Header fields by number; their types are fixed.
_FIELDS = {2: "interface", 3: "member", 4: "error", 5: "reply_to", 6: "destination", 7: "sender"}


class _Message(NamedTuple):
    """A message: what its header says."""

    time: int
    kind: int
    flags: int
    size: int
    serial: int
    interface: str = ""
    member: str = ""
    error: str = ""
    reply_to: int = 0
    destination: str = ""
    sender: str = ""


def dbus_batches(path: str | os.PathLike[str]) -> Iterator[Batch]:
    """Yield the messages of a capture as records.

    Raises:
        AuditError: it is no such capture, or damaged; with the byte. What comes before is good.
        OSError: it cannot be read.
        ValueError: it has more different names than numbers are given to.
    """
    return batches_of(lambda: _Conversation().events(_messages(Path(path))))


# ---- the capture ----


def _messages(path: Path) -> Iterator[_Message | int]:
    """Yield messages; of one that was captured in part only its time."""
    with path.open("rb") as file:
        order, scale = _begin(file, str(path))
        head = struct.Struct(order + "IIII")
        while raw := file.read(head.size):
            at = file.tell() - len(raw)
            if len(raw) < head.size:
                raise _error(path, at, "the capture is cut off in a packet's header")
            seconds, fraction, size, whole = head.unpack(raw)
            time = seconds * 10**9 + fraction * scale
            if size > _LARGEST or whole < size:
                raise _error(path, at, f"expected a packet of at most {_LARGEST} bytes")
            data = file.read(size)
            if len(data) < size:
                raise _error(path, at, f"the capture is cut off: {size - len(data)} bytes missing")
            try:
                yield time if size < whole else _message(time, data)
            except (ValueError, IndexError, struct.error) as error:
                raise _error(path, at, f"no D-Bus message: {error}") from None


def _begin(file: BinaryIO, name: str) -> tuple[str, int]:
    raw = file.read(24)
    if len(raw) < 24 or raw[:4] not in MAGICS:
        raise _error(name, 0, "expected a capture (pcap)")
    order, scale = MAGICS[raw[:4]]
    major, link = struct.unpack_from(order + "H14xI", raw, 4)
    if major != 2 or link != LINKTYPE:
        raise _error(name, 4, f"expected pcap 2 of link type {LINKTYPE}, found {major} of {link}")
    return order, scale


def _error(path: object, at: int, why: str) -> AuditError:
    return AuditError(f"{path}, byte {at}: {why}")


def _message(time: int, data: bytes) -> _Message:
    """Return what the header of a message says.

    Raises:
        ValueError, IndexError, struct.error: it is none.
    """
    order = {b"l": "<", b"B": ">"}.get(data[:1])
    if order is None or len(data) < 16:
        raise ValueError("expected a byte order, 'l' or 'B'")
    kind, flags, version = data[1:4]
    _, serial, length = struct.unpack_from(order + "III", data, 4)
    if version != 1 or not _CALL <= kind <= _SIGNAL or length > len(data) - 16:
        raise ValueError(f"version {version}, kind {kind}, {length} bytes of header fields")
    found = dict(_header_fields(data[: 16 + length], order))
    return _Message(time, kind, flags, len(data), serial, **found)  # type: ignore[arg-type]


def _header_fields(data: bytes, order: str) -> Iterator[tuple[str, str | int]]:
    at = 16
    while at < len(data):
        at = -(-at // 8) * 8
        code, length = data[at], data[at + 1]
        signature = data[at + 2 : at + 2 + length].decode("ascii")
        value, at = _value(data, at + 3 + length, signature, order)
        if code in _FIELDS:
            if isinstance(value, int) is not (_FIELDS[code] == "reply_to"):
                raise ValueError(f"header field {code} of type {signature!r}")
            yield _FIELDS[code], value


def _value(data: bytes, at: int, signature: str, order: str) -> tuple[str | int, int]:
    """Return a basic value and where it ends; header fields have no others."""
    if signature == "g":
        end = at + 1 + data[at]
        return data[at + 1 : end].decode("ascii"), end + 1
    if signature not in ("s", "o", "u"):
        raise ValueError(f"a header field of type {signature!r}")
    at = -(-at // 4) * 4
    (number,) = struct.unpack_from(order + "I", data, at)
    if signature == "u":
        return number, at + 4
    end = at + 4 + number
    if end >= len(data) or data[end]:
        raise ValueError("a string without its end")
    return data[at + 4 : end].decode(), end + 1


# ---- what it means ----


class _Call(NamedTuple):
    """A call that waits for an answer."""

    message: _Message
    transfer: int
    port: int
    reply_port: int


class _Conversation:
    """Makes events of messages: joins answers to calls, and finds out who has a name."""

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._names: dict[int, str] = {}  # labels of ports
        self._made = self._transfers = 0
        self._pending: OrderedDict[tuple[str, int], _Call] = OrderedDict()

    def events(self, messages: Iterator[_Message | int]) -> Iterator[Event]:
        for message in messages:
            if isinstance(message, int):
                yield lost(message)
            elif message.kind == _CALL:
                yield from self._call(message)
            elif message.kind == _SIGNAL:
                yield from self._signal(message)
            else:
                yield from self._answer(message)

    def _signal(self, message: _Message) -> Iterator[Event]:
        transfer, port = self._transfer(), self._port(message.destination or _SIGNALS)
        yield from self._sent(message, port, transfer)
        if message.destination.startswith(":"):
            received = message._replace(sender=message.destination)
            yield self._event(received, Operation.RECEIVE, port, transfer, _RECEIVED)

    def _transfer(self) -> int:
        self._transfers += 1
        return self._transfers

    def _port(self, name: str) -> int:
        if name not in self._ports:
            self._ports[name] = self._new_port(name)
        return self._ports[name]

    def _new_port(self, name: str = "") -> int:
        self._made += 1
        if name:
            self._names[self._made] = f"dbus/{escaped(name)}"
        return self._made

    def _call(self, message: _Message) -> Iterator[Event]:
        transfer, port = self._transfer(), self._port(message.destination or _SIGNALS)
        yield from self._sent(message, port, transfer)
        if message.flags & _NO_REPLY:
            return
        reply_port = self._new_port()
        yield self._event(
            message, Operation.GIVE, reply_port, transfer, ("make_send_once", "set_reply")
        )
        self._pending[message.sender, message.serial] = _Call(message, transfer, port, reply_port)
        if len(self._pending) > _PENDING:
            self._pending.popitem(last=False)

    def _sent(self, message: _Message, port: int, transfer: int) -> Iterator[Event]:
        yield self._event(message, Operation.SEND, port, transfer, ("send", "copy_send"))
        if message.member:
            yield self._method(message, port, transfer)

    def _answer(self, message: _Message) -> Iterator[Event]:
        call = self._pending.pop((message.destination, message.reply_to), None)
        if call is None:  # its call was before the capture, or too long ago
            yield self._event(message, Operation.SEND, self._new_port(), self._transfer(), _ONCE)
            return
        if message.sender != _BUS or call.message.destination == _BUS:
            received = call.message._replace(time=message.time, sender=message.sender)
            yield self._event(received, Operation.RECEIVE, call.port, call.transfer, _RECEIVED)
        if message.error in _REFUSED:
            asked = call.message._replace(time=message.time)
            yield self._method(asked, call.port, call.transfer, denied=True)
        transfer = self._transfer()
        reply = self._event(message, Operation.SEND, call.reply_port, transfer, _ONCE)
        yield reply._replace(provenance=call.transfer)
        back = message._replace(sender=message.destination)
        yield self._event(back, Operation.RECEIVE, call.reply_port, transfer, _RECEIVED)

    def _labels(self, port: int) -> tuple[str, str, str]:
        return "", self._names.get(port, ""), ""

    def _event(
        self, message: _Message, operation: Operation, port: int, transfer: int,
        asked: tuple[str, ...],
    ) -> Event:  # fmt: skip
        return Event(
            time=message.time, operation=operation, task=(0, message.sender or "?"),
            labels=self._labels(port), tclass="mach_port", asked=asked, port=port,
            size=message.size, transfer=transfer, flags=_END.get(operation, AuditFlag(0)),
        )  # fmt: skip

    def _method(
        self, message: _Message, port: int, transfer: int, *, denied: bool = False
    ) -> Event:
        tclass = f"mi_{(message.interface or 'none').replace('.', '-')}"
        asked = (message.member,)
        return Event(
            time=message.time, operation=Operation.METHOD, task=(0, message.sender or "?"),
            labels=self._labels(port), tclass=tclass, asked=asked, denied=asked if denied else (),
            port=port, size=message.size, transfer=transfer, result=NO_ACCESS if denied else 0,
        )  # fmt: skip


_ONCE = ("send", "move_send_once")
_RECEIVED = ("use_recv", "recv")
_END = {Operation.RECEIVE: AuditFlag.RECEIVE}
