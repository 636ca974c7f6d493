# SPDX-License-Identifier: BSD-2-Clause
"""What other systems recorded, as audit records: AVC messages and D-Bus captures."""

import io
import random
import shutil
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pympi import Kernel, audit
from pympi.audit import AuditError, AuditRecord
from pympi.audit.imports import avc_batches, dbus_batches
from pympi.audit.imports.dbus import LINKTYPE
from pympi.enums import AuditFlag
from pympi.mig import Interface
from pympi.policy import Partition, Rules
from pympi.trace.graph import from_audit
from pympi.trace.timeline import sequence, write_timeline

# ---- AVC messages ----

CAT = (
    'avc:  denied  { read open } for  pid=42 comm="cat" path="/etc/shadow" dev="sda" ino=77 '
    "scontext=u:r:cat_t:s0-s0:c0.c3,c7 tcontext=s:o:shadow_t:s0 tclass=file permissive=0"
)
SERVER = (
    "pid=9 uid=81 msg='avc:  denied  { send_msg } for msgtype=method_call interface=org.x.Y "
    "member=Z dest=org.x spid=12 tpid=34 scontext=u:r:a_t:s0 tcontext=u:r:b_t:s0 tclass=dbus "
    'permissive=1  exe="/usr/bin/dbus-daemon" sauid=81 hostname=? addr=? terminal=?\''
)


def _log(tmp_path: Path, *lines: str) -> list[AuditRecord]:
    path = tmp_path / "audit.log"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    return [record for batch in avc_batches(path) for record in batch]


def _at(serial: int) -> str:
    return f"msg=audit(1700000000.123:{serial}):"


def test_messages_of_the_kernel(tmp_path: Path) -> None:
    [record] = _log(
        tmp_path, f"type=AVC {_at(7)} {CAT}", f"type=SYSCALL {_at(7)} arch=c000003e success=no"
    )
    assert (record.task, record.task_name, record.tclass) == (42, "cat", "file")
    assert record.subject == r"te/u:r:cat_t:s0-s0:c0.c3\,c7"
    assert record.object == "te/s:o:shadow_t:s0"
    assert record.asked == record.denied == ("read", "open")
    assert record.result == "KERN_NO_ACCESS"
    assert record.time == pytest.approx(1700000000.123)


def test_messages_of_userspace_servers_are_of_the_sender(tmp_path: Path) -> None:
    [record] = _log(tmp_path, f"type=USER_AVC {_at(8)} {SERVER}")
    assert (record.task, record.operation, record.service) == (12, "service", "org.x")
    assert record.denied == ("send_msg",)
    assert record.flags == AuditFlag.PERMISSIVE
    assert record.result == "KERN_SUCCESS"


@pytest.mark.parametrize("before", ["audit: type=1400 audit(2.5:9): ", "[ 1.0] audit(2.5:9): ", ""])
def test_messages_in_a_kernels_log(tmp_path: Path, before: str) -> None:
    text = "avc:  granted  { load } for  pid=1 comm=6D7920736800 scontext=a:b:c tcontext=d:e:f "
    [record] = _log(tmp_path, f"{before}{text}tclass=security")
    assert (record.asked, record.denied) == (("load",), ())
    assert record.task_name == "my sh\0"
    assert record.time == (2.5 if before else 0)


def test_what_cannot_be_read_counts_as_lost(tmp_path: Path) -> None:
    found = _log(
        tmp_path, f"type=AVC {_at(1)} {CAT[:90]}", f"type=AVC {_at(2)} avc:  denied  {{ }} for x",
        f"type=AVC {_at(3)} avc:  denied  {{ fly }} for  pid=1 scontext=a tcontext=b "
        "tclass=mach_port", f"type=AVC {_at(4)} {CAT}",
    )  # fmt: skip
    assert [record.lost for record in found] == [1, 1, 1, 0]
    assert found[-1].task_name == "cat"


