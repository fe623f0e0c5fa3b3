"""Messages to and from the forms that Phoenix gives them: V1 (objects), V2 (arrays) and V2's binary frames.

- V1 text: `{"topic", "event", "payload", "ref"}`, and `"join_ref"` from clients
- V2 text: `[join_ref, ref, topic, event, payload]`
- V2 binary: the kind, one length byte for each field, an encoding byte (only in kinds 3 and 4), the fields in
  UTF-8, the data

After the serializers of Phoenix 1.8 and, for kinds 3 and 4, of Supabase Realtime 2.129.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import msgspec
from attrs import field, frozen

from presence_proto.encoded_presence import EncodedDiff
from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.websocket import BinaryMessage, TextMessage

Ref: TypeAlias = str | int | None

# ---------------------------------------------------------------------------------------------- messages


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One Phoenix message, whatever its form. `payload` is JSON, `bytes` or a `UserBroadcast`.

    A struct, not an attrs class: V2 is decoded right into it.
    """

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Any

    def __repr__(self) -> str:
        # Without the payload: that of a join holds the access token.
        return (
            f"Message(join_ref={self.join_ref!r}, ref={self.ref!r}, topic={self.topic!r}, "
            f"event={self.event!r}, payload=<{type(self.payload).__name__}>)"
        )


@frozen
class UserBroadcast:
    """The payload of a `broadcast` that has a binary frame of its own (kinds 3 and 4): JSON, or `bytes`."""

    event: str
    payload: Any
    metadata: Mapping[str, Any] = field(factory=dict, hash=False)


class EncodedFrame(msgspec.Struct, frozen=True):
    """The data of one WebSocket message: text, as UTF-8, or binary."""

    data: bytes
    text: bool

    def __repr__(self) -> str:
        return f"EncodedFrame(data=<{len(self.data)} bytes>, text={self.text})"


# ---------------------------------------------------------------------------------------------- JSON


class _V1FromClient(msgspec.Struct):
    topic: str
    event: str
    payload: Any
    ref: Ref  # Phoenix insists on it, if only as null
    join_ref: Ref = None


class _V1FromServer(msgspec.Struct):
    topic: str
    event: str
    payload: Any
    ref: Ref = None
    join_ref: Ref = None


# Presence is taken as it came.


class _V1State(_V1FromServer):
    payload: msgspec.Raw


class _V1Diff(_V1FromServer):
    payload: EncodedDiff


class _V2State(Message, frozen=True, array_like=True, gc=False):
    payload: msgspec.Raw


class _V2Diff(Message, frozen=True, array_like=True, gc=False):
    payload: EncodedDiff


def _mapping(value: Any) -> dict[Any, Any]:
    """Let any mapping stand for a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON type")


_encoder = msgspec.json.Encoder(enc_hook=_mapping)
_v1_client_decoder = msgspec.json.Decoder(_V1FromClient)
_v1_server_decoder = msgspec.json.Decoder(_V1FromServer)
_any_decoder = msgspec.json.Decoder()
_object_decoder = msgspec.json.Decoder(dict[str, Any])

_FRONT = 200  # characters: the event of most messages stands within, behind two refs and the topic
_STATE, _DIFF = '"presence_state"', '"presence_diff"'

_BYTES = (bytes, bytearray, memoryview)


def encode_payload(payload: Any) -> msgspec.Raw:
    """Check and encode an application's payload now. The result can stand anywhere in a message's payload.

    Raises `LocalProtocolError` unless it is JSON: keys are strings, numbers finite, and there are no `bytes`.
    Any mapping is taken for a dict; enums, dates and what else msgspec encodes for what they become.
    """
    return msgspec.Raw(_dump(payload))


def decode_object(text: str, what: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises `RemoteProtocolError`, which calls it `what`, when there is none."""
    value: dict[str, Any] = _load(_object_decoder, text, what)
    return value


def _dump(payload: Any, envelope: Any = None) -> bytes:
    """Encode `envelope`, which holds `payload`, or `payload` alone."""
    try:
        _require_json(payload)
        return _encoder.encode(payload if envelope is None else envelope)
    except RecursionError:
        raise LocalProtocolError("not JSON: circular, or nested too deeply") from None
    except (TypeError, ValueError) as exc:
        raise LocalProtocolError(f"not JSON: {exc}") from None


