# SPDX-License-Identifier: BSD-2-Clause
"""Graphs as DOT: what Graphviz lays out and draws.

Nodes are called n0, n1, ... and edges e0, e1, ...; names are only ever text: in quotes, with `\\`,
`"` and `&` escaped for Graphviz and what is not printable shown as `\\u{hex}`. So no name can be an
attribute, a port of a node, HTML or an entity.

Colours are of Okabe's and Ito's palette, which the colour-blind tell apart; what was refused is
dashed, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape as html

from ..text import escape
from .model import Edge, Graph, Node
from .names import short_names

__all__ = ["EDGE_STYLES", "NODE_STYLES", "printable", "quoted", "summary", "to_dot", "tooltips"]

FONT = "Helvetica,Arial,sans-serif"

#: By kind: fill, line, text, shape.
NODE_STYLES: Mapping[str, tuple[str, str, str, str]] = {
    "task": ("#E3EEF7", "#0072B2", "#10243A", "box"),
    "kernel": ("#E4E4E4", "#7A7A7A", "#3A3A3A", "box"),
    "port": ("#FFFFFF", "#56B4E9", "#10243A", "ellipse"),
    "service": ("#DDF1EA", "#009E73", "#0B3528", "ellipse"),
    "label": ("#F6E9F0", "#A95C8C", "#3B1730", "box"),
    "group": ("#F7F2DC", "#A8914A", "#4A3F1A", "folder"),
}
#: By outcome: line, style, what the legend says.
EDGE_STYLES: Mapping[str, tuple[str, str, str]] = {
    "allowed": ("#40688C", "solid", "allowed"),
    "denied": ("#D55E00", "dashed", "refused"),
    "would_deny": ("#C98A00", "dashed", "would be refused"),
    "unused": ("#8FA39A", "dotted", "allowed, not used"),
}
_TO_KERNEL = "#A4A4A4"
#: Where there are many edges, those below are seen, too.
_SEEN_THROUGH = "B4"
#: Up to so many edges have their count beside them.
_COUNTED_EDGES = 60

Color = Callable[[Node], str]


def printable(text: str) -> str:
    """Return a text with what is not printable as `\\u{hex}`."""
    return escape(text).replace("\\\\", "\\")


def quoted(text: str) -> str:
    """Return a text as a quoted string of DOT, which shows as just this text."""
    text = printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return f'"{text}"'


def to_dot(
    graph: Graph, engine: str = "dot", *, straight: bool = False, color: Color | None = None
) -> str:
    """Return a graph as DOT, with what suits an engine.

    Args:
        graph: to be drawn.
        engine: of Graphviz.
        straight: edges lead straight through whatever is there; drawn much faster.
        color: returns what a rules file says of a node; "" for nothing.
    """
    ids = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    colors = {node.id: color(node) for node in graph.nodes} if color else {}
    names = short_names(graph)
    kinds = {node.id: node.kind for node in graph.nodes}
    lines = ["digraph pympi {", *_head(graph, engine, straight)]
    for node in graph.nodes:
        lines.append(_node(ids[node.id], node, names[node.id], colors.get(node.id, "")))
    counted = len(graph.edges) <= _COUNTED_EDGES
    for number, edge in enumerate(graph.edges):
        paint = colors.get(edge.target) or colors.get(edge.source) or ""
        kernel = kinds.get(edge.target) == "kernel"
        lines.append(_edge(ids, number, edge, paint, kernel=kernel, counted=counted))
    for node in graph.nodes:
        if node.owner in ids and node.kind != "kernel":  # whose port it is
            ends = f"{ids[node.id]} -> {ids[node.owner]}"
            lines.append(f"  {ends} [{_OWNED}];")
    return "\n".join([*lines, "}", ""])


def _head(graph: Graph, engine: str, straight: bool) -> Iterable[str]:
    attributes = {
        "fontname": f'"{FONT}"', "fontsize": "13", "labelloc": "t", "labeljust": "l",
        "label": _title(graph), "bgcolor": "white", "pad": "0.3", "outputorder": "edgesfirst",
        "charset": '"UTF-8"',
    }  # fmt: skip
    if engine == "dot":
        attributes |= {"rankdir": "LR", "ranksep": "1.1", "nodesep": "0.16", "newrank": "true"}
    else:
        attributes |= {"overlap": "prism", "overlap_scaling": "-3"}
        attributes |= {"sep": '"+12"', "esep": '"+6"', "K": "1.2", "start": "7"}
    straight = straight or (engine != "dot" and len(graph.edges) > _STRAIGHT)
    attributes["splines"] = "line" if straight else "true"
    yield "  graph [" + ", ".join(f"{key}={value}" for key, value in attributes.items()) + "];"
    yield (
        f'  node [fontname="{FONT}", fontsize=11, height=0.3, margin="0.11,0.05", '
        'style="filled,rounded", penwidth=1.1];'
    )
    yield f'  edge [fontname="{FONT}", fontsize=9, arrowsize=0.6];'


#: How a port is tied to its owner: with no say in the order of columns. Owners would stand to the
#: right of their ports, and to the left of others', which makes twice as many.
_OWNED = 'arrowhead=none, style=dotted, color="#AAAAAA", constraint=false'

#: With more edges, they are straight: going around nodes takes longer than the layout.
_STRAIGHT = 700


def _node(name: str, node: Node, text: str, paint: str) -> str:
    fill, line, font, shape = NODE_STYLES[node.kind]
    busy = node.sent + node.received
    size = 10 + min(9, round(1.6 * math.log10(1 + busy)))
    style = "filled" if shape == "folder" else "filled,rounded"
    if paint:
        line = paint
    width = 2.4 if paint else 1.1
    return (
        f'  {name} [id="{name}", label={quoted(text)}, shape={shape}, style="{style}", '
        f'fillcolor="{fill}", color="{line}", fontcolor="{font}", fontsize={size}, '
        f"penwidth={width}];"
    )


def _edge(
    ids: Mapping[str, str], number: int, edge: Edge, paint: str, *, kernel: bool, counted: bool
) -> str:
    line, style, _ = EDGE_STYLES[edge.outcome]
    if edge.outcome == "allowed":
        line = paint or (_TO_KERNEL if kernel else line) + _SEEN_THROUGH
    width = (1.6 if edge.denied else 0.6) + 0.6 * math.log10(1 + edge.weight)
    ink = line.removesuffix(_SEEN_THROUGH) if line.startswith("#") else line
    text = f', label={quoted(_count(edge))}, fontcolor="{ink}"' if counted else ""
    free = ", constraint=false" if edge.outcome == "unused" else ""
    free += ", arrowhead=empty" if _no_messages(edge) else ""
    return (
        f'  {ids[edge.source]} -> {ids[edge.target]} [id="e{number}", color="{line}", '
        f"style={style}, penwidth={width:.2f}{text}{free}];"
    )


def _no_messages(edge: Edge) -> bool:
    """Whether something was done on it, but no message sent, and nothing refused."""
    return bool(edge.events) and not edge.messages and not edge.replies and not edge.denied


def _count(edge: Edge) -> str:
    if edge.outcome == "denied":
        return f"{edge.refusals:,} refused"
    return f"{edge.weight:,}" if edge.weight else ""


# --- what the picture says ------------------------------------------------------------------------


def summary(graph: Graph) -> str:
    """Return a line about a graph: what there is, and how much of it."""
    messages = sum(edge.messages for edge in graph.edges)
    replies = sum(edge.replies for edge in graph.edges)
    refused = sum(edge.refusals for edge in graph.edges)
    parts = [f"{len(graph.nodes):,} nodes", f"{len(graph.edges):,} edges", f"{messages:,} messages"]
    parts += [f"{replies:,} replies"] if replies else []
    parts += [f"{refused:,} refusals"] if refused else []
    parts += [f"{graph.lost:,} lost"] if graph.lost else []
    return ", ".join(parts)


def _title(graph: Graph) -> str:
    """Return the title and the legend, as a table of Graphviz's own HTML; all text is escaped."""
    what = f"{summary(graph)}, by {graph.by}"
    rows = [
        f'<TR><TD ALIGN="LEFT"><B>{_text(graph.name or "pympi")}</B></TD></TR>',
        f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="11">{_text(what)}</FONT></TD></TR>',
    ]
    small = '<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="10" COLOR="#555555">{}</FONT></TD></TR>'
    rows += [small.format(_text(note)) for note in graph.notes]
    rows.append(f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="10">{_legend(graph)}</FONT></TD></TR>')
    table = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="1" CELLPADDING="1">'
    return f"<{table}{''.join(rows)}</TABLE>>"


def _text(text: str) -> str:
    shown = printable(text)
    shown = shown if len(shown) <= _LONGEST_LINE else f"{shown[:_LONGEST_LINE]}…"
    return html(shown) or " "


_LONGEST_LINE = 160


_SAMPLES = {
    "solid": "&#8212;&#8212;",
    "dashed": "&#8211; &#8211;",
    "dotted": "&#183; &#183; &#183;",
}


def _legend(graph: Graph) -> str:
    kinds = {node.kind for node in graph.nodes}
    outcomes = {edge.outcome for edge in graph.edges}
    parts = [
        f'<FONT COLOR="{line}">&#9632; {kind}</FONT>'
        for kind, (_, line, _, _) in NODE_STYLES.items() if kind in kinds
    ]  # fmt: skip
    parts += [
        f'<FONT COLOR="{line}">{_SAMPLES[style]} {said}</FONT>'
        for outcome, (line, style, said) in EDGE_STYLES.items() if outcome in outcomes
    ]  # fmt: skip
    parts += ["hollow arrow: no messages"] if any(map(_no_messages, graph.edges)) else []
    return " &#160; ".join([*parts, "wider: more"])


def tooltips(graph: Graph) -> dict[str, str]:
    """Return what is said of nodes and edges where one points at them, by their ids in the DOT."""
    names = {node.id: node.name for node in graph.nodes}
    texts = {f"n{number}": _about_node(node) for number, node in enumerate(graph.nodes)}
    for number, edge in enumerate(graph.edges):
        ends = f"{names[edge.source]} \N{RIGHTWARDS ARROW} {names[edge.target]}"
        texts[f"e{number}"] = "\n".join(map(printable, [ends, *_about_edge(edge)]))
    return texts


_MANY = 12


def _about_node(node: Node) -> str:
    lines = [f"{node.name} ({node.kind})"]
    lines += [f"label {node.label}"] if node.label and node.kind != "label" else []
    lines.append(f"sent {node.sent:,}, received {node.received:,}")
    lines += [f"refused {node.denied:,} times"] if node.denied else []
    lines += [f"on its own ports: {_counts(node.own)}"] if node.own else []
    members = [member.partition(" ")[2] for member in node.members]
    lines += [*members[:_MANY], *_more(members)]
    return "\n".join(map(printable, lines))


def _about_edge(edge: Edge) -> Iterable[str]:
    yield f"{EDGE_STYLES[edge.outcome][2]}; {edge.ports:,} ports"
    if edge.events:
        yield _counts(edge.events)
    if edge.replies:
        yield f"{edge.replies:,} replies"
    if edge.transfers:
        yield f"{edge.transfers:,} rights given away"
    if edge.bytes:
        yield f"{edge.bytes:,} bytes"
    if edge.methods:
        yield f"methods: {_counts(edge.methods)}"
    if edge.idle:
        yield f"allowed, not called: {', '.join([*edge.idle[:_MANY], *_more(edge.idle)])}"
    for denial in edge.denied[:_MANY]:
        verb = "refused" if denial.enforced else "would be refused"
        yield f"{verb}: {denial.permission} {denial.count:,} times ({denial.reason})"
    yield from _more(edge.denied)


def _more(items: Sequence[object]) -> list[str]:
    return [f"and {len(items) - _MANY:,} more"] if len(items) > _MANY else []


def _counts(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} {count:,}" for name, count in ranked[:_MANY])
    rest = len(ranked) - _MANY
    return f"{shown} and {rest:,} more" if rest > 0 else shown
