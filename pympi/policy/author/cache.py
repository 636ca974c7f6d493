# SPDX-License-Identifier: BSD-2-Clause
"""Compiled policies, kept: a large one is compiled once, and read back after that.

A file of the cache is named after the SHA-256 of the policy's sources and of what compiled them. It
holds JSON and columns of numbers, nothing that runs when it is read. The directory is the user's
alone (mode 0700); one that others could write to is not used. What cannot be read, or is damaged,
counts as absent: a cache never fails, and never decides.

    PYMPI_CACHE       a directory for it, or "off"
    XDG_CACHE_HOME    else: its subdirectory pympi; else ~/.cache/pympi
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import stat
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from ..._version import __version__
from ..cil import compile_policy, read_files
from ..cil.policydb import (
    Category,
    Comparison,
    Condition,
    Constraint,
    Context,
    Expression,
    ExtendedRule,
    Level,
    Operand,
    Origin,
    PolicyClass,
    PolicyDatabase,
    Range,
    Role,
    Rule,
    RuleKind,
    Sensitivity,
    TypeDatum,
    TypeRule,
    User,
)

__all__ = ["KEPT", "SMALLEST", "cache_directory", "compiled", "pack", "unpack"]

SMALLEST = 1 << 18
"""Bytes of source from which on a policy is kept: smaller ones compile in no time."""

KEPT = 8
"""How many policies are kept; the oldest goes."""

_MARK = b"pympi compiled policy 3\n"
_DIGEST = hashlib.sha256().digest_size


def compiled(
    paths: Sequence[str | os.PathLike[str]],
    later: Callable[[Callable[[], None]], object] = lambda keep: keep(),
) -> PolicyDatabase:
    """Return the policy in files, compiled now or before.

    Args:
        paths: the files.
        later: gets what keeps the policy, where it was compiled now; does it at once unless given.

    Raises:
        PolicyError: as `pympi.policy.cil.compile_policy` and `read_files`.
    """
    sources = read_files(paths)
    directory = cache_directory()
    with _no_collection():
        if directory is None or sum(len(text) for _, text in sources) < SMALLEST:
            return compile_policy(sources)
        path = directory / _key(sources)
        found = _read(path, sources)
        if found is None:
            found = compile_policy(sources)
            later(partial(_keep, path, found, sources))
    return found


def _keep(path: Path, db: PolicyDatabase, sources: Sequence[tuple[str, str]]) -> None:
    with _no_collection():
        _write(path, pack(db, sources))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Do without the collector of cycles: it would look through all the rules, and find none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def cache_directory() -> Path | None:
    """Return the directory of the cache, made if need be; None if there is none to be trusted."""
    chosen = os.environ.get("PYMPI_CACHE", "")
    if chosen == "off":
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    directory = Path(chosen) if chosen else Path(base or Path("~/.cache").expanduser()) / "pympi"
    if not directory.is_absolute():
        return None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory if _private(os.lstat(directory), stat.S_ISDIR) else None
    except (OSError, RuntimeError):
        return None


def _private(status: os.stat_result, kind: Callable[[int], bool]) -> bool:
    """Tell whether something is of a kind, the user's own, and nobody else's to change."""
    return kind(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _key(sources: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256(f"{_MARK!r} {__version__} {sys.byteorder} {_compiler()}".encode())
    for name, text in sources:
        for part in (name.encode("utf-8", "surrogateescape"), text.encode()):
            digest.update(len(part).to_bytes(8, "little") + part)
    return f"{digest.hexdigest()}.policy"


def _compiler() -> str:
    """Return what tells one state of the compiler's files from another: for who works on it."""
    package = Path(__file__).parents[1] / "cil"
    files = sorted(path for path in package.glob("*.py"))
    return " ".join(
        f"{each.name}:{each.stat().st_size}:{each.stat().st_mtime_ns}" for each in files
    )


