# SPDX-License-Identifier: BSD-2-Clause
"""Who may do what to a name, and hold what it stands for; what is decided is recorded.

The kernel has decided about the routine (class `mi_bootstrap` on the port of the context) before a
request comes here. A name that a client may not see is to it as one that there is not: in look-up,
status and listing. A change that is refused is refused whether there is such a name or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import mach
from ..errors import InvalidName, MachError
from .labels import Labels
from .places import Context
from .protocol import Code, failure
from .registry import Registry
from .services import ACTIVE, Owner, Services, Terms, port_of, state_of, terms_of

if TYPE_CHECKING:
    from ..message import Message
    from ..port import Right
    from ..task import Task
    from .places import Server

__all__ = ["Access", "check_free"]

_PERMISSIONS = ("look_up", "register", "check_in", "create", "status", "list")
_HOLDS = ("hold_send", "hold_recv")


class Access:
    """What decides, per name, what the sender of a request may do, and records it."""

    def __init__(self, task: Task, registry: Registry, labels: Labels) -> None:
        self._task = task
        self._kernel = task.kernel
        self._registry = registry
        self._labels = labels
        self._note = task.kernel.audit.note
        self._may = {name: task.sender_checker("service", name) for name in _PERMISSIONS}
        self._may_hold = {name: task.sender_checker("mach_port", name) for name in _HOLDS}
        self._can_hold = {name: self._kernel.checker("mach_port", name) for name in _HOLDS}
        self._can_look_up = self._kernel.checker("service", "look_up")

    # ---- seeing ----

    def find(
        self, message: Message, context: Context, name: str, permission: str
    ) -> tuple[Services, int, Terms] | None:
        """Return the nearest service of a name that the sender may do this to, and its terms.

        One that it may not is passed over like one that is not there, and so is a reserved name,
        which has no port. Nothing is locked: this is what was true at one moment of the call.
        """
        may, number, refused = self._may[permission], self._note(name), False
        for place in context.chain():
            services = place.find(name, message)
            service, terms = self._read(services, name)
            port = port_of(service)
            if terms is None or not port:
                continue
            if may(message, terms.sid, number, self._task.port_id(port), 0):
                return services, service, terms
            refused = True
        if not refused:
            may(message, self._labels.of(context, name), number, 0, Code.UNKNOWN_SERVICE)
        return None

    def _read(self, services: Services, name: str) -> tuple[int, Terms | None]:
        """Return a service and its terms, which it may lose meanwhile; 0 and None if it is gone."""
        while service := services.get(name, 0):
            terms = self._registry.terms.get(terms_of(service))
            if terms is not None:
                return service, terms
        return 0, None

    def listed(
        self, message: Message, there: list[tuple[str, int, Terms]]
    ) -> Iterator[tuple[str, tuple[int, Terms]]]:
        """Yield what the sender may see listed, without what something nearer hides."""
        may, seen = self._may["list"], set[str]()
        for name, service, terms in there:
            if name in seen:
                continue
            port = self._task.port_id(port_of(service))
            if may(message, terms.sid, self._note(name), port, 0):
                seen.add(name)
                yield name, (service, terms)

    def sees(self, message: Message, context: Context, name: str) -> bool:
        """Tell, without a record, whether the sender could look a name up. Within a turn."""
        found = (place.find(name, message).get(name, 0) for place in context.chain())
        return any(
            port_of(service)
            and self._can_look_up(message.sender_sid, self._registry.terms_of(service).sid)
            for service in found
        )

    # ---- changing ----

    def decide(self, message: Message, context: Context, name: str, permission: str) -> None:
        """Decide about a change to a name, whether there is such a service or not.

        Raises:
            NotPrivileged: refused.
        """
        sid = self._labels.of(context, name)
        if not self._may[permission](message, sid, self._note(name), 0, 0):
            raise failure(Code.NOT_PRIVILEGED, name)

    def missing(self, message: Message, context: Context, name: str, permission: str) -> MachError:
        """Return how a change is answered for want of a service, as its refusal would be.

        That is recorded already, by `find`.
        """
        sid = self._labels.of(context, name)
        may = self._kernel.access(message.sender_sid, sid, "service", permission)
        return failure(Code.UNKNOWN_SERVICE if may else Code.NOT_PRIVILEGED, name)

    # ---- holding ----

    def may_hold(self, message: Message, right: Right, permission: str, name: str) -> bool:
        """Tell whether the sender could take a right; if not, that is recorded."""
        if not len(self._kernel.policies):
            return True
        try:
            sid = right.sid
        except InvalidName:  # it is gone meanwhile: whoever goes on finds that out
            return True
        if self._can_hold[permission](message.sender_sid, sid):
            return True
        number, code = self._note(name), mach.KERN_NO_ACCESS
        return self._may_hold[permission](message, sid, number, right.port_id, code)


def check_free(service: int, terms: Terms, server: Server | None, owner: Owner) -> None:
    """Check that a name may be taken by somebody.

    Raises:
        BootstrapError: it is another's, or served.
    """
    if terms.server is not None and terms.server is not server:
        raise failure(Code.NOT_PRIVILEGED)
    if state_of(service) in ACTIVE:
        raise failure(Code.SERVICE_ACTIVE)
    if terms.owner not in (None, owner):
        raise failure(Code.NOT_PRIVILEGED)
