# SPDX-License-Identifier: BSD-2-Clause
"""SELinux CIL: the policy language of `te`, read and compiled."""

from .policydb import PolicyDatabase

__all__ = ["PolicyDatabase"]
