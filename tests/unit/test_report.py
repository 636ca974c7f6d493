# SPDX-License-Identifier: BSD-2-Clause
"""The page about a run, without a browser: what is in it, and that it is sound HTML."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reported import HOSTILE, HOSTILE_LABEL, STRICT, write_run

from pympi import AccessDenied, Kernel
from pympi.audit import RECORD, Batch, File, Reader
from pympi.cli import main
from pympi.enums import CLASSES, AuditFlag, MachPort
from pympi.mig import Interface
from pympi.policy import Rules
from pympi.report import Findings, ReportError, gather, page
from pympi.report import picture as picture_module
from pympi.report.chart import duration
from pympi.report.gather import MAX_DENIED, _would_be_refused
from pympi.report.markup import data, element
from pympi.report.tally import BINS, Rates, Tally
from pympi.testing import allow_all
from pympi.trace import TraceRecord
from pympi.trace.graph import Ask, from_trace, overlay
from pympi.trace.graph.layout import LayoutError
from pympi.trace.graph.shrink import MOST_NODES

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "input"}


class Page(HTMLParser):
    """Collects elements with their attributes, and texts; complains about what is not nested."""

    def __init__(self, html: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", text))

    def text(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]

    def with_class(self, *names: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.elements if {*names} <= {*(a.get("class") or "").split()}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reports") / "run <b>"
    write_run(directory)
    return directory


@pytest.fixture(scope="module")
def found(run: Path) -> Findings:
    return gather(run)


@pytest.fixture(scope="module")
def html(found: Findings) -> bytes:
    return page(found)


@pytest.fixture(scope="module")
def parsed(html: bytes) -> Page:
    return Page(html)


def stored(parsed: Page) -> dict[str, Any]:
    return json.loads(next(text for text in parsed.text("script") if text.startswith("{")))


def test_what_a_run_left_is_found(found: Findings) -> None:
    assert [source.name for source in found.sources] == ["run.audit", "policy.rules", "run.snap"]
    assert found.tally is not None
    assert (found.tally.messages, found.tally.lost, found.tally.missing) == (22, 0, 0)
    assert found.snapshot is not None


def test_refusals_are_explained_by_the_policy(found: Findings) -> None:
    (row,) = found.denied
    assert (row.times, row.task, row.permission, row.tclass) == (
        10, "editor", "cancel", "mi_printing",
    )  # fmt: skip
    assert "allow editor printd mi_printing { cancel }; would allow it" in row.why


def test_without_a_policy_the_record_says_why(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run.audit").write_bytes((run / "run.audit").read_bytes())
    (row,) = gather(tmp_path).denied
    assert row.why == "MACH_SEND_MSG_FILTERED"


def test_the_page_says_it(parsed: Page) -> None:
    tiles = dict(zip(parsed.text("span"), parsed.text("b"), strict=False))
    assert (tiles["messages"], tiles["refused"], tiles["records lost"]) == ("22", "10", "0")
    assert "printd" in parsed.text("td")
    assert any("would allow it" in text for text in parsed.text("td"))
    assert parsed.with_class("edge", "denied")
    assert any("none lost" in text for text in parsed.text("p"))


def test_ids_are_different(parsed: Page) -> None:
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_all_is_data_of_the_page_itself(parsed: Page, html: bytes) -> None:
    """Nothing refers to anything else, and only our script and style may run."""
    for tag, attributes in parsed.elements:
        assert not {"src", "href", "action", "style"} & {*attributes}, tag
        assert not any(name.startswith("on") for name in attributes), tag
    assert tag_count(parsed, "script") == 2
    (policy,) = (a["content"] for t, a in parsed.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    for tag in ("script", "style"):
        (own,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def tag_count(parsed: Page, wanted: str) -> int:
    return sum(tag == wanted for tag, _ in parsed.elements)


def test_the_script_needs_no_html_from_others() -> None:
    from importlib import resources

    script = (resources.files("pympi.report") / "report.js").read_text()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert word not in script
    for word in ("fetch(", "XMLHttp", "import(", "WebSocket", "sendBeacon"):
        assert word not in script


def test_hostile_names_are_text(parsed: Page, html: bytes) -> None:
    shown = HOSTILE.replace("\n", "\\u{a}").replace("\u202e", "\\u{202e}")
    assert shown in [node["name"] for node in stored(parsed)["nodes"]]
    assert any(shown in (a.get("aria-label") or "") for a in parsed.with_class("node"))
    assert tag_count(parsed, "img") == 0
    assert f"remarks/{HOSTILE_LABEL},rules/stranger" in [
        node["label"] for node in stored(parsed)["nodes"]
    ]
    assert "\u202e".encode() not in html
    assert "run <b>" in parsed.text("h1")


def test_another_policy_judges_the_run(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "strict.rules"
    other.write_text(STRICT)
    found = gather(run, other=other)
    outcomes = {
        (found.graph.node(e.source).name, found.graph.node(e.target).name): e.outcome
        for e in found.graph.edges if e.outcome != "unused"
    }  # fmt: skip
    assert outcomes[HOSTILE, "/sbin/printd"] == "would_deny"
    parsed = Page(page(found))
    assert parsed.with_class("edge", "would_deny")
    assert any("strict.rules" in text for text in parsed.text("p"))
    assert "What strict.rules would refuse" in parsed.text("h2")
    rows = {(row.task, row.permission) for row in found.would_deny}
    assert (HOSTILE, "send") in rows
    assert all(task != "/sbin/printd" for task, _ in rows)
    assert all("would allow it" in row.why for row in found.would_deny)


def test_a_policy_of_another_kind_cannot_judge(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ROOT / "pympi" / "data" / "desktop.cil"
    assert main(["report", str(run), "--policy", str(other), "--out", str(tmp_path / "x")]) == 2
    assert "no label in the run has a value of te" in capsys.readouterr().err


def test_labels_that_are_not_there_are_no_obstacle(run: Path, tmp_path: Path) -> None:
    with (run / "run.audit").open("rb") as file:
        sink = File(tmp_path / "run.audit")
        for batch in Reader(file):
            labels = {n: text for n, text in batch.labels.items() if "remarks" not in text}
            sink(Batch(batch.records, labels, batch.tasks, batch.classes, batch.services))
        sink.close()
    (tmp_path / "policy.rules").write_text(STRICT)
    found = gather(tmp_path, other=tmp_path / "policy.rules")
    assert any(edge.outcome == "would_deny" for edge in found.graph.edges)
    assert b"sid:" in page(found)


def test_a_trace_will_do(tmp_path: Path) -> None:
    (tmp_path / "any.trace").write_text(
        "pympi trace 1: 1 records, 3 lost\nevent\ttask\towner\tkind\tnumber\tcount\n"
        "send\t/a\t/b\tnone\t1\t5\n"
    )
    found = gather(tmp_path)
    assert found.graph.lost == 3
    made = Page(page(found))  # and it does not say what it cannot know
    assert "A trace does not tell what was refused." in made.text("p")
    assert "refused" not in made.text("span")
    parsed = Page(page(found))
    assert any("lacks 3 events" in text for text in parsed.text("p"))
    assert tag_count(parsed, "svg") >= 1


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"expected an audit trail or a trace.*found none"):
        gather(tmp_path)


@pytest.mark.parametrize("figures", ["{", "[]", '{"check_cost": NaN}', '{"denied": [1]}', "\x00"])
def test_broken_figures_are_named(run: Path, tmp_path: Path, figures: str) -> None:
    (tmp_path / "run.audit").write_bytes((run / "run.audit").read_bytes())
    (tmp_path / "run.json").write_text(figures)
    with pytest.raises(ReportError, match=r"run\.json: expected the figures of a run"):
        gather(tmp_path)


def test_it_is_drawn_without_graphviz(found: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise LayoutError("no Graphviz here")

    monkeypatch.setattr(picture_module, "draw", none)
    parsed = Page(page(found))
    assert len(parsed.with_class("node")) == len(found.graph.nodes)
    assert any("in a ring" in text for text in parsed.text("p"))
    boxes = [(float(a["x"] or 0), float(a["y"] or 0)) for t, a in parsed.elements
             if t == "rect" and "rx" in a]  # fmt: skip
    assert len(set(boxes)) == len(boxes)


def test_an_empty_trail_is_a_page(tmp_path: Path) -> None:
    File(tmp_path / "run.audit").close()
    parsed = Page(page(gather(tmp_path)))
    assert "Nothing was refused." in parsed.text("p")


# --- counting -------------------------------------------------------------------------------------


def batch_of(**columns: Any) -> Batch:
    length = max(np.size(column) for column in columns.values())
    records = np.zeros(length, RECORD)
    for name, column in columns.items():
        records[name] = column
    return Batch(records, {}, {}, {})


def test_intervals_double_and_lose_nothing() -> None:
    rates = Rates()
    for time in (5, 1000, 10**6, 10**9, 10**12, 2**63, 3):
        one = np.ones(1, bool)
        rates.add(np.array([time], np.uint64), one, ~one)
    assert int(rates.sent.sum()) == 7
    assert BINS / 2 <= rates.used <= BINS
    assert rates.sent[0] == 6


def test_gaps_that_no_loss_explains_are_seen() -> None:
    tally = Tally()
    tally.add(batch_of(sequence=[0, 1, 5], flags=[0, 0, 4], result=[0, 0, 2], operation=[1, 1, 14]))
    tally.add(batch_of(sequence=[9], operation=[1]))
    assert (tally.records, tally.lost, tally.missing) == (4, 2, 4)
    assert [loss.lost for loss in tally.losses] == [2]


def test_a_loss_of_a_sink_has_the_number_of_what_was_lost_last() -> None:
    loss = {"flags": 4, "operation": 14}
    for records, missing in [
        (batch_of(sequence=[0, 5, 9], name=1, result=[0, 5, 4], **loss), 0),
        (batch_of(sequence=[0, 5, 9], name=1, result=[0, 5, 3], **loss), 1),
        (batch_of(sequence=[7, 8, 12], name=[1, 0, 0], result=[7, 0, 3], **loss), 0),
        (batch_of(sequence=[7, 8, 12], name=[0, 0, 0], result=[7, 0, 2], **loss), 1),
    ]:
        tally = Tally()
        tally.add(records)
        assert tally.missing == missing


@pytest.mark.parametrize("known", [True, False])
def test_refusals_are_counted_once_and_all_of_them(tmp_path: Path, known: bool) -> None:
    """Also of kinds that are not listed, and without what was done all the same."""
    kinds, both = MAX_DENIED + 7, int(MachPort.recv | MachPort.use_recv)
    numbers = np.arange(kinds + 1)
    made = batch_of(
        sequence=numbers, msgh_id=numbers + 1, tclass=1, asked=both, denied=both,
        flags=np.where(numbers == kinds, AuditFlag.PERMISSIVE, 0),
    )  # fmt: skip
    with File(tmp_path / "run.audit") as file:
        file(replace(made, classes={1: CLASSES["mach_port"]} if known else {}))
    found = gather(tmp_path)
    listed = 2 * (kinds + 1) if known else kinds + 1  # recv is asked of the sender's label
    assert (len(found.denied), found.refused) == (MAX_DENIED, kinds)
    parsed = Page(page(found))
    assert dict(zip(parsed.text("span"), parsed.text("b"), strict=False))["refused"] == str(kinds)
    assert any(f"{listed - MAX_DENIED} more kinds" in text for text in parsed.text("p"))


def test_ports_that_are_drawn_as_one_are_no_tasks(tmp_path: Path) -> None:
    ports = 3 * MOST_NODES
    records = {"tclass": 1, "asked": int(MachPort.send), "operation": 1, "task": 1}
    with File(tmp_path / "run.audit") as file:
        made = batch_of(sequence=np.arange(ports), port=np.arange(1, ports + 1), **records)
        file(replace(made, classes={1: CLASSES["mach_port"]}))
    shown = Page(page(gather(tmp_path)))
    assert dict(zip(shown.text("span"), shown.text("b"), strict=False))["tasks"] == "1"


def test_times_are_for_people() -> None:
    assert [duration(n) for n in (0, 999, 1e4, 2.5e6, 1e12)] == [
        "0", "999 ns", "10 µs", "2.5 ms", "1,000 s",
    ]  # fmt: skip


def test_what_would_allow_all_that_was_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "policy.rules").write_text(rules := "allow * * mach_port { make_send hold_send };")
    with Kernel(policies=[Rules.from_text(rules)]) as kernel:
        kernel.audit.attach(File(tmp_path / "run.audit"))
        right = kernel.create_task("b", "rules/b").allocate_port().make_send(
            kernel.create_task("a", "rules/a")
        )  # fmt: skip
        with suppress(AccessDenied):
            right.send(b"")
    (row,) = gather(tmp_path).denied
    assert row.why == (
        "refuses: no rule; allow a b mach_port { send copy_send }; would allow it"
    )  # fmt: skip


def test_routines_that_nobody_called_are_told(tmp_path: Path) -> None:
    (tmp_path / "policy.rules").write_text("allow * * * { * };")
    with Kernel(policies=[allow_all()]) as kernel:
        kernel.audit.everything()
        kernel.audit.attach(File(tmp_path / "run.audit"))
        inbox = kernel.create_task("b", "rules/b").allocate_port()
        inbox.serve(Interface("printing", 1200, ["print", "cancel"]))
        inbox.make_send(kernel.create_task("a", "rules/a")).send(b"", msgh_id=1200)
    (edge,) = stored(Page(page(gather(tmp_path))))["edges"]
    assert (edge["methods"], edge["idle"]) == ([["print", 1]], ["mi_printing:cancel"])


def test_a_permission_that_would_be_refused_is_that_of_its_class() -> None:
    asks = [Ask("rules/a", "rules/b", tclass, "stop", 1) for tclass in ("mi_x", "mi_y")]
    graph = from_trace([TraceRecord("send", "a", "b", 0, 1, 1)])
    graph.edges[0].asks = asks
    laid = overlay(graph, [Rules.from_text("allow a b mi_x { stop };")])
    assert [row.tclass for row in _would_be_refused(laid)] == ["mi_y"]


# --- markup ---------------------------------------------------------------------------------------


def test_elements_escape_texts_and_attributes() -> None:
    made = element("a", '<&>"', element("b", "x"), title='"><script>', on=None, flag=True)
    assert made == ('<a title="&quot;&gt;&lt;script&gt;" flag>&lt;&amp;&gt;&quot;<b>x</b></a>')


def test_data_cannot_end_its_element() -> None:
    text = data({"</script><!--": "\u2028\udcff&"})
    assert not {"<", ">", "&", "\u2028"} & {*text}
    assert json.loads(text) == {"</script><!--": "\u2028\udcff&"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        data(float("nan"))


# --- the verb -------------------------------------------------------------------------------------


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    for path in run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_the_verb_writes_the_page(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(copy), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["file"]) == copy / "report.html"
    assert (told["denied"], told["sources"][0]) == (10, "run.audit")
    first = (copy / "report.html").read_bytes()
    assert main(["report", str(copy), "--out", str(copy / "again.html")]) == 0
    assert (copy / "again.html").read_bytes() == first  # the page itself is no source


def test_the_verb_overwrites_no_source(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (copy / "run.audit").read_bytes()
    assert main(["report", str(copy), "--out", str(copy / "run.audit")]) == 2
    assert (copy / "run.audit").read_bytes() == before
    assert main(["report", str(copy / "nothing")]) == 2
    assert "expected a directory" in capsys.readouterr().err


def test_a_damaged_trail_leaves_the_page_that_was(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "report.html").write_text("before")
    (copy / "run.audit").write_bytes((copy / "run.audit").read_bytes()[:-3])
    assert main(["report", str(copy)]) == 2
    assert "run.audit" in capsys.readouterr().err
    assert (copy / "report.html").read_text() == "before"


def test_what_other_systems_recorded_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("nothing of the kind\n")
    os.mkfifo(tmp_path / "a0.log")
    (tmp_path / "avc.log").write_text(
        'type=AVC msg=audit(5.0:1): avc:  denied  { read } for  pid=4 comm="<b>cat" '
        "scontext=u:r:c tcontext=u:r:s tclass=file permissive=1\n"
    )
    found = gather(tmp_path)
    assert [source.name for source in found.sources] == ["avc.log"]
    assert [(row.task, row.permission, row.enforced) for row in found.denied] == [
        ("<b>cat", "read", False)
    ]
    made = Page(page(found))
    assert "permissive, so not enforced" in made.text("td")
    assert tuple(made.text("b")[0:1] + made.text("span")[0:1]) == ("1", "tasks")
    write_run(tmp_path)
    assert "avc.log" not in [source.name for source in gather(tmp_path).sources]
