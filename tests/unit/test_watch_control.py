# SPDX-License-Identifier: BSD-2-Clause
"""Watching at a control socket: who sees what, and that a slow peer harms nobody."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pympi import InspectError, Kernel, MachError
from pympi.audit import WatchRecord
from pympi.enums import ALL, ObjectClass
from pympi.inspect import Connection, Limits
from pympi.policy import Decision, PolicyModule


class Eyes(PolicyModule):
    """Decides by the labels: what some may not see."""

    name = "eyes"

    def __init__(self, *refused: tuple[str, str, str]) -> None:
        self.refused = set(refused)

    def decide(self, source: str, target: str, tclass: ObjectClass) -> Decision:
        allowed = ALL
        for who, what, permission in self.refused:
            if who == source and what in (target, tclass.name) and permission in tclass.permissions:
                allowed &= ~tclass.mask(permission)
        return Decision(allowed=allowed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control"


@pytest.fixture
def kernel(path: Path) -> Iterator[Kernel]:
    with Kernel() as kernel:
        kernel.inspect_at(path)
        yield kernel
        kernel.verify()


def pass_messages(kernel: Kernel, count: int) -> None:
    server = next(iter(kernel.tasks.values()), None) or kernel.create_task("server")
    inbox = server.allocate_port()
    right = inbox.make_send(kernel.create_task("client"))
    for _ in range(count):
        right.send(b"page")
        inbox.receive()


def next_records(batches: Iterator[list[WatchRecord]]) -> list[WatchRecord]:
    return next(records for records in batches if records)


def test_what_happens_is_told(kernel: Kernel, path: Path) -> None:
    with Connection(path) as connection:
        batches = connection.watch_batches("permission=send")
        assert next(batches) == []
        pass_messages(kernel, 3)
        records = next_records(batches)
        assert [(r.task_name, r.receiver_name) for r in records][:1] == [("client", "server")]
        batches.close()  # type: ignore[attr-defined]
        assert connection.stats()["sent"] == 3  # the connection is good for more
        batches = connection.watch_batches("permission=send")
        assert next(batches) == []


def test_several_peers_have_filters_of_their_own(kernel: Kernel, path: Path) -> None:
    with Connection(path) as one, Connection(path) as other, Connection(path) as third:
        sends, receives = (
            one.watch_batches("permission=send"),
            other.watch_batches("permission=recv"),
        )
        assert (next(sends), next(receives)) == ([], [])
        pass_messages(kernel, 1)
        assert {r.operation for r in next_records(sends)} == {"send"}
        assert {r.operation for r in next_records(receives)} == {"receive"}
        assert third.ping() > 0


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("words", [["nonsense"], ["class=none"], ["task=a", "task=b"]])
def test_a_wrong_filter_is_told_and_no_harm(path: Path, words: list[str]) -> None:
    with Connection(path) as connection:
        with pytest.raises(InspectError) as caught:
            next(connection.watch(*words))
        assert caught.value.code == "bad request"
        assert connection.ping() > 0


class Raw:
    """A peer that reads when it likes."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")
        self.say({"op": "hello"})
        self.line()

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def say(self, request: dict) -> None:
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def line(self) -> dict:
        return json.loads(self.file.readline())


def test_the_next_request_ends_a_watch(kernel: Kernel, path: Path) -> None:
    with Raw(path) as peer:
        peer.say({"op": "watch", "id": 1, "filter": ["permission=send"]})
        assert peer.line() == {"id": 1, "table": "records", "rows": []}
        pass_messages(kernel, 2)
        assert peer.line()["rows"][0]["task_name"] == "client"
        peer.say({"op": "ping", "id": 2})
        ended = peer.line()
        while "rows" in ended:
            ended = peer.line()
        assert (ended["id"], ended["result"]["lost"]) == (1, 0)
        assert peer.line()["id"] == 2


def test_a_peer_that_does_not_read_loses_and_harms_nobody(kernel: Kernel, path: Path) -> None:
    with Raw(path) as slow, Connection(path) as quick:
        slow.say({"op": "watch", "id": 1})
        slow.line()
        batches = quick.watch_batches("permission=send")
        next(batches)
        for _ in range(20):
            pass_messages(kernel, 300)
            next_records(batches)
        slow.say({"op": "ping", "id": 2})
        lines = [slow.line()]
        while "rows" in lines[-1]:
            lines.append(slow.line())
        lost = lines[-1]["result"]["lost"]
        assert lost > 0
        assert sum(row["lost"] for line in lines[:-1] for row in line["rows"]) <= lost
        assert slow.line()["id"] == 2


