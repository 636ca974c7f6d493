# SPDX-License-Identifier: BSD-2-Clause
"""AVC messages in Linux audit logs, in what ausearch prints, and in a kernel's log.

    type=AVC msg=audit(1700000000.123:7): avc:  denied  { read } for  pid=42 comm="cat" name="x"
        scontext=u:r:t:s0 tcontext=u:r:t:s0 tclass=file permissive=0        (in one line)

Messages of userspace servers (USER_AVC) are read as well, and those that pympi writes. Other lines
are passed over. One that has an AVC message and cannot be read counts as a lost record.

The label of a subject or an object is its context, as a value of `te`; in what pympi wrote, the
whole label where there is one. A task is a process: its `pid` and `comm`. A server is asked about
the `dest` of a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...enums import CLASSES, AuditFlag, Operation
from ..record import Batch
from .events import NO_ACCESS, Event, batches_of, escaped, lost

__all__ = ["avc_batches"]

_MESSAGE = re.compile(r"avc:\s+(denied|granted)\s+\{ ([^{}]{0,4096}) \} for\s(.*)")
_TIME = re.compile(r"audit\((\d{1,12})\.(\d{1,9}):\d+\)")
_FIELD = re.compile(r'(\w+)=("[^"]*"|[^\s"\']+)')
_HEX = re.compile(r"(?:[0-9A-F]{2})+")
_NUMBER = re.compile(r"0x[0-9a-f]{1,16}|\d{1,19}")
_LONGEST = 1 << 16  # characters of a line; auditd's own have at most 8970
_U32, _I32 = (1 << 32) - 1, (1 << 31) - 1

# What a permission on a class of ours says was done; the first that is asked counts.
_OPERATIONS = {
    "send": Operation.SEND, "recv": Operation.RECEIVE, "use_recv": Operation.RECEIVE,
    **dict.fromkeys(("hold_send", "hold_send_once", "hold_recv"), Operation.TAKE),
    **dict.fromkeys(("relabelfrom", "relabelto"), Operation.RELABEL),
    **dict.fromkeys(("get_attributes", "set_attributes"), Operation.ATTRIBUTES),
    "request_notification": Operation.NOTIFICATION,
    **dict.fromkeys(
        ("make_send", "make_send_once", "copy_send", "move_send", "move_send_once", "move_recv"),
        Operation.GIVE,
    ),
    "insert_right": Operation.INSERT_RIGHT, "extract_right": Operation.EXTRACT_RIGHT,
}  # fmt: skip


def avc_batches(path: str | os.PathLike[str]) -> Iterator[Batch]:
    """Yield the AVC messages of a log as records.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more different labels, processes or names than numbers are given to.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as log:
        ...     _ = log.write('type=AVC msg=audit(1.5:7): avc:  denied  { read } for  pid=42 '
        ...         'comm="cat" scontext=u:r:a tcontext=u:r:b tclass=file permissive=0')
        ...     log.flush()
        ...     [batch] = avc_batches(log.name)
        >>> [(r.task_name, r.subject, r.denied, r.tclass) for r in batch]
        [('cat', 'te/u:r:a', ('read',), 'file')]
    """
    return batches_of(lambda: _events(Path(path)))


def _events(path: Path) -> Iterator[Event]:
    time = 0
    with path.open("rb") as file:
        while raw := file.readline(_LONGEST):
            if b"avc:" not in raw:
                continue
            line = raw.decode(errors="surrogateescape")
            if found := _TIME.search(line):
                time = int(found[1]) * 10**9 + int(found[2].ljust(9, "0")[:9])
            yield _event(line, time) or lost(time)


def _event(line: str, time: int) -> Event | None:
    message = _MESSAGE.search(line)
    if not message:
        return None
    asked, fields = tuple(dict.fromkeys(message[2].split())), _fields(message[3])
    tclass = fields.get("tclass", "")
    known = CLASSES.get(tclass)
    if not asked or not tclass or (known and not known.bits.keys() >= set(asked)):
        return None
    denied = message[1] == "denied"
    permissive = denied and fields.get("permissive") == "1"
    return Event(
        time=time,
        operation=_operation(tclass, asked, fields),
        task=_task(fields),
        labels=(_label(fields, "s"), _label(fields, "t"), ""),
        tclass=tclass,
        asked=asked,
        denied=asked if denied else (),
        name=_number(fields, "port", _U32),
        service=fields.get("dest", ""),
        msgh_id=_number(fields, "msgh_id", _I32),
        flags=AuditFlag.PERMISSIVE if permissive else AuditFlag(0),
        result=NO_ACCESS if denied and not permissive else 0,
    )


def _fields(text: str) -> dict[str, str]:
    """Return the fields of a message by name; the first of a name counts."""
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        found.setdefault(name, value[1:-1] if value[0] == '"' else value)
        if value[0] != '"' and name in _CODED and _HEX.fullmatch(value):
            found[name] = bytes.fromhex(value).decode(errors="surrogateescape")
    return found


# What audit writes in hexadecimal where it has other than plain characters in it.
_CODED = {"comm", "exe", "path", "name", "scontext", "tcontext", "slabel", "tlabel"}


def _operation(tclass: str, asked: tuple[str, ...], fields: dict[str, str]) -> Operation:
    if tclass.startswith("mi_"):
        return Operation.METHOD
    if fields.get("dest"):
        return Operation.SERVICE
    if tclass not in ("mach_port", "mach_task"):
        return Operation.NONE
    return next((_OPERATIONS[name] for name in asked if name in _OPERATIONS), Operation.TASK)


def _task(fields: dict[str, str]) -> tuple[int, str]:
    """Return who asked: of a userspace server's message the sender, not the server."""
    number = _number(fields, "spid", _I32) or _number(fields, "pid", _I32)
    name = fields.get("comm", "")
    return number, name if name != "?" else ""


def _label(fields: dict[str, str], whose: str) -> str:
    whole = fields.get(f"{whose}label")
    if whole is not None:
        return "" if whole == "-" else whole
    context = fields.get(f"{whose}context", "")
    return f"te/{escaped(context)}" if context else ""


def _number(fields: dict[str, str], name: str, most: int) -> int:
    text = fields.get(name, "")
    value = int(text, 0) if _NUMBER.fullmatch(text) and not _OCTAL.match(text) else 0
    return value if value <= most else 0


_OCTAL = re.compile(r"0\d")
