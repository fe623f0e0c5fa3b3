"""One WebSocket frame, made by hand: what tests a parser should share no code with it."""

from __future__ import annotations

import struct
from enum import IntEnum

from attrs import frozen

from presence_proto.testing.strategies.program import Program


class Opcode(IntEnum):
    """The opcodes that RFC 6455 gives a meaning."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"Opcode.{self.name}"


@frozen(repr=False)
class Frame(Program):
    """One frame, right or wrong. `rsv` is the three reserved bits as a number, RSV1 being 4.

    `payload` is what it carries before it is masked with the four bytes of `mask`. `length` is a field of two
    or eight bytes that says another length, or the right one in a form that is too long.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = None
    length: bytes | None = None

    @property
    def data(self) -> bytes:
        """The frame as it is on the wire."""
        size, masked = len(self.payload), 0 if self.mask is None else 0x80
        first = self.fin << 7 | self.rsv << 4 | self.opcode
        if self.length is not None:
            header = bytes((first, masked | (126 if len(self.length) == 2 else 127))) + self.length
        elif size < 126:
            header = bytes((first, masked | size))
        elif size < 1 << 16:
            header = struct.pack("!BBH", first, masked | 126, size)
        else:
            header = struct.pack("!BBQ", first, masked | 127, size)
        return header + (self.payload if self.mask is None else self.mask + xor(self.payload, self.mask))


def xor(data: bytes, mask: bytes) -> bytes:
    """`data` masked, or unmasked."""
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")