def test_a_peer_that_goes_leaves_its_place(path: Path) -> None:
    with Kernel() as kernel:
        kernel.inspect_at(path, limits=Limits(watches=1))
        with Connection(path) as first, Connection(path) as second:
            next(first.watch_batches())
            batches = first.watch_batches("permission=send")
            next(batches)
            with pytest.raises(InspectError) as caught:
                next(second.watch())
            assert caught.value.code == "busy"
            batches.close()  # type: ignore[attr-defined]
            next(second.watch_batches())


def test_a_kernel_that_closes_ends_it(path: Path) -> None:
    with Kernel() as kernel, Connection(kernel.inspect_at(path).path) as connection:
        batches = connection.watch_batches()
        next(batches)
        kernel.close()
        with pytest.raises(InspectError) as caught:
            next(batches)
        assert caught.value.code == "closed"


# ---- who may ----


def test_who_may_not_inspect_sees_nothing(path: Path) -> None:
    with Kernel([Eyes(("blind", "kernel", "inspect"))]) as kernel:
        kernel.inspect_at(path, label="eyes/blind")
        with Connection(path) as connection, pytest.raises(InspectError, match="no inspect"):
            next(connection.watch())


def seen_by_user(path: Path, *words: str) -> tuple[list[WatchRecord], str]:
    """What is seen by who may see nothing that is secret; and all that it was told, as text."""
    refused = [("user", "secret", p) for p in ("observe", "get_attributes", "list")]
    with Kernel([Eyes(*refused)]) as kernel:
        spy, clerk = kernel.create_task("spy", "eyes/secret"), kernel.create_task("clerk", "eyes/x")
        hidden, shown = spy.allocate_port(), spy.allocate_port("eyes/x")
        kernel.inspect_at(path, label="eyes/user", kernel_label="eyes/x")
        with Connection(path) as connection:
            batches = connection.watch_batches(*words)
            next(batches)
            hidden.make_send(clerk).send(b"1")
            shown.make_send(clerk).send(b"2")
            shown.make_send(spy).send(b"3")
            spy_made = clerk.allocate_port().make_send(spy)
            spy_made.send(b"4")
            spy_made.send(b"4")
            clerk.allocate_port().make_send(clerk).send(b"the end")
            found: list[WatchRecord] = []
            for records in batches:
                found += records
                if any(record.size == 7 for record in records):
                    break
            return found, repr(found)


def test_what_may_not_be_seen_looks_absent(path: Path) -> None:
    found, text = seen_by_user(path, "class=mach_port")
    sends = [
        (r.task_name, r.size, r.receiver, r.receiver_name) for r in found if r.operation == "send"
    ]
    assert sends == [("clerk", 1, 0, ""), ("clerk", 7, 2, "clerk")]
    assert "spy" not in text
    assert "secret" not in text


def test_errors_tell_of_no_port(path: Path) -> None:
    """Nobody knows the label of what a call failed on."""
    with Kernel([Eyes()]) as kernel:
        kernel.inspect_at(path, label="eyes/user", kernel_label="eyes/x")
        task = kernel.create_task("clerk", "eyes/x")
        with Connection(path) as connection, kernel.watch("outcome=failed") as all_seeing:
            batches = connection.watch_batches("outcome=failed")
            next(batches)
            with pytest.raises(MachError):
                task.receive(0x7703, timeout=0)
            [record] = next_records(batches)
            assert (record.task_name, record.port, record.name) == ("clerk", 0, 0)
            assert all_seeing.take()[0].name == 0x7703


@pytest.mark.parametrize("word", ["to=spy", "task=spy", "to=1", "label=eyes/secret"])
def test_filters_find_nothing_that_is_hidden(path: Path, word: str) -> None:
    """A filter that matched what is hidden would tell of it."""
    with Kernel([Eyes(("user", "secret", "observe"))]) as kernel:
        spy, clerk = kernel.create_task("spy", "eyes/secret"), kernel.create_task("clerk", "eyes/x")
        kernel.inspect_at(path, label="eyes/user", kernel_label="eyes/x")
        with Raw(path) as peer, kernel.watch(word, "permission=send") as all_seeing:
            peer.say({"op": "watch", "id": 1, "filter": [word, "permission=send"]})
            peer.line()
            inbox = spy.allocate_port("eyes/x")
            inbox.make_send(clerk).send(b"")
            inbox.make_send(spy).send(b"")
            peer.say({"op": "ping", "id": 2})
            assert all_seeing.take()
            assert peer.line()["result"] == {"records": 0, "lost": 0}


def test_a_policy_that_changes_is_heeded(path: Path) -> None:
    module = Eyes()
    with Kernel([module]) as kernel:
        kernel.inspect_at(path, label="eyes/user", kernel_label="eyes/x")
        with Connection(path) as connection:
            batches = connection.watch_batches("permission=send")
            next(batches)
            pass_messages(kernel, 1)
            assert next_records(batches)
            module.refused.add(("user", "kernel", "inspect"))
            module.changed()
            with pytest.raises(InspectError, match="no inspect on kernel"):
                list(batches)
