"""Messages to and from the forms that Phoenix gives them: V1 (objects), V2 (arrays) and V2's binary frames.

- V1 text: `{"topic", "event", "payload", "ref"}`, and `"join_ref"` from clients
- V2 text: `[join_ref, ref, topic, event, payload]`
- V2 binary: the kind, one length byte for each field, an encoding byte (only in kinds 3 and 4), the fields in
  UTF-8, the data

After the serializers of Phoenix 1.8 and, for kinds 3 and 4, of Supabase Realtime 2.129.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec
from attrs import field, frozen
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

if TYPE_CHECKING:
    from collections.abc import Mapping


# ---------------------------------------------------------------------------------------------- encoded users
# A presence diff as nearly all are in a Jarvis room, decoded in one pass to what a roster keeps.
#
# A typed pass over the whole message costs about what it costs to cut it into entries, and nothing of it is
# decoded again. A diff that does not fit (fields that we do not know, several metas of one
# user, odd types) is no `UserDiff`, and takes the general way.


class UserMeta(Struct, gc=False, forbid_unknown_fields=True):
    """The meta of one device, as the Jarvis client tracks it. A `user_id` is not believed: the key counts."""

    phx_ref: str
    user_id: str = ""
    display_name: str = ""
    status: UserStatus = UserStatus.ONLINE
    activity: str | None = None
    online_at: str | None = None
    phx_ref_prev: str | UnsetType = UNSET


class UserEntry(Struct, gc=False, forbid_unknown_fields=True):
    """Who joins or leaves."""

    metas: tuple[UserMeta]


class HeldEntry(Struct, gc=False):
    """Who is there, with as many devices as there are."""

    metas: list[MetaRef]


class UserDiff(Struct, gc=False, forbid_unknown_fields=True):
    """The payload of such a `presence_diff`."""

    joins: dict[str, UserEntry]
    leaves: dict[str, UserEntry]  # whole: what is passed over would have to be looked through for its depth


_decode_held = Decoder(dict[str, HeldEntry]).decode


def held_refs(state: Raw) -> Mapping[str, HeldEntry] | None:
    """The refs of a state by key, all else passed over. `None` when it does not fit."""
    try:
        return _decode_held(state)
    except (RecursionError, *DECODE_ERRORS):
        return None


# ------------------------------------------------------------------------------------------------- serializer


Ref: TypeAlias = str | int | None

# ---------------------------------------------------------------------------------------------- messages


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One Phoenix message, whatever its form. `payload` is JSON, `bytes` or a `UserBroadcast`.

    A struct, not an attrs class: V2 is decoded right into it, if its payload is `Shallow`.
    """

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Shallow

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


