# SPDX-License-Identifier: BSD-2-Clause
"""What others do with a message of 64 bytes in one thread: put it in, take it out."""

BODY = b"as long as a message of the budget: sixty-four bytes, all told.\0"
