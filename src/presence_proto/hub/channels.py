"""A Supabase Realtime channel, `realtime:…`: presence, broadcasts and tokens as its server has them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar
from zlib import crc32

from msgspec import Raw

from presence_proto.authorization import Allow, JoinRequest
from presence_proto.errors import LocalProtocolError
from presence_proto.events import TopicJoined, TopicLeft
from presence_proto.hub.limits import (
    TOO_FAST,
    TOO_MANY_JOINS,
    TOO_MANY_MESSAGES,
    Bucket,
    MetaTooLargeError,
    NoRoomError,
)
from presence_proto.hub.topic import (
    JARVIS_TOPIC,
    SUPABASE_PREFIX,
    Diff,
    Meta,
    SharedMessage,
    broadcast_in,
    is_reserved,
    said,
    same_payload,
)
from presence_proto.json_text import encode_payload
from presence_proto.payloads import NAMED_EVENTS
from presence_proto.secrets import hide
from presence_proto.serializer import Message, Ref, UserBroadcast

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.authorization import AuthorizeRule
    from presence_proto.endpoint import ConnId
    from presence_proto.hub.limits import Allowance, Rates
    from presence_proto.hub.topic import Topic, Topics


# ----------------------------------------------------------------------------------------------------- member
# A member of a topic that is a channel of a Phoenix connection: what all such channels have in common.


Answer = TypeVar("Answer")


class JoinRefusedError(Exception):
    """A join is refused. The client is told the `reason`, the hub's user the `detail`, too."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail

    @property
    def is_crash(self) -> bool:
        """Whether a rule failed: the client is not told how, and the hub's user is."""
        return bool(self.detail)


def ask(rule: Callable[..., Answer], *args: Any) -> Answer:
    """Ask a rule of the hub's user. One that fails refuses, as a crash in Phoenix's join does."""
    try:
        return rule(*args)
    except Exception as exc:
        # Only the name of the exception: its text may hold what the client sent, a token for one.
        raise JoinRefusedError("join crashed", f" ({type(exc).__name__} in a rule)") from exc


def authorize(rule: AuthorizeRule | None, request: JoinRequest) -> str | None:
    """The presence key that the client gets. Raises `JoinRefusedError` if it may not join or the rule fails.

    A reason may quote the token: it is left out.
    """
    answer = None if rule is None else ask(rule, request)
    if answer is None:
        return request.key
    if isinstance(answer, Allow):
        return request.key if answer.key is None else answer.key
    if not isinstance(answer, str):
        raise JoinRefusedError("join crashed", f" (the answer of authorize is {answer!r:.100})")
    raise JoinRefusedError(answer if request.token is None else hide(answer, [request.token]))


def join_request(topic: str, token: object, key: str | None) -> JoinRequest:
    """What the rule is asked. `token`: what the client sent for one."""
    return JoinRequest(topic, token if isinstance(token, str) else None, key)


def reply_to(message: Message, join_ref: Ref, status: str, response: Any) -> Message:
    """The reply to a message."""
    payload: Any = {"status": status, "response": response}
    if payload == _PLAIN_OK:
        payload = _ENCODED_OK
    return Message(join_ref, message.ref, message.topic, "phx_reply", payload)


# The reply to heartbeats and to most pushes. Encoding it anew took a sixth of the hub's work for a heartbeat.
_PLAIN_OK = {"status": "ok", "response": {}}
_ENCODED_OK = Raw(b'{"status":"ok","response":{}}')


