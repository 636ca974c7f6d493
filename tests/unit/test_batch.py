# SPDX-License-Identifier: BSD-2-Clause
"""Many messages in one call: what is done, what is reported, what cannot be an array."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pympi import InvalidName, Kernel, KernelClosed, MachError, Message, Task, batch, mach
from pympi._ffi import lib
from pympi.enums import Disposition
from pympi.policy import Rules


def rows(count: int, size: int = 4) -> Any:
    return np.arange(count * size, dtype=np.uint8).reshape(count, size)


def room(count: int, size: int = 8) -> Any:
    return np.zeros((count, size), np.uint8)


# ---- send_many and receive_many ----


def test_rows_go_and_come(server: Task, client: Task) -> None:
    inbox = server.allocate_port(qlimit=10)
    right = inbox.make_send(client)
    codes = right.send_many(rows(3), msgh_id=[7, 8, 9])
    assert codes.tolist() == [0, 0, 0]
    got = inbox.receive_many(out := room(5))
    assert got.stopped == mach.MACH_RCV_TIMED_OUT
    assert got.results["msgh_id"].tolist() == [7, 8, 9]
    assert got.results["size"].tolist() == [4, 4, 4]
    assert set(got.results["sender"].tolist()) == {client.id}
    assert got.results["seqno"].tolist() == [0, 1, 2]
    assert (np.diff(got.results["transfer"].astype(int)) == 1).all()
    assert (out[:3, :4] == rows(3)).all()
    assert not out[3:].any()
    right.send_many(rows(1), msgh_id=np.int32(-7))  # as send() takes it
    assert inbox.receive(timeout=0).msgh_id == -7


STRUCTURE = np.dtype([("when", "<f8"), ("what", "<u2")])


@pytest.mark.parametrize(
    ("bodies", "sizes", "sent"),
    [
        (b"onetwothree", [3, 3, 5], [b"one", b"two", b"three"]),
        (bytearray(b"onetwo"), np.array([3, 3]), [b"one", b"two"]),
        ([b"one", bytearray(b""), memoryview(b"three")], None, [b"one", b"", b"three"]),
        (rows(2), [1, 4], [b"\0", b"\4\5\6\7"]),
        (np.zeros((3, 0), np.uint8), None, [b"", b"", b""]),
        (np.array([(1.0, 2)], STRUCTURE), None, [np.array([(1.0, 2)], STRUCTURE).tobytes()]),
        (np.array([[1, 2], [3, 4]], "<u2"), None, [b"\1\0\2\0", b"\3\0\4\0"]),
        (b"", [], []),
        ([], None, []),
        (rows(0), None, []),
    ],
)
def test_what_bodies_may_be(
    server: Task, client: Task, bodies: Any, sizes: Any, sent: list[bytes]
) -> None:
    inbox = server.allocate_port(qlimit=10)
    assert inbox.make_send(client).send_many(bodies, sizes=sizes).tolist() == [0] * len(sent)
    assert [inbox.receive(timeout=0).body for _ in sent] == sent
    assert not inbox.status.msgcount


def test_structures_come_as_structures(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    events = np.array([(1.5, 2), (2.5, 3)], STRUCTURE)
    inbox.make_send(client).send_many(events)
    out = np.zeros(2, STRUCTURE)
    assert inbox.receive_many(out).stopped == 0
    assert (out == events).all()


def test_none_overtakes_where_the_queue_is_full(server: Task, client: Task) -> None:
    inbox = server.allocate_port(qlimit=2)
    right = inbox.make_send(client)
    codes = right.send_many(rows(4))
    assert codes.tolist() == [0, 0, mach.MACH_SEND_TIMED_OUT, mach.MACH_SEND_TIMED_OUT]
    inbox.receive_many(room(2))
    assert not right.send_many(rows(4)[codes != 0]).any()


def test_more_than_gives_the_gil_up_for(server: Task, client: Task) -> None:
    inbox = server.allocate_port(qlimit=1024)
    right, many = inbox.make_send(client), rows(3000, 2)
    assert (right.send_many(many) == 0).sum() == 1024
    got = inbox.receive_many(out := room(3000, 2))
    assert len(got.results) == 1024
    assert (out[:1024] == many[:1024]).all()


def test_what_brings_rights_or_is_too_large_stays(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    right = inbox.make_send(client)
    right.send(b"plain")
    right.send(b"with a right", rights=[right.copy_send()])
    right.send(b"x" * 9)
    right.send(b"memory", memory=[b"m"])
    assert inbox.receive_many(room(9)).results["size"].tolist() == [5]
    for body in (b"with a right", b"x" * 9, b"memory"):
        stopped = inbox.receive_many(room(9))
        assert (len(stopped.results), stopped.stopped) == (0, mach.MACH_RCV_TOO_LARGE)
        with inbox.receive(timeout=0) as message:
            assert message.body == body


RULES = """
    allow client public mach_port { send copy_send };
    allow client secret mach_port { copy_send hold_send };
    allow server public mach_port { use_recv make_send };
    allow server secret mach_port { use_recv make_send };
    allow server client mach_port { recv };
    allow client public mach_port { hold_send };
    allow server server mach_port { relabelfrom };
    allow server public mach_port { relabelto };
    allow server secret mach_port { relabelto };
