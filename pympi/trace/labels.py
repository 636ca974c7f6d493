# SPDX-License-Identifier: BSD-2-Clause
"""Labels for the tasks and ports of a recording: mangled names, or what a table says instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .mangle import port_label, task_label
from .text import KOBJECT_NUMBERS, MACH_KERNEL, MAX_LINE, MAX_RECORDS, TraceError, unescape

_Key = tuple[str, str, int]

#: Users and roles around the mangled names where a label is a security context.
_CONTEXTS = {"te": ("system_u:system_r:", "system_u:object_r:")}


class Labels:
    """Gives each task and each port owner its label.

    Args:
        module: the policy module whose value the mangled name is ("rules" gives "rules/task-a").
            A value of "te" is a context, `te/system_u:system_r:task-a`, of ports with object_r.
        given: labels instead of the mangled name, by ("task", name, 0) and ("port", owner, kind).
    """

    def __init__(self, module: str = "rules", given: Mapping[_Key, str] | None = None) -> None:
        task, port = _CONTEXTS.get(module, ("", ""))
        self._task, self._port = f"{module}/{task}", f"{module}/{port}"
        self._given = dict(given or {})

    def task(self, name: str) -> str:
        """The label of the task `name`."""
        return self._given.get(("task", name, 0), f"{self._task}{task_label(name)}")

    def port(self, owner: str, kind: int) -> str:
        """The label of the ports of `owner`, for mach_kernel's those of this kernel object kind."""
        mangled = f"{self._port}{port_label(owner, kind)}"
        return self._given.get(("port", owner, kind), mangled)


def read_labels(path: str | os.PathLike[str], module: str = "rules") -> Labels:
    """The table at `path`: lines `task LABEL NAME` and `port LABEL OWNER` (docs/trace.md).

    Raises:
        TraceError: naming file, line, column and what was expected there.
        OSError: the file cannot be opened or read.
    """
    path = Path(path)
    with path.open("rb") as file:
        return _parse(iter(lambda: file.readline(MAX_LINE + 1), b""), str(path), module)


def _parse(lines: Iterable[bytes], file: str, module: str) -> Labels:
    labels: dict[_Key, str] = {}
    for number, raw in enumerate(lines, 1):
        if number > MAX_RECORDS:
            raise TraceError(file, number, 1, f"at most {MAX_RECORDS} lines", "more")
        if len(raw) > MAX_LINE:
            raise TraceError(file, number, MAX_LINE, f"a line of at most {MAX_LINE} bytes", "more")
        if not raw.strip() or raw.startswith(b"#"):
            continue
        try:
            what, label, name = raw.decode().rstrip("\n").split(None, 2)
            key = _key(what, unescape(name))
        except ValueError as error:
            expected = "'task LABEL NAME' or 'port LABEL OWNER', names escaped, UTF-8"
            raise TraceError(file, number, 1, expected, f"{raw[:64]!r} ({error})") from None
        if key in labels:
            raise TraceError(file, number, 1, "each name once", repr(name))
        labels[key] = label
    return Labels(module, labels)


def _key(what: str, name: str) -> _Key:
    """What a line of the table is about."""
    if what not in ("task", "port"):
        raise ValueError(f"{what!r} is neither task nor port")
    owner, _, kobject = name.partition(":")
    if what == "task" or owner != MACH_KERNEL:
        return what, name, 0
    if kobject not in KOBJECT_NUMBERS:
        raise ValueError(f"{kobject!r} is no kernel object kind")
    return what, owner, KOBJECT_NUMBERS[kobject]
