# SPDX-License-Identifier: BSD-2-Clause
"""Security contexts as text, and what makes one valid (SELinux's policydb_context_isvalid).

    user:role:type                      without levels
    user:role:type:low[-high]           with: s0, s0:c1, s0-s2:c0.c3,c7

The text written is canonical: three or more categories in a row as c0.c2, two as c0,c1; a range
whose ends are the same as one level; names, never aliases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from ...errors import PolicyError
from .alike import alike
from .policydb import Context, Level, PolicyDatabase, Range, Role, TypeDatum, User

__all__ = [
    "OBJECT_R", "fault", "format_context", "lasting_text", "level_text", "named", "named_type",
    "nearest", "parse_context",
]  # fmt: skip

N = TypeVar("N")

OBJECT_R = "object_r"
"""The role of objects: it goes with every type and user, at every level."""

_LOWEST = Range(Level(0), Level(0))
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,5})")
_MARK = ":"


def parse_context(db: PolicyDatabase, text: str) -> Context:
    """Return the context that is written so.

    Args:
        db: the policy it is a context of.
        text: its fields, by name or alias.

    Raises:
        ValueError: the text is no valid context; it says what is wrong, and what would be right.
    """
    parts = text.split(_MARK, 3)
    if len(parts) != (4 if db.mls else 3):
        form = "user:role:type" + (":low[-high]" if db.mls else " (it has no levels)")
        raise ValueError(f"expected a context of this policy, {form}, found {text!r}")
    user = named(db.user, parts[0], "user", db.users)
    role = named(db.role, parts[1], "role", db.roles)
    levels = _range(db, parts[3]) if db.mls else _LOWEST
    kind = named_type(db, parts[2], "a context has a type")
    context = Context(user.number, role.number, kind.number, levels)
    wrong = fault(db, context)
    if wrong:
        raise ValueError(f"{text!r} is no valid context: {wrong}")
    return context


def format_context(db: PolicyDatabase, context: Context, *, lasting: bool = False) -> str:
    """Return the one text of a context: `parse_context(db, format_context(db, c)) == c`.

    Args:
        db: the policy.
        context: of that policy.
        lasting: as `lasting_text` has it, not as SELinux does.
    """
    fields = (db.users[context.user], db.roles[context.role], db.types[context.type])
    names = [field.name for field in fields]
    return _MARK.join([*names, _range_text(db, context.range, lasting)] if db.mls else names)


def lasting_text(db: PolicyDatabase, text: str) -> str:
    """Return the text of a context that no other order of categories gives another meaning.

    A run of categories speaks of their order, which another policy may have otherwise. It is
    written only where the names count up, as in c0.c3, and such a one is read only where it holds
    just those.

    Raises:
        ValueError: as `parse_context`; or a run whose names count up holds others.
    """
    context = parse_context(db, text)
    known = {name for each in db.categories for name in (each.name, *each.aliases)}
    for word in re.split("[:,-]", "".join(text.split(_MARK, 3)[3:])):
        first, _, last = word.partition(".")
        if {first, last} <= known and _counted(first, last) not in ([], _members(db, first, last)):
            raise ValueError(f"categories {word!r} hold others in this policy: write them out")
    return format_context(db, context, lasting=True)


def _members(db: PolicyDatabase, first: str, last: str) -> list[str]:
    """Return the names of a run, as the policy orders them."""
    bits = _category_set(db, f"{first}.{last}")
    return [category.name for bit, category in enumerate(db.categories) if bits >> bit & 1]


def _counted(first: str, last: str) -> list[str]:
    """Return c0 c1 c2 c3 for c0 and c3; nothing where the names do not count up."""
    one, other = _NUMBERED.fullmatch(first), _NUMBERED.fullmatch(last)
    if not one or not other or one[1] != other[1]:
        return []
    return [f"{one[1]}{number}" for number in range(int(one[2]), int(other[2]) + 1)]


def fault(db: PolicyDatabase, context: Context) -> str:
    """Return why a context is not valid, or "" if it is."""
    user, role, kind = db.users[context.user], db.roles[context.role], db.types[context.type]
    reasons = [*_range_faults(db, context.range)] if db.mls else []
    if role.name != OBJECT_R:
        reasons += _role_faults(user, role, kind)
        if db.mls and not _within(context.range, user.range):
            levels = _range_text(db, user.range)
            reasons.append(f"user {user.name} has the levels {levels}")
    return "; ".join(reasons)


def _role_faults(user: User, role: Role, kind: TypeDatum) -> Iterator[str]:
    if not role.types >> kind.number & 1:
        yield f"role {role.name} may not have type {kind.name}: (roletype {role.name} {kind.name})"
    if not user.roles >> role.number & 1:
        yield f"user {user.name} may not have role {role.name}: (userrole {user.name} {role.name})"


def _range_faults(db: PolicyDatabase, levels: Range) -> Iterator[str]:
    if not levels.high.dominates(levels.low):
        low, high = (level_text(db, level) for level in levels)
        yield f"level {high} does not dominate {low}"
    for level in dict.fromkeys(levels):
        sensitivity = db.sensitivities[level.sensitivity]
        foreign = level.categories & ~sensitivity.categories
        if foreign:
            yield f"sensitivity {sensitivity.name} has no categories {_categories(db, foreign)}"


def _within(inner: Range, outer: Range) -> bool:
    return inner.low.dominates(outer.low) and outer.high.dominates(inner.high)


# ---- names ----


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: those known that are like it, or a few of all."""
    names = sorted(known)
    if like := alike(name, names, 3, 0.6):
        return "did you mean " + " or ".join(like) + "?"
    return "there are: " + (", ".join(names[:8]) or "none") + (", ..." if names[8:] else "")


