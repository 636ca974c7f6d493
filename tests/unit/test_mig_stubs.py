# SPDX-License-Identifier: BSD-2-Clause
"""Both ends of a routine: arguments travel unchanged, and nothing hostile gets to a function."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults.world import COPY_SEND, SEND
from faults.world import message as wire_message
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi import Kernel, MachError, PortDied, Task, mach, mig
from pympi.enums import Disposition
from pympi.message import Message
from pympi.mig import Interface, MigError, Routine, Server
from pympi.mig.types import NDR, Array, Port, Scalar, String, Type
from pympi.policy import Rules
from pympi.port import ReceiveRight, SendOnceRight, SendRight

KERN_FAILURE, KERN_NO_ACCESS = 5, 8


class World:
    """A server behind a handler port, so that calls are served in the thread that makes them."""

    def __init__(
        self, kernel: Kernel, interface: Interface, functions: Any, **options: Any
    ) -> None:
        self.kernel = kernel
        self.server_task = kernel.create_task("server")
        self.client_task = kernel.create_task("client")
        self.server: Server = interface.server(functions, **options)
        self.port = self.server_task.create_handler(self.server)
        self.right = self.port.make_send(self.client_task)
        self.client: Any = interface.client(self.right, timeout=0)


def echo(in_: dict[str, str | Type], **options: Any) -> tuple[Interface, dict[str, Any]]:
    """An interface with one routine, which returns what it is given."""
    interface = Interface("echo", 500, [Routine("echo", in_, in_, **options)])

    def answer(_: Message, *values: Any) -> Any:
        return values[0] if len(values) == 1 else values

    return interface, {"echo": answer}


# ---- arguments travel ----

VALUES: dict[str, list[Any]] = {
    "int": [0, 1, -1, (1 << 31) - 1, -(1 << 31)],
    "uint32_t": [0, (1 << 32) - 1],
    "int8_t": [-128, 127],
    "uint8_t": [0, 255],
    "short": [-(1 << 15)],
    "int64_t": [-(1 << 63)],
    "uint64_t": [(1 << 64) - 1],
    "boolean_t": [True, False],
    "double": [1.5, -0.0],
    "float": [0.25],
    "array[4] of int": [(1, 2, 3, 4)],
    "array[3] of char": [b"abc"],
    "array[*:5] of char": [b"", b"a", b"abcde"],
    "array[*:3] of int64_t": [(), (1, 2, 3)],
    "array[2] of array[3] of char": [(b"abc", b"def")],
    "array[2] of c_string[4]": [("abc", "")],
    "struct[2] of int": [(1, 2)],
    "^array[] of char": [b"", b"x", b"x" * 100_000],
    "^array[*:3] of int": [(), (7,), (1, 2, 3)],
    "^array[2] of int": [(1, 2)],
    "c_string[8]": ["", "1234567", "äöü"],
    "c_string[*:8]": ["", "1234567", "äöü", "\udcff"],
    "(MACH_MSG_TYPE_UNSTRUCTURED, 24)": [b"abc"],
    "array[*:2] of boolean_t": [(True, False)],
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back(kernel: Kernel, kind: str) -> None:
    world = World(kernel, *echo({"x": kind}))
    for value in VALUES[kind]:
        got = world.client.echo(value)
        assert got == value
        assert world.client.echo(x=value) == value
    assert set(world.server.counts) == {"served"}


SCALARS = [Scalar("a", "b"), Scalar("b", "H"), Scalar("c", "i"), Scalar("d", "Q"), Scalar("e", "?")]
OCTET = Scalar("octet", "B", octet=True)
LIMITS = {"b": (-128, 127), "H": (0, 65535), "i": (-(1 << 31), (1 << 31) - 1), "Q": (0, 2**64 - 1)}


@st.composite
def types(draw: st.DrawFn) -> Type:
    """Types of all kinds but ports."""
    scalar = draw(st.sampled_from([*SCALARS, OCTET]))
    room = draw(st.integers(1, 9))
    fixed = draw(st.sampled_from([scalar, Array(scalar, room), String(room)]))
    variable, by_reference = draw(st.booleans()), draw(st.booleans())
    several = Array(fixed, room, variable, by_reference)
    return draw(st.sampled_from([fixed, several, String(room, variable=True)]))


def values_of(kind: Type) -> st.SearchStrategy[Any]:
    """Values of a type."""
    if isinstance(kind, Scalar):
        if kind.form == "?":
            return st.booleans()
        return st.integers(*LIMITS.get(kind.form, (0, 255)))
    if isinstance(kind, String):
        raw = st.binary(max_size=kind.room - 1).map(lambda data: data.replace(b"\0", b"."))
        return raw.map(lambda data: data.decode("utf-8", "surrogateescape"))
    assert isinstance(kind, Array)
    least = 0 if kind.variable else kind.count
    if kind.element == OCTET:
        return st.binary(min_size=least, max_size=kind.count)
    return st.lists(values_of(kind.element), min_size=least, max_size=kind.count).map(tuple)


@given(st.data())
def test_any_arguments_come_back(data: st.DataObject) -> None:
    """Rows of arguments of any types, in one routine; each stays what it was, where it was."""
    chosen = data.draw(st.lists(types(), min_size=1, max_size=5))
    values = tuple(data.draw(values_of(kind)) for kind in chosen)
    with Kernel() as kernel:
        world = World(kernel, *echo({f"x{i}": kind for i, kind in enumerate(chosen)}))
        got = world.client.echo(*values)
        assert (got if len(chosen) > 1 else (got,)) == values


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        ("int", 1 << 31, ValueError),
        ("uint8_t", -1, ValueError),
        ("int", "1", ValueError),
        ("float", 1e300, ValueError),
        ("array[3] of int", (1, 2), ValueError),
        ("array[*:3] of char", b"abcd", ValueError),
        ("array[3] of int", 5, TypeError),
        ("array[3] of char", "abc", TypeError),
        ("^array[*:1] of char", b"ab", ValueError),
        ("c_string[4]", "abcd", ValueError),
        ("c_string[*:4]", "a\0", ValueError),
        ("c_string[4]", b"a", TypeError),
        ("mach_port_t", 5, TypeError),
    ],
)
def test_what_does_not_fit_is_not_sent(
    kernel: Kernel, kind: str, value: Any, error: type[Exception]
) -> None:
    world = World(kernel, *echo({"x": kind}))
    with pytest.raises(error, match="echo, x: "):
        world.client.echo(value)
    assert not world.server.counts


def test_arguments_are_bound_like_those_of_a_function(kernel: Kernel) -> None:
    world = World(kernel, *echo({"a": "int", "b": "int"}))
    assert world.client.echo(1, b=2) == (1, 2)
    for positional, named in [((1,), {}), ((1, 2, 3), {}), ((1, 2), {"b": 3}), ((1,), {"c": 3})]:
        with pytest.raises(TypeError, match=r"echo takes \(a, b\)"):
            world.client.echo(*positional, **named)


def test_who_gives_a_buffer_may_use_it_again(server: Task, client: Task) -> None:
    """Memory is passed by reference, and read by the server later than it is given."""
    interface = Interface("put", 500, [Routine("put", {"x": "^array[] of char"}, simple=True)])
    port = server.allocate_port()
    buffer, got = bytearray(b"before"), []
    interface.client(port.make_send(client)).put(buffer)
    buffer[:] = b"after!"
    interface.server({"put": lambda _, x: got.append(bytes(x))})(port.receive(timeout=0))
    assert got == [b"before"]


# ---- the layout is XNU's ----


def sent(server: Task, client: Task, routine: Routine, *values: Any) -> Message:
    """Return the request that a simple routine sends."""
    port = server.allocate_port()
    getattr(Interface("x", 500, [routine]).client(port.make_send(client)), routine.name)(*values)
    return port.receive(timeout=0)


LAYOUTS: list[tuple[dict[str, str], tuple[Any, ...], bytes]] = [
    ({}, (), b""),
    ({"a": "int"}, (-2,), NDR + struct.pack("<i", -2)),
    ({"a": "char", "b": "int64_t"}, (65, 1), NDR + b"A\0\0\0" + struct.pack("<q", 1)),
    ({"a": "array[*:8] of char", "b": "int"}, (b"abc", 1), NDR + b"\3\0\0\0abc\0\1\0\0\0"),
    ({"a": "c_string[6]"}, ("ab",), NDR + b"ab\0\0\0\0\0\0"),
    ({"a": "c_string[*:9]"}, ("abcd",), NDR + b"\0\0\0\0\5\0\0\0abcd\0\0\0\0"),
    ({"a": "^array[] of int", "b": "short"}, ((1, 2), 3), NDR + b"\2\0\0\0\3\0\0\0"),
    ({"a": "^array[2] of int"}, ((1, 2),), b""),
]


@pytest.mark.parametrize(("in_", "values", "body"), LAYOUTS, ids=lambda v: str(v)[:40])
def test_the_layout(
    server: Task, client: Task, in_: dict[str, str], values: tuple[Any, ...], body: bytes
) -> None:
    message = sent(server, client, Routine("put", in_, simple=True), *values)
    assert message.body == body


def test_memory_is_a_descriptor(server: Task, client: Task) -> None:
    routine = Routine("put", {"a": "^array[] of int"}, simple=True)
    (memory,) = sent(server, client, routine, (1, 2)).memory
    assert memory.tobytes() == struct.pack("<ii", 1, 2)


def test_an_answer_has_a_code_unless_it_has_descriptors(kernel: Kernel) -> None:
    outs = {"plain": {"n": "int"}, "memory": {"m": "^array[] of char"}, "nothing": {}}
    interface = Interface("x", 500, [Routine(name, {}, out) for name, out in outs.items()])
    functions = {"plain": lambda _: 7, "memory": lambda _: b"abc", "nothing": lambda _: None}
    world = World(kernel, interface, functions)
    bodies = [world.right.call(b"", 500 + i, timeout=0).body for i in range(3)]
    zero = bytes(4)
    assert bodies == [NDR + zero + b"\7\0\0\0", NDR + b"\3\0\0\0", NDR + zero]


# ---- rights ----


def test_rights_travel(kernel: Kernel) -> None:
    interface = Interface(
        "spool", 500,
        [Routine("swap", {"give": "mach_port_move_receive_t", "use": "mach_port_t"},
                 {"back": "mach_port_make_send_t"})],
    )  # fmt: skip
    held: list[Any] = []

    def swap(_: Message, give: ReceiveRight, use: SendRight) -> ReceiveRight:
        held.extend([give, use])
        return give

    world = World(kernel, interface, {"swap": swap})
    mine = world.client_task.allocate_port()
    back = world.client.swap(mine, world.right)
    assert [type(right) for right in held] == [ReceiveRight, SendRight]
    assert isinstance(back, SendRight)
    assert back.task is world.client_task
    assert back.port_id == held[0].port_id
    assert held[1].port_id == world.right.port_id


def test_null_rights_and_arrays_of_rights(kernel: Kernel) -> None:
    world = World(kernel, *echo({"x": "array[2] of mach_port_t", "y": "^array[] of mach_port_t"}))
    (one, none), several = world.client.echo((world.right, None), [world.right] * 3)
    assert none is None
    assert {right.port_id for right in (one, *several)} == {world.right.port_id}
    assert len(several) == 3
    assert world.client.echo((None, None), ()) == ((None, None), ())


def test_an_answer_without_its_rights_is_still_read(kernel: Kernel) -> None:
    """No rights and no code: the count is not taken for a code."""
    world = World(kernel, *echo({"y": "^array[] of mach_port_t"}))
    assert world.client.echo(()) == ()


def test_polymorphic_rights_say_what_they_are(kernel: Kernel) -> None:
    interface = Interface(
        "x", 500, [Routine("give", {"x": "polymorphic"}, {"kind": "c_string[*:30]"})]
    )
    world = World(kernel, interface, {"give": lambda _, x: type(x).__name__})
    mine = world.client_task.allocate_port()
    assert world.client.give(mine.make_send()) == "SendRight"
    assert world.client.give(mine.make_send_once()) == "SendOnceRight"
    assert world.client.give(mine.move_receive()) == "ReceiveRight"
    with pytest.raises(TypeError, match="copy_send"):
        world.client.give(world.right)


def test_a_right_of_another_kind_is_not_sent(kernel: Kernel) -> None:
    world = World(kernel, *echo({"x": "mach_port_t"}))
    mine = world.client_task.allocate_port()
    for wrong in (mine, mine.move_receive(), mine.make_send_once()):
        with pytest.raises(TypeError):
            world.client.echo(wrong)
    assert mine.type


# ---- what the server says ----


@pytest.fixture
def failing(kernel: Kernel) -> World:
    interface = Interface(
        "f", 500, [Routine("fail", {"how": "int"}, {"x": "int"}), Routine("drop", {}, {})]
    )

    def fail(_: Message, how: int) -> Any:
        if how == 1:
            raise RuntimeError("broken")
        if how == 2:
            return "no int"
        if how == 3:
            return None
        raise MigError(how)

    def drop(message: Message) -> None:
        message.close()

    return World(kernel, interface, {"fail": fail, "drop": drop})


@pytest.mark.parametrize("how", [1, 2, 3])
def test_exceptions_are_failures(
    failing: World, how: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MigError) as caught:
        failing.client.fail(how)
    assert caught.value.code == KERN_FAILURE
    assert "fail" in str(caught.value)
    assert failing.server.counts == {"failed": 1}
    assert any(r.name == "pympi.mig" and r.levelno == logging.ERROR for r in caplog.records)


@pytest.mark.parametrize(
    ("code", "name"),
    [(6, "KERN_RESOURCE_SHORTAGE"), (-303, "MIG_BAD_ID"), (12345, "0x3039"), (-5, "-0x5")],
)
def test_codes_reach_the_caller(failing: World, code: int, name: str) -> None:
    with pytest.raises(MigError) as caught:
        failing.client.fail(code)
    assert (caught.value.code, caught.value.name) == (code, name)
    assert name in str(caught.value)


def test_what_a_server_says_is_not_what_happened_here(failing: World) -> None:
    """A timeout of the server's is not one of the caller's."""
    with pytest.raises(MigError) as caught:
        failing.client.fail(mach.MACH_RCV_TIMED_OUT)
    assert not isinstance(caught.value, TimeoutError)


def test_a_server_that_drops_the_request(failing: World) -> None:
    with pytest.raises(PortDied):
        failing.client.drop()


def test_functions_must_be_there() -> None:
    interface = Interface("x", 500, ["a", None, "b"])
    with pytest.raises(TypeError, match="no function for: b"):
        interface.server({"a": print})
    assert interface.server({"a": print}, partial=True)


def test_a_missing_function_is_an_unknown_number(kernel: Kernel) -> None:
    interface = Interface("x", 500, [Routine("a", {}, {}), Routine("b", {}, {})])
    world = World(kernel, interface, {"a": lambda _: None}, partial=True)
    with pytest.raises(MigError) as caught:
        world.client.b()
    assert caught.value.code == mig.MIG_BAD_ID
    assert world.server.counts == {"bad_id": 1}


def test_numbers_that_are_skipped_or_not_there(kernel: Kernel) -> None:
    interface = Interface("x", 500, [Routine("a", {}, {}), None, Routine("b", {}, {})])
    world = World(kernel, interface, {"a": lambda _: None, "b": lambda _: None})
    for number in (499, 501, 503, -(1 << 31), (1 << 31) - 1):
        answer = world.right.call(b"", number, timeout=0)
        assert answer.body == NDR + struct.pack("<i", mig.MIG_BAD_ID)
    assert world.server.counts == {"bad_id": 5}
    assert world.client.b() is None


def test_other_numbers_go_elsewhere(kernel: Kernel) -> None:
    others: list[int] = []
    interface = Interface("x", 500, ["a"])
    server = interface.server({"a": print}, otherwise=lambda m: others.append(m.msgh_id))
    port = kernel.create_task("server").create_handler(server)
    port.make_send(kernel.create_task("client")).send(b"", 7)
    assert others == [7]


def test_two_interfaces_share_a_port(kernel: Kernel) -> None:
    one = Interface("one", 500, [Routine("f", {}, {"n": "int"})])
    two = Interface("two", 600, [Routine("g", {}, {"n": "int"})])
    second = two.server({"g": lambda _: 2})
    world = World(kernel, one, {"f": lambda _: 1}, otherwise=second)
    assert (world.client.f(), two.client(world.right).g()) == (1, 2)


def test_the_prefix_of_a_server(kernel: Kernel) -> None:
    text = "subsystem x 500; serverprefix do_; routine f(p: mach_port_t; out n: int);"

    class Functions:
        def do_f(self, message: Message) -> int:
            return 3

    assert World(kernel, Interface.from_text(text), Functions()).client.f() == 3


def test_an_answer_later(server: Task, client: Task) -> None:
    interface = Interface("x", 500, [Routine("f", {"n": "int"}, {"twice": "int"})])
    waiting: list[tuple[Message, int]] = []

    def later(message: Message, n: int) -> None:
        waiting.append((message, n))
        raise MigError(mig.MIG_NO_REPLY)

    serve = interface.server({"f": later})
    port = server.allocate_port()
    caller = interface.client(port.make_send(client), timeout=30)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(caller.f(4)))
    thread.start()
    serve(port.receive(timeout=30))
    message, n = waiting.pop()
    serve.answer(message, 2 * n)
    thread.join(30)
    assert results == [8]
    assert serve.counts == {"deferred": 1}


def test_a_loop_that_receives(server: Task, client: Task) -> None:
    interface, functions = echo({"x": "c_string[*:10]"})
    serve, port = interface.server(functions), server.allocate_port()
    results: list[str] = []
    caller = interface.client(port.make_send(client), timeout=30)
    thread = threading.Thread(target=lambda: results.append(caller.echo("round")))
    thread.start()
    assert serve(port.receive(timeout=30))
    thread.join(30)
    assert results == ["round"]


def test_untyped_routines_answer_bytes(kernel: Kernel) -> None:
    world = World(kernel, Interface("raw", 500, ["f"]), {"f": lambda m: m.body[::-1]})
    assert world.client.f.call(b"abc", timeout=0).body == b"cba"
    world.client.f(b"nobody waits")
    assert world.server.counts == {"served": 2}


# ---- arguments that are no data ----


def test_the_kinds_of_arguments(kernel: Kernel) -> None:
    interface = Interface.from_text("""
        subsystem mtest 1200;
        type msg_labels_t = struct[2] of int;
        type token_t = array[2] of int;
        type audit_t = array[8] of int;
        routine printi(server: mach_port_t; accessflag access: int; n: int;
            servermsglabels label: msg_labels_t; msgseqno place: int; waittime ms: int;
            serversectoken who: token_t; usermsglabels server_label: msg_labels_t;
            useraudittoken server_identity: audit_t; out twice: int; msgoption o: int);
    """)
    got: list[Any] = []

    def printi(_: Message, *values: Any) -> int:
        got.extend(values)
        return 2 * values[1]

    world = World(kernel, interface, {"printi": printi})
    world.client.printi(16, ms=0)
    assert got == [False, 16, world.client_task.label, 0, (0, 0)], "nobody was asked"
    got.clear()
    world.port.serve(interface)
    label, identity, twice = world.client.printi(16, ms=0)
    assert got == [True, 16, world.client_task.label, 1, (0, 0)]
    assert (label, twice, len(identity)) == (world.server_task.label, 32, 8)
    with pytest.raises(ValueError, match="no options"):
        world.client.printi(16, ms=None, o=1)


def test_a_reply_port_of_ones_own(server: Task, client: Task) -> None:
    interface = Interface.from_text("""
        subsystem x 500;
        simpleroutine ask(server: mach_port_t; replyport answer_to: mach_port_make_send_once_t);
        routine get(server: mach_port_t; ureplyport mine: mach_port_make_send_once_t; out n: int);
        simpleroutine plain(server: mach_port_t);
    """)
    kept: list[Any] = []
    functions = {
        "ask": lambda _, right: kept.append(right),
        "get": lambda _: 5,
        "plain": lambda _: None,
    }
    serve = interface.server(functions)
    handler = server.create_handler(serve)
    caller = interface.client(handler.make_send(client), timeout=0)
    mine = client.allocate_port()
    caller.ask(mine)
    (right,) = kept
    assert isinstance(right, SendOnceRight)
    right.send(b"later")
    assert mine.receive(timeout=0).body == b"later"
    assert caller.get(mine) == 5
    assert caller.get() == 5


def test_a_simple_routine_keeps_no_reply_right(server: Task, client: Task) -> None:
    """Else whoever names a reply port with each message fills the server's space."""
    interface = Interface("x", 500, [Routine("f", {}, simple=True)])
    handler = server.create_handler(interface.server({"f": lambda _: None}))
    right, mine = handler.make_send(client), client.allocate_port()
    names = server.names()
    for _ in range(3):
        right.send(b"", 500, reply=mine)
        right.send(b"bad", 500, reply=mine)
        right.send(b"", 500, reply=mine.make_send())
    assert server.names() == names


