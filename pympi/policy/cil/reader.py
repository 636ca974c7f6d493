# SPDX-License-Identifier: BSD-2-Clause
"""CIL text to nested tuples.

A list becomes a tuple: its position, then what stands in it, words as `str` and lists as tuples. A
position is one number that says file, line and token; it becomes a line and a column only when
somebody asks, which is when there is an error. That keeps the reading of large policies cheap.

Most of a large policy are access vector rules, each at the top in a line of its own. Those with
nothing else between them but remarks are found by one expression and kept as columns (`Run`).
`Run.nodes` makes lists of them, as of any other text: these say what a run means.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import compress
from operator import itemgetter
from sys import intern
from typing import Any, NamedTuple

from ...errors import PolicyError
from .budget import Budget
from .policydb import Origin

__all__ = ["Node", "Run", "Sources", "found"]

Node = tuple[Any, ...]
"""(position, word or node...)."""

_TOKEN = re.compile(r'[()]|[^ \t()";]+|"[^"]*"?|;.*')
_PLAIN = re.compile(r"[A-Za-z0-9_.\-() \t]*(?:;[\t -~]*)?")
_WORD = re.compile(r'[A-Za-z0-9_.\-]+|[()]|"[ !#-~]*"|;.*')
_NAME = r"[A-Za-z0-9_.\-]+"
# The four parts of a rule in a line of its own, blanks as `rule_text` has them; or any other line.
_LINE = re.compile(
    rf"^(?:\((allow|auditallow|dontaudit|neverallow) ({_NAME}) ({_NAME})"
    rf" (\({_NAME} \({_NAME}(?: {_NAME})*\)\))\)|(.*))$",
    re.MULTILINE,
)
_Row = tuple[str, ...]
# Of such a rule; of tokens there are as many more as there are blanks in the last part.
_RULE_DEPTH, _RULE_TOKENS = 3, 10
_ACCESS_AT, _PERMISSIONS_AT = 4, 6  # which tokens begin the lists in it
_LINE_MARK = ";;*"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# What turns the direction of text round or hides in it, so that a reader sees another policy than
# the one in force; what some programs take for the end of a line; halves of surrogate pairs.
_DECEPTIVE = re.compile(
    "[\u0080-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)

_INDEX_BITS, _LINE_BITS = 20, 32
_FILE_SHIFT = _INDEX_BITS + _LINE_BITS
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_LINE_MASK = (1 << _LINE_BITS) - 1
_STRETCH = 1 << 16


def found(item: object) -> str:
    """Return words for what stands somewhere: a word, a list or nothing."""
    if isinstance(item, tuple):
        return f"a list beginning with {item[1]!r}" if _begins(item) else "a list"
    if item is None:
        return "the end of the list"
    word = str(item)
    return repr(word if len(word) <= 60 else word[:57] + "...")


def _begins(node: Node) -> bool:
    return len(node) > 1 and isinstance(node[1], str) and len(node[1]) <= 60


class Run(NamedTuple):
    """Access vector rules of a kind, each in a line of its own: a node that has columns.

    Attributes:
        positions: of each.
        keyword: of all.
        sources, targets: names.
        accesses: of each rule the text of `(CLASS (PERMISSION...))`, one blank between words.
    """

    positions: Sequence[int]
    keyword: str
    sources: Sequence[str]
    targets: Sequence[str]
    accesses: Sequence[str]

    def node(self, n: int) -> Node:
        """Return the nth rule as a list; 0 is the first."""
        start = self.positions[n]
        tclass, *permissions = self.accesses[n].strip("()").replace("(", "").split(" ")
        access = start | _ACCESS_AT, tclass, (start | _PERMISSIONS_AT, *permissions)
        return start, self.keyword, self.sources[n], self.targets[n], access

    def nodes(self) -> Iterator[Node]:
        """Iterate over the rules as lists."""
        return map(self.node, range(len(self.sources)))


class _Text:
    """A text that makes its lines when they are asked for: all together would take many times more.

    Attributes:
        text: it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Stretches end where a line does: where each begins, and with which line.
        self._starts, self._firsts = [0], [1]
        while (end := text.find("\n", self._starts[-1] + _STRETCH)) >= 0:
            self._firsts.append(self._firsts[-1] + text.count("\n", self._starts[-1], end + 1))
            self._starts.append(end + 1)
        self._split: tuple[int, list[str]] = -1, []

    def rows(self, first: int, fold: Callable[[str], bool]) -> Iterator[tuple[int, Sequence[_Row]]]:
        """Iterate over the lines from a number on, as `_LINE` divides them, in stretches.

        Args:
            first: the number.
            fold: tells whether to divide the lines of a stretch; else they are whole.

        Returns:
            for each stretch the number of its first line, and the lines.
        """
        for stretch in range(self._stretch_of(first), len(self._starts)):
            text, number = self._stretch(stretch), self._firsts[stretch]
            rows = _LINE.findall(text) if fold(text) else [*map(_whole, text.split("\n"))]
            left_out = max(0, first - number)
            yield number + left_out, rows[left_out:]

    def lines(self, first: int) -> Iterator[tuple[int, str]]:
        """Iterate over the lines from a number on, with their numbers."""
        for stretch in range(self._stretch_of(first), len(self._starts)):
            for number, line in enumerate(self._lines(stretch), self._firsts[stretch]):
                if number >= first:
                    yield number, line

    def line(self, number: int) -> str:
        """Return a line."""
        stretch = self._stretch_of(number)
        return self._lines(stretch)[number - self._firsts[stretch]]

    def count(self) -> int:
        """Return how many lines there are."""
        return self._firsts[-1] + self.text.count("\n", self._starts[-1])

    def _stretch_of(self, number: int) -> int:
        return bisect_right(self._firsts, number) - 1

    def _lines(self, stretch: int) -> list[str]:
        if self._split[0] != stretch:
            self._split = stretch, self._stretch(stretch).split("\n")
        return self._split[1]

    def _stretch(self, stretch: int) -> str:
        last = stretch + 1 == len(self._starts)
        end = len(self.text) if last else self._starts[stretch + 1] - 1
        return self.text[self._starts[stretch] : end]