def named(find: Callable[[str], N], name: str, what: str, known: Iterable[Any]) -> N:
    """Return what has a name: what `find` returns, one of `PolicyDatabase`'s readers.

    Raises:
        PolicyError: it raises KeyError; says which names of those `known` are like it.
    """
    try:
        return find(name)
    except KeyError:
        hint = nearest(name, (each.name for each in known))
        raise PolicyError(f"no {what} {name!r}; {hint}") from None


def named_type(db: PolicyDatabase, name: str, wanted: str) -> TypeDatum:
    """Return a type; of an attribute say what is `wanted`.

    Raises:
        PolicyError: there is no such type.
    """
    found = named(db.type, name, "type", islice(db.types, db.type_count))  # mostly not looked at
    if found.attribute:
        raise PolicyError(f"{name!r} is an attribute, {wanted}")
    return found


# ---- levels ----


def _range(db: PolicyDatabase, text: str) -> Range:
    low, dash, high = text.partition("-")
    lowest = _level(db, low)
    return Range(lowest, _level(db, high) if dash else lowest)


def _level(db: PolicyDatabase, text: str) -> Level:
    name, colon, words = text.partition(":")
    categories = 0
    for word in words.split(",") if colon else ():
        categories |= _category_set(db, word)
    return Level(_rank(db, name), categories)


def _rank(db: PolicyDatabase, name: str) -> int:
    for rank, sensitivity in enumerate(db.sensitivities):
        if name == sensitivity.name or name in sensitivity.aliases:
            return rank
    hint = nearest(name, (each.name for each in db.sensitivities))
    raise ValueError(f"no sensitivity {name!r}; {hint}")


def _category_set(db: PolicyDatabase, word: str) -> int:
    """Return the categories of `c3`, or of a run `c0.c3`."""
    numbers = {
        name: bit
        for bit, category in enumerate(db.categories)
        for name in (category.name, *category.aliases)
    }
    if word in numbers:
        return 1 << numbers[word]
    first, dot, last = word.partition(".")
    for name in (first, last) if dot else (first,):
        if name not in numbers:
            raise ValueError(f"no category {name!r}; {nearest(name, numbers)}")
    low, high = numbers[first], numbers[last]
    if low >= high:
        raise ValueError(f"categories {word!r}: {first} does not come before {last}")
    return (1 << high + 1) - (1 << low)


def _range_text(db: PolicyDatabase, levels: Range, lasting: bool = False) -> str:
    return "-".join(level_text(db, level, lasting) for level in dict.fromkeys(levels))


def level_text(db: PolicyDatabase, level: Level, lasting: bool = False) -> str:
    """Return a level as contexts have it, such as s1:c0.c3; lasting as of `format_context`."""
    name = db.sensitivities[level.sensitivity].name
    return f"{name}:{_categories(db, level.categories, lasting)}" if level.categories else name


def _categories(db: PolicyDatabase, categories: int, lasting: bool = False) -> str:
    names = [category.name for category in db.categories]
    words: list[str] = []
    for first, last in _runs(categories):
        run = names[first : last + 1]
        counted = not lasting or _counted(run[0], run[-1]) == run
        words += [f"{run[0]}.{run[-1]}"] if len(run) > 2 and counted else run
    return ",".join(words)


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of ones."""
    at = 0
    while bits >> at:
        if bits >> at & 1:
            first = at
            while bits >> at + 1 & 1:
                at += 1
            yield first, at
        at += 1
