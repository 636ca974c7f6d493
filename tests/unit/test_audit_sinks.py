# SPDX-License-Identifier: BSD-2-Clause
"""The sinks: what each writes of a record, and that what tasks choose stays data."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from background import LONG, Run

from pympi import AccessDenied, Kernel, SendRight, audit
from pympi.audit import RECORD, Batch
from pympi.audit.sinks.lines import printable, sentence
from pympi.enums import CLASSES, AuditFlag, Operation
from pympi.errors import code_name
from pympi.policy import Partition

HOSTILE = [
    "plain", "", "two\nlines", 'quote " ] \\', "\x1b[31mred\x07", "\u202etfel", "\udc80\ud800",
    "=1+1", "<b>&", "\x00nul", "x" * 5000, "\U0001f600" * 500,
    "type=AVC msg=audit(1.000:1): avc:  granted", "<34>1 - forged - - - -",
]  # fmt: skip


def read(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def batch() -> Batch:
    """Records of every outcome, with hostile words everywhere."""
    count = len(HOSTILE)
    records = np.zeros(4 * count + 1, RECORD)
    records["sequence"] = np.arange(len(records))
    records["time"] = 1_700_000_000_123_456_789
    records["effective_sid"] = records["real_sid"] = records["task"] = (
        np.arange(len(records)) % count + 1
    )
    records["object_sid"] = records["peer_sid"] = (np.arange(len(records)) + 1) % count + 1
    port = CLASSES["mach_port"]
    records["tclass"], records["asked"] = port.number, port.mask("send")
    records["operation"], records["msgh_id"] = Operation.SEND, -1
    records["denied"][count : 2 * count] = port.mask("send")
    records["result"][count : 2 * count] = 8
    records["tclass"][2 * count : 3 * count] = records["asked"][2 * count : 3 * count] = 0
    records["result"][2 * count : 3 * count] = 15
    records["flags"][2 * count : 3 * count] = AuditFlag.ERROR
    records["operation"][3 * count : 4 * count] = Operation.SERVICE
    records["name"] = records["task"]
    records[-1] = 0
    records["operation"][-1], records["flags"][-1] = Operation.LOSS, AuditFlag.LOSS
    records["sequence"][-1], records["result"][-1] = 99, 42
    words = dict(enumerate(HOSTILE, 1))
    return Batch(records, words, words, {port.number: port}, words)


def scene(*sinks: Any) -> None:
    """Make a denial, an error, and grants that are not recorded."""
    with Kernel(policies=[Partition()]) as kernel:
        for sink in sinks:
            kernel.audit.attach(sink)
        red = kernel.create_task("red", label="partition/red")
        with pytest.raises(AccessDenied):
            red.allocate_port().make_send(kernel.create_task("blue", label="partition/blue"))
        with pytest.raises(LookupError):
            SendRight(red, 0x7703).send(b"")
        assert not kernel.audit.failures


# ---- words ----


@pytest.mark.parametrize("text", HOSTILE)
def test_printable_text(text: str) -> None:
    for most in (10, 100, 100_000):
        shown = printable(text, most)
        assert len(shown) <= most
        assert re.fullmatch(r"[ -~]*", shown)
    assert printable(text, 100_000) != text or re.fullmatch(r"[ -\[\]-~]*", text)
    assert re.sub(r"\\(.)", "", printable(text, 100_000, quoted='"]')).count('"') == 0


def test_a_sentence_is_a_line_of_bounded_length() -> None:
    for record in batch():
        assert re.fullmatch(r"[ -~]+", sentence(record))
        assert len(sentence(record)) < 4096


def test_outcomes() -> None:
    counts = dict.fromkeys(audit.OUTCOMES, 0)
    for record in batch():
        counts[record.outcome] += 1
    size = len(HOSTILE)
    assert counts == {"granted": 2 * size, "denied": size, "failed": size, "loss": 1}
    assert audit.outcome_of(AuditFlag.PERMISSIVE, 1, 0) == "granted"


# ---- functions ----


def test_a_function_for_each_record_or_batch() -> None:
    records: list[Any] = []
    batches: list[Any] = []
    scene(audit.Callable(records.append), audit.Callable(batches.append, each=False))
    assert [record.outcome for record in records] == ["denied", "failed"]
    assert sum(map(len, batches)) == 2


# ---- JSON ----


def test_json_lines_say_what_records_say(tmp_path: Path) -> None:
    memory, sink = audit.Memory(), audit.JSONLines(tmp_path / "run.jsonl")
    scene(memory, sink)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert len(lines) == len(memory.records) == 2
    for line, record in zip(lines, memory.records, strict=True):
        expected = record._asdict() | {"v": 1, "outcome": record.outcome}
        expected["flags"] = [flag.name for flag in AuditFlag if flag in record.flags]
        assert line["time"] == pytest.approx(record.time, abs=1e-6)
        for key in ("asked", "denied", "reported"):
            expected[key] = list(expected[key])
        assert line | {"time": 0} == expected | {"time": 0}


def strict(line: str) -> Any:
    """Read JSON as strictly as anybody does."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(line.encode("ascii").decode(), parse_constant=refuse)


