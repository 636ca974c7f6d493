# SPDX-License-Identifier: BSD-2-Clause
"""Who talks to whom, as a graph: made from traces and audit records, drawn by Graphviz."""

from .model import (
    BY,
    OUTCOMES,
    Ask,
    Denial,
    Edge,
    Graph,
    GraphError,
    Node,
    from_audit,
    from_paths,
    from_trace,
)
from .overlay import overlay

__all__ = [
    "BY",
    "OUTCOMES",
    "Ask",
    "Denial",
    "Edge",
    "Graph",
    "GraphError",
    "Node",
    "from_audit",
    "from_paths",
    "from_trace",
    "overlay",
]
