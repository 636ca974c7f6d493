# SPDX-License-Identifier: BSD-2-Clause
"""Audit: what is selected, what a record says, where records go, and what is lost."""

import contextlib
import io
from pathlib import Path

import audit_files as make
import numpy as np
import pytest

from pympi import AccessDenied, AuditFull, Kernel, SendRight, Task, audit
from pympi._ffi import ffi
from pympi.audit import RECORD, AuditError, Batch, Reader
from pympi.enums import AuditFlag
from pympi.policy import Decision, Partition, PolicyModule, Rules
from pympi.port import ReceiveRight
from pympi.testing import allow_all, capture_audit

PAIRS = 50


@pytest.fixture
def port(server: Task) -> ReceiveRight:
    return server.allocate_port(qlimit=1024)


@pytest.fixture
def right(port: ReceiveRight, client: Task) -> SendRight:
    return port.make_send(client)


def operations(kernel: Kernel) -> list[str]:
    return [record.operation for record in kernel.audit.batch(kernel.audit.drain())]


def test_the_record_is_the_struct() -> None:
    struct = ffi.typeof("struct pm_audit_record")
    assert RECORD.itemsize == ffi.sizeof(struct) == 104
    assert list(RECORD.names or ()) == [name for name, _ in struct.fields]
    for name, field in struct.fields:
        assert RECORD.fields is not None
        kind, offset = RECORD.fields[name][:2]
        assert (offset, kind.itemsize) == (field.offset, ffi.sizeof(field.type))


def test_nothing_is_recorded_of_what_is_granted(kernel: Kernel, right: SendRight) -> None:
    right.send(b"")
    assert len(kernel.audit.drain()) == 0


def test_selection(kernel: Kernel, port: ReceiveRight, right: SendRight) -> None:
    kernel.audit.select("granted", "mach_port", "send")
    right.send(b"1")
    port.receive()
    assert operations(kernel) == ["send"]
    kernel.audit.select("all", ["mach_port", "mach_task"])
    right.send(b"1")
    port.receive()
    assert operations(kernel) == ["send", "receive"]
    kernel.audit.select("none")
    right.send(b"1")
    assert operations(kernel) == []


def test_wrong_selections_are_refused(kernel: Kernel) -> None:
    for arguments in (("some",), ("all", "mach_prt"), ("all", "mach_port", "sned")):
        with pytest.raises(ValueError, match=r"some|mach_prt|sned"):
            kernel.audit.select(*arguments)
    with pytest.raises(ValueError, match="belong to a class"):
        kernel.audit.select("all", permissions="send")
    with pytest.raises(ValueError, match="when_full"):
        kernel.audit.when_full = "perhaps"


def test_what_a_record_says() -> None:
    with Kernel(policies=[Partition(), allow_all()], clock="exact") as kernel:
        server = kernel.create_task("server", label="partition/a")
        client = kernel.create_task("client", label="partition/a,rules/client")
        port = server.allocate_port()
        right = port.make_send(client)
        began = kernel.time
        with capture_audit(kernel) as records:
            right.send(b"12345", msgh_id=7)
            message = port.receive()
        send = next(r for r in records if r.operation == "send")
        assert send.subject == send.real_subject == "partition/a,rules/client"
        assert (send.object, send.task_name, send.task) == ("partition/a", "client", client.id)
        assert (send.tclass, send.asked, send.denied) == ("mach_port", ("send", "copy_send"), ())
        assert (send.msgh_id, send.size, send.result) == (7, 5, "KERN_SUCCESS")
        assert (send.name, send.port) == (right.name, port.port_id)
        assert send.provenance == right.provenance > 0
        assert began <= send.time <= kernel.time
        received = next(r for r in records if r.operation == "receive")
        assert received.transfer == send.transfer == message.transfer
        assert received.asked == ("recv", "use_recv")
        assert (received.object, received.peer) == ("partition/a", "partition/a,rules/client")
        assert AuditFlag.RECEIVE in received.flags
        assert [r.sequence for r in records] == list(
            range(records[0].sequence, records[0].sequence + len(records))
        )


def test_a_denial_is_recorded_with_its_code() -> None:
    with Kernel(policies=[Rules()]) as kernel:
        task = kernel.create_task("task", label="rules/a")
        port = task.allocate_port()
        with pytest.raises(AccessDenied):
            port.make_send(task)
        (record,) = kernel.audit.batch(kernel.audit.drain())
        assert "make_send" in record.denied
        assert record.result == "KERN_NO_ACCESS"
        assert record.subject == "rules/a"


def test_errors_are_recorded_on_request(kernel: Kernel, client: Task) -> None:
    kernel.audit.everything(errors=True)
    with pytest.raises(LookupError):
        SendRight(client, 0x7703).send(b"")
    records = list(kernel.audit.batch(kernel.audit.drain()))
    sends = [r.result for r in records if AuditFlag.ERROR in r.flags and r.operation == "send"]
    assert sends == ["MACH_SEND_INVALID_DEST"]


def test_a_file_has_it_all(tmp_path: Path) -> None:
    path = tmp_path / "run.audit"
    memory = audit.Memory()
    with Kernel(policies=[Partition()]) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File(path))
        kernel.audit.attach(memory)
        client = kernel.create_task("клиент", label="partition/a")
        port = client.allocate_port()
        right = port.make_send(client)
        right.send(b"", msgh_id=1)
        kernel.audit.flush()
        other = kernel.create_task("other", label="partition/b")
        other.allocate_port().make_send(other).send(b"", msgh_id=2)
    records = list(audit.read(path))
    assert records == list(memory.records)
    sends = [record for record in records if record.operation == "send"]
    assert [(r.msgh_id, r.subject) for r in sends] == [(1, "partition/a"), (2, "partition/b")]
    assert [r.task_name for r in sends] == ["клиент", "other"]


