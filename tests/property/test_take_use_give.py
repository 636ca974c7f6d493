# SPDX-License-Identifier: BSD-2-Clause
"""Take, use and give are independent for each kind of right (DTOS; SEDarwin's hold_* permissions).

A task that may take and give but not use is a courier or a proxy; one that may take and use but
not give is a dead end. All eight states of each kind are tried, with rights that travel in messages
and by kernel calls. In each state each of the three is done or refused for its own sake alone.
"""

import itertools
import struct
from typing import Any, NamedTuple

import pytest
from faults.world import (
    COPY_SEND,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    RECEIVE,
    SEND,
    message,
    outcome,
    port,
)
from property.refusals import GIVE, TAKE, Refuse

from pympi import Kernel, Task, mach


class Kind(NamedTuple):
    """A kind of right: how its owner makes it, the courier uses it, and passes it on."""

    made: int
    passed: int
    use: str


KINDS = {
    "send by copy": Kind(MAKE_SEND, COPY_SEND, "send"),
    "send by move": Kind(MAKE_SEND, MOVE_SEND, "send"),
    "send once": Kind(MAKE_SEND_ONCE, MOVE_SEND_ONCE, "send"),
    "receive": Kind(MOVE_RECEIVE, MOVE_RECEIVE, "use_recv"),
}
STATES = list(itertools.product([False, True], repeat=3))
BODY_ERROR = "MACH_RCV_BODY_ERROR|MACH_MSG_IPC_SPACE"


class Route:
    """An owner, a courier, and who it is for; a port "thing" whose right goes that way.

    Attributes:
        inboxes: of courier and goal, to which the one before has send rights.
    """

    def __init__(self, kind: Kind, take: bool, use: bool, give: bool) -> None:
        self.kind = kind
        self.policy = Refuse()
        self.kernel = kernel = Kernel(policies=[self.policy])
        self.owner, self.courier, self.goal = (
            kernel.create_task(name, f"who/{name}") for name in ("owner", "courier", "goal")
        )
        self.to_courier, self.from_owner = self.road(self.owner, self.courier)
        self.to_goal, self.from_courier = self.road(self.courier, self.goal)
        self.thing = self.owner.allocate_port("who/thing").name
        self.back = mach.mach_port_extract_right(self.owner, self.thing, MAKE_SEND)[0]
        refused = [
            *([] if take else [TAKE[kind.made]]),
            *([] if use else [kind.use]),
            *([] if give else [GIVE[kind.passed]]),
        ]
        self.policy.refused = {("courier", "thing", "mach_port", p) for p in refused}
        kernel.policies.permissive = False

    def __enter__(self) -> "Route":
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.verify()
        self.kernel.close()

    def road(self, sender: Task, receiver: Task) -> tuple[int, int]:
        inbox = receiver.allocate_port("who/road")
        return inbox.make_send(sender).name, inbox.name

    # ---- by messages ----

    def carry(self, sender: Task, way: int, name: int, how: int) -> str:
        raw = message(way, descriptors=(port(name, how),))
        return outcome(lambda: mach.mach_msg(sender, raw, SEND))

    def arrive(self, receiver: Task, inbox: int) -> tuple[str, int]:
        code, got = mach.mach_msg(receiver, b"", RECEIVE, 200, inbox)
        name = struct.unpack_from("=I", got, 28)[0] if len(got) > 28 else 0
        return outcome(lambda: (code, got)), name

    def take_by_message(self) -> tuple[bool, int]:
        assert self.carry(self.owner, self.to_courier, self.thing, self.kind.made) == "KERN_SUCCESS"
        code, name = self.arrive(self.courier, self.from_owner)
        assert code == ("KERN_SUCCESS" if name else BODY_ERROR)
        return bool(name), name

    def give_by_message(self, name: int) -> bool:
        code = self.carry(self.courier, self.to_goal, name, self.kind.passed)
        assert code in ("KERN_SUCCESS", "MACH_SEND_INVALID_RIGHT")
        if code != "KERN_SUCCESS":
            return False
        arrived, got = self.arrive(self.goal, self.from_courier)
        assert (arrived, got != 0) == ("KERN_SUCCESS", True)
        return True

    # ---- by kernel calls ----

    def hand_over(self, giver: Task, name: int, how: int, taker: Task) -> tuple[str, int]:
        made: list[Any] = []
        right = giver.receive_right(name)
        code = outcome(lambda: made.append(right._give(how, taker)))  # type: ignore[arg-type]
        return code, made[0].name if made else 0

    def take_by_call(self) -> tuple[bool, int]:
        code, name = self.hand_over(self.owner, self.thing, self.kind.made, self.courier)
        assert code == ("KERN_SUCCESS" if name else "KERN_NO_ACCESS")
        return bool(name), name

    def give_by_call(self, name: int) -> bool:
        code, got = self.hand_over(self.courier, name, self.kind.passed, self.goal)
        assert code == ("KERN_SUCCESS" if got else "KERN_NO_ACCESS")
        return bool(got)

    # ---- use ----

    def use(self, name: int) -> bool:
        """Use the right once; a send-once right is gone then."""
        if self.kind.use == "use_recv":
            self.owner.send(self.back, b"", timeout=0)
            code = outcome(lambda: mach.mach_msg(self.courier, b"", RECEIVE, 100, name))
            assert code in ("KERN_SUCCESS", "MACH_RCV_INVALID_NAME")
        else:
            code = outcome(lambda: self.courier.send(name, b"", timeout=0))
            assert code in ("KERN_SUCCESS", "MACH_SEND_INVALID_DEST")
        return code == "KERN_SUCCESS"

    def may_give_when_sending(self) -> bool:
        """Sending asks the destination's disposition to be given as well."""
        gives = {GIVE[COPY_SEND], GIVE[MOVE_SEND_ONCE]} & {p for *_, p in self.policy.refused}
        return not gives


