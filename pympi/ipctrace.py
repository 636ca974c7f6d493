# SPDX-License-Identifier: BSD-2-Clause
"""ipctrace in the core: distinct communication paths and their counts (SEDarwin ipctrace).

Everything here is numbers, as the core has them; `pympi.trace.live` puts names to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._ffi import ffi, lib
from ._rows import dtype_of
from .errors import check, exception

if TYPE_CHECKING:
    import numpy.typing as npt

    from .kernel import Kernel

__all__ = ["PATHS", "Recorder"]

PATHS: np.dtype[Any] = dtype_of("pm_trace_record")
"""One path: who did what to a port of whom, how often, and in which place it first occurred."""


class Recorder:
    """Starts, stops and reads the recording of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._texts: dict[int, str] = {}

    def start(self) -> None:
        """Count paths from now on; what was counted is kept."""
        check(lib.pm_trace_start(self.kernel.pointer))

    def stop(self) -> None:
        """Count no more; what was counted is kept."""
        check(lib.pm_trace_stop(self.kernel.pointer))

    def reset(self) -> None:
        """Forget what was counted."""
        check(lib.pm_trace_reset(self.kernel.pointer))

    @property
    def lost(self) -> int:
        """How many events found no room in the table (`Kernel(trace_paths=...)`)."""
        return self.kernel.stats()["trace_overflow"]

    def paths(self) -> npt.NDArray[Any]:
        """Return what was counted, of dtype `PATHS`, in order of first occurrence."""
        room = 1024
        while True:
            found = np.zeros(room, PATHS)
            buffer = ffi.from_buffer("struct pm_trace_record[]", found, require_writable=True)
            count = lib.pm_trace_read(self.kernel.pointer, 0, buffer, room)
            if count < 0:
                raise exception(count, "trace")
            if count <= room:
                return found[:count]
            room = count

    def text(self, identity: int) -> str:
        """Return the name that a number in `task` or `owner` stands for."""
        if identity not in self._texts:
            room = 2048
            buffer = ffi.new("char[]", room)
            length = lib.pm_trace_text(self.kernel.pointer, identity, buffer, room)
            if length < 0:
                raise exception(length, f"trace identity {identity}")
            raw = bytes(ffi.buffer(buffer, min(length, room)))
            self._texts[identity] = raw.decode(errors="surrogateescape")
        return self._texts[identity]
