# SPDX-License-Identifier: BSD-2-Clause
"""Records to the system's log, as RFC 5424 has it."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..record import AuditRecord, Batch
from .lines import printable, sentence

__all__ = ["FACILITIES", "SEVERITIES", "Syslog"]

SEVERITIES = {"loss": 3, "denied": 4, "failed": 5, "granted": 6}
"""err, warning, notice and informational, by outcome."""

FACILITIES = {"user": 1, "daemon": 3, "auth": 4, "authpriv": 10, "audit": 13} | {
    f"local{number}": 16 + number for number in range(8)
}
"""Who says it, by the numbers of RFC 5424; those that make sense here."""

_LONGEST = 2048  # bytes of a message: what receivers should take, RFC 5424 6.1
_SD_ID = "pympi@32473"  # the enterprise number that is for examples: we have none
_VALUES = ("subject", "object", "task_name", "tclass", "result", "service")
_NUMBERS = ("sequence", "task", "port", "msgh_id", "transfer", "epoch")
_VALUE = 160  # characters of a value
_TOKEN = re.compile(r"[^\x21-\x7e]")
_PATIENCE = 10.0


class Syslog:
    r"""Sends records to the system's log: RFC 5424, to /dev/log, by UDP, or by TCP (RFC 6587).

    A message has at most 2048 bytes, all of them printable ASCII: whatever else is in a label or a
    name stands as `\u{hex}`, so nobody can end a message or begin one. Labels and names are
    structured data, and at most 160 characters; the text after them is for people.

    Args:
        address: a path, or (host, port).
        tcp: to a host; else UDP, which loses what it likes.
        facility: one of `FACILITIES`, or a number.
        app: how the program calls itself.
        hostname: how the machine does, by default as it is set.
        when_full: as for `Audit.attach`.

    Raises:
        OSError: nobody listens there.
        ValueError: there is no such facility.

    Example:
        >>> import socket
        >>> from pympi import Kernel, audit
        >>> from pympi.policy import Partition
        >>> daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        >>> daemon.bind(("127.0.0.1", 0))
        >>> with Kernel(policies=[Partition()]) as kernel:
        ...     kernel.audit.attach(audit.Syslog(daemon.getsockname(), hostname="here"))
        ...     port = kernel.create_task("red", label="partition/red").allocate_port()
        ...     try:
        ...         _ = port.make_send(kernel.create_task("blue", label="partition/blue"))
        ...     except PermissionError:
        ...         pass
        >>> message = daemon.recv(4096).decode()
        >>> daemon.close()
        >>> message.partition(" here ")[0].partition(">")[0], message.rpartition("] ")[2]
        ('<84', 'blue (partition/blue) take hold_send on mach_port of partition/red: denied')
    """

    def __init__(
        self, address: str | os.PathLike[str] | tuple[str, int] = "/dev/log", *,
        tcp: bool = False, facility: str | int = "authpriv", app: str = "pympi",
        hostname: str | None = None, when_full: str = "drop",
    ) -> None:  # fmt: skip
        self.when_full = when_full
        self._address = address if isinstance(address, tuple) else os.fspath(address)
        self._tcp = tcp
        self._facility = _facility(facility)
        host = socket.gethostname() if hostname is None else hostname
        self._origin = f"{_token(host, 64)} {_token(app, 48)} {os.getpid()}"
        self.name = f"Syslog({self._address})"
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        if isinstance(self._address, tuple):
            kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
            family, kind, protocol, _, where = socket.getaddrinfo(*self._address, type=kind)[0]
            return _connected(socket.socket(family, kind, protocol), where)
        if not stat.S_ISSOCK(Path(self._address).stat().st_mode):
            raise OSError(f"{self._address} is no socket: no system's log listens there")
        try:
            return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), self._address)
        except OSError as error:
            if not isinstance(error, ConnectionRefusedError) and error.errno:
                with suppress(OSError):
                    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    return _connected(made, self._address)
            raise

    def __call__(self, batch: Batch) -> None:
        """Send a batch, record by record."""
        for message in self.messages(batch):
            self._send(message)

    def messages(self, batch: Batch) -> Iterator[bytes]:
        """Return the messages of a batch, as they are sent."""
        stream = self._socket.type == socket.SOCK_STREAM
        for record in batch:
            message = self._message(record)[:_LONGEST].encode("ascii")
            yield b"%d %b" % (len(message), message) if stream else message

    def _message(self, record: AuditRecord) -> str:
        priority = self._facility * 8 + SEVERITIES[record.outcome]
        head = f"<{priority}>1 {_time(record.time)} {self._origin} {record.operation}"
        return f"{head} {_data(record)} {sentence(record)}"

    def _send(self, message: bytes) -> None:
        """Send a message; the log may have been restarted since the last one."""
        try:
            self._socket.sendall(message, _NOSIGNAL)
        except TimeoutError:
            raise
        except OSError:
            self._socket.close()
            self._socket = self._connect()
            self._socket.sendall(message, _NOSIGNAL)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    abandon = close


_NOSIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


def _connected(made: socket.socket, where: Any) -> socket.socket:
    try:
        made.settimeout(_PATIENCE)
        made.connect(where)
    except BaseException:
        made.close()
        raise
    return made


def _facility(facility: str | int) -> int:
    number = FACILITIES.get(facility, -1) if isinstance(facility, str) else facility
    if not 0 <= number <= 23:
        known = ", ".join(FACILITIES)
        raise ValueError(f"facility must be 0 to 23 or one of {known}, not {facility!r}")
    return number


def _time(seconds: float) -> str:
    """Return a time as RFC 3339 has it."""
    time = datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _token(text: str, most: int) -> str:
    return _TOKEN.sub("_", text)[:most] or "-"


def _data(record: AuditRecord) -> str:
    """Return the structured data of a record: RFC 5424 6.3."""
    fields = {key: str(getattr(record, key)) for key in _NUMBERS}
    fields |= {key: getattr(record, key) for key in _VALUES}
    fields |= {"denied": " ".join(record.denied), "outcome": record.outcome}
    if record.lost:
        fields["lost"] = str(record.lost)
    params = (f'{key}="{_value(text)}"' for key, text in fields.items() if text)
    return f"[{_SD_ID} {' '.join(params)}]"


def _value(text: str) -> str:
    return printable(text, _VALUE, quoted='"]')
