# SPDX-License-Identifier: BSD-2-Clause
"""The other end of a control socket: `Connection`."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

from .._closing import Closing
from ..audit import WatchRecord
from ..errors import InspectError
from .place import checked_path
from .protocol import (
    PROTOCOL,
    Avcstat,
    Hello,
    Ping,
    PolicyStatus,
    Ports,
    Reload,
    Rights,
    ServiceRow,
    SnapshotHead,
    Stats,
    TakeSnapshot,
    Tasks,
    Text,
    Watch,
    Welcome,
)
from .snapshot import Context, Policy, Port, Right, Snapshot, Task
from .table import Builder, Row, Table

if TYPE_CHECKING:
    pass

__all__ = ["Connection"]

T = TypeVar("T")
RowT = TypeVar("RowT", bound=Row)

_LINE_LARGEST = 1 << 26  # bytes; a server's lines are far below
_CHUNK = 1 << 18
_COMPILE = 300.0  # seconds to wait for a policy to be in force
_PAUSE = 0.01  # seconds between tries where the server's line is full
_IN_LINE = {errno.EAGAIN, errno.EINTR}
_REASONS = {
    errno.ENOENT: "there is no such socket",
    errno.ECONNREFUSED: "nobody listens there any more",
    errno.ENOTSOCK: "it is no socket",
    errno.EACCES: "it is another user's",
}
_ROWS: dict[str, Any] = {
    "tasks": list[Task],
    "ports": list[Port],
    "rights": list[Right],
    "services": list[ServiceRow],
    "text": list[None],  # none: the server asks for one
}


_Takers = dict[str, Callable[[list[Any]], None]]


class _Failure(msgspec.Struct):
    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0


class _Line(msgspec.Struct, kw_only=True):
    id: int
    table: str = ""
    rows: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: _Failure | None = None


_decode = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.encode


class Connection(Closing):
    """A connection to the control socket of a kernel, in this process or another.

    Args:
        path: of the socket.
        timeout: seconds to wait for the next line of an answer.

    Raises:
        InspectError: nobody listens, it is another service, or it does not take us; its `code` and
            text say which.
        ValueError: no path of a socket.

    Attributes:
        welcome (Welcome): what the server said of itself.

    Example:
        >>> import tempfile
        >>> from pympi import Kernel
        >>> with Kernel() as kernel, tempfile.TemporaryDirectory() as directory:
        ...     task = kernel.create_task("server")
        ...     control = kernel.inspect_at(directory + "/control")
        ...     with Connection(control.path) as connection:
        ...         connection.tasks()[0].name
        'server'
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 10.0) -> None:
        self.path = checked_path(path)
        self.timeout = timeout
        self._number = 0
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._connect()
            self.welcome = self._ask(Hello(version=PROTOCOL), Welcome)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection. A second time does nothing."""
        self._socket.close()

    def interrupt(self) -> None:
        """Have whoever waits for an answer, in another thread, wait no more: InspectError."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def __repr__(self) -> str:
        return f"<Connection to {self.path}>"

    # ---- what is asked ----

    def ping(self) -> float:
        """Return the seconds that a question and its answer took."""
        begun = time.perf_counter()
        self._ask(Ping(), dict[str, float])
        return time.perf_counter() - begun

    def snapshot(self, *, consistent: bool = False) -> Snapshot:
        """Return what may be seen of the kernel.

        Args:
            consistent: have the kernel stand still; the socket must not be read-only.
        """
        services: list[ServiceRow] = []
        tables: dict[str, Builder[Any]] = {
            name: Builder(row)
            for name, row in (("tasks", Task), ("ports", Port), ("rights", Right))
        }
        rows: _Takers = {name: builder.extend for name, builder in tables.items()}
        rows["services"] = services.extend
        head = self._ask(TakeSnapshot(consistent=consistent), SnapshotHead, rows)
        fields: dict[str, Any] = {
            name: getattr(head, name) for name in SnapshotHead.__struct_fields__
        }
        if head.bootstrap is not None:
            fields["bootstrap"] = _contexts(head.bootstrap, services)
        fields |= {name: builder.table() for name, builder in tables.items()}
        return Snapshot(**fields)

    def tasks(self, task: int | None = None) -> Table[Task]:
        """Return the tasks, or the one of a number."""
        return self._table(Tasks(task=task), "tasks", Task)

    def ports(self, task: int | None = None) -> Table[Port]:
        """Return the ports, or those of which a task has the receive right."""
        return self._table(Ports(task=task), "ports", Port)

    def rights(self, task: int | None = None) -> Table[Right]:
        """Return the names of all spaces, or of a task's."""
        return self._table(Rights(task=task), "rights", Right)

    def stats(self) -> dict[str, int]:
        """Return the kernel's counters: `Kernel.stats`."""
        return self._ask(Stats(), dict[str, int])

    def avcstat(self) -> dict[str, int]:
        """Return the counters of the access vector cache, and of audit."""
        return self._ask(Avcstat(), dict[str, int])

    def policy(self) -> Policy:
        """Return what policy is in force."""
        return self._ask(PolicyStatus(), Policy)

    def reload(
        self, module: str | None = None, texts: Sequence[tuple[str, bytes]] = (), *,
        shadow: bool = False, drop: bool = False,
    ) -> Policy:  # fmt: skip
        """Have policies read anew, or another one put in force; return what is in force then.

        Args:
            module: by name. None: all of them; with texts, the one that is made of text.
            texts: name, for errors, and contents of files that make another policy together. None:
                modules read anew where their answers come from.
            shadow: the other policy is only tried, beside the one in force.
            drop: end such a trial.

        Raises:
            InspectError: "failed": all is as it was; with `file`, `line` and `column` where it is
                no policy. "denied", "read only": not even the text was sent.
        """
        sizes = tuple(Text(name, len(data)) for name, data in texts)
        request = Reload(module=module, texts=sizes, shadow=shadow, drop=drop)
        takers = {"text": lambda _: self._send_all([data for _, data in texts])}
        with self._patient(_COMPILE):
            return self._ask(request, Policy, takers)

    def _send_all(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._send(piece)

    @contextmanager
    def _patient(self, seconds: float) -> Iterator[None]:
        """Wait longer for an answer in here."""
        before, self.timeout = self.timeout, max(seconds, self.timeout)
        self._socket.settimeout(self.timeout)
        try:
            yield
        finally:
            self.timeout = before
            if self._socket.fileno() >= 0:
                self._socket.settimeout(before)

    def watch(self, *words: str) -> Iterator[WatchRecord]:
        """Yield what happens, as it happens; as much of it as may be seen.

        It ends when the server does. Close the iterator, or leave it, to ask for something else;
        whatever interrupts it closes the connection.

        Args:
            words: what is wanted, as for `Kernel.watch`.

        Raises:
            InspectError: "bad request" for words that are none; they name what there is.
        """
        for records in self.watch_batches(*words):
            yield from records

    def watch_batches(self, *words: str) -> Iterator[list[WatchRecord]]:
        """As `watch`, in lists as they come; from the first on, an empty one, nothing is missed."""
        number = self._request(Watch(filter=words))
        try:
            for line in self._answer(number):
                if line.table != "records":
                    return
                rows = self._typed(line.rows, list[WatchRecord])
                self._socket.settimeout(None)  # there need not be anything for long
                yield rows
        except GeneratorExit:
            if self._socket.fileno() >= 0:
                self._socket.settimeout(self.timeout)
                self._end(number)
            raise
        except InspectError:
            raise
        except BaseException:
            self.close()
            raise

    def _end(self, watching: int) -> None:
        """Have a watch end, by asking for something else."""
        number = self._request(Ping())
        for line in self._lines():
            if line.id == number:
                return
            if line.id != watching:
                self._break("protocol", f"an answer to request {line.id}")

    # ---- how ----

    def _fail(self, code: str, why: str, *place: Any) -> NoReturn:
        raise InspectError(code, f"{self.path}: {why}", *place)

    def _break(self, code: str, why: str, *place: Any) -> NoReturn:
        """Fail, and be done: what would come next belongs to no question."""
        self.close()
        self._fail(code, why, *place)

    def _connect(self) -> None:
        deadline = time.monotonic() + self.timeout
        while (code := self._socket.connect_ex(os.fspath(self.path))) in _IN_LINE:
            if time.monotonic() > deadline:
                self._fail("timeout", f"no connection within {self.timeout} s")
            time.sleep(_PAUSE)
        if code == errno.ECONNREFUSED and not self.path.is_socket():
            code = errno.ENOTSOCK  # which no system says
        if code:
            self._fail("no server", _REASONS.get(code, os.strerror(code)))

    def _table(self, request: Any, name: str, row: type[RowT]) -> Table[RowT]:
        builder = Builder(row)
        self._ask(request, dict[str, int], {name: builder.extend})
        return builder.table()

    def _ask(self, request: Any, kind: type[T], rows: _Takers | None = None) -> T:
        """Send a request, hand rows to who takes them, and return the result."""
        for line in self._answer(self._request(request)):
            if line.result:
                return self._typed(line.result, kind)
            if rows is not None and line.table in rows:
                rows[line.table](self._typed(line.rows, _ROWS[line.table]))
        raise AssertionError("lines end with an exception")

    def _request(self, request: Any) -> int:
        """Send a request; return its number."""
        self._number += 1
        request.id = self._number
        self._send(_encode(request) + b"\n")
        return self._number

    def _answer(self, number: int) -> Iterator[_Line]:
        """Yield the lines of an answer; whoever takes them knows which is the last."""
        for line in self._lines():
            if line.error is not None:
                # The server's own: it may be about the connection, not about this request.
                fail = self._fail if line.id == number else self._break
                fail(*msgspec.structs.astuple(line.error))
            if line.id != number:
                self._break("protocol", f"an answer to request {line.id}")
            yield line

    def _typed(self, raw: msgspec.Raw, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            self._break("protocol", f"an answer that is none: {error}")

    def _send(self, request: bytes) -> None:
        try:
            self._socket.sendall(request)
        except TimeoutError:
            self._break("timeout", f"the server takes no request within {self.timeout} s")
        except OSError as error:
            # It may have said why before it went.
            if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
                self._break("closed", error.strerror or str(error))

    def _lines(self) -> Iterator[_Line]:
        while True:
            line = self._line()
            try:
                yield _decode(line)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                self._break("protocol", f"this is no control socket of pympi: {error}")

    def _line(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > _LINE_LARGEST:
                self._break("protocol", f"a line of more than {_LINE_LARGEST} bytes")
            self._buffer += self._receive()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(_CHUNK)
        except TimeoutError:
            self._break("timeout", f"no answer within {self.timeout} s")
        except OSError as error:
            self._break("closed", error.strerror or str(error))
        if not data:
            self._break("closed", "the server closed the connection")
        return data


def _contexts(contexts: tuple[Context, ...], services: list[ServiceRow]) -> tuple[Context, ...]:
    found: defaultdict[int, list[Any]] = defaultdict(list)
    for row in services:
        found[row.context].append(row.service)
    return tuple(
        msgspec.structs.replace(context, services=tuple(found[context.id])) for context in contexts
    )
