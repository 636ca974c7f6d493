# SPDX-License-Identifier: BSD-2-Clause
"""Records to Python's logging."""

from __future__ import annotations

import logging

from ..record import Batch
from .lines import sentence

__all__ = ["LEVELS", "Logging"]

LEVELS = {
    "granted": logging.DEBUG,
    "failed": logging.INFO,
    "denied": logging.WARNING,
    "loss": logging.ERROR,
}
"""The level at which an outcome is logged."""


class Logging:
    """Logs records, a line of printable ASCII each, at the level of their outcome.

    The record itself is `audit` of the `logging.LogRecord`, for handlers that format it their way.
    A handler that is slow, or locked by somebody who waits for room, keeps this sink from going on.

    Args:
        logger: or the name of one.
        levels: by outcome; what is not there is not logged.
        when_full: as for `Audit.attach`.

    Example:
        >>> import io, logging
        >>> from pympi import Kernel, audit
        >>> from pympi.policy import Partition
        >>> logger, text = logging.getLogger("example"), io.StringIO()
        >>> logger.addHandler(logging.StreamHandler(text))
        >>> with Kernel(policies=[Partition()]) as kernel:
        ...     kernel.audit.attach(audit.Logging(logger))
        ...     port = kernel.create_task("red", label="partition/red").allocate_port()
        ...     try:
        ...         _ = port.make_send(kernel.create_task("blue", label="partition/blue"))
        ...     except PermissionError:
        ...         pass
        >>> print(text.getvalue().strip())
        blue (partition/blue) take hold_send on mach_port of partition/red: denied
    """

    def __init__(
        self, logger: logging.Logger | str = "pympi.audit.records",
        levels: dict[str, int] | None = None, when_full: str = "drop",
    ) -> None:  # fmt: skip
        self.when_full = when_full
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._levels = LEVELS if levels is None else levels
        self.name = f"Logging({self._logger.name})"

    def __call__(self, batch: Batch) -> None:
        """Log a batch, record by record."""
        enabled = {o: n for o, n in self._levels.items() if self._logger.isEnabledFor(n)}
        if not enabled:
            return
        for record in batch:
            level = enabled.get(record.outcome)
            if level is not None:
                self._logger.log(level, "%s", sentence(record), extra={"audit": record})