def test_hostile_words_stay_data_in_json(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    sink = audit.JSONLines(path)
    sink(batch())
    sink.close()
    raw = path.read_bytes()
    assert re.fullmatch(rb"[\n -~]*", raw)
    lines = [strict(line) for line in raw.decode().splitlines()]
    assert len(lines) == len(batch())
    for line, record in zip(lines, batch(), strict=True):
        json.dumps(line, ensure_ascii=False).encode()  # no lone surrogate is left
        for field in ("subject", "object", "peer", "task_name", "service"):
            assert line[field] == getattr(record, field).encode(errors="backslashreplace").decode()
    assert lines[0]["time"] == pytest.approx(1_700_000_000.123456789)
    assert b'"time":1700000000.123456789,' in raw
    assert (lines[-1]["outcome"], lines[-1]["lost"], lines[-1]["result"]) == ("loss", 42, "")


# ---- Linux audit ----


def test_every_record_has_a_message_of_linux_audit(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    sink = audit.AuditText(path)
    sink(batch())
    sink.close()
    heads = [re.match(r"type=(\w+) msg=audit\(\d+\.\d{3}:(\d+)\): ", line) for line in read(path)]
    assert all(heads)
    serials = {int(head[2]) for head in heads if head}
    assert serials == {*range(4 * len(HOSTILE)), 99}
    assert {head[1] for head in heads if head} == {"AVC", "USER_ERR"}
    assert max(map(len, read(path))) < 8970
    assert "msg='op=loss lost=42 result=LOST" in path.read_text()


def test_avc_files_have_decisions_alone(tmp_path: Path) -> None:
    path = tmp_path / "avc.log"
    sink = audit.AVCFile(path)
    sink(batch())
    sink.close()
    assert {line.partition(" ")[0] for line in read(path)} == {"type=AVC"}


@pytest.mark.skipif(not shutil.which("ausearch"), reason="ausearch (auditd) is not installed")
def test_ausearch_reads_every_message(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    sink = audit.AuditText(path)
    sink(batch())
    sink.close()
    for kind in ("AVC", "USER_ERR"):
        command = ["ausearch", "-if", str(path), "-m", kind, "--raw"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        written = [line for line in read(path) if line.startswith(f"type={kind} ")]
        assert sorted(found.splitlines(keepends=True)) == sorted(written)


# ---- syslog ----

MESSAGE = re.compile(
    r"<(?P<pri>\d+)>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<pid>\S+) (?P<id>\S+) "
    r"\[pympi@32473(?P<data>( [a-z_]+=\"([^\"\]\\]|\\.)*\")+)\] (?P<text>[ -~]*)"
)


def messages(sink: audit.Syslog) -> list[re.Match[str]]:
    found = []
    for message in sink.messages(batch()):
        assert len(message) <= 2048
        matched = MESSAGE.fullmatch(message.decode("ascii"))
        assert matched, message
        found.append(matched)
    return found


@pytest.fixture
def log(tmp_path: Path) -> socket.socket:
    """A system's log that takes datagrams."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "log"))
    listener.settimeout(LONG)
    return listener


def test_syslog_messages(log: socket.socket) -> None:
    sink = audit.Syslog(log.getsockname(), hostname="a host", app="]\n")
    found = messages(sink)
    size = len(HOSTILE)
    assert [int(m["pri"]) for m in found] == [86] * size + [84] * size + [85] * size + [
        86
    ] * size + [83]
    assert {(m["host"], m["app"], m["pid"]) for m in found} == {("a_host", "]_", str(os.getpid()))}
    assert found[0]["time"] == "2023-11-14T22:13:20.123457Z"
    assert 'task_name="two\\u{a}lines"' in found[2]["data"]
    assert 'task_name="quote \\" \\] \\\\"' in found[3]["data"]
    assert 'lost="42"' in found[-1]["data"]
    sink.close()
    log.close()


def test_syslog_to_a_socket(log: socket.socket) -> None:
    scene(audit.Syslog(log.getsockname()))
    first = MESSAGE.fullmatch(log.recv(4096).decode())
    assert first
    assert (first["pri"], first["id"]) == ("84", "take")
    log.close()


def test_syslog_by_tcp() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def read() -> bytes:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as file:
            return file.read()

    run = Run(read)
    scene(audit.Syslog(listener.getsockname(), tcp=True))
    raw = run.result()
    listener.close()
    count = 0
    while raw:  # octet counting
        size, _, rest = raw.partition(b" ")
        assert MESSAGE.fullmatch(rest[: int(size)].decode())
        raw, count = rest[int(size) :], count + 1
    assert count == 2


def test_a_log_that_was_restarted(tmp_path: Path, log: socket.socket) -> None:
    sink = audit.Syslog(log.getsockname())
    log.close()
    with pytest.raises(OSError, match=r"."):
        sink(batch().part(np.arange(1)))
    (tmp_path / "log").unlink()
    again = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    again.bind(str(tmp_path / "log"))
    sink._socket = sink._connect()
    sink(batch().part(np.arange(1)))
    assert MESSAGE.fullmatch(again.recv(4096).decode())
    sink.close()
    again.close()


def test_syslog_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        audit.Syslog(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="is no socket: no system's log listens there"):
        audit.Syslog(tmp_path / "file")
    with pytest.raises(ValueError, match="facility must be 0 to 23 or one of user,"):
        audit.Syslog(tmp_path / "file", facility="mail room")


# ---- logging ----


def test_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pympi.audit.records"):
        scene(audit.Logging())
    found = [record for record in caplog.records if record.name == "pympi.audit.records"]
    assert [record.levelname for record in found] == ["WARNING", "INFO"]
    assert [record.audit.outcome for record in found] == ["denied", "failed"]  # type: ignore[attr-defined]
    assert found[1].getMessage().endswith(": MACH_SEND_INVALID_DEST")


def test_what_is_not_logged_is_not_formatted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "pympi.audit.records"):
        audit.Logging()(batch())
        assert [record.getMessage() for record in caplog.records] == ["42 records lost"]
        caplog.clear()
        audit.Logging(levels={"denied": logging.DEBUG})(batch())
        assert not caplog.records


# ---- OpenTelemetry ----


def test_opentelemetry_has_denials_and_losses_alone() -> None:
    sdk = pytest.importorskip(
        "opentelemetry.sdk._logs", reason="opentelemetry-sdk is not installed"
    )
    export = pytest.importorskip("opentelemetry.sdk._logs.export")
    exporter = export.InMemoryLogRecordExporter()
    provider = sdk.LoggerProvider()
    provider.add_log_record_processor(export.SimpleLogRecordProcessor(exporter))
    audit.OpenTelemetry(provider)(batch())
    found = [data.log_record for data in exporter.get_finished_logs()]
    assert [record.severity_text for record in found] == ["denied"] * len(HOSTILE) + ["loss"]
    assert found[0].timestamp == 1_700_000_000_123_456_789
    attributes = found[0].attributes
    assert attributes["pympi.subject"] == "plain"
    assert attributes["pympi.denied"] == ("send",)
    assert attributes["pympi.result"] == code_name(8)
    for record in found:
        for value in record.attributes.values():
            str(value).encode()


def test_opentelemetry_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'pympi-mach\[otel\]'"):
        audit.OpenTelemetry()


# ---- all of them ----


def test_a_sink_has_one_caller_at_a_time() -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def sink(_batch: Batch) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    with Kernel(audit_records=16) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(sink, when_full="block")
        tasks = [kernel.create_task(f"task {number}") for number in range(4)]
        inboxes = [task.allocate_port(qlimit=1000) for task in tasks]

        def work(number: int) -> None:
            right = inboxes[number].make_send(tasks[number])
            for _ in range(200):
                right.send(b"")

        for run in [Run(lambda number=number: work(number)) for number in range(4)]:
            run.result()
        kernel.audit.flush()
        assert kernel.audit.stats["lost"] == 0
        assert not kernel.audit.failures
    assert most == 1
