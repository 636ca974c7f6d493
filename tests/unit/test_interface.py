# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces: methods of a port, enforced by the core."""

import threading

import pytest

from pympi import AccessDenied, Kernel, MachError, Task, mach
from pympi.mig import Interface
from pympi.policy import Rules

PRINTING = Interface("printing", 1200, ["print_page", "cancel", "set_default"])
POLICY = """
allow * * mach_port { * };
allow editor printer mi_printing { print_page };
allow boss printer mi_printing { * };
"""


def test_the_methods_of_a_client(server: Task, client: Task) -> None:
    port = server.allocate_port()
    port.serve(PRINTING)
    proxy = PRINTING.client(port.make_send(client))
    proxy.print_page(b"page")
    proxy.cancel()
    messages = [port.receive() for _ in range(2)]
    assert [PRINTING.routine(m) for m in messages] == ["print_page", "cancel"]
    assert [m.msgh_id for m in messages] == [1200, 1201]
    assert all(m.method for m in messages)
    with pytest.raises(AttributeError, match="no routine 'print'; it has: print_page, cancel"):
        proxy.print(b"")


def test_a_method_is_called(server: Task, client: Task) -> None:
    port = server.allocate_port()
    port.serve(PRINTING)
    thread = threading.Thread(target=lambda: port.receive(timeout=10).reply(b"done"))
    thread.start()
    answer = PRINTING.client(port.make_send(client)).print_page.call(b"page", timeout=10)
    thread.join(10)
    assert (answer.body, answer.msgh_id) == (b"done", 1300)


def test_methods_are_allowed_one_by_one() -> None:
    with Kernel(policies=[Rules.from_text(POLICY)]) as kernel:
        printd = kernel.create_task("printd", label="rules/printer")
        editor = kernel.create_task("editor", label="rules/editor")
        boss = kernel.create_task("boss", label="rules/boss")
        port = printd.allocate_port()
        right = port.make_send(editor)
        port.serve(PRINTING)
        proxy = PRINTING.client(right)
        proxy.print_page(b"1")
        message = port.receive()
        assert (message.access, message.method) == (1, 1)
        with pytest.raises(AccessDenied) as caught:
            proxy.cancel()
        error = caught.value
        assert (error.operation, error.permission) == ("method", "cancel")
        assert error.tclass == "mi_printing"
        assert error.code == mach.MACH_SEND_MSG_FILTERED
        PRINTING.client(port.make_send(boss)).set_default()
        assert port.receive().access & 7 == 7
        assert kernel.access(editor, port, "mi_printing", "print_page")
        kernel.verify()


def test_what_is_no_method_is_refused_unless_said_otherwise(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    port.serve(PRINTING)
    for number in (0, 1199, 1203, -1, (1 << 31) - 1):
        with pytest.raises(MachError) as caught:
            right.send(b"", msgh_id=number)
        assert caught.value.name == "MACH_SEND_MSG_FILTERED"
    port.serve(Interface("loose", 1200, ["one"], allow_unknown=True))
    right.send(b"", msgh_id=5)
    port.serve(None)
    right.send(b"", msgh_id=6)
    assert [port.receive().msgh_id for _ in range(2)] == [5, 6]


def test_the_interface_moves_with_the_port(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    port.serve(PRINTING)
    port.move_receive(client)
    with pytest.raises(MachError):
        right.send(b"", msgh_id=5)
    right.send(b"", msgh_id=1200)


def test_more_than_31_routines() -> None:
    many = Interface("many", 100, [f"routine{i}" for i in range(70)])
    policy = Rules.from_text("allow * * mach_port { * }; allow * * mi_many_2 { routine40 };")
    with Kernel(policies=[policy]) as kernel:
        task = kernel.create_task("task", label="rules/a")
        port = task.allocate_port()
        port.serve(many)
        proxy = many.client(port.make_send(task))
        proxy.routine40()
        for other in ("routine0", "routine30", "routine31", "routine62", "routine69"):
            with pytest.raises(AccessDenied) as caught:
                getattr(proxy, other)()
            assert caught.value.permission == other
        names = [f"mi_many{suffix}" for suffix in ("", "_2", "_3")]
        assert [len(kernel.object_class(n).permissions) for n in names] == [31, 31, 8]


@pytest.mark.parametrize(
    ("name", "routines"),
    [("a b", ["f"]), ("a", []), ("a", ["f", "f"]), ("a", ["f g"]), ("a", [""])],
)
def test_wrong_interfaces_are_refused(name: str, routines: list[str]) -> None:
    with pytest.raises(ValueError, match=r"identifier|routines"):
        Interface(name, 1, routines)


def test_one_interface_in_several_kernels() -> None:
    for _ in range(3):
        with Kernel() as kernel:
            task = kernel.create_task("task")
            task.allocate_port().serve(PRINTING)
            task.allocate_port().serve(PRINTING)
            assert kernel.object_class("mi_printing").permissions == PRINTING.routines
