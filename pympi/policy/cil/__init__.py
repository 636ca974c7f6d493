# SPDX-License-Identifier: BSD-2-Clause
"""SELinux CIL: the policy language of `te`, read and compiled."""

from .budget import Budget
from .compiler import compile_policy
from .files import read_files
from .policydb import PolicyDatabase

__all__ = ["Budget", "PolicyDatabase", "compile_policy", "read_files"]
