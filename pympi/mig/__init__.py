# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces: the methods of a port, by name and number, as MIG subsystems have them.

An interface comes from Python declarations or from a MIG `.defs` file. It maps messages to methods
for access control, makes stubs for clients, and dispatches messages in servers.
"""

from .client import Client, Method, TypedMethod
from .codes import (
    MIG_BAD_ARGUMENTS,
    MIG_BAD_ID,
    MIG_NO_REPLY,
    MIG_REPLY_MISMATCH,
    MIG_SERVER_DIED,
    MIG_TYPE_ERROR,
    MigError,
)
from .defs import Subsystem, read_defs, read_defs_text
from .interface import Interface
from .routine import Argument, Routine
from .server import Server
from .text import DefsError, Limits, parse_type

__all__ = [
    "MIG_BAD_ARGUMENTS",
    "MIG_BAD_ID",
    "MIG_NO_REPLY",
    "MIG_REPLY_MISMATCH",
    "MIG_SERVER_DIED",
    "MIG_TYPE_ERROR",
    "Argument",
    "Client",
    "DefsError",
    "Interface",
    "Limits",
    "Method",
    "MigError",
    "Routine",
    "Server",
    "Subsystem",
    "TypedMethod",
    "parse_type",
    "read_defs",
    "read_defs_text",
]
