# SPDX-License-Identifier: BSD-2-Clause
"""Denials to OpenTelemetry, as log records."""

from __future__ import annotations

from typing import Any

from ...enums import AuditFlag
from ..record import AuditRecord, Batch
from .lines import sentence

__all__ = ["OpenTelemetry"]

_EVENT = "pympi.denied"
_MOST = 1024
_NUMBERS = ("sequence", "task", "port", "msgh_id", "transfer", "epoch")
_TEXTS = ("operation", "subject", "object", "task_name", "tclass", "result", "service")
_LISTS = ("asked", "denied")


class OpenTelemetry:
    """Emits denials, and losses of records, as OpenTelemetry log records; nothing else.

    A log record costs far more than a message, which is why there is none for what is granted.
    Attributes are `pympi.` and the name of the field of `AuditRecord`.

    Args:
        provider: of loggers; by default the one that the program has set.
        when_full: as for `Audit.attach`.

    Raises:
        ImportError: OpenTelemetry is not installed: `pip install 'pympi-mach[otel]'`.

    Example:
        >>> from pympi import Kernel, audit
        >>> with Kernel() as kernel:
        ...     kernel.audit.attach(audit.OpenTelemetry())  # doctest: +SKIP
    """

    name = "OpenTelemetry"

    def __init__(self, provider: Any = None, when_full: str = "drop") -> None:
        try:
            from opentelemetry import _logs as api
        except ImportError as error:
            hint = "pip install 'pympi-mach[otel]'"
            raise ImportError(f"this sink needs OpenTelemetry: {hint}") from error
        self.when_full = when_full
        self._record = api.LogRecord
        self._severity = {"denied": api.SeverityNumber.WARN, "loss": api.SeverityNumber.ERROR}
        provider = api.get_logger_provider() if provider is None else provider
        self._logger = provider.get_logger("pympi.audit")

    def __call__(self, batch: Batch) -> None:
        """Emit what there is to tell of a batch."""
        records = batch.records
        told = (records["denied"] | records["flags"] & AuditFlag.LOSS) != 0
        part = batch.part(told)
        for record, time in zip(part, part.records["time"].tolist(), strict=True):
            if record.outcome in self._severity:
                self._logger.emit(self._log_record(record, time))

    def _log_record(self, record: AuditRecord, time: int) -> Any:
        return self._record(
            timestamp=time,
            severity_number=self._severity[record.outcome],
            severity_text=record.outcome,
            body=sentence(record),
            event_name=_EVENT if record.outcome == "denied" else "pympi.lost",
            attributes=_attributes(record),
        )


def _attributes(record: AuditRecord) -> dict[str, Any]:
    numbers: dict[str, Any] = {key: getattr(record, key) for key in _NUMBERS}
    texts = {key: _unicode(getattr(record, key)) for key in _TEXTS}
    lists = {key: [_unicode(name) for name in getattr(record, key)] for key in _LISTS}
    return {f"pympi.{key}": value for key, value in (numbers | texts | lists).items()}


def _unicode(text: str) -> str:
    """Return text that can be sent as UTF-8, and is not too long."""
    return text[:_MOST].encode(errors="backslashreplace").decode()
