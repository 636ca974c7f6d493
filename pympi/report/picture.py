# SPDX-License-Identifier: BSD-2-Clause
"""The graph as SVG in the page: Graphviz says where things go, or else they stand in a ring."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..trace.graph import Edge, Graph, Node
from ..trace.graph.layout import Attempt, LayoutError, draw
from ..trace.graph.names import short_names
from .markup import Markup, element, joined

__all__ = ["OUTCOME_WORDS", "described", "draw_graph", "node_described"]

#: What edges are called, by outcome.
OUTCOME_WORDS = {
    "denied": "refused", "would_deny": "would be refused", "allowed": "allowed",
    "unused": "allowed, unused",
}  # fmt: skip
_POINTS = 72.0  # to the inch
_HEIGHT, _LETTER, _PADDING = 28.0, 6.9, 22.0
_MARGIN = 14.0
_WIDER = 1.5
_DENSE = 250  # arrows beyond which they are thinner
_SPRINGS = 150  # nodes up to which every distance is looked at
_TAB_STOPS = 600
"""With more boxes and arrows than these, the keyboard stops at boxes alone."""

Point = tuple[float, float]


class _Box(NamedTuple):
    """Centre and size."""

    x: float
    y: float
    width: float
    height: float


_Boxes = dict[str, _Box]  # by id of the node


def draw_graph(graph: Graph) -> tuple[Markup, str]:
    """Return a graph as SVG, and what the reader should know about how it was laid out; "".

    Edges and nodes have their place in `graph` in `data-e` and `data-n`.
    """
    texts = short_names(graph)
    boxes, note = _lay_out(graph, texts)
    curves = [_bow(boxes[edge.source], boxes[edge.target]) for edge in graph.edges]
    left, top, right, bottom = _extent(boxes, curves)
    stops = len(graph.edges) + len(graph.nodes) <= _TAB_STOPS
    ids = graph.by_id()
    edges = [
        _arrow(
            n,
            edge,
            curves[n],
            texts,
            kernel=ids[edge.target].kind == "kernel",
            stop=stops,
            thin=0.55 if len(graph.edges) > _DENSE else 1.0,
        )
        for n, edge in enumerate(graph.edges)
    ]
    nodes = [_node(n, each, texts[each.id], boxes[each.id]) for n, each in enumerate(graph.nodes)]
    box = f"{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"
    title = f"Who talks to whom: {len(nodes)} boxes and {len(edges)} arrows"
    picture = element(
        "svg", _markers(), element("g", joined(edges)), element("g", joined(nodes)),
        id="graph", viewBox=box, role="group", aria_label=title, data_box=box,
    )  # fmt: skip
    return picture, note


# --- where things go ------------------------------------------------------------------------------


def _lay_out(graph: Graph, texts: Mapping[str, str]) -> tuple[_Boxes, str]:
    sizes = {node.id: max(len(texts[node.id]) * _LETTER + _PADDING, 44.0) for node in graph.nodes}
    try:
        return _by_graphviz(graph, sizes), ""
    except LayoutError as error:
        return _in_a_ring(sizes), f"Drawn without Graphviz, in a ring: {error}."


def _by_graphviz(graph: Graph, sizes: Mapping[str, float]) -> _Boxes:
    """Ask Graphviz for places only: it sees sizes and no name.

    It makes squares, and screens are wide: it is told of boxes that are narrower.
    """
    ids = {f"n{number}": node.id for number, node in enumerate(graph.nodes)}
    dot = "\n".join(_dot(graph, sizes))
    order = ("neato", "sfdp") if len(graph.nodes) <= _SPRINGS else ("sfdp", "twopi")
    plain = draw(lambda attempt: dot, [*map(Attempt, order)], "plain").picture.decode()
    boxes = {}
    for line in plain.splitlines():
        kind, *words = line.split()
        if kind == "node":
            key = ids[words[0]]
            x, y = float(words[1]) * _POINTS * _WIDER, -float(words[2]) * _POINTS
            boxes[key] = _Box(x, y, sizes[key], _HEIGHT)
    return boxes


def _dot(graph: Graph, sizes: Mapping[str, float]) -> Iterator[str]:
    names = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    yield "digraph {"
    yield 'graph [mode=KK, overlap=prism, pack=22, splines=false, sep="+18", K=1.5, start=7];'
    yield 'node [shape=box, fixedsize=true, label=""]; edge [len=1.9];'
    for key, name in names.items():
        width, height = sizes[key] / _POINTS / _WIDER, _HEIGHT / _POINTS
        yield f"{name} [width={width:.3f}, height={height:.3f}];"
    for edge in graph.edges:
        if edge.outcome != "unused":
            yield f"{names[edge.source]} -> {names[edge.target]};"
    yield "}"


def _in_a_ring(sizes: Mapping[str, float]) -> _Boxes:
    """Put nodes around a ring, wide enough that they do not touch."""
    high = max(len(sizes) * _HEIGHT * 0.5, 150.0)
    wide = high + max(sizes.values(), default=0.0)
    boxes = {}
    for number, (key, width) in enumerate(sizes.items()):
        angle = 2 * math.pi * number / len(sizes) - math.pi / 2
        boxes[key] = _Box(wide * math.cos(angle), high * math.sin(angle), width, _HEIGHT)
    return boxes


def _bow(source: _Box, target: _Box) -> list[Point]:
    """Return a curve from one box to another, a little to the right, so that two ways differ."""
    if source == target:
        x, y = source.x, source.y - source.height / 2
        return [(x - 14, y), (x - 24, y - 34), (x + 24, y - 34), (x + 14, y)]
    dx, dy = target.x - source.x, target.y - source.y
    middle = (source.x + dx / 2 - dy * 0.12, source.y + dy / 2 + dx * 0.12)
    begin, end = _border(source, middle), _border(target, middle)
    first = (begin[0] + 2 * (middle[0] - begin[0]) / 3, begin[1] + 2 * (middle[1] - begin[1]) / 3)
    second = (end[0] + 2 * (middle[0] - end[0]) / 3, end[1] + 2 * (middle[1] - end[1]) / 3)
    return [begin, first, second, end]


def _border(box: _Box, towards: Point) -> Point:
    """Return where the line from a box's centre to a point leaves the box."""
    dx, dy = towards[0] - box.x, towards[1] - box.y
    if not dx and not dy:
        return box.x, box.y
    shares = [half / abs(way) for half, way in ((box.width / 2, dx), (box.height / 2, dy)) if way]
    share = min(shares)
    return box.x + dx * share, box.y + dy * share


