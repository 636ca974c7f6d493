# SPDX-License-Identifier: BSD-2-Clause
"""The binary interface of the core, a line for each thing that programs are compiled against.

    python tools/abi.py                 prints what csrc/pympi.h is on this machine
    python tools/abi.py --record        writes it to tests/lint/abi.txt

Where a line of the file would change or go, PM_ABI_VERSION has to be raised first: programs that
were compiled with the old header would go wrong. --unreleased: no release has had that number yet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pympi._core import ffi, lib

FILE = Path(__file__).resolve().parent.parent / "tests" / "lint" / "abi.txt"
NUMBER = "PM_ABI_VERSION"


def structures() -> Iterator[str]:
    """Yield a line for each structure and each of its fields: where it is, and how large."""
    _, names, _ = ffi.list_types()
    for name in sorted(names):
        try:
            size = ffi.sizeof(f"struct {name}")
        except ffi.error:  # one whose fields are the core's alone
            continue
        yield f"struct {name}: {size} bytes"
        for field, at in ffi.typeof(f"struct {name}").fields:
            yield f"struct {name}.{field} at {at.offset}: {at.type.cname}"


def functions_and_constants() -> Iterator[str]:
    """Yield a line for each function, with its type, and each constant, with its value."""
    for name in sorted(set(dir(lib)) - {NUMBER}):
        if name.startswith(("pm_block_", "pm_long_", "pm_python_", "pm_binding_", "pm_callable_")):
            continue
        thing: Any = getattr(lib, name)
        if isinstance(thing, int):
            yield f"{name} = {thing}"
        elif name.startswith("pm_") and callable(thing):
            yield f"{name}: {ffi.typeof(thing).cname}"


def permissions() -> Iterator[str]:
    """Yield a line for each permission of hooks.def, with its class and its bit."""
    index = 0
    while hook := lib.pm_hook(index):
        names = (ffi.string(text).decode() for text in (hook.class_name, hook.permission))
        yield f"{' '.join(names)}: class {hook.tclass}, bit {hook.bit}"
        index += 1


def lines() -> list[str]:
    """Return the interface as it was compiled into this Python's pympi."""
    found = (*structures(), *functions_and_constants(), *permissions())
    return [f"{NUMBER} = {getattr(lib, NUMBER)}", *found]


def differences(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines that went or changed, and those that came."""
    return sorted(set(old) - set(new)), sorted(set(new) - set(old))


def breaks(old: list[str], new: list[str]) -> list[str]:
    """Return the lines of before that no longer hold although the number is the same."""
    return differences(old, new)[0] if old[:1] == new[:1] else []


def main(arguments: list[str]) -> int:
    """Print the interface, or record it."""
    now = lines()
    if "--record" not in arguments:
        print("\n".join(now))
        return 0
    before = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    broken = breaks(before, now)
    if broken and "--unreleased" not in arguments:
        print(f"raise {NUMBER} in csrc/pympi.h first; these changed:", *broken, sep="\n  ")
        return 1
    FILE.write_text("\n".join(now) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
