# SPDX-License-Identifier: BSD-2-Clause
"""What the verbs about policies share: the policy they ask, names for labels, and their screens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...enums import CLASSES, ObjectClass
from ...label import format_label
from .._output import (
    FILE,
    afterwards,
    asking,
    bad_input,
    complain,
    json_option,
    plural,
    print_json,
    say,
    shown,
    wrapped,
)

if TYPE_CHECKING:
    from ...policy import PolicyModule, TypeEnforcement
    from ...policy.cil.policydb import PolicyDatabase
    from ...policy.composition import Composition

__all__ = [
    "FILE", "MODULES", "NO", "YES", "Asked", "asking", "bad_input", "complain", "context_of",
    "database", "json_option", "load", "plural", "policy_options", "print_json", "rows", "say",
    "shown", "type_number", "with_booleans", "wrapped",
]  # fmt: skip

MODULES = {"mls": "MLS", "biba": "Biba", "partition": "Partition"}
YES, NO = 0, 1


# ---- options ----


def policy_options(*, modules: bool = False) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a verb `--policy` and `--json`, and with `modules` also `--module`.

    A verb without `modules` asks about rules of CIL: tables for `rules` are refused there.
    """
    what = "A file of CIL, named *.cil; several make one policy."
    if modules:
        what = "A policy; .cil files make one, others are rules."

    def decorate(verb: Callable[..., int]) -> Callable[..., int]:
        options = [
            click.option(
                "--policy", "policies", type=FILE, multiple=True, metavar="FILE",
                help=f"{what}  [default: a sample]",
            ),
            json_option,
        ]  # fmt: skip
        if modules:
            options.insert(1, click.option(
                "--module", "modules", type=click.Choice([*MODULES]), multiple=True,
                help="A further module that is asked, too.",
            ))  # fmt: skip
        for option in reversed(options):
            verb = option(verb)
        return verb

    return decorate


# ---- policies ----


SAMPLE = "desktop.cil"


def _compiled(paths: Sequence[Path]) -> PolicyDatabase:
    """Return the policy in files, or without files the one that the package ships."""
    if not paths:
        from ...policy.cil import compile_policy

        text = (resources.files("pympi") / "data" / SAMPLE).read_text(encoding="utf-8")
        return compile_policy([(SAMPLE, text)])
    from ...policy.author.cache import compiled

    return compiled(paths, afterwards)


def database(policies: Sequence[Path]) -> PolicyDatabase:
    """Return the compiled policy in files; the sample's without files.

    Raises:
        PolicyError: it is none, or one of the files is no CIL.
    """
    from ...errors import PolicyError

    for path in policies:
        if path.suffix != ".cil":
            raise PolicyError(f"{path}: expected a file of CIL, named *.cil", str(path))
    return _compiled(policies)


def with_booleans(db: PolicyDatabase, settings: Iterable[str]) -> dict[str, bool]:
    """Return values of booleans given as NAME=true or NAME=false."""
    from ...policy.cil.contexts import nearest

    values = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if value not in ("true", "false"):
            raise ValueError(f"expected NAME=true or NAME=false, found {setting!r}")
        if name not in db.booleans:
            raise ValueError(f"no boolean {name!r}; {nearest(name, db.booleans)}")
        values[name] = value == "true"
    return values