"""


def test_refusals_are_codes_and_are_recorded() -> None:
    with Kernel(policies=[Rules.from_text(RULES)]) as kernel:
        server = kernel.create_task("server", "rules/server")
        client = kernel.create_task("client", "rules/client")
        inbox = server.allocate_port("rules/secret")
        codes = inbox.make_send(client).send_many(rows(3))
        assert codes.tolist() == [mach.MACH_SEND_INVALID_DEST] * 3
        records = kernel.audit.batch(kernel.audit.drain())
        assert [record.denied for record in records] == [("send",)] * 3
        kernel.verify()


def test_a_refused_message_takes_a_place() -> None:
    rules = Rules.from_text(RULES.replace("allow server client mach_port { recv };", ""))
    with Kernel(policies=[rules]) as kernel:
        server = kernel.create_task("server", "rules/server")
        client = kernel.create_task("client", "rules/client")
        inbox = server.allocate_port("rules/public")
        inbox.make_send(client).send_many(rows(2))
        got = inbox.receive_many(room(4))
        assert got.results["code"].tolist() == [mach.MACH_RCV_INVALID_DATA] * 2
        assert got.stopped == mach.MACH_RCV_TIMED_OUT
        kernel.verify()


def test_ports_that_are_not_there(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    right = inbox.make_send(client)
    inbox.close()
    assert right.send_many(rows(2)).tolist() == [mach.MACH_SEND_INVALID_DEST] * 2
    gone = inbox.receive_many(room(1))
    assert (len(gone.results), gone.stopped) == (0, mach.MACH_RCV_INVALID_NAME)


NOT_ROWS: list[Any] = [
    b"bytes",
    np.zeros(4, np.uint8),
    np.float64(1),
    7,
    np.array([[b"x", None]], object),
    np.zeros((4, 4), np.uint8)[:, ::2],
    np.asfortranarray(np.zeros((4, 4), np.uint8)),
    np.zeros(2, np.dtype([("o", object)])),
]


@pytest.mark.parametrize("wrong", NOT_ROWS, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_array_of_messages(server: Task, client: Task, wrong: Any) -> None:
    inbox = server.allocate_port()
    right = inbox.make_send(client)
    with pytest.raises((TypeError, ValueError), match="what is sent"):
        right.send_many(wrong)
    with pytest.raises((TypeError, ValueError), match="room for messages"):
        inbox.receive_many(wrong)
    assert not inbox.status.msgcount


@pytest.mark.parametrize(
    ("bodies", "arguments", "error"),
    [
        (b"abc", {"sizes": [-1]}, OverflowError),
        (b"abc", {"sizes": [1 << 40]}, OverflowError),
        (b"abc", {"sizes": [1.5]}, TypeError),
        (b"abc", {"sizes": [[1]]}, TypeError),
        (rows(3), {"sizes": [1, 1]}, TypeError),
        (rows(3), {"msgh_id": [1, 2]}, TypeError),
        (rows(3), {"msgh_id": [1.0, 2.0, 3.0]}, TypeError),
        (rows(3), {"msgh_id": [0, 0, 1 << 31]}, OverflowError),
        (rows(3), {"msgh_id": 1 << 31}, OverflowError),
        ([b"a", "b"], {}, TypeError),
        ([b"abc"], {"sizes": [1]}, TypeError),
        (np.array([b"x", None], object), {"sizes": [8, 8]}, TypeError),
        (memoryview(np.array([b"x"], object)), {"sizes": [8]}, TypeError),
    ],
)
def test_wrong_sizes_and_numbers(
    server: Task, client: Task, bodies: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    inbox = server.allocate_port()
    with pytest.raises(error):
        inbox.make_send(client).send_many(bodies, **arguments)
    assert not inbox.status.msgcount


def test_errors_name_what_is_wrong(server: Task, client: Task) -> None:
    right = server.allocate_port().make_send(client)
    with pytest.raises(OverflowError, match="msgh_id is a number from -2147483648 to"):
        right.send_many(rows(3), 1 << 31)
    with pytest.raises(TypeError, match="bytes with sizes, not bytes"):
        right.send_many(b"abc")


def test_sizes_and_numbers_need_not_be_aligned(server: Task, client: Task) -> None:
    """The core reads whole words; a sanitizer would say so (make asan)."""
    inbox, odd = server.allocate_port(), np.frombuffer(bytearray(9), np.uint8)[1:]
    sizes, ids = odd.view(np.uint32), odd.view(np.int32)
    assert not inbox.make_send(client).send_many(b"", sizes=sizes, msgh_id=ids).any()
    assert server.kernel.check_many(sizes, sizes, sizes, sizes).tolist() == [True, True]


def test_a_size_beyond_the_buffer_is_the_elements_own_fault(server: Task, client: Task) -> None:
    inbox = server.allocate_port()
    right = inbox.make_send(client)
    assert right.send_many(b"abcdef", sizes=[3, 9, 1]).tolist() == [
        0,
        *[mach.KERN_INVALID_ARGUMENT] * 2,
    ]
    assert right.send_many(rows(2), sizes=[5, 4]).tolist() == [mach.KERN_INVALID_ARGUMENT, 0]
    assert inbox.status.msgcount == 2


def test_room_must_be_writable(server: Task) -> None:
    out = room(2)
    out.flags.writeable = False
    with pytest.raises((BufferError, ValueError), match="read-only"):
        server.allocate_port().receive_many(out)
    with pytest.raises(ValueError, match="no bytes"):
        server.allocate_port().receive_many(np.zeros((2, 0), np.uint8))


# ---- rpc_many ----


def test_calls_are_answered_in_order(server: Task, client: Task) -> None:
    port = server.create_handler(lambda request: request.reply(request.body[::-1]))
    got = port.make_send(client).rpc_many(rows(3), out := room(3), msgh_id=100)
    assert got.results["code"].tolist() == [0, 0, 0]
    assert got.results["msgh_id"].tolist() == [200] * 3
    assert (out[:, :4] == rows(3)[:, ::-1]).all()


def test_each_call_fails_by_itself(kernel: Kernel, server: Task, client: Task) -> None:
    def answer(request: Message) -> None:
        if request.body == b"close":
            request.close()
        elif request.body == b"right":
            request.reply(b"", rights=[port.make_send()])
        elif request.body == b"large":
            request.reply(bytes(100))
        elif request.body == b"late":
            kept.append(request)
        else:
            request.reply(request.body)

    kept: list[Message] = []
    port = server.create_handler(answer)
    right = port.make_send(client)
    requests = [b"1", b"close", b"2", b"right", b"large", b"3", b"late", b"4"]
    got = right.rpc_many(requests, out := room(8), timeout=0)
    assert got.results["code"].tolist() == [
        0, mach.MACH_RCV_PORT_DIED, 0, mach.MACH_RCV_TOO_LARGE, mach.MACH_RCV_TOO_LARGE, 0,
        mach.MACH_RCV_TIMED_OUT, 0,
    ]  # fmt: skip
    assert [bytes(out[i, :1]) for i in (0, 2, 5, 7)] == [b"1", b"2", b"3", b"4"]
    with pytest.raises(MachError):
        kept[0].reply(b"too late")
    kernel.verify()


def test_calls_wait_for_a_server(server: Task, client: Task) -> None:
    inbox = server.allocate_port()

    def serve() -> None:
        for _ in range(20):
            inbox.receive(timeout=20).reply(b"ok")

    thread = threading.Thread(target=serve)
    thread.start()
    got = inbox.make_send(client).rpc_many(rows(20), room(20), timeout=20)
    thread.join()
    assert not got.results["code"].any()


def test_the_time_is_for_all_calls(server: Task, client: Task) -> None:
    right = server.allocate_port(qlimit=3).make_send(client)
    got = right.rpc_many(rows(5), room(5), timeout=0.01)
    assert set(got.results["code"].tolist()) <= {
        mach.MACH_RCV_TIMED_OUT, mach.MACH_SEND_TIMED_OUT,
    }  # fmt: skip
    with pytest.raises(ValueError, match="room for 2 answers to 5"):
        right.rpc_many(rows(5), room(2))


# ---- submit ----


def operation(**fields: Any) -> Any:
    made = batch.operations(1)
    for field, value in fields.items():
        made[field] = value
    return made


def test_operations_of_many_tasks(kernel: Kernel, server: Task, client: Task) -> None:
    inbox, answers = server.allocate_port(), client.allocate_port()
    right = inbox.make_send(client)
    ops, data = batch.operations(3), bytearray(b"ask" + bytes(20))
    ops["op"] = batch.SEND, batch.RECEIVE, batch.NOTHING
    ops["task"] = client.id, server.id, 0
    ops["name"] = right.name, inbox.name, 0
    ops["offset"], ops["length"] = (0, 3, 0), (3, 10, 0)
    ops["msgh_id"] = 5, 0, 0
    ops["reply"] = answers.name, 0, 0
    ops["right"], ops["disposition"] = right.name, [Disposition.COPY_SEND, 0, 0]
    assert kernel.submit(ops, data) == 3
    sent, got, _ = ops
    assert data[3:6] == b"ask"
    assert (got["length"], got["msgh_id"], got["sender"]) == (3, 5, client.id)
    assert (got["sender_sid"], got["transfer"]) == (client.sid, sent["transfer"])
    assert server.right(int(got["right"])).name == inbox.name  # the port's own receive right
    reply = operation(op=batch.SEND, task=server.id, name=got["reply"], length=3, msgh_id=6)
    assert kernel.submit(reply, data) == 1
    assert answers.receive(timeout=0).msgh_id == 6


LARGE = 8192
"""Tasks or ports, from which on a batch looks ahead."""


@pytest.mark.parametrize(("tasks", "ports"), [(0, 0), (LARGE, 0), (0, LARGE)])
def test_each_operation_fails_by_itself(
    kernel: Kernel, server: Task, client: Task, tasks: int, ports: int
) -> None:
    crowd = [kernel.create_task("one of many") for _ in range(tasks)]
    crowd += [server.allocate_port().task for _ in range(ports)]
    inbox = server.allocate_port(qlimit=1)
    right = inbox.make_send(client)
    good = {"op": batch.SEND, "task": client.id, "name": right.name, "length": 1}
    wrong = [
        (good | {"name": 2**32 - 1}, mach.MACH_SEND_INVALID_DEST),
        (good | {"task": 2**32 - 1}, mach.KERN_INVALID_TASK),
        (good | {"op": 77}, mach.KERN_INVALID_ARGUMENT),
        (good | {"offset": 3}, mach.KERN_INVALID_ARGUMENT),
        (good | {"offset": 2**64 - 1}, mach.KERN_INVALID_ARGUMENT),
        (good | {"name": 0}, mach.MACH_SEND_INVALID_DEST),
        (good | {"right": 1, "disposition": 99}, mach.MACH_SEND_INVALID_TYPE),
        (good | {"right": 1, "disposition": 19}, mach.MACH_SEND_INVALID_RIGHT),
        (good, 0),
        (good, mach.MACH_SEND_TIMED_OUT),
        (good | {"op": batch.RECEIVE}, mach.MACH_RCV_INVALID_NAME),
    ]
    ops = np.concatenate([operation(**fields) for fields, _ in wrong])
    assert kernel.submit(ops, bytearray(3)) == 1
    assert ops["result"].tolist() == [code for _, code in wrong]
    client.terminate()
    assert kernel.submit(operation(**good), bytearray(3)) == 0


def test_handlers_run_within_a_batch(kernel: Kernel, server: Task, client: Task) -> None:
    seen: list[bytes] = []

    def handle(message: Message) -> None:
        seen.append(message.body)
        if message.body == b"end":
            client.terminate()

    right = server.create_handler(handle).make_send(client)
    data = bytearray(b"1 2 end4 ")
    ops = batch.operations(4)
    ops["op"], ops["task"], ops["name"] = batch.SEND, client.id, right.name
    ops["offset"], ops["length"] = (0, 2, 4, 7), (1, 1, 3, 1)
    assert kernel.submit(ops, data) == 3
    assert seen == [b"1", b"2", b"end"]
    assert ops["result"].tolist() == [0, 0, 0, mach.KERN_INVALID_TASK]


def test_a_batch_survives_the_end_of_its_kernel() -> None:
    kernel = Kernel()
    server, client = kernel.create_task("server"), kernel.create_task("client")
    right = server.create_handler(lambda _: kernel.close()).make_send(client)
    ops = batch.operations(3)
    ops["op"], ops["task"], ops["name"] = batch.SEND, client.id, right.name
    assert kernel.submit(ops, bytearray()) == 1
    assert ops["result"].tolist()[1:] == [mach.KERN_INVALID_TASK] * 2
    with pytest.raises(KernelClosed):
        kernel.submit(ops, bytearray())


def test_another_thread_closes_the_kernel_as_the_gil_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No object of a task is left by then; the kernel is kept until the call ends."""
    kernel = Kernel()
    kernel.create_task("only")

    def closed_meanwhile(*arguments: Any) -> Any:
        kernel.close()
        return lib.pm_long_submit(*arguments)

    slow = SimpleNamespace(pm_submit=lib.pm_submit, pm_long_submit=closed_meanwhile)
    monkeypatch.setattr(batch, "lib", slow)
    ops = batch.operations(5000)
    ops["op"] = batch.SEND
    assert kernel.submit(ops, bytearray()) == 0
    assert set(ops["result"].tolist()) == {mach.KERN_INVALID_TASK}


