# SPDX-License-Identifier: BSD-2-Clause
"""The first lines of audit files: their form, and how their records lie. See docs/audit.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from .._version import __version__
from ..enums import AuditFlag, Operation
from ..errors import PympiError, code_names
from .chain import LEAF
from .record import RECORD

__all__ = [
    "FORM_1", "FORM_2", "LARGEST_HEADER", "AuditError", "Header", "Layout", "form_of",
    "is_audit_file", "new_header",
]  # fmt: skip

FORM_1 = b"pympi audit 1\n"
FORM_2 = b"pympi audit 2\n"
LARGEST_HEADER = 1 << 16
_LARGEST_RECORD = 4096
_FIRST_LINE = re.compile(rb"pympi audit ([1-9][0-9]{0,8})\n")


class AuditError(PympiError, ValueError):
    """An audit file that cannot be read or continued; the message names file and byte."""


def is_audit_file(start: bytes) -> bool:
    """Whether a file that starts so (12 bytes are enough) says that it is an audit file."""
    return start.startswith(b"pympi audit ")


def form_of(line: bytes) -> int:
    """Return the form that a file's first line says.

    Raises:
        ValueError: it is of no audit file, or a form that is not known here.
    """
    found = _FIRST_LINE.fullmatch(line)
    if not found:
        raise ValueError("expected the line 'pympi audit 2', or 'pympi audit 1'")
    if (form := int(found[1])) > 2:
        raise ValueError(f"a file of form {form}; this pympi reads forms 1 and 2")
    return form


class Layout(msgspec.Struct, frozen=True):
    """A record's size, and name, type (as numpy writes it) and offset of each of its fields."""

    size: int
    fields: list[tuple[str, str, int]]

    @classmethod
    def ours(cls) -> Layout:
        """Return the layout of `RECORD`."""
        fields: Mapping[str, Any] = RECORD.fields or {}
        return cls(RECORD.itemsize, [(name, f[0].str, f[1]) for name, f in fields.items()])

    def check(self) -> None:
        """Check that records can be read: known fields in their place, what is new behind them.

        Raises:
            ValueError: they cannot.
        """
        ours = self.ours()
        known = self.fields[: len(ours.fields)] == ours.fields
        if not known or not ours.size <= self.size <= _LARGEST_RECORD or self.size % 8:
            raise ValueError("expected records that begin with the fields of pympi.audit.RECORD")

    def records(self, raw: Any) -> npt.NDArray[Any]:
        """Return bytes as records; fields that are not known here are left out."""
        if self.size == RECORD.itemsize:
            return np.frombuffer(raw, RECORD)
        wide = np.frombuffer(raw, np.uint8).reshape(-1, self.size)
        return np.ascontiguousarray(wide[:, : RECORD.itemsize]).reshape(-1).view(RECORD)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The second line of a file of form 2: what is needed to read it without pympi.

    Attributes:
        identity: of the file, 16 random bytes in hexadecimal.
        created: when, in UTC (ISO 8601).
        writer: by which program.
        hash: "sha256".
        leaf: records in a leaf.
        keyed: blocks have MACs.
        record: how records lie.
        operations, flags, results: names of numbers.
        about: what the embedder has to say.
    """

    identity: str
    created: str
    writer: str
    hash: str
    leaf: int
    keyed: bool
    record: Layout
    operations: dict[int, str]
    flags: dict[int, str]
    results: dict[int, str]
    about: dict[str, str] = {}

    def packed(self) -> bytes:
        """Return the file's first two lines; what follows begins at a multiple of 8.

        Raises:
            ValueError: it is longer than a header may be, or could not be read again.
        """
        text = json.dumps(msgspec.to_builtins(self, str_keys=True)).encode()
        text += b" " * (-(len(FORM_2) + len(text) + 1) % 8) + b"\n"
        if len(text) > LARGEST_HEADER:
            raise ValueError(f"a header has at most {LARGEST_HEADER} bytes, not {len(text)}")
        self.read(text)
        return FORM_2 + text

    @classmethod
    def read(cls, line: bytes) -> Header:
        """Return what is in the second line of a file.

        Raises:
            ValueError: it is none, or of a file that cannot be read here.
        """
        if not line.endswith(b"\n"):
            raise ValueError(f"expected a header, a line of at most {LARGEST_HEADER} bytes")
        try:
            line.decode()  # what is not known here is read, too, where a proof has it
            header = msgspec.json.decode(line, type=cls)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"expected a header, an object in JSON: {error}") from None
        if (header.hash, header.leaf) != ("sha256", LEAF):
            raise ValueError(
                f"expected hashes sha256 over leaves of {LEAF} records, "
                f"found {header.hash!r} over {header.leaf}"
            )
        header.record.check()
        return header


def new_header(identity: str, created: str, keyed: bool, about: Mapping[str, str]) -> Header:
    """Return the header of a new file; see `Header`."""
    return Header(
        identity=identity, created=created, writer=f"pympi {__version__}", hash="sha256",
        leaf=LEAF, keyed=keyed, record=Layout.ours(),
        operations={int(each): each.name.lower() for each in Operation},
        flags={int(each): str(each.name).lower() for each in AuditFlag},
        results=code_names(), about=dict(about),
    )  # fmt: skip
