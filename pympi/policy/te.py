# SPDX-License-Identifier: BSD-2-Clause
"""`te`: type enforcement, in the policy language of SELinux (CIL).

    (type editor_t) (type printer_t)
    (allow editor_t printer_t (mach_port (send hold_send)))

A value is a security context: `te/user:role:type`, with `:low[-high]` if the policy has levels.
What has no label counts as the context of the initial SID `unlabeled`. Classes and permissions are
those of the kernel by name; methods are the permissions of the class `mi_<interface>`.

Something new has the type that a typechange, else a typetransition, gives for (source, target,
class): for (issuer, owner, mach_port) or (parent, parent, mach_task) where the kernel makes it.
Without such a rule ports and tasks inherit their label, and the rest is labelled as in SELinux.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..enums import ALL, CLASSES, ObjectClass, first_routine
from ..errors import PolicyError
from .base import Decision, PolicyModule
from .cil import Budget, compile_policy, read_files
from .cil.contexts import fault, format_context, lasting_text, nearest, parse_context
from .cil.evaluate import (
    AccessVectors,
    Evaluator,
    SecurityServer,
    excluded,
    numbered,
)
from .cil.explain import Question, explain
from .cil.policydb import Context, PolicyDatabase, RuleKind

if TYPE_CHECKING:
    from .tables import Table

__all__ = ["TypeEnforcement"]

_BACKENDS = {"python": "pympi.policy.cil.evaluate", "libsepol": "pympi.policy.sepol"}
"""By name: the module with the `Evaluator` that decides."""

_KEPT = 1 << 12
"""How many contexts, and classes, are remembered; then they are made anew."""

_NEW = (RuleKind.TYPECHANGE, RuleKind.TYPETRANSITION)
"""The rules that give something new its type; the first kind that has one does. SEDarwin labels by
typechange: a policy that has one means it, whatever it says to SELinux's transitions besides."""

_INHERITS = ("mach_port", "mach_task")
"""What has a whole label to inherit where no rule gives it a type."""


@dataclass(frozen=True, slots=True)
class _Mapping:
    """A kernel's class in a policy, by names.

    Attributes:
        tclass: as the kernel has it.
        number: the class's in the policy; None if the policy has none of this name.
        decision: from access vectors of the policy to the kernel's.
        unknown: the kernel's permissions that the policy does not have.
        first: the index of the first routine of the class.
        narrowed: whether extended rules are to be asked.
    """

    tclass: ObjectClass
    number: int | None
    decision: Callable[[AccessVectors], Decision]
    unknown: int
    first: int = 0
    narrowed: bool = False

    def routine(self, permission: str) -> int | None:
        """Return the index of a routine in its interface; None for what is no routine."""
        return numbered(self.tclass.permissions, self.first).get(permission)


_NONE = AccessVectors(0, 0, ALL)


def _mapping(db: PolicyDatabase, tclass: ObjectClass) -> _Mapping:
    granted = ALL if db.handle_unknown == "allow" else 0
    try:
        datum = db.tclass(tclass.name)
    except KeyError:
        return _Mapping(tclass, None, lambda _: Decision(granted, 0, ALL), ALL)
    bits = [tclass.bits.get(name, 0) for name in datum.permissions]
    unknown = ALL & ~sum(bits)

    def translate(vector: int) -> int:
        return sum(bit for place, bit in enumerate(bits) if vector >> place & 1)

    @functools.lru_cache(maxsize=_KEPT)  # there are few different ones in a policy
    def decision(vectors: AccessVectors) -> Decision:
        allowed, auditallow, auditdeny = map(translate, vectors)
        return Decision(allowed | unknown & granted, auditallow, auditdeny | unknown)

    number = datum.number
    narrowed = any(rule.tclass == number for rule in db.extended_rules)
    return _Mapping(tclass, number, decision, unknown, first_routine(tclass.name), narrowed)


@dataclass(frozen=True, slots=True)
class _State:
    """A policy and a state of its booleans: replaced whole, so that every decision is of one.

    Attributes:
        db: the policy.
        server: who decides.
        rules: the same policy in the same state, to look rules up.
        contexts: by value; of None, what has no label.
        mappings: by the name of the class.
    """

    db: PolicyDatabase
    server: SecurityServer
    rules: Evaluator
    contexts: dict[str | None, Context] = field(default_factory=dict)
    mappings: dict[str, _Mapping] = field(default_factory=dict)

    def context(self, value: str | None) -> Context:
        """Return the context that a value stands for."""
        found = self.contexts.get(value)
        if found is None:
            known = self.db.initial_sids["unlabeled"]
            found = known if value is None else parse_context(self.db, value)
            _keep(self.contexts, value, found)
        return found

    def mapping(self, tclass: ObjectClass) -> _Mapping:
        """Return what a class is in the policy. Kernels may have other classes of one name."""
        found = self.mappings.get(tclass.name)
        if found is None or (found.tclass is not tclass and found.tclass != tclass):
            found = _mapping(self.db, tclass)
            _keep(self.mappings, tclass.name, found)
        return found


