# SPDX-License-Identifier: BSD-2-Clause
"""SELinux's own library as a backend of `te`: `TypeEnforcement(db, backend="libsepol")`.

It is there where pympi was built on a system with libsepol-dev. It compiles the same policies and
must decide as `pympi.policy.cil.evaluate` does; beyond that it reads binary policies, writes them,
and explains in its words why constraints refuse.

libsepol ends the process when its compiler finds no memory. Text should come here only after our
own compiler took it, whose budget bounds it; `Evaluator` is made from what that returns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import PolicyError
from .cil import Budget, compile_policy
from .cil.contexts import format_context, parse_context
from .cil.evaluate import AccessVectors
from .cil.policydb import Context, PolicyClass, PolicyDatabase, RuleKind
from .files import read_bytes

try:
    from pympi._sepol import ffi, lib
except ImportError as error:
    _absence = str(error)
else:
    _absence = ""

__all__ = ["AVAILABLE", "BinaryPolicy", "Evaluator", "Reason", "compile_binary", "load_binary"]

AVAILABLE = not _absence
"""Whether pympi was built with libsepol."""

_KEPT = 1 << 12
"""How many contexts a state is asked about; then it is made anew, for libsepol forgets none."""

_ALL = 0xFFFFFFFF
_PLACE = re.compile(r" at (?:line (?P<line>\d+) of )?(?P<file>\S.*?)(?::(?P<after>\d+))?$", re.M)
_LABELS = re.compile(r"\((?:filecon|fsuse|genfscon|netifcon|nodecon|portcon|ib\w+con) .*")
_SID = re.compile(r"(\((?:sid|sidcontext) )([^ ()]+)")
_WORDS = ("rule", "constraint", "role", "bounds")


def _check_available() -> None:
    if not AVAILABLE:
        raise PolicyError(
            "pympi was built without libsepol; install libsepol-dev and build pympi again "
            f"({_absence})"
        )


# ---- compiling and reading ----


def _failure(log: Any, otherwise: str, file: str = "<policy>") -> PolicyError:
    """Return what libsepol said, with the first place it named."""
    text = ffi.string(log.text).decode(errors="replace").strip() or otherwise
    place = _PLACE.search(text)
    if place is None:
        return PolicyError(text, file)
    return PolicyError(text, place["file"], int(place["line"] or place["after"] or 0), 1)


def compile_binary(sources: Iterable[tuple[str, str]]) -> bytes:
    """Return CIL text as a binary policy, version 33, as `secilc -c 33` makes it.

    All of CIL is taken, neverallow rules are checked.

    Args:
        sources: name and text of each file.

    Raises:
        PolicyError: libsepol refuses it, or is not there.
    """
    _check_available()
    kept = [(ffi.new("char[]", n.encode()), ffi.new("char[]", t.encode())) for n, t in sources]
    texts = ffi.new("struct pm_sepol_text[]", max(1, len(kept)))
    for slot, (name, text) in zip(texts, kept, strict=False):
        slot.name, slot.text, slot.size = name, text, len(text) - 1
    log, size = ffi.new("struct pm_sepol_log *"), ffi.new("size_t *")
    image = lib.pm_sepol_compile(texts, len(kept), size, log)
    if image == ffi.NULL:
        raise _failure(log, "libsepol cannot compile the policy")
    try:
        return bytes(ffi.buffer(image, size[0]))
    finally:
        lib.pm_sepol_free(image)


class _Policy:
    """A policy in libsepol's memory."""

    def __init__(self, image: bytes, file: str) -> None:
        log = ffi.new("struct pm_sepol_log *")
        handle = lib.pm_sepol_open(image, len(image), log)
        if handle == ffi.NULL:
            raise _failure(log, "not a binary policy", file)
        self.handle = ffi.gc(handle, lib.pm_sepol_close, size=len(image) * 4)
        self.booleans = tuple(self._booleans())

    def _booleans(self) -> Iterator[str]:
        number = 0
        while (name := lib.pm_sepol_boolean(self.handle, number)) != ffi.NULL:
            yield ffi.string(name).decode()
            number += 1

    @property
    def text(self) -> str:
        """The policy as CIL, which libsepol writes from its tables."""
        return _taken(lib.pm_sepol_cil(self.handle))


def _taken(text: Any) -> str:
    """Return a string that libsepol allocated."""
    if text == ffi.NULL:
        raise ValueError("libsepol gave no answer")
    try:
        return ffi.string(text).decode()
    finally:
        lib.pm_sepol_free(text)


@dataclass(frozen=True, slots=True)
class BinaryPolicy(PolicyDatabase):
    """A policy that was read from its binary form.

    Attributes:
        image: that form; `Evaluator` reads it, and no text.
        version: of the form.
    """

    image: bytes = b""
    version: int = 0