# ---- access control ----

RULES = "allow * * mach_port { * }; allow client * mi_mtest { printi };"


@pytest.fixture
def guarded() -> Iterator[World]:
    text = """
        subsystem mtest 1200;
        routine printi(server: mach_port_t; accessflag access: int; out allowed: int);
        routine printia checkaccess (server: mach_port_t; x: array_t = array[*:4] of int);
        simpleroutine note checkaccess (server: mach_port_t);
        routine flagged(server: mach_port_t; accessflag access: int; out allowed: int);
    """
    reached: list[str] = []
    functions: dict[str, Callable[..., Any]] = {
        "printi": lambda _, access: access,
        "printia": lambda _, x: reached.append("printia"),
        "note": lambda _: reached.append("note"),
        "flagged": lambda _, access: access,
    }
    with Kernel(policies=[Rules.from_text(RULES)]) as kernel:
        kernel.policies.permissive = True
        interface = Interface.from_text(text)
        server_task = kernel.create_task("server", label="rules/server")
        client_task = kernel.create_task("client", label="rules/client")
        world = World.__new__(World)
        world.kernel, world.server = kernel, interface.server(functions)
        world.port = server_task.create_handler(world.server)
        world.port.serve(interface)
        world.right = world.port.make_send(client_task)
        world.client = interface.client(world.right, timeout=0)
        world.reached = reached  # type: ignore[attr-defined]
        yield world
        kernel.verify()


