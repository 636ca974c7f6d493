# SPDX-License-Identifier: BSD-2-Clause
"""Group N, attacks on the name server: names that are taken, guessed, faked or fought over."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from background import LONG, Run
from faults.names import NAME, books_kept, check_books, user
from faults.world import MOVE_SEND_ONCE, SEND, message, outcome

from pympi import Kernel, MachError, ReceiveRight, Task, mach
from pympi.bootstrap import (
    NotPrivileged,
    ServiceActive,
    ServiceContexts,
    State,
    Status,
    UnknownService,
    sentence,
)
from pympi.mig.types import NDR
from pympi.policy import Rules

kernel = pytest.fixture(books_kept)
owner, thief = user("owner", 1), user("thief", 2)


def request(name: str) -> bytes:
    return NDR + name.encode().ljust(128, b"\0")


# ---- names that are another's ----


def test_n1_register_over_an_existing_name(owner: Task, thief: Task) -> None:
    inbox = owner.allocate_port()
    owner.bootstrap.register(NAME, inbox)
    for given in (thief.allocate_port(), None):
        with pytest.raises(ServiceActive):
            thief.bootstrap.register(NAME, given)
    for ask in (thief.bootstrap.create_service, thief.bootstrap.check_in):
        with pytest.raises(MachError):
            ask(NAME)
    assert thief.bootstrap.look_up(NAME).port_id == inbox.port_id


def test_n2_register_a_parent_or_child_of_a_name(owner: Task, thief: Task) -> None:
    """Names have no parts: each is labelled, and found, as a whole."""
    inbox = owner.allocate_port()
    owner.bootstrap.register(NAME, inbox)
    for other in ("com.example", f"{NAME}.", f"{NAME}.x", f".{NAME}", f"{NAME}/..", f"{NAME} "):
        thief.bootstrap.register(other, thief.allocate_port())
    assert thief.bootstrap.look_up(NAME).port_id == inbox.port_id


def test_n2_patterns_keep_children_for_the_owner_of_the_parent() -> None:
    policy = "allow * * mach_port { * }; allow * * mi_bootstrap { * }; allow * * mach_task { * };"
    policy += " allow owner mine service { * }; allow thief others service { * };"
    contexts = ServiceContexts({NAME: "rules/mine", f"{NAME}.*": "rules/mine", "*": "rules/others"})
    with Kernel(policies=[Rules.from_text(policy)]) as kernel:
        kernel.start_bootstrap(label="rules/names", service_contexts=contexts)
        owner, thief = (kernel.create_task(who, f"rules/{who}") for who in ("owner", "thief"))
        for name in (NAME, f"{NAME}.x"):
            with pytest.raises(NotPrivileged):
                thief.bootstrap.register(name, thief.allocate_port())
            owner.bootstrap.register(name, owner.allocate_port())


def test_n3_register_with_a_right_one_does_not_receive_from(owner: Task, thief: Task) -> None:
    """A send right is enough, as in Mach: a name says where messages go, not whose they are.

    What a name promises is that of whoever may register it, which the policy decides by the name.
    The name is its registrant's for all that, and ends with the port.
    """
    inbox = owner.allocate_port()
    given = inbox.make_send(thief)
    thief.bootstrap.register(NAME, given)
    assert owner.bootstrap.look_up(NAME).port_id == inbox.port_id
    inbox.close()
    with pytest.raises(NotPrivileged):
        owner.bootstrap.register(NAME, owner.allocate_port())


def test_n3_register_without_a_send_right(owner: Task, thief: Task) -> None:
    """Neither a send-once right nor a receive right is taken for one; both are let go."""
    inbox = owner.allocate_port()
    once = inbox.make_send_once(thief)
    names = thief.kernel.bootstrap.task.names()
    for right in (once.move_send_once(), thief.allocate_port().move_receive()):
        thief.bootstrap.port.send(request(NAME), 403, rights=[right])
        assert thief.kernel.bootstrap.services() == []
    assert thief.kernel.bootstrap.task.names() == names
    assert inbox.receive(timeout=0).notification == mach.MACH_NOTIFY_SEND_ONCE


# ---- names that may not be seen ----

UNSEEN = """
allow * * mach_port { * }; allow * * mi_bootstrap { * }; allow * * mach_task { * };
allow owner * service { * }; allow thief open service { * };
"""


class Unseen:
    """A kernel where the thief may see "open" names and no others."""

    def __init__(self, kernel: Kernel) -> None:
        contexts = ServiceContexts({"open.*": "rules/open", "*": "rules/closed"})
        kernel.start_bootstrap(label="rules/names", service_contexts=contexts)
        self.kernel = kernel
        self.owner, self.thief = (kernel.create_task(n, f"rules/{n}") for n in ("owner", "thief"))
        self.owner.bootstrap.register("closed.there", self.owner.allocate_port())
        self.owner.bootstrap.create_service("closed.waits")
        self.owner.bootstrap.register("open.there", self.owner.allocate_port())


@pytest.fixture
def unseen() -> Iterator[Unseen]:
    with Kernel(policies=[Rules.from_text(UNSEEN)]) as kernel:
        yield Unseen(kernel)
        check_books(kernel.bootstrap)


def answers(task: Task, number: int, body: bytes) -> tuple[int, bytes, int]:
    """Return what comes back, to the last byte that the client can see."""
    answer = task.bootstrap.port.call(body, number)
    return answer.msgh_id, answer.body, len(answer.rights)


@pytest.mark.parametrize("routine", [402, 404, 407], ids=["check_in", "look_up", "status"])
def test_n4_denied_looks_as_absent(unseen: Unseen, routine: int) -> None:
    seen = {
        answers(unseen.thief, routine, request(name))
        for name in ("closed.there", "closed.waits", "closed.nowhere", "closed.there.too")
    }
    assert len(seen) == 1


def test_n4_denied_looks_as_absent_among_others(unseen: Unseen) -> None:
    found = unseen.thief.bootstrap.look_up_array(["closed.there", "open.there", "closed.nowhere"])
    assert [right is None for right in found] == [True, False, True]


def test_n4_changes_are_refused_alike(unseen: Unseen) -> None:
    bootstrap, port = unseen.thief.bootstrap, unseen.thief.allocate_port()
    changes: dict[str, Callable[[str], object]] = {
        "create": bootstrap.create_service,
        "register": lambda name: bootstrap.register(name, port),
        "remove": lambda name: bootstrap.register(name, None),
    }
    for what, change in changes.items():
        names = ("closed.there", "closed.waits", "closed.nowhere")
        assert {outcome(lambda n=n, c=change: c(n)) for n in names} == {  # type: ignore[misc]
            "BOOTSTRAP_NOT_PRIVILEGED"
        }, what


def test_n4_what_is_hidden_nearby_does_not_hide_what_is_above(unseen: Unseen) -> None:
    """A nearer service that may not be seen is passed over, as if it were not there."""
    names = unseen.kernel.bootstrap
    below = names.create_context(names.root)
    names.declare("open.waits", below)
    names.use_service_contexts(ServiceContexts({"open.there": "rules/open", "*": "rules/closed"}))
    names.give(unseen.thief, below)
    with pytest.raises(UnknownService):
        unseen.thief.bootstrap.look_up("open.waits")
    assert unseen.thief.bootstrap.look_up("open.there")


def test_n5_lists_hide_denied_names(unseen: Unseen) -> None:
    assert [info.name for info in unseen.thief.bootstrap.info()] == ["open.there"]
    raw = unseen.thief.bootstrap.port.call(b"", 408)
    assert not any(b"closed" in bytes(part) for part in raw.memory)
    assert len(unseen.owner.bootstrap.info()) == 3


# ---- the name server's own port ----


def test_n6_its_own_port_is_not_replaced(kernel: Kernel, owner: Task, thief: Task) -> None:
    root = kernel.bootstrap.root.port
    given = thief.bootstrap.port
    thief.bootstrap.register(NAME, given.copy_send())
    assert owner.bootstrap.port.port_id == root.port_id
    for number in (402, 403):  # its receive right is nobody's to take
        thief.bootstrap.port.send(request(NAME), number)
    for take in (
        lambda: mach.mach_port_mod_refs(thief, given.name, mach.MACH_PORT_RIGHT_RECEIVE, 1),
        lambda: thief.receive(given.name, timeout=0),
        lambda: kernel.bootstrap.task.receive(root.name, timeout=0),
    ):
        with pytest.raises(MachError):
            take()
    for service in kernel.bootstrap.services():
        kernel.bootstrap.forget(service)
    assert owner.bootstrap.info() == []


def test_n6_children_ask_where_their_parent_says(kernel: Kernel, thief: Task) -> None:
    """A task may put its own port between its children and the name server, and no others'."""
    fake = thief.allocate_port()
    thief.set_special_port(mach.TASK_BOOTSTRAP_PORT, fake.make_send(thief))  # type: ignore[arg-type]
    child = kernel.create_task("child", parent=thief)
    stranger = kernel.create_task("stranger")
    assert child.bootstrap.port.port_id == fake.port_id
    assert stranger.bootstrap.port.port_id == kernel.bootstrap.root.port.port_id


