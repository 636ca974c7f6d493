# SPDX-License-Identifier: BSD-2-Clause
"""Group O, leaks and covert channels: each closed, or bounded and told in docs/architecture.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from faults.world import HEADER, RECEIVE, outcome

from pympi import AccessDenied, Kernel, MachError, Task, mach
from pympi.bootstrap import BOOTSTRAP, ServiceContexts
from pympi.policy import Rules

EVERYTHING = "allow * * {} {{ * }};"
OPEN = " ".join(EVERYTHING.format(c) for c in ("mach_port", "mach_task", "mi_bootstrap", "service"))
NDR = bytes([0, 0, 0, 0, 1, 0, 0, 0])


def said(text: str) -> None:
    """Assert that what stays open stands in the documentation."""
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text("utf-8")
    section = page.partition("## What is not protected")[2]
    assert text in " ".join(section.split())


# ---- memory that was another's ----


@pytest.mark.parametrize("element", [0, 1, 2, 3, 4, 7])
def test_o1_trailers_and_padding_are_written_whole(element: int) -> None:
    """The same message gives the same bytes, whatever the memory held before."""
    seen = set()
    for dirt in (b"\xaa", b"\x55"):
        with Kernel() as kernel:
            server, client = kernel.create_task("server"), kernel.create_task("client")
            inbox = server.allocate_port()
            dest = inbox.make_send(client)
            for size in (10, 100, 1000, 5000):
                dest.send(dirt * size, memory=[dirt * size])
                inbox.receive(timeout=0).close()
            mach.mach_port_set_seqno(server, inbox.name, 0)
            for size in range(1, 8):
                dest.send(b"b" * size)
                code, raw = mach.mach_msg(server, b"", RECEIVE | element << 24, 4096, inbox.name)
                assert code == 0
                end = HEADER.unpack(raw[: HEADER.size])[1]
                assert (raw[HEADER.size : end], end) == (b"b" * size, HEADER.size + size)
                assert not any(raw[end : -(-end // 4) * 4])
                seen.add(raw)
    assert len(seen) == 7


def dirty(raw: bytes) -> int:
    return raw.count(b"\xaa" * 4) + raw.count(b"\x55" * 4)


def test_o1_answers_of_the_name_server_are_written_whole() -> None:
    """Names stand in rooms of 128 bytes, commands in rooms of 512."""
    with Kernel() as kernel:
        client = kernel.create_task("client")
        bootstrap = client.bootstrap
        for number in range(50):
            bootstrap.create_service(f"{'long' * 20}.{number}")
        for number in range(50):
            bootstrap.register(f"{'long' * 20}.{number}", None)
        bootstrap.create_service("a")
        names, commands, states = (bytes(m) for m in bootstrap.port.call(b"", 408).memory)
        assert (names, commands, states) == (b"a".ljust(128, b"\0"), bytes(512), bytes(4))
        dirty_request = NDR + b"a\0" + b"\xaa" * 126
        assert bootstrap.port.call(dirty_request, 404).body == b""
        assert dirty(bootstrap.port.call(dirty_request, 407).body) == 0


# ---- what codes tell ----

HIDING = OPEN.replace("allow * * service { * };", "allow owner * service { * };")
REGISTRANT = HIDING + " allow registrant * service { register create };"


def test_o2_a_port_that_may_not_be_used_is_as_none() -> None:
    policy = "allow server * mach_port { * }; allow client * mach_port { hold_send };"
    with Kernel(policies=[Rules.from_text(policy)], conceal_denials=True) as kernel:
        server = kernel.create_task("server", "rules/server")
        client = kernel.create_task("client", "rules/client")
        right = server.allocate_port().make_send(client)
        kinds = set()
        for name in (right.name, 0x7F0003):
            with pytest.raises(MachError) as caught:
                client.send(name, b"", timeout=0)
            kinds.add((type(caught.value), caught.value.code))
        assert len(kinds) == 1


def test_o2_a_name_that_may_not_be_seen_is_as_none() -> None:
    with Kernel(policies=[Rules.from_text(HIDING)]) as kernel:
        kernel.start_bootstrap(label="rules/names")
        owner = kernel.create_task("owner", "rules/owner")
        client = kernel.create_task("client", "rules/client")
        owner.bootstrap.register("there", owner.allocate_port())
        port = client.allocate_port()
        for routine in (
            client.bootstrap.look_up,
            client.bootstrap.status,
            client.bootstrap.check_in,
            client.bootstrap.create_service,
            lambda name: client.bootstrap.register(name, port),
        ):
            assert len({outcome(lambda n=n, r=routine: r(n)) for n in ("there", "nowhere")}) == 1  # type: ignore[misc]


def test_o2_who_may_make_a_name_learns_that_it_is_taken() -> None:
    """Open, and only to those the policy lets make that very name."""
    with Kernel(policies=[Rules.from_text(REGISTRANT)]) as kernel:
        kernel.start_bootstrap(label="rules/names")
        owner = kernel.create_task("owner", "rules/owner")
        maker = kernel.create_task("maker", "rules/registrant")
        owner.bootstrap.register("there", owner.allocate_port())
        assert outcome(lambda: maker.bootstrap.look_up("there")) == "BOOTSTRAP_UNKNOWN_SERVICE"
        assert outcome(lambda: maker.bootstrap.create_service("there")) == "BOOTSTRAP_NAME_IN_USE"
    said("whoever may create or register a name learns whether it is taken")


# ---- time ----


class Counted(Rules):
    """Remembers about whom it is asked."""

    asked: ClassVar[list[tuple[Any, ...]]] = []

    def decide(self, source: Any, target: Any, tclass: Any) -> Any:
        self.asked.append((source, target, tclass.name))
        return super().decide(source, target, tclass)


def test_o3_a_cached_decision_tells_of_ones_own_label() -> None:
    """What others were decided makes nobody else's decision a cached one: labels are the key."""
    policy = Counted.from_text(OPEN)
    with Kernel(policies=[policy]) as kernel:
        server = kernel.create_task("server", "rules/server")
        inbox = server.allocate_port(qlimit=100)
        asked = []
        for who in ("busy", "spy", "spy"):
            task = kernel.create_task(who, f"rules/{who}")
            policy.asked.clear()
            inbox.make_send(task).send(b"", timeout=0)
            asked.append([entry for entry in policy.asked if entry[0] == who])
        assert [bool(entries) for entries in asked] == [True, True, False]
    said("how long a cached and an uncached decision take can be told apart")


