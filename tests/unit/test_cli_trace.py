# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace`: every verb, of every form of recording; what is wrong is said."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pympi import Kernel, audit
from pympi.cli.trace import graph as graph_verb
from pympi.enums import CLASSES, MachPort, Operation
from pympi.policy import Partition
from pympi.trace import TraceRecord, read_trace, sedarwin_records, write_full, write_sedarwin
from pympi.trace.graph import BY
from pympi.trace.graph.layout import ENGINES
from pympi.trace.graph.picture import FILE_FORMATS
from pympi.trace.recordings import read_recording
from pympi.trace.stores import to_json

pytestmark = pytest.mark.usefixtures("there")

Run = Callable[..., Any]
DATA = Path(str(resources.files("pympi"))) / "data"
DEMO = DATA / "demo.trace"

RECORDS = [
    TraceRecord("copy_send", "/bin/client", "/bin/server", 0, 7, 5),
    TraceRecord("send", "/bin/client", "/bin/server", 0, 7, 5),
    TraceRecord("send", "/bin/server", "/bin/client", 0, 3, 5),
    TraceRecord("send", "/bin/client", "mach_kernel", 2, 0, 4),
]
HOSTILE = [TraceRecord("hold_send", "a\t\n\x1b[31m\ud800", "\u202e\\", 77, -1, (1 << 63) - 1)]

needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="no pyarrow")
needs_graphviz = pytest.mark.skipif(
    not (shutil.which("dot") or find_spec("pygraphviz")), reason="no Graphviz here"
)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a trace in both text forms."""
    monkeypatch.chdir(tmp_path)
    with Path("t.trace").open("wb") as file:
        write_sedarwin(file, RECORDS)
    with Path("full.trace").open("wb") as file:
        write_full(file, [*RECORDS, *HOSTILE], lost=3)
    return tmp_path


@pytest.fixture
def audited(there: Path) -> Path:
    """An audit file: one message, one refusal."""
    with Kernel(policies=[Partition()]) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File("run.audit"))
        red = kernel.create_task("red", label="partition/red")
        port = red.allocate_port()
        port.make_send(red).send(b"hello", msgh_id=77)
        with pytest.raises(PermissionError):
            port.make_send(kernel.create_task("blue", label="partition/blue"))
    return there / "run.audit"


# ---- dump, convert, merge ----


def test_dump_prints_sedarwins_text(pympi: Run) -> None:
    assert pympi("trace", "dump", "t.trace").out.encode() == Path("t.trace").read_bytes()
    assert pympi("trace", "dump", DEMO).out.encode() == DEMO.read_bytes()


@pytest.mark.real_data
def test_dump_of_the_recorded_boot(pympi: Run, shared_data: Path) -> None:
    boot = shared_data / "ipctrace" / "darwin-boot.trace"
    assert pympi("trace", "dump", boot).out.encode() == boot.read_bytes()


@pytest.mark.parametrize("form", ["full", "json", pytest.param("parquet", marks=needs_pyarrow)])
def test_every_form_reads_back_as_itself(pympi: Run, form: str) -> None:
    assert pympi("trace", "convert", "full.trace", "--to", form, "--out", "x").code == 0
    back = read_recording("x")
    assert (back.records, back.lost, back.form) == ([*RECORDS, *HOSTILE], 3, form)
    assert pympi("trace", "convert", "x", "--to", "full", "--out", "y").code == 0
    assert Path("y").read_bytes() == Path("full.trace").read_bytes()


def test_the_form_is_what_the_file_is_called(pympi: Run) -> None:
    assert pympi("trace", "convert", "t.trace", "--out", "x.json").code == 0
    assert Path("x.json").read_bytes() == to_json(RECORDS)
    assert "--to one of full," in pympi("trace", "convert", "t.trace", "--out", "x.txt").err


def test_what_sedarwins_form_cannot_say_is_an_error_and_nothing_is_written(pympi: Run) -> None:
    odd = [TraceRecord("send", "a ", "b", 0, 1, 1)]
    with Path("odd.trace").open("wb") as file:
        write_full(file, odd)
    for verb in (["dump"], ["convert", "--to", "sedarwin"]):
        done = pympi("trace", *verb, "odd.trace", "--out", "x")
        assert done.code == 2
        assert "odd.trace:2:1: expected a record SEDarwin's form can say" in done.err
        assert not Path("x").exists()


def test_graphml_is_read_by_networkx(pympi: Run) -> None:
    networkx = pytest.importorskip("networkx")
    assert pympi("trace", "convert", "full.trace", "--out", "x.graphml").code == 0
    graph = networkx.read_graphml("x.graphml")
    edge = graph.edges["task /bin/client", "task /bin/server"]
    assert (edge["messages"], edge["replies"], edge["outcome"]) == (5, 5, "allowed")
    assert "task a\\u{9}\\u{a}\\u{1b}[31m\\u{d800}" in graph.nodes


def test_merge_adds_up(pympi: Run) -> None:
    assert pympi("trace", "merge", "t.trace", "full.trace", "t.trace", "--out", "m").code == 0
    found = read_recording("m")
    assert [record.count for record in found.records] == [15, 15, 15, 12, (1 << 63) - 1]
    assert found.lost == 3
    full = pympi("trace", "merge", "full.trace", "full.trace", "--out", "n")
    assert full.code == 2
    assert f"expected counts up to {(1 << 63) - 1}" in full.err
    assert not Path("n").exists()


def test_a_result_never_replaces_what_it_was_made_of(pympi: Run) -> None:
    before = Path("t.trace").read_bytes()
    done = pympi("trace", "merge", "t.trace", "--out", "t.trace")
    assert (done.code, Path("t.trace").read_bytes()) == (2, before)


def test_stdin(pympi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def feed() -> None:
        raw = io.BytesIO(Path("t.trace").read_bytes())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))

    feed()
    assert pympi("trace", "dump", "-").out.encode() == Path("t.trace").read_bytes()
    feed()
    assert pympi("trace", "diff", "-", "t.trace").code == 0
    assert "- is stdin, which can be read once" in pympi("trace", "dump", "-", "-").err


# ---- summary, diff ----


def test_summary(pympi: Run) -> None:
    done = pympi("trace", "summary", "full.trace", "t.trace", "--top", 3)
    assert done.out.startswith("5 tasks, 4 ports, 5 paths, ")
    assert "\x1b" not in done.out
    assert "\\u{1b}[31m" in done.out
    assert "full.trace lacks 3 events" in done.err
    found = pympi("trace", "summary", "t.trace", "--json").json
    assert {key: found[key] for key in ("tasks", "ports", "paths", "events")} == {
        "tasks": 3, "ports": 3, "paths": 4, "events": 19,
    }  # fmt: skip
    assert found["busiest_paths"][0]["count"] == 5
    assert found["busiest_tasks"][0] == {
        "task": "/bin/client", "paths": 3, "events": 14, "events_on_its_ports": 5, "ports": 1,
    }  # fmt: skip
    assert found["files"] == [{"name": "t.trace", "form": "sedarwin", "lost": 0}]


def test_summary_of_nothing(pympi: Run) -> None:
    Path("empty").write_bytes(b"0 trace records:\n")
    assert pympi("trace", "summary", "empty").out == (
        "0 tasks, 0 ports, 0 paths, 0 events\n    no events\n"
    )


def test_diff(pympi: Run) -> None:
    same = pympi("trace", "diff", "t.trace", "t.trace")
    assert (same.code, same.out) == (0, "No differences.\n")
    other = [RECORDS[0]._replace(count=6), *RECORDS[2:], RECORDS[1]._replace(owner="/new")]
    with Path("u.trace").open("wb") as file:
        write_sedarwin(file, other)
    done = pympi("trace", "diff", "t.trace", "u.trace")
    assert done.code == 1
    assert done.out.splitlines()[0] == "3 edges: 1 came, 1 went, 1 changed"
    assert [line[0] for line in done.lines[2:]] == ["~", "-", "+"]
    found = pympi("trace", "diff", "t.trace", "u.trace", "--json").json
    assert not found["equal"]
    assert [(c["what"], c["old"], c["new"]) for c in found["changes"]] == [
        ("changed", 5, 6), ("went", 5, 0), ("came", 0, 5),
    ]  # fmt: skip


def test_diff_tells_ports_apart_only_if_asked(pympi: Run) -> None:
    with Path("u.trace").open("wb") as file:
        write_sedarwin(file, [record._replace(number=9) for record in RECORDS[:3]] + RECORDS[3:])
    assert pympi("trace", "diff", "t.trace", "u.trace").code == 0
    assert pympi("trace", "diff", "t.trace", "u.trace", "--ports").code == 1


# ---- audit files ----


def test_audit_files_are_recordings_too(audited: Path, pympi: Run) -> None:
    found = pympi("trace", "summary", audited, "--json").json
    assert found["files"][0]["form"] == "audit"
    assert found["events_by_kind"] == {"send": 1, "make_send": 1, "copy_send": 1, "hold_send": 1}
    dumped = pympi("trace", "dump", audited).lines
    assert [line[:2] for line in dumped] == [
        ["2", "trace"], ["send", "red"], ["copy_send", "red"],
    ]  # fmt: skip
    dot = pympi("trace", "graph", audited).out
    assert "refused" in dot
    assert "1 refusals" in dot


# ---- what else has records ----

LOG = """\
type=AVC msg=audit(5.0:1): avc:  denied  { read } for  pid=4 comm="cat" scontext=u:r:c tcontext=u:r:s tclass=file
type=AVC msg=audit(6.0:2): avc:  granted  { read } for  pid=4 comm="cat" scontext=u:r:c tcontext=u:r:e tclass=file
type=AVC msg=audit(7.0:3): avc:  denied
"""  # noqa: E501


@pytest.fixture
def log(there: Path) -> Path:
    path = there / "avc.log"
    path.write_text(LOG)
    return path


def test_a_summary_tells_what_is_in_no_trace(log: Path, pympi: Run) -> None:
    done = pympi("trace", "summary", log)
    assert "avc.log lacks 1 record: lost, or not readable" in done.err
    assert done.lines[-2:] == [
        ["1", "file:read", "cat", "te/u:r:s", "refused:", "KERN_NO_ACCESS"],
        ["1", "file:read", "cat", "te/u:r:e"],
    ]
    found = pympi("trace", "summary", log, "--json").json
    assert (found["refused"], found["files"][0]["form"]) == (1, "avc")
    assert [row["of"] for row in found["beside"]] == ["te/u:r:s", "te/u:r:e"]


def test_what_is_refused_differs_too(log: Path, pympi: Run) -> None:
    other = log.with_name("other.log")
    other.write_text(LOG.replace("denied  { read }", "denied  { write }"))
    done = pympi("trace", "diff", log, other)
    assert (done.code, done.lines[2:]) == (1, [
        ["-", "file:read", "cat", "te/u:r:s", "1", "-1", "refused:", "KERN_NO_ACCESS"],
        ["+", "file:write", "cat", "te/u:r:s", "1", "+1", "refused:", "KERN_NO_ACCESS"],
    ])  # fmt: skip
    went, came = pympi("trace", "diff", log, other, "--json").json["changes"]
    assert (went["event"], came["event"]) == ("file:read", "file:write")
    assert went["outcome"] == came["outcome"] == "refused: KERN_NO_ACCESS"
    assert pympi("trace", "diff", log, log).code == 0
    done = pympi("trace", "diff", log, "t.trace")
    assert "what was refused, or done to other things than ports, is not compared" in done.err


def test_ports_of_nobody_are_told_apart_by_their_labels(pympi: Run) -> None:
    """Two names that nobody answers for are not the same."""
    for file, label in (("old.audit", "rules/x"), ("new.audit", "rules/y")):
        records = np.zeros(1, audit.RECORD)
        records[["operation", "tclass", "port", "task", "object_sid"]] = (
            Operation.SEND,
            1,
            3,
            1,
            1,
        )
        records["asked"] = MachPort.send | MachPort.copy_send
        with audit.File(file) as out:
            out(audit.Batch(records, {1: label}, {1: "a"}, {1: CLASSES["mach_port"]}))
    done = pympi("trace", "diff", "old.audit", "new.audit")
    assert done.code == 1
    assert ["-", "send", "a", "rules/x", "1", "-1"] in done.lines
    assert ["+", "send", "a", "rules/y", "1", "+1"] in done.lines
    (edge, *_) = pympi("trace", "diff", "old.audit", "new.audit", "--json").json["changes"]
    assert (edge["owner"], edge["label"]) == ("", "rules/x")
    assert ["1", "send", "a", "rules/x", "3"] in pympi("trace", "summary", "old.audit").lines


def test_things_that_are_no_ports_are_nodes_of_their_own(log: Path, pympi: Run) -> None:
    dot = pympi("trace", "graph", log).out
    assert re.findall(r'n\d+ \[id="n\d+", label="([^"]*)"', dot) == ["e", "s", "cat"]
    assert len(re.findall(r"n\d+ -> n\d+", dot)) == 2


def test_every_verb_takes_records_of_every_form(log: Path, audited: Path, pympi: Run) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = log.parent / "run.parquet"
    assert not pympi("audit", "export", audited, "--format", "parquet", "--out", parquet).code
    parts = log.parent / "parts"
    parts.mkdir()
    (parts / "part-00001.parquet").write_bytes(parquet.read_bytes())
    expected = pympi("trace", "dump", audited).out
    for file in (parquet, parts):
        assert pympi("trace", "dump", file).out == expected
        assert pympi("trace", "sequence", file).out == pympi("trace", "sequence", audited).out
    for verb in ("sequence", "timeline", "summary", "dump", "graph"):
        for file in (log, parquet, parts):
            assert pympi("trace", verb, file).code == 0, (verb, file)


def test_a_name_that_a_form_cannot_say_has_another_form(pympi: Run) -> None:
    with Kernel() as kernel:
        kernel.audit.everything()
        kernel.audit.attach(audit.File("evil.audit"))
        task = kernel.create_task("a\nb")
        task.allocate_port().make_send(task).send(b"")
    done = pympi("trace", "dump", "evil.audit")
    assert (done.code, done.out) == (2, "")
    assert "which the full form can say" in done.err
    assert pympi("trace", "convert", "evil.audit", "--to", "full").code == 0


def test_recordings_of_other_forms_are_replayed(pympi: Run) -> None:
    assert pympi("trace", "convert", DEMO, "--to", "json", "--out", "d.json").code == 0
    assert pympi("replay", "d.json", "--out", "d", "--audit").code == 0
    assert pympi("trace", "diff", DEMO, "d/replayed.trace").code == 0
    assert pympi("replay", "d/run.audit", "--out", "e").code == 0
    assert pympi("trace", "diff", "d/run.audit", "e/replayed.trace").code == 0
    with Path("strange.trace").open("wb") as file:
        write_full(file, [TraceRecord("send", "a", "", 0, 7, 1)])
    done = pympi("replay", "strange.trace")
    assert done.code == 2
    assert "whose every port is; nothing tells it of port 7, to which 'a' did send" in done.err


def test_the_audit_of_a_replay_says_what_its_traces_say(pympi: Run) -> None:
    assert pympi("replay", DEMO, "--out", "d", "--audit").code == 0
    same = pympi("trace", "diff", "d/replayed.trace", "d/run.audit")
    assert (same.code, same.out) == (0, "No differences.\n")
    assert "other events are not compared" in same.err
    assert "does not tell kinds of ports: they are not compared" in same.err
    with Path("d/other.trace").open("wb") as file:
        write_sedarwin(file, read_trace("d/replayed.trace")[1:])
    assert pympi("trace", "diff", "d/other.trace", "d/run.audit").code == 1


def test_the_same_log_by_a_pipe(log: Path, pympi: Run) -> None:
    os.mkfifo(log.parent / "pipe")
    writer = threading.Thread(target=(log.parent / "pipe").write_text, args=(LOG,))
    writer.start()
    piped = pympi("trace", "graph", log.parent / "pipe").out
    writer.join()
    assert piped.replace("pipe", "avc.log") == pympi("trace", "graph", log).out


# ---- graph ----


def test_options_are_what_the_drawing_modules_know() -> None:
    assert graph_verb.BY == BY
    assert graph_verb.FORMATS == FILE_FORMATS
    assert ("auto", *ENGINES) == graph_verb.ENGINES


def test_graph_to_stdout_is_dot(pympi: Run) -> None:
    out = pympi("trace", "graph", "t.trace").out
    assert out.startswith("digraph pympi {\n")
    assert len(re.findall(r"n\d+ -> n\d+", out)) == 2
    replies = pympi("trace", "graph", "t.trace", "--replies").out
    assert len(re.findall(r"n\d+ -> n\d+", replies)) == 3


@needs_graphviz
@pytest.mark.parametrize(
    ("form", "begins"),
    [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("html", b"<!DOCTYPE html>")],
)
def test_graph_in_every_format(pympi: Run, form: str, begins: bytes) -> None:
    assert pympi("trace", "graph", DEMO, "--out", f"x.{form}").code == 0
    assert Path(f"x.{form}").read_bytes().startswith(begins)
    assert pympi("trace", "graph", DEMO, "--format", form, "--out", "y").code == 0
    assert Path("y").read_bytes().startswith(begins)


@pytest.mark.parametrize("by", BY)
def test_graph_by(pympi: Run, by: str) -> None:
    assert f"by {by}" in pympi("trace", "graph", DEMO, "--by", by).out


def test_graph_with_rules(pympi: Run) -> None:
    Path("r").write_text("option ignore ^mach_kernel$\noption color purple ^server$\n")
    out = pympi("trace", "graph", "t.trace", "--rules", "r").out
    assert "mach_kernel" not in out
    (edge,) = re.findall(r"-> .*", out)
    assert 'color="purple"' in edge
    Path("r").write_text("option ignore a\noption colour red b\n")
    done = pympi("trace", "graph", "t.trace", "--rules", "r")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("pympi: r:2: expected 'option ignore REGEX'")


def test_graph_under_another_policy(pympi: Run) -> None:
    rules = DATA / "demo.rules"
    out = pympi("trace", "graph", DEMO, "--policy", rules, "--unused").out
    assert "would be refused" in out
    assert "allowed, not used" in out
    assert "--unused needs --policy" in pympi("trace", "graph", DEMO, "--unused").err


def test_graph_with_labels(pympi: Run) -> None:
    Path("l").write_text("task rules/daemon /bin/server\nport rules/its_port /bin/server\n")
    out = pympi("trace", "graph", "t.trace", "--by", "label", "--labels", "l").out
    assert '"its_port"' in out
    assert '"daemon"' not in out  # it only answers


def test_large_graphs_are_made_small_unless_all_is_wanted(pympi: Run) -> None:
    records = [TraceRecord("send", f"/d/t{n}", "/srv/hub", 0, n, n + 1) for n in range(300)]
    with Path("big.trace").open("wb") as file:
        write_full(file, records)
    small = pympi("trace", "graph", "big.trace").out
    assert "the least busy, are drawn as 1" in small
    assert len(re.findall(r"^  n\d+ \[", small, re.MULTILINE)) < 120
    whole = pympi("trace", "graph", "big.trace", "--all").out
    assert len(re.findall(r"^  n\d+ \[", whole, re.MULTILINE)) == 301
    for words, nodes in [([], range(120)), (["--all"], [301])]:
        assert pympi("trace", "graph", "big.trace", "--split", "d", *words).code == 0
        drawn = Path("d/srv_hub.dot").read_text()
        assert len(re.findall(r"^  n\d+ \[", drawn, re.MULTILINE)) in nodes


def test_several_recordings_are_added_up(pympi: Run) -> None:
    assert "10 messages, 5 replies" not in pympi("trace", "graph", "t.trace").out
    assert "18 messages, 10 replies" in pympi("trace", "graph", "t.trace", "t.trace").out


@needs_graphviz
def test_split(pympi: Run) -> None:
    done = pympi("trace", "graph", "t.trace", "--split", "d", "--format", "svg")
    assert done.out == "wrote 3 pictures to d\n"
    assert sorted(path.name for path in Path("d").iterdir()) == [
        "bin_client.svg",
        "bin_server.svg",
        "mach_kernel.svg",
    ]
    server = Path("d/bin_server.svg").read_text()
    assert "mach_kernel" not in server
    assert "client" in server


def test_a_port_does_not_push_its_owner_aside(pympi: Run) -> None:
    """Else the demo by service is twice as wide."""
    dot = pympi("trace", "graph", DEMO, "--by", "service").out
    ties = [line for line in dot.splitlines() if "arrowhead=none" in line]
    assert len(ties) > 5
    assert all("constraint=false" in line for line in ties)


def test_as_tr2dot(pympi: Run) -> None:
    Path("r").write_text("option color red ^server$\n")
    done = pympi("trace", "graph", "--as", "tr2dot", "--rules", "r", "t.trace")
    assert sorted(done.out.splitlines()) == [
        '"client" -> "mach_kernel" [dir=forward];',
        '"client" -> "server" [dir=none,color=red];',
        "digraph G {",
        "}",
    ]
    for other in ("full.trace", "t.trace"):  # forms of ours are put into SEDarwin's text first
        again = pympi("trace", "graph", "--as", "tr2dot", "--rules", "r", other)
        assert again.out == done.out
    assert "knows no --by" in pympi("trace", "graph", "--as", "tr2dot", "--by", "port", DEMO).err


def test_as_tr2dot_complains_of_bad_lines_and_goes_on(pympi: Run) -> None:
    text = Path("t.trace").read_bytes()
    Path("odd").write_bytes(text + b"nonsense\x1b[31m\n" * 30)
    done = pympi("trace", "graph", "--as", "tr2dot", "odd")
    assert done.code == 0
    assert done.out == pympi("trace", "graph", "--as", "tr2dot", "t.trace").out
    assert done.err.count("pympi: bad line nonsense\\u{1b}[31m\n") == 20
    assert done.err.endswith("pympi: and 10 bad lines more\n")


def test_as_tr2dot_split(pympi: Run) -> None:
    done = pympi("trace", "graph", "--as", "tr2dot", "--split", "d", "t.trace")
    assert done.out == "wrote 3 pictures to d\n"
    assert Path("d/server.dot").read_text() == (
        'digraph G {\n"client" -> "server" [dir=none];\n}\n'
    )


def test_wrong_words(pympi: Run) -> None:
    for words, complaint in [
        (["graph", "nothing"], "File 'nothing' does not exist"),
        (["graph", "t.trace", "--split", "d", "--out", "x"], "exclude each other"),
        (["graph", "t.trace", "--time-limit", "nan"], "nan is no number"),
        (["graph", "t.trace", "--time-limit", "0"], "not in the range"),
        (["graph", "t.trace", "--out", "x.gif"], "no format is called .gif: --format dot, svg"),
        (["summary"], "Missing argument 'TRACE...'"),
        (["summary", "t.trace", "--top", "-1"], "not in the range"),
        (["diff", "t.trace"], "Missing argument"),
    ]:
        done = pympi("trace", *words)
        assert done.code == 2
        assert complaint in done.err


def test_merge_goes_by_what_the_file_is_called(pympi: Run) -> None:
    for name, form in (("x.json", "json"), ("x.trace", "full"), ("x", "full")):
        assert pympi("trace", "merge", "t.trace", "--out", name).code == 0
        assert read_recording(name).form == form
    assert pympi("trace", "merge", "t.trace", "--out", "x.graphml").code == 2


@pytest.mark.parametrize("contents", [b"", b"nothing of the kind"])
def test_what_is_no_recording_is_told_what_would_be_one(pympi: Run, contents: bytes) -> None:
    Path("none").write_bytes(contents)
    found = "'nothing of the k'" if contents else "the end of the file"
    for verb in ("summary", "graph", "dump", "merge"):
        done = pympi("trace", verb, "none")
        assert done.code == 2
        assert done.err == (
            "pympi: none:1:1: expected '<N> trace records:' or 'pympi trace 1: ...', or JSON, or "
            "an audit file, a file of Parquet, a D-Bus capture or a log of AVC messages, "
            f"found {found}\n"
        )


def test_sedarwin_form_of_the_demo_is_what_it_was() -> None:
    assert sedarwin_records(read_trace(DEMO)) == read_recording(str(DEMO)).records


def test_a_replays_trace_and_audit_differ_by_what_went_before_the_run(pympi: Run) -> None:
    rules = DEMO.with_suffix(".rules")
    assert pympi("replay", DEMO, "--policy", rules, "--out", "run", "--audit").code in (0, 1)
    done = pympi("trace", "diff", "run/full.trace", "run/run.audit", "--json")
    changes = json.loads(done.out)["changes"]
    assert {change["event"] for change in changes} == {"make_send", "hold_send"}
    given = {
        event: sum(c["new"] - c["old"] for c in changes if c["event"] == event)
        for event in ("make_send", "hold_send")
    }
    assert given["make_send"] == given["hold_send"] > 0