def test_checkaccess_refuses_what_a_permissive_policy_lets_through(guarded: World) -> None:
    with pytest.raises(MigError) as caught:
        guarded.client.printia([0, 1, 2])
    assert caught.value.code == KERN_NO_ACCESS
    guarded.client.note()
    assert guarded.server.counts == {"refused": 2}
    assert guarded.reached == []  # type: ignore[attr-defined]


def test_accessflag_tells(guarded: World) -> None:
    assert (guarded.client.printi(), guarded.client.flagged()) == (1, 0)


# ---- hostile messages, and hostile answers ----

HOSTILE = Interface.from_text("""
    subsystem h 500;
    routine ints(p: mach_port_t; a: int; v: v_t = array[*:4] of int; out r: int);
    routine text(p: mach_port_t; s: s_t = c_string[*:8]; t: t_t = c_string[8]);
    routine port(p: mach_port_t; q: mach_port_t; r: r_t = array[2] of mach_port_move_receive_t);
    routine memory(p: mach_port_t; m: m_t = ^array[*:4] of int; n: n_t = ^array[] of char);
    simpleroutine nothing(p: mach_port_t);
    routine ports(p: mach_port_t; q: q_t = ^array[] of mach_port_t);
""")  # fmt: skip
NOTHING = {name: lambda *_: None for name in HOSTILE.routines} | {"ints": lambda *_: 1}


