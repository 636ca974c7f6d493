# SPDX-License-Identifier: BSD-2-Clause
"""Where information can flow under a policy: paths of types, and the rules that make each step.

A rule that lets a subject *write* to an object moves information from the one to the other; one
that lets it *read*, the other way. `SENSES` says which each permission does, and how much passes.
Types alone are looked at, as in setools' analysis: constraints, roles, levels and extended rules
may stop what is found here. Permissive types are taken at their rules; while they are permissive
they may do more. What goes through rights that are passed on is used by somebody, under a rule of
its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..cil.contexts import named
from ..cil.evaluate import holds
from ..cil.policydb import SELF, PolicyClass, PolicyDatabase, Rule, RuleKind

__all__ = ["DEFAULT_WEIGHT", "METHOD", "SENSES", "Flow", "FlowGraph", "Sense", "Step", "sense"]


class Sense(NamedTuple):
    """What a permission does with information.

    Attributes:
        direction: "w": from the subject to the object; "r": from the object to the subject; "b":
            both; "n": neither.
        weight: how much, from 10, what it is for, to 1, hardly any; 0 for "n".
    """

    direction: str
    weight: int


def _senses(text: str) -> dict[str, Sense]:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: Sense(direction, int(weight)) for name, direction, weight in rows}


SENSES: Mapping[str, Mapping[str, Sense]] = {
    # Giving and taking rights moves none by itself: what goes through the right is another rule's.
    # A right that is taken can tell by being dropped; what a message carries is part of the send.
    "mach_port": _senses("""
        relabelfrom          r 5
        relabelto            w 5
        send                 w 10
        recv                 r 1
        make_send            n 0
        make_send_once       n 0
        copy_send            n 0
        move_send            n 0
        move_send_once       n 0
        move_recv            n 0
        hold_send            w 1
        hold_send_once       w 1
        hold_recv            r 5
        use_recv             r 10
        carry_rights         w 5
        carry_memory         w 10
        set_reply            w 2
        specify              n 0
        interpose            n 0
        get_attributes       r 3
        set_attributes       w 3
        request_notification r 2
    """),
    "mach_task": _senses("""
        terminate            w 1
        set_special_port     w 5
        get_special_port     r 5
        create               w 5
        insert_right         w 5
        extract_right        b 5
        observe              r 5
        relabelfrom          r 5
        relabelto            w 5
    """),
    "service": _senses("""
        look_up              r 3
        register             w 3
        check_in             b 3
        create               w 3
        status               r 3
        list                 r 3
    """),
    "kernel": _senses("""
        reload_policy        w 5
        set_mode             w 2
        inspect              r 10
        audit_control        b 10
    """),
}  # fmt: skip
"""The sense of every hook. `recv` names the sender, and moves something only through a port, whose
`send` and `use_recv` are the way: its own weight is small so that ways through ports are found."""

METHOD = Sense("w", 10)
"""The sense of a method: its arguments go to the port. The answer is a message of the server's own,
to the port of the reply right: its `send` is asked there."""

DEFAULT_WEIGHT = 3
"""What weighs less is left out unless asked for, as in setools."""

_NONE = Sense("n", 0)


def sense(tclass: str, permission: str) -> Sense:
    """Return what a permission does with information; of foreign classes: nothing.

    Example:
        >>> sense("mach_port", "send")
        Sense(direction='w', weight=10)
    """
    if tclass.startswith("mi_"):
        return METHOD
    return SENSES.get(tclass, {}).get(permission, _NONE)


class Step(NamedTuple):
    """Information goes from one type to another: `rules` say so, each with what it uses.

    Attributes:
        source, target: names of types.
        rules: (rule, permissions, whether it is the target that reads).
    """

    source: str
    target: str
    rules: tuple[tuple[Rule, tuple[str, ...], bool], ...]


Flow = tuple[Step, ...]
"""A path, step by step."""


@dataclass(slots=True)
class _Reach:
    """From a type or attribute, as rules name it, to a set of types, and the rules that say so."""

    members: int = 0
    rules: list[tuple[Rule, int, bool]] = field(default_factory=list)


class FlowGraph:
    """The flows that the rules in force allow.

    Args:
        db: the policy.
        booleans: values of booleans where they are not the defaults.
        classes: the classes that count; by default all.
        weight: permissions that weigh less do not count.

    Raises:
        PolicyError: the policy has no such class.

    Example:
        >>> from pympi.policy.cil import compile_policy
        >>> db = compile_policy([("office.cil", '''(type editor_t)(type spool_t)(type printd_t)
        ...     (allow editor_t spool_t (mach_port (send)))
        ...     (allow printd_t spool_t (mach_port (use_recv)))''')])
        >>> (path,) = FlowGraph(db).paths("editor_t", "printd_t")
        >>> [step.target for step in path]
        ['spool_t', 'printd_t']
    """

    def __init__(
        self, db: PolicyDatabase, *, booleans: Mapping[str, bool] | None = None,
        classes: Collection[str] = (), weight: int = DEFAULT_WEIGHT,
    ) -> None:  # fmt: skip
        self.db = db
        for name in classes:
            named(db.tclass, name, "class", db.classes)
        counted = [each for each in db.classes if not classes or each.name in classes]
        self._write = {each.number: _mask(each, "wb", weight) for each in counted}
        self._read = {each.number: _mask(each, "rb", weight) for each in counted}
        self._reach: dict[int, _Reach] = {}
        self._numbers: dict[int, tuple[int, ...]] = {}
        state = {**db.booleans, **(booleans or {})}
        true = [holds(each.expression, state) for each in db.conditions]
        for rule in db.rules:
            if rule.kind is RuleKind.ALLOW and rule.target != SELF and _in_force(rule, true):
                self._add(rule)
        sets = (number for number in self._reach if number >= db.type_count)
        self._attributes = [(number, db.types[number].members) for number in sets]

    def _add(self, rule: Rule) -> None:
        written = rule.permissions & self._write.get(rule.tclass, 0)
        read = rule.permissions & self._read.get(rule.tclass, 0)
        if written:
            self._link(rule.source, rule.target, (rule, written, False))
        if read:
            self._link(rule.target, rule.source, (rule, read, True))

    def _link(self, source: int, target: int, why: tuple[Rule, int, bool]) -> None:
        reach = self._reach.setdefault(source, _Reach())
        reach.members |= self.db.types[target].members
        reach.rules.append(why)

    def successors(self, number: int) -> int:
        """Return the types that information of a type goes to in one step, as a set of bits."""
        found = 0
        for each in self._names(number):
            found |= self._reach[each].members
        return found & ~(1 << number)

    def _names(self, number: int) -> tuple[int, ...]:
        """Return what a type may be called in rules: itself and its attributes."""
        found = self._numbers.get(number)
        if found is None:
            own = (number,) if number in self._reach else ()
            sets = (each for each, members in self._attributes if members >> number & 1)
            found = self._numbers[number] = (*own, *sets)
        return found

    def distances(
        self, source: str, *, most: int | None = None, until: str | None = None
    ) -> dict[int, int]:
        """Return how many steps away each type is that can be reached, by its number.

        Args:
            source: a type's name.
            most: steps to look.
            until: a type's name: what is farther away is not looked for.
        """
        end = None if until is None else self.db.type(until).number
        first = self.db.type(source).number
        found, seen, frontier, steps = {first: 0}, 1 << first, [first], 0
        while frontier and (most is None or steps < most) and end not in found:
            steps += 1
            reached = 0
            for number in frontier:
                reached |= self.successors(number)
            frontier = list(_bits(reached & ~seen))
            seen |= reached
            found.update(dict.fromkeys(frontier, steps))
        return found

    def paths(
        self, source: str, target: str, *, most: int | None = None, limit: int = 10
    ) -> list[Flow]:
        """Return the shortest paths from a type to another.

        Args:
            source, target: names of types.
            most: steps a path may have; None for any number.
            limit: how many paths are returned.
        """
        distances = self.distances(source, most=most, until=target)
        end = self.db.type(target).number
        if end not in distances or not distances[end]:
            return []
        before = [0] * (distances[end] + 1)
        for number, distance in distances.items():
            if distance < len(before):
                before[distance] |= 1 << number
        useful = self._useful(before, end)
        found: list[Flow] = []
        for path in self._walk(self.db.type(source).number, useful):
            found.append(tuple(map(self._step, path, path[1:])))
            if len(found) >= limit:
                break
        return found

    def _useful(self, layers: list[int], end: int) -> list[int]:
        """Return of the types at each distance those from which the end is reached in time."""
        useful = [1 << end]
        for layer in reversed(layers[:-1]):
            leading = (n for n in _bits(layer) if self.successors(n) & useful[-1])
            useful.append(sum(1 << number for number in leading))
        return useful[::-1]

    def _walk(self, first: int, useful: list[int]) -> Iterator[tuple[int, ...]]:
        """Yield the paths through the layers, depth first."""
        stack: list[tuple[int, ...]] = [(first,)]
        while stack:
            path = stack.pop()
            if len(path) == len(useful):
                yield path
                continue
            following = self.successors(path[-1]) & useful[len(path)]
            stack += [(*path, number) for number in sorted(_bits(following), reverse=True)]

    def _step(self, source: int, target: int) -> Step:
        db = self.db
        rules = [
            (rule, db.classes[rule.tclass].names(vector), reads)
            for name in self._names(source)
            for rule, vector, reads in self._reach[name].rules
            if db.types[rule.source if reads else rule.target].members >> target & 1
        ]
        rules.sort(key=lambda each: (each[0].file, each[0].line, each[2]))
        return Step(db.types[source].name, db.types[target].name, tuple(rules))


def _mask(tclass: PolicyClass, directions: str, weight: int) -> int:
    """Return the permissions of a class that move information this way."""
    senses = (sense(tclass.name, name) for name in tclass.permissions)
    return sum(
        1 << bit
        for bit, (direction, much) in enumerate(senses)
        if direction in directions and much >= weight
    )


def _in_force(rule: Rule, true: list[bool]) -> bool:
    return not rule.condition or true[abs(rule.condition) - 1] is (rule.condition > 0)


def _bits(number: int) -> Iterable[int]:
    return (bit for bit, digit in enumerate(reversed(f"{number:b}")) if digit == "1")
