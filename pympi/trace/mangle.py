# SPDX-License-Identifier: BSD-2-Clause
"""From the names of a trace to identifiers a policy can use, one to one.

A policy language wants identifiers: a letter, then letters, digits, `_` and `-` (SELinux CIL). A
trace has executable paths. The mangling keeps what it can and is injective:

    /  ->  -        _  ->  __        letters and digits stay
    any other byte (of the name's UTF-8)  ->  _ and two hexadecimal digits

A prefix says what is named: `task` and `port` for a task and for the ports of an owner, followed
directly by an absolute path and by `_` before any other name; `kobject_` and the kind for the
kernel-object ports of mach_kernel, which policies tell apart by kind.

    task /sbin/mach_init     task-sbin-mach__init
    task mach_kernel         task_mach__kernel
    port of /System/A.app    port-System-A_2eapp
    port of mach_kernel:host_priv    kobject_host__priv
"""

from __future__ import annotations

import re

from .text import MACH_KERNEL, kobject_name

_OTHER = re.compile(rb"[^A-Za-z0-9]")
_MANGLED = re.compile(rb"-|__|_([0-9a-f]{2})")


def _replace(match: re.Match[bytes]) -> bytes:
    byte = match[0]
    return {b"/": b"-", b"_": b"__"}.get(byte) or b"_%02x" % byte[0]


def mangle(name: str) -> str:
    """`name` in the alphabet of identifiers, without a prefix."""
    return _OTHER.sub(_replace, name.encode(errors="surrogatepass")).decode("ascii")


def unmangle(text: str) -> str:
    """The name that `mangle` made `text` from. Raises ValueError if it makes no such text."""
    special = {b"-": b"/", b"__": b"_"}
    raw = _MANGLED.sub(
        lambda m: special.get(m[0]) or bytes([int(m[1], 16)]), text.encode(errors="replace")
    )
    name = raw.decode(errors="surrogatepass")
    if mangle(name) != text:
        raise ValueError(f"expected a mangled name, found {text!r}")
    return name


def _prefixed(prefix: str, name: str) -> str:
    return prefix + ("" if name.startswith("/") else "_") + mangle(name)


def task_label(name: str) -> str:
    """The identifier of the task `name` (an executable path, or a name such as mach_kernel)."""
    return _prefixed("task", name)


def port_label(owner: str, kind: int = 0) -> str:
    """The identifier of the ports of `owner`; mach_kernel's ports by their kernel object `kind`."""
    if owner == MACH_KERNEL:
        return "kobject_" + mangle(kobject_name(kind))
    return _prefixed("port", owner)
