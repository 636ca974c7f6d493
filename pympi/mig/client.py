# SPDX-License-Identifier: BSD-2-Clause
"""The client's side: an object with a method for each routine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..enums import Notification
from ..message import Message
from ..port import ReceiveRight, SendOnceRight, SendRight
from .codes import MIG_REPLY_MISMATCH, MIG_SERVER_DIED, MIG_TYPE_ERROR, MigError
from .routine import RETCODE, Routine, reply_id, write
from .types import LayoutError, Packet, Parcel

if TYPE_CHECKING:
    from .interface import Interface

__all__ = ["Client", "Method", "TypedMethod"]

_ERROR_SIZE = 12  # of mig_reply_error_t less its header: NDR record and RetCode
_MS = 1000


class Method:
    """A routine of a port. Calling it sends the request; `call` waits for the answer as well."""

    __slots__ = ("_right", "msgh_id")

    def __init__(self, right: SendRight | SendOnceRight, msgh_id: int) -> None:
        self._right = right
        self.msgh_id = msgh_id

    def __call__(self, body: Any = b"", **arguments: Any) -> Any:
        """Send the request; arguments as for `SendRight.send`."""
        self._right.send(body, self.msgh_id, **arguments)

    def call(self, body: Any = b"", **arguments: Any) -> Message:
        """Send the request and return the answer; arguments as for `SendRight.call`."""
        return self._right.call(body, self.msgh_id, **arguments)


class TypedMethod:
    """A routine whose arguments are known: a function of those that MIG's would have.

    A port is given as a right of the kind its type says, or as `right.copy_send()` and the like,
    and None is a null right. Octets are given as bytes, other arrays as sequences.

    Attributes:
        routine (Routine): what it is.
        msgh_id (int): its number.
    """

    __slots__ = ("_options", "_right", "msgh_id", "routine")

    def __init__(
        self, right: SendRight | SendOnceRight, msgh_id: int, routine: Routine,
        options: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._right = right
        self._options = options
        self.msgh_id = msgh_id
        self.routine = routine

    def __repr__(self) -> str:
        return f"<{self.routine!r} of {self._right!r}>"

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Make the call.

        Returns:
            None, the only argument that comes back, or a tuple of them.

        Raises:
            TypeError, ValueError: an argument is missing, or not of its type; nothing was sent.
            MigError: the code that the server answered, or MIG's own.
            PortDied: the server was destroyed, or the request without an answer.
            MachError: whatever `SendRight.call` raises.
        """
        values = self._bound(positional, named)
        packet = Packet()
        request = self.routine.request
        write(self.routine, packet, request, [values[a.name] for a in request])
        how = self._how(values)
        body, rights, memory = packet.inline(), packet.rights, packet.memory
        reply = how.pop("reply", None)
        if self.routine.simple:
            self._right.send(body, self.msgh_id, rights=rights, memory=memory, reply=reply, **how)
            return None
        if reply is None:
            answer = self._right.call(body, self.msgh_id, rights=rights, memory=memory, **how)
        else:
            self._right.send(body, self.msgh_id, rights=rights, memory=memory, reply=reply, **how)
            answer = _receiver(reply).receive(timeout=how.get("timeout"))
        return self.results(answer)

    def _bound(self, positional: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """Return arguments by name; those for a reply port may be left out."""
        names = [argument.name for argument in self.routine.given]
        values = dict(zip(names, positional, strict=False)) | named
        optional = {a.name: None for a in self.routine.given if a.kind in _OPTIONAL}
        wrong = set(names) ^ set(optional | values)
        twice = set(names[: len(positional)]) & set(named)
        if wrong or twice or len(positional) > len(names):
            raise TypeError(f"{self.routine.name} takes ({', '.join(names)})")
        return optional | values

    def _how(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return what the arguments that do not travel mean for `send`."""
        how = dict(self._options)
        for argument in self.routine.given:
            value = values[argument.name]
            if argument.kind == "waittime" and value is not None:
                how["timeout"] = value / _MS
            elif argument.kind == "msgoption" and value:
                raise ValueError(f"{argument.name}: there are no options to a message")
            elif argument.kind in ("replyport", "ureplyport") and value is not None:
                how["reply"] = value
        return how

    # ---- the answer ----

    def results(self, answer: Message) -> Any:
        """Return what an answer brought, for who made the call himself; as for calling this."""
        try:
            values = self._read(answer)
        except (MigError, LayoutError) as error:
            failure = error if isinstance(error, MigError) else self._error(MIG_TYPE_ERROR, error)
        else:
            return values[0] if len(values) == 1 else tuple(values) or None
        answer.close()
        raise failure

    def _error(self, code: int, what: object = "") -> MigError:
        return MigError(code, f"{self.routine.name}: {what}" if what else self.routine.name)

    def _read(self, answer: Message) -> list[Any]:
        """Return the values in an answer, or raise what it means."""
        if answer.notification is Notification.SEND_ONCE:
            raise self._error(MIG_SERVER_DIED)
        if answer.msgh_id != reply_id(self.msgh_id):
            raise self._error(MIG_REPLY_MISMATCH, answer.msgh_id)
        described = any(argument.type.described for argument in self.routine.reply)
        parcel = Parcel(answer)
        if not described or self._is_error(answer):
            code = RETCODE.take(parcel)
            if code:
                raise self._error(code)
        values = {argument.name: argument.type.take(parcel) for argument in self.routine.reply}
        parcel.finish()
        return [
            found(answer) if (found := argument.means.from_message) else values[argument.name]
            for argument in self.routine.returned
        ]

    def _is_error(self, answer: Message) -> bool:
        """Whether an answer that should bring descriptors brings a code: it has no other place."""
        bare = not answer.carried_rights and not answer.carried_memory
        return bare and len(answer.body) == _ERROR_SIZE and any(answer.body[-4:])


_OPTIONAL = ("replyport", "ureplyport", "waittime", "msgoption")


def _receiver(reply: Any) -> ReceiveRight:
    port = reply if isinstance(reply, ReceiveRight) else reply.right
    if not isinstance(port, ReceiveRight):
        raise TypeError(f"an answer is received by a receive right, not by {port!r}")
    return port


class Client:
    """The routines of an interface, as methods of this object."""

    def __init__(
        self, interface: Interface, right: SendRight | SendOnceRight, options: Mapping[str, Any]
    ) -> None:
        for number, routine in interface.numbered():
            method = (
                TypedMethod(right, number, routine, options)
                if routine.typed
                else Method(right, number)
            )
            setattr(self, routine.name, method)
        self.__interface = interface

    def __getattr__(self, routine: str) -> Any:
        interface = self.__dict__.get("_Client__interface")
        known = ", ".join(r.name for _, r in interface.numbered()) if interface else ""
        raise AttributeError(f"{interface!r} has no routine {routine!r}; it has: {known}")
