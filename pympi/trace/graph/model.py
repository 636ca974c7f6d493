# SPDX-License-Identifier: BSD-2-Clause
"""The graph of who talks to whom: plain data, made from traces and from audit records alike.

Both sources become *paths* (`paths.py`): what one task did to one port. Paths become edges from
the task to whoever has the port: its owner, the port itself, its label, or the service it is.

What is folded, unless asked not to, because it hides what matters:

- a reply, a message by a send-once right, belongs to the edge of the requests it answers;
- what a task does with ports of its own besides sending to them (receiving, making rights) is
  counted in its node.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from ...errors import PympiError
from ..labels import Labels
from ..text import MACH_KERNEL, TraceRecord, kobject_name
from .paths import GIVES, Path, PortKey, of_audit, of_trace, permission_name

if TYPE_CHECKING:
    from ...audit import Batch

__all__ = [
    "BY", "MAX_EDGES", "MAX_NODES", "OUTCOMES", "Ask", "Denial", "Edge", "Graph", "GraphError",
    "Node", "from_audit", "from_paths", "from_trace",
]  # fmt: skip

#: What nodes stand for.
BY = ("task", "port", "label", "service")
#: Of an edge, from the worst to the least: refused; allowed, but refused by another policy;
#: allowed; allowed by a policy, and not used.
OUTCOMES = ("denied", "would_deny", "allowed", "unused")

MAX_NODES = 100_000
MAX_EDGES = 1_000_000
#: Tasks that have to send to a port before it counts as a service.
CLIENTS = 2


class GraphError(PympiError, ValueError):
    """A graph that cannot be made; the message says why, and what would help."""


@dataclass(slots=True)
class Denial:
    """What was refused on an edge.

    Attributes:
        permission: "send", or "mi_printing:cancel" for another class than mach_port; several that
            were refused at once, with blanks between them.
        reason: the code's name; "reported" for what a permissive or a shadow policy would refuse;
            what an overlaid policy says.
        count: how often.
        enforced: False where it was done all the same.
    """

    permission: str
    reason: str
    count: int
    enforced: bool = True


@dataclass(slots=True)
class Ask:
    """A question that the traffic of an edge puts to a policy, and how often."""

    subject: str
    object: str
    tclass: str
    permission: str
    count: int

    @property
    def name(self) -> str:
        """What a `Denial` calls the permission."""
        return permission_name(self.tclass, self.permission)


@dataclass(slots=True)
class Node:
    """Something that talks, or is talked to.

    Attributes:
        id: unique and stable: the kind, a blank, and what makes it distinct of its kind.
        kind: "task", "kernel" (the kernel, or objects of it), "port", "label", "service", or
            "group" (several, drawn as one).
        name: in full.
        label: its security label; "" where it is not known, or where it has several.
        owner: the id of the task that a port or a service belongs to; "".
        sent, received: messages it sent, and messages sent to it; replies count as well.
        denied: how often something was refused to it.
        own: events on ports of its own other than messages, by event.
        asks: what a policy is asked for these.
        members: ids of a group's nodes.
    """

    id: str
    kind: str
    name: str
    label: str = ""
    owner: str = ""
    sent: int = 0
    received: int = 0
    denied: int = 0
    own: dict[str, int] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    members: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Edge:
    """What one node does to another: the arrow points to whose port it is.

    Attributes:
        source, target: ids of nodes.
        outcome: one of `OUTCOMES`.
        events: counts by event of ipctrace ("send", "copy_send", ...), or by permission of the
            class service ("look_up", ...); of replies only what was not folded.
        methods: messages by routine, or by "msgh_id N" where the port has no interface.
        bytes: of the messages; 0 from a trace, which does not tell.
        replies, reply_bytes: messages that answered these.
        transfers: rights to the target's ports that the source gave away.
        denied: what was refused.
        asks: what a policy is asked for this; empty without labels.
        idle: routines that a policy laid over it allows, and nobody called.
        first, last: seconds of the kernel's clock; None from a trace.
        ports: how many different ports.
    """

    source: str
    target: str
    outcome: str = "allowed"
    events: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    replies: int = 0
    reply_bytes: int = 0
    transfers: int = 0
    denied: list[Denial] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    first: float | None = None
    last: float | None = None
    ports: int = 0

    @property
    def messages(self) -> int:
        """How many messages went along it, without replies."""
        return self.events.get("send", 0)

    @property
    def weight(self) -> int:
        """Everything that happened along it: messages, or else other events, or refusals."""
        events = self.messages or max(self.events.values(), default=0)
        return max(events, self.replies, self.refusals)

    @property
    def refusals(self) -> int:
        """How often something was refused on it, and not done."""
        return sum(denial.count for denial in self.denied if denial.enforced)


@dataclass(slots=True)
class Graph:
    """Nodes, sorted by id, and edges, sorted by source and target.

    Attributes:
        by: one of `BY`.
        nodes, edges: as above.
        name: where it is from.
        lost: events or records that the source says it lacks.
        notes: what the reader of a picture has to know (what was merged, or left out).
        classes: permissions of the classes that are asked about, in bit order, where known.
    """

    by: str
    nodes: list[Node]
    edges: list[Edge]
    name: str = ""
    lost: int = 0
    notes: list[str] = field(default_factory=list)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def node(self, node_id: str) -> Node:
        """Return the node of that id.

        Raises:
            KeyError: there is none.
        """
        return self.by_id()[node_id]

    def by_id(self) -> dict[str, Node]:
        """Return the nodes by id."""
        return {node.id: node for node in self.nodes}

    def as_json(self) -> bytes:
        """Return it as one JSON object, in ASCII but for names; surrogates are replaced."""
        return msgspec.json.encode(_clean(msgspec.to_builtins(self)))


def from_trace(
    records: Iterable[TraceRecord], *, by: str = "task", labels: Labels | None = None,
    fold: bool = True, name: str = "", lost: int = 0,
) -> Graph:  # fmt: skip
    """Make the graph of a trace.

    Args:
        records: of either form.
        by: what nodes stand for.
        labels: of tasks and ports; without them nodes have none, and edges ask nothing. By label,
            the mangled names.
        fold: replies, and what a task does with its own ports.
        name, lost: where it is from, and what the reader says is missing.

    Raises:
        GraphError: too large a graph, or another `by`.

    Example:
        >>> records = [
        ...     TraceRecord("send", "editor", "printer", 0, 1, 7),
        ...     TraceRecord("copy_send", "editor", "printer", 0, 1, 7),
        ...     TraceRecord("send", "printer", "editor", 0, 3, 7),
        ... ]
        >>> [(e.source, e.target, e.messages, e.replies) for e in from_trace(records).edges]
        [('task editor', 'task printer', 7, 7)]
    """
    labels = labels or (Labels() if by == "label" else None)
    graph = from_paths(of_trace(records, labels), by, fold=fold)
    graph.name, graph.lost = name, lost
    return graph


def from_audit(
    batches: Iterable[Batch], *, by: str = "task", fold: bool = True, name: str = ""
) -> Graph:
    """Make the graph of audit records.

    A port belongs to the first task that is seen to hold its receive right (it made a right to it,
    received from it, or gave it away), or to the one whose ports have its label, if it is one.

    Args:
        batches: `pympi.audit.Reader`, or anything that yields batches.
        by, fold, name: as for `from_trace`.

    Raises:
        GraphError: too large a graph, or another `by`.
        AuditError: what the reader raises.
    """
    paths, lost = of_audit(batches)
    graph = from_paths(paths, by, fold=fold)
    graph.name, graph.lost = name, lost
    return graph


# --- from paths to edges --------------------------------------------------------------------------


def from_paths(paths: Iterable[Path], by: str = "task", *, fold: bool = True) -> Graph:
    """Make the graph of paths, of one recording or of several. Raises GraphError."""
    if by not in BY:
        raise GraphError(f"a graph is by {', '.join(BY)}, not by {by!r}")
    return _Builder(list(paths), by, fold).graph()


class _Builder:
    def __init__(self, paths: list[Path], by: str, fold: bool) -> None:
        self._paths, self._by, self._fold = paths, by, fold
        self._nodes: dict[str, Node] = {}
        self._edges: dict[tuple[str, str], Edge] = {}
        self._asks: defaultdict[tuple[str, str], Counter[tuple[str, ...]]] = defaultdict(Counter)
        self._own_asks: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
        self._denied: defaultdict[tuple[str, str], Counter[tuple[str, str, bool]]] = defaultdict(
            Counter
        )
        #: By (client, server): the edges of requests between them, and their messages.
        self._requests: defaultdict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(
            Counter
        )
        self._ports: defaultdict[tuple[str, str], set[PortKey]] = defaultdict(set)
        self._shared = _shared(paths) if by == "service" else set()

    def graph(self) -> Graph:
        later: list[Path] = []
        for path in self._paths:
            request, reply = path.parted() if self._fold else (path, None)
            if reply is not None:
                later.append(reply)
            if request is not None:
                self._add(request)
        for path in later:
            self._add_reply(path)
        for key, edge in self._edges.items():
            self._finish(key, edge)
        for node_id, asks in self._own_asks.items():
            self._nodes[node_id].asks = _asks(asks)
        nodes = sorted(self._nodes.values(), key=lambda node: node.id)
        edges = [edge for _, edge in sorted(self._edges.items())]
        said = {id(path.classes): path.classes for path in self._paths}
        classes = {name: names for each in said.values() for name, names in each.items()}
        return Graph(self._by, nodes, edges, notes=[*self._notes()], classes=classes)

    def _notes(self) -> Iterator[str]:
        if sampled := sum(path.sampled for path in self._paths):
            plural = "s were" if sampled > 1 else " was"
            yield f"{sampled:,} record{plural} sampled by chance: counts are estimates"

    def _add(self, path: Path) -> None:
        source, target = self._source(path), self._target(path)
        if self._fold and path.housekeeping and source.id in (target.id, target.owner):
            _merge(source.own, path.events)
            self._own_asks[source.id].update(path.asks)
            return
        edge = self._edge(source, target)
        _merge(edge.events, path.events)
        _merge(edge.methods, path.methods)
        edge.bytes += path.bytes
        self._ports[source.id, target.id].add(path.port)
        edge.first = min((t for t in (edge.first, path.first) if t is not None), default=None)
        edge.last = max((t for t in (edge.last, path.last) if t is not None), default=None)
        if path.messages:
            self._requests[path.task, path.port.owner][source.id, target.id] += path.messages
        self._note(edge, path, source, target)

    def _add_reply(self, path: Path) -> None:
        """Count replies where the requests are, or as an edge of their own if there were none."""
        requests = self._requests.get((path.port.owner, path.task))
        if not requests:
            self._add(path)
            return
        key = max(requests, key=lambda key: (requests[key], key))
        edge = self._edges[key]
        edge.replies += path.messages
        edge.reply_bytes += path.bytes
        self._note(edge, path, self._source(path), self._nodes[edge.source])

    def _note(self, edge: Edge, path: Path, source: Node, target: Node) -> None:
        """Count what was refused and what a policy is asked, and the messages of both ends."""
        key = edge.source, edge.target
        self._denied[key].update(path.denied)
        self._asks[key].update(path.asks)
        source.sent += path.messages
        target.received += path.messages
        source.denied += sum(count for (_, _, yes), count in path.denied.items() if yes)

    def _edge(self, source: Node, target: Node) -> Edge:
        key = source.id, target.id
        if key not in self._edges:
            if len(self._edges) >= MAX_EDGES:
                raise _too_large("edges", MAX_EDGES)
            self._edges[key] = Edge(*key)
        return self._edges[key]

    def _finish(self, key: tuple[str, str], edge: Edge) -> None:
        edge.ports = len(self._ports[key])
        gave = sum(edge.events.get(event, 0) for event in GIVES)
        edge.transfers = max(gave - edge.messages, 0)
        edge.denied = [
            Denial(permission, reason, count, enforced)
            for (permission, reason, enforced), count in sorted(self._denied[key].items())
        ]
        edge.asks = _asks(self._asks[key])
        edge.events = dict(sorted(edge.events.items()))
        edge.methods = dict(sorted(edge.methods.items()))
        edge.outcome = outcome_of(edge)

    # --- nodes ---

    def _node(self, kind: str, name: str, label: str, owner: str = "") -> Node:
        key = f"{kind} {name}"
        node = self._nodes.get(key)
        if node is None:
            if len(self._nodes) >= MAX_NODES:
                raise _too_large("nodes", MAX_NODES)
            node = self._nodes[key] = Node(key, kind, name, label, owner)
        elif label and node.label != label:
            node.label = node.label and ""
        node.owner = node.owner or owner
        return node

    def _task(self, name: str, label: str) -> Node:
        return self._node("kernel" if name == MACH_KERNEL else "task", name, label)

    def _source(self, path: Path) -> Node:
        if self._by == "label":
            return self._node("label", path.task_label or "-", path.task_label)
        return self._task(path.task, path.task_label)

    def _target(self, path: Path) -> Node:
        port = path.port
        if self._by == "label":
            return self._node("label", path.port_label or "-", path.port_label)
        if not port.owner:
            return self._stranger(path)
        named = path.service if self._by == "service" else ""
        if self._by == "task" or (self._by == "service" and not named and port not in self._shared):
            return self._task(port.owner, path.owner_label)
        kind = "service" if self._by == "service" else "port"
        owner = self._task(port.owner, path.owner_label).id
        kind = "kernel" if port.kind or port.owner == MACH_KERNEL else kind
        return self._node(kind, named or port_name(port), path.port_label, owner)

    def _stranger(self, path: Path) -> Node:
        """What belongs to nobody that is known: a name of the name server, a port, a label."""
        port = path.port
        if port.service or (self._by == "service" and path.service):
            return self._node("service", port.service or path.service, path.port_label)
        if port.number:
            named = f"#{port.number} {path.port_label}".rstrip()
            return self._node("port", named, path.port_label)
        return self._node("label", path.port_label or "-", path.port_label)


def _asks(counts: Counter[tuple[str, ...]]) -> list[Ask]:
    return [
        Ask(subject, target, tclass, permission, count)
        for (subject, target, tclass, permission), count in sorted(counts.items())
    ]


def port_name(port: PortKey) -> str:
    """What a port is called: "/sbin/init:7", "mach_kernel:task"."""
    return f"{port.owner}:{kobject_name(port.kind) if port.kind else port.number}"


def _shared(paths: Iterable[Path]) -> set[PortKey]:
    """Ports that count as services: sent to by several tasks, other than in reply."""
    clients: defaultdict[PortKey, set[str]] = defaultdict(set)
    for path in paths:
        request, _ = path.parted()
        if request is not None and request.messages and path.task != path.port.owner:
            clients[path.port].add(path.task)
    return {port for port, tasks in clients.items() if len(tasks) >= CLIENTS}


def outcome_of(edge: Edge) -> str:
    """Return what became of what an edge stands for, the worst of it."""
    if edge.refusals:
        return "denied"
    if edge.denied:
        return "would_deny"
    return "allowed" if edge.events or edge.replies else "unused"


def _merge(into: dict[str, int], counts: dict[str, int]) -> None:
    for key, count in counts.items():
        into[key] = into.get(key, 0) + count


def _too_large(what: str, limit: int) -> GraphError:
    return GraphError(
        f"a graph has at most {limit:,} {what}, this has more: make it by label, or of less"
    )


def _clean(value: object) -> object:
    """Return plain values with lone surrogates in texts replaced: JSON is UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode() if not value.isascii() else value
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    return value
