"""What comes in on one connection, without secrets, byte for byte as long as it was.

A secret may be cut by chunks and by fragments, so bytes are ready to be written when the message is complete
that they belong to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from presence_proto.recording.frames import BodyPiece, FramePiece, HeadPiece, Inflater, Scanner
from presence_proto.recording.http import redact_head

if TYPE_CHECKING:
    from presence_proto.recording.frames import Piece
    from presence_proto.recording.redaction import Secrets


class CannotRedactError(Exception):
    """These bytes hold a secret, or may, in a way in which it cannot be replaced. The text says why."""


class Inbound:
    """Takes the bytes of one connection. `ready` counts those that `take` can give back now.

    `limit`: how many bytes a message may have. After `CannotRedactError` it is of no more use.
    """

    def __init__(self, secrets: Secrets, limit: int) -> None:
        self._secrets = secrets
        self._scanner = Scanner()
        self._inflater = Inflater(limit)
        self._held: list[Piece | bytes] = []  # of a message that is not complete; bytes are redacted already
        self._ready = bytearray()

    @property
    def ready(self) -> int:
        """How many bytes can be taken."""
        return len(self._ready)

    def take(self, count: int) -> bytes:
        """The next of the bytes that are ready."""
        taken = bytes(self._ready[:count])
        del self._ready[:count]
        return taken

    def feed(self, data: bytes) -> None:
        """Take bytes in. Raises `CannotRedactError`."""
        for piece in self._scanner.feed(data):
            match piece:
                case HeadPiece():
                    self._held.append(redact_head(piece.raw, self._secrets))
                    self._release()
                case BodyPiece():
                    self._held.append(piece)
                case FramePiece() if piece.is_control:
                    self._held.append(piece.with_payload(self._secrets.redact(piece.payload)))
                    if len(self._held) == 1:
                        self._release()
                case _:
                    self._held.append(piece)
                    if piece.fin:
                        self._release()

    def finish(self) -> None:
        """No more will be read of this connection. Raises `CannotRedactError`."""
        rest = self._scanner.take_rest()
        if isinstance(rest, HeadPiece):
            self._held.append(self._secrets.redact_end(redact_head(rest.raw, self._secrets)))
        else:
            self._held.append(rest)
        self._release(cut=True)

    def _release(self, *, cut: bool = False) -> None:
        """Make ready what is held: a message, or the beginning of one that was `cut` off."""
        parts = [piece.payload if isinstance(piece, FramePiece) else piece.raw for piece in self._message()]
        payload = b"".join(parts)
        redacted = self._redacted(payload, cut)
        for piece in self._held:
            if isinstance(piece, bytes):
                self._ready += piece
                continue
            size = len(piece.payload) if isinstance(piece, FramePiece) else len(piece.raw)
            part, redacted = redacted[:size], redacted[size:]
            self._ready += piece.with_payload(part) if isinstance(piece, FramePiece) else part
        self._held.clear()

    def _message(self) -> list[Piece]:
        return [piece for piece in self._held if not isinstance(piece, bytes)]

    def _redacted(self, payload: bytes, cut: bool) -> bytes:
        first = next(iter(self._message()), None)
        if not (isinstance(first, FramePiece) and first.raw and first.compressed):
            return self._without_secrets(payload, cut)
        inflated = self._inflater.inflate(payload, whole=not cut)
        if inflated is None:
            raise CannotRedactError("a compressed message is too large to look for secrets in it")
        if self._without_secrets(inflated, cut) != inflated:
            raise CannotRedactError("a compressed message holds a secret")
        return self._without_secrets(payload, cut)  # it may be compressed by its own word only

    def _without_secrets(self, payload: bytes, cut: bool) -> bytes:
        redacted = self._secrets.redact_json(payload)
        return self._secrets.redact_end(redacted) if cut else redacted
