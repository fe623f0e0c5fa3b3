"""Channels of a Phoenix connection: plain Phoenix channels, and Supabase Realtime channels (`realtime:…`).

The Supabase channels handle presence, broadcasts and tokens as Supabase's server does.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar
from zlib import crc32

from msgspec import Raw

from presence_proto.errors import LocalProtocolError
from presence_proto.events import TopicJoined, TopicLeft
from presence_proto.hub.authorization import Allow, JoinRequest
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

    from presence_proto.endpoint import ConnId
    from presence_proto.hub.authorization import AuthorizeRule
    from presence_proto.hub.limits import Allowance, Rates
    from presence_proto.hub.topic import Topic, Topics


# ----------------------------------------------------------------------------------------------------- member
# The base class of both kinds of channels, and the calls of the rules that decide about a join.


Answer = TypeVar("Answer")


class JoinRefusedError(Exception):
    """The refusal of a join. The hub sends `reason` to the client. The hub's user also receives `detail`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail

    @property
    def is_crash(self) -> bool:
        """Whether the join crashed, for example in a rule. The cause, `detail`, is not sent to the client."""
        return bool(self.detail)


def ask(rule: Callable[..., Answer], *args: Any) -> Answer:
    """Call a rule of the hub's user and return its answer.

    If the rule raises, raise `JoinRefusedError` with `join crashed`, as after a crash in Phoenix's `join/3`.
    """
    try:
        return rule(*args)
    except Exception as exc:
        # Report only the exception's name: its text may quote the client's data, such as a token.
        raise JoinRefusedError("join crashed", f" ({type(exc).__name__} in a rule)") from exc


def authorize(rule: AuthorizeRule | None, request: JoinRequest) -> str | None:
    """Return the client's presence key. Raises `JoinRefusedError` if the rule refuses the join or fails.

    If the reason of a refusal quotes the token, the token is hidden.
    """
    answer = None if rule is None else ask(rule, request)
    if answer is None:
        return request.key
    if isinstance(answer, Allow):
        return request.key if answer.key is None else answer.key
    if not isinstance(answer, str):
        raise JoinRefusedError("join crashed", f" (authorize returned {answer!r:.100})")
    raise JoinRefusedError(answer if request.token is None else hide(answer, [request.token]))


def join_request(topic: str, token: object, key: str | None) -> JoinRequest:
    """Return the request for the `authorize` rule.

    `token` is the value that the client sent as its token. A `token` that is not a string is ignored.
    """
    return JoinRequest(topic, token if isinstance(token, str) else None, key)


def reply_to(message: Message, join_ref: Ref, status: str, response: Any) -> Message:
    """Return the `phx_reply` message that answers `message`."""
    payload: Any = {"status": status, "response": response}
    if payload == _PLAIN_OK:
        payload = _ENCODED_OK
    return Message(join_ref, message.ref, message.topic, "phx_reply", payload)


# The reply to heartbeats and most pushes is encoded only once: the encoding took a sixth of the work for a
# heartbeat.
_PLAIN_OK = {"status": "ok", "response": {}}
_ENCODED_OK = Raw(b'{"status":"ok","response":{}}')


