# SPDX-License-Identifier: BSD-2-Clause
"""Group L, output injection: what others chose stays data, whatever it is written into."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from xml.etree import ElementTree as ET

import pytest

from pympi.trace import Labels, TraceRecord
from pympi.trace.graph import Denial, Graph, from_trace
from pympi.trace.graph.dot import printable, to_dot, tooltips
from pympi.trace.graph.layout import ENGINES
from pympi.trace.graph.picture import file_names, neighbourhoods, picture, picture_of_pairs
from pympi.trace.graph.shrink import shrink
from pympi.trace.graph.tr2dot import Pair

SVG = "{http://www.w3.org/2000/svg}"
needs_graphviz = pytest.mark.skipif(
    not (shutil.which("dot") or find_spec("pygraphviz")), reason="no Graphviz here"
)

#: Names by the case they are about.
HOSTILE = {
    "L1": [
        'a"b', 'a" [URL="http://evil"] "', "a\\", "a\\n\\N\\G", '\\"', "a\nb", "a\r\x00\x1b[31m",
    ],
    "L2": [
        "<b>bold</b>", "<TABLE><TR><TD HREF='x'>y</TD></TR></TABLE>", "URL=javascript:1", "<",
        '", href="javascript:alert(1)', "&lt;script&gt;&#0;&bogus;", "<IMG SRC='/etc/passwd'/>",
    ],
    "L3": [
        "a:b:c", ":n:", "node", "strict digraph {", "a -> b", "{a|<p>b}", "subgraph cluster_x {",
    ],
    "L4": [
        "</title><script>alert(1)</script>", "<svg onload=alert(1)>", "]]><script/>", "<!--",
        "<?xml version='1.0'?>", "javascript:alert(1)", "'\"><img src=x onerror=x>",
    ],
    "others": ["\u202e\u2066", "\ud800", "日本語 & 🙂", "", " ", "x" * 1000, "-rf", "%s {0}"],
}  # fmt: skip
NAMES = [name for names in HOSTILE.values() for name in names]


def hostile_graph(names: list[str]) -> Graph:
    """Every name is a task's, and a port owner's, and the name of the graph."""
    records = [
        TraceRecord("send", name, other, 0, 1, 1)
        for name, other in zip(names, [*names[1:], names[0]], strict=True)
    ]
    records += [TraceRecord("copy_send", *record[1:]) for record in records]
    graph = from_trace(records)
    graph.name = " ".join(names)
    graph.notes = [*names]
    return graph


# ---- what Graphviz would read, read by a lexer of our own ----

TOKEN = re.compile(
    r'\s*(?:("(?:[^"\\]|\\.)*")|(<(?:[^<>]|<[^<>]*>)*>)|(-?[A-Za-z0-9_.#]+)|(->|[\[\]{}=,;]))',
    re.DOTALL,
)


def attributes(dot: str) -> list[tuple[str, dict[str, str]]]:
    """Return the statements of DOT: what each is about, and its attributes."""
    at, words = 0, []
    while dot[at:].strip():
        token = TOKEN.match(dot, at)
        assert token, dot[at : at + 80]
        words.append(token[0].strip())
        at = token.end()
    assert words[:3] == ["digraph", "pympi", "{"]
    assert words[-1] == "}"
    found, subject, inside = [], [], {}
    rest = iter(words[3:-1])
    for word in rest:
        if word == "[":
            while word != "]":
                key, equals, value = next(rest), next(rest), next(rest)
                assert equals == "="
                inside[key] = value
                word = next(rest)
                assert word in (",", "]")
        elif word == ";":
            found.append((" ".join(subject), inside))
            subject, inside = [], {}
        else:
            subject.append(word)
    return found


def shown(quoted: str) -> str:
    """Return the text that Graphviz makes of a quoted label."""
    text = re.sub(r'\\(["\\])', r"\1", quoted[1:-1].replace('\\"', '"'))
    return text.replace("&amp;", "&")


@needs_graphviz
class TestGraphs:
    """L1 to L4: DOT, and what is drawn from it."""

    @pytest.mark.parametrize("case", ["L1", "L2", "L3", "L4", "others"])
    def test_dot_has_names_as_texts_only(self, case: str) -> None:
        graph = hostile_graph(HOSTILE[case])
        statements = attributes(to_dot(graph))
        nodes = [(what, each) for what, each in statements if re.fullmatch(r"n\d+", what)]
        assert len(nodes) == len(graph.nodes)
        for number, (what, each) in enumerate(nodes):
            assert what == f"n{number}"
            assert each.keys() == {
                "id", "label", "shape", "style", "fillcolor", "color", "fontcolor", "fontsize",
                "penwidth",
            }  # fmt: skip
            if len(graph.nodes[number].name) < 40:
                assert shown(each["label"]) in printable(graph.nodes[number].id)
        edges = [each for what, each in statements if "->" in what]
        assert len(edges) == len(graph.edges)
        assert all({*each} <= {"id", "color", "style", "penwidth", "label", "fontcolor"}
                   for each in edges)  # fmt: skip

    @pytest.mark.parametrize("engine", ["dot", "sfdp"])
    @pytest.mark.parametrize("case", ["L1", "L2", "L3", "L4", "others"])
    def test_svg_shows_each_name_and_nothing_else(self, case: str, engine: str) -> None:
        graph = hostile_graph(HOSTILE[case])
        svg = picture(graph, "svg", engine=engine).picture.decode()
        only_a_picture(svg)
        texts = {each.text for each in parsed(svg).iter(f"{SVG}text")}
        for node in graph.nodes:
            if 0 < len(node.name.strip()) < 40:
                last = printable(node.name).rsplit("/", 1)[-1]
                assert any(last in (text or "").replace("\xa0", " ") for text in texts), node.name
        titles = {each.text for each in parsed(svg).iter(f"{SVG}title")}
        assert titles == {*tooltips(graph).values()}

    def test_page_has_no_script_and_asks_for_nothing(self) -> None:
        page = picture(hostile_graph(NAMES), "html").picture.decode()
        assert "default-src 'none'" in page
        body = page[page.index("<svg") : page.index("</svg>") + 6]
        only_a_picture(body)
        rest = re.sub(
            "<title>[^<]*</title>", "", page.replace(body, "")
        )  # a text: the graph's name
        assert not re.search(r"script|javascript|onload|onerror|http:|src=|href=", rest)

    @pytest.mark.parametrize("form", ["png", "pdf"])
    def test_other_formats_are_drawn(self, form: str) -> None:
        drawn = picture(hostile_graph(NAMES), form).picture
        assert drawn.startswith({"png": b"\x89PNG", "pdf": b"%PDF"}[form])

    def test_every_engine(self) -> None:
        for engine in ENGINES:
            only_a_picture(picture(hostile_graph(NAMES[:12]), engine=engine).picture.decode())

    def test_labels_methods_and_reasons_are_texts_too(self) -> None:
        graph = from_trace([TraceRecord("send", "a", "b", 0, 1, 1)], labels=Labels())
        (edge,) = graph.edges
        edge.methods = dict.fromkeys(NAMES, 1)
        for node in graph.nodes:
            node.label = NAMES[1]
            node.own = dict.fromkeys(NAMES, 1)
        edge.denied = [Denial(name, name, 1) for name in NAMES]
        edge.outcome = "denied"
        only_a_picture(picture(graph).picture.decode())

    def test_groups_of_large_graphs(self) -> None:
        records = [
            TraceRecord("send", f"{name}/x{n}", "server", 0, n, 1)
            for name in NAMES for n in range(4)
        ]  # fmt: skip
        small = shrink(from_trace(records), 30, 60)
        assert any(node.kind == "group" for node in small.nodes)
        only_a_picture(picture(small).picture.decode())

    def test_as_tr2dot(self) -> None:
        pairs = [
            Pair(name.encode(errors="replace").decode("latin-1"), "b", "forward") for name in NAMES
        ]
        only_a_picture(picture_of_pairs(pairs, "svg").picture.decode(), titles=True)


def parsed(svg: str) -> ET.Element:
    """Return the root. There is no DTD, so nothing is expanded."""
    assert "<!DOCTYPE" not in svg
    return ET.fromstring(svg)  # noqa: S314


def only_a_picture(svg: str, *, titles: bool = False) -> None:
    """Check that there is nothing in an SVG that does, loads, or leads anywhere."""
    root = parsed(svg)
    for element in root.iter():
        assert isinstance(element.tag, str)
        tag = element.tag.removeprefix(SVG)
        assert tag in {
            "svg", "style", "g", "title", "polygon", "path", "text", "ellipse", "polyline",
        }, tag  # fmt: skip
        for name, value in element.attrib.items():
            assert not name.startswith(("{", "on")), name
            assert "url(" not in value
            if name == "id":
                assert titles or re.fullmatch(r"[ne]\d+|(node|edge|graph)\d+|a_.*", value), value
    (style,) = root.iter(f"{SVG}style")
    assert "url" not in (style.text or "")
    assert "<?xml-stylesheet" not in svg


class TestFileNames:
    """L9: names like options and paths, of tasks that get a picture each."""

    def test_plain_different_and_no_paths(self) -> None:
        names = [*NAMES, "../../etc/passwd", "/etc/passwd", "-rf", ".", "..", "CON", "a", "A", "a"]
        names += ["a/b", "a b", "a\x00b", "y" * 400, "y" * 401]
        files = file_names(names, ".svg")
        assert len({file.lower() for file in files}) == len(names)
        for file in files:
            assert re.fullmatch(r"[A-Za-z0-9_+~][A-Za-z0-9._+~-]{0,110}\.svg", file)

    def test_each_task_has_its_own_edges(self) -> None:
        records = [
            TraceRecord("send", "sh", "a b", 0, 1, 1), TraceRecord("send", "sshd", "a b", 0, 1, 1),
            TraceRecord("send", "a b", "-rf", 0, 1, 1),
        ]  # fmt: skip
        parts = {name: len(part.edges) for name, part in neighbourhoods(from_trace(records))}
        assert parts == {"sh": 1, "sshd": 1, "a b": 3, "-rf": 1}
