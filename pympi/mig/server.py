# SPDX-License-Identifier: BSD-2-Clause
"""The server's side: from messages to functions, and back.

What a client sent is read to its last byte before anything is done with it. A message that is not
laid out as its routine says, or that access control keeps from the routine, is answered with a code
and destroyed with all that it brought.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import MachError
from ..message import Message
from .codes import KERN_FAILURE, KERN_NO_ACCESS, MIG_BAD_ARGUMENTS, MIG_BAD_ID, MIG_NO_REPLY
from .routine import RETCODE, Routine, reply_id, write
from .types import LayoutError, Packet, Parcel

if TYPE_CHECKING:
    from .interface import Interface

__all__ = ["Server"]

_log = logging.getLogger("pympi.mig")

_REPLY_KINDS = ("replyport", "sreplyport")
_MOVES = ("MOVE_SEND", "MOVE_SEND_ONCE", "MOVE_RECEIVE")


class Server:
    """A callable that takes messages: `server(port.receive())`, or `task.create_handler(server)`.

    The function of a routine is called with the `Message` and the arguments that MIG's would get
    but the request port, which is `message.port`. It returns None, the value that goes back, or a
    tuple of them. Where it succeeds, the rights and the memory it got are its own; where it raises,
    they are destroyed, and the client gets the code of the `MachError`, or KERN_FAILURE.

    The function of an untyped routine gets the message alone. Bytes that it returns are answered;
    if it returns None, answering is its own business.

    Attributes:
        interface (Interface): whose routines these are.
        counts (Mapping[str, int]): of messages: "served", "bad_id", "bad_arguments", "refused" (no
            access, or a method of another interface, which the port serves), "failed" (the function
            raised, or returned what does not fit), "unanswered" (the client did not take the
            answer), "deferred" (MIG_NO_REPLY: to be answered later).
    """

    def __init__(
        self, interface: Interface, implementation: Any, *,
        otherwise: Callable[[Message], object] | None = None, partial: bool = False,
    ) -> None:  # fmt: skip
        self.interface = interface
        self._otherwise = otherwise
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._functions = _functions(interface, implementation)
        self._methods = dict(enumerate(_methods(interface), interface.base))
        missing = [r.name for n, r in interface.numbered() if n not in self._functions]
        if missing and not partial:
            raise TypeError(f"{implementation!r} has no function for: {', '.join(missing)}")

    def __repr__(self) -> str:
        return f"<Server of {self.interface!r}>"

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of the messages."""
        with self._lock:
            return dict(self._counts)

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    # ---- a request ----

    def __call__(self, message: Message) -> bool:
        """Serve a message; return whether its number was one of the interface's.

        One of another number is given to `otherwise`, or else answered with MIG_BAD_ID.
        """
        routine, function = self._functions.get(message.msgh_id, (None, None))
        if routine is not None and function is not None:
            self._serve(routine, function, message)
            return True
        if self._otherwise is not None:
            self._otherwise(message)
        else:
            self._refuse(message, MIG_BAD_ID, "bad_id")
        return False

    def _serve(self, routine: Routine, function: Any, message: Message) -> None:
        values = _read(routine, message)
        if values is None:
            self._refuse(message, MIG_BAD_ARGUMENTS, "bad_arguments", routine)
        elif not self._permitted(routine, message):
            values.clear()
            self._refuse(message, KERN_NO_ACCESS, "refused", routine)
        else:
            code = self._run(routine, function, message, values)
            values.clear()
            if code not in (0, MIG_NO_REPLY):
                self._refuse(message, code, "failed", routine)

    def _permitted(self, routine: Routine, message: Message) -> bool:
        """Whether what the kernel found out about the message lets it come to this routine.

        What it was asked about is a method of the port's interface, which need not be this one.
        """
        if message.asked not in (None, self._methods[message.msgh_id]):
            return False
        return bool(message.method) or not routine.protected

    def _run(self, routine: Routine, function: Any, message: Message, values: list[Any]) -> int:
        """Call the function and send what it answers; return the code if it failed."""
        try:
            result = function(message, *values)
            if routine.typed or result is not None:
                self.answer(message, result)
            self._count("served")
        except MachError as error:
            if error.code == MIG_NO_REPLY:
                self._count("deferred")
            else:
                _log.info("%s: %s", routine.name, error)
            return error.code or KERN_FAILURE
        except Exception:
            _log.exception("%s failed", routine.name)
            return KERN_FAILURE
        return 0

    # ---- answers ----

    def answer(self, message: Message, result: Any = None) -> None:
        """Answer a request: for a function that raised MIG_NO_REPLY, whenever it is ready.

        Args:
            message: the request.
            result: what the function would have returned.

        Raises:
            TypeError, ValueError: it does not fit the routine; nothing was answered.
        """
        routine, _ = self._functions[message.msgh_id]
        packet = Packet()
        if routine.typed:
            _write_results(routine, packet, result)
            body = packet.inline()
        else:
            body = bytes(memoryview(result)) if result is not None else b""
        if not routine.simple:
            self._send(message, body, packet)
        elif not any(argument.kind in _REPLY_KINDS for argument in routine.arguments or ()):
            _drop_reply(message)

    def fail(self, message: Message, code: int = KERN_FAILURE) -> None:
        """Answer a request with a code, and destroy it with all that it brought."""
        packet = Packet()
        packet.put(RETCODE.pack((code + (1 << 31)) % (1 << 32) - (1 << 31)))
        self._send(message, packet.inline(), packet)
        self._destroy(message)

    def _destroy(self, message: Message) -> None:
        try:
            message.close()
        except BufferError:
            _log.warning("%r: its memory is in use; it is freed when that ends", message)

    def _refuse(
        self, message: Message, code: int, what: str, routine: Routine | None = None
    ) -> None:
        self._count(what)
        if routine is not None and routine.simple:
            self._destroy(message)
        else:
            self.fail(message, code)

    def _send(self, message: Message, body: bytes, packet: Packet) -> None:
        """Send an answer, if anybody wants it. Nobody can make the server wait."""
        if message.reply_right is None:
            _let_go(packet)
            return
        try:
            number = reply_id(message.msgh_id)
            message.reply(body, number, rights=packet.rights, memory=packet.memory, timeout=0)
        except MachError as error:
            _log.info("an answer to %r was not taken: %s", message, error)
            self._count("unanswered")
            _let_go(packet)
            _drop_reply(message)


