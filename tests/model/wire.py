# SPDX-License-Identifier: BSD-2-Clause
"""Messages as tests say them, to and from Mach's wire form.

A test names what it sends (`Letter`) and compares what arrived (`Arrived`); out-of-line memory
appears as its bytes, because addresses differ between the kernel and its model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import mach_numbers as m

# What a body may carry. The first field of each is the descriptor type.
PORT = "port"  # (PORT, name, disposition)
GUARDED = "guarded"  # (GUARDED, name, disposition, context, flags)
MEMORY = "memory"  # (MEMORY, bytes, deallocate)
VOLATILE = "volatile"  # (VOLATILE, bytes, deallocate): the same under another type
PORTS = "ports"  # (PORTS, names, disposition, deallocate)
RAW = "raw"  # (RAW, bytes): whatever a hostile sender writes

MEMORY_TYPE = {MEMORY: m.DESCRIPTOR_OOL, VOLATILE: m.DESCRIPTOR_OOL_VOLATILE}

Item = tuple[Any, ...]
Place = Callable[[bytes], int]
Read = Callable[[int, int], bytes]


class Letter(NamedTuple):
    """An outgoing message."""

    dest: int
    dest_type: int = m.COPY_SEND
    reply: int = 0
    reply_type: int = 0
    id: int = 0
    items: tuple[Item, ...] = ()
    data: bytes = b""
    voucher: int = 0
    more_bits: int = 0  # or-ed into msgh_bits
    claimed: int | None = None  # how many descriptors it says it has, where that is not true
    cut: int = 0  # bytes taken off the end

    def encode(self, place: Place) -> bytes:
        """The wire form; `place` puts bytes into the sender's memory."""
        bits = self.dest_type | self.reply_type << 8 | self.more_bits
        body = b""
        if self.items or self.claimed is not None:
            bits |= m.BITS_COMPLEX
            count = len(self.items) if self.claimed is None else self.claimed
            body = struct.pack("<I", count)
            body += b"".join(encode_item(item, place) for item in self.items)
        size = m.HEADER_SIZE + len(body) + len(self.data)
        head = (bits, size, self.dest, self.reply, self.voucher, self.id)
        message = struct.pack("<IIIIIi", *head) + body + self.data
        return message[: len(message) - self.cut]


def encode_item(item: Item, place: Place) -> bytes:
    kind, *rest = item
    if kind == PORT:
        name, disposition = rest
        return struct.pack("<IIHBB", name, 0, 0, disposition, m.DESCRIPTOR_PORT)
    if kind == GUARDED:
        name, disposition, context, flags = rest
        return struct.pack("<QHBBI", context, flags, disposition, m.DESCRIPTOR_GUARDED, name)
    if kind in MEMORY_TYPE:
        data, deallocate = rest
        head = (place(data), deallocate, m.VIRTUAL_COPY, 0, MEMORY_TYPE[kind])
        return struct.pack("<QBBBBI", *head, len(data))
    if kind == PORTS:
        names, disposition, deallocate = rest
        address = place(struct.pack(f"<{len(names)}I", *names))
        head = (address, deallocate, m.VIRTUAL_COPY, disposition, m.DESCRIPTOR_OOL_PORTS)
        return struct.pack("<QBBBBI", *head, len(names))
    return bytes(rest[0])


class Arrived(NamedTuple):
    """A message that was received or handed back, with its trailer's bytes."""

    bits: int
    size: int
    remote: int
    local: int
    voucher: int
    id: int
    items: tuple[Item, ...]
    data: bytes
    trailer: bytes


def decode(message: bytes, read: Read) -> Arrived:
    """Takes a message apart; `read` gives, and frees, memory of the receiver."""
    bits, size, remote, local, voucher, id_ = struct.unpack_from("<IIIIIi", message)
    offset = m.HEADER_SIZE
    items = []
    if bits & m.BITS_COMPLEX:
        (count,) = struct.unpack_from("<I", message, offset)
        offset += 4
        for _ in range(count):
            items.append(decode_item(message, offset, read))
            offset += m.DESCRIPTOR_SIZE[message[offset + 11]]
    end = max(offset, (size + 3) & ~3)
    data, rest = message[offset:end], message[end:]
    trailer = rest[: struct.unpack_from("<I", rest, 4)[0]] if len(rest) >= 8 else b""
    return Arrived(bits, size, remote, local, voucher, id_, tuple(items), data, trailer)


def decode_item(message: bytes, offset: int, read: Read) -> Item:
    type_ = message[offset + 11]
    if type_ == m.DESCRIPTOR_PORT:
        name, _, _, disposition, _ = struct.unpack_from("<IIHBB", message, offset)
        return PORT, name, disposition
    if type_ == m.DESCRIPTOR_GUARDED:
        context, flags, disposition, _, name = struct.unpack_from("<QHBBI", message, offset)
        return GUARDED, name, disposition, context, flags
    head = struct.unpack_from("<QBBBBI", message, offset)
    address, deallocate, _, disposition, _, size = head
    if type_ == m.DESCRIPTOR_OOL_PORTS:
        names = struct.unpack(f"<{size}I", read(address, size * 4))
        return PORTS, names, disposition, deallocate
    kind = VOLATILE if type_ == m.DESCRIPTOR_OOL_VOLATILE else MEMORY
    return kind, read(address, size), deallocate
