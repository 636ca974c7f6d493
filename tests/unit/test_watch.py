# SPDX-License-Identifier: BSD-2-Clause
"""`Kernel.watch`: what is wanted is seen, what is lost is counted, and nothing else changes."""

import threading
from collections.abc import Callable, Iterator

import pytest

from pympi import AccessDenied, Kernel, KernelClosed, MachError, SendRight, SimulatedClock, Task
from pympi.audit import FILTERS, WatchRecord
from pympi.audit.watch import Filter
from pympi.enums import ALL, ObjectClass
from pympi.inspect.messages import Happening, Joiner
from pympi.mig import Interface
from pympi.policy import Decision, Partition, PolicyModule, Stub
from pympi.testing import allow_all

PRINTING = Interface("printing", 1200, ["print_page", "set_default"])


class Clerk(PolicyModule):
    """Nobody sets the default printer, nor receives from the shy. Nothing is worth a record."""

    name = "clerk"

    def decide(self, source: str, target: str, tclass: ObjectClass) -> Decision:
        refused = tclass.mask("set_default") if tclass.name == "mi_printing" else 0
        refused |= tclass.mask("recv") if (target, tclass.name) == ("shy", "mach_port") else 0
        return Decision(allowed=ALL & ~refused, auditdeny=0)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel([Clerk()]) as kernel:
        yield kernel
        kernel.verify()


@pytest.fixture
def printd(kernel: Kernel) -> Task:
    return kernel.create_task("printd", label="clerk/printer")


@pytest.fixture
def printer(kernel: Kernel, printd: Task) -> SendRight:
    inbox = printd.allocate_port()
    inbox.serve(PRINTING)
    return inbox.make_send(kernel.create_task("editor", label="clerk/editor"))


def call(printer: SendRight, inbox: object) -> None:
    """A request and its reply; the server is a thread."""
    server = threading.Thread(target=lambda: inbox.receive(timeout=20).reply(b"done!"))  # type: ignore[attr-defined]
    server.start()
    printer.call(b"page", msgh_id=1200, timeout=20)
    server.join()


@pytest.fixture
def inbox(printd: Task) -> object:
    inbox = printd.allocate_port()
    inbox.serve(PRINTING)
    return inbox


# ---- records ----


def test_a_message_in_words(kernel: Kernel, printer: SendRight) -> None:
    with kernel.watch() as watch:
        printer.send(b"page", msgh_id=1200)
        sent, method = watch.take()
        assert watch.take() == []
    assert (sent.operation, sent.task_name, sent.receiver_name, sent.size, sent.msgh_id) == (
        "send", "editor", "printd", 4, 1200,
    )  # fmt: skip
    assert (sent.subject, sent.object, sent.outcome) == ("clerk/editor", "clerk/printer", "granted")
    assert (method.routine, method.tclass, method.transfer) == (
        "print_page", "mi_printing", sent.transfer,
    )  # fmt: skip


def test_denials_are_seen_though_nothing_is_audited(kernel: Kernel, printer: SendRight) -> None:
    with kernel.watch("outcome=denied") as watch:
        with pytest.raises(AccessDenied):
            printer.send(b"mine", msgh_id=1201)
        printer.send(b"page", msgh_id=1200)
        [denied] = watch.take()
    assert (denied.outcome, denied.denied, denied.routine) == (
        "denied", ("set_default",), "set_default",
    )  # fmt: skip
    assert len(kernel.audit.drain()) == 0


def test_failures_are_seen(kernel: Kernel, printd: Task) -> None:
    with kernel.watch("outcome=failed") as failed, kernel.watch("outcome=denied") as denied:
        with pytest.raises(MachError):
            printd.receive(0x1234503, timeout=0)
        [record] = failed.take()
        assert (record.outcome, record.result, record.flags) == (
            "failed", "MACH_RCV_INVALID_NAME", ("ERROR",),
        )  # fmt: skip
        assert denied.take() == []


