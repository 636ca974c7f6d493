# SPDX-License-Identifier: BSD-2-Clause
"""Checks a learned policy without trusting the learner: reads, counts and claims all anew."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ...audit import forms
from ...enums import CLASSES, AuditFlag, ObjectClass
from ...errors import PympiError
from ...label import parse_label
from ...trace.mangle import port_label, task_label
from ...trace.text import TraceReader
from .closure import closure

__all__ = ["CertificateError", "check"]

_W = r"[A-Za-z][A-Za-z0-9_.-]*"
_WORDS = rf"\(({_W}(?: {_W})*)\)"
#: Every statement that a learned policy may have, and how it is written.
_FORMS = {
    **dict.fromkeys(("user", "role", "type", "block", "typeattribute"), f"({_W})"),
    **dict.fromkeys(("userrole", "roletype"), f"({_W}) ({_W})"),
    **dict.fromkeys(("class", "typeattributeset"), f"({_W}) {_WORDS}"),
    **dict.fromkeys(("allow", "neverallow"), rf"({_W}) ({_W}) \(({_W}) {_WORDS}\)"),
    "in": rf"({_W}) \((type|block) ({_W})\)",
    "typetransition": rf"({_W}) ({_W}) mach_port ({_W})",
}
_ROW = ["effective_sid", "object_sid", "peer_sid", "tclass", "asked", "denied", "flags", "result"]
_Grant = tuple[str, ...]  # source, target, class, permission


class CertificateError(PympiError):
    """The policy, the certificate and the recordings do not belong together; it says where."""


def check(policy: bytes, certificate: bytes, recordings: list[Path]) -> int:
    """Verify every claim of a certificate; return how many permissions the policy grants.

    Raises CertificateError where a claim is false or missing, or the policy is not in the form that
    `learn` writes; ValueError (TraceError, AuditError), OSError for bad recordings.
    """
    rules, read = _Policy(policy), [_Recording(path) for path in recordings]
    used = sum((each.used for each in read), Counter[_Grant]())
    completed = {grant for each in read for grant in each.closure} - used.keys()
    if missing := sorted((used.keys() | completed) - rules.granted):
        raise CertificateError(f"policy: {tuple(missing[0])} is needed, and not allowed")
    for line, forbidden in rules.forbidden.items():
        if broken := sorted(forbidden & rules.granted):
            raise CertificateError(f"policy: {line} is broken: {broken[0]} is allowed")
    rules.check_declarations(read)
    truth = {
        "format": "pympi policy certificate 1",
        "policy": hashlib.sha256(policy).hexdigest(),
        "recordings": [{"sha256": r.sha256, "kind": r.kind, **r.numbers} for r in read],
        "recorded": [[*grant, used[grant]] for grant in sorted(used)],
        "closure": [list(grant) for grant in sorted(completed)],
        "generalised": [list(g) for g in sorted(rules.granted - used.keys() - completed)],
        "neverallows": list(rules.forbidden),
    }
    _compare(certificate, truth)
    return len(rules.granted)


def _compare(certificate: bytes, truth: dict[str, Any]) -> None:
    try:
        claims = json.loads(certificate.decode())
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"certificate: expected JSON: {error}") from None
    if not isinstance(claims, dict) or claims.keys() != truth.keys():
        raise CertificateError(f"certificate: expected an object of {', '.join(truth)}")
    for key, right in truth.items():
        if wrong := sorted(set(_rows(claims[key])) ^ set(_rows(right))):
            how = "missing" if wrong[0] in _rows(right) else "not true"
            raise CertificateError(f"certificate: {key}: {wrong[0]} is {how}")
    if certificate.decode() != _written(truth):
        raise CertificateError("certificate: rows twice, in another order, or not as learn writes")


def _written(truth: dict[str, Any]) -> str:
    rows = {key: ",\n  ".join(_rows(value)) for key, value in truth.items()}
    rows |= {k: f"[\n  {rows[k]}\n ]" for k, v in truth.items() if v and isinstance(v, list)}
    return "{\n" + ",\n".join(f' "{key}": {rows[key] or []}' for key in rows) + "\n}\n"


def _rows(value: Any) -> list[str]:
    """What a claim says, as JSON: for Python 1, 1.0 and true are equal."""
    return [json.dumps(v) for v in (value if isinstance(value, list) else [value])]


class _Policy:
    """What the text says: what it declares, grants and forbids."""

    def __init__(self, text: bytes) -> None:
        self._said: dict[str, set[tuple[str, ...]]] = {form: set() for form in _FORMS}
        self._members: dict[str, set[str]] = {}
        self.granted: set[_Grant] = set()
        self.forbidden: dict[str, set[_Grant]] = {}
        for number, line in enumerate(text.decode("ascii", "replace").split("\n"), 1):
            try:
                if line and not line.startswith(";"):
                    self._statement(line)
            except (KeyError, ValueError) as error:
                raise CertificateError(f"policy:{number}: {error}: {line[:99]!r}") from None

    def _statement(self, line: str) -> None:
        form, _, rest = line[1:-1].partition(" ")
        match = re.fullmatch(_FORMS.get(form, "(?!)"), rest)
        if not match or line != f"({form} {rest})" or match.groups() in self._said[form]:
            raise ValueError("not what learn writes, or said twice")
        self._said[form].add(words := match.groups())
        if form in ("type", "in", "typeattribute"):
            name = f"{words[0]}.{words[2]}" if form == "in" else words[0]
            self._members[name] = {name} if "type" in (form, *words[1:2]) else set()
        elif form == "typeattributeset":
            self._members[words[0]].update(*(self._members[m] for m in words[1].split(" ")))
        elif form == "allow":
            self.granted |= self._vector(*words)
        elif form == "neverallow":
            self.forbidden[line] = self._vector(*words)

    def _vector(self, source: str, target: str, tclass: str, permissions: str) -> set[_Grant]:
        return {
            (one, other, tclass, permission)
            for one in self._members[source]
            for other in ({one} if target == "self" else self._members[target])
            for permission in permissions.split(" ")
        }

    def check_declarations(self, recordings: list[_Recording]) -> None:
        contexts = {context for each in recordings for context in each.contexts}
        needed: dict[str, set[tuple[str, ...]]] = {
            "user": {(user,) for user, _, _ in contexts} | {("system_u",)},
            "role": {(role,) for _, role, _ in contexts} | {("object_r",)},
            "userrole": {tuple(context[:2]) for context in contexts} | {("system_u", "object_r")},
            "roletype": {tuple(context[1:]) for context in contexts if context[1] != "object_r"},
            "class": {names for each in recordings for names in each.classes},
            "typetransition": {names for each in recordings for names in each.new_ports},
        }
        for form, right in needed.items():
            if wrong := sorted(self._said[form] ^ right):
                raise CertificateError(f"policy: {form} {wrong[0]} should not be there, or should")
        if missing := sorted({type_ for *_, type_ in contexts} - self._members.keys()):
            raise CertificateError(f"policy: the type {missing[0]} is missing")


class _Recording:
    """What a recording says, counted anew: what was used, contexts as (user, role, type)."""

    def __init__(self, path: Path) -> None:
        self.sha256 = hashlib.sha256(np.memmap(path, mode="r").data).hexdigest()
        self.numbers, self.used = Counter(lost=0), Counter[_Grant]()
        self.contexts, self.classes, self.new_ports = (set[tuple[str, ...]]() for _ in range(3))
        with path.open("rb") as file:
            form = forms.form_by(file.read(16))
            file.seek(0)
            self.kind, self.closure = form.word if form else "", frozenset[_Grant]()
            self._audit(path) if form else self._trace(TraceReader(file))

    def _trace(self, reader: TraceReader) -> None:
        self.kind, records = reader.form, list(reader)
        self.numbers["lost"], self.closure = reader.lost, closure(records, self.kind)
        for event, task, owner, kind, _, count in records:
            target, permission = port_label(owner, kind), "use_recv" if event == "recv" else event
            self.used[task_label(task), target, "mach_port", permission] += count
            new = {(task_label(who), task_label(who), port_label(who)) for who in (task, owner)}
            self.new_ports |= new
            self.contexts |= {("system_u", "system_r", who) for who, _, _ in new}
            self.contexts |= {("system_u", "object_r", p) for p in (target, *(n[2] for n in new))}

    def _audit(self, path: Path) -> None:
        seen: Counter[tuple[Any, ...]] = Counter()
        for batch in forms.batches(path):
            for row, count in Counter(batch.records[_ROW].tolist()).items():
                *sids, number, asked, denied, flags, result = row
                self.numbers["lost"] += result * count if flags & AuditFlag.LOSS else 0
                if number and asked and (not denied or flags & AuditFlag.PERMISSIVE):
                    key = (*map(batch.labels.get, sids), batch.classes[number], asked)
                    seen[key] += count * max(flags >> 16, 1)  # kept by chance, it stands for many
                    self.numbers.update({"sampled": count} if flags >> 16 > 1 else {})
        for (*labels, tclass, asked), count in seen.items():
            self._used([parse_label(x or "-").get("te") for x in labels], tclass, asked, count)

    def _used(self, texts: list[str | None], tclass: ObjectClass, asked: int, count: int) -> None:
        if tclass.name not in CLASSES:
            self.classes.add((tclass.name, " ".join(filter(None, tclass.permissions))))
        one, port, sender = ((x or "system_u:object_r:unlabeled_t").split(":") for x in texts)
        for permission in (names := tclass.names(asked)):
            # One record may ask of the port and, `recv`, of the sender, who is the peer.
            other = sender if permission == "recv" and "use_recv" in names else port
            self.contexts |= {tuple(one), tuple(other)}
            self.used[one[2], other[2], tclass.name, permission] += count
