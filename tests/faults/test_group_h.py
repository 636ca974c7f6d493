# SPDX-License-Identifier: BSD-2-Clause
"""Group H, memory and limits: an error at that very operation; the books are right; retry works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from background import output, program
from faults.world import MOVE_RECEIVE, SEND, message, port

from pympi import AccessDenied, Kernel, MachError, Memory, Quota, Task, mach
from pympi._ffi import BUILD, ffi, lib
from pympi.enums import Notification, SpecialPort
from pympi.mig import Interface
from pympi.policy import Stub
from pympi.port import ReceiveRight, SendRight
from pympi.testing import allow_all

pytestmark = pytest.mark.timeout(120, method="thread")

SANITIZED = "address" in BUILD or "thread" in BUILD
SHORTAGES = {
    mach.KERN_RESOURCE_SHORTAGE,
    mach.MACH_SEND_NO_BUFFER,
    mach.KERN_NO_SPACE,
    mach.MACH_RCV_BODY_ERROR | mach.MACH_MSG_IPC_SPACE,
    mach.MACH_RCV_HEADER_ERROR | mach.MACH_MSG_IPC_SPACE,
}


@dataclass
class Scene:
    kernel: Kernel
    server: Task
    client: Task
    inbox: ReceiveRight
    right: SendRight

    @classmethod
    @contextmanager
    def open(cls, checked: bool) -> Iterator[Scene]:
        with Kernel(policies=[Stub(), allow_all()] if checked else [], audit_records=64) as kernel:
            label = "rules/a" if checked else None
            server = kernel.create_task("server", label=label)
            client = kernel.create_task("client", label=label)
            inbox = server.allocate_port(qlimit=1000)
            yield cls(kernel, server, client, inbox, inbox.make_send(client))


def send(scene: Scene) -> None:
    scene.right.send(b"x" * 3000, timeout=0)


def send_rights(scene: Scene) -> None:
    own = [scene.client.allocate_port() for _ in range(3)]
    rights = [own[0].move_receive(), own[1].make_send(), own[2].make_send_once()]
    memory = [Memory(b"m" * 100)]
    scene.right.send(b"x", rights=rights, reply=own[2], memory=memory, timeout=0)


def receive(scene: Scene) -> None:
    own = scene.client.allocate_port()
    scene.right.send(b"x", rights=[own.make_send(), own.make_send_once()], timeout=0)
    with scene.inbox.receive(timeout=0) as message:
        assert message.body == b"x"


def receive_many_rights(scene: Scene) -> None:
    own = [scene.client.allocate_port() for _ in range(80)]
    scene.right.send(b"x", rights=[o.move_receive() for o in own], timeout=0)
    message = scene.inbox.receive(timeout=0)
    assert len(message.rights) == 80
    message.close()


def call(scene: Scene) -> None:
    handler = scene.server.create_handler(lambda request: request.reply(b"yes"))
    assert handler.make_send(scene.client).call(b"?", timeout=1).body == b"yes"


def many_ports(scene: Scene) -> None:
    for _ in range(600):
        scene.server.allocate_port().make_send(scene.client)


def tasks(scene: Scene) -> None:
    child = scene.kernel.create_task("child", parent=scene.client, quota=Quota(ports=3))
    scene.client.set_special_port(SpecialPort.BOOTSTRAP, scene.right)
    assert scene.client.get_special_port(SpecialPort.BOOTSTRAP)
    scene.client.register_ports([scene.right])
    child.terminate()


def sets(scene: Scene) -> None:
    ports = [scene.server.allocate_port() for _ in range(5)]
    with scene.server.create_port_set(*ports) as both:
        assert len(both.members()) == 5
        ports[0].make_send(scene.client).send(b"x", timeout=0)
        assert both.receive(timeout=0).body == b"x"


def notifications(scene: Scene) -> None:
    told = scene.client.allocate_port()
    scene.right.request_notification(Notification.DEAD_NAME, told)
    replaced = scene.right.cancel_notification(Notification.DEAD_NAME)
    assert replaced is not None
    replaced.close()


def labels(scene: Scene) -> None:
    label = "rules/b" if len(scene.kernel.policies) else "-"
    task = scene.kernel.create_task("labelled", label=label)
    task.allocate_port().relabel(label)
    task.relabel(label)


def policies(scene: Scene) -> None:
    scene.kernel.policies.permissive = True
    scene.kernel.policies.permissive = False
    assert scene.kernel.access(scene.client, scene.inbox, "mach_port", "send")


def interfaces(scene: Scene) -> None:
    own = scene.server.allocate_port()
    own.serve(Interface("numbers", 7000, [f"routine_{i}" for i in range(40)]))
    own.make_send(scene.client).send(b"", 7003, timeout=0)


def wire(scene: Scene) -> None:
    own = scene.client.allocate_port()
    raw = message(scene.right.name, descriptors=(port(own.name, MOVE_RECEIVE),), body=b"1234")
    code, _ = mach.mach_msg(scene.client, raw, SEND)
    if code:
        raise MachError(code)


def memory(scene: Scene) -> None:
    address = mach.vm_allocate(scene.client, 10_000)
    mach.vm_write(scene.client, address, b"data")
    assert mach.vm_read(scene.client, address, 4) == b"data"
    mach.vm_deallocate(scene.client, address, 10_000)


def tracing(scene: Scene) -> None:
    scene.kernel.trace.start()
    send(scene)
    scene.kernel.trace.stop()


OPERATIONS: list[Callable[[Scene], None]] = [
    send, send_rights, receive, receive_many_rights, call, many_ports, tasks, sets, notifications,
    labels, policies, interfaces, wire, memory, tracing,
]  # fmt: skip


def attempt(scene: Scene, operation: Callable[[Scene], None]) -> BaseException | None:
    try:
        operation(scene)
    except AccessDenied as error:  # the policy could not be asked
        return error
    except MachError as error:
        if error.code not in SHORTAGES:
            raise
        return error
    except (MemoryError, AssertionError) as error:  # a right that found no room is missed
        return error
    return None


@pytest.mark.parametrize("sticky", [0, 1], ids=["h1_once", "h2_from_there_on"])
@pytest.mark.parametrize("checked", [False, True], ids=["no_policy", "checked"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_h1_h2_each_allocation_fails(
    operation: Callable[[Scene], None], checked: bool, sticky: int
) -> None:
    for at in range(1, 500):
        with Scene.open(checked) as scene:
            pointer = scene.kernel.pointer
            lib.pm_kernel_fault(pointer, at, sticky)
            before = lib.pm_kernel_allocations(pointer)
            error = attempt(scene, operation)
            reached = lib.pm_kernel_allocations(pointer) - before >= at
            lib.pm_kernel_fault(pointer, 0, 0)
            scene.kernel.verify()
            if not reached:
                assert error is None
                break
            operation(scene)
            scene.kernel.verify()
    else:
        pytest.fail("the operation never came to its end")


@pytest.mark.parametrize("sticky", [0, 1], ids=["h1_once", "h2_from_there_on"])
def test_h1_h2_a_kernel_is_made_whole_or_not_at_all(sticky: int) -> None:
    for at in range(1, 50):
        config = ffi.new("struct pm_config *", {"fault_at": at, "fault_sticky": sticky})
        made = ffi.new("struct pm_kernel **")
        code = lib.pm_kernel_create(config, made)
        if code == 0:
            assert lib.pm_kernel_verify(made[0], ffi.NULL, 0) == 0
            lib.pm_kernel_destroy(made[0])
            break
        assert code == mach.KERN_RESOURCE_SHORTAGE
        assert made[0] == ffi.NULL
    else:
        pytest.fail("no kernel was ever made")
    assert at > 1, "there is an allocation that can fail"


def test_h3_tables_move_while_they_grow() -> None:
    """Names, hints and views hold across every growth of the table behind them."""
    with Scene.open(checked=True) as scene:
        own = scene.client.allocate_port()
        bound = scene.right.sender(timeout=0)
        for number in range(5000):
            scene.client.allocate_port()
            if number % 100 == 0:
                bound(b"x")
                scene.inbox.receive(timeout=0)
        assert own.port_id
        bound(b"last")
        assert scene.inbox.receive(timeout=0).body == b"last"
        scene.kernel.verify()


NO_MEMORY = """
    import sys
    try:
        import _testcapi
        _testcapi.set_nomemory
    except (ImportError, AttributeError):
        print("absent"); sys.exit()
    from pympi import Kernel, AccessDenied
    from pympi.policy import Rules
    import logging; logging.disable()

    def tried(prepare, operation, most):
        failures = 0
        for at in range(most):
            argument = prepare()
            try:
                _testcapi.set_nomemory(at, at + 1)
                try:
                    operation(argument)
                finally:
                    _testcapi.remove_mem_hooks()
            except (MemoryError, AccessDenied, SystemError):
                failures += 1  # SystemError: CPython 3.11 itself, where it cannot make a frame
            kernel.verify()
        return failures

    kernel = Kernel(policies=[Rules([("*", "*", "*", "*")])])
    task = kernel.create_task("t", label="rules/a")
    inbox = task.allocate_port(qlimit=1000)
    right = inbox.make_send(task)
    {body}
    kernel.close()
    print("done")
