# SPDX-License-Identifier: BSD-2-Clause
"""What a policy may cost to read. Text comes from anywhere; its reader ends, and soon."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on a policy; whoever passes one gets a `PolicyError` that names it.

    Attributes:
        bytes: of text, in all files together.
        line: characters in a line.
        tokens: words and parentheses, in all files together.
        depth: of nested parentheses.
        identifier: characters in a name, its blocks included; the default is CIL's own limit.
        types: types and attributes declared.
        rules: rules, once class maps and sets of permissions are expanded.
        operands: names read in set expressions, of attributes, categories and permissions.
        comparisons: of rules with rules, for neverallow and for type rules that contradict.

    Example:
        >>> from pympi.policy.cil import Budget, compile_policy
        >>> len(compile_policy([("small.cil", "(type editor_t)")], budget=Budget(types=10)).types)
        3
    """

    bytes: int = 64 << 20
    line: int = 1_000_000
    tokens: int = 16_000_000
    depth: int = 64
    identifier: int = 2047
    types: int = 20_000
    rules: int = 2_000_000
    operands: int = 4_000_000
    comparisons: int = 4_000_000