def load_binary(path: str | os.PathLike[str], *, sids: Sequence[str] = ()) -> BinaryPolicy:
    """Return a binary policy, for `TypeEnforcement.from_database(policy, backend="libsepol")`.

    What it says about files, networks and devices is left aside. Lines of places are those of the
    text that libsepol writes: `.text`.

    Args:
        path: the file.
        sids: names of its initial SIDs, in order, which the binary form lacks. Without it two are
            `kernel` and `unlabeled`; more have SELinux's names: `unlabeled` is the third.

    Raises:
        PolicyError: the file cannot be read, is no regular file or too large, it is no binary
            policy, is outside our subset of CIL, or there is no libsepol.
    """
    _check_available()
    name = os.fspath(path)
    image, _ = read_bytes(name, Budget().bytes)
    policy = _Policy(image, name)
    lines = _with_sids(policy.text.splitlines(), sids)
    text = "".join(f"{line}\n" for line in lines if not _LABELS.match(line))
    db = compile_policy([(name, text)])
    values = {each.name: getattr(db, each.name) for each in fields(PolicyDatabase) if each.init}
    version = lib.pm_sepol_version(policy.handle)
    return BinaryPolicy(**values, image=image, version=version)


def _with_sids(lines: list[str], sids: Sequence[str]) -> list[str]:
    """Return the lines of a policy with other names of initial SIDs."""
    order = next((line for line in lines if line.startswith("(sidorder (")), "(sidorder ())")
    known = order[len("(sidorder (") : -len("))")].split()
    ours = sids or (("kernel", "unlabeled") if len(known) == 2 else known)
    names = {**dict(zip(known, known, strict=True)), **dict(zip(known, ours, strict=False))}

    def renamed(line: str) -> str:
        if line == order:
            return f"(sidorder ({' '.join(names.values())}))"
        match = _SID.match(line)
        return f"{match[1]}{names[match[2]]}{line[match.end() :]}" if match else line

    return [renamed(line) for line in lines]


# ---- deciding ----


class Reason(NamedTuple):
    """Why libsepol refuses permissions.

    Attributes:
        about: of "rule", "constraint", "role" and "bounds", those that refuse.
        text: the constraints that refuse, each part marked whether it holds; "" if none does.
    """

    about: tuple[str, ...]
    text: str


class _Class(NamedTuple):
    """A class in libsepol: its number, and how vectors are translated; None if they are alike."""

    number: int
    pairs: tuple[tuple[int, int], ...] | None

    def translate(self, vector: int) -> int:
        """Return a vector of libsepol's in the order of our policy."""
        if self.pairs is None:
            return vector
        return sum(ours for ours, theirs in self.pairs if vector & theirs)

    def asked(self, vector: int) -> int:
        """Return a vector of ours in libsepol's order."""
        if self.pairs is None:
            return vector
        return sum(theirs for ours, theirs in self.pairs if vector & ours)


def _class(policy: _Policy, datum: PolicyClass) -> _Class:
    number = lib.pm_sepol_class(policy.handle, datum.name.encode())
    words = datum.permissions
    bits = [lib.pm_sepol_permission(policy.handle, number, word.encode()) for word in words]
    if not number or not all(bits):
        raise PolicyError(f"libsepol's policy has another class {datum.name}")
    pairs = tuple((1 << bit, theirs) for bit, theirs in enumerate(bits))
    return _Class(number, None if all(ours == theirs for ours, theirs in pairs) else pairs)


class _State:
    """Values of booleans, and the contexts asked about, in libsepol's memory."""

    def __init__(self, policy: _Policy, booleans: Mapping[str, bool]) -> None:
        values = bytes(booleans[name] for name in policy.booleans)
        handle = lib.pm_sepol_state_open(policy.handle, values)
        if handle == ffi.NULL:
            raise MemoryError("libsepol has no memory for its contexts")
        self.handle = ffi.gc(handle, lib.pm_sepol_state_close)
        self.sids: dict[Context, int] = {}


