# SPDX-License-Identifier: BSD-2-Clause
"""What happened when: audit records as a timeline, and as a diagram of one conversation."""

from .acts import Act, acts
from .perfetto import Timeline, write_timeline
from .sequence import Chosen, Diagram, sequence

__all__ = ["Act", "Chosen", "Diagram", "Timeline", "acts", "sequence", "write_timeline"]
