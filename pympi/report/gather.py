# SPDX-License-Identifier: BSD-2-Clause
"""What a directory says about a run: finding its files, reading them, asking the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..audit import forms
from ..enums import CLASSES, ObjectClass
from ..errors import LabelError, PympiError
from ..label import EMPTY, format_label, parse_label
from ..policy.reasons import together
from ..trace import Labels
from ..trace.graph import Ask, Graph, from_audit, overlay
from ..trace.recordings import graph_of, read_recording
from ..trace.stores import is_trace
from .tally import Tally

if TYPE_CHECKING:
    from ..audit import Batch
    from ..inspect import Snapshot
    from ..policy import PolicyModule
    from ..policy.composition import Composition

__all__ = ["Denied", "Figures", "Findings", "ReportError", "Source", "gather"]

MAX_DENIED = 500
"""Rows of the table of refusals, the most frequent ones."""
LARGEST = 16 << 20
"""Bytes of figures."""


class ReportError(PympiError, ValueError):
    """A directory that there is nothing to report of; the message says what was looked for."""


class _FigureDenial(msgspec.Struct):
    times: int
    subject: str
    permission: str
    object: str
    reason: str
    tclass: str


class Figures(msgspec.Struct):
    """What a run measured of itself: `run.json` of `pympi replay --out` and `pympi demo`."""

    messages: int = 0
    seconds: float = 0.0
    check_cost: float | None = None
    denied: list[_FigureDenial] = []
    not_performed: int = 0
    lost: int = 0


class Source(NamedTuple):
    """A file that was read."""

    name: str
    what: str
    size: int


class Denied(NamedTuple):
    """A row of the table of refusals.

    Attributes:
        times: how often.
        task: who; "" where only the label is known.
        subject, object, tclass, permission: what was asked.
        what: the message or the name asked for; "".
        why: the policy's words, or else what the record says.
        enforced: False: it was done all the same.
    """

    times: int
    task: str
    subject: str
    object: str
    tclass: str
    permission: str
    what: str
    why: str
    enforced: bool


@dataclass
class Findings:
    """Everything that the page shows.

    Attributes:
        name: of the run.
        graph: who talks to whom.
        sources: the files that were read.
        tally: of the audit trail; None without one.
        figures: of the run; None without them.
        denied: what was refused, most frequent first; `more_denied` how many more kinds there are.
        would_deny: likewise, what the other policy would refuse of what was done.
        policy: the run's; "" where there is none.
        other: the policy that the run is judged by; "" where there is none.
        snapshot: the state at one moment.
        notes: what the reader should know.
    """

    name: str
    graph: Graph
    sources: list[Source] = field(default_factory=list)
    tally: Tally | None = None
    figures: Figures | None = None
    denied: list[Denied] = field(default_factory=list)
    more_denied: int = 0
    would_deny: list[Denied] = field(default_factory=list)
    policy: str = ""
    other: str = ""
    snapshot: Snapshot | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def refused(self) -> int | None:
        """How many operations were refused, and not done; None: a trace alone does not tell."""
        if self.tally is not None:
            return self.tally.refused
        return sum(each.times for each in self.figures.denied) if self.figures else None


#: What is looked for: the name that is preferred, and patterns of others, as preferred.
_LOOKED_FOR: dict[str, tuple[str, ...]] = {
    "audit trail": ("run.audit", "*.audit", "*.parquet", "*.pcap", "*.log"),
    "trace": ("full.trace", "*.trace"),
    "policy": ("policy.cil", "*.cil"),
    "rules": ("policy.rules", "*.rules"),
    "figures": ("run.json", "run.json"),
    "snapshot": ("run.snap", "*.snap"),
}


def gather(
    directory: Path, *, policy: Path | None = None, other: Path | None = None,
    advance: Callable[[int], object] = lambda records: None,
) -> Findings:  # fmt: skip
    """Read what a run left.

    Args:
        directory: with an audit trail, or else a trace; and what else there is of a policy,
            figures and a snapshot.
        policy: the run's, instead of the one in the directory.
        other: another policy: what of the run it would refuse.
        advance: told how many records were read, again and again.

    Raises:
        ReportError: there is neither an audit trail nor a trace.
        AuditError, TraceError, PolicyError, SnapshotError: a file is damaged.
        OSError: one cannot be read.
    """
    found, notes = _found(directory)
    own = policy or found.get("policy") or found.get("rules")
    modules = [_module(own)] if own else []
    tally = Tally() if "audit trail" in found else None
    graph = _graph(found, tally, modules, advance)
    result = Findings(directory.resolve().name, graph, tally=tally, notes=notes + graph.notes)
    result.policy, result.other = own.name if own else "", other.name if other else ""
    result.sources = [_source(path, what) for what, path in found.items()]
    if "figures" in found:
        result.figures = _figures(found["figures"])
    if "snapshot" in found:
        from ..inspect import Snapshot

        result.snapshot = Snapshot.load(found["snapshot"])
    _judge(result, modules, other)
    explainer = _Explainer(modules, result)
    result.denied, result.more_denied = _most_frequent(_refused(result), explainer)
    return result


def _found(directory: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the files by what they are, and notes about those that are passed over."""
    found, notes = {}, []
    for what, patterns in _LOOKED_FOR.items():
        paths = _first(directory, what, patterns)
        if not paths:
            continue
        chosen, *rest = paths
        others = [path.name for path in rest]
        if others and what == "audit trail":
            notes.append(f"Also there, and not in here: {', '.join(others)}.")
        found[what] = chosen
    if not {"audit trail", "trace"} & {*found}:
        looked = ", ".join(_LOOKED_FOR["audit trail"][1:] + _LOOKED_FOR["trace"][1:])
        raise ReportError(
            f"{directory}: expected an audit trail or a trace, one of {looked}; found none"
        )
    return found, notes