class ChannelSocket(Protocol):
    """The interface that a channel requires of its connection."""

    topics: Topics
    token: str | None
    allowance: Allowance
    rates: Rates

    @property
    def conn(self) -> ConnId:
        """The id of the client's connection."""

    def send(self, message: Message) -> None:
        """Send a message. Raises `LocalProtocolError` when the message cannot be encoded."""

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a message that is shared with other connections."""

    def keep(self, size: int) -> None:
        """Count `size` more bytes as kept for this connection. A negative `size` releases bytes."""

    def freed_by(self, topic: str) -> int:
        """Return the number of bytes released when the channel of `topic` ends."""

    def forget(self, channel: PhoenixMember) -> None:
        """Remove an ended channel from the connection."""


CHANNEL_COST = 256  # bytes counted per channel in addition to its names


class PhoenixMember(ABC):
    """A channel of one connection, from one join to its end: a member and a listener of its topic.

    `join_ref` is the client's `join_ref`. `ref` is the `join_ref` of messages to the client: the client's
    `join_ref`, or the ref of the join message when the client sent no `join_ref`.
    """

    TOO_MANY: ClassVar[str]
    """Refusal reason when the connection has already joined `max_channels` channels."""

    TOO_MANY_JOINS: ClassVar[str]
    """Refusal reason when the connection joins more often than `join_rate` allows."""

    __slots__ = ("_session", "join_ref", "name", "ref")

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        self._session = session
        self.name = message.topic
        self.join_ref = message.join_ref
        self.ref = message.ref if message.join_ref is None else message.join_ref

    # -- differs between plain and Supabase channels

    @property
    @abstractmethod
    def key(self) -> str | None:
        """The presence key of the channel, or `None` for a channel without presence."""

    @abstractmethod
    def response(self, message: Message) -> Mapping[str, Any]:
        """Return the `response` of the reply to the join `message`."""

    @abstractmethod
    def welcome(self, message: Message) -> None:
        """Send the first pushes to a new member, after the reply to its join `message`."""

    @abstractmethod
    def receive(self, message: Message) -> None:
        """Handle a message from the client that is neither a join nor a leave."""

    # -- from join to end

    @property
    def size(self) -> int:
        """Bytes that the channel and its names add to the allowances of the connection and of the hub."""
        names = (self.name, str(self.join_ref), str(self.ref), self.key or "")
        return CHANNEL_COST + sum(len(name.encode()) for name in names)

    @property
    def charge(self) -> int:
        """Bytes that the channel's meta adds to its allowances, or 0 without a meta."""
        tracked = self._topic.tracked(self)
        return 0 if tracked is None else tracked.charge

    def enter(self, message: Message) -> None:
        """Make the channel a member of the topic, after the reply to the join `message`."""
        self._session.keep(self.size)
        self._session.topics.enter(self.name, self).add_listener(self)
        self._session.topics.emit(TopicJoined(self.conn, self.name, self.key))
        self.welcome(message)

    def close(self, reason: str) -> None:
        """Send `phx_close` and leave the topic. The hub's user receives `reason`."""
        self._session.send(Message(self.join_ref, self.join_ref, self.name, "phx_close", {}))
        self.leave(reason)

    def leave(self, reason: str) -> None:
        """Leave the topic without a message to the client."""
        self._topic.remove_listener(self)
        self._session.topics.leave(self.name, self)
        self._session.keep(-self.size)
        self._session.forget(self)
        self._session.topics.emit(TopicLeft(self.conn, self.name, reason))

    # -- messages to the client

    def reply(self, message: Message, status: str, response: Any) -> None:
        """Send the reply to a message from the client."""
        self._session.send(reply_to(message, self.ref, status, response))

    def push(self, event: str, payload: Any) -> None:
        """Send a message to this client only."""
        self._session.send(Message(self.ref, None, self.name, event, payload))

    # -- as a member and a listener of the topic

    @property
    def _topic(self) -> Topic:
        """The topic of the channel, available from `enter` to `leave`."""
        return self._session.topics.by_name[self.name]

    @property
    def conn(self) -> ConnId:
        """The id of the client's connection."""
        return self._session.conn

    def on_broadcast(self, shared: SharedMessage, speaker: str | None) -> None:
        """Forward a message to the client."""
        self._session.send_shared(shared)

    def on_diff(self, diff: Diff) -> None:
        """Forward a presence change to the client."""
        self._session.send_shared(diff.shared)

    def stop(self, reason: str, *, crashed: bool) -> None:
        """End the channel on the hub's behalf: with `phx_error` if `crashed`, else with `phx_close`."""
        if crashed:
            payload = {"reason": "channel_crash"}
            self._session.send(Message(self.join_ref, self.join_ref, self.name, "phx_error", payload))
            self.leave(reason)
        else:
            self.close(reason)


