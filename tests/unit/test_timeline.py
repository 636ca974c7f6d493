# SPDX-License-Identifier: BSD-2-Clause
"""Timelines for Perfetto, and Mermaid diagrams, of what kernels recorded."""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pympi import AccessDenied, Kernel, SimulatedClock, audit
from pympi.audit import RECORD, Batch
from pympi.cli import main
from pympi.enums import AuditFlag, Operation
from pympi.mig import Interface
from pympi.policy import Rules
from pympi.trace.timeline import Chosen, acts, sequence, write_timeline
from pympi.trace.timeline import perfetto as perfetto_module
from pympi.trace.timeline.sequence import _Finder

PRINTING = Interface("printing", 1200, ["print_page", "cancel"])
POLICY = """
allow * * mach_port { * };
allow * * mach_task { * };
allow editor printd mi_printing { print_page };
"""
HOSTILE = 'a;b#\n"participant X"</script>\u202e%%'


@pytest.fixture
def batches() -> Iterator[list[Batch]]:
    """An editor prints a page and is answered; it may not cancel; another prints, too."""
    found: list[Batch] = []
    with Kernel(policies=[Rules.from_text(POLICY)], clock=SimulatedClock()) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(found.append)
        printd = kernel.create_task("printd", label="rules/printd")
        inbox = printd.allocate_port(label="rules/printd")
        inbox.serve(PRINTING)
        editor = kernel.create_task("editor", label="rules/editor")
        hostile = kernel.create_task(HOSTILE, label="rules/editor")
        right, other = inbox.make_send(editor), inbox.make_send(hostile)
        answers = editor.allocate_port(label="rules/editor")
        right.send(b"page", msgh_id=1200, reply=answers.make_send_once())
        inbox.receive().reply(b"done")
        answers.receive()
        with suppress(AccessDenied):
            right.send(b"", msgh_id=1201)
        other.send(b"page", msgh_id=1200, rights=[answers.make_send(hostile).copy_send()])
        kernel.audit.flush()
        yield found


def timeline(batches: list[Batch]) -> tuple[perfetto_module.Timeline, dict[str, Any]]:
    out = io.BytesIO()
    written = write_timeline(batches, out, name="run")
    return written, json.loads(out.getvalue())


def by_track(events: list[dict[str, Any]], phase: str) -> dict[int, list[dict[str, Any]]]:
    found = defaultdict(list)
    for event in events:
        if event["ph"] == phase:
            found[event["tid"]].append(event)
    return found


def assert_sound(events: list[dict[str, Any]]) -> None:
    """Slices nest and follow each other; arrows lead from a slice to a later one, in pairs."""
    slices = by_track(events, "X")
    for track in slices.values():
        open_ends: list[float] = []
        for each in track:
            began, end = each["ts"], each["ts"] + each["dur"]
            while open_ends and open_ends[-1] < began + 1e-3:
                open_ends.pop()
            assert not open_ends or end < open_ends[-1] - 1e-3  # by more than viewers round
            open_ends.append(end)
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert len(starts) == sum(e["ph"] == "s" for e in events)
    for number, start in starts.items():
        assert start["ts"] < ends[number]["ts"]
        for place in (start, ends[number]):
            assert any(s["ts"] <= place["ts"] < s["ts"] + s["dur"] for s in slices[place["tid"]])


def test_an_act_is_the_records_of_one_operation(batches: list[Batch]) -> None:
    sends = [act for act in acts(batches) if act.kind == "send"]
    assert [act.routine for act in sends] == ["print_page", "msgh_id 1300", "cancel", "print_page"]
    assert [r.operation for r in sends[0].records] == ["send", "method", "give"]
    assert [act.refused for act in sends] == [(), (), ("cancel",), ()]
    assert [act.is_reply for act in sends] == [False, True, False, False]


def test_acts_do_not_depend_on_batches(batches: list[Batch]) -> None:
    single = [
        Batch(batch.records[at : at + 1], batch.labels, batch.tasks, batch.classes)
        for batch in batches for at in range(len(batch))
    ]  # fmt: skip
    assert [*acts(single)] == [*acts(batches)]


def test_a_timeline_has_a_track_per_task_and_arrows_for_transfers(batches: list[Batch]) -> None:
    written, told = timeline(batches)
    events = told["traceEvents"]
    assert_sound(events)
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert [*names.values()] == ["printd", "editor", HOSTILE.replace("\n", "\\u{a}").replace(
        "\u202e", "\\u{202e}")]  # fmt: skip
    arrows = [(names[e["tid"]], e["id"]) for e in events if e["ph"] in "sf"]
    _, _, hostile = names.values()
    assert [who for who, _ in arrows] == [
        "printd", "editor", "printd", hostile,  # rights by a call
        "editor", "printd", "printd", "editor",  # a page, and the answer
        "editor", hostile,
    ]  # fmt: skip
    assert written.arrows == 5
    assert told["otherData"] == {"began": 0.0, **written._asdict()}
    page = next(e for e in events if e["name"] == "send print_page")
    assert page["args"]["subject"] == "rules/editor"
    assert [e["name"] for e in events if e["ph"] == "i"] == ["denied: cancel"]