class Evaluator:
    """Decides by libsepol, for one state of the booleans: `evaluate.Evaluator` by other means.

    Any thread may ask; they take turns.

    Args:
        db: the policy; a `BinaryPolicy` is taken as it is, otherwise its text is compiled.
        booleans: their values, where they are not the policy's defaults.

    Raises:
        PolicyError: libsepol refuses the policy, or is not there.
        KeyError: the policy has no such boolean.
    """

    def __init__(self, db: PolicyDatabase, booleans: Mapping[str, bool] | None = None) -> None:
        _check_available()
        if isinstance(db, BinaryPolicy):
            policy = _Policy(db.image, "<binary>")
        else:
            policy = _Policy(compile_binary([("<policy>", db.text)]), "<policy>")
        self._start(db, policy, [_class(policy, each) for each in db.classes], booleans or {})

    def _start(
        self,
        db: PolicyDatabase,
        policy: _Policy,
        classes: list[_Class],
        booleans: Mapping[str, bool],
    ) -> None:
        unknown = booleans.keys() - db.booleans.keys()
        if unknown:
            raise KeyError(min(unknown))
        self.db = db
        self.booleans: Mapping[str, bool] = MappingProxyType({**db.booleans, **booleans})
        self._policy = policy
        self._classes = classes
        self._state = _State(policy, self.booleans)

    def with_booleans(self, booleans: Mapping[str, bool]) -> Evaluator:
        """Return the evaluator of the same policy for other values of these booleans."""
        other = Evaluator.__new__(Evaluator)
        other._start(self.db, self._policy, self._classes, {**self.booleans, **booleans})
        return other

    def _sids(self, source: Context, target: Context) -> tuple[_State, int, int]:
        """Return two contexts' SIDs, and the state they are SIDs of."""
        state = self._state
        if len(state.sids) >= _KEPT:
            state = self._state = _State(self._policy, self.booleans)
        return state, self._sid(state, source), self._sid(state, target)

    def _sid(self, state: _State, context: Context) -> int:
        sid = state.sids.get(context)
        if sid is None:
            text = format_context(self.db, context)
            sid = lib.pm_sepol_sid(state.handle, text.encode())
            if not sid:
                raise ValueError(f"{text!r} is no valid context to libsepol")
            state.sids[context] = sid
        return sid

    def access(self, source: Context, target: Context, tclass: int) -> AccessVectors:
        """Return what a subject may do to an object, before extended rules, in the policy's bits.

        Args:
            source, target: their contexts.
            tclass: the class's number in the policy.

        Raises:
            ValueError: a context is not valid.
        """
        state, subject, related = self._sids(source, target)
        known = self._classes[tclass]
        out = ffi.new("struct pm_sepol_vectors *")
        if lib.pm_sepol_access(state.handle, subject, related, known.number, out):
            raise ValueError("libsepol gave no answer")
        translate = known.translate
        silent = translate(~out.auditdeny & _ALL)
        return AccessVectors(translate(out.allowed), translate(out.auditallow), ~silent & _ALL)

    def routines(
        self, source: Context, target: Context, tclass: int
    ) -> tuple[tuple[int, int], ...] | None:
        """Return the ranges of routines that extended rules leave; None if they leave all."""
        if not self.db.classes[tclass].name.startswith("mi_"):
            return None
        return self.numbers(source, target, tclass)

    def numbers(
        self, source: Context, target: Context, tclass: int
    ) -> tuple[tuple[int, int], ...] | None:
        """Return the ranges of numbers in extended rules about any class; None without a rule."""
        state, subject, related = self._sids(source, target)
        out, number = ffi.new("struct pm_sepol_numbers *"), self._classes[tclass].number
        if lib.pm_sepol_extended(state.handle, subject, related, number, out) <= 0:
            return None
        bits = int.from_bytes(ffi.buffer(out), "little")
        return tuple(_runs(bits))

    def compute_sid(self, kind: RuleKind, source: Context, target: Context, tclass: int) -> Context:
        """Return the context of something new, or to be relabelled.

        Args:
            kind: TYPETRANSITION or TYPECHANGE.
            source, target: who makes it, and from what.
            tclass: the class's number in the policy.

        Raises:
            ValueError: it would not be valid.
        """
        state, subject, related = self._sids(source, target)
        how = lib.PM_SEPOL_CHANGE if kind is RuleKind.TYPECHANGE else lib.PM_SEPOL_TRANSITION
        made = lib.pm_sepol_new(state.handle, subject, related, self._classes[tclass].number, how)
        if not made:
            raise ValueError("the new context would not be valid")
        return parse_context(self.db, _taken(lib.pm_sepol_context(state.handle, made)))

    def reason(self, source: Context, target: Context, tclass: int, permissions: int) -> Reason:
        """Return why permissions, bits of the policy's, are refused.

        Example:
            >>> from pympi.policy.sepol import Reason
            >>> Reason(("constraint",), "constrain mach_port ...").about
            ('constraint',)
        """
        state, subject, related = self._sids(source, target)
        known, why = self._classes[tclass], ffi.new("uint32_t *")
        asked = known.asked(permissions)
        text = lib.pm_sepol_reason(state.handle, subject, related, known.number, asked, why)
        words = _taken(text).strip()
        return Reason(tuple(w for bit, w in enumerate(_WORDS) if why[0] >> bit & 1), words)

    @cached_property
    def permissive(self) -> int:
        """The types that are permissive to libsepol: bit n for type n."""
        handle = self._policy.handle
        ask: Callable[[bytes], int] = lambda name: lib.pm_sepol_permissive(handle, name)  # noqa: E731
        names = [kind.name.encode() for kind in self.db.types[: self.db.type_count]]
        return sum(1 << number for number, name in enumerate(names) if ask(name))

    @property
    def handle_unknown(self) -> str:
        """What libsepol does about unknown classes: "deny", "allow" or "reject"."""
        return ffi.string(lib.pm_sepol_unknown(self._policy.handle)).decode()


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of ones."""
    for run in re.finditer("1+", f"{bits:b}"[::-1]):
        yield run.start(), run.end() - 1
