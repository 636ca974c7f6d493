# SPDX-License-Identifier: BSD-2-Clause
"""Deciders, handlers and sinks of C on kernels of Python, and those of Python on kernels of C."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cffi
import pytest
from embedding.building import PROGRAMS, compiled

import pympi
from pympi import AccessDenied, Kernel, KernelClosed, Message
from pympi._ffi import ffi, lib
from pympi.policy import Rules, Stub

RULES = """
    allow client server mach_port { send copy_send };
    allow server server mach_port { use_recv };
"""
HEAR = "allow server client mach_port { recv };"


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The functions of callbacks.c, as who knows nothing of our binding loads them."""
    library = tmp_path_factory.mktemp("callbacks") / "callbacks.so"
    compiled(PROGRAMS / "callbacks.c", library, "-shared", "-fPIC")
    other = cffi.FFI()
    other.cdef(
        "int count_and_decide(void *, void *, size_t, uint32_t); int count_and_drain(void *);"
        "int count_and_handle(void *, void *);"
        "int64_t exchange(void *, uint32_t, void *, uint32_t, int64_t);"
    )
    return other.dlopen(str(library))


@pytest.fixture
def counts() -> Any:
    """A `struct counts` of callbacks.c."""
    other = cffi.FFI()
    other.cdef("struct counts { unsigned decided, handled, drained, records; int answer; };")
    return other.new("struct counts *")


def function(kind: str, pointer: Any) -> Any:
    return ffi.cast(kind, int(cffi.FFI().cast("uintptr_t", pointer)))


def context(pointer: Any) -> Any:
    return ffi.cast("void *", int(cffi.FFI().cast("uintptr_t", pointer)))


@pytest.mark.usefixtures("functions")
def test_one_copy_of_the_core() -> None:
    """What a library of ours calls is what Python calls."""
    found = cffi.FFI()
    found.cdef("int pm_send(void *, uint32_t, void *, uint64_t, int32_t, void *);")
    theirs = found.cast("uintptr_t", found.addressof(found.dlopen(pympi.get_library()), "pm_send"))
    loaded = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()
        if "libpympi" in line
    }  # fmt: skip
    assert int(theirs)
    assert loaded == {pympi.get_library()}


def test_a_loop_in_c_under_a_policy_in_python(functions: Any) -> None:
    with Kernel(policies=[Rules.from_text(RULES)]) as kernel:
        server = kernel.create_task("server", label="rules/server")
        client = kernel.create_task("client", label="rules/client")
        kernel.policies.permissive = True
        inbox = server.allocate_port()
        right = inbox.make_send(client)
        kernel.policies.permissive = False
        run = functions.exchange
        address = functools.partial(cffi.FFI().cast, "void *")
        as_pointers = [address(client.address), right.name, address(server.address), inbox.name]
        assert run(*as_pointers, 1000) == 0  # nobody lets the server hear the client
        kernel.policies.replace("rules", Rules.from_text(RULES + HEAR))
        before = kernel.stats()["decider_calls"]
        assert run(*as_pointers, 1000) == 1000
        assert kernel.stats()["decider_calls"] - before <= 2  # Python is asked once, and remembered
        kernel.verify()


def test_a_decider_of_c(functions: Any, counts: Any) -> None:
    with Kernel() as kernel:
        server = kernel.task_at(task_of(kernel.pointer, b"server", b"a label of C's own"))
        client = kernel.create_task("client")
        inbox = server.allocate_port()
        right = inbox.make_send(client)
        decide = function("pm_decider", functions.count_and_decide)
        lib.pm_kernel_set_decider(kernel.pointer, decide, context(counts))
        lib.pm_kernel_set_policy(kernel.pointer, lib.PM_POLICY_LOADED)
        right.send(b"allowed")
        assert inbox.receive().body == b"allowed"
        assert counts.decided
        counts.answer = server.sid
        lib.pm_kernel_set_policy(kernel.pointer, lib.PM_POLICY_LOADED)
        with pytest.raises(AccessDenied, match="send refused: no send on mach_port"):
            right.send(b"refused")
        kernel.verify()


def test_a_handler_of_c(functions: Any, counts: Any) -> None:
    with Kernel() as kernel:
        server, client = kernel.create_task("server"), kernel.create_task("client")
        inbox = server.allocate_port()
        right = inbox.make_send(client)
        handle = function("pm_handler", functions.count_and_handle)
        assert not lib.pm_port_set_handler(
            server.pointer, server.pointer, inbox.name, handle, context(counts), 0
        )
        right.send(b"hello")
        counts.answer = -1  # it fails from now on
        right.send(b"hello", rights=[client.allocate_port().make_send(client).copy_send()])
        assert counts.handled == 2
        assert kernel.stats()["handler_failures"] == 1
        kernel.verify()


def test_a_sink_of_c(functions: Any, counts: Any) -> None:
    pair = ffi.new("void *[2]")
    with Kernel(audit_records=16, audit_full="block") as kernel:
        pair[0], pair[1] = kernel.pointer, context(counts)
        kernel.audit.select("all")
        lib.pm_audit_set_drainer(
            kernel.pointer, function("pm_drainer", functions.count_and_drain), pair
        )
        inbox = kernel.create_task("t").allocate_port()
        right = inbox.make_send(inbox.task)
        for _ in range(50):
            right.send(b"x")
            inbox.receive()
        assert counts.drained
        assert counts.records >= 80
        kernel.verify()


# ---- the reverse ----


