# SPDX-License-Identifier: BSD-2-Clause
"""AVC messages: denials as Linux audit writes them, for audit2allow, audit2why, ausearch, aureport.

    type=AVC msg=audit(1700000000.123:7): avc:  denied  { send hold_send } for  pid=3
        comm="client" port=0x1203 msgh_id=18960 scontext=u:r:t tcontext=u:r:t tclass=mach_port
        permissive=0                                               (in one line)

`pid` is the number of the task that made the call, `comm` its name, `port` the name in the task's
space, `msgh_id` the message's; `ioctlcmd` is the index of a method's routine in its whole
interface. A context is the `te` value of a label; a label without one is decided as `unlabeled` by
`te`, and shown so. If other modules have values in the labels, the labels follow as `slabel` and
`tlabel`.

What somebody may choose is written as the kernel's audit writes it: in quotes, or in hexadecimal
without quotes if anything in it is a blank, a quote, a control character or not ASCII; here also
for "=", because ausearch looks for a field's name anywhere. So nobody's name begins a field or a
line of its own. Lines stay below what the tools read at once, 8970 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..enums import ROUTINES_PER_CLASS, AuditFlag, ObjectClass, first_routine
from ..errors import LabelError
from ..label import parse_label
from .record import AuditRecord, Batch

__all__ = ["UNLABELED", "audit_lines", "avc_line", "avc_lines"]

UNLABELED = "system_u:object_r:unlabeled_t"
"""The context of what has none: that of the initial SID `unlabeled`."""

Classes = Mapping[str, ObjectClass]

_PLAIN = re.compile(r"[A-Za-z0-9_.:,+-]+")
_UNSAFE = re.compile(rb"[^\x21\x23-\x3c\x3e-\x7e]")
_ROOM = {"word": 128, "label": 1024, "context": 2048, "comm": 2046}
_UNSET = 4294967295
_MESSAGES = {"send", "receive", "method"}


def avc_line(
    record: AuditRecord, *, classes: Classes | None = None, unlabeled: str = UNLABELED
) -> str:
    r"""Return a record as an AVC message.

    Args:
        record: of a denial, or of a grant that was recorded.
        classes: the classes of interfaces, by name; without them there is no `ioctlcmd`.
        unlabeled: the context of what has none.

    Returns:
        One line, without its end. More, separated by "\n", with one serial number, where some
        permissions were refused and others only reported, or were asked of the sender and others of
        the port. "" for a record that is of no decision: an error, a loss.
    """
    return "\n".join(_lines(record, classes or {}, unlabeled))


def avc_lines(
    records: Iterable[AuditRecord], *, classes: Classes | None = None, unlabeled: str = UNLABELED
) -> Iterator[str]:
    """Yield the lines of records, as `avc_line` has them; nothing for those that have none."""
    known = dict(classes or {})
    if isinstance(records, Batch):
        known |= records.used_classes()
    for record in records:
        yield from _lines(record, known, unlabeled)


def audit_lines(
    records: Iterable[AuditRecord], *, classes: Classes | None = None, unlabeled: str = UNLABELED
) -> Iterator[str]:
    """Yield lines of every record: `avc_lines`, and other messages of what is of no decision.

    That is a USER_ERR: of a call that failed for another reason than access, or of records lost.
    """
    known = dict(classes or {})
    if isinstance(records, Batch):
        known |= records.used_classes()
    for record in records:
        lines = list(_lines(record, known, unlabeled))
        yield from lines or [_other(record, unlabeled)]


# ---- what a record says ----


def _lines(record: AuditRecord, classes: Classes, unlabeled: str) -> Iterator[str]:
    for verdict, permissions, end in _verdicts(record):
        for label, asked in _targets(record, permissions):
            words = " ".join(_word(name) for name in asked)
            yield (
                f"{_head(record)} avc:  {verdict}  {{ {words} }} for  {_about(record)}"
                f"{_routine(record, asked, classes)}{_labels(record.subject, label)}"
                f"scontext={_context(record.subject, unlabeled)} "
                f"tcontext={_context(label, unlabeled)} tclass={_word(record.tclass)}{end}"
            )


def _verdicts(record: AuditRecord) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield "denied" or "granted", the permissions, and how the line ends."""
    denied = record.denied or _unknown_method(record)
    reported = tuple(name for name in record.reported if name not in denied)
    if denied:
        yield "denied", denied, f" permissive={int(AuditFlag.PERMISSIVE in record.flags)}"
    if reported:
        yield "denied", reported, " permissive=1"
    if record.asked and not denied and not reported:
        yield "granted", record.asked, ""


