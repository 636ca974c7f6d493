# SPDX-License-Identifier: BSD-2-Clause
"""The control socket of a kernel: one thread that serves a bounded number of peers.

It holds no lock of the kernel while it reads, waits or writes. A peer has one request in the works;
it is answered line by line as it reads. Who sends too much, too slowly or not what it should is cut
off.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
import os
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..label import EMPTY
from .answers import Answers, Places, error_line
from .place import Peer, Place, peer_of
from .protocol import LINE_LARGEST, AnswerError, Hello, Watch, decode_request
from .view import Subject

if TYPE_CHECKING:
    from pathlib import Path

    from ..kernel import Kernel

__all__ = ["ControlSocket", "Labels", "Limits"]

_log = logging.getLogger("pympi.inspect")

Labels = str | Mapping[int, str] | Callable[[int], "str | None"] | None

# What accept() says when there is no room for one more; it is asked again after a while.
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PATIENCE = 5.0  # seconds that close() waits for an answer in the works
_TICK = 0.25  # seconds between looks at deadlines
_LOOK = 0.05  # seconds between looks at what is watched


@dataclass(frozen=True)
class Limits:
    """What peers of a control socket may take.

    Attributes:
        connections: peers at one time.
        walks: answers at one time that hold tables of all there is.
        watches: peers that watch at one time.
        texts: peers at one time that send a policy, as long as the module's budget lets them.
        request: seconds for a request to arrive, once begun, and for the first one.
        idle: seconds between requests.
        stall: seconds without a byte of an answer being read; and for all of a policy's text.
        answer: seconds for all of an answer; a watch may last, and be left unread for `idle`.
        requests: in the life of a connection.
    """

    connections: int = 32
    walks: int = 4
    watches: int = 8
    texts: int = 1
    request: float = 5.0
    idle: float = 300.0
    stall: float = 10.0
    answer: float = 300.0
    requests: int = 1_000_000


_living: weakref.WeakSet[ControlSocket] = weakref.WeakSet()


def _forked() -> None:
    """In a child of fork() there is no thread to serve, and the descriptors would keep peers."""
    for control in list(_living):
        control._closing = True
        control._abandon()


os.register_at_fork(after_in_child=_forked)


class _Peer:
    """A connection, from whom, and what it is waiting for."""

    def __init__(
        self, connection: socket.socket, limits: Limits, answers: Callable[[], Answers]
    ) -> None:
        self.socket = connection
        self.limits = limits
        self.answers = answers  # made anew for each request: in between nothing keeps the kernel
        self.received = bytearray()
        self.pending = b""
        self.answer: Iterator[bytes] = iter(())
        self.watching = False
        self.resting = False  # there is nothing to say now: it watches, or sends a text
        self.greeted = False
        self.last = False  # cut off when what is pending is written
        self.requests = 0
        self.deadline = time.monotonic() + limits.request
        self.answer_deadline = 0.0

    @property
    def answering(self) -> bool:
        return bool(self.pending)

    def readable(self) -> None:
        """Take what came. A descriptor that came with it is closed by the system, unseen."""
        data, _, flags, _ = self.socket.recvmsg(LINE_LARGEST)
        if flags & socket.MSG_CTRUNC:
            raise ConnectionError("it sent descriptors, or other ancillary data")
        if not data:
            raise ConnectionError("it is done")
        self.received += data
        if self.resting:
            self.next_line()
        else:
            self.next_request()

    def next_request(self) -> None:
        """Begin to answer the next request, if all of it came."""
        request, newline, rest = self.received.partition(b"\n")
        if len(request) >= LINE_LARGEST:
            self.refuse("bad request", f"a request has at most {LINE_LARGEST} bytes")
        elif newline:
            self.received = rest
            self.begin(bytes(request))
        elif request:
            self.deadline = min(self.deadline, time.monotonic() + self.limits.request)

    def begin(self, request: bytes) -> None:
        identity, asked = decode_request(request)
        self.requests += 1
        if not self.greeted and not isinstance(asked, Hello):
            self.refuse("bad request", "the first request is hello", identity)
        elif self.requests > self.limits.requests:
            self.refuse("busy", f"{self.limits.requests} requests were answered", identity)
        else:
            self.greeted = True
            self.watching = isinstance(asked, Watch)
            patience = math.inf if self.watching else self.limits.answer
            self.answer_deadline = time.monotonic() + patience
            self.answer = self.answer_to(identity, asked)
            self.next_line()

    def answer_to(self, identity: int, asked: Any) -> Iterator[bytes]:
        try:
            answers = self.answers()
        except AnswerError as error:
            yield error_line(identity, error)
        else:
            yield from answers.to(identity, asked, lambda: self.received)

    def next_line(self) -> None:
        line = next(self.answer, None)
        self.pending = line or b""
        self.resting = line == b""
        if self.resting:
            # A text has to come as fast as what was said last has to be read.
            self.deadline = math.inf if self.watching else self.deadline
        elif self.pending:
            self.read_on()
        else:
            self.watching = False
            self.deadline = time.monotonic() + self.limits.idle

    def read_on(self) -> None:
        """Give the peer time to read, unless the answer as a whole takes too long."""
        patience = self.limits.idle if self.watching else self.limits.stall
        self.deadline = min(time.monotonic() + patience, self.answer_deadline)

    def refuse(self, code: str, message: str, identity: int = 0) -> None:
        """Say why, and be done with it."""
        self.pending = error_line(identity, AnswerError(code, message))
        self.answer, self.last = iter(()), True
        self.answer_deadline = time.monotonic() + self.limits.stall
        self.read_on()

    def close(self) -> None:
        self.socket.close()
        self.answer = iter(())  # what it holds is let go

    def writable(self) -> None:
        """Write as much as it takes of the answer."""
        self.pending = self.pending[self.socket.send(self.pending) :]
        self.read_on()
        if self.pending:
            return
        self.next_line()
        if self.last and not self.pending:
            raise ConnectionError("it was refused")
        if not self.pending and not self.resting:
            self.next_request()


class ControlSocket:
    """Serves those who look at a kernel; `Kernel.inspect_at` makes one.

    Args:
        kernel: to look at; it is not kept alive.
        path: of the socket.
        label: what label a peer has: one for all, by user number, or what a function says; None
            and no entry: refused, except that no `label` at all means the label "-".
        kernel_label: what class `kernel` is asked of; None: the peer's own label.
        allow: user numbers that may connect; None: our own and root.
        read_only: no request may change anything, or stop the kernel.
        limits: what peers may take.

    Attributes:
        path: of the socket, absolute.
    """

    def __init__(
        self, kernel: Kernel, path: str | os.PathLike[str], *, label: Labels = None,
        kernel_label: str | None = None, allow: Iterable[int] | None = None,
        read_only: bool = True, limits: Limits = Limits(),
    ) -> None:  # fmt: skip
        self._kernel = weakref.ref(kernel)
        self._label = label
        self._kernel_label = kernel_label
        self._allow = frozenset((0, os.geteuid()) if allow is None else allow)
        self._read_only = read_only
        self._limits = limits
        counts = (limits.walks, limits.watches, limits.texts)
        self._places = Places(*map(threading.Semaphore, counts))
        self._peers: set[_Peer] = set()
        self._closing = False
        self._accepting = True
        self._check_labels(kernel)
        self._opened = ExitStack()
        try:
            self._open(path)
        except BaseException:
            self._opened.close()
            raise
        _living.add(self)

    def _open(self, path: str | os.PathLike[str]) -> None:
        self._place = Place(path, others=bool(self._allow - {0, os.geteuid()}))
        self._opened.callback(self._place.close)
        self._wake, self._woken = socket.socketpair()
        self._opened.callback(self._wake.close)
        self._opened.callback(self._woken.close)
        self._selector = selectors.DefaultSelector()
        self._opened.callback(self._selector.close)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(self._place.socket, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="pympi-inspect", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        return self._place.path

    def __repr__(self) -> str:
        return f"<ControlSocket {self.path}>"

    def close(self) -> None:
        """Cut all peers off, end the thread, and remove the files. A second time does nothing."""
        if self._closing:
            return
        self._closing = True
        _living.discard(self)
        with suppress(OSError):
            self._wake.send(b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)
        self._place.close()

    def _check_labels(self, kernel: Kernel) -> None:
        labels = self._label
        given = list(labels.values()) if isinstance(labels, Mapping) else [labels]
        for label in [*given, self._kernel_label]:
            if isinstance(label, str):
                with kernel.borrowed(label):
                    pass

    # ---- the thread ----

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except Exception:
            _log.exception("%r ends", self)
        finally:
            self._abandon()

    def _turn(self) -> None:
        waits = bool(self._peers) or not self._accepting
        watched = any(peer.resting for peer in self._peers)
        ready = self._selector.select(_LOOK if watched else _TICK if waits else None)
        now = time.monotonic()  # what comes while we are busy comes in time
        for key, events in ready:
            if key.data is not None:
                self._tend(key.data, events)
            elif key.fileobj is self._place.socket:
                self._accept()
        for peer in [peer for peer in self._peers if peer.resting]:
            self._tend(peer, 0)
        self._look_at_deadlines(now)

    def _look_at_deadlines(self, now: float) -> None:
        for peer in [peer for peer in self._peers if peer.deadline < now]:
            self._cut(peer, "it took too long")
        if not self._accepting:
            self._accept()

    def _listen(self, accepting: bool) -> None:
        if accepting != self._accepting:
            self._accepting = accepting
            events = selectors.EVENT_READ
            if accepting:
                self._selector.register(self._place.socket, events)
            else:
                self._selector.unregister(self._place.socket)

    def _accept(self) -> None:
        try:
            connection, _ = self._place.socket.accept()
        except BlockingIOError:
            self._listen(True)
        except OSError as error:
            if error.errno in _NO_ROOM and self._accepting:
                _log.warning("%r takes nobody for now: %s", self, error)
                self._listen(False)
        else:
            self._listen(True)
            self._receive(connection)

    def _receive(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            who = peer_of(connection)
            self._answers(who)
            if len(self._peers) >= self._limits.connections:
                raise AnswerError("busy", f"{len(self._peers)} others are connected; try later")
            peer = _Peer(connection, self._limits, functools.partial(self._answers, who))
        except AnswerError as error:
            _turn_away(connection, error)
        except Exception as error:
            connection.close()
            _log.warning("a peer was not taken: %s", error)
        else:
            self._peers.add(peer)
            self._selector.register(connection, selectors.EVENT_READ, peer)

    def _answers(self, who: Peer) -> Answers:
        kernel, uid = self._kernel(), who.uid
        if kernel is None or kernel.closed:
            raise AnswerError("closing", "the kernel is closed")
        if uid not in self._allow:
            _log.warning("user %d may not look at this kernel", uid)
            raise AnswerError("denied", f"user {uid} may not look at this kernel")
        label = self._label_of(uid)
        if label is None:
            _log.warning("user %d has no label", uid)
            raise AnswerError("denied", f"user {uid} has no label here")
        subject = Subject(kernel, label, self._kernel_label, str(who))
        return Answers(kernel, subject, self._read_only, self._places)

    def _label_of(self, uid: int) -> str | None:
        labels = self._label
        if labels is None:
            return EMPTY
        if isinstance(labels, str):
            return labels
        return labels.get(uid) if isinstance(labels, Mapping) else labels(uid)

    def _tend(self, peer: _Peer, events: int) -> None:
        if self._closing or peer not in self._peers:
            return
        try:
            if events & selectors.EVENT_WRITE:
                peer.writable()
            if events & selectors.EVENT_READ and not peer.answering:
                peer.readable()
            if not events and peer.resting:
                peer.next_line()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._cut(peer, str(error))
        except Exception:
            _log.exception("%r: a peer is cut off", self)
            self._cut(peer, "something is wrong here")
        else:
            wanted = selectors.EVENT_WRITE if peer.answering else selectors.EVENT_READ
            self._selector.modify(peer.socket, wanted, peer)

    def _cut(self, peer: _Peer, why: str) -> None:
        _log.debug("%r: a peer is cut off: %s", self, why)
        self._peers.discard(peer)
        with suppress(KeyError, ValueError):
            self._selector.unregister(peer.socket)
        peer.close()

    def _abandon(self) -> None:
        """Close what is open, and remove what was made here."""
        for peer in list(self._peers):
            peer.close()
        self._peers.clear()
        self._opened.close()


def _turn_away(connection: socket.socket, error: AnswerError) -> None:
    """Say why, as far as that goes without waiting."""
    with connection, suppress(OSError):
        connection.send(error_line(0, error))
