# SPDX-License-Identifier: BSD-2-Clause
"""Graphviz: the programs on the PATH, or else pygraphviz, in a process that can be ended.

`dot` takes minutes where `sfdp` takes none, and to lead edges around nodes takes longer than to
place these. So a graph's size says with what to begin, each attempt has a time limit, and after it
comes the next; the last ones have straight edges.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ...errors import PympiError
from .model import Graph

__all__ = [
    "ENGINES", "FORMATS", "TIME_LIMIT", "Attempt", "Drawing", "LayoutError", "attempts", "draw",
]  # fmt: skip

#: What `--engine` may be, besides "auto".
ENGINES = ("dot", "sfdp", "neato", "fdp", "circo", "twopi")
FORMATS = ("svg", "png", "pdf")
TIME_LIMIT = 20.0
"""Seconds for one attempt."""

#: The largest graphs that `dot` does in a second, and that are no tangle then.
_DOT_NODES, _DOT_EDGES = 60, 160
#: Run by itself: DOT from stdin, a picture to stdout.
_IN_PYTHON = """
import sys, pygraphviz
engine, form = sys.argv[1:]
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(graph.draw(format=form, prog=engine))
"""


class LayoutError(PympiError):
    """Nothing here could draw the graph; the message says why, and what would help."""


class Attempt(NamedTuple):
    """A way to draw: an engine, and whether edges are straight."""

    engine: str
    straight: bool = False


class Drawing(NamedTuple):
    """A picture, and the engine that made it; straight: with straight edges, to end in time."""

    picture: bytes
    engine: str
    straight: bool = False


class _TooSlow(Exception):
    """An engine took longer than it may."""


def attempts(graph: Graph, engine: str = "auto") -> Sequence[Attempt]:
    """Return the ways to try for a graph, in order."""
    if engine != "auto":
        return Attempt(engine), Attempt(engine, straight=True)
    small = len(graph.nodes) <= _DOT_NODES and len(graph.edges) <= _DOT_EDGES
    large = Attempt("sfdp"), Attempt("sfdp", straight=True)
    return (Attempt("dot"), *large) if small else large


def draw(
    dot: Callable[[Attempt], str], order: Sequence[Attempt], form: str, *,
    limit: float = TIME_LIMIT,
) -> Drawing:  # fmt: skip
    """Draw a graph in the first way that ends in time.

    Args:
        dot: returns the DOT for an attempt.
        order: of attempts.
        form: one of `FORMATS`.
        limit: seconds for each.

    Raises:
        LayoutError: there is no Graphviz, or it failed, or no attempt ended in time.
    """
    for attempt in order:
        try:
            return Drawing(_run(_command(attempt.engine, form), dot(attempt), limit), *attempt)
        except _TooSlow:
            continue
    tried = " and ".join(dict.fromkeys(attempt.engine for attempt in order))
    raise LayoutError(
        f"{tried} took longer than {limit:g} seconds: choose another --engine or --time-limit, or "
        "--format dot and lay it out yourself"
    )


def _command(engine: str, form: str) -> list[str]:
    """Return how to run an engine: the program itself, `dot` in its place, or pygraphviz."""
    if program := shutil.which(engine):
        return [program, f"-T{form}"]
    if program := shutil.which("dot"):
        return [program, f"-K{engine}", f"-T{form}"]
    if find_spec("pygraphviz"):
        return [sys.executable or "python3", "-c", _IN_PYTHON, engine, form]
    raise LayoutError(
        "no Graphviz here: install it (it brings `dot`), or pip install 'pympi-mach[graph]'; "
        "--format dot needs neither"
    )


def _run(command: list[str], dot: str, limit: float) -> bytes:
    with tempfile.TemporaryDirectory(prefix="pympi-graph-") as directory:
        written = Path(directory) / "picture"
        with written.open("wb") as picture:
            try:
                done = subprocess.run(
                    command, input=dot.encode(), stdout=picture, stderr=subprocess.PIPE,
                    timeout=limit, check=False, cwd=directory,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise _TooSlow from None
        drawn = written.read_bytes()
    if done.returncode or not drawn:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[0][:200] if said else f"exit code {done.returncode}"
        raise LayoutError(f"{Path(command[0]).name} failed: {why}")
    return drawn
