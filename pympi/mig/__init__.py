# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces: the methods of a port, by name and number, as MIG subsystems have them."""

from .interface import Client, Interface, Method

__all__ = ["Client", "Interface", "Method"]