@settings(max_examples=300)
@given(
    number=st.integers(498, 507),
    body=st.binary(max_size=48) | st.binary(max_size=40).map(lambda tail: NDR + tail)
    | st.lists(st.integers(0, 9), max_size=8).map(
        lambda words: NDR + struct.pack(f"<{len(words)}I", *words)),
    rights=st.lists(st.sampled_from(["null", "send", "once", "receive"]), max_size=4),
    memory=st.lists(st.binary(max_size=20), max_size=3),
    answered=st.booleans(),
)  # fmt: skip
def test_hostile_messages(
    number: int, body: bytes, rights: list[str], memory: list[bytes], answered: bool
) -> None:
    """Whatever comes is served or answered with a code; nothing that it brought stays behind."""
    with Kernel() as kernel:
        world = World(kernel, HOSTILE, NOTHING)
        mine = world.client_task.allocate_port()
        forms = {"send": "make_send", "once": "make_send_once", "receive": "move_receive"}
        carried = [
            None if form == "null" else getattr(world.client_task.allocate_port(), forms[form])()
            for form in rights
        ]
        names = world.server_task.names()
        reply = mine if answered else None
        world.right.send(body, number, rights=carried, memory=memory, reply=reply)
        counts = dict(world.server.counts)
        assert sum(counts.values()) == 1
        if not counts.get("served"):
            assert world.server_task.names() == names
            assert set(counts) <= {"bad_id", "bad_arguments"}
        if answered and number != 504:
            assert mine.receive(timeout=0).msgh_id == number + 100
        kernel.verify()


