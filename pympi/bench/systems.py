# SPDX-License-Identifier: BSD-2-Clause
"""A kernel with tasks and ports as a setting says; settings are what the tables of cases hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from .. import Kernel, ReceiveRight, SendRight, Task
from ..enums import CLASSES, ObjectClass
from ..mig import Interface
from ..policy import MLS, Decision, PolicyModule, Stub, TypeEnforcement, sepol
from .harness import Skip

BASE = 1000
"""The msgh_id of the first routine of an interface."""
TYPES, MANY_TYPES = 1024, 10_240
"""Types of the te policies: how many labels they have."""
COMPARTMENTS = 256
QLIMIT = 256


ALLOWED = Decision()


@dataclass(frozen=True)
class Setting:
    """What a side of a case runs in, and how.

    Attributes:
        stack: of policies, of `STACKS`.
        senders: tasks that send, in turn, each with a label of its own.
        sender_labels: of these, if fewer; 0: one each.
        ports: to which is sent, at random where there are many.
        labels: of the ports.
        avc: decisions that the cache holds; 0: as many as by default.
        audit: what is recorded, of `AUDIT`.
        trace: whether ipctrace counts.
        size: bytes of a body.
        rights: that a body carries.
        interface: whether the port has one, so that each message is a routine that is asked about.
        through: how messages are sent and received, of `loops.LOOPS`.
    """

    stack: str = "none"
    senders: int = 1
    sender_labels: int = 0
    ports: int = 1
    labels: int = 1
    avc: int = 0
    audit: str = "nothing"
    trace: bool = False
    size: int = 64
    rights: int = 0
    interface: bool = False
    through: str = "callables"


class Own(PolicyModule):
    """A policy as users write them in Python, which no table in the core can stand for."""

    name = "own"

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Allow everything."""
        return ALLOWED


class Uncached(Own):
    """The same, whose answers may not be kept: it is asked about each operation."""

    name = "python"
    uncached = True


@cache
def cil(types: int = TYPES) -> str:
    """Return a policy for te with so many types: everybody may do what messages need."""
    permissions = " ".join(CLASSES["mach_port"].permissions)
    return "\n".join([
        "(handleunknown allow)(typeattribute anybody)(user user_u)(role user_r)",
        "(userrole user_u user_r)(roletype user_r anybody)",
        *(f"(type t{number})(typeattributeset anybody (t{number}))" for number in range(types)),
        f"(allow anybody anybody (mach_port ({permissions})))",
    ])  # fmt: skip


def enforcement(backend: str = "python", types: int = TYPES) -> TypeEnforcement:
    """Return te with that policy.

    Raises:
        Skip: this build has no such backend.
    """
    if backend == "libsepol" and not sepol.AVAILABLE:
        raise Skip("pympi was built without libsepol")
    return TypeEnforcement.from_text(cil(types), backend=backend)


def te_label(number: int, types: int = TYPES) -> str:
    """Return the label of a task or port, by its number."""
    return f"te/user_u:user_r:t{number % types}"


def mls_label(number: int) -> str:
    """Return the same of mls; the first, the receiver's and its ports', reads all the others."""
    if not number:
        return "mls/equal"
    return f"mls/{1 + number // COMPARTMENTS}:{1 + number % COMPARTMENTS}"


class Stack(NamedTuple):
    """Policies that are in force together.

    Attributes:
        what: they are, in words.
        modules: makes them.
        label: of the receiver and the first port (0), of other ports and senders, by number.
        one: all ports have the first label.
    """

    what: str
    modules: Callable[[], list[PolicyModule]]
    label: Callable[[int], str | None]
    one: bool = False


