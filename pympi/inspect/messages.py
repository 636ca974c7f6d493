# SPDX-License-Identifier: BSD-2-Clause
"""Records of a watch as messages and decisions: what belongs together in one, replies joined."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ..audit import WatchRecord

__all__ = ["Happening", "Joiner"]

_REMEMBERED = 8192  # messages that are under way, and reply ports that wait
_PARTS = {"method", "give"}  # of a message, as it is sent
_RECEIVED = {"receive", "take"}  # of a message that was shown when it was sent


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was sent, or a decision about something else.

    Attributes:
        kind: "message", "reply" or "decision".
        what: the routine, if the port has an interface; else the operation. Of a reply, that of
            the request.
        latency: of a reply, seconds since its request; None: that was not seen.
        request: of a reply, the transfer of its request; 0 not known.
        reply_port: where a reply is to be sent to; 0 nowhere.
        record: the operation's first record.
        lost: records that were lost before this.
    """

    kind: str
    what: str
    latency: float | None = None
    request: int = 0
    reply_port: int = 0
    record: WatchRecord
    lost: int = 0


class _Request(msgspec.Struct, frozen=True):
    time: float
    what: str
    transfer: int


class Joiner:
    """Makes happenings of records, in order.

    A message has several records: that it was sent, which routine it calls, which rights it
    carries, and later that it was received. They become one happening, when it was sent.
    """

    def __init__(self) -> None:
        self._sent: WatchRecord | None = None
        self._parts: list[WatchRecord] = []
        self._known: OrderedDict[int, None] = OrderedDict()
        self._requests: OrderedDict[int, deque[_Request]] = OrderedDict()
        self._lost = 0

    def add(self, records: Iterable[WatchRecord]) -> Iterator[Happening]:
        """Yield what is complete with these records."""
        for record in records:
            if self._is_part(record):
                self._lost += record.lost
                self._parts.append(record)
                continue
            yield from self.flush()
            self._lost += record.lost
            if self._was_shown(record):
                continue
            if record.operation == "send" and record.transfer:
                self._sent = record
            else:
                yield self._made("decision", _what(record), record)

    def _is_part(self, record: WatchRecord) -> bool:
        sent = self._sent
        same = sent is not None and record.transfer == sent.transfer
        return same and record.operation in _PARTS

    def _was_shown(self, record: WatchRecord) -> bool:
        received = record.operation in _RECEIVED and record.outcome == "granted"
        return received and record.transfer in self._known

    def flush(self) -> Iterator[Happening]:
        """Yield the message that more records might belong to, if there is one."""
        sent, parts, self._sent, self._parts = self._sent, self._parts, None, []
        if sent is None:
            return
        _remember(self._known, sent.transfer, None)
        routine = next((part.routine for part in parts if part.operation == "method"), "")
        reply_port = next((part.port for part in parts if "set_reply" in part.asked), 0)
        request = self._request_of(sent)
        what = routine or _what(sent)
        if reply_port:
            waiting = self._requests.get(reply_port) or deque(maxlen=_REMEMBERED)
            waiting.append(_Request(sent.time, what, sent.transfer))
            _remember(self._requests, reply_port, waiting)
        if request is None:
            kind = "reply" if "move_send_once" in sent.asked else "message"
            yield self._made(kind, what, sent, reply_port=reply_port)
        else:
            yield self._made(
                "reply", request.what, sent, reply_port=reply_port, request=request.transfer,
                latency=max(0.0, sent.time - request.time),
            )  # fmt: skip

    def _request_of(self, sent: WatchRecord) -> _Request | None:
        if "move_send_once" not in sent.asked:
            return None
        waiting = self._requests.get(sent.port)
        if not waiting:
            return None
        request = waiting.popleft()
        if not waiting:
            del self._requests[sent.port]
        return request

    def _made(self, kind: str, what: str, record: WatchRecord, **more: Any) -> Happening:
        lost, self._lost = self._lost, 0
        return Happening(kind=kind, what=what, record=record, lost=lost, **more)


def _what(record: WatchRecord) -> str:
    if record.routine:
        return record.routine
    if record.operation == "send":
        return f"send {record.msgh_id}"
    return " ".join(record.asked) or record.operation


def _remember(table: OrderedDict[int, Any], key: int, value: Any) -> None:
    table[key] = value
    if len(table) > _REMEMBERED:
        table.popitem(last=False)
