"""A client as plain as can be: the bytes that it says, and what it makes of what it hears.

There are crowds of them, so they must cost little: no masks to speak of, no errors, one device a user.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec

from benchmarks.workloads import TOPIC

REQUEST = (
    b"GET /realtime/v1/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


def upgrade(*, deflate: bool = False) -> bytes:
    """The request for a WebSocket."""
    return REQUEST + (DEFLATE if deflate else b"") + b"\r\n"


def frame(*message: Any) -> bytes:
    """A V2 message (join_ref, ref, topic, event, payload) as a client's frame, masked with zeros."""
    data = json.dumps(message, separators=(",", ":")).encode()
    size = len(data)
    header = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return header + bytes(4) + data


def join_as(key: str) -> bytes:
    """The join of the topic, with presence, but without being present. Own broadcasts come back."""
    config = {"broadcast": {"ack": False, "self": True}, "presence": {"enabled": True, "key": key}}
    return frame("1", "1", TOPIC, "phx_join", {"config": config})


def user_id(number: int) -> str:
    """Of the client with this number."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def track(number: int) -> bytes:
    """The client with this number becomes present, as a Jarvis client does."""
    payload = {
        "user_id": user_id(number),
        "display_name": f"Player {number}",
        "status": "online",
        "activity": None,
        "online_at": "2026-05-04T12:00:00.000Z",
    }
    return frame("1", "2", TOPIC, "presence", {"type": "presence", "event": "track", "payload": payload})


class Frames:
    """Takes apart what a server sends: bytes in, the payloads of text frames out."""

    def __init__(self, *, deflate: bool = False) -> None:
        self._rest = b""
        self._inflater = zlib.decompressobj(-15) if deflate else None

    def take(self, data: bytes) -> list[bytes]:
        """Raises `ValueError` for any other frame."""
        data = self._rest + data if self._rest else data
        found = []
        at, end = 0, len(data)
        while end - at >= 10 or (end - at >= 2 and data[at + 1] < 126):
            head, size, start = data[at], data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif size == 127:
                size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            if start + size > end:
                break
            payload, at = data[start : start + size], start + size
            if head & 0x0F != 1:
                raise ValueError(f"a frame of kind {head & 0x0F}")
            if head & 0x40:
                assert self._inflater is not None
                payload = self._inflater.decompress(payload + b"\x00\x00\xff\xff")
            found.append(payload)
        self._rest = data[at:]
        return found


class Roster:
    """Who is there: the key of each user, with its newest ref."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.diffs = 0
        self.is_synced = False

    def take(self, text: bytes) -> bool:
        """Take in a message. Returns whether it was one of presence."""
        if text.find(b'"presence_', 0, 100) < 0:
            return False
        _, _, _, event, payload = msgspec.json.decode(text)
        if event == "presence_state":
            self.is_synced = True
            self.there = {key: entry["metas"][-1]["phx_ref"] for key, entry in payload.items()}
            return True
        self.diffs += 1
        for key, entry in payload["joins"].items():
            self.there[key] = entry["metas"][-1]["phx_ref"]
        for key, entry in payload["leaves"].items():
            if self.there.get(key) == entry["metas"][-1]["phx_ref"]:
                del self.there[key]
        return True


def all_see_all(rosters: list[Roster]) -> bool:
    """Whether everybody sees everybody, and sees the same."""
    first = rosters[0].there
    everybody = set(map(user_id, range(len(rosters))))
    return first.keys() == everybody and all(roster.there == first for roster in rosters)
