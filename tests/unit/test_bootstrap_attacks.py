# SPDX-License-Identifier: BSD-2-Clause
"""The name server among clients, servers and embedders that do what they should not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from faults.names import NAME, books_kept, check_books, user
from faults.world import COPY_SEND, SEND, message, ool_ports, port

from pympi import (
    Kernel,
    MachError,
    PortDied,
    PympiError,
    ReceiveRight,
    SendOnceRight,
    Task,
    mach,
)
from pympi._ffi import lib
from pympi.bootstrap import (
    BOOTSTRAP,
    BootstrapError,
    Code,
    Launch,
    Limits,
    NameInUse,
    NotPrivileged,
    ServiceContexts,
    State,
    Status,
    UnknownService,
)
from pympi.bootstrap.protocol import MAX_LISTED
from pympi.enums import Disposition, Notification, PortRight
from pympi.mig.types import NDR
from pympi.policy import Decision, PolicyModule

kernel = pytest.fixture(books_kept)
server, client = user("server", 1), user("client", 2)


# ---- the right by which a receive right comes back can be taken by who has the receive right ----


def stolen(kernel: Kernel, thief: Task) -> SendOnceRight:
    """Return the right by which the kernel tells the name server that a server let its port go."""
    kernel.bootstrap.declare("stolen")
    right = thief.bootstrap.check_in("stolen").cancel_notification(Notification.PORT_DESTROYED)
    assert right is not None
    return right


def notify_by(right: ReceiveRight | Any, kind: Notification, once: SendOnceRight) -> None:
    mach.mach_port_request_notification(
        right.task, right.name, kind, 0, once.name, Disposition.MOVE_SEND_ONCE
    )


def test_forged_deaths_kill_nothing(kernel: Kernel, server: Task, client: Task) -> None:
    """A dead-name notification says a name, and its owner chooses that."""
    kernel.bootstrap.declare(NAME)
    once = stolen(kernel, server)
    target = kernel.bootstrap.root.port.name
    while any(name >> 8 == target >> 8 for name in server.names()):
        mach.mach_port_destroy(server, next(n for n in server.names() if n >> 8 == target >> 8))
    port = server.allocate_port(name=target)
    notify_by(port.make_send(server), Notification.DEAD_NAME, once)
    mach.mach_port_mod_refs(server, port.name, PortRight.RECEIVE, -1)
    assert client.bootstrap.look_up(NAME)


def test_other_ports_do_not_come_back(kernel: Kernel, server: Task, client: Task) -> None:
    mine = server.allocate_port()
    server.bootstrap.register("mine", mine)
    notify_by(mine, Notification.PORT_DESTROYED, stolen(kernel, server))
    mine.close()
    with pytest.raises(UnknownService):
        client.bootstrap.look_up("mine")
    server.bootstrap.register("mine", server.allocate_port())


def test_what_strangers_send_there_is_let_go(kernel: Kernel, server: Task) -> None:
    held = kernel.bootstrap.task.names()
    once = stolen(kernel, server)
    port = server.allocate_port()
    once.send(b"", Notification.PORT_DESTROYED, rights=[port.move_receive()])
    server.terminate()
    assert len(kernel.bootstrap.task.names()) == len(held) + 1  # the service "stolen"


def test_a_service_that_is_gone_leaves_no_right(kernel: Kernel, server: Task) -> None:
    service = kernel.bootstrap.declare(NAME)
    requestor = server.allocate_port()
    subset = server.bootstrap.subset(requestor)
    subset.create_service("below")
    inboxes = [server.bootstrap.check_in(NAME), subset.check_in("below")]
    kernel.bootstrap.forget(service)
    requestor.close()
    rights = [inbox.make_send(kernel.create_task("sender")) for inbox in inboxes]
    server.terminate()
    for right in rights:
        with pytest.raises(PortDied):
            right.send(b"", timeout=0)


def test_a_right_in_its_own_queue_comes_back(kernel: Kernel, server: Task, client: Task) -> None:
    kernel.bootstrap.declare(NAME)
    inbox = server.bootstrap.check_in(NAME)
    client.bootstrap.look_up(NAME).send(b"waits", timeout=0)
    server.bootstrap.look_up(NAME).send(b"", rights=[inbox.move_receive()])
    assert client.bootstrap.status(NAME) is Status.INACTIVE
    again = kernel.create_task("again", uid=1).bootstrap.check_in(NAME)
    client.bootstrap.look_up(NAME).send(b"on", timeout=0)
    assert again.receive(timeout=0).body in (b"waits", b"on")


# ---- contexts and their requestors ----


def test_requestors_that_die_twice(kernel: Kernel, server: Task) -> None:
    first, second = server.allocate_port(), server.allocate_port()
    upper = server.bootstrap.subset(first)
    lower, other = upper.subset(second), server.bootstrap.subset(second)
    lower.port.close()
    first.close()
    second.close()
    with pytest.raises(NotPrivileged):
        other.create_service(NAME)
    assert kernel.bootstrap.task.kernel.stats()["handler_failures"] == 0


@pytest.mark.parametrize("requestor", ["none", "alive"])
def test_subsets_nobody_can_ask_take_no_room(kernel: Kernel, client: Task, requestor: str) -> None:
    port = client.allocate_port()
    for _ in range(3):
        right = port.make_send() if requestor == "alive" else None
        client.bootstrap.port.send(b"", 409, rights=[right])
    assert len(kernel.bootstrap.contexts) == (4 if requestor == "alive" else 1)
    port.close()
    assert len(kernel.bootstrap.contexts) == 1


def test_subsets_come_and_go_without_a_trace(kernel: Kernel, client: Task) -> None:
    def once() -> None:
        requestor = client.allocate_port()
        client.bootstrap.subset(requestor).port.close()
        requestor.close()

    once()
    handlers, names = len(kernel.bootstrap.task._handlers), len(kernel.bootstrap.task.names())
    for _ in range(5):
        once()
    assert len(kernel.bootstrap.task._handlers) == handlers
    assert len(kernel.bootstrap.task.names()) == names


def test_the_port_of_the_context_under_a_name(kernel: Kernel, client: Task) -> None:
    client.bootstrap.register(NAME, client.bootstrap.port.copy_send())
    assert client.bootstrap.look_up(NAME).port_id == kernel.bootstrap.root.port.port_id
    for service in kernel.bootstrap.services():
        kernel.bootstrap.forget(service)
    with pytest.raises(UnknownService):
        client.bootstrap.look_up(NAME)


def test_many_names_for_one_port(kernel: Kernel, client: Task) -> None:
    port = client.allocate_port()
    right = port.make_send(client)
    for number in range(3000):
        client.bootstrap.register(f"n{number}", right.copy_send())
    port.close()
    assert client.bootstrap.info() == []
    assert len(kernel.bootstrap.services()) == 3000


# ---- servers that are of no use ----


def test_servers_nobody_can_use_take_no_room() -> None:
    with Kernel() as kernel:
        names = kernel.start_bootstrap(launch=lambda what: what.create_task())
        client = kernel.create_task("client")
        place = client.bootstrap.create_server("/bin/idle")
        useful = client.bootstrap.create_server("/bin/useful")
        useful.create_service(NAME)
        for private in (place, useful):
            private.port.close()
        assert [server.command for server in names.servers.values()] == ["/bin/useful"]
        client.bootstrap.look_up(NAME).send(b"", timeout=0)
        [server] = names.servers.values()
        assert server.running
        assert server.task is not None
        server.task.bootstrap.check_in(NAME)
        server.task.terminate()
        assert names.servers
        [service] = names.services()
        names.forget(service)
        body = NDR + b"/bin/unanswered".ljust(512, b"\0") + bytes(4) + (1).to_bytes(4, "little")
        client.bootstrap.port.send(body, 400)
        assert [server.command for server in names.servers.values()] == ["/bin/useful"]
        check_books(names)


# ---- room ----


def test_no_room_leaves_what_there_is() -> None:
    with Kernel() as kernel:
        names = kernel.start_bootstrap(limits=Limits(services=2, services_per_owner=1))
        names.declare(NAME)
        owner = kernel.create_task("owner", uid=1)
        owner.bootstrap.create_service("full")
        with pytest.raises(BootstrapError):
            owner.bootstrap.register(NAME, owner.allocate_port())
        assert owner.bootstrap.look_up(NAME)
        owner.bootstrap.register("full", owner.allocate_port())  # one for one
        check_books(names)


def test_a_list_without_end(kernel: Kernel, client: Task) -> None:
    for number in range(MAX_LISTED):
        kernel.bootstrap.declare(f"n{number}")
    assert len(client.bootstrap.info()) == MAX_LISTED
    kernel.bootstrap.declare("one more")
    with pytest.raises(BootstrapError) as caught:
        client.bootstrap.info()
    assert caught.value.code == Code.NO_MEMORY


# ---- embedders' functions ----


def started(launch: Callable[[Launch], Task]) -> Iterator[tuple[Kernel, Any]]:
    with Kernel() as kernel:
        kernel.start_bootstrap(launch=launch)
        init = kernel.create_task("init")
        init.bootstrap.create_server("/bin/printd").create_service(NAME)
        yield kernel, init.bootstrap.look_up(NAME)
        check_books(kernel.bootstrap)


def test_a_launch_that_exits_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    launched: list[str] = []

    def launch(what: Launch) -> Task:
        launched.append(what.command)
        raise SystemExit

    with caplog.at_level(logging.CRITICAL):
        for _, right in started(launch):
            for _ in range(3):
                right.send(b"", timeout=0)
    assert len(launched) == 3


def test_a_server_that_dies_while_it_is_started_is_started_again() -> None:
    launched: list[Task] = []

    def launch(what: Launch) -> Task:
        task = what.create_task()
        launched.append(task)
        if len(launched) == 3:
            task.bootstrap.check_in(NAME)
        else:
            task.terminate()
        return task

    for _, right in started(launch):
        right.send(b"waits", timeout=0)
        assert [task.alive for task in launched] == [False, False, True]


def test_a_launch_that_asks_and_kills() -> None:
    """It runs when nothing is locked."""

    def launch(what: Launch) -> Task:
        names = what.names
        other = names.kernel.create_task("other")
        other.bootstrap.register("from.launch", other.allocate_port())
        other.terminate()
        names.declare("declared")
        return what.create_task()

    for kernel, right in started(launch):
        right.send(b"", timeout=0)
        states = {service.name: service.state for service in kernel.bootstrap.services()}
        assert states["from.launch"] is State.RESERVED
        assert states["declared"] is State.DECLARED


class Meddler(PolicyModule):
    """Allows everything, and asks the name server meanwhile."""

    name = "meddler"
    uncached = True

    def __init__(self) -> None:
        self.ask: Callable[[], object] = lambda: None
        self.outcomes: list[str] = []
        self._inside = False

    def parse(self, text: str) -> str:
        return text

    def decide(self, source: Any, target: Any, tclass: Any) -> Decision:
        if not self._inside:
            self._inside = True
            try:
                self.ask()
                self.outcomes.append("done")
            except MachError as error:
                self.outcomes.append(error.name)
            finally:
                self._inside = False
        return Decision()


@pytest.mark.parametrize("what", ["register", "look_up", "create_service", "info"])
def test_a_policy_that_asks_the_name_server(what: str) -> None:
    meddler = Meddler()
    with Kernel(policies=[meddler]) as kernel:
        names = kernel.bootstrap
        names.declare(NAME)
        inside, client = kernel.create_task("inside"), kernel.create_task("client")
        inbox = inside.allocate_port()
        asks: dict[str, Callable[[], object]] = {
            "register": lambda: inside.bootstrap.register("meddled", inbox),
            "look_up": lambda: inside.bootstrap.look_up(NAME),
            "create_service": lambda: inside.bootstrap.create_service("meddled"),
            "info": inside.bootstrap.info,
        }
        meddler.ask = asks[what]
        port = client.allocate_port()
        client.bootstrap.register("mine", port)
        client.bootstrap.check_in(NAME)
        requestor = client.allocate_port()
        client.bootstrap.subset(requestor).create_service("below")
        requestor.close()
        port.close()
        client.terminate()
        meddler.ask = lambda: None
        assert "done" in meddler.outcomes
        left = {service.name for service in names.services()} - {"meddled"}
        assert left == {NAME, "mine"}
        check_books(names)


def test_services_whose_handlers_ask(server: Task, client: Task) -> None:
    """Each looks itself up and calls on, until the stack is deep enough."""
    depth: list[str] = []

    def handle(_message: object) -> None:
        depth.append("in")
        server.bootstrap.look_up(NAME).send(b"", timeout=0)

    server.bootstrap.register(NAME, server.create_handler(handle))
    logging.disable(logging.ERROR)
    try:
        client.bootstrap.look_up(NAME).send(b"", timeout=0)
    finally:
        logging.disable(logging.NOTSET)
    assert 8 <= len(depth) <= 16
    assert client.bootstrap.look_up(NAME)


# ---- messages in wire form ----


def test_answers_go_where_the_client_says(kernel: Kernel, client: Task) -> None:
    """Even to the name server: what it sends itself is a request that means nothing."""
    kernel.bootstrap.declare(NAME)
    body = NDR + NAME.encode().ljust(128, b"\0")
    port = client.bootstrap.port
    for number in (*range(300, 311), 402, 404, 408):
        raw = wire(port.name, number, body if number in (402, 404) else b"", reply=port.name)
        mach.mach_msg(client, raw, mach.MACH_SEND_MSG | mach.MACH_SEND_TIMEOUT)
    assert client.bootstrap.status(NAME) is Status.INACTIVE


def wire(dest: int, number: int, body: bytes = b"", reply: int = 0) -> bytes:
    return message(dest, COPY_SEND, reply, COPY_SEND if reply else 0, number, body)


def test_rights_that_no_routine_takes(kernel: Kernel, client: Task) -> None:
    held = kernel.bootstrap.task.names()
    own = client.allocate_port()
    right = own.make_send(client)
    for number in range(400, 412):
        client.bootstrap.port.send(b"x" * 50, number, rights=[right.copy_send()] * 1000)
        client.bootstrap.port.send(NDR, number, memory=[b"m" * 5000])
    assert kernel.bootstrap.task.names() == held
    assert own.status.send_rights


@pytest.mark.parametrize("number", range(400, 411))
def test_requests_nobody_waits_for(kernel: Kernel, client: Task, number: int) -> None:
    """Without a reply right, or with a dead one."""
    kernel.bootstrap.declare(NAME)
    routine = dict(BOOTSTRAP.numbered())[number]
    body = NDR + NAME.encode().ljust(128, b"\0")
    rights = [client.allocate_port().make_send()]
    takes = {403, 409}
    answers = client.allocate_port()
    for reply in (None, answers):
        client.bootstrap.port.send(
            body if "name" in [a.name for a in routine.request] else b"", number, reply=reply,
            rights=rights if number in takes else [],
        )  # fmt: skip
        rights = [client.allocate_port().make_send()]
    answers.close()
    assert client.bootstrap.look_up(NAME)


def test_as_many_rights_as_a_message_holds(kernel: Kernel, client: Task) -> None:
    held = kernel.bootstrap.task.names()
    own = client.allocate_port()
    right = own.make_send(client)
    one, none = port(right.name, COPY_SEND), ool_ports(0, 0, COPY_SEND)
    for descriptors in ([one, one], [one] * 16_383, [none] * 100):
        for number in (403, 405, 409):
            raw = message(client.bootstrap.port.name, msgh_id=number, descriptors=(*descriptors,))
            mach.mach_msg(client, raw, SEND)
    for rights in (right.copy_send(), own.make_send_once()):
        client.bootstrap.port.send(NDR + b"x" * 128, 403, rights=[rights] * 2)
    assert kernel.bootstrap.task.names() == held
    assert kernel.bootstrap.services() == []


@pytest.mark.parametrize("count", [-1, 0, 1, 21, 2**31 - 1, 2**32 - 1])
def test_arrays_that_are_not_as_long_as_they_say(kernel: Kernel, client: Task, count: int) -> None:
    kernel.bootstrap.declare(NAME)
    body = NDR + (count & 0xFFFFFFFF).to_bytes(4, "little")
    for memory in ([], [b"x" * 128 * 20], [b"x" * 127], [b"x" * (1 << 20)]):
        answer = client.bootstrap.port.call(body, 405, memory=memory)
        assert int.from_bytes(answer.body[8:12], "little", signed=True) != 0 or not answer.rights
        answer.close()
    assert client.bootstrap.look_up(NAME)


@pytest.mark.parametrize("size", [128, 512, 1 << 20])
def test_names_without_end(client: Task, size: int) -> None:
    for ask in (client.bootstrap.look_up, client.bootstrap.status, client.bootstrap.check_in):
        with pytest.raises((MachError, ValueError)):
            ask("x" * size)
    for number in (402, 404, 407, 410):
        answer = client.bootstrap.port.call(NDR + b"x" * size, number)
        assert answer.rights == []


def test_requestors_that_move_and_are_shared(kernel: Kernel, server: Task, client: Task) -> None:
    """A subset lives as long as the port, whoever receives from it."""
    requestor = server.allocate_port()
    subsets = [task.bootstrap.subset(requestor.make_send(task)) for task in (server, client)]
    server.bootstrap.register("also a service", requestor)
    moved = requestor.move_receive(client)
    for subset in subsets:
        subset.create_service(NAME)
    moved.close()
    for subset in subsets:
        with pytest.raises(NotPrivileged):
            subset.create_service("late")
    assert [service.state for service in kernel.bootstrap.services()] == [State.RESERVED]


def test_a_requestor_that_outlives_its_subset(kernel: Kernel, server: Task) -> None:
    upper, lower = server.allocate_port(), server.allocate_port()
    server.bootstrap.subset(upper).subset(lower)
    upper.close()
    assert not lower.status.send_rights
    assert kernel.bootstrap._registry.requestors == {}


def test_another_kernels_right(kernel: Kernel, client: Task) -> None:
    with Kernel() as other:
        stranger = other.create_task("stranger").allocate_port()
        with pytest.raises((MachError, ValueError)):
            client.bootstrap.register(NAME, stranger)
        with pytest.raises((MachError, ValueError)):
            client.bootstrap.subset(stranger)
    assert len(kernel.bootstrap.contexts) == 1


# ---- fork, close ----


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_can_only_close(kernel: Kernel, client: Task) -> None:
    kernel.bootstrap.declare(NAME)
    ask = client.bootstrap
    child = os.fork()
    if child == 0:
        try:
            ask.look_up(NAME)
        except PympiError:
            with suppress(PympiError):
                kernel.bootstrap.declare("child")
            kernel.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask.look_up(NAME)


def test_labels_of_services_can_be_changed_while_asked(kernel: Kernel, client: Task) -> None:
    kernel.bootstrap.declare(NAME)
    kernel.bootstrap.use_service_contexts(ServiceContexts({"*": "-"}))
    with pytest.raises(NameInUse):
        client.bootstrap.create_service(NAME)


def test_a_closed_kernel_answers_nothing() -> None:
    kernel = Kernel()
    client = kernel.create_task("client")
    ask = client.bootstrap
    names = kernel.bootstrap
    kernel.close()
    for call in (lambda: ask.look_up(NAME), ask.info, lambda: names.declare(NAME)):
        with pytest.raises(MachError):
            call()


# ---- memory that runs out, records that find no room ----


class Stage:
    """A name server with one of each, and what a client may do."""

    def __init__(self, **options: Any) -> None:
        self.kernel = Kernel(**options)
        self.names = self.kernel.start_bootstrap(launch=lambda what: what.create_task())
        self.names.declare("declared")
        self.names.declare("served")
        self.server, self.client = (self.kernel.create_task(n) for n in ("server", "client"))
        self.inbox = self.server.bootstrap.check_in("served")
        self.server.bootstrap.register("registered", self.server.allocate_port())
        self.requestor = self.server.allocate_port()
        self.subset = self.server.bootstrap.subset(self.requestor)
        self.subset.create_service("below")
        self.private = self.client.bootstrap.create_server("/bin/wanted")
        self.private.create_service("wanted")
        self.port = self.client.allocate_port()

    def known(self) -> set[str]:
        return {service.name for service in self.names.services()}


ACTS: dict[str, Callable[[Stage], object]] = {
    "look_up": lambda s: s.client.bootstrap.look_up("registered"),
    "look_up_array": lambda s: s.client.bootstrap.look_up_array(["registered", "declared"]),
    "status": lambda s: s.client.bootstrap.status("registered"),
    "info": lambda s: s.client.bootstrap.info(),
    "parent": lambda s: s.subset.parent(),
    "register": lambda s: s.client.bootstrap.register("new", s.port),
    "replace": lambda s: s.client.bootstrap.register("declared", s.port),
    "remove": lambda s: s.client.bootstrap.register("declared", None),
    "check_in": lambda s: s.client.bootstrap.check_in("declared"),
    "create_service": lambda s: s.client.bootstrap.create_service("new"),
    "create_service_on_demand": lambda s: s.private.create_service("new"),
    "create_server": lambda s: s.client.bootstrap.create_server("/bin/new", on_demand=False),
    "subset": lambda s: s.client.bootstrap.subset(s.port),
    "server_dies": lambda s: s.server.terminate(),
    "right_comes_back": lambda s: s.inbox.close(),
    "requestor_dies": lambda s: s.requestor.close(),
    "launch": lambda s: s.client.bootstrap.look_up("wanted").send(b""),
}


def still_works(stage: Stage, act: str) -> None:
    """Assert that names neither got lost nor stuck."""
    check_books(stage.names)
    gone = {"requestor_dies": "below", "server_dies": "below", "remove": "declared"}.get(act)
    kept = {"declared", "served", "registered", "below", "wanted"} - {gone}
    assert stage.known() >= kept
    if act not in ("remove", "replace", "check_in"):
        assert stage.client.bootstrap.check_in("declared")
    if act in ("right_comes_back", "server_dies"):
        assert stage.client.bootstrap.check_in("served")
    check_books(stage.names)


@pytest.mark.parametrize("sticky", [0, 1], ids=["once", "from_there_on"])
@pytest.mark.parametrize("act", ACTS)
def test_each_allocation_fails(act: str, sticky: int) -> None:
    logging.disable(logging.ERROR)
    try:
        for at in range(1, 100):
            stage = Stage()
            with stage.kernel as kernel:
                before = lib.pm_kernel_allocations(kernel.pointer)
                lib.pm_kernel_fault(kernel.pointer, at, sticky)
                with suppress(MachError):
                    ACTS[act](stage)
                lib.pm_kernel_fault(kernel.pointer, 0, 0)
                reached = lib.pm_kernel_allocations(kernel.pointer) - before >= at
                still_works(stage, act)
                if not reached:
                    return
        pytest.fail("it never came to its end")
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("when_full", ["drop", "block", "fail"])
@pytest.mark.parametrize("act", ACTS)
def test_there_is_no_room_for_records(act: str, when_full: str) -> None:
    """With nobody who drains, and everything recorded, an act is done whole or not at all."""
    logging.disable(logging.ERROR)
    stage = Stage(audit_records=64)
    try:
        with stage.kernel as kernel:
            kernel.audit.when_full = when_full
            kernel.audit.everything()
            for _ in range(100):
                with suppress(MachError):
                    stage.server.allocate_port().close()
            with suppress(MachError):
                ACTS[act](stage)
            kernel.audit.when_full = "drop"
            still_works(stage, act)
    finally:
        logging.disable(logging.NOTSET)
