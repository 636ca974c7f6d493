# SPDX-License-Identifier: BSD-2-Clause
"""What a policy may cost to read. Text comes from anywhere; its reader ends, and soon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on a policy; whoever passes one gets a `PolicyError` that names it.

    The first five bound what the text is, the others what it multiplies to.

    Attributes:
        bytes: of text, in all files together, as UTF-8.
        line: characters in a line.
        tokens: words and parentheses, in all files together.
        depth: of nested parentheses.
        identifier: characters in a name, its blocks included; the default is CIL's own limit.
        types: types and attributes declared.
        rules: rules of all kinds and constraints, once class maps and sets of permissions are
            expanded.
        operands: names and lists read in set expressions, and what maps, sets of permissions and
            roles are put together from; one counts once more for each 16,384 members that its set
            could have.
        comparisons: of rules with rules, for neverallow and for type rules that contradict.
        memory: bytes that names, sets and constraints take, as estimated; equal sets are kept,
            and counted, once.

    Example:
        >>> from pympi.policy.cil import Budget, compile_policy
        >>> len(compile_policy([("small.cil", "(type editor_t)")], budget=Budget(types=10)).types)
        3
    """

    bytes: int = 32 << 20
    line: int = 1_000_000
    tokens: int = 6_000_000
    depth: int = 64
    identifier: int = 2047
    types: int = 20_000
    rules: int = 1_000_000
    operands: int = 4_000_000
    comparisons: int = 4_000_000
    memory: int = 256 << 20

    def exceeded(self, name: str) -> str:
        """Return what to say when a limit is passed, and what would be right."""
        limit = getattr(self, name)
        return f"more than {limit} {_COUNTED[name]} (Budget.{name}); {_REMEDY[name]}"


_COUNTED: Mapping[str, str] = {
    "bytes": "bytes of text",
    "line": "characters in a line",
    "tokens": "words and parentheses",
    "depth": "nested parentheses",
    "identifier": "characters in a name",
    "types": "types and attributes",
    "rules": "rules",
    "operands": "names in set expressions and parts of sets",
    "comparisons": "comparisons of rules",
    "memory": "bytes for names, sets and constraints",
}
_FEWER = "write fewer, or pass a larger budget"
_REMEDY: Mapping[str, str] = {
    **dict.fromkeys(_COUNTED, _FEWER),
    "line": "break the line",
    "depth": "nest less",
    "identifier": "use a shorter one",
    "comparisons": "have fewer rules about attributes, or pass a larger budget",
    "memory": "declare fewer names or name smaller sets, or pass a larger budget",
}