@pytest.mark.parametrize(
    "body",
    [
        b"", NDR, NDR + bytes(4), NDR + bytes(4) + b"\5\0\0\0" + bytes(20),
        NDR + bytes(12), NDR + bytes(4) + b"\xff\xff\xff\xff", b"\1" + NDR[1:] + bytes(8),
        NDR[:4] + bytes(4) + bytes(8), NDR + bytes(7),
    ],
    ids=repr,
)  # fmt: skip
def test_bad_arguments(kernel: Kernel, body: bytes) -> None:
    world = World(kernel, HOSTILE, NOTHING)
    answer = world.right.call(body, 500, timeout=0)
    assert answer.body == NDR + struct.pack("<i", mig.MIG_BAD_ARGUMENTS)
    assert world.server.counts == {"bad_arguments": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"\0\0\0\0\5\0\0\0abcde\0\0\0" + bytes(8),  # no NUL
        b"\0\0\0\0\3\0\0\0a\0b\0" + bytes(8),  # NUL before its end
        b"\4\0\0\0\2\0\0\0a\0\0\0" + bytes(8),  # an offset
        b"\0\0\0\0\0\0\0\0" + bytes(8),  # nothing, not even NUL
        b"\0\0\0\0\2\0\0\0a\0\0\0" + b"x" * 8,  # the other one has no NUL
    ],
    ids=repr,
)
def test_bad_text(kernel: Kernel, body: bytes) -> None:
    world = World(kernel, HOSTILE, NOTHING)
    answer = world.right.call(NDR + body, 501, timeout=0)
    assert answer.body == NDR + struct.pack("<i", mig.MIG_BAD_ARGUMENTS)


