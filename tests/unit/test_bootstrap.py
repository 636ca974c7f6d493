# SPDX-License-Identifier: BSD-2-Clause
"""The name server: what each routine does, and what becomes of names when servers die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pympi import InvalidName, Kernel, MachError, PortDied, Task
from pympi.bootstrap import (
    BOOTSTRAP,
    Bootstrap,
    BootstrapError,
    Code,
    Launch,
    Limits,
    NameInUse,
    NotPrivileged,
    ServiceActive,
    ServiceInfo,
    State,
    Status,
    UnknownService,
)
from pympi.enums import Notification, SpecialPort
from pympi.mig import MigError

NAME = "com.example.print"


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel
        kernel.verify()


@pytest.fixture
def server(kernel: Kernel) -> Task:
    return kernel.create_task("server")


@pytest.fixture
def client(kernel: Kernel) -> Task:
    return kernel.create_task("client")


# ---- the protocol ----


def test_numbers_are_those_of_mach() -> None:
    assert {routine.name: number for number, routine in BOOTSTRAP.numbered()} == {
        "bootstrap_create_server": 400,
        "bootstrap_unprivileged": 401,
        "bootstrap_check_in": 402,
        "bootstrap_register": 403,
        "bootstrap_look_up": 404,
        "bootstrap_look_up_array": 405,
        "bootstrap_parent": 406,
        "bootstrap_status": 407,
        "bootstrap_info": 408,
        "bootstrap_subset": 409,
        "bootstrap_create_service": 410,
    }


def test_codes_have_names() -> None:
    error = UnknownService(Code.UNKNOWN_SERVICE, NAME)
    assert str(error) == f"{NAME}: no such service (BOOTSTRAP_UNKNOWN_SERVICE)"


# ---- the bootstrap port ----


def test_every_task_has_it_from_its_parent(kernel: Kernel, server: Task) -> None:
    assert server.bootstrap.port.port_id == kernel.bootstrap.root.port.port_id
    user = kernel.bootstrap.create_context()
    kernel.bootstrap.give(server, user)
    child = kernel.create_task("child", parent=server)
    assert child.bootstrap.port.port_id == user.port.port_id


def test_a_task_without_one_cannot_ask(server: Task) -> None:
    assert server.bootstrap is not None
    server.set_special_port(SpecialPort.BOOTSTRAP, None)
    with pytest.raises(InvalidName, match="no bootstrap port"):
        _ = server.bootstrap


def test_there_is_one_name_server(kernel: Kernel) -> None:
    names = kernel.start_bootstrap()
    assert kernel.bootstrap is names
    with pytest.raises(ValueError, match="has a name server"):
        kernel.start_bootstrap()


# ---- register and look up ----


def test_look_up_gives_a_send_right(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    server.bootstrap.register(NAME, inbox)
    client.bootstrap.look_up(NAME).send(b"page 1")
    assert inbox.receive(timeout=0).body == b"page 1"


def test_general_and_direct_form_agree(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    server.bootstrap.register(NAME, inbox)
    general = BOOTSTRAP.client(client.bootstrap.port)
    assert general.bootstrap_look_up(NAME).port_id == inbox.port_id
    assert client.bootstrap.look_up(NAME).port_id == inbox.port_id
    for ask in (general.bootstrap_look_up, client.bootstrap.look_up):
        with pytest.raises(MigError) as caught:
            ask("nobody")
        assert caught.value.code == Code.UNKNOWN_SERVICE


@pytest.mark.parametrize("body", [b"", b"x" * 136, bytes([0, 0, 0, 0, 1, 0, 0, 0]) + b"x" * 128])
def test_a_malformed_look_up_is_refused(client: Task, body: bytes) -> None:
    answer = client.bootstrap.port.call(body, 404)
    assert int.from_bytes(answer.body[8:12], "little", signed=True) == -304  # MIG_BAD_ARGUMENTS
    assert answer.rights == []


def test_a_number_that_is_no_routine(client: Task) -> None:
    answer = client.bootstrap.port.call(b"", 411)
    assert int.from_bytes(answer.body[8:12], "little", signed=True) == -303  # MIG_BAD_ID


def test_an_active_name_is_not_taken_over(server: Task, client: Task) -> None:
    server.bootstrap.register(NAME, server.allocate_port())
    other = client.allocate_port()
    with pytest.raises(ServiceActive):
        client.bootstrap.register(NAME, other)
    assert other.status.send_rights is False  # what was refused is let go


def test_registering_nothing_takes_a_name_away(server: Task, client: Task) -> None:
    server.bootstrap.create_service(NAME)
    server.bootstrap.register(NAME, None)
    with pytest.raises(UnknownService):
        client.bootstrap.look_up(NAME)
    server.bootstrap.register("never.there", None)


def test_registering_a_dead_port_is_as_registering_nothing(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    port.close()
    client.bootstrap.register(NAME, right.copy_send())
    with pytest.raises(UnknownService):
        client.bootstrap.look_up(NAME)


def test_a_declared_service_can_be_replaced(server: Task, client: Task) -> None:
    waiting = server.bootstrap.create_service(NAME)
    inbox = server.allocate_port()
    server.bootstrap.register(NAME, inbox)
    with pytest.raises(PortDied):
        waiting.send(b"to the old one", timeout=0)
    assert client.bootstrap.look_up(NAME).port_id == inbox.port_id


def test_one_port_under_two_names(kernel: Kernel, server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    server.bootstrap.register("one", inbox)
    server.bootstrap.register("two", inbox)
    assert client.bootstrap.look_up("one").port_id == client.bootstrap.look_up("two").port_id
    inbox.close()
    assert client.bootstrap.info() == []
    kernel.verify()


def test_another_name_for_a_declared_service(server: Task, client: Task) -> None:
    declared = server.bootstrap.create_service("declared")
    server.bootstrap.register("alias", declared.copy_send())
    inbox = server.bootstrap.check_in("declared")
    client.bootstrap.look_up("alias").send(b"hello")
    assert inbox.receive(timeout=0).body == b"hello"
    server.terminate()
    assert [info.name for info in client.bootstrap.info()] == ["declared", "alias"]
    assert client.bootstrap.look_up("alias").port_id == client.bootstrap.look_up("declared").port_id


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 128,
        "a\nb",
        "a\x1b[2J",
        "bidi\u202e",
        "zero\u200bwidth",
        "e\u0301",
        "\udc80",
        "é" * 64,
    ],
)
def test_names_that_cannot_be_given(server: Task, client: Task, name: str) -> None:
    for ask in (
        lambda: server.bootstrap.register(name, server.allocate_port()),
        lambda: server.bootstrap.create_service(name),
    ):
        with pytest.raises((MachError, ValueError)):
            ask()
    with pytest.raises(MachError):
        client.bootstrap.look_up(name)
    assert client.bootstrap.info() == []


@pytest.mark.parametrize("name", ["x", "x" * 127, "Straße", "-rf", "../up", "with blanks", "日本"])
def test_names_that_can_be_given(server: Task, client: Task, name: str) -> None:
    inbox = server.allocate_port()
    server.bootstrap.register(name, inbox)
    assert client.bootstrap.look_up(name).port_id == inbox.port_id
    assert client.bootstrap.info() == [ServiceInfo(name, "", Status.ACTIVE)]


def test_several_at_once(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    server.bootstrap.register(NAME, inbox)
    found = client.bootstrap.look_up_array([NAME, "nobody", NAME])
    assert [right and right.port_id for right in found] == [inbox.port_id, None, inbox.port_id]
    assert client.bootstrap.look_up_array([]) == []
    with pytest.raises(BootstrapError) as caught:
        client.bootstrap.look_up_array(["x"] * 21)
    assert caught.value.code == Code.BAD_COUNT


# ---- services that wait for a server ----


def test_messages_wait_for_the_server(server: Task, client: Task) -> None:
    client.bootstrap.create_service(NAME).send(b"early")
    assert client.bootstrap.status(NAME) is Status.INACTIVE
    inbox = server.bootstrap.check_in(NAME)
    assert inbox.receive(timeout=0).body == b"early"
    assert client.bootstrap.status(NAME) is Status.ACTIVE
    with pytest.raises(ServiceActive):
        client.bootstrap.check_in(NAME)


def test_names_are_created_once(server: Task) -> None:
    server.bootstrap.create_service(NAME)
    with pytest.raises(NameInUse):
        server.bootstrap.create_service(NAME)
    with pytest.raises(NameInUse):
        server.bootstrap.subset(server.allocate_port()).create_service(NAME)


def test_a_registered_service_is_not_checked_in_to(server: Task, client: Task) -> None:
    server.bootstrap.register(NAME, server.allocate_port())
    with pytest.raises(ServiceActive):
        client.bootstrap.check_in(NAME)
    with pytest.raises(UnknownService):
        client.bootstrap.check_in("nobody")


@pytest.mark.parametrize("end", ["terminate", "close"])
def test_the_right_comes_back(kernel: Kernel, server: Task, client: Task, end: str) -> None:
    right = client.bootstrap.create_service(NAME)
    inbox = server.bootstrap.check_in(NAME)
    right.send(b"unread")
    server.terminate() if end == "terminate" else inbox.close()
    assert client.bootstrap.status(NAME) is Status.INACTIVE
    right.send(b"while nobody serves")
    again = kernel.create_task("again").bootstrap.check_in(NAME)
    assert [again.receive(timeout=0).body for _ in range(2)] == [b"unread", b"while nobody serves"]


def test_a_name_outlives_a_server_that_prevents_the_return(server: Task, client: Task) -> None:
    client.bootstrap.create_service(NAME)
    inbox = server.bootstrap.check_in(NAME)
    back = inbox.cancel_notification(Notification.PORT_DESTROYED)
    assert back is not None
    back.close()
    server.terminate()
    assert client.bootstrap.status(NAME) is Status.INACTIVE  # with another port
    client.bootstrap.look_up(NAME).send(b"x")


def test_a_right_that_moves_on_stays_with_the_name(server: Task, client: Task) -> None:
    client.bootstrap.create_service(NAME)
    moved = server.bootstrap.check_in(NAME).move_receive(client)
    server.terminate()
    assert client.bootstrap.status(NAME) is Status.ACTIVE
    moved.close()
    assert client.bootstrap.status(NAME) is Status.INACTIVE


def test_an_answer_nobody_takes_brings_the_right_back(kernel: Kernel, client: Task) -> None:
    client.bootstrap.create_service(NAME)
    answers = client.allocate_port()
    body = bytes([0, 0, 0, 0, 1, 0, 0, 0]) + NAME.encode().ljust(128, b"\0")
    client.bootstrap.port.send(body, 402, reply=answers)
    answers.close()
    assert client.bootstrap.status(NAME) is Status.INACTIVE
    kernel.verify()


# ---- names of the dead ----


def test_a_registered_name_is_kept_for_its_owner(kernel: Kernel, client: Task) -> None:
    server = kernel.create_task("server", uid=5)
    server.bootstrap.register(NAME, server.allocate_port())
    server.terminate()
    with pytest.raises(UnknownService):
        client.bootstrap.look_up(NAME)
    assert client.bootstrap.info() == []
    squatter = kernel.create_task("squatter", uid=6)
    with pytest.raises(NotPrivileged):
        squatter.bootstrap.register(NAME, squatter.allocate_port())
    again = kernel.create_task("again", uid=5)
    inbox = again.allocate_port()
    again.bootstrap.register(NAME, inbox)
    assert client.bootstrap.look_up(NAME).port_id == inbox.port_id


def test_a_name_that_was_served_is_its_servers(kernel: Kernel) -> None:
    kernel.bootstrap.declare(NAME)
    kernel.create_task("server", uid=5).bootstrap.check_in(NAME).close()
    with pytest.raises(NotPrivileged):
        kernel.create_task("squatter", uid=6).bootstrap.check_in(NAME)
    assert kernel.create_task("again", uid=5).bootstrap.check_in(NAME)


def test_the_embedder_can_free_a_name(kernel: Kernel, client: Task) -> None:
    server = kernel.create_task("server", uid=5)
    server.bootstrap.register(NAME, server.allocate_port())
    server.terminate()
    [service] = kernel.bootstrap.services()
    assert (service.name, service.state, service.owner) == (NAME, State.RESERVED, ("-", 5))
    kernel.bootstrap.forget(service)
    client.bootstrap.register(NAME, client.allocate_port())


def test_a_snapshot_shows_contexts_and_services(kernel: Kernel, server: Task) -> None:
    inbox = server.allocate_port()
    server.bootstrap.register(NAME, inbox)
    kernel.bootstrap.declare("waiting")
    subset = server.bootstrap.subset(server.allocate_port())
    root, below = kernel.snapshot().bootstrap or ()
    assert (root.parent, below.parent, below.port) == (0, root.id, subset.port.port_id)
    assert [(service.name, service.state) for service in root.services] == [
        (NAME, "active"),
        ("waiting", "inactive"),
    ]
    assert root.services[0].port == inbox.port_id
    server.terminate()
    assert [service.state for service in kernel.bootstrap.snapshot()[0].services] == [
        "reserved",
        "inactive",
    ]


# ---- contexts ----


def test_names_look_upwards_and_the_nearest_counts(server: Task) -> None:
    above, below = server.allocate_port(), server.allocate_port()
    server.bootstrap.register("above", above)
    server.bootstrap.register("both", above)
    subset = server.bootstrap.subset(server.allocate_port())
    subset.register("both", below)
    assert subset.look_up("above").port_id == above.port_id
    assert subset.look_up("both").port_id == below.port_id
    assert server.bootstrap.look_up("both").port_id == above.port_id
    assert sorted(info.name for info in subset.info()) == ["above", "both"]
    assert subset.parent().port.port_id == server.bootstrap.port.port_id


def test_the_root_is_its_own_parent(client: Task) -> None:
    assert client.bootstrap.parent().port.port_id == client.bootstrap.port.port_id


def test_only_uid_0_gets_at_the_parent(kernel: Kernel) -> None:
    user = kernel.create_task("user", uid=501)
    with pytest.raises(NotPrivileged):
        user.bootstrap.parent()


def test_a_subset_ends_with_its_requestor(kernel: Kernel, server: Task) -> None:
    requestor, deeper = server.allocate_port(), server.allocate_port()
    subset = server.bootstrap.subset(requestor)
    lower = subset.subset(deeper)
    inbox = server.allocate_port()
    lower.register(NAME, inbox)
    subset.create_service("waiting")
    requestor.close()
    with pytest.raises(UnknownService):
        lower.look_up(NAME)
    for ended in (subset, lower):
        with pytest.raises(NotPrivileged):
            ended.register("late", inbox)
        with pytest.raises(NotPrivileged):
            ended.subset(server.allocate_port())
    assert inbox.status.send_rights is False
    server.terminate()
    assert list(kernel.bootstrap.contexts.values()) == [kernel.bootstrap.root]


def test_a_requestor_that_is_dead_already(kernel: Kernel, server: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(server)
    port.close()
    subset = server.bootstrap.subset(right.copy_send())
    with pytest.raises(NotPrivileged):
        subset.register(NAME, server.allocate_port())
    server.terminate()
    assert len(kernel.bootstrap.contexts) == 1


def test_unprivileged_is_the_context_itself(client: Task) -> None:
    assert client.bootstrap.unprivileged().port.port_id == client.bootstrap.port.port_id


# ---- limits ----


def test_room_is_bounded() -> None:
    with Kernel() as kernel:
        kernel.start_bootstrap(limits=Limits(services=3, services_per_owner=2, contexts=2, depth=1))
        flooder, other = kernel.create_task("flooder", uid=1), kernel.create_task("other", uid=2)
        for name in ("a", "b"):
            flooder.bootstrap.create_service(name)
        for full in (
            flooder.bootstrap.create_service,
            lambda n: flooder.bootstrap.register(n, flooder.allocate_port()),
        ):
            with pytest.raises(BootstrapError) as caught:
                full("c")
            assert caught.value.code == Code.NO_MEMORY
        other.bootstrap.create_service("c")
        with pytest.raises(BootstrapError):
            other.bootstrap.create_service("d")
        flooder.bootstrap.register("a", None)
        flooder.bootstrap.create_service("d")
        subset = other.bootstrap.subset(other.allocate_port())
        for ask in (other.bootstrap.subset, subset.subset):
            with pytest.raises(BootstrapError):
                ask(other.allocate_port())
        kernel.verify()


# ---- servers that are started ----


class Launcher:
    """Starts tasks that check in to all they are told of, or die."""

    def __init__(self) -> None:
        self.launched: list[Task] = []
        self.check_in: list[str] = []
        self.inboxes: list[object] = []
        self.fails = False

    def __call__(self, launch: Launch) -> Task:
        if self.fails:
            raise RuntimeError("no such program")
        task = launch.create_task()
        self.launched.append(task)
        self.inboxes = [task.bootstrap.check_in(name) for name in self.check_in]
        return task


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def starting(launcher: Launcher) -> Iterator[Kernel]:
    with Kernel() as kernel:
        kernel.start_bootstrap(launch=launcher)
        yield kernel
        kernel.verify()


def test_without_a_function_nothing_is_started(client: Task) -> None:
    with pytest.raises(NotPrivileged):
        client.bootstrap.create_server("/bin/printd")


def test_a_message_starts_a_server_on_demand(starting: Kernel, launcher: Launcher) -> None:
    init, client = starting.create_task("init"), starting.create_task("client")
    server = init.bootstrap.create_server("/bin/printd -v", uid=7)
    server.create_service(NAME)
    launcher.check_in = [NAME]
    assert client.bootstrap.status(NAME) is Status.ON_DEMAND
    assert client.bootstrap.info() == [ServiceInfo(NAME, "/bin/printd -v", Status.ON_DEMAND)]
    right = client.bootstrap.look_up(NAME)
    assert launcher.launched == []
    right.send(b"page 1")
    [task] = launcher.launched
    assert task.name == "printd"
    [inbox] = launcher.inboxes
    message = inbox.receive(timeout=0)
    assert (message.body, message.sender.task) == (b"page 1", client)
    right.send(b"page 2")
    assert len(launcher.launched) == 1
    task.terminate()  # page 2 waits, so it is started again at once
    assert len(launcher.launched) == 2
    [inbox] = launcher.inboxes
    assert inbox.receive(timeout=0).body == b"page 2"
    launcher.launched[-1].terminate()
    assert len(launcher.launched) == 2
    right.send(b"page 3")
    assert len(launcher.launched) == 3


def test_a_server_not_on_demand_runs_at_once_and_again(
    starting: Kernel, launcher: Launcher
) -> None:
    init = starting.create_task("init")
    server = init.bootstrap.create_server("/bin/printd", on_demand=False)
    assert [task.name for task in launcher.launched] == ["printd"]
    server.create_service(NAME)
    launcher.check_in = [NAME]
    launcher.launched[0].terminate()
    assert len(launcher.launched) == 2
    assert init.bootstrap.status(NAME) is Status.ACTIVE


def test_services_of_a_server_are_its_own(starting: Kernel) -> None:
    init = starting.create_task("init")
    server = init.bootstrap.create_server("/bin/printd")
    server.create_service(NAME)
    for ask in (
        lambda: init.bootstrap.check_in(NAME),
        lambda: init.bootstrap.register(NAME, init.allocate_port()),
        lambda: init.bootstrap.register(NAME, None),
    ):
        with pytest.raises(NotPrivileged):
            ask()
    assert server.check_in(NAME)
    assert server.unprivileged().port.port_id == init.bootstrap.port.port_id


def test_only_root_makes_servers_for_others(starting: Kernel) -> None:
    user = starting.create_task("user", uid=501)
    with pytest.raises(NotPrivileged):
        user.bootstrap.create_server("/bin/printd", uid=0)
    assert isinstance(user.bootstrap.create_server("/bin/printd", uid=501), Bootstrap)


def test_a_server_that_never_checks_in_is_given_up(starting: Kernel, launcher: Launcher) -> None:
    init = starting.create_task("init")
    init.bootstrap.create_server("/bin/broken", on_demand=False)
    for _ in range(30):
        if launcher.launched[-1].alive:
            launcher.launched[-1].terminate()
    assert len(launcher.launched) == 10


def test_a_server_that_cannot_be_started_loses_no_message(
    starting: Kernel, launcher: Launcher
) -> None:
    init = starting.create_task("init")
    init.bootstrap.create_server("/bin/printd").create_service(NAME)
    launcher.fails, launcher.check_in = True, [NAME]
    right = init.bootstrap.look_up(NAME)
    right.send(b"page 1")
    launcher.fails = False
    right.send(b"page 2")
    [inbox] = launcher.inboxes
    assert [inbox.receive(timeout=0).body for _ in range(2)] == [b"page 1", b"page 2"]
