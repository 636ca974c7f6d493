# SPDX-License-Identifier: BSD-2-Clause
"""What an argument is, and how it lies in a message.

The layout is the untyped one of XNU's MIG. The inline bytes begin with an NDR record; the
arguments follow in order, each padded to 4 bytes, a variable one behind its count. Rights and
memory travel as descriptors, in order, and memory of variable size has its count inline.

Nothing that is read is trusted: whatever does not fit its type to the last byte is a `LayoutError`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..enums import Disposition
from ..errors import PympiError
from ..message import Carried, Message
from ..port import ReceiveRight, Right, SendOnceRight, SendRight

__all__ = ["Array", "LayoutError", "Packet", "Parcel", "Port", "Scalar", "String", "Type"]

NDR = bytes([0, 0, 0, 0, 1, 0, 0, 0])  # version 0; little-endian integers, ASCII, IEEE floats
_COUNT = struct.Struct("<I")
_LARGEST = 1 << 24  # bytes of one inline value
_MOST_MEMORY = 1 << 30  # bytes of one value passed by reference, where the type has no bound
_MOST_PORTS = 1023  # in an array without a bound, as many as XNU takes in one message


class LayoutError(PympiError, ValueError):
    """A message that is not laid out as its routine says."""


class Packet:
    """A message in the making.

    Attributes:
        body (bytearray): the inline bytes, without the NDR record.
        rights, memory: what `SendRight.send` takes under these names.
    """

    __slots__ = ("body", "memory", "rights")

    def __init__(self) -> None:
        self.body = bytearray()
        self.rights: list[Carried | None] = []
        self.memory: list[Any] = []

    def put(self, data: bytes) -> None:
        """Add inline bytes, and padding to 4."""
        self.body += data + bytes(-len(data) % 4)

    def put_count(self, count: int) -> None:
        """Add a mach_msg_type_number_t."""
        self.body += _COUNT.pack(count)

    def inline(self) -> bytes:
        """Return the message's body: there is an NDR record where there are inline bytes."""
        return NDR + bytes(self.body) if self.body else b""


class Parcel:
    """A message being read: bytes, rights and memory are taken one after another.

    Raises:
        LayoutError: here, the NDR record is none that we can read; in the methods, what is asked
            for is not there.
    """

    __slots__ = ("_body", "_memory", "_rights", "_taken")

    def __init__(self, message: Message) -> None:
        self._body = memoryview(message.body)
        held = message.carried_rights
        self._rights = list(zip(message.rights, (how for _, how in held), strict=True))[::-1]
        self._memory = message.memory[::-1] if message.carried_memory else []
        self._taken = 0
        if self._body and bytes(self.take(len(NDR))) != NDR:
            raise LayoutError("the NDR record is of another machine")

    def take(self, size: int) -> memoryview:
        """Return the next `size` inline bytes, and step over them and their padding."""
        end = self._taken + size
        padded = end + -size % 4
        if padded > len(self._body):
            raise LayoutError(f"{len(self._body)} bytes, {padded} expected")
        found = self._body[self._taken : end]
        self._taken = padded
        return found

    def take_count(self, most: int) -> int:
        """Return the next count.

        Raises:
            LayoutError: it is greater than `most`.
        """
        (count,) = _COUNT.unpack(self.take(_COUNT.size))
        if count > most:
            raise LayoutError(f"{count} elements, at most {most} expected")
        return int(count)

    def take_right(self) -> tuple[Right | None, int]:
        """Return the next right, and the disposition it arrived with."""
        if not self._rights:
            raise LayoutError("a right is missing")
        return self._rights.pop()

    def take_memory(self) -> memoryview:
        """Return the next piece of memory."""
        if not self._memory:
            raise LayoutError("memory is missing")
        return self._memory.pop()

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._taken == len(NDR):
            raise LayoutError("an NDR record, and nothing it would be for")
        left = len(self._body) - self._taken, len(self._rights), len(self._memory)
        if any(left):
            raise LayoutError("{} bytes, {} rights, {} pieces of memory too many".format(*left))


class Type:
    """What all types have in common.

    Attributes:
        size (int): bytes of a value; 0 for what is not inline, or not always of the same size.
        depth (int): how many types are inside each other, with itself.
        described (bool): whether it travels as descriptors, not in the inline bytes.
    """

    size: int = 0
    depth: int = 1
    described: bool = False

    def pack(self, value: Any) -> bytes:
        """Return the bytes of a value, unpadded.

        Raises:
            TypeError, ValueError: it is not of this type.
        """
        raise TypeError(f"{self} cannot be an element")

    def unpack(self, data: memoryview) -> Any:
        """Return the value of `size` bytes.

        Raises:
            LayoutError: they are no value of this type.
        """
        raise TypeError(f"{self} cannot be an element")

    def put(self, packet: Packet, value: Any) -> None:
        """Add an argument to a message; errors as for `pack`."""
        packet.put(self.pack(value))

    def take(self, parcel: Parcel) -> Any:
        """Take an argument from a message; errors as for `unpack`."""
        return self.unpack(parcel.take(self.size))


