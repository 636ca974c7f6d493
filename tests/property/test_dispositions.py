# SPDX-License-Identifier: BSD-2-Clause
"""Each disposition asks exactly its own permission, and nothing is asked twice.

SEDarwin checked move_send with the bit of copy_send; XNU's copyin asked copy_send for both moves.
Here every question of every operation is listed, and compared with what was recorded as asked.
"""

import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from faults.world import (
    COPY_SEND,
    DISPOSITIONS,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    message,
    ool,
    ool_ports,
    port,
)
from property.refusals import GIVE, TAKE, Scene

from pympi import mach
from pympi.enums import CLASSES, hooks
from pympi.mig import Interface

Questions = Counter[tuple[str, str, str]]
PORT = CLASSES["mach_port"]


def asked(scene: Scene, call: Callable[[], Any]) -> Questions:
    """Return each (subject, object, permission) that a call asked, and how often."""
    audit = scene.kernel.audit
    audit.everything()
    audit.drain()
    call()
    found: Questions = Counter()
    for record in audit.batch(audit.drain()):
        objects = {record.object.removeprefix("who/"): set(record.asked)}
        if record.peer != "-" and record.operation == "receive" and "recv" in record.asked:
            objects[record.object.removeprefix("who/")] -= {"recv"}
            objects[record.peer.removeprefix("who/")] = {"recv"}
        for target, permissions in objects.items():
            subject = record.subject.removeprefix("who/")
            found.update((subject, target, permission) for permission in permissions)
    audit.only_denials()
    return found


def expected(*lines: str) -> Questions:
    """Return questions from lines of "subject object: permissions"."""
    found: Questions = Counter()
    for line in lines:
        subject, target, permissions = line.replace(":", "").split(" ", 2)
        found.update((subject, target, permission) for permission in permissions.split())
    return found


def send(scene: Scene, raw: bytes) -> Questions:
    def call() -> None:
        assert scene.send(raw)[0] == 0

    return asked(scene, call)


def receive(scene: Scene) -> Questions:
    def call() -> None:
        assert scene.receive()[0] == 0

    return asked(scene, call)


RECEIVED = ("server inbox: use_recv", "server client: recv")


@pytest.mark.parametrize("how", DISPOSITIONS[1:])
def test_of_the_destination(how: int) -> None:
    with Scene() as scene:
        found = send(scene, message(scene.to_send(how), how))
        assert found == expected(f"client inbox: send {GIVE[how]}")


@pytest.mark.parametrize("how", DISPOSITIONS[1:])
def test_of_the_reply_right(how: int) -> None:
    with Scene() as scene:
        found = send(scene, message(scene.dest, COPY_SEND, scene.to_give(how), how))
        assert found == expected(
            "client inbox: send copy_send", f"client gift: set_reply {GIVE[how]}"
        )
        assert receive(scene) == expected(*RECEIVED, f"server gift: {TAKE[how]}")


@pytest.mark.parametrize("how", DISPOSITIONS)
def test_of_a_body_right(how: int) -> None:
    with Scene() as scene:
        items = (port(scene.to_give(how), how),)
        found = send(scene, message(scene.dest, descriptors=items))
        assert found == expected(
            "client inbox: send copy_send carry_rights", f"client gift: {GIVE[how]}"
        )
        assert receive(scene) == expected(*RECEIVED, f"server gift: {TAKE[how]}")


@pytest.mark.parametrize("how", DISPOSITIONS)
def test_of_an_array(how: int) -> None:
    """Each right of an array is asked about once: it is each time another gift."""
    with Scene() as scene:
        mach.vm_write(scene.client, scene.memory, struct.pack("=I", scene.to_give(how)))
        items = (ool_ports(scene.memory, 1, how),)
        found = send(scene, message(scene.dest, descriptors=items))
        assert found == expected(
            "client inbox: send copy_send carry_rights", f"client gift: {GIVE[how]}"
        )
        assert receive(scene) == expected(*RECEIVED, f"server gift: {TAKE[how]}")


@pytest.mark.parametrize("how", DISPOSITIONS)
def test_by_a_kernel_call(how: int) -> None:
    with Scene() as scene:
        right = scene.client.receive_right(scene.to_give(how))
        found = asked(scene, lambda: right._give(how, scene.server))  # type: ignore[arg-type]
        by = f"client gift: {GIVE[how]}"
        assert found == expected(by, f"server gift: {TAKE[how]}")