def _require_json(value: Any) -> None:
    """Raise `TypeError` or `ValueError` for what msgspec would turn into something else without a word."""
    kind = type(value)
    if kind is str or value is None or kind is int or kind is bool or kind is msgspec.Raw:
        return
    if kind is dict:
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key must be a string, not {type(key).__name__}")
            _require_json(item)
    elif kind is list or kind is tuple:
        for item in value:
            _require_json(item)
    elif kind is float:
        if not math.isfinite(value):
            raise ValueError(f"a number must be finite, not {value}")
    elif kind in _BYTES:
        raise TypeError(f"{kind.__name__} cannot stand inside JSON")
    elif isinstance(value, Mapping):
        _require_json(dict(value))
    else:  # an enum, a date, a struct, … as what it becomes
        _require_json(msgspec.to_builtins(value, builtin_types=_BYTES, enc_hook=_mapping))


def _load(decoder: msgspec.json.Decoder[Any], data: str | bytes, what: str) -> Any:
    try:
        return decoder.decode(data)
    except (RecursionError, ValueError) as exc:  # msgspec's errors and Unicode's
        raise _malformed(exc, what) from None


def _malformed(exc: RecursionError | ValueError, what: str) -> RemoteProtocolError:
    if isinstance(exc, RecursionError):
        return RemoteProtocolError(f"{what} is malformed: nested too deeply")
    fault = str(exc)
    for index, name in enumerate(Message.__struct_fields__):
        fault = fault.replace(f"$[{index}]", name)
    return RemoteProtocolError(f"{what} is malformed: {fault}")


# ---------------------------------------------------------------------------------------------- serializers

# The kinds of binary frames, and the fields of each. A push from a server has no ref.
_PUSH, _REPLY, _BROADCAST, _USER_PUSH, _USER_BROADCAST = range(5)
_FROM_CLIENT = {
    _PUSH: ("join_ref", "ref", "topic", "event"),
    _USER_PUSH: ("join_ref", "ref", "topic", "user_event", "metadata"),
}
_FROM_SERVER = {
    _PUSH: ("join_ref", "topic", "event"),
    _REPLY: ("join_ref", "ref", "topic", "status"),
    _BROADCAST: ("topic", "event"),
    _USER_BROADCAST: ("topic", "user_event", "metadata"),
}
_BINARY, _JSON = b"\0", b"\1"  # the encoding of a user broadcast's data


class _Reader:
    """How a client reads the text of a server, in either form."""

    __slots__ = ()

    _what: ClassVar[str]
    _messages: ClassVar[msgspec.json.Decoder[Any]]
    _states: ClassVar[msgspec.json.Decoder[Any]]
    _diffs: ClassVar[msgspec.json.Decoder[Any]]

    def decode_text(self, text: str) -> Any:
        """As `decode`, of what a server says, but presence stays JSON.

        The payload of nearly every `presence_state` is a `msgspec.Raw`, that of a `presence_diff` an
        `EncodedDiff`. `PresenceMap` takes them, and decodes what it has to; some faults only it finds.
        """
        front = text[:_FRONT]
        try:
            if _DIFF in front:
                message = self._diffs.decode(text)
                if message.event == "presence_diff":
                    return message
            elif _STATE in front:
                message = self._states.decode(text)
                if message.event == "presence_state":
                    return message
        except (RecursionError, ValueError):
            pass  # What is out of the ordinary is decoded whole: so it is said what is wrong, if anything is.
        return _load(self._messages, text, self._what)