@pytest.mark.parametrize(
    ("body", "rights", "memory"),
    [(b"", 1, 0), (b"", 0, 1), (NDR, 0, 0), (NDR + bytes(4), 0, 0), (b"x", 0, 0)],
)
def test_more_than_was_asked_for(kernel: Kernel, body: bytes, rights: int, memory: int) -> None:
    world = World(kernel, Interface("x", 500, [Routine("f", {}, {})]), {"f": lambda _: None})
    assert world.client.f() is None
    answer = world.right.call(body, 500, rights=[None] * rights, memory=[b"x"] * memory, timeout=0)
    assert answer.body == NDR + struct.pack("<i", mig.MIG_BAD_ARGUMENTS)


def test_a_right_of_the_wrong_kind(kernel: Kernel) -> None:
    world = World(kernel, HOSTILE, NOTHING)
    once = world.client_task.allocate_port().make_send_once()
    moved = [world.client_task.allocate_port().move_receive() for _ in range(2)]
    answer = world.right.call(b"", 502, rights=[once, *moved], timeout=0)
    assert answer.body == NDR + struct.pack("<i", mig.MIG_BAD_ARGUMENTS)


def test_memory_of_another_size_than_said(kernel: Kernel) -> None:
    world = World(kernel, HOSTILE, NOTHING)
    for counts, memory in [
        ((1, 1), (b"abc", b"x")),
        ((1, 2), (b"abcd", b"x")),
        ((5, 0), (b"a", b"")),
    ]:
        body = NDR + struct.pack("<II", *counts)
        answer = world.right.call(body, 503, memory=memory, timeout=0)
        assert answer.body == NDR + struct.pack("<i", mig.MIG_BAD_ARGUMENTS)
    assert world.client.memory([1], b"x") is None


