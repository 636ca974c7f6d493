# SPDX-License-Identifier: BSD-2-Clause
"""Graphs made small enough to be looked at: rare nodes become one, faint edges are left out.

Whatever is done is said in the graph's notes, which stand in the picture. What was refused is never
left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

from .model import Denial, Edge, Graph, Node, outcome_of
from .names import label_value

__all__ = ["MOST_EDGES", "MOST_NODES", "connected", "filtered", "shrink"]

MOST_NODES = 120
MOST_EDGES = 500
#: Members of the smallest group: fewer are shown as they are.
_SMALLEST = 3
_GROUPS = 24
_WORDS = re.compile("[_-]")  # of a type, and of a mangled name


def filtered(graph: Graph, keep: Callable[[Node], bool]) -> Graph:
    """Return the graph of the nodes that are kept, and of the edges between them."""
    nodes = [node for node in graph.nodes if keep(node)]
    known = {node.id for node in nodes}
    edges = [edge for edge in graph.edges if edge.source in known and edge.target in known]
    return replace(graph, nodes=nodes, edges=edges)


def connected(graph: Graph) -> Graph:
    """Return the graph without nodes that have no edge, nor a port that has one."""
    ends = {end for edge in graph.edges for end in (edge.source, edge.target)}
    ends |= {node.owner for node in graph.nodes if node.id in ends and node.kind != "kernel"}
    nodes = [node for node in graph.nodes if node.id in ends]
    left_out = len(graph.nodes) - len(nodes)
    if not left_out:
        return graph
    what = "node without edges is" if left_out == 1 else "nodes without edges are"
    notes = [*graph.notes, f"{left_out:,} {what} not drawn"]
    return replace(graph, nodes=nodes, notes=notes)


def shrink(graph: Graph, nodes: int = MOST_NODES, edges: int = MOST_EDGES) -> Graph:
    """Return a graph of about so many nodes and edges at most; the same if it has no more.

    The busiest nodes stay, and those that were refused something. Others are put together by
    directory (of labels: by the first word of what matters of it, as of the type of a context), if
    need be by shorter directories.
    """
    if len(graph.nodes) <= nodes and len(graph.edges) <= edges:
        return graph
    busy = len(graph.nodes) if len(graph.nodes) <= nodes else max(nodes - _GROUPS, 1)
    return _thinned(_grouped(graph, busy), edges)


def _grouped(graph: Graph, kept: int) -> Graph:
    """Keep so many nodes; put the others together."""
    busiest = sorted(graph.nodes, key=_importance, reverse=True)
    rare = _families(busiest[kept:])
    place = {node.id: node.id for node in busiest[:kept]}
    groups = []
    for name, members in rare.items():
        if len(members) < _SMALLEST:
            place.update((node.id, node.id) for node in members)
            continue
        group = _group(name, members)
        groups.append(group)
        place.update((node.id, group.id) for node in members)
    if not groups:
        return graph
    merged = sum(len(group.members) for group in groups)
    nodes = [node for node in graph.nodes if place[node.id] == node.id] + groups
    note = f"{merged:,} of {len(graph.nodes):,} nodes, the least busy, are drawn as {len(groups)}"
    return replace(
        graph, nodes=sorted(nodes, key=lambda node: node.id), edges=_moved(graph.edges, place),
        notes=[*graph.notes, note],
    )  # fmt: skip


def _importance(node: Node) -> tuple[bool, int, str]:
    busy = node.sent + node.received
    return bool(node.denied) or node.kind == "kernel", busy, node.id


def _families(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Return nodes by what they have in common: the longest beginnings that give few groups."""
    nodes = list(nodes)
    found: defaultdict[str, list[Node]] = defaultdict(list)
    for depth in (4, 3, 2, 1, 0):
        found = defaultdict(list)
        for node in nodes:
            found[_family(node, depth)].append(node)
        if len(found) <= _GROUPS:
            break
    return dict(sorted(found.items()))


def _family(node: Node, depth: int) -> str:
    if depth == 0:
        return "others"
    if node.kind == "label":
        word, *more = _WORDS.split(label_value(node.name))
        return word if more else "other labels"
    parts = node.name.split("/")
    if len(parts) < 2:
        return f"other {node.kind}s"
    return "/".join(parts[: min(depth + 1, len(parts) - 1)]) + "/"


def _group(name: str, members: list[Node]) -> Node:
    group = Node(f"group {name}", "group", f"{name} ({len(members):,})")
    group.sent = sum(node.sent for node in members)
    group.received = sum(node.received for node in members)
    group.denied = sum(node.denied for node in members)
    group.members = [node.id for node in members]
    return group


def _moved(edges: Iterable[Edge], place: dict[str, str]) -> list[Edge]:
    """Return edges between the places of their ends; those that become alike are added up."""
    parts: defaultdict[tuple[str, str], list[Edge]] = defaultdict(list)
    for edge in edges:
        parts[place[edge.source], place[edge.target]].append(edge)
    return [_sum(key, some) for key, some in sorted(parts.items())]


def _sum(key: tuple[str, str], edges: list[Edge]) -> Edge:
    if len(edges) == 1 and (edges[0].source, edges[0].target) == key:
        return edges[0]
    total = Edge(*key, ports=sum(edge.ports for edge in edges))
    denied = Counter[tuple[str, str, bool]]()
    for edge in edges:
        for counts, more in ((total.events, edge.events), (total.methods, edge.methods)):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count
        total.bytes += edge.bytes
        total.replies += edge.replies
        total.reply_bytes += edge.reply_bytes
        total.transfers += edge.transfers
        for denial in edge.denied:
            denied[denial.permission, denial.reason, denial.enforced] += denial.count
    total.denied = [Denial(what, why, n, yes) for (what, why, yes), n in sorted(denied.items())]
    total.first = min((e.first for e in edges if e.first is not None), default=None)
    total.last = max((e.last for e in edges if e.last is not None), default=None)
    total.outcome = outcome_of(total)
    return total


def _thinned(graph: Graph, most: int) -> Graph:
    """Leave out the faintest edges, but for refusals."""
    if len(graph.edges) <= most:
        return graph
    ranked = sorted(graph.edges, key=lambda e: (bool(e.denied), e.weight, e.source, e.target))
    left_out = [edge for edge in ranked[: len(ranked) - most] if not edge.denied]
    gone = {id(edge) for edge in left_out}
    heaviest = max((edge.weight for edge in left_out), default=0)
    note = f"{len(left_out):,} edges of at most {heaviest:,} uses are not drawn"
    edges = [edge for edge in graph.edges if id(edge) not in gone]
    return replace(graph, edges=edges, notes=[*graph.notes, note])
