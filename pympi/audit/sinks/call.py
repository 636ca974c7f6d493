# SPDX-License-Identifier: BSD-2-Clause
"""A function as a sink."""

from __future__ import annotations

from collections.abc import Callable as AnyCallable

from ..record import AuditRecord, Batch

__all__ = ["Callable"]


class Callable:
    """Calls a function for each record, in words; or for each batch, as any function does itself.

    Args:
        function: what it returns does not matter; what it raises is the sink's failure.
        each: True: it is called with an `AuditRecord`; False: with a `Batch`.
        when_full: as for `Audit.attach`.

    Example:
        >>> from pympi import Kernel, audit
        >>> seen = []
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.Callable(lambda r: seen.append(r.operation)))
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     inbox.make_send(kernel.create_task("client")).send(b"hello")
        >>> seen[-1]
        'send'
    """

    def __init__(
        self, function: AnyCallable[[AuditRecord], object] | AnyCallable[[Batch], object], *,
        each: bool = True, when_full: str = "drop",
    ) -> None:  # fmt: skip
        self.when_full = when_full
        self.name = str(getattr(function, "__qualname__", None) or type(function).__name__)
        self._function: AnyCallable[..., object] = function
        self._each = each

    def __call__(self, batch: Batch) -> None:
        """Call the function."""
        if not self._each:
            self._function(batch)
            return
        for record in batch:
            self._function(record)
