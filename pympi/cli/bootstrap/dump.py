# SPDX-License-Identifier: BSD-2-Clause
"""`pympi bootstrap dump`: the names that a name server knows (BootstrapDump)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from .._output import plural, print_json, width
from .._source import Source, contexts_of, source_arguments
from .._table import GAP, Column, Section, cell, cells, cut, print_sections

if TYPE_CHECKING:
    from ...inspect import Context, Service
    from ...inspect.joined import Joined

COLUMNS = (
    Column("NAME", least=20),
    Column("SERVER", least=10),
    Column("STATE"),
    Column("PORT", right=True, spare=2),
    Column("LABEL", least=14, tail=True, spare=1),
)
_GUIDE = 4  # cells of the lines that lead to a level of the tree
_WIDEST, _NAME_WIDEST, _DEEPEST = 1000, 60, 100


@click.command()
@source_arguments()
@click.option("--tree", is_flag=True, help="Show contexts as a tree, with their names in them.")
def dump(source: Source, tree: bool, as_json: bool) -> int:
    """List names: server, state, label, by context.

    Where the name server does not say who serves a name, it is who receives from its port.
    """
    joined = source.joined()
    contexts = contexts_of(joined)
    if as_json:
        print_json({"contexts": (_as_dict(joined, each) for each in contexts)})
    elif tree:
        _print_tree(joined)
    else:
        print_sections(COLUMNS, [Section(title(c), _rows(joined, c)) for c in contexts])
        count = sum(len(each.services) for each in contexts)
        click.echo(f"{plural(count, 'name')} in {plural(len(contexts), 'context')}", err=True)
    return 0


def title(context: Context) -> str:
    """Return a line that says which context this is."""
    place = f"below {context.parent}" if context.parent else "the root"
    return f"context {context.id}, {place}  {context.label}"


def _rows(joined: Joined, context: Context) -> list[tuple[str, ...]]:
    return [
        (
            each.name, joined.server_of(each), each.state,
            str(each.port or ""), each.label,
        )
        for each in sorted(context.services, key=lambda each: (each.name, each.label))
    ]  # fmt: skip


def _as_dict(joined: Joined, context: Context) -> dict[str, Any]:
    def served(service: Service) -> dict[str, Any]:
        return msgspec.to_builtins(service) | {"server": joined.server_of(service)}

    return msgspec.to_builtins(context) | {"services": [served(s) for s in context.services]}


def _print_tree(joined: Joined) -> None:
    """Print contexts, each in the one above; at the left those whose parent is not in sight."""
    room = min(width(), _WIDEST)
    rows = {
        number: [tuple(map(cell, row)) for row in _rows(joined, context)]
        for number, context in joined.contexts.items()
    }
    sizes = _sizes(row for some in rows.values() for row in some)
    paths = {number: _path(joined, context) for number, context in joined.contexts.items()}
    trees = {
        n: Tree(Text(cell(title(c)), "cyan"), guide_style="dim") for n, c in joined.contexts.items()
    }
    for number, path in paths.items():
        for row in rows[number]:
            trees[number].add(_leaf(row, sizes, room - _GUIDE * len(path)))
    for number, path in paths.items():
        if len(path) > 1:
            trees[path[1].id].add(trees[number])
    console = Console(width=room)
    for number, path in paths.items():
        if len(path) == 1:
            console.print(trees[number], no_wrap=True, overflow="ellipsis")


def _path(joined: Joined, context: Context) -> list[Context]:
    """Return a context and those around it; itself alone in a circle, or too deep to be shown."""
    path = joined.path(context)
    endless = len(path) > _DEEPEST or path[-1].parent in joined.contexts
    return [context] if endless else path


def _sizes(rows: Iterable[tuple[str, ...]]) -> list[int]:
    sizes = [0, 0, 0]
    for row in rows:
        sizes = [max(size, cells(text)) for size, text in zip(sizes, row, strict=False)]
    return [min(size, _NAME_WIDEST) for size in sizes]


def _leaf(row: tuple[str, ...], sizes: list[int], room: int) -> Text:
    """Return a service's line; what there is no room for is cut off the front of its label."""
    texts = [cut(text, size) for text, size in zip(row, sizes, strict=False)]
    padded = [text + " " * (size - cells(text)) for text, size in zip(texts, sizes, strict=True)]
    left = room - sum(sizes) - GAP * len([size for size in sizes if size])
    label = cut(row[-1], max(left, 1), tail=True)
    return Text((" " * GAP).join([*filter(None, padded), label]).rstrip(), no_wrap=True)