def _first(directory: Path, what: str, patterns: tuple[str, ...]) -> list[Path]:
    """Return the file of that name, and others; of patterns, the first that finds any counts."""
    wanted = [path for path in [directory / patterns[0]] if path.is_file()]
    for each in patterns[1:]:
        others = [path for path in sorted(directory.glob(each)) if _is_such(path, what)]
        if found := list(dict.fromkeys(wanted + others)):
            return found
    return wanted


def _is_such(path: Path, what: str) -> bool:
    """Whether a file is what its name says; names of records may be those of anything."""
    if what != "audit trail" or path.suffix == ".audit":
        return path.is_file()
    if not path.is_file():
        return path.is_dir() and any(path.glob(forms.PARTS))
    with path.open("rb") as file:
        form = forms.form_by(file.read(16))
    return form is not None and not (form.columns and is_trace(path))


def _source(path: Path, what: str) -> Source:
    size = sum(part.stat().st_size for part in forms.parts(path))
    return Source(path.name, what, size)


def _module(path: Path) -> PolicyModule:
    from ..policy import Rules, TypeEnforcement

    return (TypeEnforcement if path.suffix == ".cil" else Rules).from_file(path)


def _figures(path: Path) -> Figures:
    if path.stat().st_size > LARGEST:
        raise ReportError(f"{path}: more than {LARGEST} bytes")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Figures)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ReportError(f"{path}: expected the figures of a run: {error}") from error


# --- who talks to whom ----------------------------------------------------------------------------


def _graph(
    found: dict[str, Path], tally: Tally | None, modules: Sequence[PolicyModule],
    advance: Callable[[int], object],
) -> Graph:  # fmt: skip
    """Make the graph of the audit trail, which is counted on the way, or else of the trace."""
    if tally is not None:
        path = found["audit trail"]
        return from_audit(_counted(forms.batches(path), tally, advance), name=path.name)
    labels = Labels(modules[0].name) if modules else None
    return graph_of([read_recording(str(found["trace"]))], labels=labels)


def _counted(
    batches: Iterable[Batch], tally: Tally, advance: Callable[[int], object]
) -> Iterator[Batch]:
    for batch in batches:
        tally.add(batch)
        advance(len(batch))
        yield batch


def _judge(result: Findings, modules: Sequence[PolicyModule], other: Path | None) -> None:
    """Lay policies over the graph: what the run's allows and nobody used, what another refuses.

    Raises:
        ValueError: the other policy cannot read the labels.
    """
    graph = result.graph
    if not any(edge.asks for edge in graph.edges):
        if other:
            result.notes.append("Nothing is labelled, so that no policy can judge the run.")
        return
    if other:
        others = [_module(other)]
        laid = overlay(_readable(graph, others), others)
        result.graph = replace(graph, edges=laid.edges)
        rows = _would_be_refused(laid)
        result.would_deny, _ = _most_frequent(rows, _Explainer(others, result))
    if modules:
        try:
            laid = overlay(_readable(graph, modules), modules, unused=True)
        except ValueError as error:
            result.notes.append(f"What {result.policy} allows beyond what was used: {error}.")
            return
        unused = [edge for edge in laid.edges if edge.outcome == "unused"]
        idle = {(edge.source, edge.target): edge.idle for edge in laid.edges}
        edges = [replace(e, idle=idle.get((e.source, e.target), [])) for e in result.graph.edges]
        result.graph = replace(result.graph, edges=edges + unused)


