"""What must be true of an endpoint, whatever the peer, the network and the clock do."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec

from presence_proto.config import Address
from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.presence import PresenceChange
from presence_proto.testing import Contract

API_KEY = "k3y-0f-the-fuzzer"
TOKEN = "eyJhbGciOi.t0ken-of-the-fuzzer"
SECRETS = (API_KEY, TOKEN)

Transcript: TypeAlias = tuple[list[Any], list[Any], dict[ConnId, bytes]]

# ---------------------------------------------------------------------------------------------- events

_NAMES = {"Any": Any, "Mapping": Mapping, "ConnId": ConnId, "PresenceChange": PresenceChange}


@cache
def _fields(kind: type) -> dict[str, Any]:
    names = vars(inspect.getmodule(kind)) | _NAMES
    hints = get_type_hints(kind, names)
    if issubclass(kind, msgspec.Struct):
        return {name: hints[name] for name in kind.__struct_fields__}
    return {field.name: hints[field.name] for field in attrs.fields(kind)}


def conforms(value: object, hint: Any) -> bool:
    """Whether a value is of the type that an annotation says, all the way down."""
    if hint is Any:
        return True
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(conforms(value, one) for one in get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(conforms(item, get_args(hint)[0]) for item in value)
    if origin is Literal:
        return value in get_args(hint)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if hint is ConnId:
        return type(value) is int
    if hint in (str, int, float, bool, NoneType):
        return type(value) is hint or (hint is float and type(value) is int)
    return isinstance(value, hint) and (not _has_fields(hint) or documented(value))


def _has_fields(kind: type) -> bool:
    return attrs.has(kind) or issubclass(kind, msgspec.Struct)


def documented(event: object) -> bool:
    """Whether every field of an event is of its documented type."""
    return all(conforms(getattr(event, name), hint) for name, hint in _fields(type(event)).items())


def tells_secret(event: object, heard: bytes) -> bool:
    """Whether an event tells one of `SECRETS`.

    What the peer says is passed on as it is, also when it `heard` a secret from us; the words that we make of
    it are for people, and never hold one.
    """
    words = [getattr(event, name, "") for name in ("reason", "message")]
    return any(
        any(isinstance(word, str) and secret in word for word in words)
        or (secret.encode() not in heard and secret in repr(event))
        for secret in SECRETS
    )


# ---------------------------------------------------------------------------------------------- endpoints


class Watch:
    """An endpoint under a virtual clock. After each fact or command it is drained, its `Contract` checked."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.now = 1000.0
        self.events: list[Any] = []
        self.transports: list[OpenTransport | CloseTransport] = []
        self.sent: dict[ConnId, bytearray] = {}
        self.live: set[ConnId] = set()  # transports that are open
        self.pending: OpenTransport | None = None  # asked for, and not answered yet
        self.facts = 0  # and commands
        self.refusals: list[str] = []  # why commands were not legal
        self._contract = Contract(endpoint)

    def do(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Report a fact or give a command, and drain."""
        self.facts += 1
        try:
            return call(*args, now=self.now, **kwargs)
        finally:
            self._drain()

    def accept(self, conn: ConnId) -> None:
        """A transport comes in to a hub."""
        self._contract.accepted(conn)
        self.opened(conn)

    def opened(self, conn: ConnId) -> None:
        """The transport is there."""
        self.pending = None
        self.live.add(conn)
        self.do(self.endpoint.transport_opened, conn)

    def receive(self, conn: ConnId, pieces: list[bytes]) -> None:
        """Bytes come in, in pieces, until the endpoint closes the connection."""
        for piece in pieces:
            if conn in self.live:
                self.do(self.endpoint.receive_data, conn, piece)

    def closed(self, conn: ConnId, reason: str = "eof") -> None:
        """The transport is gone, or could not be opened."""
        self.pending = None
        self.live.discard(conn)
        self._contract.closed(conn)
        self.do(self.endpoint.transport_closed, conn, reason=reason)

    def tick(self) -> bool:
        """Let time pass to the next deadline. False: there is none."""
        deadline = self.endpoint.next_deadline()
        if deadline is None:
            return False
        self.now = deadline
        self.do(self.endpoint.tick)
        return True

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick at each deadline, and an early one at the end."""
        end = self.now + seconds
        while (deadline := self.endpoint.next_deadline()) is not None and deadline <= end:
            self.tick()
        self.now = end
        self._contract.idle_tick(end)

    def transcript(self) -> Transcript:
        """All that it did: events and transports in order, and the bytes of each connection."""
        return self.events, self.transports, {conn: bytes(data) for conn, data in self.sent.items()}

    def _drain(self) -> None:
        for output in self._contract.drain(self.now):
            if isinstance(output, SendData):
                self.sent.setdefault(output.conn, bytearray()).extend(output.data)
            elif isinstance(output, OpenTransport):
                self.pending = output
                self.transports.append(output)
            elif isinstance(output, CloseTransport):
                self.live.discard(output.conn)
                self.pending = None
                self.transports.append(output)
            else:
                assert documented(output), f"a field is not of its documented type: {output!r}"
                self.events.append(output)


def check_secrets(watch: Watch, heard: bytes) -> None:
    """Neither an event nor an exception tells a key or a token."""
    for event in watch.events:
        assert not tells_secret(event, heard), f"an event tells a secret: {type(event).__name__}"
    for words in watch.refusals:
        known = [secret for secret in SECRETS if secret.encode() in heard]  # by our own user
        assert not any(secret in words for secret in SECRETS if secret not in known)


ADDRESS = Address("host.test", 80, False, f"/socket/websocket?apikey={API_KEY}&vsn=2.0.0")
