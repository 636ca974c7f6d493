# SPDX-License-Identifier: BSD-2-Clause
"""pympi.trace.graph: what pictures show, how large graphs are made small, and who draws them."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import find_spec

import pytest

from pympi.trace import TraceRecord
from pympi.trace.graph import Graph, from_trace, layout
from pympi.trace.graph.dot import EDGE_STYLES, summary, to_dot, tooltips
from pympi.trace.graph.layout import Attempt, LayoutError, attempts, draw
from pympi.trace.graph.model import Denial, Node
from pympi.trace.graph.names import short_names
from pympi.trace.graph.picture import picture
from pympi.trace.graph.shrink import connected, filtered, shrink

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
_PROGRAM = """
import sys, time
if 'splines=line' not in sys.stdin.read():
    time.sleep(600)
print('drawn')
"""
DRAWS_IF_STRAIGHT = [sys.executable, "-c", _PROGRAM]
FAILS = [sys.executable, "-c", "import sys; sys.exit('no such thing\\nand more')"]


def sends(*edges: tuple[str, str, int]) -> Graph:
    """A graph of messages."""
    records = []
    for task, owner, count in edges:
        records += [TraceRecord(event, task, owner, 0, 1, count) for event in ("copy_send", "send")]
    return from_trace(records)


# ---- what a picture says ----


def test_a_refusal_is_red_and_dashed_and_counted() -> None:
    graph = sends(("a", "b", 5))
    graph.edges[0].denied = [Denial("send", "MACH_SEND_INVALID_DEST", 3)]
    graph.edges[0].outcome = "denied"
    (edge,) = re.findall(r"n0 -> n1 \[(.*)\];", to_dot(graph))
    line, style, _ = EDGE_STYLES["denied"]
    assert f'color="{line}"' in edge
    assert f"style={style}" in edge
    assert 'label="3 refused"' in edge
    assert "refused: send 3 times (MACH_SEND_INVALID_DEST)" in tooltips(graph)["e0"]
    assert summary(graph).endswith("5 messages, 3 refusals")


def test_more_messages_make_a_wider_edge() -> None:
    dot = to_dot(sends(("a", "b", 1), ("b", "c", 1000), ("c", "a", 100000)))
    widths = [float(width) for width in re.findall(r"-> .*penwidth=([0-9.]+)", dot)]
    assert widths == sorted(widths)
    assert len({*widths}) == 3


def test_the_legend_has_what_is_there_and_no_more() -> None:
    dot = to_dot(sends(("a", "mach_kernel", 1)))
    assert "kernel" in dot
    assert "allowed" in dot
    for absent in ("service", "would refuse", "not used", "hollow"):
        assert absent not in dot


def test_names_are_as_short_as_they_tell_apart() -> None:
    names = ["/bin/sh", "/sbin/sh", "/A/M.app/Contents/MacOS/M", "/usr/x", "x", "a b", "/a/b/c/d"]
    graph = sends(*((name, "y", 1) for name in names))
    texts = short_names(graph)
    assert {name: texts[f"task {name}"] for name in names} == {
        "/bin/sh": "bin/sh", "/sbin/sh": "sbin/sh", "/A/M.app/Contents/MacOS/M": "M.app",
        "/usr/x": "usr/x", "x": "task x", "a b": "a b", "/a/b/c/d": "d",
    }  # fmt: skip


def test_long_names_keep_their_ends() -> None:
    name = "task" + "x" * 100 + "end"
    text = short_names(sends((name, "b", 1)))[f"task {name}"]
    assert (len(text), text[:4], text[-3:]) == (40, "task", "end")


# ---- large graphs ----


def many(tasks: int, edges: int) -> Graph:
    """Tasks of five directories that send to each other; the first are the busiest."""
    names = [f"/dir{number % 5}/task{number:04}" for number in range(tasks)]
    pairs = {(names[n * 7919 % tasks], names[n * n % 97 % tasks]) for n in range(edges)}
    return sends(*((a, b, 1 + 10000 // (1 + int(b[-4:]))) for a, b in sorted(pairs) if a != b))


def test_small_graphs_stay_as_they_are() -> None:
    graph = many(20, 40)
    assert shrink(graph) is graph


def test_large_graphs_are_grouped_by_directory_and_lose_nothing_then() -> None:
    graph = many(500, 3000)
    small = shrink(graph, 60, 10**6)
    groups = [node for node in small.nodes if node.kind == "group"]
    assert [group.name.split(" ")[0] for group in groups] == [f"/dir{n}/" for n in range(5)]
    assert len(small.nodes) <= 60
    merged = sum(len(group.members) for group in groups)
    assert small.notes == [f"{merged:,} of 500 nodes, the least busy, are drawn as 5"]
    for graphs in ("messages", "replies", "transfers", "bytes"):
        assert sum(getattr(e, graphs) for e in small.edges) == sum(
            getattr(e, graphs) for e in graph.edges
        )


@pytest.mark.parametrize(
    ("label", "groups"),
    [
        ("te/system_u:object_r:{}_{}_t", ["httpd (20)", "ssh (19)"]),
        ("rules/{}-lib-{}", ["httpd (20)", "ssh (19)"]),
        ("rules/{}{}", ["other labels (39)"]),
    ],
)
def test_labels_are_grouped_by_what_tells_them_apart(label: str, groups: list[str]) -> None:
    names = [label.format(word, number) for number in range(20) for word in ("httpd", "ssh")]
    small = shrink(Graph("label", [Node(f"label {name}", "label", name) for name in names], []), 25)
    assert [node.name for node in small.nodes if node.kind == "group"] == groups


def test_faint_edges_are_left_out_but_no_refusals() -> None:
    graph = many(100, 900)
    faintest = min(graph.edges, key=lambda edge: edge.weight)
    faintest.denied, faintest.outcome = [Denial("send", "why", 1)], "denied"
    small = shrink(graph, 100, 50)
    assert len(small.edges) == 50
    assert faintest in small.edges
    assert small.notes[-1].startswith(f"{len(graph.edges) - 50:,} edges of at most")


def test_who_was_refused_something_is_in_no_group() -> None:
    graph = many(500, 3000)
    quiet = min(graph.nodes, key=lambda node: node.sent + node.received)
    quiet.denied = 1
    assert quiet in shrink(graph, 60, 500).nodes


def test_filtered_and_connected() -> None:
    graph = sends(("a", "b", 1), ("b", "c", 1), ("d", "e", 1))
    left = connected(filtered(graph, lambda node: node.name != "b"))
    assert [node.name for node in left.nodes] == ["d", "e"]
    assert left.notes == ["2 nodes without edges are not drawn"]
    assert connected(graph) is graph


# ---- who draws them ----


def test_the_engine_goes_by_size() -> None:
    assert attempts(many(20, 40))[0].engine == "dot"
    assert attempts(many(300, 900))[0].engine == "sfdp"
    assert {attempt.engine for attempt in attempts(many(300, 900), "neato")} == {"neato"}


def test_what_takes_too_long_is_ended_and_edges_become_straight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = many(20, 40)
    commands = {"dot": SLEEPS, "sfdp": DRAWS_IF_STRAIGHT}
    monkeypatch.setattr(layout, "_command", lambda engine, form: commands[engine])

    def dot(attempt: Attempt) -> str:
        return to_dot(graph, attempt.engine, straight=attempt.straight)

    assert draw(dot, attempts(graph), "png", limit=0.5)[1:] == ("sfdp", True)
    with pytest.raises(LayoutError, match=r"^dot took longer than 0\.5 seconds: choose"):
        draw(dot, attempts(graph, "dot"), "png", limit=0.5)


def test_what_graphviz_complains_of_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_command", lambda engine, form: FAILS)
    with pytest.raises(LayoutError, match=r"failed: no such thing$"):
        picture(sends(("a", "b", 1)))


def test_without_graphviz_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout.shutil, "which", lambda program: None)
    monkeypatch.setattr(layout, "find_spec", lambda name: None)
    with pytest.raises(LayoutError, match=r"install it .*'pympi-mach\[graph\]"):
        picture(sends(("a", "b", 1)))
    assert picture(sends(("a", "b", 1)), "dot").picture.startswith(b"digraph")


@pytest.mark.skipif(not find_spec("pygraphviz"), reason="no pygraphviz: pympi-mach[graph]")
@pytest.mark.parametrize("engine", ["dot", "sfdp"])
def test_pygraphviz_draws_where_there_is_no_program(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(layout.shutil, "which", lambda program: None)
    drawn = picture(sends(('a"\\é', "b", 1), ("b", "c", 2)), engine=engine)
    assert drawn.engine == engine
    assert 'a"\\é' in drawn.picture.decode()


@pytest.mark.skipif(not shutil.which("dot"), reason="no dot on the PATH")
def test_dot_draws_where_the_engine_has_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    known = shutil.which("dot")
    monkeypatch.setattr(layout.shutil, "which", lambda program: known if program == "dot" else None)
    assert picture(sends(("a", "b", 1)), engine="sfdp").engine == "sfdp"
