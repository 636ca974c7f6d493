# SPDX-License-Identifier: BSD-2-Clause
"""The graph as SEDarwin's tr2dot makes it, quirks included: same edges, directions, colours.

Records and `option` lines are taken in the order in which they come, so an option is about later
records only. Two names are one pair, whichever way they talk; action, port and count do not matter.
Of the quirks, the worst: a pair is drawn from the task that was seen first, but what "forward"
means is settled by the alphabet, so the arrow of one-way traffic may point at its sender.

It differs from the ancestor in this:

- The order of pairs is that of their first records; the ancestor's is that of a Perl hash.
- A quote, a backslash or a control character in a name is escaped; there it breaks the output.
- Expressions are Python's, on bytes, with a time limit. Perl's `\\z`, `\\h`, `\\K`, `\\Q`, `\\p`,
  `(?<name>)` and `[[:alpha:]]` are errors here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .names import shortened
from .rules import TIME_LIMIT, Matches, Rule, RulesError, parse_rule

__all__ = ["Pair", "Tr2dot", "pair_dot", "split", "tr2dot"]

_HEADER = re.compile(rb"[0-9]+ trace records:")
_ACTION = re.compile(rb"([a-z_]+)\s+")
_DIRECTIONS = {1: "forward", 2: "back", 3: "none"}


class Pair(NamedTuple):
    """An edge of tr2dot's: names as latin-1, Graphviz's `dir`, colours in the order given."""

    tail: str
    head: str
    direction: str
    colors: tuple[str, ...] = ()


@dataclass
class Tr2dot:
    """What tr2dot makes of its input: the pairs, and the lines it complains about."""

    pairs: list[Pair]
    bad: list[bytes]


class _Record(NamedTuple):
    task: str
    owner: str
    rules: int  # how many were in force


@dataclass
class _Drawn:
    """A pair in the making."""

    tail: str
    head: str
    colors: tuple[str, ...]
    bits: int = 0


def tr2dot(
    lines: Iterable[bytes], rules: Sequence[Rule] = (), *, limit: float = TIME_LIMIT
) -> Tr2dot:
    """Run tr2dot.

    Args:
        lines: of traces in SEDarwin's text form and of rules files, without line ends.
        rules: in force from the beginning.
        limit: seconds for all expressions.

    Raises:
        RulesError: an expression takes too long.
    """
    known, bad = list(rules), list[bytes]()
    records = list(_read(lines, known, bad))
    names = {name for record in records for name in (record.task, record.owner)}
    matches = Matches(known, sorted(names), raw=True, limit=limit)
    drawn: dict[str, _Drawn] = {}
    for record in records:
        _draw(drawn, record, matches)
    pairs = [Pair(d.tail, d.head, _DIRECTIONS[d.bits], d.colors) for d in drawn.values()]
    return Tr2dot(pairs, bad)


def _read(lines: Iterable[bytes], rules: list[Rule], bad: list[bytes]) -> Iterator[_Record]:
    for line in lines:
        names = _names(line)
        if names:
            if b"?" not in names:
                task, owner = (shortened(name.decode("latin-1")) for name in names)
                yield _Record(task, owner, len(rules))
        elif line.startswith(b"option"):
            try:
                rules.append(parse_rule(line.decode()))
            except (RulesError, UnicodeDecodeError):
                bad.append(line)
        elif not _HEADER.match(line):
            bad.append(line)


def _names(line: bytes) -> tuple[bytes, bytes] | None:
    """Return task and port owner of a record; None if the line is none.

    From the right: a count, a port number, a colon. Then the last bar between blanks.
    """
    action = _ACTION.match(line)
    words = line.rsplit(None, 2)
    if not action or len(words) < 3 or not words[2].isdigit() or not line[-1:].isdigit():
        return None
    head = words[0]
    if not head.endswith(b":"):
        return None
    rest, bar = head[:-1].rstrip()[action.end() :], -1
    while (bar := rest.rfind(b"|", 0, bar if bar >= 0 else None)) > 0:
        task, owner = rest[:bar], rest[bar + 1 :]
        if task[-1:].isspace() and owner[:1].isspace() and task.strip() and owner.strip():
            return task.rstrip(), owner.lstrip()
    return None


def _draw(drawn: dict[str, _Drawn], record: _Record, matches: Matches) -> None:
    task, owner, count = record
    in_force = range(count)
    if any(
        not matches.rules[at].color and (matches.matches(at, task) or matches.matches(at, owner))
        for at in in_force
    ):
        return
    key = "|".join(sorted((task, owner)))
    if key not in drawn:
        colors = tuple(
            matches.rules[at].color
            for name in (owner, task)
            for at in in_force
            if matches.rules[at].color and matches.matches(at, name)
        )
        drawn[key] = _Drawn(task, owner, colors)
    drawn[key].bits |= 1 if task < owner else 2


# --- as DOT ---------------------------------------------------------------------------------------


def pair_dot(pairs: Iterable[Pair], quote: Callable[[str], str] | None = None) -> str:
    """Return the DOT that tr2dot prints; as text of latin-1, like the names, unless quoted so."""
    lines = ["digraph G {", *(_line(pair, quote or _quoted) for pair in pairs), "}", ""]
    return "\n".join(lines)


def _line(pair: Pair, quote: Callable[[str], str]) -> str:
    colors = "".join(f',color="{c}"' if c.startswith("#") else f",color={c}" for c in pair.colors)
    return f"{quote(pair.tail)} -> {quote(pair.head)} [dir={pair.direction}{colors}];"


_HOSTILE = re.compile('[\\\\"\x00-\x1f\x7f]')


def _quoted(name: str) -> str:
    text = _HOSTILE.sub(lambda m: f"\\{m[0]}" if m[0] in '\\"' else f"\\\\u{{{ord(m[0]):x}}}", name)
    return f'"{text}"'


def split(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Return the pairs of each name, as dotbyproc should have done: of that name, and no other."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        for name in dict.fromkeys((pair.tail, pair.head)):
            found.setdefault(name, []).append(pair)
    return dict(sorted(found.items()))
