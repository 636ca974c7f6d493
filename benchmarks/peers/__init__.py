# SPDX-License-Identifier: BSD-2-Clause
"""Peers that need a compiler; the others are those of `pympi bench`."""
