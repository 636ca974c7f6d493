# SPDX-License-Identifier: BSD-2-Clause
"""Packages whose names are imported when they are asked for (PEP 562).

A command that asks one question of a policy has no use for ports, numpy and the rest: importing all
of it would take longer than the answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazily"]


def lazily(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package; its modules are attributes of it as well.

    Type checkers are to see imports instead: a `__getattr__` makes them take every name.

    Args:
        package: its `__name__`.
        homes: the names that it exports, blanks between them, by the module of the package that
            has them. No name may be that of a module, too: whoever imports the module sets it.
    """
    places = {name: home for home, names in homes.items() for name in names.split()}

    def getattr_(name: str) -> Any:
        if name not in places:
            return _module(package, name)
        value = getattr(import_module(f"{package}.{places[name]}"), name)
        setattr(sys.modules[package], name, value)  # not to be asked again
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *sys.modules[package].__all__})

    return getattr_, dir_


def _module(package: str, name: str) -> Any:
    whole = f"{package}.{name}"
    if not name.startswith("_"):
        try:
            return import_module(whole)
        except ModuleNotFoundError as error:
            if error.name != whole:
                raise
    raise AttributeError(
        f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package]
    )
