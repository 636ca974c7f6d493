# SPDX-License-Identifier: BSD-2-Clause
"""How a request gets to its routine, and the answer back.

MIG reads and writes most of them. Look-ups, of which there are more than of all others, get by
without its general form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MachError
from .notices import Notices
from .protocol import BOOTSTRAP, LOOK_UP, LOOK_UP_ANSWER, NAME_ROOM, NDR
from .routines import Routines

if TYPE_CHECKING:
    from ..message import Message

__all__ = ["Requests"]

_LOOK_UP_SIZE = len(NDR) + NAME_ROOM


class Requests:
    """The handler of the ports where clients ask."""

    def __init__(self, routines: Routines, notices: Notices) -> None:
        self._protocol = BOOTSTRAP.server(routines)
        self._look_up = routines.bootstrap_look_up
        self._notices = notices

    def handle(self, message: Message) -> None:
        """Serve a request, or what the kernel tells of the port."""
        if message.sender_task == 0:
            self._notices.no_senders(message)
        elif message.msgh_id != LOOK_UP or not self._look_up_at_once(message):
            self._protocol(message)

    def _look_up_at_once(self, message: Message) -> bool:
        """Serve a look-up that is laid out as it should be; what else is not ours."""
        body = message.body
        text, nul, _ = body[len(NDR) :].partition(b"\0")
        plain = nul and len(body) == _LOOK_UP_SIZE and body.startswith(NDR)
        if not plain or message.carried_rights or message.carried_memory or not message.reply_name:
            return False
        try:
            self._answer_look_up(message, text.decode())
        except MachError as error:
            self._protocol.fail(message, error.code)
        except UnicodeDecodeError:
            return False
        return True

    def _answer_look_up(self, message: Message, name: str) -> None:
        tried, carried = None, self._look_up(message, name)
        while carried != tried:
            try:
                message.reply(b"", LOOK_UP_ANSWER, rights=[carried], timeout=0)
                return
            except MachError:  # perhaps the service is another by now
                tried, carried = carried, self._look_up(message, name)
        message.close()  # it is there as before, and nobody wants the answer any more