@pytest.fixture
def made() -> Iterator[Any]:
    """A kernel that somebody made in C."""
    cell = ffi.new("struct pm_kernel **")
    assert lib.pm_kernel_create(ffi.NULL, cell) == 0
    yield cell[0]
    assert lib.pm_kernel_verify(cell[0], ffi.NULL, 0) == 0
    lib.pm_kernel_destroy(cell[0])


def task_of(kernel: Any, name: bytes, label: bytes) -> Any:
    cell = ffi.new("struct pm_task **")
    sid = lib.pm_sid_intern(kernel, ffi.NULL, label, len(label))
    assert not lib.pm_task_create(kernel, ffi.NULL, name, sid, ffi.NULL, ffi.NULL, cell)
    lib.pm_sid_release(kernel, sid)
    return ffi.gc(cell[0], lib.pm_task_release)


def test_policy_handler_and_sink_of_python(made: Any) -> None:
    server, client = (task_of(made, n, b"rules/" + n) for n in (b"server", b"client"))
    inbox = lib.pm_port_allocate(server, server, lib.MACH_PORT_RIGHT_RECEIVE, 0)
    right = lib.pm_port_transfer(server, inbox, lib.MACH_MSG_TYPE_MAKE_SEND, client)
    heard: list[bytes] = []

    def hear(message: Message) -> None:
        heard.append(message.body)

    rules = RULES + HEAR + "allow client client mach_port { make_send };"
    with Kernel.borrow(made, [Rules.from_text(rules)]) as kernel:
        assert kernel.pointer == made
        assert kernel.address == int(ffi.cast("uintptr_t", made))
        assert lib.pm_send(client, right, b"hello", 5, 1, ffi.NULL) == 0
        assert lib.pm_receive(server, inbox, ffi.new("char[8]"), 8, ffi.NULL) == 5
        assert lib.pm_send(server, right, b"hello", 5, 1, ffi.NULL) == lib.MACH_SEND_INVALID_DEST

        of_c = kernel.task_at(client)
        assert (of_c.name, of_c.label) == ("client", "rules/client")
        assert kernel.task_at(of_c.address) is of_c
        with pytest.raises(AccessDenied):
            of_c.allocate_port().make_send(kernel.task_at(server))
        kernel.policies.permissive = True
        port = kernel.create_task("here", "rules/server").create_handler(hear, kind="clock")
        port.make_send(of_c).send(b"to Python")
        assert heard == [b"to Python"]
        assert any(record.denied for record in kernel.audit.batch(kernel.audit.drain()))
        here = kernel.tasks[max(kernel.tasks)]
    assert not here.alive
    assert lib.pm_task_alive(client)
    with pytest.raises(KernelClosed):
        kernel.address  # noqa: B018
    # Python is gone, and with it whoever could say yes.
    lib.pm_kernel_set_policy(made, lib.PM_POLICY_LOADED)
    assert lib.pm_send(client, right, b"hello", 5, 1, ffi.NULL) == lib.MACH_SEND_INVALID_DEST
    lib.pm_kernel_set_policy(made, 0)
    assert lib.pm_send(client, right, b"hello", 5, 1, ffi.NULL) == 0


def test_who_only_looks_leaves_the_decider_of_c(made: Any, functions: Any, counts: Any) -> None:
    server, client = task_of(made, b"server", b"x/server"), task_of(made, b"client", b"x/client")
    inbox = lib.pm_port_allocate(server, server, lib.MACH_PORT_RIGHT_RECEIVE, 0)
    right = lib.pm_port_transfer(server, inbox, lib.MACH_MSG_TYPE_MAKE_SEND, client)
    counts.answer = lib.pm_task_sid(server)  # nobody may send to it
    decide = function("pm_decider", functions.count_and_decide)
    lib.pm_kernel_set_decider(made, decide, context(counts))
    lib.pm_kernel_set_policy(made, lib.PM_POLICY_LOADED)
    refused = lib.MACH_SEND_INVALID_DEST
    with Kernel.borrow(made) as kernel:
        assert lib.pm_send(client, right, b"x", 1, 1, ffi.NULL) == refused
        assert kernel.stats()["ports"] == 1
    assert lib.pm_send(client, right, b"x", 1, 1, ffi.NULL) == refused
    assert not counts.handled
    with Kernel.borrow(made, [Stub()]) as kernel:  # which decides from now on
        assert lib.pm_send(client, right, b"x", 1, 1, ffi.NULL) == 0
        with Kernel.borrow(made) as other:
            assert other.task_at(client).id == kernel.task_at(client).id
        assert lib.pm_send(client, right, b"x", 1, 1, ffi.NULL) == 0
    assert lib.pm_send(client, right, b"x", 1, 1, ffi.NULL) == refused


WRONG = [None, "kernel", 1.5, True, ffi.new("int *"), ffi.new("char[]", 8)]


@pytest.mark.parametrize("wrong", WRONG)
def test_no_pointer_to_a_kernel(wrong: Any, made: Any) -> None:
    with pytest.raises(TypeError, match="a struct pm_kernel \\* or its address is needed"):
        Kernel.borrow(wrong)
    with Kernel.borrow(made) as kernel, pytest.raises(TypeError, match="struct pm_task"):
        kernel.task_at(wrong)


@pytest.mark.parametrize("null", [0, ffi.NULL])
def test_the_null_pointer(null: Any, made: Any) -> None:
    with pytest.raises(ValueError, match="null pointer"):
        Kernel.borrow(null)
    with Kernel.borrow(made) as kernel, pytest.raises(ValueError, match="null pointer"):
        kernel.task_at(null)
