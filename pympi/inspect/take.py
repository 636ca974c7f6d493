# SPDX-License-Identifier: BSD-2-Clause
"""Takes a snapshot of a kernel: its rows, with words in the place of numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..enums import Notification
from ..errors import MachError
from ..survey import PortFlag, Survey
from .snapshot import Context, Mark, Module, Policy, Port, Right, Snapshot, Task
from .table import Table

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["bootstrap_of", "policy_of", "take"]

# Fields of a row that are a field of the core's, under another name or the same.
_TASK = {
    field: field
    for field in (
        "id", "parent", "names", "ports", "sids", "notifications", "queued_bytes",
        "memory", "in_flight", "bootstrap",
    )
}  # fmt: skip
_TOKEN = ("auid", "euid", "egid", "ruid", "rgid", "pid", "asid")
_PORT = {
    "queue_length": "queued", "queue_limit": "qlimit", "blocked_senders": "senders_waiting",
    "blocked_receivers": "receivers_waiting",
    **{field: field for field in (
        "id", "receiver", "receiver_name", "destination", "queued_bytes", "seqno", "mscount",
        "send_rights", "send_once_rights", "sets", "set", "kind", "no_senders", "port_destroyed",
        "maker", "number",
    )},
}  # fmt: skip
_FLAGS = {
    "handler": PortFlag.HANDLER,
    "guarded": PortFlag.GUARDED,
    "strict": PortFlag.STRICT,
    "immovable": PortFlag.IMMOVABLE,
    "reply_port": PortFlag.REPLY,
}
_RIGHT = {
    "user_references": "urefs",
    **{field: field for field in ("task", "name", "types", "object", "request_port", "provenance")},
}
_STATES = ("dead", "received", "in transit")
_REQUESTS = {
    0: "",
    Notification.DEAD_NAME: "dead name",
    Notification.SEND_POSSIBLE: "send possible",
}


class _Words:
    """The texts of a snapshot, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
        return self._places[text]

    def column(self, numbers: npt.NDArray[Any], word: Callable[[int], str]) -> npt.NDArray[Any]:
        """Return a column of texts: what `word` makes of each number."""
        different, places = np.unique(numbers, return_inverse=True)
        words = [self.place(word(number)) for number in different.tolist()]
        return np.array(words, np.uint32)[places] if words else np.zeros(0, np.uint32)


class _Taking:
    def __init__(self, kernel: Kernel, found: Survey) -> None:
        self.kernel = kernel
        self.found = found
        self.words = _Words()

    def label(self, sid: int) -> str:
        with suppress(MachError):
            return self.kernel.label(sid)
        return ""  # it went while we looked

    def owner(self, identity: int) -> str:
        with suppress(MachError):
            return _readable(self.kernel.trace.text(identity).encode(errors="surrogateescape"))
        return ""

    def interface(self, number: int) -> str:
        tclass = self.found.classes.get(number)
        return self.kernel.object_class(tclass).name if tclass else ""

    def tasks(self) -> Table[Task]:
        rows = self.found.tasks
        columns = {field: rows[source] for field, source in _TASK.items()}
        columns["alive"] = rows["alive"] != 0
        for place, field in enumerate(_TOKEN):
            columns[field] = rows["audit_token"][:, place]
        names = [self.words.place(_readable(name)) for name in self.found.names]
        columns["name"] = np.array(names, np.uint32)
        columns["label"] = self.words.column(rows["sid"], self.label)
        return Table(Task, columns, self.words.texts)

    def ports(self) -> Table[Port]:
        rows = self.found.ports
        columns = {field: rows[source] for field, source in _PORT.items()}
        for field, flag in _FLAGS.items():
            columns[field] = rows["flags"] & flag != 0
        columns["queued_bytes_partial"] = rows["queued_summed"] < rows["queued"]
        active = rows["flags"] & PortFlag.ACTIVE != 0
        moving = rows["flags"] & PortFlag.IN_TRANSIT != 0
        states = np.where(active, np.where(moving, 2, 1), 0)
        columns["state"] = self.words.column(states, lambda state: _STATES[state])
        columns["label"] = self.words.column(rows["sid"], self.label)
        columns["owner"] = self.words.column(rows["owner"], self.owner)
        columns["interface"] = self.words.column(rows["interface"], self.interface)
        return Table(Port, columns, self.words.texts)

    def rights(self) -> Table[Right]:
        rows = self.found.rights
        columns = {field: rows[source] for field, source in _RIGHT.items()}
        columns["request"] = self.words.column(rows["request"], lambda n: _REQUESTS[n])
        return Table(Right, columns, self.words.texts)


def _readable(name: bytes) -> str:
    """Return a name as text that JSON and msgpack can hold: bytes that are no UTF-8 as \\xNN."""
    return name.decode(errors="backslashreplace")


def _mark(counters: dict[str, int]) -> Mark:
    names = {"ports_made": "objects_made", "ports_gone": "objects_gone"}
    return Mark(**{field: counters[names.get(field, field)] for field in Mark.__struct_fields__})


def policy_of(kernel: Kernel) -> Policy:
    """Return what policy a kernel has in force."""
    policies = kernel.policies
    failures = policies.failures
    modules = []
    for name in policies:
        shadow = None
        with suppress(KeyError):
            shadow = policies.shadow(name).count
        with suppress(KeyError):  # unloaded meanwhile
            permissive = policies.is_permissive(name)
            modules.append(Module(name, permissive, failures.pop(name, 0), shadow))
    return Policy(policies.epoch, policies.permissive, tuple(modules), sum(failures.values()))


def bootstrap_of(kernel: Kernel) -> tuple[Context, ...] | None:
    """Return the contexts of a kernel's name server; None if it has none."""
    contexts: Callable[[], Iterable[Context]] | None = kernel.bootstrap_contexts
    return None if contexts is None else tuple(contexts())


def take(kernel: Kernel, *, consistent: bool = False) -> Snapshot:
    """Take a snapshot; see `Kernel.snapshot`."""
    wall_time = time.time()
    found = kernel.survey(stop=consistent)
    taking = _Taking(kernel, found)
    return Snapshot(
        kernel_time=found.begin["time"] / 1e9,
        wall_time=wall_time,
        begin=_mark(found.begin),
        end=_mark(found.end),
        stopped_seconds=found.stopped,
        tasks=taking.tasks(),
        ports=taking.ports(),
        rights=taking.rights(),
        policy=policy_of(kernel),
        stats=dict(kernel.stats()),
        audit=dict(kernel.audit.stats),
        bootstrap=bootstrap_of(kernel),
    )
