# SPDX-License-Identifier: BSD-2-Clause
"""Records as Linux audit writes them: `pympi.audit.avc` makes the lines."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...enums import ObjectClass
from ..avc import UNLABELED, audit_lines, avc_lines
from ..record import Batch
from .lines import LineFile

__all__ = ["AVCFile", "AuditText"]


class AuditText(LineFile):
    """A sink that writes every record as a message of Linux audit, for ausearch and aureport.

    Decisions are AVC messages. What is of no decision is a USER_ERR: a call that failed for another
    reason than access, a loss of records.

    Args:
        path: of the file, which is replaced.
        when_full: what becomes of an operation whose record finds no room, as for `Audit.attach`.
        unlabeled: the context of what has none.
        **options: mode, durability and interval of a `LineFile`.

    Example:
        >>> import tempfile, os.path
        >>> from pathlib import Path
        >>> from pympi import Kernel, SendRight, audit
        >>> path = os.path.join(tempfile.mkdtemp(), "audit.log")
        >>> with Kernel() as kernel:
        ...     kernel.audit.attach(audit.AuditText(path))
        ...     try:
        ...         SendRight(kernel.create_task("client"), 0x7703).send(b"")
        ...     except LookupError:
        ...         pass
        >>> line = Path(path).read_text()
        >>> line.partition(" ")[0], line.partition("result=")[2].partition(" ")[0]
        ('type=USER_ERR', 'MACH_SEND_INVALID_DEST')
    """

    _lines = staticmethod(audit_lines)

    def __init__(
        self, path: str | os.PathLike[str], when_full: str = "drop", *,
        unlabeled: str = UNLABELED, **options: object,
    ) -> None:  # fmt: skip
        super().__init__(path, when_full, **options)  # type: ignore[arg-type]
        self._unlabeled = unlabeled
        self._classes: dict[str, ObjectClass] = {}

    def lines(self, batch: Batch) -> Iterator[str]:
        """Return the lines of a batch."""
        self._classes |= batch.used_classes()
        for line in self._lines(batch, classes=self._classes, unlabeled=self._unlabeled):
            yield line + "\n"


class AVCFile(AuditText):
    """A sink that writes AVC messages to a text file.

    What a kernel records is selected in `kernel.audit`, by default denials; of what is recorded the
    file has every decision. `AuditText` has the rest too; for everything about it use `File`.

    The arguments are those of `AuditText`.

    Example:
        >>> import tempfile, os.path
        >>> from pathlib import Path
        >>> from pympi import Kernel, audit
        >>> from pympi.policy import Partition
        >>> path = os.path.join(tempfile.mkdtemp(), "avc.log")
        >>> with Kernel(policies=[Partition()]) as kernel:
        ...     kernel.audit.attach(audit.AVCFile(path))
        ...     port = kernel.create_task("red", label="partition/red").allocate_port()
        ...     try:
        ...         _ = port.make_send(kernel.create_task("blue", label="partition/blue"))
        ...     except PermissionError:
        ...         pass
        >>> lines = Path(path).read_text().splitlines()
        >>> [line.partition(" for ")[0].partition("avc:")[2] for line in lines]
        ['  denied  { hold_send }']
    """

    _lines = staticmethod(avc_lines)