# ------------------------------------------------------------------------------------------------------ plain
# A plain Phoenix channel relays events to the other members. `HubConfig.presence_rule` sets its presence.


class PlainMember(PhoenixMember):
    """A plain Phoenix channel. `HubConfig.presence_rule` sets its presence key and its first meta.

    The client changes the meta with `track` and `untrack`.
    """

    TOO_MANY = "too many channels joined"
    TOO_MANY_JOINS = "too many joins per second"

    __slots__ = ("_key", "_meta")

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        """Create the channel for a join `message`. Raises `JoinRefusedError` when the join is refused."""
        super().__init__(session, message)
        if not isinstance(message.payload, Mapping):
            raise JoinRefusedError("join crashed", " (the payload is not an object)")
        config = session.topics.config
        # The presence rule comes first: it sets the key, which is an argument of `authorize`.
        answer = ask(config.presence_rule, self.name, message.payload)
        key, self._meta = _presence(answer, config.message_nesting)
        # Without a token in the join, use the connection's token, which Phoenix passes to `connect/3`.
        token = message.payload.get("access_token", session.token)
        allowed = authorize(config.authorize, join_request(self.name, token, key))
        self._key = None if key is None else allowed
        if self._key is not None:
            self._check_room(self._key)

    @property
    def key(self) -> str | None:
        """The presence key, or `None` when the presence rule returned `None`."""
        return self._key

    def response(self, message: Message) -> Mapping[str, Any]:
        """Return an empty `response`, because a plain Phoenix channel reports nothing to a join."""
        return {}

    def welcome(self, message: Message) -> None:
        """Send the presence state without this member, then track its first meta."""
        self.push("presence_state", self._topic.state())
        if self._key is not None:
            self._topic.track(self, self._key, self._meta, self._session.allowance)
            self._meta = {}

    def receive(self, message: Message) -> None:
        """Change the member's meta, or relay the event."""
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
        topic = self._topic
        if self._session.rates.allow_delivery(topic.size, shared.size):
            topic.broadcast(shared, speaker=self._key, skip=self)
            self.reply(message, "ok", {})
        else:
            self.reply(message, "error", {"reason": TOO_FAST})

    def _check_room(self, key: str) -> None:
        """Raise `JoinRefusedError` when there is no room for the channel and its meta.

        The check must happen before the join: the hub sends the join reply before it tracks the meta.
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
    """Check the presence rule's answer, and return the key and the meta.

    The caller must call this function before accepting the join. `levels` is the maximum nesting of the meta.
    Raises `JoinRefusedError` for an invalid answer.
    """
    if answer is None:
        return None, {}
    try:
        key, meta = answer
        if not isinstance(key, str):
            raise TypeError("the key is not a string")
        encode_payload({key: dict(meta)}, levels + 1)
    except (LocalProtocolError, TypeError, ValueError) as exc:
        raise JoinRefusedError(
            "join crashed", " (the presence rule did not return a key and a meta)"
        ) from exc
    return key, meta


# --------------------------------------------------------------------------------------------------- supabase


_WINDOW = 30.0  # seconds; a client may make `presence_limit` calls in each window
_CODE = re.compile(r"[A-Z][A-Za-z]+: ")  # the error code before a reason; only join replies carry it


class SupabaseMember(PhoenixMember):
    """A Supabase Realtime channel.

    The `config` in the join's payload sets the channel's options. The client is present only after its first
    track.

    A channel is private when its join sets `private`. For a private channel, `HubConfig.private_rule` decides
    whether the client may write. The hub sends Supabase's texts exactly as recorded from Supabase's server,
    or as in Supabase's source (`realtime_channel.ex`, `presence_handler.ex`).
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
        """Create the channel for a join `message`. Raises `JoinRefusedError` when the join is refused."""
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
        self._presence = _boolean(presence, "enabled")  # whether the client receives the state
        self._private = _boolean(config, "private")
        # A public channel always receives diffs. A private channel without presence receives diffs only after
        # its first track, because Supabase checks the permission to read presence at that track.
        self._hears_diffs = self._presence or not self._private
        self._calls = Bucket(_WINDOW)  # for presence calls
        token = payload.get("access_token") or payload.get("user_token")  # the older name of the field
        self._token = _digest(token)  # a digest is short, and suffices to notice a new token
        key = presence.get("key")
        self._asked_key = key if isinstance(key, str) and key else None
        key = self._authorized(token)
        # With an `authorize` rule, a client must not use another user's id. Supabase does not check user ids.
        rule = session.topics.config.authorize
        self._is_named = rule is not None and self.name == JARVIS_TOPIC
        self._may_write = True
        if not self._allow(token):
            raise JoinRefusedError(f"Unauthorized: {self._no_permission}")
        _check_replay(broadcast, private=self._private)
        self._key = session.topics.ids.key() if key is None else key

    @property
    def key(self) -> str:
        """The presence key, which comes from the `authorize` rule or from the join, or is generated."""
        return self._key

    @property
    def size(self) -> int:
        """Bytes counted for the channel's names, including a requested key that the rule replaced."""
        asked = self._asked_key or self._key
        return super().size + (0 if asked == self._key else len(asked.encode()))

    def response(self, message: Message) -> Mapping[str, Any]:
        """Return the `postgres_changes` that the join requests, each with an id."""
        changes = _postgres_changes(message)
        return {"postgres_changes": [{"id": _id_of(change)} | change for change in changes]}

    def enter(self, message: Message) -> None:
        """Implement `PhoenixMember.enter`."""
        # First flush the leave of this channel's previous join: Supabase does not send that leave to the new
        # join.
        self._session.topics.settle()
        super().enter(message)

    def welcome(self, message: Message) -> None:
        """Send the presence state if presence is enabled, and confirm the `postgres_changes` subscriptions.

        The hub has no database. Therefore, the hub never sends a database change.
        """
        if _boolean(_object(_object(message.payload, "config"), "broadcast"), "replication_ready"):
            self._system("ok", "Replication connection established")
        if self._presence:
            self.push("presence_state", self._topic.state())
        if _postgres_changes(message):
            self._system("ok", "Subscribed to PostgreSQL", "postgres_changes")

    def receive(self, message: Message) -> None:
        """Handle a presence call, a broadcast or a new token. Ignore any other event, as Supabase does."""
        match message.event:
            case "presence":
                self._on_presence(message)
            case "broadcast":
                self._on_broadcast(message)
            case "access_token":
                self._on_token(message)

    def on_diff(self, diff: Diff) -> None:
        """Forward a presence change to the client, if the client receives diffs."""
        if self._hears_diffs:
            self._session.send_shared(diff.shared)  # not via `super()`: this runs for each receiver

    def stop(self, reason: str, *, crashed: bool) -> None:
        """End the channel on the hub's behalf.

        Like Supabase, the hub sends the reason in a `system` message before `phx_close`.
        """
        if not crashed:
            self._system("error", reason)
        super().stop(reason, crashed=crashed)

    # -- broadcasts

    def _on_broadcast(self, message: Message) -> None:
        if not self._may_write:
            return  # without a reply, even when the client asked for an ack
        payload = message.payload
        if isinstance(payload, UserBroadcast):
            # Drop the client's metadata: only the server may send metadata to receivers.
            payload = UserBroadcast(payload.event, payload.payload)
        if self._is_named and self._names_another(payload):
            if self._ack:
                self.reply(message, "error", {"reason": "user_id is not the presence key of the sender"})
            return
        shared = said(self.name, "broadcast", payload)
        topics = self._session.topics
        if shared.size > topics.config.max_payload_size:
            if self._ack:
                self.reply(message, "error", "payload_size_exceeded")
            return
        topic = topics.by_name[self.name]  # not `self._topic`: this is a hot path
        if not self._session.rates.allow_delivery(topic.size, shared.size):
            self.stop(TOO_MANY_MESSAGES, crashed=False)
            return
        topic.broadcast(shared, speaker=self._key, skip=None if self._echo else self)
        if self._ack:
            self.reply(message, "ok", {})

    def _names_another(self, payload: Any) -> bool:
        """Whether a Jarvis broadcast names a user other than its sender in `user_id`."""
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
        topic = self._topic
        held = topic.tracked(self)
        if held is None or not same_payload(held.meta, meta):
            try:
                topic.track(self, self._key, meta, self._session.allowance)
            except MetaTooLargeError:
                self.stop("Track message size exceeded", crashed=False)
                return
            except NoRoomError as exc:
                self.stop(f"Track refused: {exc}", crashed=False)
                return
        self._hears_diffs = True
        self.reply(message, "ok", {})

    def _within_limit(self) -> bool:
        topics = self._session.topics
        limit = topics.config.presence_limit
        return limit is None or self._calls.take(limit, topics.clock.now)

    # -- tokens

    def _on_token(self, message: Message) -> None:
        token = message.payload.get("access_token") if isinstance(message.payload, Mapping) else None
        if not isinstance(token, str) or _digest(token) == self._token or token.startswith("sb_"):
            return  # a new-style API key (`sb_…`) is not a user's token
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
        """Set the client's permission to write. Return whether the client may use the channel.

        Raises `JoinRefusedError` when the rule fails.
        """
        rule = self._session.topics.config.private_rule
        if self._private and rule is not None:
            access = ask(rule, self.name, token if isinstance(token, str) else None)
            if access not in ("read", "write", None):
                raise JoinRefusedError("join crashed", f" (the private rule returned {access!r:.100})")
            self._may_write = access == "write"
            return access is not None
        return True

    @property
    def _no_permission(self) -> str:
        channel = self.name.removeprefix(SUPABASE_PREFIX)
        return f"You do not have permissions to read from this Channel topic: {channel}"

    def _authorized(self, token: object) -> str | None:
        """Return the key from the rule or from the join, if any. Raises `JoinRefusedError` if refused."""
        rule = self._session.topics.config.authorize
        return authorize(rule, join_request(self.name, token, self._asked_key))

    def _system(self, status: str, text: str, extension: str = "system") -> None:
        channel = self.name.removeprefix(SUPABASE_PREFIX)
        self.push("system", {"channel": channel, "extension": extension, "message": text, "status": status})


