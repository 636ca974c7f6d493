# SPDX-License-Identifier: BSD-2-Clause
"""The base: what a policy leaves out and needs, as CIL text that is read after it.

So that a short text is a policy: our classes, an order of classes, initial SIDs and their contexts,
a user and roles for them, a sensitivity, and levels of users where levels mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

from ...enums import CLASSES
from .bits import members
from .classes import LARGEST
from .mls import OBJECT_ROLE, Levels
from .orders import merge
from .scope import Draft

__all__ = ["NAME", "RULE", "check_classes", "declarations", "supplement"]

NAME = "<base>"
USER, ROLES = "system_u", (OBJECT_ROLE, "system_r")
SIDS = {"kernel": "kernel_t", "unlabeled": "unlabeled_t"}
LOWEST = "s0"
RULE = f"(auditallow {SIDS['kernel']} self (kernel (inspect)))"
"""For a policy that has no rule in force: SELinux's tools want one. It allows nothing, and nothing
that is not allowed is recorded as allowed."""


def declarations(draft: Draft) -> str:
    """Return the first part: names that the policy does not declare, and may use all the same."""
    lines = ["; what the policy leaves out"]
    if not draft.pending.get("handleunknown"):
        lines.append("(handleunknown deny)")
    if not draft.pending.get("mls"):
        lines.append("(mls false)")
    for tclass in CLASSES.values():
        if _lacks(draft, "class", tclass.name):
            lines.append(f"(class {tclass.name} ({' '.join(tclass.permissions)}))")
    names = {"type": SIDS.values(), "role": ROLES, "user": [USER], "sid": SIDS.keys()}
    for keyword, each in names.items():
        space = "SID" if keyword == "sid" else keyword
        lines += [f"({keyword} {name})" for name in each if _lacks(draft, space, name)]
    if not draft.symbols["sensitivity"]:
        lines += [f"(sensitivity {LOWEST})", f"(sensitivityorder ({LOWEST}))"]
    return "\n".join([*lines, ""])


def supplement(draft: Draft) -> str:
    """Return the second part, for a policy of which all names are known."""
    lines = [*_order(draft, "class", "classorder"), *_order(draft, "SID", "sidorder")]
    lines += [f"(userrole {USER} {role})" for role in ROLES]
    lines += [f"(roletype {OBJECT_ROLE} {name})" for name in SIDS.values()]
    order = merge(draft, "sensitivity", "sensitivityorder")
    if order:  # else that is an error of the policy, found later
        lines += [*_user_levels(draft, order[0].name), *_contexts(draft, order[0].name)]
    return "\n".join([*lines, ""])


def _lacks(draft: Draft, space: str, name: str) -> bool:
    return name not in draft.root.names.get(space, {})


def _order(draft: Draft, kind: str, keyword: str) -> Iterator[str]:
    """Yield an order of what is in none, joined to the last that is in one."""
    order = [symbol.name for symbol in merge(draft, kind, keyword)]
    placed = set(order)
    rest = [symbol.name for symbol in draft.symbols[kind] if symbol.name not in placed]
    if rest:
        yield f"({keyword} ({_listed([*order[-1:], *rest])}))"


def _user_levels(draft: Draft, lowest: str) -> Iterator[str]:
    for user in _without(draft, "userlevel"):
        yield f"(userlevel {user} ({lowest}))"
    users = _without(draft, "userrange")
    if users:
        name = _unused(draft, "levelrange", "every_level")
        yield f"(levelrange {name} (({lowest}) {_highest(draft)}))"
    for user in users:
        yield f"(userrange {user} {name})"


def _unused(draft: Draft, space: str, name: str) -> str:
    names = draft.root.names.get(space, {})
    numbered = (f"{name}_{number}" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in names)


def _without(draft: Draft, keyword: str) -> list[str]:
    """Return the users that the base gives levels: its own, and all where mls is off."""
    mls = any(node[2] == "true" for _, node, _ in draft.pending["mls"])
    given = {
        draft.look("user", scope, node, 2) for scope, node, _ in draft.pending.get(keyword, ())
    }
    last = len(draft.sources.names) - 1
    return [
        user.name
        for user in draft.symbols["user"]
        if user not in given and (not mls or draft.sources.line(user.position)[0] == last)
    ]


def _highest(draft: Draft) -> str:
    """Return the highest sensitivity with all its categories, as text."""
    levels = Levels(draft)
    top, categories = levels.sensitivities()[-1], levels.categories()
    names = [categories[bit].name for bit in members(top.categories)]
    return f"({top.name} ({_listed(names)}))" if names else f"({top.name})"


def _listed(names: list[str]) -> str:
    """Return names, some on each line: there may be many."""
    return "\n".join(" ".join(names[at : at + 16]) for at in range(0, len(names), 16))


def _contexts(draft: Draft, lowest: str) -> Iterator[str]:
    statements = draft.pending.get("sidcontext", ())
    given = {draft.look("SID", scope, node, 2) for scope, node, _ in statements}
    for sid, name in SIDS.items():
        if draft.root.get("SID", sid) not in given:
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