# ---- owners that die ----


def squat(task: Task) -> set[str]:
    """Try everything that could take the name; return what came of it."""
    bootstrap, inbox = task.bootstrap, task.allocate_port()
    ways: tuple[Callable[[], object], ...] = (
        lambda: bootstrap.register(NAME, inbox),
        lambda: bootstrap.register(NAME, None),
        lambda: bootstrap.create_service(NAME),
        lambda: bootstrap.check_in(NAME),
    )
    found = {outcome(way) for way in ways}
    inbox.close()
    return found


REFUSED = {
    "BOOTSTRAP_SERVICE_ACTIVE", "BOOTSTRAP_NOT_PRIVILEGED", "BOOTSTRAP_NAME_IN_USE",
    "BOOTSTRAP_UNKNOWN_SERVICE",
}  # fmt: skip


@pytest.mark.parametrize("end", ["terminate", "close"])
@pytest.mark.parametrize("kind", ["registered", "checked_in"])
def test_n7_an_owner_dies(kernel: Kernel, owner: Task, thief: Task, kind: str, end: str) -> None:
    if kind == "registered":
        inbox = owner.allocate_port()
        owner.bootstrap.register(NAME, inbox)
    else:
        kernel.bootstrap.declare(NAME)
        inbox = owner.bootstrap.check_in(NAME)
    owner.terminate() if end == "terminate" else inbox.close()
    assert squat(thief) <= REFUSED
    [service] = kernel.bootstrap.services()
    assert service.state is (State.RESERVED if kind == "registered" else State.DECLARED)
    again = kernel.create_task("again", uid=1)
    if kind == "registered":
        again.bootstrap.register(NAME, again.allocate_port())
    else:
        assert again.bootstrap.check_in(NAME)