def test_on_the_wire(kernel: Kernel) -> None:
    """A request as a C program would send it through mach_msg."""
    got: list[Any] = []
    functions = NOTHING | {"ints": lambda _, *values: got.append(values) or 9}
    world = World(kernel, HOSTILE, functions)
    body = NDR + struct.pack("<iIii", -1, 2, 7, 8)
    wire = wire_message(world.right.name, COPY_SEND, msgh_id=500, body=body)
    assert mach.mach_msg(world.client_task, wire, SEND)[0] == 0
    assert got == [(-1, (7, 8))]


ANSWERS = [
    (600, b"", mig.MIG_TYPE_ERROR),
    (600, NDR + bytes(4), mig.MIG_TYPE_ERROR),
    (600, NDR + bytes(12), mig.MIG_TYPE_ERROR),
    (600, bytes(16), mig.MIG_TYPE_ERROR),
    (601, NDR + bytes(8), mig.MIG_REPLY_MISMATCH),
    (500, NDR + bytes(8), mig.MIG_REPLY_MISMATCH),
    (600, NDR + struct.pack("<i", 46), 46),
]


@pytest.mark.parametrize(("number", "body", "code"), ANSWERS)
def test_hostile_answers(server: Task, client: Task, number: int, body: bytes, code: int) -> None:
    """A code, and nothing of what such an answer brought stays behind."""

    def answer(request: Message) -> None:
        brought = [] if code == 46 else [server.allocate_port().make_send()]
        request.reply(body, number, rights=brought, memory=[b"x"] * len(brought))

    port = server.create_handler(answer)
    caller = HOSTILE.client(port.make_send(client), timeout=0)
    names = []
    for _ in range(2):
        with pytest.raises(MigError) as caught:
            caller.ints(1, ())
        assert caught.value.code == code
        names.append(client.names())  # with the reply port, which is kept for the next call
    assert names[0] == names[1]