def test_what_is_lost_is_told_once(kernel: Kernel, printer: SendRight, printd: Task) -> None:
    with kernel.watch("permission=send", records=4) as watch:
        port = printd.allocate_port().make_send(printer.task)
        for _ in range(3):
            port.send(b"1")
            printer.send(b"2", msgh_id=1200)
        assert [record.lost for record in watch.take()] == [0, 0, 0, 0]
        assert watch.lost == 2
        port.send(b"3")
        [record] = watch.take()
        assert (record.lost, record.size, watch.lost) == (2, 1, 2)


def test_losses_add_up_over_what_a_filter_leaves_out(kernel: Kernel, printd: Task) -> None:
    other = kernel.create_task("other")
    ports = [printd.allocate_port().make_send(task) for task in (printd, other)]
    with kernel.watch("permission=send", "to=printd", "task=other", records=2) as watch:
        ports[0].send(b"")
        ports[0].send(b"")
        ports[0].send(b"")  # lost, though it would have been left out: nobody looked at it yet
        assert watch.take() == []
        ports[0].send(b"")  # left out where it happens
        ports[1].send(b"")
        [record] = watch.take()
        assert (record.task_name, record.lost) == ("other", 1)


def test_time_is_exact_or_simulated() -> None:
    clock = SimulatedClock(5.0)
    with Kernel(clock=clock) as kernel, kernel.watch() as watch:
        port = kernel.create_task("a").allocate_port()
        clock.advance(1.5)
        port.make_send(port.task)
        assert {record.time for record in watch.take()} == {6.5}


def test_iteration_ends_with_the_watch(kernel: Kernel, printer: SendRight) -> None:
    watch = kernel.watch("permission=send")
    printer.send(b"page", msgh_id=1200)
    assert next(iter(watch)).size == 4
    watch.close()
    watch.close()
    assert list(watch) == []
    assert watch.closed
    with pytest.raises(KernelClosed):
        watch.take()


def test_iteration_ends_with_the_kernel() -> None:
    with Kernel() as kernel:
        watch = kernel.watch()
    assert list(watch) == []
    watch.close()


def test_a_name_outlives_its_task(kernel: Kernel, printd: Task) -> None:
    inbox = printd.allocate_port()
    with kernel.watch("permission=send") as watch:
        task = kernel.create_task("brief")
        right = inbox.make_send(task)
        right.send(b"")
        assert [record.task_name for record in watch.take()] == ["brief"]
        right.send(b"")
        task.terminate()
        assert [record.task_name for record in watch.take()] == ["brief"]


def test_audit_is_what_it_is_without() -> None:
    def audited(watched: bool) -> list[tuple[object, ...]]:
        with Kernel([Clerk()], clock=SimulatedClock()) as kernel:
            kernel.audit.select("all", "mach_port", "send recv")
            watches = [kernel.watch(), kernel.watch("class=mach_port")] if watched else []
            server = kernel.create_task("server", label="clerk/printer")
            port = server.allocate_port()
            right = port.make_send(kernel.create_task("client", label="clerk/shy"))
            right.send(b"1")
            with pytest.raises(MachError):
                port.receive(timeout=0)
            with pytest.raises(MachError):
                server.receive(0x77703, timeout=0)
            records = [tuple(record) for record in kernel.audit.batch(kernel.audit.drain())]
            for watch in watches:
                watch.close()
            return records

    assert audited(True) == audited(False) != []


def test_as_many_as_there_may_be(kernel: Kernel) -> None:
    watches = [kernel.watch() for _ in range(16)]
    with pytest.raises(MachError) as caught:
        kernel.watch()
    assert caught.value.name == "KERN_NO_SPACE"
    watches.pop().close()
    kernel.watch().close()
    with pytest.raises(MachError):
        kernel.watch(records=1 << 30)
    for watch in watches:
        watch.close()


# ---- filters ----


Seen = Callable[..., list[str]]