class _V1FromClient(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    event: str
    payload: Shallow
    ref: Ref  # Phoenix insists on it, if only as null
    join_ref: Ref = None


class _V1FromServer(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    event: str
    payload: Shallow
    ref: Ref = None
    join_ref: Ref = None


# Presence is taken as it came.


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

_FRONT = 200  # characters: the event of most messages stands within, behind two refs and the topic
_STATE, _DIFF = '"presence_state"', '"presence_diff"'


def _checked(what: str, values: Mapping[str, Any]) -> Message:
    """A message of these fields. Raises `RemoteProtocolError` unless they have the right types."""
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

    __slots__ = ("_max_nesting", "_server")

    _what: ClassVar[str]
    _states: ClassVar[msgspec.json.Decoder[Any]]
    _diffs: ClassVar[msgspec.json.Decoder[Any]]
    user_diffs: ClassVar[msgspec.json.Decoder[Any]]  # of a `presence_diff` whose payload is a `UserDiff`

    def decode_text(self, text: str) -> Any:
        """As `decode`, of what a server says, but presence stays JSON.

        The payload of nearly every `presence_state` is a `msgspec.Raw`, that of a `presence_diff` an
        `EncodedDiff`. `PresenceMap` takes them, and decodes what it has to; some faults only it finds, also
        that they nest too deeply.
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
            # Any other message is decoded whole, which finds what is wrong with it, if anything is. (msgspec
            # runs out of stack when it skips JSON that nests far deeper than `max_nesting`. Where exactly is
            # of no account: `_read` counts levels, and so does `PresenceMap` in what was skipped.)
            pass
        return self._read(text)

    if TYPE_CHECKING:

        def _read(self, text: str) -> Any:
            """The message in a text."""


class V1Serializer(_Reader):
    """The form of `vsn=1.0.0`: JSON objects, and no binary frames.

    `server`: which side we are. `max_nesting`: levels of a message that is decoded.
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
        """The frame of a message. Raises `LocalProtocolError` for what V1 cannot carry, such as `bytes`."""
        _check_names(message)
        payload = message.payload
        if isinstance(payload.payload if isinstance(payload, UserBroadcast) else payload, bytes):
            raise LocalProtocolError("V1 has no binary frames: a payload of bytes needs vsn 2.0.0")
        if isinstance(payload, UserBroadcast):
            meta = {"meta": payload.metadata} if payload.metadata else {}
            payload = {"type": "broadcast", "event": payload.event, "payload": payload.payload, **meta}
        payload = plain(payload)
        value = {"topic": message.topic, "event": message.event, "payload": payload, "ref": message.ref}
        if message.join_ref is not None and not self._server:
            value["join_ref"] = message.join_ref
        return EncodedFrame(encode(value), True)

    def decode(self, frame: TextMessage | BinaryMessage) -> Message:
        """The message in a frame. Raises `RemoteProtocolError` when it is malformed, and nothing else."""
        if isinstance(frame, BinaryMessage):
            raise RemoteProtocolError("V1 has no binary frames")
        return _message(self._read(frame.data))

    def decode_text(self, text: str) -> Message:
        """As `decode`, of what a server says, but presence stays JSON; see `V2Serializer.decode_text`."""
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
    """The form of `vsn=2.0.0`: JSON arrays, and binary frames.

    `server`: which side we are. `max_nesting`: levels of a message that is decoded.
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
        """The frame of a message. Raises `LocalProtocolError` for what V2 cannot carry.

        It is binary for `bytes`, for a `UserBroadcast`, and on a server for a `phx_reply` whose payload is
        `{"status": str, "response": bytes}`. The fields of a binary frame have at most 255 bytes each, and a
        server's has no ref unless it is a reply.
        """
        payload = message.payload
        if type(payload) is Raw and type(message.topic) is type(message.event) is str:
            return EncodedFrame(encode(message), True)  # JSON already, as nearly every payload is
        _check_names(message)
        if isinstance(payload, bytes):
            # To a server there are only pushes. From one, what belongs to no join is a broadcast.
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
        """The message in a frame. Raises `RemoteProtocolError` when it is malformed, and nothing else."""
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
        # Elements after the fifth are passed over, as they are by Phoenix.
        return _checked(self._what, dict(zip(Message.__struct_fields__, value, strict=False)))

    # -- binary

    def _pack_user_broadcast(self, message: Message, broadcast: UserBroadcast) -> EncodedFrame:
        if message.event != "broadcast":
            raise LocalProtocolError(f"a UserBroadcast has the event 'broadcast', not {message.event!r}")
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
    """Decodes the texts of one room: `presence_diff` payloads into a `UserDiff`, until one does not fit.

    Then the next `GENERAL` messages are decoded the general way first. So a room whose metas have fields of
    their own is not decoded twice for each message.
    """

    GENERAL: ClassVar[int] = 200

    __slots__ = ("_decode_users", "_general", "_is_v2", "_serializer")

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        self._decode_users = serializer.user_diffs.decode
        self._is_v2 = isinstance(serializer, V2Serializer)
        self._general = 0  # messages that are still decoded the general way

    def decode(self, text: str) -> Message:
        """The message in a text. Raises `RemoteProtocolError` when it is malformed, and nothing else."""
        if self._general:
            self._general -= 1
            return self._serializer.decode_text(text)
        if _DIFF in text[:_FRONT]:
            try:
                users: Message = self._decode_users(text)
            except (RecursionError, *DECODE_ERRORS):
                pass  # the general way finds what is wrong with it, if anything is
            else:
                if users.event == "presence_diff":
                    return users if self._is_v2 else _message(users)
            message = self._serializer.decode_text(text)
            if message.event == "presence_diff":
                self._general = self.GENERAL
            return message
        return self._serializer.decode_text(text)


_FORMS: dict[str, type[Serializer]] = {form.vsn: form for form in (V1Serializer, V2Serializer)}


# They have no state: all connections share them.
_shared: dict[tuple[str, bool, int], Serializer] = {}


def serializer_for(vsn: str | None, *, server: bool, max_nesting: int = DEFAULT_NESTING) -> Serializer:
    """The serializer that the `vsn` of a socket's URL names; `None`, for there is none, means V1.

    Raises `RemoteProtocolError` for any other `vsn`.
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
    """Whether a binary frame of a client is a user broadcast of JSON."""
    encoding = 1 + len(_FROM_CLIENT[_USER_PUSH])
    return data[:1] == bytes((_USER_PUSH,)) and data[encoding : encoding + 1] == _JSON


def _is_binary_reply(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and payload.keys() == {"status", "response"}
        and isinstance(payload["status"], str)
        and isinstance(payload["response"], bytes)
    )
