# SPDX-License-Identifier: BSD-2-Clause
"""The page: one HTML file that needs nothing else, and asks nobody for anything.

All that people may have chosen (names, labels, file names) goes through `markup.element`, which
escapes it, or is data in JSON, which the script shows as text. A strict Content-Security-Policy
names our own script and style by their hashes: nothing else runs, and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np

from .._version import __version__
from ..label import parse_label
from ..trace.graph import Edge, Graph
from ..trace.graph.names import short_names, shortened
from ..trace.graph.shrink import shrink
from .chart import duration, rates_chart
from .gather import Denied, Findings
from .markup import Markup, data, element, joined, printable
from .picture import OUTCOME_WORDS, described, draw_graph
from .tally import BINS

__all__ = ["page"]

MAX_ROWS = 200
MAX_METHODS = 40
MAX_ASKS = 12


def page(found: Findings) -> bytes:
    """Return the page about a run, as HTML in UTF-8."""
    drawn = shrink(found.graph)
    found = replace(found, graph=drawn, notes=[*found.notes, *_new(drawn, found.graph)])
    picture, note = draw_graph(drawn)
    if note:
        found.notes.append(note)
    sections = [
        _graph(found, picture), _rates(found), _denials(found), _would_deny(found), _edges(found),
        _trail(found), _snapshot(found), _sources(found),
    ]  # fmt: skip
    style, script = (_own(f"report.{kind}") for kind in ("css", "js"))
    return _document(found, style, script, joined(filter(None, sections)))


def _new(drawn: Graph, whole: Graph) -> list[str]:
    return [f"{note[0].upper()}{note[1:]}." for note in drawn.notes if note not in whole.notes]


def _own(name: str) -> Markup:
    return Markup((resources.files("pympi.report") / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _document(found: Findings, style: Markup, script: Markup, body: Markup) -> bytes:
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=Markup(policy)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{found.name}: pympi report"),
        element("style", style),
    )
    stored = element("script", data(_stored(found)), type="application/json", id="data")
    main = element("main", body)
    foot = element("footer", f"Made by pympi {__version__} from what the run left; nothing else.")
    whole = element("body", _head(found), main, foot, stored, element("script", script))
    return ("<!DOCTYPE html>\n" + element("html", head, whole, lang="en") + "\n").encode()


# --- the head -------------------------------------------------------------------------------------


def _head(found: Findings) -> Markup:
    tiles = [_tile(*tile) for tile in _tiles(found)]
    return element(
        "header",
        element("p", "pympi report", class_="kind"),
        element("h1", found.name),
        element("div", *tiles, class_="tiles"),
    )


def _tile(value: str, what: str, kind: str = "") -> Markup:
    parts = element("b", value), element("span", what)
    return element("div", *parts, class_=f"tile {kind}".strip())


def _tiles(found: Findings) -> Iterable[tuple[str, ...]]:
    graph, tally, figures = found.graph, found.tally, found.figures
    ids = [one for node in graph.nodes for one in node.members or [node.id]]
    tasks = sum(one.startswith("task ") for one in ids)
    yield f"{tasks:,}", "tasks"
    messages = sum(edge.messages + edge.replies for edge in graph.edges)
    estimated = ", estimated" if tally and tally.sampled else ""
    yield f"{tally.messages if tally else messages:,}", f"messages{estimated}"
    if found.refused is not None:
        yield f"{found.refused:,}", "refused", "denied" if found.refused else ""
    if found.other:
        judged = sum(edge.outcome == "would_deny" for edge in graph.edges)
        yield f"{judged:,}", f"arrows {found.other} would refuse", "would_deny" if judged else ""
    lost = tally.lost + tally.missing if tally else graph.lost
    yield f"{lost:,}", "records lost", "denied" if lost else ""
    if figures and figures.check_cost is not None:
        yield f"{figures.check_cost:.2f}\u00d7", "time, with checks"


# --- who talks to whom ----------------------------------------------------------------------------


def _graph(found: Findings, picture: Markup) -> Markup:
    graph = found.graph
    detail = element(
        "aside", element("p", "Point at a box or an arrow, or go there with the Tab key."),
        id="detail", aria_live="polite",
    )  # fmt: skip
    notes = [element("p", note, class_="note") for note in found.notes]
    return _section(
        "Who talks to whom",
        _controls(graph),
        element("div", element("div", picture, id="view"), detail, class_="figure"),
        _legend(graph),
        *notes,
    )


def _controls(graph: Graph) -> Markup:
    labels = sorted({_short(node.label) for node in graph.nodes if node.label})
    methods = sorted({name for edge in graph.edges for name in edge.methods})
    search = element("input", id="search", type="search", placeholder="Name or label", size=16)
    zoom = [
        element("button", sign, type="button", id=key, aria_label=words, title=words)
        for sign, key, words in (
            ("+", "in", "Closer"), ("\u2212", "out", "Farther"), ("⤢", "whole", "All of it"),
        )
    ]  # fmt: skip
    return element(
        "div",
        element("label", "Search ", search),
        _select("label", "Label", labels), _select("method", "Method", methods[:MAX_METHODS * 10]),
        element("span", *zoom, class_="zoom"),
        element("output", "", id="shown", aria_live="polite"),
        class_="controls",
    )  # fmt: skip


def _select(key: str, what: str, values: Sequence[str]) -> Markup | str:
    if not values:
        return ""
    options = [element("option", "all", value="")]
    options += [element("option", value, value=value) for value in values]
    return element("label", f"{what} ", element("select", *options, id=key))


def _legend(graph: Graph) -> Markup:
    """What the colours mean; with the script, what is shown."""
    outcomes = [o for o in OUTCOME_WORDS if any(edge.outcome == o for edge in graph.edges)]
    chips = []
    for outcome in outcomes:
        count = sum(edge.outcome == outcome for edge in graph.edges)
        box = element("input", type="checkbox", value=outcome, checked=outcome != "unused")
        line = element("line", x1="2", y1="6", x2="26", y2="6")
        swatch = element("svg", line, viewBox="0 0 28 12", class_="swatch", aria_hidden="true")
        words = element("span", f"{OUTCOME_WORDS[outcome]} ", element("i", f"{count:,}"))
        chips.append(element("label", box, swatch, words, class_=f"chip {outcome}"))
    return element("div", *chips, class_="legend", role="group", aria_label="Outcomes shown")


def _edges(found: Findings) -> Markup:
    graph, texts = found.graph, short_names(found.graph)
    busiest = sorted(enumerate(graph.edges), key=lambda item: -item[1].weight)
    busiest = [item for item in busiest if item[1].outcome != "unused"]
    columns: dict[str, Callable[[Edge], Markup]] = {
        "From": lambda edge: _cell(texts[edge.source]),
        "To": lambda edge: _cell(texts[edge.target]),
        "#Messages": lambda edge: _number(edge.messages),
        "#Replies": lambda edge: _number(edge.replies),
        "#Bytes": lambda edge: _number(edge.bytes + edge.reply_bytes),
        "#Refused": lambda edge: _number(edge.refusals),
        "Methods": lambda edge: _cell(_methods(edge)),
        "Outcome": lambda edge: _cell(
            OUTCOME_WORDS[edge.outcome], class_=f"outcome {edge.outcome}"
        ),
    }
    if not any(edge.methods for _, edge in busiest):
        del columns["Methods"]
    rows = [
        element("tr", *(cell(edge) for cell in columns.values()), data_e=number)
        for number, edge in busiest[:MAX_ROWS]
    ]
    more = len(busiest) - len(rows)
    said = [element("p", f"{more:,} more are not listed.", class_="note")] if more else []
    return _section("Busiest", _table("edges", [*columns], rows), *said)


def _methods(edge: Edge) -> str:
    names = sorted(edge.methods, key=lambda name: -edge.methods[name])
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- rates, refusals, losses ----------------------------------------------------------------------


def _rates(found: Findings) -> Markup | None:
    if found.tally is None or not found.tally.records:
        return None
    rates = found.tally.rates
    words = f"In intervals of {duration(rates.width)}, {duration(rates.duration)} in all."
    words += " Messages are estimated." if found.tally.sampled else ""
    moment = element("output", "", id="moment", aria_live="polite")
    chart = element("div", rates_chart(rates), class_="chart")
    return _section("Rates", chart, element("p", words, " ", moment, class_="note"))


def _denials(found: Findings) -> Markup:
    if not found.denied:
        words = "Nothing was refused."
        words = "A trace does not tell what was refused." if found.refused is None else words
        return _section("Refused", element("p", words, class_="calm"))
    source = f"as {found.policy} has it" if found.policy else "as the record says: no policy here"
    words = f"Most frequent first; why, {source}."
    words += f" {found.more_denied:,} more kinds are not listed." if found.more_denied else ""
    if found.tally and found.tally.more_refusals:
        words += f" Of still other kinds there were {found.tally.more_refusals:,} refusals."
    table = _table("denials", _REFUSED, [_denied(row) for row in found.denied])
    return _section("Refused", table, element("p", words, class_="note"))


def _would_deny(found: Findings) -> Markup | None:
    if not found.other:
        return None
    title = f"What {found.other} would refuse"
    if not found.would_deny:
        return _section(title, element("p", "Nothing of what was done.", class_="calm"))
    return _section(title, _table("judged", _REFUSED, [_denied(row) for row in found.would_deny]))


_REFUSED = ["#Times", "Who", "May not", "To", "Why"]


def _denied(row: Denied) -> Markup:
    mark = [] if row.enforced else [element("small", "done all the same")]
    who: list[object] = [row.subject]
    if row.task:
        name = element("b", shortened(row.task), title=row.task)
        who = [name, element("small", row.subject)]
    about = f"{row.tclass}{f', {row.what}' if row.what else ''}"
    return element(
        "tr", _number(row.times), _cell(*who),
        _cell(element("b", row.permission), element("small", about), *mark),
        _cell(row.object), _cell(row.why, class_="why"),
    )  # fmt: skip


def _trail(found: Findings) -> Markup:
    tally, parts = found.tally, []
    if tally is None:
        lost = found.graph.lost
        words = "There is no audit trail here; this report was made from a trace"
        parts.append(f"{words}{f', which lacks {lost:,} events' if lost else ''}.")
    elif tally.lost or tally.missing:
        parts.append(f"{tally.records:,} records; {tally.lost:,} were lost, or not readable.")
        if tally.missing:
            parts.append(f"{tally.missing:,} more are missing, and no record says why.")
    else:
        parts.append(f"{tally.records:,} records, none lost: their numbers have no gap.")
    if tally and tally.sampled:
        parts.append(
            f"Of them {tally.sampled:,} were sampled by chance and count for those that were not"
            " kept: how many messages there were is estimated, what was refused is exact."
        )
    paragraphs = [element("p", part) for part in parts]
    if tally and tally.losses:
        rows = [
            element("tr", _number(loss.time, duration(loss.time)), _number(loss.lost))
            for loss in tally.losses
        ]
        paragraphs.append(_table("losses", ["#After", "#Lost"], rows))
    paragraphs += _cost(found)
    return _section("Audit trail and cost", *paragraphs)


def _cost(found: Findings) -> list[Markup]:
    figures = found.figures
    if figures is None:
        return []
    said = []
    if figures.check_cost is not None:
        said.append(
            f"With its checks the run took {figures.check_cost:.2f} times what it took without: "
            "the median of paired rounds of all steps that are not refused."
        )
    if figures.not_performed:
        said.append(
            f"{figures.not_performed:,} operations could not be, because others were refused."
        )
    return [element("p", words) for words in said]


def _snapshot(found: Findings) -> Markup | None:
    snapshot = found.snapshot
    if snapshot is None:
        return None
    numbers, counts = np.unique(snapshot.rights.columns["task"], return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MAX_ROWS]
    held = [(int(numbers[at]), int(counts[at])) for at in most]
    names = {number: task.name for number, _ in held if (task := snapshot.task(number))}
    rows = [
        element("tr", _cell(names.get(number, f"task {number}")), _number(count))
        for number, count in held
    ]
    words = (
        f"{len(snapshot.tasks):,} tasks, {len(snapshot.ports):,} ports, "
        f"{len(snapshot.rights):,} names for rights, when the snapshot was taken."
    )
    return _section(
        "At one moment", element("p", words), _table("held", ["Task", "#Rights held"], rows)
    )  # fmt: skip


def _sources(found: Findings) -> Markup:
    rows = [
        element("tr", _cell(each.what), _cell(each.name), _number(each.size))
        for each in found.sources
    ]
    judged = [element("p", f"Judged by another policy: {found.other}.")] if found.other else []
    table = _table("sources", ["What", "File", "#Bytes"], rows)
    return _section("Made from", table, *judged)


# --- parts ----------------------------------------------------------------------------------------


def _section(title: str, *children: object) -> Markup:
    key = f"about-{re.sub(r'[^a-z]+', '-', title.lower())}"
    return element("section", element("h2", title, id=key), *children, aria_labelledby=key)


def _table(key: str, columns: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """A table whose columns sort, with the script; `#` before a title: of numbers."""
    heads = []
    for column in columns:
        number = column.startswith("#")
        title = element("span", column.lstrip("#"))
        heads.append(element("th", title, scope="col", class_="number" if number else None))
    head = element("thead", element("tr", *heads))
    table = element("table", head, element("tbody", *rows), id=key)
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=key)


def _cell(*children: object, class_: str | None = None) -> Markup:
    return element("td", *children, class_=class_)


def _number(value: int, text: str | None = None) -> Markup:
    shown = text if text is not None else f"{value:,}" if value else ""
    return element("td", shown, class_="number", data_v=value)


def _short(label: str) -> str:
    """Return what tells labels apart to people: of a context its type, else the value."""
    try:
        values = parse_label(label)
    except ValueError:
        return printable(label)
    parts = [v.split(":")[2] if k == "te" and v.count(":") > 1 else v for k, v in values.items()]
    return printable(", ".join(parts)) or printable(label)


# --- for the script -------------------------------------------------------------------------------


def _stored(found: Findings) -> dict[str, Any]:
    graph = found.graph
    texts = short_names(graph)
    place = {node.id: number for number, node in enumerate(graph.nodes)}
    nodes = [
        {
            "name": printable(node.name), "short": texts[node.id], "kind": node.kind,
            "label": printable(node.label), "type": _short(node.label) if node.label else "",
            "sent": node.sent, "received": node.received, "denied": node.denied,
            "own": _counts(node.own), "members": [printable(each) for each in node.members[:40]],
        }
        for node in graph.nodes
    ]  # fmt: skip
    rates = found.tally.rates if found.tally else None
    used = min(rates.used, BINS) if rates else 0
    return {
        "nodes": nodes,
        "edges": [_stored_edge(edge, place, texts) for edge in graph.edges],
        "rates": {
            "sent": rates.sent[:used].tolist() if rates else [],
            "refused": rates.refused[:used].tolist() if rates else [],
        },
    }


def _stored_edge(edge: Edge, place: dict[str, int], texts: dict[str, str]) -> dict[str, Any]:
    denied = [
        [printable(each.permission), printable(each.reason), each.count, each.enforced]
        for each in edge.denied[:MAX_ASKS]
    ]
    return {
        "from": place[edge.source], "to": place[edge.target], "outcome": edge.outcome,
        "words": described(edge, texts), "messages": edge.messages, "replies": edge.replies,
        "bytes": edge.bytes + edge.reply_bytes, "ports": edge.ports, "rights": edge.transfers,
        "events": _counts(edge.events), "methods": _counts(edge.methods), "denied": denied,
        "idle": [printable(name) for name in edge.idle[:MAX_METHODS]],
    }  # fmt: skip


def _counts(counts: dict[str, int]) -> list[list[Any]]:
    """Return the most frequent ones."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [[printable(name), count] for name, count in ordered[:MAX_METHODS]]