@pytest.mark.parametrize("how", DISPOSITIONS)
def test_by_extract(how: int) -> None:
    with Scene() as scene:
        name = scene.to_give(how)
        found = asked(
            scene,
            lambda: mach.mach_port_extract_right(scene.client, name, how, caller=scene.server),
        )
        assert found == expected(
            "server client: extract_right", f"server gift: {GIVE[how]} {TAKE[how]}"
        )


@pytest.mark.parametrize("how", DISPOSITIONS)
def test_by_insert(how: int) -> None:
    with Scene() as scene:
        name = scene.to_give(how)
        # A port has one name for send and receive rights: this one's is the server's already.
        place = scene.gift if name == scene.held else 0x9903
        arguments = (scene.server, place, name, how)
        found = asked(scene, lambda: mach.mach_port_insert_right(*arguments, caller=scene.client))
        assert found == expected(
            "client server: insert_right", f"client gift: {GIVE[how]}", f"server gift: {TAKE[how]}"
        )


def test_of_memory_and_everything_at_once() -> None:
    with Scene() as scene:
        items = (ool(scene.memory, 8), port(scene.spare, MOVE_RECEIVE), ool(scene.memory, 8))
        raw = message(scene.dest, COPY_SEND, scene.answer, MAKE_SEND_ONCE, descriptors=items)
        assert send(scene, raw) == expected(
            "client inbox: send copy_send carry_rights carry_memory",
            "client answer: set_reply make_send_once", "client gift: move_recv",
        )  # fmt: skip
        assert receive(scene) == expected(
            *RECEIVED, "server answer: hold_send_once", "server gift: hold_recv"
        )


def test_of_a_method() -> None:
    with Scene() as scene:
        interface = Interface("printing", 1200, ["print_page", "cancel"])
        scene.server.receive_right(scene.inbox).serve(interface)
        found = send(scene, message(scene.dest, msgh_id=1201))
        assert found == expected("client inbox: send copy_send cancel")
        assert receive(scene) == expected(*RECEIVED)


def test_of_an_effective_label() -> None:
    """First whether the label may be used; then everything is asked of it."""
    with Scene() as scene:
        right = scene.client.right(scene.dest)
        found = asked(scene, lambda: right.send(b"", effective="who/other", timeout=0))  # type: ignore[attr-defined]
        assert found == expected("client other: specify", "other inbox: send copy_send")
        assert receive(scene) == expected("server inbox: use_recv", "server other: recv")


def test_dead_names_ask_nothing() -> None:
    with Scene() as scene:
        mach.mach_port_destroy(scene.server, scene.gift)
        raw = message(scene.dest, descriptors=(port(scene.held, COPY_SEND),))
        assert send(scene, raw) == expected("client inbox: send copy_send carry_rights")
        assert receive(scene) == expected(*RECEIVED)


def test_messages_of_the_kernel_ask_only_for_the_port() -> None:
    with Scene() as scene:
        told = scene.client.receive_right(scene.answer)
        scene.client.right(scene.held).request_notification(72, told)  # type: ignore[arg-type]
        assert asked(scene, lambda: mach.mach_port_destroy(scene.server, scene.gift)) == expected()
        found = asked(scene, lambda: told.receive(timeout=0))
        assert found == expected("client answer: use_recv")


@pytest.mark.parametrize("fast_path", [True, False])
def test_the_module_is_asked_once_for_each_pair(fast_path: bool) -> None:
    """What was decided is not asked again, and one operation asks each pair once."""
    with Scene(fast_path=fast_path) as scene:
        scene.refuse()
        scene.policy.asked.clear()
        items = (port(scene.spare, MOVE_RECEIVE),)
        raw = message(scene.dest, COPY_SEND, scene.answer, MAKE_SEND_ONCE, descriptors=items)
        assert scene.send(raw)[0] == 0
        assert scene.receive()[0] == 0
        for _ in range(5):
            scene.client.send(scene.dest, b"", timeout=0)
            scene.server.receive(scene.inbox, timeout=0)
        assert max(Counter(scene.policy.asked).values()) == 1
        pairs = {pair[:2] for pair in scene.policy.asked}
        assert pairs == {
            ("client", "inbox"), ("client", "answer"), ("client", "gift"), ("server", "inbox"),
            ("server", "client"), ("server", "answer"), ("server", "gift"),
        }  # fmt: skip


def test_every_give_and_take_has_a_disposition() -> None:
    """The table of the tests is the table of the core: no permission is without a case."""
    of = {kind: {h.permission for h in hooks() if h.operation == kind and h.tclass == 1}
          for kind in ("give", "take")}  # fmt: skip
    assert of == {"give": set(GIVE.values()), "take": set(TAKE.values())}