def test_two_processes_of_one_number_are_two_tasks(tmp_path: Path) -> None:
    other = CAT.replace('"cat"', '"dog"')
    found = _log(tmp_path, *(f"type=AVC {_at(n)} {text}" for n, text in enumerate((CAT, other))))
    assert [record.task_name for record in found] == ["cat", "dog"]
    assert found[0].task == 42 != found[1].task


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "own.log"
    rules = Rules.from_text("""
        allow server server mach_port { set_attributes make_send use_recv recv };
        allow client server mach_port { hold_send };
    """)
    with Kernel(policies=[rules, Partition()]) as kernel:
        memory = audit.Memory()
        kernel.audit.everything(errors=False)
        kernel.audit.attach(memory)
        kernel.audit.attach(audit.AVCFile(path))
        server = kernel.create_task("a server", label="rules/server,partition/red")
        client = kernel.create_task("client", label="rules/client,partition/red")
        inbox = server.allocate_port()
        inbox.serve(Interface("printing", 1200, ["print_page"]))
        with pytest.raises(PermissionError):
            inbox.make_send(client).send(b"page", msgh_id=1200)
        kernel.audit.flush()
    written = [r for r in memory.records if r.asked]
    read = [record for batch in avc_batches(path) for record in batch]

    def told(r: AuditRecord) -> tuple[object, ...]:
        return (r.task, r.task_name, r.subject, r.object, r.tclass, r.asked, r.denied, r.msgh_id)

    assert [told(record) for record in read] == [
        told(r if not r.denied else r._replace(asked=r.denied)) for r in written
    ]
    assert any(record.denied for record in read)


def test_a_hostile_log_is_read_in_a_pass(tmp_path: Path) -> None:
    rng = random.Random(7)
    lines = []
    for _ in range(300):
        line = list(f"type=AVC {_at(7)} {CAT}")
        for _ in range(3):
            line[rng.randrange(len(line))] = rng.choice("\0\x1b{}\"'= \udc80\u202e0")
        lines.append("".join(line))
    lines += [f"avc: {'{ ' * 50_000}", f"avc:  denied  {{ {'x ' * 2000}}} for {'a=b ' * 9000}"]
    found = _log(tmp_path, *lines)
    assert 0 < sum(record.lost for record in found) < len(lines)


def test_a_class_has_as_many_permissions_as_a_vector(tmp_path: Path) -> None:
    """SELinux's `capability` has 32."""
    asked = " ".join(f"cap_{number}" for number in range(32))
    line = f"avc:  denied  {{ {asked} }} for  pid=1 scontext=a:b:c tcontext=a:b:c tclass=capability"
    [record] = _log(tmp_path, line)
    assert record.tclass == "capability"
    assert " ".join(record.denied) == asked


