# SPDX-License-Identifier: BSD-2-Clause
"""What things are called in pictures: short, and so that nobody is taken for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ...errors import LabelError
from ...label import parse_label
from ..text import MACH_KERNEL, escape
from .model import Graph, Node

__all__ = ["label_value", "short_names", "shortened"]

#: Characters of a name in a picture; the tooltip has all of it.
LONGEST = 40


def shortened(name: str) -> str:
    """Return a name as SEDarwin's tr2dot shortens it.

    >>> shortened("/Applications/Mail.app/Contents/MacOS/Mail"), shortened("/usr/sbin/syslogd")
    ('Mail.app', 'syslogd')
    >>> shortened("/foo"), shortened("mach_kernel:task"), shortened("/dir/")
    ('/foo', 'mach_kernel', '/dir/')
    """
    app, mark, program = name.rpartition(".app/Contents/MacOS/")
    if mark and program and app.endswith(program):
        name = app + ".app"
    before, slash, after = name.rpartition("/")
    if slash and before and after:
        name = after
    return MACH_KERNEL if name.startswith(MACH_KERNEL) else name


def short_names(graph: Graph) -> dict[str, str]:
    """Return a text for each node, by id: as short as it can be and still tell it from others.

    What is not printable is escaped.
    """
    wanted = {node.id: list(_forms(node)) for node in graph.nodes}
    chosen = dict.fromkeys(wanted, 0)
    while True:
        texts = {key: wanted[key][chosen[key]] for key in wanted}
        counts = Counter(texts.values())
        alike = [
            key for key, text in texts.items()
            if counts[text] > 1 and chosen[key] + 1 < len(wanted[key])
        ]  # fmt: skip
        if not alike:
            return {key: _cut(escape(text).replace("\\\\", "\\")) for key, text in texts.items()}
        for key in alike:
            chosen[key] += 1


def _forms(node: Node) -> Iterable[str]:
    """Yield names, the shortest first; the last one is unique among nodes."""
    if node.kind == "label":
        yield label_value(node.name)
        yield node.name
    elif node.kind != "group" and "/" in node.name.strip("/"):
        parts = [part for part in node.name.split("/") if part]
        parts = [p for p in parts if p not in ("Contents", "MacOS")] or parts
        if len(parts) > 1 and parts[-2] == f"{parts[-1].partition(':')[0]}.app":
            parts[-2:] = [parts[-1].replace(parts[-2][:-4], parts[-2], 1)]
        for count in range(1, min(len(parts), 4) + 1):
            yield "/".join(parts[-count:])
    yield node.name
    yield node.id


def label_value(label: str) -> str:
    """Return what matters of a label: the type of a context, the value of its only module."""
    try:
        values = parse_label(label)
    except LabelError:
        return label
    if "te" in values:
        fields = values["te"].split(":")
        return fields[2] if len(fields) > 2 else values["te"]
    return next(iter(values.values())) if len(values) == 1 else label


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[: half - 1]}…{text[-half:]}"
