# SPDX-License-Identifier: BSD-2-Clause
"""What the numbers in records stand for, as an audit file defines it bit by bit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from ..enums import ObjectClass
from .content import NUMBER
from .record import Batch

__all__ = ["Tables", "Words"]

_PERMISSIONS = 32
_T = TypeVar("_T")


class Words(Mapping[int, _T]):
    """What numbers stood for at one time: later definitions do not change it, and copy nothing."""

    __slots__ = ("_changed", "_history", "_size", "_version")

    def __init__(
        self, history: dict[int, tuple[list[int], list[_T]]], version: int, changed: int
    ) -> None:
        self._history, self._version, self._changed = history, version, changed
        self._size = len(history)

    def rebinds(self, before: Mapping[int, _T]) -> bool:
        """Whether a number stands for something else than it did, or for nothing any more."""
        if isinstance(before, Words) and before._history is self._history:
            return self._changed > before._version
        return before != self and any(self.get(n) != known for n, known in before.items())

    def __getitem__(self, number: int) -> _T:
        versions, words = self._history[number]
        known = versions[-1] <= self._version
        if at := len(words) if known else bisect_right(versions, self._version):
            return words[at - 1]
        raise KeyError(number)

    def __iter__(self) -> Iterator[int]:
        known = list(self._history.items())
        return (number for number, (versions, _) in known if versions[0] <= self._version)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return repr(dict(self))


class _Definitions(Generic[_T]):
    """What numbers were said to stand for, one after the other."""

    def __init__(self) -> None:
        self._history: dict[int, tuple[list[int], list[_T]]] = {}
        self._version = self._changed = 0
        self._now: Words[_T] | None = None

    def define(self, number: int, word: _T) -> bool:
        """Take a definition; return whether the number stood for something else."""
        versions, words = self._history.setdefault(number, ([], []))
        if words and words[-1] == word:
            return False
        self._version += 1
        versions.append(self._version)
        words.append(word)
        self._now = None
        again = len(words) > 1
        if again:
            self._changed = self._version
        return again

    def now(self) -> Words[_T]:
        """Return what is defined: the same object as long as nothing is added."""
        if self._now is None:
            self._now = Words(self._history, self._version, self._changed)
        return self._now


class Tables:
    """What the numbers in records stand for.

    Args:
        rebind: a number may come to stand for something else.
    """

    def __init__(self, *, rebind: bool = True) -> None:
        self._rebind = rebind
        self._labels: _Definitions[str] = _Definitions()
        self._tasks: _Definitions[str] = _Definitions()
        self._classes: _Definitions[ObjectClass] = _Definitions()
        self._services: dict[int, str] = {}

    def define(self, tag: bytes, payload: bytes) -> None:
        """Take a definition: what is in a frame LABL, TASK, CLAS or SERV.

        Raises:
            ValueError: it is none, or says what may not be said again.
        """
        (number,) = NUMBER.unpack_from(payload)
        text = payload[NUMBER.size :].decode(errors="surrogateescape")
        if tag == b"SERV":
            self._services[number] = text
            again = False
        elif tag == b"CLAS":
            again = self._classes.define(number, _class(number, text))
        else:
            table = self._labels if tag == b"LABL" else self._tasks
            again = table.define(number, text)
        if again and not self._rebind:
            raise ValueError(f"{tag.decode()} {number} stands for something else in this block")

    def batch(self, records: npt.NDArray[Any]) -> Batch:
        """Return records with what their numbers stand for."""
        tables = self._labels.now(), self._tasks.now(), self._classes.now()
        return Batch(records, *tables, self._services)

    def end_of_records(self) -> None:
        """Forget the services: they were those of one frame of records."""
        if self._services:
            self._services = {}


def _class(number: int, text: str) -> ObjectClass:
    name, *permissions = text.split(" ")
    if len(permissions) > _PERMISSIONS:
        raise ValueError(f"a class has at most {_PERMISSIONS} permissions, not {len(permissions)}")
    return ObjectClass(number, name, tuple(permissions))