def _whole(line: str) -> _Row:
    """Return a line as `_LINE` has one that is no rule."""
    return "", "", "", "", line


_keyword = itemgetter(0)


def _never(_text: str) -> bool:
    return False


def _line(row: _Row) -> str:
    """Return the line that `_LINE` has divided."""
    return "({} {} {} {})".format(*row) if row[0] else row[4]


class Sources:
    """The texts of a policy: reads them, and knows where everything stands.

    Args:
        budget: what they may cost.
    """

    def __init__(self, budget: Budget) -> None:
        self.names: list[str] = []
        self._texts: list[_Text] = []
        self._budget = budget
        self._bytes = 0
        self._tokens = 0
        self._measured = (0, 0)
        self._columns: list[int] = []

    # ---- reading ----

    def add(self, name: str, text: str) -> int:
        """Take a text; return its number."""
        number = len(self.names)
        self.names.append(name)
        self._bytes += len(text if text.isascii() else text.encode("utf-8", "surrogatepass"))
        if self._bytes > self._budget.bytes:
            raise PolicyError(self._budget.exceeded("bytes"), name, 1, 1)
        self._texts.append(_Text(text.replace("\r\n", "\n")))
        return number

    def extend(self, text: str) -> tuple[int, int]:
        """Add lines to the last text; return its number, and how many lines it had."""
        number, last = len(self._texts) - 1, self._texts[-1]
        self._texts[-1] = _Text(f"{last.text}\n{text}")
        return number, last.count()

    def text(self) -> str:
        """Return all texts, one after the other."""
        return "\n".join(each.text for each in self._texts)

    def statements(self, number: int, skip: int = 0, *, fold: bool = False) -> Iterator[Node]:
        """Iterate over the lists that a text consists of, but for its first lines.

        Args:
            number: of the text.
            skip: how many lines are left out.
            fold: return rules in lines of their own together, as runs.

        Raises:
            PolicyError: it is not made of balanced lists, or over budget.
        """
        stack: list[list[Any] | None] = []
        items: list[Any] | None = None
        longest = min(self._budget.identifier, self._budget.line)
        within = partial(self._within, longest) if fold else _never
        for first, rows in self._texts[number].rows(skip + 1, within):
            begin, step = number << _FILE_SHIFT | first << _INDEX_BITS, 1 << _INDEX_BITS
            starts = range(begin, begin + len(rows) * step, step)
            if items is None and rows and all(map(_keyword, rows)):
                yield from self._runs(starts, rows)
                continue
            positions, waiting = [], []  # of rules that will be runs, and these
            for start, row in zip(starts, rows, strict=True):
                if row[0] and items is None:
                    positions.append(start)
                    waiting.append(row)
                    continue
                words = self._tokens_of(_line(row), start, longest)
                if words and waiting:
                    yield from self._runs(positions, waiting)
                    positions, waiting = [], []
                for index, word in enumerate(words):
                    if word == "(":
                        stack.append(items)
                        items = [start | index]
                        if len(stack) > self._budget.depth:
                            raise self.error(self._budget.exceeded("depth"), start | index)
                    elif items is None:
                        raise self._outside(start | index, word)
                    elif word == ")":
                        node, items = tuple(items), stack.pop()
                        if items is None:
                            yield node
                        else:
                            items.append(node)
                    else:
                        items.append(intern(word))
            if waiting:
                yield from self._runs(positions, waiting)
        if items is not None:
            raise self.error("expected ')', found the end of the text: this '(' is open", items[0])

    def _within(self, longest: int, text: str) -> bool:
        """Tell whether no line of a text can be over budget, whatever it has as rules."""
        return (
            len(text) < 2 * _STRETCH
            and self._budget.depth >= _RULE_DEPTH
            and self._tokens + len(text) <= self._budget.tokens
            and max(map(len, text.split("\n"))) <= longest
        )

    def _runs(self, positions: Sequence[int], rows: Sequence[_Row]) -> Iterator[Run]:
        """Count what rules cost, and return them by keyword."""
        keywords, *columns, _ = zip(*rows, strict=True)
        self._tokens += len(rows) * _RULE_TOKENS + "".join(columns[2]).count(" ")
        if len(kinds := dict.fromkeys(keywords)) == 1:
            yield Run(positions, keywords[0], *columns)
            return
        for keyword in kinds:
            alike = [each == keyword for each in keywords]
            some = ([*compress(column, alike)] for column in (positions, *columns))
            yield Run(next(some), keyword, *some)

    def _tokens_of(self, line: str, start: int, longest: int) -> list[str]:
        """Return the tokens of a line without its remark; it is looked at if it is not plain."""
        if not line:
            return []
        if len(line) > longest or not _PLAIN.fullmatch(line) or line.startswith(_LINE_MARK):
            self._inspect(*self.line(start), line)
        tokens = _TOKEN.findall(line)
        self._tokens += len(tokens)
        if self._tokens > self._budget.tokens:
            raise self.error(self._budget.exceeded("tokens"), start)
        if tokens and tokens[-1][0] == ";":
            tokens.pop()
        return tokens

    def _inspect(self, number: int, line_number: int, line: str) -> None:
        """Say what is wrong with a line that is not plain, if anything is."""
        complain = _Complaint(self.names[number], line_number)
        if len(line) > self._budget.line:
            complain(self._budget.exceeded("line"), 0)
        if control := _CONTROL.search(line.replace("\t", " ")):
            complain(f"the control character U+{ord(control[0]):04X}", control.start())
        if deceptive := _DECEPTIVE.search(line):
            complain(
                f"the character U+{ord(deceptive[0]):04X}, which shows text otherwise than it is",
                deceptive.start(),
            )
        if line.startswith(_LINE_MARK):
            complain("a line mark (';;*'), which is outside the subset; write '; ;*'", 0)
        for token in _TOKEN.finditer(line):
            self._inspect_token(token, complain)

    def _inspect_token(self, token: re.Match[str], complain: _Complaint) -> None:
        text = token[0]
        if text[0] == ";":
            return
        if len(text) > self._budget.identifier:
            complain(self._budget.exceeded("identifier"), token.start())
        if not _WORD.fullmatch(text):
            good = _WORD.match(text)
            at = good.end() if good else 0
            if text[0] == '"':
                complain("expected '\"' at the end of a string of printable ASCII", token.start())
            wrong = text[at : at + 1]
            words = f"{wrong!r}" if wrong.isascii() else f"{wrong!r} (U+{ord(wrong):04X})"
            complain(
                f"expected letters, digits, '_', '-' or '.', found {words}", token.start() + at
            )

    # ---- places ----

    def origin(self, position: int, child: int = 0) -> Origin:
        """Return where a list stands, or its nth item (1 is the first; beyond them its end)."""
        number = position >> _FILE_SHIFT
        line_number = position >> _INDEX_BITS & _LINE_MASK
        if not child:
            column = self._column(number, line_number, position & _INDEX_MASK)
            return Origin(self.names[number], line_number, column)
        depth, seen = 0, 0
        for line, column, word in self._from(number, line_number, position & _INDEX_MASK):
            if word == ")":
                depth -= 1
                if depth == 0:
                    return Origin(self.names[number], line, column)
                continue
            seen += depth == 1
            if seen == child:
                return Origin(self.names[number], line, column)
            depth += word == "("
        return Origin(self.names[number], line_number, 1)

    def origins(self, positions: Collection[int]) -> dict[int, Origin]:
        """Return where lists stand. It goes through the text once, in whatever order they are."""
        return {position: self.origin(position) for position in sorted(positions)}

    def _column(self, number: int, line: int, index: int) -> int:
        """Return the column of a token. Those of one line are found once: it may have thousands."""
        if self._measured != (number, line):
            self._measured = number, line
            tokens = _TOKEN.finditer(self._texts[number].line(line))
            self._columns = [token.start() + 1 for token in tokens]
        return self._columns[index]

    def line(self, position: int) -> tuple[int, int]:
        """Return the number of the file and the line of a position."""
        return position >> _FILE_SHIFT, position >> _INDEX_BITS & _LINE_MASK

    def lines(self, positions: Iterable[int]) -> list[int]:
        """Return the lines of positions."""
        return [position >> _INDEX_BITS & _LINE_MASK for position in positions]

    def error(self, message: str, position: int, child: int = 0) -> PolicyError:
        """Return an error about a list, or about its nth item."""
        return PolicyError(message, *self.origin(position, child))

    def _from(self, number: int, line: int, index: int) -> Iterator[tuple[int, int, str]]:
        for at, text in self._texts[number].lines(line):
            for position, word in enumerate(_TOKEN.finditer(text)):
                if word[0][0] != ";" and (at > line or position >= index):
                    yield at, word.start() + 1, word[0]

    def _outside(self, position: int, word: str) -> PolicyError:
        number, line = self.line(position)
        column = next(c for _, c, _ in self._from(number, line, position & _INDEX_MASK))
        if word == ")":
            message = "expected '(' or the end of the text, found ')': nothing is open"
        else:
            message = f"expected '(' and a statement, found {found(word)}"
        return PolicyError(message, self.names[number], line, column)


class _Complaint:
    """Raises errors about a line."""

    def __init__(self, file: str, line: int) -> None:
        self._file, self._line = file, line

    def __call__(self, message: str, offset: int) -> None:
        raise PolicyError(message, self._file, self._line, offset + 1)
