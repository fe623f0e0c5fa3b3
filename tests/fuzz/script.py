"""How the bytes of a fuzzer become a story. Options stand at the end, so that a recording can be an input.

A script is records with `SEPARATOR` between them: what happens (a letter), to whom or how (the low half of a
byte, most readable as a digit), and its data. So an input can be read, cut and put together by hand, and the
splices of a fuzzer make sense.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator

SEPARATOR = b"\xff\xfe"
MAX_RECORDS = 200


def split(data: bytes, options: int) -> tuple[bytes, bytes]:
    """The body of an input, and its options, which are 0 where it is too short."""
    at = max(len(data) - options, 0)
    return data[:at], data[at:].ljust(options, b"\0")


def chunks(data: bytes, seed: int) -> list[bytes]:
    """`data` in pieces: 0 leaves it whole, others cut it somewhere, and odd ones into single bytes there."""
    if seed == 0 or len(data) < 2:
        return [data] if data else []
    random = Random(seed)
    cuts = {random.randrange(1, len(data)) for _ in range(1 + seed % 5)}
    if seed % 2:
        start = random.randrange(1, len(data))
        cuts.update(range(start, min(start + 12, len(data))))
    edges = sorted(cuts)
    return [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]


def single_bytes(data: bytes) -> list[bytes]:
    """`data` in the smallest pieces."""
    return [data[at : at + 1] for at in range(len(data))]


def records(data: bytes, letters: str) -> Iterator[tuple[str, int, bytes]]:
    """The letter, the number and the data of each record. Any byte stands for some letter."""
    for record in data.split(SEPARATOR)[:MAX_RECORDS]:
        if record:
            letter = chr(record[0])
            known = letter if letter in letters else letters[record[0] % len(letters)]
            yield known, record[1] & 15 if len(record) > 1 else 0, record[2:]


def record(letter: str, number: int, data: bytes | str = b"") -> bytes:
    """One record, for seeds."""
    return f"{letter}{chr(0x30 + number)}".encode() + (data.encode() if isinstance(data, str) else data)


def script(*parts: bytes, options: bytes) -> bytes:
    """An input of these records."""
    return SEPARATOR.join(parts) + options


def sampled(data: bytes, one_in: int) -> bool:
    """Whether an input is one of those that are looked at more closely: always the same ones."""
    return crc32(data) % one_in == 0


def repeated(body: bytes, size: int) -> bytes:
    """`body` over and over, as records, about `size` bytes long."""
    return SEPARATOR.join([body] * max(size // (len(body) + len(SEPARATOR)), 1))