STACKS = {
    "none": Stack("no policy", list, lambda number: None),
    "stub": Stack("stub, no opinion", lambda: [Stub()], lambda number: f"stub/l{number}"),
    "te": Stack("te", lambda: [enforcement()], te_label),
    "te-many": Stack(
        f"te, {MANY_TYPES:,} types", lambda: [enforcement(types=MANY_TYPES)],
        lambda number: te_label(number, MANY_TYPES),
    ),
    "mls": Stack("mls", lambda: [MLS()], mls_label, one=True),
    "te+mls": Stack(
        "te and mls", lambda: [enforcement(), MLS()],
        lambda number: f"{te_label(number)},{mls_label(number)}", one=True,
    ),
    "te-libsepol": Stack("te on libsepol", lambda: [enforcement("libsepol")], te_label),
    "own": Stack("a policy in Python, cached", lambda: [Own()], lambda number: f"own/l{number}"),
    "python": Stack(
        "a policy in Python, not cached", lambda: [Uncached()], lambda number: f"python/l{number}"
    ),
}  # fmt: skip

AUDIT: dict[str, Callable[[Any], object]] = {
    "nothing": lambda audit: audit.select("none"),
    "denials": lambda audit: audit.only_denials(),
    "other": lambda audit: audit.select("all", labels="stub/nobody*"),
    "everything": lambda audit: audit.everything(),
}
"""What is recorded: nothing; what is by default, and does not happen; of labels that nobody has."""


OBJECTS = {"task": "tasks", "name": "names", "port": "ports", "label": "labels"}
"""Whose memory `Kernel.stats` tells: one, and all of them."""


class System:
    """A kernel, a task that receives, and tasks that send to its ports.

    Attributes:
        kernel, receiver, senders: these.
        inboxes: the receiver's ports.
        outlets: send rights of the senders, so many that each port and each sender has one.
        setting: as given.
    """

    def __init__(self, setting: Setting) -> None:
        stack = STACKS[setting.stack]
        self.setting, self._stack = setting, stack
        self.kernel = Kernel(policies=stack.modules(), avc_entries=setting.avc)
        self.receiver = self.kernel.create_task("receiver", stack.label(0))
        self.senders = [self._sender(number) for number in range(setting.senders)]
        self.inboxes = [self._port(number) for number in range(setting.ports)]
        self.outlets = [
            self.inboxes[number % setting.ports].make_send(self.senders[number % setting.senders])
            for number in range(max(setting.ports, setting.senders))
        ]
        self._finish()

    def _sender(self, number: int) -> Task:
        labels = self.setting.sender_labels or self.setting.senders
        return self.kernel.create_task("sender", self._stack.label(1 + number % labels))

    def _port(self, number: int) -> ReceiveRight:
        label = 0 if self._stack.one else number % self.setting.labels
        return self.receiver.allocate_port(self._stack.label(label), qlimit=QLIMIT)

    def _finish(self) -> None:
        if self.setting.interface:
            self.inbox.serve(Interface("bench", BASE, ["work"]))
        AUDIT[self.setting.audit](self.kernel.audit)
        if self.setting.trace:
            self.kernel.trace.start()

    @property
    def inbox(self) -> ReceiveRight:
        """The first port."""
        return self.inboxes[0]

    @property
    def sender(self) -> Task:
        """The first task that sends."""
        return self.senders[0]

    @property
    def outlet(self) -> SendRight:
        """The first task's send right to the first port."""
        return self.outlets[0]

    def to_first(self) -> Sequence[SendRight]:
        """Return send rights to the first port, one of each sender."""
        return [self.outlet, *(self.inbox.make_send(task) for task in self.senders[1:])]

    def counts(self) -> dict[str, int]:
        """Return what the checks came to so far; what a hint answers is in none of them."""
        stats = self.kernel.stats()
        return {"avc": stats["checks_avc"], "misses": stats["misses"]}

    def sizes(self) -> dict[str, float]:
        """Return the bytes that the kernel has for each of its objects, and how many labels."""
        stats = self.kernel.stats()
        counts = {**stats, "labels": stats["sids"]}
        of_each = {
            f"bytes/{each}": stats[f"memory_{kind}"] / counts[kind]
            for each, kind in OBJECTS.items()
        }
        return {**of_each, "bytes": stats["memory"], "labels": stats["sids"]}