def test_very_many_permissions_are_read_in_linear_time(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        line = "avc:  denied  {{ p{} }} for  pid=1 scontext=a:b:c tcontext=a:b:c tclass=file"
        began = time.process_time()
        assert len(_log(tmp_path, *(line.format(number) for number in range(count)))) == count
        return time.process_time() - began

    assert min(seconds(40_000) / seconds(5_000) for _ in range(3)) < 20


# ---- D-Bus ----


def _aligned(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def _field(order: str, code: int, signature: str, value: "str | int") -> bytes:
    head = bytes([code, 1]) + signature.encode() + b"\0"
    if isinstance(value, int):
        return head + struct.pack(order + "I", value)
    raw = value.encode()
    if signature == "g":
        return head + bytes([len(raw)]) + raw + b"\0"
    return head + struct.pack(order + "I", len(raw)) + raw + b"\0"


def _message(
    kind: int, serial: int, order: str = "<", flags: int = 0, **fields: "str | int"
) -> bytes:
    codes = {"path": (1, "o"), "interface": (2, "s"), "member": (3, "s"), "error": (4, "s"),
             "reply_to": (5, "u"), "destination": (6, "s"), "sender": (7, "s"),
             "signature": (8, "g")}  # fmt: skip
    body = b""
    for name, value in fields.items():
        body = _aligned(body, 8) + _field(order, *codes[name], value)
    mark = b"l" if order == "<" else b"B"
    head = mark + bytes([kind, flags, 1]) + struct.pack(order + "III", 0, serial, len(body))
    return _aligned(head + body, 8)


def _capture(*messages: bytes, order: str = "<", whole: int = 0) -> bytes:
    packets = b"".join(
        struct.pack(order + "IIII", 100 + n, 5, len(m), max(whole, len(m))) + m
        for n, m in enumerate(messages)
    )
    return struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 27, LINKTYPE) + packets


def _conversation(order: str = "<", error: str = "") -> list[bytes]:
    call = _message(
        1, 7, order, path="/a", interface="org.x.Printer", member="Print", destination="org.x",
        sender=":1.5", signature="s",
    )  # fmt: skip
    answer = _message(
        3 if error else 2, 9, order, reply_to=7, destination=":1.5", sender=":1.8",
        **({"error": error} if error else {}),
    )  # fmt: skip
    return [call, answer]


def _read(tmp_path: Path, data: bytes) -> list[AuditRecord]:
    path = tmp_path / "bus.pcap"
    path.write_bytes(data)
    return [record for batch in dbus_batches(path) for record in batch]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_call_and_its_answer(tmp_path: Path, order: str) -> None:
    found = _read(tmp_path, _capture(*_conversation(order), order=order))
    assert [(r.task_name, r.operation, r.asked) for r in found] == [
        (":1.5", "send", ("send", "copy_send")), (":1.5", "method", ("Print",)),
        (":1.5", "give", ("make_send_once", "set_reply")),
        (":1.8", "receive", ("recv", "use_recv")), (":1.8", "send", ("send", "move_send_once")),
        (":1.5", "receive", ("recv", "use_recv")),
    ]  # fmt: skip
    assert found[1].tclass == "mi_org-x-Printer"
    assert [r.transfer for r in found] == [1, 1, 1, 1, 2, 2]
    assert found[0].port == found[3].port != found[4].port == found[2].port == found[5].port
    assert found[0].time == pytest.approx(100.000005)


def test_a_refusal_is_the_callers(tmp_path: Path) -> None:
    error = "org.freedesktop.DBus.Error.AccessDenied"
    found = _read(tmp_path, _capture(*_conversation(error=error)))
    [refused] = [record for record in found if record.denied]
    assert (refused.task_name, refused.denied, refused.transfer) == (":1.5", ("Print",), 1)


def test_the_bus_answers_for_another_and_does_not_become_it(tmp_path: Path) -> None:
    call, _ = _conversation()
    error = _message(
        3, 1, reply_to=7, destination=":1.5", sender="org.freedesktop.DBus",
        error="org.freedesktop.DBus.Error.ServiceUnknown",
    )  # fmt: skip
    found = _read(tmp_path, _capture(call, error))
    assert [r.task_name for r in found if r.operation == "receive"] == [":1.5"]


def test_a_conversation_on_a_bus_is_a_diagram_a_timeline_and_a_graph(tmp_path: Path) -> None:
    signal = _message(
        4, 2, interface="org.x", member="Done", destination=":1.5", sender="org.freedesktop.DBus"
    )
    unanswered = _message(1, 3, interface="org.y", member="Go", destination="org.y", sender=":1.5")
    path = tmp_path / "bus.pcap"
    path.write_bytes(_capture(*_conversation(), signal, unanswered))
    assert sequence(dbus_batches(path)).text.splitlines()[2:] == [
        "    participant T1 as #58;1.5",
        "    participant T2 as #58;1.8",
        "    participant T3 as org.freedesktop.DBus",
        "    participant T4 as a port labelled dbus/org.y",
        "    T1->>+T2: Print",
        "    T2-->>-T1: reply to Print",
        "    T3->>T1: Done",
        "    T1->>T4: Go",
    ]
    graph = from_audit(dbus_batches(path))
    assert [(edge.source, edge.target, edge.messages, edge.replies) for edge in graph.edges] == [
        ("task :1.5", "port #4 dbus/org.y", 1, 0), ("task :1.5", "task :1.8", 1, 1),
        ("task org.freedesktop.DBus", "task :1.5", 1, 0),
    ]  # fmt: skip
    written = write_timeline(dbus_batches(path), io.BytesIO())
    assert (written.tasks, written.arrows, written.open) == (3, 3, 1)


def test_very_many_members_of_an_interface(tmp_path: Path) -> None:
    calls = [
        _message(1, n + 1, flags=1, interface="org.x", member=f"m{n}", destination="a", sender=":1")
        for n in range(100)
    ]
    methods = [r for r in _read(tmp_path, _capture(*calls)) if r.operation == "method"]
    assert [record.asked for record in methods] == [(f"m{n}",) for n in range(100)]
    assert {record.tclass for record in methods} == {
        "mi_org-x", "mi_org-x_2", "mi_org-x_3", "mi_org-x_4"
    }  # fmt: skip


def test_what_was_captured_in_part_is_lost(tmp_path: Path) -> None:
    found = _read(tmp_path, _capture(*_conversation(), whole=4000))
    assert [record.lost for record in found] == [1, 1]


def test_every_cut_is_told_with_its_byte(tmp_path: Path) -> None:
    data = _capture(*_conversation())
    good = {24, 24 + 16 + len(_conversation()[0])}
    for size in range(len(data)):
        if size in good:
            _read(tmp_path, data[:size])
        else:
            with pytest.raises(AuditError, match=r"bus.pcap, byte \d+: "):
                _read(tmp_path, data[:size])


def test_every_changed_bit_is_read_or_refused(tmp_path: Path) -> None:
    data = _capture(*_conversation())
    refused = 0
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with suppress(AuditError):
                _read(tmp_path, bytes(changed))
                continue
            refused += 1
    assert refused > len(data)


def test_a_huge_length_takes_no_memory(tmp_path: Path) -> None:
    head = _capture()
    with pytest.raises(AuditError, match=r"byte 24: expected a packet of at most"):
        _read(tmp_path, head + struct.pack("<IIII", 1, 1, 0xFFFFFFF0, 0xFFFFFFF0))


@pytest.mark.skipif(
    not all(map(shutil.which, ("dbus-run-session", "dbus-monitor", "dbus-send"))),
    reason="dbus-daemon and its tools are not installed",
)
def test_what_dbus_monitor_captures(tmp_path: Path) -> None:
    script = """
        dbus-monitor --pcap > "$1" 2> /dev/null & monitor=$!
        until [ -s "$1" ]; do sleep 0.05; done
        send() { dbus-send --print-reply --dest=org.freedesktop.DBus / "$@" > /dev/null 2>&1; }
        send org.freedesktop.DBus.ListNames
        send org.freedesktop.DBus.GetNameOwner string:org.example.nobody
        until grep -q GetNameOwner "$1"; do sleep 0.05; done
        kill $monitor; wait $monitor
    """
    path = tmp_path / "bus.pcap"
    subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", script, "sh", path], check=False, timeout=60,
        capture_output=True,
    )  # fmt: skip
    try:
        records = [record for batch in dbus_batches(path) for record in batch]
    except AuditError as error:  # the monitor was killed while it wrote
        pytest.fail(str(error))
    methods = {record.asked for record in records if record.operation == "method"}
    assert {("Hello",), ("ListNames",), ("GetNameOwner",)} <= methods
    answered = np.diff(sorted(r.time for r in records))
    assert (answered >= 0).all()