def _keep(table: dict[Any, Any], key: Any, value: Any) -> None:
    if len(table) >= _KEPT:
        table.clear()
    table[key] = value


class TypeEnforcement(PolicyModule):
    """Allows what the allow rules of a CIL policy say, within its constraints.

    Made by `from_text`, `from_file` or `from_database`.

    Args:
        database: a compiled policy.
        backend: "python", or "libsepol" where the package was built with it.

    Attributes:
        database: the policy in force.
        booleans: their present values.

    Raises:
        PolicyError: the policy says `(handleunknown reject)` and lacks a class or permission of the
            kernel; or there is no such backend here.

    Example:
        >>> from pympi import Kernel
        >>> from pympi.policy import TypeEnforcement
        >>> policy = TypeEnforcement.from_text('''
        ...     (type editor_t) (type printer_t)
        ...     (roletype system_r editor_t) (userrole system_u system_r)
        ...     (allow editor_t printer_t (mach_port (send)))
        ... ''')
        >>> editor, printer = "te/system_u:system_r:editor_t", "te/system_u:object_r:printer_t"
        >>> with Kernel(policies=[policy]) as kernel:
        ...     bool(kernel.access(editor, printer, "mach_port", "send"))
        ...     bool(kernel.access(printer, editor, "mach_port", "send"))
        True
        False
    """

    name = "te"

    def __init__(self, database: PolicyDatabase, *, backend: str = "python") -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._chosen: dict[str, bool] = {}
        self._paths: tuple[str | os.PathLike[str], ...] = ()
        self._budget: Budget | None = None
        self._state = self._make(database)

    @classmethod
    def from_text(
        cls,
        text: str,
        file: str = "<text>",
        *,
        backend: str = "python",
        budget: Budget | None = None,
    ) -> TypeEnforcement:
        """Return the policy that a CIL text describes, together with what every policy has.

        Args:
            text: the policy.
            file: its name in errors and explanations.
            backend: "python" or "libsepol".
            budget: what it may cost to compile.

        Raises:
            PolicyError: with file, line, column, and what was expected there.
        """
        return cls._compiled([(file, text)], (), backend, budget)

    @classmethod
    def from_file(
        cls,
        *paths: str | os.PathLike[str],
        backend: str = "python",
        budget: Budget | None = None,
    ) -> TypeEnforcement:
        """Return the policy in files, which make one together. `reload` reads them again.

        Args and Raises as of `from_text`; besides, OSError: a file cannot be read.
        """
        if not paths:
            raise TypeError("from_file() needs a file at least")
        return cls._compiled(read_files(paths, budget=budget), paths, backend, budget)

    @classmethod
    def _compiled(
        cls, texts: Sequence[tuple[str, str]], paths: tuple[str | os.PathLike[str], ...],
        backend: str, budget: Budget | None,
    ) -> TypeEnforcement:  # fmt: skip
        made = cls(compile_policy(texts, budget=budget), backend=backend)
        made._paths, made._budget = paths, budget
        return made

    @classmethod
    def from_database(cls, database: PolicyDatabase, *, backend: str = "python") -> TypeEnforcement:
        """Return the policy that was compiled already."""
        return cls(database, backend=backend)

    def __repr__(self) -> str:
        return f"<TypeEnforcement {len(self.database.rules)} rules, {self._backend}>"

    @property
    def database(self) -> PolicyDatabase:
        """The compiled policy in force."""
        return self._state.db

    def _make(self, db: PolicyDatabase) -> _State:
        _check_complete(db)
        known = {name: value for name, value in self._chosen.items() if name in db.booleans}
        server = _server(self._backend)(db, known)
        return _State(db, server, _lookup(db, server))

    # ---- values ----

    def parse(self, text: str) -> str:
        """Return the context in its one text.

        Raises:
            ValueError: it is no valid context of this policy; the message says why.
        """
        db = self._state.db
        return lasting_text(db, text)

    # ---- decisions ----

    def decide(self, source: Any, target: Any, tclass: ObjectClass) -> Decision:
        """Return what the rules allow, less what constraints and extended rules take away.

        Where the subject's type is permissive everything is allowed, and what would be refused
        is in the decision's `report`; auditdeny lacks what dontaudit keeps from being recorded.
        """
        state = self._state
        subject = state.context(source)
        answer = _answer(state, subject, state.context(target), state.mapping(tclass))
        if state.db.permissive >> subject.type & 1:
            refused = ALL & ~answer.allowed
            return Decision(ALL, answer.auditallow, answer.auditdeny, refused)
        return answer

    @property
    def table_obstacle(self) -> str:
        """Another backend: then that is asked, whatever our own evaluator would say."""
        return "" if self._backend == "python" else f"is decided by {self._backend}"

    def compile_tables(self, classes: Sequence[ObjectClass], before: Any) -> Table:
        """Return the policy with its booleans as they are."""
        from .cil.tables import ClassMapping, ContextNumbering, compile_policy_table  # needs numpy

        state = self._state
        known = isinstance(before, ContextNumbering) and before.db is state.db
        granted = ALL if state.db.handle_unknown == "allow" else 0
        mappings = [
            ClassMapping(tclass, m.number, m.unknown & granted, m.first, m.narrowed)
            for tclass, m in ((tclass, state.mapping(tclass)) for tclass in classes)
        ]
        numbering = before if known else ContextNumbering(state.db)
        return compile_policy_table(state.rules, mappings, numbering)

    def label_new(self, source: Any, target: Any, tclass: ObjectClass) -> str | None:
        """Return the context with the type that a rule gives, in place of the target's.

        User and low level are the source's, the role is object_r; a task's are all its parent's.
        None: a port or a task for which there is no rule, or a class that the policy has not.

        Raises:
            ValueError: the context is not valid: a task's role may not have that type.
        """
        state = self._state
        subject, related = state.context(source), state.context(target)
        made = _new(state, subject, related, tclass)
        return None if made is None else _valid(state.db, made)

    # ---- booleans ----

    @property
    def booleans(self) -> Mapping[str, bool]:
        """The policy's booleans and their present values; not to be written to."""
        return self._state.server.booleans

    def set_booleans(self, **values: bool) -> None:
        """Set booleans, all or none, and have every kernel decide anew.

        Args:
            values: by name; one of a block as `**{"block.name": True}`.

        Raises:
            PolicyError: the policy has no such boolean.
            TypeError: a value is no bool.
        """
        with self._lock:
            state = self._state
            _check_booleans(state.server.booleans, values)
            server = state.server.with_booleans(values)
            self._chosen.update(values)
            self._state = _State(state.db, server, _lookup(state.db, server))
        self.changed()

    def reload(self) -> None:
        """Read the files again. Booleans that were set stay as they are, others may be new.

        Raises:
            PolicyError, OSError: the old policy stays in force.
        """
        if self._paths:
            texts = read_files(self._paths, budget=self._budget)
            db = compile_policy(texts, budget=self._budget)
            with self._lock:
                self._state = self._make(db)
            self.changed()

    @property
    def text_limit(self) -> int:
        """How many bytes of text a policy may have: the budget's."""
        return (self._budget or Budget()).bytes

    def rewritten(self, texts: Sequence[tuple[str, str]]) -> TypeEnforcement:
        """Return the module with the policy in other texts, which make one together.

        Budget, backend, and booleans that were set are this module's; so are the files that
        `reload` reads.

        Raises:
            PolicyError: with file, line, column, and what was expected there.
        """
        db = compile_policy(texts, budget=self._budget)
        made = copy.copy(self)
        made._lock = threading.Lock()
        with self._lock:
            made._chosen = dict(self._chosen)
        made._state = made._make(db)
        return made

    # ---- explanations ----

    def explain(self, source: Any, target: Any, tclass: ObjectClass, permission: str) -> str:
        """Return why a permission is allowed or refused.

        It names the rule with its place; or the constraint, its failing parts marked -fails-, and
        what would meet it if that is one comparison; the booleans or the rule that would allow it;
        the extended rules that leave a routine out.
        """
        state = self._state
        subject, related = state.context(source), state.context(target)
        mapping = state.mapping(tclass)
        names = tclass.names(tclass.mask(permission))
        texts = [_explained(state, subject, related, mapping, name) for name in names]
        if len(texts) == 1:
            return texts[0]
        return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))


