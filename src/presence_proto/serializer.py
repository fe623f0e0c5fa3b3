"""The serializers, which convert Phoenix messages to frames and frames to messages.

- V1 text: `{"topic", "event", "payload", "ref"}`, and `"join_ref"` in messages from clients
- V2 text: `[join_ref, ref, topic, event, payload]`
- V2 binary: a kind byte, one length byte for each field, an encoding byte (only in kinds 3 and 4), the fields
  in UTF-8, the data

The formats are those of the serializers of Phoenix 1.8 and, for kinds 3 and 4, Supabase Realtime 2.129.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder

from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.events import UserStatus
from presence_proto.json_text import (
    DECODE_ERRORS,
    DEFAULT_NESTING,
    Shallow,
    decode,
    decode_object,
    encode,
    encode_payload,
    kind_of,
    plain,
)
from presence_proto.presence import EncodedDiff, MetaRef
from presence_proto.websocket import BinaryMessage, TextMessage

# ---------------------------------------------------------------------------------------------- encoded users
# Types that decode the usual presence diff of a Jarvis room in one pass, for a `Roster`.
#
# Decoding the whole message to these types takes about as long as splitting the message into entries, and no
# entry needs to be decoded again. Some diffs do not fit these types, because such diffs have unknown fields,
# several metas of one user, or values of other types. The general decoder reads such diffs.


class UserMeta(Struct, gc=False, forbid_unknown_fields=True):
    """The meta of one device, as tracked by a Jarvis client.

    The field `user_id` is ignored: a client can send any value. The presence key identifies the user.
    """

    phx_ref: str
    user_id: str = ""
    display_name: str = ""
    status: UserStatus = UserStatus.ONLINE
    activity: str | None = None
    online_at: str | None = None
    phx_ref_prev: str | UnsetType = UNSET


class UserEntry(Struct, gc=False, forbid_unknown_fields=True):
    """The entry, with one meta, of a user who joins or leaves."""

    metas: tuple[UserMeta]


class HeldEntry(Struct, gc=False):
    """The entry of a user in a presence state, of which only the refs of the metas are decoded."""

    metas: list[MetaRef]


class UserDiff(Struct, gc=False, forbid_unknown_fields=True):
    """The payload of a usual `presence_diff`, in which each entry has one meta with known fields only."""

    joins: dict[str, UserEntry]
    leaves: dict[str, UserEntry]  # not only refs: skipped JSON would need a separate nesting check


_decode_held = Decoder(dict[str, HeldEntry]).decode


def held_refs(state: Raw) -> Mapping[str, HeldEntry] | None:
    """Return the entries of a state by key, with only the refs decoded, or `None` for an unusual state."""
    try:
        return _decode_held(state)
    except (RecursionError, *DECODE_ERRORS):
        return None


# ------------------------------------------------------------------------------------------------- serializer


Ref: TypeAlias = str | int | None

# ---------------------------------------------------------------------------------------------- messages


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One Phoenix message, in V1 or V2. `payload` is JSON, `bytes` or a `UserBroadcast`.

    `Message` is a struct because msgspec decodes V2 messages with a `Shallow` payload directly to structs.
    """

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Shallow

    def __repr__(self) -> str:
        # The repr omits the payload: the payload of a join contains the access token.
        return (
            f"Message(join_ref={self.join_ref!r}, ref={self.ref!r}, topic={self.topic!r}, "
            f"event={self.event!r}, payload=<{type(self.payload).__name__}>)"
        )


class UserBroadcast(Struct, frozen=True):
    """The payload of a `broadcast` in a binary frame of kind 3 or 4. `payload` is JSON or `bytes`."""

    event: str
    payload: Any
    metadata: Mapping[str, Any] = {}

    def __hash__(self) -> int:
        return (self.event, self.payload).__hash__()