def _would_be_refused(laid: Graph) -> Iterator[Denied]:
    """What the policy that was laid over a graph refuses of what was done, edge by edge."""
    tasks = {node.id: node.name for node in laid.nodes if node.kind in ("task", "kernel")}
    for edge in laid.edges:
        refused = {(each.permission, each.reason) for each in edge.denied if not each.enforced}
        for ask in edge.asks:
            if edge.outcome == "would_deny" and (ask.name, _pair(ask)) in refused:
                about = ask.subject, ask.object, ask.tclass, ask.permission
                yield Denied(ask.count, tasks.get(edge.source, ""), *about, "", "refused", True)


def _pair(ask: Ask) -> str:
    """Return what `overlay` gives as the reason of a refusal."""
    return f"{ask.subject} to {ask.object}"


def _readable(graph: Graph, modules: Sequence[PolicyModule]) -> Graph:
    """Return a graph whose labels have no values but of these modules.

    Raises:
        ReportError: then nothing is left of any label.
    """
    names = {module.name for module in modules}

    def readable(asks: list[Ask]) -> list[Ask]:
        parts = ((ask, _part(ask.subject, names), _part(ask.object, names)) for ask in asks)
        return [replace(ask, subject=one, object=other) for ask, one, other in parts]

    nodes = [
        replace(n, label=_part(n.label, names) if n.label else "", asks=readable(n.asks))
        for n in graph.nodes
    ]
    edges = [replace(edge, asks=readable(edge.asks)) for edge in graph.edges]
    if all(ask.subject == EMPTY for edge in edges for ask in edge.asks):
        raise ReportError(f"no label in the run has a value of {', '.join(sorted(names))}")
    return replace(graph, nodes=nodes, edges=edges)


def _part(label: str, names: Collection[str]) -> str:
    """Return a label without the values of other modules; of what is no label, nothing is left."""
    try:
        values = parse_label(label)
    except LabelError:  # a number without a text, in a trail that lacks something
        return EMPTY
    return format_label({name: value for name, value in values.items() if name in names})


# --- refusals -------------------------------------------------------------------------------------


def _refused(result: Findings) -> Iterator[Denied]:
    """Of the audit trail, else of what the run says of itself."""
    if result.tally is not None:
        for refusal, times in result.tally.refusals.items():
            yield Denied(
                times, refusal.task, refusal.subject, refusal.object, refusal.tclass,
                " ".join(refusal.permissions), refusal.what,
                refusal.result if refusal.enforced else "permissive, so not enforced",
                refusal.enforced,
            )  # fmt: skip
        return
    for each in result.figures.denied if result.figures else ():
        pair = each.subject, each.object
        yield Denied(each.times, "", *pair, each.tclass, each.permission, "", each.reason, True)


def _most_frequent(rows: Iterable[Denied], explainer: _Explainer) -> tuple[list[Denied], int]:
    """Return the most frequent rows, explained, and how many more there are."""
    ordered = sorted(rows, key=lambda row: -row.times)
    shown = [row._replace(why=explainer.why(row) or row.why) for row in ordered[:MAX_DENIED]]
    return shown, len(ordered) - len(shown)


class _Explainer:
    """Asks the run's policy for its reasons, each question once."""

    def __init__(self, modules: Sequence[PolicyModule], result: Findings) -> None:
        from ..policy.composition import Composition

        self._composition: Composition | None = None
        if modules:
            self._composition = Composition({each.name: each for each in modules}, Counter())
        self._classes = result.tally.classes if result.tally else {}
        self._said: dict[tuple[str, ...], str] = {}

    def why(self, row: Denied) -> str:
        """Return what the policy says; "" if there is none, or it knows nothing of this."""
        key = row.subject, row.object, row.tclass, row.permission
        if self._composition is not None and key not in self._said:
            self._said[key] = self._explained(*key)
        return self._said.get(key, "")

    def _explained(self, subject: str, target: str, tclass: str, permissions: str) -> str:
        assert self._composition is not None
        kind = CLASSES.get(tclass) or ObjectClass(0, tclass, self._classes.get(tclass, ()))
        try:
            names = self._composition.modules
            labels = [self._composition.values(_part(each, names)) for each in (subject, target)]
            lines = together(
                (name, self._composition.explain(labels[0], labels[1], kind, name))
                for name in permissions.split()
            )
        except (ValueError, LookupError):
            return ""
        return "; ".join(line.strip().partition(": ")[2] for line in lines)