# ---- what is shared ----


def test_o4_a_full_queue_tells_those_who_may_send() -> None:
    policy = "allow server * mach_port { * }; allow may * mach_port { * };"
    policy += " allow maynot * mach_port { hold_send };"
    with Kernel(policies=[Rules.from_text(policy)]) as kernel:
        server = kernel.create_task("server", "rules/server")
        inbox = server.allocate_port(qlimit=1)
        sender, reader, outsider = (
            inbox.make_send(kernel.create_task(label, f"rules/{label}"))
            for label in ("may", "may", "maynot")
        )
        told = []
        for bit in (0, 1):
            if bit:
                sender.send(b"", timeout=0)
            told.append(outcome(lambda: outsider.send(b"", timeout=0)))
            told.append(outcome(lambda: reader.send(b"", timeout=0)))
            while outcome(lambda: inbox.receive(timeout=0)) == "KERN_SUCCESS":
                pass
        closed, opened = told[::2], told[1::2]
        assert set(closed) == {"MACH_SEND_INVALID_DEST"}  # refused before the queue is looked at
        assert opened == ["KERN_SUCCESS", "MACH_SEND_TIMED_OUT"]
    said("a full queue is a channel of one bit")


def names_of(busy: int) -> tuple[list[int], list[int]]:
    """Return names and port numbers that a task gets while others make ports and services."""
    with Kernel() as kernel:
        other, task = kernel.create_task("other"), kernel.create_task("task")
        ports = []
        for number in range(5):
            for made in range(busy):
                other.bootstrap.register(f"{number}.{made}", other.allocate_port())
            ports.append(task.allocate_port())
            task.bootstrap.create_service(f"mine.{number}").close()
        return [p.name for p in ports], [p.port_id for p in ports]