class V1Serializer(_Reader):
    """The form of `vsn=1.0.0`: JSON objects, and no binary frames. `server`: which side we are."""

    __slots__ = ("_decoder", "_server")

    vsn = "1.0.0"
    _what, _messages = "a V1 message", _v1_server_decoder
    _states, _diffs = msgspec.json.Decoder(_V1State), msgspec.json.Decoder(_V1Diff)

    def __init__(self, *, server: bool) -> None:
        self._server = server
        self._decoder: msgspec.json.Decoder[Any] = _v1_client_decoder if server else _v1_server_decoder

    def encode(self, message: Message) -> EncodedFrame:
        """The frame of a message. Raises `LocalProtocolError` for what V1 cannot carry, such as `bytes`."""
        _check_names(message)
        payload = message.payload
        if isinstance(payload, UserBroadcast):
            meta = {"meta": payload.metadata} if payload.metadata else {}
            payload = {"type": "broadcast", "event": payload.event, "payload": payload.payload, **meta}
        value = {"topic": message.topic, "event": message.event, "payload": payload, "ref": message.ref}
        if message.join_ref is not None and not self._server:
            value["join_ref"] = message.join_ref
        return EncodedFrame(_dump(payload, value), True)

    def decode(self, frame: TextMessage | BinaryMessage) -> Message:
        """The message in a frame. Raises `RemoteProtocolError` when it is malformed, and nothing else."""
        if isinstance(frame, BinaryMessage):
            raise RemoteProtocolError("V1 has no binary frames")
        return _message(_load(self._decoder, frame.data, self._what))

    def decode_text(self, text: str) -> Message:
        """As `decode`, of what a server says, but presence stays JSON; see `V2Serializer.decode_text`."""
        return _message(super().decode_text(text))


class V2Serializer(_Reader):
    """The form of `vsn=2.0.0`: JSON arrays, and binary frames. `server`: which side we are."""

    __slots__ = ("_reads", "_server", "_writes")

    vsn = "2.0.0"
    _what, _messages = "a V2 message", msgspec.json.Decoder(Message)
    _states, _diffs = msgspec.json.Decoder(_V2State), msgspec.json.Decoder(_V2Diff)

    def __init__(self, *, server: bool) -> None:
        self._server = server
        self._reads, self._writes = (_FROM_CLIENT, _FROM_SERVER) if server else (_FROM_SERVER, _FROM_CLIENT)

    def encode(self, message: Message) -> EncodedFrame:
        """The frame of a message. Raises `LocalProtocolError` for what V2 cannot carry.

        It is binary for `bytes`, for a `UserBroadcast`, and on a server for a `phx_reply` whose payload is
        `{"status": str, "response": bytes}`. The fields of a binary frame have at most 255 bytes each, and a
        server's has no ref unless it is a reply.
        """
        _check_names(message)
        payload = message.payload
        if isinstance(payload, bytes):
            # To a server there are only pushes. From one, what belongs to no join is a broadcast.
            kind = _BROADCAST if self._server and message.join_ref is None else _PUSH
            return self._pack(kind, message, payload)
        if isinstance(payload, UserBroadcast):
            return self._pack_user_broadcast(message, payload)
        if self._server and message.event == "phx_reply" and _is_binary_reply(payload):
            return self._pack(_REPLY, message, payload["response"], status=payload["status"])
        return EncodedFrame(_dump(payload, message), True)

    def decode(self, frame: TextMessage | BinaryMessage) -> Message:
        """The message in a frame. Raises `RemoteProtocolError` when it is malformed, and nothing else."""
        if isinstance(frame, BinaryMessage):
            return self._unpack(frame.data)
        # Elements after the fifth are passed over, as they are by Phoenix.
        message: Message = _load(self._messages, frame.data, self._what)
        return message

    # -- binary

    def _pack_user_broadcast(self, message: Message, broadcast: UserBroadcast) -> EncodedFrame:
        if message.event != "broadcast":
            raise LocalProtocolError(f"a UserBroadcast has the event 'broadcast', not {message.event!r}")
        payload, metadata = broadcast.payload, broadcast.metadata
        is_bytes = isinstance(payload, bytes)
        return self._pack(
            _USER_BROADCAST if self._server else _USER_PUSH,
            message,
            payload if is_bytes else _dump(payload),
            encoding=_BINARY if is_bytes else _JSON,
            user_event=broadcast.event,
            metadata=_dump(metadata).decode() if metadata else "",
        )

    def _pack(
        self, kind: int, message: Message, data: bytes, *, encoding: bytes = b"", **more: str
    ) -> EncodedFrame:
        names = self._writes[kind]
        values = {"join_ref": message.join_ref, "ref": message.ref, "topic": message.topic}
        for name in ("join_ref", "ref"):
            if name not in names and values[name] is not None:
                raise LocalProtocolError(f"a binary frame of kind {kind} carries no {name}")
        values |= {"event": message.event, **more}
        lengths, strings = bytearray(), bytearray()
        for name in names:
            value = values[name]
            try:
                string = b"" if value is None else str(value).encode()
            except UnicodeEncodeError:
                raise LocalProtocolError(f"the {name} has a lone surrogate, which is not UTF-8") from None
            if len(string) > 255:
                raise LocalProtocolError(f"the {name} has {len(string)} bytes; binary frames carry 255")
            lengths.append(len(string))
            strings += string
        return EncodedFrame(b"".join((bytes((kind,)), lengths, encoding, strings, data)), False)

    def _unpack(self, data: bytes) -> Message:
        if not data:
            raise RemoteProtocolError("a binary frame is empty")
        kind = data[0]
        names = self._reads.get(kind)
        if names is None:
            side = "client" if self._server else "server"
            raise RemoteProtocolError(f"a binary frame is of kind {kind}, which no {side} sends")
        header = 1 + len(names)
        has_encoding = kind in (_USER_PUSH, _USER_BROADCAST)
        start = header + has_encoding
        if len(data) < start:
            raise RemoteProtocolError(f"a binary frame of kind {kind} ends in its header")
        fields = {}
        for name, length in zip(names, data[1:header], strict=True):
            end = start + length
            if end > len(data):
                raise RemoteProtocolError(f"a binary frame of kind {kind} ends in its {name}")
            try:
                fields[name] = data[start:end].decode()
            except UnicodeDecodeError:
                raise RemoteProtocolError(f"the {name} of a binary frame is not UTF-8") from None
            start = end
        join_ref, ref = fields.get("join_ref") or None, fields.get("ref") or None
        payload: Any = data[start:]
        if has_encoding:
            payload = _user_broadcast(
                fields["user_event"], payload, data[header : header + 1], fields["metadata"]
            )
            return Message(join_ref, ref, fields["topic"], "broadcast", payload)
        if kind == _REPLY:
            payload = {"status": fields["status"], "response": payload}
            return Message(join_ref, ref, fields["topic"], "phx_reply", payload)
        return Message(join_ref, ref, fields["topic"], fields["event"], payload)


