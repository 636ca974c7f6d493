# SPDX-License-Identifier: BSD-2-Clause
"""Security contexts as text, and what makes one valid (SELinux's policydb_context_isvalid).

    user:role:type                      without levels
    user:role:type:low[-high]           with: s0, s0:c1, s0-s2:c0.c3,c7

The text written is canonical: three or more categories in a row as c0.c2, two as c0,c1; a range
whose ends are the same as one level; names, never aliases.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from .policydb import Context, Level, PolicyDatabase, Range, Role, TypeDatum, User

__all__ = ["OBJECT_R", "fault", "format_context", "nearest", "parse_context"]

OBJECT_R = "object_r"
"""The role of objects: it goes with every type and user, at every level."""

_LOWEST = Range(Level(0), Level(0))
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
    user, role = _user(db, parts[0]), _role(db, parts[1])
    levels = _range(db, parts[3]) if db.mls else _LOWEST
    context = Context(user.number, role.number, _type(db, parts[2]).number, levels)
    wrong = fault(db, context)
    if wrong:
        raise ValueError(f"{text!r} is no valid context: {wrong}")
    return context


def format_context(db: PolicyDatabase, context: Context) -> str:
    """Return the one text of a context: `parse_context(db, format_context(db, c)) == c`."""
    fields = (db.users[context.user], db.roles[context.role], db.types[context.type])
    names = [field.name for field in fields]
    return _MARK.join([*names, _range_text(db, context.range)] if db.mls else names)


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
        low, high = (_level_text(db, level) for level in levels)
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
    like = difflib.get_close_matches(name, names, 3, 0.6)
    if like:
        return "did you mean " + " or ".join(like) + "?"
    return "there are: " + (", ".join(names[:8]) or "none") + (", ..." if names[8:] else "")


def _user(db: PolicyDatabase, name: str) -> User:
    try:
        return db.user(name)
    except KeyError:
        hint = nearest(name, (user.name for user in db.users))
        raise ValueError(f"no user {name!r}; {hint}") from None


def _role(db: PolicyDatabase, name: str) -> Role:
    try:
        return db.role(name)
    except KeyError:
        hint = nearest(name, (role.name for role in db.roles))
        raise ValueError(f"no role {name!r}; {hint}") from None


def _type(db: PolicyDatabase, name: str) -> TypeDatum:
    types = db.types[: db.type_count]
    try:
        found = db.type(name)
    except KeyError:
        hint = nearest(name, (kind.name for kind in types))
        raise ValueError(f"no type {name!r}; {hint}") from None
    if found.attribute:
        raise ValueError(f"{name!r} is an attribute, a context has a type")
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


def _range_text(db: PolicyDatabase, levels: Range) -> str:
    return "-".join(_level_text(db, level) for level in dict.fromkeys(levels))


def _level_text(db: PolicyDatabase, level: Level) -> str:
    name = db.sensitivities[level.sensitivity].name
    return f"{name}:{_categories(db, level.categories)}" if level.categories else name


def _categories(db: PolicyDatabase, categories: int) -> str:
    names = [category.name for category in db.categories]
    return ",".join(
        names[first]
        if first == last
        else f"{names[first]}{'.' if last - first > 1 else ','}{names[last]}"
        for first, last in _runs(categories)
    )


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