def _read(path: Path, sources: Sequence[tuple[str, str]]) -> PolicyDatabase | None:
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with open(number, "rb") as file:  # noqa: PTH123  opened above, without following links
        if not _private(os.fstat(number), stat.S_ISREG):
            return None
        data = file.read()
    body = data[:-_DIGEST]
    if not data.startswith(_MARK) or hashlib.sha256(body).digest() != data[-_DIGEST:]:
        return None
    try:
        return unpack(body, sources)
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _write(path: Path, body: bytes) -> None:
    """Put a file in place whole, or not at all; and take away the oldest beyond `KEPT`."""
    with contextlib.suppress(OSError):
        number, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(body + hashlib.sha256(body).digest())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        kept = sorted(path.parent.glob("*.policy"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-KEPT]:
            old.unlink(missing_ok=True)


# ---- a database as bytes ----

_KINDS = tuple(RuleKind)
_KIND_NUMBERS = {id(kind): number for number, kind in enumerate(_KINDS)}  # a hash takes longer
_TABLES: dict[str, type] = {
    "types": TypeDatum, "classes": PolicyClass, "roles": Role, "users": User,
    "sensitivities": Sensitivity, "categories": Category,
}  # fmt: skip
_COLUMNS: dict[str, tuple[Any, int]] = {"rules": (Rule, 8), "neverallows": (Rule, 8),
                                        "type_rules": (TypeRule, 8)}  # fmt: skip
_PLAIN = ("files", "type_count", "booleans", "handle_unknown", "mls")
_SETS = frozenset(["members", "types", "roles", "categories"])
"""Fields of tables that are sets: numbers of thousands of bits, which JSON has in hexadecimal"""


class _Shared:
    """Values that many rows have: each is written once, and the rows have its number.

    Attributes:
        values: as they are written, by number.
    """

    def __init__(self, packed: Callable[[Any], Any]) -> None:
        self._packed = packed
        self._numbers: dict[int, int] = {}
        self.values: list[Any] = []

    def number(self, value: Any) -> int:
        """Return a value's number; the database keeps it, so its identity is its own."""
        if id(value) not in self._numbers:
            self.values.append(self._packed(value))
            self._numbers[id(value)] = len(self.values) - 1
        return self._numbers[id(value)]


def pack(db: PolicyDatabase, sources: Sequence[tuple[str, str]]) -> bytes:
    """Return a database as bytes. The text of its sources is not in them."""
    head = {name: getattr(db, name) for name in _PLAIN}
    head["booleans"] = dict(db.booleans)
    head["permissive"] = hex(db.permissive)
    head["text"] = _rest(db.text, sources)
    sets, ranges = _Shared(hex), _Shared(list)
    expressions = _Shared(lambda value: _packed(value, sets))
    head["initial_sids"] = {
        name: _packed(context, sets) for name, context in db.initial_sids.items()
    }
    for name, kind in _TABLES.items():
        names = [field.name for field in fields(kind)]
        head[name] = [[_packed(getattr(row, each), sets, each) for each in names]
                      for row in getattr(db, name)]  # fmt: skip
    head["extended_rules"] = [
        [*rule[1:4], ranges.number(rule.ranges), *rule[5:]] for rule in db.extended_rules
    ]
    head["constraints"] = [
        [*rule[:2], expressions.number(rule.expression), *rule[3:]] for rule in db.constraints
    ]
    head["conditions"] = [[_packed(rule.expression, sets), *rule[1:]] for rule in db.conditions]
    head["sets"], head["ranges"] = sets.values, ranges.values
    head["expressions"] = expressions.values
    head["columns"] = {name: len(getattr(db, name)) for name in _COLUMNS}
    text = json.dumps(head, separators=(",", ":")).encode()
    parts = [_MARK, len(text).to_bytes(8, "little"), text]
    for name in _COLUMNS:
        parts += [column.tobytes() for column in _columns(getattr(db, name))]
    return b"".join(parts)


def _columns(rules: Sequence[Any]) -> list[array[int]]:
    columns = list(zip(*rules, strict=True))
    if columns:
        columns[0] = tuple(map(_KIND_NUMBERS.__getitem__, map(id, columns[0])))
    return [array("q", column) for column in columns]


def unpack(data: bytes, sources: Sequence[tuple[str, str]]) -> PolicyDatabase:
    """Return the database that `pack` made bytes of.

    Raises:
        ValueError, KeyError, IndexError, TypeError: the bytes are no such thing.
    """
    at = len(_MARK) + 8
    end = at + int.from_bytes(data[len(_MARK) : at], "little")
    head = json.loads(data[at:end])
    view, at = memoryview(data), end
    made: dict[str, Any] = {name: head[name] for name in _PLAIN}
    made["files"] = tuple(head["files"])
    made["permissive"] = int(head["permissive"], 16)
    made["text"] = _joined(sources) + head["text"]
    sets = [int(text, 16) for text in head["sets"]]
    ranges = [tuple(map(tuple, each)) for each in head["ranges"]]
    expressions = [_expression(each, sets) for each in head["expressions"]]
    made["initial_sids"] = {
        k: Context(v[0], v[1], v[2], _range(v[3], sets)) for k, v in head["initial_sids"].items()
    }
    for name, kind in _TABLES.items():
        made[name] = tuple(_row(kind, row, sets) for row in head[name])
    made["extended_rules"] = tuple(
        ExtendedRule._make([RuleKind.ALLOWX, *row[:3], ranges[row[3]], *row[4:]])
        for row in head["extended_rules"]
    )
    made["constraints"] = tuple(
        Constraint._make([*row[:2], expressions[row[2]], *row[3:]]) for row in head["constraints"]
    )
    made["conditions"] = tuple(
        Condition._make([_expression(row[0], sets), *row[1:]]) for row in head["conditions"]
    )
    for name, (kind, width) in _COLUMNS.items():
        count = head["columns"][name]
        made[name], at = _rules(kind, view[at:], count, width), at + 8 * width * count
    if at != len(data):
        raise ValueError("the columns do not end where the data does")
    return PolicyDatabase(**made)


def _rules(kind: Any, view: memoryview, count: int, width: int) -> tuple[Any, ...]:
    columns: list[Iterable[Any]] = [
        view[8 * count * n : 8 * count * (n + 1)].cast("q") for n in range(width)
    ]
    columns[0] = map(_KINDS.__getitem__, columns[0])
    return tuple(map(kind._make, zip(*columns, strict=True)))


def _joined(sources: Iterable[tuple[str, str]]) -> str:
    """Return the sources as the compiler puts them together."""
    return "\n".join(text.replace("\r\n", "\n") for _, text in sources)


def _rest(text: str, sources: Iterable[tuple[str, str]]) -> str:
    """Return what the base added to the sources."""
    joined = _joined(sources)
    if not text.startswith(joined):
        raise ValueError("the policy's text does not begin with its sources")
    return text[len(joined) :]


def _packed(value: Any, sets: _Shared, name: str = "") -> Any:
    """Return a value in what JSON has; sets by their numbers, a comparison as an object."""
    if isinstance(value, Comparison):
        right = value.right.what if isinstance(value.right, Operand) else sets.number(value.right)
        return {"compare": [value.operator, value.left.what, right, value.names]}
    if isinstance(value, tuple):
        parts = zip(value, getattr(value, "_fields", ("",) * len(value)), strict=True)
        return [_packed(each, sets, field) for each, field in parts]
    return sets.number(value) if name in _SETS else value


def _row(kind: type, row: list[Any], sets: Sequence[int]) -> Any:
    made = {}
    for field, value in zip(fields(kind), row, strict=True):
        reader = _READERS.get(field.name)
        made[field.name] = reader(value, sets) if reader else value
    return kind(**made)


def _level(value: Any, sets: Sequence[int]) -> Level:
    return Level(value[0], sets[value[1]])


def _range(value: Any, sets: Sequence[int]) -> Range:
    return Range(*(_level(each, sets) for each in value))


_READERS: dict[str, Callable[[Any, Sequence[int]], Any]] = {
    **dict.fromkeys(_SETS, lambda number, sets: sets[number]),
    **dict.fromkeys(("aliases", "permissions"), lambda names, _: tuple(names)),
    **dict.fromkeys(("origin", "permissive"), lambda place, _: place and Origin(*place)),
    "level": _level,
    "range": _range,
}


def _expression(value: Any, sets: Sequence[int]) -> Expression:
    if isinstance(value, dict):
        operator, left, right, names = value["compare"]
        other = Operand(right) if isinstance(right, str) else sets[right]
        return Comparison(operator, Operand(left), other, names)
    return value if isinstance(value, str) else tuple(_expression(each, sets) for each in value)