@dataclass(frozen=True)
class Scalar(Type):
    """A number, or a boolean.

    Attributes:
        name: in MIG's words.
        form: struct's letter.
        octet: whether arrays of it are bytes.
    """

    name: str
    form: str
    octet: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int:  # type: ignore[override]
        return 4 if self.form == "?" else struct.calcsize("<" + self.form)

    @property
    def _wire(self) -> str:
        return "I" if self.form == "?" else self.form

    def pack(self, value: Any) -> bytes:
        return self.pack_many((value,))

    def unpack(self, data: memoryview) -> Any:
        return self.unpack_many(data, 1)[0]

    def pack_many(self, values: Sequence[Any]) -> bytes:
        """Return the bytes of several numbers in a row."""
        if self.octet and isinstance(values, bytes):
            return values
        if self.form == "?":
            values = [bool(value) for value in values]
        try:
            return struct.pack(f"<{len(values)}{self._wire}", *values)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"not of type {self}: {error}") from None

    def unpack_many(self, data: memoryview, count: int) -> Any:
        """Return `count` numbers: bytes where they are octets, else a tuple."""
        values = struct.unpack(f"<{count}{self._wire}", data)
        return tuple(map(bool, values)) if self.form == "?" else values


@dataclass(frozen=True)
class String(Type):
    """Text that ends with NUL: at most `room` bytes with it, in UTF-8.

    Attributes:
        room: bytes.
        variable: only those in use are sent, behind an offset, which is 0, and their count.
    """

    room: int
    variable: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.room <= _LARGEST:
            raise ValueError(f"a string has 1 to {_LARGEST} bytes of room, not {self.room}")

    def __str__(self) -> str:
        return f"c_string[{'*:' if self.variable else ''}{self.room}]"

    @property
    def size(self) -> int:  # type: ignore[override]
        return 0 if self.variable else self.room

    def _encoded(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"{self} takes a str, not {type(value).__name__}")
        raw = value.encode("utf-8", "surrogateescape")
        if b"\0" in raw or len(raw) >= self.room:
            raise ValueError(f"{self} takes {self.room - 1} bytes of UTF-8 and no NUL")
        return raw + b"\0"

    def pack(self, value: Any) -> bytes:
        return self._encoded(value).ljust(self.room, b"\0")

    def unpack(self, data: memoryview) -> str:
        text, nul, _ = bytes(data).partition(b"\0")
        if not nul:
            raise LayoutError(f"{self}: no NUL")
        return text.decode("utf-8", "surrogateescape")

    def put(self, packet: Packet, value: Any) -> None:
        if not self.variable:
            super().put(packet, value)
            return
        raw = self._encoded(value)
        packet.put_count(0)
        packet.put_count(len(raw))
        packet.put(raw)

    def take(self, parcel: Parcel) -> str:
        if not self.variable:
            return super().take(parcel)
        parcel.take_count(0)
        data = parcel.take(parcel.take_count(self.room))
        text = self.unpack(data)
        if 0 in data[:-1]:
            raise LayoutError(f"{self}: bytes after the NUL")
        return text


# How a right leaves, by how the type says it does: what it is of, and what it arrives as.
_LEAVES: dict[Disposition, tuple[type[Right], Disposition]] = {
    Disposition.MOVE_RECEIVE: (ReceiveRight, Disposition.MOVE_RECEIVE),
    Disposition.MOVE_SEND: (SendRight, Disposition.MOVE_SEND),
    Disposition.COPY_SEND: (SendRight, Disposition.MOVE_SEND),
    Disposition.MAKE_SEND: (ReceiveRight, Disposition.MOVE_SEND),
    Disposition.MOVE_SEND_ONCE: (SendOnceRight, Disposition.MOVE_SEND_ONCE),
    Disposition.MAKE_SEND_ONCE: (ReceiveRight, Disposition.MOVE_SEND_ONCE),
}


