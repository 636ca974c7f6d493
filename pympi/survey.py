# SPDX-License-Identifier: BSD-2-Clause
"""A walk through everything a kernel has, as the core's rows: `Kernel.survey`.

What is here are numbers; `Kernel.snapshot` puts words to them. The kernel goes on while it is
looked at, and the GIL is given up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from ._ffi import ffi, lib
from ._rows import dtype_of
from .errors import check, exception

__all__ = ["PORTS", "RIGHTS", "TASKS", "PortFlag", "Survey", "survey"]

TASKS: np.dtype[Any] = dtype_of("pm_task_row")
PORTS: np.dtype[Any] = dtype_of("pm_port_row")
RIGHTS: np.dtype[Any] = dtype_of("pm_right_row")
"""The numpy forms of `struct pm_task_row`, `pm_port_row` and `pm_right_row`."""


class PortFlag(IntFlag):
    """Bits of `flags` in a row of `PORTS`; others are the core's own."""

    ACTIVE = lib.PM_PORT_ACTIVE
    IN_TRANSIT = lib.PM_PORT_IN_TRANSIT
    HANDLER = lib.PM_PORT_HANDLER
    GUARDED = lib.PM_PORT_GUARDED
    STRICT = lib.PM_PORT_STRICT
    IMMOVABLE = lib.PM_PORT_IMMOVABLE
    REPLY = lib.PM_PORT_REPLY


_TABLES = {"tasks": TASKS, "ports": PORTS, "rights": RIGHTS}
_STOPS = 8  # tries with more room each, while the kernel grows


@dataclass(frozen=True)
class Survey:
    """What a walk found.

    Attributes:
        begin, end: the kernel's counters before and after, by name: `struct pm_mark`.
        stopped: seconds for which the kernel stood still; None: it did not.
        tasks, ports, rights: arrays of dtype `TASKS`, `PORTS`, `RIGHTS`.
        names: of the tasks, in order; bytes.
        classes: of the interfaces that ports have, by their numbers: the number of the first class.
    """

    begin: dict[str, int]
    end: dict[str, int]
    stopped: float | None
    tasks: npt.NDArray[Any]
    ports: npt.NDArray[Any]
    rights: npt.NDArray[Any]
    names: list[bytes]
    classes: dict[int, int]


class _Room:
    """Rows for the core to fill: as many as there should be, and some."""

    def __init__(self, mark: Any, factor: int = 1) -> None:
        counts = {
            "tasks": mark.tasks_made - mark.tasks_ended,
            "ports": mark.ports,
            "rights": mark.names,
        }
        self.rows = ffi.new("struct pm_rows *")
        self.arrays = {
            table: np.empty(64 + factor * (count + count // 8), _TABLES[table])
            for table, count in counts.items()
        }
        self.text = np.empty(4096 + factor * 32 * len(self.arrays["tasks"]), np.uint8)
        for table, array in self.arrays.items():
            pointer = ffi.from_buffer(f"struct pm_{table[:-1]}_row[]", array)
            setattr(self.rows, table, pointer)
            setattr(self.rows, f"{table}_room", len(array))
        self.rows.text = ffi.from_buffer("char[]", self.text)
        self.rows.text_room = len(self.text)

    def found(self, table: str) -> npt.NDArray[Any]:
        return self.arrays[table][: getattr(self.rows, f"{table}_used")]

    def names(self) -> list[bytes]:
        text, tasks = self.text.tobytes(), self.found("tasks")
        starts = tasks["name_at"].tolist()
        lengths = tasks["name_length"].tolist()
        return [text[at : at + size] for at, size in zip(starts, lengths, strict=True)]


def _counters(mark: Any) -> dict[str, int]:
    return {name: getattr(mark, name) for name, _ in ffi.typeof("struct pm_mark").fields}


def survey(pointer: Any, stop: bool = False) -> Survey:
    """Walk through the kernel at `pointer`; see `Kernel.survey`."""
    walk, begin, end = (ffi.new(f"struct pm_{name} *") for name in ("inspect", "mark", "mark"))
    check(lib.pm_inspect_begin(pointer, walk, begin), "survey()")
    try:
        rooms, stopped = _stop(walk, begin) if stop else (_go(walk, begin), None)
        classes = _classes(pointer, rooms)  # the walk keeps the kernel: another thread may close it
    finally:
        check(lib.pm_inspect_end(walk, end), "survey()")
    found: defaultdict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    for room in rooms:
        for table in _TABLES:
            found[table].append(room.found(table))
    tables = {table: _joined(parts) for table, parts in found.items()}
    return Survey(
        begin=_counters(begin),
        end=_counters(begin if stop else end),
        stopped=stopped,
        names=[name for room in rooms for name in room.names()],
        classes=classes,
        **tables,
    )


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _go(walk: Any, mark: Any) -> list[_Room]:
    rooms = [_Room(mark)]
    while (code := lib.pm_long_inspect_read(walk, rooms[-1].rows)) == lib.KERN_NO_SPACE:
        rooms.append(_Room(mark))
    check(code, "survey()")
    return rooms


def _stop(walk: Any, mark: Any) -> tuple[list[_Room], float]:
    stopped = ffi.new("uint64_t *")
    for doublings in range(_STOPS):
        room = _Room(mark, 1 << doublings)
        code = lib.pm_long_inspect_stopped(walk, room.rows, mark, stopped)
        if code != lib.KERN_NO_SPACE:
            check(code, "survey()")
            return [room], stopped[0] / 1e9
    raise exception(code, "survey(): the kernel grows faster than room can be made")


def _classes(pointer: Any, rooms: list[_Room]) -> dict[int, int]:
    numbers = {n for room in rooms for n in np.unique(room.found("ports")["interface"]).tolist()}
    return {n: int(lib.pm_interface_class(pointer, n)) for n in sorted(numbers) if n}
