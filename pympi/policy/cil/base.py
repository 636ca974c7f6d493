# SPDX-License-Identifier: BSD-2-Clause
"""The base: what a policy leaves out and needs, as CIL text that is read after it.

So that a short text is a policy: our classes, an order of classes, initial SIDs and their contexts,
a user and roles for them, a sensitivity, and levels of users where levels mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...enums import CLASSES
from .classes import LARGEST
from .mls import OBJECT_ROLE, Levels
from .orders import merge
from .scope import Draft, Symbol

__all__ = ["NAME", "check_classes", "supply"]

NAME = "<base>"
USER, ROLES = "system_u", (OBJECT_ROLE, "system_r")
SIDS = {"kernel": "kernel_t", "unlabeled": "unlabeled_t"}
LOWEST = "s0"
# SELinux's compiler wants a rule outside booleanif; this one allows nothing.
_RULE = f"(allow {SIDS['kernel']} self ({next(iter(CLASSES))} (not (all))))"


def supply(draft: Draft) -> str:
    """Return the base's text for a policy of which all declarations are known."""
    lines = ["; what the policy leaves out"]
    for part in (_statements, _classes, _types_and_roles, _levels, _sids):
        lines += part(draft)
    return "\n".join([*lines, _RULE, ""])


def _lacks(draft: Draft, space: str, name: str) -> bool:
    return name not in draft.root.names.get(space, {})


def _statements(draft: Draft) -> Iterator[str]:
    if not draft.pending.get("handleunknown"):
        yield "(handleunknown deny)"
    if not draft.pending.get("mls"):
        yield "(mls false)"


def _classes(draft: Draft) -> Iterator[str]:
    own = [tclass for tclass in CLASSES.values() if _lacks(draft, "class", tclass.name)]
    for tclass in own:
        yield f"(class {tclass.name} ({' '.join(tclass.permissions)}))"
    order = [symbol.name for symbol in merge(draft, "class", "classorder")]
    rest = [s.name for s in draft.symbols["class"] if s.name not in set(order)]
    yield from _chain("classorder", order, [*rest, *(tclass.name for tclass in own)])


def _chain(keyword: str, order: list[str], rest: Iterable[str]) -> Iterator[str]:
    """Yield an order of the rest, joined to the last that has a place."""
    names = list(rest)
    if names:
        yield f"({keyword} ({' '.join([*order[-1:], *names])}))"


def _types_and_roles(draft: Draft) -> Iterator[str]:
    for name in SIDS.values():
        if _lacks(draft, "type", name):
            yield f"(type {name})"
    for role in ROLES:
        if _lacks(draft, "role", role):
            yield f"(role {role})"
    if _lacks(draft, "user", USER):
        yield f"(user {USER})"
    for role in ROLES:
        yield f"(userrole {USER} {role})"
    for name in SIDS.values():
        yield f"(roletype {OBJECT_ROLE} {name})"


def _levels(draft: Draft) -> Iterator[str]:
    order = [symbol.name for symbol in merge(draft, "sensitivity", "sensitivityorder")]
    if not draft.symbols["sensitivity"]:
        yield f"(sensitivity {LOWEST})"
        yield f"(sensitivityorder ({LOWEST}))"
        order = [LOWEST]
    if not order:
        return  # there are sensitivities and no order: an error of the policy, found later
    lowest = order[0]
    for user in _without_levels(draft, "userlevel"):
        yield f"(userlevel {user} ({lowest}))"
    for user in _without_levels(draft, "userrange"):
        yield f"(userrange {user} (({lowest}) {_highest(draft, lowest)}))"


def _without_levels(draft: Draft, keyword: str) -> list[str]:
    """Return the users that the base gives a level: its own, and all where mls is off."""
    known: set[Symbol | None] = {
        draft.look("user", scope, node, 2) for scope, node, _ in draft.pending.get(keyword, ())
    }
    own = [USER] if _lacks(draft, "user", USER) else []
    users = [] if _mls(draft) else [s.name for s in draft.symbols["user"] if s not in known]
    return [*users, *own]


def _mls(draft: Draft) -> bool:
    return any(node[2] == "true" for _, node, _ in draft.pending.get("mls", ()))


def _highest(draft: Draft, lowest: str) -> str:
    """Return the highest sensitivity with all its categories, as text."""
    if not draft.symbols["sensitivity"]:
        return f"({lowest})"
    levels = Levels(draft)
    top, categories = levels.sensitivities()[-1], levels.categories()
    names = [each.name for bit, each in enumerate(categories) if top.categories >> bit & 1]
    return f"({top.name} ({' '.join(names)}))" if names else f"({top.name})"


def _sids(draft: Draft) -> Iterator[str]:
    order = [symbol.name for symbol in merge(draft, "SID", "sidorder")]
    own = [sid for sid in SIDS if _lacks(draft, "SID", sid)]
    for sid in own:
        yield f"(sid {sid})"
    rest = [s.name for s in draft.symbols["SID"] if s.name not in set(order)]
    yield from _chain("sidorder", order, [*own, *rest])
    sensitivities = merge(draft, "sensitivity", "sensitivityorder")
    lowest = sensitivities[0].name if sensitivities else LOWEST
    given = {
        draft.look("SID", scope, node, 2) for scope, node, _ in draft.pending.get("sidcontext", ())
    }
    for sid, name in SIDS.items():
        if draft.root.names.get("SID", {}).get(sid) not in given or sid in own:
            yield f"(sidcontext {sid} ({USER} {OBJECT_ROLE} {name} (({lowest}) ({lowest}))))"


def check_classes(draft: Draft) -> None:
    """Check that classes of ours that a policy declares have all our permissions.

    Raises:
        PolicyError: one lacks some.
    """
    for tclass in CLASSES.values():
        symbol = draft.root.names.get("class", {}).get(tclass.name)
        if symbol is None:
            continue
        lacking = [name for name in tclass.permissions if name and name not in symbol.words]
        if symbol.kind != "class" or lacking:
            words = " ".join(lacking) or "; this is no class"
            message = f"class {tclass.name} lacks permissions of pympi's: {words}"
            raise draft.sources.error(message, symbol.position, 2)


assert all(len(tclass.permissions) <= LARGEST for tclass in CLASSES.values())