def test_nobody_can_make_a_server_wait(kernel: Kernel) -> None:
    """A reply port may be an ordinary port, with a full queue."""
    interface, functions = echo({"x": "int"})
    world = World(kernel, interface, functions)
    mine = world.client_task.allocate_port(qlimit=1)
    for _ in range(3):
        world.right.send(NDR + bytes(4), 500, reply=mine.make_send())
    assert len(world.server_task.names()) == 1, "the port itself, and no reply rights"
    assert mine.status.msgcount == 1
    assert world.server.counts == {"served": 3, "unanswered": 2}


def test_rights_of_an_answer_nobody_took(kernel: Kernel) -> None:
    interface = Interface("x", 500, [Routine("f", {}, {"r": "mach_port_move_receive_t"})])
    made: list[ReceiveRight] = []

    def f(message: Message) -> ReceiveRight:
        made.append(message.task.allocate_port())
        return made[-1]

    world = World(kernel, interface, {"f": f})
    world.right.send(b"", 500)
    with pytest.raises(MachError):
        assert made[0].type
    assert isinstance(world.client.f(), ReceiveRight)


def test_types_in_words() -> None:
    for text in VALUES:
        assert str(mig.parse_type(str(mig.parse_type(text)))) == str(mig.parse_type(text))
    assert mig.parse_type("mach_port_make_send_t") == Port(Disposition.MAKE_SEND)


def test_no_prefix_makes_a_function_of_what_python_calls_itself() -> None:
    """A file that strangers wrote puts no names together that reach an object's own methods."""
    text = "subsystem s 1; serverprefix __; routine init__(p: mach_port_t);"
    with pytest.raises(TypeError, match="no function for: init__"):
        Interface.from_text(text).server(object())