class ChannelSocket(Protocol):
    """What a channel needs of its connection."""

    topics: Topics
    token: str | None
    allowance: Allowance
    rates: Rates

    @property
    def conn(self) -> ConnId:
        """The connection."""

    @property
    def presence_limit(self) -> int | None:
        """Presence calls of one channel in 30 s."""

    def send(self, message: Message) -> None:
        """Send a message. Raises `LocalProtocolError` when it cannot be encoded."""

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a message that others get, too."""

    def keep(self, size: int) -> None:
        """Count bytes that the hub keeps for this connection; less than 0 are given back."""

    def freed_by(self, topic: str) -> int:
        """Bytes that the end of the channel of a topic frees."""

    def forget(self, channel: PhoenixMember) -> None:
        """A channel has ended."""


CHANNEL_COST = 256  # bytes; what each channel counts besides its names


class PhoenixMember(ABC):
    """One life of one channel of one connection, from its join to its end.

    `join_ref` is as the client gave it. `ref` is what messages of this life carry, the join's own ref when
    there was no join_ref.
    """

    TOO_MANY: ClassVar[str]
    """The reason of a refusal when the connection has joined `max_channels` channels."""

    TOO_MANY_JOINS: ClassVar[str]
    """The reason of a refusal when the connection joins more often than `join_rate` allows."""

    __slots__ = ("_session", "_topic", "join_ref", "name", "ref")

    _topic: Topic  # from enter() on

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        self._session = session
        self.name = message.topic
        self.join_ref = message.join_ref
        self.ref = message.ref if message.join_ref is None else message.join_ref

    # -- what the kinds of channels do each in their own way

    @property
    @abstractmethod
    def key(self) -> str | None:
        """The presence key."""

    @abstractmethod
    def response(self, message: Message) -> Mapping[str, Any]:
        """What the reply to the join `message` says."""

    @abstractmethod
    def welcome(self, message: Message) -> None:
        """Tell a new member what there is, after the reply to its join `message`."""

    @abstractmethod
    def receive(self, message: Message) -> None:
        """Handle a message of the client, other than join and leave."""

    # -- the life

    @property
    def size(self) -> int:
        """Bytes that the channel counts in the allowances of its connection and of the hub: its names."""
        names = (self.name, str(self.join_ref), str(self.ref), self.key or "")
        return CHANNEL_COST + sum(len(name.encode()) for name in names)

    @property
    def charge(self) -> int:
        """Bytes that its meta counts."""
        tracked = self._topic.tracked(self)
        return 0 if tracked is None else tracked.charge

    def enter(self, message: Message) -> None:
        """The join `message` is answered: become a member."""
        self._session.keep(self.size)
        self._topic = self._session.topics.enter(self.name, self)
        self._session.topics.emit(TopicJoined(self.conn, self.name, self.key))
        self.welcome(message)

    def close(self, reason: str) -> None:
        """End in order, and say so. `reason` is for the hub's user."""
        self._session.send(Message(self.join_ref, self.join_ref, self.name, "phx_close", {}))
        self.leave(reason)

    def leave(self, reason: str) -> None:
        """End without a word."""
        self._session.topics.leave(self._topic, self)
        self._session.keep(-self.size)
        self._session.forget(self)
        self._session.topics.emit(TopicLeft(self.conn, self.name, reason))

    # -- talking to the client

    def reply(self, message: Message, status: str, response: Any) -> None:
        """Answer a message."""
        self._session.send(reply_to(message, self.ref, status, response))

    def push(self, event: str, payload: Any) -> None:
        """Say something to this client only."""
        self._session.send(Message(self.ref, None, self.name, event, payload))

    # -- as a Member of a topic

    @property
    def conn(self) -> ConnId:
        """The connection."""
        return self._session.conn

    def on_broadcast(self, shared: SharedMessage, speaker: str | None) -> None:
        """Pass a message on."""
        self._session.send_shared(shared)

    def on_diff(self, diff: Diff) -> None:
        """Pass a change of the presence on."""
        self._session.send_shared(diff.shared)

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the channel."""
        if crashed:
            payload = {"reason": "channel_crash"}
            self._session.send(Message(self.join_ref, self.join_ref, self.name, "phx_error", payload))
            self.leave(reason)
        else:
            self.close(reason)


# ------------------------------------------------------------------------------------------------------ plain
# A plain Phoenix channel: a room in which members relay any event to each other, with presence by a rule.


class PlainMember(PhoenixMember):
    """A member by `HubConfig.presence_rule`. It changes its meta with `track` and `untrack`."""

    TOO_MANY = "too many channels joined"
    TOO_MANY_JOINS = "too many joins per second"

    __slots__ = ("_key", "_meta")

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        """Raises `JoinRefusedError`."""
        super().__init__(session, message)
        if not isinstance(message.payload, Mapping):
            raise JoinRefusedError("join crashed", " (the payload is not an object)")
        config = session.topics.config
        # The presence rule comes first: it knows the key, and `authorize` is asked about that.
        answer = ask(config.presence_rule, self.name, message.payload)
        key, self._meta = _presence(answer, config.message_nesting)
        # Phoenix gives the connection's token to `connect/3`. The hub has one rule, and asks it at the join.
        token = message.payload.get("access_token", session.token)
        allowed = authorize(config.authorize, join_request(self.name, token, key))
        self._key = None if key is None else allowed
        if self._key is not None:
            self._check_room(self._key)

    @property
    def key(self) -> str | None:
        """The presence key that the rule gave, if any."""
        return self._key

    def response(self, message: Message) -> Mapping[str, Any]:
        """Nothing but ok."""
        return {}

    def welcome(self, message: Message) -> None:
        """The presence as it is without us; then we come."""
        self.push("presence_state", self._topic.state())
        if self._key is not None:
            self._topic.track(self, self._key, self._meta, self._session.allowance)
            self._meta = {}

    def receive(self, message: Message) -> None:
        """Change our meta, or relay."""
        match message.event:
            case "track":
                self._track(message)
            case "untrack":
                self._topic.untrack(self)
                self.reply(message, "ok", {})
            case event if is_reserved(event):
                self.reply(message, "error", {"reason": "reserved event"})
            case event:
                self._relay(message, said(self.name, event, message.payload))

    def _relay(self, message: Message, shared: SharedMessage) -> None:
        if self._session.rates.allow_delivery(self._topic.size, shared.size):
            self._topic.broadcast(shared, speaker=self._key, skip=self)
            self.reply(message, "ok", {})
        else:
            self.reply(message, "error", {"reason": TOO_FAST})

    def _check_room(self, key: str) -> None:
        """Raises `JoinRefusedError` when there is no room for the channel with its meta.

        After the join it would be too late: the client is told that it has joined before it is present.
        """
        session = self._session
        freed = session.freed_by(self.name) - self.size
        try:
            session.topics.check(self.name, key, self._meta, session.allowance, freed=freed)
        except NoRoomError as exc:
            raise JoinRefusedError(str(exc)) from None

    def _track(self, message: Message) -> None:
        if self._key is None:
            self.reply(message, "error", {"reason": "no presence"})
        elif not isinstance(message.payload, Mapping):
            self.reply(message, "error", {"reason": "payload is not an object"})
        else:
            fresh = self._topic.tracked(self) is None
            try:
                tracked = self._topic.track(self, self._key, message.payload, self._session.allowance)
            except NoRoomError as exc:
                self.reply(message, "error", {"reason": str(exc)})
                return
            self.reply(message, "ok", {"ref": tracked.ref} | ({"fresh": True} if fresh else {}))


def _presence(answer: tuple[str, Meta] | None, levels: int) -> tuple[str | None, Meta]:
    """The key and meta from the rule, checked: a wrong one must not come to light after the join.

    `levels`: how deeply the meta may nest.
    """
    if answer is None:
        return None, {}
    try:
        key, meta = answer
        if not isinstance(key, str):
            raise TypeError("the key is no string")
        encode_payload({key: dict(meta)}, levels + 1)
    except (LocalProtocolError, TypeError, ValueError) as exc:
        raise JoinRefusedError("join crashed", " (the presence rule's answer is no key and meta)") from exc
    return key, meta


# --------------------------------------------------------------------------------------------------- supabase


_WINDOW = 30.0  # seconds, in which `presence_limit` presence calls are allowed
_CODE = re.compile(r"[A-Z][A-Za-z]+: ")  # in front of the reason of a refused join, and of that only


class SupabaseMember(PhoenixMember):
    """A member by the config in its join. It is present once it tracks.

    A channel is private when its join says so: then `HubConfig.private_rule` says whether the client may
    write. Supabase's own words are sent as they were recorded, or as they are in its source
    (`realtime_channel.ex`, `presence_handler.ex`).
    """

    TOO_MANY = "ChannelRateLimitReached: Too many channels"
    TOO_MANY_JOINS = TOO_MANY_JOINS

    __slots__ = (
        "_ack",
        "_asked_key",
        "_calls",
        "_echo",
        "_hears_diffs",
        "_is_named",
        "_key",
        "_may_write",
        "_presence",
        "_private",
        "_token",
    )

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        """Raises `JoinRefusedError`."""
        super().__init__(session, message)
        if self.name == SUPABASE_PREFIX:
            raise JoinRefusedError("TopicNameRequired: You must provide a topic name")
        payload = message.payload
        if not isinstance(payload, Mapping):
            raise JoinRefusedError(
                f"UnknownErrorOnChannel: expected params to be a :map, got: `{_inspect(payload)}`"
            )
        config = _object(payload, "config")
        broadcast, presence = _object(config, "broadcast"), _object(config, "presence")
        self._ack = _boolean(broadcast, "ack")
        self._echo = _boolean(broadcast, "self")
        self._presence = _boolean(presence, "enabled")  # whether we are told the state
        self._private = _boolean(config, "private")
        # Diffs come unasked; on a private channel only after a track, which asks for the right to read them.
        self._hears_diffs = self._presence or not self._private
        self._calls = Bucket(_WINDOW)  # of presence calls
        token = payload.get("access_token") or payload.get("user_token")  # the older name
        self._token = _digest(token)  # all that is needed of it later, and short
        key = presence.get("key")
        self._asked_key = key if isinstance(key, str) and key else None
        key = self._authorized(token)
        # With a rule that knows who is who, nobody speaks for somebody else. Supabase looks at no names.
        rule = session.topics.config.authorize
        self._is_named = rule is not None and self.name == JARVIS_TOPIC
        self._may_write = True
        if not self._allow(token):
            raise JoinRefusedError(f"Unauthorized: {self._no_permission}")
        _check_replay(broadcast, private=self._private)
        self._key = session.topics.ids.key() if key is None else key

    @property
    def key(self) -> str:
        """The presence key that the client asked for, that the rule gave, or that is made up."""
        return self._key

    @property
    def size(self) -> int:
        """Bytes that the channel counts: its names, and the key that the client asked for in vain."""
        asked = self._asked_key or self._key
        return super().size + (0 if asked == self._key else len(asked.encode()))

    def response(self, message: Message) -> Mapping[str, Any]:
        """The asked for `postgres_changes`, each with an id."""
        changes = _postgres_changes(message)
        return {"postgres_changes": [{"id": _id_of(change)} | change for change in changes]}

    def enter(self, message: Message) -> None:
        """The join `message` is answered: become a member."""
        # An earlier life of the channel may have left just now: Supabase does not tell the new one of it.
        self._session.topics.settle()
        super().enter(message)

    def welcome(self, message: Message) -> None:
        """The presence, if it is enabled. There is no database, but what would come of it is confirmed."""
        if _boolean(_object(_object(message.payload, "config"), "broadcast"), "replication_ready"):
            self._system("ok", "Replication connection established")
        if self._presence:
            self.push("presence_state", self._topic.state())
        if _postgres_changes(message):
            self._system("ok", "Subscribed to PostgreSQL", "postgres_changes")

    def receive(self, message: Message) -> None:
        """Handle a presence call, a broadcast or a new token. Supabase does not answer anything else."""
        match message.event:
            case "presence":
                self._on_presence(message)
            case "broadcast":
                self._on_broadcast(message)
            case "access_token":
                self._on_token(message)

    def on_diff(self, diff: Diff) -> None:
        """Pass a change of the presence on."""
        if self._hears_diffs:
            self._session.send_shared(diff.shared)  # as all do; not by `super()`, for each receiver

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the channel. Supabase tells why before it closes one."""
        if not crashed:
            self._system("error", reason)
        super().stop(reason, crashed=crashed)

    # -- broadcasts

    def _on_broadcast(self, message: Message) -> None:
        if not self._may_write:
            return  # in silence, also when an ack was asked for
        payload = message.payload
        if isinstance(payload, UserBroadcast):
            # Metadata is the server's word to receivers: what a client says there goes no further.
            payload = UserBroadcast(payload.event, payload.payload)
        if self._is_named and self._names_another(payload):
            if self._ack:
                self.reply(message, "error", {"reason": "user_id is not the presence key of the sender"})
            return
        shared = said(self.name, "broadcast", payload)
        if shared.size > self._session.topics.config.max_payload_size:
            if self._ack:
                self.reply(message, "error", "payload_size_exceeded")
            return
        if not self._session.rates.allow_delivery(self._topic.size, shared.size):
            self.stop(TOO_MANY_MESSAGES, crashed=False)
            return
        self._topic.broadcast(shared, speaker=self._key, skip=None if self._echo else self)
        if self._ack:
            self.reply(message, "ok", {})

    def _names_another(self, payload: Any) -> bool:
        """Whether a broadcast of the Jarvis system is in the name of somebody else."""
        event, fields = broadcast_in(payload)
        return event in NAMED_EVENTS and fields.get("user_id") != self._key

    # -- presence

    def _on_presence(self, message: Message) -> None:
        call = message.payload
        if not isinstance(call, Mapping) or "event" not in call:
            self.reply(message, "ok", {})
            return
        if not self._within_limit():
            self.stop("Client presence rate limit exceeded", crashed=False)
            return
        event = call["event"]
        match event.lower() if isinstance(event, str) else None:
            case "track" if self._may_write:
                self._track(message, call.get("payload", {}))
            case "untrack":
                self._topic.untrack(self)
                self.reply(message, "ok", {})
            case _:
                self.reply(message, "error", {})

    def _track(self, message: Message, meta: object) -> None:
        if not isinstance(meta, Mapping):
            self.reply(message, "error", {"reason": "Presence track payload must be a map"})
            return
        held = self._topic.tracked(self)
        if held is None or not same_payload(held.meta, meta):
            try:
                self._topic.track(self, self._key, meta, self._session.allowance)
            except MetaTooLargeError:
                self.stop("Track message size exceeded", crashed=False)
                return
            except NoRoomError as exc:
                self.stop(f"Track refused: {exc}", crashed=False)
                return
        self._hears_diffs = True
        self.reply(message, "ok", {})

    def _within_limit(self) -> bool:
        """Count one more presence call."""
        limit = self._session.presence_limit
        return limit is None or self._calls.take(limit, self._session.topics.clock.now)

    # -- tokens

    def _on_token(self, message: Message) -> None:
        token = message.payload.get("access_token") if isinstance(message.payload, Mapping) else None
        if not isinstance(token, str) or _digest(token) == self._token or token.startswith("sb_"):
            return  # an API key of the new kind, `sb_…`, is not a user's token
        try:
            if self._authorized(token) not in (None, self._key):
                raise JoinRefusedError("The access token is for another presence key")
            if not self._allow(token):
                raise JoinRefusedError(self._no_permission)
        except JoinRefusedError as refused:
            if refused.is_crash:
                self.stop("crashed" + refused.detail, crashed=True)
            else:
                self.stop(_CODE.sub("", refused.reason, count=1), crashed=False)
        else:
            self._token = _digest(token)

    def _allow(self, token: object) -> bool:
        """Set what a client with this token may do, and tell whether it may do anything.

        Raises `JoinRefusedError` when the rule fails.
        """
        rule = self._session.topics.config.private_rule
        if self._private and rule is not None:
            access = ask(rule, self.name, token if isinstance(token, str) else None)
            if access not in ("read", "write", None):
                raise JoinRefusedError("join crashed", f" (the private rule's answer is {access!r:.100})")
            self._may_write = access == "write"
            return access is not None
        return True

    @property
    def _no_permission(self) -> str:
        channel = self.name.removeprefix(SUPABASE_PREFIX)
        return f"You do not have permissions to read from this Channel topic: {channel}"

    def _authorized(self, token: object) -> str | None:
        """The presence key for a client with this token, if there is one. Raises `JoinRefusedError`."""
        rule = self._session.topics.config.authorize
        return authorize(rule, join_request(self.name, token, self._asked_key))

    def _system(self, status: str, text: str, extension: str = "system") -> None:
        channel = self.name.removeprefix(SUPABASE_PREFIX)
        self.push("system", {"channel": channel, "extension": extension, "message": text, "status": status})


