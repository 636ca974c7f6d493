# SPDX-License-Identifier: BSD-2-Clause
"""Rules files, as SEDarwin's tr2dot reads them: what to leave out, and what to colour.

    option ignore REGEX            leave out what has a matching name
    option color COLOR REGEX       draw in this colour what has a matching name

Empty lines and lines that begin with `#` mean nothing. REGEX is the rest of the line, an expression
as Python has them, which matches anywhere in a name.

Where an expression would not end, it is stopped: names are matched in a process of their own that
has a time limit. (Engines that are always linear know no look-around and no back-references, which
tr2dot's files may use.)
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import PympiError

__all__ = ["TIME_LIMIT", "Matches", "Rule", "RulesError", "match", "parse_rule", "read_rules"]

TIME_LIMIT = 5.0
"""Seconds that all expressions of a run may take, on all names."""

MAX_RULES = 1000
MAX_LINE = 4096  # bytes
_COLOR = re.compile(r"[A-Za-z][A-Za-z0-9]{0,31}|#[0-9A-Fa-f]{6}|#[0-9A-Fa-f]{8}")
_OPTION = re.compile(r"option\s+(?:(ignore)|(color)\s+(\S+))\s+(\S.*)")
_MATCHER = Path(__file__).with_name("_match.py")


class RulesError(PympiError, ValueError):
    """A rules file that cannot be used.

    Attributes:
        file (str): its name.
        line (int): 1-based; 0 when no line is to blame.
    """

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {message}" if line else f"{file}: {message}")
        self.file = file
        self.line = line


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of a rules file. `color` is "" for what is to be left out."""

    color: str
    pattern: str
    file: str = "rules"
    line: int = 0


def read_rules(path: str | os.PathLike[str]) -> list[Rule]:
    """Read a rules file.

    Raises:
        RulesError: naming file and line.
        OSError: the file cannot be opened or read.
    """
    rules: list[Rule] = []
    with Path(path).open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
            if raw.strip() and not raw.startswith(b"#"):
                rules.append(_parse(raw, str(path), number))
            if number > MAX_RULES:
                raise RulesError(str(path), number, f"expected at most {MAX_RULES} lines")
    return rules


def _parse(raw: bytes, file: str, number: int) -> Rule:
    if len(raw) > MAX_LINE:
        raise RulesError(file, number, f"expected a line of at most {MAX_LINE} bytes")
    try:
        return parse_rule(raw.decode().rstrip("\r\n"), file, number)
    except UnicodeDecodeError:
        raise RulesError(file, number, "expected UTF-8") from None


def parse_rule(line: str, file: str = "rules", number: int = 0) -> Rule:
    """Return what a line says. Raises RulesError."""
    found = _OPTION.fullmatch(line)
    if not found:
        expected = "'option ignore REGEX' or 'option color COLOR REGEX'"
        raise RulesError(file, number, f"expected {expected}, found {line[:80]!r}")
    color, pattern = found[3] or "", found[4]
    if color and not _COLOR.fullmatch(color):
        expected = "a colour: a name, #rrggbb or #rrggbbaa"
        raise RulesError(file, number, f"expected {expected}, found {color[:40]!r}")
    if why := _defect(pattern):
        raise RulesError(file, number, f"{pattern[:80]!r} is no expression of Python's: {why}")
    return Rule(color, pattern, file, number)


def _defect(pattern: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what reads otherwise in Perl, such as [[:alpha:]]
        try:
            re.compile(pattern)
            re.compile(pattern.encode())
        except (re.error, RecursionError, OverflowError, Warning, ValueError) as error:
            return str(error) or type(error).__name__
    return ""


class Matches:
    """Which rules match which names.

    Args:
        rules: in the order of the file.
        names: every name that will be asked about.
        raw: match bytes as Perl does, one by one: names are latin-1.
        limit: seconds for everything.

    Raises:
        RulesError: the time is over; the rule that took it is named.
    """

    def __init__(
        self, rules: Sequence[Rule], names: Iterable[str], *, raw: bool = False,
        limit: float = TIME_LIMIT,
    ) -> None:  # fmt: skip
        self.rules = list(rules)
        known = list(dict.fromkeys(names))
        found = match(self.rules, known, raw=raw, limit=limit) if self.rules and known else []
        self._by_rule = [{known[at] for at in places} for places in found] or [set()] * len(rules)

    def matches(self, rule: int, name: str) -> bool:
        """Return whether the rule of that number matches a name."""
        return name in self._by_rule[rule]

    def ignored(self, *names: str) -> bool:
        """Return whether anything called so is to be left out."""
        return any(
            not rule.color and not found.isdisjoint(names)
            for rule, found in zip(self.rules, self._by_rule, strict=True)
        )

    def color(self, *names: str) -> str:
        """Return the colour of what is called so, by the first rule that matches; or ""."""
        for rule, found in zip(self.rules, self._by_rule, strict=True):
            if rule.color and not found.isdisjoint(names):
                return rule.color
        return ""


def match(
    rules: Sequence[Rule], names: Sequence[str], *, raw: bool = False, limit: float = TIME_LIMIT
) -> list[list[int]]:
    """Return, for each rule, which of the names match. Raises RulesError: see `Matches`."""
    patterns = [rule.pattern for rule in rules]
    if raw:
        patterns = [pattern.encode().decode("latin-1") for pattern in patterns]
    question = json.dumps({"patterns": patterns, "names": list(names), "bytes": raw})
    command = [sys.executable or "python3", "-I", "-S", str(_MATCHER)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        try:
            printed, complaint = child.communicate(question.encode(), timeout=limit)
        except subprocess.TimeoutExpired:
            child.kill()
            printed, complaint = child.communicate()
            at = min(printed.count(b"\n"), len(rules) - 1)
            slow = rules[at]
            what = f"{slow.pattern[:80]!r} takes too long (all expressions have {limit:g} seconds)"
            raise RulesError(slow.file, slow.line, what) from None
    answers = printed.splitlines()
    if child.returncode or len(answers) != len(rules):
        said = complaint.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit code {child.returncode}"
        raise RulesError(rules[0].file, 0, f"the expressions cannot be matched: {why}")
    return [json.loads(answer) for answer in answers]