@pytest.fixture
def seen(kernel: Kernel, printer: SendRight, printd: Task) -> Seen:
    """What a filter shows of some traffic, as the operations."""

    def run(*words: str) -> list[str]:
        with kernel.watch(*words) as watch:
            printer.send(b"page", msgh_id=1200)
            with pytest.raises(AccessDenied):
                printer.send(b"mine", msgh_id=1201)
            inbox = printd.allocate_port()
            inbox.make_send(printd).send(b"")
            inbox.receive()
            return [f"{r.task_name} {r.operation} {r.routine}".strip() for r in watch.take()]

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["task=editor", "permission=send"], ["editor send"]),
        (["task=2", "permission=send"], ["editor send"]),
        (["task=ed*", "outcome=denied"], ["editor method set_default"]),
        (["task=nobody"], []),
        (["to=printd", "permission=send"], ["editor send", "printd send"]),
        (["to=1", "task=editor", "class=mach_port"], ["editor send"]),
        (["to=editor", "permission=send"], []),
        (["label=clerk/ed?tor", "permission=send"], ["editor send"]),
        (["label=clerk/*", "permission=send"], ["editor send", "printd send"]),
        (["label=te/*", "outcome=granted"], []),
        (["class=mi_*"], ["editor method print_page", "editor method set_default"]),
        (["routine=print_page"], ["editor method print_page"]),
        (["class=mi_printing", "outcome=denied"], ["editor method set_default"]),
        (["permission=recv"], ["printd receive"]),
        (["permission=use_recv", "outcome=granted"], ["printd receive"]),
        (["permission=recv", "outcome=denied"], []),
    ],
)
def test_filters(seen: Seen, words: list[str], expected: list[str]) -> None:
    assert seen(*words) == expected


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["colour=red"], "no filter 'colour=red'; there are: task=, to=, label=, class="),
        (["task"], "no filter 'task'"),
        (["task="], "no filter 'task='"),
        (["task=a", "task=b"], "task= is there twice"),
        (["task=" + "x" * 257], "task= has at most 256 characters, not 257"),
        (["outcome=maybe"], "no outcome 'maybe'; there are: granted, denied, failed"),
        (["class=mi_none"], "no class 'mi_none'; there are: mach_port, mach_task, service, kernel"),
        (
            ["class=mach_port", "service=x"],
            "'mach_port' that service= is about; there are: service",
        ),
        (["permission=fly"], "no permission 'fly'; there are: "),
        (["class=kernel", "permission=send"], "no permission 'send'; there are: "),
        (["routine=fly"], "no routine 'fly'; these classes have no routines"),
    ],
)
def test_filters_that_are_none_say_what_there_is(words: list[str], complaint: str) -> None:
    with Kernel() as kernel:
        with pytest.raises(ValueError) as caught:
            kernel.watch(*words)
        assert complaint in str(caught.value)
        assert kernel.watch(*[f"{key}=*" for key in ("task", "to", "label", "class")]).lost == 0


@pytest.mark.usefixtures("printer")
def test_routines_that_there_are_are_listed(kernel: Kernel) -> None:
    with pytest.raises(ValueError, match=r"no routine 'x'; there are: print_page, set_default$"):
        kernel.watch("routine=x")
    assert set(FILTERS) >= {"task", "routine", "outcome"}


def test_classes_that_come_later_are_watched() -> None:
    with Kernel() as kernel, kernel.watch() as every, kernel.watch("class=m*") as some:
        port = kernel.create_task("a").allocate_port()
        port.serve(PRINTING)
        right = port.make_send(port.task)
        some.take()
        right.send(b"", msgh_id=1200)
        for watch in (every, some):
            assert "print_page" in [record.routine for record in watch.take()]


def test_services_by_name() -> None:
    with Kernel() as kernel:
        editor = kernel.create_task("editor")
        _ = editor.bootstrap
        with kernel.watch("service=com.*") as watch:
            for name in ("com.example.a", "org.example.b"):
                editor.bootstrap.create_service(name)
            [record] = watch.take()
        assert (record.service, record.receiver_name) == ("com.example.a", "bootstrap")


