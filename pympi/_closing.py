# SPDX-License-Identifier: BSD-2-Clause
"""What is closed at the end of a `with` block."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Closing"]

C = TypeVar("C", bound="Closing")


class Closing:
    """A context manager that is its own value, and is closed however its block ends."""

    __slots__ = ()

    if TYPE_CHECKING:  # whoever derives from this has one

        def close(self) -> None:
            """Close it."""

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()