def test_what_nobody_took_has_no_arrow(batches: list[Batch]) -> None:
    written, _ = timeline(batches)
    assert written.open == 1  # the last message


def test_of_records_at_one_time_the_order_is_seen(batches: list[Batch]) -> None:
    times = np.concatenate([batch.records["time"] for batch in batches])
    assert len(set(times.tolist())) == 1
    _, told = timeline(batches)
    heads = [e for e in told["traceEvents"] if e["ph"] == "X" and " " in e["name"]]
    assert [e["args"]["sequence"] for e in heads] == sorted(e["args"]["sequence"] for e in heads)
    assert len({e["ts"] for e in heads}) == len(heads)


def test_memory_is_bounded(batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto_module, "MAX_OPEN", 1)
    sends = np.concatenate([b.records[b.records["operation"] == 1] for b in batches])
    many = np.tile(sends[:1], 10)
    many["transfer"] = np.arange(100, 110)
    whole = Batch(many, batches[0].labels, batches[0].tasks, batches[0].classes)
    written, told = timeline([whole])
    assert (written.open, written.arrows, written.slices) == (10, 0, 10)
    assert_sound(told["traceEvents"])


def test_losses_and_wild_numbers_are_drawn() -> None:
    records = np.zeros(3, RECORD)
    records["operation"] = [1, 14, 2]
    records["flags"] = [0, 4, 128]
    records["result"] = [0, 7, 0]
    records["time"] = [2**64 - 1, 5, 0]
    records["tclass"] = 77
    written, told = timeline([Batch(records, {}, {0: "\udcff"}, {})])
    assert written.lost == 7
    assert_sound(told["traceEvents"])
    assert "7 records lost" in [e["name"] for e in told["traceEvents"]]


def test_nothing_recorded_is_an_empty_timeline() -> None:
    written, told = timeline([])
    assert written == (0, 0, 0, 0, 0, 0)
    assert [e["ph"] for e in told["traceEvents"]] == ["M"]


# --- diagrams -------------------------------------------------------------------------------------

LINE = re.compile(
    r"sequenceDiagram|    autonumber|    participant T\d+ as [^;:\n]*"
    r"|    T\d+(->>\+?|-->>-?|-x)T\d+: [^;:\n]*|    Note over T\d+: [^;:\n]*"
)


def lines(diagram: str) -> list[str]:
    """Its lines with coded characters decoded; each is of a form that Mermaid has."""
    rest = re.sub(r"#\d+;", "", diagram)
    for line in rest.splitlines():
        assert LINE.fullmatch(line), line
    return re.sub(r"#(\d+);", lambda m: chr(int(m[1])), diagram).splitlines()


def test_replies_are_joined_and_refusals_crossed(batches: list[Batch]) -> None:
    diagram = sequence(batches)
    assert lines(diagram.text)[:9] == [
        "sequenceDiagram",
        "    autonumber",
        "    participant T1 as editor",
        "    participant T2 as printd",
        '    participant T3 as a;b#\\u{a}"participant X"</script>\\u{202e}%%',
        "    T1->>+T2: print_page",
        "    T2-->>-T1: reply to print_page",
        "    T1-xT2: cancel refused",
        "    T3->>T2: print_page, with a send right",
    ]
    assert (diagram.messages, diagram.left_out) == (4, 0)


@pytest.mark.parametrize(
    ("chosen", "shown", "left_out"),
    [
        (Chosen(("editor",)), 3, 0),
        (Chosen(("editor", "printd")), 3, 0),
        (Chosen(("*print*", "a;b*")), 1, 0),
        (Chosen(("nobody",)), 0, 0),
        (Chosen(limit=1), 1, 3),
        (Chosen(begin=1.0), 0, 0),
        (Chosen(end=0.0), 4, 0),
    ],
)
def test_messages_are_chosen(
    batches: list[Batch], chosen: Chosen, shown: int, left_out: int
) -> None:
    diagram = sequence(batches, chosen)
    assert (diagram.messages, diagram.left_out) == (shown, left_out)
    lines(diagram.text)


def test_a_transfer_is_followed(batches: list[Batch]) -> None:
    request = next(act for act in acts(batches) if act.kind == "send")
    diagram = sequence(batches, Chosen(transfer=request.head.transfer))
    assert [line for line in lines(diagram.text) if ">" in line] == [
        "    T1->>+T2: print_page",
        "    T2-->>-T1: reply to print_page",
    ]


def test_a_task_named_end_ends_nothing() -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        found: list[Batch] = []
        kernel.audit.attach(found.append)
        inbox = kernel.create_task("end").allocate_port()
        inbox.make_send(kernel.create_task("end")).send(b"")
        inbox.receive()
        kernel.audit.flush()
    text = lines(sequence(found).text)
    assert [line.partition(" as ")[2] for line in text[2:4]] == ["end (2)", "end (1)"]


