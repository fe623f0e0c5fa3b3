"""Outputs as a recording tells them: by meaning. The masks of a client's frames are random, so bytes are told
as the messages that they carry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.outputs import CloseTransport, OpenTransport, SendData
from presence_proto.recording.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FramePiece,
    HeadPiece,
    Inflater,
    Scanner,
)
from presence_proto.recording.http import redact_head
from presence_proto.recording.values import fields, from_bytes, to_json

if TYPE_CHECKING:
    from presence_proto.outputs import ConnId
    from presence_proto.recording.redaction import Secrets

_NAMES = {
    CONTINUATION: "continuation",
    TEXT: "text",
    BINARY: "binary",
    CLOSE: "close",
    PING: "ping",
    PONG: "pong",
}


CLIPPED = 200
"""Characters of a server's words that a core quotes at most."""


class Decoder:
    """One direction of one connection: its bytes in, what they say out."""

    def __init__(self, secrets: Secrets | None, limit: int) -> None:
        self._secrets = secrets
        self._scanner = Scanner()
        self._inflater = Inflater(limit)
        self._compressed = False  # the message under way is

    def read(self, data: bytes) -> list[dict[str, Any]]:
        """What is complete with these bytes."""
        return [
            self._frame(piece)
            if isinstance(piece, FramePiece)
            else {"http": self._http(piece.raw, isinstance(piece, HeadPiece))}
            for piece in self._scanner.feed(data)
        ]

    def _http(self, raw: bytes, is_head: bool) -> str:
        if self._secrets is not None:
            raw = redact_head(raw, self._secrets) if is_head else self._secrets.redact_json(raw)
        return raw.decode("utf-8", "surrogateescape")

    def _frame(self, frame: FramePiece) -> dict[str, Any]:
        payload = frame.payload
        more: dict[str, Any] = {} if frame.fin else {"fin": False}
        name = _NAMES.get(frame.opcode, f"opcode {frame.opcode}")
        if frame.is_control:
            payload = payload if self._secrets is None else self._secrets.redact(payload)
        else:
            if frame.opcode != CONTINUATION:
                self._compressed = frame.compressed
            if self._compressed:
                payload = self._inflater.inflate(payload, whole=frame.fin) or b""
                more["compressed"] = True
            payload = payload if self._secrets is None else self._secrets.redact_json(payload)
        if frame.opcode == CLOSE and len(payload) >= 2:
            more = {"code": int.from_bytes(payload[:2], "big"), **more}
            payload = payload[2:]
        if frame.opcode == BINARY:
            return {name: from_bytes(payload), **more}
        return {name: payload.decode("utf-8", "surrogateescape"), **more}


class OutputTeller:
    """The outputs of one endpoint, each as one line of a recording. `limit`: bytes of a message."""

    def __init__(self, secrets: Secrets | None, limit: int) -> None:
        self._secrets = secrets
        self._limit = limit
        self._decoders: dict[ConnId, Decoder] = {}
        self._over: set[ConnId] = set()

    def closed(self, conn: ConnId) -> None:
        """This connection is over. Data for it may still wait to be drained."""
        self._over.add(conn)

    def drained(self) -> None:
        """No more outputs wait."""
        for conn in self._over:
            self._decoders.pop(conn, None)
        self._over.clear()

    def tell(self, output: Any) -> dict[str, Any]:
        """The line for an output."""
        match output:
            case OpenTransport():
                return {"open": output.conn, "host": output.host, "port": output.port, "tls": output.tls}
            case SendData():
                decoder = self._decoders.setdefault(output.conn, Decoder(self._secrets, self._limit))
                return {"send": output.conn, "frames": decoder.read(output.data)}
            case CloseTransport():
                self.closed(output.conn)
                return {"close": output.conn, "abort": output.abort}
            case _:
                return {"event": type(output).__name__, "fields": self._fields(output)}

    def _fields(self, event: Any) -> Any:
        told = to_json(fields(event), self._secrets)
        for name in ("reason", "message"):
            words = getattr(event, name, None)
            if self._secrets is not None and isinstance(words, str) and len(words) >= CLIPPED:
                told[name] = self._secrets.redact_clipped(words)
        return told
