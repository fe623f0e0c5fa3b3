"""The recordings as inputs: what a server sent, what a client sent, as bytes and as messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from attrs import frozen

import golden_files

MAX_SIZE = 4096
"""Bytes of an input at most."""
MAX_SEED = 800
"""Bytes of a seed at most. Longer recordings are cut: what comes later in them is more of the same."""


@frozen
class Said:
    """One message of a recording."""

    incoming: bool  # from the server
    text: bool
    data: bytes


@cache
def conversation(name: str) -> tuple[Said, ...]:
    """The messages of a recording."""
    return tuple(
        Said(line.dir == "in", line.kind == "text", _bytes(line.data))
        for line in golden_files.msgs(name)
        if line.kind in ("text", "binary")
    )


def conversations() -> Iterator[tuple[str, tuple[Said, ...]]]:
    """All of them, by name, without those that say nothing."""
    for name in golden_files.names():
        if conversation(name):
            yield name, conversation(name)


@cache
def streams(direction: str) -> tuple[bytes, ...]:
    """The bytes of each recording in one direction, "in" (from the server) or "out"."""
    found = (
        b"".join(line.data for line in golden_files.raw(name) if line.dir == direction)
        for name in golden_files.names(golden_files.RAW)
    )
    return tuple(data for data in found if data)


def speaks_v1(name: str) -> bool:
    """Whether a recording is of V1."""
    return any(said.data.startswith(b"{") for said in conversation(name))


def with_accept(stream: bytes, accept: bytes) -> bytes:
    """A server's side of a recording, as the answer to another key."""
    return re.sub(rb"(?i)(sec-websocket-accept: )[^\r]*", rb"\g<1>" + accept, stream, count=1)


def head_and_rest(stream: bytes) -> tuple[bytes, bytes]:
    """The handshake, and what follows it."""
    head, end, rest = stream.partition(b"\r\n\r\n")
    return head + end, rest


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
