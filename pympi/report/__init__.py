# SPDX-License-Identifier: BSD-2-Clause
"""One page about a run: who talked to whom, what was refused and why, what was lost."""

from .gather import Findings, ReportError, gather
from .page import page

__all__ = ["Findings", "ReportError", "gather", "page"]
