# SPDX-License-Identifier: BSD-2-Clause
"""The examples in the documentation of the package do what they say."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import pympi


def modules() -> list[ModuleType]:
    """Return the package and all its modules."""
    found = pkgutil.walk_packages(pympi.__path__, "pympi.")
    names = [info.name for info in found if not info.name.endswith(("__main__", "_core"))]
    return [pympi, *map(importlib.import_module, names)]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {m.__name__ for m in modules() if any(t.examples for t in finder.find(m))}
    assert {"pympi", "pympi.kernel", "pympi.port", "pympi.mach", "pympi.policy.base"} <= found


@pytest.mark.parametrize("name", pympi.__all__)
def test_what_is_exported_is_there_and_documented(name: str) -> None:
    thing = getattr(pympi, name)
    assert isinstance(thing, str) or thing.__doc__