def _unknown_method(record: AuditRecord) -> tuple[str, ...]:
    """A number that is no routine's is refused by the last bit of the class, which has no name."""
    refused = record.operation == "method" and not record.asked and record.tclass
    return ("ioctl",) if refused else ()


def _targets(
    record: AuditRecord, permissions: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield labels and what was asked of them: `recv` is asked of the sender's."""
    of_sender = tuple(n for n in permissions if n == "recv" and record.tclass == "mach_port")
    of_object = tuple(name for name in permissions if name not in of_sender)
    if of_object:
        yield record.object, of_object
    if of_sender:
        yield record.peer, of_sender


def _other(record: AuditRecord, unlabeled: str) -> str:
    """Return the message of a record that is of no decision."""
    loss = record.operation == "loss"
    about = f"lost={record.lost} " if loss else _about(record)
    done = "success" if record.result == "KERN_SUCCESS" else "failed"
    return (
        f"{_head(record, 'USER_ERR')} pid={record.task} "
        f"uid={_UNSET} auid={_UNSET} ses={_UNSET} "
        f"subj={_context(record.subject, unlabeled)} msg='op={_word(record.operation)} "
        f"{about.removeprefix(f'pid={record.task} ')}result={_word(record.result or 'LOST')} "
        f"exe=? hostname=? addr=? terminal=? res={done}'"
    )


def _head(record: AuditRecord, kind: str = "AVC") -> str:
    milliseconds = round(record.time * 1e6) // 1000
    time = f"{milliseconds // 1000}.{milliseconds % 1000:03}"
    return f"type={kind} msg=audit({time}:{record.sequence}):"


def _about(record: AuditRecord) -> str:
    from_outside = record.service if not record.task else ""
    text = f"pid={record.task} comm={_quoted(record.task_name or from_outside)} "
    if record.name and record.task:
        text += f"port={record.name:#x} "
    if record.msgh_id or record.operation in _MESSAGES:
        text += f"msgh_id={record.msgh_id} "
    return text


def _routine(record: AuditRecord, asked: tuple[str, ...], classes: Classes) -> str:
    """Return the index of a routine, counted through all classes of its interface."""
    tclass = classes.get(record.tclass)
    if not record.tclass.startswith("mi_") or not tclass or asked[0] not in tclass.permissions:
        return ""
    index = tclass.permissions.index(asked[0])
    known = index < ROUTINES_PER_CLASS
    return f"ioctlcmd={first_routine(tclass.name) + index:#x} " if known else ""


# ---- what others chose ----


def _context(label: str, unlabeled: str) -> str:
    context = _values(label).get("te", unlabeled)
    plain = _PLAIN.fullmatch(context) and len(context) <= _ROOM["context"]
    return context if plain else _hex(context, "label")


def _labels(subject: str, target: str) -> str:
    """Return the labels, if there is more to them than contexts."""
    fields = {"slabel": subject, "tlabel": target}
    if all(set(_values(label)) <= {"te"} for label in fields.values()):
        return ""
    return "".join(f"{key}={_quoted(label, 'label')} " for key, label in fields.items())


def _values(label: str) -> dict[str, str]:
    """Return a label's values; of one that is known by its number only, that under no name."""
    try:
        return parse_label(label)
    except LabelError:
        return {"": label}


def _word(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and len(name) <= _ROOM["word"] else _hex(name, "word")


def _quoted(text: str, field: str = "comm") -> str:
    if not text:
        return '"?"'  # aureport passes over messages with an empty name, or one it cannot decode
    raw = _raw(text)
    safe = not _UNSAFE.search(raw) and len(raw) + 2 <= _ROOM[field]
    return f'"{text}"' if safe else _hex(text, field)


def _hex(text: str, field: str) -> str:
    return _raw(text)[: _ROOM[field] // 2].hex().upper()


def _raw(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