def _digest(token: object) -> bytes | None:
    return blake2b(token.encode()).digest() if isinstance(token, str) else None


def _object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the join's payload, which may be missing. Raises `JoinRefusedError`."""
    value = payload.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise JoinRefusedError("UnknownErrorOnChannel: no function clause matching in Access.get/3")
    return value


def _boolean(payload: Mapping[str, Any], name: str) -> bool:
    value = payload.get(name)
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1"))


def _check_replay(broadcast: Mapping[str, Any], *, private: bool) -> None:
    """Refuse what Supabase refuses; see `maybe_replay_messages` in its `realtime_channel.ex`.

    Nothing is replayed: Supabase stores what its database sends, and the hub has none.

    Raises `JoinRefusedError`.
    """
    if "replay" not in broadcast:
        return
    if not private:
        raise JoinRefusedError("UnableToReplayMessages: Replay is not allowed for public channels")
    replay = broadcast["replay"]
    if isinstance(replay, Mapping):
        for value in (replay.get("since"), replay.get("limit")):
            if value not in (None, False) and (isinstance(value, bool) or not isinstance(value, int)):
                raise JoinRefusedError("UnableToReplayMessages: Replay params are not valid")


def _postgres_changes(message: Message) -> list[dict[str, Any]]:
    """What the join subscribes to. One without a config is of an old client: the topic names a table."""
    if "config" not in message.payload:
        parts = message.topic.removeprefix(SUPABASE_PREFIX).split(":", 2)
        return [dict(zip(("schema", "table", "filter"), parts, strict=False))]
    changes = _object(message.payload, "config").get("postgres_changes")
    return [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []


def _inspect(payload: object) -> str:
    """Roughly what Elixir's `inspect` shows of a payload."""
    if isinstance(payload, bytes):
        return f"<<{', '.join(map(str, payload[:50]))}>>"
    return "nil" if payload is None else bytes(encode_payload(payload)).decode()[:100]


def _id_of(change: dict[str, Any]) -> int:
    # Like the server's, the id is a hash of the change, of 27 bits.
    return crc32(bytes(encode_payload(change))) & 0x7FFFFFF
