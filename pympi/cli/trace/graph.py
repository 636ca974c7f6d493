# SPDX-License-Identifier: BSD-2-Clause
"""`pympi trace graph`: who talks to whom, drawn by Graphviz."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._artefacts import publish
from .._output import FILE, NumberRange, asking, bad_input, complain, plural, progress, say
from . import _trace as ui

if TYPE_CHECKING:
    from ...trace.graph import Graph
    from ...trace.graph.rules import Rule
    from ...trace.graph.tr2dot import Pair

# What the modules that draw know, without importing them for the help screen; a test compares.
BY = ("task", "port", "label", "service")
FORMATS = ("dot", "svg", "png", "pdf", "html")
ENGINES = ("auto", "dot", "sfdp", "neato", "fdp", "circo", "twopi")
TIME_LIMIT = 20
_BINARY = ("png", "pdf")


@click.command()
@ui.recordings_argument
@click.option("--rules", type=FILE, help="What to leave out and to colour, as for tr2dot.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="By default what FILE is called, or dot."
)
@click.option(
    "--by", type=click.Choice(BY), default=BY[0], show_default=True, help="What a node is."
)
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
@click.option(
    "--time-limit", type=NumberRange(0, 86400, min_open=True), default=TIME_LIMIT,
    show_default=True, metavar="SECONDS", help="After that, something faster is tried.",
)  # fmt: skip
@click.option("--labels", type=FILE, help="Labels for some names, instead of the mangled ones.")
@click.option("--policy", type=FILE, help="Show what another policy would refuse: .cil or rules.")
@click.option("--unused", is_flag=True, help="With --policy: show what it allows and nobody used.")
@click.option("--replies", is_flag=True, help="Draw replies as edges of their own.")
@click.option("--all", "everything", is_flag=True, help="Draw all nodes and edges, however many.")
@click.option("--as", "like", type=click.Choice(["tr2dot"]), help="As SEDarwin's tool, faithfully.")
@click.option(
    "--split", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="A picture for each task and its neighbours.",
)  # fmt: skip
@ui.out_option
def graph(
    recordings: tuple[str, ...], rules: Path | None, form: str | None, by: str, engine: str,
    time_limit: float, labels: Path | None, policy: Path | None, unused: bool, replies: bool,
    everything: bool, like: str | None, split: Path | None, out: Path | None,
) -> None:  # fmt: skip
    """Draw who talks to whom in the TRACEs, which are added up.

    An arrow points to whose port it is. Replies belong to the edges of their requests. Large graphs
    are made smaller, which is said in them. Without --out, the picture goes to stdout.
    """
    if split and out:
        raise click.UsageError("--split and --out exclude each other")
    if unused and not policy:
        raise click.UsageError("--unused needs --policy")
    form, found = form or _form(out), _rules(rules)
    draw = _Drawer(form, engine, time_limit, found)
    if like:
        if by != "task" or labels or policy or replies:
            raise click.UsageError("tr2dot knows no --by, --labels, --policy and --replies")
        pairs, name = _pairs(recordings, found), ", ".join(Path(path).name for path in recordings)
        if split:
            _write_split(split, form, draw.split_pairs(pairs))
        else:
            ui.write(draw.pairs(pairs, name), out, recordings, text=form not in _BINARY)
        return
    made = _graph(recordings, by, labels=labels, policy=policy, unused=unused, fold=not replies)
    made = draw.without_ignored(made)
    if split:
        _write_split(split, form, draw.split(made, everything))
        return
    ui.write(draw.graph(made, everything), out, recordings, text=form not in _BINARY)


def _form(out: Path | None) -> str:
    """Return the format that a file is called after; what has no suffix, and stdout, gets DOT."""
    suffix = out.suffix[1:].lower() if out else ""
    if suffix in ("", "gv"):
        return FORMATS[0]
    if suffix not in FORMATS:
        raise click.UsageError(f"no format is called .{suffix}: --format {', '.join(FORMATS)}")
    return suffix


def _rules(path: Path | None) -> list[Rule]:
    from ...trace.graph.rules import read_rules

    with bad_input():
        return read_rules(path) if path else []


def _graph(
    recordings: Sequence[str], by: str, *, labels: Path | None, policy: Path | None, unused: bool,
    fold: bool,
) -> Graph:  # fmt: skip
    from ...trace import Labels, read_labels
    from ...trace.graph import overlay
    from ...trace.recordings import graph_of
    from ..replay import read_policy

    read = ui.read(recordings)
    with asking():
        module = read_policy(policy) if policy else None
        kind = module.name if module else "rules"
        table = read_labels(labels, kind) if labels else Labels(kind) if module else None
        made = graph_of(read, by, labels=table, fold=fold)
        return overlay(made, [module], unused=unused) if module else made


class _Drawer:
    """Draws graphs as the options say."""

    def __init__(self, form: str, engine: str, limit: float, rules: Sequence[Rule]) -> None:
        self._form, self._engine, self._limit, self._rules = form, engine, limit, rules
        self._paint: Callable[..., str] | None = None

    def without_ignored(self, graph: Graph) -> Graph:
        """Leave out what the rules say; remember what they colour."""
        from ...trace.graph.names import shortened
        from ...trace.graph.rules import Matches
        from ...trace.graph.shrink import filtered

        if not self._rules:
            return graph
        names = {node.id: (shortened(node.name), node.name) for node in graph.nodes}
        with asking():
            matches = Matches(self._rules, (each for pair in names.values() for each in pair))
        self._paint = lambda node: matches.color(*names.get(node.id, ()))
        return filtered(graph, lambda node: not matches.ignored(*names[node.id]))

    def graph(self, graph: Graph, everything: bool = False) -> bytes:
        """Draw a graph, made small unless all of it is wanted."""
        from ...trace.graph.picture import picture
        from ...trace.graph.shrink import connected, shrink

        small = graph if everything else connected(shrink(connected(graph)))
        with asking():
            drawn = picture(
                small, self._form, engine=self._engine, color=self._paint, limit=self._limit
            )
        return drawn.picture

    def split(self, graph: Graph, everything: bool) -> Iterable[tuple[str, Callable[[], bytes]]]:
        """Yield the name of each node, and how to draw it and its neighbours."""
        from ...trace.graph.picture import neighbourhoods

        for name, part in neighbourhoods(graph):
            yield name, lambda part=part: self.graph(part, everything)  # type: ignore[misc]

    def pairs(self, pairs: Iterable[Pair], name: str) -> bytes:
        """Draw tr2dot's pairs."""
        from ...trace.graph.picture import picture_of_pairs

        options = {"engine": self._engine, "name": name, "limit": self._limit}
        with asking():
            return picture_of_pairs(pairs, self._form, **options).picture  # type: ignore[arg-type]

    def split_pairs(self, pairs: Iterable[Pair]) -> Iterable[tuple[str, Callable[[], bytes]]]:
        """Yield each name, and how to draw its pairs."""
        from ...trace.graph.tr2dot import split

        for name, part in split(pairs).items():
            yield name, lambda name=name, part=part: self.pairs(part, name)  # type: ignore[misc]


def _write_split(
    directory: Path, form: str, parts: Iterable[tuple[str, Callable[[], bytes]]]
) -> None:
    from ...trace.graph.picture import file_names

    parts = list(parts)
    files = {}
    names = file_names((name for name, _ in parts), f".{form}")
    with progress("drawing", len(parts)) as advance:
        for file, (_, draw) in zip(names, parts, strict=True):
            files[file] = draw()
            advance(1)
    with bad_input():
        written = publish(directory, files)
    say(f"wrote {plural(len(written), 'picture')} to {directory}")


# ---- as tr2dot ----


def _pairs(recordings: Sequence[str], rules: Sequence[Rule]) -> list[Pair]:
    from ...trace.graph.tr2dot import tr2dot
    from ...trace.recordings import sedarwin_lines

    with bad_input():
        made = tr2dot((line for path in recordings for line in sedarwin_lines(path)), rules)
    for line in made.bad[:_BAD_LINES]:
        complain(f"bad line {line.decode(errors='backslashreplace')[:200]}")
    if len(made.bad) > _BAD_LINES:
        complain(f"and {plural(len(made.bad) - _BAD_LINES, 'bad line')} more")
    return made.pairs


_BAD_LINES = 20
