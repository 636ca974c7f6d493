# SPDX-License-Identifier: BSD-2-Clause
"""The labels of contexts and services, as the numbers (SIDs) by which decisions are made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from .service_contexts import ServiceContexts

if TYPE_CHECKING:
    from ..kernel import Kernel
    from .places import Context

__all__ = ["Labels"]


class Labels:
    """Labels that a name server uses; their SIDs are kept as long as it is.

    Attributes:
        service_contexts (ServiceContexts): by which services have labels.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.service_contexts = ServiceContexts()
        self._kernel = kernel
        self._sids: dict[str, int] = {}
        self._kept = ExitStack()

    def sid(self, label: str) -> int:
        """Return the SID of a label.

        Raises:
            LabelError: it is none of the policies in force.
        """
        if label not in self._sids:
            self._sids[label] = self._kept.enter_context(self._kernel.borrowed(label))
        return self._sids[label]

    def of(self, context: Context, name: str) -> int:
        """Return the SID of a service of this name, whether there is one or not."""
        label = self.service_contexts.label(name)
        return context.sid if label is None else self._sids[label]

    def use(self, service_contexts: ServiceContexts) -> None:
        """Label services by other contexts from now on.

        Raises:
            LabelError: a label is none; nothing has changed.
        """
        for label in sorted(service_contexts.labels()):
            self.sid(label)
        self.service_contexts = service_contexts

    def close(self) -> None:
        """Let go of the SIDs."""
        self._kept.close()