class Siege:
    """One name, servers of it that die one after the other, and threads that use and want it."""

    def __init__(self, kernel: Kernel, kills: int) -> None:
        self.kernel = kernel
        self.kills = kills
        self.over = False
        self.taken: Counter[str] = Counter()
        self.sent = self.received = 0
        kernel.bootstrap.declare(NAME)
        self.port_id = kernel.bootstrap.services()[0].port_id

    def serve(self) -> None:
        """Check in, take some messages, die: with the right in hand, on its way, or closed."""
        for number in range(self.kills):
            server = self.kernel.create_task("server", uid=1)
            inbox = server.bootstrap.check_in(NAME)
            assert inbox.port_id == self.port_id
            self.received += sum(1 for _ in range(number % 4) if took(inbox))
            if number % 3 == 0:
                inbox.close()
            elif number % 3 == 1:
                inbox.move_receive(self.kernel.create_task("heir", uid=1)).task.terminate()
            server.terminate()
            if number % 50 == 0:
                self.kernel.verify()
        self.over = True

    def look_up(self) -> int:
        """Return how many messages were sent."""
        sent = 0
        client = self.kernel.create_task("client", uid=3)
        while not self.over:
            with client.bootstrap.look_up(NAME) as right:
                assert right.port_id == self.port_id
                sent += outcome(lambda: right.send(b"x", timeout=0)) == "KERN_SUCCESS"
            assert client.bootstrap.status(NAME) in (Status.ACTIVE, Status.INACTIVE)
            assert [info.name for info in client.bootstrap.info()] == [NAME]
        return sent

    def squat(self) -> None:
        task = self.kernel.create_task("thief", uid=2)
        while not self.over:
            self.taken.update(squat(task))
            if task.id % 7:
                task.terminate()
                task = self.kernel.create_task("thief", uid=2)

    def run(self) -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            first = self.kernel.create_task("server", uid=1)
            first.bootstrap.check_in(NAME).close()  # the name is uid 1's from here on
            senders = [Run(self.look_up), Run(self.look_up)]
            others = [Run(self.squat), Run(self.squat), served := Run(self.serve)]
            served.join(20 * LONG)
            self.over = True
            for other in others:
                other.result()
            self.sent = sum(sender.result() for sender in senders)
        finally:
            sys.setswitchinterval(interval)


def took(inbox: ReceiveRight) -> bool:
    return outcome(lambda: inbox.receive(timeout=0)) == "KERN_SUCCESS"