def test_many_messages_leave_the_first(batches: list[Batch]) -> None:
    once = np.concatenate([batch.records for batch in batches])
    many = np.tile(once, 400)
    later = np.repeat(np.arange(400, dtype=np.uint64), len(once))
    many["sequence"] += later * np.uint64(len(once))
    for name in ("transfer", "provenance"):
        many[name] = np.where(many[name], many[name] + later * np.uint64(100), 0)
    first = batches[0]
    whole = [Batch(many, first.labels, batches[-1].tasks, batches[-1].classes)]
    diagram = sequence(whole, Chosen(limit=3))
    assert (diagram.messages, diagram.left_out) == (3, 4 * 400 - 3)
    assert lines(diagram.text)[4:7] == lines(sequence(batches, Chosen(("editor",))).text)[4:7]


def test_messages_that_are_not_asked_for_are_not_remembered() -> None:
    """Of a long trail, memory holds what is shown and what waits for its receiver."""
    finder = _Finder(Chosen(limit=1))
    with Kernel() as kernel:
        kernel.audit.everything()
        inbox = kernel.create_task("server").allocate_port()
        right = inbox.make_send(kernel.create_task("client"))
        for _ in range(100):
            right.send(b"")
            inbox.receive()
        for act in acts([kernel.audit.batch(kernel.audit.drain())]):
            finder.add(act)
    assert len(finder._linked) == 1
    _, left_out = finder.finish()
    assert left_out == 99


# --- the verbs ------------------------------------------------------------------------------------


@pytest.fixture
def run(batches: list[Batch], tmp_path: Path) -> Path:
    path = tmp_path / "run.audit"
    file = audit.File(path)
    for batch in batches:
        file(batch)
    file.close()
    return path


def test_the_verb_writes_a_timeline(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = run.with_name("run.perfetto.json")
    assert main(["trace", "timeline", str(run), "--out", str(out), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    events = json.loads(out.read_bytes())["traceEvents"]
    assert_sound(events)
    assert told["slices"] == sum(e["ph"] == "X" for e in events)
    assert main(["trace", "timeline", str(run)]) == 0
    assert capfd.readouterr().out.encode() == out.read_bytes()


def test_a_damaged_file_leaves_nothing(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run.write_bytes(run.read_bytes()[:-5])
    assert main(["trace", "timeline", str(run), "--out", str(run.with_name("out"))]) == 2
    assert "run.audit" in capfd.readouterr().err
    assert [path.name for path in run.parent.iterdir()] == ["run.audit"]


def test_of_what_is_no_recording_nothing_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").write_bytes(b"nothing of the kind")
    assert main(["trace", "timeline", str(tmp_path / "none")]) == 2
    assert main(["audit", "export", "--format", "csv", str(tmp_path / "none")]) == 2
    assert capfd.readouterr().out == ""


def test_a_recording_may_come_by_a_pipe(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for verb in ("timeline", "sequence"):
        assert main(["trace", verb, str(run)]) == 0
        expected = capfd.readouterr().out.replace("run.audit", "stdin")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(run.read_bytes())))
        assert main(["trace", verb, "-"]) == 0
        assert capfd.readouterr().out == expected
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(run.read_bytes()[:-5])))
        assert main(["trace", verb, "-"]) == 2
        assert capfd.readouterr().err.startswith("pympi: stdin, byte ")


@pytest.mark.parametrize("out", [[], ["--out", "made.json"]])
def test_losses_are_told(
    out: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    records = np.zeros(1, RECORD)
    records["operation"], records["flags"], records["result"] = Operation.LOSS, AuditFlag.LOSS, 7
    with audit.File("run.audit") as file:
        file(Batch(records, {}, {}, {}))
    assert main(["trace", "timeline", "run.audit", *out]) == 0
    assert "run.audit lacks 7 records" in capfd.readouterr().err


def test_the_verb_does_not_overwrite_what_it_reads(run: Path) -> None:
    before = run.read_bytes()
    assert main(["trace", "timeline", str(run), "--out", str(run)]) == 2
    assert run.read_bytes() == before


def test_the_verb_prints_a_diagram(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "sequence", str(run), "--between", "editor,printd"]) == 0
    assert "T1-xT2: cancel refused" in capfd.readouterr().out
    assert main(["trace", "sequence", str(run), "--between", "nobody"]) == 1
    assert main(["trace", "sequence", str(run), "--between", ","]) == 2
    assert "no such message" in capfd.readouterr().err
    assert main(["trace", "sequence", str(run), "--transfer", "999"]) == 1
    assert capfd.readouterr().err == "pympi: no such message is in it\n"
    assert main(["trace", "sequence", str(run), "--from", "nan"]) == 2
    assert main(["trace", "sequence", str(run), "--from", "5", "--to", "3"]) == 2
    assert "--from 5 is after --to 3" in capfd.readouterr().err
