# SPDX-License-Identifier: BSD-2-Clause
"""A sequence diagram of a chosen conversation, as Mermaid text.

A reply is a message by a right for one message; that right's provenance says by which message it
came, which is the request. The idea of a lane per party, with the reply tied to its call, is that
of Bustle, the viewer of D-Bus.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ...audit import sentence
from ..text import escape
from .acts import Act, acts
from .perfetto import MAX_OPEN

if TYPE_CHECKING:
    from ...audit import Batch

__all__ = ["Chosen", "Diagram", "sequence"]

_RIGHTS = {
    "make_send": "a send right", "copy_send": "a send right", "move_send": "a send right",
    "make_send_once": "a send-once right", "move_send_once": "a send-once right",
    "move_recv": "a receive right",
}  # fmt: skip
_LONGEST = 48  # characters of a name in the diagram


@dataclass(frozen=True)
class Chosen:
    """Which messages are shown.

    Attributes:
        between: names of tasks, * and ? stand for others: both ends are among them; where there is
            one, either end. () for all.
        transfer: this message, and those sent by rights that came with one shown; 0 for all.
        begin, end: seconds of the kernel's clock; None for all.
        limit: how many, the first ones.
    """

    between: tuple[str, ...] = ()
    transfer: int = 0
    begin: float | None = None
    end: float | None = None
    limit: int = 40

    def task(self, name: str) -> bool:
        """Whether a task is among those asked for."""
        return not self.between or any(fnmatchcase(name, pattern) for pattern in self.between)

    def pair(self, sender: str, receiver: str) -> bool:
        """Whether both ends are, or either if there is but one name."""
        known = [self.task(sender), self.task(receiver)]
        return any(known) if len(self.between) == 1 else all(known)


@dataclass(slots=True, eq=False)
class _Message:
    """An arrow of the diagram, or a note where nothing was sent."""

    sequence: int
    transfer: int
    sender: tuple[int, str]
    text: str
    port: int
    label: str
    answers: int = 0  # the transfer of the request that this is the reply to
    receiver: tuple[int, str] | None = None
    refused: str = ""
    note: bool = False


@dataclass
class Diagram:
    """A conversation.

    Attributes:
        messages: how many are shown, refused ones and notes included.
        left_out: how many more were chosen.
        text: Mermaid's.
    """

    messages: int
    left_out: int
    text: str = field(repr=False)


def sequence(
    batches: Iterable[Batch], chosen: Chosen | None = None,
    advance: Callable[[int], object] = lambda records: None,
) -> Diagram:  # fmt: skip
    """Return the diagram of chosen messages.

    Memory holds what is shown, what waits for its receiver, and who receives from which port.

    Args:
        batches: of an audit trail, in its order.
        chosen: which messages; the first 40 without.
        advance: told how many records were read, again and again.
    """
    found = _Finder(chosen or Chosen())
    for act in acts(batches):
        found.add(act)
        advance(len(act.records))
    shown, left_out = found.finish()
    return Diagram(len(shown), left_out, "\n".join(_lines(shown, left_out)) + "\n")


# --- finding --------------------------------------------------------------------------------------


class _Finder:
    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._open: dict[int, _Message] = {}  # by transfer: sent, and not received so far
        self._holders: dict[int, tuple[int, str]] = {}  # by port
        self._found: list[_Message] = []
        self._waiting: list[_Message] = []  # refused before it was known to whom
        self._linked = {chosen.transfer}  # if one was chosen
        self._count = 0

    def add(self, act: Act) -> None:
        head = act.head
        me = head.task, act.task
        if not act.refused and {"use_recv", "make_send", "make_send_once"} & {*head.asked}:
            self._holders[head.port] = me
        if act.arrives:
            self._arrive(act, me)
        elif self._wanted(act) and (act.kind == "send" or act.refused):
            self._send(_message(act, me))

    def _wanted(self, act: Act) -> bool:
        """Whether time and right of a message are as chosen."""
        chosen, head = self._chosen, act.head
        if chosen.begin is not None and head.time < chosen.begin:
            return False
        if chosen.end is not None and head.time > chosen.end:
            return False
        if not chosen.transfer:
            return True
        linked = not self._linked.isdisjoint({head.transfer or -1, head.provenance or -1})
        if linked:
            self._linked.add(head.transfer)
        return linked

    def _send(self, message: _Message) -> None:
        if message.refused:
            self._waiting.append(message)
            self._tidy(self._waiting)
            return
        self._open[message.transfer] = message
        if len(self._open) > MAX_OPEN:
            self._settle(self._open.pop(next(iter(self._open))))

    def _arrive(self, act: Act, me: tuple[int, str]) -> None:
        message = self._open.pop(act.head.transfer, None)
        if message is not None:
            message.receiver = me
            message.refused = _refusal(act)
            self._settle(message)
        elif act.refused and not act.head.transfer and self._wanted(act):
            self._settle(_message(act, me))

    def _settle(self, message: _Message) -> None:
        """Keep a message if it is between whom it should be."""
        message.receiver = message.receiver or self._holders.get(message.port)
        other = message.sender if message.note else message.receiver or (0, "")
        if self._chosen.pair(message.sender[1], other[1]):
            self._count += 1
            self._found.append(message)
            self._tidy(self._found)

    def _tidy(self, messages: list[_Message]) -> None:
        """Keep the first ones, a few times as many as will be shown."""
        if len(messages) > 8 * self._chosen.limit + 1024:
            messages.sort(key=lambda message: message.sequence)
            if messages is self._waiting:
                for message in messages[self._chosen.limit :]:
                    self._settle(message)
            del messages[self._chosen.limit :]

    def finish(self) -> tuple[list[_Message], int]:
        for message in [*self._open.values(), *self._waiting]:
            self._settle(message)
        self._found.sort(key=lambda message: message.sequence)
        shown = self._found[: self._chosen.limit]
        return shown, self._count - len(shown)


def _message(act: Act, me: tuple[int, str]) -> _Message:
    head = act.head
    is_message = act.kind == "send"
    text = act.routine + _carried(act) if is_message else sentence.what(head) + sentence.about(head)
    answers = head.provenance if act.is_reply else 0
    return _Message(
        head.sequence, head.transfer, me, text, head.port, head.object, answers,
        refused=_refusal(act), note=not is_message,
    )  # fmt: skip


def _refusal(act: Act) -> str:
    if act.kind != "send" and act.refused == act.head.asked and not act.arrives:
        return "refused"  # all that the note says
    return f"{' '.join(act.refused)} refused" if act.refused else ""


def _carried(act: Act) -> str:
    """Which rights go with a message, but for the one to reply with."""
    gives = [r for r in act.records[1:] if r.operation == "give" and "set_reply" not in r.asked]
    rights = [_RIGHTS[name] for record in gives for name in record.asked if name in _RIGHTS]
    return f", with {' and '.join(rights)}" if rights else ""


# --- Mermaid --------------------------------------------------------------------------------------

#: What stands for itself in Mermaid's text; all else is written by its number.
_SPECIAL = re.compile(r"[^A-Za-z0-9 _.,/()@*-]")


def _text(words: str) -> str:
    """Return words that Mermaid shows as they are, and that begin and end nothing of its own."""
    if len(words) > _LONGEST:
        words = "…" + words[-(_LONGEST - 1) :]
    coded = _SPECIAL.sub(lambda match: f"#{ord(match[0])};", escape(words).replace("\\\\", "\\"))
    if coded.strip().lower() in ("end", ""):  # which would end a block, or be nothing
        return f"({coded.strip()})"
    return coded


def _lines(messages: list[_Message], left_out: int) -> Iterator[str]:
    lanes = _Lanes(messages)
    yield "sequenceDiagram"
    yield "    autonumber"
    for lane, title in lanes.titles():
        yield f"    participant {lane} as {_text(title)}"
    for message in messages:
        yield "    " + _arrow(message, lanes)
    if left_out:
        are = "is" if left_out == 1 else "are"
        yield f"    Note over {lanes.first}: {left_out} more {are} not shown"


class _Lanes:
    """The parties in the order of their first word, and what of requests and replies is shown."""

    def __init__(self, messages: list[_Message]) -> None:
        self._lanes: dict[tuple[int, str], str] = {}
        self.requests = {message.transfer: message for message in messages if message.transfer}
        self.answered: set[int] = set()
        for message in messages:
            self.of(message.sender)
            self.of(self.other(message))
            request = self.requests.get(message.answers)
            if request is not None and request.receiver == message.sender and not message.refused:
                self.answered.add(message.answers)

    @staticmethod
    def other(message: _Message) -> tuple[int, str]:
        """Who it is for; where nobody knows, the port."""
        if message.note:
            return message.sender
        return message.receiver or (-message.port, f"a port labelled {message.label}")

    def of(self, party: tuple[int, str]) -> str:
        return self._lanes.setdefault(party, f"T{len(self._lanes) + 1}")

    @property
    def first(self) -> str:
        return next(iter(self._lanes.values()), "T1")

    def titles(self) -> Iterator[tuple[str, str]]:
        names = [name for _, name in self._lanes]
        for (number, name), lane in self._lanes.items():
            yield lane, f"{name} ({number})" if names.count(name) > 1 and number > 0 else name
        if not names:
            yield "T1", "nobody"


def _arrow(message: _Message, lanes: _Lanes) -> str:
    sender, other = lanes.of(message.sender), lanes.of(lanes.other(message))
    request = lanes.requests.get(message.answers)
    said = f"reply to {request.text.partition(',')[0]}" if request is not None else message.text
    if message.refused:
        between = " " if message.refused == "refused" else ", "
        told = f"{said}{between}{message.refused}"
        said = message.refused if message.refused.startswith(said) else told
    if message.note:
        return f"Note over {sender}: {_text(said)}"
    if message.refused:
        return f"{sender}-x{other}: {_text(said)}"
    if message.answers in lanes.answered:
        return f"{sender}-->>-{other}: {_text(said)}"
    opens = "+" if message.transfer in lanes.answered else ""
    line = "-->>" if message.answers else "->>"
    return f"{sender}{line}{opens}{other}: {_text(said)}"