def _methods(interface: Interface) -> Iterator[tuple[str, str]]:
    """Yield class and permission of each number."""
    for tclass, routines in interface.classes().items():
        for name in routines:
            yield tclass, name


def _functions(interface: Interface, implementation: Any) -> dict[int, tuple[Routine, Any]]:
    """Return routines and functions by number; a function may have the server's prefix.

    What Python calls itself is no function, whatever a `.defs` file puts together.
    """
    found = {}
    for number, routine in interface.numbered():
        for name in (routine.name, interface.server_prefix + routine.name):
            if isinstance(implementation, Mapping):
                function = implementation.get(name)
            else:
                function = getattr(implementation, name, None)
            if callable(function) and not name.startswith("__"):
                found[number] = (routine, function)
                break
    return found


def _read(routine: Routine, message: Message) -> list[Any] | None:
    """Return the arguments of a routine's function; None where the message is not laid out so."""
    if not routine.typed:
        return []
    try:
        parcel = Parcel(message)
        values = {argument.name: argument.type.take(parcel) for argument in routine.request}
        parcel.finish()
    except LayoutError as error:
        _log.info("%s: %s", routine.name, error)
        return None
    return [
        found(message) if (found := argument.means.from_message) else values[argument.name]
        for argument in routine.served
    ]


def _write_results(routine: Routine, packet: Packet, result: Any) -> None:
    """Write what a function returned; a code comes first where nothing is described."""
    values = [result] if len(routine.reply) == 1 else list(() if result is None else result)
    if len(values) != len(routine.reply):
        names = ", ".join(argument.name for argument in routine.reply) or "None"
        raise TypeError(f"{routine.name} returns {names}, not {result!r}")
    if not any(argument.type.described for argument in routine.reply):
        packet.put(RETCODE.pack(0))
    write(routine, packet, routine.reply, values)


def _let_go(packet: Packet) -> None:
    """Close the rights that an answer would have moved."""
    for carried in packet.rights:
        if carried is not None and carried.disposition.name in _MOVES:
            carried.right.close()


def _drop_reply(message: Message) -> None:
    right = message.reply_right
    if right is not None:
        right.close()