@pytest.mark.parametrize("way", ["message", "call"])
@pytest.mark.parametrize("state", STATES, ids=lambda s: "".join("-+"[on] for on in s))
@pytest.mark.parametrize("kind", KINDS)
def test_all_states(kind: str, state: tuple[bool, bool, bool], way: str) -> None:
    """What a courier may take, use and give is what it can, each for itself."""
    take, use, give = state
    with Route(KINDS[kind], *state) as route:
        taken, name = getattr(route, f"take_by_{way}")()
        assert taken == take
        if not taken:
            return
        if kind != "send once":
            sends = kind != "receive"
            assert route.use(name) == (use and (not sends or route.may_give_when_sending()))
        assert getattr(route, f"give_by_{way}")(name) == give
        if kind == "send once" and not give:
            assert route.use(name) is False


@pytest.mark.parametrize("use", [False, True])
def test_a_send_once_right_is_used_if_it_may_be(use: bool) -> None:
    """Its use moves it, so both are asked."""
    with Route(KINDS["send once"], True, use, True) as route:
        _, name = route.take_by_message()
        assert route.use(name) == use
        assert (name in route.courier.names()) != use


@pytest.mark.parametrize("way", ["message", "call"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_its_owner_may_not_give_stays(kind: str, way: str) -> None:
    """The other end: what its owner may not give stays there, whoever may take it."""
    with Route(KINDS[kind], True, True, True) as route:
        made = KINDS[kind].made
        route.policy.refused = {("owner", "thing", "mach_port", GIVE[made])}
        route.kernel.policies.permissive = False
        if way == "message":
            code = route.carry(route.owner, route.to_courier, route.thing, made)
            assert code == "MACH_SEND_INVALID_RIGHT"
        else:
            code, _ = route.hand_over(route.owner, route.thing, made, route.courier)
            assert code == "KERN_NO_ACCESS"
        assert mach.mach_port_type(route.owner, route.thing) & mach.MACH_PORT_TYPE_RECEIVE


@pytest.mark.parametrize("kind", ["send by move", "send once", "receive"])
def test_a_courier_delivers_what_it_cannot_use(kind: str) -> None:
    """From end to end: who it is for can use what its bearer could not."""
    with Route(KINDS[kind], True, False, True) as route:
        _, name = route.take_by_message()
        if kind != "send once":
            assert route.use(name) is False
        raw = message(route.to_goal, descriptors=(port(name, KINDS[kind].passed),))
        assert mach.mach_msg(route.courier, raw, SEND)[0] == 0
        code, delivered = route.arrive(route.goal, route.from_courier)
        assert code == "KERN_SUCCESS"
        assert name not in route.courier.names()
        if kind == "receive":
            assert route.goal.receive(delivered, timeout=0).body == b""
        else:
            route.goal.send(delivered, b"used", timeout=0)
            assert route.owner.receive(route.thing, timeout=0).body == b"used"