@dataclass(frozen=True)
class Asked:
    """The modules that a question is put to, composed as in a kernel.

    Attributes:
        composition: all of them.
        te: the one that the .cil files make, if there are any.
    """

    composition: Composition
    te: TypeEnforcement | None

    def label(self, text: str) -> str:
        """Return a whole label from a label, a context, or a type's name.

        What belongs to further modules may follow: `editor_t,mls/low`.

        Raises:
            ValueError: a module does not take it.
        """
        first, comma, rest = _split(text)
        if "/" not in first and first != "-":
            first = self._completed(first)
        return self.composition.filed(first + comma + rest)

    def _completed(self, text: str) -> str:
        if self.te is None:
            return format_label({"rules": text})
        db = self.te.database
        return format_label({"te": text if ":" in text else context_of(db, text)})

    def tclass(self, name: str) -> ObjectClass:
        """Return a class: the kernel's, or one of the policy.

        Raises:
            ValueError: there is none.
        """
        from ...policy.cil.contexts import nearest

        if name in CLASSES:
            return CLASSES[name]
        known = self._own_classes()
        if name not in known:
            raise ValueError(f"no class {name!r}; {nearest(name, {*CLASSES, *known})}")
        return ObjectClass(0, name, tuple(known[name]))

    def _own_classes(self) -> Mapping[str, Iterable[str]]:
        """Return the permissions of classes that the kernel does not have."""
        if self.te is not None:
            return {each.name: each.permissions for each in self.te.database.classes}
        named: dict[str, dict[str, None]] = {}
        for rule in getattr(self.composition.modules.get("rules"), "rules", ()):
            words = dict.fromkeys(word for word in rule.permissions if word != "*")
            named.setdefault(rule.tclass, {}).update(words)
        named.pop("*", None)
        return named


def _split(text: str) -> tuple[str, str, str]:
    """Divide `editor_t,mls/low` in front of the further modules' values."""
    names = [text.find(f",{name}/") for name in (*MODULES, "rules", "te")]
    at = min((place for place in names if place >= 0), default=len(text))
    return text[:at], text[at : at + 1], text[at + 1 :]


def context_of(db: PolicyDatabase, name: str) -> str:
    """Return the context of a type with the first user and role that may have it.

    What no role may have is an object's type, and gets the role object_r.

    Raises:
        ValueError: there is no such type.
    """
    from ...policy.cil.contexts import OBJECT_R, format_context
    from ...policy.cil.policydb import Context, Range

    number = type_number(db, name)
    pairs = ((user, role) for user in db.users for role in db.roles if role.name != OBJECT_R)
    may = ((u, r) for u, r in pairs if u.roles >> r.number & r.types >> number & 1)
    user, role = next(may, (db.users[0], db.role(OBJECT_R)))
    low = user.level if db.mls else db.initial_sids["unlabeled"].range.low
    return format_context(db, Context(user.number, role.number, number, Range(low, low)))


def type_number(db: PolicyDatabase, name: str) -> int:
    """Return a type's number; `name` may be a type, a context or a label of `te`.

    Raises:
        ValueError: there is no such type.
    """
    from ...label import parse_label
    from ...policy.cil.contexts import named_type, parse_context

    if "/" in name:
        name = parse_label(name).get("te", name)
    if ":" in name:
        return parse_context(db, name).type
    return named_type(db, name, "here is asked for a type").number


def load(policies: Sequence[Path], modules: Sequence[str] = ()) -> Asked:
    """Return the modules that files describe, and further ones by name.

    Raises:
        PolicyError, OSError: a file cannot be used.
    """
    from ... import policy
    from ...policy.composition import Composition

    texts = [path for path in policies if path.suffix == ".cil"]
    others = [policy.Rules.from_file(path) for path in policies if path.suffix != ".cil"]
    te = None
    if texts or not policies:
        te = policy.TypeEnforcement.from_database(_compiled(texts))
    loaded: list[PolicyModule] = [te] if te else []
    if others:
        loaded.append(policy.Rules(rule for each in others for rule in each.rules))
    loaded += [getattr(policy, MODULES[name])() for name in dict.fromkeys(modules)]
    return Asked(Composition({each.name: each for each in loaded}, Counter()), te)


# ---- screens ----


def rows(pairs: Iterable[tuple[str, str]], indent: str = "  ") -> None:
    """Print names and what belongs to them in two columns."""
    lines = list(pairs)
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        head = f"{indent}{shown(name):{width}}  "
        say(text or "-", head, " " * len(head))