@dataclass(frozen=True)
class Port(Type):
    """A right.

    Attributes:
        disposition: how it leaves; None where each caller says so (polymorphic).
        arrival: as what it arrives, MOVE_RECEIVE, MOVE_SEND or MOVE_SEND_ONCE; None for any.
    """

    disposition: Disposition | None
    arrival: Disposition | None = None
    described = True

    def __post_init__(self) -> None:
        if self.disposition is not None and self.arrival is None:
            object.__setattr__(self, "arrival", _LEAVES[self.disposition][1])

    def __str__(self) -> str:
        if self.disposition is not None:
            return f"MACH_MSG_TYPE_{self.disposition.name}"
        return "polymorphic" + (f"|MACH_MSG_TYPE_{self.arrival.name}" if self.arrival else "")

    def carried(self, value: Any) -> Carried | None:
        """Return what a message shall carry: for a right, or `right.copy_send()` and the like."""
        if value is None:
            return None
        if isinstance(value, Carried):
            arrival = _LEAVES[value.disposition][1]
            if self.arrival not in (None, arrival):
                raise TypeError(f"{self} does not take {value.disposition.name}")
            return value
        kind = _LEAVES[self.disposition][0] if self.disposition is not None else ()
        if self.disposition is None or not isinstance(value, kind):
            said = kind.__name__ if isinstance(kind, type) else "right.copy_send() or the like"
            raise TypeError(f"{self} takes a {said}, not {value!r}")
        return Carried(value, self.disposition)

    def put(self, packet: Packet, value: Any) -> None:
        packet.rights.append(self.carried(value))

    def take(self, parcel: Parcel) -> Right | None:
        right, arrived = parcel.take_right()
        if right is not None and self.arrival not in (None, arrived):
            raise LayoutError(f"{self} does not arrive as {arrived}")
        return right


@dataclass(frozen=True)
class Array(Type):
    """Several of a type: bytes where the elements are octets, else a sequence.

    Attributes:
        element: what they are; of a size of its own, or a port.
        count: how many; at most, if `variable`, and 0 for any number.
        variable: as many as there are, behind their number.
        out_of_line: passed by reference.
        word: "array" or "struct".
    """

    element: Type
    count: int
    variable: bool = False
    out_of_line: bool = False
    word: str = "array"
    depth: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", self.element.depth + 1)
        if not isinstance(self.element, Port) and not self.element.size:
            raise ValueError(f"{self.element} cannot be an element")
        if self.count < 0 or self.count * max(self.element.size, 1) > _LARGEST:
            raise ValueError(f"an array has at most {_LARGEST} bytes")
        if not self.count and not (self.variable and (self.out_of_line or self._ports)):
            raise ValueError("an inline array needs a count or a bound, of at least 1")

    def __str__(self) -> str:
        bound = f"*:{self.count}" if self.count else ""
        how = bound if self.variable else str(self.count)
        return f"{'^' if self.out_of_line else ''}{self.word}[{how}] of {self.element}"

    @property
    def described(self) -> bool:  # type: ignore[override]
        return self.out_of_line or self._ports

    @property
    def _ports(self) -> bool:
        return isinstance(self.element, Port)

    @property
    def size(self) -> int:  # type: ignore[override]
        plain = not (self.variable or self.out_of_line)
        return self.count * self.element.size if plain else 0

    @property
    def _most(self) -> int:
        if self.count:
            return self.count
        return _MOST_PORTS if self._ports else _MOST_MEMORY // self.element.size

    @property
    def _octets(self) -> bool:
        return isinstance(self.element, Scalar) and self.element.octet

    def _counted(self, value: Any) -> Sequence[Any]:
        """Return the elements, checked for their number."""
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise TypeError(f"{self} takes a sequence, not {type(value).__name__}")
        if isinstance(value, (bytearray, memoryview)) and self._octets:
            value = bytes(value)  # a copy: who gave it may change it before the message is read
        fits = len(value) <= self._most if self.variable else len(value) == self.count
        if not fits:
            wanted = f"at most {self._most}" if self.variable else str(self.count)
            raise ValueError(f"{self} takes {wanted} elements, not {len(value)}")
        return value

    def _packed(self, values: Sequence[Any]) -> bytes:
        if isinstance(self.element, Scalar):
            return self.element.pack_many(values)
        return b"".join(map(self.element.pack, values))

    def _unpacked(self, data: memoryview, count: int) -> Any:
        element = self.element
        if isinstance(element, Scalar):
            return bytes(data) if element.octet else element.unpack_many(data, count)
        parts = range(0, count * element.size, element.size)
        return tuple(element.unpack(data[at : at + element.size]) for at in parts)

    def pack(self, value: Any) -> bytes:
        return self._packed(self._counted(value))

    def unpack(self, data: memoryview) -> Any:
        return self._unpacked(data, self.count)

    def put(self, packet: Packet, value: Any) -> None:
        values = self._counted(value)
        if self.variable:
            packet.put_count(len(values))
        if self._ports:
            for item in values:
                self.element.put(packet, item)
        elif self.out_of_line:
            packet.memory.append(self._packed(values))
        else:
            packet.put(self._packed(values))

    def take(self, parcel: Parcel) -> Any:
        count = parcel.take_count(self._most) if self.variable else self.count
        if self._ports:
            return tuple(self.element.take(parcel) for _ in range(count))
        if not self.out_of_line:
            return self._unpacked(parcel.take(count * self.element.size), count)
        data = parcel.take_memory()
        if len(data) != count * self.element.size:
            raise LayoutError(f"{self}: {len(data)} bytes of memory for {count} elements")
        return data if self._octets else self._unpacked(data, count)
