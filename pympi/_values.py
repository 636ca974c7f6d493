# SPDX-License-Identifier: BSD-2-Clause
"""Arguments as the core wants them: times and bytes."""

from __future__ import annotations

import math

__all__ = ["bytes_of", "nanoseconds"]

_LONGEST = (1 << 63) - 1


def nanoseconds(timeout: float | None) -> int:
    """Return a timeout as the core takes it.

    Args:
        timeout: seconds; 0 polls, None waits for ever.

    Returns:
        Nanoseconds, -1 for ever.

    Raises:
        ValueError: negative, not a number, infinite, or beyond 2**63 nanoseconds (292 years).
        TypeError: not a number at all.
    """
    if timeout is None:
        return -1
    if timeout == 0:
        return 0
    if not math.isfinite(timeout) or timeout < 0:
        raise ValueError(f"timeout must be at least 0 seconds, or None for ever, not {timeout!r}")
    if timeout * 1e9 >= _LONGEST:
        raise ValueError(f"timeout of {timeout!r} seconds is over 292 years; use None for ever")
    return max(1, round(timeout * 1_000_000_000))


def bytes_of(body: object) -> bytes:
    """Return the bytes of a bytes-like object (bytes, bytearray, memoryview, numpy array).

    They are copied while the GIL is held, so nobody can change them under the core's eyes.

    Raises:
        TypeError: `body` is not bytes-like.
    """
    if type(body) is bytes:
        return body
    try:
        return memoryview(body).tobytes()  # type: ignore[arg-type]
    except TypeError:
        kind = type(body).__name__
        raise TypeError(
            f"a body must be bytes-like (bytes, bytearray, array), not {kind}"
        ) from None