class SupabasePush(msgspec.Struct, frozen=True):
    """The payload of a `broadcast` or `presence` push to Supabase, around an encoded JSON payload."""

    type: str
    event: str
    payload: Raw

    def __repr__(self) -> str:
        # The repr omits the payload: the payload may contain a secret.
        return f"SupabasePush(type={self.type!r}, event={self.event!r}, payload=<JSON>)"


class EncodedFrame(msgspec.Struct, frozen=True):
    """The data of one WebSocket message, which is UTF-8 if `text` is true, and binary otherwise."""

    data: bytes
    text: bool

    def __repr__(self) -> str:
        return f"EncodedFrame(data=<{len(self.data)} bytes>, text={self.text})"


_ENCODED = (Raw, SupabasePush)  # the types of payloads that need no check


# ---------------------------------------------------------------------------------------------- JSON


class _V1FromClient(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    event: str
    payload: Shallow
    ref: Ref  # Phoenix requires `ref`, which may be null
    join_ref: Ref = None


class _V1FromServer(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    event: str
    payload: Shallow
    ref: Ref = None
    join_ref: Ref = None


# Presence payloads are undecoded JSON, or a `UserDiff`.


class _V1State(_V1FromServer):
    payload: msgspec.Raw


class _V1Diff(_V1FromServer):
    payload: EncodedDiff


class _V1Users(_V1FromServer):
    payload: UserDiff


class _V2State(Message, frozen=True, array_like=True, gc=False):
    payload: msgspec.Raw


class _V2Diff(Message, frozen=True, array_like=True, gc=False):
    payload: EncodedDiff


class _V2Users(Message, frozen=True, array_like=True, gc=False):
    payload: UserDiff


_v1_client_decoder = msgspec.json.Decoder(_V1FromClient)
_v1_server_decoder = msgspec.json.Decoder(_V1FromServer)

_FRONT = 200  # characters; the first part of a text, which has the event of most messages
_STATE, _DIFF = '"presence_state"', '"presence_diff"'


def _checked(what: str, values: Mapping[str, Any]) -> Message:
    """Return a message with the fields `values`. Raises `RemoteProtocolError` for a value of a wrong type."""
    for name in ("topic", "event"):
        if not isinstance(values[name], str):
            raise RemoteProtocolError(
                f"{what} is malformed: the {name} must be a string, not {kind_of(values[name])}"
            )
    for name in ("join_ref", "ref"):
        ref = values[name]
        if ref is not None and (not isinstance(ref, (str, int)) or isinstance(ref, bool)):
            kind = "a fraction" if isinstance(ref, float) else kind_of(ref)
            raise RemoteProtocolError(
                f"{what} is malformed: the {name} must be a string, an integer or null, not {kind}"
            )
    return Message(*(values[name] for name in Message.__struct_fields__))


# ---------------------------------------------------------------------------------------------- serializers

# The kinds of binary frames, and the fields of each kind. A push from a server has no ref.
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
    """Base class of the serializers, which decodes the text messages of a server."""

    __slots__ = ("_max_nesting", "_server")

    _what: ClassVar[str]
    _states: ClassVar[msgspec.json.Decoder[Any]]
    _diffs: ClassVar[msgspec.json.Decoder[Any]]
    user_diffs: ClassVar[msgspec.json.Decoder[Any]]  # for a `presence_diff` whose payload is a `UserDiff`

    def decode_text(self, text: str) -> Any:
        """Decode a text message of a server like `decode`, but keep presence as JSON.

        The payload of nearly every `presence_state` is a `msgspec.Raw`, and the payload of nearly every
        `presence_diff` is an `EncodedDiff`. `PresenceMap` accepts both types, and decodes only the necessary
        parts. Only `PresenceMap` finds some faults in these payloads, such as too many nesting levels.
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
        except (RecursionError, *DECODE_ERRORS):
            # `_read` decodes the message in full, and reports a fault. (`RecursionError`: msgspec runs out of
            # stack when msgspec skips JSON that nests far deeper than `max_nesting`. The exact depth does not
            # matter: `_read` counts levels, and `PresenceMap` counts the levels of skipped JSON.)
            pass
        return self._read(text)

    if TYPE_CHECKING:

        def _read(self, text: str) -> Any:
            """Decode a text message completely."""


class V1Serializer(_Reader):
    """The serializer of `vsn=1.0.0`, which uses JSON objects, and no binary frames.

    `server` is true on the server. `max_nesting` is the maximum nesting of a decoded message, in levels.
    """

    __slots__ = ("_messages", "_required")

    vsn = "1.0.0"
    _what = "a V1 message"
    _states, _diffs = msgspec.json.Decoder(_V1State), msgspec.json.Decoder(_V1Diff)
    user_diffs = msgspec.json.Decoder(_V1Users)

    def __init__(self, *, server: bool, max_nesting: int = DEFAULT_NESTING) -> None:
        self._server = server
        self._max_nesting = max_nesting
        self._messages: msgspec.json.Decoder[Any] = _v1_client_decoder if server else _v1_server_decoder
        self._required = ("topic", "event", "payload", "ref") if server else ("topic", "event", "payload")

    def encode(self, message: Message) -> EncodedFrame:
        """Return the frame of a message.

        Raises `LocalProtocolError` if V1 cannot carry the message, for example a payload of `bytes`.
        """
        _check_names(message)
        payload = message.payload
        if isinstance(payload.payload if isinstance(payload, UserBroadcast) else payload, bytes):
            raise LocalProtocolError("V1 has no binary frames: a payload of bytes needs vsn 2.0.0")
        if isinstance(payload, UserBroadcast):
            meta = {"meta": payload.metadata} if payload.metadata else {}
            payload = {"type": "broadcast", "event": payload.event, "payload": payload.payload, **meta}
        payload = payload if type(payload) in _ENCODED else plain(payload)
        value = {"topic": message.topic, "event": message.event, "payload": payload, "ref": message.ref}
        if message.join_ref is not None and not self._server:
            value["join_ref"] = message.join_ref
        return EncodedFrame(encode(value), True)

    def decode(self, frame: TextMessage | BinaryMessage) -> Message:
        """Return the message in a frame. Raises only `RemoteProtocolError`, for a malformed frame."""
        if isinstance(frame, BinaryMessage):
            raise RemoteProtocolError("V1 has no binary frames")
        return _message(self._read(frame.data))

    def decode_text(self, text: str) -> Message:
        """Decode a text message of a server, but keep presence as JSON, like `V2Serializer.decode_text`."""
        return _message(super().decode_text(text))

    def _read(self, text: str) -> Any:
        try:
            return self._messages.decode(text)
        except DECODE_ERRORS:
            pass
        value = decode_object(text, self._what, self._max_nesting)
        for name in self._required:
            if name not in value:
                raise RemoteProtocolError(f"{self._what} is malformed: it has no {name}")
        return _checked(self._what, {"join_ref": None, "ref": None, **value})


class V2Serializer(_Reader):
    """The serializer of `vsn=2.0.0`, which uses JSON arrays, and binary frames.

    `server` is true on the server. `max_nesting` is the maximum nesting of a decoded message, in levels.
    """

    __slots__ = ("_reads", "_writes")

    vsn = "2.0.0"
    _what, _messages = "a V2 message", msgspec.json.Decoder(Message)
    _states, _diffs = msgspec.json.Decoder(_V2State), msgspec.json.Decoder(_V2Diff)
    user_diffs = msgspec.json.Decoder(_V2Users)

    def __init__(self, *, server: bool, max_nesting: int = DEFAULT_NESTING) -> None:
        self._server = server
        self._max_nesting = max_nesting
        self._reads, self._writes = (_FROM_CLIENT, _FROM_SERVER) if server else (_FROM_SERVER, _FROM_CLIENT)

    def encode(self, message: Message) -> EncodedFrame:
        """Return the frame of a message. Raises `LocalProtocolError` if V2 cannot carry the message.

        The frame is binary if the payload is `bytes` or a `UserBroadcast`. On a server, the frame is also
        binary for a `phx_reply` whose payload is `{"status": str, "response": bytes}`. Each field of a binary
        frame has at most 255 bytes. A binary frame of a server has a ref only if the frame is a reply.
        """
        payload = message.payload
        if type(payload) in _ENCODED and type(message.topic) is type(message.event) is str:
            return EncodedFrame(encode(message), True)  # fast path: nearly every payload is encoded JSON
        _check_names(message)
        if isinstance(payload, bytes):
            # A client sends only pushes. A message from a server without a join_ref is a broadcast.
            kind = _BROADCAST if self._server and message.join_ref is None else _PUSH
            return self._pack(kind, message, payload)
        if isinstance(payload, UserBroadcast):
            return self._pack_user_broadcast(message, payload)
        if self._server and message.event == "phx_reply" and _is_binary_reply(payload):
            return self._pack(_REPLY, message, payload["response"], status=payload["status"])
        same = plain(payload)
        if same is not payload:
            message = msgspec.structs.replace(message, payload=same)
        return EncodedFrame(encode(message), True)

    def decode(self, frame: TextMessage | BinaryMessage) -> Message:
        """Return the message in a frame. Raises only `RemoteProtocolError`, for a malformed frame."""
        if isinstance(frame, BinaryMessage):
            return self._unpack(frame.data)
        return self._read(frame.data)

    def _read(self, text: str) -> Message:
        try:
            return self._messages.decode(text)
        except DECODE_ERRORS:
            pass
        value = decode(text, self._what, self._max_nesting)
        if not isinstance(value, list):
            raise RemoteProtocolError(f"{self._what} is malformed: it must be an array, not {kind_of(value)}")
        if len(value) < 5:
            raise RemoteProtocolError(f"{self._what} is malformed: it must have 5 elements, not {len(value)}")
        # Like Phoenix, ignore elements after the fifth.
        return _checked(self._what, dict(zip(Message.__struct_fields__, value, strict=False)))

    # -- binary

    def _pack_user_broadcast(self, message: Message, broadcast: UserBroadcast) -> EncodedFrame:
        if message.event != "broadcast":
            raise LocalProtocolError(
                f"a UserBroadcast must have the event 'broadcast', not {message.event!r}"
            )
        payload, metadata = broadcast.payload, broadcast.metadata
        is_bytes = isinstance(payload, bytes)
        return self._pack(
            _USER_BROADCAST if self._server else _USER_PUSH,
            message,
            payload if is_bytes else bytes(encode_payload(payload)),
            encoding=_BINARY if is_bytes else _JSON,
            user_event=broadcast.event,
            metadata=bytes(encode_payload(metadata)).decode() if metadata else "",
        )

    def _pack(
        self, kind: int, message: Message, data: bytes, *, encoding: bytes = b"", **more: str
    ) -> EncodedFrame:
        names = self._writes[kind]
        values = {"join_ref": message.join_ref, "ref": message.ref, "topic": message.topic}
        for name in ("join_ref", "ref"):
            if name not in names and values[name] is not None:
                raise LocalProtocolError(f"a binary frame of kind {kind} cannot carry a {name}")
        values |= {"event": message.event, **more}
        lengths, strings = bytearray(), bytearray()
        for name in names:
            value = values[name]
            try:
                string = b"" if value is None else str(value).encode()
            except UnicodeEncodeError:
                raise LocalProtocolError(f"the {name} has a lone surrogate, which is not UTF-8") from None
            if len(string) > 255:
                raise LocalProtocolError(f"the {name} has {len(string)} bytes; binary frames allow 255")
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
            payload = self._user_broadcast(
                fields["user_event"], payload, data[header : header + 1], fields["metadata"]
            )
            return Message(join_ref, ref, fields["topic"], "broadcast", payload)
        if kind == _REPLY:
            payload = {"status": fields["status"], "response": payload}
            return Message(join_ref, ref, fields["topic"], "phx_reply", payload)
        return Message(join_ref, ref, fields["topic"], fields["event"], payload)

    def _user_broadcast(self, event: str, data: bytes, encoding: bytes, metadata: str) -> UserBroadcast:
        if encoding not in (_BINARY, _JSON):
            raise RemoteProtocolError(f"a binary broadcast has the unknown encoding {encoding[0]}")
        payload, meta = data, {}
        if encoding == _JSON:
            payload = decode(data, "the payload of a binary broadcast", self._max_nesting)
        if metadata:
            meta = decode_object(metadata, "the metadata of a binary broadcast", self._max_nesting)
        return UserBroadcast(event, payload, meta)


def _message(message: _V1FromClient | _V1FromServer | Message) -> Message:
    return Message(message.join_ref, message.ref, message.topic, message.event, message.payload)


Serializer: TypeAlias = V1Serializer | V2Serializer


class UserReader:
    """Decoder for the text messages of one room, which decodes a `presence_diff` payload to a `UserDiff`.

    When a diff is not a `UserDiff`, the next `GENERAL` messages go directly to the general decoder. Without
    this rule, each diff would be decoded twice in a room whose metas have additional fields.
    """

    GENERAL: ClassVar[int] = 200

    __slots__ = ("_decode_users", "_general", "_is_v2", "_serializer")

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        self._decode_users = serializer.user_diffs.decode
        self._is_v2 = isinstance(serializer, V2Serializer)
        self._general = 0  # number of the next messages that go to the general decoder

    def decode(self, text: str) -> Message:
        """Return the message in `text`. Raises only `RemoteProtocolError`, for a malformed message."""
        if self._general:
            self._general -= 1
            return self._serializer.decode_text(text)
        if _DIFF in text[:_FRONT]:
            try:
                users: Message = self._decode_users(text)
            except (RecursionError, *DECODE_ERRORS):
                pass  # the general decoder reports a fault of the message
            else:
                if users.event == "presence_diff":
                    return users if self._is_v2 else _message(users)
            message = self._serializer.decode_text(text)
            if message.event == "presence_diff":
                self._general = self.GENERAL
            return message
        return self._serializer.decode_text(text)


_FORMS: dict[str, type[Serializer]] = {form.vsn: form for form in (V1Serializer, V2Serializer)}


# Serializers have no state, so all connections share the serializers.
_shared: dict[tuple[str, bool, int], Serializer] = {}


def serializer_for(vsn: str | None, *, server: bool, max_nesting: int = DEFAULT_NESTING) -> Serializer:
    """Return the serializer for the `vsn` parameter of a socket URL. `None` (no parameter) means V1.

    Raises `RemoteProtocolError` for an unknown `vsn`.
    """
    vsn = V1Serializer.vsn if vsn is None else vsn
    if vsn not in _FORMS:
        raise RemoteProtocolError(f"vsn must be '1.0.0' or '2.0.0', not {vsn[:20]!r}")
    key = (vsn, server, max_nesting)
    if key not in _shared:
        _shared[key] = _FORMS[vsn](server=server, max_nesting=max_nesting)
    return _shared[key]


def _check_names(message: Message) -> None:
    """Raise `LocalProtocolError` unless the topic and the events are strings."""
    if not isinstance(message.topic, str):
        raise LocalProtocolError(f"a topic must be a string, not {type(message.topic).__name__}")
    payload = message.payload
    events = (message.event, payload.event) if isinstance(payload, UserBroadcast) else (message.event,)
    for event in events:
        if not isinstance(event, str):
            raise LocalProtocolError(f"an event must be a string, not {type(event).__name__}")


def is_json_broadcast(data: bytes) -> bool:
    """Whether a binary frame of a client is a user broadcast with a JSON payload."""
    encoding = 1 + len(_FROM_CLIENT[_USER_PUSH])
    return data[:1] == bytes((_USER_PUSH,)) and data[encoding : encoding + 1] == _JSON


def _is_binary_reply(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and payload.keys() == {"status", "response"}
        and isinstance(payload["status"], str)
        and isinstance(payload["response"], bytes)
    )