def test_a_task_comes_while_one_is_looked_for() -> None:
    class Growing(dict[int, Task]):
        def values(self) -> Any:
            found = iter(super().values())
            if len(self) == 1:
                self[task.id + 1] = task  # as another thread may
            return found

    with Kernel() as kernel:
        task = kernel.create_task("task")
        kernel.tasks = Growing(kernel.tasks)
        assert kernel.submit(batch.operations(2000), bytearray()) == 2000
        assert len(kernel.tasks) == 2
        kernel.tasks = {task.id: task}


def test_many_operations_of_nobody() -> None:
    with Kernel() as kernel:
        ops = batch.operations(2000)
        ops["op"] = batch.RECEIVE
        assert kernel.submit(ops, bytearray()) == 0
        assert set(ops["result"].tolist()) == {mach.KERN_INVALID_TASK}


def test_nobody_resizes_what_the_core_works_on(kernel: Kernel, server: Task, client: Task) -> None:
    data, raised = bytearray(8), []

    def shrink(_message: Message) -> None:
        try:
            data.clear()
        except BufferError as error:
            raised.append(error)

    right = server.create_handler(shrink).make_send(client)
    ops = operation(op=batch.SEND, task=client.id, name=right.name, length=8)
    assert kernel.submit(ops, data) == 1
    assert raised
    data.clear()  # afterwards it is its owner's again