"""


def without_memory(body: str) -> None:
    done = program(NO_MEMORY.replace("{body}", body))
    if done.stdout == "absent\n":
        pytest.skip("this Python has no _testcapi.set_nomemory")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's allocator does not fail on demand")
def test_h4_memory_error_in_the_wrapper() -> None:
    without_memory(
        "assert tried(lambda: None, lambda _: right.send(b'x', rights=[inbox.make_send()]), 60)\n"
        "    assert tried(lambda: None, lambda _: task.allocate_port(), 60)\n"
        "    right.send(b'x'); assert inbox.receive(timeout=0).body == b'x'"
    )


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's allocator does not fail on demand")
def test_h5_memory_error_while_building_an_error() -> None:
    without_memory(
        "kernel.policies.replace('rules', Rules())\n"
        "    assert tried(lambda: None, lambda _: right.send(b'x'), 100) > 90\n"
        "    assert kernel.stats()['messages_queued'] == 0"
    )


@pytest.mark.parametrize("size", [1 << 50, 1 << 60, (1 << 64) - 4096, (1 << 64) - 1])
def test_h6_memory_that_cannot_be_mapped(size: int) -> None:
    with Scene.open(checked=False) as scene:
        with pytest.raises(MachError) as caught:
            mach.vm_allocate(scene.client, size)
        assert caught.value.code in {*SHORTAGES, mach.KERN_INVALID_ARGUMENT}
        scene.kernel.verify()
        memory(scene)


def test_h7_no_descriptor_is_left() -> None:
    assert output(
        """
        import asyncio, resource
        from pympi import Kernel, MachError
        with Kernel() as kernel:
            task = kernel.create_task("t")
            ports = [task.allocate_port() for _ in range(100)]
            loop = asyncio.new_event_loop()
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 4096))
            failed = 0
            for port in ports:
                try:
                    port.fileno()
                except MachError as error:
                    assert error.name == "KERN_RESOURCE_SHORTAGE", error
                    failed += 1
            assert failed > 50
            try:
                loop.run_until_complete(ports[0].receive_async())
            except (MachError, OSError) as error:
                print(type(error).__name__)
            kernel.verify()
            ports[99].make_send(task).send(b"x")
            assert ports[99].receive(timeout=0).body == b"x"
            resource.setrlimit(resource.RLIMIT_NOFILE, (400, 4096))
            assert ports[99].fileno() > 0
            ports[0].make_send(task).send(b"y")
            print(loop.run_until_complete(ports[0].receive_async()).body)
            loop.close()
        """
    ) == ["OSError", "b'y'"]


def test_h8_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "_start_new_thread", refuse, raising=False)
    monkeypatch.setattr(threading, "_start_joinable_thread", refuse, raising=False)
    with pytest.raises(RuntimeError):
        threading.Thread(target=print).start()
    with Scene.open(checked=True) as scene:
        for operation in (receive, call, sets, send):
            operation(scene)

        def interrupt(_request: object) -> None:
            raise KeyboardInterrupt

        interrupted = scene.server.create_handler(interrupt).make_send(scene.client)
        with pytest.raises(KeyboardInterrupt):
            interrupted.send(b"", timeout=0)


def test_h9_the_stack_is_nearly_used_up() -> None:
    with Scene.open(checked=True) as scene:
        outcomes: list[object] = []

        def dive(depth: int) -> None:
            try:
                dive(depth + 1)
            except RecursionError:
                if len(outcomes) < 60:
                    try:
                        outcomes.append(scene.right.send(b"x", timeout=0))
                    except (RecursionError, MachError) as error:
                        outcomes.append(type(error))
                    scene.kernel.policies.permissive ^= True

        try:
            dive(0)
        except RecursionError:
            outcomes.append(RecursionError)
        assert RecursionError in outcomes
        scene.kernel.policies.permissive = False
        scene.kernel.verify()
        sent = outcomes.count(None)
        assert scene.kernel.stats()["messages_queued"] == sent
        send(scene)


@pytest.mark.skipif(SANITIZED, reason="a sanitizer needs all addresses for itself")
def test_h10_address_space_is_tight() -> None:
    (line,) = output(
        """
        import resource
        from pympi import Kernel, MachError
        with Kernel() as kernel:
            task = kernel.create_task("t")
            inbox = task.allocate_port(qlimit=1024)
            right = inbox.make_send(task)
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
            body, sent = b"x" * (1 << 20), 0
            try:
                for _ in range(1024):
                    right.send(body, timeout=0)
                    sent += 1
            except (MachError, MemoryError) as error:
                kind = getattr(error, "name", "MemoryError")
            del body
            kernel.verify()
            for _ in range(sent):
                inbox.receive(timeout=0)
            right.send(b"again", timeout=0)
            assert inbox.receive(timeout=0).body == b"again"
            kernel.verify()
            print(kind, 10 < sent < 100)
        """
    )
    assert line in ("KERN_RESOURCE_SHORTAGE True", "MACH_SEND_NO_BUFFER True", "MemoryError True")
