# SPDX-License-Identifier: BSD-2-Clause
"""The least policy that allows what was recorded, as CIL, and the certificate that says why.

    learned = learn(["boot.trace", "day.audit"])
    policy, certificate = learned.text, learned.certificate

`docs/learn.md` describes both; `certificate.check` verifies them without trusting this module.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...enums import CLASSES
from ...errors import PolicyError, PympiError
from ..cil.budget import Budget
from ..cil.reader import Node, Sources
from ..files import decode, read_bytes
from .closure import Grant
from .recording import Recording, RecordingError, read_recording

__all__ = ["FAMILIES", "GENERALISATIONS", "UNSEEN", "Forbidden", "Learned", "Neverallow", "learn"]

UNSEEN = "methods (mi_ classes), services, attributes, notifications, proxies and acts on tasks"
"""What a trace does not show, so that of these a policy allows no more than a replay needs."""

_BIRTHS = "births; these may be needed, of each task one at most, where its ports are born so"
"""What audit files do not show, and what the lines are that follow."""

#: What is done with a port of one's own, whoever else has rights to it.
_OWNERS = frozenset({"make_send", "make_send_once", "use_recv"})

#: What "families" widens: who has one permission of a family gets all of it.
FAMILIES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "mach_port": (
        ("send", "copy_send", "move_send", "hold_send"),
        ("make_send", "make_send_once", "use_recv"),
        ("move_send_once", "hold_send_once"),
        ("move_recv", "hold_recv", "request_notification"),
    ),
    "service": (("look_up", "status", "list"), ("register", "check_in", "create")),
}
#: What may be generalised: see docs/learn.md.
GENERALISATIONS = ("families", "sources", "targets")

_Rules = dict[tuple[str, str, str], frozenset[str]]


class Forbidden(PympiError):
    """A neverallow forbids what was recorded, or what the recording needs.

    Attributes:
        grants (list[Grant]): what it forbids.
        file (str), line (int): where it was written.
    """

    def __init__(self, neverallow: Neverallow, grants: list[Grant]) -> None:
        also = f", and {len(grants) - 1} more" if len(grants) > 1 else ""
        where = f"{neverallow.file}:{neverallow.line}"
        super().__init__(f"{where}: {neverallow.text} forbids {grants[0]}, which is needed{also}")
        self.grants = grants
        self.file, self.line = neverallow.file, neverallow.line


@dataclass(frozen=True)
class Neverallow:
    """A neverallow rule, its attributes expanded.

    Attributes:
        text: in the form in which it stands in the policy.
        sources, targets: types; targets is None for self.
        tclass, permissions: what it forbids.
        file, line: where it was written.
    """

    text: str
    sources: frozenset[str]
    targets: frozenset[str] | None
    tclass: str
    permissions: frozenset[str]
    file: str
    line: int

    def forbids(self, grant: Grant) -> bool:
        """Whether the rule forbids this."""
        targets = {grant.source} if self.targets is None else self.targets
        return (
            grant.source in self.sources
            and grant.target in targets
            and grant.tclass == self.tclass
            and grant.permission in self.permissions
        )


@dataclass(frozen=True)
class Learned:
    """A policy and what it was learned from.

    Attributes:
        recordings: what was read.
        recorded: each permission that was used, and how often.
        closure: what traces do not show, and the run or a replay of them needs.
        generalised: what was granted beyond that.
        neverallows: what the policy promises not to allow.
        text: the policy, as CIL.
        certificate: JSON that justifies each permission the policy grants.
    """

    recordings: tuple[Recording, ...]
    recorded: Mapping[Grant, int]
    closure: frozenset[Grant]
    generalised: frozenset[Grant]
    neverallows: tuple[Neverallow, ...]
    text: str

    @property
    def from_traces(self) -> bool:
        """Whether a recording was a trace, so that the policy may lack what is UNSEEN."""
        return _from_traces(self.recordings)

    @property
    def births(self) -> list[str]:
        """Type transitions, as CIL, that the run of audit files may need: see docs/learn.md."""
        return _births(self.recordings)

    @property
    def grants(self) -> set[Grant]:
        """Everything the policy allows."""
        return {*self.recorded, *self.closure, *self.generalised}

    @cached_property
    def certificate(self) -> str:
        """The certificate, as JSON text."""
        rows = {
            "recorded": [[*grant, self.recorded[grant]] for grant in sorted(self.recorded)],
            "closure": [list(grant) for grant in sorted(self.closure)],
            "generalised": [list(grant) for grant in sorted(self.generalised)],
        }
        return _json(
            {
                "format": "pympi policy certificate 1",
                "policy": hashlib.sha256(self.text.encode()).hexdigest(),
                "recordings": [
                    {"sha256": each.sha256, "kind": each.kind, "lost": each.lost}
                    | ({"sampled": each.sampled} if each.sampled else {})
                    for each in self.recordings
                ],
                **rows,
                "neverallows": [each.text for each in self.neverallows],
            }
        )


def _json(value: Mapping[str, Any]) -> str:
    """JSON with each row of a list on a line of its own."""
    parts = []
    for key, part in value.items():
        text = json.dumps(part)
        if isinstance(part, list) and part:
            text = "[\n  " + ",\n  ".join(map(json.dumps, part)) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def learn(
    sources: Iterable[str | os.PathLike[str]],
    *,
    generalise: Collection[str] = (),
    neverallow: str | os.PathLike[str] | None = None,
    advance: Callable[[int], object] = lambda size: None,
) -> Learned:
    """Learn the least policy from recordings.

    Args:
        sources: files: traces in SEDarwin's or the full form, and audit files.
        generalise: any of "families" (who has one permission of a family gets all of it; what a
            neverallow forbids is left out), "sources" and "targets" (those with equal rules share
            an attribute, which grants nothing more).
        neverallow: a file of CIL with neverallow rules, and types and attributes for them.
        advance: told how many bytes were read, again and again.

    Raises:
        ValueError: an unknown generalisation.
        TraceError, AuditError, RecordingError: a recording that cannot be used.
        PolicyError: the neverallow file is not in the form that is read here.
        Forbidden: a neverallow forbids what is needed.
        OSError: a file cannot be read.
    """
    if unknown := set(generalise) - set(GENERALISATIONS):
        known = ", ".join(GENERALISATIONS)
        raise ValueError(f"expected generalisations among {known}, found {min(unknown)!r}")
    recordings = tuple(read_recording(source, advance) for source in sources)
    for each in recordings:
        if each.levels:
            raise RecordingError(
                f"{each.name}: expected contexts user:role:type, without levels, which are not"
                f" learned; found {each.levels!r}"
            )
    recorded = Counter[Grant]()
    for recording in recordings:
        recorded.update(recording.used)
    closure = frozenset(
        g for recording in recordings for g in recording.closure if g not in recorded
    )
    types = {context.type for recording in recordings for context in recording.contexts}
    limits = _Limits(types)
    if neverallow is not None:
        limits.read(Path(neverallow))
    needed = {*recorded, *closure}
    limits.hold(needed)
    widened = _widened(needed) if "families" in generalise else set()
    generalised = {grant for grant in widened - needed if not limits.forbidding(grant)}
    text = _Writer(recordings, limits).text(needed | generalised, generalise)
    return Learned(recordings, recorded, closure, frozenset(generalised), tuple(limits.rules), text)


def _from_traces(recordings: Iterable[Recording]) -> bool:
    return any(each.new_ports for each in recordings)


def _births(recordings: Sequence[Recording]) -> list[str]:
    """Type transitions for ports in audit files that have another type than their tasks.

    No record says which type a port was born with, so the policy does not have them. What a task
    relabels to is not here: it asked for that label itself.
    """
    pairs: set[tuple[str, str]] = set()
    for each in recordings:
        if not each.new_ports:  # of records
            ports = [grant for grant in each.used if grant.tclass == "mach_port"]
            had = {(g.source, g.target) for g in ports if g.permission in _OWNERS}
            pairs |= had - {(g.source, g.target) for g in ports if g.permission == "relabelto"}
    known = {pair for each in recordings for pair in each.new_ports}
    return [_born(*pair) for pair in sorted(pairs - known) if pair[0] != pair[1]]


def _widened(grants: set[Grant]) -> set[Grant]:
    wide = set()
    for grant in grants:
        for family in FAMILIES.get(grant.tclass, ()):
            if grant.permission in family:
                wide |= {grant._replace(permission=permission) for permission in family}
    return wide


# --- neverallow -----------------------------------------------------------------------------------


class _Limits:
    """The neverallow file: (type t), (typeattribute a), (typeattributeset a (t...)) and
    (neverallow source target|self (class (permission...)|(all))), in any order but declared first.

    Attributes:
        types: of the recordings, and what the file declares.
        attributes: types by attribute.
        declared: what the policy repeats of the file before the rules.
        rules: the neverallows.
    """

    def __init__(self, types: Iterable[str]) -> None:
        self.types = set(types)
        self.attributes: dict[str, set[str]] = {}
        self.declared: list[str] = []
        self.rules: list[Neverallow] = []

    def hold(self, grants: set[Grant]) -> None:
        """Raise Forbidden if a rule forbids one of the grants."""
        for rule in self.rules:
            if broken := sorted(filter(rule.forbids, grants)):
                raise Forbidden(rule, broken)

    def forbidding(self, grant: Grant) -> bool:
        """Whether any rule forbids this."""
        return any(rule.forbids(grant) for rule in self.rules)

    def read(self, path: Path) -> None:
        """Read the file. Raises PolicyError."""
        budget = Budget()
        text = decode(str(path), read_bytes(path, budget.bytes)[0])
        self._sources = Sources(budget)
        readers = {
            "type": self._type,
            "typeattribute": self._attribute,
            "typeattributeset": self._members,
            "neverallow": self._rule,
        }
        for node in self._sources.statements(self._sources.add(str(path), text)):
            word = node[1] if len(node) > 1 else None
            if not isinstance(word, str) or word not in readers:
                raise self._error(f"expected one of {', '.join(readers)}", node)
            readers[word](node)

    def _error(self, message: str, node: Node) -> PolicyError:
        return self._sources.error(message, node[0])

    def _words(self, node: Node, *shape: str) -> list[Any]:
        """What stands in a statement: "w" for a word, "l" for a list of words or of lists."""
        items = list(node[2:])
        fits = [isinstance(item, tuple) == (kind == "l") for item, kind in zip(items, shape)]  # noqa: B905
        if len(items) != len(shape) or not all(fits):
            raise self._error(f"expected {node[1]} with {len(shape)} arguments in this form", node)
        return items

    def _type(self, node: Node) -> None:
        (name,) = self._words(node, "w")
        self.types.add(name)

    def _attribute(self, node: Node) -> None:
        (name,) = self._words(node, "w")
        if name in self.types or name in self.attributes:
            raise self._error(f"{name} is declared already", node)
        self.attributes[name] = set()
        self.declared.append(f"(typeattribute {name})")

    def _members(self, node: Node) -> None:
        name, members = self._words(node, "w", "l")
        if name not in self.attributes:
            raise self._error(f"{name} is no attribute declared above", node)
        wrong = [item for item in members[1:] if item not in self.types]
        if wrong or len(members) < 2:
            what = f"{wrong[0]!r} is no" if wrong else "expected a"
            raise self._error(f"{what} type of the recordings or declared above", node)
        self.attributes[name] |= set(members[1:])
        self.declared.append(f"(typeattributeset {name} ({' '.join(members[1:])}))")

    def _side(self, name: str, node: Node) -> frozenset[str]:
        if name in self.attributes:
            return frozenset(self.attributes[name])
        if name not in self.types:
            message = f"{name} is neither a type of the recordings nor declared above"
            raise self._error(f"{message}: (type {name}) declares it", node)
        return frozenset({name})

    def _rule(self, node: Node) -> None:
        source, target, access = self._words(node, "w", "w", "l")
        if len(access) != 3 or access[1] not in CLASSES or not isinstance(access[2], tuple):
            raise self._error(f"expected (class (permissions)), of {', '.join(CLASSES)}", node)
        tclass, names = CLASSES[access[1]], list(access[2][1:])
        if names == ["all"]:
            names = list(tclass.bits)
        if not names or any(name not in tclass.bits for name in names):
            raise self._error(
                f"expected permissions of {tclass.name}: {' '.join(tclass.bits)}", node
            )
        text = f"(neverallow {source} {target} ({tclass.name} ({' '.join(sorted(set(names)))})))"
        targets = None if target == "self" else self._side(target, node)
        where = self._sources.origin(node[0])
        self.rules.append(
            Neverallow(
                text, self._side(source, node), targets, tclass.name, frozenset(names),
                where.file, where.line,
            )
        )  # fmt: skip


# --- the text -------------------------------------------------------------------------------------


class _Writer:
    """Writes the policy: one statement in a line, always in the same order."""

    def __init__(self, recordings: Sequence[Recording], limits: _Limits) -> None:
        self._contexts = {context for each in recordings for context in each.contexts}
        self._new_ports = {pair for each in recordings for pair in each.new_ports}
        self._unseen = _from_traces(recordings)
        self._births = _births(recordings)
        self._classes: dict[str, tuple[str, ...]] = {}
        for each in recordings:
            for name, permissions in each.classes.items():
                if self._classes.setdefault(name, permissions) != permissions:
                    raise PolicyError(f"class {name} is not the same in all recordings")
        self._limits = limits

    def text(self, grants: set[Grant], generalise: Collection[str]) -> str:
        permissions: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
        for grant in grants:
            permissions[grant[:3]].add(grant.permission)
        rules: _Rules = {key: frozenset(names) for key, names in permissions.items()}
        sets: list[str] = []
        for side, kind in enumerate(("sources", "targets")):
            if kind in generalise:
                rules, shared = self._share(rules, side, kind)
                sets += shared
        lines = [
            "; What was recorded, and no more. Written by pympi policy learn; certified.",
            *[f"; Traces do not show {UNSEEN}."] * self._unseen,
            *[f"; Audit files do not show {_BIRTHS}:"] * bool(self._births),
            *(f";   {line}" for line in self._births),
            *self._declarations(),
            *self._limits.declared,
            *sets,
            *(rule.text for rule in self._limits.rules),
            *(_allow(key, rules[key]) for key in sorted(rules)),
        ]
        return "\n".join(lines) + "\n"

    def _declarations(self) -> Iterator[str]:
        roles = {"object_r"} | {context.role for context in self._contexts}
        users = {(c.user, c.role) for c in self._contexts} | {("system_u", "object_r")}
        typed = {(c.role, c.type) for c in self._contexts if c.role != "object_r"}
        yield from (f"(user {user})" for user in sorted({user for user, _ in users}))
        yield from (f"(role {role})" for role in sorted(roles))
        yield from (f"(userrole {user} {role})" for user, role in sorted(users))
        for name in sorted(self._classes.keys() - CLASSES.keys()):
            yield f"(class {name} ({' '.join(self._classes[name])}))"
        yield from _types(self._limits.types)
        yield from (f"(roletype {role} {type_})" for role, type_ in sorted(typed))
        for task, port in sorted(self._new_ports):
            yield _born(task, port)

    def _share(self, rules: _Rules, side: int, kind: str) -> tuple[_Rules, list[str]]:
        """Rules in which names with equal rules share an attribute, and the attributes."""
        of: defaultdict[str, list[tuple[tuple[str, ...], frozenset[str]]]] = defaultdict(list)
        for key in sorted(rules):
            others = key[:side] + key[side + 1 :]
            of[key[side]].append((others, rules[key]))
        alike: defaultdict[Any, list[str]] = defaultdict(list)
        for name in sorted(of):
            alike[tuple(of[name])].append(name)
        names: dict[str, str] = {}
        lines = []
        for number, group in enumerate((g for g in alike.values() if len(g) > 1), 1):
            attribute = self._fresh(f"{kind}_{number}")
            names |= dict.fromkeys(group, attribute)
            lines += [
                f"(typeattribute {attribute})",
                f"(typeattributeset {attribute} ({' '.join(group)}))",
            ]
        renamed = {}
        for (source, target, tclass), permissions in rules.items():
            if side == 0:
                source = names.get(source, source)
            else:
                target = names.get(target, target)
            renamed[source, target, tclass] = permissions
        return renamed, lines

    def _fresh(self, name: str) -> str:
        while name in self._limits.types or name in self._limits.attributes:
            name += "_"
        return name


def _types(names: Iterable[str]) -> Iterator[str]:
    """Declarations of types; one whose name has dots is declared in the blocks it names."""
    known: set[str] = set()
    for name in sorted(names):
        *blocks, last = name.split(".")
        for depth, block in enumerate(blocks):
            path = ".".join(blocks[: depth + 1])
            if path not in known:
                known.add(path)
                yield _declared("block", block, blocks[:depth])
        yield _declared("type", last, blocks)


def _declared(what: str, name: str, blocks: list[str]) -> str:
    statement = f"({what} {name})"
    return f"(in {'.'.join(blocks)} {statement})" if blocks else statement


def _born(task: str, port: str) -> str:
    return f"(typetransition {task} {task} mach_port {port})"


def _allow(key: tuple[str, str, str], permissions: Iterable[str]) -> str:
    source, target, tclass = key
    return f"(allow {source} {target} ({tclass} ({' '.join(sorted(permissions))})))"
