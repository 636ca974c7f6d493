# SPDX-License-Identifier: BSD-2-Clause
"""Records as JSON, one in each line.

Version 1, the only one so far: an object whose members are those of `AuditRecord`, `v` (1) before
them and `outcome` after. `time` has all nine digits; `flags` is a list of names. Members are only
ever added. Text is ASCII with JSON's escapes; what is no Unicode (a lone surrogate, from bytes that
were not UTF-8) stands as its escape, twice escaped, so that every reader takes the line. There is
no number that JSON does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache, lru_cache

from ...enums import AuditFlag, ObjectClass, Operation
from ...errors import code_name
from ..record import FLAGS, Batch, outcome_of, weight_of
from .lines import LineFile

__all__ = ["VERSION", "JSONLines"]

VERSION = 1
_NS = 1_000_000_000
_NONE = ObjectClass(0, "", ())


class JSONLines(LineFile):
    """Writes records as JSON, one object a line, to a file, a pipe or a device.

    The arguments are those of `LineFile`.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from pympi import Kernel, audit
        >>> path = Path(tempfile.mkdtemp(), "run.jsonl")
        >>> with Kernel() as kernel:
        ...     kernel.audit.everything()
        ...     kernel.audit.attach(audit.JSONLines(path))
        ...     inbox = kernel.create_task("server").allocate_port()
        ...     inbox.make_send(kernel.create_task("client")).send(b"hello", msgh_id=7)
        >>> records = [json.loads(line) for line in path.read_text().splitlines()]
        >>> [(r["operation"], r["outcome"], r["task_name"]) for r in records if r["msgh_id"] == 7]
        [('send', 'granted', 'client')]
    """

    def lines(self, batch: Batch) -> Iterator[str]:
        """Return the lines of a batch."""
        label, task, names = _texts(batch)
        services = {n: _quoted(name) for n, name in batch.services.items()}
        for (
            sequence, time, transfer, provenance, port, real, effective, target, peer, number, name,
            tclass, operation, asked, denied, report, msgh_id, size, epoch, flags, result,
        ) in batch.records.tolist():  # fmt: skip
            loss = flags & _LOSS
            service = services.get(name, '""') if operation == Operation.SERVICE else '""'
            yield (
                f'{{"v":{VERSION},"sequence":{sequence},"time":{time // _NS}.{time % _NS:09},'
                f'"operation":{_operation(operation)},"subject":{label(effective)},'
                f'"real_subject":{label(real)},"object":{label(target)},"peer":{label(peer)},'
                f'"task":{number},"task_name":{task(number)},"name":{name},"port":{port},'
                f'{names(tclass, asked, denied, report)},"msgh_id":{msgh_id},"size":{size},'
                f'"result":{_EMPTY if loss else _result(result)},"transfer":{transfer},'
                f'"provenance":{provenance},"epoch":{epoch},"flags":{_flags(flags & FLAGS)},'
                f'"lost":{result if loss else 0},"service":{service},"weight":{weight_of(flags)},'
                f'"outcome":"{outcome_of(flags, denied, result)}"}}\n'
            )


_LOSS = int(AuditFlag.LOSS)
_EMPTY = '""'


def _texts(
    batch: Batch,
) -> tuple[Callable[[int], str], Callable[[int], str], Callable[[int, int, int, int], str]]:
    """Return what puts a batch's labels, tasks and permissions into JSON, each only once."""

    @cache
    def label(sid: int) -> str:
        return _quoted(batch.labels.get(sid, f"sid:{sid}") if sid else "-")

    @cache
    def task(number: int) -> str:
        return _quoted(batch.tasks.get(number, ""))

    @cache
    def names(number: int, asked: int, denied: int, report: int) -> str:
        tclass = batch.classes.get(number, _NONE)
        masks = {"asked": asked, "denied": denied, "reported": report}
        lists = (f'"{key}":{_list(tclass.names(mask))}' for key, mask in masks.items())
        return f'"tclass":{_quoted(tclass.name)},{",".join(lists)}'

    return label, task, names


def _quoted(text: str) -> str:
    return json.dumps(text.encode(errors="backslashreplace").decode())


def _list(names: tuple[str, ...]) -> str:
    return f"[{','.join(map(_quoted, names))}]"


@lru_cache(maxsize=256)
def _operation(number: int) -> str:
    return _quoted(Operation(number).name.lower())


@lru_cache(maxsize=1024)
def _result(code: int) -> str:
    return _quoted(code_name(code))


@lru_cache(maxsize=256)
def _flags(flags: int) -> str:
    return _list(tuple(flag.name or "" for flag in AuditFlag if flag & flags))