def _message(message: _V1FromClient | _V1FromServer) -> Message:
    return Message(message.join_ref, message.ref, message.topic, message.event, message.payload)


Serializer: TypeAlias = V1Serializer | V2Serializer


# They have no state: all connections share them.
_SERIALIZERS: dict[tuple[str, bool], Serializer] = {
    (kind.vsn, server): kind(server=server)
    for kind in (V1Serializer, V2Serializer)
    for server in (False, True)
}


def serializer_for(vsn: str | None, *, server: bool) -> Serializer:
    """The serializer that the `vsn` of a socket's URL names; `None`, for there is none, means V1.

    Raises `RemoteProtocolError` for any other `vsn`.
    """
    vsn = V1Serializer.vsn if vsn is None else vsn
    serializer = _SERIALIZERS.get((vsn, server))
    if serializer is None:
        raise RemoteProtocolError(f"vsn must be '1.0.0' or '2.0.0', not {vsn[:20]!r}")
    return serializer


def _check_names(message: Message) -> None:
    """Raise `LocalProtocolError` unless the topic and the events are strings."""
    if not isinstance(message.topic, str):
        raise LocalProtocolError(f"a topic must be a string, not {type(message.topic).__name__}")
    payload = message.payload
    events = (message.event, payload.event) if isinstance(payload, UserBroadcast) else (message.event,)
    for event in events:
        if not isinstance(event, str):
            raise LocalProtocolError(f"an event must be a string, not {type(event).__name__}")


def _is_binary_reply(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and payload.keys() == {"status", "response"}
        and isinstance(payload["status"], str)
        and isinstance(payload["response"], bytes)
    )


def _user_broadcast(event: str, data: bytes, encoding: bytes, metadata: str) -> UserBroadcast:
    if encoding not in (_BINARY, _JSON):
        raise RemoteProtocolError(f"a binary broadcast has the unknown encoding {encoding[0]}")
    payload = data if encoding == _BINARY else _load(_any_decoder, data, "the payload of a binary broadcast")
    meta = _load(_object_decoder, metadata, "the metadata of a binary broadcast") if metadata else {}
    return UserBroadcast(event, payload, meta)