@pytest.mark.parametrize(
    "wrong",
    [
        b"bytes",
        [1, 2],
        np.zeros(3, np.uint32),
        np.zeros(1, batch.OPERATION.newbyteorder()),
        np.zeros(1, batch.RESULT),
        np.zeros((2, 2), batch.OPERATION),
        np.zeros(4, batch.OPERATION)[::2],
        np.frombuffer(bytes(64), batch.OPERATION),
        np.frombuffer(bytearray(65), np.uint8)[1:].view(batch.OPERATION),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_are_no_operations(kernel: Kernel, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="operations"):
        kernel.submit(wrong, bytearray(10))


def test_data_must_be_writable(kernel: Kernel) -> None:
    objects = np.array([b"x", None], object)
    for data in (b"bytes", "text", None, np.zeros((4, 4))[:, 1], objects, memoryview(objects)):
        with pytest.raises((TypeError, ValueError, BufferError)):
            kernel.submit(batch.operations(1), data)


def test_many_operations_beside_other_threads(kernel: Kernel) -> None:
    """The GIL is given up, so others send at the same time; what is counted adds up."""
    server, client = kernel.create_task("server"), kernel.create_task("client")
    ports = [server.allocate_port(qlimit=1024) for _ in range(4)]
    rights = [port.make_send(client) for port in ports]
    counts: list[int] = []

    def run(right_name: int) -> None:
        ops = batch.operations(3000)
        ops["op"], ops["task"], ops["name"] = batch.SEND, client.id, right_name
        counts.append(kernel.submit(ops, bytearray()))

    threads = [threading.Thread(target=run, args=(right.name,)) for right in rights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1024] * 4
    assert sum(len(port.receive_many(room(3000)).results) for port in ports) == 4096
    with pytest.raises(InvalidName):
        server.receive(12345, timeout=0)


def test_an_interrupt_within_a_batch_loses_nothing(server: Task, client: Task) -> None:
    def interrupted(_: Message) -> None:
        raise KeyboardInterrupt

    right, other = server.create_handler(interrupted).make_send(client), server.allocate_port()
    assert right.send_many(rows(3)).tolist() == [0, 0, 0]  # and each was handled
    with pytest.raises(KeyboardInterrupt):
        other.make_send(client).send(b"")
    assert server.kernel.stats()["handler_failures"] == 3
