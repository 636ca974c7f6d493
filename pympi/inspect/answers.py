# SPDX-License-Identifier: BSD-2-Clause
"""What is answered to each request, and who may ask it.

An answer is made bit by bit, so that a peer that reads slowly costs neither time nor much memory.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .._version import __version__
from ..errors import MachError, PolicyError, PympiError
from ..policy.files import decode
from .protocol import (
    OPERATIONS,
    PROTOCOL,
    ROWS_A_LINE,
    AnswerError,
    Avcstat,
    Hello,
    Ping,
    PolicyStatus,
    Ports,
    Reload,
    Rights,
    ServiceRow,
    Stats,
    TakeSnapshot,
    Tasks,
    Watch,
    Welcome,
    head_of,
)
from .snapshot import Snapshot
from .take import policy_of, take
from .view import Subject
from .watching import Onlooker

if TYPE_CHECKING:
    from ..kernel import Kernel

__all__ = ["Answers", "Places", "error_line"]

_encode = msgspec.json.Encoder(enc_hook=str).encode

NOTHING = "nothing"
"""The table of no rows: there is nothing to say now."""

# Under these names avcstat shows counters of the kernel.
_AVCSTAT = {
    "hits": "checks_avc",
    "misses": "misses",
    "entries": "avc_entries",
    "inserts": "avc_inserts",
    "evictions": "avc_evictions",
    "refused_inserts": "avc_refused",
    "native_decisions": "native_decisions",
    "decider_calls": "decider_calls",
    "decider_failures": "decider_failures",
    "denials": "denials",
    "audit_records": "audit_records",
    "audit_lost": "audit_lost",
    "epoch": "epoch",
}


def line(identity: int, **fields: Any) -> bytes:
    """Return a line of an answer."""
    return _encode({"id": identity, **fields}) + b"\n"


def error_line(identity: int, error: AnswerError) -> bytes:
    """Return the line that ends an answer without a result."""
    told: dict[str, str | int] = {"code": error.code, "message": error.message}
    cause = error.__cause__
    if isinstance(cause, PolicyError) and cause.line:
        told |= {"file": cause.file, "line": cause.line, "column": cause.column}
    return line(identity, error=told)


class Places(NamedTuple):
    """How many peers may do something at one time.

    Attributes:
        walks: have answers with tables of all there is.
        watches: watch.
        texts: send a policy.
    """

    walks: threading.Semaphore
    watches: threading.Semaphore
    texts: threading.Semaphore


class Answers:
    """Answers the requests of one peer.

    Args:
        kernel: which is asked about.
        subject: the bearer of the label that the peer was given.
        read_only: nothing may be changed.
        places: how many peers may do at one time what takes much.
    """

    def __init__(self, kernel: Kernel, subject: Subject, read_only: bool, places: Places) -> None:
        self.kernel = kernel
        self.subject = subject
        self.read_only = read_only
        self.places = places
        self.received: Callable[[], bytearray] = bytearray

    def to(self, identity: int, request: Any, received: Callable[[], bytearray]) -> Iterator[bytes]:
        """Yield the lines that answer a request; an empty one: there is nothing to say now.

        Args:
            identity: of the request, for the lines.
            request: as `decode_request` has it.
            received: returns what came after the request: it ends a watch, or is a text that was
                asked for, and is taken out then.
        """
        self.received = received
        try:
            if isinstance(request, AnswerError):
                raise request
            operation = self._OPERATIONS[type(request)]
            for table, rows in operation(self, request):
                if table == NOTHING:
                    yield b""
                    continue
                yield line(
                    identity, **({"table": table, "rows": rows} if table else {"result": rows})
                )
        except AnswerError as error:
            yield error_line(identity, error)
        except Exception as error:
            words = str(error) if isinstance(error, PympiError) else type(error).__name__
            yield error_line(identity, AnswerError("failed", words))

    # ---- operations: each yields (table, rows), and last ("", result) ----

    def _hello(self, request: Hello) -> Iterator[tuple[str, Any]]:
        if request.version != PROTOCOL:
            raise AnswerError(
                "not supported", f"protocol {request.version}; this server speaks {PROTOCOL}"
            )
        yield (
            "",
            Welcome(
                version=PROTOCOL,
                pympi=__version__,
                pid=os.getpid(),
                label=self.subject.label,
                read_only=self.read_only,
                operations=OPERATIONS,
            ),
        )

    def _ping(self, _: Ping) -> Iterator[tuple[str, Any]]:
        yield "", {"time": self.kernel.time}

    def _snapshot(self, request: TakeSnapshot) -> Iterator[tuple[str, Any]]:
        if request.consistent:
            self._change("a consistent snapshot stops the kernel")
        with self._seen(request.consistent) as seen:
            tables: dict[str, Iterable[Any]] = {
                "tasks": seen.tasks,
                "ports": seen.ports,
                "rights": seen.rights,
            }
            services = [
                ServiceRow(context.id, service)
                for context in seen.bootstrap or ()
                for service in context.services
            ]
            for name, rows in {**tables, "services": services}.items():
                yield from _rows(name, rows)
            yield "", head_of(seen)

    def _table(self, request: Tasks | Ports | Rights) -> Iterator[tuple[str, Any]]:
        name, field = self._TABLES[type(request)]
        with self._seen() as seen:
            table = getattr(seen, name)
            chosen = table if request.task is None else table.find(field, request.task)
            yield from _rows(name, chosen)
            yield "", {"rows": len(chosen)}

    _TABLES = {Tasks: ("tasks", "id"), Ports: ("ports", "receiver"), Rights: ("rights", "task")}

    def _stats(self, _: Stats) -> Iterator[tuple[str, Any]]:
        self._inspect()
        yield "", dict(self.kernel.stats())

    def _avcstat(self, _: Avcstat) -> Iterator[tuple[str, Any]]:
        self._inspect()
        stats = self.kernel.stats()
        yield "", {name: stats[source] for name, source in _AVCSTAT.items()}

    def _policy(self, _: PolicyStatus) -> Iterator[tuple[str, Any]]:
        self._inspect()
        yield "", policy_of(self.kernel)

    def _reload(self, request: Reload) -> Iterator[tuple[str, Any]]:
        may = self.subject.may_kernel("reload_policy")  # recorded, whatever the socket is
        self._change("a reload changes the policy")
        if not may:
            raise AnswerError("denied", "no reload_policy on kernel")
        policies, module = self.kernel.policies, request.module
        if request.drop:
            with _unchanged():
                policies.shadow(module or policies.written().name).drop()
        elif request.texts:
            yield from self._rewrite(request)
        elif request.shadow:
            raise AnswerError("bad request", "a shadow is of other texts")
        else:
            with _unchanged():
                policies.reload(module)
        yield "", policy_of(self.kernel)

    def _rewrite(self, request: Reload) -> Iterator[tuple[str, Any]]:
        """Ask for the texts, and put them in force."""
        policies = self.kernel.policies
        size = sum(text.size for text in request.texts)
        with self._bounded(self.places.texts, "another policy is being sent; try later"):
            with _unchanged():
                limit = policies.written(request.module).text_limit
                if size > limit:
                    raise PolicyError(f"{size:,} bytes; the module takes {limit:,} (Budget.bytes)")
            yield "text", []
            while len(self.received()) < size:
                yield NOTHING, None
            texts = [(text.name, self._take(text.size)) for text in request.texts]
            with _unchanged():
                decoded = [(name, decode(name, data)) for name, data in texts]
                policies.rewrite(decoded, request.module, shadow=request.shadow)

    def _take(self, size: int) -> bytes:
        """Take so many bytes of what came."""
        received = self.received()
        data = bytes(received[:size])
        del received[:size]
        return data

    def _watch(self, request: Watch) -> Iterator[tuple[str, Any]]:
        self._inspect()
        with self._bounded(self.places.watches, "others watch; try later"):
            onlooker = Onlooker(self.kernel, self.subject.anew, _allow)
            try:
                watch = onlooker.watch(request.filter)
            except ValueError as error:
                raise AnswerError("bad request", str(error)) from error
            with watch:
                yield "records", []  # from here on nothing is missed
                count = 0
                while not self.received():
                    onlooker.renew()
                    records = watch.take()
                    count += len(records)
                    yield from _rows("records", records) if records else [(NOTHING, None)]
                yield "", {"records": count, "lost": watch.lost}

    _OPERATIONS: dict[type, Callable[[Answers, Any], Iterator[tuple[str, Any]]]] = {
        Hello: _hello,
        Ping: _ping,
        TakeSnapshot: _snapshot,
        Tasks: _table,
        Ports: _table,
        Rights: _table,
        Stats: _stats,
        Avcstat: _avcstat,
        PolicyStatus: _policy,
        Reload: _reload,
        Watch: _watch,
    }

    # ---- who may ----

    def _inspect(self) -> None:
        _allow(self.subject)

    def _change(self, what: str) -> None:
        if self.read_only:
            raise AnswerError("read only", f"{what}, and this socket is read-only")

    @contextmanager
    def _seen(self, consistent: bool = False) -> Iterator[Snapshot]:
        """What the subject sees of all there is, for as long as that is in the works."""
        self._inspect()
        with self._bounded(self.places.walks, "others are being told of all there is; try later"):
            yield self.subject.sees(take(self.kernel, consistent=consistent))

    @staticmethod
    @contextmanager
    def _bounded(places: threading.Semaphore, why: str) -> Iterator[None]:
        if not places.acquire(blocking=False):
            raise AnswerError("busy", why)
        try:
            yield
        finally:
            places.release()


@contextmanager
def _unchanged() -> Iterator[None]:
    """What fails in here has changed no policy, and says so."""
    try:
        yield
    except MachError:
        raise
    except Exception as error:
        words = error.args[0] if isinstance(error, KeyError) else error  # which quotes its words
        raise AnswerError("failed", f"the policy is as it was: {words}") from error


def _allow(subject: Subject) -> None:
    if not subject.may_kernel("inspect"):
        raise AnswerError("denied", "no inspect on kernel")


def _rows(name: str, table: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    rows = iter(table)
    while some := list(itertools.islice(rows, ROWS_A_LINE)):
        yield name, some