def _extent(boxes: _Boxes, curves: Sequence[Sequence[Point]]) -> tuple[float, ...]:
    """Return left, top, right and bottom of all there is."""
    corners = [
        (b.x + side * b.width / 2, b.y + side * b.height / 2)
        for b in boxes.values() for side in (-1, 1)
    ]  # fmt: skip
    points = [*corners, *(point for curve in curves for point in curve)] or [(0.0, 0.0)]
    xs, ys = zip(*points, strict=True)
    return min(xs) - _MARGIN, min(ys) - _MARGIN, max(xs) + _MARGIN, max(ys) + _MARGIN


# --- elements -------------------------------------------------------------------------------------


def _markers() -> Markup:
    tip = element("path", d="M0 0L8 4L0 8Z")
    return element("defs", *(
        element(
            "marker", tip, id=f"tip-{outcome}", class_=f"tip {outcome}", viewBox="0 0 8 8",
            refX="7", refY="4", markerWidth="9", markerHeight="9", markerUnits="userSpaceOnUse",
            orient="auto",
        )
        for outcome in (*OUTCOME_WORDS, "kernel")
    ))  # fmt: skip


def _arrow(
    number: int, edge: Edge, curve: Sequence[Point], texts: Mapping[str, str], *, kernel: bool,
    stop: bool, thin: float,
) -> Markup:  # fmt: skip
    begin, *rest = (f"{x:.1f} {y:.1f}" for x, y in curve)
    path = f"M{begin}C{' '.join(rest)}"
    tip = "kernel" if kernel and edge.outcome == "allowed" else edge.outcome
    words = described(edge, texts)
    width = f"{(0.9 + 0.75 * math.log10(1 + edge.weight)) * thin:.2f}"
    line = element(
        "path", class_="line", d=path, stroke_width=width, marker_end=f"url(#tip-{tip})"
    )  # fmt: skip
    return element(
        "g", element("title", words), element("path", class_="hit", d=path), line,
        class_=f"edge {edge.outcome}{' to-kernel' if kernel else ''}", data_e=number, role="img",
        aria_label=words, tabindex=0 if stop and edge.outcome != "unused" else None,
    )  # fmt: skip


def _node(number: int, node: Node, text: str, box: _Box) -> Markup:
    words = node_described(node)
    shape = element(
        "rect", x=f"{box.x - box.width / 2:.1f}", y=f"{box.y - box.height / 2:.1f}",
        width=f"{box.width:.1f}", height=f"{box.height:.1f}", rx="7",
    )  # fmt: skip
    name = element("text", text, x=f"{box.x:.1f}", y=f"{box.y + 4.2:.1f}", text_anchor="middle")
    return element(
        "g", element("title", words), shape, name, class_=f"node {node.kind}", data_n=number,
        tabindex=0, role="img", aria_label=words,
    )  # fmt: skip


def described(edge: Edge, texts: Mapping[str, str]) -> str:
    """Return an edge in a sentence."""
    parts = [] if edge.refusals else [OUTCOME_WORDS[edge.outcome]]
    for count, what in ((edge.messages, "messages"), (edge.replies, "replies")):
        parts += [f"{count:,} {what}"] if count else []
    refused = edge.refusals
    parts += [f"{refused:,} refused"] if refused else []
    return f"{texts[edge.source]} to {texts[edge.target]}: {', '.join(parts)}"


def node_described(node: Node) -> str:
    """Return a node in a sentence."""
    refused = f", {node.denied:,} refused" if node.denied else ""
    return f"{node.kind} {node.name}: sent {node.sent:,}, received {node.received:,}{refused}"
