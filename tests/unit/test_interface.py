# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces: methods of a port, enforced by the core."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from pympi import AccessDenied, Kernel, MachError, Task, audit, mach
from pympi.enums import first_routine
from pympi.mig import Interface, Routine
from pympi.policy import Rules, TypeEnforcement

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
        routines = [len(kernel.object_class(n).bits) - 1 for n in names]  # and ioctl
        assert routines == [31, 31, 8]


@pytest.mark.parametrize(
    ("name", "routines"),
    [
        ("a b", ["f"]), ("a", []), ("a", ["f", "f"]), ("a", ["f g"]), ("a", [""]), ("a", [None]),
        ("a", ["unused1", None]),
    ],
)  # fmt: skip
def test_wrong_interfaces_are_refused(name: str, routines: list[str | None]) -> None:
    with pytest.raises(ValueError, match=r"identifier|routines"):
        Interface(name, 1, routines)


@pytest.mark.parametrize("name", ["x_2", "x_31", "x_y_9", "_2_2", "x_9999"])
def test_names_that_classes_of_others_could_have(name: str, kernel: Kernel) -> None:
    """`mi_x_2` is the second class of a long interface `x`, and of no other."""
    said = rf"{name!r}.*name of a class of an interface .*not end in _{name.rpartition('_')[2]}$"
    for make in (
        lambda: Interface(name, 1, ["f"]),
        lambda: Interface.from_text(f"subsystem {name} 1; routine f(p: mach_port_t);"),
        lambda: kernel.create_interface(name, 1, ["f"]),
    ):
        with pytest.raises(ValueError, match=said):
            make()
    with pytest.raises(ValueError, match="no class"):
        kernel.object_class(f"mi_{name}")


@pytest.mark.parametrize("name", ["x_", "x_0", "x_1", "x_02", "x2", "x_2_", "x_20000"])
def test_names_that_they_could_not_have(name: str, kernel: Kernel) -> None:
    long = Interface(name, 1, [f"r{n}" for n in range(70)])
    long.number(kernel)
    assert [*long.classes()] == [f"mi_{name}", f"mi_{name}_2", f"mi_{name}_3"]


@pytest.mark.parametrize(
    ("name", "routines"),
    [("a b", ["f"]), ("a", ["f", "f"]), ("a", ["f", "ioctl"]), ("a", ["f g"]), ("a", ["", ""])],
)
def test_a_kernel_takes_no_other_names(name: str, routines: list[str], kernel: Kernel) -> None:
    """One word for two permissions of a class would grant one of them for the other."""
    with pytest.raises(ValueError, match=r"identifier|routines|reserved"):
        kernel.create_interface(name, 1, routines)
    assert kernel.create_interface("a", 1, ["f", "", "g"]) == 1


@pytest.mark.parametrize("base", [1 << 31, -(1 << 31) - 1, 1 << 100])
def test_bases_that_do_not_fit(base: int) -> None:
    with pytest.raises(ValueError, match=f"32 bits, unlike {base}"):
        Interface("x", base, ["f"])


def test_classes_run_out(kernel: Kernel) -> None:
    """Without harm to those there are."""
    long = Interface("long", 0, [f"r{n}" for n in range(31 * 2000)])
    long.number(kernel)
    with pytest.raises(MachError, match="KERN_RESOURCE_SHORTAGE"):
        Interface("other", 0, long.routines).number(kernel)
    assert Interface("small", 0, ["f"]).number(kernel)
    assert first_routine("mi_long_2000") == 31 * 1999
    assert kernel.object_class("mi_long_2000").names(1) == ("r61969",)


OTHERS: list[Interface] = [
    Interface("printing", 1201, ["print_page", "cancel", "set_default"]),
    Interface("printing", 1200, ["print_page", "set_default", "cancel"]),
    Interface("printing", 1200, ["print_page", "cancel"]),
    Interface("printing", 1200, ["print_page", None, "set_default"]),
    Interface("printing", 1200, ["print_page", "cancel", "set_default"], allow_unknown=True),
]


@pytest.mark.parametrize("other", OTHERS)
def test_one_name_is_one_interface_in_a_kernel(other: Interface, server: Task) -> None:
    """Its class would stand for two lists of routines, and a policy's words for two things."""
    port = server.allocate_port()
    port.serve(PRINTING)
    said = r"'printing' is known to this kernel as 1200: print_page, .* declare both alike, or"
    with pytest.raises(ValueError, match=said):
        port.serve(other)
    with Kernel() as another:
        other.number(another)


def test_alike_is_the_same(kernel: Kernel) -> None:
    """Server and client may each have read it."""
    text = "subsystem s 7; routine f(p: mach_port_t); skip; routine g(p: mach_port_t);"
    numbers = {Interface.from_text(text).number(kernel) for _ in range(3)}
    assert len(numbers | {Interface("s", 7, ["f", None, "g"]).number(kernel)}) == 1