def test_a_label_that_comes_back_under_another_number_is_seen() -> None:
    """What is left out is left out by number: a number that is another label's is not."""
    with Kernel([Partition()]) as kernel, kernel.watch("label=partition/b") as watch:
        for label in ("partition/a", "partition/b", "partition/c", "partition/b"):
            task = kernel.create_task("x", label=label)
            port = task.allocate_port()
            port.make_send(task)
            assert bool(watch.take()) == (label == "partition/b")
            task.terminate()


def test_filter_of_no_words_wants_everything() -> None:
    assert Filter().errors
    assert Filter().every_class
    assert not Filter(["service=x"]).errors


# ---- messages ----


def happenings(kernel: Kernel, act: Callable[[], object], *words: str) -> list[Happening]:
    joiner = Joiner()
    with kernel.watch(*words) as watch:
        act()
        return [*joiner.add(watch.take()), *joiner.flush()]


def test_a_reply_is_joined_to_its_request(kernel: Kernel, printer: SendRight, inbox) -> None:
    right = inbox.make_send(printer.task)
    request, reply = happenings(kernel, lambda: call(right, inbox))
    assert (request.kind, request.what, request.latency) == ("message", "print_page", None)
    assert request.reply_port
    assert (reply.kind, reply.what, reply.request) == (
        "reply", "print_page", request.record.transfer,
    )  # fmt: skip
    assert reply.latency == pytest.approx(reply.record.time - request.record.time)
    assert reply.record.receiver_name == "editor"


def test_two_requests_in_flight_are_told_apart(kernel: Kernel, printd: Task) -> None:
    inbox = printd.allocate_port()
    clients = [kernel.create_task(name) for name in ("a", "b")]

    def act() -> None:
        for number, client in enumerate(clients):
            reply = client.allocate_port()
            inbox.make_send(client).send(b"", reply=reply, msgh_id=number)
        messages = [inbox.receive(), inbox.receive()]
        for message in reversed(messages):
            message.reply(b"")

    *_, first, second = [h for h in happenings(kernel, act, "class=mach_port") if h.latency]
    assert [(h.what, h.record.receiver_name) for h in (first, second)] == [
        ("send 1", "b"), ("send 0", "a"),
    ]  # fmt: skip


def test_a_reply_to_what_was_not_seen(kernel: Kernel, printer: SendRight, inbox) -> None:
    right = inbox.make_send(printer.task)
    [reply] = happenings(kernel, lambda: call(right, inbox), "task=printd", "permission=send")
    assert (reply.kind, reply.latency, reply.request) == ("reply", None, 0)


def test_receives_that_are_asked_for_are_shown(kernel: Kernel, printd: Task) -> None:
    inbox = printd.allocate_port()
    right = inbox.make_send(printd)

    def act() -> None:
        right.send(b"")
        inbox.receive()

    [received] = happenings(kernel, act, "permission=recv")
    assert (received.kind, received.what) == ("decision", "use_recv")
    [sent] = happenings(kernel, act)
    assert sent.kind == "message"


def test_losses_are_handed_on(kernel: Kernel, printd: Task) -> None:
    right = printd.allocate_port().make_send(printd)
    joiner = Joiner()
    with kernel.watch("permission=send", records=2) as watch:
        for _ in range(4):
            right.send(b"")
        records: list[WatchRecord] = watch.take()
        right.send(b"")
        records += watch.take()
    assert [h.lost for h in [*joiner.add(records), *joiner.flush()]] == [0, 0, 2]


def test_one_value_of_a_label_is_enough() -> None:
    with Kernel(policies=[allow_all(), Stub()]) as kernel:
        task = kernel.create_task("task", label="rules/a,stub/b")
        right = task.allocate_port().make_send(task)
        for pattern, found in (("stub/b", 1), ("rules/a", 1), ("rules/a,stub/b", 1), ("b", 0)):
            with kernel.watch(f"label={pattern}", "permission=send") as watch:
                right.send(b"")
                assert len(watch.take()) == found