# ---- loading ----


def _server(backend: str) -> Callable[[PolicyDatabase, Mapping[str, bool]], SecurityServer]:
    if backend not in _BACKENDS:
        raise PolicyError(f"no backend {backend!r}; there are: {', '.join(_BACKENDS)}")
    try:
        return importlib.import_module(_BACKENDS[backend]).Evaluator
    except ImportError as error:
        raise PolicyError(f"the backend {backend!r} is not available here: {error}") from error


def _lookup(db: PolicyDatabase, server: SecurityServer) -> Evaluator:
    return server if isinstance(server, Evaluator) else Evaluator(db, server.booleans)


def _check_complete(db: PolicyDatabase) -> None:
    """Refuse a policy that wants to know all and does not."""
    if db.handle_unknown != "reject":
        return
    for tclass in CLASSES.values():
        lacking = _mapping(db, tclass).unknown & sum(tclass.bits.values())
        if lacking:
            names = " ".join(tclass.names(lacking))
            raise PolicyError(
                f"(handleunknown reject), and class {tclass.name} lacks the permissions: {names}"
            )


def _check_booleans(known: Mapping[str, bool], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name not in known:
            raise PolicyError(f"no boolean {name!r}; {nearest(name, known)}")
        if not isinstance(value, bool):
            raise TypeError(f"boolean {name!r} is True or False, not {value!r}")


# ---- decisions of one state ----


def _answer(state: _State, source: Context, target: Context, mapping: _Mapping) -> Decision:
    """Return the decision, before permissive types."""
    if mapping.number is None:
        return mapping.decision(_NONE)
    decision = mapping.decision(state.server.access(source, target, mapping.number))
    if not mapping.narrowed:
        return decision
    ranges = state.server.routines(source, target, mapping.number)
    if ranges is None:
        return decision
    refused = excluded(mapping.tclass.permissions, mapping.first, ranges)
    return dataclasses.replace(decision, allowed=decision.allowed & ~refused)


def _new(state: _State, source: Context, target: Context, tclass: ObjectClass) -> Context | None:
    """Return the context of something new; None if it is to inherit it."""
    number = state.mapping(tclass).number
    if number is None:
        return None
    pair = source.type, target.type
    ruled = (kind for kind in _NEW if state.rules.new_type(kind, *pair, number) is not None)
    kind = next(ruled, None)
    if kind is None and tclass.name in _INHERITS:
        return None
    made = state.server.compute_sid(kind or _NEW[0], source, target, number)
    return source._replace(type=made.type) if tclass.name == "mach_task" else made


def _valid(db: PolicyDatabase, context: Context) -> str:
    text = format_context(db, context, lasting=True)
    wrong = fault(db, context)
    if wrong:
        raise ValueError(f"the new label {text} is not valid: {wrong}")
    return text


def _explained(
    state: _State, source: Context, target: Context, mapping: _Mapping, permission: str
) -> str:
    allowed, text = _verdict(state, source, target, mapping, permission)
    if allowed or not state.db.permissive >> source.type & 1:
        return text
    kind = state.db.types[source.type].name
    recorded = _answer(state, source, target, mapping).auditdeny & mapping.tclass.mask(permission)
    how = "allows, and reports," if recorded else "allows, and dontaudit keeps silent about it,"
    return f"{how} because {kind} is permissive; otherwise {text}"


def _verdict(
    state: _State, source: Context, target: Context, mapping: _Mapping, permission: str
) -> tuple[bool, str]:
    """Return whether one permission is allowed, before permissive types, and why."""
    if mapping.unknown & mapping.tclass.mask(permission):
        return _unknown(state.db, mapping, permission)
    assert mapping.number is not None
    routine = mapping.routine(permission) if mapping.narrowed else None
    question = Question(source, target, mapping.number, permission, routine)
    verdict = explain(state.rules, question)
    return verdict.allowed, str(verdict)


def _unknown(db: PolicyDatabase, mapping: _Mapping, permission: str) -> tuple[bool, str]:
    """Return how what the policy does not declare is handled, and what would declare it."""
    lacks = name = f"class {mapping.tclass.name}"
    needed = f"({name} ({permission})) and a rule would allow it"
    if mapping.number is not None:
        lacks = f"permission {permission} of {name}"
        place = db.classes[mapping.number].origin
        needed = f"the class at {place} with it, and a rule, would allow it"
    text = f"the policy has no {lacks}; (handleunknown {db.handle_unknown})"
    if db.handle_unknown == "allow":
        return True, f"allows: {text}"
    return False, f"refuses: {text}; {needed}"