def test_o5_names_tell_nothing_of_others() -> None:
    """Each task's names are its own; the numbers of ports are the kernel's, and count for all."""
    (quiet, numbers), (loud, others) = names_of(0), names_of(7)
    assert quiet == loud
    assert numbers != others
    said("port numbers")


def test_o6_sequence_numbers_count_one_port() -> None:
    """They are told to the receiver of the port; what others send elsewhere does not count."""
    with Kernel() as kernel:
        server, client, other = (kernel.create_task(n) for n in ("server", "client", "other"))
        inbox, elsewhere = server.allocate_port(), other.allocate_port(qlimit=100)
        right, noise = inbox.make_send(client), elsewhere.make_send(other)
        transfers = []
        for number in range(3):
            for _ in range(number):
                noise.send(b"", timeout=0)
            right.send(b"", timeout=0)
            got = inbox.receive(timeout=0)
            assert got.seqno == number
            transfers.append(got.transfer)
        assert transfers[2] - transfers[1] > transfers[1] - transfers[0]
        with pytest.raises(MachError):
            mach.mach_port_get_attributes(client, right.name, mach.MACH_PORT_RECEIVE_STATUS)
        answers = [client.bootstrap.port.call(b"", 401) for _ in range(2)]
        assert [answer.body for answer in answers] == [answers[0].body] * 2
    said("transfer numbers")


# ---- what is shown ----


def test_o7_nothing_shown_has_addresses() -> None:
    with Kernel() as kernel:
        server, client = kernel.create_task("server"), kernel.create_task("client")
        kernel.audit.everything()
        kernel.trace.start()
        server.bootstrap.register("a", inbox := server.allocate_port())
        right = client.bootstrap.look_up("a")
        right.send(b"x", memory=[b"m" * 100])
        got = inbox.receive(timeout=0)
        names = kernel.bootstrap
        shown = [repr(thing) for thing in (
            kernel, server, inbox, right, got, names, names.root, *names.services(),
            client.bootstrap, server.create_port_set(inbox), kernel.stats(), inbox.status,
            got.sender, server.usage,
            list(kernel.audit.batch(kernel.audit.drain())),
        )]  # fmt: skip
        with pytest.raises(MachError) as caught:
            client.send(0x7F0003, b"")
        shown += [str(caught.value), repr(caught.value)]
        text = "\n".join(shown)
        assert not re.search(r"0x[0-9a-fA-F]{9,}", text)
        values = {int(digits) for digits in re.findall(r"\b\d{12,16}\b", text)}
        times = {value for value in values if value * 1000 >= 10**18}
        assert not {v for v in values - times if v >> 32 in range(0x5500, 0x8000)}


def test_o8_the_traced_cannot_read_the_trace() -> None:
    """Records and counts are the embedder's: no task can ask for them, nor look into another."""
    policy = OPEN.replace(EVERYTHING.format("mach_task"), "allow * * mach_task { create };")
    with Kernel(policies=[Rules.from_text(policy)]) as kernel:
        kernel.trace.start()
        spied, spy = (
            kernel.create_task("spied", "rules/spied"),
            kernel.create_task("spy", "rules/spy"),
        )
        spied.allocate_port()
        with pytest.raises(AccessDenied) as caught:
            spied.names(caller=spy)
        assert caught.value.permission == "observe"
    routines = {routine.name for _, routine in BOOTSTRAP.numbered()}
    assert not {name for name in routines if re.search("trace|audit|dump|stat(?!us)", name)}
    assert not {n for n in vars(Task) if re.search("trace|audit", n)}
    assert not {n for n in vars(mach) if re.search("trace|audit_(read|drain)", n)}


def test_o8_service_contexts_are_the_embedders() -> None:
    """No client learns a label of a name: there is no routine for it."""
    assert "label" in vars(ServiceContexts)
    assert not any("label" in routine.name for _, routine in BOOTSTRAP.numbered())
