# SPDX-License-Identifier: BSD-2-Clause
"""A policy laid over a graph: what of the traffic it would refuse, and what it allows unused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...enums import ObjectClass
from ...errors import MachError, PympiError
from ...kernel import Kernel
from ...policy.composition import Composition
from .model import Ask, Denial, Edge, Graph, Node, outcome_of
from .paths import permission_name

if TYPE_CHECKING:
    from ...policy import PolicyModule

__all__ = ["overlay"]

#: Nodes between which allowed and unused edges are looked for; their number grows by its square.
MAX_UNUSED_NODES = 2_000


def overlay(
    graph: Graph, policies: Sequence[PolicyModule], *, unused: bool = False, most: int = 2_000
) -> Graph:
    """Return a graph whose edges say what policies decide about their traffic.

    The policies decide in a kernel of their own, about the labels in the edges' questions
    (`Edge.asks`). An edge of which anything would be refused becomes "would_deny", unless it was
    "denied" when it was recorded. What a node would be refused on ports of its own, as to receive,
    is an edge to itself.

    Args:
        graph: with labels; it is left as it is.
        policies: modules, for that kernel.
        unused: add edges between nodes that have labels, where the policies allow to send and
            nothing was sent: outcome "unused". And where something was, note the routines of
            the same interfaces that are allowed and were not called (`Edge.idle`).
        most: unused edges to add; if there are more, a note says how many.

    Raises:
        ValueError: the graph has no labels, or one that the policies cannot read.
    """
    asks = list(dict.fromkeys(_key(ask) for each in _askers(graph) for ask in each.asks))
    if not asks:
        raise ValueError("the graph asks nothing of a policy: make it with labels")
    with Kernel(policies=list(policies)) as kernel, ExitStack() as kept:
        sids = _Sids(kernel, kept, _Strangers(graph, policies))
        allowed = dict(zip(asks, sids.decide(asks), strict=True))
        edges = [_judged(edge, allowed) for edge in _with_own(graph, allowed)]
        notes = list(graph.notes)
        if unused:
            more = _unused(graph, sids)
            for edge in edges:
                edge.idle = _idle(edge, sids, graph.classes)
            edges += more[:most]
            if len(more) > most:
                notes.append(f"{len(more) - most:,} allowed and unused edges are not shown")
    edges.sort(key=lambda edge: (edge.source, edge.target))
    return replace(graph, edges=edges, notes=notes)


def _askers(graph: Graph) -> list[Edge | Node]:
    return [*graph.edges, *graph.nodes]


def _with_own(graph: Graph, allowed: dict[tuple[str, str, str, str], bool]) -> list[Edge]:
    """Return the edges, with those of nodes to themselves that would be refused something."""
    edges = {(edge.source, edge.target): edge for edge in graph.edges}
    for node in graph.nodes:
        refused = [ask for ask in node.asks if not allowed[_key(ask)]]
        if refused:
            known = edges.get((node.id, node.id)) or Edge(node.id, node.id)
            edges[node.id, node.id] = replace(known, asks=[*known.asks, *refused])
    return list(edges.values())


def _key(ask: Ask) -> tuple[str, str, str, str]:
    return ask.subject, ask.object, ask.tclass, ask.permission


class _Strangers:
    """Decides about classes that the kernel of the policies has not met: of the run's interfaces.

    The policies know them by name. Where no record said which bits permissions have, as of a graph
    made by hand, they are in order of the alphabet.
    """

    def __init__(self, graph: Graph, policies: Sequence[PolicyModule]) -> None:
        self._composition = Composition({each.name: each for each in policies}, Counter())
        asked: defaultdict[str, set[str]] = defaultdict(set)
        for each in _askers(graph):
            for ask in each.asks:
                asked[ask.tclass].add(ask.permission)
        self._classes = {
            name: ObjectClass(0, name, graph.classes.get(name) or tuple(sorted(permissions)))
            for name, permissions in asked.items()
        }
        self._known: dict[tuple[str, str, str], int] = {}

    def allowed(self, subject: str, target: str, tclass: str, permission: str) -> bool:
        kind = self._classes[tclass]
        key = subject, target, tclass
        if key not in self._known:
            self._known[key] = self._composition.decide(subject, target, kind).decision.allowed
        return bool(self._known[key] & kind.bits.get(permission, 0))


class _Sids:
    """Labels of a kernel, kept as long as they are asked about."""

    def __init__(self, kernel: Kernel, kept: ExitStack, strangers: _Strangers) -> None:
        self._kernel, self._kept, self._strangers = kernel, kept, strangers
        self._sids: dict[str, int] = {}

    def of(self, label: str) -> int:
        if label not in self._sids:
            try:
                self._sids[label] = self._kept.enter_context(self._kernel.borrowed(label))
            except (MachError, PympiError) as error:
                hint = "the graph needs labels that the policy knows (--labels)"
                raise ValueError(f"{hint}: {error}") from error
        return self._sids[label]

    def decide(self, asks: Iterable[tuple[str, str, str, str]]) -> list[bool]:
        """Return what is allowed."""
        asks = list(asks)
        rows = [(self.of(s), self.of(t), *self._mask(c, p)) for s, t, c, p in asks]
        columns = np.array(rows, np.uint32).reshape(-1, 4).T
        verdicts, known = np.zeros(len(rows), bool), columns[2] != 0
        if known.any():
            verdicts[known] = self._kernel.check_many(*(column[known] for column in columns))
        return [
            bool(verdict) if here else self._strangers.allowed(*ask)
            for ask, verdict, here in zip(asks, verdicts, known, strict=True)
        ]

    def _mask(self, tclass: str, permission: str) -> tuple[int, int]:
        """Return the number of a class and the vector of a permission; zeros if there is none."""
        try:
            kind = self._kernel.object_class(tclass)
            return kind.number, int(kind.mask(permission))
        except (KeyError, ValueError):
            return 0, 0


def _judged(edge: Edge, allowed: dict[tuple[str, str, str, str], bool]) -> Edge:
    refused = [ask for ask in edge.asks if not allowed[_key(ask)]]
    kept = [denial for denial in edge.denied if denial.enforced]
    new = [
        Denial(ask.name, f"{ask.subject} to {ask.object}", ask.count, enforced=False)
        for ask in refused
    ]
    judged = replace(edge, denied=kept + new)
    judged.outcome = outcome_of(judged)
    return judged


def _unused(graph: Graph, sids: _Sids) -> list[Edge]:
    """Return edges where a node's subject may send to another's ports, and did not."""
    subjects = {node.id: node.label for node in graph.nodes if node.label}
    objects: dict[str, str] = {}
    used = set()
    for edge in graph.edges:
        used.add((edge.source, edge.target))
        for ask in edge.asks:
            if ask.tclass == "mach_port":
                subjects[edge.source] = ask.subject
                objects.setdefault(edge.target, ask.object)
    nodes = {node.id: node for node in graph.nodes}
    sources = [node for key, node in nodes.items() if _speaks(node, subjects, key)]
    if len(sources) * len(objects) > MAX_UNUSED_NODES**2:
        raise ValueError(f"more than {MAX_UNUSED_NODES} nodes: too many to look for unused edges")
    pairs = [
        (source.id, target)
        for source in sources for target in objects
        if source.id != target and (source.id, target) not in used
    ]  # fmt: skip
    verdicts = sids.decide((subjects[s], objects[t], "mach_port", "send") for s, t in pairs)
    return [Edge(*pair, outcome="unused") for pair, yes in zip(pairs, verdicts, strict=True) if yes]


def _idle(edge: Edge, sids: _Sids, classes: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the routines that are allowed on an edge and that nobody called."""
    called = {_key(ask): ask.name for ask in edge.asks if ask.tclass.startswith("mi_")}
    others = [
        (*about, name)
        for about in sorted({key[:3] for key in called})
        for name in classes.get(about[2], ()) if name and name != "ioctl"
        and (*about, name) not in called
    ]  # fmt: skip
    verdicts = zip(others, sids.decide(others), strict=True)
    return [permission_name(tclass, name) for (_, _, tclass, name), yes in verdicts if yes]


def _speaks(node: Node, subjects: dict[str, str], key: str) -> bool:
    return node.kind in ("task", "label", "kernel") and key in subjects