def _digest(token: object) -> bytes | None:
    return blake2b(token.encode()).digest() if isinstance(token, str) else None


def _object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object `name` of a payload; `{}` if missing. Raises `JoinRefusedError` if not an object."""
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
    """Raise `JoinRefusedError` for the replay options that Supabase refuses.

    The rules are in `maybe_replay_messages` in Supabase's `realtime_channel.ex`. The hub has no database of
    messages and replays nothing.
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
    """Return the subscriptions to database changes in a join.

    In a join without `config`, as old clients send it, the topic names the table.
    """
    if "config" not in message.payload:
        parts = message.topic.removeprefix(SUPABASE_PREFIX).split(":", 2)
        return [dict(zip(("schema", "table", "filter"), parts, strict=False))]
    changes = _object(message.payload, "config").get("postgres_changes")
    return [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []


def _inspect(payload: object) -> str:
    """Return roughly the output of Elixir's `inspect` for a payload."""
    if isinstance(payload, bytes):
        return f"<<{', '.join(map(str, payload[:50]))}>>"
    return "nil" if payload is None else bytes(encode_payload(payload)).decode()[:100]


def _id_of(change: dict[str, Any]) -> int:
    # A 27-bit hash of the change, like the ids of Supabase.
    return crc32(bytes(encode_payload(change))) & 0x7FFFFFF