def test_several_threads_declare_alike(kernel: Kernel) -> None:
    """Each has its own object: what they ask is one kernel."""
    for n in range(20):
        same = [Interface(f"x{n}", 1, ["f"]) for _ in range(4)]
        assert len(numbers_in_threads(same, kernel)) == 1


def test_one_interface_in_several_kernels() -> None:
    for _ in range(3):
        with Kernel() as kernel:
            task = kernel.create_task("task")
            task.allocate_port().serve(PRINTING)
            task.allocate_port().serve(PRINTING)
            assert [*kernel.object_class("mi_printing").bits] == [*PRINTING.routines, "ioctl"]


@pytest.mark.parametrize("name", ["ioctl", "__class__", "__init__"])
def test_names_that_are_taken(name: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        Interface("x", 1, [name])


def test_two_threads_make_one_interface() -> None:
    """Both would find none, and each make its own: one class would stand for two numbers."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            with Kernel() as kernel:
                assert len(numbers_in_threads([Interface("x", 1, ["f"])] * 4, kernel)) == 1
    finally:
        sys.setswitchinterval(interval)


def numbers_in_threads(interfaces: list[Interface], kernel: Kernel) -> set[int]:
    """Return the numbers that threads get for an interface each, asking all at once."""
    start, found = threading.Barrier(len(interfaces)), []

    def ask(interface: Interface) -> None:
        start.wait(10)
        found.append(interface.number(kernel))

    threads = [threading.Thread(target=ask, args=(each,)) for each in interfaces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == len(threads)
    return set(found)


def test_creating_takes_its_time_and_still_makes_one(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same race, held open: the second thread asks while the first is being answered."""
    interface, made, entered = Interface("x", 1, ["f"]), [], threading.Event()
    create = kernel.create_interface

    def slowly(*arguments: object, **options: object) -> int:
        made.append(1)
        entered.set()
        second.join(0.2)  # which it does not: it has to wait for us
        return create(*arguments, **options)  # type: ignore[arg-type]

    def ask_second() -> None:
        entered.wait(10)
        interface.number(kernel)

    monkeypatch.setattr(kernel, "create_interface", slowly)
    second = threading.Thread(target=ask_second)
    second.start()
    interface.number(kernel)
    second.join(10)
    assert made == [1]


# ---- what policies are told ----


def test_cil() -> None:
    tclass = "(class mi_printing (print_page cancel set_default ioctl))\n"
    assert PRINTING.cil() == tclass
    assert PRINTING.cil(order=True) == f"{tclass}(classorder (unordered mi_printing))\n"


def test_cil_of_several_classes() -> None:
    routines = [f"r{i}" if i != 3 else None for i in range(33)]
    text = Interface("many", 1, routines).cil(order=True)
    first, second, order = text.splitlines()
    assert first.startswith("(class mi_many (r0 r1 r2 unused3 r4 ")
    assert first.endswith(" r30 ioctl))")
    assert len(first.split("(")[2].split()) == 32
    assert second == "(class mi_many_2 (r31 r32 ioctl))"
    assert order == "(classorder (unordered mi_many mi_many_2))"


def test_cil_has_no_names_that_begin_like_sedarwins() -> None:
    with pytest.raises(ValueError, match="'_notify_server_post'"):
        Interface("notify_ipc", 78945668, ["a", "_notify_server_post"]).cil()


def test_a_policy_compiles_with_it() -> None:
    """Classes by classes of the kernel's, holes included; what no rule grants is refused."""
    many = Interface("many", 100, [f"r{i}" if i != 3 else None for i in range(40)])
    policy = f"""{many.cil()}
        (type a_t) (roletype system_r a_t) (userrole system_u system_r)
        (allow a_t a_t (mach_port (all))) (allow a_t a_t (mi_many (r0 r30)))
        (allow a_t a_t (mi_many_2 (r32)))"""
    with Kernel(policies=[TypeEnforcement.from_text(policy)]) as kernel:
        task = kernel.create_task("task", label="te/system_u:system_r:a_t")
        port = task.allocate_port(qlimit=40)
        port.serve(many)
        right = port.make_send(task)
        refused = set()
        for number in range(100, 140):
            try:
                right.send(b"", number)
            except AccessDenied as error:
                refused.add(error.permission)
        assert refused == {"ioctl", *many.routines} - {"unused3", "r0", "r30", "r32"}


def test_the_kernel_has_the_same_classes(kernel: Kernel) -> None:
    many = Interface("many", 1, [f"r{i}" if i != 3 else None for i in range(70)])
    many.number(kernel)
    for name, permissions in many.classes().items():
        tclass = kernel.object_class(name)
        routines = {p: 1 << bit for bit, p in enumerate(permissions) if p != "unused3"}
        assert tclass.bits == {**routines, "ioctl": 1 << 31}


def test_flask() -> None:
    """The form that SEDarwin's mig writes, which its policy's makefile reads."""
    mtest = Interface("mtest", 1200, ["printi", None, "printia"])
    lines = [line.strip() for line in mtest.flask().splitlines()]
    assert lines == ["class mi_mtest #subsystem 1200", "{", "printi", "_unused1", "printia", "}"]


def test_flask_has_room_for_128() -> None:
    with pytest.warns(UserWarning, match="2 routines left out"):
        text = Interface("many", 1, [f"r{i}" for i in range(130)]).flask()
    assert text.split()[4:] == ["{", *(f"r{i}" for i in range(128)), "}"]


# ---- numbers that are skipped ----


def test_a_skipped_number_is_no_routine(server: Task, client: Task) -> None:
    port = server.allocate_port()
    right = port.make_send(client)
    gap = Interface("gap", 50, ["a", None, "b"])
    for number in (50, 51, 52):
        right.send(b"", number)
    assert [gap.routine(port.receive()) for _ in range(3)] == ["a", None, "b"]
    with pytest.raises(AttributeError, match="it has: a, b"):
        gap.client(right).unused1(b"")


@pytest.mark.parametrize("number", [49, 51, 53])
def test_no_policy_grants_a_number_that_is_none(number: int) -> None:
    with Kernel(policies=[Rules.from_text("allow * * * { * };")]) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port()
        port.serve(Interface("gap", 50, ["a", None, "b"]))
        right = port.make_send(task)
        with pytest.raises(AccessDenied) as caught:
            right.send(b"", number)
        assert caught.value.name == "MACH_SEND_MSG_FILTERED"
        assert (caught.value.tclass, caught.value.permission) == ("mi_gap", "ioctl")
        right.send(b"", 52)


def test_an_open_interface_takes_a_skipped_number() -> None:
    with Kernel() as kernel:
        port = kernel.create_task("task").allocate_port()
        port.serve(Interface("gap", 50, ["a", None, "b"], allow_unknown=True))
        port.make_send(port.task).send(b"", 51)
        assert port.receive().msgh_id == 51


# ---- names in the audit trail ----

MANY = Interface("many", 100, [f"routine{i}" for i in range(70)])
REFUSED = [
    (100, "mi_many", "routine0"), (130, "mi_many", "routine30"), (131, "mi_many_2", "routine31"),
    (161, "mi_many_2", "routine61"), (162, "mi_many_3", "routine62"),
    (169, "mi_many_3", "routine69"),
]  # fmt: skip


def refuse_all(kernel: Kernel) -> None:
    """Have each of `REFUSED` refused."""
    task = kernel.create_task("task", label="rules/a")
    port = task.allocate_port()
    port.serve(MANY)
    client = MANY.client(port.make_send(task))
    for _, _, permission in REFUSED:
        with pytest.raises(AccessDenied):
            getattr(client, permission)(b"")


def test_records_name_the_routine() -> None:
    with Kernel(policies=[Rules.from_text("allow * * mach_port { * };")]) as kernel:
        refuse_all(kernel)
        records = list(kernel.audit.batch(kernel.audit.drain()))
    assert [(r.msgh_id, r.tclass, *r.denied) for r in records] == REFUSED
    assert {(r.operation, r.result) for r in records} == {("method", "MACH_SEND_MSG_FILTERED")}


def test_so_do_audit_files(tmp_path: Path) -> None:
    """A file is read where there is no kernel, and no interface."""
    path = tmp_path / "run.audit"
    with Kernel(policies=[Rules.from_text("allow * * mach_port { * };")]) as kernel:
        kernel.audit.attach(audit.File(path))
        refuse_all(kernel)
    assert [(r.msgh_id, r.tclass, *r.denied) for r in audit.read(path)] == REFUSED


def test_records_name_typed_routines() -> None:
    interface = Interface("typed", 100, [Routine("f", {"x": "int"}), Routine("g", {}, {})])
    with Kernel(policies=[Rules.from_text("allow * * mach_port { * };")]) as kernel:
        task = kernel.create_task("task", label="rules/a")
        port = task.allocate_port()
        port.serve(interface)
        with pytest.raises(AccessDenied) as caught:
            interface.client(port.make_send(task), timeout=0).g()
        assert caught.value.permission == "g"
        (record,) = kernel.audit.batch(kernel.audit.drain())
        assert (record.msgh_id, record.tclass, record.denied) == (101, "mi_typed", ("g",))
