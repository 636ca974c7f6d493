# SPDX-License-Identifier: BSD-2-Clause
"""Pictures of graphs, in any format, and the files they go to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from .dot import Color, quoted, to_dot, tooltips
from .layout import FORMATS, TIME_LIMIT, Attempt, Drawing, attempts, draw
from .model import Graph
from .svg import page, polish
from .tr2dot import Pair, pair_dot

__all__ = ["FILE_FORMATS", "file_names", "neighbourhoods", "picture", "picture_of_pairs"]

#: What a picture may be; "dot" needs no Graphviz.
FILE_FORMATS = ("dot", *FORMATS, "html")


def picture(
    graph: Graph, form: str = "svg", *, engine: str = "auto", color: Color | None = None,
    limit: float = TIME_LIMIT,
) -> Drawing:  # fmt: skip
    """Draw a graph.

    Args:
        graph: as it is; `shrink` makes large ones small.
        form: one of `FILE_FORMATS`; html is a page with the SVG.
        engine: one of `ENGINES`, or "auto": by size, and another if it takes too long.
        color: returns what a rules file says of a node; "" for nothing.
        limit: seconds for each attempt.

    Raises:
        LayoutError: it cannot be drawn here.
    """
    order = attempts(graph, engine)

    def dot(attempt: Attempt) -> str:
        return to_dot(graph, attempt.engine, straight=attempt.straight, color=color)

    return _drawn(dot, order, form, tooltips(graph), graph.name, limit)


def picture_of_pairs(
    pairs: Iterable[Pair], form: str, *, engine: str = "auto", name: str = "",
    limit: float = TIME_LIMIT,
) -> Drawing:  # fmt: skip
    """Draw what tr2dot makes; in DOT it is byte for byte that."""
    pairs = list(pairs)
    if form == "dot":
        return Drawing(pair_dot(pairs).encode("latin-1"), "")
    text = pair_dot(pairs, lambda name: quoted(name.encode("latin-1").decode(errors="replace")))
    order = [Attempt(name) for name in (("dot", "sfdp") if engine == "auto" else (engine,))]
    return _drawn(lambda attempt: text, order, form, None, name, limit)


def _drawn(
    dot: Callable[[Attempt], str], order: Sequence[Attempt], form: str,
    texts: dict[str, str] | None, name: str, limit: float,
) -> Drawing:  # fmt: skip
    if form == "dot":
        return Drawing(dot(order[0]).encode(), *order[0])
    drawing = draw(dot, order, "svg" if form == "html" else form, limit=limit)
    if form in FORMATS[1:]:
        return drawing
    svg = polish(drawing.picture, texts)
    return drawing._replace(picture=page(svg, name) if form == "html" else svg)


# --- one picture for each node --------------------------------------------------------------------


def neighbourhoods(graph: Graph) -> Iterable[tuple[str, Graph]]:
    """Yield, for each node that has edges, its name and the graph of it and its neighbours.

    In it are the node's own edges only, found by its id, so names with blanks and names within
    names are what they are.
    """
    nodes = graph.by_id()
    edges: dict[str, list[int]] = {}
    for number, edge in enumerate(graph.edges):
        for end in dict.fromkeys((edge.source, edge.target)):
            edges.setdefault(end, []).append(number)
    for key, numbers in sorted(edges.items()):
        own = [graph.edges[number] for number in numbers]
        ends = {end for edge in own for end in (edge.source, edge.target)}
        name = nodes[key].name
        part = replace(graph, nodes=[nodes[end] for end in sorted(ends)], edges=own, name=name)
        yield name, part


_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_LONGEST = 100


def file_names(names: Iterable[str], suffix: str) -> list[str]:
    """Return a file name for each name: plain, different (also where case does not count), no path.

    What is not a letter, a digit or one of `._+-` becomes `_`; a name that begins with `.` or `-`
    gets a `_` before it; a long one its hash; a second of the same kind a number.

    >>> file_names(["/usr/sbin/named", "-rf", "../x", "a b"], ".svg")
    ['usr_sbin_named.svg', '_-rf.svg', '_.._x.svg', 'a_b.svg']
    """
    taken: set[str] = set()
    found = []
    for name in names:
        plain = _UNSAFE.sub("_", name.lstrip("/")) or "_"
        plain = f"_{plain}" if plain[0] in ".-" else plain
        if len(plain) > _LONGEST:
            digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
            plain = f"{plain[: _LONGEST - 13]}-{digest}"
        unique, number = plain, 1
        while unique.lower() in taken:
            number += 1
            unique = f"{plain}~{number}"
        taken.add(unique.lower())
        found.append(unique + suffix)
    return found
