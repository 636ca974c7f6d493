# SPDX-License-Identifier: BSD-2-Clause
"""Tools for those who write policies; built on the public API, traces and audit files included."""