@pytest.mark.parametrize("kills", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_n7_servers_are_killed_under_load(kernel: Kernel, kills: int) -> None:
    siege = Siege(kernel, kills)
    siege.run()
    assert siege.taken.keys() <= REFUSED
    assert kernel.stats()["handler_failures"] == 0
    [service] = kernel.bootstrap.services()
    assert (service.state, service.port_id) == (State.DECLARED, siege.port_id)
    inbox = kernel.create_task("last", uid=1).bootstrap.check_in(NAME)
    left = sum(1 for _ in range(10) if took(inbox))
    assert siege.received + left == siege.sent  # and no message was lost


# ---- names that look alike, or are many ----


@pytest.mark.parametrize(
    "twin",
    [
        "com.example.caf\u0065\u0301",  # decomposed
        "com.example.\u200bcafé",  # zero width space
        "com.example.café\u202e",  # right to left
        "com.example.café\u00ad",  # soft hyphen
        "com.example.café\0x",
        "com.example.café\n",
        "com.example.\ufeffcafé",
    ],
)
def test_n8_twins_that_nobody_could_tell_apart(owner: Task, thief: Task, twin: str) -> None:
    owner.bootstrap.register("com.example.café", owner.allocate_port())
    for ask in (
        lambda: thief.bootstrap.register(twin, thief.allocate_port()),
        lambda: thief.bootstrap.create_service(twin),
    ):
        with pytest.raises((MachError, ValueError)):
            ask()
    assert len(thief.bootstrap.info()) == 1


def test_n8_case_and_look_alikes_are_other_names(owner: Task, thief: Task) -> None:
    """Names are compared as they are; which of these may be given is for the patterns to say."""
    inbox = owner.allocate_port()
    owner.bootstrap.register("com.example.a", inbox)
    for other in ("com.example.A", "com.example.\u0430", "COM.EXAMPLE.A"):
        with pytest.raises(UnknownService):
            thief.bootstrap.look_up(other)
        thief.bootstrap.register(other, thief.allocate_port())
    assert thief.bootstrap.look_up("com.example.a").port_id == inbox.port_id


def many(kernel: Kernel, count: int) -> None:
    for number in range(count):
        kernel.bootstrap.declare(f"com.example.service.{number:07}")
    client = kernel.create_task("client")
    ids = {
        s: client.bootstrap.look_up(f"com.example.service.{s:07}").port_id for s in (0, count - 1)
    }
    assert len(set(ids.values())) == 2
    with pytest.raises(UnknownService):
        client.bootstrap.look_up("com.example.service.x")
    assert outcome(client.bootstrap.info) == "BOOTSTRAP_NO_MEMORY"
    for service in kernel.bootstrap.services()[:1000]:
        kernel.bootstrap.forget(service)


def test_n9_many_names(kernel: Kernel) -> None:
    many(kernel, 20_000)


@pytest.mark.long
def test_n9_a_million_names(kernel: Kernel) -> None:
    many(kernel, 1_000_000)


# ---- answers that go to somebody else ----

HELD = """
allow * * mi_bootstrap { * }; allow * * service { * }; allow * * mach_task { * };
allow asker * mach_port { * }; allow names * mach_port { * };
allow other other mach_port { * }; allow other names mach_port { * };
"""


@pytest.mark.parametrize("routine", [402, 404], ids=["check_in", "look_up"])
def test_n10_answers_to_who_may_not_hold_them(routine: int) -> None:
    """The asker may, and sends its request with a reply right of another, who may not."""
    with Kernel(policies=[Rules.from_text(HELD)]) as kernel:
        names = kernel.start_bootstrap(label="rules/names", root_label="rules/names")
        asker, other = (kernel.create_task(n, f"rules/{n}") for n in ("asker", "other"))
        service = names.declare(NAME, label="rules/service")
        answers_at = other.allocate_port()
        reply = answers_at.make_send_once(asker)
        raw = message(
            asker.bootstrap.port.name, reply=reply.name, reply_type=MOVE_SEND_ONCE,
            msgh_id=routine, body=request(NAME),
        )  # fmt: skip
        assert mach.mach_msg(asker, raw, SEND)[0] == 0
        held = other.names()
        got = answers_at.receive(timeout=0)
        assert (got.rights, got.denied) == ([None], 1)
        assert other.names() == held
        assert service.state is State.DECLARED
        assert asker.bootstrap.look_up(NAME)
        check_books(names)


def test_n10_the_trail_shows_who_asked(unseen: Unseen) -> None:
    unseen.kernel.audit.drain()
    with pytest.raises(UnknownService):
        unseen.thief.bootstrap.look_up("closed.there")
    [line] = [sentence(record) for record in unseen.kernel.audit.batch(unseen.kernel.audit.drain())]
    assert 'thief (rules/thief) look_up "closed.there" (rules/closed): refused' in line