def test_form_1_that_ends_too_soon() -> None:
    whole = make.form_1([make.batch(3), make.batch(2, 4)])
    for cut in range(len(whole)):
        found: list[Batch] = []
        broken = cut not in whole_frames(whole)
        with pytest.raises(AuditError, match="byte") if broken else contextlib.nullcontext():
            found.extend(Reader(io.BytesIO(whole[:cut]), "cut"))
        assert make.numbers(found) == [1, 2, 3, 4, 5][: len(make.numbers(found))]


def test_form_1_that_is_none() -> None:
    start = b"pympi audit 1\n"
    for wrong, message in (
        (b"pympi audit 3\n", "byte 0: a file of form 3; this pympi reads forms 1 and 2"),
        (start + b"JUNK\0\0\0\0", "byte 14: expected a frame"),
        (start + b"RECS\5\0\0\0hello", "104 bytes each"),
        (start + b"LABL\1\0\0\0x", "at least 4 bytes"),
        (start + b"RECS\xff\xff\xff\xff", "at most"),
    ):
        with pytest.raises(AuditError, match=message):
            list(Reader(io.BytesIO(wrong)))


def whole_frames(raw: bytes) -> set[int]:
    """Return the lengths at which a file may end."""
    ends, at = {14}, 14
    while at < len(raw):
        at += 8 + int.from_bytes(raw[at + 4 : at + 8], "little")
        ends.add(at)
    return ends


def flood(right: SendRight, port: ReceiveRight, count: int) -> None:
    for _ in range(count):
        right.send(b"")
        port.receive()


def small(**options: object) -> tuple[Kernel, SendRight, ReceiveRight]:
    kernel = Kernel(policies=[allow_all()], audit_records=16, **options)  # type: ignore[arg-type]
    task = kernel.create_task("task")
    port = task.allocate_port(qlimit=1024)
    right = port.make_send(task)
    kernel.audit.select("granted", "mach_port", "send")
    return kernel, right, port


def test_what_is_dropped_is_counted() -> None:
    kernel, right, port = small()
    with kernel:
        flood(right, port, PAIRS)
        *records, loss = kernel.audit.batch(kernel.audit.drain())
        lost = kernel.audit.stats["lost"]
        assert lost > 0
        assert len(records) + lost == PAIRS
        assert (loss.operation, loss.lost) == ("loss", lost)
        flood(right, port, 1)
        [late] = kernel.audit.batch(kernel.audit.drain())
        assert late.operation == "send"


def test_what_must_be_recorded_and_cannot_is_not_done() -> None:
    kernel, right, port = small(audit_full="fail")
    with kernel:
        with pytest.raises(AuditFull):
            flood(right, port, PAIRS)
        queued = port.status.msgcount
        with pytest.raises(AuditFull):
            right.send(b"")
        assert port.status.msgcount == queued
        kernel.audit.drain()
        right.send(b"")
        assert kernel.audit.stats["lost"] == 0


def test_blocking_drains_and_loses_nothing() -> None:
    kernel, right, port = small(audit_full="block")
    with kernel:
        flood(right, port, PAIRS)
        records = kernel.audit.drain()
        assert len(records) == PAIRS
        assert np.all(np.diff(records["sequence"].astype(np.int64)) == 1)


def test_a_file_that_blocks_gets_everything(tmp_path: Path) -> None:
    path = tmp_path / "run.audit"
    kernel, right, port = small()
    with kernel:
        kernel.audit.attach(audit.File(path, when_full="block"))
        assert kernel.audit.when_full == "block"
        flood(right, port, 10 * PAIRS)
    assert sum(record.operation == "send" for record in audit.read(path)) == 10 * PAIRS


def test_a_failing_sink_does_not_lose_what_others_get() -> None:
    kernel, right, _ = small()

    def broken(_batch: Batch) -> None:
        raise OSError("disk full")

    good = audit.Memory()
    with kernel:
        kernel.audit.attach(broken)
        kernel.audit.attach(good)
        right.send(b"")
        kernel.audit.flush()
        assert len(good.records) == 1
        [failure] = kernel.audit.failures
        assert (failure.sink, failure.error, failure.lost) == (broken, "OSError: disk full", 1)
        right.send(b"")
        assert [(sink.name, sink.state) for sink in kernel.audit.sinks] == [("Memory", "open")]
    assert len(good.records) == 2


def test_sinks_come_and_go() -> None:
    kernel, right, _ = small()
    first, second = audit.Memory(), audit.Memory(capacity=1)
    with kernel:
        kernel.audit.attach(first)
        right.send(b"")
        kernel.audit.attach(second)
        right.send(b"")
        right.send(b"")
        kernel.audit.detach(first)
        right.send(b"")
        kernel.audit.flush()
        assert (len(first.records), len(second.records)) == (3, 1)
        assert kernel.audit.stats["drained"] == 4


def test_dontaudit_holds_unless_everything_is_wanted() -> None:
    class Silent(PolicyModule):
        name = "silent"

        def decide(self, source: object, target: object, tclass: object) -> Decision:
            return Decision(allowed=0, auditdeny=0)

    with Kernel(policies=[Silent()]) as kernel:
        task = kernel.create_task("task")
        port = task.allocate_port()
        with pytest.raises(AccessDenied):
            port.make_send(task)
        assert len(kernel.audit.drain()) == 0
        kernel.audit.everything()
        with pytest.raises(AccessDenied):
            port.make_send(task)
        assert len(kernel.audit.drain()) > 0
